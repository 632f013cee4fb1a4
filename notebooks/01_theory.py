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
# # What does it mean to preserve the geometry?
#
# A teacher network turns each sentence into a vector of its hidden width; a smaller student does the same with
# shorter vectors. Sentences that are similar for the teacher should be similar for the student. Several losses
# promise that. Bhattarai and colleagues {cite:p}`bhattarai2025geometry` claim that two popular ones, a learned
# projection and CKA, cannot capture it "even under zero loss", as their abstract has it, and that two others, the
# Procrustes distance and the distance of feature Gram matrices, can. Is that true, and by how much?
#
# **You need** matrix norms, eigenvalues and the singular value decomposition. **Time**: 20 minutes to read, seconds
# to run, no GPU. **You will learn** what each loss measures and ignores, and why "CKA = 0.99" says little by itself.
# Each result names its origin: the paper, the literature, or ours. Each claim is checked by an `assert` in the next
# cell. The [appendix](../book/proofs) has the proofs, further results, and a table of all.

# %% tags=["parameters"]
profile = "laptop"
seed = 0

# %% tags=["hide-input"]
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.functional import normalize, pad

from geodistill.analysis.figures.style import geodistill_style, method_style
from geodistill.experiments.finite_samples import unit
from geodistill.geometry import (
    antiparallel,
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
from geodistill.publish.display import show

torch.manual_seed(seed)
torch.set_default_dtype(torch.float64)
UNIT = {"center": True, "scale": "frobenius"}
pairs = {"smoke": 100, "laptop": 1500, "paper": 20000}[profile]

# %% [markdown]
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
# Both are $n \times n$ for any widths. They determine lengths, angles and distances of the feature vectors, and
# nothing else: a rotation of all vectors leaves $K$ unchanged. The student below has the same three vectors as the
# teacher, rotated, with one dimension fewer.

# %%
X = torch.tensor([[2.0, 0, 0], [0, 1, 0], [1, 1, 0]])
rotation = torch.tensor([[0.0, 1], [-1, 0]])
Y = X[:, :2] @ rotation
print(X @ X.T)
assert torch.allclose(X @ X.T, Y @ Y.T)

# %% [markdown]
# ### Four ways to compare
#
# The **Procrustes distance** rotates the student as close to the teacher as possible and measures what is left. The
# best rotation $Q$ is known in closed form {cite:p}`schonemann1966`: with the singular value decomposition
# $Y^\top X = U S V^\top$ it is $Q = UV^\top$, and
#
# $$
# D_P^2 = \min_{Q} \lVert X - YQ\rVert_F^2 = \lVert X\rVert_F^2 + \lVert Y\rVert_F^2 - 2\lVert X^\top Y\rVert_* ,
# $$ (eq-procrustes)
#
# where the minimum is over matrices with orthonormal rows and $\lVert\cdot\rVert_*$, the *nuclear norm*, is the sum of
# the singular values. (If $d_s > d_t$, the teacher is padded with zero columns.) The **feature Gram distance**
# compares the inner products themselves,
#
# $$
# D_{FG} = \lVert K - L\rVert_F .
# $$ (eq-gram)
#
# **CKA** {cite:p}`kornblith2019similarity` is the cosine between the two matrices, of centred features,
#
# $$
# \mathrm{CKA} = \frac{\langle K, L\rangle}{\lVert K\rVert_F\,\lVert L\rVert_F} ,
# $$ (eq-cka)
#
# and the **projection distance** allows any linear map, not only a rotation, from the student to the teacher
# {cite:p}`romero2015fitnets,sun2019pkd`:
#
# $$
# D_A = \min_A \lVert X - YA\rVert_F .
# $$ (eq-projection)

# %%
for measure in (procrustes_distance, feature_gram_distance, projection_distance, cka):
    print(f"{measure.__name__:24s}{measure(X, Y):.6f}")
    assert abs(measure(X, Y) - int(measure is cka)) < 1e-6  # the same geometry

# %% [markdown]
# ### Density matrices
#
# A student may use another unit and another origin than its teacher. So from here on the columns are centred and
# $\lVert X\rVert_F = \lVert Y\rVert_F = 1$ (`center=True, scale="frobenius"`, the default of every loss in
# `geodistill.losses`). Then $K$ and $L$ are symmetric, have no negative eigenvalue, and have trace 1: *density
# matrices*, for which physicists have studied distances for fifty years. With the **fidelity** {cite:p}`uhlmann1976`
#
# $$
# F = \lVert X^\top Y\rVert_* \in [0, 1] , \qquad D_P^2 = 2 - 2F ,
# $$ (eq-fidelity)
#
# $D_P$ is the *Bures distance* of $K$ and $L$ {cite:p}`harvey2023duality`. The **participation ratio** is the effective
# number of directions that carry the variance: with $\lambda$ the eigenvalues of $K$,
#
# $$
# \mathrm{PR}_X = \frac{1}{\sum_i \lambda_i^2} = \frac{1}{\lVert K\rVert_F^2} .
# $$ (eq-pr)
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
#
# The cell computes $F$ as Uhlmann wrote it too, $\operatorname{tr}\sqrt{\sqrt K L \sqrt K}$, from the eigenvalues of $KL$.

# %%
x, y = unit(torch.randn(12, 5)), unit(torch.randn(12, 3))
K, L = x @ x.T, y @ y.T
kappa, ell = K.norm(), L.norm()
fidelity = nuclear_norm(x.T @ y)
uhlmann = torch.linalg.eigvals(K @ L).real.clamp_min(0).sqrt().sum()
print(f"fidelity from features {fidelity:.8f}, from density matrices {uhlmann:.8f}")
assert abs(fidelity - uhlmann) < 1e-6
assert abs(procrustes_distance(x, y, form="squared") - (2 - 2 * fidelity)) < 1e-9
pr = participation_ratio(x), participation_ratio(y)
identity = 1 / pr[0] + 1 / pr[1] - 2 * cka(x, y) / (pr[0] * pr[1]).sqrt()
print(f"D_FG² {feature_gram_distance(x, y) ** 2:.10f}, by the identity {identity:.10f}")
assert abs(feature_gram_distance(x, y) ** 2 - identity) < 1e-10
assert abs((kappa - ell) ** 2 + 2 * kappa * ell * (1 - cka(x, y)) - identity) < 1e-10
assert 1 - cka(x, y) <= feature_gram_distance(x, y) ** 2 / (2 * kappa * ell) + 1e-12

# %% [markdown]
# ## When is each one zero?
#
# :::{prf:theorem} Zero sets
# :label: thm-zero-sets
#
# For centred features of unit Frobenius norm these are equivalent: $D_P = 0$; $D_{FG} = 0$; $K = L$;
# $\mathrm{CKA} = 1$. (The first three are the paper's second claim {cite:p}`bhattarai2025geometry`; the last is a
# remark of ours.)
# :::
#
# So "even under zero loss" is true of the projection, whose distance is zero for any injective linear distortion of the
# teacher and, in the other direction, for a student that has collapsed to $Y = 0$ ({prf:ref}`prop-projection-zero`).
# It is not true of CKA: at zero loss the geometries are equal, up to one common factor without unit norm. Whatever
# goes wrong with CKA goes wrong *near* 1.
#
# The cell stretches the teacher's directions by factors from 1 to 1000. *Geometry kept* is 1 for the best student of
# this width and 0 for that student with its rows shuffled ({eq}`eq-kept`). The projection distance is zero up to
# rounding, and yet most of the geometry is lost: this half of the paper's first claim holds by construction.

# %%
teacher = unit(torch.randn(200, 8))
student = teacher @ torch.logspace(0, 3, 8).diag()
projection = float(projection_distance(teacher, student))
distorted = geometry_kept(procrustes_distance, teacher, student)
print(f"projection distance, student → teacher   {projection:.1e}")
print(f"geometry kept (Procrustes)               {distorted:.2f}")
print(f"CKA                                      {cka(teacher, student):.2f}")
assert projection < 1e-5
assert distorted < 0.5
assert projection_distance(teacher, 0 * student, direction="to_student") == 0

# %% [markdown]
# ### How much a projection may distort
#
# :::{prf:theorem} The price of a linear map (Kantorovich's inequality {cite:p}`kantorovich1948`; its use here: ours)
# :label: thm-projection
#
# If $Y = XA$ with an injective $A$ ($d_t \times d_s$, $d_s \ge d_t$) of condition number $c$, the ratio of its largest
# to its smallest singular value, then
#
# $$
# D_P^2 \le \frac{2\,(\sqrt c - 1)^2}{c + 1} ,
# $$ (eq-condition)
#
# and for each $c$ some teacher attains it.
# :::
#
# At $c = 1$, a map with orthonormal rows, nothing is lost: that is what an orthogonal projection
# {cite:p}`miles2024vkd` ensures, and what the Procrustes distance has built in. For a narrow student even the best
# projection leaves the spectrum free ({prf:ref}`prop-best-projection`).

# %%
for c in (1.0, 4.0, 100.0):
    x = from_spectra(9, [c / (1 + c), 1 / (1 + c)], [1.0]).teacher
    d2 = procrustes_distance(x, x @ torch.tensor([1.0, c]).diag(), form="squared", **UNIT)
    print(f"condition number {c:5.0f}: D_P² {d2:.4f}")
    assert abs(d2 - 2 * (math.sqrt(c) - 1) ** 2 / (c + 1)) < 1e-9
for _ in range(50):
    a, x = torch.randn(6, 6), unit(torch.randn(30, 6) * torch.rand(6))
    c = torch.linalg.cond(a)
    d2 = procrustes_distance(x, x @ a, form="squared", **UNIT)
    assert d2 <= 2 * (c.sqrt() - 1) ** 2 / (c + 1) + 1e-9

# %% [markdown]
# ## CKA near 1 with the geometry lost
#
# Theorem 1 of the paper describes this example {cite:p}`bhattarai2025geometry`: $n$ teacher vectors lie in two
# antiparallel directions. Some of them are perturbed, each along a direction orthogonal to everything else. The
# student keeps the unperturbed arrangement. The two differ clearly: in the teacher the perturbed vectors are $45°$
# away from the others on their side, and $60°$ from one another.
#
# As $n$ grows, CKA tends to 1 while $D_P$ keeps its value ({prf:ref}`prop-antiparallel` gives both in closed form).

# %%
for n in (16, 64, 256):
    x, y = antiparallel(n, d_teacher=n, d_student=4, perturbed=n // 2)
    distance, similarity = procrustes_distance(x, y, **UNIT), cka(x, y)
    print(f"n = {n:3d}: CKA {similarity:.5f}, D_P {distance:.3f}")
perturbed = normalize(x[:4:2], dim=1)
assert similarity > 0.999
assert distance > 0.5
assert abs(perturbed[0] @ perturbed[1] - math.cos(math.pi / 3)) < 1e-9

# %% [markdown]
# The general statement is about spectra. Let the teacher's $K$ have the eigenvalue $1-\tau$ and, on $m$ further
# directions, $\tau/m$ each; the student has the first direction only.
#
# :::{prf:theorem} Spread mass (ours, after the paper's Theorem 1)
# :label: thm-spread-mass
#
# $$
# \mathrm{CKA} = \frac{1-\tau}{\sqrt{(1-\tau)^2 + \tau^2/m}} \xrightarrow[m\to\infty]{} 1, \qquad D_P = \sqrt{2 - 2\sqrt{1-\tau}} ,
# $$ (eq-spread-mass)
#
# the second for every $m$. Hence for every $D < \sqrt 2$ and $\varepsilon > 0$ there are features with $D_P = D$ and
# $\mathrm{CKA} \ge 1 - \varepsilon$. They need $1 + m \le \min(d_t, n - 1)$. It is sharp ({prf:ref}`prop-sharp`).
# :::

# %%
tau = 0.3
directions = [1, 3, 10, 30, 100, 300]
examples = [spread_mass(n=320, directions=m, lost=tau, d_teacher=310) for m in directions]
curves = {
    "cka": np.array([1 - float(cka(x, y)) for x, y in examples]),
    "procrustes": np.array([float(procrustes_distance(x, y, **UNIT)) for x, y in examples]),
}
for m, value in zip(directions, curves["cka"], strict=True):
    assert abs(1 - value - (1 - tau) / math.sqrt((1 - tau) ** 2 + tau**2 / m)) < 1e-9
assert np.ptp(curves["procrustes"]) < 1e-9
assert curves["cka"][-1] < 1e-3

# %% tags=["hide-input"]
with geodistill_style():
    fig, ax = plt.subplots()
    for name, label in (("cka", "1 − CKA"), ("procrustes", "Procrustes distance")):
        style = method_style(name)
        ax.loglog(directions, curves[name], color=style.color, marker=style.marker, label=label)
    ax.set(xlabel="directions m that share the lost variance", ylabel="value")
    ax.set_title("CKA overlooks lost variance once it is spread, Procrustes does not")
    ax.legend()
caption = f"Exact values; a share τ = {tau} of the teacher's variance is lost at every m."
alt = "1 − CKA falls as 1/m, the Procrustes distance stays constant"
show(fig, alt=alt, caption=caption, source="live")

# %% [markdown]
# A fair objection: for a student of width 1 *no* loss could preserve the other directions. So give the student width
# $d_s = 1 + m$; it could be perfect, and CKA hardly requires it.

# %%
x, y = spread_mass(n=320, directions=300, lost=tau, d_teacher=301)
wide = pad(y, (0, 300))
preserved = geometry_kept(procrustes_distance, x, wide)
reachable = ceiling(procrustes_distance, x, 301)
print(f"best D_P {reachable:.1e}; CKA {cka(x, wide):.5f}; geometry kept {preserved:.2f}")
assert reachable < 1e-6
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
# ## Inequalities both ways
#
# Equal zeros speak of one point only, and a loss is never exactly zero. If one distance is small, how small must the
# other be? Let $r = \operatorname{rank}(K - L) \le \min(n-1,\, d_s+d_t)$.
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
# A small $1 - \mathrm{CKA}$ bounds the geometry too, with a constant that grows with the rank: $D_P^4 \le
# 2\min(n-1,\, d_s+d_t)\,\kappa\ell\,(1-\mathrm{CKA})$ ({prf:ref}`prop-cka-bound`). The cell tests the bounds on random
# pairs of many sizes, ranks and distances.


# %%
def random_pair(i: int) -> tuple[torch.Tensor, torch.Tensor]:
    n, d_t, d_s = torch.randint(2, 30, (3,)).tolist()
    decay = [torch.arange(1, d + 1) ** (-2 * torch.rand(())) for d in (d_t, d_s)]
    x, noise = (torch.randn(n + 1, len(sd)) * sd for sd in decay)
    near = pad(x[:, :d_s], (0, max(0, d_s - d_t)))
    return unit(x), unit(torch.lerp(noise, near, float(torch.rand(())) if i % 2 else 0.0))


def compare(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """D_P², D_FG, ‖K − L‖_*, √r D_FG and the bound of D_P² by CKA."""
    d_fg, r = feature_gram_distance(x, y), min(len(x) - 1, x.shape[1] + y.shape[1])
    trace = torch.linalg.matrix_norm(x @ x.T - y @ y.T, ord="nuc")
    loss, sizes = (1 - cka(x, y)).clamp_min(0), (x @ x.T).norm() * (y @ y.T).norm()
    by_cka = (2 * r * sizes * loss).sqrt()
    return torch.stack([procrustes_distance(x, y) ** 2, d_fg, trace, r**0.5 * d_fg, by_cka])


values = torch.stack([compare(*random_pair(i)) for i in range(pairs)]).numpy().T
squared, gram, trace, upper, by_cka = values
gram_bound = np.sqrt(squared * (2 - squared / 2))
assert (squared <= trace + 1e-9).all()
assert (trace <= upper + 1e-7).all()
assert (gram <= gram_bound + 1e-7).all()
assert (squared <= by_cka + 1e-6).all()  # so at zero CKA loss the geometries are equal
assert squared.min() < 0.05
assert squared.max() > 1  # close and distant pairs were tested
print(f"{pairs} pairs, D_P² from {squared.min():.3f} to {squared.max():.3f}: all bounds hold")

# %% [markdown]
# ## The Gram distance shares CKA's weakness
#
# :::{prf:proposition} Flat halves (ours)
# :label: prop-flat-halves
#
# Let the teacher be flat on $2h$ directions, $\lambda_i = 1/2h$, and the student flat on the first half of them. Then
# $D_{FG} = 1/\sqrt{2h} \to 0$ as $h$ grows, while $D_P = \sqrt{2 - \sqrt 2}$ and $\mathrm{CKA} = 1/\sqrt 2$ for every
# $h$. In general $D_{FG}^2 \le 1/\mathrm{PR}_X + 1/\mathrm{PR}_Y$.
# :::
#
# The student has lost half of the teacher's variance at every $h$, but its Gram distance falls. Here CKA detects the
# loss. The reason is {prf:ref}`prop-gram-identity`: every term of $D_{FG}^2$ is divided by a participation ratio. So
# Gram distances of layers of different effective rank compare mostly the ranks.

# %%
halves = {h: flat_halves(256, h) for h in (1, 2, 4, 8, 16, 32, 64, 120)}
for h, (a, b) in halves.items():
    d_fg, d_p = feature_gram_distance(a, b, **UNIT), procrustes_distance(a, b, **UNIT)
    print(f"h = {h:3d}: D_FG {d_fg:.3f}, D_P {d_p:.3f}, CKA {cka(a, b):.3f}")
    assert abs(d_fg - 1 / math.sqrt(2 * h)) < 1e-9
    assert abs(d_p - math.sqrt(2 - math.sqrt(2))) < 1e-9
    assert abs(cka(a, b) - 1 / math.sqrt(2)) < 1e-9
    assert d_fg**2 <= 1 / participation_ratio(a) + 1 / participation_ratio(b) + 1e-9

# %% tags=["hide-input"]
curve = np.linspace(0, 1.9, 200)
path = np.array(
    [(procrustes_distance(*h) ** 2, feature_gram_distance(*h)) for h in halves.values()]
)
color = {name: method_style(name).color for name in ("kd", "procrustes", "gram")}
with geodistill_style():
    fig, ax = plt.subplots()
    ax.scatter(squared, gram, s=5, alpha=0.4, color=color["kd"], label="random pairs")
    ax.plot(curve, np.sqrt(curve * (2 - curve / 2)), color=color["procrustes"], label="upper bound")
    ax.plot(*path.T, ":", color=color["gram"], marker="s", label="flat halves")
    ax.set(xlabel="squared Procrustes distance", ylabel="Gram distance", ylim=(0, 1.5))
    ax.set_title("A small $D_P$ ensures a small $D_{FG}$, not the converse")
    ax.legend()
caption = (
    f"{pairs} random pairs of centred, unit-norm features, and the flat halves for 1 ≤ h ≤ 120."
)
alt = "Random pairs lie below the upper bound; the flat halves descend to Gram distance 0"
show(fig, alt=alt, caption=caption, source="live")

# %% [markdown]
# The points stay below the upper bound, which is the same for every dimension: a small Procrustes distance ensures a
# small Gram distance. The converse needs the factor $\sqrt r$, and the flat halves descend on that side. So the second
# claim of the paper holds for zeros: a rotated copy must have distance zero in both, and no other pair in either. The
# same pairs decide what C1 says of CKA *at* zero loss.

# %% tags=["hide-input"]
originals = [unit(torch.randn(20, 6)) for _ in range(50)]
copies = [(x, pad(x, (0, 3)) @ torch.linalg.qr(torch.randn(9, 9))[0]) for x in originals]
zeros = max(float(m(a, b)) for a, b in copies for m in (procrustes_distance, feature_gram_distance))
same_zeros = zeros < 1e-6 < min(np.sqrt(squared.min()), gram.min())
assert same_zeros
verdict = shown[bool(same_zeros)]  # the bounds are asserted above
unit_of_share = f"of its upper bound at most, over {pairs} random pairs"
shares = {"Procrustes by Gram": squared / upper, "Gram by Procrustes": gram / gram_bound}
for detail, share in shares.items():
    record_verdict("C2", verdict, float(share.max()), unit=unit_of_share, detail=detail)
verdict, note = shown[bool((squared > by_cka + 1e-6).any())], "there the geometries are equal"
record_verdict("C1", verdict, detail="CKA, at zero loss", note=note)

# %% [markdown]
# ## How good can a narrow student be?
#
# With $d_s < d_t$ the student cannot hold everything. Let $\tau = \sum_{i>d_s}\lambda_i$ be the variance beyond the
# teacher's first $d_s$ principal directions.
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
# A raw distance mixes what the student failed to learn with what its width cannot hold and with what any features of
# that many examples share by chance. So we report
#
# $$
# \text{geometry kept} = \frac{D_{\text{chance}} - D}{D_{\text{chance}} - D_{\text{ceiling}}} ,
# $$ (eq-kept)
#
# where the *ceiling* is the best value of the theorem and the *chance level* the distance of that best student with
# its rows shuffled. Both depend on the teacher, the width and the examples, never on the student: a chance level from
# the student's own spectrum would reward a collapsed student. (By the Gram distance geometry kept rewards a flat
# spectrum: pure noise of many equal directions scores well above 0.)

# %%
teacher = unit(torch.randn(400, 64) * (torch.arange(1, 65) ** -1.0).sqrt())
lam = torch.linalg.svdvals(teacher) ** 2
for d in (4, 8, 16, 32):
    tau = float(lam[d:].sum())
    procrustes, similarity = ceiling(procrustes_distance, teacher, d), ceiling(cka, teacher, d)
    chance = chance_level(procrustes_distance, teacher, d)
    print(f"width {d}: best D_P {procrustes:.3f}, CKA {similarity:.3f}; chance D_P {chance:.3f}")
    assert abs(procrustes - math.sqrt(2 - 2 * math.sqrt(1 - tau))) < 1e-6
    assert abs(similarity - (lam[:d].square().sum() / lam.square().sum()).sqrt()) < 1e-9
    gram_floor = (tau**2 / d + lam[d:].square().sum()).sqrt()
    assert abs(ceiling(feature_gram_distance, teacher, d) - gram_floor) < 1e-9
    assert procrustes < chance
student = best_student(cka, teacher, 16)
assert torch.equal(student, best_student(procrustes_distance, teacher, 16))
flatter = best_student(feature_gram_distance, teacher, 16)
assert participation_ratio(flatter) > participation_ratio(student)
assert ceiling(cka, teacher, 16) > 0.95
assert ceiling(procrustes_distance, teacher, 16) > 0.3
noise = torch.randn(400, 64)
assert abs(geometry_kept(procrustes_distance, teacher, noise)) < 0.1
assert geometry_kept(feature_gram_distance, teacher, noise) > 0.15

# %% [markdown]
# At a width whose best CKA is nearly 1 the best Procrustes distance is still large: CKA weighs a direction by
# $\lambda_i^2$, Procrustes by $\lambda_i$. Both lead to the same student in the end, but how strong is the pull there?
#
# ## What the gradients weigh
#
# :::{prf:theorem} Gradients
# :label: thm-gradients
#
# At centred features of unit norm, with $X^\top Y = USV^\top$ of full rank and $W = UV^\top$, the gradients with
# respect to $Y$, through centring and norm, are
#
# $$
# \begin{gathered}
# \nabla D_P^2 = -2\,(XW - F\,Y), \qquad
# \nabla D_{FG}^2 = -4\,\bigl((K-L)Y - \langle K-L, L\rangle Y\bigr), \\
# \nabla(1-\mathrm{CKA}) = -\tfrac{2}{\kappa\ell}\bigl(K - \tfrac{\langle K,L\rangle}{\ell^2}L\bigr)Y .
# \end{gathered}
# $$ (eq-gradients)
#
# Let the student share the teacher's first $d_s$ principal directions, with singular values $s_i$ where the teacher has
# $t_i = \sqrt{\lambda_i}$, and let $\mu_i$ be the eigenvalues of the best student of {prf:ref}`thm-floors`.
#
# - *Near the best*, $s_i = \sqrt{\mu_i} + \delta_i$, the gradient is linear in $\delta_i$ with coefficient
#   $2\sqrt{1-\tau}$ for Procrustes, $8\mu_i$ for Gram and $4\lambda_i\sqrt{\mathrm{PR}_X\mathrm{PR}_Y}$ for CKA (up to a
#   term common to all directions). For a student as wide as the teacher: $2$, $8\lambda_i$, $4\lambda_i\mathrm{PR}_X$.
# - *A missing direction*, $s_i = \varepsilon$, is pulled with the force $2t_i$ by Procrustes, and with a force of order
#   $\varepsilon$ by the other two.
#
# (That CKA weighs directions by their variance squared, Procrustes by the variance: the literature,
# {cite:t}`cloos2024differentiable`. Rates and the missing direction: ours. The derivative of the nuclear norm:
# {cite:t}`watson1992`.)
# :::
#
# For a student as wide as the teacher Procrustes is as well conditioned as a loss can be near its optimum: all
# directions converge together, while Gram and CKA take $\lambda_1/\lambda_i$ times longer for direction $i$. For a narrower
# one this holds of the directions that it has; what its direction $i$ contains of a dropped one, $j$, has the smaller
# coefficient $2\sqrt{1-\tau}\,(1-\lambda_j/\lambda_i)$. A collapsed student is a stationary point of Gram and CKA, and a
# kink of Procrustes with many subgradients. The one of least norm is zero for a missing direction, so that a column of
# zeros would stay; the library completes $W$ on the null spaces, and a student leaves zeros as soon as small values.

# %%
x, y = unit(torch.randn(20, 5)), unit(torch.randn(20, 3))
K, L, F = x @ x.T, y @ y.T, nuclear_norm(x.T @ y)
u, _, vh = torch.linalg.svd(x.T @ y, full_matrices=False)
overlap = (K * L).sum()
formulas = {
    ProcrustesLoss(): -2 * (x @ u @ vh - F * y),
    FeatureGramLoss(): -4 * ((K - L) @ y - ((K - L) * L).sum() * y),
    CKALoss(): -2 / (K.norm() * L.norm()) * (K - overlap / L.norm() ** 2 * L) @ y,
}


def gradient(loss: torch.nn.Module, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    y = y.clone().requires_grad_()
    return torch.autograd.grad(loss(y, x), y)[0]


for loss, formula in formulas.items():
    assert torch.allclose(gradient(loss, y, x), formula, atol=1e-8)
t = torch.tensor([0.6, 0.3, 0.09, 0.01]).sqrt()
basis = from_spectra(12, [1.0] * 4, [1.0]).teacher
collapsed = unit(basis * torch.cat([t[:3], torch.tensor([1e-3])]))  # the last direction is missing
pulls = [abs(float((basis.T @ gradient(loss, collapsed, basis * t))[3, 3])) for loss in formulas]
print("pull on a direction of variance 0.01 that is missing:", [f"{p:.5f}" for p in pulls])
assert abs(pulls[0] - 2 * t[3]) < 0.01
assert max(pulls[1:]) < 0.01 * pulls[0]
for width in (4, 3):  # the teacher's width, and one less
    lam, tau = t[:width] ** 2, float(t[width:].square().sum())
    best, flatter = lam / (1 - tau), lam + tau / width
    pr = 1 / ((t**4).sum() * best.square().sum()).sqrt()  # the geometric mean of the two
    rates = (2 * math.sqrt(1 - tau) * lam**0, 8 * flatter, 4 * lam * pr)
    for loss, mu, rate in zip(formulas, (best, flatter, best), rates, strict=True):
        s = mu.sqrt()
        delta = torch.linalg.qr(torch.stack([s, s**3, s**0], 1))[0][:, 2]  # no common term
        near = basis[:, :width] * (s + 1e-6 * delta)
        measured = (basis.T @ gradient(loss, near, basis * t)).diagonal() / (1e-6 * delta)
        assert torch.allclose(measured, rate, rtol=1e-3)
        print(f"width {width}, {type(loss).__name__}: {[round(float(r), 3) for r in measured]}")
y = basis[:, :3] * (t[:3] ** 2 / (1 - t[3] ** 2)).sqrt() + 1e-6 * basis[:, 3:] * torch.eye(3)[2]
mixed = float((basis.T @ gradient(ProcrustesLoss(), y, basis * t))[3, 2]) / 1e-6
assert abs(mixed - 2 * math.sqrt(0.99) * (1 - 0.01 / 0.09)) < 1e-3
for size, loss in itertools.product((0.0, 1e-6), formulas):  # size of the last direction
    y = pad(basis[:, :3] * t[:3], (0, 1)) + size * torch.randn(12, 4)
    for _ in range(50):
        y = y - 0.1 * gradient(loss, y, basis * t)
    assert (y[:, 3].norm() > 0.05) == isinstance(loss, ProcrustesLoss)

# %% [markdown]
# ## What centring and unit norm are for
#
# Without unit norm the size counts too, and $\mathrm{CKA} = 1$ means $K = cL$. Without centring the rank of $K - L$ may
# be $n$, which takes the place of $n - 1$ in all bounds, and a common mean hides the rest: the features of transformers
# have large means, and two unrelated sets with one large mean have a small Procrustes distance
# ({prf:ref}`prop-assumptions`).

# %%
x, y = torch.eye(2).split(1, dim=1)  # two rows, not centred, nothing in common
d2, d_fg = procrustes_distance(x, y, form="squared"), feature_gram_distance(x, y)
print(f"D_P² {d2:.3f}; √n D_FG {math.sqrt(2) * d_fg:.3f}, √(n − 1) D_FG {d_fg:.3f}")
assert d_fg < d2 <= math.sqrt(2) * d_fg + 1e-9

# %% [markdown]
# ## Procrustes has two parts
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
# The first is zero exactly where the spectra agree, and is the minimum of $D_P^2$ over all rotations of the rows of
# $Y$ in example space.
# :::
#
# The *spectrum* part compares variances and is invariant to row permutation. The *alignment* part asks whether the
# same rows carry them. That gives *controls*: `SpectrumLoss` is the first part alone. Or shuffle the teacher's rows anew
# at each step. What remains then is *not* the teacher's spectrum. Over all orders $P$ of the rows,
#
# $$
# \mathbb E\, D_P^2(PX, Y) \ge 2 - 2\,\frac{\lVert Y\rVert_*}{\sqrt{n-1}}
# $$ (eq-shuffled)
#
# (proved in [the next chapter](02_finite_samples)), which does not depend on the teacher and is lower for a *flatter*
# spectrum of the student. So the shuffled teacher is close to the third control, `IsotropyLoss`, which asks for a flat
# spectrum without a teacher; and each can be worse than no feature loss at all.

# %%
student = teacher[:, :32] + 0.002 * torch.randn(400, 32)
ordered = procrustes_parts(teacher, student)
shuffled = procrustes_parts(teacher, student[torch.randperm(400)])
for name, parts in (("in order", ordered), ("shuffled", shuffled)):
    print(f"rows {name}: spectrum {parts[0]:.3f}, alignment {parts[1]:.3f}")
assert abs(ordered[0] - shuffled[0]) < 1e-9
assert shuffled[1] > 2 * ordered[1]
assert abs(sum(ordered) - procrustes_distance(teacher, student, form="squared", **UNIT)) < 1e-9
orders, means = [torch.randperm(400) for _ in range(100)], {}
for name, y in (("teacher's spectrum", teacher), ("flat spectrum", torch.linalg.qr(teacher)[0])):
    bound = 2 - 2 * float(nuclear_norm(unit(y))) / math.sqrt(399)
    distances = [procrustes_distance(teacher[o], y, form="squared", **UNIT) for o in orders]
    means[name] = float(sum(distances)) / len(orders)
    print(f"{name}: {means[name]:.3f} over shuffled rows, bound {bound:.3f}")
    assert means[name] >= bound
assert means["flat spectrum"] < means["teacher's spectrum"] - 0.01

# %% [markdown]
# A gain shared by a control is not due to the alignment of rows. The chapters on BERT and OPT run all three.
#
# The opposite failure exists too: the function stays, and the scores fall. One row that moves to infinity is enough
# {cite:p}`davari2022`: CKA tends to about $1/(n\kappa)$ and $F$ to about $1/\sqrt n$, though all other rows are unchanged
# ({prf:ref}`prop-outlier`), so look for tokens with huge activations and mask them. The same holds for an invertible map
# that the next layer inverts: outputs are equal, and {prf:ref}`thm-projection` bounds the scores.
#
# ## Why would it matter for the task?
#
# :::{prf:theorem} Readouts
# :label: thm-readout
#
# Let $Q$ be a Procrustes map of {eq}`eq-procrustes`, for $d_s > d_t$ its first $d_t$ columns. A linear readout $w$ of the
# teacher is imitated on the student by $Qw$, of norm at most $\lVert w\rVert$, and
#
# $$
# \lVert Xw - YQw\rVert \le D_P\,\lVert w\rVert , \qquad \frac{\mathbb E\,\lVert Xw - YQw\rVert^2}{\mathbb E\,\lVert Xw\rVert^2} \le D_P^2
# $$ (eq-readout)
#
# for $w$ of a uniformly random direction, an equality if $d_s \le d_t$. (The bound is the literature's:
# {cite:t}`harvey2024metrics` prove more, for optimal readouts, and a converse for low participation ratios. The mean is
# ours.)
# :::
#
# So $D_P^2$ is the share of a random readout's variance that the rotated student gets wrong, if it is no wider than the
# teacher. The spare directions of a wider one count in $D_P^2$ and in no readout: if they hold half of its variance, and
# the rest is the teacher's, $D_P^2 = 2 - \sqrt2$, but readouts lose $(1 - \sqrt{1/2})^2$, less than a tenth. A projection
# gives an imitation $Aw$ too, with $A$ from {eq}`eq-projection`, often a closer one, but of a norm without a bound.

# %%
x = unit(torch.randn(200, 8))
y = unit(x @ torch.logspace(0, 3, 8).diag())
u, _, vh = torch.linalg.svd(y.T @ x)
Q, A = u @ vh, torch.linalg.lstsq(y, x).solution
w = torch.randn(8, 200)
errors = (x @ w - y @ Q @ w).norm(dim=0)
assert (errors <= procrustes_distance(x, y) * w.norm(dim=0) + 1e-12).all()
assert ((Q @ w).norm(dim=0) <= w.norm(dim=0) + 1e-12).all()
spare = torch.linalg.qr(torch.cat([x, unit(torch.randn(200, 3))], 1))[0][:, 8:]
lost = {}
for student in (unit(y[:, :5]), y, unit(torch.cat([x, unit(spare)], 1))):
    width = student.shape[1]
    u, _, vh = torch.linalg.svd(student.T @ pad(x, (0, max(0, width - 8))))
    share = (x - student @ (u @ vh[:width])[:, :8]).square().sum()  # mean over all directions
    lost[width] = torch.stack([share, procrustes_distance(x, student, form="squared")])
    print(f"width {width}: readouts lose {lost[width][0]:.3f}, D_P² {lost[width][1]:.3f}")
assert all(abs(lost[width][0] - lost[width][1]) < 1e-9 for width in (5, 8))
assert torch.allclose(lost[11], torch.tensor([(1 - 0.5**0.5) ** 2, 2 - 2**0.5]))
growth = ((A @ w).norm(dim=0) / w.norm(dim=0)).mean()
print(f"norm of the imitating readout: {growth:.0f} times by projection, 1 by Procrustes")
assert growth > 10

# %% [markdown]
# ## What we learn
#
# - Procrustes distance, Gram distance and CKA (of centred, unit-norm features) have the same zero: equal geometry. The
#   projection's zero set is larger: any injective distortion. "Even under zero loss" holds for it, not for CKA.
# - Near zero they differ. CKA and the Gram distance tolerate the loss of variance that is spread over many directions;
#   the Procrustes distance does not. It bounds the Gram distance; the converse bounds contain the rank.
# - Near the optimum Procrustes pulls on all of a student's directions equally, Gram and CKA in proportion to variance.
# - The width limits a student, and a small sample is similar by chance (next chapter). *Geometry kept* corrects for both.
# - Procrustes is a spectrum part plus an alignment part, and only the second needs the teacher's rows.
#
# **What would change our mind.** A random pair outside {eq}`eq-bounds` would refute the theorems. That preserving the
# geometry helps a task is no theorem: {prf:ref}`thm-readout` bounds linear readouts of one layer. Chapters 3 to 6 measure.
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
# In {prf:ref}`thm-spread-mass` only the teacher spreads. Let both do: each has $1-a$ on a common first direction, and
# spreads $a$ over $m/2$ directions that the other lacks. Is $1 - \mathrm{CKA}$ at a given $D_P$ larger than before?
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
