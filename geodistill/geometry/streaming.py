"""Moments of any data set in memory flat in n, over batches, files and processes."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist

from geodistill.errors import InputError
from geodistill.geometry.moments import Moments, Scale, noise, trace
from geodistill.geometry.validation import kept_rows

_SPREAD = 2654435761  # 2³²/φ: multiples of it lie far apart among the generator's 2³² states


class SecondMoments:
    """Accumulated moments of paired rows: measures of any data set in memory flat in n.

    `d_x`, `d_y` are the widths, `dtype` that of the sums. They are kept about the running mean, a
    float64 (Chan, Golub and LeVeque, 1983), so that a large mean costs no precision, and any
    chunking gives one result. Every measure takes it in place of its features: `cka(moments)`,
    `cka(moments, debiased=True)`.

    `rows` pairs of rows are kept besides, a uniform sample of all that were seen, in `sample()`:
    for `permutation_test` and `orthogonality`, which need rows. Moments that are to be merged need
    a `seed` of their own each (a process: its rank).

    >>> moments = SecondMoments(384, 128)
    >>> for teacher, student in batches:
    ...     moments.update(teacher, student)
    >>> procrustes_distance(moments, center=True, scale="frobenius")
    """

    _SUMS = ("xx", "yy", "xy", "third", "fourth")
    _ROWS = ("row_x", "row_y", "keys")
    _NAMES = ("n", "mean_x", "mean_y", *_SUMS, *_ROWS, "seed")

    def __init__(
        self,
        d_x: int,
        d_y: int,
        dtype: torch.dtype = torch.float64,
        *,
        rows: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if min(d_x, d_y) < 1 or dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"d_x = {d_x}, d_y = {d_y}, dtype = {dtype}: expected widths of at least 1 and "
                "torch.float32 or torch.float64"
            )
        if rows < 0 or not 0 <= seed < 2**31:
            raise InputError(f"rows = {rows}, seed = {seed}: expected rows ≥ 0, 0 ≤ seed < 2³¹")

        def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.n, self.mean_x, self.mean_y = zeros(), zeros(d_x), zeros(d_y)
        self.xx, self.yy, self.xy = (
            zeros(*shape, dtype=dtype) for shape in ((d_x, d_x), (d_y, d_y), (d_x, d_y))
        )
        # with u, v the rows about their means and s = (|u|², |v|²): Σ [u v]ᵀs and Σ sᵀs
        self.third, self.fourth = zeros(d_x + d_y, 2), zeros(2, 2)
        self.row_x, self.row_y = zeros(rows, d_x, dtype=dtype), zeros(rows, d_y, dtype=dtype)
        self.keys = zeros(rows) + torch.inf  # the sample: the rows of least random key
        self.seed = torch.tensor(seed)

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        """Add rows x (..., d_x), y (..., d_y), mask (...); raises InputError as the measures do."""
        x, y = (f.to(self.mean_x) for f in kept_rows(x, y, mask))
        self._check_widths((x.shape[-1], y.shape[-1]))
        part = self._empty()
        part.n = torch.full_like(self.n, len(x))
        part.mean_x, part.mean_y = x.mean(0), y.mean(0)
        if len(self.keys):
            part.row_x, part.row_y = x.to(self.xy), y.to(self.xy)
            part.keys = self._new_keys(len(x))
        x, y = x - part.mean_x, y - part.mean_y
        squares = torch.stack([x.square().sum(1), y.square().sum(1)], dim=1)
        part.third = torch.cat([x, y], dim=1).mT @ squares
        part.fourth = squares.mT @ squares
        x, y = x.to(self.xy), y.to(self.xy)
        part.xx, part.yy, part.xy = x.mT @ x, y.mT @ y, x.mT @ y
        self.merge(part)

    @torch.no_grad()
    def merge(self, other: SecondMoments) -> None:
        """Add what another has seen; raises InputError for other widths or a seed used twice."""
        self._check_widths(tuple(other.xy.shape))
        n = self.n + other.n
        if n == 0:
            return
        if len(other.keys) < min(len(self.keys), int(other.n)):
            raise InputError(
                f"the other keeps {len(other.keys)} of its {int(other.n)} rows: expected rows="
                f"{len(self.keys)} as here"
            )
        share = other.n / n
        mean_x = self.mean_x + share * (other.mean_x - self.mean_x)
        mean_y = self.mean_y + share * (other.mean_y - self.mean_y)
        ours, theirs = (m._about(mean_x, mean_y) for m in (self, other))
        self._keep_least([self, other])
        for name in self._SUMS:
            setattr(self, name, ours[name] + theirs[name])
        self.n, self.mean_x, self.mean_y = n, mean_x, mean_y

    @torch.no_grad()
    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Add what every process of `group` has seen: afterwards each holds the whole.

        Call it once, at the end, on all processes; it needs an initialised process group, and sums
        on its device. Raises InputError, everywhere, where two samples share a seed.
        """

        def total(part: Tensor) -> Tensor:
            part = part.clone()
            dist.all_reduce(part, group=group)
            return part

        n = total(self.n)
        if n == 0:
            return
        mean_x, mean_y = (total(self.n / n * mean) for mean in (self.mean_x, self.mean_y))
        sums = {name: total(part) for name, part in self._about(mean_x, mean_y).items()}
        if len(self.keys):
            self._keep_least(self._gathered(group))
        for name, value in sums.items():
            setattr(self, name, value)
        self.n, self.mean_x, self.mean_y = n, mean_x, mean_y

    def sample(self) -> tuple[Tensor, Tensor]:
        """Up to `rows` pairs of rows, (k, d_x) and (k, d_y), each equally likely to be among them.

        Raises InputError where no rows are kept.
        """
        kept = self.keys.isfinite()
        if not kept.any():
            raise InputError(
                f"the sample of {len(self.keys)} rows is empty: expected rows=k when SecondMoments "
                "is made, then an update"
            )
        return self.row_x[kept], self.row_y[kept]

    def moments(self, *, center: bool, scale: Scale) -> Moments:
        """In float64, centred and scaled; raises InputError before the first update."""
        if self.n == 0:
            raise InputError("SecondMoments has seen no rows: expected an update first")
        origin = (torch.zeros_like(self.mean_x), torch.zeros_like(self.mean_y))
        centre = (self.mean_x, self.mean_y) if center else origin
        sums = {name: part.double() for name, part in self._about(*centre).items()}
        n, fourth = self.n, sums["fourth"]
        xx, yy, xy = sums["xx"], sums["yy"], sums["xy"]
        if scale is None:
            return Moments(n, xx, yy, xy, fourth)
        raw = (trace(m.double()) for m in (self.xx, self.yy))
        means = (self.mean_x, self.mean_y)
        whole = [size + n * mean.square().sum() for size, mean in zip(raw, means, strict=True)]
        sizes = torch.stack([trace(xx), trace(yy)])
        factors = _inverse_squared_norms(sizes, torch.stack(whole), self.xy.dtype)
        factors = factors * n if scale == "rms" else factors
        a, b = factors
        return Moments(n, a * xx, b * yy, (a * b).sqrt() * xy, factors.outer(factors) * fourth)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the sums, and the sample, to a safetensors file, whole or not at all.

        Raises InputError where that is not possible.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        part = Path(f"{fspath(path)}.part")
        try:
            save_file({name: getattr(self, name).contiguous() for name in self._NAMES}, part)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise InputError(f"{path}: {error}; expected a file that can be written") from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SecondMoments:
        """Read what `save` wrote; raises InputError where there is none, or a damaged or other."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: {error}; expected a file of SecondMoments.save") from error
        if set(tensors) != set(cls._NAMES):
            raise InputError(f"{path} holds {sorted(tensors)}: expected {sorted(cls._NAMES)}")
        d_x, d_y = tensors["xy"].shape
        loaded = cls(d_x, d_y, dtype=tensors["xy"].dtype)
        for name, value in tensors.items():
            setattr(loaded, name, value)
        return loaded

    def _empty(self) -> SecondMoments:
        """One of the same widths, without rows."""
        d_x, d_y = self.xy.shape
        return SecondMoments(d_x, d_y, self.xy.dtype, device=self.xy.device)

    def _about(self, mean_x: Tensor, mean_y: Tensor) -> dict[str, Tensor]:
        """The sums that the same rows give about other means: u becomes u + a, v becomes v + b."""
        n, a, b = self.n, self.mean_x - mean_x, self.mean_y - mean_y
        xx, yy, xy = self.xx.double(), self.yy.double(), self.xy.double()
        sizes = torch.stack([trace(xx), trace(yy)])  # Σs
        shift = torch.cat([a, b])
        norms = torch.stack([a @ a, b @ b])
        # s becomes s + 2 [u·a, v·b] + norms, and Σ[u v] = 0
        mixed = torch.stack([torch.cat([xx @ a, a @ xy]), torch.cat([xy @ b, yy @ b])], dim=1)
        sides = torch.stack([_beside(a, b, 0), _beside(a, b, 1)], dim=1)
        crossed = 2 * self.third.mT @ sides + sizes.outer(norms)
        return {
            "xx": self.xx + (n * a.outer(a)).to(self.xx),
            "yy": self.yy + (n * b.outer(b)).to(self.yy),
            "xy": self.xy + (n * a.outer(b)).to(self.xy),
            "third": self.third + 2 * mixed + shift.outer(sizes + n * norms),
            "fourth": self.fourth
            + crossed
            + crossed.mT
            + 4 * sides.mT @ mixed
            + n * norms.outer(norms),
        }

    def _new_keys(self, count: int) -> Tensor:
        """One random number a row, of the seed and the rows seen before: a reload goes on alike."""
        seed = (int(self.seed) * _SPREAD + int(self.n)) % 2**32
        keys = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return keys.to(self.keys)

    def _keep_least(self, parts: list[SecondMoments]) -> None:
        """The rows of least key among all parts': a uniform sample of all rows."""
        keys = torch.cat([part.keys for part in parts])
        finite = keys[keys.isfinite()]
        if bool((finite.sort().values.diff() == 0).any()):
            raise InputError(
                f"two samples of rows were drawn with one seed (this one's is {int(self.seed)}): "
                "expected another seed for each SecondMoments"
            )
        least = keys.argsort()[: len(self.keys)]
        self.row_x = torch.cat([part.row_x for part in parts])[least]
        self.row_y = torch.cat([part.row_y for part in parts])[least]
        self.keys = keys[least]

    def _gathered(self, group: dist.ProcessGroup | None) -> list[SecondMoments]:
        """Every process's sample; all must keep the same number of rows."""
        parts = [self._empty() for _ in range(dist.get_world_size(group))]
        for name in self._ROWS:
            mine = getattr(self, name).contiguous()
            theirs = [torch.empty_like(mine) for _ in parts]
            dist.all_gather(theirs, mine, group=group)
            for part, tensor in zip(parts, theirs, strict=True):
                setattr(part, name, tensor)
        return parts

    def _check_widths(self, given: tuple[int, ...]) -> None:
        if given != tuple(self.xy.shape):
            raise InputError(f"widths (x, y) are {given}: expected {tuple(self.xy.shape)}")


def _beside(a: Tensor, b: Tensor, side: int) -> Tensor:
    """[a 0] or [0 b]."""
    parts = [a, torch.zeros_like(b)] if side == 0 else [torch.zeros_like(a), b]
    return torch.cat(parts)


def _inverse_squared_norms(sizes: Tensor, raw: Tensor, dtype: torch.dtype) -> Tensor:
    """1/‖X‖_F² for each, and 0 where all rows are equal; dtype is that of the sums."""
    varies = sizes > noise(raw, dtype)
    return torch.where(varies, torch.where(varies, sizes, 1).reciprocal(), 0)
