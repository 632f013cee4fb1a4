"""Scores of methods lined up by seed and item: where every crossed analysis starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype, is_numeric_dtype

from geodistill.analysis.score_columns import refuse_absent_columns
from geodistill.analysis.stats.crossed_anova import Array, cluster_df, collapse_clusters
from geodistill.errors import InputError

ITEM_COLUMNS = ("task", "method", "seed", "item", "source", "score")


@dataclass(frozen=True)
class Block:
    """The mean difference over tasks that share clusters, such as prompts for one set of items.

    Attributes:
        differences: (seeds, clusters).
        df: effective degrees of freedom between the clusters.
        weight: share of all tasks that the block holds.
        clusters: names of the clusters.
    """

    differences: Array
    df: float
    weight: float
    clusters: list[str]


@dataclass(frozen=True)
class PairedDifferences:
    """Differences between methods by task, all with the same seeds.

    Attributes:
        tables: (seeds, items) of each task.
        blocks: by the names of their tasks; a task that shares no cluster is a block of its own.
        item_clusters: name of the cluster of each item of each task.
        seeds_left_out: number of seeds that are not shared.
    """

    tables: dict[str, pd.DataFrame]
    blocks: dict[str, Block]
    item_clusters: dict[str, list[str]]
    seeds_left_out: int

    @property
    def seeds(self) -> pd.Index:
        """The shared seeds."""
        return next(iter(self.tables.values())).index

    @property
    def n_items(self) -> int:
        """Test items of all tasks."""
        return sum(table.shape[1] for table in self.tables.values())

    @property
    def seed_means(self) -> pd.Series:
        """The mean difference of each seed, tasks weighted equally; indexed by seed."""
        means = pd.DataFrame({task: table.mean(axis=1) for task, table in self.tables.items()})
        return means.mean(axis=1).rename("difference")

    def without(self, task: str) -> "PairedDifferences":
        """The differences of the other tasks, on the same seeds."""
        tables, clusters = dict(self.tables), dict(self.item_clusters)
        del tables[task], clusters[task]
        return _line_up(tables, clusters, self.seeds_left_out)


def paired_differences(
    items: pd.DataFrame,
    method: str,
    baseline: str,
    tasks: Sequence[str] | None = None,
    min_seeds: int = 2,
) -> PairedDifferences:
    """Item scores of `method` minus those of `baseline`, on the seeds shared in every task.

    Args:
        items: `task, method, seed, item, source, score`; higher scores are better.
        method: to compare.
        baseline: that it is compared with.
        tasks: names of tasks; all in `items` by default.
        min_seeds: number of shared seeds that is required.

    Raises:
        InputError: as `contrast`.
    """
    if method == baseline:
        raise InputError(f"method {method!r} is the baseline itself; expected another")
    return contrast(items, {method: 1.0, baseline: -1.0}, tasks, min_seeds)


def contrast(
    items: pd.DataFrame,
    weights: Mapping[str, float],
    tasks: Sequence[str] | None = None,
    min_seeds: int = 2,
) -> PairedDifferences:
    """A weighted sum of the item scores of methods, on the seeds shared in every task.

    Args:
        items: `task, method, seed, item, source, score`.
        weights: by method; of a difference they sum to 0.
        tasks: names of tasks; all in `items` by default.
        min_seeds: number of shared seeds that is required.

    Raises:
        InputError: a missing column or a gap in one, an unknown method or task, too few shared
            seeds, different items, or an item with two sources.
    """
    _check_items(items)
    items = items[list(ITEM_COLUMNS)]  # long texts slow every selection of rows
    names = tuple(sorted(items["task"].unique())) if tasks is None else tuple(tasks)
    scores = {task: {m: _scores(items, task, m) for m in weights} for task in names}
    run_seeds = [set(table.index) for tables in scores.values() for table in tables.values()]
    seeds = sorted(set.intersection(*run_seeds)) if run_seeds else []
    methods = " and ".join(weights)
    if len(seeds) < min_seeds:
        raise InputError(
            f"{methods} share {len(seeds)} seeds in {', '.join(names)}; "
            f"a comparison of methods needs at least {min_seeds} (one pair of trained models is "
            "judged by the items alone: `sensitivity_table`)"
        )
    tables = {}
    for task, by_method in scores.items():
        columns: list[set[object]] = [set(table.columns) for table in by_method.values()]
        unmatched = set.union(*columns) - set.intersection(*columns)
        if unmatched:
            raise InputError(
                f"{methods} were not scored on the same items of {task}: "
                f"{len(unmatched)} items on one side only, such as {min(map(str, unmatched))}"
            )
        first, *others = (w * by_method[m].loc[seeds] for m, w in weights.items())
        tables[task] = sum(others, first)
    rows = items[items["method"].isin(weights)]
    clusters = {task: _clusters(rows, task, table) for task, table in tables.items()}
    return _line_up(tables, clusters, len(set.union(*run_seeds)) - len(seeds))


def _check_items(items: pd.DataFrame) -> None:
    """InputError if a column is missing, has gaps, or mixes texts and numbers."""
    refuse_absent_columns(items, ITEM_COLUMNS)
    for name in ITEM_COLUMNS[:-1]:
        if gaps := int(items[name].isna().sum()):
            raise InputError(
                f"items have no {name} in {gaps} rows; expected one in each (an item without a "
                "cluster is its own source)"
            )
    kinds = {name: infer_dtype(items[name]) for name in ("seed", "score")}
    if kinds["seed"].startswith("mixed") or not is_numeric_dtype(items["score"]):
        raise InputError(
            f"items have a column seed of type {kinds['seed']} and a column score of type "
            f"{kinds['score']}; expected seeds of one type, and numbers as scores"
        )


def _line_up(
    tables: dict[str, pd.DataFrame], clusters: dict[str, list[str]], seeds_left_out: int
) -> PairedDifferences:
    """The differences of tasks, in blocks of tasks that share clusters."""
    blocks = {}
    for tasks in _linked_tasks(clusters):
        table, names, weights = _join(tasks, tables, clusters)
        blocks[", ".join(tasks)] = Block(
            collapse_clusters(table, names),
            cluster_df(names, weights),
            len(tasks) / len(tables),
            list(dict.fromkeys(names)),
        )
    return PairedDifferences(tables, blocks, clusters, seeds_left_out)


def _linked_tasks(clusters: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The tasks in groups that share clusters, directly or through another task."""
    blocks: list[tuple[list[str], set[str]]] = []
    for task, names in clusters.items():
        linked = [block for block in blocks if not block[1].isdisjoint(names)]
        blocks = [block for block in blocks if block not in linked]
        tasks = [name for block in linked for name in block[0]]
        blocks.append(([*tasks, task], set(names).union(*(block[1] for block in linked))))
    return [tasks for tasks, _ in blocks]


