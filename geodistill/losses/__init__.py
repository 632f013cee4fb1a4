"""Distillation losses on features and on logits. Needs torch alone."""

from geodistill.losses.base import FeatureLoss
from geodistill.losses.controls import AlignmentLoss, IsotropyLoss, ShuffledRows, SpectrumLoss
from geodistill.losses.geometry import CKALoss, FeatureGramLoss, ProcrustesLoss
from geodistill.losses.logits import (
    BernoulliKLLoss,
    KLDivergenceLoss,
    LogitLoss,
    SquaredErrorLoss,
    logit_loss_for,
)
from geodistill.losses.moment_loss import MomentLoss
from geodistill.losses.pointwise import CosineLoss, FlexLoss, PatientLoss, PCATargetLoss
from geodistill.losses.projection import OrthogonalProjectionLoss, ProjectionLoss
from geodistill.losses.relational import RelationalLoss

__all__ = [
    "AlignmentLoss",
    "BernoulliKLLoss",
    "CKALoss",
    "CosineLoss",
    "FeatureGramLoss",
    "FeatureLoss",
    "FlexLoss",
    "IsotropyLoss",
    "KLDivergenceLoss",
    "LogitLoss",
    "MomentLoss",
    "OrthogonalProjectionLoss",
    "PCATargetLoss",
    "PatientLoss",
    "ProcrustesLoss",
    "ProjectionLoss",
    "RelationalLoss",
    "ShuffledRows",
    "SpectrumLoss",
    "SquaredErrorLoss",
    "logit_loss_for",
]
