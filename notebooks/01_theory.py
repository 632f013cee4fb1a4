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
# # Feature geometry: which losses preserve it?
#
# A teacher network turns each sentence into a vector; a smaller student does the same with shorter vectors. Sentences
# that are similar for the teacher should be similar for the student. {cite:t}`bhattarai2025geometry` claim that two
# popular losses, a learned projection and CKA, cannot ensure this "even under zero loss", and that two others, the
# Procrustes distance and the distance of feature Gram matrices, can.

# %% tags=["parameters"]
profile = "laptop"
seed = 0

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import IFrame, Markdown, display
from torch.nn.functional import pad

from geodistill.analysis.figures.style import geodistill_style, method_style
from geodistill.experiments.finite_samples import power_law, unit
from geodistill.geometry import (
    best_student,
    ceiling,
    chance_level,
    cka,
    feature_gram_distance,
    flat_halves,
    from_spectra,
    geometry_kept,
    nuclear_norm,
    participation_ratio,
    procrustes_distance,
    procrustes_parts,
    projection_distance,
    spread_mass,
)
from geodistill.losses import CKALoss, FeatureGramLoss, ProcrustesLoss
from geodistill.publish.claims.ledger import record_verdict
from geodistill.publish.display import show, show_table

torch.manual_seed(seed)
torch.set_default_dtype(torch.float64)
UNIT = {"center": True, "scale": "frobenius"}
CAPTION = "Three students of unit norm compared with their teacher"
n_pairs = {"smoke": 100, "laptop": 1500, "paper": 20000}[profile]

# %% tags=["hide-input"]
small_teacher = unit(torch.randn(200, 8))
stretch = torch.logspace(0, 3, 8).diag()
distorted = geometry_kept(procrustes_distance, small_teacher, small_teacher @ stretch)
x, narrow = spread_mass(n=320, directions=300, lost=0.3, d_teacher=301)
wide = pad(narrow, (0, 300))  # as wide as the teacher
similarity, preserved = float(cka(x, wide)), geometry_kept(procrustes_distance, x, wide)
display(
    Markdown(
        f"**The answer**: a learned projection can be at zero loss with only {100 * distorted:.0f} % of the geometry kept. A CKA "
        f"loss of zero implies equal geometry, but at CKA = {similarity:.4f} as little as {100 * preserved:.0f} % may be kept. A small Procrustes distance ensures a "
        "small Gram distance at every width and rank; the converse does not hold."
    )
)

# %% [markdown]
# **You need** matrix norms, eigenvalues and the singular value decomposition. **Reading time**: 14 minutes; **running
# time**: half a minute, no GPU. **You will learn** what each loss measures and ignores. Each result names its origin:
# the paper, the literature, or ours. Claims are checked by an `assert` beside them; the [appendix](../book/proofs) has
# the proofs and further results.
#
# ## Geometry is the matrix of inner products
#
# Write the teacher's features of $n$ examples as the rows of $X$ ($n \times d_t$), the student's as the rows of $Y$
# ($n \times d_s$).
#
# :::{prf:definition} Feature geometry {cite:p}`bhattarai2025geometry`
# :label: def-geometry
#
# The feature geometry of $X$ is the matrix of all inner products between examples; teacher's and student's are
#
# $$
# K = XX^\top, \qquad L = YY^\top .
# $$ (eq-grams)
# :::
#
# Both are $n \times n$ for any widths. They determine lengths, angles and distances, and nothing else. Here are three
# students of one teacher:

# %%
points = torch.randn(24, 2) * torch.tensor([1.0, 0.4])
teacher = points[points[:, 0].argsort()]
c, s = math.cos(1.2), math.sin(1.2)
students = {
    "rotated": teacher @ torch.tensor([[c, s], [-s, c]]),
    "stretched": teacher @ torch.tensor([1.0, 4.0]).diag(),
    "small direction lost": teacher @ torch.tensor([1.0, 0.0]).diag(),
}
assert torch.allclose(teacher @ teacher.T, students["rotated"] @ students["rotated"].T)

