"""Examples as padded batches: the student's tokens and, of another tokenizer, the teacher's own."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from geodistill.errors import InputError

OWN = ("teacher_input_ids", "teacher_attention_mask", "teacher_labels")
"""The same text in the teacher's own tokens, in an example or in a batch."""


def teachers_own(given: Mapping[str, Any]) -> dict[str, Any]:
    """What an example or a batch has for the teacher alone, named as a model takes it."""
    return {name.removeprefix("teacher_"): given[name] for name in OWN if name in given}


def pad(examples: list[dict[str, Any]], pad_id: int, teacher_pad_id: int = 0) -> dict[str, Tensor]:
    """Examples with `input_ids` (and `labels`, a list or a number, and `row`) as one padded batch.

    `teacher_input_ids` (and `teacher_labels`) are padded by themselves, with `teacher_pad_id`.

    Returns:
        `input_ids`, `attention_mask` (b, t); `labels` (b, t) padded with -100, or (b,); `row` (b,);
        `teacher_input_ids`, `teacher_attention_mask`, `teacher_labels` of the teacher's own length.

    Raises:
        InputError: pad_id is no number, as of a tokenizer without a token for padding.
    """
    if not isinstance(pad_id, int):
        raise InputError(
            f"pad_id is {pad_id}: expected a token's number; a tokenizer without one for padding "
            "may take its end token (tokenizer.pad_token = tokenizer.eos_token)"
        )
    length = max(len(e["input_ids"]) for e in examples)

    def fill(name: str, value: int) -> Tensor:
        return torch.tensor([e[name] + [value] * (length - len(e[name])) for e in examples])

    batch = {"input_ids": fill("input_ids", pad_id)}
    ones = [[1] * len(e["input_ids"]) + [0] * (length - len(e["input_ids"])) for e in examples]
    batch["attention_mask"] = torch.tensor(ones)
    if "labels" in examples[0]:
        whole = isinstance(examples[0]["labels"], list)
        batch["labels"] = (
            fill("labels", -100) if whole else torch.tensor([e["labels"] for e in examples])
        )
    if "row" in examples[0]:
        batch["row"] = torch.tensor([e["row"] for e in examples])
    if "teacher_input_ids" in examples[0]:
        own = pad([teachers_own(e) for e in examples], teacher_pad_id)
        batch |= {f"teacher_{name}": value for name, value in own.items()}
    return batch


def in_batches(
    examples: list[dict[str, Any]], size: int, pad_id: int
) -> Iterator[dict[str, Tensor]]:
    """Padded batches, longest examples first; `row` is an example's place in the list."""
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i]["input_ids"]))
    for start in range(0, len(order), size):
        yield pad([{**examples[i], "row": i} for i in order[start : start + size]], pad_id)


def kept_counts(examples: list[dict[str, Any]]) -> list[int]:
    """Kept rows of each example, as `build_cache` wants them: answer tokens, or all tokens."""
    return [
        sum(label != -100 for label in e["labels"][1:])
        if isinstance(e.get("labels"), list)
        else len(e["input_ids"])
        for e in examples
    ]


def beside(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch on the model's device."""
    return {name: tensor.to(model.device) for name, tensor in batch.items()}
