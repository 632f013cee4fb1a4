"""Checksums of examples, by which a teacher cache recognises those that it was built from."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from geodistill.distill.models.heads import base_of, is_encoder_decoder

_MAIN_INPUTS = ("input_ids", "inputs_embeds", "pixel_values", "input_values", "input_features")
DECODER_INPUTS = ("decoder_input_ids", "labels")
"""Of an encoder-decoder, of which the losses use all labels."""
_STRIDE = 17  # of the pixels that are read: images that differ elsewhere count as the same


def inputs_to_check(batch: Mapping[str, Any], teacher: Any) -> list[str]:
    """The inputs of a batch that identify its examples: tokens, pixels, audio samples.

    Args:
        batch: of a teacher.
        teacher: whose decoder, if it has one, also reads the labels.
    """
    tensors = [name for name, x in batch.items() if isinstance(x, Tensor)]
    main = {*_MAIN_INPUTS, getattr(base_of(teacher), "main_input_name", "")}
    names = [name for name in tensors if name in main]
    if not names:  # of a module with inputs of its own
        names = [n for n in tensors if n not in ("labels", "row") and not n.endswith("_mask")]
    if is_encoder_decoder(teacher):
        names += [name for name in DECODER_INPUTS if name in tensors][:1]
    return names


def input_checksums(
    batch: Mapping[str, Any], names: Sequence[str], valid: Tensor | None = None
) -> Tensor:
    """A 64-bit number for each example and input (b, names), whatever the padding.

    Args:
        batch: of a model.
        names: of inputs.
        valid: tokens (b, t) that the losses use, on which the checksum of `input_ids` depends too.

    Example:
        >>> texts = {"input_ids": torch.tensor([[5, 6, 0], [0, 5, 6], [6, 5, 0]])}
        >>> texts["attention_mask"] = (texts["input_ids"] > 0).long()
        >>> right, left, other = input_checksums(texts, ["input_ids"]).flatten().tolist()
        >>> right == left, right == other
        (True, False)
    """
    attention = batch.get("attention_mask")
    columns = []
    for name in names:
        x: Tensor = batch[name].detach()
        reads = x != -100 if name in DECODER_INPUTS else attention
        if name in ("input_ids", *DECODER_INPUTS):
            flags = valid if name == "input_ids" and valid is not None else torch.zeros_like(x)
            ids = 2 * x.long() + flags + 1
            columns.append(_checksum(ids, reads, left=True))
        else:
            # as integers; adding 0 makes -0 the same as 0
            bits = (x.float() + 0.0).view(torch.int32) if x.is_floating_point() else x
            columns.append(_checksum(bits, reads))
    return torch.stack(columns, dim=1)


def _checksum(values: Tensor, reads: Tensor | None, *, left: bool = False) -> Tensor:
    """The sum over positions of value times factor, modulo 2^64; zeros add nothing.

    Args:
        values: integers (b, ...).
        reads: which of their first positions count, (b, t).
        left: whether positions are numbered without those that do not count.
    """
    if reads is not None and reads.shape == values.shape[: reads.dim()]:
        reads = reads.long()
        values = values * reads[(..., *[None] * (values.dim() - reads.dim()))]
        if left:
            order = (reads.flatten(1).cumsum(1) - 1).clamp_min(0)
            return (values.flatten(1).long() * _factors(order)).sum(1)
    values = values.flatten(1)[:, :: _STRIDE if values.dim() > 2 else 1]
    return (values * _factors(torch.arange(values.shape[1], device=values.device))).sum(1)


def _factors(positions: Tensor) -> Tensor:
    """Odd factors without pattern, by SplitMix64 (Steele et al. 2014)."""
    x = (positions.long() + 1) * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        x = (x ^ (x >> shift)) * factor
    return (x ^ (x >> 31)) | 1
