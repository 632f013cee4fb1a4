"""Whether one run, one item or one task carries a verdict: it is given again without each."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from geodistill.analysis.report.matching import MatchedPair
from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.crossed_anova import Array, Estimate, estimate
from geodistill.analysis.stats.pairing import PairedDifferences, paired_differences
from geodistill.analysis.stats.single_level import compare_over_seeds
from geodistill.analysis.stats.verdict import verdict
from geodistill.errors import InputError


def describe_influence(
    pair: MatchedPair, comparison: Comparison, p_adjusted: float, margin: float
) -> list[str]:
    """Sentences on what changes the verdict of a pooled comparison if it is left out.

    Args:
        pair: the rows compared.
        comparison: of the pair, over all its tasks, with two or more seeds.
        p_adjusted: its corrected p; those without a part are corrected by the same factor.
        margin: smallest difference that matters, in the unit of the comparison.
    """
    factor = p_adjusted / comparison.p if comparison.p > 0 else 1.0

    def word(result: Estimate, p: float) -> str:
        values = {name: getattr(result, name) for name in Estimate.__dataclass_fields__}
        return verdict(replace(comparison, **values, p_holm=min(1.0, p)), margin).word

    original = word(comparison, p_adjusted)
    changed: dict[tuple[str, str], list[str]] = {}
    for kind, name, result in _without_one(pair):
        other = word(result, result.p * factor)
        if other != original:
            changed.setdefault((kind, other), []).append(str(name))
    return [
        f"{comparison.method}: the verdict, {original}, becomes {other} without {kind} "
        + (" or ".join(names) if len(names) < 4 else f"{names[0]}, or any of {len(names) - 1} more")
        for (kind, other), names in changed.items()
    ]


def _without_one(pair: MatchedPair) -> Iterator[tuple[str, object, Estimate]]:
    """The result without each seed, each task, and the item that favours it most."""
    rows = pair.scored()
    if "item" in rows:
        paired = paired_differences(rows, pair.method, pair.baseline)
        yield from _without_seed_or_item(paired)
        for task in pair.tasks if len(pair.tasks) > 1 else ():
            yield from _crossed("task", task, paired.without(task))
        return
    for kind, names in (("seed", rows["seed"].unique()), ("task", pair.tasks)):
        for name in names if len(names) > 1 else ():
            yield from _seeds_alone(pair, kind, name, rows[rows[kind] != name])


def _seeds_alone(
    pair: MatchedPair, kind: str, name: object, rows: pd.DataFrame
) -> Iterator[tuple[str, object, Estimate]]:
    try:
        yield kind, name, compare_over_seeds(rows, pair.method, pair.baseline)
    except InputError:  # fewer than two seeds are left, or they do not vary
        return


def _without_seed_or_item(paired: PairedDifferences) -> Iterator[tuple[str, object, Estimate]]:
    tables = list(paired.by_cluster.values())
    seeds = next(iter(paired.tables.values())).index
    for number, seed in enumerate(seeds):
        fewer = {
            name: np.delete(table, number, axis=0) for name, table in paired.by_cluster.items()
        }
        yield from _crossed("seed", seed, replace(paired, by_cluster=fewer))
    sign = np.sign(sum(table.mean() for table in tables))
    for name, table in paired.by_cluster.items():
        strongest = int((sign * table.mean(0)).argmax())
        fewer = {**paired.by_cluster, name: np.delete(table, strongest, axis=1)}
        item = paired.clusters[name][strongest]
        yield from _crossed("item", item, replace(paired, by_cluster=fewer))


def _crossed(
    kind: str, name: object, paired: PairedDifferences
) -> Iterator[tuple[str, object, Estimate]]:
    tables: list[Array] = list(paired.by_cluster.values())
    dfs, weights = list(paired.df_clusters.values()), list(paired.weights.values())
    try:
        yield kind, name, estimate(tables, df_items=dfs, weights=weights)
    except InputError:
        return
