"""The models of the instruction study, loaded and checked: the teacher, and a student by name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from geodistill.distill.pretrained import load_pretrained
from geodistill.errors import AssetError, InputError
from geodistill.experiments.training import default_device, silence_libraries
from geodistill.files import error_summary, sha256, sha256_once
from geodistill.paths import data_dir
from geodistill.tasks import assets

COMPUTED_TEACHER, TRAINER = "opt-computed", "geodistill.experiments.instruction.computed_teacher"
"""The folder in data/teachers of the computed instructions' teacher, and what makes it."""
EXPECTED = "expected a folder or hub name of a causal language model with its tokenizer"


def weights_hash(name: str, adapter: str) -> str:
    """A hash of a teacher's weights, which its name does not determine; empty for a hub name.

    Args:
        name: of the teacher.
        adapter: folder name under data/adapters, or empty.
    """
    hashes = [sha256_once(path) for path in _teacher_files(name)]
    if adapter:
        hashes.append(sha256_once(data_dir() / "adapters" / adapter / "adapter_model.safetensors"))
    return "".join(hashes)


def _teacher_files(name: str) -> list[Path]:
    """Weights and configuration of a teacher in a folder; none for the embedded one."""
    if name == "smollm2":
        return []
    if name == COMPUTED_TEACHER:
        return [data_dir() / "teachers" / name / "model.safetensors"]
    suffixes = (".safetensors", ".bin")
    return sorted(
        p for p in Path(name).glob("*") if p.suffix in suffixes or p.name == "config.json"
    )


def teacher_source(name: str) -> tuple[str, dict[str, Any], str]:
    """Where `from_pretrained` reads a teacher, with which options, and what to do if it can't."""
    if name == "smollm2":
        folder = str(assets.path("smollm2"))
        remedy = f"if it is damaged, delete the folder {folder} and run `geodistill download`"
        return folder, {"gguf_file": assets.SMOLLM2_GGUF}, remedy
    if name == COMPUTED_TEACHER:
        remedy = f"restore the folder, or make it again with `python -m {TRAINER}`"
        return str(data_dir() / "teachers" / name), {}, remedy
    return name, {}, EXPECTED


def load_teacher(name: str, adapter: str) -> tuple[Any, Any]:
    """A causal language model in evaluation mode, and its tokenizer.

    Args:
        name: "smollm2", the embedded one, "opt-computed", that of the computed instructions, or a
            folder or hub name.
        adapter: folder name under data/adapters of a LoRA adapter to merge in, or empty.

    Raises:
        InputError: no such adapter, or one that is damaged or of another model.
        AssetError: a model that can't be read.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter_folder = data_dir() / "adapters" / adapter if adapter else None
    if adapter_folder and not (adapter_folder / "adapter_model.safetensors").is_file():
        raise InputError(
            f"adapter is {adapter!r}; {adapter_folder} has no adapter_model.safetensors"
        )
    silence_libraries()
    source, options, remedy = teacher_source(name)
    try:
        _check_recorded(Path(source) / "model.safetensors")
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = load_pretrained(AutoModelForCausalLM, source, dtype=torch.float32, **options)
        _check_finite(model)
    except Exception as error:  # the readers of GGUF and safetensors raise errors of any type
        raise AssetError(
            f"teacher {name!r} can't be read from {'/'.join([source, *options.values()])} "
            f"({error_summary(error)}); {remedy}"
        ) from error
    if tokenizer.pad_token_id is None:  # as of GPT-2 and Llama; the attention mask marks padding
        tokenizer.pad_token = tokenizer.eos_token
    # GGUF weights are dequantised at loading, and may be trained and saved.
    model.is_quantized, model.hf_quantizer = False, None
    if adapter_folder:
        model = _with_adapter(model, adapter_folder)
    model.train(False)
    return model.to(default_device()), tokenizer


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    weights = folder / "adapter_model.safetensors"
    try:
        _check_recorded(weights)
        with warnings.catch_warnings():
            # peft only warns of an adapter that lacks weights.
            warnings.filterwarnings("error", "Found missing adapter keys")
            merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
        _check_finite(merged)
    except Exception as error:
        raise InputError(
            f"adapter {folder} is damaged or of another model ({error_summary(error)}); restore "
            "it, or make it again with `python -m geodistill.experiments.instruction.adapter`"
        ) from error
    return merged


def write_recipe(weights: Path, recipe: Mapping[str, Any]) -> None:
    """Write how some weights were made, with their hash, to `recipe.json` beside them.

    Args:
        weights: file of the weights, which `load_teacher` compares with that hash.
        recipe: what made them.
    """
    text = json.dumps({**recipe, "sha256": sha256(weights)}, indent=2) + "\n"
    weights.with_name("recipe.json").write_text(text, encoding="utf-8")


def _check_recorded(weights: Path) -> None:
    """ValueError unless the weights have the hash that `write_recipe` wrote beside them, if any."""
    recipe = weights.with_name("recipe.json")
    if not recipe.is_file():
        return
    content = json.loads(recipe.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not {"recipe", "sha256"} <= content.keys():
        return  # a file of the user's own
    recorded, actual = content["sha256"], sha256(weights)
    if actual != recorded:  # wrong weights may be finite
        raise ValueError(f"{weights.name} has sha256 {actual[:12]}, {recorded[:12]} is recorded")


def load_student(name: str, tokenizer: Any, positions: int) -> Any:
    """A pretrained causal language model to be trained as a student.

    Args:
        name: folder or hub name.
        tokenizer: of the teacher.
        positions: tokens of the longest prompt with its answer.

    Raises:
        InputError: a model that can't be read, has fewer positions, or another vocabulary.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    silence_libraries()
    try:
        model = load_pretrained(AutoModelForCausalLM, name, dtype=torch.float32)
        vocabulary = AutoTokenizer.from_pretrained(name).get_vocab()
    except Exception as error:  # the readers of configs and weights raise errors of any type
        raise InputError(f"student is {name!r}; {EXPECTED} ({error_summary(error)})") from error
    if vocabulary != tokenizer.get_vocab():
        raise InputError(
            f"student {name!r} has another vocabulary than the teacher ({len(vocabulary)} tokens, "
            f"the teacher has {len(tokenizer.get_vocab())}); expected the same"
        )
    available = getattr(model.config, "max_position_embeddings", None) or positions
    if available < positions:
        raise InputError(
            f"student {name!r} takes {available} tokens; expected at least {positions}, the length "
            "of prompts with answers (max_length + max_new_tokens)"
        )
    return model


def _check_finite(model: Any) -> None:
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise ValueError("weights that are not finite")
