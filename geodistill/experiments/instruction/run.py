"""Instruction following: an instruction-tuned language model teaches a small OPT.

The teacher is SmolLM2-135M-Instruct with the project's LoRA adapter; the student has the OPT
architecture, untrained but for its embeddings, and the teacher's tokenizer. All methods of one seed
share the start and the order of batches; the prompts are the same for every seed.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm, TeacherCache
from geodistill.experiments.instruction.evaluate import (
    Example,
    likelihood_items,
    score,
    unigram_nll,
)
from geodistill.experiments.instruction.feature_metrics import SpreadOnTheWay, geometry, stored_rows
from geodistill.experiments.instruction.setup import (
    InstructionRoom,
    InstructionSetting,
    collate,
    open_instruction_room,
    outputs_of,
    own_words,
    start_student,
)
from geodistill.experiments.methods import (
    INSTRUCTION_METHODS,
    INSTRUCTION_REFERENCES,
    LOGIT_KINDS,
    Geometry,
    check_method,
    feature_loss,
)
from geodistill.experiments.run_store import Run, run_config
from geodistill.experiments.training import device, fit, training_arguments
from geodistill.losses import KLDivergenceLoss
from geodistill.tasks import assets

__all__ = [
    "STUDY",
    "InstructionSetting",
    "instruction_config",
    "open_instruction_room",
    "run_instruction",
    "smoke",
    "start_student",
]
STUDY = "exploratory/instruction"
ORDER = 2_000
"""Added to a run's seed: its seeds of start and order never coincide."""
LATER = {
    "part": "test", "decodings": (), "also": (), "tied": True, "stages": 1, "accumulate": 1,
    "start_seed": None, "student": "opt",
}  # fmt: skip


def smoke() -> InstructionSetting:
    """The smallest setting that runs every line with the real teacher: half a minute."""
    return InstructionSetting(
        n_train=16, n_test=8, epochs=1.0, batch_size=8, width=64, layers=1, new_tokens=4
    )


def run_instruction(
    room: InstructionRoom, method: str, seed: int, study: str = STUDY
) -> tuple[Run, Any]:
    """Train and score one student, or score what students are held against.

    Args:
        room: the prompts and their teacher.
        method: one of `INSTRUCTION_METHODS`, or of `INSTRUCTION_REFERENCES`: a unigram model of the
            answers, the untrained student, the teacher.
        seed: of the start and the order.
        study: under whose name the run is stored.

    Returns:
        The run, whose items carry the generated `answer`, and the model (None for "unigram").

    Raises:
        InputError: unknown method.
        FloatingPointError: a loss that is not finite; loss, step and the saved batch are named.
    """
    check_method(method, (*INSTRUCTION_METHODS, *INSTRUCTION_REFERENCES))
    started = time.perf_counter()
    setting = room.setting
    model = None
    if method == "unigram":
        total, count = unigram_nll(room.train, room.test, room.teacher.config.vocab_size)
        metrics = {"nll": float(total.sum() / count.sum())}
        items = likelihood_items(room.test, total, count)
    else:
        model, watched = _model(room, method, seed)
        metrics, items = score_on_all(room, model)
        metrics |= watched | ({} if method == "teacher" else geometry(room, model))
    run = Run(
        study, setting.task, method, seed, instruction_config(setting, method), room.data_hash,
        metrics, items, wall_seconds=time.perf_counter() - started,
    )  # fmt: skip
    return run, model


def _model(room: InstructionRoom, method: str, seed: int) -> tuple[Any, dict[str, float]]:
    """The model that a method stands for, and what was watched in its training."""
    if method == "teacher":
        return room.teacher, {}
    if method == "start":
        return start_student(room, seed).to(device()), {}
    return _train(room, method, seed)


