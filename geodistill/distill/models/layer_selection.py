"""Some of a model's blocks, as a model of its own that can be saved and loaded."""

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import logging

from geodistill.distill.models.heads import is_encoder_decoder
from geodistill.errors import InputError
from geodistill.layers.tokenized import in_eval

_INDEX_NAMES = ("layer_idx", "layer_id", "layer_number")
_DEPTH_NAMES = ("n_layers", "n_layer", "num_layers", "num_hidden_layers")
_OF_A_COPY = ("training", "gradient_checkpointing", "name_or_path")
"""Attributes that may differ between a model and its saved copy."""
_FIRST_LAYERS = ("first_k_dense_replace", "max_window_layers")
"""Settings that count the first blocks."""
_INDEX_LISTS = ("mlp_only_layers", "cross_attention_layers", "attn_layer_indices", "moe_layers")
"""Settings that list blocks."""
_OF_NO_LAYERS = ("out_features", "eos_token_id")
"""Lists that follow from `out_indices`, or have nothing to do with blocks."""


def uniform_layer_map(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """The teacher layer at the same relative depth as each student layer 1..`student_layers`."""
    depths = range(1, student_layers + 1)
    return tuple(max(1, round(layer * teacher_layers / student_layers)) for layer in depths)


def check_layers(layers: int, teacher_layers: int) -> None:
    """Raise InputError unless `layers` is in 1..`teacher_layers`."""
    if not 1 <= layers <= teacher_layers:
        raise InputError(f"layers is {layers}; expected 1 to {teacher_layers}, the teacher's")


def check_blocks(config: Any) -> None:
    """Raise InputError unless the model of a configuration has one list of blocks."""
    with torch.device("meta"):
        _blocks(AutoModel.from_config(config))  # type: ignore[no-untyped-call]


def take_layers(teacher: PreTrainedModel, layers: int | Sequence[int]) -> PreTrainedModel:
    """A copy of the teacher with some of its blocks.

    What the configuration says of each block follows the blocks. The copy is saved to a temporary
    folder and loaded again, and must give the same outputs, so that it is what a saved student will
    be.

    Args:
        teacher: a model whose blocks are in one `ModuleList`, as in most.
        layers: number of blocks, which are then evenly spaced and include the last; or the blocks
            themselves in ascending order, counted from 1.

    Raises:
        InputError: blocks that the teacher lacks, no such list, or blocks that the configuration
            cannot describe at their new places.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> teacher = BertForSequenceClassification(BertConfig(hidden_size=48))  # 12 blocks
        >>> len(take_layers(teacher, 3).bert.encoder.layer)  # blocks 4, 8 and 12
        3
        >>> len(take_layers(teacher, range(1, 5)).bert.encoder.layer)  # the first four
        4
    """
    depth = len(_blocks(teacher))
    if isinstance(layers, int):
        check_layers(layers, depth)
        layers = uniform_layer_map(depth, layers)
    elif not layers or [*layers] != sorted({*layers} & {*range(1, depth + 1)}):
        raise InputError(
            f"layers is {[*layers]}; expected numbers from 1 to {depth}, the teacher's, in order"
        )
    cause = None
    try:
        student = _with_blocks(teacher, [layer - 1 for layer in layers])
        difference = _changed_by_saving(student)
    except Exception as error:  # whatever configurations and models of many families raise
        difference, cause = f"{type(error).__name__}: {error}".partition("\n")[0], error
    if difference:
        raise InputError(
            f"blocks {[*layers]} of {type(teacher).__name__} are not the model that its "
            f"configuration describes with {len(layers)} blocks ({difference}): expected other "
            "blocks, such as the first ones, or a model of another family"
        ) from cause
    return student.requires_grad_(True)  # the copy of a frozen teacher would not learn


def _blocks(teacher: Any) -> nn.ModuleList:
    """The list of all blocks; InputError unless there is one."""
    if is_encoder_decoder(teacher) and hasattr(teacher.base_model, "decoder"):
        raise InputError(
            f"teacher {type(teacher).__name__} has blocks in an encoder and in a decoder: expected "
            "a model of one of the two, or a smaller configuration (such as encoder_layers and "
            "decoder_layers) with weights of your choice"
        )
    depth = getattr(teacher.config, "num_hidden_layers", None)
    lists = [m for m in teacher.base_model.modules() if isinstance(m, nn.ModuleList)]
    stacks = [blocks for blocks in lists if len(blocks) == depth]
    if depth is None or len(stacks) != 1:
        raise InputError(
            f"teacher {type(teacher).__name__} has {len(stacks)} lists of {depth} blocks; "
            "expected one to take layers from"
        )
    return stacks[0]


def _with_blocks(teacher: PreTrainedModel, indices: Sequence[int]) -> PreTrainedModel:
    """A copy of the teacher with the blocks at these indices, and their settings."""
    student = copy.deepcopy(teacher)
    blocks = _blocks(student)
    depth = len(blocks)
    for dropped in sorted(set(range(depth)) - set(indices), reverse=True):
        del blocks[dropped]
    for new, (old, block) in enumerate(zip(indices, blocks, strict=True)):
        for module in block.modules():
            for name in _INDEX_NAMES:  # where attention finds its keys in a cache
                if vars(module).get(name) == old:
                    vars(module)[name] = new
    for module in student.modules():
        for name in {*vars(module)} & {*_DEPTH_NAMES}:
            if vars(module)[name] == depth:
                vars(module)[name] = len(indices)
    for name, value in _settings_of_layers(teacher.config, indices).items():
        setattr(student.config, name, value)
    return student


def _settings_of_layers(config: Any, indices: Sequence[int]) -> dict[str, Any]:
    """What a configuration says of each block, for the blocks at these indices."""
    changes: dict[str, Any] = {}
    depth = config.num_hidden_layers
    for name, value in config.to_dict().items():
        if name in _FIRST_LAYERS and isinstance(value, int):
            changes[name] = sum(index < value for index in indices)
        elif name == "attention_types":  # GPT-Neo's, [[kinds, repeats], ...]
            changes[name] = [[[config.attention_layers[i] for i in indices], 1]]
        elif not isinstance(value, list | tuple) or name in _OF_NO_LAYERS:
            continue
        elif name in _INDEX_LISTS:
            changes[name] = [new for new, old in enumerate(indices) if old in value]
        elif name == "stage_names" and len(value) == depth + 1:  # of a backbone, after the stem
            changes[name] = value[: len(indices) + 1]
        elif name == "out_indices":  # of these stages
            stages = [new + 1 for new, old in enumerate(indices) if old + 1 in value]
            changes[name] = stages or [len(indices)]
        elif len(value) == depth:
            changes[name] = [value[i] for i in indices]
    return {**changes, "num_hidden_layers": len(indices)}


@torch.no_grad()
def _changed_by_saving(student: PreTrainedModel) -> str:
    """What differs in the student once it is saved and loaded; empty if nothing does."""
    with torch.random.fork_rng([]), tempfile.TemporaryDirectory() as folder, _without_bars():
        student.save_pretrained(folder)
        kind: Any = type(student)
        options = {"output_loading_info": True, "dtype": student.dtype}
        loaded, info = kind.from_pretrained(folder, **options)
    if strange := sorted([*info["missing_keys"], *info["unexpected_keys"]]):
        return f"no place for {strange[0]}"
    loaded_modules = dict(loaded.named_modules())
    # Modules outside of the blocks may list kinds of block that are gone.
    in_blocks = (x for x in student.named_modules() if any(p.isdigit() for p in x[0].split(".")))
    for name, module in in_blocks:
        for key, value in vars(module).items():
            if key == "drop_prob":  # of stochastic depth: it depends on the place alone
                vars(module)[key] = vars(loaded_modules[name]).get(key) or 0.0
                continue
            plain = isinstance(value, bool | int | float | str) and not key.startswith("_")
            as_loaded = vars(loaded_modules[name]).get(key)
            if plain and key not in _OF_A_COPY and as_loaded != value:
                return f"{key} of {name} is {value}, or {as_loaded} when loaded"
    if (inputs := _example_inputs(student)) is None:
        return f"its {student.main_input_name} are of no known shape, so outputs are not compared"
    loaded.to(student.device)
    with in_eval(student), in_eval(loaded):
        first, second = (model(**inputs)[0].float() for model in (student, loaded))
    return "" if torch.allclose(first, second, rtol=1e-2, atol=1e-3) else "outputs differ"


@contextmanager
def _without_bars() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _example_inputs(student: Any) -> dict[str, Tensor] | None:
    """A few tokens, images or audio clips, drawn at random; None for inputs of unknown shape."""
    config, name = student.config, student.main_input_name
    generator = torch.Generator().manual_seed(0)
    if name == "input_ids":
        ids = torch.randint(config.vocab_size, (2, 8), generator=generator)
        return {
            name: ids.to(student.device),
            "attention_mask": torch.ones_like(ids).to(student.device),
        }
    if name == "pixel_values" and hasattr(config, "image_size"):
        side = config.image_size
        shape = (config.num_channels, *((side, side) if isinstance(side, int) else side))
    elif name == "input_values":  # samples, or a spectrogram
        bands = getattr(config, "num_mel_bins", None)
        shape = (4000,) if bands is None else (config.max_length, bands)
    else:
        return None
    values = torch.rand(2, *shape, generator=generator)
    return {name: values.to(student.device, student.dtype)}
