"""The teacher runs once: its features and logits on disk, memory-mapped, for every student after.

A cache is a folder: `manifest.json`, and `.npy` arrays whose rows are the kept tokens of all
examples one after another (`offsets.npy` says where each example begins). Features are float16.
Classifier logits are whole; language-model logits keep the `top_k` largest of each position and the
mass of the rest as one further outcome.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodistill.distill.capture import head_on_rows
from geodistill.distill.terms import kept_rows, resolve_layer
from geodistill.errors import InputError

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class TeacherOutputs:
    """What a teacher says of one batch.

    Attributes:
        logits: (b, classes), or (rows, vocabulary), or None where a cache stores `top`.
        features: by layer, (b, t, d); zeros at positions that are not kept.
        top: from a language-model cache, (values, indices) of shape (rows, k): log-probabilities.
    """

    logits: Tensor | None
    features: dict[int, Tensor] = field(default_factory=dict)
    top: tuple[Tensor, Tensor] | None = None

    def comparable_logits(self, student: Tensor) -> tuple[Tensor, Tensor]:
        """Student logits (rows, vocabulary) and the teacher's as (rows, outcomes).

        From a cache the outcomes are the teacher's top k and one bucket for all others; the
        Kullback-Leibler divergence on them is a lower bound of the full one (data processing).

        Raises:
            InputError: the vocabularies differ.
        """
        student = student.float()
        if self.top is None:
            assert self.logits is not None
            if self.logits.shape[-1] != student.shape[-1]:
                raise InputError(
                    f"the teacher has {self.logits.shape[-1]} logits, the student "
                    f"{student.shape[-1]}; logit distillation needs one tokenizer: "
                    "drop logit_loss, or give the student the teacher's"
                )
            return student, self.logits
        values, indices = self.top
        return bucketed(student.log_softmax(-1), indices), with_tail(values)


def bucketed(log_probs: Tensor, indices: Tensor) -> Tensor:
    """Log-probabilities (rows, vocabulary) as k + 1 outcomes: at `indices` (rows, k), the rest."""
    return with_tail(log_probs.gather(-1, indices))


def with_tail(top: Tensor) -> Tensor:
    """Append log(1 - sum of exp) to log-probabilities (rows, k)."""
    mass = top.exp().sum(-1, keepdim=True)
    rest = (1 - mass).clamp_min(torch.finfo(top.dtype).eps)
    return torch.cat([top, rest.log()], dim=-1)


class TeacherCache:
    """Stored outputs of one teacher on one list of examples.

    Open with `TeacherCache(folder)`; make with `build_cache`.

    Raises:
        InputError: no finished cache in `folder`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        manifest = self.folder / "manifest.json"
        if not manifest.is_file():
            raise InputError(f"teacher cache {folder} has no manifest.json; build it again")
        self.manifest: dict[str, Any] = json.loads(manifest.read_text())
        self.config = SimpleNamespace(num_hidden_layers=self.manifest["num_hidden_layers"])
        self._arrays = {
            name: np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in self.manifest["arrays"]
        }
        self._offsets = np.load(self.folder / "offsets.npy", allow_pickle=False)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def require_layer(self, layer: int) -> None:
        """Raise InputError unless features of `layer` (0 = embeddings) are stored."""
        if layer not in self.manifest["layers"]:
            raise InputError(
                f"teacher_layer {layer} is not in the cache {self.folder}; it holds "
                f"{self.manifest['layers']}"
            )

    def require_logits(self, temperature: float) -> None:
        """Raise InputError unless the stored logits serve a logit loss at `temperature`."""
        if self.manifest["top_k"] and temperature != 1.0:
            raise InputError(
                f"temperature is {temperature}; a cache of top-{self.manifest['top_k']} logits "
                "serves 1.0 only"
            )

    def array(self, name: str) -> Any:
        """A stored array ("logits", "features_6", ...), memory-mapped."""
        return self._arrays[name]

    def lookup(self, rows: Tensor, mask: Tensor, layers: Iterable[int]) -> TeacherOutputs:
        """Outputs for examples `rows` (b,), laid out like the (b, t) `mask` of kept positions.

        Raises:
            InputError: no such example, or its number of kept tokens is not the stored one: other
                texts, tokenizer or truncation than the cache was built from.
        """
        index = rows.cpu().numpy()
        if index.min() < 0 or index.max() >= len(self):
            raise InputError(
                f"teacher cache {self.folder} holds examples 0 to {len(self) - 1}; the batch asks "
                f"for rows {index.min()} to {index.max()}"
            )
        begin, end = self._offsets[index], self._offsets[index + 1]
        kept = mask.sum(dim=1).cpu().numpy()
        if not np.array_equal(end - begin, kept):
            i = int(np.flatnonzero(end - begin != kept)[0])
            raise InputError(
                f"teacher cache {self.folder}: example {index[i]} has {end[i] - begin[i]} stored "
                f"rows, the batch keeps {kept[i]}; it was built from other texts or tokens"
            )
        where = np.concatenate([np.arange(b, e) for b, e in zip(begin, end, strict=True)])
        features = {layer: self._scatter(f"features_{layer}", where, mask) for layer in layers}
        if self.manifest["top_k"]:
            top = (
                torch.from_numpy(self._arrays["top_values"][where]).to(mask.device),
                torch.from_numpy(self._arrays["top_indices"][where]).long().to(mask.device),
            )
            return TeacherOutputs(None, features, top)
        return TeacherOutputs(
            torch.from_numpy(self._arrays["logits"][index]).to(mask.device), features
        )

    def _scatter(self, name: str, where: Any, mask: Tensor) -> Tensor:
        stored = torch.from_numpy(self._arrays[name][where]).float().to(mask.device)
        out = stored.new_zeros(*mask.shape, stored.shape[-1])
        out[mask] = stored
        return out


