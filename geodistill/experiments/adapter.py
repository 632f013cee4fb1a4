"""The instruction teacher's LoRA adapter: SmolLM2-135M-Instruct fitted to a task's prompts.

    python -m geodistill.experiments.adapter embedded | t0

writes `data/adapters/smollm2-<task>`: float16 weights, the recipe, and held-out scores before and
after. It needs minutes to an hour on a laptop; the committed adapter saves a reader that.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from geodistill.experiments.instruction import _collate, choose, load_teacher, score
from geodistill.experiments.store import data_dir, provenance
from geodistill.experiments.training import fit, scratch, training_arguments
from geodistill.tasks import load_instructions


@dataclass(frozen=True)
class AdapterSetting:
    """LoRA of every linear layer; prompts from the training part only, scored on validation."""

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


def fit_adapter(setting: AdapterSetting, folder: Path) -> None:
    """Fit the adapter and write it to `folder`."""
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, set_seed

    started = time.perf_counter()
    made_by = provenance()  # before the weights written here count as a change
    data = load_instructions(setting.task)
    teacher, tokenizer = load_teacher("smollm2", "")
    rows, _ = choose(data.train, setting.n_train, tokenizer, setting.max_length)
    held_out, _ = choose(data.validation, setting.n_validation, tokenizer, setting.max_length)
    before, _ = score(teacher, tokenizer, held_out, setting.new_tokens)
    set_seed(setting.seed)
    lora = LoraConfig(
        r=setting.rank, lora_alpha=setting.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(teacher, lora)
    with scratch() as scratch_folder:
        arguments = training_arguments(
            Path(scratch_folder),
            seed=setting.seed,
            num_train_epochs=setting.epochs,
            per_device_train_batch_size=setting.batch_size,
            learning_rate=setting.learning_rate,
            remove_unused_columns=False,
        )
        collate = partial(_without_rows, tokenizer.pad_token_id)
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)
        fit(trainer)
    after, _ = score(model, tokenizer, held_out, setting.new_tokens)
    model.peft_config[
        "default"
    ].base_model_name_or_path = "SmolLM2-135M-Instruct"  # not a local path
    model.save_pretrained(str(folder))
    weights = folder / "adapter_model.safetensors"
    save_file({k: v.half() for k, v in load_file(weights).items()}, weights)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty template
    recipe = {
        "base": "SmolLM2-135M-Instruct (Q4_1), Apache-2.0",
        "recipe": asdict(setting),
        "data_hash": data.data_hash,
        "validation_before": before,
        "validation_after": after,
        "wall_seconds": time.perf_counter() - started,
        **made_by,
    }
    (folder / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n")


def _without_rows(pad_id: int, examples: list[dict[str, object]]) -> dict[str, torch.Tensor]:
    batch = _collate(pad_id, examples)
    del batch["row"]
    return batch


RECIPES = {
    "embedded": AdapterSetting(),
    "t0": AdapterSetting("t0", n_train=4000, n_validation=200),
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in RECIPES:
        sys.exit(f"got {sys.argv[1:]}; expected one task: {' or '.join(RECIPES)}")
    fit_adapter(RECIPES[sys.argv[1]], data_dir() / "adapters" / f"smollm2-{sys.argv[1]}")
