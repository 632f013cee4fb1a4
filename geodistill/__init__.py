"""geodistill: feature-geometry distillation.

The top level is lazy: a name loads its module when it is first used, so that importing geodistill
costs nothing and `geodistill --help` needs no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = {
    "geometry": (
        "MEASURES",
        "SecondMoments",
        "best",
        "best_student",
        "calibrate",
        "cka",
        "epsilon_orthogonal_subset",
        "feature_gram_distance",
        "geometry_kept",
        "linear_regression_r2",
        "mean_canonical_correlation",
        "nuclear_norm",
        "null",
        "orthogonality",
        "participation_ratio",
        "permutation_test",
        "procrustes_distance",
        "procrustes_parts",
        "projection_distance",
        "search_test",
    ),
    "losses": (
        "CKALoss",
        "CosineLoss",
        "FeatureGramLoss",
        "FlexLoss",
        "IsotropyLoss",
        "KLDivergenceLoss",
        "OrthogonalProjectionLoss",
        "PCATargetLoss",
        "PatientLoss",
        "ProcrustesLoss",
        "ProjectionLoss",
        "RelationalLoss",
        "ShuffledRows",
        "SpectrumLoss",
    ),
    "distill": (
        "FeatureDistillation",
        "FeatureDistillationTrainer",
        "FeatureTerm",
        "TeacherCache",
    ),
    "errors": ("AssetError", "InputError"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", *_ROOM_OF]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'geodistill' has no attribute {name!r}")
    return getattr(import_module(f"geodistill.{_ROOM_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