def score_on_all(room: InstructionRoom, model: Any) -> tuple[dict[str, float], pd.DataFrame]:
    """`answers.score` on the scored part and on further sets, whose metrics are `<set>/<metric>`.

    Items of further sets have the set's name as their `task`.
    """
    setting = room.setting
    given = (setting.new_tokens, setting.decodings)
    metrics, own = score(model, room.tokenizer, room.test, *given)
    items = [own.assign(task=setting.task)]
    for name, examples in room.also.items():
        further, answered = score(model, room.tokenizer, examples, *given)
        metrics |= {f"{name}/{key}": value for key, value in further.items()}
        items.append(answered.assign(task=name))
    return metrics, pd.concat(items, ignore_index=True)


def _train(room: InstructionRoom, method: str, seed: int) -> tuple[Any, dict[str, float]]:
    """The trained student, and its participation ratio on the way."""
    setting = room.setting
    student = start_student(room, seed)
    examples, cache = _lesson(room, method)
    watch = SpreadOnTheWay(room, setting.stages)
    for stage in range(setting.stages):
        with _work_folder(f"{setting.task}-{method}-s{seed}") as folder:
            trainer = FeatureDistillationTrainer(
                model=student,
                args=training_arguments(
                    folder,
                    seed=ORDER + seed,
                    num_train_epochs=setting.epochs / setting.stages,
                    per_device_train_batch_size=setting.batch_size,
                    gradient_accumulation_steps=setting.accumulate,
                    learning_rate=setting.learning_rate,
                    remove_unused_columns=False,
                ),
                train_dataset=examples,
                data_collator=partial(collate, room.tokenizer.pad_token_id),
                callbacks=[watch],
                **_distillation(room, method, seed, cache, stage, student.config.hidden_size),
            )
            fit(trainer)
    return student, watch.values


def _lesson(room: InstructionRoom, method: str) -> tuple[list[Example], TeacherCache]:
    """What a method learns from: the right answers, or (SeqKD) the teacher's own."""
    if not method.startswith("seqkd"):
        return room.train, room.cache
    examples = own_words(room)
    if method == "seqkd":
        return examples, room.cache  # never read: no term, no logits
    return examples, outputs_of(room.teacher, room.tokenizer, room.setting, examples, "own")


@contextmanager
def _work_folder(name: str) -> Iterator[Path]:
    """A folder of the user's cache for one training; it stays only if a loss was not finite."""
    folder = assets.cache_dir() / "trainings" / f"{name}.{os.getpid()}"
    failed = False
    try:
        yield folder
    except FloatingPointError:
        failed = True
        raise
    finally:
        if not failed:
            shutil.rmtree(folder, ignore_errors=True)


def instruction_config(setting: InstructionSetting, method: str) -> dict[str, Any]:
    """Everything that a run of `method` depends on besides its seed and the data."""
    return run_config(setting, method, LATER)


def _distillation(
    room: InstructionRoom, method: str, seed: int, cache: TeacherCache, stage: int, width: int
) -> dict[str, Any]:
    """Arguments of the mixin for one method, stage and width; none for the answers alone.

    In one stage the loss is (1 - kd_share) of the answers' and kd_share of the logits', plus the
    term. In two, the first has no answers and the second nothing but them.
    """
    setting = room.setting
    kind = LOGIT_KINDS.get(method.partition("+")[0])
    loss = feature_loss(method, _geometry(cache, seed, width))
    if (kind is None and loss is None) or stage == 1:
        return {}
    given: dict[str, Any] = {"teacher_cache": cache}
    if loss is not None:
        given["terms"] = [FeatureTerm(-1, -1, loss, weight=setting.weight)]
    if kind is not None:
        share = setting.kd_share if setting.stages == 1 else 1.0
        given |= {
            "logit_loss": KLDivergenceLoss(kind),
            "task_weight": 1 - share,
            "logit_weight": share,
        }
    return given


def _geometry(cache: TeacherCache, seed: int, width: int) -> Geometry:
    rows = partial(stored_rows, cache)
    (layer,) = cache.manifest["layers"]
    return Geometry(width, cache.array(f"features_{layer}").shape[1], rows, seed)
