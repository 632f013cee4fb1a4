"""Published pairs of teacher and student: their settings, their students, their published scores.

`data/presets/opt.yaml` has the settings, each with its source; `data/presets/published.csv` has the
published scores of the same pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from geodistill.errors import InputError, check_choice
from geodistill.experiments.methods import term_of
from geodistill.paths import data_dir

if TYPE_CHECKING:
    from geodistill.experiments.instruction.generate import Example

START = "sft-start"
METHODS = (START, "kd", "kd+procrustes", "kd+procrustes-shuffled", "kd+isotropy")
"""Training on the answers alone; from there KD, KD with the term, and with two controls of it: the
teacher's rows in random order, and no teacher."""
DEFAULT_SEED = 10
"""Of a student's training, as in the scripts that the settings come from; always the teacher's."""


@dataclass(frozen=True)
class PublishedPair:
    """A teacher and a student with their settings.

    Attributes:
        teacher: hub name; the teacher is fine-tuned first.
        teacher_epochs: of its fine-tuning.
        teacher_learning_rate: of its fine-tuning.
        student: hub name.
        task: instruction set of the training.
        sft_epochs: of the student's training on the answers alone.
        epochs: of the distillation that follows.
        learning_rate: of the student.
        weight_decay: of AdamW.
        lr_schedule: name of the Trainer's schedule.
        batch_size: examples per batch, whose answer tokens a feature term compares.
        gradient_accumulation_steps: batches per optimiser step.
        kd_weight: of the logit loss (forward KL); the answers have the rest.
        weight: of the feature term and its controls, unless a call gives another.
        max_length: prompt with answer, in tokens.
        max_prompt_length: in tokens.
        sampling_seeds: of the answers, sampled at temperature 1 from all tokens.
        eval_sets: instruction sets whose test prompts are answered.
    """

    teacher: str
    teacher_epochs: float
    teacher_learning_rate: float
    student: str
    task: str
    sft_epochs: float
    epochs: float
    learning_rate: float
    weight_decay: float
    lr_schedule: str
    batch_size: int
    gradient_accumulation_steps: int
    kd_weight: float
    weight: float
    max_length: int
    max_prompt_length: int
    sampling_seeds: list[int]
    eval_sets: list[str]


@dataclass(frozen=True)
class ModelsAndData:
    """What a pair is trained and evaluated with.

    Attributes:
        load_teacher: returns the teacher of a folder, frozen; of None, the one to fine-tune.
        load_student: returns the student of a folder; of None, the pretrained one.
        tokenizer: of both models.
        train: training examples.
        eval_sets: test examples by instruction set.
        finetuned_teacher: folder of a fine-tuned teacher; None fine-tunes it first.
    """

    load_teacher: Callable[[Path | None], Any]
    load_student: Callable[[Path | None], Any]
    tokenizer: Any
    train: list[Example]
    eval_sets: dict[str, list[Example]]
    finetuned_teacher: Path | None = None


@dataclass(frozen=True)
class StudentRun:
    """One training of a pair's student.

    Attributes:
        method: one of `METHODS`.
        seed: of the order of examples, of dropout and of the shuffled rows.
        weight: of the method's term; None without a term.
        name: in tables: the method, followed by a weight that is not the pair's.
    """

    method: str
    seed: int
    weight: float | None
    name: str

    @property
    def folder(self) -> Path:
        """Where the training is stored under the pair's folder: `seed10/kd+isotropy_weight1.0`."""
        weight = "" if self.weight is None else f"_weight{self.weight}"
        return Path(f"seed{self.seed}", self.method + weight)


def plan_students(
    pair: PublishedPair, methods: Sequence[str] = METHODS, *, seed: int, weight: float | None
) -> list[StudentRun]:
    """The students of some methods, in the order of `METHODS`.

    Args:
        pair: the published pair.
        methods: some of `METHODS`.
        seed: of the trainings.
        weight: of the terms; None is the pair's.

    Raises:
        InputError: no method or an unknown one, or a weight or a seed out of range.
    """
    if not methods:
        raise InputError(f"methods is empty; expected some of {', '.join(METHODS)}")
    for method in methods:
        check_choice("method", method, METHODS)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; expected a whole number from 0 to 2**32 - 1")
    term_weight = float(pair.weight if weight is None else weight)
    if not (math.isfinite(term_weight) and term_weight >= 0):
        raise InputError(f"weight is {term_weight}; expected a finite number of at least 0")
    suffix = "" if term_weight == pair.weight else f", weight {term_weight}"
    with_term = {method: bool(term_of(method)) for method in METHODS if method in methods}
    return [
        StudentRun(method, seed, term_weight if term else None, method + (suffix if term else ""))
        for method, term in with_term.items()
    ]


def load_pair(name: str) -> PublishedPair:
    """The published pair of a name.

    Raises:
        InputError: there is none of that name.
    """
    settings = _settings(name)
    return PublishedPair(**{f.name: settings[f.name]["value"] for f in fields(PublishedPair)})


def settings_table(name: str) -> pd.DataFrame:
    """The settings of a pair: columns setting, value and source."""
    rows = [{"setting": key, **spec} for key, spec in _settings(name).items()]
    return pd.DataFrame(rows, columns=["setting", "value", "source"])


def _settings(name: str) -> dict[str, dict[str, Any]]:
    import yaml

    text = (data_dir() / "presets" / "opt.yaml").read_text(encoding="utf-8")
    pairs: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(text)
    check_choice("published pair", name, pairs)
    return pairs[name]


def published_scores(name: str) -> pd.DataFrame:
    """The published scores of a pair: columns method, task, rougeL (0..100) and source."""
    table = pd.read_csv(data_dir() / "presets" / "published.csv")
    return table[table["preset"] == name].drop(columns="preset").reset_index(drop=True)
