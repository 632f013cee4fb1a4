"""Prompts with answers: a causal language model learns to answer as its teacher does."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from geodistill.distill.collate import pad
from geodistill.distill.students import check_layers
from geodistill.errors import InputError
from geodistill.experiments.instruction.evaluate import answer_nll
from geodistill.experiments.instruction.feature_metrics import teacher_features
from geodistill.experiments.instruction.generate import generate
from geodistill.experiments.instruction.lookups import LOOKUPS
from geodistill.experiments.instruction.models import load_student, teacher_source
from geodistill.experiments.instruction.run import run_instruction
from geodistill.experiments.instruction.settings import FIRST, InstructionSettings
from geodistill.experiments.instruction.setup import (
    InstructionSetup,
    build_student,
    prepare_instruction,
)
from geodistill.experiments.run_store import Run
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.experiments.your_model.task import (
    FEW_ROWS,
    DistillationTask,
    Inputs,
    OnTrained,
    PlanRow,
    Split,
    batch_row,
    warmup_batches,
)
from geodistill.files import Progress, error_summary
from geodistill.tasks import load_instructions
from geodistill.tasks.base import SPLITS, InstructionData
from geodistill.tasks.own_data import EXPECTED as EXPECTED_DATA
from geodistill.tasks.own_data import data_name
from geodistill.tasks.prompts import encode_pair, goes_through_template

N_SAMPLE = 5_000
"""Answer tokens on whose features the teacher's directions are measured."""
GENERATED_AT_ONCE = 16
EXPECTED = "smollm2, opt-computed, or a folder or hub name of a causal language model"


class TextGeneration(DistillationTask):
    """Rouge-L of greedy answers; a table of answers and the nearest prompt are the references."""

    pipeline = "text-generation"
    trivial = tuple(LOOKUPS)

    def read(self, settings: YourModelSettings) -> Inputs:
        """Read data, tokenizer and configurations."""
        for name in settings.named_columns:
            raise InputError(
                f"{name} is {getattr(settings, name)!r}; expected "
                f"{getattr(YourModelSettings, name)!r}, the default: for text generation a "
                "file has prompt and completion, or messages, and is split by prompt"
            )
        config, tokenizer = _load_teacher(settings.teacher)
        if (settings.teacher_layer, settings.student_layer) != (-1, -1):
            raise InputError(
                f"teacher_layer is {settings.teacher_layer} and student_layer "
                f"{settings.student_layer}; expected -1 for both: for text generation the last "
                "features are compared (FeatureDistillationTrainer takes any)"
            )
        _check_student(settings, config, tokenizer)
        data = load_instructions(settings.data)
        sizes, n_long = _count_pairs(data, settings, tokenizer)
        n_batches = math.ceil(sizes["train"] / settings.batch_size)
        steps = math.ceil(settings.epochs * n_batches)
        same = ("teacher", "student", "layers", "epochs", "batch_size", "weight", "max_length",
                "max_new_tokens")  # fmt: skip
        runs = InstructionSettings(
            task=data_name(settings.data),
            n_train=sizes["train"],
            n_test=sizes["test"],
            weight_warmup_batches=warmup_batches(steps),
            **{name: getattr(settings, name) for name in same},
        )
        return Inputs(data, data.data_hash, runs, steps, "rougeL", sizes, n_long=n_long)

    def prepare(
        self, inputs: Inputs, split: Split, folder: Path, progress: Progress
    ) -> InstructionSetup:
        """The teacher's outputs are in the user's cache."""
        runs = replace(inputs.runs, split=split, n_test=inputs.sizes[split])
        return prepare_instruction(runs, progress, inputs.data)

    def make_run(self, setup: InstructionSetup, method: str, seed: int, keep: OnTrained) -> Run:
        """A run of the instruction study."""
        return run_instruction(setup, method, seed, "your_model", keep)[0]

    def judge_runs(self, runs: pd.DataFrame) -> pd.DataFrame:
        """By Rouge-L; that a run gives one answer only is judged on the test rows."""
        return pd.DataFrame({"score": 100 * runs["rougeL"], "collapsed": False})

    def teacher_row(self, setup: InstructionSetup) -> tuple[str, str]:
        """By the likelihood of the answers."""
        nll, n_tokens = answer_nll(setup.teacher, setup.test, setup.tokenizer.pad_token_id)
        mean = float(nll.sum() / n_tokens.sum())
        odd = "it has learned nothing" if mean > math.log(len(setup.tokenizer)) else ""
        return f"as it is; validation {mean:.3f} nats per answer token", odd

    def data_rows(self, inputs: Inputs, setup: InstructionSetup) -> list[PlanRow]:
        """Pairs, their lengths, and answer tokens of a batch against the teacher's width."""
        runs, sizes = setup.settings, inputs.sizes
        answers = pd.Series([sum(x != -100 for x in e["labels"]) for e in setup.train])
        prompts = pd.Series([len(e["prompt_ids"]) for e in setup.train])
        few = [name for name in ("validation", "test") if sizes[name] < FEW_ROWS]
        cut = (answers > runs.max_new_tokens + 1).mean()  # the end token is one of them
        return [
            (
                "data",
                f"{sizes['train']} pairs to train, {sizes['validation']} for validation, "
                f"{sizes['test']} to test; {inputs.n_long} left out with more than "
                f"{runs.max_length} tokens",
                f"few pairs for {' and '.join(few)}: wide intervals" if few else "",
            ),
            (
                "texts",
                f"prompts of {prompts.mean():.0f} tokens, answers of {answers.mean():.0f} on "
                f"average, at most {runs.max_new_tokens} are generated",
                f"{cut:.0%} of the answers are longer: raise max_new_tokens" if cut > 0 else "",
            ),
            batch_row(answers.mean() * runs.batch_size, "answer token", setup.teacher),
        ]

    def features(self, setup: InstructionSetup) -> Tensor:
        """Of the answer tokens."""
        return teacher_features(setup.train_cache)[:N_SAMPLE]

    def build(self, setup: InstructionSetup) -> tuple[Any, dict[str, Any]]:
        """A batch of pairs."""
        rows = setup.train[: setup.settings.batch_size]
        pairs = [{name: row[name] for name in ("input_ids", "labels")} for row in rows]
        return build_student(setup, 0), pad(pairs, setup.tokenizer.pad_token_id)

    def test_seconds(
        self, inputs: Inputs, setup: InstructionSetup, student: Any, step: float
    ) -> float:
        """From the time of one batch of answers."""
        prompts, started = setup.test[:GENERATED_AT_ONCE], time.perf_counter()
        generate(student, setup.tokenizer, prompts, setup.settings.max_new_tokens)
        n_batches = inputs.sizes["test"] / len(prompts)
        return n_batches * (time.perf_counter() - started) + step

    def save_rest(self, folder: Path, inputs: Inputs, setup: InstructionSetup) -> str:
        """The tokenizer; how a prompt is given."""
        setup.tokenizer.save_pretrained(folder)
        rows = (row for split in SPLITS for row in getattr(inputs.data, split))
        return {
            (True,): " Prompts are chats and went through the chat template.",
            (False,): " A line break follows the prompt, then the answer.",
            (False, True): " Prompts that were chats went through the chat template; a line break "
            "follows the others, then the answer.",
        }[tuple(sorted({goes_through_template(row, setup.tokenizer) for row in rows}))]


