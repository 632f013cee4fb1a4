"""Permutation tests: is a pair of representations, or the best pair of a search, above chance?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry.column_space import narrow
from geodistill.geometry.measure_properties import MEASURES
from geodistill.geometry.moments import RowMoments, Scale, row_moments
from geodistill.geometry.validation import paired

_CHUNK = 2**22  # numbers of permuted features held at once
_ROUNDING = 1e-9
_INVARIANT = ("xx", "yy", "size_x", "size_y", "kk", "ll", "basis_x")  # under new orders of y's rows


@dataclass(frozen=True)
class PermutationTest:
    """Result of `permutation_test`.

    Attributes:
        observed: the measure of the pair.
        null: its values with the rows of one side in random orders (permutations,).
        p: (1 + number of null values at least as similar)/(1 + permutations).

    Example:
        >>> from geodistill.geometry import cka
        >>> x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        >>> len(permutation_test(cka, x, x, permutations=9).null)
        9
    """

    observed: float
    null: Tensor
    p: float


@dataclass(frozen=True)
class SearchTest:
    """Result of `search_test`.

    Attributes:
        best_pair: indices (into xs, into ys) of the pair with the largest z.
        observed: the measure of that pair.
        z: its similarity, standardised over all row orders, the true one included; at most
            permutations/√(1 + permutations).
        null: the largest z of all pairs in each random order (permutations,).
        p: (1 + number of null values of at least z)/(1 + permutations).

    Example:
        >>> from geodistill.geometry import cka
        >>> x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        >>> search_test(cka, [x], [-x, x * x], permutations=9).best_pair
        (0, 0)
    """

    best_pair: tuple[int, int]
    observed: float
    z: float
    null: Tensor
    p: float


@dataclass(frozen=True)
class PermutationPValues:
    """Result of `permutation_pvalues`.

    Attributes:
        z: of each pair (..., pairs).
        p: of each pair by itself (..., pairs).
        p_search: of each pair as the best of all (..., pairs).
        largest_z: over the pairs, in each order (1 + permutations, ...).
    """

    z: Tensor
    p: Tensor
    p_search: Tensor
    largest_z: Tensor


def permutation_test(
    measure: Callable[..., Tensor],
    x: Tensor,
    y: Tensor,
    *,
    permutations: int = 999,
    seed: int = 0,
) -> PermutationTest:
    """Test that paired rows are more similar than unpaired rows.

    p is uniform under the null hypothesis if rows are independent. Rows that belong together, such
    as the tokens of a sentence, are not exchangeable: take one row of each. For a data set that
    does not fit into memory, test `SecondMoments(..., sample_size=k).sample()`.

    Args:
        measure: a function of `MEASURES`, or a functools.partial of one with its options.
        x: features (n, d_x).
        y: features (n, d_y).
        permutations: number of random row orders; p is at least 1/(1 + permutations).
        seed: of the orders.

    Raises:
        InputError: unusable features, no permutation, or another measure.

    Example:
        >>> from geodistill.geometry import cka
        >>> x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        >>> permutation_test(cka, x, 2 * x, permutations=99).p
        0.01
    """
    sign, values = _values(measure, [x], [y], permutations, seed)
    result = permutation_pvalues(sign * values)
    return PermutationTest(float(values[0, 0]), values[1:, 0], float(result.p[0]))


def search_test(
    measure: Callable[..., Tensor],
    xs: Sequence[Tensor],
    ys: Sequence[Tensor],
    *,
    permutations: int = 999,
    seed: int = 0,
) -> SearchTest:
    """Test the best pair of a search over all x in xs and y in ys.

    The best of many pairs is similar by chance too (Gröger et al., 2026), and a pair of nearly as
    many directions as rows is similar in any row order. So pairs are ranked by z, each against its
    own null distribution, and the largest z is compared with the largest of all pairs in each
    order, the same order for all pairs (Westfall and Young, 1993): p holds for the whole search.

    Args:
        measure: as in `permutation_test`.
        xs: features, each (n, d).
        ys: features, each (n, d).
        permutations: number of random row orders.
        seed: of the orders.

    Raises:
        InputError: as `permutation_test`, and for features with different numbers of rows.

    Example:
        >>> from geodistill.geometry import cka
        >>> x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
        >>> search_test(cka, [x], [x.abs(), x], permutations=99).best_pair
        (0, 1)
    """
    sign, values = _values(measure, list(xs), list(ys), permutations, seed)
    result = permutation_pvalues(sign * values)
    k = int(result.z.argmax())
    observed, z, p = (float(value[k]) for value in (values[0], result.z, result.p_search))
    return SearchTest(divmod(k, len(ys)), observed, z, result.largest_z[1:], p)


def permutation_pvalues(similarity: Tensor) -> PermutationPValues:
    """z and p of each pair, by itself and as the best of all.

    Args:
        similarity: (1 + permutations, ..., pairs), large = similar, the true order first; one row
            order serves all pairs. NaN where a pair has no value.
    """
    mean, sd = similarity.mean(0), similarity.std(0)
    constant = sd <= _ROUNDING * mean.abs()
    z = torch.where(constant, 0, (similarity - mean) / sd)
    largest = z.nan_to_num(nan=-torch.inf).amax(-1)
    p, p_search = _share(similarity, similarity[0]), _share(largest[..., None], z[0])
    return PermutationPValues(z[0], p, p_search, largest)


def _share(null: Tensor, observed: Tensor) -> Tensor:
    """Share of orders at least as similar, up to rounding: ties must count."""
    share = (null >= observed - _ROUNDING * observed.abs()).double().mean(0)
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
    pairs = [_PermutedPair(x, y) for x in xs for y in ys]
    if len({pair.n for pair in pairs}) > 1:
        raise InputError(
            f"xs have rows {[len(x) for x in xs]}: expected the same rows in each, in one order"
        )
    return sign, torch.stack([pair.values(measure, permutations, seed) for pair in pairs], 1)


class _PermutedPair:
    """A pair that a measure takes in place of features, with y's rows in many orders at once.

    What no order changes is computed once: the centred features, rotated into n columns if they
    have more, and each side's own moments and bases.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y, _ = paired(x, y, None, torch.float64)
        if self.x.ndim != 2:
            raise InputError(f"x has shape {tuple(x.shape)}: expected (n, d), one row per example")
        self.n = len(x)
        self.orders: Tensor | None = None  # (b, n)
        self.rows: RowMoments | None = None

    def moments(self, *, center: bool, scale: Scale) -> RowMoments:
        if self.rows is None:
            rows = row_moments(self.x, self.y, center=center, scale=scale)
            x, y = narrow(rows.x), narrow(rows.y)
            self.rows = row_moments(x, y, center=center, scale=None)  # twice: `moments_for_fits`
        if self.orders is None:
            return self.rows
        shuffled = RowMoments(self.rows.n, self.rows.x, self.rows.y[self.orders])
        # into its cached properties, as far as the measure of the true order needed them
        computed = vars(self.rows)
        vars(shuffled).update({name: computed[name] for name in _INVARIANT if name in computed})
        if "basis_y" in computed:
            vars(shuffled)["basis_y"] = self.rows.basis_y[self.orders]
        return shuffled

    def values(self, measure: Callable[..., Tensor], permutations: int, seed: int) -> Tensor:
        """The measure in the true order, then in random orders that depend on seed and n alone."""
        parts = [measure(self).cpu()[None]]
        largest = max(self.n * min(self.n, f.shape[-1]) for f in (self.x, self.y))
        for orders in _orders(self.n, permutations, seed, max(1, _CHUNK // largest)):
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
    known = {entry.function: entry for entry in MEASURES.values()}
    if function not in known:
        name = getattr(measure, "__name__", repr(measure))
        names = ", ".join(f.__name__ for f in known)
        raise InputError(f"measure is {name}: expected one of {names}")
    return known[function].similarity or form == "similarity"