def cache_key(*parts: str) -> str:
    """Short hash that names a cache: teacher, texts, tokenizer, layers, whatever it depends on."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@torch.no_grad()
def build_cache(
    teacher: Any,
    batches: Iterable[Batch],
    lengths: list[int],
    folder: Path,
    *,
    layers: tuple[int, ...],
    top_k: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> TeacherCache:
    """Run the teacher once and store what it says; an existing finished cache is opened instead.

    Args:
        teacher: model with `hidden_states` and `logits`.
        batches: padded model inputs in any order, `row` saying which example each is; with `labels`
            for language models, whose kept rows are the positions that predict a label.
        lengths: kept rows of each example.
        folder: where; written beside and renamed when whole, so a killed run leaves no half cache.
        layers: layers whose features are stored (negative counts from the last).
        top_k: 0 stores whole classifier logits, k > 0 the language model's k best.
        report: called with examples done and their total.

    Raises:
        InputError: the disk can't hold it, no such layer, top_k out of range, features outside
            float16's range, lengths that are not the batches'.
    """
    if (folder / "manifest.json").is_file():
        return TeacherCache(folder)
    indices = [resolve_layer(layer, teacher.config, "teacher") for layer in layers]
    if top_k and not 0 < top_k < teacher.config.vocab_size:
        raise InputError(f"top_k is {top_k}; expected 0 to {teacher.config.vocab_size - 1}")
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    arrays = _allocate(teacher.config, partial, indices, len(lengths), int(offsets[-1]), top_k)
    teacher.eval()
    done = 0
    for batch in batches:
        given = {k: v for k, v in batch.items() if k not in ("labels", "row")}
        mask = kept_rows(batch)
        with head_on_rows(teacher, mask) if top_k else nullcontext():
            out = teacher(**given, output_hidden_states=True)
        stored = _kept_outputs(out, mask, indices, top_k)
        if not top_k:
            arrays["logits"][batch["row"].numpy()] = out.logits.float().cpu().numpy()
        _write_rows(arrays, stored, batch["row"].tolist(), offsets)
        done += len(batch["row"])
        report(done, len(lengths))
    if done != len(lengths):
        raise InputError(f"lengths has {len(lengths)} examples, the batches hold {done}")
    for array in arrays.values():
        array.flush()
    np.save(partial / "offsets.npy", offsets)
    manifest = {
        "layers": indices,
        "top_k": top_k,
        "num_hidden_layers": int(teacher.config.num_hidden_layers),
        "arrays": sorted(arrays),
    }
    (partial / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return TeacherCache(folder)


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
    arrays: dict[str, Any], stored: dict[str, tuple[Tensor, ...]], examples: list[int], offsets: Any
) -> None:
    """Put each example's rows where `offsets` says; refuse a number of rows that is not its own."""
    for example, *rows in zip(examples, *stored.values(), strict=True):
        begin, end = offsets[example], offsets[example + 1]
        if len(rows[0]) != end - begin:
            raise InputError(
                f"lengths: {end - begin} for example {example}, its batch keeps {len(rows[0])}"
            )
        for name, values in zip(stored, rows, strict=True):
            arrays[name][begin:end] = values.cpu().numpy()


def _allocate(
    config: Any, folder: Path, layers: list[int], examples: int, rows: int, top_k: int
) -> dict[str, Any]:
    shapes: dict[str, tuple[tuple[int, int], str]] = {
        f"features_{layer}": ((rows, config.hidden_size), "float16") for layer in layers
    }
    if top_k:
        shapes["top_values"] = ((rows, top_k), "float32")
        shapes["top_indices"] = ((rows, top_k), "int32")
    else:
        shapes["logits"] = ((examples, config.num_labels), "float32")
    size = sum(a * b * np.dtype(kind).itemsize for (a, b), kind in shapes.values())
    free = shutil.disk_usage(folder).free
    if size > 0.9 * free:
        raise InputError(
            f"the teacher cache needs {size / 1e6:.0f} MB, {folder} has {free / 1e6:.0f} MB free; "
            "set GEODISTILL_CACHE to a larger disk or store fewer layers"
        )
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype=kind, shape=shape)
        for name, (shape, kind) in shapes.items()
    }
