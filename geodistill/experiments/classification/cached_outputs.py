"""Outputs of a teacher for tokenised texts: run once, kept on disk, read as rows of tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from geodistill.distill import TeacherCache, build_cache
from geodistill.distill.collate import batches_by_length, pad
from geodistill.distill.teacher_cache import cache_key
from geodistill.experiments.classification.settings import INPUTS
from geodistill.experiments.training import torch_threads
from geodistill.files import Progress

if TYPE_CHECKING:
    from datasets import Dataset


def cache_outputs(
    teacher: Any,
    examples: Dataset,
    owner: tuple[str, ...],
    pad_id: int,
    layers: Sequence[int],
    progress: Progress,
    folder: Path,
) -> TeacherCache:
    """Run a teacher on tokenised examples, unless its outputs are stored.

    Args:
        teacher: whose logits and features are kept.
        examples: with a column input_ids.
        owner: what else makes the outputs differ, such as the name of the teacher's folder.
        pad_id: token for padding.
        layers: of the features.
        progress: called with a line for each stage.
        folder: of all such outputs.
    """
    inputs = model_inputs(examples)
    segments = [json.dumps(e["token_type_ids"]) for e in inputs if "token_type_ids" in e]
    ids = json.dumps([e["input_ids"] for e in inputs])
    key = cache_key(*owner, ids, *map(str, layers), *segments)
    with torch_threads(1):  # else the stored sums depend on the process that came first
        return build_cache(
            teacher,
            batches_by_length(inputs, 64, pad_id),
            [len(e["input_ids"]) for e in inputs],
            folder / key,
            layers=tuple(layers),
            progress=progress,
        )


def model_inputs(examples: Dataset) -> list[dict[str, Any]]:
    """What a model reads of tokenised examples, `INPUTS`."""
    return list(examples.select_columns([n for n in INPUTS if n in examples.column_names]))


def cached_features(cache: TeacherCache, examples: Dataset, pad_id: int, index: int = -1) -> Tensor:
    """Cached teacher features of all tokens of some examples, (tokens, d).

    Args:
        cache: of the split of the examples.
        examples: with input_ids and row.
        pad_id: token for padding.
        index: of the layer among those cached.
    """
    batch = pad(list(examples.select_columns(["input_ids", "row"])), pad_id)
    mask = batch["attention_mask"].bool()
    layer = cache.manifest["layers"][index]
    return cache.lookup(batch["row"], mask, [layer]).features[layer][mask]
