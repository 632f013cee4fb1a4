"""A chat template or plain text, tokens and labels, and the limits on length."""

from __future__ import annotations

from typing import Any

import pytest
from support.tiny_tokenizers import CHATML, byte_tokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.processors import TemplateProcessing

from geodistill.errors import InputError
from geodistill.tasks.prompts import (
    alpaca_prompt,
    encode_pair,
    encode_pairs,
    prompt_and_completion,
    turns_as_text,
)

THOUGHT = "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
THINK = CHATML.replace("{{ m.content }}", THOUGHT + "{{ m.content }}")
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Who are you?"},
]


def row(prompt: str = "Who?", completion: str = "Me.", **more: Any) -> dict[str, Any]:
    return {
        "item": "a/1",
        "source": "a/1",
        "prompt": prompt,
        "completion": completion,
        "turns": [],
        **more,
    }


def text_of(tokens: list[int], by: Any) -> str:
    return "".join(by.convert_ids_to_tokens(tokens)).replace("Ġ", " ").replace("Ċ", "\n")


def test_a_pair_is_prompt_line_break_answer_and_end() -> None:
    by = byte_tokenizer()
    example = encode_pair(row(), by)
    assert text_of(example["prompt_ids"], by) == "Who?\n"
    assert text_of(example["input_ids"], by) == "Who?\nMe.</s>"
    answer = [label for label in example["labels"] if label != -100]
    assert text_of(answer, by) == "Me.</s>"
    assert example["labels"][: len(example["prompt_ids"])] == [-100] * 5
    assert len(example["labels"]) == len(example["input_ids"])


def test_turns_go_through_the_chat_template_with_system_and_all_turns() -> None:
    by = byte_tokenizer(CHATML)
    prompt, answer = prompt_and_completion(row(turns=TURNS), by)
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nYes?<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert answer == "Me.<|im_end|>\n"
    example = encode_pair(row(turns=TURNS), by)
    assert text_of(example["input_ids"], by) == prompt + answer
    assert text_of([x for x in example["labels"] if x != -100], by) == answer


def test_without_a_template_turns_are_plain_lines() -> None:
    chat = row(prompt=turns_as_text(TURNS), turns=TURNS)
    prompt, answer = prompt_and_completion(chat, byte_tokenizer())
    assert prompt == "system: Be brief.\nuser: Hi\nassistant: Yes?\nuser: Who are you?\n"
    assert answer == "Me.</s>"
    assert turns_as_text([{"role": "user", "content": "Hi"}]) == "Hi"


def test_a_plain_pair_is_left_alone_by_a_chat_template() -> None:
    assert prompt_and_completion(row(), byte_tokenizer(CHATML)) == ("Who?\n", "Me.</s>")


def tokenizer_with_begin(template: str | None = None) -> Any:
    by = byte_tokenizer(template)
    by.add_special_tokens({"bos_token": "<s>"})
    by.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", by.bos_token_id), ("</s>", by.eos_token_id)]
    )
    return by


def test_a_plain_prompt_begins_as_the_tokenizer_s_own_calls_do() -> None:
    by = tokenizer_with_begin()
    example = encode_pair(row(), by)
    assert example["prompt_ids"] == by("Who?\n")["input_ids"][:-1]
    assert text_of(example["input_ids"], by) == "<s>Who?\nMe.</s>"
    assert [x for x in example["labels"] if x != -100] == example["input_ids"][-4:]
    assert text_of(encode_pair(row(), by, begin=False)["input_ids"], by) == "Who?\nMe.</s>"
    limits = {"max_length": 9, "max_prompt_length": 6}
    (pair,), _ = encode_pairs([row()], by, **limits, teacher_tokenizer=by)
    assert text_of(pair["teacher_input_ids"], by) == "<s>Who?\nMe."
    without = byte_tokenizer()
    without.add_special_tokens({"bos_token": "<s>"})  # which its calls don't add
    assert encode_pair(row(), without) == encode_pair(row(), without, begin=False)


@pytest.mark.parametrize("template", [CHATML, "<s>" + CHATML])
def test_a_chat_begins_as_the_template_has_it(template: str) -> None:
    by = tokenizer_with_begin(template)
    chat = row(turns=TURNS)
    at_use = by.apply_chat_template(TURNS, add_generation_prompt=True)["input_ids"]
    assert encode_pair(chat, by)["prompt_ids"] == at_use


@pytest.mark.parametrize("completion", ["Me.", "think", "<", " Me. "])
def test_text_that_the_template_puts_before_the_answer_is_learned_and_named(
    completion: str,
) -> None:
    by = byte_tokenizer(THINK)
    by.backend_tokenizer.decoder = ByteLevel()
    example = encode_pair(row(completion=completion, turns=TURNS), by)
    learned = by.decode([x for x in example["labels"] if x != -100])
    inserted = "<think>\n\n</think>\n\n"
    assert learned == f"{inserted}{completion}<|im_end|>\n"
    assert example["inserted"] == inserted
    by.chat_template = CHATML
    assert "inserted" not in encode_pair(row(completion=completion, turns=TURNS), by)


def test_a_template_that_refuses_or_hides_the_answer_is_an_error() -> None:
    with pytest.raises(InputError, match=r"a/1: the chat template refuses it \(no system\)"):
        prompt_and_completion(row(turns=TURNS), byte_tokenizer(NO_SYSTEM))
    backwards = "{% for m in messages|reverse %}{{ m.content }}{% endfor %}"
    with pytest.raises(InputError, match=r"a/1: .* does not write the answer right after"):
        prompt_and_completion(row(turns=TURNS), byte_tokenizer(backwards))


def test_alpaca_with_and_without_input() -> None:
    assert alpaca_prompt("Add.").endswith("request.\n\n### Instruction:\nAdd.\n\n### Response:")
    with_input = alpaca_prompt("Add.", "1 {2}")
    assert "paired with an input" in with_input
    assert with_input.endswith("Add.\n\n### Input:\n1 {2}\n\n### Response:")


def test_limits_drop_long_prompts_and_truncate_long_answers() -> None:
    rows = [
        row("12345", "abc", item="fits"),
        row("1" * 20, "abc", item="long prompt"),
        row("12345", "a" * 30, item="long answer"),
        row("123456789", "abcdefghij", item="just fits"),
    ]
    examples, lengths = encode_pairs(rows, byte_tokenizer(), max_length=21, max_prompt_length=10)
    assert [example["item"] for example in examples] == ["fits", "long answer", "just fits"]
    assert [example["row"] for example in examples] == [0, 1, 2]
    assert [len(example["input_ids"]) for example in examples] == [10, 21, 21]
    assert (lengths.n_pairs, lengths.n_dropped, lengths.n_truncated) == (4, 1, 1)
    assert str(lengths) == "4 pairs: 1 with long prompts dropped, 1 answers truncated"
    end = byte_tokenizer().eos_token_id
    assert [example["labels"][-1] == end for example in examples] == [True, False, True]


def test_limits_that_are_invalid_or_drop_all_pairs() -> None:
    with pytest.raises(InputError, match="max_prompt_length is 8, max_length 8; expected 0 < max"):
        encode_pairs([row()], byte_tokenizer(), max_length=8, max_prompt_length=8)
    with pytest.raises(InputError, match="none of 1 prompts has at most 2 tokens"):
        encode_pairs([row()], byte_tokenizer(), max_length=8, max_prompt_length=2)
