"""The instruction study's models, read and checked: teacher with adapter, a student by name."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from geodistill.distill.teacher_cache import file_hash
from geodistill.errors import AssetError, InputError
from geodistill.experiments.run_store import data_dir
from geodistill.experiments.training import device, quiet
from geodistill.tasks import assets


def load_teacher(name: str, adapter: str) -> tuple[Any, Any]:
    """A causal language model, with an adapter of data/adapters merged in, and its tokenizer.

    Raises:
        InputError: no such adapter, or one that is damaged or of another model.
        AssetError: a model file that can't be read.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stored = data_dir() / "adapters" / adapter if adapter else None
    if stored and not (stored / "adapter_model.safetensors").is_file():
        raise InputError(f"adapter is {adapter!r}; {stored} has no adapter_model.safetensors")
    quiet()
    where: dict[str, Any] = {"pretrained_model_name_or_path": name}
    if name == "smollm2":
        folder, file = assets.path("smollm2"), assets.SMOLLM2_GGUF
        where = {"pretrained_model_name_or_path": folder, "gguf_file": file}
    try:
        if name == "smollm2":
            _check_digest(folder / file, assets.SMOLLM2_SHA256)
        tokenizer = AutoTokenizer.from_pretrained(**where)
        model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
        if not all(bool(p.isfinite().all()) for p in model.parameters()):
            raise ValueError("weights that are not finite")
    except Exception as error:  # the readers of GGUF and safetensors raise whatever they meet
        folder = Path(where["pretrained_model_name_or_path"])
        remedy = "expected a folder or hub name of a causal language model with its tokenizer"
        if name == "smollm2":
            remedy = f"if it is damaged, delete the folder {folder} and run `geodistill assets`"
        raise AssetError(
            f"teacher {name!r} can't be read from {folder / where.get('gguf_file', '')} "
            f"({_one_line(error)}); {remedy}"
        ) from error
    if tokenizer.pad_token_id is None:  # GPT-2's, Llama's; the attention mask tells padding
        tokenizer.pad_token = tokenizer.eos_token
    model.is_quantized = False  # GGUF weights are whole again once loaded, and may be trained
    if stored:
        model = _with_adapter(model, stored)
    model.train(False)
    return model.to(device()), tokenizer


def _with_adapter(model: Any, folder: Path) -> Any:
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        if (folder / "recipe.json").is_file():  # `adapter.save_adapter` writes one
            recipe = json.loads((folder / "recipe.json").read_text())
            _check_digest(folder / "adapter_model.safetensors", recipe["sha256"])
        with warnings.catch_warnings():
            # Of an adapter with weights missing peft would go on without them.
            warnings.filterwarnings("error", "Found missing adapter keys")
            merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
        if not all(bool(p.isfinite().all()) for p in merged.parameters()):
            raise ValueError("weights that are not finite")
        return merged
    except (
        *(OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError),
        UserWarning,
    ) as error:
        raise InputError(
            f"adapter {folder} is damaged or of another model ({_one_line(error)}); restore it, or "
            "make it again with `python -m geodistill.experiments.instruction.adapter`"
        ) from error


def given_student(name: str, tokenizer: Any, positions: int) -> Any:
    """A causal language model to be trained on, with the teacher's tokens.

    Args:
        name: folder, or name of the hub.
        tokenizer: the teacher's.
        positions: tokens of the longest prompt with its answer.

    Raises:
        InputError: a model that cannot be read, has fewer positions, or other tokens.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet()
    expected = "expected a folder or hub name of a causal language model with its tokenizer"
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
        own = AutoTokenizer.from_pretrained(name).get_vocab()
    except Exception as error:  # the readers of configs and weights raise whatever they meet
        raise InputError(f"student is {name!r}; {expected} ({_one_line(error)})") from error
    if own != tokenizer.get_vocab():
        raise InputError(
            f"student {name!r} has other tokens than the teacher ({len(own)} in its vocabulary, "
            f"{len(tokenizer.get_vocab())} in the teacher's); expected the same"
        )
    room = getattr(model.config, "max_position_embeddings", None) or positions
    if room < positions:
        raise InputError(
            f"student {name!r} takes {room} tokens; expected at least {positions}, which prompts "
            "with their answers have (max_length + new_tokens)"
        )
    return model


def _check_digest(file: Path, recorded: str) -> None:
    """Raise ValueError for other bytes than those recorded: weights may be wrong and finite."""
    found = file_hash(file)
    if found != recorded:
        raise ValueError(f"{file.name} has sha256 {found[:12]}, {recorded[:12]} is recorded")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
