"""A teacher with another tokenizer: how it is detected, what is refused, what the teacher reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from geodistill.distill.collate import TEACHER_PREFIX, first_example, teacher_inputs
from geodistill.distill.feature_term import FeatureTerm
from geodistill.errors import InputError

CROSS_TOKENIZER_HINT = (
    "leave logit_loss out; feature terms need pooling='mean', 'first' or 'last' and examples with "
    "teacher_input_ids (geodistill.tasks.prompts makes them)"
)


def tokenizer_mismatch(tokenizer: Any, teacher_tokenizer: Any, dataset: Any) -> str:
    """Why teacher and student read different token ids; empty if nothing shows that they do.

    Args:
        tokenizer: the student's tokenizer, or None.
        teacher_tokenizer: the teacher's tokenizer, or None.
        dataset: training examples; the first is inspected if it can be indexed.

    Raises:
        InputError: only the teacher's tokenizer is given, so the two cannot be compared.
    """
    if teacher_tokenizer is not None:
        if tokenizer is None:
            raise InputError(
                "teacher_tokenizer is given and processing_class is not: expected both, the "
                "student's tokenizer is processing_class"
            )
        if difference := _vocabulary_difference(tokenizer, teacher_tokenizer):
            return difference
    columns = getattr(dataset, "column_names", None) or first_example(dataset)
    if "teacher_input_ids" in columns:
        return "the examples have teacher_input_ids, tokens of another tokenizer"
    return ""


def refuse_token_losses(
    mismatch: str, terms: Sequence[FeatureTerm], token_logits: bool, wrapped: str
) -> None:
    """Raise InputError where equal token ids are needed and there is a `mismatch`.

    Args:
        mismatch: from `tokenizer_mismatch`.
        terms: the feature terms.
        token_logits: whether a logit loss compares tokens, as between language models.
        wrapped: name of a trainer that runs the teacher itself on the student's ids, or empty.
    """
    if not mismatch:
        return
    if wrapped:
        raise InputError(
            f"the trainer below {wrapped} runs the teacher on the student's tokens, but "
            f"{mismatch}: expected FeatureDistillationTrainer"
        )
    for term in terms:
        if term.pooling == "all":
            raise InputError(
                f"{term.name} has pooling='all', one row per token, but {mismatch}: expected "
                "pooling='mean', 'first' or 'last', one row per text"
            )
    if token_logits:
        raise InputError(
            f"logit_loss compares token with token, but {mismatch}: {CROSS_TOKENIZER_HINT}"
        )


def pop_teacher_inputs(inputs: dict[str, Any]) -> dict[str, Any]:
    """Remove the teacher's columns from a batch and return them as model inputs; may be empty."""
    names = [name for name in inputs if name.startswith(TEACHER_PREFIX)]
    return teacher_inputs({name: inputs.pop(name) for name in names})


def require_teacher_inputs(teacher_batch: Mapping[str, Any], mismatch: str) -> None:
    """Raise InputError for a batch without the tokens of a teacher that must be run on them."""
    if not teacher_batch:
        raise InputError(
            f"the batch has no teacher_input_ids, but {mismatch}: expected examples with both "
            "(geodistill.tasks.prompts makes them) and a collator that pads both "
            "(geodistill.distill.pad)"
        )


def _vocabulary_difference(tokenizer: Any, teacher_tokenizer: Any) -> str:
    """Both tokenizers and the first token on which they differ; empty if they are the same."""
    student, teacher = tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    if student == teacher:
        return ""
    token = min(t for t in student.keys() | teacher.keys() if student.get(t) != teacher.get(t))
    ids = " and ".join(str(vocabulary.get(token, "none")) for vocabulary in (student, teacher))
    return (
        f"processing_class ({_tokenizer_name(tokenizer)}) and teacher_tokenizer "
        f"({_tokenizer_name(teacher_tokenizer)}) differ: {token!r} is token {ids}"
    )


def _tokenizer_name(tokenizer: Any) -> str:
    name = f"{type(tokenizer).__name__} {getattr(tokenizer, 'name_or_path', '')}".strip()
    return f"{name}, {len(tokenizer.get_vocab())} tokens"
