"""The OPT teacher of the computed instructions, trained from scratch on fresh text.

    python -m geodistill.experiments.instruction.computed_teacher [FOLDER]

writes `data/teachers/opt-computed`, or FOLDER: float16 weights, tokenizer, recipe, and the exact
match of each family on validation. No instruction is seen twice, and none has the content of a
validation or test instruction. Families that the teacher does badly are drawn more often. It takes
one to two hours of one core; if it is killed, the same command continues from the last checkpoint
in the user's cache.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.distill.collate import pad, to_device
from geodistill.distill.teacher_cache import cache_key
from geodistill.errors import InputError
from geodistill.experiments.instruction.computed_checkpoint import (
    TrainingState,
    export_teacher,
    load_checkpoint,
    save_checkpoint,
)
from geodistill.experiments.instruction.evaluate import teacher_forced_exact_match
from geodistill.experiments.instruction.generate import Example
from geodistill.experiments.instruction.models import COMPUTED_TEACHER
from geodistill.experiments.provenance import provenance
from geodistill.experiments.training import torch_threads
from geodistill.files import Progress
from geodistill.paths import data_dir
from geodistill.tasks import assets
from geodistill.tasks.computed_families import FAMILIES
from geodistill.tasks.computed_instructions import draw_rows, family_of
from geodistill.tasks.computed_tokenizer import build_tokenizer, check_symbols
from geodistill.tasks.prompts import encode_pair

CHUNK_STEPS = 4
"""Batches drawn together, and divided by length: less padding."""


@dataclass(frozen=True)
class TeacherSettings:
    """Recipe of the teacher: an OPT of pre-norm blocks, AdamW, constant rate with decay at the end.

    Attributes:
        width: hidden size.
        layers: number of blocks.
        heads: of each block.
        positions: longest prompt with answer, in tokens.
        batch_size: instructions per step.
        learning_rate: after `warmup_steps`, until `decay_steps` before the end.
        warmup_steps: of the learning rate, linear from 0.
        decay_steps: of the learning rate, linear to 0 at the last step.
        steps: all of them.
        weight_decay: of AdamW.
        seed: of the initialisation and of the instructions.
        evaluation_steps: steps between two evaluations, each with a checkpoint; a multiple of
            `CHUNK_STEPS`.
        n_validation: instructions of each family in an evaluation.
        threads: of the computation; floating-point sums depend on it.
    """

    width: int = 256
    layers: int = 4
    heads: int = 8
    positions: int = 64
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay_steps: int = 15_600
    steps: int = 31_200
    weight_decay: float = 0.01
    seed: int = 0
    evaluation_steps: int = 300
    n_validation: int = 48
    threads: int = 1


LENGTH_SETTINGS = ("steps", "decay_steps")
"""What a checkpoint doesn't depend on, if it lies before the decay."""


def train_teacher(settings: TeacherSettings, folder: Path, progress: Progress) -> None:
    """Train the teacher, and write it to a folder, completely or not at all.

    Args:
        settings: the recipe.
        folder: to write; an older one is replaced.
        progress: called with a line at each evaluation.

    Raises:
        InputError: an instruction of more tokens than the model has positions.
    """
    made_by = provenance()
    work = checkpoint_folder(settings)
    with torch_threads(settings.threads):
        model, state = fit_teacher(settings, work, progress)
    export_teacher(model, state, {"recipe": asdict(settings), **made_by}, folder)
    shutil.rmtree(work)


def checkpoint_folder(settings: TeacherSettings) -> Path:
    """Where the checkpoints are: the same for a longer training."""
    recipe = {name: v for name, v in asdict(settings).items() if name not in LENGTH_SETTINGS}
    return assets.cache_dir() / "teachers" / f"opt-computed-{cache_key(json.dumps(recipe))}"


def fit_teacher(
    settings: TeacherSettings, folder: Path, progress: Progress
) -> tuple[Any, TrainingState]:
    """Train from the checkpoint in a folder, or from scratch, to the last step.

    Args:
        settings: the recipe.
        folder: of the checkpoint, `checkpoint.safetensors`.
        progress: called with a line at each evaluation.
    """
    tokenizer = build_tokenizer()
    model = build_model(settings, tokenizer)
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.98), weight_decay=settings.weight_decay, fused=True
    )
    checkpoint = folder / "checkpoint.safetensors"
    state = TrainingState(0, dict.fromkeys(FAMILIES, 1.0), [])
    if checkpoint.is_file():
        state = load_checkpoint(checkpoint, model, optimizer)
        progress(f"resumed at step {state.step}")
    validation = _validation(settings, tokenizer)
    losses: list[float] = []
    while state.step < settings.steps:
        for batch in _batches(settings, state, tokenizer):
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * rate_factor(settings, state.step)
            losses.append(_step(model, optimizer, batch))
            state.step += 1
        if state.step % settings.evaluation_steps == 0 or state.step >= settings.steps:
            scores = exact_match_by_family(model, validation, tokenizer.pad_token_id)
            mean_loss = sum(losses) / len(losses)
            losses.clear()
            state.history.append({"step": state.step, "loss": mean_loss, "exact_match": scores})
            state.weights = {name: 1.1 - score for name, score in scores.items()}
            save_checkpoint(checkpoint, model, optimizer, state)
            progress(_line(state.history[-1]))
    return model, state