# %% tags=["hide-input"]
with geodistill_style():
    fig, axes = plt.subplots(2, 4, figsize=(5.2, 3.2), layout="constrained")
    for (name, y), (top, bottom) in zip(
        {"teacher": teacher, **students}.items(), axes.T, strict=True
    ):
        y = unit(y)
        top.scatter(*y.T, c=range(24), cmap="viridis", s=10)
        top.set(xlim=(-0.5, 0.5), ylim=(-0.5, 0.5), aspect="equal", xticks=[], yticks=[])
        top.set_title(name.replace(" direction", "\ndirection"), fontsize=10)
        bottom.imshow(y @ y.T, cmap="PuOr", vmin=-0.15, vmax=0.15)
        bottom.set(xticks=[], yticks=[])
        bottom.grid(visible=False)
    axes[0, 0].set_ylabel("vectors")
    axes[1, 0].set_ylabel("inner products")
    fig.suptitle("A rotation changes the vectors, not the geometry")
alt = "Teacher and rotated student have the same matrix of inner products, the two others do not"
caption = (
    "Top: 24 feature vectors in two dimensions, coloured along the teacher's first axis, centred and scaled to the same "
    "total variance. Bottom: their inner products, purple positive and orange negative, rows in the same order."
)
show(fig, alt=alt, caption=caption, source="live", name="three-students")

# %% [markdown]
# ### Four ways to compare
#
# The **Procrustes distance** rotates the student as close to the teacher as possible and measures what is left. The
# best orthogonal map $Q$ is known in closed form {cite:p}`schonemann1966`: with the singular value decomposition
# $Y^\top X = U S V^\top$ it is $Q = UV^\top$, and
#
# $$
# D_P^2 = \min_{Q} \lVert X - YQ\rVert_F^2 = \lVert X\rVert_F^2 + \lVert Y\rVert_F^2 - 2\lVert X^\top Y\rVert_* ,
# $$ (eq-procrustes)
#
# where $\lVert\cdot\rVert_*$, the *nuclear norm*, is the sum of the singular values. (If $d_s \le d_t$, $Q$ has
# orthonormal rows; if $d_s > d_t$, the teacher is padded with zero columns.) The **feature Gram distance** compares the inner products themselves, **CKA**
# {cite:p}`kornblith2019similarity` is the cosine between the two matrices, of centred features, and the **projection
# distance** {cite:p}`romero2015fitnets,sun2019pkd` allows any linear map from the student to the teacher:
#
# $$
# D_{FG} = \lVert K - L\rVert_F , \qquad
# \mathrm{CKA} = \frac{\langle K, L\rangle}{\lVert K\rVert_F\,\lVert L\rVert_F} , \qquad
# D_A = \min_A \lVert X - YA\rVert_F .
# $$ (eq-cka)

# %%
measures = (procrustes_distance, feature_gram_distance, projection_distance, cka)
values = {
    name: {m.__name__: float(m(unit(teacher), unit(y))) for m in measures}
    for name, y in students.items()
}
table = pd.DataFrame(values).T
show_table(table.abs().round(3).reset_index(names="student"), caption=CAPTION, source="live")
assert table.loc["rotated"].round(6).tolist() == [0, 0, 0, 1]  # the same geometry
assert (
    table.loc["stretched", "projection_distance"]
    < 1e-6
    < 0.1
    < table.loc["stretched", "procrustes_distance"]
)
assert table.loc["small direction lost", "cka"] > 0.9

# %% [markdown]
# A stretch is invisible to the projection, and a lost small direction is nearly invisible to CKA. Try it: the page
# computes every number, and tests compare it with the library.

# %% tags=["hide-input"]
title = "Interactive figure: rotate, stretch or drop directions of a student"
IFrame("../_static/geometry.html", "100%", 660, extras=[f'title="{title}" style="border:0"'])

