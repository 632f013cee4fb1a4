"""Models and data of a published pair: those of the hub, or tiny ones made on the spot."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from geodistill.distill.pretrained import load_pretrained
from geodistill.errors import AssetError, InputError
from geodistill.experiments.instruction.generate import Example
from geodistill.experiments.published_pairs.config import ModelsAndData, PublishedPair
from geodistill.experiments.training import silence_libraries
from geodistill.files import Progress, error_summary, first_line
from geodistill.tasks import load_instructions
from geodistill.tasks.base import Row
from geodistill.tasks.instructions import WITH_SEPARATE_INPUT, with_prompt_template
from geodistill.tasks.prompts import LengthCounts, alpaca_prompt, encode_pairs


def load_from_hub(pair: PublishedPair, teacher: Path | None, progress: Progress) -> ModelsAndData:
    """Models and data of the hub.

    Args:
        pair: the published pair.
        teacher: folder of a fine-tuned teacher, if there is one.
        progress: called with a line on each data set.

    Raises:
        InputError: `teacher` holds no complete model, or one of another vocabulary than the
            student's.
        AssetError: the tokenizer or a set can't be loaded; later on, a model.
    """
    silence_libraries()
    if teacher is not None:  # else it would be loaded hours later
        _check_teacher(teacher, pair.student)
    tokenizer = _from_hub("AutoTokenizer", pair.student)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    train, counts = _encode(pair, load_instructions(pair.task).train, tokenizer)
    progress(f"{pair.task}, train: {counts}")
    eval_sets = {}
    for name in pair.eval_sets:
        eval_sets[name], counts = _encode(pair, _test_rows(name, pair.task), tokenizer)
        progress(f"{name}, test: {counts}")
    frozen_dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32

    def load_teacher(folder: Path | None) -> Any:
        dtype = frozen_dtype if folder else torch.float32
        return _from_hub("AutoModelForCausalLM", folder or pair.teacher, dtype=dtype)

    def load_student(folder: Path | None) -> Any:
        return _from_hub("AutoModelForCausalLM", folder or pair.student, dtype=torch.float32)

    return ModelsAndData(load_teacher, load_student, tokenizer, train, eval_sets, teacher)


def _encode(
    pair: PublishedPair, rows: Iterable[Row], tokenizer: Any
) -> tuple[list[Example], LengthCounts]:
    return encode_pairs(
        rows, tokenizer, max_length=pair.max_length, max_prompt_length=pair.max_prompt_length,
        begin=False,  # as the published codes do
    )  # fmt: skip


def _test_rows(name: str, task: str) -> Iterable[Row]:
    """Test prompts of a set, in the template of the training set: Alpaca's, for Dolly."""
    if task == "dolly" and name in WITH_SEPARATE_INPUT:
        data = with_prompt_template(name, alpaca_prompt)
    else:
        data = load_instructions(name)
    rows: Iterable[Row] = data.test
    return rows


def _check_teacher(folder: Path, student: str) -> None:
    """Read the configuration and the names of the weights alone, on the meta device."""
    from transformers import AutoModelForCausalLM

    try:
        model = load_pretrained(AutoModelForCausalLM, folder, device_map="meta")
    except Exception as error:  # the readers of configs and weights raise errors of any type
        raise InputError(
            f"--teacher is {folder}: expected a folder with a fine-tuned model "
            f"({error_summary(error)})"
        ) from error
    n_logits = model.get_output_embeddings().weight.shape[0]
    expected = _from_hub("AutoConfig", student).vocab_size
    if n_logits != expected:
        raise InputError(
            f"--teacher is {folder}: it has {n_logits} logits, the student {student} {expected}; "
            "expected a model of the student's tokenizer"
        )


def _from_hub(auto_class: str, name: Path | str, **options: Any) -> Any:
    import transformers

    try:
        return getattr(transformers, auto_class).from_pretrained(str(name), **options)
    except (OSError, ValueError) as error:  # no connection, no such folder
        raise AssetError(
            f"{name} can't be loaded ({first_line(error)}); connect to the hub, or try the pair "
            "with tiny models by --dry-run"
        ) from error


def tiny_models_and_data(pair: PublishedPair) -> ModelsAndData:
    """Untrained OPTs of two layers, a tokenizer of bytes, sixteen questions.

    They take every stage of a pair in seconds.
    """
    silence_libraries()
    tokenizer = byte_tokenizer()
    train, _ = _encode(pair, _questions(16), tokenizer)
    test, _ = _encode(pair, _questions(6), tokenizer)
    return ModelsAndData(
        load_teacher=lambda folder: _tiny_opt(len(tokenizer), 48, 1, folder),
        load_student=lambda folder: _tiny_opt(len(tokenizer), 32, 2, folder),
        tokenizer=tokenizer,
        train=train,
        eval_sets={"questions": test},
    )


def byte_tokenizer() -> Any:
    """A tokenizer of single bytes, with an end token that also pads."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    core = Tokenizer(BPE(vocabulary, []))
    core.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=core, eos_token="</s>", pad_token="</s>")


def _questions(n: int) -> list[Row]:
    names = [f"question/{i}" for i in range(n)]
    return [
        {"item": name, "source": name, "prompt": f"After {i}?", "completion": f"{i + 1}"}
        for i, name in enumerate(names)
    ]


def _tiny_opt(vocab_size: int, width: int, seed: int, folder: Path | None) -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    if folder is not None:
        return OPTForCausalLM.from_pretrained(folder)
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=vocab_size - 1,
        bos_token_id=vocab_size - 1,
        eos_token_id=vocab_size - 1,
    )
    return OPTForCausalLM(config)
