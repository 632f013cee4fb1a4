"""The stages of a preset: the teacher's fine-tuning, the students' trainings, their scores.

They are `transformers` trainings with our mixin. What is finished is kept in the folder, and the
same command goes on from there; another seed or weight shares what does not depend on it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm
from geodistill.errors import InputError
from geodistill.experiments.instruction.adapter import Progress
from geodistill.experiments.instruction.evaluate import Example
from geodistill.experiments.methods import Geometry, feature_loss
from geodistill.experiments.published_pairs.config import (
    METHODS,
    SEED,
    START,
    Parts,
    Preset,
    Report,
    Student,
    students,
)
from geodistill.experiments.published_pairs.evaluate import keep, label, scored
from geodistill.experiments.training import fit, last_checkpoint, pad, training_arguments
from geodistill.losses import KLDivergenceLoss


def run(
    chosen: Preset,
    parts: Parts,
    folder: Path,
    report: Report,
    *,
    seed: int = SEED,
    weight: float | None = None,
    methods: Sequence[str] = METHODS,
) -> pd.DataFrame:
    """All stages of a preset for one training seed and weight; finished ones are read.

    Args:
        chosen: the preset.
        parts: what it runs on.
        folder: of all its stages, of every seed and weight.
        report: gets a line on every stage, and on the way.
        seed: of the students' trainings; the teacher's is `SEED`.
        weight: of the terms; None is the preset's.
        methods: those of `METHODS` to train and score; their start is trained in any case.

    Returns:
        The first table of `preset_scores.scored` for these students. `folder` has both, with those
        of earlier calls: scores.csv, with provenance, and items.parquet.

    Raises:
        InputError: `folder` holds a run of other settings, as a dry run's; or as `students`.
    """
    made = students(chosen, methods, seed=seed, weight=weight)
    (start,) = students(chosen, (START,), seed=seed, weight=weight)
    _claim(folder, chosen, parts.tuned_teacher)
    distilled = [one for one in made if one != start]
    if distilled:
        _make_teacher(chosen, parts, folder, report)
    _make_start(chosen, parts, folder / start.stage, start, report)
    for one in distilled:
        _make_student(chosen, parts, folder, start, one, report)
    tables = [scored(chosen, parts, one, folder / one.stage, report) for one in made]
    scores = pd.concat([table for table, _ in tables], ignore_index=True)
    items = pd.concat([table for _, table in tables], ignore_index=True)
    keep(folder, scores, items)
    return scores


def _claim(folder: Path, chosen: Preset, teacher: Path | None) -> None:
    """Write the settings down, or compare: stages of another run must not be taken for this one's.

    Raises:
        InputError: they differ, or the folder holds other files.
    """
    settings = {**asdict(chosen), "tuned_teacher": teacher and str(teacher), "teacher_seed": SEED}
    file = folder / "settings.json"
    if file.is_file():
        stored = json.loads(file.read_text())
        other = [name for name in settings if stored.get(name) != settings[name]]
        if other:
            name = other[0]
            found = repr(stored[name]) if name in stored else "missing, as of an earlier version"
            raise InputError(
                f"folder {folder} holds a run of other settings ({name} is {found}, not "
                f"{settings[name]!r}): expected another folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder {folder} holds other files: expected a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n")


def _is_finished(stage: Path) -> bool:
    return (stage / "model" / "config.json").is_file()


def _make_teacher(chosen: Preset, parts: Parts, folder: Path, report: Report) -> None:
    if parts.tuned_teacher is None and not _is_finished(folder / "teacher"):
        report(f"teacher: fine-tuning for {chosen.teacher_epochs:g} epochs")
        _train(
            chosen, parts, parts.load_teacher(None), folder / "teacher", report, seed=SEED,
            epochs=chosen.teacher_epochs, learning_rate=chosen.teacher_learning_rate,
        )  # fmt: skip


def _make_start(chosen: Preset, parts: Parts, stage: Path, start: Student, report: Report) -> None:
    if not _is_finished(stage):
        report(f"{label(start.name)}, seed {start.seed}: {chosen.sft_epochs:g} epochs")
        student = parts.load_student(None)
        _train(chosen, parts, student, stage, report, seed=start.seed, epochs=chosen.sft_epochs)


def _make_student(
    chosen: Preset, parts: Parts, folder: Path, start: Student, one: Student, report: Report
) -> None:
    """On from the start, by the method's losses."""
    if _is_finished(folder / one.stage):
        return
    report(f"{label(one.name)}, seed {one.seed}: {chosen.epochs:g} epochs")
    teacher = parts.load_teacher(parts.tuned_teacher or folder / "teacher" / "model")
    student = parts.load_student(folder / start.stage / "model")
    _train(
        chosen, parts, student, folder / one.stage, report, seed=one.seed, epochs=chosen.epochs,
        **_distillation(chosen, one, student, teacher),
    )  # fmt: skip


def _distillation(chosen: Preset, one: Student, student: Any, teacher: Any) -> dict[str, Any]:
    widths = student.config.hidden_size, teacher.config.hidden_size
    loss = feature_loss(one.method, Geometry(*widths, _no_rows, one.seed))
    terms = []
    if loss is not None and one.weight is not None:
        terms = [FeatureTerm(-1, -1, loss, weight=one.weight)]
    return {
        "teacher_model": teacher,
        "logit_loss": KLDivergenceLoss(),
        "logit_weight": chosen.kd_share,
        "task_weight": 1 - chosen.kd_share,
        "terms": terms,
    }


def _no_rows() -> Tensor:
    raise InputError("a loss is fitted to the teacher's rows, which a preset does not keep")


def _train(
    chosen: Preset,
    parts: Parts,
    model: Any,
    stage: Path,
    report: Report,
    *,
    seed: int,
    epochs: float,
    learning_rate: float | None = None,
    **distillation: Any,
) -> None:
    """One training into `stage`/model, resumed at its last checkpoint; renamed when whole."""
    arguments = training_arguments(
        stage,
        seed=seed,
        num_train_epochs=epochs,
        learning_rate=learning_rate or chosen.learning_rate,
        weight_decay=chosen.weight_decay,
        lr_scheduler_type=chosen.schedule,
        warmup_steps=0,
        max_grad_norm=1.0,
        per_device_train_batch_size=chosen.batch_size,
        gradient_accumulation_steps=chosen.accumulation,
        bf16=torch.cuda.is_available(),
        save_strategy="epoch",
        save_total_limit=1,
        remove_unused_columns=False,
    )
    trainer = FeatureDistillationTrainer(
        model=model,
        args=arguments,
        train_dataset=parts.train,
        data_collator=partial(_collate, parts.tokenizer.pad_token_id),
        callbacks=[Progress(report)],
        **distillation,
    )
    fit(trainer, resume=last_checkpoint(stage))
    trainer.save_model(str(stage / "model.partial"))
    (stage / "model.partial").rename(stage / "model")


def _collate(pad_id: int, examples: list[Example]) -> dict[str, torch.Tensor]:
    return pad([{name: e[name] for name in ("input_ids", "labels")} for e in examples], pad_id)
