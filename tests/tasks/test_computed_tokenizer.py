"""The tokenizer of the computed instructions: every symbol is a token, saved and loaded alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from geodistill.errors import InputError
from geodistill.tasks import load_instructions
from geodistill.tasks.computed_tokenizer import (
    PAD,
    build_tokenizer,
    check_symbols,
    computed_vocabulary,
)
from geodistill.tasks.prompts import encode_pair


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def test_the_vocabulary_has_each_symbol_once() -> None:
    vocabulary = computed_vocabulary()
    assert len(vocabulary) == len(set(vocabulary)) == 369
    assert {"lemon", "0", "99", "A", "Z", "yes", "no", "sixth", "\n", "?"} <= set(vocabulary)


def test_answers_come_back_and_every_symbol_is_a_token(tokenizer: PreTrainedTokenizerFast) -> None:
    data = load_instructions("computed")
    for row in [*data.validation, *data.test]:
        example = encode_pair(row, tokenizer)
        assert tokenizer.unk_token_id not in example["input_ids"]
        prompt, ids = example["prompt_ids"], example["input_ids"]
        assert ids[: len(prompt)] == prompt
        assert tokenizer.convert_ids_to_tokens(prompt[-1]) == "\n"
        answer = ids[len(prompt) :]
        assert answer[-1] == tokenizer.eos_token_id
        assert len(answer) == len(row["completion"].split()) + 1
        assert tokenizer.decode(answer, skip_special_tokens=True) == row["completion"]


def test_it_is_loaded_as_it_was_saved(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert (loaded.pad_token_id, loaded.eos_token_id, loaded.pad_token) == (0, 1, PAD)
    texts = ["apple pear\nSwap?</s>", "3 and 99", "unheard bear"]
    assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert loaded.decode(loaded("lemon owl 42 A")["input_ids"]) == "lemon owl 42 A"


def test_a_tokenizer_that_lacks_a_symbol_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"item": "a/0", "prompt": "Count the words: lemon owl", "completion": "2"}]
    check_symbols(tokenizer, rows)
    expected = r"^tokenizer: it has no token for 'unheard', a symbol of the instructions; expected"
    with pytest.raises(InputError, match=expected):
        check_symbols(tokenizer, [*rows, {**rows[0], "completion": "unheard"}])
    with pytest.raises(InputError, match=r"has no token for 'à'"):
        check_symbols(tokenizer, [{**rows[0], "prompt": "Count the words: à owl"}, *rows])
