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
# # How many rows does geometry need?
#
# A batch of 32 sentences gives 32 vectors in a space of 384 dimensions. Any two such clouds can be rotated close to each
# other, even if they are unrelated. So a loss on a small batch is low in part by chance. **The rule**: for a fidelity
# of at most $x$ by chance use $n \ge 1 + R/x^2$ rows, with $R$ the *nuclear rank* of the features; 32 sentences with
# one vector each are too few.
#
# **You need** chapter 1. **Time**: 12 minutes to read, half a minute to run, no GPU. **You will learn** the chance
# value of each measure, exactly for three of them; what a small batch does to the loss and to its gradient; what
# `decay=` corrects; and how large a batch you need.
#
# That similarity scores grow by chance is known {cite:p}`murphy2024,groger2026`. The exact mean of CKA is known too,
# for the RV coefficient, as statisticians have called it for longer {cite:p}`kaziaoual1995,josse2008`. The bound for
# the Procrustes distance is ours.

# %% tags=["parameters"]
profile = "laptop"
seed = 0

# %% tags=["hide-input"]
from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from geodistill.analysis.figures.style import geodistill_style, method_style
from geodistill.experiments.finite_samples import (
    all_measures,
    batch_bias,
    chance_curves,
    measured_sample_size,
    nuclear_rank,
    permutation_means,
    power_law,
    sample_size_for,
)
from geodistill.publish.display import show

torch.manual_seed(seed)
seeds = range({"smoke": 3, "laptop": 10, "paper": 50}[profile])
counts = [8, 16, 32, 64, 128, 512, 2048]

# %% [markdown]
# ## Shuffle the rows, and average
#
# What is "by chance"? Keep both sets of features and break only the pairing: put the student's rows in a random order.
# $K$ stays, $L$ becomes $PLP^\top$ with a random permutation matrix $P$. Means over all orders have a closed form,
# because on average nothing but the trace remains.
#
# :::{prf:lemma} Averaging over orders (literature: {cite:t}`kaziaoual1995`)
# :label: lem-average
#
# Let $M$ be a symmetric $n \times n$ matrix with $M\mathbf 1 = 0$, let $P$ be a uniformly random permutation
# matrix and $H = I - \mathbf 1\mathbf 1^\top/n$. Then $\mathbb E\, PMP^\top = \frac{\operatorname{tr}M}{n-1} H$.
# :::
#
# :::{prf:proof}
# The mean commutes with every permutation matrix, so all its diagonal entries are equal, and so are all the
# others: it is $aI + b\,\mathbf 1\mathbf 1^\top$. It sends $\mathbf 1$ to 0, hence $b = -a/n$ and it is $aH$. Its
# trace is that of $M$, and $\operatorname{tr}H = n-1$.
# :::
#
# :::{prf:theorem} Values by chance
# :label: thm-null
#
# For centred features of unit Frobenius norm, on average over all orders of the student's rows,
#
# $$
# \mathbb E\,\mathrm{CKA} = \frac{\sqrt{\mathrm{PR}_X\,\mathrm{PR}_Y}}{n-1}, \qquad
# \mathbb E\, D_{FG}^2 = \frac1{\mathrm{PR}_X} + \frac1{\mathrm{PR}_Y} - \frac2{n-1},
# $$ (eq-null)
#
# $$
# \mathbb E\, D_A^2 = 1 - \frac{\operatorname{rank}Y}{n-1}, \qquad
# \mathbb E\, F \le \sqrt{\frac{R}{n-1}}, \qquad
# \mathbb E\, D_P^2 \ge 2 - 2\sqrt{\frac{R}{n-1}},
# $$ (eq-null-procrustes)
#
# with $R = \min(\lVert X\rVert_*^2, \lVert Y\rVert_*^2)$, and debiased CKA {cite:p}`song2012,murphy2024` has mean
# exactly 0. (CKA: the literature, as cited above. Gram, projection and Procrustes: ours, by the same lemma.)
# :::
#
# :::{prf:proof}
# Centred features have $K\mathbf 1 = L\mathbf 1 = 0$, and $KH = K$. By {prf:ref}`lem-average`
# $\mathbb E\langle K, PLP^\top\rangle = \operatorname{tr}K\operatorname{tr}L/(n-1) = 1/(n-1)$. The norms do not depend on
# the order, which gives CKA and, by expanding the square, $D_{FG}^2$. For the projection,
# $D_A^2 = 1 - \langle K, \Pi\rangle$ with $\Pi$ the orthogonal projection onto the columns of $Y$: the lemma with
# $M = \Pi$, of trace $\operatorname{rank}Y$. For the fidelity, $F = \operatorname{tr}\sqrt{Y^\top P^\top K P\,Y}$. The function
# $S \mapsto \operatorname{tr}\sqrt S$ is concave on positive matrices, so its mean is at most
# $\operatorname{tr}\sqrt{Y^\top\,\mathbb E[P^\top KP]\,Y} = \operatorname{tr}\sqrt{Y^\top Y/(n-1)} = \lVert Y\rVert_*/\sqrt{n-1}$.
# The same with $X$ and $Y$ exchanged gives the other half of the minimum. The debiased CKA replaces $K$ and $L$
# by matrices with zero diagonal and zero row sums; the average of a zero-diagonal $PMP^\top$ off the diagonal is
# a constant, and a constant against zero row sums is 0.
# :::
#
# $R$ is another effective rank, the *nuclear rank*: 1 for a single direction, $d$ for a flat spectrum of $d$
# directions, never below the participation ratio. The cell takes six rows in all 720 orders and compares with the
# formulas, which are exact.

