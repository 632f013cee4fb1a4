"""Fewer rows than columns, such as one row per sentence: the n x n side against alternatives."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import Row, Runs, peak_memory, ratio, row, timed, with_gradient
from geodistill.geometry import procrustes_distance
from geodistill.losses import ProcrustesLoss


def few_rows(n: int, d_t: int, d_s: int, repeats: int) -> list[Row]:
    """Fewer rows than columns, against a plain n × n implementation and scipy.

    Time of the measure and of the loss with its gradient, and peak bytes beyond the features.
    """
    from scipy.spatial import procrustes as disparity

    x, y = features(n, d_t, 0), features(n, d_s, 1)

    def plain(student: Tensor) -> Tensor:
        """‖K_x^½ K_y^½‖_* of n × n Grams, by autograd through a Cholesky-like root."""
        roots = []
        for rows in (unit_norm(x), unit_norm(student)):
            values, vectors = torch.linalg.eigh(rows @ rows.mT)
            roots.append(vectors * values.clamp_min(1e-12).sqrt())
        overlap: Tensor = torch.linalg.svdvals(roots[0].mT @ roots[1]).sum()
        return 2 - 2 * overlap

    unit = {"center": True, "scale": "frobenius", "form": "squared"}
    loss = ProcrustesLoss()
    runs: Runs = {
        "loss": with_gradient(partial(loss, teacher=x), y),
        "plain loss": with_gradient(plain, y),
        "measure": lambda: procrustes_distance(x, y, **unit),  # type: ignore[arg-type]
        "plain": lambda: plain(y),
    }
    size = f"{n}; {d_t}, {d_s}"
    seconds = timed(runs, repeats)
    peak = {name: peak_memory(runs[name], x, y) for name in ("measure", "plain")}
    measured = [
        ratio(
            "n < d: Procrustes loss over plain n x n", size, seconds, "loss", "plain loss", "<= 6"
        ),
        ratio(
            "n < d: procrustes_distance over plain n x n", size, seconds, "measure", "plain", "<= 4"
        ),
        row(
            "n < d: peak memory over plain n x n",
            size,
            peak["measure"] / peak["plain"],
            "<= 6",
            bytes=peak,
        ),
    ]
    if d_t == d_s and d_t <= 1536:  # scipy pads no side, and its d × d SVD takes minutes beyond
        a, b = x.double().numpy(), y.double().numpy()
        against = timed({"measure": runs["measure"], "scipy": lambda: disparity(a, b)}, 1)
        measured.append(
            ratio(
                "n < d: scipy over procrustes_distance", size, against, "scipy", "measure", ">= 1"
            )
        )
    return measured


def features(n: int, d: int, seed: int) -> Tensor:
    """Rows of a falling spectrum."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) * torch.arange(1, d + 1) ** -0.5


def unit_norm(x: Tensor) -> Tensor:
    """The rows centred, of Frobenius norm 1."""
    x = x - x.mean(0)
    unit: Tensor = x / x.norm()
    return unit
