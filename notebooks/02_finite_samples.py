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
# A batch of 32 sentences gives 32 vectors, in a space of 384 dimensions. Any two such clouds can be turned
# to lie close to each other, also when they have nothing to do with one another. So a loss on a small
# batch lowers, in part, a number that was never about the teacher. How large is that part, and how many
# rows make it small?
#
# **You need** chapter 1. **Time**: half an hour to read, half a minute to run, no GPU. **You will learn**
# what each measure comes to by chance, exactly for three of them; what a small batch does to the loss and
# to its gradient; what `memory=` mends; and, from one figure, the batch that you need.
#
# That similarity scores grow by chance is known {cite:p}`murphy2024,groger2026`. The exact mean of CKA
# below is known as well, for the RV coefficient, as statisticians have called it since long before
# {cite:p}`kaziaoual1995,josse2008`. The bound for the Procrustes distance is ours.

# %% tags=["parameters"]
profile = "laptop"
seed = 0

# %%
from itertools import permutations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from geodistill.analysis.figures.style import geodistill_style, look
from geodistill.experiments.finite_samples import (
    batch_bias,
    measured_rows_needed,
    nuclear_rank,
    null_curves,
    power_law,
    rows_needed,
    shuffled_means,
    values,
)
from geodistill.publish.provenance import show

torch.manual_seed(seed)
seeds = range({"smoke": 3, "laptop": 10, "paper": 50}[profile])
counts = [8, 16, 32, 64, 128, 512, 2048]

# %% [markdown]
# ## Shuffle the rows, and average
#
# What is "by chance"? Keep both sets of features as they are and break only the pairing: give the
# student's rows a random order. $K$ stays, $L$ becomes $PLP^\top$ with a random permutation matrix $P$.
# Means over all orders have a closed form, because a permutation mixes the rows so thoroughly that on
# average nothing but the trace is left.
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
# with $R = \min(\lVert X\rVert_*^2, \lVert Y\rVert_*^2)$, and the debiased CKA {cite:p}`song2012,murphy2024` has mean exactly 0. (CKA: the literature's, as cited
# above. Gram, projection and Procrustes: ours, by the same lemma.)
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
# $R$ is one more effective rank, the *nuclear rank*: 1 for a single direction, $d$ for a flat spectrum of $d$
# directions, never below the participation ratio. The cell takes six rows, goes through all 720 orders, and
# compares with the formulas: to rounding, since these are no approximations.

# %%
x, y = power_law(6, 4, 1, seed=0), power_law(6, 3, 1, seed=1)
every = pd.DataFrame([values(x, y[list(order)]) for order in permutations(range(6))])
exact = shuffled_means(x, y)
print(f"CKA over {len(every)} orders {every['cka'].mean():.6f}, by the formula {exact['cka']:.6f}")
assert len(every) == 720
assert abs(every["cka"].mean() - exact["cka"]) < 1e-12
assert abs((every["gram"] ** 2).mean() - exact["gram squared"]) < 1e-12
assert abs((every["projection"] ** 2).mean() - exact["projection squared"]) < 1e-7
assert (every["procrustes"] ** 2).mean() > exact["procrustes squared at least"] > 0.5
assert abs(every["debiased"].mean()) < 1e-12

# %% [markdown]
# Read the formulas as advice. CKA by chance falls like $1/n$ and counts *participation ratios*; the fidelity
# falls only like $1/\sqrt n$ and counts the *nuclear rank*, the larger number: of all four, the Procrustes
# distance needs the most rows. The Gram distance hardly moves with $n$; what it reports of unrelated
# features is their ranks. And the projection fits everything as soon as $\operatorname{rank}Y = n-1$.
#
# ## The same on random features
#
# Now both sets are drawn anew, teacher 384 wide, student 128, with variances $1/k$, which is about what
# transformers have. Sample participation ratios depend on $n$ too, so the formula is applied with the
# population's: of a normal sample $1/\mathrm{PR}$ grows by about $1/(n-1)$ {cite:p}`murphy2024`, hence
#
# $$
# \mathrm{CKA}_{\text{chance}} \approx \frac1{\sqrt{(1 + n/\mathrm{PR}_X)\,(1 + n/\mathrm{PR}_Y)}} .
# $$ (eq-null-approx)

# %%
curves = null_curves(counts, 384, 128, 1.0, seeds)
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

# %%
with geodistill_style():
    fig, ax = plt.subplots()
    for name, key, label in (
        ("cka", "cka", "CKA (truth 0)"),
        ("debiased", "pca", "CKA, debiased (truth 0)"),
        ("procrustes", "procrustes", "$D_P$ (truth √2)"),
        ("gram", "gram", "$D_{FG}$"),
        ("projection", "projection", "$D_A$ (truth 1)"),
    ):
        style = {"color": look(key).color, "marker": look(key).marker, "label": label}
        ax.plot(counts, mean[name], **style)
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
# Which matters more, the width of the student or the shape of its spectrum? The fidelity that unrelated
# features of 128 rows reach, for widths from 8 to 384 and three spectra:

