"""What `geodistill power` prints: a plan from pilot rows or from given deviations."""

from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.analysis.protocol_file import write_design
from geodistill.analysis.report.comparison_report import pooled, scale
from geodistill.analysis.report.format import POINTS
from geodistill.analysis.score_tables import read_scores
from geodistill.analysis.stats.power import (
    GAINS,
    Design,
    from_deviations,
    from_pilot,
    needed,
    rule_of_thumb,
)
from geodistill.cli.tables import rich_table, wide_console
from geodistill.errors import InputError

Pilot = tuple[str, tuple[str, ...], str, str | None, tuple[str, ...]]


def plan(
    pilot: Pilot,
    deviations: tuple[float, float, float],
    sizes: tuple[int, int, int],
    gains: tuple[float, ...],
    out: Path | None,
) -> None:
    """Print what a design can see, and write it into the protocol file `out` where one is named.

    Args:
        pilot: rows (a file or a results folder), methods, baseline, metric and tasks (none: all);
            no rows: by `deviations`.
        deviations: σ_A, σ_B, σ_E of the paired difference, in the score's unit.
        sizes: seeds, items and tests of the plan; 0 for the pilot's own, or 5, 1000 and 1.
        gains: true differences to plan for, in the score's unit; 0.5, 1 and 2 points where none is.
        out: protocol file.

    Raises:
        InputError: both or neither of pilot and deviations, or either one unfit.
    """
    rows, methods, *_ = pilot
    if bool(rows) == any(deviations):
        raise InputError("give either --rows (a pilot) or --seed-sd, --item-sd and --rest-sd")
    if rows and not methods:
        raise InputError("--rows needs --method: which methods' differences to plan with")
    if rows:
        design, source, gains = _by_pilot(pilot, sizes, gains)
    else:
        seeds, items, tests = (n or usual for n, usual in zip(sizes, (5, 1000, 1), strict=True))
        design = Design(from_deviations(*deviations), 1, seeds, items, tests)
        source = "given deviations " + ", ".join(f"{one:g}" for one in deviations)
    gains = gains or GAINS
    console = wide_console()
    console.print(f"Variance components from {source}.")
    console.print(rich_table(plan_table(design, gains)))
    console.print(says(design))
    console.print(rule_of_thumb())
    if out:
        write_design(out, design, source, gains)
        console.print(f"design written into {out}")


def _by_pilot(
    pilot: Pilot, sizes: tuple[int, int, int], gains: tuple[float, ...]
) -> tuple[Design, str, tuple[float, ...]]:
    rows, methods, baseline, metric, tasks = pilot
    # Which way is better changes no variance.
    scores = read_scores(Path(rows), baseline, metric=metric, higher=True, tasks=tasks)
    answers = [pooled(scores, method, baseline) for method in methods]
    unit = scale(scores, baseline)[0]
    if not gains and unit.name != POINTS.name:
        raise InputError(f"{scores.metric} is not counted in points: say --gain, in its own unit")
    parts, measured = from_pilot(answers)
    one = answers[0]
    if not one.n_items or one.n_seeds < 2:
        raise InputError(
            f"{rows} has {one.n_seeds} shared seeds and {one.n_items} items: a plan needs 2 or "
            "more of each, to tell their parts"
        )
    usual = (one.n_seeds, measured, len(methods))
    seeds, planned, tests = (n or own for n, own in zip(sizes, usual, strict=True))
    source = (
        f"{rows}: {', '.join(methods)} against {baseline} on {', '.join(one.tasks)}, "
        f"{one.n_seeds} seeds × {measured:,} items; the noisiest comparison counts"
    )
    gains = gains or tuple(points / unit.factor for points in (0.5, 1.0, 2.0))
    return Design(parts, measured, seeds, planned, tests), source, gains


def plan_table(design: Design, gains: tuple[float, ...] = GAINS) -> pd.DataFrame:
    """`needed` with words for a page."""
    found = needed(design, gains)
    return pd.DataFrame(
        {
            "true gain": found["gain"].map("{:g}".format),
            "power of this design": found["power"].map("{:.0%}".format),
            f"seeds, with {design.items:,} items": found["seeds"].map(_count),
            f"items, with {design.seeds} seeds": found["items"].map(_count),
        }
    )


def says(design: Design) -> str:
    """What a design can see, in a sentence."""
    of = f", the first of {design.tests} tests under Holm" if design.tests > 1 else ""
    return (
        f"{design.seeds} seeds × {design.items:,} items show a gain of "
        f"{design.smallest_gain():.2g} or more at {design.power:.0%} power "
        f"(two-sided, α = {design.alpha:g}{of})."
    )


def _count(number: Any) -> str:
    return "no number" if number is pd.NA else f"{number:,}"
