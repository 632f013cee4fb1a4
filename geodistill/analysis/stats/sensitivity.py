"""Sensitivity analyses: other tests of one comparison, each with its purpose.

None of them decides a verdict. `paired_t_seeds` and `sign_flip_test` make few assumptions, but hold
the test items fixed. `mixed_model` is REML, which must agree with the closed form in a balanced
table. `paired_t_items` is the common practice that the primary analysis replaces.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from geodistill.analysis.stats.bootstrap import two_way_bootstrap
from geodistill.analysis.stats.compare import compare
from geodistill.analysis.stats.contrasts import leave_one_task_out
from geodistill.analysis.stats.crossed_anova import Array, estimate
from geodistill.analysis.stats.pairing import PairedDifferences, paired_differences
from geodistill.errors import InputError

MAX_MODEL_ITEMS, MAX_MODEL_SEEDS = 60, 8  # of the dense mixed model
MAX_FLIPPED_SEEDS = 15  # 2^15 sign flips
FEW_ITEMS = 300  # below, normal intervals of 0/1 scores are doubtful


@dataclass(frozen=True)
class TestResult:
    """One row of `sensitivity_table`; what a test does not give is nan.

    Attributes:
        test: its name, and the task if it is made task by task.
        purpose: what it is good for.
        estimate: in the unit of the score, unless the note says otherwise.
        low: lower end of the 95 % interval.
        high: upper end of the interval.
        p: two-sided p-value, not adjusted.
        note: limits of the test.
    """

    test: str
    purpose: str
    estimate: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    note: str = ""


def sensitivity_table(items: pd.DataFrame, method: str, baseline: str) -> pd.DataFrame:
    """Other tests of the difference that `compare` estimates, one per row.

    Tests that the rows do not allow are left out; with one seed only those over items remain.

    Args:
        items: `run_id, task, method, seed, item, source, score`; one shared seed is enough.
        method: to compare.
        baseline: that it is compared with.

    Returns:
        Columns `test, purpose, estimate, low, high, p, note`.

    Raises:
        InputError: as `compare`, except for one seed; or one seed and scores other than 0 and 1.

    Example:
        >>> from geodistill.analysis import sensitivity_table, simulate_items
        >>> table = sensitivity_table(simulate_items({"kd": 0.0, "new": 0.1}), "new", "kd")
        >>> table["test"].tolist()[:2]
        ['paired t over seeds', 'sign-flip test over seeds']
    """
    paired = paired_differences(items, method, baseline, min_seeds=1)
    names = list(paired.tables)
    results = [r for task in names for r in _item_tests(items, method, baseline, paired, task)]
    if len(paired.seeds) > 1:
        results = [*_seed_tests(paired), *results, *_model_tests(paired)]
        results += _task_tests(items, method, baseline, names) if len(names) > 1 else []
    if not results:
        raise InputError(
            f"{method} and {baseline} share one seed and their scores are not 0 or 1: no other "
            "test applies; run more seeds"
        )
    return pd.DataFrame(results)


def paired_t_seeds(differences: Array) -> TestResult:
    """Paired t-test over the mean difference of each seed of a (seeds, items) table."""
    purpose = "new seeds on exactly these items; no model of the items"
    return _paired_t("paired t over seeds", purpose, differences.mean(1))


def paired_t_items(differences: Array) -> TestResult:
    """Paired t-test over the items of a (seeds, items) table; too short where seeds matter."""
    purpose = "new items, for these trained models"
    return _paired_t("paired t over items", purpose, differences.mean(0))


def _paired_t(test: str, purpose: str, values: Array) -> TestResult:
    result = stats.ttest_1samp(values, 0.0)
    low, high = map(float, result.confidence_interval(0.95))
    return TestResult(test, purpose, float(values.mean()), low, high, float(result.pvalue))


def sign_flip_test(differences: Array) -> float:
    """Exact two-sided p of the permutation test that flips the sign of each seed's mean difference.

    All 2^S flips of a (seeds, items) table are made: no p is below 2/2^S (0.0625 at 5 seeds).
    """
    means = differences.mean(1)
    signs = np.array(np.meshgrid(*[[-1.0, 1.0]] * len(means))).reshape(len(means), -1)
    extreme = np.abs(means @ signs) >= abs(means.sum()) * (1 - 1e-12)
    return float(extreme.mean())


def mixed_model(differences: Array) -> TestResult:
    """REML fit of the crossed model by statsmodels, with a normal interval for the mean.

    Args:
        differences: (seeds, items), at most 8 × 60: the fit is dense in both.

    Raises:
        InputError: a larger table.
    """
    from statsmodels.regression.mixed_linear_model import MixedLM  # slow to import
    from statsmodels.tools.sm_exceptions import ConvergenceWarning, SingularMatrixWarning

    n_seeds, n_items = differences.shape
    if n_items > MAX_MODEL_ITEMS or n_seeds > MAX_MODEL_SEEDS:
        raise InputError(
            f"the mixed model is dense: at most {MAX_MODEL_ITEMS} items × {MAX_MODEL_SEEDS} seeds, "
            f"got {n_items} × {n_seeds}; take a subset"
        )
    seed, item = (index.ravel() for index in np.indices(differences.shape))
    frame = pd.DataFrame({"d": differences.ravel(), "seed": seed, "item": item, "all": 1})
    parts = {"seed": "0 + C(seed)", "item": "0 + C(item)"}
    with warnings.catch_warnings():
        # A variance component of 0 is a result here, not a failure to converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", SingularMatrixWarning)
        fit = MixedLM.from_formula(
            "d ~ 1", groups="all", re_formula="0", vc_formula=parts, data=frame
        ).fit(reml=True)
    mean, se = float(fit.fe_params.iloc[0]), float(fit.bse_fe.iloc[0])
    half = float(stats.norm.ppf(0.975)) * se
    p = float(2 * stats.norm.sf(abs(mean) / se))
    purpose = "REML must agree with the closed form on the same balanced table"
    return TestResult("mixed model", purpose, mean, mean - half, mean + half, p)


def mcnemar(gains: int, losses: int) -> float:
    """Exact two-sided p of McNemar's test, from the numbers of items that only one got right."""
    return float(stats.binomtest(gains, gains + losses).pvalue) if gains + losses else 1.0


