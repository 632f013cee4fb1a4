"""What a preset runs on: the hub's models and data, or tiny ones made on the spot."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from geodistill.errors import AssetError, InputError
from geodistill.experiments.published_pairs.config import Parts, Preset
from geodistill.experiments.training import quiet
from geodistill.tasks import load_instructions
from geodistill.tasks.base import Row
from geodistill.tasks.instructions import WORDED, worded
from geodistill.tasks.prompts import alpaca, encode_all


def hub_parts(chosen: Preset, teacher: Path | None, report: Callable[[str], None]) -> Parts:
    """Models and data of the hub.

    Args:
        chosen: the preset.
        teacher: folder of a teacher that is fine-tuned already.
        report: gets a line on the data, with what the limits on length did.

    Raises:
        InputError: `teacher` holds no whole model, or one of another vocabulary than the student's.
        AssetError: the tokenizer or a set can't be loaded; later on, a model.
    """
    quiet()
    if teacher is not None:  # else it is loaded after hours of the student's start
        _check_teacher(teacher, chosen.student)
    tokenizer = _from_hub("AutoTokenizer", chosen.student)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    data = load_instructions(chosen.task)
    lengths = {"max_length": chosen.max_length, "max_prompt": chosen.max_prompt}
    train, told = encode_all(data.train, tokenizer, **lengths)
    report(f"{chosen.task}, train: {told}")
    tests = {}
    for name in chosen.evaluation:
        tests[name], told = encode_all(_evaluation(name, chosen.task), tokenizer, **lengths)
        report(f"{name}, test: {told}")
    frozen = torch.bfloat16 if torch.cuda.is_available() else torch.float32

    def load_teacher(folder: Path | None) -> Any:
        return _model(folder or chosen.teacher, frozen if folder else torch.float32)

    def load_student(folder: Path | None) -> Any:
        return _model(folder or chosen.student, torch.float32)

    return Parts(load_teacher, load_student, tokenizer, train, tests, tuned_teacher=teacher)


def _evaluation(name: str, task: str) -> Any:
    """Test rows of a set, worded as the training set is: Dolly in Alpaca's words."""
    if task == "dolly" and name in WORDED:
        return worded(name, alpaca).test
    return load_instructions(name).test


def _check_teacher(folder: Path, student: str) -> None:
    """From config and headers alone: on the meta device weights of gigabytes take moments."""
    from transformers import AutoModelForCausalLM

    kind: Any = AutoModelForCausalLM
    try:
        model, found = kind.from_pretrained(folder, device_map="meta", output_loading_info=True)
        if missing := sorted(found["missing_keys"]):
            raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
    except Exception as error:  # the readers of configs and weights raise whatever they meet
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InputError(
            f"--teacher is {folder}: expected a folder with a fine-tuned model ({reason})"
        ) from error
    theirs = model.get_output_embeddings().weight.shape[0]
    ours = _from_hub("AutoConfig", student).vocab_size
    if theirs != ours:
        raise InputError(
            f"--teacher is {folder}: it has {theirs} logits, the student {student} {ours}; "
            "expected a model of the student's tokenizer"
        )


def _model(where: Path | str, dtype: torch.dtype) -> Any:
    return _from_hub("AutoModelForCausalLM", where, dtype=dtype)


def _from_hub(kind: str, where: Path | str, **options: Any) -> Any:
    import transformers

    try:
        return getattr(transformers, kind).from_pretrained(str(where), **options)
    except (OSError, ValueError) as error:  # unreachable, offline, no such folder
        raise AssetError(
            f"{where} can't be loaded ({str(error).splitlines()[0]}); connect to the hub, or try "
            "the preset by --dry-run"
        ) from error


def dry_parts(chosen: Preset) -> Parts:
    """OPTs of two layers, a tokenizer of bytes, sixteen questions: every line, in seconds."""
    quiet()
    tokenizer = byte_tokenizer()
    lengths = {"max_length": chosen.max_length, "max_prompt": chosen.max_prompt}
    train, _ = encode_all(_questions(16), tokenizer, **lengths)
    test, _ = encode_all(_questions(6), tokenizer, **lengths)
    return Parts(
        load_teacher=lambda folder: _tiny_opt(len(tokenizer), 48, 1, folder),
        load_student=lambda folder: _tiny_opt(len(tokenizer), 32, 2, folder),
        tokenizer=tokenizer,
        train=train,
        tests={"questions": test},
    )


def byte_tokenizer() -> Any:
    """A tokenizer whose tokens are bytes, and an end that also pads."""
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import PreTrainedTokenizerFast

    letters = {letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    core = Tokenizer(BPE(letters, []))
    core.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=core, eos_token="</s>", pad_token="</s>")


def _questions(n: int) -> list[Row]:
    names = {"item": "question/{}", "source": "question/{}", "prompt": "After {}?"}
    rows = [{key: text.format(i) for key, text in names.items()} for i in range(n)]
    return [{**row, "completion": f"{i + 1}"} for i, row in enumerate(rows)]


def _tiny_opt(vocabulary: int, width: int, seed: int, folder: Path | None) -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    if folder is not None:
        return OPTForCausalLM.from_pretrained(folder)
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=vocabulary - 1,
        bos_token_id=vocabulary - 1,
        eos_token_id=vocabulary - 1,
    )
    return OPTForCausalLM(config)
