"""Tokens that dominate the layers of a model, found in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from geodistill.geometry.outliers import (
    REFERENCE_ROWS,
    bulk_center,
    direction_dominates,
    rows_dominate,
    squared_distance_outliers,
)
from geodistill.layers.moments import Layer


class TokenDistances:
    """Squared distances of tokens from the centre of the bulk of each layer.

    The centre is that of the first 512 tokens. Four bytes per token and layer are kept.

    Args:
        widths: of the layers.

    Example:
        >>> distances = TokenDistances([2, 1])
        >>> distances.update(torch.tensor([[3.0, 0.0, 7.0], [3.0, 0.0, 7.0], [3.0, 4.0, 8.0]]))
        >>> distances.squares()
        tensor([[ 0.,  0.],
                [ 0.,  0.],
                [16.,  1.]])
    """

    def __init__(self, widths: list[int]) -> None:
        self._widths = widths
        self._centers: list[Tensor] = []
        self._pending: list[Tensor] = []
        self._squares: list[Tensor] = []

    def update(self, rows: Tensor) -> None:
        """Add tokens (k, Σ d), their layers concatenated."""
        self._pending.append(rows)
        if self._centers or sum(map(len, self._pending)) >= REFERENCE_ROWS:
            self._flush()

    def squares(self) -> Tensor:
        """(n, layers), in the order of the tokens."""
        if self._pending:
            self._flush()
        return torch.cat(self._squares)

    def _flush(self) -> None:
        layers = torch.cat(self._pending).split(self._widths, -1)  # type: ignore[no-untyped-call]
        self._pending = []
        self._centers = self._centers or [bulk_center(rows[:REFERENCE_ROWS]) for rows in layers]
        squares = [
            (rows - center).square().sum(1)
            for rows, center in zip(layers, self._centers, strict=True)
        ]
        self._squares.append(torch.stack(squares, 1).float().cpu())


def describe_dominance(
    indices: Sequence[int], layers: Sequence[Layer], n: int, squares: Tensor | None
) -> str:
    """The layers that a few tokens or one direction dominate; an empty string if there are none.

    Args:
        indices: of the layers in `hidden_states`.
        layers: of a model.
        n: number of rows.
        squares: of `TokenDistances`; None if outliers were left out.
    """
    parts = []
    by_tokens: dict[int, tuple[int, float]] = {}
    if squares is not None:
        outliers = squared_distance_outliers(squares)
        counts = outliers.sum(0).tolist()
        shares = (torch.where(outliers, squares, 0).sum(0) / squares.sum(0)).tolist()
        by_tokens = {
            index: (count, share)
            for index, count, share in zip(indices, counts, shares, strict=True)
            if rows_dominate(len(squares), count, share)
        }
        if by_tokens:
            parts.append(
                f"in layers {_ranges(by_tokens)} at most {max(by_tokens.values())[0]} of "
                f"{len(squares)} tokens have at least "
                f"{min(share for _, share in by_tokens.values()):.1%} of the squared distances "
                "from the centre"
            )
    by_direction = {
        index: first
        for index, layer in zip(indices, layers, strict=True)
        if index not in by_tokens
        and direction_dominates(n, layer.width, first := float(layer.spectrum[0]))
    }
    if by_direction:
        parts.append(
            f"in layers {_ranges(by_direction)} one direction has at least "
            f"{min(by_direction.values()):.1%} of the variance"
        )
    return " and ".join(parts)


def _ranges(numbers: Iterable[int]) -> str:
    """`[1, 2, 3, 7]` as "1-3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
