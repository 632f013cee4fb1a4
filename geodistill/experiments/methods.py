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
ALIGNMENT = "alignment"
"""The part of Procrustes that the spectrum part leaves."""
BEFORE_FINE_TUNING = "procrustes-pretrained"
"""Procrustes to the features of what the teacher was before it was fine-tuned."""
FEATURE_TERMS = (*MATCHING_TERMS, *CONTROLS, ALIGNMENT, BEFORE_FINE_TUNING)
LABELS_ALONE, ANSWERS_ALONE = "ce", "sft"
BASELINES = ("majority", "tfidf", "frozen", "teacher")
"""Classifiers without a student: the most frequent label, linear models on weighted words and on
the frozen encoder's mean features, and the fine-tuned teacher."""
CLASSIFICATION_METHODS = (*BASELINES, LABELS_ALONE, "kd", *(f"kd+{term}" for term in FEATURE_TERMS))
LOGIT_KINDS: dict[str, Literal["forward", "reverse", "skew"]] = {"kd": "forward", "skew": "skew"}
"""The divergence of each base that distils logits; "sft" learns from the answers, "seqkd" from the
teacher's own answers."""
INSTRUCTION_METHODS = (
    *(
        f"{base}{term}"
        for base in (ANSWERS_ALONE, "kd", "skew", "seqkd")
        for term in ("", *(f"+{name}" for name in MATCHING_TERMS))
    ),
    *(f"{base}+{name}" for base in ("kd", "skew") for name in (*CONTROLS, ALIGNMENT)),
)
INSTRUCTION_REFERENCES = ("lookup", "nearest", "start", "teacher")
"""The most frequent answer of the prompt's template, the answer of the nearest training prompt, the
untrained student, and the teacher."""


def base_of(method: str) -> str:
    """What a method is without its feature term: what precedes the "+"."""
    return method.partition("+")[0]


def term_of(method: str) -> str:
    """The feature term of a method: what follows the "+", or an empty string."""
    return method.partition("+")[2]


def build_feature_loss(
    method: str,
    d_student: int,
    d_teacher: int,
    *,
    teacher_features: Callable[[], Tensor],
    seed: int = 0,
) -> nn.Module | None:
    """Build the feature loss of a method.

    Args:
        method: name of the method.
        d_student: width of the student's features.
        d_teacher: width of the teacher's features.
        teacher_features: returns the teacher's features of the training examples, (n, d_teacher);
            called by the losses that are fitted to them.
        seed: for the losses that draw.

    Returns:
        The loss, or None for a method without a feature term.

    Raises:
        InputError: an unknown term; the message lists the known ones.
    """
    from geodistill import losses

    term = term_of(method)
    if not term:
        return None
    builders: dict[str, Callable[[], nn.Module]] = {
        "projection": lambda: losses.ProjectionLoss(d_student, d_teacher),
        "pca": lambda: losses.PCATargetLoss.fit(teacher_features(), d_student),
        "cka": losses.CKALoss,
        "procrustes": losses.ProcrustesLoss,
        BEFORE_FINE_TUNING: losses.ProcrustesLoss,
        "gram": losses.FeatureGramLoss,
        "procrustes-shuffled": lambda: losses.ShuffledRows(losses.ProcrustesLoss(), seed=seed),
        "spectrum": losses.SpectrumLoss,
        ALIGNMENT: losses.AlignmentLoss,
        "isotropy": losses.IsotropyLoss,
    }
    if term not in builders:
        raise InputError(
            f"method is {method!r}; expected no term after the base or one of {', '.join(builders)}"
        )
    return builders[term]()