def paired_posterior(gains: int, losses: int, n_items: int) -> tuple[float, float]:
    """Bayesian 95 % interval for the difference of two accuracies on the same items.

    A Dirichlet prior of ½ on the four cells (both right, only one, only the other, neither) makes
    the discordant share q and the gains' share r of it independent Beta variables; the difference
    is q(2r − 1). 20,000 draws with a fixed seed: the ends move by about 1 % of the width.

    Args:
        gains: number of items that only the method got right.
        losses: number of items that only the baseline got right.
        n_items: at least gains + losses.
    """
    rng = np.random.default_rng(0)
    discordant = rng.beta(gains + losses + 1, n_items - gains - losses + 1, 20_000)
    gained = rng.beta(gains + 0.5, losses + 0.5, 20_000)
    low, high = np.quantile(discordant * (2 * gained - 1), [0.025, 0.975])
    return float(low), float(high)


def count_improved_tasks(p_one_sided: Sequence[float]) -> tuple[int, list[float]]:
    """Lower bound, at 95 % confidence, for the number of tasks on which a method is better.

    Partial conjunction (Benjamini and Heller 2008): that u or more of n hold has the p-value
    (n − u + 1)·p_(u), valid for any dependence of the tasks; made monotone in u, as by Holm.

    Args:
        p_one_sided: p-value by task of the hypothesis that the method is not better.

    Returns:
        The number, and the p-values of 1, 2, ... tasks.
    """
    p = np.sort(multipletests(p_one_sided, method="holm")[1])  # Holm's p-values are these
    return int((p <= 0.05).sum()), p.tolist()


def _seed_tests(paired: PairedDifferences) -> Iterator[TestResult]:
    means = paired.seed_means.to_numpy(np.float64)[:, None]
    if np.ptp(means) > 0:
        yield paired_t_seeds(means)
    if len(means) <= MAX_FLIPPED_SEEDS:
        p = sign_flip_test(means)
        note = f"no p below {2.0 ** (1 - len(means)):.2g} with {len(means)} seeds"
        purpose = "the same question without normal seeds: exact under symmetry"
        name = "sign-flip test over seeds"
        yield TestResult(name, purpose, float(means.mean()), p=p, note=note)
    blocks = paired.blocks.values()
    weights = [block.weight for block in blocks]
    boot = two_way_bootstrap([block.differences for block in blocks], weights=weights)
    purpose = "the same variance without mean squares: is the interval an artefact of the ANOVA?"
    note = "1,000 resamples; too short at 5 seeds"
    name = "two-way bootstrap, corrected"
    yield TestResult(name, purpose, boot.estimate, *boot.interval(), note=note)


