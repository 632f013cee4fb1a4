"""What `distill_your_model` asks of a kind of task: texts with a label, prompts with answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
from torch import Tensor

from geodistill.distill import FeatureDistillationTrainer
from geodistill.errors import InputError
from geodistill.experiments.classification.settings import EMBEDDED, FIRST, UNIFORM
from geodistill.experiments.instruction.models import COMPUTED_TEACHER
from geodistill.experiments.run_store import Run
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.files import Progress
from geodistill.tasks import CLASSIFICATION_TASKS
from geodistill.tasks.instructions import INSTRUCTION_SETS

Split = Literal["test", "validation"]
PlanRow = tuple[str, str, str]
"""What, as it was taken, and what is odd about it: empty for nothing."""
OnTrained = Callable[[FeatureDistillationTrainer], None] | None
"""Called with the trainer of a student, once that is trained."""
FEW_ROWS = 50
BUILT_IN = {
    *CLASSIFICATION_TASKS, *INSTRUCTION_SETS, *EMBEDDED, "smollm2", COMPUTED_TEACHER, FIRST,
    UNIFORM,
}  # fmt: skip
"""Names of data and models that are no files."""


@dataclass(frozen=True)
class Inputs:
    """Data, teacher and student of a distillation, read and checked before any work.

    Attributes:
        data: the task's splits.
        data_hash: of their contents.
        runs: settings of the runs, whose learning rate is still to be chosen.
        steps: of each student's training.
        metric: of levels and comparison, in 0..1.
        sizes: number of rows used, by split.
        label_names: of the classes, in the order of their numbers; empty if there are none.
        n_long: pairs of prompt and answer that are left out for their length.
        n_repeated: texts that are left out because their split has them already.
    """

    data: Any
    data_hash: str
    runs: Any
    steps: int
    metric: str
    sizes: dict[str, int]
    label_names: tuple[str, ...] = ()
    n_long: int = 0
    n_repeated: int = 0


class DistillationTask(ABC):
    """A kind of task.

    Attributes:
        pipeline: the hub's name of the task.
        trivial: methods without a model, which a student must beat.
    """

    pipeline: ClassVar[str]
    trivial: ClassVar[tuple[str, ...]]

    @abstractmethod
    def read(self, settings: YourModelSettings) -> Inputs:
        """Read and check everything.

        Raises:
            InputError: unusable data, teacher, student or layers.
        """

    @abstractmethod
    def prepare(self, inputs: Inputs, split: Split, folder: Path, progress: Progress) -> Any:
        """The teacher, run on the training rows and those of a split; `folder` is for its files."""

    @abstractmethod
    def make_run(self, setup: Any, method: str, seed: int, keep: OnTrained) -> Run:
        """Train and score a student, whose trainer `keep` takes; or score a reference."""

    @abstractmethod
    def judge_runs(self, runs: pd.DataFrame) -> pd.DataFrame:
        """Columns `score`, in points, and `collapsed`, by which a learning rate is chosen."""

    @abstractmethod
    def teacher_row(self, setup: Any) -> tuple[str, str]:
        """Where the teacher is from and what it scores on the split; what is odd about it."""

    @abstractmethod
    def data_rows(self, inputs: Inputs, setup: Any) -> list[PlanRow]:
        """What the plan says of data, texts and the rows of a batch."""

    @abstractmethod
    def features(self, setup: Any) -> Tensor:
        """Some of the teacher's features of the training rows, (n, d)."""

    @abstractmethod
    def build(self, setup: Any) -> tuple[Any, dict[str, Any]]:
        """A student before its training, and a batch."""

    @abstractmethod
    def test_seconds(self, inputs: Inputs, setup: Any, student: Any, step: float) -> float:
        """About how long a student's test takes, if a step of its training takes `step` seconds."""

    @abstractmethod
    def save_rest(self, folder: Path, inputs: Inputs, setup: Any) -> str:
        """Write what `from_pretrained` needs beside weights; what a user must know, or nothing."""


def refuse_two_meanings(settings: YourModelSettings) -> None:
    """Raise InputError for a name of the library's that is a file or folder here as well."""
    for setting in ("data", "teacher", "student"):
        name = getattr(settings, setting)
        if name in BUILT_IN and Path(name).exists():
            raise InputError(
                f"{setting} is {name!r}, which comes with geodistill and is a file or folder here; "
                f"expected './{name}' for the latter, or rename it"
            )


def warmup_batches(n_steps: int) -> int:
    """In how many batches of a student's training the weight of its term is measured.

    The term is off in them: a quarter of the steps, at most 16.

    Raises:
        InputError: a single step, in which no term would act.
    """
    if n_steps < 2:
        raise InputError(
            "epochs and batch_size give the training rows 1 step, which only measures the weight "
            "of a term; expected more epochs or smaller batches"
        )
    return max(1, min(16, n_steps // 4))


def batch_row(n_rows: float, unit: str, teacher: Any) -> PlanRow:
    """The rows that a term compares in a batch, against the width of the teacher's features.

    Args:
        n_rows: of a batch, on average.
        unit: of which each row is one.
        teacher: a model.
    """
    width = teacher.config.hidden_size
    odd = "fewer rows than directions" if n_rows < width else ""
    return "rows of a batch", f"about {n_rows:.0f}, one per {unit}, {width} wide", odd
