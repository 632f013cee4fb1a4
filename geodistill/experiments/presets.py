"""The real pairs of the literature, ready for a GPU: SFT start, KD and KD + geometry, Rouge-L.

`data/presets/opt.yaml` has the settings, each with its source; `data/presets/published.csv` the
published scores of the same pair. The stages are `transformers` trainings with our mixin; what is
finished is kept in the folder, and the same command goes on from there.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm
from geodistill.errors import InputError
from geodistill.experiments.adapter import Progress
from geodistill.experiments.answers import Example, generate, marked
from geodistill.experiments.store import data_dir, provenance
from geodistill.experiments.training import (
    device,
    fit,
    last_checkpoint,
    pad,
    training_arguments,
)
from geodistill.losses import KLDivergenceLoss, ProcrustesLoss

Report = Callable[[str], None]
METHODS = ("SFT", "KD", "KD + Procrustes")
SEED = 10
"""Of the order of examples, as in the scripts that the settings come from."""


@dataclass(frozen=True)
class Preset:
    """One pair with its settings.

    Attributes:
        teacher, student: hub names; the teacher is fine-tuned first, for `teacher_epochs` at
            `teacher_learning_rate`.
        task: instruction set learned from.
        sft_epochs: of the student's start on the answers alone; `epochs` follow with distillation.
        batch_size, accumulation: examples a micro-batch, micro-batches a step. A geometry term
            compares the answer tokens of a micro-batch.
        kd_share: weight of the logit loss (forward KL); that of the answers is the rest.
        weight: of the geometry term.
        max_length, max_prompt: tokens; answers are generated up to `max_length` in all.
        decodings: seeds of the sampled answers, temperature 1 and all tokens.
        evaluation: instruction sets whose test prompts are answered.
    """

    teacher: str
    teacher_epochs: float
    teacher_learning_rate: float
    student: str
    task: str
    sft_epochs: float
    epochs: float
    learning_rate: float
    weight_decay: float
    schedule: str
    batch_size: int
    accumulation: int
    kd_share: float
    weight: float
    max_length: int
    max_prompt: int
    decodings: list[int]
    evaluation: list[str]


@dataclass(frozen=True)
class Parts:
    """What a preset runs on: models, tokenizer, encoded examples.

    Attributes:
        load_teacher, load_student: a model to be trained, or that of the folder it is given; a
            teacher's folder holds one that is frozen.
        tests: examples by instruction set.
        tuned_teacher: folder of a fine-tuned teacher; None fine-tunes it first.
    """

    load_teacher: Callable[[Path | None], Any]
    load_student: Callable[[Path | None], Any]
    tokenizer: Any
    train: list[Example]
    tests: dict[str, list[Example]]
    tuned_teacher: Path | None = None


def _table() -> dict[str, dict[str, dict[str, Any]]]:
    import yaml

    text = (data_dir() / "presets" / "opt.yaml").read_text(encoding="utf-8")
    table: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(text)
    return table


def preset(name: str) -> Preset:
    """The preset `name`.

    Raises:
        InputError: there is none of that name.
    """
    given = _settings(name)
    return Preset(**{field.name: given[field.name]["value"] for field in fields(Preset)})


def sources(name: str) -> pd.DataFrame:
    """setting, value, source of each setting of a preset."""
    rows = [{"setting": key, **given} for key, given in _settings(name).items()]
    return pd.DataFrame(rows, columns=["setting", "value", "source"])


def _settings(name: str) -> dict[str, dict[str, Any]]:
    table = _table()
    if name not in table:
        raise InputError(f"preset is {name!r}; expected one of {', '.join(table)}")
    return table[name]


def published(name: str) -> pd.DataFrame:
    """method, task, rougeL (0..100) and source of the published scores of a preset's pair."""
    table = pd.read_csv(data_dir() / "presets" / "published.csv")
    return table[table["preset"] == name].drop(columns="preset").reset_index(drop=True)