def _item_tests(
    items: pd.DataFrame, method: str, baseline: str, paired: PairedDifferences, task: str
) -> Iterator[TestResult]:
    scores = items[(items["task"] == task) & items["method"].isin((method, baseline))]["score"]
    if not scores.isin((0, 1)).all():
        return
    table = paired.tables[task].to_numpy(np.float64)
    counts = [(int((d > 0).sum()), int((d < 0).sum())) for d in table]
    p = [mcnemar(*c) for c in counts]
    n_items, mean = table.shape[1], float(table.mean())
    rows = items.loc[items["task"] == task, ["item", "source"]].nunique()
    clustered = "" if rows["item"] == rows["source"] else "; shared sources ignored"
    # Twice the median of p-values is a p-value for any dependence (Rüger 1978).
    joint = p[0] if len(p) == 1 else min(1.0, 2 * float(np.median(p)))
    below = sum(value <= 0.05 for value in p)
    note = f"{below} of {len(p)} seeds alone have p ≤ 0.05; p is twice their median{clustered}"
    purpose = "these trained models on new items: what one training run each could have shown"
    yield TestResult(f"McNemar by item: {task}", purpose, mean, p=joint, note=note)
    if n_items < FEW_ITEMS:
        ends = np.mean([paired_posterior(*c, n_items) for c in counts], axis=0)
        note = f"Dirichlet(½), ends averaged over seeds: too wide if anything{clustered}"
        purpose = f"under {FEW_ITEMS} items normal intervals of 0/1 scores are doubtful"
        name = f"Bayesian interval by item: {task}"
        yield TestResult(name, purpose, mean, float(ends[0]), float(ends[1]), note=note)


def _model_tests(paired: PairedDifferences) -> Iterator[TestResult]:
    for task, block in paired.blocks.items():
        # At most as many seeds and items as the dense model takes, the items drawn with seed 0.
        table = block.differences
        n_items = min(table.shape[1], MAX_MODEL_ITEMS)
        drawn = np.random.default_rng(0).choice(table.shape[1], n_items, replace=False)
        small = table[:MAX_MODEL_SEEDS, np.sort(drawn)]
        if min(small.shape) < 2 or np.ptp(small) == 0:
            continue
        reml, closed = mixed_model(small), estimate([small])
        reml_se = (reml.high - reml.low) / 2 / stats.norm.ppf(0.975)
        note = (
            f"{n_items} items × {len(small)} seeds; closed form there: se {closed.se:.3g}, "
            f"REML se {reml_se:.3g}"
        )
        yield replace(reml, test=f"mixed model: {task}", note=note)


def _task_tests(
    items: pd.DataFrame, method: str, baseline: str, tasks: list[str]
) -> Iterator[TestResult]:
    purpose = "is the pooled gain more than one task's? a lower bound at 95 %"
    try:
        by_task = [compare(items, method, baseline, [task]) for task in tasks]
    except InputError as error:
        yield TestResult("tasks better", purpose, note=f"not available: {error}")
        return
    p = [float(stats.t.sf(c.estimate / c.se, c.df)) for c in by_task]
    count, by_count = count_improved_tasks(p)
    by_number = ", ".join(f"≥ {u}: {x:.2g}" for u, x in enumerate(by_count, 1))
    note = f"unit: tasks; one-sided p by number of tasks: {by_number}"
    improved, n_tasks = float(sum(c.estimate > 0 for c in by_task)), float(len(tasks))
    yield TestResult("tasks better", purpose, improved, float(count), n_tasks, by_count[0], note)
    purpose = "does the pooled result depend on this one task?"
    for row in leave_one_task_out(items, [(method, baseline)]).to_dict("records"):
        numbers = {name: row[name] for name in ("estimate", "low", "high", "p")}
        note = f"on {row['tasks']}"
        yield TestResult(f"without {row['without']}", purpose, **numbers, note=note)
