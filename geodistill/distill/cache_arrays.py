"""The array files of a teacher cache: allocated at once, written by rows."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from geodistill import files
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
