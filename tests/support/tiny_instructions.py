"""An instruction set of letters, its tokenizer, and a teacher of a few thousand weights."""

import random
from contextlib import contextmanager

import pytest
import torch

from geodistill.experiments.instruction import setup as instruction_setup
from geodistill.experiments.instruction.settings import InstructionSettings
from geodistill.tasks.base import InstructionData, pair_row
from geodistill.tasks.prompts import encode_pair
from support.own_cache import own_cache
from support.tiny_models import tiny_opt

END = 1
SETTINGS = InstructionSettings(
    task="letters",
    n_train=48,
    n_test=40,
    epochs=1.0,
    batch_size=8,
    width=64,
    layers=1,
    max_length=16,
    max_new_tokens=5,
    adapter="",
    top_k=8,
)


class Letters:
    """A tokenizer of lower-case letters: a is 3, b is 4, ...; a space is 2, a line break 29."""

    eos_token, eos_token_id, pad_token_id = "$", END, 0
    ids = {" ": 2, "\n": 29, "$": END}  # noqa: RUF012

    def __call__(self, text, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [self.ids.get(c) or ord(c) - 94 for c in text]}

    def batch_decode(self, rows, skip_special_tokens):
        assert skip_special_tokens
        texts = [[i for i in row.tolist() if i not in (0, END)] for row in rows]
        return ["".join({2: " ", 29: "\n"}.get(i) or chr(i + 94) for i in ids) for ids in texts]


def row(item, prompt, completion):
    template = f"{len(prompt)} letters"
    return pair_row(item, f"s{item}", template, prompt, completion)


ROWS = [row("0", "say ab", "ab"), row("1", "say", "a b c"), row("2", "go on", "d")]
EXAMPLES = [encode_pair(r, Letters()) for r in ROWS]


def letters_data(name="letters", sizes=(60, 45, 45)):
    """Prompts of letters whose answer is the prompt's second half."""
    draw = random.Random(0)
    splits = []
    for split, size in zip(("train", "validation", "test"), sizes, strict=True):
        words = ["".join(draw.choices("abcdefgh", k=draw.randint(4, 8))) for _ in range(size)]
        rows = [row(f"{name}/{split}/{i}", w, w[len(w) // 2 :]) for i, w in enumerate(words)]
        splits.append(rows)
    return InstructionData(name, *splits, data_hash="d")


def letters_opt():
    """A language model of letters; if its head were its embeddings, it would repeat one letter."""
    model = tiny_opt(0, vocabulary=30).eval()
    model.lm_head.weight = torch.nn.Parameter(torch.randn(30, 32))
    return model


def letters_teacher(name, adapter):
    model = tiny_opt(3, width=128, vocabulary=30).eval()
    model.lm_head.weight = torch.nn.Parameter(torch.randn(30, 128) / 4)
    return model, Letters()


@contextmanager
def letters_world(folder):
    """Setups are of letters, in a cache of their own."""
    with own_cache(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(instruction_setup, "load_teacher", letters_teacher)
        patch.setattr(instruction_setup, "load_instructions", letters_data)
        yield
