"""Figures and tables that the chapters of both studies show, from complete stored sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
from IPython.display import Markdown, display
from matplotlib import pyplot
from matplotlib.figure import Figure

from geodistill.analysis.figures.style import geodistill_style, method_style
from geodistill.analysis.report.format import POINTS, comparison_table
from geodistill.analysis.report.levels import format_levels, level_table
from geodistill.analysis.stats.collapse import find_collapsed
from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.contrasts import leave_one_task_out, two_by_two
from geodistill.experiments.methods import BASELINES, INSTRUCTION_REFERENCES
from geodistill.experiments.stored_sections import StoredSections
from geodistill.experiments.tuned_grid import TunedGrid
from geodistill.publish.claims.figures import show_forest
from geodistill.publish.claims.judge import KD, Judge, find_test
from geodistill.publish.display import show, show_table

if TYPE_CHECKING:
    from torch import Tensor

PARTS = (KD, "kd+spectrum", "kd+alignment", "kd+procrustes")
"""Neither part of the Procrustes term, one of them, the other, both."""
POINTS_COLUMN = "points (95 % interval)"


def show_gate(study: StoredSections, grid: TunedGrid, tasks: Sequence[str]) -> None:
    """Validation scores of KD and of the baselines that it must clear; nothing if incomplete.

    Args:
        study: the stored sections.
        grid: of the study.
        tasks: names of tasks.
    """
    baselines, students = grid.gate_sections(tasks)
    sections = (*baselines, *students)
    if not study.is_complete(*sections):
        return
    gate = grid.gate_table(tasks).replace({True: "yes", False: "no"}).round(1)
    show_table(
        gate.rename(columns=_label).rename_axis(index="task", columns=None).reset_index(),
        caption="Validation scores of tuned KD and of the baselines that it must clear, in points; "
        "means over the tuning seeds.",
        name=f"{study.study}-gate",
        **study.provenance(*sections),
    )


def show_batch_rows(features: Tensor, n_rows: float) -> None:
    """How similar unrelated features look in a batch, in a sentence (chapter 2).

    Args:
        features: of the teacher, (rows, width), of any large sample.
        n_rows: that a term compares in a batch, on average.
    """
    from geodistill.experiments.finite_samples import nuclear_rank, sample_size_for

    rank = nuclear_rank(features.double())
    sentence = (
        f"A batch has about {n_rows:.0f} rows, and the teacher's features have a nuclear rank of "
        f"{rank:.0f}: in so few rows unrelated features have a fidelity of up to "
        f"{min(1.0, (rank / (n_rows - 1)) ** 0.5):.2f}, equal geometries of 1; "
        f"{sample_size_for(rank, 0.2):,} rows would bring it to 0.20."
    )
    display(Markdown(sentence))  # type: ignore[no-untyped-call]


def show_length(study: StoredSections, setting: str, metric: str) -> None:
    """KD on validation after half, all and twice the training; nothing if incomplete.

    Args:
        study: the stored sections.
        setting: the length, such as "epochs".
        metric: the score, in 0..1.
    """
    if not study.is_complete("kd-length"):
        return
    runs = study["kd-length"].runs
    means = 100 * runs.groupby(["task", setting])[metric].mean().unstack(setting)
    show_table(
        means.rename(columns=f"{{:g}} {setting}".format)
        .rename_axis(columns=None)
        .reset_index()
        .round(1),
        caption=f"KD's {metric.replace('_', ' ')} on validation in per cent; means over "
        f"{runs['seed'].nunique()} seeds.",
        name=f"{study.study}-length",
        **study.provenance("kd-length"),
    )


def show_tests(judge: Judge, keys: Sequence[str]) -> None:
    """The comparisons of claims that are one family, as a figure and as a table with verdicts.

    Args:
        judge: which evaluates the claims.
        keys: of the claims.
    """
    if not all(judge.has_results(key) for key in keys):
        return print(f"not yet tested, their section is incomplete: {', '.join(keys)}")
    by_claim = {key: judge.comparisons(key) for key in keys}
    comparisons, test = [c for of_claim in by_claim.values() for c in of_claim], find_test(keys[0])
    provenance, name = judge.provenance(keys[0]), f"{test.study}-five-tests"
    show_forest(comparisons, test, name, provenance)
    table = comparison_table(comparisons, test.margin, test.unit)
    table.insert(0, "claim", [key for key, of_claim in by_claim.items() for _ in of_claim])
    caption = "The tests of the figure above, with corrected p-values and verdicts."
    show_table(table, caption=caption, name=f"{test.study}-verdicts", **provenance)


def show_levels(
    study: StoredSections,
    sections: Sequence[str],
    metric: str,
    floors: Mapping[str, float] | None = None,
) -> None:
    """The score of every method as a table, with collapsed runs, and of every run as a figure.

    Args:
        study: the stored sections.
        sections: names of complete ones.
        metric: the score, in 0..1.
        floors: score of the best trivial answer by task, where items have no labels.
    """
    runs = pd.concat([study[name].runs for name in sections])
    items = pd.concat([study[name].items for name in sections])
    trained = items[~items["method"].isin({*BASELINES, *INSTRUCTION_REFERENCES})]
    levels = level_table(runs, metric, find_collapsed(trained, floors=floors))
    name, provenance = metric.replace("_", " "), study.provenance(*sections)
    show_table(
        _levels_by_method(levels),
        caption=f"Test {name} in per cent by method, best first: mean over runs (median); "
        "and how many runs collapsed.",
        name=f"{study.study}-levels",
        **provenance,
    )
    show(
        draw_runs(runs, metric),
        alt="Test score of every run by task and method; numbers in the table above.",
        caption="One mark per run; bars are medians.",
        data=runs[["task", "method", "seed", metric]],
        name=f"{study.study}-levels-figure",
        **provenance,
    )


def _levels_by_method(levels: pd.DataFrame) -> pd.DataFrame:
    """One row per method, the best first, with a column per task."""
    text = format_levels(levels, POINTS)
    levels = levels.assign(text=text["mean (points)"] + " (" + text["median (points)"] + ")")
    by_method = levels.groupby("method")
    table = levels.pivot(index="method", columns="task", values="text").fillna("–")
    table["runs"] = by_method["runs"].sum()
    collapsed = by_method["collapsed"].sum(min_count=1)
    table["collapsed"] = collapsed.map(lambda n: "–" if pd.isna(n) else f"{n:.0f}")
    order = by_method["mean"].mean().sort_values(ascending=False).index
    return table.loc[order].rename(index=_label).rename_axis(columns=None).reset_index()


def draw_runs(runs: pd.DataFrame, metric: str) -> Figure:
    """The test score of every run in per cent by task and method, the best on top; with medians.

    Args:
        runs: one row per run: `task, method` and a column with the metric.
        metric: name of that column; rows without it are left out.
    """
    runs = runs.dropna(subset=[metric])
    tasks = sorted(runs["task"].unique())
    methods = runs.groupby("method")[metric].mean().sort_values().index
    with geodistill_style():
        size = (7.5, 0.26 * len(methods) + 1)
        fig, axes = pyplot.subplots(1, len(tasks), figsize=size, sharey=True, squeeze=False)
        for ax, task in zip(axes[0], tasks, strict=True):
            for y, method in enumerate(methods):
                of_method = (runs["task"] == task) & (runs["method"] == method)
                values, style = 100 * runs.loc[of_method, metric], method_style(method)
                ax.plot(values, [y] * len(values), style.marker, color=style.color, alpha=0.4)
                ax.plot(values.median(), y, "|", color="black", markersize=12)
            ax.set(title=task, xlabel=f"test {metric.replace('_', ' ')}, %")
        axes[0, 0].set_yticks(range(len(methods)), list(map(_label, methods)))
    return fig


def mean_level(study: StoredSections, section: str, method: str, metric: str) -> float:
    """Mean test score of a method over the tasks of the comparisons, in per cent.

    Args:
        study: the stored sections.
        section: name of a complete one; `full` must be complete too.
        method: its name.
        metric: the score, in 0..1.
    """
    runs = study[section].runs
    is_meant = (runs["method"] == method) & runs["task"].isin(study["full"].pooled["task"])
    return float(100 * runs.loc[is_meant, metric].mean())


def show_parts(study: StoredSections, section: str) -> None:
    """The effects of the spectrum and the alignment part of Procrustes, and their interaction.

    Args:
        study: the stored sections.
        section: name of a complete one.
    """
    items = study[section].pooled
    effects = two_by_two(items, *PARTS)
    effects["effect"] = ["spectrum part", "alignment part", "both together, beyond their sum"]
    n_seeds, n_items = effects["n_seeds"].min(), effects["n_items"].min()
    show_table(
        _in_points(effects)[["effect", POINTS_COLUMN]],
        caption=f"Effects of the two parts; {n_seeds} seeds, {n_items:,} test items, intervals not "
        "corrected. Each part's is the mean of its effect without and with the other part.",
        name=f"{study.study}-two-by-two",
        **study.provenance(section),
    )
    alone, other, both = (POINTS.format(compare(items, m, KD).estimate) for m in PARTS[1:])
    beyond = POINTS.format(effects["estimate"].iloc[2])
    sentence = (
        f"Alone, the spectrum part changes KD by {alone} points and the alignment part by {other}; "
        f"together they change it by {both}, {beyond} beyond their sum."
    )
    display(Markdown(sentence))  # type: ignore[no-untyped-call]


def show_without_each_task(study: StoredSections, section: str, key: str) -> None:
    """The comparisons of a claim without one of the tasks.

    Args:
        study: the stored sections.
        section: name of a complete one.
        key: of the claim.
    """
    without = _in_points(leave_one_task_out(study[section].pooled, find_test(key).pairs))
    without["method"] = without["method"].map(_label)
    show_table(
        without[["method", "without", POINTS_COLUMN]],
        caption="Gain over KD without one of the tasks; intervals not corrected.",
        name=f"{study.study}-leave-one-task-out",
        **study.provenance(section),
    )


def show_metrics(study: StoredSections, section: str, metrics: Mapping[str, str]) -> None:
    """Means of further metrics by method, in the order of the first.

    Args:
        study: the stored sections.
        section: name of a complete one.
        metrics: names of metrics and of their columns.
    """
    means = study[section].runs.groupby("method")[[*metrics]].mean()
    means = means.sort_values(next(iter(metrics)), ascending=False)
    table = means.rename(columns=dict(metrics)).round(3)
    show_table(
        table.rename(index=_label).rename_axis("method").reset_index(),
        caption="Means over tasks and seeds. Geometry kept: 0 at chance, 1 at the best that a "
        "student of this width can do. The benchmarks measure what a term costs.",
        name=f"{study.study}-metrics",
        **study.provenance(section),
    )


def show_gains(study: StoredSections, section: str, key: str, kd_of: str = "") -> None:
    """The gain over KD of every other method of a section, on equal seeds; nothing if incomplete.

    Args:
        study: the stored sections.
        section: its name.
        key: of the claim whose unit and margin count.
        kd_of: name of the section that has KD; by default the same one.
    """
    names = dict.fromkeys([section, kd_of or section])
    if study.is_complete(*names):
        others = sorted({*study[section].pooled["method"]} - {KD})
        others.sort(key=lambda method: (method != PARTS[-1], "+" not in method))
        items = pd.concat([study[name].pooled for name in names])
        gains = [compare(items, method, KD) for method in others]
        name = f"{study.study}-{section}"
        show_forest(gains, find_test(key), name, study.provenance(*names))


def _label(method: object) -> str:
    return method_style(str(method)).label


def _in_points(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column of the estimates and their intervals, in points."""
    estimate, low, high = (table[name].map(POINTS.format) for name in ("estimate", "low", "high"))
    return table.assign(**{POINTS_COLUMN: estimate + " (" + low + " to " + high + ")"})
