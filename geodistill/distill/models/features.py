"""Features of any module as rows: which module a layer names, which of its positions count."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from geodistill.distill.feature_term import Layer, loss_mask, resolve_layer
from geodistill.distill.models.heads import (
    base_of,
    has_token_labels,
    is_encoder_decoder,
    text_shape,
)
from geodistill.errors import InputError
from geodistill.geometry.pooling import channels_last

_OTHER_MODALITIES = ("vision", "visual", "image", "audio")
_paths: weakref.WeakKeyDictionary[nn.Module, dict[str, str]] = weakref.WeakKeyDictionary()


def find_module(model: Any, path: str, role: str) -> tuple[str, nn.Module]:
    """The full path and the module that `path` names: the whole path, or its end if that is unique.

    Args:
        model: any module, possibly inside PEFT's.
        path: such as "encoder.layer.5".
        role: "teacher" or "student".

    Raises:
        InputError: no module has this path, or several.

    Example:
        >>> find_module(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), "1", "teacher")
        ('1', ReLU())
    """
    base = base_of(model)
    known = _paths.setdefault(base, {})
    if path not in known:
        modules = [name for name, _ in base.named_modules() if name]
        matches = [n for n in modules if n == path] or [
            n for n in modules if n.endswith(f".{path}")
        ]
        if len(matches) != 1:
            near = matches or get_close_matches(path, modules, n=5, cutoff=0.3) or modules[:5]
            raise InputError(
                f"{role}_layer is {path!r}, which names {len(matches)} modules of the {role} "
                f"{type(base).__name__}: expected the path of one, such as {', '.join(near[:5])}"
            )
        known[path] = matches[0]
    return known[path], base.get_submodule(known[path])


def check_layer(model: Any, layer: Layer, role: str) -> Layer:
    """The layer, counted from 0 where it is a number and the model says how many it has.

    Raises:
        InputError: the model has no such layer.
    """
    if isinstance(layer, str):
        find_module(model, layer, role)
        return layer
    config = getattr(model, "config", None)
    if config is None:
        names = ", ".join(name for name, _ in model.named_children())
        raise InputError(
            f"{role}_layer is {layer}, and a {type(model).__name__} has no numbered hidden_states: "
            f"expected the path of a module, such as {names}"
        )
    last = last_layer(model)
    return layer if last is None else resolve_layer(layer, last, role)


def last_layer(model: Any) -> int | None:
    """The number of the last entry of `hidden_states`; None if only a batch can tell."""
    config: Any = getattr(model, "config", None)
    last = getattr(config, "num_hidden_layers", None)
    reads_texts = getattr(model, "main_input_name", None) == "input_ids"  # of CLIP, one tower
    if last is None and reads_texts and hasattr(config, "get_text_config"):
        last = getattr(config.get_text_config(), "num_hidden_layers", None)
    return last if isinstance(last, int) and not is_encoder_decoder(model) else None


def feature_rows(
    features: Tensor, inputs: Mapping[str, Any], model: Any, layer: Layer, role: str
) -> tuple[Tensor, Tensor]:
    """Features as (b, t, d), and which of their positions count, as a mask (b, t).

    Args:
        features: of a batch: (b, d), (b, t, d), or maps (b, channels, height, width); maps
            (b, n, n, d) with d other than n have their channels last.
        inputs: of the model.
        model: that gave them.
        layer: which gave them.
        role: "teacher" or "student".

    Raises:
        InputError: another shape, or positions that no mask of the inputs fits.
    """
    n = next((len(x) for x in inputs.values() if isinstance(x, Tensor) and x.dim()), None)
    shape = tuple(features.shape)
    if features.dim() < 2 or (n is not None and shape[0] != n):
        raise InputError(
            f"the {role}'s layer {layer!r} gives {shape} for a batch of {n}: expected the output "
            "of a module with one entry per example, (b, d), (b, t, d) or (b, channels, h, w)"
        )
    if features.dim() == 2:
        return features.unsqueeze(1), features.new_ones(shape[0], 1, dtype=torch.bool)
    if features.dim() == 4 and shape[1] == shape[2] != shape[3]:
        features = features.flatten(1, 2)
    elif features.dim() > 3:
        features = channels_last(features)
    return features, position_mask(features.shape[1], inputs, model, layer, role)


def position_mask(
    positions: int, inputs: Mapping[str, Any], model: Any, layer: Layer | None, role: str
) -> Tensor:
    """Which positions of features or logits (b, `positions`, d) count.

    Raises:
        InputError: no mask fits.
    """
    mask = mask_of(positions, inputs, model, layer)
    if mask is None:
        first = next(x for x in inputs.values() if isinstance(x, Tensor) and x.dim())
        return torch.ones(len(first), positions, dtype=torch.bool, device=first.device)
    if mask.shape[1] != positions:
        what = "logits" if layer is None else f"layer {layer!r}"
        raise InputError(
            f"the {role}'s {what} has {positions} positions, its inputs {mask.shape[1]}, so "
            "padding is unknown: expected one position per token, or examples of equal length "
            "without attention_mask"
        )
    return mask


def mask_of(
    positions: int | None, inputs: Mapping[str, Any], model: Any, layer: Layer | None
) -> Tensor | None:
    """The mask of the inputs that belongs to these positions; None if all of them count.

    Args:
        positions: number of the layer's, None if not known.
        inputs: of the model.
        model: that reads them.
        layer: of the model; None for its logits.
    """
    path = find_module(model, layer, "")[0] if isinstance(layer, str) else ""
    texts = text_shape(inputs) is not None
    attention: Tensor | None = inputs.get("attention_mask")
    mask = attention.bool() if isinstance(attention, Tensor) else None
    if texts and any(part.startswith(_OTHER_MODALITIES) for part in path.split(".")):
        return None
    if is_encoder_decoder(model):
        if _in_encoder(model, path):
            return mask if texts else None  # Whisper reads its padding
        if has_token_labels(inputs, model):
            return loss_mask(inputs, model)
        of_decoder = inputs.get("decoder_attention_mask", mask)
        fits = of_decoder is not None and of_decoder.shape[1] == positions
        return of_decoder.bool() if fits else None
    if texts:
        return loss_mask(inputs, model)
    if attention is None or attention.shape[1] == positions:
        return mask
    base = base_of(model)
    for part in (base, getattr(base, "base_model", base)):  # speech: frames of samples
        if hasattr(part, "_get_feature_vector_attention_mask"):
            frames: Tensor = part._get_feature_vector_attention_mask(positions, attention)
            return frames.bool()
    return None if bool(attention.all()) else mask


def _in_encoder(model: Any, path: str) -> bool:
    base = base_of(model)
    if not path or not hasattr(base, "get_encoder"):
        return False
    encoder = base.get_encoder()
    return any(module is base.get_submodule(path) for module in encoder.modules())


def tensor_of(output: Any, layer: str, role: str) -> Tensor:
    """The features in a module's output: the tensor, or the first of a tuple or a dict.

    Raises:
        InputError: there is none.
    """
    if isinstance(output, Mapping):
        output = output.get("last_hidden_state", next(iter(output.values()), None))
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise InputError(
            f"the {role}'s layer {layer!r} gives a {type(output).__name__}: expected a module "
            "whose output is a tensor"
        )
    return output


def find_logits(output: Any) -> Tensor | None:
    """The logits in a model's output: the tensor itself, or an entry `logits`."""
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif not isinstance(output, Tensor):
        output = getattr(output, "logits", None)
    return output if isinstance(output, Tensor) else None


def logits_of(
    output: Any, model: Any, inputs: Mapping[str, Any], role: str
) -> tuple[Tensor, Tensor | None]:
    """Logits (b, classes), or (n, classes) at the n positions that count, and their mask (b, t).

    The mask is None for logits of examples, and of a head that was given some positions only.

    Args:
        output: of the model.
        model: that gave it.
        inputs: of the model.
        role: "teacher" or "student".

    Raises:
        InputError: there are none, or they have another shape.
    """
    logits = find_logits(output)
    if logits is None:
        raise InputError(
            f"logit_loss compares `logits`, and the {role} {type(base_of(model)).__name__} gives "
            "none: leave logit_loss out, or give a model with a head and one output `logits`"
        )
    if logits.dim() == 3:
        mask = position_mask(logits.shape[1], inputs, model, None, role)
        return logits[mask], mask
    if logits.dim() != 2:
        raise InputError(
            f"the {role}'s logits have shape {tuple(logits.shape)}; logit_loss compares (b, "
            "classes) or (b, t, classes): leave it out"
        )
    return logits, None
