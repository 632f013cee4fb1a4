"""From tidy item scores to comparisons of methods, one by one or as a Holm-corrected family."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from geodistill.analysis.stats.crossed_anova import (
    Array,
    Estimate,
    estimate,
    fold_sources,
    source_df,
)
from geodistill.errors import InputError

Correction = Literal["holm", "bh"]


@dataclass(frozen=True)
class Comparison(Estimate):
    """One answer: how much better `method` scores than `baseline`, and how sure that is.

    The estimate is positive where the method is better. The interval is not adjusted for other
    tests; p_holm is, over the `family` tests of a primary family, and p_bh over secondary ones (as
    a false discovery rate); both are None where a test stands alone.
    seeds_left_out: seeds that only one side, or only some of the tasks, have run; rows_used and
    rows_left_out: item rows of the two methods in these tasks, those of left-out seeds apart.
    """

    method: str
    baseline: str
    tasks: tuple[str, ...]
    n_seeds: int
    n_items: int
    n_sources: int
    seeds_left_out: int
    run_ids: tuple[str, ...]
    test: str = "paired difference, seeds × items crossed (random-effects ANOVA, Satterthwaite t)"
    family: int = 1
    p_holm: float | None = None
    p_bh: float | None = None
    rows_used: int = 0
    rows_left_out: int = 0

    @property
    def claim(self) -> str:
        """To what the answer speaks: tasks are fixed, seeds and items are drawn anew."""
        if len(self.tasks) == 1:
            return f"{self.tasks[0]}, for new seeds and new items"
        names = ", ".join(self.tasks)
        return f"the mean of these {len(self.tasks)} tasks ({names}), for new seeds and new items"

    @property
    def task(self) -> str:
        """The task's name, or "pooled" for the mean over several."""
        return self.tasks[0] if len(self.tasks) == 1 else "pooled"

    @property
    def correction(self) -> str:
        if self.family == 1:
            return "none, one test"
        rule = "Holm" if self.p_bh is None else "Benjamini–Hochberg"
        return f"{rule} over {self.family}"

    @property
    def p_decisive(self) -> float:
        """The p-value that a verdict goes by: the corrected one where the test has a family."""
        corrected = self.p_holm if self.p_bh is None else self.p_bh
        return self.p if corrected is None else corrected


@dataclass(frozen=True)
class Paired:
    """Differences method − baseline by task, all with the same seeds.

    tables: (seeds, items); by_source: the same with items of one source folded, (seeds, sources);
    df_sources: what the mean square of the sources is worth, from their sizes.
    """

    tables: dict[str, pd.DataFrame]
    by_source: dict[str, Array]
    df_sources: dict[str, float]
    seeds_left_out: int

    @property
    def seed_means(self) -> pd.Series:
        """The mean difference of each seed, tasks weighted equally; indexed by seed."""
        means = pd.DataFrame({task: table.mean(axis=1) for task, table in self.tables.items()})
        return means.mean(axis=1).rename("difference")


def paired_differences(
    items: pd.DataFrame,
    method: str,
    baseline: str,
    tasks: Sequence[str] | None = None,
    least_seeds: int = 2,
) -> Paired:
    """Item scores of `method` minus those of `baseline`, on the seeds that both ran in every task.

    Args:
        items: `task, method, seed, item, source, score`; a higher score is better.
        method: the method that is asked about.
        baseline: the method it is compared with.
        tasks: names of tasks; all in `items` by default.
        least_seeds: shared seeds without which there is no answer.

    Raises:
        InputError: a missing column, an unknown method or task, too few shared seeds, unlike items,
            or an item with two sources.
    """
    absent = [c for c in ("task", "method", "seed", "item", "source", "score") if c not in items]
    if absent:
        raise InputError(
            f"items lack {', '.join(absent)}; the columns are {', '.join(map(str, items))}"
        )
    names = tuple(sorted(items["task"].unique())) if tasks is None else tuple(tasks)
    sides = {task: [_scores(items, task, m) for m in (method, baseline)] for task in names}
    seen = [set(table.index) for pair in sides.values() for table in pair]
    seeds = sorted(set.intersection(*seen))
    if len(seeds) < least_seeds:
        raise InputError(
            f"{method} and {baseline} share {len(seeds)} seeds in {', '.join(names)}; "
            f"a comparison of methods needs at least {least_seeds} (one pair of trained models is "
            "judged by the items alone: `second_opinions`)"
        )
    tables = {}
    for task, (ours, theirs) in sides.items():
        unlike = set(ours.columns) ^ set(theirs.columns)
        if unlike:
            raise InputError(
                f"{method} and {baseline} were not scored on the same items of {task}: "
                f"{len(unlike)} items on one side only, such as {min(unlike)}"
            )
        tables[task] = ours.loc[seeds] - theirs.loc[seeds]
    pair = items[items["method"].isin((method, baseline))]
    sources = {task: _sources(pair, task, table) for task, table in tables.items()}
    return Paired(
        tables,
        {task: fold_sources(t.to_numpy(np.float64), sources[task]) for task, t in tables.items()},
        {task: source_df(names) for task, names in sources.items()},
        seeds_left_out=len(set.union(*seen)) - len(seeds),
    )


