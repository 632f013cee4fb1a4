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
# # Finite samples: how many rows does geometry need?
#
# A batch of 32 sentences gives 32 vectors in a space of 384 dimensions. Any two such clouds can be rotated close to each
# other, even if they are unrelated. So a loss on a small batch is low in part by chance.

# %% tags=["parameters"]
profile = "laptop"
seed = 0

# %% tags=["hide-input"]
import warnings
from functools import partial
from itertools import permutations, product

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

from geodistill.analysis.figures.style import geodistill_style, method_style
from geodistill.experiments.finite_samples import (
    ESTIMATORS,
    UNIT,
    all_measures,
    batch_bias,
    chance_curves,
    loss_after_training,
    measured_sample_size,
    nuclear_rank,
    permutation_means,
    power_law,
    sample_size_for,
)
from geodistill.experiments.instruction.models import load_teacher
from geodistill.geometry import (
    diagnose,
    geometry_kept,
    inlier_mask,
    permutation_test,
    procrustes_distance,
)
from geodistill.losses import ProcrustesLoss
from geodistill.publish.display import show, show_table
from geodistill.tasks import load_classification

warnings.filterwarnings("ignore", message="ProcrustesLoss: ")  # of the outliers shown below
torch.manual_seed(seed)
seeds = range({"smoke": 3, "laptop": 10, "paper": 50}[profile])

# %% tags=["hide-input"]
by_chance = chance_curves([32], 384, 128, 1.0, seeds)
display(
    Markdown(
        "**The rule**: to keep the similarity (fidelity) of unrelated features below $x$, use $n \\ge 1 + R/x^2$ rows, "
        "with $R$ the *nuclear rank* of the features. 32 sentences with one vector each are too few: unrelated "
        f"features of widths 384 and 128 have a fidelity of {1 - (by_chance['procrustes'] ** 2).mean() / 2:.2f} and a "
        f"CKA of {by_chance['cka'].mean():.2f} there. If batches can't grow, train with `ProcrustesLoss(decay=0.9)`."
    )
)

# %% [markdown]
# **You need** [the theory chapter](01_theory). **Reading time**: 12 minutes; **running time**: a minute, no GPU. **You
# will learn** the chance value of each measure, what a small batch does to the loss and to its gradient, what `decay=`
# corrects, and which rows to leave out.
#
# It is known that chance inflates similarity scores {cite:p}`murphy2024,groger2026` and that estimates of the
# Procrustes distance converge slowly {cite:p}`pospisil2024`. The exact mean of CKA has long been known as the mean of
# the RV coefficient {cite:p}`kaziaoual1995,josse2008`. The bound for the Procrustes distance is ours.
#
# ## Shuffle the rows, and average
#
# What is "by chance"? Keep both sets of features and break only the pairing: put the student's rows in a random order.
# The means over all orders have a closed form ([proofs](../book/proofs)).
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
# exactly 0. (CKA: the literature, as cited above. Gram, projection and Procrustes: ours.)
# :::
#
# The *nuclear rank* of $X$, $\lVert X\rVert_*^2$, is another effective rank: 1 for a single direction, $d$ for a flat spectrum
# of $d$ directions, never below the participation ratio. $R$ is the smaller of the two sides'. Six rows have 720 orders, few enough to try them all:

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
# $1/\sqrt n$ and depends on the *nuclear rank*, which is at least the participation ratio of the same features. So
# Procrustes usually needs more rows than CKA. The Gram distance hardly depends on $n$; for unrelated features it
# measures their ranks. The projection depends on the full rank, and fits everything once $\operatorname{rank}Y = n-1$.
#
# ## The same on random features
#
# Now both sets are random, the teacher 384 wide, the student 128, with variances $1/k$, roughly those of transformers.
# In a normal sample $1/\mathrm{PR}$ is too large by about $1/(n-1)$ {cite:p}`murphy2024`, so population ratios predict
#
# $$
# \mathrm{CKA}_{\text{chance}} \approx \frac1{\sqrt{(1 + n/\mathrm{PR}_X)\,(1 + n/\mathrm{PR}_Y)}} .
# $$ (eq-null-approx)

