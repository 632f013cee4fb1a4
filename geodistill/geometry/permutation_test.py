"""Is it more than chance? Permutation tests of one pair of representations, and of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.moments import RowMoments, Scale, row_moments
from geodistill.geometry.registry import MEASURES
from geodistill.geometry.validation import paired

_CHUNK = 2**22  # numbers of permuted features held at once
_ROUNDING = 1e-9


@dataclass(frozen=True)
class PermutationTest:
    """A measure of one pair, and what it gives with the rows of one side in random orders."""

    observed: float
    null: Tensor  # (permutations,)
    p: float  # (1 + the number of null values at least as alike)/(1 + permutations)


@dataclass(frozen=True)
class SearchTest:
    """The pair that stands out most from its own chance, of many, and how far others get by chance.

    z is a pair's likeness less its mean by its standard deviation, both over all orders of the
    rows, the true one among them: at most permutations/√(1 + permutations).
    """

    best: tuple[int, int]
    observed: float  # the measure of this pair
    z: float
    null: Tensor  # (permutations,): the largest z of all pairs in each order
    p: float  # (1 + the number of null values at least z)/(1 + permutations)


@dataclass(frozen=True)
class Chance:
    """What `against_chance` finds of each pair (..., pairs), and the search's own null."""

    z: Tensor
    p: Tensor  # of this pair alone
    p_search: Tensor  # of this pair as the best of all
    best: Tensor  # (1 + permutations, ...): the largest z in each order


def permutation_test(
    measure: Callable[..., Tensor],
    x: Tensor,
    y: Tensor,
    *,
    permutations: int = 999,
    seed: int = 0,
) -> PermutationTest:
    """Test that x (n, d_x) and y (n, d_y) are more alike than with their rows unpaired.

    `measure` is one of `MEASURES`' functions, or a functools.partial of one with its options. p is
    uniform where rows are independent, and at least 1/(1 + permutations). Rows that belong
    together (tokens of a sentence) are not exchangeable: take one row of each. For a data set that
    does not fit, test `SecondMoments(..., rows=k).sample()`. Raises InputError on unusable features
    or another measure.
    """
    sign, values = _values(measure, [x], [y], permutations, seed)
    found = against_chance(sign * values)
    return PermutationTest(float(values[0, 0]), values[1:, 0], float(found.p[0]))


def search_test(
    measure: Callable[..., Tensor],
    xs: Sequence[Tensor],
    ys: Sequence[Tensor],
    *,
    permutations: int = 999,
    seed: int = 0,
) -> SearchTest:
    """Test the best pair of a search over all x in xs (each (n, d)) and y in ys (each (n, d)).

    The best of many pairs is alike by chance too (Gröger et al., 2026). And a pair of nearly as
    many directions as rows is alike in any order of them: by raw values it would be the best, and
    set the null of all others. So pairs compete in z, each against its own chance, and the largest
    z meets the largest of all pairs under one row order for all of them (Westfall and Young, 1993):
    p holds for the search as a whole. Raises InputError as `permutation_test` does.
    """
    sign, values = _values(measure, list(xs), list(ys), permutations, seed)
    found = against_chance(sign * values)
    k = int(found.z.argmax())
    best = divmod(k, len(ys))
    observed, z, p = (float(one[k]) for one in (values[0], found.z, found.p_search))
    return SearchTest(best, observed, z, found.best[1:], p)


def against_chance(alike: Tensor) -> Chance:
    """z and p of likenesses (1 + permutations, ..., pairs), the first under the true order.

    Large is alike; NaN where a pair has no value. One row order serves all pairs. The true order
    counts among the orders, which keeps p exact.
    """
    mean, sd = alike.mean(0), alike.std(0)
    constant = sd <= _ROUNDING * mean.abs()
    z = torch.where(constant, 0, (alike - mean) / sd)
    best = z.nan_to_num(nan=-torch.inf).amax(-1)
    return Chance(z[0], _share(alike, alike[0]), _share(best[..., None], z[0]), best)


def _share(drawn: Tensor, observed: Tensor) -> Tensor:
    """Of orders at least as alike; the rounding of equal arrangements must not lose a tie."""
    share = (drawn >= observed - _ROUNDING * observed.abs()).double().mean(0)
    return torch.where(observed.isnan(), torch.nan, share)


def _values(
    measure: Callable[..., Tensor],
    xs: Sequence[Tensor],
    ys: Sequence[Tensor],
    permutations: int,
    seed: int,
) -> tuple[int, Tensor]:
    """1 for a similarity or −1, and the measure (1 + permutations, pairs), the true order first."""
    sign = 1 if _is_similarity(measure) else -1
    if permutations < 1 or not xs or not ys:
        raise InputError(
            f"permutations = {permutations}, {len(xs)} xs, {len(ys)} ys: "
            "expected at least 1 of each"
        )
    pairs = [_Permuted(x, y) for x in xs for y in ys]
    if len({pair.n for pair in pairs}) > 1:
        raise InputError(
            f"xs have rows {[len(x) for x in xs]}: expected the same rows in each, in one order"
        )
    return sign, torch.stack([pair.values(measure, permutations, seed) for pair in pairs], 1)


class _Permuted:
    """A pair that stands in a measure for its features, y's rows in many orders at once.

    All that an order leaves as it is, the centred features and either side's own moments, is
    computed once.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, _ = paired(x, y, None, torch.float64)
        if self.x.ndim != 2:
            raise InputError(f"x has shape {tuple(x.shape)}: expected (n, d), one row an example")
        self.n = len(x)
        self.orders: Tensor | None = None  # (b, n)
        self.rows: RowMoments | None = None

    def moments(self, *, center: bool, scale: Scale) -> RowMoments:
        if self.rows is None:
            self.rows = row_moments(self.x, self.y, center=center, scale=scale)
        if self.orders is None:
            return self.rows
        shuffled = RowMoments(self.rows.n, self.rows.x, self.rows.y[self.orders])
        for name in ("xx", "yy", "size_x", "size_y", "kk", "ll"):  # into its cached properties
            vars(shuffled)[name] = getattr(self.rows, name)
        return shuffled

    def values(self, measure: Callable[..., Tensor], permutations: int, seed: int) -> Tensor:
        """The measure, and its values under `permutations` orders, the same for one seed and n."""
        parts = [measure(self).cpu()[None]]
        for orders in _orders(self.n, permutations, seed, max(1, _CHUNK // self.y.numel())):
            self.orders = orders.to(self.y.device)
            parts.append(measure(self).cpu())
        return torch.cat(parts)


def _orders(n: int, permutations: int, seed: int, chunk: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, permutations, chunk):
        count = min(chunk, permutations - start)
        yield torch.stack([torch.randperm(n, generator=generator) for _ in range(count)])


def _is_similarity(measure: Callable[..., Tensor]) -> bool:
    function, form = measure, None
    while isinstance(function, partial):
        form = form or function.keywords.get("form")
        function = function.func
    known = {one.function: one for one in MEASURES.values()}
    if function not in known:
        given = getattr(measure, "__name__", repr(measure))
        names = ", ".join(one.__name__ for one in known)
        raise InputError(f"measure is {given}: expected one of {names}")
    return known[function].similarity or form == "similarity"