# %% [markdown]
# ## Geometry kept: a score from chance to the best
#
# A student may use a different unit and origin from its teacher's. So from here on the columns are centred and
# $\lVert X\rVert_F = \lVert Y\rVert_F = 1$, the default of every loss in `geodistill.losses`
# ({prf:ref}`prop-assumptions` says what changes otherwise). With the **fidelity** {cite:p}`uhlmann1976`
#
# $$
# F = \lVert X^\top Y\rVert_* \in [0, 1] , \qquad D_P^2 = 2 - 2F ,
# $$ (eq-fidelity)
#
# $D_P$ is the *Bures distance* of $K$ and $L$, which are density matrices of quantum physics
# {cite:p}`harvey2023duality`. With $\lambda$ the eigenvalues of $K$, the **participation ratio** is the effective number
# of directions that carry the variance:
#
# $$
# \mathrm{PR}_X = \frac{1}{\sum_i \lambda_i^2} = \frac{1}{\lVert K\rVert_F^2} .
# $$ (eq-pr)
#
# A narrow student cannot represent everything. Let $\tau = \sum_{i>d_s}\lambda_i$ be the teacher's variance beyond its
# first $d_s$ principal directions.
#
# :::{prf:theorem} Floors (ours; the tools are von Neumann's trace inequality and Cauchy–Schwarz)
# :label: thm-floors
#
# Over all students of width $d_s \le n - 1$,
#
# $$
# D_P^2 \ge 2 - 2\sqrt{1-\tau}, \qquad \mathrm{CKA} \le \sqrt{\frac{\sum_{i\le d_s}\lambda_i^2}{\sum_i\lambda_i^2}}, \qquad
# D_{FG}^2 \ge \frac{\tau^2}{d_s} + \sum_{i>d_s}\lambda_i^2 ,
# $$ (eq-floors)
#
# all attained. Procrustes and CKA have *the same* best student, the teacher's top $d_s$ principal scores
# rescaled to unit norm; the Gram distance prefers the flatter spectrum $\lambda_i + \tau/d_s$.
# :::
#
# A raw distance mixes three effects: what the student failed to learn, what its width cannot represent, and what any
# features share by chance in a small sample ([next chapter](02_finite_samples)). So we report
#
# $$
# \text{geometry kept} = \frac{D_{\text{chance}} - D}{D_{\text{chance}} - D_{\text{ceiling}}} ,
# $$ (eq-kept)
#
# where $D_{\text{ceiling}}$ is the smallest distance that the width allows, the theorem's bound, and
# $D_{\text{chance}}$ the mean distance of that best student with its rows shuffled. Both depend on the teacher and the
# student's width alone, so a collapsed student is not rewarded.

# %%
teacher = unit(power_law(400, 64, 1.0, seed))  # variances 1/k, roughly as in trained networks
lam = torch.linalg.svdvals(teacher) ** 2
rows = []
for d in (4, 8, 16, 32):
    floor, best_cka = ceiling(procrustes_distance, teacher, d), ceiling(cka, teacher, d)
    chance = chance_level(procrustes_distance, teacher, d)
    rows.append({"width": d, "best D_P": floor, "D_P by chance": chance, "best CKA": best_cka})
    assert abs(floor**2 - (2 - 2 * (1 - lam[d:].sum()).sqrt())) < 1e-9
    assert abs(best_cka**2 - lam[:d].square().sum() / lam.square().sum()) < 1e-9
show_table(
    pd.DataFrame(rows).round(3), caption="What a width allows: 400 rows, 64 wide", source="live"
)
assert torch.equal(best_student(cka, teacher, 16), best_student(procrustes_distance, teacher, 16))
assert abs(geometry_kept(procrustes_distance, teacher, torch.randn(400, 64))) < 0.1

# %% [markdown]
# ## Result 1: three losses are zero at equal geometry, the projection is not
#
# :::{prf:theorem} Zero sets
# :label: thm-zero-sets
#
# For centred features of unit Frobenius norm these are equivalent: $D_P = 0$; $D_{FG} = 0$; $K = L$;
# $\mathrm{CKA} = 1$. (The first three are the paper's second claim {cite:p}`bhattarai2025geometry`; the last is a
# remark of ours.)
# :::
#
# So "even under zero loss" is true of the projection, which is zero for any injective linear distortion of the teacher
# ({prf:ref}`prop-projection-zero`; {prf:ref}`thm-projection` bounds what a map of given condition number loses). It is
# not true of CKA, which can fail only *near* 1. Here is a teacher whose directions are stretched by factors
# from 1 to 1000.

# %%
student = small_teacher @ torch.logspace(0, 3, 8).diag()
projection = float(projection_distance(small_teacher, student))
distorted = geometry_kept(procrustes_distance, small_teacher, student)
print(f"projection distance {projection:.1e}, CKA {cka(small_teacher, student):.2f}")
print(f"geometry kept {distorted:.2f}")
assert projection < 1e-5
assert distorted < 0.5

# %% [markdown]
# ## Result 2: CKA can be near 1 with the geometry lost
#
# Let the teacher's $K$ have the eigenvalue $1-\tau$ and, on $m$ further directions, $\tau/m$ each; the student has the
# first direction only.
#
# :::{prf:theorem} Spread mass (ours, after the paper's Theorem 1)
# :label: thm-spread-mass
#
# $$
# \mathrm{CKA} = \frac{1-\tau}{\sqrt{(1-\tau)^2 + \tau^2/m}} \xrightarrow[m\to\infty]{} 1, \qquad D_P = \sqrt{2 - 2\sqrt{1-\tau}} ,
# $$ (eq-spread-mass)
#
# the second for every $m$. Hence for every $D < \sqrt 2$ and $\varepsilon > 0$ there are features with $D_P = D$ and
# $\mathrm{CKA} \ge 1 - \varepsilon$. They need $1 + m \le \min(d_t, n - 1)$.
# :::
#
# The paper's own example, two antiparallel directions with some vectors moved, is of this kind
# ({prf:ref}`prop-antiparallel`).

