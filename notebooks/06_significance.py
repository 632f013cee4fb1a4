# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is the gain real?
#
# A table says that one loss scores a point more than another. Would it do so again, with other seeds
# and other test sentences? This chapter shows how our verdicts are reached, and how easily a table says
# more than it knows.
#
# **You need** the idea of a standard error and of a t-test. **Run time**: under a minute, no GPU, no
# training. **You will learn** why differences are paired, why seeds *and* items count, what Holm's
# correction and an equivalence test add, how to plan seeds and items before a run, and when the honest
# answer is "inconclusive". For your own table there is a [command](../book/compare).

# %% tags=["parameters"]
profile = "laptop"
seed = 0

# %%
from operator import attrgetter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from geodistill.analysis.figures import comparison_plots
from geodistill.analysis.figures.style import comparison_label, geodistill_style
from geodistill.analysis.report import format
from geodistill.analysis.stats import coverage as simulations
from geodistill.analysis.stats import power, sensitivity
from geodistill.analysis.stats.compare import compare, compare_family
from geodistill.analysis.stats.coverage import SimulationTruth, interval_coverage
from geodistill.analysis.stats.crossed_anova import estimate, mean_squares
from geodistill.analysis.stats.pairing import paired_differences
from geodistill.analysis.stored_results import load_items
from geodistill.cli.power import plan_table
from geodistill.paths import data_dir
from geodistill.publish.claims import ledger
from geodistill.publish.claims.figures import show_forest
from geodistill.publish.claims.judge import Judge, all_claims, find_test
from geodistill.publish.display import show, show_table

rng = np.random.default_rng(seed)
repeats = {"smoke": 300, "laptop": 1000, "paper": 10000}[profile]

# %% [markdown]
# ## A verdict on stored results
#
# Does a Procrustes or a Gram term improve a small BERT over distilling logits alone (KD)? The example is
# an [earlier study](07_earlier_studies) of narrow students, on which no claim rests: each method ran with
# the same ten seeds on the same test sentences of three tasks.

# %%
judge, bert = Judge(), find_test("C4a")
items = load_items(data_dir() / "results/earlier/classification/primary").frame
items = items[items["task"] != "stsb"]  # its scores have another unit
primary = compare_family(items, bert.pairs)
stored = {
    "source": "stored",
    "made_by": "an earlier version of this project",
    "results": "data/results/earlier/classification/primary",
    "run_ids": tuple(sorted(items["run_id"].unique())),
}
by_task = [
    compare(items, method, baseline, [task])
    for method, baseline in bert.pairs
    for task in primary[0].tasks
]
results = sorted([*primary, *by_task], key=lambda result: (result.method, result.task != "pooled"))
show_forest(results, bert, "bert-primary", stored)

# %%
for pooled in primary:
    estimates = [result.estimate for result in by_task if result.method == pooled.method]
    assert np.isclose(pooled.estimate, np.mean(estimates)), "tasks have equal weight"
    assert pooled.p_holm >= pooled.p
show_table(
    format.comparison_table(primary, bert.margin, bert.unit),
    caption=format.comparison_caption(primary, bert.margin, bert.unit),
    name="bert-primary-table",
    **stored,
)

# %% [markdown]
# ## How verdicts are assigned
#
# By one ordered rule, fixed before the results. Two tests are two chances of a false alarm. **Holm's
# correction** {cite}`holm1979` keeps the chance of *any* at 5 %: the smaller p-value is doubled, the
# larger one is not, and may not come out below the first. Then:
#
# 1. more than one in ten runs of the baseline collapsed, that is, learned nothing: **no test**;
# 2. the corrected test differs from zero: **better**, or **worse** (*by less than the margin*, where the
#    tests of the next rule reject too);
# 3. else, two one-sided tests show that the difference is smaller than the margin: **equivalent**. "Not
#    significant" is not "no difference". The margin is one point of accuracy (the shaded band), by our
#    choice;
# 4. else **inconclusive**, with the seeds and items at which the interval can no longer contain both
#    zero and a margin.
#
# The intervals are not adjusted. P(better) is the probability that one new run of the method beats one
# new run of KD on as many new items: a gain in the mean can be certain, and a single run still a gamble.
#
# ## What the ± in papers means
#
# Many tables print a ± that is the standard deviation over decodings, or over test items, of *one*
# trained model. Here is a simulation where we know the truth: the two methods do not differ at all, and
# the training seed moves the score by two points.

