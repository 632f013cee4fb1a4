"""Checks of what `build_cache` is given: layers, number of logits, rows of the examples."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geodistill.distill.feature_term import Layer
from geodistill.distill.models.features import check_layer, find_module
from geodistill.distill.models.heads import lm_head
from geodistill.errors import InputError


def check_top_k(teacher: Any, top_k: int) -> None:
    """Raise InputError unless the teacher has more than `top_k` logits per token."""
    head = lm_head(teacher)
    if head is None:
        raise InputError(
            f"top_k is {top_k}, a {type(teacher).__name__} gives no logit per token: expected 0"
        )
    if not isinstance(top_k, int) or top_k is True or not 0 < top_k < len(head.weight):
        raise InputError(f"top_k is {top_k}; expected 0 to {len(head.weight) - 1}")


def stored_layers(teacher: Any, layers: Iterable[Layer]) -> list[Layer]:
    """Numbers from 0 and full paths, under which the features are stored."""
    if isinstance(layers, int | str):
        raise InputError(f"layers is {layers!r}: expected a list of layers, such as [{layers!r}]")
    named = [check_layer(teacher, layer, "teacher") for layer in layers]
    return [x if isinstance(x, int) else find_module(teacher, x, "teacher")[0] for x in named]


def rows_of(batch: Mapping[str, Any]) -> Tensor:
    """The index of each example of a batch; InputError if it has no column `row`."""
    rows = batch.get("row")
    if not isinstance(rows, Tensor):
        raise InputError("a batch has no column `row`: expected the index of each example (b,)")
    return rows


def check_new(rows: list[int], written: NDArray[np.bool_]) -> None:
    """Raise InputError unless the rows are examples that are not written yet.

    Args:
        rows: of a batch.
        written: whether each example is written (n,).
    """
    n = len(written)
    for row in rows:
        if not 0 <= row < n:
            raise InputError(
                f"row is {row} in a batch, and token_counts has {n} examples: expected 0 to {n - 1}"
            )
    if twice := [row for row in rows if written[row] or rows.count(row) > 1]:
        raise InputError(f"row {twice[0]} comes twice in the batches: expected each example once")