# %%
widths, exponents = [8, 32, 128, 384], {0.0: "flat", 1.0: "1/k", 2.0: "1/k²"}
by_width = {
    (e, d): null_curves([128], 384, d, e, seeds)["procrustes"] for e in exponents for d in widths
}
chance = {key: 1 - (found**2).mean() / 2 for key, found in by_width.items()}
for e, name in exponents.items():
    print(f"{name:5s}", *(f"d_s = {d}: {chance[e, d]:.2f}" for d in widths), sep="   ")
assert all(chance[e, 384] > chance[e, 8] for e in exponents)
growth = {e: chance[e, 384] - chance[e, 8] for e in exponents}
assert growth[0.0] > growth[1.0] > growth[2.0]

# %% [markdown]
# With a flat spectrum each direction counts; with a steep one only the first few do, and width beyond them
# changes little. It is the effective rank that asks for rows, not the width printed in the model card.
# (A steep spectrum has a chance value of another kind: two features of one direction each have the
# fidelity $|\cos|$ of two random vectors, of order $1/\sqrt n$.)
#
# ## What a small batch does to training
#
# A trained student is no random one. Take a population of 4,096 rows, a teacher, and a student that holds half
# of the teacher's directions with some distortion and noise. Its distance to the teacher on all rows is one
# number; its mean over batches of $n$ is another, and so is its gradient.

# %%
teacher = power_law(4096, 64, 1.0, seed=0)
distorted = teacher[:, :32] * torch.linspace(1.5, 0.3, 32)
student = distorted + 0.3 * power_law(4096, 32, 0.5, seed=3)
batches = [16, 32, 64, 128, 256, 512]
repeats = {"smoke": 32, "laptop": 128, "paper": 512}[profile]
alone = batch_bias(teacher, student, batches, batches=repeats)
print(alone.round(3).to_string(index=False))
assert (alone["loss"] < alone["all"]).all()  # the batch flatters
assert alone["loss"].is_monotonic_increasing
assert alone["size"].iloc[0] > 2 > 1.3 > alone["size"].iloc[-1]  # and pulls too hard
assert alone["cosine"].iloc[0] < alone["cosine"].iloc[-1]

# %% [markdown]
# Two things happen. The batch *loss* is too low, a few times too low at 16 rows, because each batch is turned
# to fit by a map of its own. And the mean *gradient*, over as many batches as you like, is not the gradient
# of the distance on all rows: it is too long, and it points elsewhere. More steps do not average this away.
# (Part of the length is the unit norm: a batch in which the student's noise can be fitted rewards other
# things than the population does.) A learning rate or a loss weight that was tuned at one batch size is
# tuned for that bias.
#
# ### A memory of past batches
#
# The loss is a function of second moments, and moments add. `ProcrustesLoss(memory=0.9)` keeps the decayed sums
# of past batches, so that it sees about $n/(1-0.9) = 10\,n$ rows while the gradient goes through the $n$ of now.

# %%
remembered = batch_bias(teacher, student, batches, memory=0.9, batches=repeats)
print(remembered.round(3).to_string(index=False))
error = {"alone": alone["all"] - alone["loss"], "memory": alone["all"] - remembered["loss"]}
assert (error["memory"].abs() < 0.5 * error["alone"]).all()
assert ((remembered["size"] - 1).abs() < (alone["size"] - 1).abs()).iloc[:4].all()

# %%
with geodistill_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3))
    for found, label, line in ((alone, "batch alone", "-"), (remembered, "memory 0.9", "--")):
        color = look("procrustes").color
        left.errorbar(
            batches, found["loss"], found["sd"], fmt=line, color=color, capsize=2, label=label
        )
        right.plot(batches, found["size"], line, color=color, marker="o", label=label)
    left.axhline(alone["all"][0], color="black", linewidth=0.8, label="all rows")
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
    "memory both are much closer",
    source="live",
)

# %% [markdown]
# What memory mends is the loss and the length of the gradient. The direction of a single step it can't mend: that step
# still goes through $n$ rows, and its noise is as large as before (the `cosine` of the smallest batches, a mean over few
# steps, shows it). And memory has a price which this experiment hides: the student stands still here. In training the past batches
# were made by an older student. A decay is therefore a choice between rows and freshness.
#
# ## The batch you need
#
# Turn {eq}`eq-null-procrustes` around. If unrelated features may reach at most the share $x$ of the fidelity, that is
# if a geometry kept of $x$ shall be tellable from nothing,
#
# $$
# n \ge 1 + \frac{R}{x^2} .
# $$ (eq-rows)
#
# It is a bound, so it never asks for too few rows; the figure says how much it overstates.
# Measure $R$ of your own features with `nuclear_rank`, on any large sample, and read upwards.

