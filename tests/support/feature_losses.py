"""One loss of each kind, and features on which none of them is zero."""

import torch
from torch import nn

from geodistill.losses import (
    AlignmentLoss,
    CKALoss,
    CosineLoss,
    FeatureGramLoss,
    FlexLoss,
    IsotropyLoss,
    OrthogonalProjectionLoss,
    PatientLoss,
    PCATargetLoss,
    ProcrustesLoss,
    ProjectionLoss,
    RelationalLoss,
    ShuffledRows,
    SpectrumLoss,
)
from support.random_rows import normal

D_S, D_T = 4, 7


TEACHER = normal(3, 10, D_T) * torch.arange(1, D_T + 1) + 1
STUDENT = normal(3, 10, D_S, seed=1) - 2


def build_losses() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "procrustes": ProcrustesLoss(),
        "gram": FeatureGramLoss(),
        "cka": CKALoss(),
        "cka-root": CKALoss(root=True),
        "cka-debiased": CKALoss(debiased=True),
        "projection": ProjectionLoss(D_S, D_T),
        "orthogonal": OrthogonalProjectionLoss(D_S, D_T),
        "cosine": CosineLoss(nn.Linear(D_S, D_T)),
        "patient": PatientLoss(nn.Linear(D_S, D_T)),
        "relational": RelationalLoss(),
        "flex": FlexLoss.fit(TEACHER, D_S),
        "pca": PCATargetLoss.fit(TEACHER, D_S),
        "spectrum": SpectrumLoss(),
        "alignment": AlignmentLoss(),
        "isotropy": IsotropyLoss(),
        "shuffled": ShuffledRows(ProcrustesLoss()),
    }


NAMES = list(build_losses())
