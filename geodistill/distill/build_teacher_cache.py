"""Build a teacher cache: by one process at a time, complete or not at all."""

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from geodistill import files
from geodistill.distill.cache_arrays import (
    allocate,
    check_new,
    check_top_k,
    rows_of,
    stored_layers,
    write_examples,
    write_rows,
)
from geodistill.distill.checks import check_length
from geodistill.distill.checksums import DECODER_INPUTS, input_checksums, inputs_to_check
from geodistill.distill.collate import to_device
from geodistill.distill.feature_term import Layer, loss_mask
from geodistill.distill.hooks import run_teacher
from geodistill.distill.models.features import last_layer
from geodistill.distill.models.heads import has_token_labels, lm_head, takes_labels, text_shape
from geodistill.distill.teacher_cache import TeacherCache
from geodistill.distill.teacher_outputs import TeacherOutputs
from geodistill.errors import InputError

Batch = dict[str, Any]
_N_COMPARED = 2  # examples on which a stored cache is compared with the teacher
_TOLERANCE = 0.05  # relative to their norm: passes a bfloat16 teacher, refuses another teacher


@torch.no_grad()
def build_cache(
    teacher: Any,
    batches: Iterable[Batch],
    token_counts: list[int],
    folder: Path,
    *,
    layers: tuple[Layer, ...],
    top_k: int = 0,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
    progress: files.Progress = print,
) -> TeacherCache:
    """Run the teacher once and store its outputs; a finished cache in `folder` is opened instead.

    Of several processes that want one folder, one builds and the others wait. A stored cache that
    is damaged, even by one bit, of other texts, or of another teacher by its first two examples is
    built again with a warning.

    Args:
        teacher: any module.
        batches: model inputs in any order, padded, with the index of each example as `row`; for
            heads with a logit per token also `labels`, which say what positions are valid.
        token_counts: valid positions of each example (`count_valid_tokens`; of images, their number
            of positions).
        folder: of the cache; it appears when it is complete, so an interrupted build leaves none.
        layers: layers whose features are stored, by number or path, as in `FeatureTerm`.
        top_k: number of largest logits stored per token of a language model, 0 for none; a
            classifier's logits are stored in full.
        on_batch: called after each batch with the examples done and their total.
        progress: gets the size, before anything is written.

    Raises:
        InputError: the disk is too small or fills up; no such layer; top_k out of range; features
            beyond float16's range; token_counts that do not match the batches; rows that are
            missing, out of range or given twice; texts longer than the teacher's positions; a
            folder with other files.

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
    if top_k:
        check_top_k(teacher, top_k)
    folder, counts = Path(folder), [int(count) for count in token_counts]
    builder = _Builder(teacher.eval(), counts, stored_layers(teacher, layers), top_k)
    remaining = iter(batches)
    first = next(remaining, None)
    if first is None:
        raise InputError("batches is empty: expected at least one batch")
    folder.parent.mkdir(parents=True, exist_ok=True)
    writable = os.access(folder.parent, os.W_OK)  # a finished cache may be on a read-only disk
    with FileLock(folder.with_name(f"{folder.name}.lock")) if writable else nullcontext():
        stored, all_batches = builder.open_stored(folder, first, remaining)
        if stored is not None:
            return stored
        files.remove_interrupted(folder)
        try:
            with files.atomic_folder(folder) as partial:
                builder.write(partial, all_batches, on_batch, progress)
        except OSError as error:
            if not (reason := files.disk_full(error)):
                raise
            raise InputError(
                f"teacher cache {folder}: {reason} while writing, nothing is kept; "
                "set GEODISTILL_CACHE to a larger disk or store fewer layers"
            ) from error
    return TeacherCache(folder)


@dataclass(frozen=True)
class _Builder:
    """What to store: outputs of one teacher, valid tokens of each example, layers, top k."""

    teacher: Any
    token_counts: list[int]
    layers: list[Layer]
    top_k: int

    def forward(self, batch: Batch) -> tuple[TeacherOutputs, Tensor]:
        """The teacher's outputs and their valid positions (b, t), the same for every layer."""
        check_length(batch, self.teacher, "teacher")
        n_examples = len(rows_of(batch))
        of_tokens = text_shape(batch) is not None and has_token_labels(batch, self.teacher)
        if of_tokens and not takes_labels(self.teacher):
            raise InputError(
                f"each token has a label, and the teacher {type(self.teacher).__name__} takes no "
                "labels, so which positions count is unknown: expected the model with its head"
            )
        batch = to_device(self.teacher, batch)
        logits = None if lm_head(self.teacher) is None else self.top_k > 0
        out = run_teacher(self.teacher, batch, self.layers, logits=logits)
        masks = [*out.masks.values(), *([] if out.logits_mask is None else [out.logits_mask])]
        if not masks:
            ones = torch.ones(n_examples, 1, dtype=torch.bool)
            masks = [ones if text_shape(batch) is None else loss_mask(batch, self.teacher)]
        if not all(torch.equal(mask, masks[0]) for mask in masks):
            raise InputError(
                f"layers is {self.layers}, which have other positions than one another or than the "
                "logits: expected layers with the same, in a cache each"
            )
        return out, masks[0]

    def open_stored(
        self, folder: Path, first: Batch, others: Iterator[Batch]
    ) -> tuple[TeacherCache | None, Iterator[Batch]]:
        """The cache in `folder` if it is this teacher's and of these texts, and all batches again.

        Raises InputError if the folder holds other files.
        """
        batches: Iterator[Batch] = chain([first], others)
        if not folder.exists() or not any(folder.iterdir()):
            return None, batches
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
            few = {n: x[:_N_COMPARED] if isinstance(x, Tensor) else x for n, x in first.items()}
            self._compare(cache, few)
            to_check: Iterable[Batch] = [first]
            checked = inputs_to_check(first, self.teacher)
            if not any(first[name].is_floating_point() for name in checked):
                batches, to_check = tee(batches)  # texts are small enough to be kept
            for batch in to_check:
                cache.check_examples(batch["row"], batch, self._valid_tokens(batch))
        except InputError as error:
            warnings.warn(f"building the teacher cache again: {error}", stacklevel=4)
            return None, batches
        return cache, batches

    def _valid_tokens(self, batch: Batch) -> Tensor | None:
        return None if text_shape(batch) is None else loss_mask(batch, self.teacher)

    def _compare(self, cache: TeacherCache, batch: Batch) -> None:
        """Raise InputError unless the cache holds these layers and the teacher's outputs."""
        for layer in self.layers:
            cache.check_layer(layer)
        n = len(self.token_counts)
        if cache.manifest["top_k"] != self.top_k or len(cache) != n:
            raise InputError(
                f"teacher cache {cache.folder} has top_k {cache.manifest['top_k']} of {len(cache)} "
                f"examples, not {self.top_k} of {n}"
            )
        out, mask = self.forward(batch)
        stored = cache.lookup(batch["row"].to(mask.device), mask, self.layers)
        pairs = [(stored.features[i][mask], out.features[i][mask]) for i in self.layers]
        if stored.top is not None and out.logits is not None:
            log_probs = out.logits.float().log_softmax(-1)
            known = stored.top[1].clamp_max(log_probs.shape[-1] - 1)  # another vocabulary's differ
            pairs.append((stored.top[0], log_probs.gather(-1, known)))
        elif stored.logits is not None and out.logits is not None:
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
        n = len(self.token_counts)
        written = np.zeros(n, dtype=bool)
        offsets = np.concatenate([[0], np.cumsum(self.token_counts)])
        arrays: dict[str, np.memmap] = {}
        for batch in batches:
            examples = rows_of(batch).tolist()
            check_new(examples, written)
            out, mask = self.forward(batch)
            if not arrays:
                per_token = has_token_labels(batch, self.teacher) or out.logits_mask is not None
                arrays = self._allocate(folder, out, per_token, progress)
                names = inputs_to_check(batch, self.teacher)
                checksums = np.zeros((n, len(names)), dtype=np.int64)
            if "logits" in arrays and not per_token:
                assert out.logits is not None
                for example, logits in zip(examples, out.logits.float(), strict=True):
                    write_rows(arrays["logits"], example, logits[None])
            write_examples(arrays, self._valid_outputs(out, mask, per_token), examples, offsets)
            valid = None if {*DECODER_INPUTS} & {*names} else self._valid_tokens(batch)
            checksums[examples] = input_checksums(batch, names, valid).numpy(force=True)
            written[examples] = True
            on_batch(done := int(written.sum()), n)
        if done != n:
            raise InputError(f"token_counts has {n} examples, the batches hold {done}")
        np.save(folder / "offsets.npy", offsets)
        np.save(folder / "inputs.npy", checksums)
        self._write_manifest(folder, sorted(arrays), names, per_token)

    def _write_manifest(
        self, folder: Path, arrays: list[str], inputs: list[str], per_token: bool
    ) -> None:
        """Write what the arrays hold, and their hashes."""
        hashes = {n: files.sha256(folder / f"{n}.npy") for n in (*arrays, "offsets", "inputs")}
        manifest = {
            "layers": self.layers,
            "top_k": self.top_k,
            "token_logits": per_token,
            "num_hidden_layers": last_layer(self.teacher),
            "arrays": arrays,
            "vocabulary": len(lm_head(self.teacher).weight) if self.top_k else None,
            "inputs": inputs,
            "inputs_sha256": hashes.pop("inputs"),
            "sha256": hashes,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))

    def _valid_outputs(
        self, out: TeacherOutputs, mask: Tensor, per_token: bool
    ) -> dict[str, tuple[Tensor, ...]]:
        """Features and logits at the valid positions: one tensor per example."""
        outputs = {f"features_{i}": out.features[i][mask].half() for i in self.layers}
        for name, rows in outputs.items():
            if not bool(torch.isfinite(rows).all()):
                raise InputError(f"teacher {name} exceed float16's range; choose another layer")
        if self.top_k and out.logits is not None:
            values, indices = out.logits.float().log_softmax(-1).topk(self.top_k, dim=-1)
            outputs |= {"top_values": values, "top_indices": indices}
        elif per_token and out.logits is not None:
            outputs["logits"] = out.logits.float()
        counts = mask.sum(dim=1).tolist()
        return {name: torch.split(rows, counts) for name, rows in outputs.items()}

    def _allocate(
        self, folder: Path, out: TeacherOutputs, per_token: bool, progress: files.Progress
    ) -> dict[str, np.memmap]:
        """Empty array files for outputs like these."""
        # Widths are the output's: OPT-350m's last layer is not `hidden_size` wide.
        n_tokens = sum(self.token_counts)
        widths = {i: int(out.features[i].shape[-1]) for i in self.layers}
        shapes = {f"features_{i}": ((n_tokens, d), "float16") for i, d in widths.items()}
        if self.top_k:
            shapes["top_values"] = ((n_tokens, self.top_k), "float32")
            shapes["top_indices"] = ((n_tokens, self.top_k), "int32")
        elif out.logits is not None:
            rows = n_tokens if per_token else len(self.token_counts)
            shapes["logits"] = ((rows, out.logits.shape[-1]), "float32")
        return allocate(folder, shapes, progress)
