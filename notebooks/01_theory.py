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
# # What does it mean to keep the geometry?
#
# A teacher network turns each sentence into a vector of its hidden width; a smaller student does the
# same with shorter vectors. We would like the student to *think alike*: sentences that are close for
# the teacher should be close for the student. Several losses promise that. Bhattarai and colleagues
# {cite:p}`bhattarai2025geometry` claim that two popular ones, a learned projection and CKA, can be
# nearly perfect while the geometry is lost, and that two others, the Procrustes distance and the
# distance of feature Gram matrices, cannot. Is that so, and by how much?
#
# **You need** matrix norms, eigenvalues and the singular value decomposition. **Time**: an hour to
# read, seconds to run, no GPU. **You will learn** what each loss sees and is blind to, four
# inequalities that tie them together, and why a number such as "CKA = 0.99" says little by itself.
#
# Each result says whose it is: the paper's, the literature's, or ours. Each is checked on numbers by the cell
# below it: a claim in the text has an `assert` beside it. A first reading may leave the proofs folded; a table
# at the end lists all results.

# %% tags=["parameters"]
profile = "laptop"
seed = 0

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.functional import pad

from geodistill.analysis.figures.style import geodistill_style, look
from geodistill.experiments.finite_samples import unit
from geodistill.geometry import (
    antiparallel,
    best,
    best_student,
    cka,
    feature_gram_distance,
    flat_halves,
    from_spectra,
    geometry_kept,
    nuclear_norm,
    null,
    participation_ratio,
    procrustes_distance,
    procrustes_parts,
    projection_distance,
    spread_mass,
)
from geodistill.losses import CKALoss, FeatureGramLoss, ProcrustesLoss
from geodistill.publish.claims.ledger import record
from geodistill.publish.provenance import show

torch.manual_seed(seed)
torch.set_default_dtype(torch.float64)
UNIT = {"center": True, "scale": "frobenius"}
pairs = {"smoke": 100, "laptop": 1500, "paper": 20000}[profile]

# %% [markdown]
# ## Geometry is the matrix of inner products
#
# Write the teacher's features of $n$ examples as the rows of $X$ ($n \times d_t$), the student's as
# the rows of $Y$ ($n \times d_s$).
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
# Both are $n \times n$ whatever the widths. Lengths, angles and distances of the feature vectors can be
# read from them, and nothing else can: turn all vectors by one rotation and $K$ stays. Here is the
# smallest example. The student below holds the same three vectors as the teacher, turned, with one
# dimension fewer.

# %%
X = torch.tensor([[2.0, 0, 0], [0, 1, 0], [1, 1, 0]])
turn = torch.tensor([[0.0, 1], [-1, 0]])
Y = X[:, :2] @ turn
print(X @ X.T, Y @ Y.T, sep="\n")
assert torch.allclose(X @ X.T, Y @ Y.T)

# %% [markdown]
# ### Four ways to compare
#
# The **Procrustes distance** turns the student as well as it can be turned and measures what is left.
# The best turn $Q$ is known in closed form {cite:p}`schonemann1966`: with the singular value
# decomposition $Y^\top X = U S V^\top$ it is $Q = UV^\top$, and
#
# $$
# D_P^2 = \min_{Q} \lVert X - YQ\rVert_F^2
#       = \lVert X\rVert_F^2 + \lVert Y\rVert_F^2 - 2\lVert X^\top Y\rVert_* ,
# $$ (eq-procrustes)
#
# where the minimum is over matrices with orthonormal rows and $\lVert\cdot\rVert_*$, the *nuclear norm*, is the
# sum of the singular values. (If $d_s > d_t$, give the teacher zero columns until both are as wide.) The **feature Gram distance** compares the
# inner products themselves,
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
# and the **projection distance** lets any linear map, not only a turn, bring the student to the
# teacher {cite:p}`romero2015fitnets,sun2019pkd`:
#
# $$
# D_A = \min_A \lVert X - YA\rVert_F .
# $$ (eq-projection)
#
# Beside each equation, its function:

# %%
for measure in (procrustes_distance, feature_gram_distance, projection_distance):
    print(f"{measure.__name__:24s}{measure(X, Y):.6f}")
    assert measure(X, Y) < 1e-6  # the same geometry
print(f"{'cka':24s}{cka(X, Y):.6f}")
assert abs(cka(X, Y) - 1) < 1e-9

# %% [markdown]
# ### Density matrices
#
# A student may use another unit and another origin than its teacher; we don't mind. So from here on
# the columns are centred and $\lVert X\rVert_F = \lVert Y\rVert_F = 1$ (`center=True,
# scale="frobenius"`, the default of every loss in `geodistill.losses`). Then $K$ and $L$ are
# symmetric, have no negative eigenvalue, and have trace 1. Physicists call such a matrix a *density
# matrix*, and have studied distances between them for fifty years. With the **fidelity**
# {cite:p}`uhlmann1976`
#
# $$
# F = \lVert X^\top Y\rVert_* \in [0, 1] , \qquad D_P^2 = 2 - 2F ,
# $$ (eq-fidelity)
#
# which makes $D_P$ the *Bures distance* of $K$ and $L$. The cell computes $F$ both ways: from the
# features, and as Uhlmann wrote it, $\operatorname{tr}\sqrt{\sqrt K L \sqrt K}$.


