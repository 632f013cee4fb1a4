"""The stages of a published pair: fine-tuning of the teacher, training of the students, scores.

Finished stages stay in the folder, and the same command continues from there; another seed or
weight shares the stages that do not depend on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.errors import InputError
from geodistill.experiments.instruction.train import (
    ProgressCallback,
    distillation_losses,
    train_on_answers,
)
from geodistill.experiments.published_pairs.config import (
    DEFAULT_SEED,
    METHODS,
    START,
    ModelsAndData,
    PublishedPair,
    StudentRun,
    plan_students,
)
from geodistill.experiments.published_pairs.evaluate import (
    evaluate_student,
    store_scores,
    student_label,
)
from geodistill.files import Progress, atomic_folder


def train_and_evaluate(
    pair: PublishedPair,
    materials: ModelsAndData,
    folder: Path,
    progress: Progress,
    *,
    seed: int = DEFAULT_SEED,
    weight: float | None = None,
    methods: Sequence[str] = METHODS,
) -> pd.DataFrame:
    """All stages of a pair for one training seed and weight; finished stages are reused.

    Args:
        pair: the published pair.
        materials: its models and data.
        folder: of all stages, of every seed and weight. It also gets the scores of these and of
            earlier calls: scores.csv, with provenance, and items.parquet.
        progress: called with a line for each stage, log and batch of answers.
        seed: of the students' trainings; the teacher's is `DEFAULT_SEED`.
        weight: of the terms; None is the pair's.
        methods: some of `METHODS`; the start is trained in any case.

    Returns:
        The first table of `evaluate_student` for these students.

    Raises:
        InputError: the folder holds a run of other settings, such as a dry run's, or other files;
            no method or an unknown one, or a weight or a seed out of range.
    """
    planned = plan_students(pair, methods, seed=seed, weight=weight)
    (start,) = plan_students(pair, (START,), seed=seed, weight=weight)
    _claim_folder(folder, pair, materials.finetuned_teacher)
    train = partial(_train_stage, pair, materials, progress)
    if planned != [start] and materials.finetuned_teacher is None:
        train(
            "teacher",
            folder / "teacher",
            lambda: (materials.load_teacher(None), {}),
            DEFAULT_SEED,
            pair.teacher_epochs,
            pair.teacher_learning_rate,
        )
    for student in dict.fromkeys([start, *planned]):
        load = partial(_load_student, pair, materials, folder, student)
        epochs = pair.sft_epochs if student == start else pair.epochs
        name = f"{student_label(student.name)}, seed {seed}"
        train(name, folder / student.folder, load, seed, epochs, pair.learning_rate)
    tables = [
        evaluate_student(pair, materials, student, folder / student.folder, progress)
        for student in planned
    ]
    scores = pd.concat([table for table, _ in tables], ignore_index=True)
    store_scores(folder, scores, pd.concat([items for _, items in tables], ignore_index=True))
    return scores


def _claim_folder(folder: Path, pair: PublishedPair, teacher: Path | None) -> None:
    """Write the settings, or compare them: stages of another run must not be reused.

    Raises:
        InputError: they differ, or the folder holds other files.
    """
    settings = {
        **asdict(pair),
        "finetuned_teacher": teacher and str(teacher),
        "teacher_seed": DEFAULT_SEED,
    }
    file = folder / "settings.json"
    if file.is_file():
        stored = json.loads(file.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if name not in stored or stored[name] != value:
                raise InputError(
                    f"folder {folder} holds a run of other settings ({name} is "
                    f"{stored.get(name)!r}, not {value!r}): expected another folder"
                )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder {folder} holds other files: expected a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _load_student(
    pair: PublishedPair, materials: ModelsAndData, folder: Path, student: StudentRun
) -> tuple[Any, dict[str, Any]]:
    """A student before its training, and the arguments of its distillation."""
    if student.method == START:
        return materials.load_student(None), {}
    teacher = materials.load_teacher(materials.finetuned_teacher or folder / "teacher" / "model")
    start = replace(student, method=START, weight=None)
    model = materials.load_student(folder / start.folder / "model")
    losses = distillation_losses(
        student.method,
        model.config.hidden_size,
        teacher.config.hidden_size,
        weight=student.weight or 0.0,
        kd_weight=pair.kd_weight,
        seed=student.seed,
        teacher_features=_no_features,
    )
    return model, {"teacher_model": teacher, **losses}


def _no_features() -> Tensor:
    raise InputError("a loss is fitted to the teacher's features, which a pair does not store")


def _train_stage(
    pair: PublishedPair,
    materials: ModelsAndData,
    progress: Progress,
    name: str,
    folder: Path,
    load: Callable[[], tuple[Any, dict[str, Any]]],
    seed: int,
    epochs: float,
    learning_rate: float,
) -> None:
    """One training into `folder`/model, unless it is finished, from its last checkpoint on."""
    if (folder / "model" / "config.json").is_file():
        return
    progress(f"{name}: {epochs:g} epochs")
    model, distillation = load()
    trainer = train_on_answers(
        model,
        materials.train,
        materials.tokenizer.pad_token_id,
        folder,
        seed=seed,
        callbacks=[ProgressCallback(progress)],
        distillation=distillation,
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=pair.weight_decay,
        lr_scheduler_type=pair.lr_schedule,
        warmup_steps=0,
        max_grad_norm=1.0,
        per_device_train_batch_size=pair.batch_size,
        gradient_accumulation_steps=pair.gradient_accumulation_steps,
        bf16=torch.cuda.is_available(),
        save_strategy="epoch",
        save_total_limit=1,
    )
    with atomic_folder(folder / "model") as partial_folder:
        trainer.save_model(str(partial_folder))
