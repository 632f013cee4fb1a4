"""Comparisons across two sets of runs, and the interaction of two factors.

All results are those of `compare`, with seeds and items crossed.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from geodistill.analysis.stats.compare import Comparison, compare
from geodistill.errors import InputError

CELL = ["task", "seed", "item"]


def compare_across(
    items: pd.DataFrame,
    reference: pd.DataFrame,
    method: str,
    baseline: str,
    tasks: Sequence[str] | None = None,
) -> Comparison:
    """`method` of one set of runs against `baseline` of another; the names may be equal.

    Args:
        items: `run_id, task, method, seed, item, source, score` with `method`.
        reference: the same columns with `baseline`, of these tasks or more.
        method: to compare.
        baseline: that it is compared with.
        tasks: names of tasks to average over; all of `method` by default.

    Raises:
        InputError: as `compare`, or a set without its method.
    """
    label = f"{baseline} (reference)"
    parts = []
    for frame, name, shown in ((items, method, method), (reference, baseline, label)):
        rows = frame[frame["method"] == name]
        if rows.empty:
            known = ", ".join(sorted(frame["method"].unique())) or "none at all"
            raise InputError(f"no rows of {name!r} to compare; there are {known}")
        parts.append(rows.assign(method=shown))
    names = sorted(parts[0]["task"].unique()) if tasks is None else tasks
    result = compare(pd.concat(parts, ignore_index=True), method, label, names)
    return replace(result, baseline=baseline)


def paired_gains(items: pd.DataFrame, method: str, baseline: str) -> pd.DataFrame:
    """Items of `method`, scored by the difference to the baseline on the same task, seed and item.

    Args:
        items: `task, method, seed, item, score` of both methods.
        method: whose gain is taken.
        baseline: over which it is taken.
    """
    reference = items[items["method"] == baseline].set_index(CELL)["score"]
    rows = items[items["method"] == method]
    matched = reference.reindex(pd.MultiIndex.from_frame(rows[CELL])).to_numpy()
    return rows.assign(score=rows["score"] - matched)


def interaction(
    items: pd.DataFrame, pair: tuple[str, str], reference: pd.DataFrame, other: tuple[str, str]
) -> Comparison:
    """A gain minus another gain: the difference in differences of a 2 × 2 design.

    With `pair=("both", "a")` and `other=("b", "neither")` of one table it is the interaction of the
    factors a and b; with equal pairs of two tables it is the change of a gain between them.

    Args:
        items: `run_id, task, method, seed, item, source, score` with the methods of `pair`.
        pair: (method, baseline) of the first gain.
        reference: the same columns with the methods of `other`, and shared tasks, seeds and items.
        other: (method, baseline) of the second gain.

    Returns:
        The comparison of the first gain with the second, named by `pair`.

    Raises:
        InputError: as `compare`, or a set without its method.
    """
    first = paired_gains(items, *pair)
    second = paired_gains(reference, *other)
    result = compare_across(first, second, pair[0], other[0])
    return replace(result, baseline=pair[1])
