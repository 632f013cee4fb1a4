"""Distillation losses on features and on logits. Needs torch alone."""

from geodistill.losses.base import FeatureLoss
from geodistill.losses.controls import IsotropyLoss, ShuffledRows, SpectrumLoss
from geodistill.losses.geometry import CKALoss, FeatureGramLoss, ProcrustesLoss
from geodistill.losses.logits import KLDivergenceLoss
from geodistill.losses.maps import OrthogonalProjectionLoss, ProjectionLoss
from geodistill.losses.pooled import MomentLoss
from geodistill.losses.relational import RelationalLoss
from geodistill.losses.units import CosineLoss, FlexLoss, PatientLoss, PCATargetLoss

__all__ = [
    "CKALoss",
    "CosineLoss",
    "FeatureGramLoss",
    "FeatureLoss",
    "FlexLoss",
    "IsotropyLoss",
    "KLDivergenceLoss",
    "MomentLoss",
    "OrthogonalProjectionLoss",
    "PCATargetLoss",
    "PatientLoss",
    "ProcrustesLoss",
    "ProjectionLoss",
    "RelationalLoss",
    "ShuffledRows",
    "SpectrumLoss",
]
