"""Every measure of every pair of layers from one set of sums, and what unrelated rows would give.

Each layer is brought to its own principal axes once: spectrum λ, C the cross moment of two layers
there. All measures are functions of the two spectra and C, and C has at most n − 1 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from geodistill.geometry.measures import cka_value, debiased_cka_value, gram_squared
from geodistill.geometry.moments import AnyMoments, Moments, RowMoments, safe_sqrt
from geodistill.geometry.nuclear_norm import nuclear_norm

Nuclear = Callable[[Tensor], Tensor]
_CHUNK = 512  # rows to one matrix product: fewer would only move the large sums through memory


class LayerSums:
    """Means, each layer's second moments and each pair's cross moments of the rows seen so far.

    `widths` are those of the layers of model a and of model b. Memory is flat in the rows. A column
    |x − origin|² is kept beside each layer's features: the same sums then hold the overlaps of row
    norms that debiased CKA needs.
    """

    def __init__(self, widths: tuple[list[int], list[int]], device: torch.device) -> None:
        self.widths = widths
        self.n = 0
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        self._blocks = [[width + 1 for width in side] for side in widths]
        self._means = [zeros(sum(side)) for side in self._blocks]
        self._own = [[zeros(d, d) for d in side] for side in self._blocks]
        self._cross = zeros(sum(self._blocks[0]), sum(self._blocks[1]))
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._origins: list[Tensor] = []

    @staticmethod
    def bytes(widths: tuple[list[int], list[int]]) -> int:
        """Size of the sums."""
        a, b = ([width + 1 for width in side] for side in widths)
        return 8 * (sum(a) * sum(b) + sum(d * d for d in (*a, *b)))

    def update(self, a: Tensor, b: Tensor) -> None:
        """Add paired rows, the layers of each model side by side: (k, Σ d_a), (k, Σ d_b)."""
        self._waiting.append((a, b))
        if sum(len(rows) for rows, _ in self._waiting) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        """Add what waits: Σ (x − new mean)(y − old mean)ᵀ is the exact change of the sums."""
        if not self._waiting:
            return
        sides = [torch.cat(parts).to(self._cross) for parts in zip(*self._waiting, strict=True)]
        self._waiting = []
        self._origins = self._origins or [rows.mean(0) for rows in sides]
        self.n += len(sides[0])
        old, new = [], []
        for s, rows in enumerate(sides):
            rows = _beside_squares(rows - self._origins[s], self.widths[s])
            old.append(rows - self._means[s])
            self._means[s] += old[s].sum(0) / self.n
            new.append(rows - self._means[s])
            split = [_split(rows, self._blocks[s]) for rows in (new[s], old[s])]
            for own, after, before in zip(self._own[s], *split, strict=True):
                own.addmm_(after.T, before)
        self._cross.addmm_(new[0].T, old[1])

    def layers(self, side: int) -> list[Layer]:
        """The layers of model a (0) or b (1) in their principal axes."""
        means = _split(self._means[side], self._blocks[side])
        origins = _split(self._origins[side], self.widths[side])
        each = zip(self._own[side], means, origins, strict=True)
        return [_layer(own, mean, origin, self.n) for own, mean, origin in each]

    def pair(self, i: int, j: int, a: Layer, b: Layer) -> Moments:
        """Moments of layers i of a and j of b, centred and of unit norm, in their own axes."""
        first, second = (
            slice(sum(blocks[:k]), sum(blocks[: k + 1]))
            for blocks, k in zip(self._blocks, (i, j), strict=True)
        )
        cross = self._cross[first, second]
        overlap = a.squares @ cross @ b.squares + a.size * b.size / self.n
        return _moments(self.n, a, b, a.axes.T @ cross[:-1, :-1] @ b.axes, overlap)


def _split(x: Tensor, widths: list[int]) -> tuple[Tensor, ...]:
    """The layers of features that lie side by side."""
    parts: tuple[Tensor, ...] = x.split(widths, -1)  # type: ignore[no-untyped-call]
    return parts


def _beside_squares(rows: Tensor, widths: list[int]) -> Tensor:
    parts = _split(rows, widths)
    return torch.cat([t for p in parts for t in (p, p.square().sum(1, keepdim=True))], 1)


@dataclass(frozen=True)
class Layer:
    """A layer's rows, centred and of unit Frobenius norm, in their principal axes."""

    width: int
    spectrum: Tensor  # (r,) λ, largest first, summing to 1; zeros where all rows are equal
    axes: Tensor  # (d, r): features @ axes are the principal scores
    squares: Tensor  # (d + 1,): weights that make |x|² − mean|x|² of the features and their square
    fourth: Tensor  # Σ |x|⁴

    @property
    def size(self) -> Tensor:
        """1, and 0 where all rows are equal."""
        return self.spectrum.sum()


