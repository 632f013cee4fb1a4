"""Losses and measures compared with alternatives; ratios are of minimum processor times."""

from __future__ import annotations

import importlib.util
import math
from functools import partial

import torch
from torch import Tensor

from benchmarks.few_rows import features, few_rows, unit_norm
from benchmarks.timing import Row, Runs, on, peak_memory, ratio, row, timed, with_gradient
from geodistill.geometry import cka, nuclear_norm, procrustes_distance
from geodistill.losses import FeatureGramLoss, ProcrustesLoss


def rows(repeats: int, *, tiny: bool = False) -> list[Row]:
    """All comparisons: what, size, ratio (alternative over ours unless stated), target, seconds."""
    shrink = 16 if tiny else 1
    measured: list[Row] = []
    for n, d_t, d_s, max_ratio, min_speedup in (
        (2048, 1024, 512, 3.0, 1.25),
        (2048, 768, 128, 2.2, 2.0),
    ):
        measured += procrustes(n // shrink, d_t // shrink, d_s // shrink, max_ratio, repeats)
        measured += nuclear(d_t // shrink, d_s // shrink, min_speedup, repeats)
    measured += gram(8192 // shrink, 768 // shrink, 384 // shrink, max(3, repeats // 3))
    for n, d in ((64, 1536), (32, 4096), (8, 4096)):
        measured += few_rows(max(4, n // shrink), d // shrink, d // shrink, repeats)
    measured += costs(repeats, shrink)
    if importlib.util.find_spec("rsatoolbox"):
        measured += rsatoolbox(1024 // shrink, 384 // shrink, 128 // shrink, repeats)
    measured += netrep(2048 // shrink, 384 // shrink, 128 // shrink, repeats)
    return measured


def rows_on_gpu(repeats: int, *, tiny: bool = False) -> list[Row]:
    """The loss and the nuclear norm on a GPU; `rows` measures them on a CPU."""
    shrink = 16 if tiny else 1
    n, d_t, d_s = 8192 // shrink, 2048 // shrink, 768 // shrink
    measured = procrustes(n, d_t, d_s, 3.0, repeats, device="cuda", min_speedup=20.0)
    measured += nuclear(d_t, d_s, 20.0, repeats, device="cuda")
    return measured + nuclear(768 // shrink, 128 // shrink, 2.0, repeats, device="cuda")


def procrustes(
    n: int,
    d_t: int,
    d_s: int,
    max_ratio: float,
    repeats: int,
    device: str = "cpu",
    min_speedup: float = 1.1,
) -> list[Row]:
    """The loss with its gradient, relative to its products and to autograd through svdvals."""
    x, y = (t.to(device) for t in (features(n, d_t, 0), features(n, d_s, 1)))
    loss = ProcrustesLoss()  # one for all steps, as in a training: it looks at the spectrum once

    def products() -> Tensor:
        cross = x.mT @ y
        return x @ cross

    def by_svdvals(student: Tensor) -> Tensor:
        overlap: Tensor = torch.linalg.svdvals(unit_norm(x).mT @ unit_norm(student)).sum()
        return 2 - 2 * overlap

    runs: Runs = {
        "ours": with_gradient(partial(loss, teacher=x), y),
        "products": products,
        "svdvals": with_gradient(by_svdvals, y),
    }
    seconds, size = timed(runs, repeats, device), f"{n}; {d_t}, {d_s}"
    over_products = f"Procrustes loss over its own products{on(device)}"
    over_loss = f"svdvals + autograd over Procrustes loss{on(device)}"
    return [
        ratio(over_products, size, seconds, "ours", "products", f"<= {max_ratio}"),
        ratio(over_loss, size, seconds, "svdvals", "ours", f">= {min_speedup}"),
    ]


def nuclear(p: int, q: int, min_speedup: float, repeats: int, device: str = "cpu") -> list[Row]:
    """Value and gradient on a 1/k spectrum, each solver against svdvals; the gradient's error."""
    c, polar = (t.to(device) for t in _decaying(p, q))

    solvers = {
        name: with_gradient(partial(nuclear_norm, solver=name), c)
        for name in ("auto", "svd", "eigh", "polar_express")
    }
    runs: Runs = {
        **solvers,
        "svdvals": with_gradient(lambda m: torch.linalg.svdvals(m).sum(), c),
        "float64 Gram and eigh": lambda: torch.linalg.eigh(c.double().mT @ c.double()),
    }
    seconds, size = timed(runs, repeats, device), f"{p}, {q}"
    measured = []
    for name, gradient in solvers.items():
        target = f">= {min_speedup}" if name == "auto" else None
        what = f"svdvals + autograd over nuclear_norm, {name}{on(device)}"
        error = float((gradient() - polar).norm() / polar.norm())
        compared = ratio(what, size, seconds, "svdvals", name, target)
        measured.append(compared | {"gradient_error": error})
    ceiling = f"svdvals + autograd over float64 Gram and eigh alone{on(device)}"
    error = measured[0]["gradient_error"]
    return [
        *measured,
        ratio(ceiling, size, seconds, "svdvals", "float64 Gram and eigh", None),
        row(f"gradient error of auto, in 1e-5{on(device)}", size, error / 1e-5, "<= 1"),
    ]


def gram(n: int, d_t: int, d_s: int, repeats: int) -> list[Row]:
    """The Gram loss against the n x n formula: time, and memory beyond the inputs."""
    x, y = features(n, d_t, 0), features(n, d_s, 1)

    def square() -> Tensor:
        a, b = unit_norm(x), unit_norm(y)
        return (a @ a.mT - b @ b.mT).square().sum()

    loss = FeatureGramLoss()
    runs: Runs = {"ours": lambda: loss(y, x), "square": square}
    seconds, size = timed(runs, repeats), f"{n}; {d_t}, {d_s}"
    peak = {name: peak_memory(run, x, y) for name, run in runs.items()}
    what = "n x n formula over Gram loss"
    memory = peak["square"] / peak["ours"]
    return [
        ratio(what, size, seconds, "square", "ours", ">= 5"),
        row(f"{what}, peak memory", size, memory, ">= 20", bytes=peak),
    ]


def costs(repeats: int, shrink: int) -> list[Row]:
    """Seconds of the losses against n and d, with the exponent of a least-squares fit."""
    measured = []
    for name, loss in (("Procrustes", ProcrustesLoss()), ("Gram", FeatureGramLoss())):
        for axis, sizes in (
            ("n", (1024, 2048, 4096, 8192, 16384)),
            ("d", (64, 128, 256, 512, 1024)),
        ):
            seconds: dict[str, float] = {}
            median: dict[str, float] = {}
            for size in (full // shrink for full in sizes):
                n, d = (size, 256 // shrink) if axis == "n" else (2048 // shrink, size)
                y, x = features(n, d, 1), features(n, d, 0)
                step = with_gradient(partial(loss, teacher=x), y)
                least = timed({"ours": step}, max(3, repeats // 3))
                seconds[str(size)], median[str(size)] = least["ours"], least.median["ours"]
            logs = torch.tensor([[math.log(int(k)), math.log(v)] for k, v in seconds.items()])
            u, v = (logs - logs.mean(0)).T
            what, exponent = f"{name} loss: exponent of its cost in {axis}", float(u @ v / (u @ u))
            fit = row(what, ", ".join(seconds), exponent, seconds=seconds)
            measured.append(fit | {"median_seconds": median})
    return measured


def netrep(n: int, d_t: int, d_s: int, repeats: int) -> list[Row]:
    """procrustes_distance against netrep's formula: padding and an explicit rotation by an SVD."""
    x, y = features(n, d_t, 0).double(), features(n, d_s, 1).double()

    def rotation() -> Tensor:
        padded = torch.nn.functional.pad(y, (0, d_t - d_s))
        u, _, vh = torch.linalg.svd(x.mT @ padded)
        difference: Tensor = (x @ u - padded @ vh.mT).norm()
        return difference

    runs: Runs = {"ours": lambda: procrustes_distance(x, y), "rotation": rotation}
    difference = abs(float(runs["ours"]() / runs["rotation"]()) - 1)
    seconds, size = timed(runs, repeats), f"{n}; {d_t}, {d_s}"
    what = "netrep's formula over procrustes_distance"
    compared = ratio(what, size, seconds, "rotation", "ours", ">= 1")
    return [compared, _difference(what, size, difference)]


def rsatoolbox(n: int, d_t: int, d_s: int, repeats: int) -> list[Row]:
    """cka against rsatoolbox's whitened cosine of squared distances, which is linear CKA."""
    from rsatoolbox.data import Dataset  # type: ignore[import-not-found]
    from rsatoolbox.rdm import calc_rdm, compare  # type: ignore[import-not-found]

    x, y = features(n, d_t, 0).double(), features(n, d_s, 1).double()

    def whitened() -> float:
        rdms = [calc_rdm(Dataset(features.numpy()), method="euclidean") for features in (x, y)]
        return float(compare(*rdms, method="cosine_cov").item())

    runs: Runs = {"ours": lambda: cka(x, y), "rsatoolbox": whitened}
    difference = abs(float(runs["ours"]()) / runs["rsatoolbox"]() - 1)
    seconds, size = timed(runs, max(3, repeats // 3)), f"{n}; {d_t}, {d_s}"
    what = "rsatoolbox over cka"
    compared = ratio(what, size, seconds, "rsatoolbox", "ours", ">= 1")
    return [compared, _difference(what, size, difference)]


def _difference(what: str, size: str, difference: float) -> Row:
    name = f"relative difference of {what.replace(' over ', ' and ')}, in 1e-6"
    return row(name, size, difference / 1e-6, "<= 1")


def _decaying(p: int, q: int) -> tuple[Tensor, Tensor]:
    """A float32 matrix of singular values 1/k, and its polar factor in float64."""
    u, v = (torch.linalg.qr(features(d, q, s).double())[0] for s, d in ((0, p), (1, q)))
    c = ((u / torch.arange(1, q + 1)) @ v.T).float()
    left, _, right = torch.linalg.svd(c.double(), full_matrices=False)
    return c, left @ right
