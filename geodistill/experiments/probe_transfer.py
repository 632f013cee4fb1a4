"""The teacher's linear probe, read off the student: what a readout loses, set beside its bound.

A probe w fitted to the teacher's features X is carried to the student's features Y by the
Procrustes map Q, Y Q ≈ X; then ‖Xw − YQw‖ ≤ D_P ‖w‖ on the rows that Q was fitted to (Harvey,
Lipshutz & Williams, 2024, prove more, for optimal readouts). Rows are tokens, each with its text's
label, or texts: the mean over their tokens.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.analysis.stored_results import read_stored
from geodistill.distill import TeacherCache
from geodistill.errors import InputError
from geodistill.experiments.classification.run import run_classification
from geodistill.experiments.classification.setup import (
    ClassificationSetting,
    ClassificationSetup,
    cached_rows,
)
from geodistill.experiments.run_store import Run, results_dir
from geodistill.experiments.training import beside, in_batches
from geodistill.geometry import procrustes_distance
from geodistill.tasks import stratified_subsample

STUDY, GRID = "readout", "geodistill grid readout --workers 1"
SETTING = ClassificationSetting("product-b", part="validation")
METHODS, SEEDS = ("kd", "kd+procrustes", "kd+cka", "kd+projection"), (0, 1, 2)
ALPHA = 1e-3
"""Of the ridge probes, beside features whose squares sum to 1."""


@dataclass(frozen=True)
class Rows:
    """Paired features and labels: teacher (n, d_t), student (n, d_s), labels (n,) of 0 and 1."""

    teacher: Tensor
    student: Tensor
    labels: Tensor


def carry(train: Rows, test: Rows) -> tuple[dict[str, float], pd.DataFrame]:
    """Fit probes and Procrustes map to `train`, and judge them.

    Features are centred by the training rows' mean and scaled to unit norm over them.

    Returns:
        Accuracies of three probes on `test`: `teacher`, `carried` and the student's `own`;
        `distance`, D_P on `train`; on `train` the relative readout error `error` = ‖Xw − YQw‖/‖Xw‖
        and its `bound` D_P‖w‖/‖Xw‖; and `error_test`, which nothing bounds. And what each probe
        says of each row of `test`, 0 or 1.

    Raises:
        InputError: features that do not pair, are not finite, or are all equal.
    """
    x, x_test = _standardised(train.teacher, test.teacher, "teacher")
    y, y_test = _standardised(train.student, test.student, "student")
    distance = procrustes_distance(x, y)
    w, level = _probe(x, train.labels)
    u, _, vh = torch.linalg.svd(y.mT @ x, full_matrices=False)
    carried = u @ (vh @ w)  # Q w, with Q = U Vᵀ
    own, own_level = _probe(y, train.labels)
    scores = {
        "teacher": x_test @ w + level,
        "carried": y_test @ carried + level,
        "own": y_test @ own + own_level,
    }
    said = {name: (score > 0).long() for name, score in scores.items()}
    metrics = {name: float((s == test.labels).double().mean()) for name, s in said.items()}
    metrics |= {
        "distance": float(distance),
        "error": float((x @ w - y @ carried).norm() / (x @ w).norm()),
        "bound": float(distance * w.norm() / (x @ w).norm()),
        "error_test": float((x_test @ w - y_test @ carried).norm() / (x_test @ w).norm()),
    }
    return metrics, pd.DataFrame({name: s.numpy() for name, s in said.items()})


def _standardised(train: Tensor, test: Tensor, name: str) -> tuple[Tensor, Tensor]:
    train, test = train.double(), test.double()
    mean = train.mean(0)
    size = (train - mean).norm()
    if size <= 1e-12 * train.norm():
        raise InputError(f"the {name}'s training rows are all equal: no probe can read them")
    return (train - mean) / size, (test - mean) / size


def _probe(x: Tensor, labels: Tensor) -> tuple[Tensor, float]:
    """Weights and level of a ridge regression of ±1 labels; its sign is the class."""
    from sklearn.linear_model import Ridge

    fitted = Ridge(alpha=ALPHA).fit(x.numpy(), 2.0 * labels.numpy() - 1)
    return torch.tensor(fitted.coef_, dtype=x.dtype), float(fitted.intercept_)


def run_readout(room: ClassificationSetup, method: str, seed: int) -> Run:
    """Train one student as the classification study does, and read the teacher's probe off it.

    Returns:
        The run, with the metrics of `carry` for both kinds of row (`carried/pooled`, ...) beside
        its own, and the pooled probes' answers in its items.

    Raises:
        InputError: unknown method, a task without two classes.
    """
    if room.classes != 2:
        raise InputError(f"{room.setting.task} has {room.classes} classes; a readout needs 2")
    started = time.perf_counter()
    run, student = run_classification(room, method, seed, STUDY)
    shots = stratified_subsample(room.train, room.setting.n_train or len(room.train), seed)
    train = paired_rows(student, shots, room.train_cache, room.pad_id)
    test = paired_rows(student, room.test, room.test_cache, room.pad_id)
    metrics = dict(run.metrics)
    for kind in ("tokens", "pooled"):  # the texts last: their answers go to the items
        found, said = carry(train[kind], test[kind])
        metrics |= {f"{name}/{kind}": value for name, value in found.items()}
    items = pd.concat([run.items, said.add_suffix("_probe")], axis=1)
    wall = time.perf_counter() - started
    return replace(run, metrics=metrics, items=items, wall_seconds=wall)


@torch.no_grad()
def paired_rows(student: Any, part: Any, cache: TeacherCache, pad_id: int) -> dict[str, Rows]:
    """Last-layer features of the texts of `part`, from both sides, by kind: tokens, pooled."""
    student.eval()
    texts: dict[int, Tensor] = {}
    for batch in in_batches([{"input_ids": ids} for ids in part["input_ids"]], 128, pad_id):
        rows = batch.pop("row")
        batch = beside(student, batch)
        mask = batch["attention_mask"].bool().cpu()
        features = student(**batch, output_hidden_states=True).hidden_states[-1].cpu()
        texts |= {r: f[m] for r, f, m in zip(rows.tolist(), features, mask, strict=True)}
    ours = [texts[i] for i in range(len(texts))]
    lengths = [len(text) for text in ours]
    theirs = torch.split(cached_rows(cache, part, pad_id).float(), lengths)
    labels = torch.tensor(part["labels"])
    teacher, pupil = (torch.stack([text.mean(0) for text in side]) for side in (theirs, ours))
    many = labels.repeat_interleave(torch.tensor(lengths))
    return {
        "tokens": Rows(torch.cat(theirs), torch.cat(ours), many),
        "pooled": Rows(teacher, pupil, labels),
    }


def stored() -> pd.DataFrame:
    """The committed rows: a row a run, a column a metric; InputError where there are none."""
    path = results_dir() / STUDY / "rows.parquet"
    if not path.is_file():
        raise InputError(f"no stored rows at {path}; make them by `{GRID}`")
    keys = ["run_id", "method", "seed"]
    return read_stored(path).pivot(index=keys, columns="metric", values="value").reset_index()
