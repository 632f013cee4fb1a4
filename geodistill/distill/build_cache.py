"""Build a teacher cache: one process at a time, whole or not at all."""

import errno
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from geodistill.distill.checks import check_length
from geodistill.distill.collate import beside
from geodistill.distill.feature_term import kept_rows, resolve_layer
from geodistill.distill.hooks import head_on_rows, language_head
from geodistill.distill.teacher_cache import TeacherCache, file_hash
from geodistill.errors import InputError

Batch = dict[str, Tensor]
Report = Callable[[int, int], None]
Shapes = dict[str, tuple[tuple[int, int], str]]  # of each array: rows and columns, kind of number
_CHECKED = 2  # examples that a stored cache is compared on
_TOLERANCE = 0.05  # of their norm: a bfloat16 teacher is within it, another teacher is not


@torch.no_grad()
def build_cache(
    teacher: Any,
    batches: Iterable[Batch],
    lengths: list[int],
    folder: Path,
    *,
    layers: tuple[int, ...],
    top_k: int = 0,
    report: Report = lambda done, total: None,
    say: Callable[[str], None] = print,
) -> TeacherCache:
    """Run the teacher once and store what it says; an existing finished cache is opened instead.

    Of several processes that want one folder, one builds and the others wait and open. A stored
    cache that is damaged, to the last bit, or is not what this teacher says of the first two
    examples, is built again, with a warning.

    Args:
        teacher: model with `hidden_states` and `logits`.
        batches: padded model inputs in any order, `row` saying which example each is; with `labels`
            for language models, whose kept rows are the positions that predict a label.
        lengths: kept rows of each example.
        folder: where; written beside and renamed when whole, so a killed run leaves no half cache.
        layers: layers whose features are stored (negative counts from the last).
        top_k: k > 0 stores the language model's k best logits, 0 none of them; a classifier's are
            stored whole.
        report: called with examples done and their total.
        say: told the size, before anything is written.

    Raises:
        InputError: the disk can't hold it, or fills up; no such layer, top_k out of range, features
            outside float16's range, lengths that are not the batches', texts longer than the
            teacher takes, a folder of other files.
    """
    indices = [resolve_layer(layer, teacher.config, "teacher") for layer in layers]
    if top_k and not 0 < top_k < teacher.config.vocab_size:
        raise InputError(f"top_k is {top_k}; expected 0 to {teacher.config.vocab_size - 1}")
    if top_k and language_head(teacher) is None:
        raise InputError(
            f"top_k is {top_k}, a {type(teacher).__name__} gives no logit a token: expected 0"
        )
    teacher.eval()
    rest = iter(batches)
    first = next(rest, None)
    if first is None:
        raise InputError("batches is empty: expected at least one batch")
    folder.parent.mkdir(parents=True, exist_ok=True)
    writable = os.access(folder.parent, os.W_OK)  # a finished cache may be opened where it is not
    with FileLock(folder.with_name(f"{folder.name}.lock")) if writable else nullcontext():
        if (found := _stored(folder, teacher, first, lengths, indices, top_k)) is not None:
            return found
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            _fill(partial, teacher, chain([first], rest), lengths, indices, top_k, report, say)
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(
                f"teacher cache {folder}: {error.strerror} while writing, nothing is kept; "
                "set GEODISTILL_CACHE to a larger disk or store fewer layers"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return TeacherCache(folder)


def _stored(
    folder: Path, teacher: Any, batch: Batch, lengths: list[int], layers: list[int], top_k: int
) -> TeacherCache | None:
    """The cache in `folder` where it is whole and this teacher's; InputError on other files."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    names = {path.name for path in folder.iterdir() if path.suffix != ".npy"}
    if names != {"manifest.json"}:
        other = ", ".join(sorted(names - {"manifest.json"})[:3]) or "arrays without a manifest"
        raise InputError(
            f"folder {folder} is no teacher cache, it holds {other}: expected a new or empty folder"
        )
    try:
        cache = TeacherCache(folder)
        cache.verify()
        _check(cache, teacher, {k: v[:_CHECKED] for k, v in batch.items()}, lengths, layers, top_k)
    except InputError as error:
        warnings.warn(f"building the teacher cache again: {error}", stacklevel=3)
        return None
    return cache


def _check(
    cache: TeacherCache,
    teacher: Any,
    batch: Batch,
    lengths: list[int],
    layers: list[int],
    top_k: int,
) -> None:
    """Raise InputError unless the cache holds these layers and what the teacher says of `batch`."""
    for layer in layers:
        cache.require_layer(layer)
    if cache.manifest["top_k"] != top_k or len(cache) != len(lengths):
        raise InputError(
            f"teacher cache {cache.folder} has top_k {cache.manifest['top_k']} of {len(cache)} "
            f"examples, not {top_k} of {len(lengths)}"
        )
    batch = beside(teacher, batch)
    mask = kept_rows(batch)
    out = _said(teacher, batch, mask)
    found = cache.lookup(batch["row"], mask, layers)
    pairs = [(found.features[layer][mask], out.hidden_states[layer][mask]) for layer in layers]
    if top_k:
        assert found.top is not None
        log_probs = out.logits.float().log_softmax(-1)
        known = found.top[1].clamp_max(log_probs.shape[-1] - 1)  # of another vocabulary: no match
        pairs.append((found.top[0], log_probs.gather(-1, known)))
    elif found.logits is not None:
        pairs.append((found.logits, out.logits))
    for stored, now in pairs:
        same = stored.shape == now.shape
        if not (same and (stored - now.float()).norm() <= _TOLERANCE * now.float().norm()):
            raise InputError(
                f"teacher cache {cache.folder} is another teacher's, or of other texts"
            )


@dataclass(frozen=True)
class _Array:
    """An `.npy` file written by rows. In a memory map a full disk is a crash, here an OSError."""

    path: Path
    kind: str
    offset: int
    stride: int

    @classmethod
    def empty(cls, path: Path, shape: tuple[int, int], kind: str) -> "_Array":
        header = np.lib.format.open_memmap(path, "w+", dtype=kind, shape=shape)
        return cls(path, kind, header.offset, header.strides[0])

    def put(self, begin: int, rows: Tensor) -> None:
        width = self.stride // np.dtype(self.kind).itemsize
        assert rows.shape[-1] == width, f"{self.path.name}: {rows.shape[-1]} numbers, not {width}"
        with self.path.open("r+b") as file:
            file.seek(self.offset + int(begin) * self.stride)
            file.write(rows.cpu().numpy().astype(self.kind).tobytes())


def _fill(
    folder: Path,
    teacher: Any,
    batches: Iterator[Batch],
    lengths: list[int],
    layers: list[int],
    top_k: int,
    report: Report,
    say: Callable[[str], None],
) -> None:
    """Write every array, and the manifest last."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    arrays: dict[str, _Array] = {}
    done = 0
    for batch in batches:
        batch = beside(teacher, batch)
        mask = kept_rows(batch)
        out = _said(teacher, batch, mask)
        if not arrays:  # the layers' widths are known: OPT-350m's last one is not `hidden_size`
            widths = {layer: int(out.hidden_states[layer].shape[-1]) for layer in layers}
            shapes = _shapes(teacher, widths, len(lengths), int(offsets[-1]), top_k)
            arrays = _allocate(folder, shapes, say)
        examples = batch["row"].tolist()
        if "logits" in arrays:
            for example, logits in zip(examples, out.logits.float(), strict=True):
                arrays["logits"].put(example, logits[None])
        _write_rows(arrays, _kept_outputs(out, mask, layers, top_k), examples, offsets)
        done += len(examples)
        report(done, len(lengths))
    if done != len(lengths):
        raise InputError(f"lengths has {len(lengths)} examples, the batches hold {done}")
    np.save(folder / "offsets.npy", offsets)
    manifest = {
        "layers": layers,
        "top_k": top_k,
        "num_hidden_layers": int(teacher.config.num_hidden_layers),
        "arrays": sorted(arrays),
        "vocabulary": int(teacher.config.vocab_size) if top_k else None,
        "sha256": {
            name: file_hash(folder / f"{name}.npy") for name in [*sorted(arrays), "offsets"]
        },
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _said(teacher: Any, batch: Batch, mask: Tensor) -> Any:
    """The teacher's output on a batch; a language model's head on the kept rows alone."""
    check_length(batch, teacher, "teacher")
    given = {k: v for k, v in batch.items() if k not in ("labels", "row")}
    with nullcontext() if language_head(teacher) is None else head_on_rows(teacher, mask):
        return teacher(**given, output_hidden_states=True)


def _kept_outputs(
    out: Any, mask: Tensor, layers: list[int], top_k: int
) -> dict[str, tuple[Tensor, ...]]:
    """Features and top-k log-probabilities of the kept rows: by array, one tensor an example."""
    kept = {f"features_{layer}": out.hidden_states[layer][mask].half() for layer in layers}
    for name, rows in kept.items():
        if not bool(torch.isfinite(rows).all()):
            raise InputError(f"teacher {name} exceed float16's range; choose another layer")
    if top_k:
        values, index = out.logits.float().log_softmax(-1).topk(top_k, dim=-1)
        kept |= {"top_values": values, "top_indices": index}
    counts = mask.sum(dim=1).tolist()
    return {name: rows.split(counts) for name, rows in kept.items()}


def _write_rows(
    arrays: dict[str, _Array],
    stored: dict[str, tuple[Tensor, ...]],
    examples: list[int],
    offsets: Any,
) -> None:
    """Put each example's rows where `offsets` says; refuse a number of rows that is not its own."""
    for example, *rows in zip(examples, *stored.values(), strict=True):
        begin, end = offsets[example], offsets[example + 1]
        if len(rows[0]) != end - begin:
            raise InputError(
                f"lengths: {end - begin} for example {example}, its batch keeps {len(rows[0])}"
            )
        for name, values in zip(stored, rows, strict=True):
            arrays[name].put(begin, values)


def _shapes(teacher: Any, widths: dict[int, int], examples: int, rows: int, top_k: int) -> Shapes:
    shapes: Shapes = {
        f"features_{layer}": ((rows, width), "float16") for layer, width in widths.items()
    }
    if top_k:
        shapes["top_values"] = ((rows, top_k), "float32")
        shapes["top_indices"] = ((rows, top_k), "int32")
    elif language_head(teacher) is None:
        shapes["logits"] = ((examples, teacher.config.num_labels), "float32")
    return shapes


def _allocate(folder: Path, shapes: Shapes, say: Callable[[str], None]) -> dict[str, _Array]:
    """Empty arrays; InputError where the disk can't hold them."""
    size = sum(a * b * np.dtype(kind).itemsize for (a, b), kind in shapes.values())
    free = shutil.disk_usage(folder).free
    if size > 0.9 * free:
        raise InputError(
            f"the teacher cache needs {size / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB free; "
            "set GEODISTILL_CACHE to a larger disk or store fewer layers"
        )
    say(f"teacher cache: {size / 1e6:.1f} MB to write, {free / 1e6:,.0f} MB are free")
    return {
        name: _Array.empty(folder / f"{name}.npy", shape, kind)
        for name, (shape, kind) in shapes.items()
    }
