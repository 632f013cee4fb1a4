"""Second moments of a data set of any size, accumulated over batches, files and processes."""

from __future__ import annotations

from functools import partial
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor
from torch import distributed as dist

from geodistill.errors import InputError
from geodistill.files import atomic_file
from geodistill.geometry.moments import Moments, Scale, noise
from geodistill.geometry.operators import trace
from geodistill.geometry.validation import PAIR, check_finite, flat_rows

_SPREAD = 2654435761  # 2³²/φ: multiples of it lie far apart among the generator's 2³² states


class SecondMoments:
    """Accumulated second moments of paired rows; its memory does not grow with the rows.

    Every measure takes it in place of features: `cka(moments)`, `cka(moments, debiased=True)`. Sums
    are about the running mean (Chan, Golub and LeVeque, 1983): a large mean costs no precision, and
    the result does not depend on the chunks. R², CCA and projection see directions above 1e-7 of
    the largest (1e-3 with float32 sums); uncentred they need means below 1e6 standard deviations.

    Args:
        d_x: width of the first features.
        d_y: width of the second features.
        dtype: of the d × d sums, torch.float64 or torch.float32.
        sample_size: number of row pairs kept as a uniform sample, for measures that need rows.
        seed: of the sample, in [0, 2³¹); objects that are merged need different seeds.
        device: of the sums.

    Raises:
        InputError: an argument is out of its range.

    Example:
        >>> from geodistill.geometry import cka
        >>> rows = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
        >>> moments = SecondMoments(5, 3)
        >>> for part in rows.split(20):
        ...     moments.update(part, part[:, :3])
        >>> torch.allclose(cka(moments), cka(rows, rows[:, :3]))
        True
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
        sample_size: int = 0,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if min(d_x, d_y) < 1 or dtype not in (torch.float32, torch.float64):
            expected = "expected widths of at least 1 and torch.float32 or torch.float64"
            raise InputError(f"d_x = {d_x}, d_y = {d_y}, dtype = {dtype}: {expected}")
        if sample_size < 0 or not 0 <= seed < 2**31:
            expected = "expected sample_size ≥ 0, 0 ≤ seed < 2³¹"
            raise InputError(f"sample_size = {sample_size}, seed = {seed}: {expected}")
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        self.n, self.mean_x, self.mean_y = zeros(()), zeros(d_x), zeros(d_y)
        self.xx, self.yy, self.xy = (
            zeros(*shape, dtype=dtype) for shape in ((d_x, d_x), (d_y, d_y), (d_x, d_y))
        )
        # with u, v the rows about their means and s = (|u|², |v|²): Σ [u v]ᵀs and Σ sᵀs
        self.third, self.fourth = zeros(d_x + d_y, 2), zeros(2, 2)
        self.row_x, self.row_y = (zeros(sample_size, d, dtype=dtype) for d in (d_x, d_y))
        self.keys = zeros(sample_size) + torch.inf  # the sample: the rows of smallest random key
        self.seed = torch.tensor(seed)

    @torch.no_grad()
    def update(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> None:
        """Add rows.

        Args:
            x: features (..., d_x).
            y: features (..., d_y).
            mask: rows that count (...), True = keep.

        Raises:
            InputError: features of other widths, unpaired, not finite or beyond float32 sums.
        """
        x, y, index = flat_rows(x, y, mask)
        x, y = ((f if index is None else f[index]).to(self.mean_x) for f in (x, y))
        check_finite((x, y), PAIR)
        largest = [float(f.abs().max()) for f in (x, y)]
        if self.xy.dtype == torch.float32 and not all(1e-15 < a < 1e15 for a in largest if a):
            expected = "expected 1e-15 to 1e15 for float32 sums, or dtype=torch.float64"
            raise InputError(f"x and y have values up to {largest}: {expected}")
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
        """Add the rows that another object has seen.

        Raises:
            InputError: its widths differ, its sample is smaller, or its seed is the same.
        """
        self._check_widths(tuple(other.xy.shape))
        if (n := self.n + other.n) == 0:
            return
        if len(other.keys) < min(len(self.keys), int(other.n)):
            expected = f"expected sample_size={len(self.keys)} as here"
            raise InputError(
                f"the other keeps {len(other.keys)} of its {int(other.n)} rows: {expected}"
            )
        mean_x = torch.lerp(self.mean_x, other.mean_x, other.n / n)
        mean_y = torch.lerp(self.mean_y, other.mean_y, other.n / n)
        sums, other_sums = (m._about(mean_x, mean_y) for m in (self, other))
        self._sample_from([self, other])
        for name in self._SUMS:
            setattr(self, name, (sums[name] + other_sums[name]).to(getattr(self, name)))
        self.n, self.mean_x, self.mean_y = n, mean_x, mean_y

    @torch.no_grad()
    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Add the rows of all processes of `group`, so that each process holds the total.

        Call it once, at the end, on all processes of an initialised process group.

        Raises:
            InputError: two samples share a seed (raised on every process).
        """

        def total(part: Tensor) -> Tensor:
            part = part.clone()
            dist.all_reduce(part, group=group)
            return part

        if (n := total(self.n)) == 0:
            return
        mean_x, mean_y = (total(self.n / n * mean) for mean in (self.mean_x, self.mean_y))
        sums = {name: total(part) for name, part in self._about(mean_x, mean_y).items()}
        if len(self.keys):
            self._sample_from(self._all_gather(group))
        for name, value in sums.items():
            setattr(self, name, value.to(getattr(self, name)))
        self.n, self.mean_x, self.mean_y = n, mean_x, mean_y

    def sample(self) -> tuple[Tensor, Tensor]:
        """A uniform sample of row pairs, (k, d_x) and (k, d_y) with k ≤ sample_size.

        Raises:
            InputError: the sample is empty.
        """
        filled = self.keys.isfinite()
        if not filled.any():
            raise InputError(
                f"the sample of {len(self.keys)} rows is empty: expected SecondMoments(..., "
                "sample_size=k), then an update"
            )
        return self.row_x[filled], self.row_y[filled]

    def moments(self, *, center: bool, scale: Scale) -> Moments:
        """The moments in float64, centred and scaled.

        Raises:
            InputError: before the first update.
        """
        if self.n == 0:
            raise InputError("SecondMoments has seen no rows: expected an update first")
        means = (self.mean_x, self.mean_y)
        sums = self._about(*(mean if center else 0 * mean for mean in means))
        xx, yy, xy, fourth = (sums[name] for name in ("xx", "yy", "xy", "fourth"))
        about_means = torch.cat([self.xx.diagonal(), self.yy.diagonal()])
        raw = torch.cat([xx.diagonal(), yy.diagonal()])
        if center:  # the rounding of a mean must not give equal values a direction
            varies = raw > noise(self.n * torch.cat(means).square())
            x, y = varies[: len(self.mean_x)], varies[len(self.mean_x) :]
            xx, yy, xy = xx * x.outer(x), yy * y.outer(y), xy * x.outer(y)
        share = (about_means / raw).nan_to_num().max()  # the means are exact
        rounding = torch.finfo(self.xy.dtype).eps * share + torch.finfo(xy.dtype).eps
        sizes = torch.stack([trace(xx), trace(yy)])
        factors = torch.ones_like(sizes) if scale is None else torch.where(sizes > 0, 1 / sizes, 0)
        factors = factors * self.n if scale == "rms" else factors
        a, b = factors
        scaled = (a * xx, b * yy, (a * b).sqrt() * xy, factors.outer(factors) * fourth)
        return Moments(self.n, *scaled, rounding)

    def save(self, path: str | PathLike[str]) -> None:
        """Write sums and sample to a safetensors file, which appears complete or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        try:
            with atomic_file(Path(path)) as partial:
                save_file({name: getattr(self, name).contiguous() for name in self._NAMES}, partial)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: {error}; expected a file that can be written") from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> SecondMoments:
        """Read a file of `save`.

        Raises:
            InputError: the file is missing, damaged or another kind of file.
        """
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
        """An object of the same widths without rows."""
        d_x, d_y = self.xy.shape
        return SecondMoments(d_x, d_y, self.xy.dtype, device=self.xy.device)

    def _about(self, mean_x: Tensor, mean_y: Tensor) -> dict[str, Tensor]:
        """The sums, in float64, about other means: u becomes u + a, v becomes v + b."""
        n, a, b = self.n, self.mean_x - mean_x, self.mean_y - mean_y
        xx, yy, xy = (m.double() for m in (self.xx, self.yy, self.xy))
        sizes = torch.stack([trace(xx), trace(yy)])  # Σs
        shift = torch.cat([a, b])
        norms = torch.stack([a @ a, b @ b])
        # s becomes s + 2 [u·a, v·b] + norms, and Σ[u v] = 0
        mixed = torch.stack([torch.cat([xx @ a, a @ xy]), torch.cat([xy @ b, yy @ b])], dim=1)
        sides = torch.stack([torch.cat([a, 0 * b]), torch.cat([0 * a, b])], dim=1)
        by_size = 4 * sides.mT @ mixed + n * norms.outer(norms)
        crossed = 2 * self.third.mT @ sides + sizes.outer(norms)
        return {
            "xx": xx + n * a.outer(a),
            "yy": yy + n * b.outer(b),
            "xy": xy + n * a.outer(b),
            "third": self.third + 2 * mixed + shift.outer(sizes + n * norms),
            "fourth": self.fourth + crossed + crossed.mT + by_size,
        }

    def _new_keys(self, count: int) -> Tensor:
        """A random number per row, from the seed and the number of rows seen before."""
        seed = (int(self.seed) * _SPREAD + int(self.n)) % 2**32
        keys = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return keys.to(self.keys)

    def _sample_from(self, parts: list[SecondMoments]) -> None:
        """Keep the rows of smallest key among all parts: a uniform sample of all rows."""
        keys = torch.cat([part.keys for part in parts])
        finite = keys[keys.isfinite()]
        if bool((finite.sort().values.diff() == 0).any()):
            raise InputError(
                f"two samples of rows were drawn with one seed (this one's is {int(self.seed)}): "
                "expected another seed for each SecondMoments"
            )
        smallest = keys.argsort()[: len(self.keys)]
        self.row_x = torch.cat([part.row_x for part in parts])[smallest]
        self.row_y = torch.cat([part.row_y for part in parts])[smallest]
        self.keys = keys[smallest]

    def _all_gather(self, group: dist.ProcessGroup | None) -> list[SecondMoments]:
        """The samples of all processes, which must be of one size."""
        parts = [self._empty() for _ in range(dist.get_world_size(group))]
        for name in self._ROWS:
            local = getattr(self, name).contiguous()
            gathered = [torch.empty_like(local) for _ in parts]
            dist.all_gather(gathered, local, group=group)
            for part, tensor in zip(parts, gathered, strict=True):
                setattr(part, name, tensor)
        return parts

    def _check_widths(self, widths: tuple[int, ...]) -> None:
        if widths != tuple(self.xy.shape):
            raise InputError(f"widths (x, y) are {widths}: expected {tuple(self.xy.shape)}")