# %%
grid = [round(8 * 2 ** (k / 2)) for k in range({"smoke": 15, "laptop": 23, "paper": 25}[profile])]
settings = [(d, e) for d in (8, 32, 128) for e in exponents]
ranks = {(d, e): nuclear_rank(power_law(8192, d, e, seed=5)) for d, e in settings}
needed = pd.DataFrame(
    {"share": x, "rank": ranks[s], "exponent": s[1], "rows": measured_rows_needed(384, *s, x, grid)}
    for x in (0.5, 0.2, 0.1)
    for s in settings
).dropna()
needed["bound"] = [rows_needed(r, x) for r, x in zip(needed["rank"], needed["share"], strict=True)]
ratio = needed["bound"] / needed["rows"]
assert len(needed) >= 10
assert (ratio > 0.95).all()  # one draw each: a bound on the mean
assert (ratio[needed["exponent"] == 0] < 1.4).all()

# %%
with geodistill_style():
    fig, ax = plt.subplots()
    line = np.array([1, 200])
    for x, key in ((0.5, "cka"), (0.2, "gram"), (0.1, "procrustes")):
        ax.plot(line, 1 + line / x**2, color=look(key).color, label=f"bound, x = {x}")
        for (e, name), marker in zip(exponents.items(), "osv", strict=True):
            at = needed[(needed["share"] == x) & (needed["exponent"] == e)]
            label = f"measured, {name}" if x == 0.1 else None
            ax.plot(at["rank"], at["rows"], marker, color=look(key).color, label=label)
    for rows, label in ((32, "32 sentences"), (1280, "32 sentences × 40 tokens")):
        ax.axhline(rows, color="grey", linewidth=0.6, linestyle=":")
        ax.text(1.05, rows * 1.1, label, fontsize="x-small", color="grey")
    ax.set(
        xscale="log", yscale="log", xlabel="nuclear rank R of the features", ylabel="rows needed n"
    )
    ax.legend(fontsize="x-small")
show(
    fig,
    alt="Rows needed against the nuclear rank of the features on logarithmic axes, three lines for chance "
    "shares of one half, one fifth and one tenth, measured points just below their line for flat spectra "
    "and further below for steep ones; 32 sentences lie under nearly all of it",
    source="live",
)
print(f"bound over measured, by spectrum:\n{ratio.groupby(needed['exponent']).median().round(2)}")

# %% [markdown]
# One vector a sentence and a batch of 32 lies below the whole upper part of the figure. Tokens bring a batch to
# a thousand rows and more. (Tokens of one sentence are not independent, so count fewer of them.)
#
# ## What we learn
#
# - By chance CKA is $\sqrt{\mathrm{PR}_X\mathrm{PR}_Y}/(n-1)$, exactly. Debiased CKA is 0. Report the null beside any
#   other score, or use *geometry kept*, which has it built in.
# - Procrustes needs more rows than CKA: its chance falls like $\sqrt{R/n}$.
# - A batch's loss flatters and its gradient is biased. More steps do not help; more rows or `memory=` do.
# - What counts is the effective rank of the features, not their width.
#
# **What would change our mind.** Features for which a measured point lies well above its line in the last figure
# would break the bound; the assert would fail. And all this is about rows that are independent: for the
# tokens of a text the effective number of rows is smaller, by a factor that the figure does not know.
#
# ## Exercises
#
# :::{exercise}
# :label: ex-rows-cka
#
# You are content with CKA and want its chance value below 0.05. Features have $\mathrm{PR} = 20$ and 15. How many rows?
# Check with {eq}`eq-null` on features of flat spectra.
# :::
#
# :::{solution} ex-rows-cka
# :class: dropdown
#
# $\sqrt{20\cdot15}/(n-1) \le 0.05$, so $n \ge 1 + 17.33/0.05$, that is 348 rows. Procrustes at the same share would
# want $1 + 15/0.05^2 = 6{,}001$.
#
# ```python
# import math
#
# from geodistill.experiments.finite_samples import power_law, rows_needed, shuffled_means
#
# n = math.ceil(1 + math.sqrt(20 * 15) / 0.05)
# chance = shuffled_means(power_law(n, 20, 0, seed=0), power_law(n, 15, 0, seed=1))["cka"]
# print(n, chance, rows_needed(15, 0.05))
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
# breaks the repeats and gives a null that is far too low. Shuffle what is independent: sentences, not tokens.
#
# ```python
# import torch
#
# from geodistill.experiments.finite_samples import power_law, shuffled_means, values
#
# x, y = power_law(32, 64, 1, seed=0), power_law(32, 32, 1, seed=1)
# x10, y10 = (f.repeat_interleave(10, dim=0) for f in (x, y))
# assert abs(values(x, y)["cka"] - values(x10, y10)["cka"]) < 1e-9
# assert shuffled_means(x10, y10)["cka"] < 0.2 * shuffled_means(x, y)["cka"]
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
