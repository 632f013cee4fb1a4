"""Answers of a language model, generated in batches; an interrupted generation is resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from geodistill.distill.collate import to_device
from geodistill.distill.teacher_cache import cache_key
from geodistill.errors import InputError
from geodistill.files import Progress, no_progress
from geodistill.positions import max_tokens

Example = dict[str, Any]
"""A prompt with its answer, as `tasks.prompts.encode_pair` encodes it."""
BATCH_SIZE = 32


def generate(
    model: Any,
    tokenizer: Any,
    examples: list[Example],
    max_new_tokens: int,
    *,
    seed: int | None = None,
    file: Path | None = None,
    progress: Progress = no_progress,
) -> list[str]:
    """Answers to the prompts of some examples, in their order.

    Args:
        model: a causal language model.
        tokenizer: of the model.
        examples: with `prompt_ids`.
        max_new_tokens: longest answer, in tokens.
        seed: of answers sampled at temperature 1 from all tokens; None for greedy answers.
        file: JSON lines of finished batches, from which an interrupted call is resumed.
        progress: called after each batch with a line such as "32 of 48 answers".

    Raises:
        InputError: no examples; a prompt that exceeds the model's positions with its answer; a
            `file` of other prompts, or of another seed or length.
    """
    if not examples:
        raise InputError("examples is empty: expected at least one")
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["prompt_ids"]))
    _check_positions(model, len(examples[order[-1]]["prompt_ids"]), max_new_tokens)
    batches = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
    prompts = json.dumps([e["prompt_ids"] for e in examples])
    key = cache_key(prompts, str(max_new_tokens), str(seed))
    stored = _stored_batches(file, batches, key) if file else []
    answers = [""] * len(examples)
    for index, batch in enumerate(batches):
        if index < len(stored):
            texts = stored[index]
        else:
            batch_prompts = [examples[i]["prompt_ids"] for i in batch]
            with torch.random.fork_rng():  # no effect on other draws
                if seed is not None:
                    torch.manual_seed(seed * 100_000 + index)
                texts = _generate_batch(
                    model, tokenizer, batch_prompts, max_new_tokens, sample=seed is not None
                )
            if file:
                _store_batch(file, batch, texts, key)
        for i, text in zip(batch, texts, strict=True):
            answers[i] = text
        progress(f"{min((index + 1) * BATCH_SIZE, len(examples))} of {len(examples)} answers")
    return answers


def _check_positions(model: Any, longest: int, max_new_tokens: int) -> None:
    positions = max_tokens(model)
    if longest + max_new_tokens > positions:
        raise InputError(
            f"the longest prompt has {longest} tokens; with {max_new_tokens} new ones it exceeds "
            f"the model's {positions} positions: leave it out, or lower max_new_tokens"
        )


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The ids that end an answer: the tokenizer's, then the others of the model's configuration.

    A chat may end its turns with another token than a text.

    Args:
        model: a causal language model.
        tokenizer: of the model.
    """
    ends = model.generation_config.eos_token_id
    others = ends if isinstance(ends, list) else [ends]
    return list(dict.fromkeys(i for i in (tokenizer.eos_token_id, *others) if i is not None))


@torch.no_grad()
def _generate_batch(
    model: Any, tokenizer: Any, prompts: list[list[int]], max_new_tokens: int, *, sample: bool
) -> list[str]:
    """Answers to some prompts, padded on the left."""
    length = max(map(len, prompts))
    padding = [length - len(p) for p in prompts]
    ids = [[tokenizer.pad_token_id] * n + p for n, p in zip(padding, prompts, strict=True)]
    mask = [[0] * n + [1] * (length - n) for n in padding]
    batch = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    out = model.generate(
        **to_device(model, batch),
        max_new_tokens=max_new_tokens,
        do_sample=sample,
        **({"temperature": 1.0, "top_p": 1.0, "top_k": 0} if sample else {}),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end_tokens(model, tokenizer),
    )
    texts: list[str] = tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
    return texts


def _stored_batches(file: Path, batches: list[list[int]], key: str) -> list[list[str]]:
    """The answers of an interrupted call; an incomplete last line is removed."""
    if not file.is_file():
        return []
    content = file.read_bytes()
    lines = content[: content.rfind(b"\n") + 1]
    os.truncate(file, len(lines))
    try:
        stored = [json.loads(line) for line in lines.splitlines()]
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}); delete it") from error
    rows = [batch["rows"] for batch in stored]
    if rows != batches[: len(stored)] or {batch.get("key") for batch in stored} - {key}:
        raise InputError(
            f"{file} holds answers to other prompts, or of another seed or length; delete it"
        )
    return [batch["answers"] for batch in stored]


def _store_batch(file: Path, rows: list[int], answers: list[str], key: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"rows": rows, "answers": answers, "key": key}) + "\n")
