"""Padded batches, for a student and for a teacher with another tokenizer."""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import IterableDataset

from geodistill.errors import InputError

Example = Mapping[str, Any]
TEACHER_PREFIX = "teacher_"
"""Of columns with the same text in the teacher's tokens, where its tokenizer is another."""


def first_example(dataset: Any) -> Example:
    """The first example of a dataset; empty if it can only be iterated, or has no mappings."""
    indexed = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    if not indexed or isinstance(dataset, Mapping) or not len(dataset):
        return {}
    example = dataset[0]
    return example if isinstance(example, Mapping) else {}


def teacher_inputs(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher's columns of an example or a batch, under the names that a model takes.

    Example:
        >>> teacher_inputs({"input_ids": [5, 6], "teacher_input_ids": [7]})
        {'input_ids': [7]}
    """
    return {
        name.removeprefix(TEACHER_PREFIX): value
        for name, value in columns.items()
        if name.startswith(TEACHER_PREFIX)
    }


def pad(examples: Sequence[Example], pad_id: int, teacher_pad_id: int = 0) -> dict[str, Tensor]:
    """Collate examples of different lengths, padded on the right.

    Args:
        examples: each with `input_ids`, and optionally `labels` (one label per token, a number, or
            a list of numbers per example, as in multi-label classification), `row` (its index in a
            teacher cache), other columns with a number per token, such as `token_type_ids` (filled
            with 0), `teacher_input_ids` and `teacher_labels`. Other columns are left out.
        pad_id: token id that fills `input_ids`.
        teacher_pad_id: token id that fills `teacher_input_ids`.

    Returns:
        `input_ids`, `attention_mask` and the other columns of tokens (b, t); `labels` (b, t) filled
        with -100, (b,) or (b, labels); `row` (b,); `teacher_input_ids`, `teacher_attention_mask`
        and `teacher_labels` of the teacher's own length.

    Raises:
        InputError: no examples; pad_id is not a number, as of a tokenizer without padding token;
            labels of different kinds.

    Example:
        >>> pad([{"input_ids": [5, 6, 7]}, {"input_ids": [8]}], pad_id=0)["input_ids"].tolist()
        [[5, 6, 7], [8, 0, 0]]
    """
    if not examples:
        raise InputError("examples is empty: expected at least one example")
    if not isinstance(pad_id, int | np.integer):
        raise InputError(
            f"pad_id is {pad_id}: expected a token id; a tokenizer without padding token may use "
            "its end token (tokenizer.pad_token = tokenizer.eos_token)"
        )

    def stack(name: str, fill: int) -> Tensor:
        rows = [_as_long(example[name]) for example in examples]
        return pad_sequence(rows, batch_first=True, padding_value=fill)

    fills = {name: 0 for name in examples[0] if _is_per_token(name, examples)}
    fills |= {"input_ids": pad_id} | ({"labels": -100} if "labels" in fills else {})
    batch = {name: stack(name, fill) for name, fill in fills.items()}
    if "attention_mask" not in batch:
        lengths = torch.tensor([len(e["input_ids"]) for e in examples])
        batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    if "labels" in examples[0] and "labels" not in batch:
        batch["labels"] = _example_labels([e["labels"] for e in examples])
    if "row" in examples[0]:
        batch["row"] = torch.tensor([e["row"] for e in examples])
    if "teacher_input_ids" in examples[0]:
        teacher_batch = pad([teacher_inputs(e) for e in examples], teacher_pad_id)
        batch |= {f"teacher_{name}": tensor for name, tensor in teacher_batch.items()}
    return batch


def _is_per_token(name: str, examples: Sequence[Example]) -> bool:
    """Whether a column has one integer per token of each example."""
    return not name.startswith(TEACHER_PREFIX) and all(
        _are_integers(example.get(name)) and len(example[name]) == len(example["input_ids"])
        for example in examples
    )


def _are_integers(values: Any) -> bool:
    if isinstance(values, Tensor):
        return values.dim() == 1 and not values.is_floating_point()
    if isinstance(values, np.ndarray):
        return values.ndim == 1 and values.dtype.kind in "iub"
    return isinstance(values, list | tuple) and all(isinstance(x, Integral) for x in values)


def _as_long(values: Any) -> Tensor:
    """Integers (t,) as a tensor; a read-only array, as `datasets` gives it, is copied."""
    return torch.as_tensor(
        values.astype(np.int64) if isinstance(values, np.ndarray) else values, dtype=torch.long
    )


def _example_labels(labels: Sequence[Any]) -> Tensor:
    """Labels per example, (b,) or (b, labels), or of a decoder, (b, t) filled with -100.

    Raises:
        InputError: labels of different kinds.
    """
    try:
        if all(_are_integers(label) for label in labels):
            rows = [_as_long(label) for label in labels]
            return pad_sequence(rows, batch_first=True, padding_value=-100)
        return torch.stack([torch.as_tensor(label) for label in labels])
    except (RuntimeError, TypeError, ValueError):
        shown = ", ".join(repr(label)[:40] for label in labels[:3])
        raise InputError(
            f"labels of one batch are {shown}, ...: expected one number or one list per example, "
            "of one kind and, for lists of decimals, of one length"
        ) from None


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


def count_valid_tokens(examples: Sequence[Example], *, shifts_labels: bool = True) -> list[int]:
    """Tokens of each example whose outputs count: labelled ones, or all without token labels.

    Args:
        examples: with `input_ids`, and `labels` if each token has one.
        shifts_labels: whether a label belongs to the position before its token, as in causal
            language models; False for masked language models and token classifiers.

    Example:
        >>> count_valid_tokens([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}])
        [2]
    """
    return [
        sum(int(label) != -100 for label in e["labels"][int(shifts_labels) :])
        if _is_per_token("labels", [e])
        else len(e["input_ids"])
        for e in examples
    ]


def to_device(model: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Move the tensors of a batch to the model's device."""
    device = next(model.parameters()).device
    return {name: x.to(device) if isinstance(x, Tensor) else x for name, x in batch.items()}
