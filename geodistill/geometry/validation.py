"""Validation of features: shapes, pairing, masks, dtype and finiteness."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from geodistill.errors import InputError

PAIR = ("x", "y")


def paired(
    x: Tensor, y: Tensor, mask: Tensor | None, dtype: torch.dtype, names: tuple[str, str] = PAIR
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Validated features with masked rows set to zero (padding may be NaN).

    Args:
        x: features (..., n, d_x).
        y: features (..., n, d_y).
        mask: rows that count (..., n), True = keep.
        dtype: of the returned features.
        names: of x and y in messages.

    Returns:
        (x, y, mask), the mask as booleans or None.

    Raises:
        InputError: features that do not pair, are empty, not floating point or not finite, or a
            mask that keeps no row.
    """
    mask = _check_shapes(x, y, mask, names)
    if mask is not None:
        _check_kept(bool(mask.any(-1).all()), mask, names)
        x, y = (torch.where(mask[..., None], f, torch.zeros_like(f)) for f in (x, y))
    x, y = x.to(dtype), y.to(dtype)
    check_finite((x, y), names)
    return x, y, mask


def valid_rows(
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    names: tuple[str, str] = PAIR,
    order: float = 2,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The rows that count, with leading dimensions flattened, in at least float32.

    Args:
        x: features (..., n, d_x).
        y: features (..., n, d_y).
        mask: rows that count (..., n), True = keep.
        names: of x and y in messages.
        order: of the norm that must be finite; infinity for logits, of which masked ones may be the
            smallest number of their dtype.

    Returns:
        Rows (k, d_x) and (k, d_y), and their indices (k,); None for these if all rows count.

    Raises:
        InputError: as `paired`.
    """
    x, y, index = flat_rows(x, y, mask, names)
    if index is not None:
        x, y = x[index], y[index]
    dtype = row_dtype(x, y)
    x, y = x.to(dtype), y.to(dtype)
    check_finite((x, y), names, order)
    return x, y, index


def flat_rows(
    x: Tensor, y: Tensor, mask: Tensor | None, names: tuple[str, str] = PAIR
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All rows with leading dimensions flattened, and the indices (k,) of those that count.

    The indices are None if all count. Nothing is copied and finiteness is not checked.

    Raises:
        InputError: as `paired`, but for values that are not finite; features that look like
            (batch, channels, height, width).
    """
    mask = _check_shapes(x, y, mask, names)
    _check_channels(x, y, names)
    x, y = x.flatten(0, -2), y.flatten(0, -2)
    if mask is None:
        return x, y, None
    index = mask.flatten().nonzero()[:, 0]  # once for both: a GPU waits for their number
    _check_kept(len(index) > 0, mask, names)
    return x, y, index


def row_dtype(x: Tensor, y: Tensor) -> torch.dtype:
    """The dtype in which rows of both are computed: at least float32."""
    return torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)


def widest_dtype(device: torch.device) -> torch.dtype:
    """float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def single(x: Tensor, name: str) -> Tensor:
    """Validated rows (n, d) of one set of features, in float64."""
    _check_features(x, name)
    if x.ndim != 2:
        raise InputError(f"{name} has shape {tuple(x.shape)}: expected (n, d), one row per example")
    x = x.double()  # before the check: float32's squares overflow early
    check_finite((x,), (name,))
    return x


def _check_features(x: Tensor, name: str) -> None:
    if not isinstance(x, Tensor):
        raise InputError(f"{name} is a {type(x).__name__}: expected a torch.Tensor of features")
    if x.layout != torch.strided:
        raise InputError(f"{name} has layout {x.layout}: expected features as by to_dense()")
    if not x.is_floating_point():
        raise InputError(f"{name} has dtype {x.dtype}: expected floating point features")
    if x.ndim < 2 or 0 in x.shape:
        raise InputError(
            f"{name} has shape {tuple(x.shape)}: expected (..., n, d), one row per example, "
            "n, d ≥ 1"
        )


def _check_shapes(
    x: Tensor, y: Tensor, mask: Tensor | None, names: tuple[str, str]
) -> Tensor | None:
    """The mask as booleans, after checking that everything pairs."""
    _check_features(x, names[0])
    _check_features(y, names[1])
    if x.shape[:-1] != y.shape[:-1]:
        advice = f"; {_CHANNELS}" if x.ndim in (4, 5) else ""
        raise InputError(
            f"{names[0]} has rows {tuple(x.shape[:-1])} and {names[1]} {tuple(y.shape[:-1])}: "
            f"expected one row of each for every example{advice}"
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
    return _as_booleans(mask)


def _as_booleans(mask: Tensor) -> Tensor:
    """A mask of 0 and 1 as booleans; other integers, such as labels, would keep other rows."""
    keep = mask.bool()
    if mask.dtype != torch.bool and bool((strange := keep & (mask != 1)).any()):
        raise InputError(
            f"mask holds {int(mask[strange][0])}: expected booleans, or 1 for rows that count and "
            "0 for the others (of labels: mask=labels != -100)"
        )
    return keep


_CHANNELS = (
    "pass (batch, channels, height, width) features through geodistill.geometry.channels_last"
)


def _check_channels(x: Tensor, y: Tensor, names: tuple[str, str]) -> None:
    """Refuse, or where less likely warn of, features whose last dimension is no width."""
    # an RGB image has three channels
    if x.ndim not in (4, 5) or x.shape != y.shape or x.shape[1] < 4:
        return
    channels, height, width = x.shape[1], *x.shape[-2:]
    square = height == width != channels
    if not square and channels <= max(height, width):
        return
    message = (
        f"{names[0]} and {names[1]} have shape {tuple(x.shape)}, compared as rows of width {width}:"
        f" {_CHANNELS}, or flatten all dimensions but the last if that is the width"
    )
    if square and channels > width:
        raise InputError(message)
    warnings.warn(message, stacklevel=2)


def _check_kept(any_row: bool, mask: Tensor, names: tuple[str, str]) -> None:
    if not any_row:
        raise InputError(
            f"mask of shape {tuple(mask.shape)} keeps no row of {names[0]} and {names[1]}: "
            "expected at least one True (skip a batch without rows)"
        )


def check_finite(tensors: Sequence[Tensor], names: Sequence[str], order: float = 2) -> None:
    """Raise InputError where values are NaN or infinite, or their norm (of squares) overflows."""
    # A finite norm has finite terms and is cheaper than a check of each. One check for all tensors:
    # a GPU synchronises at each.
    norms = [torch.linalg.vector_norm(tensor.detach(), order) for tensor in tensors]
    if math.isfinite(sum(norms)):
        return
    for tensor, norm, name in zip(tensors, norms, names, strict=True):
        finite = torch.isfinite(tensor)
        if bad := int((~finite).sum()):
            raise InputError(
                f"{name} holds {bad} NaN or infinite values of {tensor.numel()}: "
                "expected finite ones"
            )
        if not torch.isfinite(norm):
            raise InputError(
                f"{name} has values up to {float(tensor.detach().abs().max()):.2g}, whose squares "
                f"overflow {tensor.dtype}: expected smaller ones"
            )
