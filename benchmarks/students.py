"""Training step of a classification student: cost of a geometry term, saving of the cache."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks import steps
from benchmarks.timing import Row, on, ratio, timed
from geodistill.distill import TeacherCache, bert_student, build_cache
from geodistill.distill.collate import batches_by_length
from geodistill.experiments.training import silence_libraries
from geodistill.losses import FeatureGramLoss, ProcrustesLoss

STEPS = {"cpu": 6, "cuda": 60}
"""Per training run: on a GPU a step is short compared with the start-up."""
MAX_RATIO = {"cpu": 1.10, "cuda": 1.05}
BATCH = 32


class Size(NamedTuple):
    """Sizes of the models and sentences.

    Attributes:
        teacher: layers and width.
        student: layers and width.
        words: vocabulary size.
        tokens: shortest and longest sentence.
        head: width of an attention head.
    """

    teacher: tuple[int, int]
    student: tuple[int, int]
    words: int
    tokens: tuple[int, int]
    head: int = 16


def small(tiny: bool) -> Size:
    """Sizes of the classification study; `tiny` to test the script."""
    if tiny:
        return Size((2, 32), (1, 32), 100, (10, 40))
    return Size((6, 384), (3, 128), 30_522, (10, 40))


LARGE = Size((12, 768), (6, 768), 30_522, (128, 128), head=64)
"""BERT-base and half of it: its step keeps a GPU busy, whereas the small one waits for Python."""


def students(repeats: int, device: str, *, tiny: bool = False) -> list[Row]:
    """Training of a few steps, with and without a term, with a live teacher and with the cache.

    Teacher 6 x 384, student 3 x 128, 32 sentences of 10 to 40 tokens, untrained, since only time
    counts; on a GPU also a large pair.
    """
    measured = _compared(small(tiny), repeats, device)
    if device != "cpu" and not tiny:
        measured += _compared(LARGE, repeats, device)
    return measured


def _compared(size: Size, repeats: int, device: str) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        teacher, data, cache = cached(Path(folder), device, size)
        train = partial(_train, teacher, data, Path(folder), device, size)
        seconds = timed(
            {
                "KD": partial(train, teacher_cache=cache),
                "KD + Procrustes": partial(train, ProcrustesLoss(), teacher_cache=cache),
                "KD + Gram": partial(train, FeatureGramLoss(), teacher_cache=cache),
                "KD, live": partial(train, teacher_model=teacher),
            },
            repeats,
            device,
        )
    layers, width = size.student
    sizes, target = f"{BATCH} sentences, {layers} x {width}{on(device)}", f"<= {MAX_RATIO[device]}"
    return [
        ratio(f"training step with {term} over KD alone", sizes, seconds, term, "KD", target)
        for term in ("KD + Procrustes", "KD + Gram")
    ] + [
        ratio("training step, live teacher over cache", sizes, seconds, "KD, live", "KD", ">= 2.0")
    ]


def cached(folder: Path, device: str, size: Size) -> tuple[Any, list[dict[str, Any]], TeacherCache]:
    """The teacher, sentences, and the cache of its outputs."""
    silence_libraries()
    teacher = untrained(size, *size.teacher).to(device)
    data = _sentences(2 * BATCH, size)
    lengths = [len(e["input_ids"]) for e in data]
    cache = build_cache(
        teacher, batches_by_length(data, BATCH, 0), lengths, folder / "cache", layers=(-1,),
        progress=lambda line: None,
    )  # fmt: skip
    return teacher, data, cache


def student(teacher: Any, size: Size) -> Any:
    """An untrained student."""
    layers, width = size.student
    return bert_student(teacher, width=width, layers=layers, seed=0)


def _train(
    teacher: Any,
    data: list[dict[str, Any]],
    folder: Path,
    device: str,
    size: Size,
    *losses: Any,
    **source: Any,
) -> None:
    steps.train(
        student(teacher, size), data, folder, STEPS[device], BATCH, device, *losses, **source
    )


def untrained(size: Size, layers: int, width: int) -> Any:
    """A classifier with random weights."""
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=size.words,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // size.head,
            intermediate_size=4 * width,
        )
    )


def _sentences(count: int, size: Size) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    shortest, longest = size.tokens
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
    return [
        {
            "input_ids": torch.randint(1, size.words, (length,), generator=generator).tolist(),
            "labels": row % 2,
            "row": row,
        }
        for row, length in enumerate(lengths)
    ]