# %%
counts = [8, 16, 32, 64, 128, 512, 2048]
curves = chance_curves(counts, 384, 128, 1.0, seeds)
mean, sd = (getattr(curves.groupby("n"), how)() for how in ("mean", "std"))
k_t, k_s = (1 / np.arange(1, d + 1) for d in (384, 128))
pr_t, pr_s = (k.sum() ** 2 / (k**2).sum() for k in (k_t, k_s))
n = np.array(counts)
predicted = 1 / np.sqrt((1 + n / pr_t) * (1 + n / pr_s))
assert np.abs(mean["cka"] / predicted - 1).max() < 0.1
assert mean["debiased"].abs()[mean.index >= 32].max() < 0.05
assert (mean["procrustes"].diff().dropna() > 0).all()
assert 0.3 < mean["cka"][32] < 0.5
assert 0.5 < mean["procrustes"][32] < 0.7

# %% tags=["hide-input"]
with geodistill_style():
    fig, ax = plt.subplots(figsize=(5.2, 4.2))
    for name, label in (
        ("procrustes", "$D_P$ (truth √2)"),
        ("gram", "$D_{FG}$"),
        ("projection", "$D_A$ (truth 1)"),
        ("cka", "CKA (truth 0)"),
    ):
        style = method_style(name)
        low, high = mean[name] - sd[name], mean[name] + sd[name]
        ax.plot(counts, mean[name], color=style.color, marker=style.marker, label=label)
        ax.fill_between(counts, low, high, alpha=0.2, color=style.color)
    ax.plot(counts, predicted, ":", color="black", label="CKA, predicted")
    color = method_style("cka").color
    ax.plot(counts, mean["debiased"], "--", color=color, marker="x", label="CKA, debiased")
    ax.set(xscale="log", xlabel="rows n", ylabel="value of unrelated features")
    ax.set_title(
        f"With 32 rows, unrelated features have\nCKA {mean['cka'][32]:.2f} and a Procrustes distance of {mean['procrustes'][32]:.2f}"
    )
    fig.legend(loc="outside lower center", ncols=2)
caption = (
    f"Independent features of widths 384 and 128, variances 1/k; mean ± sd of {len(seeds)} draws."
)
alt = "CKA falls along its predicted curve; the Procrustes and the projection distance rise slowly to their true values"
show(fig, alt=alt, caption=caption, source="live", name="chance-values")

# %% [markdown]
# Which matters more, the width of the student or its spectrum? Here is the fidelity of unrelated features with 128
# rows:

# %%
widths, exponents = [8, 32, 128, 384], {0.0: "flat", 1.0: "1/k", 2.0: "1/k²"}
chance = {
    name: [
        1 - (chance_curves([128], 384, d, e, seeds)["procrustes"] ** 2).mean() / 2 for d in widths
    ]
    for e, name in exponents.items()
}
table = pd.DataFrame(chance, index=widths).round(2).rename_axis("width").reset_index()
show_table(table, caption="Fidelity by chance, by width and variances", source="live")
growth = {name: values[-1] - values[0] for name, values in chance.items()}
assert growth["flat"] > growth["1/k"] > growth["1/k²"] > 0

# %% [markdown]
# With a flat spectrum every direction counts; with a steep one only the first few do. The rows needed depend on the
# effective rank, not on the width in the model card.
#
# ## What a small batch does to training
#
# Each batch is fitted by its own rotation. So its distance is too low, and its mean *gradient*, over any number of
# batches, differs from the gradient on all rows. We take a well-trained student and try three corrections:
#
# - `decay=`: moments are additive, so the loss keeps decayed sums of past batches and sees about $n/(1-0.9) = 10\,n$
#   rows, or $33\,n$ with 0.97, while the gradient flows through the $n$ of the batch;
# - *cross-fitting*: the best rotation of one half of the batch, the distance of the other half;
# - the *jackknife*: twice the distance of the batch minus the mean distance of its halves, so that a bias $b/n$ cancels.

# %%
teacher, noise = power_law(4096, 64, 1.0, seed=0), power_law(4096, 32, 0.5, seed=3)
student = teacher[:, :32] + 0.1 * noise
sizes, repeats = [16, 64, 256], {"smoke": 32, "laptop": 48, "paper": 512}[profile]
gradients = {
    name: batch_bias(teacher, student, sizes, estimator, batches=repeats).set_index("n")
    for name, estimator in ESTIMATORS.items()
}
cosines = pd.DataFrame({name: rows["cosine"] for name, rows in gradients.items()})
caption = "Cosine of the mean gradient of batches of n rows and the gradient on all rows"
show_table(cosines.round(2).reset_index(), caption=caption, source="live")
assert cosines["batch alone"][16] < -0.5  # a step against the gradient
assert cosines["decay 0.97"][16] > 0.2