def _count_pairs(
    data: InstructionData, settings: YourModelSettings, tokenizer: Any
) -> tuple[dict[str, int], int]:
    """How many pairs of each split are used, and how many of all are too long."""
    sizes, n_long = {}, 0
    for split in SPLITS:
        lengths = [len(encode_pair(row, tokenizer)["input_ids"]) for row in getattr(data, split)]
        n_short = sum(length <= settings.max_length for length in lengths)
        n_long += len(lengths) - n_short
        if not n_short:
            raise InputError(
                f"data is {settings.data!r}, whose {split} split has {len(lengths)} pairs, none of "
                f"them with at most {settings.max_length} tokens; expected a larger max_length"
                if lengths
                else f"data is {settings.data!r}, which has no {split} split: expected "
                f"{EXPECTED_DATA}, embedded or computed"
            )
        sizes[split] = settings.rows_used(n_short)
    return sizes, n_long


def _load_teacher(name: str) -> tuple[Any, Any]:
    """Configuration and tokenizer of a causal language model."""
    from transformers import AutoConfig, AutoTokenizer

    source, options, _ = teacher_source(name)
    try:
        config = AutoConfig.from_pretrained(source, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # the readers of configurations raise errors of any type
        raise InputError(
            f"teacher is {name!r}; expected {EXPECTED} ({error_summary(error)})"
        ) from error
    kind = str((config.architectures or ["Model"])[0])
    if not options and "CausalLM" not in kind and "LMHead" not in kind:
        raise InputError(f"teacher {name!r} is a {kind}; expected {EXPECTED}")
    if tokenizer.eos_token is None or not len(tokenizer) <= config.vocab_size:
        raise InputError(
            f"teacher {name!r} has a tokenizer of {len(tokenizer)} tokens with the end token "
            f"{tokenizer.eos_token!r}, its model takes {config.vocab_size}; expected a tokenizer "
            "of this model, with an end token"
        )
    return config, tokenizer


def _check_student(settings: YourModelSettings, config: Any, tokenizer: Any) -> None:
    """Raise InputError unless the student can be made, and both models take the longest text."""
    positions = settings.max_length + settings.max_new_tokens
    available = getattr(config, "max_position_embeddings", None) or positions
    if available < positions:
        raise InputError(
            f"teacher {settings.teacher!r} takes {available} tokens, and max_length + "
            f"max_new_tokens is {positions}; expected at most {available}"
        )
    if settings.student == FIRST:
        check_layers(settings.layers, config.num_hidden_layers)
    elif settings.student == "uniform":
        raise InputError(
            f"student is 'uniform'; for text generation expected {FIRST!r}, or a folder or hub "
            "name of a causal language model with the teacher's tokenizer"
        )
    else:
        student = load_student(settings.student, tokenizer, positions)
        if student.config.vocab_size != config.vocab_size:
            raise InputError(
                f"student {settings.student!r} has {student.config.vocab_size} logits, the teacher "
                f"{config.vocab_size}, though their tokenizers are the same; expected a student "
                f"saved after resize_token_embeddings({config.vocab_size})"
            )
