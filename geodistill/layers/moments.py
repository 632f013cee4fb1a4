"""Measures of all pairs of layers from moments that are summed in one pass, and their null values.

Each layer is rotated once into its principal axes: spectrum λ, and C the cross moment of two layers
there. All measures are functions of the two spectra and C, and C has at most n − 1 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from geodistill.geometry.formulas import cka_value, debiased_cka_value, gram_squared
from geodistill.geometry.moments import AnyMoments, Moments, RowMoments, noise
from geodistill.geometry.nuclear import nuclear_norm
from geodistill.geometry.operators import safe_divide, safe_sqrt

NuclearNorm = Callable[[Tensor], Tensor]
Widths = tuple[list[int], list[int]]
"""Widths of the layers of model a and of model b."""
_CHUNK = 512  # rows per matrix product: fewer would mostly move the large sums through memory


class LayerMoments:
    """Means, second moments of each layer and cross moments of each pair, of the rows seen so far.

    Memory does not grow with the rows. The column |x − origin|² is appended to each layer's
    features, so the same sums contain the overlaps of row norms that debiased CKA needs.

    Attributes:
        widths: of the layers of both models.
        n: number of rows.
    """

    def __init__(self, widths: Widths, device: torch.device) -> None:
        self.widths = widths
        self.n = 0
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        self._blocks = [[width + 1 for width in side] for side in widths]
        self._means = [zeros(sum(side)) for side in self._blocks]
        self._second = [[zeros(d, d) for d in side] for side in self._blocks]
        self._cross = zeros(sum(self._blocks[0]), sum(self._blocks[1]))
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._origins: list[Tensor] = []

    @staticmethod
    def bytes(widths: Widths) -> int:
        """Memory of the sums."""
        a, b = ([width + 1 for width in side] for side in widths)
        return 8 * (sum(a) * sum(b) + sum(d * d for d in (*a, *b)))

    def update(self, a: Tensor, b: Tensor) -> None:
        """Add paired rows, the layers of each model concatenated: (k, Σ d_a), (k, Σ d_b)."""
        self._pending.append((a, b))
        if sum(len(rows) for rows, _ in self._pending) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        """Add pending rows: Σ (x − new mean)(y − old mean)ᵀ is the exact change of the sums."""
        if not self._pending:
            return
        sides = [torch.cat(parts).to(self._cross) for parts in zip(*self._pending, strict=True)]
        self._pending = []
        self._origins = self._origins or [rows.mean(0) for rows in sides]
        self.n += len(sides[0])
        old, new = [], []
        for s, rows in enumerate(sides):
            rows = _append_squares(rows - self._origins[s], self.widths[s])
            old.append(rows - self._means[s])
            self._means[s] += old[s].sum(0) / self.n
            new.append(rows - self._means[s])
            split = [_split(rows, self._blocks[s]) for rows in (new[s], old[s])]
            for second, after, before in zip(self._second[s], *split, strict=True):
                second.addmm_(after.T, before)
        self._cross.addmm_(new[0].T, old[1])

    def layers(self) -> tuple[list[Layer], list[Layer]]:
        """The layers of model a and of model b in their principal axes, of all rows."""
        self._flush()
        sides = []
        for side in (0, 1):
            means = _split(self._means[side], self._blocks[side])
            origins = _split(self._origins[side], self.widths[side])
            sums = zip(self._second[side], means, origins, strict=True)
            sides.append([_layer(second, mean, origin, self.n) for second, mean, origin in sums])
        return sides[0], sides[1]

    def pair(self, i: int, j: int, a: Layer, b: Layer) -> Moments:
        """Moments of layers i of a and j of b, centred, with unit norm, in their own axes."""
        first, second = (
            slice(sum(blocks[:k]), sum(blocks[: k + 1]))
            for blocks, k in zip(self._blocks, (i, j), strict=True)
        )
        cross = self._cross[first, second]
        overlap = a.squares @ cross @ b.squares + a.size * b.size / self.n
        return _moments(self.n, a, b, a.axes.T @ cross[:-1, :-1] @ b.axes, overlap)


def _split(x: Tensor, widths: list[int]) -> tuple[Tensor, ...]:
    """The layers of concatenated features."""
    parts: tuple[Tensor, ...] = x.split(widths, -1)  # type: ignore[no-untyped-call]
    return parts


def _append_squares(rows: Tensor, widths: list[int]) -> Tensor:
    parts = _split(rows, widths)
    return torch.cat([t for p in parts for t in (p, p.square().sum(1, keepdim=True))], 1)


@dataclass(frozen=True)
class Layer:
    """A layer's rows, centred and with unit Frobenius norm, in their principal axes.

    Attributes:
        width: d.
        spectrum: λ (r,), largest first, summing to 1; zeros if all rows are equal.
        axes: (d, r); features @ axes are the principal scores.
        squares: (d + 1,), weights that give |x|² − mean|x|² from the features and their square.
        fourth: Σ |x|⁴.
    """

    width: int
    spectrum: Tensor
    axes: Tensor
    squares: Tensor
    fourth: Tensor

    @property
    def size(self) -> Tensor:
        """1, or 0 if all rows are equal."""
        return self.spectrum.sum()


def _layer(second: Tensor, mean: Tensor, origin: Tensor, n: int) -> Layer:
    second = (second + second.T) / 2
    width = len(second) - 1
    gram, shift = second[:-1, :-1], mean[:-1]
    size = gram.trace()
    raw = size + n * (origin + shift).square().sum()
    inverse = torch.where(size > noise(raw), 1 / size, 0)
    values, axes = torch.linalg.eigh(gram * inverse)
    rank = min(width, n - 1)  # of centred rows
    squares = torch.cat([-2 * shift, shift.new_ones(1)]) * inverse
    fourth = squares @ second @ squares + (size * inverse) ** 2 / n
    axes = axes.flip(1)[:, :rank] * inverse.sqrt()
    return Layer(width, values.flip(0)[:rank].clamp_min(0), axes, squares, fourth)


def _moments(n: int, a: Layer, b: Layer, cross: Tensor, overlap: Tensor) -> Moments:
    rows = torch.tensor(n, device=cross.device)
    fourth = torch.stack([a.fourth, overlap, overlap, b.fourth]).reshape(2, 2)
    return Moments(rows, a.spectrum.diag(), b.spectrum.diag(), cross, fourth)


# --- unrelated rows, best students, permuted rows ----------------------------------------------


def haar_corners(n: int, ranks: tuple[int, int], count: int, seed: int) -> list[Tensor]:
    """`count` corners (r_a, r_b) of Haar-random orthogonal matrices of size n − 1.

    These are the inner products Uᵀ P V of the principal directions of two unrelated sets of n
    centred rows. Cost does not grow with n: the rows below the corner enter only through their
    Gram matrix, which is Wishart and drawn by its Cholesky factor (Bartlett, 1933).
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