# %%
at_start = float(ProcrustesLoss()(student, teacher))
trained = pd.DataFrame(index=sizes)
for name, estimator in ESTIMATORS.items():
    trained[name] = [loss_after_training(teacher, student, n, estimator) for n in sizes]
decayed = trained[["decay 0.9", "decay 0.97"]].max(axis=1)
assert decayed[16] < at_start + 0.002 < at_start + 0.005 < trained["batch alone"][16]
assert (decayed < trained["jackknife"] + 1e-4).all()
assert (trained["cross-fitted halves"] > trained["batch alone"]).all()

# %% tags=["hide-input"]
lines = {"batch alone": "o-", "decay 0.9": "s-", "decay 0.97": "s--", "jackknife": "v:"}
with geodistill_style():
    fig, ax = plt.subplots()
    for name, line in lines.items():
        color = {"j": "0.6", "d": method_style("procrustes").color}.get(name[0], "black")
        ax.plot(sizes, trained[name], line, color=color, label=name)
    ax.axhline(at_start, color="black", linewidth=0.8)
    ax.text(16, at_start - 0.0002, "before training", va="top")
    ax.set_xscale("log", base=2)
    ax.set(xlabel="rows in a batch", xticks=sizes, xticklabels=sizes, ylim=(0.1675, 0.178))
    ax.set_ylabel("$D_P^2$ on all rows")
    ax.set_title("Without decay, small batches make a good student worse")
    ax.legend()
alt = "After training on batches of 16 rows the distance has risen, except with decay"
halves = trained["cross-fitted halves"]
caption = (
    f"Squared distance of one student on 4,096 rows after 100 steps of Adam; {at_start:.3f} before. Batches of 16: "
    f"{trained['batch alone'][16]:.3f} without decay, {trained['decay 0.9'][16]:.3f} with 0.9, and {halves[16]:.3f} with "
    "cross-fitted halves, not shown."
)
show(fig, alt=alt, caption=caption, source="live", name="after-training")

# %% [markdown]
# Near convergence, the remaining error is smaller than what a small batch can fit by chance, so the mean gradient of small batches points away from
# the true one, and more steps do not help. Cross-fitting errs in the other direction, and by more, since its rotation
# is fitted to half of the rows. The jackknife needs several times more rows than columns. No method that sees only one
# batch matches `decay=`. Its price is noisier gradients, and past batches from an older student. Take 0.9, or 0.97 if a
# batch has fewer rows than half the student's columns; larger values add noise. (Two
# [earlier sections](07_earlier_studies), `memory` and `batch-memory`, trained BERT students with it; the two studies
# use none.)
#
# ## The batch you need
#
# Solve {eq}`eq-null-procrustes` for $n$. Unrelated features have at most the fidelity $x$ on average if
#
# $$
# n \ge 1 + \frac{R}{x^2} .
# $$ (eq-rows)
#
# On average the bound never asks for too few rows; the figure shows by how much it exceeds the measured number. Measure $R$ of
# your features with `nuclear_rank` of `geodistill.experiments.finite_samples`, on any large sample.

# %%
grid = [round(8 * 2 ** (k / 2)) for k in range({"smoke": 15, "laptop": 23, "paper": 25}[profile])]
needed = []
for d, e, x in product((8, 32, 128), exponents, (0.5, 0.2, 0.1)):
    rank = nuclear_rank(power_law(8192, d, e, seed=5))
    measured = measured_sample_size(384, d, e, x, grid)
    needed.append((x, e, rank, measured, sample_size_for(rank, x)))
needed = pd.DataFrame(needed, columns=["fidelity", "exponent", "rank", "rows", "bound"]).dropna()
ratio = needed["bound"] / needed["rows"]
assert len(needed) >= 10
assert (ratio > 0.95).all()  # one draw each: a bound on the mean
assert (ratio[needed["exponent"] == 0] < 1.4).all()

