"""The teacher runs once: its features and logits on disk, memory-mapped, for every student after.

A cache is a folder: `manifest.json`, and `.npy` arrays whose rows are the kept tokens of all
examples one after another (`offsets.npy` says where each example begins). Features are float16.
Classifier logits are whole; language-model logits keep the `top_k` largest of each position and the
mass of the rest as one further outcome, or are left out.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodistill.errors import InputError


@dataclass(frozen=True)
class TeacherOutputs:
    """What a teacher says of one batch.

    Attributes:
        logits: (b, classes), or (rows, vocabulary), or None where a cache stores `top`.
        features: by layer, (b, t, d); zeros at positions that are not kept.
        top: from a language-model cache, (values, indices) of shape (rows, k): log-probabilities.
        mask: (b, t), the positions kept in `features`; None where they are the student's.
    """

    logits: Tensor | None
    features: dict[int, Tensor] = field(default_factory=dict)
    top: tuple[Tensor, Tensor] | None = None
    mask: Tensor | None = None

    def not_finite(self) -> str:
        """The first with NaN or infinite values at a kept position, in layer order; "" if none."""
        said = {}
        for layer, features in sorted(self.features.items()):
            kept = features if self.mask is None else features[self.mask]
            said[f"features of layer {layer}"] = kept
        if self.logits is not None:
            said["logits"] = self.logits
        return next((name for name, values in said.items() if not values.isfinite().all()), "")

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
        InputError: no finished cache in `folder`, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        manifest = self.folder / "manifest.json"
        if not manifest.is_file():
            raise InputError(f"teacher cache {folder} has no manifest.json; build it again")
        try:
            self.manifest: dict[str, Any] = json.loads(manifest.read_text())
            self.config = SimpleNamespace(num_hidden_layers=self.manifest["num_hidden_layers"])
            self._arrays = {
                name: np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in self.manifest["arrays"]
            }
            self._offsets = np.load(self.folder / "offsets.npy", allow_pickle=False)
        except (OSError, ValueError, KeyError, EOFError) as error:  # what cut files raise
            raise InputError(
                f"teacher cache {folder} is damaged ({error}); build it again"
            ) from error

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def verify(self) -> None:
        """Read every array, about a second a GB; InputError for other bytes than were written.

        Caches that are older than the checksums pass.
        """
        for name, known in self.manifest.get("sha256", {}).items():
            found = file_hash(self.folder / f"{name}.npy")
            if found != known:
                raise InputError(
                    f"teacher cache {self.folder} is damaged ({name}.npy has sha256 {found[:12]}, "
                    f"{known[:12]} is recorded); build it again"
                )

    def require_layer(self, layer: int) -> None:
        """Raise InputError unless features of `layer` (0 = embeddings) are stored."""
        if layer not in self.manifest["layers"]:
            raise InputError(
                f"teacher_layer {layer} is not in the cache {self.folder}; it holds "
                f"{self.manifest['layers']}"
            )

    def require_logits(self, temperature: float) -> None:
        """Raise InputError unless the stored logits serve a logit loss at `temperature`."""
        if not {"logits", "top_values"} & set(self._arrays):
            raise InputError(
                f"the teacher cache {self.folder} holds features alone: drop logit_loss, or build "
                "it with top_k"
            )
        if self.manifest["top_k"] and temperature != 1.0:
            raise InputError(
                f"temperature is {temperature}; a cache of top-{self.manifest['top_k']} logits "
                "serves 1.0 only"
            )

    @property
    def outcomes(self) -> int | None:
        """Logits of the teacher: its labels or tokens; None in caches that don't tell."""
        if "logits" in self._arrays:
            return int(self._arrays["logits"].shape[1])
        return self.manifest.get("vocabulary")

    def array(self, name: str) -> Any:
        """A stored array ("logits", "features_6", ...), memory-mapped."""
        return self._arrays[name]

    def lookup(self, rows: Tensor, mask: Tensor | None, layers: Iterable[int]) -> TeacherOutputs:
        """Outputs for examples `rows` (b,), laid out like the (b, t) `mask` of kept positions.

        Without a mask each example's rows stand at the left: the student's positions are not the
        teacher's where they have different tokenizers.

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
        if mask is None:
            stored = torch.from_numpy(end - begin).to(rows.device)
            mask = torch.arange(int(stored.max()), device=rows.device) < stored[:, None]
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
            return TeacherOutputs(None, features, top, mask)
        logits = None
        if "logits" in self._arrays:
            logits = torch.from_numpy(self._arrays["logits"][index]).to(mask.device)
        return TeacherOutputs(logits, features, mask=mask)

    def _scatter(self, name: str, where: Any, mask: Tensor) -> Tensor:
        stored = torch.from_numpy(self._arrays[name][where]).to(mask.device).float()
        out = stored.new_zeros(*mask.shape, stored.shape[-1])
        out[mask] = stored
        return out


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_key(*parts: str) -> str:
    """Short hash that names a cache: teacher, texts, tokenizer, layers, whatever it depends on."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
