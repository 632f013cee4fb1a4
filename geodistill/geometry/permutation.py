"""Is it more than chance? Permutation tests of one pair of representations, and of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.inputs import paired
from geodistill.geometry.moments import RowMoments, Scale, row_moments
from geodistill.geometry.properties import MEASURES

_CHUNK = 2**22  # numbers of permuted features held at once


@dataclass(frozen=True)
class PermutationTest:
    """A measure of one pair, and what it gives with the rows of one side in random orders."""

    observed: float
    null: Tensor  # (permutations,)
    p: float  # (1 + the number of null values at least as alike)/(1 + permutations)


@dataclass(frozen=True)
class SearchTest:
    """The most alike of many pairs, and the most alike of them under each random order."""

    best: tuple[int, int]
    observed: float
    null: Tensor  # (permutations,)
    p: float


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
    found = search_test(measure, [x], [y], permutations=permutations, seed=seed)
    return PermutationTest(found.observed, found.null, found.p)


def search_test(
    measure: Callable[..., Tensor],
    xs: Sequence[Tensor],
    ys: Sequence[Tensor],
    *,
    permutations: int = 999,
    seed: int = 0,
) -> SearchTest:
    """Test the best pair of a search over all x in xs (each (n, d)) and y in ys (each (n, d)).

    The best of many pairs is alike by chance too. Its null is the best of all pairs (the largest
    similarity, the smallest distance) under one row order for all of them, so p holds for the
    search as a whole. Gröger et al. (2026). Raises InputError as `permutation_test` does.
    """
    sign = 1 if _is_similarity(measure) else -1
    if permutations < 1 or not xs or not ys:
        raise InputError(
            f"permutations = {permutations}, {len(xs)} xs, {len(ys)} ys: "
            "expected at least 1 of each"
        )
    pairs = {(i, j): _Permuted(x, y) for i, x in enumerate(xs) for j, y in enumerate(ys)}
    if len({pair.n for pair in pairs.values()}) > 1:
        raise InputError(
            f"xs have rows {[len(x) for x in xs]}: expected the same rows in each, in one order"
        )
    values = {key: float(measure(pair)) for key, pair in pairs.items()}
    best = max(values, key=lambda key: sign * values[key])
    observed = values[best]
    null = sign * torch.full((permutations,), -torch.inf, dtype=torch.float64)
    better = torch.maximum if sign > 0 else torch.minimum
    for pair in pairs.values():
        null = better(null, pair.null(measure, permutations, seed))
    slack = 1e-9 * abs(observed)  # the rounding of equal arrangements must not count as a win
    alike = int((sign * null >= sign * observed - slack).sum())
    return SearchTest(best, observed, null, (1 + alike) / (1 + permutations))


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

    def null(self, measure: Callable[..., Tensor], permutations: int, seed: int) -> Tensor:
        """Values under `permutations` orders, which depend on the seed and n alone."""
        parts = []
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
