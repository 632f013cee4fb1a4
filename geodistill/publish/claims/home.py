"""The answer on the home page and in README: what a Procrustes term adds to KD, by setting.

`python -m geodistill.publish.claims.home` writes them into README and draws its figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd

from geodistill.analysis.figures.style import geodistill_style, method_style
from geodistill.analysis.report.format import POINTS, markdown_rows
from geodistill.analysis.stats.compare import Comparison, compare
from geodistill.analysis.stats.verdict import BETTER, SLIGHTLY_BETTER, verdict
from geodistill.experiments.methods import CONTROLS, term_of
from geodistill.experiments.registry import GRIDS
from geodistill.publish.claims.home_settings import (
    PROCRUSTES,
    TEACHER,
    Setting,
    read_settings,
)
from geodistill.publish.claims.judge import KD, Judge, claims_file, find_test
from geodistill.publish.project import find_project

ALIGNMENT = "kd+alignment"
MARGIN = find_test("C4a").margin
START, END = "<!-- answer -->", "<!-- end of the answer -->"
FIGURE = Path("book/_static/answer.svg")


def finding(settings: Sequence[Setting]) -> str:
    """One sentence on the planned tests: the title of the figure.

    Args:
        settings: as `read_settings` gives them.
    """
    counted = [s for s in settings if s.kind == "confirmatory"]
    if len(counted) == 1:
        (only,) = counted
        over_kd = {c.method: POINTS.format(c.estimate) for c in (only.gain, *only.alternatives)}
        gain, best = over_kd[PROCRUSTES], over_kd[only.over_best.baseline]
        return f"{only.label}: Procrustes {gain} points over KD, the best alternative {best}"
    gains = sum(_is_better(s.gain) for s in counted)
    ahead = sum(_is_better(s.over_best) for s in counted)
    return (
        f"A Procrustes term is better than KD in {gains} of {len(counted)} studies, and better "
        f"than the best alternative in {ahead}"
    )


def answer(judge: Judge, settings: Sequence[Setting]) -> str:
    """The answer in words: the complete studies, and which are not.

    Args:
        judge: which evaluates the claims.
        settings: as `read_settings` gives them.
    """
    paragraphs, further_tests = [], {}
    by_label = {setting.label: setting for setting in settings}
    for spec in claims_file()["settings"]:
        setting = by_label.get(spec["label"])
        if setting is not None and spec.get("section") == "full":
            paragraphs += _study_answer(judge, spec, setting, by_label)
            further_tests[setting.label] = _further_tests(judge, spec["study"])
    if further_tests:
        paragraphs.insert(0, f"{finding(settings)}.")
        paragraphs.append(_tests_table(further_tests))
    missing = [study for study in GRIDS if not judge.sections(study).is_complete("full")]
    if missing:
        paragraphs.append(f"Still running, and not shown: the {' and the '.join(missing)} study.")
    return "\n\n".join(paragraphs)


def _study_answer(
    judge: Judge, spec: dict[str, Any], setting: Setting, by_label: Mapping[str, Setting]
) -> list[str]:
    """The main result of a complete study, and what qualifies it."""
    longer, shorter, unlabelled = (
        by_label.get(spec.get(name, "")) for name in ("longer", "shorter", "unlabelled")
    )
    sections = judge.sections(spec["study"])
    items = sections["full"].items
    alignment = compare(sections["full"].pooled, ALIGNMENT, KD)
    qualified = []
    for task, name in spec.get("transfer", {}).items():
        c = compare(items[items["task"] == task], PROCRUSTES, KD)
        qualified.append(f"On {name} the difference is {POINTS.format_difference(c)} points.")
    if shorter is not None:
        trivial = shorter.best_trivial
        below = shorter.levels[KD] < shorter.levels.get(trivial, 0)
        than = f", below {method_style(trivial).label} at {_level(shorter, trivial)} %"
        qualified.append(
            f"With a quarter of the training (KD {_level(shorter, KD)} %{than * below}) it adds "
            f"{POINTS.format_difference(shorter.gain)} points; against the best alternative, "
            f"{POINTS.format_difference(shorter.over_best)}."
        )
    if longer is not None:
        qualified.append(
            f"With twice the training KD reaches {_level(longer, KD)} %, and the term adds "
            f"{POINTS.format_difference(longer.gain)} points ({longer.gain.n_seeds} seeds)."
        )
    elif sections.is_complete("kd-length"):
        runs = sections["kd-length"].runs
        levels = 100 * runs.groupby(spec["length"])[setting.score.replace(" ", "_")].mean()
        *_, full, double = levels
        qualified.append(
            f"KD alone goes from {full:.1f} to {double:.1f} % with twice the training (validation)."
        )
    if sizes := [by_label[label] for label in spec.get("sizes", ()) if label in by_label]:
        changes = " and ".join(
            f"{POINTS.format_difference(size.gain)} points to {size.label.partition(', ')[2]} "
            f"(KD {_level(size, KD)} %)"
            for size in sizes
        )
        qualified.append(f"In students of other sizes, weights not tuned again, it adds {changes}.")
    if unlabelled is not None:
        qualified.append(
            "With the teacher's logits on all training texts and no label KD reaches "
            f"{_level(unlabelled, KD)} %, and the term adds "
            f"{POINTS.format_difference(unlabelled.gain)} points ({unlabelled.gain.n_seeds} seeds)."
        )
    qualified.append(
        "Of its two parts, alignment alone changes KD by "
        f"{POINTS.format_difference(alignment)} points."
    )
    return [_main_result(setting), " ".join(qualified)]


def _main_result(setting: Setting) -> str:
    """The gain of Procrustes over KD and the level of the best alternative, in bold."""
    gain, best = setting.gain, setting.over_best.baseline
    return (
        f"**{setting.label}: a Procrustes term takes {setting.score} from {_level(setting, KD)} to "
        f"{_level(setting, PROCRUSTES)} % ({POINTS.format(gain.estimate)} points, 95 % interval "
        f"{POINTS.format_interval(gain)}; {gain.n_seeds} seeds, {gain.n_items:,} items); the best "
        f"alternative, {method_style(best).label}, reaches {_level(setting, best)} %.**"
    )


def _further_tests(judge: Judge, study: str) -> dict[str, str]:
    """The other tests of a complete study, in points, by their sentence in the protocol."""
    protocol, pooled = GRIDS[study].protocol(), judge.sections(study)["full"].pooled
    tests = {}
    for pair, sentence in zip(protocol["family"], protocol["sentences"], strict=True):
        c = compare(pooled, pair["method"], pair["baseline"])
        if (c.method, c.baseline) != (PROCRUSTES, KD):
            words = sentence.rstrip(".").replace("[points]", "…")
            tests[words] = POINTS.format_difference(c) + _own_gain(pooled, c.baseline)
    return tests


def _own_gain(items: pd.DataFrame, control: str) -> str:
    """The gain of a control over KD: beating a control that is worse than KD shows nothing."""
    if term_of(control) not in CONTROLS:
        return ""
    return f"; that alone changes KD by {POINTS.format(compare(items, control, KD).estimate)}"


def _tests_table(by_study: dict[str, dict[str, str]]) -> str:
    """A Markdown table with one row per test and one column per study."""
    studies = by_study.values()
    sentences = dict.fromkeys(words for tests in studies for words in tests)
    rows = [(words, *(tests.get(words, "–") for tests in studies)) for words in sentences]
    return markdown_rows(["the other tests, in points", *by_study], rows)


def settings_table(settings: Sequence[Setting]) -> str:
    """A Markdown table of levels and gains, one row per setting.

    Args:
        settings: as `read_settings` gives them.
    """
    head = (
        "setting", "Procrustes over KD", "over the best alternative", "KD",
        "best trivial baseline", "teacher",
    )  # fmt: skip
    return markdown_rows(head, map(_cells, settings))


def _cells(setting: Setting) -> tuple[str, ...]:
    trivial = setting.best_trivial
    level = f"{_level(setting, trivial)} ({method_style(trivial).label})" if trivial else "–"
    label = method_style(term_of(setting.over_best.baseline)).label
    write = _verdict if setting.kind == "confirmatory" else POINTS.format_difference
    return (
        setting.label,
        write(setting.gain),
        f"{write(setting.over_best)} ({label})",
        _level(setting, KD),
        level,
        _level(setting, TEACHER),
    )


def _level(setting: Setting, method: str) -> str:
    return f"{100 * setting.levels[method]:.1f}" if method in setting.levels else "–"


def _verdict(c: Comparison) -> str:
    return f"{POINTS.format_difference(c)}: **{verdict(c, MARGIN).word}**"


def _is_better(comparison: Comparison) -> bool:
    return verdict(comparison, MARGIN).word in (BETTER, SLIGHTLY_BETTER)


def draw_answer(settings: Sequence[Setting], target: Path) -> None:
    """Draw the gains over KD, one row per setting, as SVG; the same scores give the same file.

    Args:
        settings: as `read_settings` gives them.
        target: the file.
    """
    import matplotlib as mpl
    from matplotlib import pyplot

    unstated = dict.fromkeys(("Creator", "Date"))  # they differ from machine to machine
    facts = {"Title": finding(settings), "Description": settings_table(settings), **unstated}
    with geodistill_style(), mpl.rc_context({"svg.hashsalt": "answer"}):
        size = (4.7, 0.8 * len(settings) + 1.8)  # narrow: legible on a phone
        fig, ax = pyplot.subplots(figsize=size, layout="constrained")
        ax.axvspan(-100 * MARGIN, 100 * MARGIN, color="#EFEFEF", zorder=0)
        ax.axvline(0, color="black", linewidth=0.8)
        for row, setting in enumerate(settings):
            for i, comparison in enumerate((setting.gain, *setting.alternatives)):
                _draw_interval(ax, comparison, row + 0.15 * i - 0.3, filled=i == 0)
        ax.set_yticks(range(len(settings)), [fill(s.label, 14) for s in settings])
        ax.set(ylim=(len(settings) - 0.5, -0.5), xlabel="gain over KD, points (95 % interval)")
        handles, labels = ax.get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        fig.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=2)
        fig.suptitle(fill(finding(settings), 40), fontsize="medium")
        fig.savefig(target, format="svg", metadata=facts)
        pyplot.close(fig)


def _draw_interval(ax: Any, comparison: Comparison, y: float, *, filled: bool) -> None:
    style = method_style(term_of(comparison.method))
    low, value, high = (100 * x for x in (comparison.low, comparison.estimate, comparison.high))
    ax.errorbar(
        value, y, xerr=[[value - low], [high - value]], fmt=style.marker, color=style.color,
        markerfacecolor=style.color if filled else "white", label=style.label, capsize=0,
    )  # fmt: skip


def write_answer(figure: Path) -> str:
    """Draw the figure of README and the home page; the words and the table beside it.

    Args:
        figure: the file.
    """
    judge = Judge(log=lambda line: None)
    settings = read_settings(judge)
    draw_answer(settings, figure)
    return f"{answer(judge, settings)}\n\n{settings_table(settings)}"


def main() -> None:
    """Write the answer between the two marks of README, and draw the figure that it shows."""
    root = find_project().root
    before, start, rest = (root / "README.md").read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    text = f"{before}{start}\n{write_answer(root / FIGURE)}\n{end}{after}"
    (root / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
