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
# Each theorem says whose it is. All of them are checked on numbers by the cell below them: a claim
# in the text has an `assert` beside it.

# %% tags=["parameters"]
profile = "laptop"
seed = 0

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.nn.functional import pad

from geodistill.analysis.style import geodistill_style, look
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
from geodistill.publish.ledger import record
from geodistill.publish.provenance import show

torch.manual_seed(seed)
torch.set_default_dtype(torch.float64)
UNIT = {"center": True, "scale": "frobenius"}
pairs = {"smoke": 100, "laptop": 1500, "paper": 20000}[profile]

# %% [markdown]
# ## Geometry is the matrix of inner products
#
# Write the teacher's features of $n$ examples as the rows of $X$ ($n \times d_t$), the student's as
# the rows of $Y$ ($n \times d_s$). The *feature geometry* is the matrix of all inner products between
# examples,
#
# $$
# K = XX^\top, \qquad L = YY^\top ,
# $$ (eq-grams)
#
# both $n \times n$ whatever the widths. Lengths, angles and distances of the feature vectors can be
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
# where the minimum is over matrices with orthonormal rows ($d_s \le d_t$) and $\lVert\cdot\rVert_*$,
# the *nuclear norm*, is the sum of the singular values. The **feature Gram distance** compares the
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


def unit(x: torch.Tensor) -> torch.Tensor:
    x = x - x.mean(0)
    return x / x.norm()


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
# :::{prf:proposition} The Gram loss is CKA plus a match of effective rank
# :label: prop-gram-identity
#
# For centred features of unit Frobenius norm,
#
# $$
# D_{FG}^2 = \frac{1}{\mathrm{PR}_X} + \frac{1}{\mathrm{PR}_Y}
#          - \frac{2\,\mathrm{CKA}}{\sqrt{\mathrm{PR}_X\,\mathrm{PR}_Y}} .
# $$ (eq-gram-identity)
# :::

