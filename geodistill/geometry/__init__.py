"""Measures of representation geometry and their normalised scores. Needs torch alone."""

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
from geodistill.geometry.dimensionality import (
    epsilon_orthogonal_subset,
    orthogonality,
    participation_ratio,
)
from geodistill.geometry.measure_properties import CONVENTIONS, MEASURES, Convention, Measure
from geodistill.geometry.measures import (
    cka,
    feature_gram_distance,
    linear_regression_r2,
    mean_canonical_correlation,
    procrustes_distance,
    procrustes_parts,
    projection_distance,
)
from geodistill.geometry.normalized_score import (
    ScoreRange,
    best_student,
    ceiling,
    chance_level,
    geometry_kept,
    score_range,
)
from geodistill.geometry.nuclear import nuclear_norm
from geodistill.geometry.outliers import Diagnosis, diagnose, inlier_mask
from geodistill.geometry.permutation import (
    PermutationTest,
    SearchTest,
    permutation_test,
    search_test,
)
from geodistill.geometry.pooling import channels_last
from geodistill.geometry.streaming import SecondMoments

__all__ = [
    "CONVENTIONS",
    "MEASURES",
    "Construction",
    "Convention",
    "Diagnosis",
    "Measure",
    "PermutationTest",
    "ScoreRange",
    "SearchTest",
    "SecondMoments",
    "antiparallel",
    "best_student",
    "ceiling",
    "chance_level",
    "channels_last",
    "cka",
    "controlled_teacher",
    "diagnose",
    "epsilon_orthogonal_subset",
    "feature_gram_distance",
    "flat_halves",
    "from_spectra",
    "geometry_kept",
    "inlier_mask",
    "linear_regression_r2",
    "mean_canonical_correlation",
    "nearly_orthogonal_teacher",
    "nuclear_norm",
    "orthogonality",
    "participation_ratio",
    "permutation_test",
    "procrustes_distance",
    "procrustes_parts",
    "projection_distance",
    "score_range",
    "search_test",
    "spread_mass",
    "welch_bound",
]