# %% tags=["hide-input"]
with geodistill_style():
    fig, ax = plt.subplots(figsize=(5.2, 4))
    line = np.array([1, 200])
    for x, color in ((0.5, "0.6"), (0.2, "0.4"), (0.1, "0")):
        ax.plot(line, 1 + line / x**2, color=color)
        ax.text(210, 200 / x**2, f"x = {x}", color=color, va="center")
        for (e, name), marker in zip(exponents.items(), "osv", strict=True):
            at = needed[(needed["fidelity"] == x) & (needed["exponent"] == e)]
            label = f"variances {name}" if x == 0.1 else None
            ax.plot(at["rank"], at["rows"], marker, color=color, label=label)
    for rows, at, label in ((32, "right", "32 sentences"), (1280, "left", "32 × 40 tokens")):
        ax.axhline(rows, color="#0072B2", linewidth=1, linestyle=":")
        ax.text(420 if at == "right" else 1, 1.08 * rows, label, color="#0072B2", ha=at)
    ax.set(xscale="log", yscale="log", xlabel="nuclear rank R of the features", xlim=(0.9, 450))
    ax.set_ylabel("rows needed n")
    ax.set_title("32 sentences with one vector each are too few")
    ax.legend(loc="lower right")
caption = (
    f"Lines: the bound for fidelity x. Points: {len(needed)} measured numbers, one draw of features each. The bound "
    f"exceeds them by a factor of {ratio.median():.1f} in the median."
)
alt = "Measured points lie just below their line for flat spectra, further below for steep ones"
show(fig, alt=alt, caption=caption, source="live", name="rows-needed")

# %% [markdown]
# With one vector per token a batch has a thousand rows or more. (Tokens of one sentence are not independent, so they
# count as fewer.) The rule says how much of a score is due to chance, not whether a pair is above chance: chance values
# vary little, so with far fewer rows `permutation_test` detects a student that has kept a small share of the geometry.

# %%
student = power_law(4096, 32, 1.0, seed=1) + 0.25 * teacher[:, :32]
share = geometry_kept(procrustes_distance, teacher, student)
required = sample_size_for(min(nuclear_rank(teacher), nuclear_rank(student)), share)
test = partial(permutation_test, partial(procrustes_distance, **UNIT), permutations=99)
samples = torch.randint(len(teacher), (20, 128), generator=torch.Generator().manual_seed(seed))
power = np.mean([test(teacher[rows], student[rows]).p <= 0.05 for rows in samples])
print(f"geometry kept {share:.3f}: {required} rows by the bound, power {power:.2f} with 128")
assert required > 5 * 128
assert power > 0.8

# %% [markdown]
# ## When a few rows dominate
#
# Decoders give the first token of a text, and few others, hidden states of a hundred times the usual norm
# {cite:p}`xiao2024,sun2024massive`. These rows have almost all of the variance, so two layers look the same because
# their outliers agree, or different because only one has them. `diagnose` finds such rows, `inlier_mask` gives the rows
# to keep, and in training `FeatureTerm(drop_outliers=True)` leaves the others out. Below are inner layers of SmolLM2, a
# decoder of 30 blocks, on sentences of newspaper editorials.

# %% tags=["hide-input"]
decoder, tokenizer = load_teacher("smollm2", adapter="")
decoder.cpu()
texts = load_classification("news").test["sentence"][:40]
with torch.no_grad():
    hidden = [
        decoder(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        for text in texts
    ]
layers = [torch.cat([states[0] for states in layer]) for layer in zip(*hidden, strict=True)]
shown = {"smoke": [16, 28], "laptop": [4, 8, 10, 12, 16, 20, 24, 28, 30]}.get(profile, range(2, 31))

# %%
squared = partial(procrustes_distance, **UNIT, form="squared")
with_all = {k: float(squared(layers[16], layers[k])) for k in shown}
without = {
    k: float(squared(layers[16], layers[k], mask=inlier_mask(layers[16], layers[k]))) for k in shown
}
print(diagnose(layers[16]))
assert with_all[28] < 0.01 < 0.3 < without[28]

# %% [markdown]
# Such spectra are also hard for arithmetic: all directions have the same weight in the gradient of the Procrustes loss,
# and in float32 the small ones are lost in the rounding error of the large one. `ProcrustesLoss` computes in float64
# from float32 features.


# %% tags=["hide-input"]
def plain_loss(student, teacher):
    """The Procrustes loss in the precision of its input."""
    y, x = (f - f.mean(0) for f in (student, teacher))
    return 2 - 2 * torch.linalg.matrix_norm(y.T @ x / (y.norm() * x.norm()), "nuc")


def gradient(loss, student, teacher):
    student = student.clone().requires_grad_()
    return torch.autograd.grad(loss(student, teacher), student)[0].double()


# %%
errors = {"plain float32": [], "ProcrustesLoss": []}
for k in shown:
    exact = gradient(plain_loss, layers[k - 1].double(), layers[k].double())
    for name, loss in (("plain float32", plain_loss), ("ProcrustesLoss", ProcrustesLoss())):
        error = gradient(loss, layers[k - 1], layers[k]) - exact
        errors[name].append(float(error.norm() / exact.norm()))
assert max(errors["ProcrustesLoss"]) < 1e-4 < 0.1 < max(errors["plain float32"])

# %% tags=["hide-input"]
with geodistill_style():
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(5.2, 5), sharex=True)
    color = method_style("procrustes").color
    top.plot(shown, with_all.values(), "--", color="black", marker="o", label="all rows")
    top.plot(shown, without.values(), color=color, marker="o", label="without outliers")
    top.set_ylabel("$D_P^2$ to layer 16")
    worst = max(errors["plain float32"])
    top.set_title(
        f"Outliers make layer 28 look like layer 16: {with_all[28]:.3f}, not {without[28]:.2f}"
    )
    for (name, values), line, shade in zip(
        errors.items(), ("--", "-"), ("black", color), strict=True
    ):
        bottom.plot(shown, values, line, color=shade, marker="o", label=name)
    bottom.set(yscale="log", xlabel="layer k of SmolLM2", ylabel="error of the gradient")
    bottom.set_title(f"In float32 the gradient is off by up to {100 * worst:.0f} %")
    bottom.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    top.legend(loc=(0.33, 0.72))
    bottom.legend(loc=(0.42, 0.36))