def run(chosen: Preset, parts: Parts, folder: Path, report: Report) -> pd.DataFrame:
    """All stages of a preset; finished ones are read from `folder`.

    Returns:
        method, task, seed and rougeL (0..100) of every student, set and decoding; also written to
        scores.csv in `folder`, with provenance.

    Raises:
        InputError: `folder` holds a run of other settings, as a dry run's.
    """
    _claim(folder, chosen, parts.tuned_teacher)
    if parts.tuned_teacher is None and not _is_finished(folder / "teacher"):
        report(f"teacher: fine-tuning for {chosen.teacher_epochs:g} epochs")
        _train(
            chosen, parts, parts.load_teacher(None), folder / "teacher", report,
            epochs=chosen.teacher_epochs, learning_rate=chosen.teacher_learning_rate,
        )  # fmt: skip
    students = {method: folder / method.replace(" + ", "_").lower() for method in METHODS}
    if not _is_finished(students["SFT"]):
        report(f"SFT: {chosen.sft_epochs:g} epochs")
        student = parts.load_student(None)
        _train(chosen, parts, student, students["SFT"], report, epochs=chosen.sft_epochs)
    for method in METHODS[1:]:
        if not _is_finished(students[method]):
            report(f"{method}: {chosen.epochs:g} epochs")
            teacher = parts.load_teacher(parts.tuned_teacher or folder / "teacher" / "model")
            _train(
                chosen, parts, parts.load_student(students["SFT"] / "model"), students[method],
                report, epochs=chosen.epochs, **_distillation(chosen, method, teacher),
            )  # fmt: skip
    rows = [
        row
        for method, where in students.items()
        for row in _scores(chosen, parts, method, where, report)
    ]
    scores = pd.DataFrame(rows)
    scores.assign(**provenance()).to_csv(folder / "scores.csv", index=False)
    return scores


def _claim(folder: Path, chosen: Preset, teacher: Path | None) -> None:
    """Write the settings down, or compare: stages of another run must not be taken for this one's.

    Raises:
        InputError: they differ, or the folder holds other files.
    """
    settings = {**asdict(chosen), "tuned_teacher": teacher and str(teacher)}
    file = folder / "settings.json"
    if file.is_file():
        stored = json.loads(file.read_text())
        other = [name for name in settings if stored.get(name) != settings[name]]
        if other:
            raise InputError(
                f"folder {folder} holds a run of other settings ({other[0]} is "
                f"{stored.get(other[0])!r}, not {settings[other[0]]!r}): expected another folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder {folder} holds other files: expected a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n")


def _is_finished(stage: Path) -> bool:
    return (stage / "model" / "config.json").is_file()


def _distillation(chosen: Preset, method: str, teacher: Any) -> dict[str, Any]:
    geometry = FeatureTerm(-1, -1, ProcrustesLoss(), weight=chosen.weight)
    return {
        "teacher_model": teacher,
        "logit_loss": KLDivergenceLoss(),
        "logit_weight": chosen.kd_share,
        "task_weight": 1 - chosen.kd_share,
        "terms": [geometry] if "Procrustes" in method else [],
    }


def _train(
    chosen: Preset,
    parts: Parts,
    model: Any,
    stage: Path,
    report: Report,
    *,
    epochs: float,
    learning_rate: float | None = None,
    **distillation: Any,
) -> None:
    """One training into `stage`/model, resumed at its last checkpoint; renamed when whole."""
    arguments = training_arguments(
        stage,
        seed=SEED,
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


def _scores(
    chosen: Preset, parts: Parts, method: str, stage: Path, report: Report
) -> list[dict[str, Any]]:
    """Mean Rouge-L of each set and decoding; the answers stay in `stage` as JSON lines."""
    model = parts.load_student(stage / "model").eval().to(device())
    new = chosen.max_length - chosen.max_prompt
    rows = []
    for task, examples in parts.tests.items():
        for seed in chosen.decodings:
            what = f"{method}: answers to {task}, decoding {seed}"
            answers = generate(
                model, parts.tokenizer, examples, new, seed=seed,
                stored=stage / f"answers_{task}_{seed}.jsonl",
                report=partial(_answered, report, what),
            )  # fmt: skip
            score = 100 * float(marked(examples, answers)["rougeL"].mean())
            rows.append({"method": method, "task": task, "seed": seed, "rougeL": score})
    return rows


def _answered(report: Report, what: str, done: int, total: int) -> None:
    report(f"{what}, {done} of {total}")


def beside_published(name: str, scores: pd.DataFrame) -> pd.DataFrame:
    """method, task, rougeL, sd over decodings, source: ours first, then the published rows."""
    ours = scores.groupby(["method", "task"], sort=False)["rougeL"].agg(["mean", "std"])
    ours = ours.reset_index().rename(columns={"mean": "rougeL", "std": "sd"})
    return pd.concat([ours.assign(source="this run"), published(name)], ignore_index=True)