# %%
tau = 0.3
directions = [1, 3, 10, 30, 100, 300]
examples = [spread_mass(n=320, directions=m, lost=tau, d_teacher=310) for m in directions]
curves = {
    "cka": np.array([1 - float(cka(x, y)) for x, y in examples]),
    "procrustes": np.array([float(procrustes_distance(x, y, **UNIT)) for x, y in examples]),
}
q = tau**2 / (1 - tau) ** 2 / np.array(directions)
assert np.allclose(curves["cka"], 1 - 1 / np.sqrt(1 + q), atol=1e-9)
assert np.ptp(curves["procrustes"]) < 1e-9
assert curves["cka"][-1] < 1e-3

# %% tags=["hide-input"]
with geodistill_style():
    fig, ax = plt.subplots()
    for name, label in (("cka", "1 − CKA"), ("procrustes", "Procrustes distance")):
        style = method_style(name)
        ax.loglog(directions, curves[name], color=style.color, marker=style.marker, label=label)
    ax.set(xlabel="directions m that share the lost variance", ylabel="value")
    share = curves["cka"][0] / curves["cka"][-1]
    ax.set_title(f"Lost variance spread over 300 directions\ncosts CKA {share:.0f} times less")
    ax.legend()
caption = f"Exact values for 320 examples; a share τ = {tau} of the teacher's variance is lost at every m."
alt = "1 − CKA falls as 1/m, the Procrustes distance stays constant"
show(fig, alt=alt, caption=caption, source="live")

# %% [markdown]
# A fair objection: for a student of width 1 *no* loss could preserve the other directions. So give the student the
# teacher's width. It could then be perfect, but CKA hardly requires this.

# %%
x, narrow = spread_mass(n=320, directions=300, lost=tau, d_teacher=301)
wide = pad(narrow, (0, 300))
preserved = geometry_kept(procrustes_distance, x, wide)
print(f"CKA {cka(x, wide):.5f}, geometry kept {preserved:.2f}")
assert ceiling(procrustes_distance, x, 301) < 1e-6  # the width allows a perfect student
assert cka(x, wide) > 0.999
assert preserved < 0.75

# %% tags=["hide-input"]
shown = {True: "holds", False: "does not hold"}
unit_of_value, verdict = "of the geometry kept", shown[projection < 1e-5 and distorted < 0.5]
detail = "learned projection, student to teacher, at zero loss"
record_verdict("C1", verdict, distorted, unit=unit_of_value, detail=detail)
verdict = shown[bool(cka(x, wide) > 0.999 and preserved < 0.75)]
unit_of_value += f" at 1 − CKA = {float(1 - cka(x, wide)):.4f}"
record_verdict("C1", verdict, preserved, unit=unit_of_value, detail="CKA, near zero loss")

# %% [markdown]
# ## Result 3: Procrustes bounds Gram; the converse grows with the rank
#
# A loss is never exactly zero. If one distance is small, how small must the other be? Let
# $r = \operatorname{rank}(K - L) \le \min(n-1,\, d_s+d_t)$.
#
# :::{prf:theorem} Two-sided bounds
# :label: thm-bounds
#
# $$
# D_P^2 \;\le\; \lVert K - L\rVert_* \;\le\; \sqrt r\, D_{FG}, \qquad D_{FG} \;\le\; D_P\sqrt{2 - D_P^2/2} .
# $$ (eq-bounds)
#
# (Literature: the first inequality is Powers and Størmer's {cite:p}`powers1970`, in this form Fuchs and van de Graaf's
# {cite:p}`fuchs1999`; the last rests on "super-fidelity is at least fidelity squared" {cite:p}`miszczak2009`. Ours:
# their use for distillation, as far as we know, and the equality cases of {prf:ref}`prop-equality`.)
# :::
#
# CKA obeys $D_P^4 \le 2\min(n-1,\, d_s+d_t)\,\kappa\ell\,(1-\mathrm{CKA})$ with $\kappa = \lVert K\rVert_F$ and
# $\ell = \lVert L\rVert_F$ ({prf:ref}`prop-cka-bound`): the constant grows with the rank too. We test random pairs of
# many sizes, ranks and distances.