def _layer(own: Tensor, mean: Tensor, origin: Tensor, n: int) -> Layer:
    own = (own + own.T) / 2
    width = len(own) - 1
    gram, shift = own[:-1, :-1], mean[:-1]
    size = gram.trace()
    noise = (16 * torch.finfo(own.dtype).eps) ** 2 * (size + n * (origin + shift).square().sum())
    inverse = torch.where(size > noise, 1 / size, 0)
    values, axes = torch.linalg.eigh(gram * inverse)
    rank = min(width, n - 1)  # centred rows span no more
    squares = torch.cat([-2 * shift, shift.new_ones(1)]) * inverse
    fourth = squares @ own @ squares + (size * inverse) ** 2 / n
    axes = axes.flip(1)[:, :rank] * inverse.sqrt()
    return Layer(width, values.flip(0)[:rank].clamp_min(0), axes, squares, fourth)


def _moments(n: int, a: Layer, b: Layer, cross: Tensor, overlap: Tensor) -> Moments:
    rows = torch.tensor(n, device=cross.device)
    fourth = torch.stack([a.fourth, overlap, overlap, b.fourth]).reshape(2, 2)
    return Moments(rows, a.spectrum.diag(), b.spectrum.diag(), cross, fourth)


# --- what unrelated rows give ------------------------------------------------------------------


def rotations(n: int, ranks: tuple[int, int], count: int, seed: int) -> list[Tensor]:
    """`count` corners (r_a, r_b) of random orthogonal matrices of size n − 1, flat in n.

    The inner products Uᵀ P V of the principal directions of two centred sets of rows that have
    nothing to do with each other. Rows below the corner enter through their Gram alone, a Wishart
    matrix, drawn by its Cholesky factor (Bartlett, 1933).
    """
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(_corner(n, *ranks, rng)) for _ in range(count)]


def _corner(n: int, r_a: int, r_b: int, rng: np.random.Generator) -> np.ndarray:
    below = n - 1 - r_a
    if below > r_b:
        factor = np.triu(rng.standard_normal((r_b, r_b)), 1)
        factor += np.diag(np.sqrt(rng.chisquare(below - np.arange(r_b))))
    else:
        factor = rng.standard_normal((below, r_b))
    corner: np.ndarray = np.linalg.qr(np.vstack([rng.standard_normal((r_a, r_b)), factor]))[0][:r_a]
    return corner


def unrelated(n: int, a: Layer, b: Layer, corner: Tensor) -> Moments:
    """Moments of two layers with these spectra whose rows have nothing to do with each other."""
    block = corner[: len(a.spectrum), : len(b.spectrum)].to(a.spectrum)
    cross = a.spectrum.sqrt()[:, None] * block * b.spectrum.sqrt()
    return _moments(n, a, b, cross, a.size * b.size / n)


def best_student(measure: str, a: Layer, width: int) -> Layer:
    """The spectrum of the best student of this width: as `geometry.best_student`, with no rows."""
    top = a.spectrum[:width]
    if measure == "gram":
        top = top + (1 - top.sum()).clamp_min(0) / width * (top > 0)
    top = top / top.sum().clamp_min(torch.finfo(top.dtype).tiny)
    return Layer(width, top, a.axes[:, : len(top)], a.squares, a.fourth)


