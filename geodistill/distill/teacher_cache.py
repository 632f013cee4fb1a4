"""Stored teacher outputs: the teacher runs once, and every student reads its features and logits.

A cache is a folder with `manifest.json` and `.npy` arrays, opened memory-mapped. Their rows are the
valid tokens of all examples one after another; `offsets.npy` says where each example begins, and
`inputs.npy` holds checksums of what the teacher read, so that no other examples are taken for them.
Features are float16. A classifier's logits are stored in full, one row per example or token; of a
language model's, each position keeps the `top_k` largest, and the mass of all others counts as one
more outcome; or none are kept.
"""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodistill import files
from geodistill.distill.checksums import DECODER_INPUTS, input_checksums
from geodistill.distill.feature_term import Layer, resolve_layer
from geodistill.distill.teacher_outputs import TeacherOutputs
from geodistill.errors import InputError

_MANIFEST_KEYS = {
    "layers", "top_k", "token_logits", "num_hidden_layers", "arrays", "vocabulary", "inputs",
    "inputs_sha256", "sha256",
}  # fmt: skip


class TeacherCache:
    """Stored outputs of one teacher on one list of examples, made by `build_cache`.

    Args:
        folder: of a finished cache.

    Raises:
        InputError: there is no finished cache in `folder`, or it is damaged.

    Example:
        >>> TeacherCache(Path("nowhere"))
        Traceback (most recent call last):
        geodistill.errors.InputError: teacher cache nowhere has no manifest.json; build it again
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        manifest = self.folder / "manifest.json"
        if not manifest.is_file():
            raise InputError(f"teacher cache {folder} has no manifest.json; build it again")
        try:
            self.manifest = _complete_manifest(json.loads(manifest.read_text()))
            self._arrays = {
                name: np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in self.manifest["arrays"]
            }
            self._offsets = np.load(self.folder / "offsets.npy", allow_pickle=False)
            self._inputs = np.load(self.folder / "inputs.npy", allow_pickle=False)
            self._check_lengths()
        # what truncated files raise
        except (OSError, ValueError, TypeError, EOFError, IndexError) as error:
            raise InputError(
                f"teacher cache {folder} is damaged ({error}); build it again"
            ) from error

    def _check_lengths(self) -> None:
        """Raise ValueError unless each array has as many rows as the offsets imply."""
        per_example = ("inputs",) if self.manifest["token_logits"] else ("inputs", "logits")
        for name, array in {**self._arrays, "inputs": self._inputs}.items():
            n = len(self) if name in per_example else int(self._offsets[-1])
            if len(array) != n:
                raise ValueError(f"{name}.npy has {len(array)} rows, offsets.npy implies {n}")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def verify_checksums(self) -> None:
        """Raise InputError if an array differs from its SHA-256 in the manifest.

        Reads all arrays, about a second per GB.
        """
        recorded = {**self.manifest["sha256"], "inputs": self.manifest["inputs_sha256"]}
        for name, expected in recorded.items():
            actual = files.sha256(self.folder / f"{name}.npy")
            if actual != expected:
                raise InputError(
                    f"teacher cache {self.folder} is damaged ({name}.npy has sha256 {actual[:12]}, "
                    f"{expected[:12]} is recorded); build it again"
                )

    def check_layer(self, layer: Layer) -> Layer:
        """The stored layer that a number (0 = embeddings, -1 = last) or the end of a path names.

        Raises:
            InputError: there is none.
        """
        stored = self.manifest["layers"]
        last = self.manifest["num_hidden_layers"]
        if isinstance(layer, int):
            layer = layer if last is None else resolve_layer(layer, last, "teacher")
            matches = [layer] if layer in stored else []
        else:
            matches = [name for name in stored if f".{name}".endswith(f".{layer}")]
        if len(matches) != 1:
            raise InputError(
                f"teacher_layer {layer} is not in the cache {self.folder}; it holds {stored}"
            )
        return matches[0]

    def require_logits(self, temperature: float) -> None:
        """Raise InputError unless stored logits can serve a logit loss at `temperature`."""
        if not {"logits", "top_values"} & set(self._arrays):
            raise InputError(
                f"the teacher cache {self.folder} holds features only: drop logit_loss, or build "
                "it with top_k"
            )
        if self.manifest["top_k"] and temperature != 1.0:
            raise InputError(
                f"temperature is {temperature}; a cache of top-{self.manifest['top_k']} logits "
                "serves 1.0 only"
            )

    @property
    def num_logits(self) -> int | None:
        """Logits of the teacher: its labels or its vocabulary; None if none are stored."""
        if "logits" in self._arrays:
            return int(self._arrays["logits"].shape[1])
        vocabulary: int | None = self.manifest["vocabulary"]
        return vocabulary

    def array(self, name: str) -> Any:
        """A stored array ("logits", "features_6", ...), memory-mapped."""
        return self._arrays[name]

    def check_examples(self, rows: Tensor, inputs: Mapping[str, Any], mask: Tensor | None) -> None:
        """Raise InputError unless a batch holds the examples that these rows were built from.

        Warns of a batch without any input that the teacher read, as with another tokenizer.

        Args:
            rows: indices of the examples (b,).
            inputs: of the teacher, or of a student that reads the same.
            mask: valid tokens (b, t); None for images, speech and the like.
        """
        stored = self.manifest["inputs"]
        names = [name for name in stored if isinstance(inputs.get(name), Tensor)]
        if not names:
            warnings.warn(
                f"the batches have no {' or '.join(stored)} as the teacher read them, so nothing "
                f"shows that their rows of teacher cache {self.folder} are of the same examples",
                stacklevel=2,
            )
            return
        valid = None if {*DECODER_INPUTS} & {*stored} else mask
        index, columns = rows.cpu().numpy(), [stored.index(name) for name in names]
        checksums = input_checksums(inputs, names, valid).cpu().numpy()
        differs = (self._inputs[index][:, columns] != checksums).any(axis=1)
        if differs.any():
            raise InputError(
                f"teacher cache {self.folder}: example {index[differs][0]} has other "
                f"{' or '.join(names)}, or labels at other tokens, than the cache was built from: "
                "expected each example's own row, or a cache built from these examples; inputs "
                "that change from epoch to epoch (random masks, augmented images) need "
                "teacher_model"
            )

    def lookup(self, rows: Tensor, mask: Tensor | None, layers: Iterable[Layer]) -> TeacherOutputs:
        """Outputs for some examples.

        Args:
            rows: indices of the examples (b,).
            mask: valid positions (b, t), at which the stored rows are placed; None places them at
                the left, for a teacher whose tokens are not the student's.
            layers: whose features are read.

        Raises:
            InputError: no such example, or its number of valid tokens is not the stored one: the
                cache was built from other texts, tokens or truncation.
        """
        index = rows.cpu().numpy()
        if index.min() < 0 or index.max() >= len(self):
            raise InputError(
                f"teacher cache {self.folder} holds examples 0 to {len(self) - 1}; the batch asks "
                f"for rows {index.min()} to {index.max()}"
            )
        begin, end = self._offsets[index], self._offsets[index + 1]
        if mask is None:
            counts = torch.from_numpy(end - begin).to(rows.device)
            mask = torch.arange(int(counts.max()), device=rows.device) < counts[:, None]
        valid = mask.sum(dim=1).cpu().numpy()
        if not np.array_equal(end - begin, valid):
            i = int(np.flatnonzero(end - begin != valid)[0])
            raise InputError(
                f"teacher cache {self.folder}: example {index[i]} has {end[i] - begin[i]} stored "
                f"rows, the batch keeps {valid[i]}; it was built from other texts or tokens"
            )
        stored = np.concatenate([np.arange(b, e) for b, e in zip(begin, end, strict=True)])

        def read(name: str, where: Any) -> Tensor:
            return torch.from_numpy(self._arrays[name][where]).to(rows.device)

        features = {i: _scatter(read(f"features_{i}", stored).float(), mask) for i in layers}
        logits, top = None, None
        per_token = self.manifest["token_logits"]
        if "logits" in self._arrays:
            logits = read("logits", stored if per_token else index)
        if self.manifest["top_k"]:
            top = read("top_values", stored), read("top_indices", stored).long()
        masks = dict.fromkeys(features, mask)
        return TeacherOutputs(logits, features, top, masks, mask if per_token else None)


def _complete_manifest(manifest: Any) -> dict[str, Any]:
    """The manifest; ValueError unless it lists every array that it implies."""
    if not isinstance(manifest, dict):
        raise ValueError(f"manifest.json holds {type(manifest).__name__}, not an object")
    if missing := _MANIFEST_KEYS - manifest.keys():
        raise ValueError(f"manifest.json lacks {', '.join(sorted(missing))}")
    implied = {f"features_{layer}" for layer in manifest["layers"]}
    if manifest["top_k"]:
        implied |= {"top_values", "top_indices"}
    if missing := implied - set(manifest["arrays"]):
        raise ValueError(f"manifest.json lists no array {', '.join(sorted(missing))}")
    return manifest


def _scatter(rows: Tensor, mask: Tensor) -> Tensor:
    """Rows (n, d) at the n True positions of a mask (b, t), zeros elsewhere."""
    features = rows.new_zeros(*mask.shape, rows.shape[-1])
    features[mask] = rows
    return features


def cache_key(*parts: str) -> str:
    """Short hash that names a cache, of all it depends on: teacher, texts, tokenizer, layers."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