# %% tags=["hide-input"]
def random_pair(i: int) -> tuple[torch.Tensor, torch.Tensor]:
    n, d_t, d_s = torch.randint(2, 30, (3,)).tolist()
    decay = [torch.arange(1, d + 1) ** (-2 * torch.rand(())) for d in (d_t, d_s)]
    x, noise = (torch.randn(n + 1, len(sd)) * sd for sd in decay)
    near = pad(x[:, :d_s], (0, max(0, d_s - d_t)))
    return unit(x), unit(torch.lerp(noise, near, float(torch.rand(())) if i % 2 else 0.0))


# %%
pairs = [random_pair(i) for i in range(n_pairs)]
rank = np.array([min(len(x) - 1, x.shape[1] + y.shape[1]) for x, y in pairs])
squared = np.array([float(procrustes_distance(x, y, form="squared")) for x, y in pairs])
gram = np.array([float(feature_gram_distance(x, y)) for x, y in pairs])
sizes = np.array([float((x @ x.T).norm() * (y @ y.T).norm()) for x, y in pairs])
similarity = np.array([float(cka(x, y)) for x, y in pairs])
upper, gram_bound = np.sqrt(rank) * gram, np.sqrt(squared * (2 - squared / 2))
by_cka = np.sqrt(2 * rank * sizes * (1 - similarity).clip(0))
assert (squared <= upper + 1e-7).all()
assert (gram <= gram_bound + 1e-7).all()
assert (squared <= by_cka + 1e-6).all()  # so at zero CKA loss the geometries are equal
assert squared.min() < 0.05 < 1 < squared.max()  # close and distant pairs were tested

# %% tags=["hide-input"]
halves = [flat_halves(256, h) for h in (1, 2, 4, 8, 16, 32, 64, 120)]
path = np.array([(procrustes_distance(*h) ** 2, feature_gram_distance(*h)) for h in halves])
curve = np.linspace(0, 1.9, 200)
with geodistill_style():
    fig, ax = plt.subplots()
    ax.scatter(squared, gram, s=5, alpha=0.4, color="0.4", label="random pairs")
    ax.plot(curve, np.sqrt(curve * (2 - curve / 2)), color="black", label="upper bound")
    style = method_style("gram")
    ax.plot(*path.T, ":", color=style.color, marker=style.marker, label="half of variance lost")
    ax.set(xlabel="squared Procrustes distance", ylabel="Gram distance", ylim=(0, 1.5))
    ax.set_title("A small $D_P$ ensures a small $D_{FG}$, not the converse")
    ax.legend()
caption = (
    f"{n_pairs} random pairs of centred, unit-norm features. Dotted: the teacher is flat on 2h directions, the student "
    "on half of them, from h = 1 (top) to 120."
)
alt = "Random pairs lie below the upper bound; pairs that lose half of the variance approach Gram distance 0"
show(fig, alt=alt, caption=caption, source="live")

# %% [markdown]
# The upper bound is the same for every dimension. The converse needs the factor $\sqrt r$, and the dotted pairs show
# why: half of the variance is lost at every point, while $D_{FG} = 1/\sqrt{2h}$ falls ({prf:ref}`prop-flat-halves`).
# The Gram distance shares CKA's weakness, and adds a comparison of effective ranks:
#
# :::{prf:proposition} The Gram loss is CKA plus a match of effective rank (ours)
# :label: prop-gram-identity
#
# With $\kappa = \lVert K\rVert_F = \mathrm{PR}_X^{-1/2}$ and $\ell = \lVert L\rVert_F = \mathrm{PR}_Y^{-1/2}$,
#
# $$
# D_{FG}^2 = \frac{1}{\mathrm{PR}_X} + \frac{1}{\mathrm{PR}_Y}
#          - \frac{2\,\mathrm{CKA}}{\sqrt{\mathrm{PR}_X\,\mathrm{PR}_Y}} = (\kappa - \ell)^2 + 2\kappa\ell\,(1 - \mathrm{CKA}) .
# $$ (eq-gram-identity)
#
# Hence $1 - \mathrm{CKA} \le D_{FG}^2/(2\kappa\ell)$, with equality exactly where the participation ratios agree.
# :::

# %%
for (x, y), distance in zip(halves, path[:, 1], strict=True):
    pr_x, pr_y = participation_ratio(x), participation_ratio(y)
    identity = 1 / pr_x + 1 / pr_y - 2 * cka(x, y) / (pr_x * pr_y).sqrt()
    assert abs(distance**2 - identity) < 1e-9
    assert 1 - cka(x, y) <= distance**2 * (pr_x * pr_y).sqrt() / 2 + 1e-9