def _join(
    block: Sequence[str],
    tables: Mapping[str, pd.DataFrame],
    clusters: Mapping[str, Sequence[str]],
) -> tuple[Array, list[str], Array]:
    """The differences of a block in one table whose mean over items is the mean over its tasks.

    Returns:
        (seeds, items) with each task's deviations from its mean weighted so that tasks count alike,
        the cluster of each item, and the weight of each item.
    """
    parts = [tables[task].to_numpy(np.float64) for task in block]
    names = [name for task in block for name in clusters[task]]
    if len(parts) == 1:
        return parts[0], names, np.ones(len(names))
    means = [part.mean(1, keepdims=True) for part in parts]
    mean, n = np.mean(means, axis=0), len(set(names))
    columns, weights = [], []
    for task, part, mean_of_task in zip(block, parts, means, strict=True):
        weight, n_task = len(names) / (len(block) * part.shape[1]), len(set(clusters[task]))
        # Each task's deviations have its own mean, hence its own number of degrees of freedom.
        unbiased = np.sqrt(n_task / max(1, n_task - 1) * (n - 1) / n)
        columns.append(mean + weight * unbiased * (part - mean_of_task))
        weights.append(np.full(part.shape[1], weight))
    return np.hstack(columns), names, np.concatenate(weights)


def _scores(items: pd.DataFrame, task: str, method: str) -> pd.DataFrame:
    """(seeds, items) scores of one method in one task, without gaps."""
    rows = items[(items["task"] == task) & (items["method"] == method)]
    if rows.empty:
        for column, name in (("task", task), ("method", method)):
            known = sorted(items[column].unique())
            if name not in known:
                raise InputError(f"unknown {column} {name!r}; the rows hold {', '.join(known)}")
    try:
        scores = rows.pivot(index="seed", columns="item", values="score")
    except ValueError as error:  # pandas' only one here: repeated entries
        raise InputError(
            f"{task}/{method} has an item twice under one seed; keep one run per seed"
        ) from error
    gaps = scores.size - int(np.isfinite(scores).sum().sum())
    if gaps:
        raise InputError(
            f"{task}/{method} lacks {gaps} of {scores.size} scores: each seed needs every item, "
            "with a finite score"
        )
    return scores


def _clusters(items: pd.DataFrame, task: str, differences: pd.DataFrame) -> list[str]:
    """The cluster of each column of the differences."""
    known = items.loc[items["task"] == task, ["item", "source"]].drop_duplicates()
    repeated = known[known["item"].duplicated()]
    if len(repeated):
        raise InputError(f"item {repeated['item'].iloc[0]} of {task} has two sources; it needs one")
    sources = known.set_index("item")["source"].loc[list(differences.columns)]
    return sources.astype(str).tolist()