alt = "With all rows layers 12 to 28 look the same; without outliers the distance grows with depth"
caption = (
    f"{len(layers[0])} tokens of {len(texts)} texts. Bottom: layer k as teacher, k − 1 as student; error relative to "
    "the norm of the float64 gradient."
)
show(fig, alt=alt, caption=caption, source="live", name="outliers")

# %% [markdown]
# ## What we learn

# %% tags=["hide-input"]
fidelity = 1 - mean["procrustes"] ** 2 / 2
display(
    Markdown(
        "- The mean of CKA by chance is exactly $\\sqrt{\\mathrm{PR}_X\\mathrm{PR}_Y}/(n-1)$, here "
        f"{mean['cka'][32]:.2f} with 32 rows; for debiased CKA it is 0. Report the chance level with any other score, or "
        "use *geometry kept*, which includes it.\n"
        "- Procrustes needs more rows than CKA: its fidelity by chance falls only as $\\sqrt{R/n}$, here to "
        f"{fidelity[128]:.2f} with 128 rows, where CKA is {mean['cka'][128]:.2f}.\n"
        "- The loss of a batch is too low and its gradient biased. More rows or `decay=` help, more steps do not: trained "
        f"on batches of 16 rows, a student of squared distance {at_start:.3f} moves to "
        f"{trained['batch alone'][16]:.3f}, with `decay=0.9` to {trained['decay 0.9'][16]:.3f}.\n"
        "- The rows needed depend on the effective rank of the features, not on their width: between widths of "
        f"{widths[0]} and {widths[-1]} the fidelity of 128 rows grows by {growth['flat']:.2f} for a flat spectrum and by "
        f"{growth['1/k²']:.2f} for one that falls as 1/k².\n"
        "- Look for outlier rows before you compare inner layers of decoders (`diagnose`), and leave them out: the squared "
        f"distance of layers 16 and 28 is {with_all[28]:.3f} with them and {without[28]:.2f} without."
    )
)

# %% [markdown]
# **What would change our mind.** A measured point well above its line in the figure of rows needed would violate the
# bound, and the assert would fail. All this holds for independent rows: for the tokens of a text, the effective number
# of rows is smaller, by a factor that the figure does not include.
#
# ## Exercises
#
# :::{exercise}
# :label: ex-rows-cka
#
# You use CKA and want its chance value below 0.05. The features have $\mathrm{PR} = 20$ and 15. How many rows do you
# need? Check with {eq}`eq-null` on features with flat spectra.
# :::
#
# :::{solution} ex-rows-cka
# :class: dropdown
#
# $\sqrt{20\cdot15}/(n-1) \le 0.05$, so $n \ge 1 + 17.33/0.05$, that is 348 rows. The bound for Procrustes at the same
# fidelity is $1 + 15/0.05^2 = 6{,}001$.
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