print(
    f"Gram distance {path[0, 1]:.3f} to {path[-1, 1]:.3f}, squared Procrustes distance {path[0, 0]:.3f} throughout"
)
assert np.ptp(path[:, 0]) < 1e-9

# %% tags=["hide-input"]
originals = [unit(torch.randn(20, 6)) for _ in range(50)]
copies = [(x, pad(x, (0, 3)) @ torch.linalg.qr(torch.randn(9, 9))[0]) for x in originals]
zeros = max(float(m(a, b)) for a, b in copies for m in (procrustes_distance, feature_gram_distance))
same_zeros = zeros < 1e-6 < min(np.sqrt(squared.min()), gram.min())
assert same_zeros
verdict = shown[bool(same_zeros)]  # the bounds are asserted above
unit_of_share = f"of its upper bound at most, over {n_pairs} random pairs"
shares = {"Procrustes by Gram": squared / upper, "Gram by Procrustes": gram / gram_bound}
for detail, share in shares.items():
    record_verdict("C2", verdict, float(share.max()), unit=unit_of_share, detail=detail)
verdict, note = shown[bool((squared > by_cka + 1e-6).any())], "there the geometries are equal"
record_verdict("C1", verdict, detail="CKA, at zero loss", note=note)

# %% [markdown]
# ## Result 4: of the three, only Procrustes pulls on every direction equally
#
# CKA and Procrustes have the same best student, but how strong is the pull towards it? Let a student as wide as the
# teacher have the teacher's principal directions, with singular values $t_i + \delta_i$ in place of
# $t_i = \sqrt{\lambda_i}$. If $\sum_i t_i\delta_i = \sum_i t_i^3\delta_i = 0$, the gradient along direction $i$ is linear in
# $\delta_i$, with the coefficient
#
# $$
# 2 \;\text{for}\; D_P^2, \qquad 8\lambda_i \;\text{for}\; D_{FG}^2, \qquad 4\lambda_i\mathrm{PR}_X \;\text{for}\; 1 - \mathrm{CKA},
# $$ (eq-rates)
#
# and Procrustes has a gradient of size $2t_i$ along a direction that the student lacks, while that of the others
# vanishes. ({prf:ref}`thm-gradients` has all gradients, other $\delta$, and narrower students. It is known that CKA weighs directions by their
# squared variance {cite:p}`cloos2024differentiable`; the rates and missing directions are ours.)


# %% tags=["hide-input"]
def pull(loss: torch.nn.Module, student: torch.Tensor) -> torch.Tensor:
    """The gradient along each of the teacher's directions."""
    y = student.clone().requires_grad_()
    return (basis.T @ torch.autograd.grad(loss(y, basis * t), y)[0]).diagonal()


# %%
t = torch.tensor([0.6, 0.3, 0.09, 0.01]).sqrt()  # the teacher's singular values
basis = from_spectra(12, [1.0] * 4, [1.0]).teacher  # centred and orthonormal
delta = 1e-6 * torch.linalg.qr(torch.stack([t, t**3, t**0], 1))[0][:, 2]  # both sums are 0
lacking = unit(basis * torch.cat([t[:3], torch.tensor([1e-3])]))  # hardly has the last direction
losses = (ProcrustesLoss(), FeatureGramLoss(), CKALoss())
rates = [pull(loss, basis * (t + delta)) / delta for loss in losses]
force = [abs(float(pull(loss, lacking)[3])) for loss in losses]
for loss, rate, f in zip(losses, rates, force, strict=True):
    print(f"{type(loss).__name__:16s} rates {rate.numpy().round(3)}, force {f:.5f}")
expected = (2 * t**0, 8 * t**2, 4 * t**2 / (t**4).sum())
assert all(torch.allclose(*pair, rtol=1e-3) for pair in zip(rates, expected, strict=True))
assert abs(force[0] - 2 * t[3]) < 0.01
assert max(force[1:]) < 0.01 * force[0]

