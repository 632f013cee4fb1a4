"""geodistill: feature-geometry distillation.

The top level is lazy: a name loads its module when it is first used, so that importing geodistill
costs nothing and `geodistill --help` needs no torch.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "geometry": (
        "MEASURES",
        "SecondMoments",
        "best_student",
        "cka",
        "epsilon_orthogonal_subset",
        "feature_gram_distance",
        "geometry_kept",
        "linear_regression_r2",
        "mean_canonical_correlation",
        "nuclear_norm",
        "orthogonality",
        "participation_ratio",
        "permutation_test",
        "procrustes_distance",
        "procrustes_parts",
        "projection_distance",
        "score_range",
        "search_test",
    ),
    "losses": (
        "AlignmentLoss",
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
    "layers": ("compare_layers",),
    "experiments.your_model": ("YourModelSettings", "distill_your_model"),
    "errors": ("AssetError", "InputError"),
}
_PACKAGE_OF = {name: package for package, names in _NAMES.items() for name in names}
_EXTRAS = {
    "distill": "train",
    "layers": "train,analysis",
    "experiments.your_model": "train,analysis",
}
"""What a subpackage needs beside the base install."""

__all__ = ["__version__", *_PACKAGE_OF]


def __getattr__(name: str) -> Any:
    if name not in _PACKAGE_OF:
        raise AttributeError(f"module 'geodistill' has no attribute {name!r}")
    package = _PACKAGE_OF[name]
    try:
        return getattr(import_module(f"geodistill.{package}"), name)
    except ModuleNotFoundError as error:
        if package not in _EXTRAS or (error.name or "").partition(".")[0] == "geodistill":
            raise
        from geodistill.errors import missing_package

        message = missing_package(error, f"geodistill.{name}", _EXTRAS[package])
        raise ModuleNotFoundError(message, name=error.name) from error


def __dir__() -> list[str]:
    """The names that can be loaded here, since `help` looks at each of them."""
    at_hand = find_spec("numpy") and find_spec("transformers")
    return [name for name in sorted(__all__) if at_hand or _PACKAGE_OF.get(name) not in _EXTRAS]
