"""The answer of a distillation: one sentence, levels, a figure, and the student's folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from geodistill.analysis.figures.style import geodistill_style, method_style
from geodistill.analysis.report.comparison_report import ComparisonReport, compare_all
from geodistill.analysis.report.format import POINTS, estimates_table, format_p
from geodistill.analysis.report.levels import format_levels, level_table
from geodistill.analysis.score_tables import read_scores
from geodistill.analysis.stats.collapse import find_collapsed
from geodistill.analysis.stats.verdict import BETTER, SLIGHTLY_BETTER
from geodistill.analysis.stored_results import pivot_metrics, read_stored
from geodistill.errors import InputError
from geodistill.experiments.classification.setup import ClassificationSetup
from geodistill.experiments.your_model.settings import NO_TERM, YourModelSettings
from geodistill.files import atomic_folder
from geodistill.tasks import ClassificationData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRIVIAL = ("majority", "tfidf")


@dataclass(frozen=True)
class Answer:
    """What the term did for the student.

    Attributes:
        settings: of the distillation.
        sentence: the comparison in words, and what else a reader must know.
        report: the comparison of the arms; None if there is none.
        runs: one row per run, a column for each metric; arms and baselines.
        levels: mean, median and collapsed runs of each arm and baseline, with means of the
            agreement with the teacher and of the geometry kept, as text.
        learning_rates: chosen on validation, by arm.
        arm: whose student is in the folder.
    """

    settings: YourModelSettings
    sentence: str
    report: ComparisonReport | None
    runs: pd.DataFrame
    levels: pd.DataFrame
    learning_rates: dict[str, float]
    arm: str

    @property
    def folder(self) -> Path:
        """The student, which `from_pretrained` loads."""
        return Path(self.settings.out)


def answer_of(
    settings: YourModelSettings, run_ids: Sequence[str], learning_rates: dict[str, float]
) -> Answer:
    """Compare the stored runs.

    Args:
        settings: of the distillation.
        run_ids: of the runs on test.
        learning_rates: chosen on validation, by arm.
    """
    folder = settings.runs_folder / "runs"
    rows, items = (read_stored(folder / f"{name}.parquet") for name in ("rows", "items"))
    rows, items = (table[table["run_id"].isin(run_ids)] for table in (rows, items))
    runs = pivot_metrics(rows)
    report, sentence, arm = _compare(settings, items)
    means = runs.groupby("method")["accuracy"].mean()
    best = max(TRIVIAL, key=lambda name: means[name])
    if means[arm] <= means[best]:
        sentence += (
            f" The student is not above {method_style(best).label} ({means[best]:.3f}): it is not "
            "worth keeping."
        )
    collapsed = find_collapsed(items[items["method"].isin(settings.arms)])
    sentence += "".join(_warnings(settings, collapsed, learning_rates))
    levels = _levels(settings, runs, collapsed)
    return Answer(settings, sentence, report, runs, levels, learning_rates, arm)


def _compare(
    settings: YourModelSettings, items: pd.DataFrame
) -> tuple[ComparisonReport | None, str, str]:
    """The report, its sentence, and the arm to ship."""
    if len(settings.arms) == 1:
        return None, "There is one arm: nothing is compared.", "kd"
    path = settings.runs_folder / "items.parquet"
    items[items["method"].isin(settings.arms)].to_parquet(path, index=False)
    try:
        report = compare_all(read_scores(path, "kd", metric="accuracy"), "kd", settings.arms[1:2])
    except InputError as error:  # such as equal predictions of all runs
        return None, f"The arms can't be compared: {error}.", "kd"
    row = report.rows[0]
    c, unit = row.comparison, report.unit
    seeds = "1 seed" if c.n_seeds == 1 else f"{c.n_seeds} seeds"
    sentence = (
        f"{method_style(c.method).label} against {method_style(c.baseline).label} on {c.task}: "
        f"{unit.format_difference(c)} {unit.name} of accuracy with {seeds} and {c.n_items:,} test "
        f"items, p = {format_p(row.p_adjusted)}: {row.verdict.word}."
    )
    if row.required:
        sentence += f" To decide takes {row.required}."
    is_term = settings.term != NO_TERM and c.method == settings.arms[1]
    is_better = is_term and row.verdict.word in (BETTER, SLIGHTLY_BETTER)
    return report, sentence, c.method if is_better else "kd"


def _warnings(
    settings: YourModelSettings, collapsed: pd.DataFrame, learning_rates: dict[str, float]
) -> Iterator[str]:
    """Sentences on collapsed runs, and on learning rates at the edge of those tried."""
    tried = settings.learning_rates
    for arm in settings.arms:
        label, runs = (
            method_style(arm).label,
            collapsed.loc[collapsed["method"] == arm, "collapsed"],
        )
        if runs.any():
            yield f" {runs.sum()} of {len(runs)} runs of {label} collapsed."
        rate = learning_rates[arm]
        if len(tried) > 1 and rate in (min(tried), max(tried)):
            edge = "largest" if rate == max(tried) else "smallest"
            yield (
                f" The best learning rate of {label}, {rate:g}, is the {edge} tried; others "
                "may be better still."
            )


def _levels(
    settings: YourModelSettings, runs: pd.DataFrame, collapsed: pd.DataFrame
) -> pd.DataFrame:
    levels = level_table(runs, "accuracy", collapsed)
    order = [*TRIVIAL, *settings.arms, "teacher"]
    levels = levels.sort_values("method", key=lambda names: names.map(order.index))
    text = format_levels(levels, POINTS).drop(columns="task")
    names = {
        "agreement": "agreement with the teacher",
        "geometry_kept/procrustes": "geometry kept (Procrustes)",
        "geometry_kept/gram": "geometry kept (Gram)",
    }
    means = runs.groupby("method")[[n for n in names if n in runs]].mean()
    for name, column in names.items():
        if name in means:
            values = means.loc[text["method"], name]
            text[column] = [f"{value:.3f}" if pd.notna(value) else "–" for value in values]
    text["method"] = [method_style(method).label for method in text["method"]]
    return text


def draw_answer(answer: Answer) -> Figure:
    """Accuracy of every run beside baselines and teacher; and the differences from KD."""
    from matplotlib import pyplot

    from geodistill.analysis.figures.comparison_plots import forest

    arms, report = answer.settings.arms, answer.report
    accuracy = answer.runs.assign(accuracy=100 * answer.runs["accuracy"])
    with geodistill_style():
        fig, axes = pyplot.subplots(
            1, 2 if report else 1, figsize=(7.5, 1.4 + 0.4 * len(arms)), squeeze=False,
            layout="constrained",
        )  # fmt: skip
        ax = axes[0, 0]
        for method in (*TRIVIAL, "teacher"):
            style, line = method_style(method), {"majority": ":", "tfidf": "--", "teacher": "-"}
            value = accuracy.loc[accuracy["method"] == method, "accuracy"].iloc[0]
            ax.axvline(value, color=style.color, linestyle=line[method], label=style.label)
        for y, method in enumerate(arms):
            values, style = (
                accuracy.loc[accuracy["method"] == method, "accuracy"],
                method_style(method),
            )
            ax.plot(values, [y] * len(values), style.marker, color=style.color, alpha=0.6)
        ax.set_yticks(range(len(arms)), [method_style(arm).label for arm in arms])
        ax.set(xlabel="test accuracy, %", ylim=(len(arms) - 0.5, -0.5))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=3)
        if report:
            estimates = estimates_table(report.comparisons, report.unit)
            margins = [row.margin * report.unit.factor for row in report.rows]
            forest(axes[0, 1], estimates, report.unit.name, margins)
    return fig


def write_student(
    answer: Answer,
    plan: pd.DataFrame,
    student: Path,
    setup: ClassificationSetup,
    data: ClassificationData,
) -> None:
    """Write weights, tokenizer and model card to the student's folder, whole or not at all.

    Args:
        answer: of the distillation.
        plan: as `plan_table` gives it.
        student: folder with the weights.
        setup: whose tokenizer the student has.
        data: with the names of the labels.

    Raises:
        InputError: the folder can't be written.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        with atomic_folder(answer.folder) as partial:
            shutil.copytree(student, partial, dirs_exist_ok=True)
            config = AutoConfig.from_pretrained(student)
            config.id2label = dict(enumerate(data.label_names))
            config.label2id = {name: index for index, name in config.id2label.items()}
            config.save_pretrained(partial)
            AutoTokenizer.from_pretrained(setup.settings.teacher.model).save_pretrained(partial)
            card = model_card(answer, plan)
            (partial / "README.md").write_text(card, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"out: {answer.folder} can't be written ({error.strerror or error}); the runs are "
            "kept: make room, and the same call writes the student"
        ) from error