# %%
pr = participation_ratio(x), participation_ratio(y)
identity = 1 / pr[0] + 1 / pr[1] - 2 * cka(x, y) / (pr[0] * pr[1]).sqrt()
print(f"D_FG² {feature_gram_distance(x, y) ** 2:.10f}, by the identity {identity:.10f}")
assert abs(feature_gram_distance(x, y) ** 2 - identity) < 1e-10

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
# CKA approaches 1 while $D_P$ stays where it is. The general statement is about spectra. Let the
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
# :::
#
# :::{prf:proof}
# $K$ and $L$ share eigenvectors, so $\langle K, L\rangle = 1-\tau$, $\lVert L\rVert_F = 1$,
# $\lVert K\rVert_F^2 = (1-\tau)^2 + m(\tau/m)^2$ and $F = \sqrt{(1-\tau)\cdot 1}$. Choose $\tau$ from $D$,
# then $m$ from $\varepsilon$. Centred rows span at most $n-1$ dimensions, which bounds $m$.
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
# distance is small, how small must the other be? Let $r = \min(n-1,\, d_s+d_t)$, a bound on the rank of
# $K - L$.
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
# The first is the inequality of Fuchs and van de Graaf {cite:p}`fuchs1999`; the last follows from
# "super-fidelity is at least fidelity squared" (Miszczak and colleagues, 2009). Their use for
# distillation is ours, as far as we know.
# :::
#
# :::{prf:proof}
# Fuchs and van de Graaf: $1 - F \le \tfrac12\lVert K - L\rVert_*$, and $2 - 2F = D_P^2$. A matrix of rank
# $r$ has $\lVert M\rVert_* \le \sqrt r\lVert M\rVert_F$. For the last, let $a = \lVert K\rVert_F^2$,
# $b = \lVert L\rVert_F^2$. Super-fidelity gives
# $F^2 \le \langle K, L\rangle + \sqrt{(1-a)(1-b)} \le \langle K, L\rangle + 1 - (a+b)/2$,
# that is $D_{FG}^2 = a + b - 2\langle K, L\rangle \le 2 - 2F^2$, and with $F = 1 - D_P^2/2$ the right side
# is $D_P^2(2 - D_P^2/2)$.
# :::
#
# CKA is bounded the same way, so a small $1 - \mathrm{CKA}$ *does* bound the geometry, only with a
# constant that grows with the rank.
#
# :::{prf:proposition} CKA bounds geometry, with a constant that grows (ours)
# :label: prop-cka-bound
#
# $$
# D_{FG} \le \sqrt{2(1-\mathrm{CKA})}\;\bigl(1 + \sqrt r\,\lVert L\rVert_F\bigr)\,\lVert K\rVert_F .
# $$ (eq-cka-bound)
# :::
#
# :::{prf:proof}
# Let $\Delta = K/\lVert K\rVert_F - L/\lVert L\rVert_F$, so $\lVert\Delta\rVert_F^2 = 2(1-\mathrm{CKA})$. Both
# traces are 1, hence $\lvert 1/\lVert K\rVert_F - 1/\lVert L\rVert_F\rvert = \lvert\operatorname{tr}\Delta\rvert
# \le \sqrt r\lVert\Delta\rVert_F$. Take norms in
# $K - L = \lVert K\rVert_F\,\Delta + (\lVert K\rVert_F/\lVert L\rVert_F - 1)\,L$.
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
            "cka bound": float(
                (2 - 2 * cka(x, y)).clamp_min(0).sqrt() * (1 + r**0.5 * el.norm()) * k.norm()
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
assert (gram <= table["cka bound"] + 1e-7).all()
assert squared.min() < 0.05
assert squared.max() > 1  # near and far were tried
print(
    f"{pairs} random pairs, D_P² from {squared.min():.3f} to {squared.max():.3f}: all bounds hold"
)

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
# Over all students of width $d_s$,
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
# near the end CKA's pull on the small directions is weak. How weak, in steps of an optimiser, is the
# question of the next chapter.

# %%
same = best_student(procrustes_distance, teacher, 16), best_student(cka, teacher, 16)
assert torch.equal(*same)
flatter = best_student(feature_gram_distance, teacher, 16)
assert participation_ratio(flatter) > participation_ratio(same[0])
assert best(cka, teacher, 16) > 0.95
assert best(procrustes_distance, teacher, 16) > 0.3

# %% [markdown]
# ## Procrustes has two parts
#
# The fidelity can't exceed what the two spectra allow,
# $F \le F_{\text{spec}} = \sum_i \sigma_i(X)\,\sigma_i(Y)$ (von Neumann), so
#
# $$
# D_P^2 = \underbrace{(2 - 2F_{\text{spec}})}_{\text{spectrum}}
#       + \underbrace{2\,(F_{\text{spec}} - F)}_{\text{alignment}} .
# $$ (eq-parts)
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
# That gives a *placebo*. Train a student towards the teacher's row-shuffled features: it gets the spectrum
# part's pull and none of the alignment. A gain that the placebo brings as well is not owed to the teacher's
# geometry. Chapters 3 and 4 run it.
#
# ## A few examples look alike by chance
#
# Independent features share nothing. Their CKA should be 0 and their $D_P^2$ 2, and with endless examples
# they are. Not with thirty {cite:p}`groger2026,murphy2024`.

# %%
counts = [8, 16, 32, 64, 128, 512, 2048]
repeats = {"smoke": 2, "laptop": 8, "paper": 50}[profile]
wide, narrow = (torch.arange(1, d + 1) ** -0.5 for d in (384, 128))
chance = np.zeros((3, repeats, len(counts)))
for i, n in enumerate(counts):
    for j in range(repeats if n < 1000 else 2):
        a, b = torch.randn(n, 384) * wide, torch.randn(n, 128) * narrow
        chance[:, j, i] = [
            float(cka(a, b)),
            float(procrustes_distance(a, b, form="squared", **UNIT)),
            float(cka(a, b, debiased=True)),
        ]
    chance[:, j + 1 :, i] = np.nan
mean, spread = np.nanmean(chance, axis=1), np.nanstd(chance, axis=1)
assert (np.diff(mean[0]) < 0).all()
assert (np.diff(mean[1]) > 0).all()
assert mean[0, 2] > 0.3  # 32 examples: CKA by chance alone
assert np.abs(mean[2, 3:]).max() < 0.2

with geodistill_style():
    fig, ax = plt.subplots()
    for values, sd, name, label, style in (
        (mean[0], spread[0], "cka", "CKA (truth 0)", "-"),
        (mean[2], spread[2], "cka", "CKA, debiased (truth 0)", ":"),
        (mean[1], spread[1], "procrustes", "$D_P^2$ (truth 2)", "-"),
    ):
        ax.plot(
            counts, values, style, color=look(name).color, marker=look(name).marker, label=label
        )
        ax.fill_between(counts, values - sd, values + sd, color=look(name).color, alpha=0.2)
    ax.set(xscale="log", xlabel="examples n", ylabel=f"value, mean ± sd of ≤ {repeats} draws")
    ax.legend()
show(
    fig,
    alt="For independent features of widths 384 and 128, CKA falls from near one towards zero and the "
    "squared Procrustes distance rises towards two only as the number of examples grows into thousands",
    source="live",
)

# %% [markdown]
# A loss on one vector per sentence and a batch of 32 lives at the left of this figure: a good part of what
# it lowers was never there. It is one reason to compare tokens, of which a batch has hundreds, and always
# to set *null* beside a number.
#
# ## Why would it matter for the task?
#
# :::{prf:theorem} Readouts (ours; Harvey and colleagues {cite:p}`harvey2024metrics` have the full theory)
# :label: thm-readout
#
# Let $Q$ be the Procrustes map of {eq}`eq-procrustes`. A linear readout $w$ of the teacher is imitated on
# the student by $Qw$, of norm at most $\lVert w\rVert$, and
#
# $$
# \lVert Xw - YQw\rVert \le D_P\,\lVert w\rVert .
# $$ (eq-readout)
# :::
#
# :::{prf:proof}
# $\lVert (X - YQ)w\rVert \le \lVert X - YQ\rVert_F\lVert w\rVert$, and $Q$ has orthonormal rows.
# :::
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
# - A narrow student has floors, and a small sample has chance. *Geometry kept* takes both out.
# - Procrustes is a spectrum part plus an alignment part, and only the second needs the teacher's rows.
#
# **What would change our mind.** A pair with $K = L$ and one of the distances above zero, or a random pair
# outside {eq}`eq-bounds`, would break the theorems; one assert above would fail. That geometry should be
# *kept* for a task's sake is no theorem: {prf:ref}`thm-readout` bounds linear readouts of the same layer and
# says nothing of what a trained student does with its own. That is measured in chapters 3 to 5.
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
# $D_P = |1-c|\,\lVert X\rVert_F$ for $c \ge 0$, since the nuclear norm of $cX^\top X$ is $c\lVert X\rVert_F^2$;
# $D_{FG} = |1-c^2|\,\lVert XX^\top\rVert_F$; $\mathrm{CKA} = 1$ and $D_A = 0$ for every $c \ne 0$. For
# $c = -1$ the Procrustes distance is zero: $-I$ is a turn.
# :::
#
# :::{exercise}
# :label: ex-theory-rank-one
#
# Show that the upper bound $D_{FG} \le D_P\sqrt{2 - D_P^2/2}$ is an equality if $K$ and $L$ have rank one.
# Where in the figure do such pairs lie? Build one with `from_spectra` or by hand.
# :::
#
# :::{solution} ex-theory-rank-one
# :class: dropdown
#
# With unit vectors, $K = uu^\top$, $L = vv^\top$: $F = |u^\top v|$, $\langle K, L\rangle = F^2$, so
# $D_{FG}^2 = 2 - 2F^2$, the right side in the proof. They lie on the red curve. For instance
# `b = from_spectra(9, [1, 1], [1]).teacher`, then `b[:, :1]` and `b @ torch.tensor([[c], [s]])` with
# $c^2 + s^2 = 1$; the cell below the exercises asserts it.
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
# so its own null is farther away and the same distance looks better. The cell below compares both scores for
# a student of width 16 that has collapsed to the teacher's first principal direction.
# :::

# %%
b = from_spectra(9, [1.0, 1.0], [1.0]).teacher
for angle in (0.3, 0.8, 1.4):
    other = b @ torch.tensor([[math.cos(angle)], [math.sin(angle)]])
    d2 = procrustes_distance(b[:, :1], other, form="squared", **UNIT)
    assert abs(feature_gram_distance(b[:, :1], other, **UNIT) - (d2 * (2 - d2 / 2)).sqrt()) < 1e-9
first = pad(best_student(procrustes_distance, teacher, 1), (0, 15))
honest = geometry_kept(procrustes_distance, teacher, first)
own_null = np.mean(
    [float(procrustes_distance(teacher, first[torch.randperm(400)], **UNIT)) for _ in range(16)]
)
distance, floor = (
    procrustes_distance(teacher, first, **UNIT),
    best(procrustes_distance, teacher, 16),
)
flattering = float((own_null - distance) / (own_null - floor))
print(f"collapsed student: geometry kept {honest:.2f}, with its own null {flattering:.2f}")
assert honest + 0.03 < flattering
assert procrustes_distance(X, -X) < 1e-6
