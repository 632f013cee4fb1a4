"""The one door for features: shapes, pairing, masks, dtype and finiteness, settled once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from geodistill.errors import InputError

PAIR = ("x", "y")


def paired(
    x: Tensor, y: Tensor, mask: Tensor | None, dtype: torch.dtype, names: tuple[str, str] = PAIR
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Checked batched features: (..., n, d_x), (..., n, d_y), mask (..., n) of the rows to keep.

    Dropped rows come back as zeros whatever they held (padding may be NaN).
    Raises InputError on anything that does not pair, is empty, not floating point or not finite.
    """
    mask = _check_shapes(x, y, mask, names)
    if mask is not None:
        _check_kept(bool(mask.any(-1).all()), mask, names)
        x, y = (torch.where(mask[..., None], f, torch.zeros_like(f)) for f in (x, y))
    x, y = x.to(dtype), y.to(dtype)
    check_finite((x, y), names)
    return x, y, mask


def kept_rows(
    x: Tensor, y: Tensor, mask: Tensor | None, names: tuple[str, str] = PAIR
) -> tuple[Tensor, Tensor]:
    """All leading dimensions as rows, the masked ones gone: (rows, d_x), (rows, d_y).

    In at least float32. Raises InputError as `paired` does.
    """
    x, y, places = flat_rows(x, y, mask, names)
    if places is not None:
        x, y = x[places], y[places]
    dtype = row_dtype(x, y)
    x, y = x.to(dtype), y.to(dtype)
    check_finite((x, y), names)
    return x, y


def flat_rows(
    x: Tensor, y: Tensor, mask: Tensor | None, names: tuple[str, str] = PAIR
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All leading dimensions as rows, none gone: (rows, d_x), (rows, d_y), places of those to keep.

    The places are None where all are kept. Nothing is copied, and finiteness is not looked at.
    Raises InputError as `paired` does.
    """
    mask = _check_shapes(x, y, mask, names)
    x, y = x.flatten(0, -2), y.flatten(0, -2)
    if mask is None:
        return x, y, None
    places = mask.flatten().nonzero()[:, 0]  # once for both: a GPU waits for their number
    _check_kept(len(places) > 0, mask, names)
    return x, y, places


def row_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """What rows of both are computed in: at least float32."""
    return torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)


def single(x: Tensor, mask: Tensor | None, dtype: torch.dtype, name: str = "x") -> Tensor:
    """Checked rows (n, d) of one set of features, masked rows removed."""
    _check_features(x, name)
    if x.ndim != 2:
        raise InputError(f"{name} has shape {tuple(x.shape)}: expected (n, d), one row an example")
    kept, _ = kept_rows(x, x, mask, (name, name))
    return kept.to(dtype)


def _check_features(x: Tensor, name: str) -> None:
    if not isinstance(x, Tensor):
        raise InputError(f"{name} is a {type(x).__name__}: expected a torch.Tensor of features")
    if not x.is_floating_point():
        raise InputError(f"{name} has dtype {x.dtype}: expected floating point features")
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(
            f"{name} has shape {tuple(x.shape)}: expected (..., n, d), one row an example, n, d ≥ 1"
        )


def _check_shapes(
    x: Tensor, y: Tensor, mask: Tensor | None, names: tuple[str, str]
) -> Tensor | None:
    """The mask as booleans, once everything pairs."""
    _check_features(x, names[0])
    _check_features(y, names[1])
    if x.shape[:-1] != y.shape[:-1]:
        raise InputError(
            f"{names[0]} has rows {tuple(x.shape[:-1])} and {names[1]} {tuple(y.shape[:-1])}: "
            "expected one row of each for every example"
        )
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise InputError(f"mask is a {type(mask).__name__}: expected a torch.Tensor of booleans")
    if mask.is_floating_point() or mask.is_complex():
        raise InputError(f"mask has dtype {mask.dtype}: expected booleans or 0/1 integers")
    if mask.shape != x.shape[:-1]:
        raise InputError(
            f"mask has shape {tuple(mask.shape)}: expected {tuple(x.shape[:-1])}, "
            f"one entry for each row of {names[0]} (True = keep)"
        )
    return mask.bool()


def _check_kept(any_row: bool, mask: Tensor, names: tuple[str, str]) -> None:
    if not any_row:
        raise InputError(
            f"mask of shape {tuple(mask.shape)} keeps no row of {names[0]} and {names[1]}: "
            "expected at least one True (skip a batch without rows)"
        )


def check_finite(tensors: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raise InputError where values are NaN or infinite, or their squares overflow."""
    # A finite norm has finite terms and costs a fraction of a look at each. One look for all: a GPU
    # waits for each.
    norms = [torch.linalg.vector_norm(one.detach()) for one in tensors]
    if math.isfinite(sum(norms)):
        return
    for one, norm, name in zip(tensors, norms, names, strict=True):
        finite = torch.isfinite(one)
        if bad := int((~finite).sum()):
            raise InputError(
                f"{name} holds {bad} NaN or infinite values of {one.numel()}: "
                "expected finite features"
            )
        if not torch.isfinite(norm):
            raise InputError(
                f"{name} has values up to {float(one.detach().abs().max()):.2g}, whose squares "
                f"overflow {one.dtype}: expected smaller ones"
            )