# %%
x, y = power_law(6, 4, 1, seed=0), power_law(6, 3, 1, seed=1)
every = pd.DataFrame([all_measures(x, y[list(order)]) for order in permutations(range(6))])
exact = permutation_means(x, y)
print(f"CKA over {len(every)} orders {every['cka'].mean():.6f}, by the formula {exact['cka']:.6f}")
assert len(every) == 720
assert abs(every["cka"].mean() - exact["cka"]) < 1e-12
assert abs((every["gram"] ** 2).mean() - exact["gram squared"]) < 1e-12
assert abs((every["projection"] ** 2).mean() - exact["projection squared"]) < 1e-7
assert (every["procrustes"] ** 2).mean() > exact["procrustes squared at least"] > 0.5
assert abs(every["debiased"].mean()) < 1e-12

# %% [markdown]
# In practice: CKA by chance falls as $1/n$ and depends on *participation ratios*; the fidelity falls only as
# $1/\sqrt n$ and depends on the *nuclear rank*, the larger number, so of all four the Procrustes distance needs the
# most rows. The Gram distance hardly depends on $n$; for unrelated features it measures their ranks. And the projection
# fits everything once $\operatorname{rank}Y = n-1$.
#
# ## The same on random features
#
# Now both sets are random, the teacher 384 wide, the student 128, with variances $1/k$, roughly those of transformers.
# Sample participation ratios depend on $n$ too, so we apply the formula to the population's: of a normal sample
# $1/\mathrm{PR}$ grows by about $1/(n-1)$ {cite:p}`murphy2024`, hence
#
# $$
# \mathrm{CKA}_{\text{chance}} \approx \frac1{\sqrt{(1 + n/\mathrm{PR}_X)\,(1 + n/\mathrm{PR}_Y)}} .
# $$ (eq-null-approx)

# %%
curves = chance_curves(counts, 384, 128, 1.0, seeds)
mean, sd = (getattr(curves.groupby("n"), how)() for how in ("mean", "std"))
k_t, k_s = (1 / np.arange(1, d + 1) for d in (384, 128))
pr_t, pr_s = (k.sum() ** 2 / (k**2).sum() for k in (k_t, k_s))
n = np.array(counts)
predicted = 1 / np.sqrt((1 + n / pr_t) * (1 + n / pr_s))
print(mean[["cka", "procrustes", "debiased", "projection"]].round(2))
assert np.abs(mean["cka"] / predicted - 1).max() < 0.1
assert mean["debiased"].abs()[mean.index >= 32].max() < 0.05
assert (mean["procrustes"].diff().dropna() > 0).all()
assert 0.3 < mean["cka"][32] < 0.5
assert 0.5 < mean["procrustes"][32] < 0.7

