"""The computed teacher on disk: its training in one file, the finished model in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from geodistill.experiments.instruction.models import write_recipe
from geodistill.files import atomic_file, atomic_folder
from geodistill.tasks.computed_tokenizer import build_tokenizer


@dataclass
class TrainingState:
    """What a checkpoint holds beside weights and optimizer.

    Attributes:
        step: number of steps done.
        weights: relative frequency of each family in the next steps.
        history: one entry per evaluation: `step`, `loss` (mean since the last one) and
            `exact_match` by family.
    """

    step: int
    weights: dict[str, float]
    history: list[dict[str, Any]]


def save_checkpoint(
    file: Path, model: Any, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Write weights, optimizer and state to one file, completely or not at all."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"model/{name}"] = parameter.detach().contiguous()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}/{name}"] = value
    with atomic_file(file) as partial_file:
        save_file(tensors, partial_file, metadata={"state": json.dumps(asdict(state))})


def load_checkpoint(file: Path, model: Any, optimizer: torch.optim.Optimizer) -> TrainingState:
    """Read what `save_checkpoint` wrote, into model and optimizer."""
    with safe_open(file, "pt") as tensors:
        for name, parameter in model.named_parameters():
            parameter.data.copy_(tensors.get_tensor(f"model/{name}"))
            optimizer.state[parameter] = {
                key: tensors.get_tensor(f"{key}/{name}")
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
        return TrainingState(**json.loads(tensors.metadata()["state"]))


def export_teacher(
    model: Any, state: TrainingState, made_by: Mapping[str, Any], folder: Path
) -> None:
    """Write weights in float16, tokenizer and recipe, completely or not at all.

    Args:
        model: trained.
        state: of the training, whose last evaluation is written.
        made_by: written to `recipe.json`.
        folder: to write; an older one is replaced.
    """
    recipe = {**made_by, "validation_exact_match": state.history[-1]["exact_match"]}
    with atomic_folder(folder) as partial_folder:
        model.half().save_pretrained(partial_folder)
        build_tokenizer().save_pretrained(partial_folder)
        write_recipe(partial_folder / "model.safetensors", recipe)
