"""Gains of methods over a base: by outcome, by weight, by group of runs, beside their controls."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from geodistill.analysis.figures.style import look
from geodistill.analysis.report.format import Unit, tidy
from geodistill.analysis.stats import sensitivity
from geodistill.analysis.stats.compare import Comparison, compare, paired_differences
from geodistill.errors import InputError

DECODING = "rougeL/seed"
"""Stands before the seed of a sampled decoding, among the marks of runs and items."""
Outcome = Callable[[pd.DataFrame], pd.DataFrame]


def as_score(items: pd.DataFrame, column: str) -> pd.DataFrame:
    """`items` with the mark `column` as their score; those without that mark are left out.

    Raises:
        InputError: no such mark.
    """
    if column not in items:
        raise InputError(f"items have no mark {column!r}; they have {', '.join(map(str, items))}")
    marked = items[items[column].notna()]
    return marked.assign(score=marked[column].astype(float))


def sampled(items: pd.DataFrame) -> pd.DataFrame:
    """`items` that were answered by sampling; their score is the mean Rouge-L of the decodings.

    Raises:
        InputError: no sampled decoding.
    """
    names = [name for name in items if str(name).startswith(DECODING)]
    if not names:
        raise InputError("items have no sampled decodings")
    return as_score(items.assign(sampled=items[names].mean(axis=1)), "sampled")


def at_weights(items: pd.DataFrame, weights: Mapping[str, float]) -> pd.DataFrame:
    """Items (or runs) at these weights, by method; all of a method that is not named."""
    wanted = items["method"].map(dict(weights)).fillna(items["factor"])
    return items[items["factor"] == wanted]


def renamed(items: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Those methods alone, under other names: so two sections can be compared."""
    kept = items[items["method"].isin(names)]
    return kept.assign(method=kept["method"].map(dict(names)))


def grouped(answers: Mapping[str, Sequence[Comparison]], unit: Unit) -> pd.DataFrame:
    """`report.tidy` of several groups of comparisons, named in a column `group`."""
    return pd.concat(
        [tidy(found, unit).assign(group=name) for name, found in answers.items()], ignore_index=True
    )


def gains_by_weight(
    items: pd.DataFrame, base: pd.DataFrame, baseline: str, unit: Unit
) -> pd.DataFrame:
    """Each method's gain over the baseline at each of its weights.

    Args:
        items: as in `compare`, and `factor`.
        base: the items of `baseline`, which has no weight.
        baseline: name of that method.
        unit: in which gains are given.

    Returns:
        `method, factor, gain, low, high`, 95 % intervals, seeds and items crossed.
    """
    own = base[base["method"] == baseline]
    lines = []
    for method in dict.fromkeys(items["method"]):
        for factor, rows in items[items["method"] == method].groupby("factor"):
            found = compare(pd.concat([rows, own], ignore_index=True), method, baseline)
            lines.append(tidy([found], unit).assign(factor=factor))
    return pd.concat(lines, ignore_index=True).rename(columns={"estimate": "gain"})


def at_matched_weights(items: pd.DataFrame, method: str, control: str) -> dict[float, Comparison]:
    """By weight, `method` against `control` at the same one; weights that both have run."""
    ran = [set(items.loc[items["method"] == name, "factor"]) for name in (method, control)]
    shared = sorted(ran[0] & ran[1])
    return {weight: compare(items[items["factor"] == weight], method, control) for weight in shared}


def at_best_weights(
    items: pd.DataFrame, method: str, control: str
) -> tuple[Comparison, dict[str, float]]:
    """`method` against `control`, each at the weight of its highest mean score, and these weights.

    Exploratory: the weights are picked by the scores that are then compared, which flatters both.
    """
    means = items.groupby(["method", "factor"])["score"].mean()
    best = {name: float(means[name].idxmax()) for name in (method, control)}
    kept = items["factor"] == items["method"].map(best)
    return compare(items[kept], method, control), best


def control_table(
    items: pd.DataFrame, method: str, controls: Sequence[str], unit: Unit
) -> pd.DataFrame:
    """`method` minus each control, at matched weights and at each one's best weight, in words."""
    lines = []
    for control in controls:
        found = {f"{w:g}": a for w, a in at_matched_weights(items, method, control).items()}
        best, weights = at_best_weights(items, method, control)
        found[f"best of each: {weights[method]:g}, {weights[control]:g}"] = best
        lines += [(look(control).label, at, said(one, unit)) for at, one in found.items()]
    name = f"{look(method).label} minus the control ({unit.name})"
    return pd.DataFrame(lines, columns=["control", "weight", name])


def gain_table(
    items: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    outcomes: Mapping[str, Outcome],
    unit: Unit,
) -> pd.DataFrame:
    """A line a (method, baseline), a column an outcome: the difference with its interval, in words.

    Args:
        items: as in `compare`, with the marks that the outcomes ask for.
        pairs: the comparisons.
        outcomes: by name, what makes `items` with another score out of them.
        unit: of all outcomes.
    """
    columns = {}
    for name, outcome in outcomes.items():
        scores = outcome(items)
        columns[name] = [said_or_equal(scores, pair, unit) for pair in pairs]
    names = [f"{look(a).label} vs {look(b).label}" for a, b in pairs]
    return pd.DataFrame({f"difference, {unit.name}": names, **columns})


def seed_gain_table(
    runs: pd.DataFrame, pairs: Sequence[tuple[str, str]], columns: Mapping[str, str], unit: Unit
) -> pd.DataFrame:
    """As `gain_table`, of metrics of whole runs: a paired t interval over seeds, on these items.

    columns: name to show by name of a metric.
    """
    table = {}
    for metric, name in columns.items():
        values = runs.pivot(index="seed", columns="method", values=metric)
        found = [
            sensitivity.over_seeds((values[[a]].sub(values[b], axis=0)).to_numpy())
            for a, b in pairs
        ]
        table[name] = [
            f"{unit.show(o.estimate)} ({unit.show(o.low)} to {unit.show(o.high)})" for o in found
        ]
    names = [f"{look(a).label} vs {look(b).label}" for a, b in pairs]
    return pd.DataFrame({f"difference, {unit.name}": names, **table})


def said_or_equal(items: pd.DataFrame, pair: tuple[str, str], unit: Unit) -> str:
    """The difference of a (method, baseline) with its interval, or that there is none at all."""
    tables = paired_differences(items, *pair).tables.values()
    if all((table == 0).all(axis=None) for table in tables):
        return "equal on every item"
    return said(compare(items, *pair), unit)


def said(answer: Comparison, unit: Unit) -> str:
    """The difference and its interval."""
    return f"{unit.show(answer.estimate)} ({unit.interval(answer)})"


def at_edges(chosen: Mapping[str, float], tried: Sequence[float]) -> str:
    """A sentence on the methods whose chosen weight is the least or largest that was tried."""
    ends = {float(min(tried)): "least", float(max(tried)): "largest"}
    found = [f"{look(m).label} ({ends[w]})" for m, w in chosen.items() if w in ends]
    if not found:
        return "No chosen weight is at an edge of what was tried."
    return f"At an edge of what was tried, so that another might do better: {', '.join(found)}."
