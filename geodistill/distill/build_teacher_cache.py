"""Build a teacher cache: by one process at a time, complete or not at all."""

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

from geodistill import files
from geodistill.distill.checks import check_length
from geodistill.distill.collate import to_device
from geodistill.distill.feature_term import loss_mask, resolve_layer
from geodistill.distill.hooks import lm_head, teacher_forward
from geodistill.distill.teacher_cache import TeacherCache
from geodistill.errors import InputError

Batch = dict[str, Tensor]
_N_COMPARED = 2  # examples on which a stored cache is compared with the teacher
_TOLERANCE = 0.05  # relative to their norm: passes a bfloat16 teacher, refuses another teacher


@torch.no_grad()
def build_cache(
    teacher: Any,
    batches: Iterable[Batch],
    token_counts: list[int],
    folder: Path,
    *,
    layers: tuple[int, ...],
    top_k: int = 0,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
    progress: files.Progress = print,
) -> TeacherCache:
    """Run the teacher once and store its outputs; a finished cache in `folder` is opened instead.

    Of several processes that want one folder, one builds and the others wait, then open it. A
    stored cache that is damaged, even by one bit, or that differs from this teacher's outputs on
    the first two examples, is built again with a warning.

    Args:
        teacher: model that returns `hidden_states` and `logits`.
        batches: padded model inputs in any order, with the index of each example as `row`; for
            language models also `labels`, whose valid positions are those that predict a label.
        token_counts: valid tokens of each example (`count_valid_tokens`).
        folder: of the cache; it appears when it is complete, so an interrupted build leaves none.
        layers: layers whose features are stored (negative counts from the last).
        top_k: number of largest logits stored per token of a language model, 0 for none; a
            classifier's logits are stored in full.
        on_batch: called after each batch with the examples done and their total.
        progress: gets the size, before anything is written.

    Raises:
        InputError: the disk is too small or fills up; no such layer; top_k out of range; features
            beyond float16's range; token_counts that do not match the batches; texts longer than
            the teacher's positions; a folder with other files.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> teacher = BertForSequenceClassification(BertConfig(hidden_size=48))
        >>> batches = [{"input_ids": torch.tensor([[5, 6, 7], [8, 9, 2]]), "row": torch.arange(2)}]
        >>> with TemporaryDirectory() as parent:
        ...     cache = build_cache(teacher, batches, [3, 3], Path(parent, "cache"), layers=(6,))
        ...     cache.array("features_6").shape
        teacher cache: 0.0 MB to write, ... MB are free
        (6, 48)
    """
    indices = [resolve_layer(layer, teacher.config, "teacher") for layer in layers]
    if top_k and not 0 < top_k < teacher.config.vocab_size:
        raise InputError(f"top_k is {top_k}; expected 0 to {teacher.config.vocab_size - 1}")
    if top_k and lm_head(teacher) is None:
        raise InputError(
            f"top_k is {top_k}, a {type(teacher).__name__} gives no logit per token: expected 0"
        )
    builder = _Builder(teacher.eval(), token_counts, indices, top_k)
    remaining = iter(batches)
    first = next(remaining, None)
    if first is None:
        raise InputError("batches is empty: expected at least one batch")
    folder.parent.mkdir(parents=True, exist_ok=True)
    writable = os.access(folder.parent, os.W_OK)  # a finished cache may be on a read-only disk
    with FileLock(folder.with_name(f"{folder.name}.lock")) if writable else nullcontext():
        if (stored := builder.open_stored(folder, first)) is not None:
            return stored
        for interrupted in folder.parent.glob(f".{folder.name}.*.partial"):
            shutil.rmtree(interrupted, ignore_errors=True)
        try:
            with files.atomic_folder(folder) as partial:
                builder.write(partial, chain([first], remaining), on_batch, progress)
        except OSError as error:
            if not (reason := files.disk_full(error)):
                raise
            raise InputError(
                f"teacher cache {folder}: {reason} while writing, nothing is kept; "
                "set GEODISTILL_CACHE to a larger disk or store fewer layers"
            ) from error
    return TeacherCache(folder)


def _write_rows(array: np.memmap, begin: int, rows: Tensor) -> None:
    """Write rows of an `.npy` file; by plain I/O, since a memory map crashes on a full disk."""
    assert rows.shape[-1] == array.shape[1], f"{array.filename}: {rows.shape[-1]} columns"
    with Path(str(array.filename)).open("r+b") as file:
        file.seek(array.offset + int(begin) * array.strides[0])
        file.write(rows.cpu().numpy().astype(array.dtype).tobytes())


