"""What a page may show of a study by protocol: its whole sections, as tables with provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis import report
from geodistill.analysis.compare import Comparison
from geodistill.analysis.gains import grouped
from geodistill.analysis.rows import load_items, load_rows, wide
from geodistill.analysis.style import geodistill_style
from geodistill.experiments import plan
from geodistill.experiments.store import results_dir
from geodistill.publish.claims import StoredTest
from geodistill.publish.provenance import show


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
        """Whether these sections may all be shown together; where not, a line says why."""
        lacking = [n for n in names if not plan.whole(self.study, n, self.planned[n])]
        for name in lacking:
            stored = plan.stored_runs(self.study, name)
            print(f"section {name}: {stored} of {self.planned[name]} runs are stored; not shown")
        return not lacking and self.alike(*names)

    def alike(self, *names: str) -> bool:
        """Whether these sections come from one kind of device: else they are not compared.

        Another device rounds otherwise, and draws other numbers from the same seed.
        """
        kinds = {name: self._devices(name) for name in names}
        found = sorted(set().union(*kinds.values()))
        if len(found) > 1:
            told = ", ".join(f"{name} {' and '.join(sorted(kinds[name]))}" for name in names)
            print(f"sections of different devices are not compared ({told})")
        return len(found) <= 1

    def _devices(self, name: str) -> set[str]:
        """ "cpu" or "cuda", as the rows tell."""
        told = pd.read_parquet(self._folder(name) / "rows.parquet", columns=["device"])["device"]
        return {str(device).partition(":")[0] for device in told.unique()}

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

    def show_forest(
        self, answers: Sequence[Comparison], test: StoredTest, name: str, *sections: str
    ) -> None:
        """Comparisons from these sections as a figure, in the unit and margin of `test`."""
        from matplotlib import pyplot

        from geodistill.analysis import figures

        with geodistill_style():
            fig, ax = pyplot.subplots(figsize=(7, 0.42 * len(answers) + 1))
            margin = test.margin * test.unit.factor
            figures.forest(ax, report.tidy(answers, test.unit), test.unit.name, margin)
        told = report.in_words(answers, test.unit)
        show(fig, alt=f"Forest plot. {told}.", name=name, **self.source(*sections))

    def show_groups(
        self,
        groups: Mapping[str, Sequence[Comparison]],
        test: StoredTest,
        name: str,
        *sections: str,
        over: str = "KD",
        along: str = "",
    ) -> None:
        """Gains in groups, side by side, as a figure; each group says how many seeds it has.

        Args:
            groups: comparisons by name of their group.
            test: whose unit and margin count.
            name: of the figure.
            sections: that the comparisons come from.
            over: what the gains are over, for the axis label.
            along: what the groups are, for the other axis.
        """
        from matplotlib import pyplot

        from geodistill.analysis.instruction_figures import gains_in_groups

        groups = {f"{n}\n({min(a.n_seeds for a in g)} seeds)": g for n, g in groups.items()}
        table, unit = grouped(groups, test.unit), f"{test.unit.name} over {over}"
        with geodistill_style():
            fig, ax = pyplot.subplots(figsize=(7.5, 3.4))
            gains_in_groups(ax, table, unit, test.margin * test.unit.factor)
            ax.set_xlabel(along)
        words = [
            f"{' '.join(n.split())}: {report.in_words(a, test.unit)}" for n, a in groups.items()
        ]
        alt = f"Gain over {over}, by group. {'; '.join(words)}."
        show(fig, alt=alt, name=name, **self.source(*sections))

    def _folder(self, name: str) -> Path:
        return results_dir() / self.study / name
