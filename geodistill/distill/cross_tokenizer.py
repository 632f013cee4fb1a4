"""A teacher that reads the same texts in other tokens than the student: what then is possible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from geodistill.distill.collate import OWN, teachers_own
from geodistill.distill.feature_term import FeatureTerm, kept_rows
from geodistill.errors import InputError

WAY_OUT = (
    "leave logit_loss out; feature terms go on with rows='mean', 'first' or 'last' and examples "
    "that have teacher_input_ids (geodistill.tasks.prompts makes them)"
)


@dataclass
class TeachersTokens:
    """Whether teacher and student read one and the same token ids, and what is refused if not.

    Attributes:
        terms: the feature terms.
        by_token: whether a logit loss compares token with token, as between language models.
        below: name of a trainer that runs the teacher by itself, on the student's ids; or empty.
        reason: why the ids are not the same; empty while nothing says so.
    """

    terms: Sequence[FeatureTerm]
    by_token: bool = False
    below: str = ""
    reason: str = ""

    def differ(self, reason: str) -> None:
        """Note that they differ (no reason: they don't).

        Raises:
            InputError: a loss compares token with token, or the trainer below can't do it.
        """
        self.reason = reason
        if not reason:
            return
        if self.below:
            raise InputError(
                f"the trainer below {self.below} runs the teacher on the student's tokens, but "
                f"{reason}: expected FeatureDistillationTrainer"
            )
        for term in self.terms:
            if term.rows == "all":
                raise InputError(
                    f"{term.name} has rows='all', one row a token, but {reason}: expected "
                    "rows='mean', 'first' or 'last', one row a text"
                )
        if self.by_token:
            raise InputError(f"logit_loss compares token with token, but {reason}: {WAY_OUT}")

    def take(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Take the teacher's own tokens out of a batch; empty where it has none."""
        own = teachers_own(inputs)
        for name in OWN:
            inputs.pop(name, None)
        if own and not self.reason:  # a collator made them, so they are seen only now
            self.differ("the batch has teacher_input_ids, tokens of the teacher's own")
        return own

    def given(
        self, inputs: dict[str, Any], mask: Tensor, own: dict[str, Any], cached: bool
    ) -> tuple[dict[str, Any], Tensor | None]:
        """What the teacher reads and the rows kept of it; no mask where only the cache has it.

        Raises:
            InputError: a live teacher with its own tokenizer, and a batch without its tokens.
        """
        if not self.reason:
            return inputs, mask
        if own:
            return own, kept_rows(own)
        if cached:
            return own, None
        raise InputError(
            f"the batch has no teacher_input_ids, but {self.reason}: expected examples with both "
            "(geodistill.tasks.prompts makes them) and a collator that pads both "
            "(geodistill.distill.pad)"
        )


def why_other_tokens(student: Any, teacher: Any, dataset: Any) -> str:
    """Why the teacher reads other tokens than the student; empty where nothing says so.

    Args:
        student: the tokenizer of the student, or None.
        teacher: that of the teacher, or None.
        dataset: training examples, of which the first is looked at where that can be done.

    Raises:
        InputError: the teacher's tokenizer alone is given, so that nothing can be compared.
    """
    if teacher is not None:
        if student is None:
            raise InputError(
                "teacher_tokenizer is given and processing_class is not: expected both, the "
                "student's tokenizer is processing_class"
            )
        if difference := _difference(student, teacher):
            return difference
    if "teacher_input_ids" in _columns(dataset):
        return "the examples have teacher_input_ids, tokens of the teacher's own"
    return ""


def _difference(student: Any, teacher: Any) -> str:
    """Both tokenizers and a token that tells them apart; empty where they have one vocabulary."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours == theirs:
        return ""
    token = min(t for t in ours.keys() | theirs.keys() if ours.get(t) != theirs.get(t))
    ids = " and ".join(str(vocab.get(token, "none")) for vocab in (ours, theirs))
    return (
        f"processing_class ({_tokenizer(student)}) and teacher_tokenizer ({_tokenizer(teacher)}) "
        f"differ: {token!r} is token {ids}"
    )


def _tokenizer(tokenizer: Any) -> str:
    name = f"{type(tokenizer).__name__} {getattr(tokenizer, 'name_or_path', '')}".strip()
    return f"{name}, {len(tokenizer.get_vocab())} tokens"


def _columns(dataset: Any) -> set[str]:
    """Names that the first example has; none where only iteration would tell."""
    columns = getattr(dataset, "column_names", None)
    if columns is not None:
        return set(columns)
    try:
        first = dataset[0]
    except (TypeError, IndexError, KeyError, NotImplementedError):
        return set()
    return set(first) if isinstance(first, Mapping) else set()
