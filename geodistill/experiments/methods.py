"""The methods under comparison: the base loss, and the feature term that each adds to it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.losses import (
    CKALoss,
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
from geodistill.losses.logits import Kind


def _none() -> Tensor:
    raise InputError("the flex loss needs the teacher's gradients, which this study has not")


@dataclass(frozen=True)
class Geometry:
    """What a feature loss may depend on besides the batch.

    Attributes:
        d_student, d_teacher: feature widths.
        teacher_rows: gives teacher features (n, d_teacher) of the training examples.
        seed: for losses that draw.
        memory: share of past moments that the losses on moments keep; 0 for the batch alone.
        teacher_gradients: gives those of the teacher's own loss at them, (n, d_teacher).
    """

    d_student: int
    d_teacher: int
    teacher_rows: Callable[[], Tensor]
    seed: int
    memory: float = 0.0
    teacher_gradients: Callable[[], Tensor] = _none


FEATURE_LOSSES: dict[str, Callable[[Geometry], nn.Module]] = {
    "projection": lambda g: ProjectionLoss(g.d_student, g.d_teacher),
    "pca": lambda g: PCATargetLoss.fit(g.teacher_rows(), g.d_student),
    "cka": lambda g: CKALoss(memory=g.memory or None),
    "procrustes": lambda g: ProcrustesLoss(memory=g.memory or None),
    "gram": lambda g: FeatureGramLoss(memory=g.memory or None),
    # The placebo: the same loss, weight and teacher rows, but in random order.
    "procrustes-shuffled": lambda g: ShuffledRows(ProcrustesLoss(), seed=g.seed),
    # Controls: the part of Procrustes that knows no rows; the student's isotropy, no teacher.
    "spectrum": lambda g: SpectrumLoss(),
    "isotropy": lambda g: IsotropyLoss(),
    # Losses of other papers.
    "orthogonal-projection": lambda g: OrthogonalProjectionLoss(g.d_student, g.d_teacher),
    "root-cka": lambda g: CKALoss(root=True),
    "flex": lambda g: FlexLoss.fit(g.teacher_gradients(), g.d_student),
    "rkd": lambda g: RelationalLoss(),
    "pkd": lambda g: PatientLoss(nn.Linear(g.d_student, g.d_teacher)),
}
CLASSIFICATION_METHODS = (
    "ce",
    *(f"ce+{name}" for name in ("cka", "procrustes", "gram")),
    "kd",
    *(f"kd+{name}" for name in FEATURE_LOSSES),
)
EXPLORATORY_METHODS = (
    "ce",
    "kd",
    *(
        f"kd+{name}"
        for name in ("projection", "pca", "cka", "procrustes", "gram", "procrustes-shuffled")
    ),
)
MATCHES = ("projection", "pca", "cka", "procrustes", "gram")
CONTROLS = ("procrustes-shuffled", "spectrum", "isotropy")
LOGIT_KINDS: dict[str, Kind] = {"kd": "forward", "skew": "skew"}
"""Base losses on logits; "sft" learns from the answers, "seqkd" from the teacher's own answers."""
INSTRUCTION_METHODS = (
    *(f"{base}{term}" for base in ("sft", "kd", "skew", "seqkd")
      for term in ("", *(f"+{name}" for name in MATCHES))),
    *(f"kd+{name}" for name in CONTROLS),
)  # fmt: skip
INSTRUCTION_REFERENCES = ("unigram", "start", "teacher")
EXPLORATORY_INSTRUCTION = ("sft", "kd", "kd+procrustes", "kd+procrustes-shuffled")


def check_method(method: str, known: tuple[str, ...]) -> None:
    """Raise InputError unless `method` is one of `known`."""
    if method not in known:
        raise InputError(f"method is {method!r}; expected one of {', '.join(known)}")


def uses_teacher_logits(method: str) -> bool:
    """Whether the method distils logits ("ce" and "ce+..." learn from labels)."""
    return method.startswith("kd")


def feature_loss(method: str, geometry: Geometry) -> nn.Module | None:
    """The feature loss of `method`, what stands after its "+"; None where nothing does."""
    _, _, name = method.partition("+")
    return FEATURE_LOSSES[name](geometry) if name else None