@dataclass(frozen=True)
class _Builder:
    """What to store: outputs of one teacher, valid tokens of each example, layers, top k."""

    teacher: Any
    token_counts: list[int]
    layers: list[int]
    top_k: int

    def forward(self, batch: Batch) -> tuple[Batch, Tensor, Any]:
        """The batch on the teacher's device, its valid positions and the teacher's output."""
        check_length(batch, self.teacher, "teacher")
        batch = to_device(self.teacher, batch)
        mask = loss_mask(batch)
        return batch, mask, teacher_forward(self.teacher, batch, mask)

    def open_stored(self, folder: Path, batch: Batch) -> TeacherCache | None:
        """The cache in `folder` if it is complete and this teacher's; InputError on other files."""
        if not folder.exists() or not any(folder.iterdir()):
            return None
        names = {path.name for path in folder.iterdir() if path.suffix != ".npy"}
        if names != {"manifest.json"}:
            other = ", ".join(sorted(names - {"manifest.json"})[:3]) or "arrays without a manifest"
            raise InputError(
                f"folder {folder} is not a teacher cache, it holds {other}: expected a new or "
                "empty folder"
            )
        try:
            cache = TeacherCache(folder)
            cache.verify_checksums()
            self._compare(cache, {name: x[:_N_COMPARED] for name, x in batch.items()})
        except InputError as error:
            warnings.warn(f"building the teacher cache again: {error}", stacklevel=4)
            return None
        return cache

    def _compare(self, cache: TeacherCache, batch: Batch) -> None:
        """Raise InputError unless the cache holds these layers and the teacher's outputs."""
        for layer in self.layers:
            cache.require_layer(layer)
        n = len(self.token_counts)
        if cache.manifest["top_k"] != self.top_k or len(cache) != n:
            raise InputError(
                f"teacher cache {cache.folder} has top_k {cache.manifest['top_k']} of {len(cache)} "
                f"examples, not {self.top_k} of {n}"
            )
        batch, mask, out = self.forward(batch)
        stored = cache.lookup(batch["row"], mask, self.layers)
        pairs = [(stored.features[i][mask], out.hidden_states[i][mask]) for i in self.layers]
        if stored.top is not None:
            log_probs = out.logits.float().log_softmax(-1)
            known = stored.top[1].clamp_max(log_probs.shape[-1] - 1)  # another vocabulary's differ
            pairs.append((stored.top[0], log_probs.gather(-1, known)))
        elif stored.logits is not None:
            pairs.append((stored.logits, out.logits))
        for old, new in pairs:
            same = old.shape == new.shape
            if not (same and (old - new.float()).norm() <= _TOLERANCE * new.float().norm()):
                raise InputError(
                    f"teacher cache {cache.folder} is another teacher's, or of other texts"
                )

    def write(
        self,
        folder: Path,
        batches: Iterator[Batch],
        on_batch: Callable[[int, int], None],
        progress: files.Progress,
    ) -> None:
        """Write every array, and the manifest last."""
        n, done = len(self.token_counts), 0
        offsets = np.concatenate([[0], np.cumsum(self.token_counts)])
        arrays: dict[str, np.memmap] = {}
        for batch in batches:
            batch, mask, out = self.forward(batch)
            arrays = arrays or self._allocate(folder, out, progress)
            examples = batch["row"].tolist()
            if "logits" in arrays:
                for example, logits in zip(examples, out.logits.float(), strict=True):
                    _write_rows(arrays["logits"], example, logits[None])
            _write_examples(arrays, self._valid_outputs(out, mask), examples, offsets)
            done += len(examples)
            on_batch(done, n)
        if done != n:
            raise InputError(f"token_counts has {n} examples, the batches hold {done}")
        np.save(folder / "offsets.npy", offsets)
        manifest = {
            "layers": self.layers,
            "top_k": self.top_k,
            "num_hidden_layers": int(self.teacher.config.num_hidden_layers),
            "arrays": sorted(arrays),
            "vocabulary": int(self.teacher.config.vocab_size) if self.top_k else None,
            "sha256": {
                name: files.sha256(folder / f"{name}.npy") for name in [*sorted(arrays), "offsets"]
            },
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))

    def _valid_outputs(self, out: Any, mask: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Features and top-k log-probabilities at the valid positions: one tensor per example."""
        outputs = {f"features_{i}": out.hidden_states[i][mask].half() for i in self.layers}
        for name, rows in outputs.items():
            if not bool(torch.isfinite(rows).all()):
                raise InputError(f"teacher {name} exceed float16's range; choose another layer")
        if self.top_k:
            values, indices = out.logits.float().log_softmax(-1).topk(self.top_k, dim=-1)
            outputs |= {"top_values": values, "top_indices": indices}
        counts = mask.sum(dim=1).tolist()
        return {name: rows.split(counts) for name, rows in outputs.items()}

    def _allocate(self, folder: Path, out: Any, progress: files.Progress) -> dict[str, np.memmap]:
        """Empty array files; InputError if the disk is too small."""
        # Widths are the output's: OPT-350m's last layer is not `hidden_size` wide.
        n_tokens = sum(self.token_counts)
        widths = {i: int(out.hidden_states[i].shape[-1]) for i in self.layers}
        shapes = {f"features_{i}": ((n_tokens, d), "float16") for i, d in widths.items()}
        if self.top_k:
            shapes["top_values"] = ((n_tokens, self.top_k), "float32")
            shapes["top_indices"] = ((n_tokens, self.top_k), "int32")
        elif lm_head(self.teacher) is None:
            n_labels = self.teacher.config.num_labels
            shapes["logits"] = ((len(self.token_counts), n_labels), "float32")
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


def _write_examples(
    arrays: dict[str, np.memmap],
    outputs: dict[str, tuple[Tensor, ...]],
    examples: list[int],
    offsets: Any,
) -> None:
    """Write the rows of each example at its offset; refuse an unexpected number of them."""
    for example, *rows in zip(examples, *outputs.values(), strict=True):
        begin, end = offsets[example], offsets[example + 1]
        if len(rows[0]) != end - begin:
            raise InputError(
                f"token_counts: {end - begin} for example {example}, its batch has {len(rows[0])}"
            )
        for name, values in zip(outputs, rows, strict=True):
            _write_rows(arrays[name], begin, values)
