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
# **You need** chapter 1. **Time**: 13 minutes to read, a minute to run, no GPU. **You will learn** the chance
# value of each measure, exactly for three of them; what a small batch does to the loss and to its gradient; what
# `decay=` corrects; and how large a batch you need.
#
# That similarity scores grow by chance is known {cite:p}`murphy2024,groger2026`, and so is how slowly estimates of the
# Procrustes distance converge {cite:p}`pospisil2024`. The exact mean of CKA is known too,
# for the RV coefficient, as statisticians have called it for longer {cite:p}`kaziaoual1995,josse2008`. The bound for
# the Procrustes distance is ours.

# %% tags=["parameters"]
profile = "laptop"
seed = 0

# %% tags=["hide-input"]
from functools import partial
from itertools import permutations

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
from geodistill.geometry import geometry_kept, permutation_test, procrustes_distance
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
    ax.set(xscale="log", xlabel="rows n", ylabel="value")
    ax.set_title("By chance CKA falls fast, the Procrustes distance rises slowly")
    ax.legend(fontsize="small", ncols=2)
caption = f"Independent features of widths 384 and 128; mean ± sd of {len(seeds)} draws."
alt = "CKA falls along its predicted curve, the Procrustes and the projection distance rise slowly"
show(fig, alt=alt, caption=caption, source="live")

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
# **Train with `ProcrustesLoss(decay=0.9)`**, or 0.97 where a batch has fewer rows than half the student's columns:
# without it, small batches make a well-trained student worse.
#
# A batch is fitted by its own rotation. So its distance is too low, and its mean *gradient*, over any number of
# batches, is not that of the distance on all rows. We try three corrections on a mild student, with distorted
# directions, and a well-trained one, which is nearly right:
#
# - `decay=`: moments are additive, so the loss keeps decayed sums of past batches and sees about $n/(1-0.9) = 10\,n$
#   rows, or $33\,n$ with 0.97, while the gradient flows through the $n$ of the batch;
# - *cross-fitting*: the best rotation of one half of the batch, the distance of the other half;
# - the *jackknife*: twice the distance of the batch minus the mean distance of its halves, so that a bias $b/n$ cancels.

# %%
teacher, noise = power_law(4096, 64, 1.0, seed=0), power_law(4096, 32, 0.5, seed=3)
well_trained = teacher[:, :32] + 0.1 * noise
mild = teacher[:, :32] * torch.linspace(1.5, 0.3, 32) + 0.3 * noise
batches, repeats = [16, 64, 256], {"smoke": 32, "laptop": 48, "paper": 512}[profile]
table = (
    pd.concat(
        batch_bias(teacher, features, batches, estimator, batches=repeats).assign(
            student=label, by=name
        )
        for label, features in (("mild", mild), ("well trained", well_trained))
        for name, estimator in ESTIMATORS.items()
    )
    .set_index(["student", "by", "n"])
    .sort_index()
)
print("Cosine of mean and true gradient; sd of a batch's gradient over the true length")
print(table[["cosine", "noise"]].unstack().round(2))
assert table["gradient_ratio"]["mild", "batch alone", 16] > 2
assert table["cosine"]["mild", "batch alone", 16] > 0.8
assert table["cosine"]["well trained", "batch alone", 16] < -0.5  # a step against the gradient

# %%
at_start = table["full_loss"]["well trained"].iloc[0]
trained = pd.DataFrame(index=batches)
for name, estimator in ESTIMATORS.items():
    trained[name] = [loss_after_training(teacher, well_trained, n, estimator) for n in batches]
print(f"Distance on all rows, {at_start:.4f} before training; after it", trained.round(4), sep="\n")
decayed = trained[["decay 0.9", "decay 0.97"]].max(axis=1)
assert decayed[16] < at_start + 0.002 < at_start + 0.005 < trained["batch alone"][16]
assert (decayed < trained["jackknife"] + 1e-4).all()
assert (trained["cross-fitted halves"] > trained["batch alone"]).all()
smallest = trained.loc[16]
display(
    Markdown(
        f"{smallest['decay 0.9']:.3f} instead of {smallest['batch alone']:.3f}: that is where 100 steps on "
        "batches of 16 rows leave the well-trained student with and without `decay=0.9`. Before them its "
        f"distance was {at_start:.3f}."
    )
)

