"""Token features of a batch as the rows that a measure or a loss compares."""

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
            example, "mean" the mean of its valid tokens.

    Returns:
        (b, t, d) with its mask for "all"; (b, d) and None for "first", "last" and "mean".

    Raises:
        InputError: an example has no valid token, for every pooling but "all".
    """
    if pooling == "all":
        return features, mask
    if not bool(mask.any(dim=1).all()):
        empty = int((~mask.any(1)).nonzero()[0])
        raise InputError(f"mask keeps no token of example {empty}; leave such examples out")
    if pooling == "mean":
        weight = mask.unsqueeze(-1).to(features.dtype)
        return (features * weight).sum(1) / weight.sum(1), None
    # argmax takes the first of equal values
    from_end = pooling == "last"
    index = (mask.flip(1) if from_end else mask).int().argmax(dim=1)
    if from_end:
        index = mask.shape[1] - 1 - index
    return features[torch.arange(len(features), device=mask.device), index], None