def compare(
    items: pd.DataFrame,
    method: str,
    baseline: str,
    tasks: Sequence[str] | None = None,
    level: float = 0.95,
) -> Comparison:
    """The primary analysis of `method` against `baseline`; several tasks are weighted equally.

    The claim is about these tasks, new seeds and new items (new sources, where items share one).

    Args:
        items: `run_id, task, method, seed, item, source, score`; a higher score is better.
        method: the method that is asked about.
        baseline: the method it is compared with, on the same seeds and items.
        tasks: names of tasks to average over; all in `items` by default.
        level: of the two-sided interval, in (0, 1).

    Raises:
        InputError: as `paired_differences`, or differences that do not vary.
    """
    paired = paired_differences(items, method, baseline, tasks)
    some = next(iter(paired.tables.values()))
    asked = items["task"].isin(paired.tables) & items["method"].isin((method, baseline))
    used = asked & items["seed"].isin(some.index)
    try:
        tables, dfs = list(paired.by_source.values()), list(paired.df_sources.values())
        found = estimate(tables, level, dfs)
    except InputError as error:
        raise InputError(f"{error} ({method} against {baseline})") from error
    return Comparison(
        **vars(found),
        method=method,
        baseline=baseline,
        tasks=tuple(paired.tables),
        n_seeds=len(some),
        n_items=sum(table.shape[1] for table in paired.tables.values()),
        n_sources=sum(table.shape[1] for table in paired.by_source.values()),
        seeds_left_out=paired.seeds_left_out,
        run_ids=tuple(sorted(items.loc[used, "run_id"].unique())),
        rows_used=int(used.sum()),
        rows_left_out=int((asked & ~used).sum()),
    )


def compare_family(
    items: pd.DataFrame,
    pairs: Iterable[tuple[str, str]],
    tasks: Sequence[str] | None = None,
    correction: Correction = "holm",
) -> tuple[Comparison, ...]:
    """`compare` for each (method, baseline), with p-values corrected over all of them.

    Args:
        items: as in `compare`.
        pairs: the tests made together.
        tasks: as in `compare`.
        correction: "holm" for the primary family (any dependence), "bh" (Benjamini and Hochberg
            1995) for secondary questions.

    Raises:
        InputError: as `compare`, or no pair at all.
    """
    answers = [compare(items, method, baseline, tasks) for method, baseline in pairs]
    if not answers:
        raise InputError("a family of comparisons needs at least one (method, baseline) pair")
    return corrected(answers, correction)


def corrected(answers: Sequence[Comparison], correction: Correction) -> tuple[Comparison, ...]:
    """The comparisons as one family of tests, `correction` as in `compare_family`."""
    if not answers:
        return ()
    holm = correction == "holm"
    adjusted = multipletests([answer.p for answer in answers], method="holm" if holm else "fdr_bh")
    return tuple(
        replace(answer, family=len(answers), p_holm=p if holm else None, p_bh=None if holm else p)
        for answer, p in zip(answers, adjusted[1].tolist(), strict=True)
    )


def _scores(items: pd.DataFrame, task: str, method: str) -> pd.DataFrame:
    """(seeds, items) of one method's scores in one task, complete."""
    for column, name in (("task", task), ("method", method)):
        known = sorted(items[column].unique())
        if name not in known:
            raise InputError(f"unknown {column} {name!r}; the rows hold {', '.join(known)}")
    rows = items[(items["task"] == task) & (items["method"] == method)]
    if rows.duplicated(["seed", "item"]).any():
        raise InputError(f"{task}/{method} has an item twice under one seed; keep one run a seed")
    scores = rows.pivot(index="seed", columns="item", values="score")
    gaps = int(scores.isna().sum().sum())
    if gaps:
        raise InputError(
            f"{task}/{method} lacks {gaps} of {scores.size} scores: each seed needs every item"
        )
    return scores


def _sources(items: pd.DataFrame, task: str, differences: pd.DataFrame) -> list[str]:
    """The source of each column of the differences."""
    known = items.loc[items["task"] == task, ["item", "source"]].drop_duplicates()
    twice = known[known["item"].duplicated()]
    if len(twice):
        raise InputError(f"item {twice['item'].iloc[0]} of {task} has two sources; it needs one")
    sources = known.set_index("item")["source"].loc[list(differences.columns)]
    return sources.astype(str).tolist()
