"""Prompts and answers as text, and that text as tokens and labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geodistill.errors import InputError
from geodistill.tasks.base import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")
ALPACA = (
    "Below is an instruction that describes a task{paired}. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{instruction}\n\n{input}### Response:"
)
"""The prompt template of Stanford Alpaca (Taori et al. 2023), which MiniLLM, DistiLLM and their
successors use for Dolly and the evaluation sets; a line break is added before the answer."""
_PROBE = "[answer]"


@dataclass(frozen=True)
class LengthCounts:
    """What the limits on length did to prompt-completion pairs.

    Attributes:
        n_pairs: number of pairs.
        n_dropped: pairs whose prompt was too long; half an instruction is another instruction.
        n_truncated: pairs whose answer lost its end, and with it the end token.
    """

    n_pairs: int
    n_dropped: int
    n_truncated: int

    def __str__(self) -> str:
        return (
            f"{self.n_pairs} pairs: {self.n_dropped} with long prompts dropped, "
            f"{self.n_truncated} answers truncated"
        )


def alpaca_prompt(instruction: str, input_text: str = "") -> str:
    """The prompt of an instruction, and its input if it has one, in Alpaca's template."""
    paired = ", paired with an input that provides further context" if input_text else ""
    section = f"### Input:\n{input_text}\n\n" if input_text else ""
    return ALPACA.format(paired=paired, instruction=instruction, input=section)


