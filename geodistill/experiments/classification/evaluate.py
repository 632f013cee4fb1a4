"""Evaluation of a student: metrics of the task, geometry scores, and one row per test item."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torch import Tensor

from geodistill.distill.collate import batches_by_length, to_device
from geodistill.distill.models.heads import readable
from geodistill.experiments.classification.cached_outputs import model_inputs
from geodistill.experiments.classification.settings import INPUTS
from geodistill.experiments.classification.setup import ClassificationSetup
from geodistill.experiments.feature_scores import normalized_scores
from geodistill.experiments.run_store import Evaluation
from geodistill.geometry import cka

N_BINS, BATCH_SIZE = 15, 128
TaskScores = Callable[[ClassificationSetup, Tensor], Evaluation]
METRICS: dict[str, Callable[[pd.Series, pd.Series], float]] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "matthews_correlation": matthews_corrcoef,
    "pearson": lambda labels, predictions: labels.corr(predictions),
}


@torch.no_grad()
def evaluate_student(
    setup: ClassificationSetup, student: Any, scores: TaskScores | None = None
) -> Evaluation:
    """Metrics of a student on the scored split, and one row per item.

    Args:
        setup: the task with its teacher.
        student: a trained model.
        scores: metrics and items of its logits; by default `task_scores`.

    Returns:
        The metrics of `scores`; `cka` and `geometry_kept/<measure>` of the last layer, and
        `geometry_kept/procrustes/layer1`, ... of those before it; and the items.
    """
    logits, layers = _run(setup, student)
    metrics, items = (scores or task_scores)(setup, logits)
    metrics |= normalized_scores(setup.score_ranges, layers[-1])
    for layer, score_range in setup.layer_score_ranges.items():
        metrics |= normalized_scores({f"procrustes/layer{layer}": score_range}, layers[layer - 1])
    return metrics | {"cka": float(cka(setup.probe_features(), layers[-1]))}, items


def task_scores(setup: ClassificationSetup, logits: Tensor) -> Evaluation:
    """Metrics of logits on the scored split, and one row per item.

    Args:
        setup: the task with its teacher.
        logits: of all items, (n, labels).

    Returns:
        The metrics of `class_scores` or `regression_scores`, and the task's own metric and the
        teacher's, but for correlations with a constant, which are not defined. The items have item,
        source, label, prediction, score, and nll where there are classes.
    """
    teacher_logits = torch.tensor(setup.test_cache.array("logits"))
    scores = class_scores if setup.n_classes else regression_scores
    items, metrics = scores(logits, teacher_logits, torch.tensor(setup.test["labels"]))
    items.insert(0, "item", setup.test["item"])
    items.insert(1, "source", setup.test["source"])
    metric, labels = METRICS[setup.metric], items["label"]
    metrics[setup.metric] = float(metric(labels, items["prediction"]))
    teacher = teacher_logits.argmax(-1) if setup.n_classes else teacher_logits[:, 0]
    metrics[f"teacher_{setup.metric}"] = float(metric(labels, pd.Series(teacher.numpy())))
    return {name: value for name, value in metrics.items() if not math.isnan(value)}, items


def _run(setup: ClassificationSetup, student: Any) -> tuple[Tensor, list[Tensor]]:
    """Logits of every item, and by layer the features of the probe's tokens, (tokens, d)."""
    student.eval()
    examples = model_inputs(setup.test)
    logits = [torch.empty(0)] * len(examples)
    probe: dict[int, Tensor] = {}
    for batch in batches_by_length(examples, BATCH_SIZE, setup.pad_id):
        rows = batch.pop("row")
        batch = to_device(student, batch)
        mask = batch["attention_mask"].bool()
        # Segments are left out if its teacher alone takes them.
        read = readable(batch, student, frozenset(INPUTS))
        outputs = student(**read, output_hidden_states=True)
        features = torch.stack(outputs.hidden_states[1:], dim=2)  # (b, t, layer, d)
        of_rows = zip(rows.tolist(), outputs.logits.cpu(), features, mask, strict=True)
        for row, row_logits, sentence, valid in of_rows:
            logits[row] = row_logits
            if row < setup.settings.n_probe_items:
                probe[row] = sentence[valid].cpu()
    layers = torch.cat([probe[row] for row in sorted(probe)]).unbind(1)
    return torch.stack(logits), list(layers)


def class_scores(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Items and metrics of a task with classes.

    Args:
        logits: of the student, (n, classes).
        teacher_logits: (n, classes).
        labels: (n,), indices of the classes.

    Returns:
        label, prediction, score (1 if right, else 0) and nll (nats) of each item; the metrics
        accuracy, nll, calibration_error, agreement (the share of items with the teacher's
        prediction), largest_class (the share of items predicted as the most frequent prediction),
        teacher_accuracy and majority_accuracy.
    """
    log_p = logits.log_softmax(-1)
    nll = -log_p.gather(1, labels[:, None])[:, 0]
    predictions, teacher = log_p.argmax(-1), teacher_logits.argmax(-1)
    correct = (predictions == labels).double()
    columns = {"label": labels, "prediction": predictions, "score": correct, "nll": nll.double()}
    items = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
    return items, {
        "accuracy": float(correct.mean()),
        "nll": float(items["nll"].mean()),
        "calibration_error": expected_calibration_error(log_p.amax(-1).exp(), correct),
        "agreement": float((predictions == teacher).double().mean()),
        "largest_class": float(predictions.bincount().max().double() / len(labels)),
        "teacher_accuracy": float((teacher == labels).double().mean()),
        "majority_accuracy": float(labels.bincount().max().double() / len(labels)),
    }


def regression_scores(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Items and metrics of a task whose labels are scores; shapes (n, 1), (n, 1), (n,).

    Returns:
        label, prediction and score (minus the squared error) of each item; the metrics mse,
        spearman and agreement (Pearson's correlation with the teacher).
    """
    predictions, labels = logits[:, 0].double(), labels.double()
    columns = {"label": labels, "prediction": predictions, "score": -((predictions - labels) ** 2)}
    items = pd.DataFrame({name: values.numpy() for name, values in columns.items()})
    return items, {
        "mse": -float(columns["score"].mean()),
        "spearman": float(items["label"].corr(items["prediction"], method="spearman")),
        "agreement": float(items["prediction"].corr(pd.Series(teacher_logits[:, 0].double()))),
    }


def expected_calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Expected calibration error over 15 equal bins of confidence (Guo et al., 2017).

    Args:
        confidence: probability of the predicted class, (n,).
        correct: 1 for right predictions, else 0, (n,).
    """
    bins = (confidence.double() * N_BINS).long().clamp_max(N_BINS - 1)
    gaps = torch.zeros(N_BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, correct.double() - confidence.double())
    return float(gaps.abs().sum() / len(correct))