# %% tags=["hide-input"]
with geodistill_style():
    fig, ax = plt.subplots()
    for name, key, label in (
        ("cka", "cka", "CKA (truth 0)"),
        ("debiased", "cka", "CKA, debiased (truth 0)"),
        ("procrustes", "procrustes", "$D_P$ (truth √2)"),
        ("gram", "gram", "$D_{FG}$"),
        ("projection", "projection", "$D_A$ (truth 1)"),
    ):
        style = {
            "color": method_style(key).color,
            "marker": method_style(key).marker,
            "label": label,
        }
        ax.plot(counts, mean[name], linestyle="--" if name == "debiased" else "-", **style)
        ax.fill_between(
            counts, mean[name] - sd[name], mean[name] + sd[name], alpha=0.2, color=style["color"]
        )
    ax.plot(counts, predicted, ":", color="black", label="CKA, predicted")
    ax.set(xscale="log", xlabel="rows n", ylabel=f"value, mean ± sd of {len(seeds)} draws")
    ax.legend(fontsize="small", ncols=2)
show(
    fig,
    alt="Values of five measures for independent features of widths 384 and 128 against the number of "
    "rows: CKA falls along its predicted curve, the Procrustes and the projection distance rise slowly, "
    "debiased CKA stays at zero and the Gram distance hardly moves",
    source="live",
)

# %% [markdown]
# ## Width and spectrum
#
# Which matters more, the width of the student or the shape of its spectrum? The cell shows the fidelity of unrelated
# features with 128 rows, for widths from 8 to 384 and three spectra.

# %%
widths, exponents = [8, 32, 128, 384], {0.0: "flat", 1.0: "1/k", 2.0: "1/k²"}
by_width = {
    (e, d): chance_curves([128], 384, d, e, seeds)["procrustes"] for e in exponents for d in widths
}
chance = {key: 1 - (values**2).mean() / 2 for key, values in by_width.items()}
for e, name in exponents.items():
    print(f"{name:5s}", *(f"d_s = {d}: {chance[e, d]:.2f}" for d in widths), sep="   ")
assert all(chance[e, 384] > chance[e, 8] for e in exponents)
growth = {e: chance[e, 384] - chance[e, 8] for e in exponents}
assert growth[0.0] > growth[1.0] > growth[2.0]

# %% [markdown]
# With a flat spectrum each direction counts; with a steep one only the first few do, and width beyond them changes
# little. The rows needed depend on the effective rank, not on the width in the model card. (For a very steep spectrum
# two features of one direction each have the fidelity $|\cos|$ of two random vectors, of order $1/\sqrt n$.)
#
# ## What a small batch does to training
#
# A trained student is not random. Take a population of 4,096 rows, a teacher, and a student that has half of the
# teacher's directions with some distortion and noise. Its distance on all rows is one number; its mean over batches of
# $n$ rows is another, and so is the gradient.

# %%
teacher = power_law(4096, 64, 1.0, seed=0)
distorted = teacher[:, :32] * torch.linspace(1.5, 0.3, 32)
student = distorted + 0.3 * power_law(4096, 32, 0.5, seed=3)
batches = [16, 32, 64, 128, 256, 512]
repeats = {"smoke": 32, "laptop": 128, "paper": 512}[profile]
plain = batch_bias(teacher, student, batches, batches=repeats)
print(plain.round(3).to_string(index=False))
assert (plain["loss"] < plain["full_loss"]).all()  # the loss of a batch is too low
assert plain["loss"].is_monotonic_increasing
assert (
    plain["gradient_ratio"].iloc[0] > 2 > 1.3 > plain["gradient_ratio"].iloc[-1]
)  # and its gradient too long
assert plain["cosine"].iloc[0] < plain["cosine"].iloc[-1]

# %% [markdown]
# Two things happen. The batch *loss* is too low, several times too low at 16 rows, because each batch is fitted by its
# own rotation. And the mean *gradient*, over any number of batches, is not the gradient of the distance on all rows: it
# is too long and points elsewhere, so more steps do not remove the bias. (Part of the length is the unit norm: a batch
# in which the student's noise can be fitted rewards other changes than the population does.) A learning rate or loss
# weight that was tuned at one batch size is tuned for that bias.
#
# ### A moving average of moments
#
# The loss is a function of second moments, and moments are additive. `ProcrustesLoss(decay=0.9)` keeps the decayed sums
# of past batches, so it sees about $n/(1-0.9) = 10\,n$ rows while the gradient flows through the $n$ of the batch.

# %%
averaged = batch_bias(teacher, student, batches, decay=0.9, batches=repeats)
print(averaged.round(3).to_string(index=False))
error = {
    "batch": plain["full_loss"] - plain["loss"],
    "decay": plain["full_loss"] - averaged["loss"],
}
assert (error["decay"].abs() < 0.5 * error["batch"]).all()
assert ((averaged["gradient_ratio"] - 1).abs() < (plain["gradient_ratio"] - 1).abs()).iloc[:4].all()

