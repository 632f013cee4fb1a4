"""How an instruction and its answer become one text, and that text tokens: the one place for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geodistill.errors import InputError
from geodistill.tasks.base import Row

ROLES = ("system", "user", "assistant")
ALPACA = (
    "Below is an instruction that describes a task{paired}. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n{given}### Response:"
)
"""The wording of Stanford Alpaca (Taori et al. 2023), in which MiniLLM, DistiLLM and their
successors put Dolly and the evaluation sets; a line break is added before the answer."""


@dataclass(frozen=True)
class Lengths:
    """What the limits on length did to ``pairs`` pairs.

    ``left_out``: prompts that were too long (half an instruction is another one). ``cut``: answers
    that lost their end, and with it the end token.
    """

    pairs: int
    left_out: int
    cut: int

    def __str__(self) -> str:
        return (
            f"{self.pairs} pairs: {self.left_out} left out for their long prompts, "
            f"{self.cut} answers cut"
        )


def alpaca(instruction: str, given: str = "") -> str:
    """The instruction, with its input ``given`` where there is one, in Alpaca's wording."""
    paired = ", paired with an input that provides further context" if given else ""
    given = f"### Input:\n{given}\n\n" if given else ""
    return ALPACA.format(paired=paired, instruction=instruction, given=given)


def plain(turns: Sequence[Mapping[str, str]]) -> str:
    """Chat turns as text: a single user turn as it is, else a line ``role: content`` a turn."""
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def prompt_and_answer(row: Row, tokenizer: Any) -> tuple[str, str]:
    """The text that is given and the text that is learned, its end included.

    Chat ``turns`` go through the tokenizer's chat template where it has one. Without turns or
    template: the prompt and a line break; the completion and the end token.

    Raises:
        InputError: the template refuses the turns (some know no system message), or does not write
            the answer right after the prompt.
    """
    turns = row.get("turns")
    if not turns or not getattr(tokenizer, "chat_template", None):
        return row["prompt"] + "\n", row["completion"] + tokenizer.eos_token
    from jinja2 import TemplateError

    answer = {"role": "assistant", "content": row["completion"]}
    try:
        before = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([*turns, answer], tokenize=False)
    except TemplateError as error:
        raise InputError(f"{row['item']}: the chat template refuses it ({error})") from error
    if not whole.startswith(before) or row["completion"].strip() not in whole[len(before) :]:
        raise InputError(
            f"{row['item']}: the tokenizer's chat template does not write the answer right after "
            "the prompt; give prompt and completion instead of messages"
        )
    return before, whole[len(before) :]


def encode(row: Row, tokenizer: Any) -> dict[str, Any]:
    """``input_ids``, ``labels`` (-100 on the prompt), ``prompt_ids``, and the row's own fields.

    No token is added but those of the texts: OPT's tokenizer would put a begin token before the
    answer too.
    """
    prompt, answer = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in prompt_and_answer(row, tokenizer)
    )
    return {
        "input_ids": prompt + answer,
        "labels": [-100] * len(prompt) + answer,
        "prompt_ids": prompt,
        **{name: row[name] for name in ("item", "source", "completion")},
    }


def encode_all(
    rows: Iterable[Row], tokenizer: Any, *, max_length: int, max_prompt: int
) -> tuple[list[dict[str, Any]], Lengths]:
    """Every pair encoded, within ``max_prompt`` prompt tokens and ``max_length`` tokens in all.

    Returns:
        The examples, with ``row`` their place among them, and what the limits did.

    Raises:
        InputError: no room for an answer, or no pair is left.
    """
    if not 0 < max_prompt < max_length:
        raise InputError(
            f"max_prompt is {max_prompt}, max_length {max_length}; expected 0 < max_prompt < "
            "max_length, so that an answer has room"
        )
    examples: list[dict[str, Any]] = []
    pairs = cut = 0
    for row in rows:
        pairs += 1
        example = encode(row, tokenizer)
        if len(example["prompt_ids"]) > max_prompt:
            continue
        cut += len(example["input_ids"]) > max_length
        for name in ("input_ids", "labels"):
            example[name] = example[name][:max_length]
        examples.append({**example, "row": len(examples)})
    if not examples:
        raise InputError(f"none of {pairs} prompts has at most {max_prompt} tokens")
    return examples, Lengths(pairs, pairs - len(examples), cut)