# %% [markdown]
# Near the optimum, Procrustes is as well conditioned as a loss can be; under gradient descent, Gram and CKA take
# $\lambda_1/\lambda_i$ times longer for direction $i$. [The synthetic chapter](03_synthetic) shows this in training.
#
# ## Result 5: Procrustes has two parts, and controls
#
# :::{prf:proposition} Spectrum and alignment (ours; the tool is von Neumann's trace inequality)
# :label: prop-parts
#
# $F \le F_{\text{spec}} = \sum_i \sigma_i(X)\,\sigma_i(Y)$, so both parts are $\ge 0$ in
#
# $$
# D_P^2 = \underbrace{(2 - 2F_{\text{spec}})}_{\text{spectrum}} + \underbrace{2\,(F_{\text{spec}} - F)}_{\text{alignment}} .
# $$ (eq-parts)
#
# The first is zero exactly where the spectra agree, and is the minimum of $D_P^2$ over all orthogonal maps of
# example space, $Y \mapsto RY$.
# :::
#
# The *spectrum* part is invariant to row permutation; the *alignment* part asks whether the same rows carry the
# variance. That gives three controls: `SpectrumLoss`, the first part alone; `ShuffledRows`, the loss with the teacher's
# rows in a new random order at each step; and `IsotropyLoss`, a flat spectrum without a teacher. The last two are
# closely related: over all orders $P$ of the rows
#
# $$
# \mathbb E\, D_P^2(PX, Y) \ge 2 - 2\,\frac{\lVert Y\rVert_*}{\sqrt{n-1}}
# $$ (eq-shuffled)
#
# ({prf:ref}`thm-null`), which does not depend on the teacher and is lower for a *flatter* spectrum of the student.

# %%
student = teacher[:, :32] + 0.002 * torch.randn(400, 32)
ordered = procrustes_parts(teacher, student)
shuffled = procrustes_parts(teacher, student[torch.randperm(400)])
for name, parts in (("in order", ordered), ("shuffled", shuffled)):
    print(f"rows {name}: spectrum {parts[0]:.3f}, alignment {parts[1]:.3f}")
assert abs(ordered[0] - shuffled[0]) < 1e-9
assert shuffled[1] > 2 * ordered[1]
orders = [torch.randperm(400) for _ in range(50)]
for name, y in (("the teacher's", teacher), ("flat", unit(torch.linalg.qr(teacher)[0]))):
    bound = 2 - 2 * float(nuclear_norm(y)) / math.sqrt(399)
    mean = np.mean([float(procrustes_distance(teacher[o], y, form="squared")) for o in orders])
    print(f"spectrum {name}: {mean:.3f} over shuffled rows, bound {bound:.3f}")
    assert mean >= bound

# %% [markdown]
# A gain shared by a control is not due to the alignment of rows. [BERT](04_bert_classification) and
# [OPT](05_opt_instruction) students are trained with all three.
#
# ## Does geometry matter for a task?
#
# $D_P^2$ is the mean squared error of a random linear readout imitated on the best-rotated student, relative to the
# readout's variance, if the student is no wider than the teacher ({prf:ref}`thm-readout`, after
# {cite:t}`harvey2024metrics`). It can exceed 1, because the student is not rescaled. A score can also be low while the
# function is intact: one row that moves to infinity is enough {cite:p}`davari2022` ({prf:ref}`prop-outlier`), so look
# for tokens with huge activations first.
#
# ## What we learn

# %% tags=["hide-input"]
weaker = float(rates[1][0] / rates[1][3])
display(
    Markdown(
        f"- Equal geometry is the common zero of Procrustes, Gram and CKA. The projection's zero set is larger: "
        f"{100 * distorted:.0f} % kept at zero loss.\n"
        f"- Near zero, CKA and Gram tolerate a loss of variance that is spread over many directions: {100 * tau:.0f} % of "
        f"it, over {directions[-1]}, takes CKA from 1 to {1 - curves['cka'][-1]:.4f} and the Procrustes distance from 0 to "
        f"{curves['procrustes'][-1]:.2f}.\n"
        f"- Near the optimum Procrustes pulls on all of a student's directions equally. For the same deviation, "
        f"the gradient of Gram and CKA is {weaker:.0f} times smaller on one with {100 * float(t[3]) ** 2:.0f} % of the variance than on one with "
        f"{100 * float(t[0]) ** 2:.0f} %.\n"
        f"- Report *geometry kept*: it corrects for width and sample size. At width {d} the Procrustes distance lies "
        f"between {floor:.2f}, the best, and {chance:.2f}, by chance.\n"
        f"- Only the alignment part of Procrustes uses the pairing of rows: shuffling them left the spectrum part at "
        f"{float(shuffled[0]):.2f} and took the alignment part from {float(ordered[1]):.2f} to "
        f"{float(shuffled[1]):.2f}. Run the controls."
    )
)

