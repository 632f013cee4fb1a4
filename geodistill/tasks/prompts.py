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

    Raises:
        InputError: an empty prompt or answer.
    """
    for name in ("prompt", "completion"):
        if not row[name].strip():
            raise InputError(f"{row['item']}: {name} is {row[name]!r}; expected a text")
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
    rows: Iterable[Row],
    tokenizer: Any,
    *,
    max_length: int,
    max_prompt: int,
    teacher_tokenizer: Any = None,
) -> tuple[list[dict[str, Any]], Lengths]:
    """Every pair encoded, within ``max_prompt`` prompt tokens and ``max_length`` tokens in all.

    For a teacher with another tokenizer, examples also have the pair in its tokens, and its own
    chat template: ``teacher_input_ids`` and ``teacher_labels``. The limits hold for both; an answer
    that is cut on one side alone is then not the same text on both.

    Returns:
        The examples, with ``row`` their place among them, and what the limits did.

    Raises:
        InputError: no room for an answer, no pair is left, or one has an empty prompt or answer.
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
        own = None if teacher_tokenizer is None else encode(row, teacher_tokenizer)
        sides = [example] if own is None else [example, own]
        if any(len(side["prompt_ids"]) > max_prompt for side in sides):
            continue
        cut += any(len(side["input_ids"]) > max_length for side in sides)
        for side in sides:
            for name in ("input_ids", "labels"):
                side[name] = side[name][:max_length]
        if own is not None:
            example |= {f"teacher_{name}": own[name] for name in ("input_ids", "labels")}
        examples.append({**example, "row": len(examples)})
    if not examples:
        raise InputError(f"none of {pairs} prompts has at most {max_prompt} tokens")
    return examples, Lengths(pairs, pairs - len(examples), cut)


def encode_texts(
    texts: Sequence[str | tuple[str, str]],
    tokenizer: Any,
    *,
    max_length: int,
    labels: Sequence[int | float] | None = None,
    teacher_tokenizer: Any = None,
) -> tuple[list[dict[str, Any]], int]:
    """Texts, or pairs of them, as a classifier reads them: with the tokenizer's special tokens.

    For a teacher with another tokenizer, examples also have ``teacher_input_ids``.

    Returns:
        The examples, with ``row`` their place and their label, and how many texts were cut at
        ``max_length`` tokens, in either tokenizer.

    Raises:
        InputError: an empty text, or another number of labels than of texts.
    """
    if isinstance(texts, str) or not len(texts):
        raise InputError(f"texts is {texts!r}: expected a list of texts or of pairs of texts")
    if labels is not None and len(labels) != len(texts):
        raise InputError(f"labels has {len(labels)} entries for {len(texts)} texts")
    sides = {"input_ids": tokenizer}
    if teacher_tokenizer is not None:
        sides["teacher_input_ids"] = teacher_tokenizer
    examples: list[dict[str, Any]] = []
    cut = 0
    for place, text in enumerate(texts):
        parts = (text,) if isinstance(text, str) else tuple(text)
        if not all(part.strip() for part in parts):
            raise InputError(f"texts: number {place} is {text!r}, expected a text")
        whole = {name: by(*parts, verbose=False)["input_ids"] for name, by in sides.items()}
        example: dict[str, Any] = {
            name: by(*parts, truncation=True, max_length=max_length)["input_ids"]
            for name, by in sides.items()
        }
        cut += any(len(example[name]) < len(whole[name]) for name in sides)
        if labels is not None:
            example["labels"] = labels[place]
        examples.append({**example, "row": place})
    return examples, cut
