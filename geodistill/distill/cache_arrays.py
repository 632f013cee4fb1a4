"""The array files of a teacher cache, allocated at once and written by rows; what fills them."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geodistill import files
from geodistill.distill.feature_term import Layer
from geodistill.distill.models.features import check_layer, find_module
from geodistill.distill.models.heads import lm_head
from geodistill.errors import InputError


def allocate(
    folder: Path, shapes: dict[str, tuple[tuple[int, int], str]], progress: files.Progress
) -> dict[str, np.memmap]:
    """Empty array files of these shapes and types; InputError if the disk is too small."""
    size = sum(a * b * np.dtype(dtype).itemsize for (a, b), dtype in shapes.values())
    free = shutil.disk_usage(folder).free
    if size > 0.9 * free:
        raise InputError(
            f"the teacher cache needs {size / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB "
            "free; set GEODISTILL_CACHE to a larger disk or store fewer layers"
        )
    progress(f"teacher cache: {size / 1e6:.1f} MB to write, {free / 1e6:,.0f} MB are free")
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
        for name, (shape, dtype) in shapes.items()
    }


def write_rows(array: np.memmap, begin: int, rows: Tensor) -> None:
    """Write rows of an `.npy` file; by plain I/O, since a memory map crashes on a full disk."""
    assert rows.shape[-1] == array.shape[1], f"{array.filename}: {rows.shape[-1]} columns"
    with Path(str(array.filename)).open("r+b") as file:
        file.seek(array.offset + int(begin) * array.strides[0])
        file.write(rows.cpu().numpy().astype(array.dtype).tobytes())


def write_examples(
    arrays: dict[str, np.memmap],
    outputs: dict[str, tuple[Tensor, ...]],
    examples: list[int],
    offsets: Any,
) -> None:
    """Write the rows of each example at its offset; refuse an unexpected number of them."""
    for example, *rows in zip(examples, *outputs.values(), strict=True):
        begin, end = offsets[example], offsets[example + 1]
        if rows and len(rows[0]) != end - begin:
            raise InputError(
                f"token_counts: {end - begin} for example {example}, its batch has {len(rows[0])}"
            )
        for name, values in zip(outputs, rows, strict=True):
            write_rows(arrays[name], begin, values)


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
