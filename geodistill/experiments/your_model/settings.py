"""What to distil: teacher, student, data, arms, folder. Loads neither torch nor transformers."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from geodistill.errors import InputError, check_choice
from geodistill.experiments.methods import (
    ALIGNMENT,
    ANSWERS_ALONE,
    CONTROLS,
    LABELS_ALONE,
    MATCHING_TERMS,
)

_KD = ("kd", *(f"kd+{term}" for term in (*MATCHING_TERMS, *CONTROLS, ALIGNMENT)))
ARMS = {
    "text-classification": (LABELS_ALONE, *_KD),
    "text-generation": (ANSWERS_ALONE, "seqkd", *_KD),
    "sentence-similarity": _KD,
}
"""The methods that can be compared, by task."""
TUNING_SEED = 100
"""Of the runs that choose a learning rate; compared runs have the seeds below it."""
_EXPECTED = {int: "a whole number", float: "a number", str: "a text", tuple: "a list"}
_PATHS = ("data", "teacher", "student", "out")
"""Settings that may name a file or a folder, "~" for the home folder."""
_LAYERS = ("teacher_layer", "student_layer")
"""Settings that take the path of a module in place of a number."""
_RANGES = {
    "weight": (0, math.inf), "seeds": (1, TUNING_SEED), "epochs": (0.01, math.inf),
    "teacher_epochs": (1, math.inf), "batch_size": (1, math.inf), "max_length": (4, math.inf),
    "max_rows": (0, math.inf), "workers": (0, math.inf), "max_new_tokens": (1, math.inf),
}  # fmt: skip


def _checked(field: Any, value: Any) -> Any:
    """The value, paths as text and lists as tuples; InputError for one of another type."""
    kind: Any = type(field.default)
    kind = str if field.name in _LAYERS and isinstance(value, str) else kind
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    value = os.path.expanduser(value) if field.name in _PATHS and isinstance(value, str) else value
    value = tuple(value) if isinstance(value, list) else value
    fits = isinstance(value, (int, float) if kind is float else kind) and type(value) is not bool
    if fits and kind is tuple:
        element = (int, float) if field.name == "learning_rates" else str
        fits = all(isinstance(part, element) for part in value)
    if not fits:
        raise InputError(
            f"{field.name} is {value!r}; expected {_EXPECTED[kind]}, such as {field.default!r}"
        )
    return value


@dataclass(frozen=True)
class YourModelSettings:
    """A distillation of your own.

    Attributes:
        task: "text-classification", of classes or of numbers; "text-generation"; or
            "sentence-similarity", the embeddings of an encoder of texts, without labels.
        data: a .csv, .jsonl or .parquet file, a folder of `datasets`, or `owner/name` or
            `owner/name:subset` of the hub, which is split into train, validation and test by group
            unless it has splits; or one of `CLASSIFICATION_TASKS`. For generation its rows are
            prompts with completions or chat messages, or it is a name that `load_instructions`
            takes.
        text: column of the text, or for classification the two of a pair with a comma.
        label: of classification, column of the class, a word or an integer; decimal numbers make a
            regression.
        group: column that says which rows belong together; empty for none.
        teacher: a folder or a name of the hub. A text classifier is used as it is, and its labels
            must be those of the data; an encoder without a head ("minilm", "mpnet") is fine-tuned
            first, but for embeddings. For generation a causal language model ("smollm2",
            "opt-computed").
        student: "first" or (not for generation) "uniform", that many layers of the teacher; or a
            folder or hub name of a model of the same kind with the teacher's tokenizer.
        layers: of the student, if it is cut from the teacher.
        arms: the methods to compare, of `ARMS[task]`: the baseline, the one in question, and
            others.
        weight: of the feature terms, as a multiple of the ratio of gradient norms.
        teacher_layer: that the terms compare, a number in `hidden_states` or the path of a block,
            such as "encoder.layer.5"; for generation the last, -1.
        student_layer: that the terms compare with it; for generation the last, -1.
        seeds: runs of each arm.
        learning_rates: that each arm tries on validation; the best one is used.
        epochs: passes of a student over the training rows.
        teacher_epochs: of fine-tuning, for a teacher without a head.
        batch_size: texts per step.
        max_length: longest text, in tokens: longer ones are cut; longer pairs of prompt and answer
            are left out.
        max_new_tokens: of generation, longest answer in tokens.
        max_rows: most rows used of each split; 0 for all.
        workers: processes, one compute thread each; 0 for none but this one. With any, a script
            that distils needs `if __name__ == "__main__":`.
        scheduler: address of a Dask scheduler, whose workers then make the runs; empty for none.
            They must see `out`, `data` and the models by the same paths as this machine.
        out: folder of the student. Runs are kept beside it, in `<out>-runs`.

    Raises:
        InputError: a value outside these.

    Example:
        >>> YourModelSettings(arms=("kd", "kd+cosine"))
        Traceback (most recent call last):
        geodistill.errors.InputError: method is 'kd+cosine'; expected one of ce, kd, ...
    """

    task: str = "text-classification"
    data: str = "product"
    text: str = "text"
    label: str = "label"
    group: str = ""
    teacher: str = "minilm"
    student: str = "first"
    layers: int = 2
    arms: tuple[str, ...] = ("kd", "kd+procrustes")
    weight: float = 1.0
    teacher_layer: int | str = -1
    student_layer: int | str = -1
    seeds: int = 3
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    epochs: float = 1.5
    teacher_epochs: int = 2
    batch_size: int = 32
    max_length: int = 96
    max_new_tokens: int = 32
    max_rows: int = 0
    workers: int = 0
    scheduler: str = ""
    out: str = "student"

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        check_choice("task", self.task, ARMS)
        for method in self.arms:
            check_choice("method", method, ARMS[self.task])
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high or getattr(self, name) == math.inf:
                limits = f"{low} or more" if high == math.inf else f"{low} to {high}"
                raise InputError(f"{name} is {getattr(self, name)}; expected {limits}")
        rates = self.learning_rates
        for name, ok, expected in (
            ("arms", 0 < len(self.arms) == len(set(self.arms)), "one or more different methods"),
            ("learning_rates", rates and all(0 < r < 1 for r in rates), "numbers between 0 and 1"),
            ("out", Path(self.out).name not in ("", ".."), "the name of the student's folder"),
        ):
            if not ok:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected {expected}")

    def rows_used(self, n_rows: int) -> int:
        """How many of a split's rows are used."""
        return min(self.max_rows or n_rows, n_rows)

    @property
    def named_columns(self) -> list[str]:
        """Which settings name a column of a table, rather than have their default."""
        names = ("text", "label", "group")
        return [name for name in names if getattr(self, name) != getattr(type(self), name)]

    @property
    def n_parallel(self) -> int:
        """How many runs are made at one time; 1 for a cluster, whose size is not known here."""
        return 1 if self.scheduler else max(1, self.workers)

    @property
    def runs_folder(self) -> Path:
        """Where runs, teacher and the teacher's outputs are kept."""
        return Path(f"{Path(self.out)}-runs").absolute()