def model_card(answer: Answer, plan: pd.DataFrame) -> str:
    """The card of the student: teacher, student, terms, data, scores, versions, citation."""
    packages = ("geodistill", "torch", "transformers")
    lines = [
        f"- **{what}**: {taken}" + (f" ({odd})" if odd else "")
        for what, taken, odd in plan.to_numpy().tolist()
    ]
    names = list(answer.levels.columns)
    table = [names, ["---"] * len(names), *answer.levels.to_numpy().tolist()]
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-classification",
            "tags: [knowledge-distillation, geodistill]",
            "---",
            "",
            f"# A student of {Path(answer.settings.teacher).name}",
            "",
            f"Distilled with {method_style(answer.arm).label} (learning rate "
            f"{answer.learning_rates[answer.arm]:g}, seed 0). {answer.sentence}",
            "",
            "## How it was made",
            "",
            *lines,
            "",
            "## Scores on the test rows",
            "",
            *(f"| {' | '.join(row)} |" for row in table),
            "",
            "Geometry kept: 0 at chance level, 1 at the best that a student of this width can do.",
            "",
            "## Versions",
            "",
            ", ".join(f"{name} {version(name)}" for name in packages),
            "",
            "## Citation",
            "",
            "Bhattarai, Amjad, Zhylko, Alhanai (2025). Knowledge distillation through "
            "geometry-aware representational alignment. arXiv:2509.25253",
            "",
        ]
    )