def turns_as_text(turns: Sequence[Mapping[str, str]]) -> str:
    """Chat turns as text: one line `role: content` per turn; a single turn is its content."""
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def goes_through_template(row: Row, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a row has chat `turns` and the tokenizer a chat template for them."""
    return bool(row.get("turns") and getattr(tokenizer, "chat_template", None))


def prompt_and_completion(row: Row, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """The text of the prompt and the text to learn, its end included.

    Args:
        row: with `prompt` and `completion`. If it has chat `turns`, they go through the tokenizer's
            chat template; without turns or template the prompt is followed by a line break and the
            completion by the end token.
        tokenizer: of the model that is trained.

    Raises:
        InputError: a tokenizer without end token and template; or the template refuses the turns
            (some allow no system message), or does not write the answer right after the prompt.
    """
    if not goes_through_template(row, tokenizer):
        if tokenizer.eos_token is None:
            raise InputError(
                "tokenizer has no end token, which each answer needs: expected one with an "
                "eos_token (tokenizer.eos_token = tokenizer.sep_token)"
            )
        return row["prompt"] + "\n", row["completion"] + tokenizer.eos_token
    from jinja2 import TemplateError

    try:
        prompt = str(
            tokenizer.apply_chat_template(row["turns"], tokenize=False, add_generation_prompt=True)
        )
        text = _chat_with(row["completion"], row, tokenizer)
    except TemplateError as error:
        raise InputError(f"{row['item']}: the chat template refuses it ({error})") from error
    if not text.startswith(prompt) or row["completion"].strip() not in text[len(prompt) :]:
        raise InputError(
            f"{row['item']}: the tokenizer's chat template does not write the answer right after "
            "the prompt; give prompt and completion instead of messages"
        )
    return prompt, text[len(prompt) :]


def _chat_with(answer: str, row: Row, tokenizer: PreTrainedTokenizerBase) -> str:
    turns = [*row["turns"], {"role": "assistant", "content": answer}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def _inserted_text(row: Row, tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str) -> str:
    """What the chat template puts between prompt and answer, such as an empty thought."""
    inserted = _chat_with(_PROBE, row, tokenizer)[len(prompt) :].partition(_PROBE)[0]
    rest = answer.removeprefix(inserted).lstrip()
    return inserted if inserted.strip() and rest.startswith(row["completion"].strip()) else ""


def encode_pair(
    row: Row, tokenizer: PreTrainedTokenizerBase, *, begin: bool = True
) -> dict[str, Any]:
    """One pair in tokens: `input_ids`, `labels` (-100 on the prompt) and `prompt_ids`.

    If the chat template puts text between prompt and answer, the answer's labels have it too, and
    `inserted` is that text as an answer has it, without special tokens.

    No other special tokens are added: OPT's tokenizer would put a begin token before the answer
    too.

    Args:
        row: with `item`, `source`, `prompt` and `completion`, and perhaps `template`; all but the
            prompt are copied.
        tokenizer: of the model that is trained.
        begin: whether a plain prompt gets the begin token, if the tokenizer's own calls add it, as
            a pipeline's do. What the template makes of a chat has it already, where the model
            expects it.

    Raises:
        InputError: an empty prompt or answer.
    """
    for name in ("prompt", "completion"):
        if not row[name].strip():
            raise InputError(f"{row['item']}: {name} is {row[name]!r}; expected a text")
    texts = prompt_and_completion(row, tokenizer)
    prompt, answer = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    example: dict[str, Any] = {
        name: row[name] for name in ("item", "source", "template", "completion") if name in row
    }
    if goes_through_template(row, tokenizer):
        if inserted := _inserted_text(row, tokenizer, *texts):
            ids = tokenizer(inserted, add_special_tokens=False)["input_ids"]
            example["inserted"] = tokenizer.decode(ids, skip_special_tokens=True)
    elif begin:
        prompt = _begin_tokens(tokenizer) + prompt
    return {
        "input_ids": prompt + answer,
        "labels": [-100] * len(prompt) + answer,
        "prompt_ids": prompt,
        **example,
    }


def _begin_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The begin token, if a plain call of the tokenizer puts it before a text."""
    token = getattr(tokenizer, "bos_token_id", None)
    return [] if token is None or tokenizer("x")["input_ids"][:1] != [token] else [token]


def encode_pairs(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    max_prompt_length: int,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    begin: bool = True,
) -> tuple[list[dict[str, Any]], LengthCounts]:
    """Prompt-completion pairs in tokens, as `encode_pair` makes them, within limits on length.

    Args:
        rows: with `item`, `source`, `prompt` and `completion`.
        tokenizer: of the student.
        max_length: most tokens of a prompt with its answer; longer answers are truncated.
        max_prompt_length: most tokens of a prompt; pairs with longer ones are dropped.
        teacher_tokenizer: of a teacher with another tokenizer. Examples then also have
            `teacher_input_ids` and `teacher_labels`, by its own chat template. The limits hold for
            both; an answer truncated for one model alone is not the same text for both.
        begin: as in `encode_pair`.

    Returns:
        The examples, each with its index `row`, and what the limits did.

    Raises:
        InputError: no tokens are left for an answer, no pair fits, or a pair has an empty prompt
            or answer.
    """
    if not 0 < max_prompt_length < max_length:
        raise InputError(
            f"max_prompt_length is {max_prompt_length}, max_length {max_length}; expected "
            "0 < max_prompt_length < max_length, which leaves tokens for an answer"
        )
    examples: list[dict[str, Any]] = []
    n_pairs = n_truncated = 0
    for row in rows:
        n_pairs += 1
        example = encode_pair(row, tokenizer, begin=begin)
        encodings = [example]
        if teacher_tokenizer is not None:
            encodings.append(encode_pair(row, teacher_tokenizer, begin=begin))
        if any(len(encoding["prompt_ids"]) > max_prompt_length for encoding in encodings):
            continue
        n_truncated += any(len(encoding["input_ids"]) > max_length for encoding in encodings)
        for encoding in encodings:
            for name in ("input_ids", "labels"):
                encoding[name] = encoding[name][:max_length]
        for encoding in encodings[1:]:
            example |= {f"teacher_{name}": encoding[name] for name in ("input_ids", "labels")}
        examples.append({**example, "row": len(examples)})
    if not examples:
        raise InputError(f"none of {n_pairs} prompts has at most {max_prompt_length} tokens")
    return examples, LengthCounts(n_pairs, n_pairs - len(examples), n_truncated)


def encode_texts(
    texts: Sequence[str | tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    labels: Sequence[int | float] | None = None,
    teacher_tokenizer: PreTrainedTokenizerBase | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Texts or pairs of texts in tokens for a classifier, with the tokenizer's special tokens.

    Args:
        texts: the texts, or pairs of them.
        tokenizer: of the student.
        max_length: most tokens of a text; longer ones are truncated.
        labels: class index or score of each text, in the order of the texts (of a Series too,
            whatever its index).
        teacher_tokenizer: of a teacher with another tokenizer; examples then also have
            `teacher_input_ids`.

    Returns:
        The examples, each with its index `row` and its label, and the number of texts truncated
        for either tokenizer.

    Raises:
        InputError: an empty text, what is neither a text nor a pair, or another number of labels
            than of texts.
    """
    if isinstance(texts, str) or not len(texts):
        raise InputError(f"texts is {texts!r}: expected a list of texts or of pairs of texts")
    if labels is not None and len(labels) != len(texts):
        raise InputError(f"labels has {len(labels)} entries for {len(texts)} texts")
    labels = None if labels is None else list(labels)  # of a Series by position
    tokenizers = {"input_ids": tokenizer}
    if teacher_tokenizer is not None:
        tokenizers["teacher_input_ids"] = teacher_tokenizer
    examples: list[dict[str, Any]] = []
    n_truncated = 0
    for index, text in enumerate(texts):
        parts = tuple(text) if isinstance(text, (tuple, list)) else (text,)
        if len(parts) > 2 or not all(isinstance(part, str) and part.strip() for part in parts):
            raise InputError(f"texts: number {index} is {text!r}, expected a text or a pair")
        full = {name: by(*parts, verbose=False)["input_ids"] for name, by in tokenizers.items()}
        example: dict[str, Any] = {
            name: by(*parts, truncation=True, max_length=max_length)["input_ids"]
            for name, by in tokenizers.items()
        }
        n_truncated += any(len(example[name]) < len(full[name]) for name in tokenizers)
        if labels is not None:
            example["labels"] = labels[index]
        examples.append({**example, "row": index})
    return examples, n_truncated