# %%
def root(k: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(k)
    return vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T


x, y = unit(torch.randn(12, 5)), unit(torch.randn(12, 3))
K, L = x @ x.T, y @ y.T
ours, uhlmann = nuclear_norm(x.T @ y), root(root(K) @ L @ root(K)).trace()
print(f"fidelity from features {ours:.8f}, from density matrices {uhlmann:.8f}")
assert abs(ours - uhlmann) < 1e-6
assert abs(procrustes_distance(x, y, form="squared") - (2 - 2 * ours)) < 1e-9

# %% [markdown]
# The second number to remember is the **participation ratio**, the effective number of directions
# that carry the variance: with $\lambda$ the eigenvalues of $K$,
#
# $$
# \mathrm{PR}_X = \frac{1}{\sum_i \lambda_i^2} = \frac{1}{\lVert K\rVert_F^2} .
# $$ (eq-pr)
#
# Expanding $\lVert K - L\rVert_F^2$ with {eq}`eq-cka` and {eq}`eq-pr` gives an identity that we will
# use again and again.
#
# :::{prf:proposition} The Gram loss is CKA plus a match of effective rank (ours)
# :label: prop-gram-identity
#
# With $\kappa = \lVert K\rVert_F = \mathrm{PR}_X^{-1/2}$ and $\ell = \lVert L\rVert_F = \mathrm{PR}_Y^{-1/2}$,
#
# $$
# D_{FG}^2 = \frac{1}{\mathrm{PR}_X} + \frac{1}{\mathrm{PR}_Y}
#          - \frac{2\,\mathrm{CKA}}{\sqrt{\mathrm{PR}_X\,\mathrm{PR}_Y}}
#          = (\kappa - \ell)^2 + 2\kappa\ell\,(1 - \mathrm{CKA}) .
# $$ (eq-gram-identity)
#
# Hence $1 - \mathrm{CKA} \le D_{FG}^2/(2\kappa\ell)$, with equality exactly where the participation ratios agree.
# :::
#
# :::{prf:proof}
# $\lVert K - L\rVert_F^2 = \kappa^2 + \ell^2 - 2\langle K, L\rangle$ and $\langle K, L\rangle = \kappa\ell\,\mathrm{CKA}$.
# :::

# %%
pr = participation_ratio(x), participation_ratio(y)
identity = 1 / pr[0] + 1 / pr[1] - 2 * cka(x, y) / (pr[0] * pr[1]).sqrt()
print(f"D_FG² {feature_gram_distance(x, y) ** 2:.10f}, by the identity {identity:.10f}")
assert abs(feature_gram_distance(x, y) ** 2 - identity) < 1e-10
kappa, ell = K.norm(), L.norm()
assert abs((kappa - ell) ** 2 + 2 * kappa * ell * (1 - cka(x, y)) - identity) < 1e-10
assert 1 - cka(x, y) <= feature_gram_distance(x, y) ** 2 / (2 * kappa * ell) + 1e-12

# %% [markdown]
# ## When is each one zero?
#
# :::{prf:theorem} Zero sets
# :label: thm-zero-sets
#
# For centred features of unit Frobenius norm these are equivalent: $D_P = 0$; $D_{FG} = 0$;
# $K = L$; $\mathrm{CKA} = 1$. (The first three are the paper's second claim
# {cite:p}`bhattarai2025geometry`; the last is a remark of ours.)
# :::
#
# :::{prf:proof}
# $D_{FG} = 0$ is $K = L$ by {eq}`eq-gram`. If $D_P = 0$ then $X = YQ$ with $QQ^\top = I$, so
# $K = YQQ^\top Y^\top = L$. If $K = L$ then $\sqrt{\sqrt K L \sqrt K} = K$ has trace 1, so $F = 1$ and
# $D_P = 0$. Finally $\mathrm{CKA} = 1$ is equality in the Cauchy–Schwarz inequality, so $K = cL$ with
# $c > 0$, and both traces are 1, so $c = 1$.
# :::
#
# So *at* its maximum CKA is as strict as the other two, once the scale is fixed. (Without unit norm it
# leaves the scale free.) Whatever goes wrong with CKA must go wrong *near* 1. The projection is
# different: it is blind at exactly zero.
#
# :::{prf:proposition} Zero set of the projection
# :label: prop-projection-zero
#
# $D_A = 0$ in {eq}`eq-projection` if and only if every column of $X$ lies in the span of the columns
# of $Y$: any injective linear distortion of the teacher reaches zero, and any further columns may be
# added. It can't be reached if $d_s < \operatorname{rank} X$. The other way round, teacher to student,
# $\min_A\lVert Y - XA\rVert_F$ is zero for a student that has collapsed to $Y = 0$.
# :::
#
# :::{prf:proof}
# The least squares residual of a column of $X$ is zero exactly if the column lies in the span of $Y$'s. If all do, the rank
# of $X$ is at most that of $Y$, which is at most $d_s$. For $Y = 0$ take $A = 0$.
# :::
#
# Always say which way a projection goes. The cell stretches the teacher's directions by factors from
# 1 to 1000 and asks every measure.

# %%
teacher = unit(torch.randn(200, 8))
stretch = torch.logspace(0, 3, 8)
student = teacher @ stretch.diag()
kept = geometry_kept(procrustes_distance, teacher, student)
print(f"projection distance, student → teacher   {projection_distance(teacher, student):.1e}")
print(f"geometry kept (Procrustes)               {kept:.2f}")
print(f"CKA                                      {cka(teacher, student):.2f}")
assert projection_distance(teacher, student) < 1e-5
assert kept < 0.5
collapsed = 0 * student
assert projection_distance(teacher, collapsed, direction="to_student") == 0

# %% [markdown]
# *Geometry kept* is 1 for the best that any student of this width can do and 0 for that student with
# its rows shuffled; we come back to it below. The projection distance is zero to rounding, and yet
# most of the geometry is gone. That half of the paper's first claim holds exactly, by construction.

# %%
record(
    claim="C1",
    verdict="holds"
    if projection_distance(teacher, student) < 1e-5 and kept < 0.5
    else "does not hold",
    value=kept,
    unit="of the geometry kept, at projection distance 0",
    detail="learned projection, student to teacher",
)

# %% [markdown]
# ### How much a projection may distort
#
# :::{prf:theorem} The price of a linear map (ours)
# :label: thm-projection
#
# 1. If $Y = XA$ with an injective $A$ ($d_t \times d_s$, $d_s \ge d_t$) of condition number $c$, its largest over its
#    least singular value, then
#
#    $$
#    D_P^2 \le \frac{2\,(\sqrt c - 1)^2}{c + 1} ,
#    $$ (eq-condition)
#
#    and for each $c$ some teacher attains it.
# 2. Over students of width $d_s \le \operatorname{rank}X$ the least $D_A^2$ is $\tau = \sum_{i>d_s}\lambda_i$. If
#    $\lambda_{d_s} > \lambda_{d_s+1}$ it is reached by those whose columns span the teacher's top $d_s$
#    principal directions, whatever their spectrum; among them $D_P^2$ comes as near to
#    $2 - 2\sqrt{\lambda_{d_s}}$ as you like, and never beyond.
# :::
#
# :::{admonition} Proof
# :class: dropdown
#
# 1. A turn of $Y$ changes nothing, so let $A$ be symmetric and positive, with eigenvalues $a_i \in [\alpha, c\alpha]$
#    and eigenvectors $v_i$. With $S = X^\top X$, of trace 1, and weights $w_i = v_i^\top S v_i$ that sum to 1,
#    $F = \lVert SA\rVert_*/\lVert XA\rVert_F \ge \operatorname{tr}(SA)/\sqrt{\operatorname{tr}(SA^2)} =
#    \sum w_ia_i/\sqrt{\sum w_ia_i^2}$. From $(a_i-\alpha)(c\alpha-a_i) \ge 0$ follows
#    $\sum w_i a_i^2 \le (1+c)\alpha m - c\alpha^2$ with $m = \sum w_ia_i$, and $m^2/((1+c)\alpha m - c\alpha^2)$ is least
#    at $m = 2c\alpha/(1+c)$, where it is $4c/(1+c)^2$. So $F \ge 2\sqrt c/(1+c)$. Equality: two directions of variance
#    $c/(1+c)$ and $1/(1+c)$, the first left alone, the second stretched by $c$.
# 2. $D_A^2 = 1 - \langle K, \Pi\rangle$ with $\Pi$ the projection onto the columns of $Y$, of rank at most $d_s$; the
#    sum of the top eigenvalues bounds $\langle K, \Pi\rangle$ (Ky Fan). On the top directions
#    $F^2 = (\sum\sigma_i)^2 \ge \sum\sigma_i^2 = \langle K, L\rangle \ge \lambda_{d_s}$, and $L$ may put nearly all of its
#    variance on direction $d_s$.
# :::
#
# So a projection is as good as its condition number. At $c = 1$, a map with orthonormal rows, nothing is lost: that
# is what an orthogonal projection {cite:p}`miles2024vkd` secures, and what the Procrustes distance has built in. At the
# $c = 1000$ of the cell above nearly everything may go.

# %%
for c in (1.0, 4.0, 100.0):
    x = from_spectra(9, [c / (1 + c), 1 / (1 + c)], [1.0]).teacher
    d2 = procrustes_distance(x, x @ torch.tensor([1.0, c]).diag(), form="squared", **UNIT)
    print(f"condition number {c:5.0f}: D_P² {d2:.4f}")
    assert abs(d2 - 2 * (math.sqrt(c) - 1) ** 2 / (c + 1)) < 1e-9
for _ in range(50):
    a = torch.randn(6, 6)
    singular = torch.linalg.svdvals(a)
    c = singular[0] / singular[-1]
    x = unit(torch.randn(30, 6) * torch.rand(6))
    d2 = procrustes_distance(x, x @ a, form="squared", **UNIT)
    assert d2 <= 2 * (c.sqrt() - 1) ** 2 / (c + 1) + 1e-9

# %%
lam = [0.4, 0.3, 0.2, 0.1]
x, y = from_spectra(12, lam, [1e-7, 1e-7, 1 - 2e-7])
d2 = procrustes_distance(x, y, form="squared", **UNIT)
assert abs(projection_distance(x, y, **UNIT) ** 2 - lam[3]) < 1e-6  # as good as can be
assert 2 - 2 * math.sqrt(lam[2]) - 5e-3 < d2 < 2 - 2 * math.sqrt(lam[2])
print(f"at the best projection distance of width 3, D_P² = {d2:.3f} is possible")

# %% [markdown]
# ## CKA near 1 with the geometry lost
#
# Theorem 1 of the paper draws this picture {cite:p}`bhattarai2025geometry`: $n$ teacher vectors lie in
# two antiparallel directions. Some of them are now moved, each along its own direction, orthogonal to
# everything else. The student keeps the arrangement as it was before. To a human the two differ: in
# the teacher the moved vectors are $45°$ away from the rest and $60°$ from one another.

# %%
sizes = [16, 64, 256]
for n in sizes:
    x, y = antiparallel(n, d_teacher=n, d_student=4, perturbed=n // 2)
    distance, similarity = procrustes_distance(x, y, **UNIT), cka(x, y)
    print(f"n = {n:3d}: CKA {similarity:.5f}, D_P {distance:.3f}")
moved = torch.nn.functional.normalize(x[:4:2], dim=1)
assert similarity > 0.999
assert distance > 0.5
assert abs(moved[0] @ moved[1] - math.cos(math.pi / 3)) < 1e-9

# %% [markdown]
# CKA approaches 1 while $D_P$ stays where it is. In closed form:
#
# :::{prf:proposition} The antiparallel picture in numbers (the paper's picture, our formulas)
# :label: prop-antiparallel
#
# Let $n$ be even and $m$ of the $n$ vectors be moved by $c$ times their length. Then
#
# $$
# \mathrm{CKA} = \frac{n + c^2m/n}{\sqrt{n^2 + 2c^2m + c^4 m\,(1 - 2/n + m/n^2)}} ,
# $$ (eq-antiparallel)
#
# $$
# F = \sqrt{\frac{n + c^2 m/n}{n + c^2m\,(1 - 1/n)}} .
# $$
#
# With $m = pn$ and $n \to \infty$: $1 - \mathrm{CKA} \approx c^4p/(2n) \to 0$, while $D_P^2 \to 2 - 2/\sqrt{1 + c^2p}$. It needs
# $1 + m \le \min(d_t, n-1)$; any $d_s \ge 1$ will do for the student.
# :::
#
# :::{admonition} Proof
# :class: dropdown
#
# Let $s$ be the vector of signs, $|s|^2 = n$ and $s^\top\mathbf 1 = 0$, and $E$ ($n\times m$) the columns of the identity
# that belong to moved vectors. Centred, $K = ss^\top + c^2 HEE^\top H$ and $L = ss^\top$. So $\langle K, L\rangle = n^2 + c^2m$,
# $\lVert L\rVert_F = n$, $\operatorname{tr}K = n + c^2m(1-1/n)$, and with $E^\top HE = I - \mathbf 1\mathbf 1^\top/n$, of squared
# norm $m - 2m/n + m^2/n^2$, $\lVert K\rVert_F^2 = n^2 + 2c^2m + c^4(m - 2m/n + m^2/n^2)$. $L$ has rank one, hence
# $F^2 = \langle K, L\rangle/(\operatorname{tr}K\operatorname{tr}L)$.
# :::

# %%
for n, m, c in ((16, 8, 1.0), (64, 10, 2.0), (256, 200, 0.5)):
    x, y = antiparallel(n, d_teacher=m + 1, d_student=1, perturbed=m, size=c)
    top = n + c**2 * m / n
    formula = top / math.sqrt(n**2 + 2 * c**2 * m + c**4 * m * (1 - 2 / n + m / n**2))
    assert abs(cka(x, y) - formula) < 1e-9
    fidelity = procrustes_distance(x, y, form="similarity", center=True)
    assert abs(fidelity - math.sqrt(top / (n + c**2 * m * (1 - 1 / n)))) < 1e-9

# %% [markdown]
# The general statement is about spectra. Let the
# teacher's $K$ have the eigenvalue $1-\tau$ and, on $m$ further directions, $\tau/m$ each; the student
# has the first direction only.
#
# :::{prf:theorem} Spread mass (ours, after the paper's Theorem 1)
# :label: thm-spread-mass
#
# $$
# \mathrm{CKA} = \frac{1-\tau}{\sqrt{(1-\tau)^2 + \tau^2/m}} \xrightarrow[m\to\infty]{} 1,
# \qquad D_P = \sqrt{2 - 2\sqrt{1-\tau}} ,
# $$ (eq-spread-mass)
#
# the second whatever $m$. Hence for every $D < \sqrt 2$ and $\varepsilon > 0$ there are features with $D_P = D$ and
# $\mathrm{CKA} \ge 1 - \varepsilon$. They need $1 + m \le \min(d_t, n - 1)$.
#
# It is sharp: if the student has rank one, $\operatorname{rank}K \le m+1$ and $F^2 = 1-\tau \ge 1/(m+1)$, then
# CKA is at most {eq}`eq-spread-mass`.
# :::
#
# :::{prf:proof}
# $K$ and $L$ share eigenvectors, so $\langle K, L\rangle = 1-\tau$, $\lVert L\rVert_F = 1$,
# $\lVert K\rVert_F^2 = (1-\tau)^2 + m(\tau/m)^2$ and $F = \sqrt{(1-\tau)\cdot 1}$. Choose $\tau$ from $D$,
# then $m$ from $\varepsilon$. Centred rows span at most $n-1$ dimensions, which bounds $m$.
#
# Sharpness: $L = vv^\top$ with a unit vector $v$, so $F^2 = \langle K, L\rangle = v^\top Kv$ and
# $\mathrm{CKA} = F^2/\lVert K\rVert_F$. Let $v'$ be $v$ projected onto the range of $K$ and $u = v'/|v'|$. Then
# $f = u^\top Ku \ge v^\top Kv$, and the rest of $K$ inside its range, at most $m$ directions orthogonal to $u$, has
# trace $1-f$: $\lVert K\rVert_F^2 \ge f^2 + (1-f)^2/m$. That grows with $f$ from $f = 1/(m+1)$ on, so
# $\lVert K\rVert_F^2 \ge (1-\tau)^2 + \tau^2/m$.
# :::

# %%
tau = 0.3
directions = [1, 3, 10, 30, 100, 300]
curves = {"cka": [], "procrustes": []}
for m in directions:
    x, y = spread_mass(n=320, directions=m, lost=tau, d_teacher=310)
    curves["cka"].append(float(cka(x, y)))
    curves["procrustes"].append(float(procrustes_distance(x, y, **UNIT)))
    assert abs(curves["cka"][-1] - (1 - tau) / math.sqrt((1 - tau) ** 2 + tau**2 / m)) < 1e-9
assert np.ptp(curves["procrustes"]) < 1e-9
assert 1 - curves["cka"][-1] < 1e-3

with geodistill_style():
    fig, ax = plt.subplots()
    one_minus = 1 - np.array(curves["cka"])
    for name, label, values in (
        ("cka", "1 − CKA", one_minus),
        ("procrustes", "Procrustes distance", curves["procrustes"]),
    ):
        ax.loglog(directions, values, color=look(name).color, marker=look(name).marker, label=label)
    ax.set(xlabel="directions m that share the lost variance", ylabel="value")
    ax.legend()
show(
    fig,
    alt="1 − CKA falls as 1/m on a log-log plot while the Procrustes distance stays constant, as the "
    "same lost variance is spread over more directions",
    source="live",
)

# %%
for _ in range(200):  # no student of rank one does better with m + 1 = 4 directions
    x = unit(torch.randn(20, 4))
    y = unit(x[:, :1] + torch.rand(()) * torch.randn(20, 1))
    f2 = float(procrustes_distance(x, y, form="similarity")) ** 2
    if f2 >= 1 / 4:
        assert cka(x, y) <= f2 / math.sqrt(f2**2 + (1 - f2) ** 2 / 3) + 1e-9

# %% [markdown]
# A fair objection: if the student has width 1, *no* loss could have made it keep the other directions.
# The picture's loss is then the width's, not the loss function's. So give the student all the width it
# wants, $d_s = 1 + m$; it could be perfect, and CKA hardly asks for it.

# %%
x, y = spread_mass(n=320, directions=300, lost=tau, d_teacher=301)
wide = pad(y, (0, 300))
kept = geometry_kept(procrustes_distance, x, wide)
reachable = best(procrustes_distance, x, 301)
print(f"best D_P at this width {reachable:.1e}; CKA {cka(x, wide):.5f}; geometry kept {kept:.2f}")
assert reachable < 1e-6
assert cka(x, wide) > 0.999
assert kept < 0.75

# %%
record(
    claim="C1",
    verdict="holds" if cka(x, wide) > 0.999 and kept < 0.75 else "does not hold",
    value=kept,
    unit=f"of the geometry kept, at CKA {float(cka(x, wide)):.4f}",
    detail="CKA",
)

# %% [markdown]
# ## Inequalities both ways
#
# "Vanish together" speaks of the point zero. A loss is never exactly zero, so we ask for more: if one
# distance is small, how small must the other be? Let $r = \operatorname{rank}(K - L) \le \min(n-1,\, d_s+d_t)$.
#
# :::{prf:theorem} Two-sided bounds
# :label: thm-bounds
#
# $$
# D_P^2 \;\le\; \lVert K - L\rVert_* \;\le\; \sqrt r\, D_{FG},
# \qquad
# D_{FG} \;\le\; D_P\sqrt{2 - D_P^2/2} .
# $$ (eq-bounds)
#
# *Equality.* Left, both at once: a part that the two share, and apart from it two flat spectra of equally many
# directions orthogonal to each other. Right, exactly if $K = L$, or both have rank one, or both have rank two, the same
# plane and the same two eigenvalues.
#
# (Literature: the first inequality is Powers and Størmer's {cite:p}`powers1970`, in this form Fuchs and van de Graaf's
# {cite:p}`fuchs1999`; the last rests on "super-fidelity is at least fidelity squared" {cite:p}`miszczak2009`. Ours: their
# use for distillation, as far as we know, and the equality cases.)
# :::
#
# :::{admonition} Proof
# :class: dropdown
#
# *Left.* Let $A = \sqrt K$, $B = \sqrt L$, $S = A - B$, $T = A + B$. Then $\lVert S\rVert_F^2 = 2 - 2\operatorname{tr}AB \ge
# 2 - 2\lVert AB\rVert_* = D_P^2$. And $K - L = (ST + TS)/2$. In an eigenbasis $v_i$ of $S$, with eigenvalues $s_i$,
# $v_i^\top(K-L)v_i = s_i\,v_i^\top Tv_i$, where $v_i^\top Tv_i \ge |s_i|$ because $T \pm S$ are positive. The nuclear norm is at
# least the sum of absolute diagonal entries: $\lVert K-L\rVert_* \ge \sum|s_i|\,v_i^\top Tv_i \ge \sum s_i^2 = \lVert S\rVert_F^2$.
# A matrix of rank $r$ has $\lVert M\rVert_* \le \sqrt r\lVert M\rVert_F$, with equality if its non-zero singular values
# are equal. In the equality case $K$ and $L$ commute, all of $|\lambda_i-\mu_i|$ are 0 or $(1-p)/k$, and
# $D_P^2 = 2 - 2p = \lVert K-L\rVert_*$ where $p$ is the shared part.
#
# *Right.* Let $\sigma_i$ be the singular values of $X^\top Y$. Then $F^2 = \sum\sigma_i^2 + 2\sum_{i<j}\sigma_i\sigma_j$. The first
# sum is $\langle K, L\rangle$. The second is the nuclear norm of the second compound matrix,
# $\lVert\Lambda^2(X)^\top\Lambda^2(Y)\rVert_* \le \lVert\Lambda^2X\rVert_F\lVert\Lambda^2Y\rVert_F$, and
# $2\lVert\Lambda^2X\rVert_F^2 = 2\sum_{i<j}\lambda_i\lambda_j = (\sum\lambda_i)^2 - \sum\lambda_i^2 = 1 - \kappa^2$. So
#
# $$
# F^2 \le \langle K, L\rangle + \sqrt{(1-\kappa^2)(1-\ell^2)} \le \langle K, L\rangle + 1 - (\kappa^2+\ell^2)/2 = 1 - D_{FG}^2/2 ,
# $$
#
# and $2 - 2F^2 = D_P^2(2 - D_P^2/2)$. Equality in the second step needs $\kappa = \ell$; in the first
# $\Lambda^2K$ and $\Lambda^2L$ proportional, and then, with $\kappa = \ell$, equal. If both are zero the ranks are one. If not, $K$ and
# $L$ have the same range; on it the eigenvalues $\beta$ of $L^{-1/2}KL^{-1/2}$ have $\beta_i\beta_j = 1$ for $i < j$: with three or
# more of them all are 1 and $K = L$, with two the determinants, and so with trace 1 the eigenvalues, agree.
# :::
#
# CKA is bounded the same way, so a small $1 - \mathrm{CKA}$ *does* bound the geometry, only with a
# constant that grows with the rank.
#
# :::{prf:proposition} CKA bounds geometry, with a constant that grows (ours)
# :label: prop-cka-bound
#
# $$
# D_P^2 \le \sqrt{2r'\,\kappa\ell\,(1-\mathrm{CKA})}, \qquad
# D_{FG}^2 \le 2\kappa\ell\,(1 + r'\kappa\ell)\,(1-\mathrm{CKA}),
# $$ (eq-cka-bound)
#
# with $r' = \min(n-1,\, d_s+d_t)$. The first can't have a smaller constant: with spread mass the ratio of its sides tends to 1 for
# $m \to \infty$, then $\tau \to 0$.
# :::
#
# :::{admonition} Proof
# :class: dropdown
#
# Let $\Delta = K/\kappa - L/\ell$: rank at most $r'$, and $\lVert\Delta\rVert_F^2 = 2(1-\mathrm{CKA})$, so
# $\lVert\Delta\rVert_* \le \sqrt{2r'(1-\mathrm{CKA})}$. The proof of the left bound above nowhere used the traces: applied to
# $K/\kappa$ and $L/\ell$ it says $1/\kappa + 1/\ell - 2F/\sqrt{\kappa\ell} \le \lVert\Delta\rVert_*$. Times $\sqrt{\kappa\ell}$, and with
# $\sqrt{\ell/\kappa} + \sqrt{\kappa/\ell} \ge 2$: $D_P^2 \le \sqrt{\kappa\ell}\,\lVert\Delta\rVert_*$. For the second,
# $|1/\kappa - 1/\ell| = |\operatorname{tr}\Delta| \le \lVert\Delta\rVert_*$ gives $(\kappa-\ell)^2 \le 2r'\kappa^2\ell^2(1-\mathrm{CKA})$, to be put
# into {eq}`eq-gram-identity`.
# :::
#
# The cell tries all of it on random pairs of every size, rank and closeness.


# %%
def random_pair(i: int) -> tuple[torch.Tensor, torch.Tensor]:
    n, d_t, d_s = (int(v) for v in torch.randint(2, 30, (3,)))
    x = torch.randn(n + 1, d_t) * torch.arange(1, d_t + 1) ** (-2 * torch.rand(()))
    noise = torch.randn(n + 1, d_s) * torch.arange(1, d_s + 1) ** (-2 * torch.rand(()))
    closeness = torch.rand(()) if i % 2 else 0.0
    width = min(d_t, d_s)
    return x, noise * (1 - closeness) + pad(closeness * x[:, :width], (0, d_s - width))


rows = []
for i in range(pairs):
    x, y = (unit(f) for f in random_pair(i))
    k, el = x @ x.T, y @ y.T
    r = min(len(x) - 1, x.shape[1] + y.shape[1])
    rows.append(
        {
            "procrustes": float(procrustes_distance(x, y)),
            "gram": float(feature_gram_distance(x, y)),
            "trace": float(torch.linalg.matrix_norm(k - el, ord="nuc")),
            "r": r,
            "cka for procrustes": float(
                (2 * r * k.norm() * el.norm() * (1 - cka(x, y))).clamp_min(0).sqrt()
            ),
            "cka for gram": float(
                2 * k.norm() * el.norm() * (1 + r * k.norm() * el.norm()) * (1 - cka(x, y))
            ),
        }
    )
table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
squared, gram = table["procrustes"] ** 2, table["gram"]
upper = np.sqrt(table["r"]) * gram
super_bound = np.sqrt(squared * (2 - squared / 2))
assert (squared <= table["trace"] + 1e-9).all()
assert (table["trace"] <= upper + 1e-7).all()
assert (gram <= super_bound + 1e-7).all()
assert (squared <= table["cka for procrustes"] + 1e-7).all()
assert (gram**2 <= table["cka for gram"] + 1e-9).all()
assert squared.min() < 0.05
assert squared.max() > 1  # near and far were tried
print(
    f"{pairs} random pairs, D_P² from {squared.min():.3f} to {squared.max():.3f}: all bounds hold"
)

# %% [markdown]
# And the equality cases, each by a pair:

# %%
for p, k in ((0.0, 3), (0.6, 3), (0.9, 8)):
    apart, none = [(1 - p) / k] * k, [0.0] * k
    a, b = from_spectra(30, [p, *apart, *none], [p, *none, *apart])
    d2, gram_pair = procrustes_distance(a, b, form="squared"), feature_gram_distance(a, b)
    assert abs(d2 - 2 * (1 - p)) < 1e-9
    assert abs(math.sqrt(2 * k) * gram_pair - d2) < 1e-9  # left, both at once
turn = torch.linalg.qr(torch.randn(3, 3))[0]
for spectrum, equal in (([1.0], True), ([0.7, 0.3], True), ([0.5, 0.3, 0.2], False)):
    d = max(2, len(spectrum))
    basis = from_spectra(9, [1.0] * d, [1.0]).teacher
    shape = torch.tensor(spectrum).sqrt().diag()
    a = basis[:, : len(spectrum)] @ shape
    b = (basis @ torch.linalg.qr(turn[:d, :d])[0])[:, : len(spectrum)] @ shape
    d2, gram_pair = procrustes_distance(a, b, form="squared"), feature_gram_distance(a, b)
    assert ((d2 * (2 - d2 / 2)).sqrt() - gram_pair < 1e-9) == equal
x, y = spread_mass(n=2003, directions=2000, lost=0.01, d_teacher=2001)
kappa = 1 / participation_ratio(x).sqrt()
limit = (2 * 2001 * kappa * (1 - cka(x, y))).sqrt()
assert 0.98 < procrustes_distance(x, y, form="squared") / limit <= 1

# %%
curve = np.linspace(0, 1.9, 200)
halves = [flat_halves(256, h) for h in (1, 2, 4, 8, 16, 32, 64, 120)]
path = np.array(
    [
        [float(m(a, b, **UNIT)) for m in (procrustes_distance, feature_gram_distance)]
        for a, b in halves
    ]
)
with geodistill_style():
    fig, ax = plt.subplots()
    ax.scatter(squared, gram, s=5, alpha=0.4, color=look("kd").color, label="random pairs")
    ax.plot(
        curve, np.sqrt(curve * (2 - curve / 2)), color=look("procrustes").color, label="upper bound"
    )
    ax.plot(
        path[:, 0] ** 2, path[:, 1], ":", color=look("gram").color, marker="s", label="flat halves"
    )
    ax.set(
        xlabel="squared Procrustes distance $D_P^2$", ylabel="Gram distance $D_{FG}$", ylim=(0, 1.5)
    )
    ax.legend()
show(
    fig,
    alt="Random pairs of features in the plane of squared Procrustes distance and Gram distance lie "
    "below the upper bound; the flat halves descend towards Gram distance zero at one Procrustes distance",
    source="live",
)

# %% [markdown]
# The points stay below the red curve, and nothing holds them from below but the factor $\sqrt r$. The
# blue squares go down that side: they are the next construction.
#
# ## The Gram distance shares CKA's weakness
#
# :::{prf:proposition} Flat halves (ours)
# :label: prop-flat-halves
#
# Let the teacher be flat on $2h$ directions, $\lambda_i = 1/2h$, and the student flat on the first half of
# them. Then $D_{FG} = 1/\sqrt{2h} \to 0$ as $h$ grows, while $D_P = \sqrt{2 - \sqrt 2}$ and
# $\mathrm{CKA} = 1/\sqrt 2$ for every $h$. In general $D_{FG}^2 \le 1/\mathrm{PR}_X + 1/\mathrm{PR}_Y$.
# :::
#
# :::{prf:proof}
# $K$ and $L$ share eigenvectors. $K - L$ has $2h$ eigenvalues $\pm 1/2h$. $F = h\sqrt{1/2h \cdot 1/h} = 1/\sqrt2$.
# $\langle K, L\rangle = 1/2h$, $\kappa\ell = 1/(\sqrt{2h}\sqrt h)$. In general $\langle K, L\rangle \ge 0$ in the expanded square.
# :::
#
# The student has lost half of the teacher's variance at every $h$, and the Gram distance says that it gets
# better. Here CKA is the one that sees it. The reason is {prf:ref}`prop-gram-identity`: every term of
# $D_{FG}^2$ is divided by a participation ratio. So a table that compares Gram distances of layers with
# different effective rank compares mostly the ranks.

# %%
for h, (a, b) in zip((1, 8, 64), (halves[0], halves[3], halves[6]), strict=True):
    values = feature_gram_distance(a, b, **UNIT), procrustes_distance(a, b, **UNIT), cka(a, b)
    print(f"h = {h:3d}: D_FG {values[0]:.3f}, D_P {values[1]:.3f}, CKA {values[2]:.3f}")
    assert abs(values[0] - 1 / math.sqrt(2 * h)) < 1e-9
    assert abs(values[1] - math.sqrt(2 - math.sqrt(2))) < 1e-9
    assert abs(values[2] - 1 / math.sqrt(2)) < 1e-9
rank_bound = [1 / participation_ratio(a) + 1 / participation_ratio(b) for a, b in halves]
assert all(path[i, 1] ** 2 <= float(b) + 1e-9 for i, b in enumerate(rank_bound))

# %% [markdown]
# So the second claim of the paper stands as a statement about zeros, with the inequalities of
# {prf:ref}`thm-bounds` as its quantitative form; neither distance controls the other free of dimension.
# For the ledger we also test the zero set itself: a turned copy must be at zero in both, and anything
# that is not a turned copy at zero in neither.

# %%
turned = [unit(torch.randn(20, 6)) for _ in range(50)]
turns = [torch.linalg.qr(torch.randn(9, 9))[0] for _ in turned]
copies = [(x, pad(x, (0, 3)) @ q) for x, q in zip(turned, turns, strict=True)]
zeros = max(float(m(a, b)) for a, b in copies for m in (procrustes_distance, feature_gram_distance))
others = (table["procrustes"].min(), gram.min())
together = zeros < 1e-6 < min(others)
bounded = (squared <= upper + 1e-9).all() and (gram <= super_bound + 1e-7).all()
assert together
assert bounded
record(
    claim="C2",
    verdict="holds" if together and bounded else "does not hold",
    value=float((squared / upper).max()),
    unit=f"of its upper bound at most, over {pairs} random pairs",
    detail="Procrustes by Gram",
)
record(
    claim="C2",
    verdict="holds" if together and bounded else "does not hold",
    value=float((gram / super_bound).max()),
    unit=f"of its upper bound at most, over {pairs} random pairs",
    detail="Gram by Procrustes",
)

# %% [markdown]
# ## How good can a narrow student be?
#
# With $d_s < d_t$ the student can't hold everything. Let $\tau = \sum_{i>d_s}\lambda_i$ be the variance
# beyond the teacher's first $d_s$ principal directions.
#
# :::{prf:theorem} Floors (ours; the tools are von Neumann's trace inequality and Cauchy–Schwarz)
# :label: thm-floors
#
# Over all students of width $d_s \le n - 1$,
#
# $$
# D_P^2 \ge 2 - 2\sqrt{1-\tau}, \qquad
# \mathrm{CKA} \le \sqrt{\frac{\sum_{i\le d_s}\lambda_i^2}{\sum_i\lambda_i^2}}, \qquad
# D_{FG}^2 \ge \frac{\tau^2}{d_s} + \sum_{i>d_s}\lambda_i^2 ,
# $$ (eq-floors)
#
# all attained. Procrustes and CKA have *the same* best student, the teacher's top $d_s$ principal scores
# rescaled to unit norm; the Gram distance prefers the flatter spectrum $\lambda_i + \tau/d_s$.
# :::
#
# :::{prf:proof}
# Let $\mu$ be the student's $d_s$ eigenvalues. Von Neumann: $F \le \sum_{i\le d_s}\sqrt{\lambda_i\mu_i} \le
# \sqrt{\sum_{i\le d_s}\lambda_i}\sqrt{\sum\mu_i} = \sqrt{1-\tau}$, equality at $\mu \propto \lambda$.
# $\langle K, L\rangle \le \sum_{i\le d_s}\lambda_i\mu_i \le \sqrt{\sum_{i\le d_s}\lambda_i^2}\,\lVert\mu\rVert$ in
# the same way. For the Gram distance $\lVert K - L\rVert_F^2 \ge \sum_{i\le d_s}(\lambda_i-\mu_i)^2 +
# \sum_{i>d_s}\lambda_i^2$, and the numbers $\mu_i - \lambda_i$ sum to $\tau$; the least sum of squares
# spreads them evenly.
# :::
#
# This tells us what to report. A raw distance mixes what the student failed to learn with what its width
# can't hold and with what any features of that many examples share by chance. So we report
#
# $$
# \text{geometry kept} = \frac{D_{\text{null}} - D}{D_{\text{null}} - D_{\text{best}}} ,
# $$ (eq-kept)
#
# where *best* is the floor and *null* the distance of that best student with its rows shuffled. Null and
# best depend on the teacher, the width and the examples, never on the student: a null made from the
# student's own spectrum would reward a collapsed student.

# %%
spectrum = torch.arange(1, 65) ** -1.0
teacher = unit(torch.randn(400, 64) * spectrum.sqrt())
lam = torch.linalg.svdvals(teacher) ** 2
floors = []
for d in (4, 8, 16, 32):
    tau = float(lam[d:].sum())
    formula = math.sqrt(2 - 2 * math.sqrt(1 - tau))
    library = best(procrustes_distance, teacher, d)
    ceiling = (lam[:d].square().sum() / lam.square().sum()).sqrt()
    gram_floor = (tau**2 / d + lam[d:].square().sum()).sqrt()
    floors.append((d, library, best(cka, teacher, d), null(procrustes_distance, teacher, d)))
    assert abs(library - formula) < 1e-6
    assert abs(best(cka, teacher, d) - ceiling) < 1e-9
    assert abs(best(feature_gram_distance, teacher, d) - gram_floor) < 1e-9
    print("width {}: best D_P {:.3f}, CKA's ceiling {:.3f}, null D_P {:.3f}".format(*floors[-1]))
assert all(f[1] < f[3] for f in floors)

# %% [markdown]
# Read the second and third column together: a width for which CKA's ceiling is all but 1 is still far
# from the teacher in Procrustes distance. CKA weighs a direction by $\lambda_i^2$, Procrustes by
# $\lambda_i$, so CKA is content with the few largest. Both lead to the same student in the end, but
# near the end CKA's pull on the small directions is weak. How weak is the next question.

# %%
same = best_student(procrustes_distance, teacher, 16), best_student(cka, teacher, 16)
assert torch.equal(*same)
flatter = best_student(feature_gram_distance, teacher, 16)
assert participation_ratio(flatter) > participation_ratio(same[0])
assert best(cka, teacher, 16) > 0.95
assert best(procrustes_distance, teacher, 16) > 0.3

# %% [markdown]
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
# Let the student share the teacher's principal directions, with singular values $s_i$ where the teacher has
# $t_i = \sqrt{\lambda_i}$.
#
# - *Near the best*, $s_i = t_i + \delta_i$, the error $\delta_i$ is pulled back at the rate $2$ by Procrustes,
#   $8\lambda_i$ by Gram and $4\lambda_i\,\mathrm{PR}_X$ by CKA (up to a term common to all directions).
# - *A missing direction*, $s_i = \varepsilon$, is pulled with the force $2t_i$ by Procrustes, and with a force of order
#   $\varepsilon$ by the other two.
#
# (That CKA weighs directions by their variance squared, Procrustes by the variance: the literature,
# {cite:t}`cloos2024differentiable`. Rates and the missing direction: ours. The derivative of the nuclear norm:
# {cite:t}`watson1992`.)
# :::
#
# :::{admonition} Proof
# :class: dropdown
#
# $d\lVert X^\top Y\rVert_* = \langle W, X^\top dY\rangle$, $d\langle K, L\rangle = 2\langle KY, dY\rangle$ and $d\ell^2 = 4\langle LY, dY\rangle$.
# Dividing $Y$ by its norm takes the component along $Y$ off the gradient, which is $\langle XW, Y\rangle = F$ in the first
# and $\operatorname{tr}((K-L)L)$ in the second; CKA does not see the norm, so there is none. In common directions the pulls are
# $2(t_i - Fs_i)$, $4s_i(\lambda_i - s_i^2 - \text{c})$ and $\tfrac{2s_i}{\kappa\ell}(\lambda_i - c's_i^2)$ with $c$, $c'$ the same for all
# $i$. Unit norm makes $\sum t_i\delta_i = 0$ to first order, so $F = 1$ up to second order. Expanding in $\delta$ gives
# $-2\delta_i$, $-8\lambda_i\delta_i$ and $-4\lambda_i\delta_i/\kappa^2$ and multiples of $t_i$ and $t_i\lambda_i$; putting
# $s_i = \varepsilon$ gives the last line.
# :::
#
# In other words, near its end Procrustes is as well conditioned as a loss can be, all directions come in together,
# while Gram and CKA take $\lambda_1/\lambda_i$ times longer for direction $i$. And a student that has collapsed sits
# at a stationary point of Gram and CKA; for Procrustes there is a kink in its place, from which it leaves at full
# speed. "Weight $\sigma^2$ against $\sigma$" is the short form.

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
for loss, formula in formulas.items():
    moving = y.clone().requires_grad_()
    loss(moving, x).backward()
    assert torch.allclose(moving.grad, formula, atol=1e-8)

# %%
t = torch.tensor([0.6, 0.3, 0.09, 0.01]).sqrt()
basis = from_spectra(12, [1.0] * 4, [1.0]).teacher
pulls = {}
for loss in formulas:
    for size in (1e-1, 1e-3):  # of the last direction; the others as the teacher has them
        moving = unit(basis * torch.cat([t[:3], torch.tensor([size])])).requires_grad_()
        loss(moving, basis * t).backward()
        pulls[type(loss).__name__, size] = abs(float((basis.T @ moving.grad)[3, 3]))
missing = [pulls[type(loss).__name__, 1e-3] for loss in formulas]
print("pull on a direction of variance 0.01 that is missing:", [f"{p:.5f}" for p in missing])
assert abs(missing[0] - 2 * t[3]) < 0.01
assert max(missing[1:]) < 0.01 * missing[0]

# %%
delta = 1e-4 * torch.tensor([0.0, 0.0, 1.0, -3.0])  # orthogonal to t: 0.3·1 − 0.1·3 = 0
rates = {}
for loss in formulas:
    moving = (basis * (t + delta)).requires_grad_()
    loss(moving, basis * t).backward()
    rates[type(loss).__name__] = ((basis.T @ moving.grad).diagonal() / delta)[2:]
print({name: [round(float(r), 3) for r in rate] for name, rate in rates.items()})
assert torch.allclose(rates["ProcrustesLoss"], torch.tensor([2.0, 2.0]), atol=1e-2)
assert rates["FeatureGramLoss"][0] > 5 * rates["FeatureGramLoss"][1].abs()
assert rates["CKALoss"][0] > 5 * rates["CKALoss"][1].abs()

# %% [markdown]
# ## What centring and unit norm are for
#
# :::{prf:proposition} Each assumption dropped (ours)
# :label: prop-assumptions
#
# 1. *Unit norm.* With $\hat D_P$ of the features at unit norm,
#    $D_P^2 = (\lVert X\rVert - \lVert Y\rVert)^2 + \lVert X\rVert\lVert Y\rVert\,\hat D_P^2$. The identity
#    {eq}`eq-gram-identity` and the left bounds of {eq}`eq-bounds` hold as they stand. $\mathrm{CKA} = 1$ then means
#    $K = cL$ for some $c > 0$, and its zero set is larger than that of the distances.
# 2. *Centring.* All that is said of $D_P$ and $D_{FG}$ holds without it. But let $\eta_X$, $\eta_Y$ be the shares of
#    $\lVert X\rVert_F^2$, $\lVert Y\rVert_F^2$ that centring leaves. Then, whatever the centred geometries,
#
#    $$
#    D_P \le \sqrt{2 - 2\sqrt{1-\eta_X}} + \sqrt{2 - 2\sqrt{1-\eta_Y}} .
#    $$ (eq-mean)
# :::
#
# :::{admonition} Proof
# :class: dropdown
#
# 1. $D_P^2 = \lVert X\rVert^2 + \lVert Y\rVert^2 - 2\lVert X\rVert\lVert Y\rVert \hat F$ and $2\hat F = 2 - \hat D_P^2$. The proofs
#    of the others do not use the traces.
# 2. As a least distance over turns $D_P$ has the triangle inequality. Take $J = uu^\top$, $u = \mathbf 1/\sqrt n$, all
#    examples equal, as a station: $J$ has rank one, so $F(K, J)^2 = u^\top Ku = 1 - \eta_X$.
# :::
#
# | dropped | $D_P$, $D_{FG}$ | CKA | $D_A$ |
# |---|---|---|---|
# | nothing | zero exactly at $K = L$ | 1 exactly at $K = L$ | zero at any injective map |
# | unit norm | zero at $K = L$; the size counts too | 1 at $K = cL$ | grows with $\lVert X\rVert$ |
# | centring | a common mean hides the rest | centred by definition | a constant column is a free bias |
#
# The features of transformers have large means. The cell takes two unrelated sets, and then adds a mean.

# %%
x, y = unit(torch.randn(400, 6)), unit(torch.randn(400, 6))
for c in (0.5, 3.0):
    sized = procrustes_distance(x, c * y, form="squared")
    assert abs(sized - (1 - c) ** 2 - c * procrustes_distance(x, y, form="squared")) < 1e-9
    assert abs(cka(x, c * x) - 1) < 1e-9
    assert abs(procrustes_distance(x, c * x) - abs(1 - c)) < 1e-6
mean = torch.ones(400, 1) / 20 @ torch.tensor([[0.0, 0, 0, 0, 0, 5.0]])
raw = procrustes_distance(x + mean, y + mean, scale="frobenius")
eta = 1 / 26  # the share that centring leaves: 1 of 1 + 25
print(f"unrelated features, centred: D_P {procrustes_distance(x, y):.2f}; with a mean: {raw:.2f}")
assert raw <= 2 * math.sqrt(2 - 2 * math.sqrt(1 - eta))
assert raw < 0.3 < 1 < procrustes_distance(x, y)

# %% [markdown]
# ## Procrustes has two parts
#
# :::{prf:proposition} Spectrum and alignment (ours; the tool is von Neumann's trace inequality)
# :label: prop-parts
#
# $F \le F_{\text{spec}} = \sum_i \sigma_i(X)\,\sigma_i(Y)$, so both parts are $\ge 0$ in
#
# $$
# D_P^2 = \underbrace{(2 - 2F_{\text{spec}})}_{\text{spectrum}}
#       + \underbrace{2\,(F_{\text{spec}} - F)}_{\text{alignment}} .
# $$ (eq-parts)
#
# The first is zero exactly where the spectra agree, and is the least $D_P^2$ over all rotations of the rows of $Y$ in
# example space.
# :::
#
# :::{prf:proof}
# $F \le F_{\text{spec}}$ is von Neumann's inequality for $X^\top Y$; equality needs common singular vectors in the same
# order, which a rotation of the rows of $Y$ can bring about. $2 - 2F_{\text{spec}} = \sum(\sigma_i(X) - \sigma_i(Y))^2$.
# :::
#
# The *spectrum* part asks whether the variances are the teacher's and knows nothing of which row is which.
# The *alignment* part asks whether the same rows carry them. Shuffle the rows and see which part moves.

# %%
student = teacher[:, :32] + 0.002 * torch.randn(400, 32)
shuffled = student[torch.randperm(400)]
for name, features in (("in order", student), ("shuffled", shuffled)):
    parts = procrustes_parts(teacher, features)
    print(f"rows {name}: spectrum {parts[0]:.3f}, alignment {parts[1]:.3f}")
in_order, at_random = procrustes_parts(teacher, student), procrustes_parts(teacher, shuffled)
assert abs(in_order[0] - at_random[0]) < 1e-9
assert at_random[1] > 2 * in_order[1]
assert abs(sum(in_order) - procrustes_distance(teacher, student, form="squared", **UNIT)) < 1e-9

# %% [markdown]
# That gives *controls*. `SpectrumLoss` is the first part alone. Or train a student towards the teacher's rows in a
# random order, a new one each step: nothing of the alignment can be learned. What is left is *not* the teacher's
# spectrum, though. Over all orders $P$ of the rows,
#
# $$
# \mathbb E\, D_P^2(PX, Y) \ge 2 - 2\,\frac{\lVert Y\rVert_*}{\sqrt{n-1}}
# $$ (eq-shuffled)
#
# ([the next chapter](02_finite_samples) proves it), where the teacher does not occur, and which is the lower the
# *flatter* the student's spectrum. So the shuffled teacher is close to the third control, `IsotropyLoss`, which asks
# for a flat spectrum with no teacher at all; and each can do harm of its own. The cell compares two students, one
# with the teacher's own spectrum, one with a flat one.

# %%
centred = teacher - teacher.mean(0)
left, sizes, right = torch.linalg.svd(centred, full_matrices=False)
rank = int((sizes > 1e-9 * sizes[0]).sum())
flat = left[:, :rank] @ right[:rank]
orders = [torch.randperm(400) for _ in range(100)]
bound, by_order = {}, {}
for name, features in (("the teacher's spectrum", centred), ("a flat spectrum", flat)):
    ratio = torch.linalg.svdvals(features).sum() / features.norm()
    bound[name] = 2 - 2 * float(ratio) / math.sqrt(399)
    values = [procrustes_distance(teacher[o], features, form="squared", **UNIT) for o in orders]
    by_order[name] = float(sum(values)) / len(values)
    print(f"{name}: {by_order[name]:.3f} over shuffled rows, bound {bound[name]:.3f}")
assert all(by_order[name] >= bound[name] for name in bound)
assert by_order["a flat spectrum"] < by_order["the teacher's spectrum"] - 0.01

# %% [markdown]
# A gain that the spectrum part brings as well is not owed to which row lies where; one that the other two bring needs
# no teacher's rows either. The chapters on BERT and OPT run all three.
#
# ## The opposite failure
#
# So far a score was good and the geometry gone. It goes the other way too: the function stays, and the scores fall.
#
# :::{prf:proposition} One row is enough (the phenomenon: {cite:t}`davari2022`; these limits: ours)
# :label: prop-outlier
#
# Let $Y_M$ be the teacher's features with row $i$ moved by $Mv$, $|v| = 1$. As $M \to \infty$,
#
# $$
# \mathrm{CKA}(X, Y_M) \to \frac{n}{n-1}\,\frac{k_{ii}}{\kappa}, \qquad
# F \to \sqrt{\frac{n}{n-1}\,k_{ii}} ,
# $$ (eq-outlier)
#
# where $k_{ii}$, the squared length of the centred row $i$, is about $1/n$. All other rows are as they were.
# :::
#
# :::{admonition} Proof
# :class: dropdown
#
# Centred and divided by $M$, $Y_M \to hv^\top$ with $h = He_i$, $|h|^2 = 1 - 1/n$. So $L \to hh^\top/|h|^2$, a matrix of rank one
# and norm 1, and $\langle K, L\rangle \to h^\top Kh/|h|^2 = k_{ii}/(1 - 1/n)$, which is also $F^2$.
# :::
#
# Procrustes is no better here than CKA. A single token with huge activations, of which transformers have some, can
# decide any of these scores; look for it, and mask it. The same holds for an invertible map that the next layer
# undoes: outputs are equal to the last digit, and {prf:ref}`thm-projection` says what the scores may do.

# %%
x = unit(torch.randn(100, 8))
y = x.clone()
y[0] += 1e5 * torch.nn.functional.normalize(torch.randn(8), dim=0)
own = float(x[0] @ x[0]) * 100 / 99
kappa = (x @ x.T).norm()
assert torch.equal(x[1:], y[1:])  # 99 examples of 100 are the same
assert abs(cka(x, y) - own / kappa) < 1e-4
assert abs(procrustes_distance(x, y, form="similarity", center=True) - math.sqrt(own)) < 1e-4
print(f"one row of 100 moved: CKA {cka(x, y):.3f}, D_P {procrustes_distance(x, y, **UNIT):.3f}")
assert cka(x, y) < 0.2

# %% [markdown]
# ## Why would it matter for the task?
#
# :::{prf:theorem} Readouts
# :label: thm-readout
#
# Let $Q$ be the Procrustes map of {eq}`eq-procrustes`. A linear readout $w$ of the teacher is imitated on
# the student by $Qw$, of norm at most $\lVert w\rVert$, and
#
# $$
# \lVert Xw - YQw\rVert \le D_P\,\lVert w\rVert ,
# \qquad
# \frac{\mathbb E\,\lVert Xw - YQw\rVert^2}{\mathbb E\,\lVert Xw\rVert^2} = D_P^2
# $$ (eq-readout)
#
# for $w$ of a uniformly random direction. (The bound is the literature's: {cite:t}`harvey2024metrics` prove more, for
# optimal readouts. The mean is ours.)
# :::
#
# :::{prf:proof}
# $\lVert (X - YQ)w\rVert \le \lVert X - YQ\rVert_F\lVert w\rVert$, and $Q$ has orthonormal rows. For a random direction of length 1
# $\mathbb E\,ww^\top = I/d_t$, so the two means are $\lVert X-YQ\rVert_F^2/d_t = D_P^2/d_t$ and $\lVert X\rVert_F^2/d_t = 1/d_t$.
# :::
#
# So $D_P^2$ has a plain meaning: the share of a random readout's variance that the turned student gets wrong.
#
# A projection gives an imitation too, $Aw$ with $A$ from {eq}`eq-projection`, often a closer one, but of a
# norm that has no bound. The cell measures both for the stretched student of above.

# %%
x = unit(torch.randn(200, 8))
y = unit(x @ torch.logspace(0, 3, 8).diag())
u, _, vh = torch.linalg.svd(y.T @ x)
Q, A = u @ vh, torch.linalg.lstsq(y, x).solution
w = torch.randn(8, 200)
errors = (x @ w - y @ Q @ w).norm(dim=0)
assert (errors <= procrustes_distance(x, y) * w.norm(dim=0) + 1e-12).all()
assert ((Q @ w).norm(dim=0) <= w.norm(dim=0) + 1e-12).all()
shares = (x - y @ Q).square().sum() / x.square().sum()  # the mean over all directions
assert abs(shares - procrustes_distance(x, y, form="squared")) < 1e-9
growth = ((A @ w).norm(dim=0) / w.norm(dim=0)).mean()
print(
    f"norm of the imitating readout: {growth:.0f} times the teacher's by projection, 1 by Procrustes"
)
assert growth > 10

# %% [markdown]
# ## What we learn
#
# - Procrustes distance, Gram distance and CKA (of centred, unit-norm features) have the same zero, equal
#   geometry. The projection's zero set is larger: any injective distortion.
# - Near zero they differ. CKA and the Gram distance forgive variance that is spread over many directions;
#   the Procrustes distance does not. The bounds between them carry $\sqrt r$.
# - Near the end Procrustes pulls on all directions alike, Gram and CKA in proportion to the variance.
# - A narrow student has floors, and a small sample has chance (the next chapter). *Geometry kept* takes both out.
# - Procrustes is a spectrum part plus an alignment part, and only the second needs the teacher's rows.
#
# **What would change our mind.** A pair with $K = L$ and one of the distances above zero, or a random pair
# outside {eq}`eq-bounds`, would break the theorems; one assert above would fail. That geometry should be
# *kept* for a task's sake is no theorem: {prf:ref}`thm-readout` bounds linear readouts of the same layer and
# says nothing of what a trained student does with its own. That is measured in chapters 3 to 6.
#
# ### All results
#
# | result | whose | checked by |
# |---|---|---|
# | {prf:ref}`prop-gram-identity`: Gram is CKA plus effective rank | ours | identity on random features |
# | {prf:ref}`thm-zero-sets`: common zeros | the paper's; CKA: ours | turned copies, random pairs |
# | {prf:ref}`prop-projection-zero`, {prf:ref}`thm-projection`: projections | the paper's; the price: ours | stretched teachers, attained bounds |
# | {prf:ref}`prop-antiparallel`: two directions, perturbed | the paper's; formulas: ours | three sizes |
# | {prf:ref}`thm-spread-mass`: CKA near 1, geometry far | after the paper's; sharpness: ours | formula, random students of rank one |
# | {prf:ref}`thm-bounds`: both ways between $D_P$ and $D_{FG}$ | the literature's; equality cases: ours | random pairs, a pair for each case |
# | {prf:ref}`prop-cka-bound`: CKA bounds both | ours | random pairs, the limit |
# | {prf:ref}`prop-flat-halves`: Gram near 0, geometry far | ours | formula |
# | {prf:ref}`thm-floors`: narrow students | ours | library against formula |
# | {prf:ref}`thm-gradients`: what gradients weigh | the literature's; rates: ours | automatic differentiation |
# | {prf:ref}`prop-assumptions`: centring, unit norm | ours | with and without |
# | {prf:ref}`prop-parts`: spectrum and alignment | ours | shuffled rows |
# | {prf:ref}`prop-outlier`: the opposite failure | the literature's; limits: ours | one row moved |
# | {prf:ref}`thm-readout`: readouts | the literature's; the mean: ours | random readouts |
#
# ## Exercises
#
# :::{exercise}
# :label: ex-theory-scale
#
# Drop the unit norm: let $Y = cX$. What are $D_P$, $D_{FG}$, $\mathrm{CKA}$ and $D_A$ as functions of $c$?
# Check with `procrustes_distance(X, c * X)` and so on.
# :::
#
# :::{solution} ex-theory-scale
# :class: dropdown
#
# $D_P = \bigl|1-|c|\bigr|\,\lVert X\rVert_F$, since the nuclear norm of $cX^\top X$ is $|c|\lVert X\rVert_F^2$;
# $D_{FG} = |1-c^2|\,\lVert XX^\top\rVert_F$; $\mathrm{CKA} = 1$ and $D_A = 0$ for every $c \ne 0$. For
# $c = -1$ the Procrustes distance is zero: $-I$ is a turn.
#
# ```python
# import torch
#
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
# spreads $a$ over $m/2$ directions of its own. Is $1 - \mathrm{CKA}$ at a given $D_P$ larger or smaller than before?
# :::
#
# :::{solution} ex-theory-two-spreads
# :class: dropdown
#
# Smaller. $F = 1-a$ and, for large $m$, $1 - \mathrm{CKA} \approx \frac2m\bigl(\frac{1-F}{F}\bigr)^2$. With one spread,
# $\tau = 1-F^2$ gives $\frac1{2m}\bigl(\frac{1-F^2}{F^2}\bigr)^2$, which is larger by the factor
# $\bigl(\frac{1+F}{2F}\bigr)^2 \ge 1$. A student that spends variance on directions of its own hides the loss from CKA still better.
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
# A colleague takes the null of {eq}`eq-kept` from the *student*: its own distance after its rows are shuffled.
# Whom does that flatter?
# :::
#
# :::{solution} ex-theory-null
# :class: dropdown
#
# Collapsed students. The fewer directions a student uses, the less it can share with the teacher by chance,
# so its own null is farther away and the same distance looks better. Here a student of width 16 has collapsed to the
# teacher's first principal direction.
#
# ```python
# import torch
#
# from geodistill.geometry import best, best_student, geometry_kept, procrustes_distance
#
# torch.manual_seed(0)
# unit = {"center": True, "scale": "frobenius"}
# x = torch.randn(400, 64, dtype=torch.float64) / torch.arange(1, 65) ** 0.5
# y = torch.nn.functional.pad(best_student(procrustes_distance, x, 1), (0, 15))
# shuffled = [procrustes_distance(x, y[torch.randperm(400)], **unit) for _ in range(16)]
# own, floor = sum(shuffled) / 16, best(procrustes_distance, x, 16)
# flattering = (own - procrustes_distance(x, y, **unit)) / (own - floor)
# honest = geometry_kept(procrustes_distance, x, y)
# print(f"geometry kept {honest:.2f}, with its own null {float(flattering):.2f}")
# assert honest + 0.03 < flattering
# ```
# :::
