"""A classification student's training step: what a geometry term adds, what the cache saves."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks import steps
from benchmarks.timing import Row, ratio, timed
from geodistill.distill import TeacherCache, bert_student, build_cache
from geodistill.experiments.training import in_batches, quiet
from geodistill.losses import FeatureGramLoss, ProcrustesLoss

STEPS = {"cpu": 6, "cuda": 60}
"""Of a training: on a GPU a step is short beside what comes before the first."""
MOST = {"cpu": 1.15, "cuda": 1.05}
BATCH = 32


def students(repeats: int, device: str, *, tiny: bool = False) -> list[Row]:
    """Trainings of a few steps: with a term over without, and with a live teacher over the cache.

    Teacher 6 x 384, student 3 x 128, 32 sentences of 10 to 40 tokens, untrained: only time counts.
    """
    with tempfile.TemporaryDirectory() as folder:
        teacher, data, cache = cached(Path(folder), device, tiny)
        train = partial(_train, teacher, data, Path(folder), device, tiny)
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
    size = f"{BATCH} sentences" + ("" if device == "cpu" else f" ({device})")
    most = f"<= {MOST[device]}"
    return [
        ratio(f"training step with {term} over KD alone", size, seconds, term, "KD", most)
        for term in ("KD + Procrustes", "KD + Gram")
    ] + [ratio("training step, live teacher over cache", size, seconds, "KD, live", "KD", ">= 1.8")]


def cached(folder: Path, device: str, tiny: bool) -> tuple[Any, list[dict[str, Any]], TeacherCache]:
    """The teacher, sentences, and what it says of them."""
    quiet()
    teacher = _teacher(tiny).to(device)
    data = _sentences(2 * BATCH, vocabulary=teacher.config.vocab_size)
    lengths = [len(e["input_ids"]) for e in data]
    cache = build_cache(
        teacher, in_batches(data, BATCH, 0), lengths, folder / "cache", layers=(-1,),
        say=lambda line: None,
    )  # fmt: skip
    return teacher, data, cache


def student(teacher: Any, tiny: bool) -> Any:
    """An untrained student of 3 x 128."""
    return bert_student(teacher, width=32 if tiny else 128, layers=1 if tiny else 3, seed=0)


def _train(
    teacher: Any,
    data: list[dict[str, Any]],
    folder: Path,
    device: str,
    tiny: bool,
    *losses: Any,
    **source: Any,
) -> None:
    steps.train(
        student(teacher, tiny), data, folder, STEPS[device], BATCH, device, *losses, **source
    )


def _teacher(tiny: bool) -> Any:
    torch.manual_seed(0)
    width, layers, vocabulary = (32, 2, 100) if tiny else (384, 6, 30_522)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 16,
            intermediate_size=4 * width,
        )
    )


def _sentences(count: int, vocabulary: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(10, 41, (count,), generator=generator).tolist()
    return [
        {
            "input_ids": torch.randint(1, vocabulary, (length,), generator=generator).tolist(),
            "labels": row % 2,
            "row": row,
        }
        for row, length in enumerate(lengths)
    ]
