"""Distillation losses on features and on logits. Needs torch alone."""

from geodistill.losses.features import (
    CKALoss,
    FeatureGramLoss,
    FeatureLoss,
    IsotropyLoss,
    PCATargetLoss,
    ProcrustesLoss,
    ProjectionLoss,
    ShuffledRows,
    SpectrumLoss,
)
from geodistill.losses.logits import KLDivergenceLoss

__all__ = [
    "CKALoss",
    "FeatureGramLoss",
    "FeatureLoss",
    "IsotropyLoss",
    "KLDivergenceLoss",
    "PCATargetLoss",
    "ProcrustesLoss",
    "ProjectionLoss",
    "ShuffledRows",
    "SpectrumLoss",
]
