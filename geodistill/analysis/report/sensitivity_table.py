"""Second opinions on one comparison as a table, each with its use; none decides a verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from geodistill.analysis.stats import sensitivity
from geodistill.analysis.stats.bootstrap import bootstrap_means
from geodistill.analysis.stats.compare import Paired, compare, paired_differences
from geodistill.analysis.stats.crossed_anova import Array, estimate
from geodistill.errors import InputError

FEW_ITEMS = 300
MOST_FLIPPED = 15  # 2^15 sign flips


@dataclass(frozen=True)
class Opinion:
    """One line of the table; estimate, low, high in the score's unit unless the note says else."""

    opinion: str
    use: str
    estimate: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    note: str = ""


def second_opinions(
    items: pd.DataFrame, method: str, baseline: str, tasks: Sequence[str] | None = None
) -> pd.DataFrame:
    """Other routes to the answer of `compare`, one a row.

    Columns: opinion, use, estimate, low, high, p, note.
    Intervals are at 95 %, p is two-sided and not adjusted. What the rows do not allow is left out:
    with one seed only what the items alone can say.

    Args:
        items: as in `compare`; one shared seed is enough.
        method: the method that is asked about.
        baseline: the method it is compared with.
        tasks: names of tasks; all in `items` by default.

    Raises:
        InputError: as `compare`, but for one seed; or one seed and scores other than 0 and 1.
    """
    paired = paired_differences(items, method, baseline, tasks, least_seeds=1)
    names = list(paired.tables)
    found = [o for task in names for o in _by_item(items, method, baseline, paired, task)]
    if len(next(iter(paired.tables.values()))) > 1:
        found = [*_by_seed(paired), *found, *_by_model(paired)]
        found += _by_task(items, method, baseline, names) if len(names) > 1 else []
    if not found:
        raise InputError(
            f"{method} and {baseline} share one seed and their scores are not 0 or 1: no second "
            "opinion applies; run more seeds"
        )
    return pd.DataFrame(found)


def _by_seed(paired: Paired) -> Iterator[Opinion]:
    means = paired.seed_means.to_numpy(np.float64)[:, None]
    if np.ptp(means) > 0:
        t = sensitivity.over_seeds(means)
        use = "new seeds on exactly these items; no model of the items"
        yield Opinion("paired t over seeds", use, t.estimate, t.low, t.high, t.p)
    if len(means) <= MOST_FLIPPED:
        p = sensitivity.sign_flips(means)
        note = f"no p below {2.0 ** (1 - len(means)):.2g} with {len(means)} seeds"
        use = "the same question without normal seeds: exact under symmetry"
        yield Opinion("sign flips over seeds", use, float(means.mean()), p=p, note=note)
    boot = bootstrap_means(list(paired.by_source.values()))
    low, high = boot.interval()
    use = "the same variance without mean squares: is the interval an artefact of the ANOVA?"
    note = "1,000 resamples; too short at 5 seeds"
    yield Opinion("two-way bootstrap, corrected", use, boot.estimate, low, high, note=note)


def _by_item(
    items: pd.DataFrame, method: str, baseline: str, paired: Paired, task: str
) -> Iterator[Opinion]:
    scores = items[(items["task"] == task) & items["method"].isin((method, baseline))]["score"]
    if not scores.isin((0, 1)).all():
        return
    table = paired.tables[task].to_numpy(np.float64)
    counts = [(int((d > 0).sum()), int((d < 0).sum())) for d in table]
    p = [sensitivity.mcnemar(*c) for c in counts]
    n_items = table.shape[1]
    lonely = "" if paired.by_source[task].shape[1] == n_items else "; shared sources ignored"
    # Twice the median of p-values is a p-value, however they depend (Rüger 1978).
    joint = p[0] if len(p) == 1 else min(1.0, 2 * float(np.median(p)))
    below = sum(one <= 0.05 for one in p)
    note = f"{below} of {len(p)} seeds alone have p ≤ 0.05; p is twice their median{lonely}"
    use = "these trained models on new items: what one training run each could have shown"
    yield Opinion(f"McNemar by item: {task}", use, float(table.mean()), p=joint, note=note)
    if n_items < FEW_ITEMS:
        limits = np.mean([sensitivity.paired_posterior(*c, n_items) for c in counts], axis=0)
        note = f"Dirichlet(½), limits averaged over seeds: too wide if anything{lonely}"
        use = f"under {FEW_ITEMS} items normal intervals of 0/1 scores are doubtful"
        name = f"Bayesian interval by item: {task}"
        yield Opinion(name, use, float(table.mean()), float(limits[0]), float(limits[1]), note=note)


def _by_model(paired: Paired) -> Iterator[Opinion]:
    for task, table in paired.by_source.items():
        small = _subset(table)
        if small.shape[0] < 2 or small.shape[1] < 2 or np.ptp(small) == 0:
            continue
        reml, ours = sensitivity.mixed_model(small), estimate([small])
        use = "REML must agree with the closed form on the same balanced table"
        note = (
            f"{small.shape[1]} items × {small.shape[0]} seeds; closed form there: se "
            f"{ours.se:.3g}, REML se {(reml.high - reml.low) / 2 / stats.norm.ppf(0.975):.3g}"
        )
        name = f"mixed model: {task}"
        yield Opinion(name, use, reml.estimate, reml.low, reml.high, reml.p, note)


def _subset(table: Array) -> Array:
    """At most as many seeds and items as the dense model takes, the items drawn with seed 0."""
    rng = np.random.default_rng(0)
    n_items = min(table.shape[1], sensitivity.MOST_ITEMS)
    chosen = rng.choice(table.shape[1], n_items, replace=False)
    return table[: sensitivity.MOST_SEEDS, np.sort(chosen)]


def _by_task(
    items: pd.DataFrame, method: str, baseline: str, tasks: list[str]
) -> Iterator[Opinion]:
    answers = [compare(items, method, baseline, [task]) for task in tasks]
    p = [float(stats.t.sf(a.estimate / a.se, a.df)) for a in answers]
    count, by_count = sensitivity.tasks_better(p)
    use = "is the pooled gain more than one task's? a lower bound at 95 %"
    said = ", ".join(f"≥ {u}: {x:.2g}" for u, x in enumerate(by_count, 1))
    note = f"unit: tasks; one-sided p by number of tasks: {said}"
    most = float(len(tasks))
    better = float(sum(a.estimate > 0 for a in answers))
    yield Opinion("tasks better", use, better, float(count), most, by_count[0], note)
    for task in tasks:
        rest = compare(items, method, baseline, [t for t in tasks if t != task])
        use = "does the pooled answer hang on this one task?"
        name = f"without {task}"
        yield Opinion(name, use, rest.estimate, rest.low, rest.high, rest.p, f"on {rest.task}")
