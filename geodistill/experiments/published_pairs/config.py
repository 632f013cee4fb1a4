"""The real pairs of the literature: their settings, their students, what is published of them.

`data/presets/opt.yaml` has the settings, each with its source; `data/presets/published.csv` the
published scores of the same pair. `preset_stages` trains, `preset_scores` scores.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.errors import InputError
from geodistill.experiments.instruction.evaluate import Example
from geodistill.experiments.methods import check_method
from geodistill.experiments.run_store import data_dir

Report = Callable[[str], None]
START = "sft-start"
METHODS = (START, "kd", "kd+procrustes", "kd+procrustes-shuffled", "kd+isotropy")
"""The start on the answers alone, KD from it, the term, and two controls of the term: the teacher's
rows in random order; no teacher."""
SEED = 10
"""Of a training, as in the scripts that the settings come from; the teacher's is always this."""


@dataclass(frozen=True)
class Preset:
    """One pair with its settings.

    Attributes:
        teacher, student: hub names; the teacher is fine-tuned first, for `teacher_epochs` at
            `teacher_learning_rate`.
        task: instruction set learned from.
        sft_epochs: of the student's start on the answers alone; `epochs` follow with distillation.
        batch_size, accumulation: examples a micro-batch, micro-batches a step. A geometry term
            compares the answer tokens of a micro-batch.
        kd_share: weight of the logit loss (forward KL); that of the answers is the rest.
        weight: of the geometry term and of its controls, where a call gives no other.
        max_length, max_prompt: tokens; answers are generated up to `max_length` in all.
        decodings: seeds of the sampled answers, temperature 1 and all tokens.
        evaluation: instruction sets whose test prompts are answered.
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
    schedule: str
    batch_size: int
    accumulation: int
    kd_share: float
    weight: float
    max_length: int
    max_prompt: int
    decodings: list[int]
    evaluation: list[str]


@dataclass(frozen=True)
class Parts:
    """What a preset runs on: models, tokenizer, encoded examples.

    Attributes:
        load_teacher, load_student: a model to be trained, or that of the folder it is given; a
            teacher's folder holds one that is frozen.
        tests: examples by instruction set.
        tuned_teacher: folder of a fine-tuned teacher; None fine-tunes it first.
    """

    load_teacher: Callable[[Path | None], Any]
    load_student: Callable[[Path | None], Any]
    tokenizer: Any
    train: list[Example]
    tests: dict[str, list[Example]]
    tuned_teacher: Path | None = None


@dataclass(frozen=True)
class Student:
    """One training of a preset's student.

    Attributes:
        method: one of `METHODS`.
        seed: of the order of examples, of dropout and of the shuffled rows; its start has the same.
        weight: of the method's term; None where it has none.
        name: of method and weight in tables: the method, with a weight that is not the preset's.
    """

    method: str
    seed: int
    weight: float | None
    name: str

    @property
    def stage(self) -> Path:
        """Folder of the training in that of the preset, such as seed10/kd+isotropy_weight1.0."""
        weight = "" if self.weight is None else f"_weight{self.weight}"
        return Path(f"seed{self.seed}", self.method + weight)


def students(
    chosen: Preset, methods: Sequence[str] = METHODS, *, seed: int, weight: float | None
) -> list[Student]:
    """The students of some methods, in the order of `METHODS`; a weight of None is the preset's.

    Raises:
        InputError: no method or an unknown one, a weight or a seed that is none.
    """
    if not methods:
        raise InputError(f"methods is empty; expected some of {', '.join(METHODS)}")
    for method in methods:
        check_method(method, METHODS)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; expected a whole number from 0 to 2**32 - 1")
    own = float(chosen.weight if weight is None else weight)
    if not (math.isfinite(own) and own >= 0):
        raise InputError(f"weight is {own}; expected a finite number of at least 0")
    found = []
    for method in METHODS:
        if method in methods:
            term = own if "+" in method else None
            suffix = "" if term in (None, chosen.weight) else f", weight {term}"
            found.append(Student(method, seed, term, method + suffix))
    return found


def _table() -> dict[str, dict[str, dict[str, Any]]]:
    import yaml

    text = (data_dir() / "presets" / "opt.yaml").read_text(encoding="utf-8")
    table: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(text)
    return table


def preset(name: str) -> Preset:
    """The preset `name`.

    Raises:
        InputError: there is none of that name.
    """
    given = _settings(name)
    return Preset(**{field.name: given[field.name]["value"] for field in fields(Preset)})


def sources(name: str) -> pd.DataFrame:
    """setting, value, source of each setting of a preset."""
    rows = [{"setting": key, **given} for key, given in _settings(name).items()]
    return pd.DataFrame(rows, columns=["setting", "value", "source"])


def _settings(name: str) -> dict[str, dict[str, Any]]:
    table = _table()
    if name not in table:
        raise InputError(f"preset is {name!r}; expected one of {', '.join(table)}")
    return table[name]


def published(name: str) -> pd.DataFrame:
    """method, task, rougeL (0..100) and source of the published scores of a preset's pair."""
    table = pd.read_csv(data_dir() / "presets" / "published.csv")
    return table[table["preset"] == name].drop(columns="preset").reset_index(drop=True)