# %% tags=["hide-input"]
with geodistill_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3))
    for table, label, line in ((plain, "batch alone", "-"), (averaged, "decay 0.9", "--")):
        color = method_style("procrustes").color
        left.errorbar(
            batches, table["loss"], table["sd"], fmt=line, color=color, capsize=2, label=label
        )
        right.plot(batches, table["gradient_ratio"], line, color=color, marker="o", label=label)
    left.axhline(plain["full_loss"][0], color="black", linewidth=0.8, label="all rows")
    right.axhline(1, color="black", linewidth=0.8)
    for ax, label in (
        (left, "$D_P^2$, mean ± sd over batches"),
        (right, "mean gradient / on all rows"),
    ):
        ax.set_xscale("log", base=2)
        ax.set(xlabel="rows in a batch", ylabel=label, xticks=batches, xticklabels=batches)
    left.legend(fontsize="small")
show(
    fig,
    alt="Mean Procrustes loss over batches and length of its mean gradient against the rows in a batch: "
    "batches alone are far below the loss on all rows with a gradient several times too long, with "
    "decay both are much closer",
    source="live",
)

# %% [markdown]
# The moving average corrects the loss and the length of the gradient. It does not correct the direction of a single
# step: that step still goes through $n$ rows, and its noise is as large as before (see the `cosine` of the smallest
# batches, a mean over few steps). And it has a cost that this experiment hides: the student does not change here. In
# training the past batches were made by an older student, so a decay is a compromise between rows and recency.
#
# ## The batch you need
#
# Solve {eq}`eq-null-procrustes` for $n$. For unrelated features to have at most the fidelity $x$, that is to distinguish
# a score of $x$ from chance,
#
# $$
# n \ge 1 + \frac{R}{x^2} .
# $$ (eq-rows)
#
# It is a bound, so it never asks for too few rows; the figure shows by how much it exceeds the measured number. Measure
# $R$ of your features with `nuclear_rank`, on any large sample.

# %%
grid = [round(8 * 2 ** (k / 2)) for k in range({"smoke": 15, "laptop": 23, "paper": 25}[profile])]
settings = [(d, e) for d in (8, 32, 128) for e in exponents]
ranks = {(d, e): nuclear_rank(power_law(8192, d, e, seed=5)) for d, e in settings}
needed = pd.DataFrame(
    {
        "fidelity": x,
        "rank": ranks[s],
        "exponent": s[1],
        "rows": measured_sample_size(384, *s, x, grid),
    }
    for x in (0.5, 0.2, 0.1)
    for s in settings
).dropna()
needed["bound"] = [
    sample_size_for(r, x) for r, x in zip(needed["rank"], needed["fidelity"], strict=True)
]
ratio = needed["bound"] / needed["rows"]
assert len(needed) >= 10
assert (ratio > 0.95).all()  # one draw each: a bound on the mean
assert (ratio[needed["exponent"] == 0] < 1.4).all()

# %% tags=["hide-input"]
with geodistill_style():
    fig, ax = plt.subplots()
    line = np.array([1, 200])
    for x, color in ((0.5, "0.75"), (0.2, "0.5"), (0.1, "0.15")):
        ax.plot(line, 1 + line / x**2, color=color, label=f"bound, x = {x}")
        for (e, name), marker in zip(exponents.items(), "osv", strict=True):
            at = needed[(needed["fidelity"] == x) & (needed["exponent"] == e)]
            label = f"measured, {name}" if x == 0.1 else None
            ax.plot(at["rank"], at["rows"], marker, color=color, label=label)
    for rows, label in ((32, "32 sentences"), (1280, "32 sentences × 40 tokens")):
        ax.axhline(rows, color="grey", linewidth=0.6, linestyle=":")
        ax.text(1.05, rows * 1.1, label, fontsize="x-small", color="grey")
    ax.set(
        xscale="log", yscale="log", xlabel="nuclear rank R of the features", ylabel="rows needed n"
    )
    ax.legend(fontsize="x-small")
show(
    fig,
    alt="Rows needed against the nuclear rank of the features on logarithmic axes, three lines for a fidelity "
    "by chance of one half, one fifth and one tenth, measured points just below their line for flat spectra "
    "and further below for steep ones; 32 sentences lie under nearly all of it",
    source="live",
)
print(f"bound over measured, by spectrum:\n{ratio.groupby(needed['exponent']).median().round(2)}")