# %% tags=["hide-input"]
with geodistill_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    for name, line in zip(ESTIMATORS, ("o-", "s-", "s--", "^:", "v-."), strict=True):
        rows = table.loc["well trained", name]
        left.errorbar(batches, rows["loss"], rows["sd"], fmt=line, capsize=2)
        right.plot(batches, trained[name], line, label=name)
    for ax in (left, right):
        ax.axhline(at_start, color="black", linewidth=0.8)
        ax.set_xscale("log", base=2)
        ax.set(xlabel="rows in a batch", xticks=batches, xticklabels=batches)
    left.set_title("in a batch", fontsize="medium")
    right.set_title("on all rows, after 100 steps", fontsize="medium")
    left.set_ylabel("$D_P^2$")
    right.set_ylim(0.168, 0.18)
    right.legend(fontsize="x-small")
    fig.suptitle("Only with decay are small batches near the distance on all rows")
alt = "Only with decay is the distance near that on all rows, in a batch and after training"
caption = (
    "The well-trained student; mean ± sd of batches; the line is its distance on all rows. "
    "Cross-fitted halves of few rows lie above the right panel."
)
show(fig, alt=alt, caption=caption, source="live")

# %% [markdown]
# The mean gradient of small batches is too long for the mild student, and points away from the true one for the
# well-trained student: what is left to learn is less than what a batch fits by chance. More steps do not help.
# Cross-fitting errs to the other side, and further: for many rows its bias is $2b/n$ where a batch's is $-b/n$, since
# its rotation has half of them. The jackknife needs no past, but several times more rows than columns. Nothing that
# sees one batch alone matches `decay=`. Its price: gradients are up to twice as noisy, and the past batches were made
# by an older student, so do not raise the decay further than the rows require.
#
# ## The batch you need
#
# Solve {eq}`eq-null-procrustes` for $n$. Unrelated features have at most the fidelity $x$ on average if
#
# $$
# n \ge 1 + \frac{R}{x^2} .
# $$ (eq-rows)
#
# It is a bound, so it never asks for too few rows; the figure shows by how much it exceeds the measured number. Measure
# $R$ of your features with `nuclear_rank`, on any large sample. It says how much of a score is chance, not whether a
# pair is above chance: chance values vary little, so `permutation_test` finds a student that has kept a small share of
# the geometry with a fraction of these rows (last cell).

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
        ax.text(200, 0.85 * rows, label, fontsize="x-small", color="grey", ha="right", va="top")
    ax.set(
        xscale="log", yscale="log", xlabel="nuclear rank R of the features", ylabel="rows needed n"
    )
    ax.set_title("32 sentences with one vector each are too few")
    ax.legend(fontsize="x-small")
alt = "Measured points lie just below their line for flat spectra, further below for steep ones"
show(fig, alt=alt, caption="One draw of features per point; x is the fidelity.", source="live")
print(f"bound over measured, by spectrum:\n{ratio.groupby(needed['exponent']).median().round(2)}")

# %% [markdown]
# For a low chance value a batch of 32 sentences with one vector each has too few rows at nearly every rank shown. With one vector per
# token a batch has a thousand rows or more. (Tokens of one sentence are not independent, so they count as fewer.)

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
# {cite:p}`xiao2024,sun2024massive`. These rows have almost all of the variance, so that a measure of inner products
# compares little else: two layers look the same because their outliers agree, or different because only one has them.
# `diagnose` finds such rows, farther than five median distances from the centre of the bulk. `inlier_mask` gives the
# rows to keep, the same for both sides; in training `FeatureTerm(drop_outliers=True)` leaves the others out. Below are
# inner layers of SmolLM2, a decoder of 30 blocks, on sentences of newspaper editorials.

# %% tags=["hide-input"]
import warnings

from geodistill.experiments.instruction.models import load_teacher
from geodistill.geometry import diagnose, inlier_mask
from geodistill.losses import ProcrustesLoss
from geodistill.tasks import load_classification

