"""The tokenizer of the computed instructions: one token per word, number, letter and sign."""

from __future__ import annotations

import re
from collections.abc import Iterable
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from geodistill.errors import InputError
from geodistill.tasks.base import Row
from geodistill.tasks.computed_wordings import KINDS, NUMBERS, ORDINALS, WORDINGS, WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SYMBOL = r"\n|\w+|[^\w\s]"


def computed_vocabulary() -> list[str]:
    """All symbols of the computed instructions, each once, in a fixed order.

    Example:
        >>> vocabulary = computed_vocabulary()
        >>> len(vocabulary), vocabulary[:4]
        (369, ['<pad>', '</s>', '<unk>', '\\n'])
    """
    texts = [text for wordings in WORDINGS.values() for text in wordings]
    wording = re.findall(SYMBOL, re.sub(r"{\w+}", " ", " ".join([*texts, *KINDS])))
    symbols = [*sorted(set(wording) - {"\n"}), *WORDS, *ORDINALS, "yes", *NUMBERS]
    return list(dict.fromkeys([PAD, END, UNKNOWN, "\n", *symbols, *ascii_uppercase]))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, as `transformers` saves and loads it.

    Decoded text has its symbols separated by single spaces, as the answers have.

    Example:
        >>> tokenizer = build_tokenizer()
        >>> tokenizer.decode(tokenizer("lemon owl 42")["input_ids"])
        'lemon owl 42'
    """
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    ids = {symbol: index for index, symbol in enumerate(computed_vocabulary())}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(SYMBOL), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def check_symbols(tokenizer: Any, rows: Iterable[Row]) -> None:
    """Check that a tokenizer knows every symbol of some instructions.

    Args:
        tokenizer: of any kind.
        rows: with `item`, `prompt` and `completion`.

    Raises:
        InputError: it lacks one; the error names it.
    """
    texts = [f"{row['prompt']}\n{row['completion']}" for row in rows]
    for symbol in sorted({symbol for text in texts for symbol in re.findall(SYMBOL, text)}):
        ids = tokenizer(symbol, add_special_tokens=False)["input_ids"]
        if not ids or (tokenizer.unk_token_id in ids and tokenizer.unk_token != symbol):
            raise InputError(
                f"tokenizer: it has no token for {symbol!r}, a symbol of the instructions; "
                "expected one that knows all of them, such as build_tokenizer()"
            )