def null_moments(n: int, a: Layer, b: Layer, corner: Tensor) -> Moments:
    """Moments of unrelated rows with the spectra of two layers."""
    block = corner[: len(a.spectrum), : len(b.spectrum)].to(a.spectrum)
    cross = a.spectrum.sqrt()[:, None] * block * b.spectrum.sqrt()
    return _moments(n, a, b, cross, a.size * b.size / n)


def best_student_layer(measure: str, a: Layer, width: int) -> Layer:
    """`geometry.best_student` of a layer by its spectrum, without rows."""
    top = a.spectrum[:width]
    if measure == "gram":
        top = top + (1 - top.sum()).clamp_min(0) / width * (top > 0)
    top = top / top.sum().clamp_min(torch.finfo(top.dtype).tiny)
    return Layer(width, top, a.axes[:, : len(top)], a.squares, a.fourth)


def aligned_moments(n: int, a: Layer, b: Layer) -> Moments:
    """Moments of two layers with the same principal directions, in order."""
    cross = a.spectrum.new_zeros(len(a.spectrum), len(b.spectrum))
    cross.diagonal().copy_((a.spectrum[: len(b.spectrum)] * b.spectrum[: len(a.spectrum)]).sqrt())
    return _moments(n, a, b, cross, cross.new_zeros(()))


def layer_scores(rows: Tensor, widths: list[int]) -> Tensor:
    """Principal scores (layers, n, r) of concatenated layers (n, Σ d), unit norm, zero-padded."""
    scores = []
    for part in _split(rows.double(), widths):
        centred = part - part.mean(0)
        u, s, _ = torch.linalg.svd(centred, full_matrices=False)
        rank = min(len(rows) - 1, part.shape[1])
        scores.append((u * s)[:, :rank] / s.norm().clamp_min(torch.finfo(s.dtype).tiny))
    width = max(part.shape[1] for part in scores)
    return torch.stack([torch.nn.functional.pad(x, (0, width - x.shape[1])) for x in scores])


def permuted_moments(a: Tensor, b: Tensor, order: Tensor) -> RowMoments:
    """Moments of all pairs of layers (layers, n, r), the rows of b in another order."""
    n = torch.tensor(a.shape[1], device=a.device)
    return RowMoments(n, a[:, None], b[None, :, order])


# --- the measures, of moments in principal axes ------------------------------------------------


def nuclear_norm_fast(c: Tensor) -> Tensor:
    """‖C‖_* to about 1e-8, from the smaller Gram matrix, without singular vectors."""
    gram = c @ c.mT if c.shape[-2] <= c.shape[-1] else c.mT @ c
    norm: Tensor = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum(-1)
    return norm


def _explained(m: AnyMoments, side: str) -> Tensor:
    """R² of a's features fitted by b's ("a") or of b's by a's; no inverse in these axes."""
    spectrum = (m.yy if side == "a" else m.xx).diagonal(dim1=-2, dim2=-1)
    floor = spectrum.shape[-1] * torch.finfo(spectrum.dtype).eps * spectrum[..., :1]
    inverse = torch.where(spectrum > floor, 1 / spectrum, 0)
    squares = m.xy.square().sum(-2 if side == "a" else -1)
    fitted = (squares * inverse).sum(-1)
    return safe_divide(fitted, m.size_x if side == "a" else m.size_y).clamp(0, 1)


FORMULAS: dict[str, Callable[[AnyMoments, NuclearNorm], Tensor]] = {
    "procrustes": lambda m, nuclear: safe_sqrt(m.size_x + m.size_y - 2 * nuclear(m.xy)),
    "gram": lambda m, _: safe_sqrt(gram_squared(m)),
    "cka": lambda m, _: cka_value(m),
    "cka_debiased": lambda m, _: debiased_cka_value(m),
    "projection_to_a": lambda m, _: safe_sqrt(1 - _explained(m, "a")),
    "projection_to_b": lambda m, _: safe_sqrt(1 - _explained(m, "b")),
    "r2_to_a": lambda m, _: _explained(m, "a"),
    "r2_to_b": lambda m, _: _explained(m, "b"),
}
NORMALIZABLE = ("procrustes", "gram", "cka")
"""Measures whose best value for a student of a given width is known."""


def is_similarity(measure: str) -> bool:
    """Whether larger values mean more similar."""
    return measure.startswith(("cka", "r2"))


def measure_values(
    m: AnyMoments, names: Iterable[str], nuclear: NuclearNorm = nuclear_norm
) -> list[Tensor]:
    """The measures `names` of these moments."""
    return [FORMULAS[name](m, nuclear) for name in names]
