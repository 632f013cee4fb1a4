"""What `geodistill power` does: plan a comparison from a pilot or from standard deviations."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from geodistill.analysis.protocol_file import write_design
from geodistill.analysis.report.comparison_report import compare_pooled
from geodistill.analysis.report.units import infer_scale, refuse_whole_range
from geodistill.analysis.score_tables import ScoreTable, read_scores
from geodistill.analysis.stats.power import (
    GAINS,
    Design,
    components_from_sd,
    pilot_components,
    required_sizes,
    rule_of_thumb,
)
from geodistill.cli.tables import parse_columns, print_taken, rich_table, wide_console
from geodistill.errors import InputError


def run_power(
    *,
    pilot: Path | None,
    methods: Sequence[str],
    baseline: str,
    columns: Sequence[str],
    metric: str | None,
    tasks: Sequence[str],
    deviations: tuple[float, float, float],
    seeds: int,
    items: int,
    tests: int,
    gains: Sequence[float],
    unit: str | None,
    out: Path | None,
) -> None:
    """Print what a design detects, and write it to the protocol file `out` if one is named.

    Args:
        pilot: a file of scores or a results folder; if there is none, `deviations` count.
        methods: in the pilot, whose differences to the baseline are planned with.
        baseline: in the pilot.
        columns: names in the pilot as "OURS=THEIRS"; "OURS=" for none.
        metric: in the pilot, if it has several.
        tasks: in the pilot; all by default.
        deviations: σ_A, σ_B, σ_E of the paired difference, in the unit of the score.
        seeds: planned; 0 takes those of the pilot, otherwise 5.
        items: planned; 0 takes those of the pilot, otherwise 1000.
        tests: of the Holm family; 0 takes the number of methods, otherwise 1.
        gains: true differences, in the unit of the score; by default 0.5, 1 and 2 points.
        unit: of the pilot's scores; by default inferred.
        out: protocol file.

    Raises:
        InputError: both or neither of pilot and deviations, or either one unfit.
    """
    if bool(pilot) == any(deviations):  # the direction of the metric does not change its variance
        raise InputError("give either --pilot or --seed-sd, --item-sd and --rest-sd")
    if pilot is not None:
        if not methods:
            raise InputError("--pilot needs --method: which methods' differences to plan with")
        scores = read_scores(pilot, baseline, parse_columns(columns), metric, True, tasks)
        design, source, gains = _pilot_design(pilot, scores, methods, baseline, gains, unit)
    else:
        of_pilot = {"method": methods, "column": columns, "metric": metric, "task": tasks}
        of_pilot["unit"] = unit
        if useless := [f"--{name}" for name, value in of_pilot.items() if value]:
            raise InputError(f"{', '.join(useless)} are about a pilot: give --pilot too")
        design = Design(components_from_sd(*deviations), 1, seeds=5, items=1000)
        source = "given deviations " + ", ".join(f"{value:g}" for value in deviations)
    design = replace(
        design,
        seeds=seeds or design.seeds,
        items=items or design.items,
        tests=tests or design.tests,
    )
    gains = tuple(gains or GAINS)
    plan = plan_table(design, gains)
    console = wide_console()
    if pilot is not None:
        print_taken(console, {**scores.taken, "value": scores.metric})  # whichever way is better
    console.print(f"Variance components from {source}.")
    console.print(rich_table(plan))
    console.print(describe_design(design))
    console.print(rule_of_thumb())
    if out:
        write_design(out, design, source, gains)
        console.print(f"design written to {out}")


def _pilot_design(
    pilot: Path,
    scores: ScoreTable,
    methods: Sequence[str],
    baseline: str,
    gains: Sequence[float],
    unit: str | None,
) -> tuple[Design, str, Sequence[float]]:
    """The design of the pilot itself, its description, and the gains in the unit of its scores."""
    scale = infer_scale(scores, baseline, unit=unit)
    if set(scale.divisors.values()) != {1.0}:
        reason = scale.notes[0].partition(";")[0] if scale.notes else f"unit is {unit!r}"
        raise InputError(f"{reason}: choose tasks of one scale by --task, or --unit raw")
    if not gains and scale.unit.name != "points":
        raise InputError(
            f"{scores.metric} is not counted in points: choose --gain, in its own unit"
        )
    refuse_whole_range("--gain", max(gains, default=0.0), scale.unit)
    methods = list(dict.fromkeys(methods))
    comparisons = [compare_pooled(scores, method, baseline) for method in methods]
    first = comparisons[0]
    if not first.n_items or first.n_seeds < 2:
        raise InputError(
            f"{pilot} has {first.n_seeds} shared seeds and {first.n_items} items: a plan needs 2 "
            "or more of each, to separate their variances; of runs alone, give the standard "
            "deviation of their paired differences by --seed-sd"
        )
    parts, n_items = pilot_components(comparisons)
    source = (
        f"{pilot}: {', '.join(methods)} against {baseline} on {', '.join(first.tasks)}, "
        f"{first.n_seeds} seeds × {n_items:,} items; the noisiest comparison counts"
    )
    gains = gains or [points / scale.unit.factor for points in (0.5, 1.0, 2.0)]
    return Design(parts, n_items, first.n_seeds, n_items, len(methods)), source, gains


def plan_table(design: Design, gains: Sequence[float] = GAINS) -> pd.DataFrame:
    """`required_sizes` as text for a page."""
    sizes = required_sizes(design, gains)
    return pd.DataFrame(
        {
            "true gain": sizes["gain"].map("{:g}".format),
            "power of this design": sizes["power"].map("{:.0%}".format),
            f"seeds, with {design.items:,} items": sizes["seeds"].map(_format_count),
            f"items, with {design.seeds} seeds": sizes["items"].map(_format_count),
        }
    )


def describe_design(design: Design) -> str:
    """What a design detects, in a sentence."""
    holm = f", the first of {design.tests} tests under Holm" if design.tests > 1 else ""
    return (
        f"{design.seeds} seeds × {design.items:,} items detect a gain of "
        f"{design.smallest_gain():.2g} or more at {design.power:.0%} power "
        f"(two-sided, α = {design.alpha:g}{holm})."
    )


def _format_count(number: object) -> str:
    return "no number" if number is pd.NA else f"{number:,}"
