"""What to distil: teacher, student, data, arms, folder. Loads neither torch nor transformers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geodistill.errors import InputError
from geodistill.experiments.methods import (
    ALIGNMENT,
    CONTROLS,
    LABELS_ALONE,
    MATCHING_TERMS,
    check_method,
)
from geodistill.tasks import CLASSIFICATION_TASKS

NO_TERM = "none"
TERMS = (*MATCHING_TERMS, *CONTROLS, ALIGNMENT)
ARMS = ("kd", LABELS_ALONE, *(f"kd+{term}" for term in TERMS))
TASKS = ("classification",)
MAX_SEEDS = 100
"""Runs that choose a learning rate have this seed, the compared runs have smaller ones."""


@dataclass(frozen=True)
class YourModelSettings:
    """A distillation of your own.

    Attributes:
        teacher: "minilm" or "mpnet", a folder or a name of the hub. A text classifier is used as it
            is, and its labels must be those of the data; an encoder without a head is fine-tuned
            first.
        student: "take 2 layers", the first layers of the teacher; or a folder or hub name of an
            encoder with the teacher's tokenizer.
        data: a .csv, .jsonl or .parquet file or a folder of `datasets`, which are split into train,
            validation and test by group; or one of `CLASSIFICATION_TASKS`.
        text: column of the text in your data, or the two of a pair with a comma.
        label: column of the class.
        group: column that says which rows belong together; empty for none.
        task: one of `TASKS`.
        term: one of `TERMS`, or "none".
        weight: of the term, as a multiple of the ratio of gradient norms.
        layers: "last", or "TEACHER:STUDENT" as numbers of hidden states, such as "4:2".
        extra_arms: further methods of `ARMS` to compare with KD.
        seeds: runs of each arm.
        learning_rates: that each arm tries on validation; the best one is used.
        epochs: passes of a student over the training rows; 0 for 120 steps.
        teacher_epochs: of fine-tuning, for a teacher without a head; 0 refuses such a teacher.
        batch_size: texts per step.
        max_length: longest text in tokens.
        max_rows: training rows used; 0 for all.
        max_test: validation and test rows used; 0 for all.
        workers: processes, one compute thread each. With several, a script that calls this needs
            `if __name__ == "__main__":`.
        out: folder of the student. Runs are kept beside it, in `<out>-runs`.

    Raises:
        InputError: a value outside these.

    Example:
        >>> YourModelSettings(term="cosine")
        Traceback (most recent call last):
        geodistill.errors.InputError: term is 'cosine'; expected one of none, projection, ...
    """

    teacher: str = "minilm"
    student: str = "take 2 layers"
    data: str = "product"
    text: str = "text"
    label: str = "label"
    group: str = ""
    task: str = "classification"
    term: str = "procrustes"
    weight: float = 1.0
    layers: str = "last"
    extra_arms: tuple[str, ...] = ()
    seeds: int = 3
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    epochs: int = 0
    teacher_epochs: float = 2.0
    batch_size: int = 32
    max_length: int = 96
    max_rows: int = 0
    max_test: int = 0
    workers: int = 1
    out: str = "student"

    def __post_init__(self) -> None:
        for name, known in (("task", TASKS), ("term", (NO_TERM, *TERMS))):
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}"
                )
        for method in self.extra_arms:
            check_method(method, ARMS)
        for name, low, high in (
            ("seeds", 1, MAX_SEEDS), ("epochs", 0, math.inf), ("batch_size", 1, math.inf),
            ("max_length", 4, math.inf), ("max_rows", 0, math.inf), ("max_test", 0, math.inf),
            ("teacher_epochs", 0, math.inf), ("weight", 0, math.inf),
            ("workers", 1, math.inf),
        ):  # fmt: skip
            if not low <= getattr(self, name) < math.inf or getattr(self, name) > high:
                at_most = f" to {high}" if high < math.inf else " or more"
                raise InputError(f"{name} is {getattr(self, name)}; expected {low}{at_most}")
        if not self.learning_rates or not all(0 < rate < 1 for rate in self.learning_rates):
            raise InputError(
                f"learning_rates is {list(self.learning_rates)}; expected numbers between 0 and 1"
            )
        if not self.out:
            raise InputError("out is empty; expected the folder that the student is written to")
        self.layer_pair()
        self.n_student_layers()

    @property
    def arms(self) -> tuple[str, ...]:
        """The methods to compare: KD first, which is the baseline."""
        term = () if self.term == NO_TERM else (f"kd+{self.term}",)
        return tuple(dict.fromkeys(("kd", *term, *self.extra_arms)))

    @property
    def runs_folder(self) -> Path:
        """Where runs, teacher and the teacher's outputs are kept."""
        return Path(f"{Path(self.out)}-runs")

    def layer_pair(self) -> tuple[int, int]:
        """Layers of teacher and student that the term compares."""
        if self.layers == "last":
            return -1, -1
        if match := re.fullmatch(r"(-?\d+):(-?\d+)", self.layers):
            return int(match[1]), int(match[2])
        raise InputError(
            f"layers is {self.layers!r}; expected last or TEACHER:STUDENT, such as 4:2"
        )

    def n_student_layers(self) -> int | None:
        """Layers to take from the teacher; None if the student is a model of its own."""
        if not self.student.startswith("take "):
            return None
        if match := re.fullmatch(r"take (\d+) layers?", self.student):
            return int(match[1])
        raise InputError(f"student is {self.student!r}; expected such as 'take 2 layers'")

    def smallest(self) -> YourModelSettings:
        """The same with few rows, steps and runs: every line in seconds, for a trial."""
        student = self.student if self.n_student_layers() is None else "take 1 layer"
        return replace(
            self, student=student, seeds=2, learning_rates=self.learning_rates[:1], epochs=1,
            teacher_epochs=min(self.teacher_epochs, 1.0), batch_size=16, max_rows=64, max_test=64,
        )  # fmt: skip

    def relative_to(self, folder: Path) -> YourModelSettings:
        """The same with paths that are relative to `folder`; other names stay."""
        models: dict[str, Any] = {
            name: str(folder / getattr(self, name))
            for name in ("teacher", "student")
            if getattr(self, name) and (folder / getattr(self, name)).is_dir()
        }
        data = self.data if self.data in CLASSIFICATION_TASKS else str(folder / self.data)
        return replace(self, **models, data=data, out=str(folder / self.out))
