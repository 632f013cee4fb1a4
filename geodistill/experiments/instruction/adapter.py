"""The LoRA adapter of the instruction teacher: SmolLM2-135M-Instruct fitted to an instruction set.

    python -m geodistill.experiments.instruction.adapter embedded | t0

writes `data/adapters/smollm2-<task>`: float16 weights, the recipe, and validation scores before and
after. It takes minutes to an hour on a laptop; the committed adapters save a reader that. If it is
killed, the same command continues from the last checkpoint in the user's cache.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from geodistill.distill.teacher_cache import cache_key
from geodistill.experiments.instruction.evaluate import evaluate_model
from geodistill.experiments.instruction.generate import Example
from geodistill.experiments.instruction.models import load_teacher, write_recipe
from geodistill.experiments.instruction.setup import select_pairs
from geodistill.experiments.instruction.train import ProgressCallback, train_on_answers
from geodistill.experiments.provenance import provenance
from geodistill.experiments.training import torch_threads
from geodistill.files import Progress, atomic_folder
from geodistill.paths import data_dir
from geodistill.tasks import assets, load_instructions


@dataclass(frozen=True)
class AdapterSettings:
    """LoRA of every linear layer, on training prompts; scored on validation prompts.

    Attributes:
        task: name of an instruction set.
        n_train: training pairs.
        n_validation: pairs that the scores are taken on.
        rank: of the LoRA matrices.
        alpha: scale of the LoRA update, which is multiplied by alpha / rank.
        epochs: passes over the training pairs.
        batch_size: pairs per optimiser step.
        learning_rate: peak of the linear schedule.
        max_length: longest prompt with answer, in tokens; longer pairs are left out.
        max_new_tokens: longest answer generated for the scores.
        seed: of the initialisation and of the order of pairs.
        save_steps: optimiser steps between two checkpoints, and between two lines of progress.
        threads: of the computation; floating-point sums depend on it.
    """

    task: str = "embedded"
    n_train: int = 1600
    n_validation: int = 100
    rank: int = 8
    alpha: int = 16
    epochs: float = 1.0
    batch_size: int = 16
    learning_rate: float = 5e-4
    max_length: int = 160
    max_new_tokens: int = 32
    seed: int = 0
    save_steps: int = 10
    threads: int = 2


RECIPES = {
    "embedded": AdapterSettings(),
    "t0": AdapterSettings("t0", n_train=4000, n_validation=200),
}


def fit_adapter(settings: AdapterSettings, folder: Path, progress: Progress) -> None:
    """Fit an adapter and write it to a folder, completely or not at all.

    Args:
        settings: of the adapter.
        folder: to write; an older one is replaced.
        progress: called with a line for each stage.
    """
    made_by = provenance()  # before the weights written here count as a change
    data = load_instructions(settings.task)
    recipe = asdict(settings)
    key = cache_key(json.dumps(recipe), data.data_hash)
    work = assets.cache_dir() / "adapters" / f"{settings.task}-{key}"
    progress("loading the teacher")
    teacher, tokenizer = load_teacher("smollm2", "")
    limit = settings.max_length
    train, _ = select_pairs(data.train, settings.n_train, tokenizer, limit)
    validation, _ = select_pairs(data.validation, settings.n_validation, tokenizer, limit)

    def scores(model: Any) -> dict[str, float]:
        return evaluate_model(model, tokenizer, validation, settings.max_new_tokens)[0]

    with torch_threads(settings.threads):
        before = scores(teacher)
        progress(f"before: {before}")
        model, seconds = train_adapter(
            teacher, train, tokenizer.pad_token_id, settings, work / "checkpoints", progress
        )
        after = scores(model)
    progress(f"after: {after}")
    result = {
        "base": "SmolLM2-135M-Instruct (Q4_1), Apache-2.0",
        "recipe": recipe,
        "data_hash": data.data_hash,
        "validation_before": before,
        "validation_after": after,
        "train_seconds": seconds,
        **made_by,
    }
    save_adapter(model, result, folder)
    shutil.rmtree(work)


def train_adapter(
    model: Any,
    examples: list[Example],
    pad_id: int,
    settings: AdapterSettings,
    checkpoints: Path,
    progress: Progress,
) -> tuple[Any, float]:
    """Train a LoRA adapter; a killed training is resumed and ends at the same weights.

    Args:
        model: a causal language model.
        examples: with `input_ids` and `labels`.
        pad_id: token for padding.
        settings: of the adapter.
        checkpoints: folder of the checkpoints.
        progress: called with a line at each checkpoint.

    Returns:
        The model with its adapter, and the seconds of training up to it, over all attempts.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(settings.seed)
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer = train_on_answers(
        get_peft_model(model, lora),
        examples,
        pad_id,
        checkpoints,
        seed=settings.seed,
        callbacks=[ProgressCallback(progress)],
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        save_strategy="steps",
        save_steps=settings.save_steps,
        save_total_limit=2,
        logging_steps=settings.save_steps,
    )
    return trainer.model, sum(log.get("seconds", 0.0) for log in trainer.state.log_history)


def save_adapter(model: Any, recipe: dict[str, Any], folder: Path) -> None:
    """Write the weights in float16 with their recipe, completely or not at all.

    Args:
        model: with its adapter.
        recipe: written to `recipe.json`, with the hash of the weights.
        folder: to write; an older one is replaced.
    """
    model.peft_config["default"].base_model_name_or_path = "SmolLM2-135M-Instruct"  # no local path
    with atomic_folder(folder) as partial_folder:
        model.save_pretrained(str(partial_folder))
        weights = partial_folder / "adapter_model.safetensors"
        save_file({k: v.half() for k, v in load_file(weights).items()}, weights)
        (partial_folder / "README.md").unlink(missing_ok=True)  # peft's empty template
        write_recipe(weights, recipe)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in RECIPES:
        sys.exit(f"got {sys.argv[1:]}; expected one task: {' or '.join(RECIPES)}")
    target = data_dir() / "adapters" / f"smollm2-{sys.argv[1]}"
    fit_adapter(RECIPES[sys.argv[1]], target, partial(print, flush=True))
