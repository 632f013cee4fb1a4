"""Losses and measures compared with alternatives; ratios are of minimum processor times."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import Module

from benchmarks.few_rows import features, few_rows, unit_norm
from benchmarks.timing import Row, Runs, peak_memory, ratio, timed
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

    def through(value: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def run() -> None:
            student = y.detach().clone().requires_grad_()
            torch.autograd.backward(value(student))

        return run

    seconds = timed(
        {
            "ours": through(lambda s: loss(s, x)),
            "products": products,
            "svdvals": through(
                lambda s: 2 - 2 * torch.linalg.svdvals(unit_norm(x).mT @ unit_norm(s)).sum()
            ),
        },
        repeats,
        device,
    )
    size, where = f"{n}; {d_t}, {d_s}", "" if device == "cpu" else f" ({device})"
    return [
        ratio(
            f"Procrustes loss over its own products{where}",
            size,
            seconds,
            "ours",
            "products",
            f"<= {max_ratio}",
        ),
        ratio(
            f"svdvals + autograd over Procrustes loss{where}",
            size,
            seconds,
            "svdvals",
            "ours",
            f">= {min_speedup}",
        ),
    ]


def nuclear(p: int, q: int, min_speedup: float, repeats: int, device: str = "cpu") -> list[Row]:
    """Value and gradient on a 1/k spectrum, each solver against svdvals; the gradient's error."""
    c, polar = (t.to(device) for t in _decaying(p, q))

    def through(value: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            leaf = c.clone().requires_grad_()
            torch.autograd.backward(value(leaf))
            assert leaf.grad is not None
            return leaf.grad

        return run

    runs = {
        solver: through(lambda m, s=solver: nuclear_norm(m, s))  # type: ignore[misc]
        for solver in ("auto", "svd", "eigh", "polar_express")
    }
    runs["svdvals"] = through(lambda m: torch.linalg.svdvals(m).sum())
    runs["float64 Gram and eigh"] = lambda: torch.linalg.eigh(c.double().mT @ c.double())
    seconds, size = timed(runs, repeats, device), f"{p}, {q}"
    where = "" if device == "cpu" else f" ({device})"
    measured = []
    for solver in ("auto", "svd", "eigh", "polar_express"):
        target = f">= {min_speedup}" if solver == "auto" else None
        what = f"svdvals + autograd over nuclear_norm, {solver}{where}"
        row = ratio(what, size, seconds, "svdvals", solver, target)
        row["gradient_error"] = float((runs[solver]() - polar).norm() / polar.norm())
        measured.append(row)
    error = measured[0]["gradient_error"]
    ceiling = f"svdvals + autograd over float64 Gram and eigh alone{where}"
    return [
        *measured,
        ratio(ceiling, size, seconds, "svdvals", "float64 Gram and eigh", None),
        {
            "what": f"gradient error of auto, in 1e-5{where}",
            "size": size,
            "ratio": error / 1e-5,
            "target": "<= 1",
            "seconds": {},
        },
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
    memory = {
        "what": "n x n formula over Gram loss, peak memory",
        "size": size,
        "bytes": peak,
        "ratio": peak["square"] / peak["ours"],
        "target": ">= 20",
        "seconds": {},
    }
    return [ratio("n x n formula over Gram loss", size, seconds, "square", "ours", ">= 5"), memory]


def _step(loss: Module, y: Tensor, x: Tensor) -> None:
    loss(y, x).backward()


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
                y, x = features(n, d, 1).requires_grad_(), features(n, d, 0)
                least = timed({"ours": partial(_step, loss, y, x)}, max(3, repeats // 3))
                seconds[str(size)], median[str(size)] = least["ours"], least.median["ours"]
            logs = torch.tensor([[math.log(int(k)), math.log(v)] for k, v in seconds.items()])
            u, v = (logs - logs.mean(0)).T
            measured.append(
                {
                    "what": f"{name} loss: exponent of its cost in {axis}",
                    "size": ", ".join(seconds),
                    "ratio": float(u @ v / (u @ u)),
                    "target": None,
                    "seconds": seconds,
                    "median_seconds": median,
                }
            )
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
    row = ratio(
        "netrep's formula over procrustes_distance",
        f"{n}; {d_t}, {d_s}",
        timed(runs, repeats),
        "rotation",
        "ours",
        ">= 1",
    )
    row["relative_difference"] = difference
    return [row, _difference(row)]


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
    row = ratio("rsatoolbox over cka", size, seconds, "rsatoolbox", "ours", ">= 1")
    row["relative_difference"] = difference
    return [row, _difference(row)]


def _difference(row: Row) -> Row:
    return {
        "what": f"relative difference of {row['what'].replace(' over ', ' and ')}, in 1e-6",
        "size": row["size"],
        "ratio": row["relative_difference"] / 1e-6,
        "target": "<= 1",
        "seconds": {},
    }


def _decaying(p: int, q: int) -> tuple[Tensor, Tensor]:
    """A float32 matrix of singular values 1/k, and its polar factor in float64."""
    u, v = (torch.linalg.qr(features(d, q, s).double())[0] for s, d in ((0, p), (1, q)))
    c = ((u / torch.arange(1, q + 1)) @ v.T).float()
    left, _, right = torch.linalg.svd(c.double(), full_matrices=False)
    return c, left @ right