def aligned(n: int, a: Layer, b: Layer) -> Moments:
    """Moments of two layers that share their principal directions, in order."""
    cross = a.spectrum.new_zeros(len(a.spectrum), len(b.spectrum))
    cross.diagonal().copy_((a.spectrum[: len(b.spectrum)] * b.spectrum[: len(a.spectrum)]).sqrt())
    return _moments(n, a, b, cross, cross.new_zeros(()))


def principal_scores(rows: Tensor, widths: list[int]) -> Tensor:
    """Layers side by side (n, Σ d) as principal scores (layers, n, r) of unit norm, zero-padded."""
    scores = []
    for part in _split(rows.double(), widths):
        centred = part - part.mean(0)
        u, s, _ = torch.linalg.svd(centred, full_matrices=False)
        rank = min(len(rows) - 1, part.shape[1])
        scores.append((u * s)[:, :rank] / s.norm().clamp_min(torch.finfo(s.dtype).tiny))
    longest = max(part.shape[1] for part in scores)
    padded = [torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in scores]
    return torch.stack(padded)


def permuted(a: Tensor, b: Tensor, order: Tensor) -> RowMoments:
    """Moments of all pairs of layers (layers, n, r) at once, the rows of b in another order."""
    n = torch.tensor(a.shape[1], device=a.device)
    return RowMoments(n, a[:, None], b[None, :, order])


# --- the measures, of moments in principal axes ------------------------------------------------


def fast_nuclear(c: Tensor) -> Tensor:
    """‖C‖_* to about 1e-8: from the smaller Gram, with no singular vectors."""
    gram = c @ c.mT if c.shape[-2] <= c.shape[-1] else c.mT @ c
    norm: Tensor = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum(-1)
    return norm


def _procrustes(m: AnyMoments, nuclear: Nuclear) -> Tensor:
    return safe_sqrt(m.size_x + m.size_y - 2 * nuclear(m.xy))


def _explained(m: AnyMoments, side: str) -> Tensor:
    """R² of the fit of a's features ("a") from b's, or b's from a's: no inverse in these axes."""
    spectrum = (m.yy if side == "a" else m.xx).diagonal(dim1=-2, dim2=-1)
    floor = spectrum.shape[-1] * torch.finfo(spectrum.dtype).eps * spectrum[..., :1]
    inverse = torch.where(spectrum > floor, 1 / spectrum, 0)
    squares = m.xy.square().sum(-2 if side == "a" else -1)
    fitted = (squares * inverse).sum(-1)
    size = m.size_x if side == "a" else m.size_y
    return torch.where(size > 0, fitted / size, 0).clamp(0, 1)


FORMULAS: dict[str, Callable[[AnyMoments, Nuclear], Tensor]] = {
    "procrustes": _procrustes,
    "gram": lambda m, _: safe_sqrt(gram_squared(m)),
    "cka": lambda m, _: cka_value(m),
    "cka_debiased": lambda m, _: debiased_cka_value(m),
    "projection_to_a": lambda m, _: safe_sqrt(1 - _explained(m, "a")),
    "projection_to_b": lambda m, _: safe_sqrt(1 - _explained(m, "b")),
    "r2_to_a": lambda m, _: _explained(m, "a"),
    "r2_to_b": lambda m, _: _explained(m, "b"),
}
CALIBRATED = ("procrustes", "gram", "cka")
"""Measures whose best value for a student of some width is known."""


def is_similarity(measure: str) -> bool:
    """Whether large values mean alike."""
    return measure.startswith(("cka", "r2"))


def evaluate(m: AnyMoments, names: Iterable[str], nuclear: Nuclear = nuclear_norm) -> list[Tensor]:
    """The measures `names` of these moments."""
    return [FORMULAS[name](m, nuclear) for name in names]
