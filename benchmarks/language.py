"""Training step of a language model: tokens per second with a term and with a cache."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM

from benchmarks import steps
from benchmarks.timing import Row, Watch, on, ratio, row, timed
from geodistill.distill import build_cache
from geodistill.distill.collate import batches_by_length
from geodistill.experiments.training import silence_libraries
from geodistill.losses import ProcrustesLoss

STEPS = {"cpu": 2, "cuda": 40}
BATCH, TOKENS, ANSWER = 8, 96, 24
"""Examples per step, tokens per example, and how many of these are its answer."""
TOP_K = 64


def language(repeats: int, device: str, *, tiny: bool = False) -> list[Row]:
    """Training of a few steps and the memory of the term; untrained models, since only cost counts.

    Teacher 12 x 576, student 4 x 256, 8,192 words.
    """
    silence_libraries()
    teacher, student = (_opt(tiny, role).to(device) for role in ("teacher", "student"))
    data = _examples(STEPS["cpu"] * BATCH, teacher.config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        cache = build_cache(
            teacher,
            batches_by_length(data, BATCH, 0),
            [ANSWER] * len(data),
            Path(folder) / "cache",
            layers=(-1,),
            top_k=TOP_K,
            progress=lambda line: None,
        )
        train = partial(steps.train, student, data, Path(folder), STEPS[device], BATCH, device)
        runs = {
            "KD": partial(train, teacher_model=teacher),
            "KD + Procrustes": partial(train, ProcrustesLoss(), teacher_model=teacher),
            "KD, cache": partial(train, teacher_cache=cache),
            "KD + Procrustes, cache": partial(train, ProcrustesLoss(), teacher_cache=cache),
        }
        seconds = timed(runs, repeats, device)
    size = f"{BATCH} x {TOKENS} tokens{on(device)}"
    geometry = "tokens a second, KD + Procrustes over KD"
    measured = [
        ratio(f"{geometry}, live teacher", size, seconds, "KD", "KD + Procrustes", ">= 0.9"),
        ratio(f"{geometry}, cache", size, seconds, "KD, cache", "KD + Procrustes, cache", ">= 0.9"),
        ratio("tokens a second, cache over live teacher", size, seconds, "KD", "KD, cache", ">= 2"),
    ]
    tokens = STEPS[device] * BATCH * TOKENS
    rates = {name: tokens / spent for name, spent in seconds.items()}
    return [rate | {"tokens_per_second": rates} for rate in measured] + memory()


def memory() -> list[Row]:
    """Bytes of the term beyond hidden states, forward and backward, for sixteenfold longer texts.

    First the prompt alone grows, then the answer, whose rows are processed in chunks.
    """
    short, long, answer = 512, 8192, 64
    measured = []
    for what, rows in (("prompts", (answer, answer)), ("answers", (short - 1, long - 1))):
        spent = {
            str(tokens): _beyond_hidden_states(tokens, n)
            for tokens, n in zip((short, long), rows, strict=True)
        }
        name, size = f"memory of the term, {what} of {long} tokens over {short}", f"{short}, {long}"
        measured.append(
            row(name, size, spent[str(long)] / spent[str(short)], "<= 1.1", bytes=spent)
        )
    return measured


def _beyond_hidden_states(tokens: int, rows: int) -> int:
    """Peak bytes beyond the hidden states, of which the last `rows` tokens count."""
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(4, tokens, d, generator=generator) for d in (192, 64))
    mask = torch.zeros(4, tokens, dtype=torch.bool)
    mask[:, -rows:] = True
    watch = _Beyond(teacher, student)
    with watch:
        ProcrustesLoss()(student.requires_grad_(), teacher, mask).backward()
    return watch.most


class _Beyond(Watch):  # type: ignore[no-untyped-call]
    """Ignores views of the hidden states and the gradient with respect to the student's."""

    def __init__(self, teacher: Tensor, student: Tensor) -> None:
        super().__init__(teacher, student)
        self.gradient = student.untyped_storage().nbytes()

    def _hold(self, tensor: Tensor) -> None:
        if tensor.untyped_storage().nbytes() != self.gradient:
            super()._hold(tensor)


def _opt(tiny: bool, role: str) -> Any:
    torch.manual_seed(0)
    layers, width = {"teacher": (12, 576), "student": (4, 256)}[role]
    if tiny:
        layers, width = 1, width // 8
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=100 if tiny else 8192,
            hidden_size=width,
            word_embed_proj_dim=width,
            ffn_dim=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
        )
    )


def _examples(count: int, vocabulary: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(4, vocabulary, (count, TOKENS), generator=generator).tolist()
    return [
        {"input_ids": ids, "labels": [-100] * (TOKENS - ANSWER) + ids[-ANSWER:], "row": row}
        for row, ids in enumerate(texts)
    ]