warnings.filterwarnings("ignore", message="ProcrustesLoss: ")  # of the rows that are shown here
decoder, tokenizer = load_teacher("smollm2", adapter="")
decoder.cpu()
texts = load_classification("news").test["sentence"][:40]
with torch.no_grad():
    hidden = [
        decoder(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        for text in texts
    ]
layers = [torch.cat([states[0] for states in layer]) for layer in zip(*hidden, strict=True)]

# %%
compared = {"smoke": [16, 28], "laptop": [4, 8, 10, 12, 16, 20, 24, 28, 30]}.get(
    profile, range(2, 31)
)
squared = partial(procrustes_distance, **UNIT, form="squared")
with_all = {k: float(squared(layers[16], layers[k])) for k in compared}
without = {
    k: float(squared(layers[16], layers[k], mask=inlier_mask(layers[16], layers[k])))
    for k in compared
}
print(diagnose(layers[16]))
for k in compared:
    print(f"layers 16 and {k}: {with_all[k]:.4f} with all rows, {without[k]:.3f} without outliers")

# %% [markdown]
# Such spectra are also hard for arithmetic. All directions have the same weight in the gradient of the Procrustes loss,
# and in float32 the small ones are lost in the rounding error of the large one. `ProcrustesLoss` computes in float64
# from float32 features.


# %%
def plain_loss(student, teacher):
    """The Procrustes loss in the precision of its input."""
    y, x = (f - f.mean(0) for f in (student, teacher))
    return 2 - 2 * torch.linalg.matrix_norm(y.T @ x / (y.norm() * x.norm()), "nuc")


def gradient(loss, student, teacher):
    student = student.clone().requires_grad_()
    return torch.autograd.grad(loss(student, teacher), student)[0].double()


errors = {"plain float32": [], "ProcrustesLoss": []}
for k in compared:
    exact = gradient(plain_loss, layers[k - 1].double(), layers[k].double())
    for name, loss in (("plain float32", plain_loss), ("ProcrustesLoss", ProcrustesLoss())):
        error = gradient(loss, layers[k - 1], layers[k]) - exact
        errors[name].append(float(error.norm() / exact.norm()))
assert with_all[28] < 0.01 < 0.3 < without[28]
assert max(errors["ProcrustesLoss"]) < 1e-4 < 0.1 < max(errors["plain float32"])
largest = {name: max(values) for name, values in errors.items()}
display(
    Markdown(
        f"By plain float32 operations the gradient is off by up to {largest['plain float32']:.2f} of its "
        f"norm, by `ProcrustesLoss` by {largest['ProcrustesLoss']:.0e}."
    )
)

# %% tags=["hide-input"]
with geodistill_style():
    fig, (left, right) = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    color = method_style("procrustes").color
    left.plot(compared, with_all.values(), "--", color="black", marker="o", label="all rows")
    left.plot(compared, without.values(), color=color, marker="o", label="without outliers")
    left.set(xlabel="layer of SmolLM2", ylabel="$D_P^2$ to layer 16")
    left.set_title("Outliers hide how layers differ", fontsize="medium")
    for name, line in (("plain float32", "--"), ("ProcrustesLoss", "-")):
        shade = "black" if line == "--" else color
        right.plot(compared, errors[name], line, color=shade, marker="o", label=name)
    right.set(yscale="log", xlabel="teacher layer k (student k − 1)")
    right.set_ylabel("error of the gradient")
    right.set_title("Steep spectra need float64", fontsize="medium")
    for ax in (left, right):
        ax.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    left.legend(fontsize="small", loc=(0.36, 0.8))
    right.legend(fontsize="small", loc=(0.42, 0.45))
alt = "With all rows layers 12 to 28 look the same; without outliers the distance grows with depth"
caption = f"{len(layers[0])} tokens of {len(texts)} texts; error relative to the norm of the float64 gradient."
show(fig, alt=alt, caption=caption, source="live")

# %% [markdown]
# ## What we learn
#
# - By chance CKA is $\sqrt{\mathrm{PR}_X\mathrm{PR}_Y}/(n-1)$, exactly. Debiased CKA is 0. Report the chance level with
#   any other score, or use *geometry kept*, which includes it.
# - Procrustes needs more rows than CKA: its fidelity by chance falls as $\sqrt{R/n}$.
# - The loss of a batch is too low and its gradient biased. More steps do not help; more rows or `decay=` do.
# - What matters is the effective rank of the features, not their width.
# - Look for outlier rows before you compare inner layers of decoders (`diagnose`), and leave them out.
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