# %% [markdown]
# **What would change our mind.** A pair outside {eq}`eq-bounds` would refute the theorems. No theorem says that
# preserving geometry helps a task: {prf:ref}`thm-readout` bounds linear readouts of one layer. Chapters 4 and 5 measure
# the effect.
#
# ## Exercises
#
# :::{exercise}
# :label: ex-theory-scale
#
# Drop the unit norm: let $Y = cX$. What are $D_P$, $D_{FG}$, $\mathrm{CKA}$ and $D_A$ as functions of $c$?
# :::
#
# :::{solution} ex-theory-scale
# :class: dropdown
#
# $D_P = \bigl|1-|c|\bigr|\,\lVert X\rVert_F$, since the nuclear norm of $cX^\top X$ is $|c|\lVert X\rVert_F^2$;
# $D_{FG} = |1-c^2|\,\lVert XX^\top\rVert_F$; $\mathrm{CKA} = 1$ and $D_A = 0$ for every $c \ne 0$. For
# $c = -1$ the Procrustes distance is zero: $-I$ is orthogonal.
#
# ```python
# import torch
# from geodistill.geometry import cka, feature_gram_distance, procrustes_distance, projection_distance
#
# X = torch.randn(9, 4, dtype=torch.float64)
# for c in (-1.0, 0.5, 3.0):
#     assert abs(procrustes_distance(X, c * X) - abs(1 - abs(c)) * X.norm()) < 1e-6
#     assert abs(feature_gram_distance(X, c * X) - abs(1 - c**2) * (X @ X.T).norm()) < 1e-6
#     assert abs(cka(X, c * X) - 1) < 1e-9
#     assert projection_distance(X, c * X) < 1e-6
# ```
# :::
#
# :::{exercise}
# :label: ex-theory-two-spreads
#
# In {prf:ref}`thm-spread-mass` only the teacher spreads its variance. Let both do: each has $1-a$ on a common first
# direction, and spreads $a$ over $m/2$ directions that the other lacks. Is $1 - \mathrm{CKA}$ at a given $D_P$ larger
# than before?
# :::
#
# :::{solution} ex-theory-two-spreads
# :class: dropdown
#
# Smaller. $F = 1-a$ and, for large $m$, $1 - \mathrm{CKA} \approx \frac2m\bigl(\frac{1-F}{F}\bigr)^2$. With one spread,
# $\tau = 1-F^2$ gives $\frac1{2m}\bigl(\frac{1-F^2}{F^2}\bigr)^2$, which is larger by the factor
# $\bigl(\frac{1+F}{2F}\bigr)^2 \ge 1$. Variance on directions that the teacher lacks hides the loss from CKA even better.
#
# ```python
# from geodistill.geometry import cka, from_spectra, procrustes_distance
#
# a, m = 0.2, 100
# tail, none = [2 * a / m] * (m // 2), [0.0] * (m // 2)
# both = from_spectra(m + 2, [1 - a, *tail, *none], [1 - a, *none, *tail])
# tau = 1 - (1 - a) ** 2
# one = from_spectra(m + 2, [1 - tau, *[tau / m] * m], [1.0])
# assert abs(procrustes_distance(*both) - procrustes_distance(*one)) < 1e-9
# assert 1 - cka(*both) < 0.9 * (1 - cka(*one))
# ```
# :::
#
# :::{exercise}
# :label: ex-theory-null
#
# A colleague takes the chance level of {eq}`eq-kept` from the *student*: its distance after its rows are shuffled.
# Which students score too high?
# :::
#
# :::{solution} ex-theory-null
# :class: dropdown
#
# Collapsed students. The fewer directions a student uses, the less it can share with the teacher by chance, so its
# chance level is larger and the same distance looks better. Here 16 dimensions have collapsed to one.
#
# ```python
# import torch
# from geodistill.geometry import best_student, ceiling, geometry_kept, procrustes_distance
#
# torch.manual_seed(0)
# unit = {"center": True, "scale": "frobenius"}
# x = torch.randn(400, 64, dtype=torch.float64) / torch.arange(1, 65) ** 0.5
# y = torch.nn.functional.pad(best_student(procrustes_distance, x, 1), (0, 15))
# shuffled = [procrustes_distance(x, y[torch.randperm(400)], **unit) for _ in range(16)]
# chance, best = sum(shuffled) / 16, ceiling(procrustes_distance, x, 16)
# biased = (chance - procrustes_distance(x, y, **unit)) / (chance - best)
# preserved = geometry_kept(procrustes_distance, x, y)
# assert preserved + 0.03 < biased
# ```
# :::
