"""Features of a batch, of tokens or of images, as the rows that a measure or a loss compares."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from geodistill.errors import InputError

Pooling = Literal["all", "first", "mean", "last"]


def pool_tokens(features: Tensor, mask: Tensor, pooling: Pooling) -> tuple[Tensor, Tensor | None]:
    """Reduce the tokens of each example to the rows that are compared.

    Args:
        features: token features (b, t, d).
        mask: tokens that count (b, t), True = keep.
        pooling: "all" keeps every token as a row; "first" and "last" take one valid token of each
            example, "mean" the mean of its valid tokens, in at least float32.

    Returns:
        (b, t, d) with its mask for "all"; (b, d) and None for "first", "last" and "mean".

    Raises:
        InputError: features of other dimensions, or, for every pooling but "all", an example
            without a valid token.
    """
    if features.ndim != 3:
        raise InputError(
            f"features have shape {tuple(features.shape)}: expected (b, t, d), one row per token; "
            "geodistill.geometry.channels_last makes them from (b, channels, height, width)"
        )
    if pooling == "all":
        return features, mask
    if not bool(mask.any(dim=1).all()):
        empty = int((~mask.any(1)).nonzero()[0])
        raise InputError(f"mask keeps no token of example {empty}; leave such examples out")
    if pooling == "mean":
        valid = features.masked_fill(~mask.unsqueeze(-1), 0)  # padding may be NaN
        total = valid.sum(1, dtype=torch.promote_types(features.dtype, torch.float32))
        return total / mask.sum(1, keepdim=True), None
    # argmax takes the first of equal values
    from_end = pooling == "last"
    index = (mask.flip(1) if from_end else mask).int().argmax(dim=1)
    if from_end:
        index = mask.shape[1] - 1 - index
    return features[torch.arange(len(features), device=mask.device), index], None


def channels_last(features: Tensor) -> Tensor:
    """Image features with channels first as rows: one per position, one column per channel.

    Measures and losses compare the last dimension. To compare feature maps of two resolutions,
    resize one first, as with `torch.nn.functional.adaptive_avg_pool2d`.

    Args:
        features: (b, channels, height, width), or (b, channels, ...) of other positions.

    Returns:
        (b, positions, channels).

    Raises:
        InputError: no tensor, or fewer than three dimensions.

    Example:
        >>> from geodistill.losses import ProcrustesLoss
        >>> teacher, student = torch.randn(8, 64, 7, 7), torch.randn(8, 32, 7, 7)
        >>> loss = ProcrustesLoss()(channels_last(student), channels_last(teacher))
        >>> channels_last(student).shape
        torch.Size([8, 49, 32])
    """
    if not isinstance(features, Tensor):
        raise InputError(f"features is a {type(features).__name__}: expected a torch.Tensor")
    if features.ndim < 3:
        raise InputError(
            f"features have shape {tuple(features.shape)}: expected (b, channels, height, width)"
        )
    return features.flatten(2).mT
