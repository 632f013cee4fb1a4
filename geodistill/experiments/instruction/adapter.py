"""The instruction teacher's LoRA adapter: SmolLM2-135M-Instruct fitted to a task's prompts.

    python -m geodistill.experiments.instruction.adapter embedded | t0

writes `data/adapters/smollm2-<task>`: float16 weights, the recipe, and held-out scores before and
after. It needs minutes to an hour on a laptop; the committed adapter saves a reader that. Killed,
the same command goes on from its last checkpoint in the user's cache.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from geodistill.distill import FeatureDistillationTrainer
from geodistill.distill.teacher_cache import cache_key
from geodistill.experiments.instruction.evaluate import Example, score
from geodistill.experiments.instruction.models import load_teacher
from geodistill.experiments.instruction.setup import choose, collate
from geodistill.experiments.run_store import data_dir, provenance
from geodistill.experiments.training import fit, last_checkpoint, threads, training_arguments
from geodistill.tasks import assets, load_instructions

Report = Callable[[str], None]


@dataclass(frozen=True)
class AdapterSetting:
    """LoRA of every linear layer; prompts from the training part only, scored on validation.

    Attributes:
        save_steps: optimiser steps between two checkpoints, and between two lines of progress.
        threads: of the computation; sums depend on it, so it belongs to the recipe.
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
    new_tokens: int = 32
    seed: int = 0
    save_steps: int = 10
    threads: int = 2


def fit_adapter(setting: AdapterSetting, folder: Path, report: Report) -> None:
    """Fit the adapter and write it to `folder`, whole or not at all."""
    made_by = provenance()  # before the weights written here count as a change
    data = load_instructions(setting.task)
    recipe = asdict(setting)
    key = cache_key(json.dumps(recipe), data.data_hash)
    work = assets.cache_dir() / "adapters" / f"{setting.task}-{key}"
    work.mkdir(parents=True, exist_ok=True)
    report("loading the teacher")
    teacher, tokenizer = load_teacher("smollm2", "")
    rows, _ = choose(data.train, setting.n_train, tokenizer, setting.max_length)
    held_out, _ = choose(data.validation, setting.n_validation, tokenizer, setting.max_length)
    with threads(setting.threads):
        before = _kept(
            work / "before.json",
            lambda: score(teacher, tokenizer, held_out, setting.new_tokens)[0],
        )
        report(f"before: {before}")
        model, seconds = train_adapter(
            teacher, rows, tokenizer.pad_token_id, setting, work / "checkpoints", report
        )
        after, _ = score(model, tokenizer, held_out, setting.new_tokens)
    report(f"after: {after}")
    written = {
        "base": "SmolLM2-135M-Instruct (Q4_1), Apache-2.0",
        "recipe": recipe,
        "data_hash": data.data_hash,
        "validation_before": before,
        "validation_after": after,
        "train_seconds": seconds,
        **made_by,
    }
    save_adapter(model, written, folder)
    shutil.rmtree(work)


def _kept(path: Path, make: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The scores stored at `path`; made and stored where there are none yet."""
    if not path.is_file():
        partial_file = path.with_suffix(".partial")
        partial_file.write_text(json.dumps(make()))
        partial_file.replace(path)
    scores: dict[str, float] = json.loads(path.read_text())
    return scores


def train_adapter(
    model: Any,
    rows: list[Example],
    pad_id: int,
    setting: AdapterSetting,
    checkpoints: Path,
    report: Report,
) -> tuple[Any, float]:
    """LoRA training that goes on from the last whole checkpoint, to the same weights.

    Returns:
        The model with its adapter, and the seconds of training, of all attempts that were kept.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(setting.seed)
    lora = LoraConfig(
        r=setting.rank, lora_alpha=setting.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    arguments = training_arguments(
        checkpoints,
        seed=setting.seed,
        num_train_epochs=setting.epochs,
        per_device_train_batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        remove_unused_columns=False,
        save_strategy="steps",
        save_steps=setting.save_steps,
        save_total_limit=2,
        logging_steps=setting.save_steps,
    )
    # Without a teacher it is a plain trainer, with the head computed for the answers alone.
    trainer = FeatureDistillationTrainer(
        model=get_peft_model(model, lora),
        args=arguments,
        train_dataset=rows,
        data_collator=partial(collate, pad_id),
        callbacks=[Progress(report)],
    )
    fit(trainer, resume=last_checkpoint(checkpoints))
    spent = [log["seconds"] for log in trainer.state.log_history if "seconds" in log]
    return trainer.model, sum(spent)


class Progress(TrainerCallback):
    """A line a log: step, loss, minutes left; the seconds since the last one are kept."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.since = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.since = time.perf_counter()
        if state.global_step:
            self.report(f"going on from step {state.global_step}")

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" not in logs:
            return
        now = time.perf_counter()
        seconds, self.since = now - self.since, now
        state.log_history[-1]["seconds"] = seconds
        left = (state.max_steps - state.global_step) * seconds / args.logging_steps / 60
        self.report(
            f"step {state.global_step} of {state.max_steps}, loss {logs['loss']:.3f}, "
            f"about {left:.0f} minutes left"
        )


def save_adapter(model: Any, recipe: dict[str, Any], folder: Path) -> None:
    """Weights in float16 with their recipe; by rename, so that no half adapter is ever found."""
    model.peft_config["default"].base_model_name_or_path = "SmolLM2-135M-Instruct"  # no local path
    unfinished = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(str(unfinished))
    weights = unfinished / "adapter_model.safetensors"
    save_file({k: v.half() for k, v in load_file(weights).items()}, weights)
    (unfinished / "README.md").unlink(missing_ok=True)  # peft's empty template
    recipe = {**recipe, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    (unfinished / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)


RECIPES = {
    "embedded": AdapterSetting(),
    "t0": AdapterSetting("t0", n_train=4000, n_validation=200),
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in RECIPES:
        sys.exit(f"got {sys.argv[1:]}; expected one task: {' or '.join(RECIPES)}")
    target = data_dir() / "adapters" / f"smollm2-{sys.argv[1]}"
    fit_adapter(RECIPES[sys.argv[1]], target, partial(print, flush=True))
