"""Padded batches, for a student and for a teacher with another tokenizer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from geodistill.errors import InputError

Example = Mapping[str, Any]
TEACHER_COLUMNS = ("teacher_input_ids", "teacher_attention_mask", "teacher_labels")
"""The same text in the teacher's tokens, where its tokenizer is not the student's."""


def teacher_inputs(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's columns of an example or a batch, under the names that a model takes.

    Example:
        >>> teacher_inputs({"input_ids": [5, 6], "teacher_input_ids": [7]})
        {'input_ids': [7]}
    """
    prefix = "teacher_"
    return {k.removeprefix(prefix): columns[k] for k in TEACHER_COLUMNS if k in columns}


def pad(examples: Sequence[Example], pad_id: int, teacher_pad_id: int = 0) -> dict[str, Tensor]:
    """Collate examples of different lengths, padded on the right.

    Args:
        examples: each with `input_ids`, and optionally `labels` (a list with one label per token,
            or a number), `row` (its index in a teacher cache), `teacher_input_ids` and
            `teacher_labels`.
        pad_id: token id that fills `input_ids`.
        teacher_pad_id: token id that fills `teacher_input_ids`.

    Returns:
        `input_ids` and `attention_mask` (b, t); `labels` (b, t) filled with -100, or (b,); `row`
        (b,); `teacher_input_ids`, `teacher_attention_mask` and `teacher_labels` of the teacher's
        own length.

    Raises:
        InputError: pad_id is not a number, as of a tokenizer without padding token.

    Example:
        >>> pad([{"input_ids": [5, 6, 7]}, {"input_ids": [8]}], pad_id=0)["input_ids"].tolist()
        [[5, 6, 7], [8, 0, 0]]
    """
    if not isinstance(pad_id, int):
        raise InputError(
            f"pad_id is {pad_id}: expected a token id; a tokenizer without padding token may use "
            "its end token (tokenizer.pad_token = tokenizer.eos_token)"
        )

    def stack(sequences: list[list[int]], fill: int) -> Tensor:
        rows = [torch.tensor(sequence, dtype=torch.long) for sequence in sequences]
        return pad_sequence(rows, batch_first=True, padding_value=fill)

    batch = {
        "input_ids": stack([e["input_ids"] for e in examples], pad_id),
        "attention_mask": stack([[1] * len(e["input_ids"]) for e in examples], 0),
    }
    if "labels" in examples[0]:
        labels = [e["labels"] for e in examples]
        per_token = isinstance(labels[0], list)
        batch["labels"] = stack(labels, -100) if per_token else torch.tensor(labels)
    if "row" in examples[0]:
        batch["row"] = torch.tensor([e["row"] for e in examples])
    if "teacher_input_ids" in examples[0]:
        teacher_batch = pad([teacher_inputs(e) for e in examples], teacher_pad_id)
        batch |= {f"teacher_{name}": tensor for name, tensor in teacher_batch.items()}
    return batch


def batches_by_length(
    examples: Sequence[Example], batch_size: int, pad_id: int
) -> Iterator[dict[str, Tensor]]:
    """Padded batches, longest examples first; `row` is the index of an example in the list.

    Example:
        >>> examples = [{"input_ids": [8]}, {"input_ids": [5, 6, 7]}]
        >>> [batch["row"].tolist() for batch in batches_by_length(examples, 1, pad_id=0)]
        [[1], [0]]
    """
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"]))
    for start in range(0, len(order), batch_size):
        yield pad([{**examples[i], "row": i} for i in order[start : start + batch_size]], pad_id)


def count_valid_tokens(examples: Sequence[Example]) -> list[int]:
    """Tokens of each example that `loss_mask` keeps: labelled tokens, or all without token labels.

    Example:
        >>> count_valid_tokens([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}])
        [2]
    """
    return [
        sum(label != -100 for label in e["labels"][1:])
        if isinstance(e.get("labels"), list)
        else len(e["input_ids"])
        for e in examples
    ]


def to_device(model: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move a batch to the model's device."""
    return {name: tensor.to(model.device) for name, tensor in batch.items()}