# %% [markdown]
# A batch of 32 sentences with one vector each has too few rows for nearly every rank and $x$ shown. With one vector per
# token a batch has a thousand rows or more. (Tokens of one sentence are not independent, so they count as fewer.)
#
# ## What we learn
#
# - By chance CKA is $\sqrt{\mathrm{PR}_X\mathrm{PR}_Y}/(n-1)$, exactly. Debiased CKA is 0. Report the chance level with
#   any other score, or use *geometry kept*, which includes it.
# - Procrustes needs more rows than CKA: its fidelity by chance falls as $\sqrt{R/n}$.
# - The loss of a batch is too low and its gradient biased. More steps do not help; more rows or `decay=` do.
# - What matters is the effective rank of the features, not their width.
#
# **What would change our mind.** Features for which a measured point lies well above its line in the last figure would
# violate the bound, and the assert would fail. All this holds for independent rows: for the tokens of a text the
# effective number of rows is smaller, by a factor that the figure does not include.
#
# ## Exercises
#
# :::{exercise}
# :label: ex-rows-cka
#
# You use CKA and want its chance value below 0.05. Features have $\mathrm{PR} = 20$ and 15. How many rows?
# Check with {eq}`eq-null` on features of flat spectra.
# :::
#
# :::{solution} ex-rows-cka
# :class: dropdown
#
# $\sqrt{20\cdot15}/(n-1) \le 0.05$, so $n \ge 1 + 17.33/0.05$, that is 348 rows. Procrustes at the same fidelity
# would need $1 + 15/0.05^2 = 6{,}001$.
#
# ```python
# import math
#
# from geodistill.experiments.finite_samples import power_law, sample_size_for, permutation_means
#
# n = math.ceil(1 + math.sqrt(20 * 15) / 0.05)
# chance = permutation_means(power_law(n, 20, 0, seed=0), power_law(n, 15, 0, seed=1))["cka"]
# print(n, chance, sample_size_for(15, 0.05))
# assert n == 348
# assert chance < 0.05
# ```
# :::
#
# :::{exercise}
# :label: ex-rows-repeat
#
# Repeat every row of a batch ten times. The batch now has ten times the rows. Does the chance value fall?
# :::
#
# :::{solution} ex-rows-repeat
# :class: dropdown
#
# No: the moments are those of the single rows, so CKA and Procrustes are unchanged. Shuffling the *repeated* rows
# separates the copies and gives a chance level that is far too low. Shuffle independent units: sentences, not tokens.
#
# ```python
# import torch
#
# from geodistill.experiments.finite_samples import all_measures, permutation_means, power_law
#
# x, y = power_law(32, 64, 1, seed=0), power_law(32, 32, 1, seed=1)
# x10, y10 = (f.repeat_interleave(10, dim=0) for f in (x, y))
# assert abs(all_measures(x, y)["cka"] - all_measures(x10, y10)["cka"]) < 1e-9
# assert permutation_means(x10, y10)["cka"] < 0.2 * permutation_means(x, y)["cka"]
# ```
# :::
#
# :::{exercise}
# :label: ex-rows-half
#
# Show that the nuclear rank is never below the participation ratio, and find when the two are equal.
# :::
#
# :::{solution} ex-rows-half
# :class: dropdown
#
# Hölder: with $s_i = \sqrt{\lambda_i}$, $1 = \sum s_i^2 = \sum s_i^{2/3}s_i^{4/3} \le (\sum s_i)^{2/3}(\sum s_i^4)^{1/3}$, so
# $(\sum s_i)^2 \ge 1/\sum\lambda_i^2$. Equality needs all non-zero $\lambda_i$ equal: a flat spectrum.
#
# ```python
# from geodistill.experiments.finite_samples import nuclear_rank, power_law, unit
# from geodistill.geometry import from_spectra, participation_ratio
#
# for exponent in (0.5, 1.0, 2.0):
#     x = power_law(200, 30, exponent, seed=0)
#     assert nuclear_rank(x) > float(participation_ratio(unit(x)))
# flat = from_spectra(50, [0.1] * 10, [1.0]).teacher
# assert abs(nuclear_rank(flat) - 10) < 1e-9
# assert abs(float(participation_ratio(flat)) - 10) < 1e-9
# ```
# :::
