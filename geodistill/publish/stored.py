"""What a page may show of a study by protocol: its whole sections, as tables with provenance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis.rows import load_items, load_rows, wide
from geodistill.experiments import plan
from geodistill.experiments.store import results_dir


@dataclass(frozen=True)
class Sections:
    """The sections of one study, for the cells of a page.

    study: name of its protocol and its results folder; planned: runs by section.
    """

    study: str
    planned: dict[str, int]

    @classmethod
    def of(cls, study: str, progress: pd.DataFrame) -> "Sections":
        """From a table of `section, planned`, as `plan.progress` makes it."""
        return cls(study, dict(zip(progress["section"], progress["planned"], strict=True)))

    def whole(self, *names: str) -> bool:
        """Whether all of these sections may be shown; a line is printed for each that may not."""
        lacking = [n for n in names if not plan.whole(self.study, n, self.planned[n])]
        for name in lacking:
            stored = plan.stored_runs(self.study, name)
            print(f"section {name}: {stored} of {self.planned[name]} runs are stored; not shown")
        return not lacking

    def rows(self, name: str, *vary: str) -> pd.DataFrame:
        """A row a run of a section, a column a metric; settings that may `vary` are columns too."""
        return wide(load_rows(self._folder(name), vary=vary).frame, vary)

    def items(self, name: str, *vary: str) -> pd.DataFrame:
        """A row a run and test item of a section; settings that may `vary` are columns."""
        return load_items(self._folder(name), vary=vary).frame

    def source(self, *names: str, run_ids: Sequence[str] = ()) -> dict[str, Any]:
        """The provenance that `show` asks for, of what is drawn from these sections.

        run_ids: where not all of their runs are shown.
        """
        command = f"geodistill grid {self.study} --section"
        if not run_ids:
            tables = [pd.read_parquet(self._folder(n) / "rows.parquet") for n in names]
            run_ids = [run_id for table in tables for run_id in table["run_id"].unique()]
        return {
            "source": "stored",
            "made_by": " && ".join(f"{command} {name}" for name in names),
            "rows": ", ".join(f"data/results/{self.study}/{name}" for name in names),
            "run_ids": tuple(sorted(set(run_ids))),
        }

    def _folder(self, name: str) -> Path:
        return results_dir() / self.study / name