def build_model(settings: TeacherSettings, tokenizer: Any) -> Any:
    """The untrained teacher.

    Args:
        settings: the recipe.
        tokenizer: of the computed instructions.
    """
    from transformers import OPTConfig, OPTForCausalLM, set_seed

    set_seed(settings.seed)
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        word_embed_proj_dim=settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        ffn_dim=4 * settings.width,
        max_position_embeddings=settings.positions,
        dropout=0.0,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # The fused attention takes four times as long backward in bfloat16 on a CPU.
    config._attn_implementation = "eager"
    return OPTForCausalLM(config)


def rate_factor(settings: TeacherSettings, step: int) -> float:
    """What the learning rate is multiplied by in a step, 0 being the first.

    Example:
        >>> settings = TeacherSettings(warmup_steps=10, decay_steps=100, steps=1000)
        >>> [rate_factor(settings, step) for step in (0, 9, 500, 950)]
        [0.1, 1.0, 1.0, 0.5]
    """
    warmup = (step + 1) / settings.warmup_steps
    return min(1.0, warmup, (settings.steps - step) / settings.decay_steps)


def _batches(
    settings: TeacherSettings, state: TrainingState, tokenizer: Any
) -> Iterator[dict[str, Tensor]]:
    """The batches of the next steps, a function of seed, step and weights alone."""
    generator = Random(f"{settings.seed}/{state.step}")
    rows = draw_rows(generator, CHUNK_STEPS * settings.batch_size, "train", state.weights)
    examples = _encode(rows, tokenizer, settings.positions)
    examples.sort(key=lambda example: len(example["input_ids"]))
    starts = list(range(0, len(examples), settings.batch_size))
    generator.shuffle(starts)
    for start in starts:
        yield pad(examples[start : start + settings.batch_size], tokenizer.pad_token_id)


def _encode(rows: list[dict[str, Any]], tokenizer: Any, positions: int) -> list[Example]:
    examples = [encode_pair(row, tokenizer) for row in rows]
    longest = max(len(example["input_ids"]) for example in examples)
    if longest > positions:
        raise InputError(
            f"positions is {positions}; expected at least {longest}, the tokens of an instruction "
            "with its answer"
        )
    return [{key: e[key] for key in ("input_ids", "labels", "item")} for e in examples]


def _step(model: Any, optimizer: torch.optim.Optimizer, batch: Mapping[str, Tensor]) -> float:
    """One step on the answer tokens, and its loss."""
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        loss = model(**to_device(model, batch)).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def _validation(settings: TeacherSettings, tokenizer: Any) -> list[Example]:
    """The same validation instructions of every family in every evaluation."""
    rows = [
        row
        for name in FAMILIES
        for row in draw_rows(Random(name), settings.n_validation, "validation", {name: 1.0})
    ]
    check_symbols(tokenizer, rows)
    return _encode(rows, tokenizer, settings.positions)


def exact_match_by_family(model: Any, examples: list[Example], pad_id: int) -> dict[str, float]:
    """Share of the answers of each family that greedy decoding gives exactly.

    Args:
        model: a causal language model.
        examples: with `input_ids`, `labels` and `item`.
        pad_id: token for padding.
    """
    is_exact = pd.Series(teacher_forced_exact_match(model, examples, pad_id), dtype=float)
    families = [family_of(example["item"]) for example in examples]
    shares: dict[Any, float] = is_exact.groupby(families, sort=False).mean().to_dict()
    return shares


def _line(entry: Mapping[str, Any]) -> str:
    scores = entry["exact_match"]
    mean = sum(scores.values()) / len(scores)
    families = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
    return f"step {entry['step']}: loss {entry['loss']:.3f}, exact match {mean:.3f} ({families})"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else data_dir() / "teachers" / COMPUTED_TEACHER
    train_teacher(TeacherSettings(), target, partial(print, flush=True))