# %%
truth = SimulationTruth(effect=0.0, seed=0.02, item=0.2, residual=0.3)
experiment = truth.draw(rng, n_seeds=5, n_items=1000)
one_model = experiment[:1]  # the first training seed alone
decodings = one_model.mean() + 0.003 * rng.standard_normal(5)  # five samplings of its answers
crossed = estimate([experiment])
analyses = {
    "5 decodings, one training seed": (sensitivity.paired_t_seeds(decodings[:, None]), "decodings"),
    "items, one training seed": (sensitivity.paired_t_items(one_model), "items"),
    "items, five training seeds": (sensitivity.paired_t_items(experiment), "items"),
    "five training seeds": (sensitivity.paired_t_seeds(experiment), "seeds"),
    "seeds and items crossed": (crossed, "seeds and items"),
}
intervals = pd.DataFrame(
    [(name, of, 100 * result.low, 100 * result.high) for name, (result, of) in analyses.items()],
    columns=["interval over", "generalises to new", "low (points)", "high (points)"],
)
show_table(
    intervals,
    caption="Five 95 % intervals for one simulated experiment whose true difference is 0.",
    source="live",
)
width = (intervals["high (points)"] - intervals["low (points)"]).to_numpy()
assert width[0] < width[2] < width[4], "each neglects noise that the next one counts"

# %% [markdown]
# The first interval is the shortest, and assumes the most: it says that this one model, asked again,
# answers similarly. An interval over items says that these trained models would do similarly on other
# sentences. Neither says whether *training again* would bring the gain again, which is what a reader
# understands by "method A is better".
#
# ## Seeds and items crossed
#
# Two methods are trained with the same seeds (the same training sentences, start and order) and scored
# on the same test items. What they share cancels in the difference $D_{si}$ of seed $s$ on item $i$; that
# is all that *paired* means. We model the difference as
#
# ```{math}
# :label: crossed-model
# D_{si} = \mu + A_s + B_i + E_{si}, \qquad
# \operatorname{Var}\bar D = \frac{\sigma_A^2}{S} + \frac{\sigma_B^2}{I} + \frac{\sigma_E^2}{S\,I},
# ```
#
# with a seed effect $A_s$, an item effect $B_i$ and a residual $E_{si}$. Every seed is scored on every
# item: the two are *crossed*.
#
# ### Coverage: how often an interval contains the truth
#
# A 95 % interval should contain it 95 times in 100. Each line below is one simulated experiment with
# 1,000 items; red ones miss.


# %%
ends_of = attrgetter("low", "high")
intervals_of = {
    "items only": lambda table: ends_of(sensitivity.paired_t_items(table)),
    "crossed": lambda table: ends_of(estimate([table])),
}
forty = [truth.draw(rng, 5, 1000) for _ in range(40)]
with geodistill_style():
    fig, axes = plt.subplots(1, 2, sharex=True)
    for ax, (name, interval) in zip(axes, intervals_of.items(), strict=True):
        ends = 100 * np.array([interval(table) for table in forty])
        comparison_plots.repeated_intervals(ax, ends, 0.0, "points", name)
seen = "; ".join(ax.get_title("left") for ax in axes)
show(fig, alt=f"Intervals of simulated experiments around a true zero. {seen}.", source="live")

# %%
seed_effects = {f"seeds move the score by {sd:g} points": sd / 100 for sd in (0, 0.5, 2)}
share = {
    setting: {
        name: interval_coverage(interval, SimulationTruth(seed=sd), 5, 100, repeats, rng)
        for name, interval in intervals_of.items()
    }
    for setting, sd in seed_effects.items()
}
rates = pd.DataFrame(share).T.rename_axis("simulation").reset_index()
show_table(
    rates,
    caption=f"Coverage of 95 % intervals in {repeats} simulated experiments with 5 seeds and "
    "100 items.",
    source="live",
)

# %% [markdown]
# With 100 items the item noise hides much of the seed noise. With 2,000 items the neglected part is all
# that is left: more test sentences make the short interval *worse*.

