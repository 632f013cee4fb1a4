"""Measures of representation geometry, exact and calibrated. Needs torch alone."""

from geodistill.geometry.calibration import (
    Calibration,
    best,
    best_student,
    calibrate,
    geometry_kept,
    null,
)
from geodistill.geometry.constructions import (
    Construction,
    antiparallel,
    controlled_teacher,
    flat_halves,
    from_spectra,
    nearly_orthogonal_teacher,
    spread_mass,
    welch_bound,
)
from geodistill.geometry.measures import (
    MEASURES,
    Measure,
    cka,
    feature_gram_distance,
    procrustes_distance,
    procrustes_parts,
    projection_distance,
)
from geodistill.geometry.moments import SecondMoments
from geodistill.geometry.nuclear import nuclear_norm
from geodistill.geometry.orthogonality import (
    epsilon_orthogonal_subset,
    orthogonality,
    participation_ratio,
)

__all__ = [
    "MEASURES",
    "Calibration",
    "Construction",
    "Measure",
    "SecondMoments",
    "antiparallel",
    "best",
    "best_student",
    "calibrate",
    "cka",
    "controlled_teacher",
    "epsilon_orthogonal_subset",
    "feature_gram_distance",
    "flat_halves",
    "from_spectra",
    "geometry_kept",
    "nearly_orthogonal_teacher",
    "nuclear_norm",
    "null",
    "orthogonality",
    "participation_ratio",
    "procrustes_distance",
    "procrustes_parts",
    "projection_distance",
    "spread_mass",
    "welch_bound",
]
