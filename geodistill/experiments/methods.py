"""The methods under comparison: a base loss, and the feature term that each adds to it.

A method is named `<base>` or `<base>+<term>`, such as `kd+procrustes`. The names load no torch; the
losses are imported when one is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from geodistill.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

MATCHING_TERMS = ("projection", "pca", "cka", "procrustes", "gram")
CONTROLS = ("procrustes-shuffled", "spectrum", "isotropy")
"""Procrustes on shuffled teacher rows, its spectrum part alone, and isotropy without a teacher."""
OTHER_PAPERS = ("orthogonal-projection", "root-cka", "flex", "rkd", "pkd")
ALIGNMENT = "alignment"
"""The part of Procrustes that the spectrum part leaves."""
FEATURE_TERMS = (*MATCHING_TERMS, *CONTROLS, ALIGNMENT, *OTHER_PAPERS)
CLASSIFICATION_METHODS = (
    "ce",
    *(f"ce+{term}" for term in ("cka", "procrustes", "gram")),
    "kd",
    *(f"kd+{term}" for term in FEATURE_TERMS),
)
LOGIT_KINDS: dict[str, Literal["forward", "reverse", "skew"]] = {"kd": "forward", "skew": "skew"}
"""The divergence of each base that distils logits; "sft" learns from the answers, "seqkd" from the
teacher's own answers."""
INSTRUCTION_METHODS = (
    *(
        f"{base}{term}"
        for base in ("sft", "kd", "skew", "seqkd")
        for term in ("", *(f"+{name}" for name in MATCHING_TERMS))
    ),
    *(f"kd+{name}" for name in CONTROLS),
)
INSTRUCTION_REFERENCES = ("unigram", "start", "teacher")
"""A unigram model of the answers, the untrained student, and the teacher."""


def check_method(method: str, known: tuple[str, ...]) -> None:
    """Check the name of a method.

    Raises:
        InputError: it is none of the known ones.
    """
    if method not in known:
        raise InputError(f"method is {method!r}; expected one of {', '.join(known)}")


def term_of(method: str) -> str:
    """The feature term of a method: what follows the "+", or an empty string."""
    return method.partition("+")[2]


def uses_teacher_logits(method: str) -> bool:
    """Whether a classification method distils logits; "ce" and "ce+..." learn from labels."""
    return method.startswith("kd")


def build_feature_loss(
    method: str,
    d_student: int,
    d_teacher: int,
    *,
    teacher_features: Callable[[], Tensor],
    teacher_gradients: Callable[[], Tensor] | None = None,
    seed: int = 0,
    decay: float = 0.0,
) -> nn.Module | None:
    """Build the feature loss of a method.

    Args:
        method: name of the method.
        d_student: width of the student's features.
        d_teacher: width of the teacher's features.
        teacher_features: returns the teacher's features of the training examples, (n, d_teacher);
            called by the losses that are fitted to them.
        teacher_gradients: returns the gradients of the teacher's own loss at these features,
            (n, d_teacher); only the flex loss needs them.
        seed: for the losses that draw.
        decay: of the moving average of moments; 0 for the batch alone.

    Returns:
        The loss, or None for a method without a feature term.

    Raises:
        InputError: the flex loss without gradients.
    """
    from torch import nn

    from geodistill import losses

    term = term_of(method)
    if term == "flex" and teacher_gradients is None:
        raise InputError("the flex loss needs the teacher's gradients, which this study lacks")
    moments = decay or None
    builders: dict[str, Callable[[], nn.Module]] = {
        "projection": lambda: losses.ProjectionLoss(d_student, d_teacher),
        "pca": lambda: losses.PCATargetLoss.fit(teacher_features(), d_student),
        "cka": lambda: losses.CKALoss(decay=moments),
        "procrustes": lambda: losses.ProcrustesLoss(decay=moments),
        "gram": lambda: losses.FeatureGramLoss(decay=moments),
        "procrustes-shuffled": lambda: losses.ShuffledRows(losses.ProcrustesLoss(), seed=seed),
        "spectrum": losses.SpectrumLoss,
        ALIGNMENT: lambda: losses.AlignmentLoss(decay=moments),
        "isotropy": losses.IsotropyLoss,
        "orthogonal-projection": lambda: losses.OrthogonalProjectionLoss(d_student, d_teacher),
        "root-cka": lambda: losses.CKALoss(root=True),
        "flex": lambda: losses.FlexLoss.fit(teacher_gradients(), d_student),  # type: ignore[misc]
        "rkd": losses.RelationalLoss,
        "pkd": lambda: losses.PatientLoss(nn.Linear(d_student, d_teacher)),
    }
    return builders[term]() if term else None