# %%
large = {
    name: interval_coverage(interval, truth, 5, 2000, repeats // 2, rng)
    for name, interval in intervals_of.items()
}
error = 3 * np.sqrt(0.95 * 0.05 / repeats)
assert large["items only"] < 0.85, "items alone must fail where seeds matter"
assert (rates["crossed"] > 0.93 - error).all(), "crossed intervals must cover"
display(
    Markdown(
        f"With 2,000 items the interval over items covers in {large['items only']:.0%} of the "
        f"experiments, the crossed one in {large['crossed']:.0%}."
    )
)

# %% [markdown]
# ### The closed form
#
# In a complete table the variance in {eq}`crossed-model` needs no fitting. The mean squares of a two-way
# analysis of variance have known expectations, and
#
# ```{math}
# :label: crossed-variance
# \widehat{\operatorname{Var}}\,\bar D
#   = \frac{\mathrm{MS}_{\text{seed}} + \mathrm{MS}_{\text{item}} - \mathrm{MS}_{\text{rest}}}{S\,I},
# ```
#
# with Satterthwaite's degrees of freedom for the t quantile: close to $S-1$ where seeds dominate, close
# to $I-1$ where items do. A negative component counts as zero, which raises the variance.

# %%
m = mean_squares(experiment)
by_hand = (m.seed + m.item - m.residual) / experiment.size
assert np.isclose(crossed.se**2, by_hand)
small = experiment[:, :40]
reml = sensitivity.mixed_model(small)  # the same model, fitted by statsmodels
assert np.isclose(reml.estimate, estimate([small]).estimate)
display(
    Markdown(
        f"Standard error {100 * crossed.se:.2f} points with {crossed.df:.1f} degrees of freedom: "
        "the five seeds, not the 1,000 items, determine them."
    )
)

# %% [markdown]
# ### A check by bootstrap
#
# A bootstrap that resamples seeds and items at once needs no model. It counts the residual twice; the
# corrected one, $2(V_{\text{seed}} + V_{\text{item}}) - V_{\text{both}}$ of the three bootstrap variances,
# does not. Both use normal quantiles, which are too short for five seeds.

# %%
simulated = simulations.load_simulation().query("quantity == 'coverage' and n_seeds == 5")
by_effects = simulated.pivot(index=["seed", "item"], columns="interval", values="share")
show_table(
    by_effects.reset_index().rename_axis(columns=None),
    caption="Coverage of 95 % intervals at five seeds, by the standard deviations of seed and item "
    "effects",
    source="stored",
    made_by=simulations.COMMAND,
    results="data/results/coverage/rows.csv",
    run_ids=[f"seed {seed:g}, item {item:g}" for seed, item in by_effects.index],
    name="coverage-at-five-seeds",
)
naive, corrected = by_effects["bootstrap, naive"], by_effects["bootstrap, corrected"]
assert by_effects["primary"].between(0.935, 0.98).all()
assert (naive > corrected).all(), "the correction shortens every interval"
assert (naive.iloc[:-1] > 0.95).all(), "naive: too wide, unless seeds are all that varies"
assert naive.iloc[-1] < 0.92
assert corrected.mean() < 0.935, "corrected: too short at five seeds"

# %% [markdown]
# The naive bootstrap covers too much, unless seeds are nearly all that varies; there it is too short, as
# the corrected one is throughout. The closed form covers in every row: it is the primary analysis, the
# bootstrap a check. Three refinements:
#
# - **Items of one source** (sentences of one review) are not independent. The *source* is then the item
#   factor, weighted by its size.
# - **Several tasks** are averaged with equal weight and held fixed: the pooled claim is about these
#   tasks. A seed is one draw for all of them, so its effect is measured on their mean.
# - **Five seeds are few.** Satterthwaite's t is an approximation; the table above says how good.
#
# ## A significant table from nothing
#
# Suppose that there is *no* difference: how often can one be printed, in good faith? Each function below
# simulates one null experiment and returns a p-value as papers compute it.

# %%
null = SimulationTruth(effect=0.0, seed=0.02, item=0.2, residual=0.3)


def one_seed(n_items):
    """One trained pair, judged over its test items."""
    return sensitivity.paired_t_items(null.draw(rng, 1, n_items)).p


def best_of_seeds(n_items):
    """Five seeds; the one that looks best goes into the table."""
    table = null.draw(rng, 5, n_items)
    return sensitivity.paired_t_items(table[[table.mean(1).argmax()]]).p


def tuned_on_test(n_items):
    """Eight weights of the loss, chosen by the score on the set that is then reported."""
    tables = [null.draw(rng, 1, n_items) for _ in range(8)]
    return sensitivity.paired_t_items(max(tables, key=np.mean)).p


def dependent_splits(n_items):
    """Ten random halves of one test set, taken for ten independent experiments."""
    difference = null.draw(rng, 1, n_items)[0]
    halves = [rng.permutation(difference)[: n_items // 2].mean() for _ in range(10)]
    return stats.ttest_1samp(halves, 0.0).pvalue


def crossed_p(n_items):
    """Five seeds, all of them, seeds and items crossed."""
    return estimate([null.draw(rng, 5, n_items)]).p


# %%
ways = {
    "all 5 seeds, crossed": crossed_p,
    "1 seed, over items": one_seed,
    "best of 5 seeds": best_of_seeds,
    "best of 8 weights on the test set": tuned_on_test,
    "10 dependent splits": dependent_splits,
}
small_test, times = power.RTE_DEV, repeats // 3
alarms = []
for way, p_of in ways.items():
    hits = sum(p_of(small_test) < 0.05 for _ in range(times))
    low, high = proportion_confint(hits, times, method="wilson")
    alarms.append({"analysis": way, "rate": hits / times, "low": low, "high": high})
alarms = pd.DataFrame(alarms)
rate = alarms.set_index("analysis")["rate"]
assert rate.iloc[0] < 0.05 + 3 * np.sqrt(0.05 * 0.95 / times), "the crossed test keeps its level"
assert (rate.iloc[1:] > 0.08).all(), "and each other one exceeds it"
with geodistill_style():
    fig, ax = plt.subplots(figsize=(6.4, 2.6))
    comparison_plots.type1_error_rates(ax, alarms, 0.05)
texts = "; ".join(f"{way}: {share:.0%}" for way, share in rate.items())
show(
    fig,
    alt=f"False alarms where nothing differs, {small_test} test items, {times} experiments each. "
    f"{texts}.",
    name="false-alarms",
    source="live",
)

# %% [markdown]
# No one cheated. To choose the best of several on the scores that are then reported is enough; so is
# taking ten overlapping splits for ten experiments. And on a small test set the gains that pass look
# large: here is what a difference *must* measure to be significant, where the truth is zero.

# %%
least = {}
for n_items in (small_test, 1_000, 3_000):
    table = [sensitivity.paired_t_items(null.draw(rng, 1, n_items)) for _ in range(times)]
    passed = [abs(result.estimate) for result in table if result.p < 0.05]
    least[n_items] = 100 * np.mean(passed)
assert least[small_test] > 4, "only an overstated gain can pass on so few items"
display(
    Markdown(
        "Mean size of a *significant* difference between equal methods, one seed: "
        + ", ".join(f"{gain:.1f} points with {n:,} items" for n, gain in least.items())
        + ". A gain that had to be significant to be printed is overstated."
    )
)

# %% [markdown]
# ## Planning before the run
#
# The three variances also say what a design can detect. In words first:

# %%
display(Markdown(power.rule_of_thumb()))
assert power.mcnemar_sample_size(0.02, 0.15) > 10 * power.RTE_DEV

# %% [markdown]
# Then with the variances of our stored results, of the noisier of the two primary comparisons.
# `geodistill power` prints the same and writes it into a study's protocol. (With very few seeds a line
# can rise again: more items remove the noise that had many degrees of freedom, and leave that of the
# seeds, which has few.)

# %%
parts, measured = power.pilot_components(primary)
grid = [(s, n) for s in (3, 5, 10, 20) for n in (277, 1_000, 3_000, 10_000, 100_000)]
gains = pd.DataFrame(
    [(s, n, 100 * power.Design(parts, measured, s, n, tests=2).smallest_gain()) for s, n in grid],
    columns=["seeds", "items", "gain"],
)
most = gains[gains["items"] == 100_000].set_index("seeds")["gain"]
assert most[3] > most[20] > 0, "items alone reach a floor, and only seeds lower it"
with geodistill_style():
    fig, ax = plt.subplots()
    ax.axvline(power.RTE_DEV, color="black", linestyle=":", label="RTE's dev set")
    comparison_plots.smallest_gains(ax, gains, "points")
floors = ", ".join(f"{s} seeds {gain:.1f}" for s, gain in most.items())
show(
    fig,
    alt="Smallest gain in points found with 80 % power, falling with test items to a floor that the "
    f"seeds set: {floors}.",
    name="smallest-gain",
    **stored,
)

# %%
design = power.Design(parts, measured, primary[0].n_seeds, measured, tests=2)
show_table(
    plan_table(design),
    caption=f"Power of the present design ({design.seeds} seeds, {measured:,} items) for a true gain "
    "in accuracy (0.01 is a point), and the seeds (with these items) or items (with these seeds) that show it at 80 %; "
    "from few seeds, so a rough plan.",
    name="needed",
    **stored,
)
assert design.power_at(0.02, design.seeds, measured) > design.power_at(0.01, design.seeds, measured)

# %% [markdown]
# ### What common analyses would conclude
#
# The same differences, analysed in other ways. The t-test over seeds makes fewer assumptions, but holds
# the sentences fixed; the sign-flip test is exact, but of $S$ seeds no p-value can fall below $2/2^S$.
# The interval over items is the one to distrust.

# %%
rows = []
for result in primary:
    paired = paired_differences(items, result.method, result.baseline)
    for task, table in paired.by_cluster.items():
        three = [
            sensitivity.paired_t_items(table),
            sensitivity.paired_t_seeds(table),
            estimate([table]),
        ]
        widths = [100 * (result.high - result.low) for result in three]
        assert widths[2] >= widths[0], "seeds can only widen an interval"
        name = comparison_label(result.method, result.baseline)
        rows.append((name, task, *widths, sensitivity.sign_flip_test(table)))
columns = ["comparison", "task", "items only", "seeds only", "crossed", "p by sign flips"]
show_table(
    pd.DataFrame(rows, columns=columns),
    caption="Width of the 95 % interval in points by three analyses of the same results.",
    name="common-analyses",
    **stored,
)

# %% [markdown]
# ## All verdicts
#
# Every claim that stored results decide: the ledger on its page takes its verdicts from this cell.
# [The BERT chapter](04_bert_classification) and [the instruction chapter](05_opt_instruction) show the
# comparisons with their tables. The lines on BERT are one family of five tests; of the lines on
# instructions, all but C5 are exploratory or secondary.

# %%
for claim in all_claims():
    if claim.test:
        for record in judge.evaluate(claim.key):
            ledger.record_verdict(**vars(record))

# %% [markdown]
# ## What would change our mind
#
# - **One teacher per task**: teacher-to-teacher variation is not in the intervals.
# - **Tasks held fixed**: a pooled verdict is about these tasks, not about tasks at large.
# - **The margin**: with a smaller one, "equivalent" becomes "inconclusive"; the intervals remain.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-winners
# Does a larger test set cure "best of 5 seeds"? Measure its false alarms with 277 and with 5,000 items.
# ```

# %% [markdown]
# ````{solution-start} ex-winners
# :class: dropdown
# It makes it worse: with more items the seed effect stands out more clearly, and it is noise.
# ````

# %%
rates = {n: np.mean([best_of_seeds(n) < 0.05 for _ in range(100)]) for n in (277, 5_000)}
assert rates[5_000] > rates[277] > 0.05
print({n: f"{rate:.0%}" for n, rate in rates.items()})

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise}
# :label: ex-plan
# A study can afford 5 seeds and 1,000 items, or 10 seeds and 500. With standard deviations of 0.01
# (seed), 0.2 (item) and 0.3 (residual), which detects the smaller gain? And with 0.04 for the seed?
# ```

# %% [markdown]
# ````{solution-start} ex-plan
# :class: dropdown
# ````

# %%
for seed_sd in (0.01, 0.04):
    parts_given = power.components_from_sd(seed_sd, 0.2, 0.3)
    few = power.Design(parts_given, 1, seeds=5, items=1_000).smallest_gain()
    many = power.Design(parts_given, 1, seeds=10, items=500).smallest_gain()
    print(f"seeds move it by {100 * seed_sd:g}: {100 * few:.1f} or {100 * many:.1f} points")
    assert (few < many) == (seed_sd == 0.01)

# %% [markdown]
# ````{solution-end}
# ````
#
# ```{exercise}
# :label: ex-holm
# Three tests give p = 0.010, 0.030 and 0.020. Correct them by Holm by hand, then with statsmodels.
# Which remain below 0.05? And under Bonferroni?
# ```

# %% [markdown]
# ````{solution-start} ex-holm
# :class: dropdown
# Sorted: 0.010 · 3 = 0.030, 0.020 · 2 = 0.040, 0.030 · 1 = 0.030, lifted to 0.040 because
# corrected p-values may not fall. All three remain; Bonferroni (each times 3) keeps one.
# ````

# %%
p = [0.010, 0.030, 0.020]
assert np.allclose(multipletests(p, method="holm")[1], [0.030, 0.040, 0.040])
assert (multipletests(p, method="bonferroni")[1] < 0.05).tolist() == [True, False, False]

# %% [markdown]
# ````{solution-end}
# ````
