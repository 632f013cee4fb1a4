"""A trained student's marks: a row a test item, the task's metrics, the geometry kept."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.experiments.classification.setup import ClassificationSetup, geometry_kept
from geodistill.experiments.training import beside, in_batches
from geodistill.geometry import cka

BINS = 15


@torch.no_grad()
def score(room: ClassificationSetup, student: Any) -> tuple[dict[str, float], pd.DataFrame]:
    """Metrics on the scored part, and a row an item.

    Returns:
        For classes: accuracy, nll, calibration_error, agreement, the majority's and the teacher's
        accuracy; for scores (standardised): mse, pearson, spearman, agreement (Pearson with the
        teacher). Both: the task's metric, the teacher's, geometry kept (of the last layer by three
        measures; `geometry_kept/procrustes/layer1` and so on of those before it). The items'
        `score` is 1 for a right answer and 0 for a wrong one, or minus the squared error.
    """
    logits, layers = _run(room, student)
    features = layers[-1]
    said = torch.tensor(room.test_cache.array("logits"))
    labels = torch.tensor(room.test["labels"])
    judge = _classes if room.classes else _scores
    items, metrics = judge(logits, said, labels)
    items.insert(0, "item", room.test["item"])
    items.insert(1, "source", room.test["source"])
    own = METRICS[room.metric]
    metrics[room.metric] = own(items["label"], items["prediction"])
    teacher = said.argmax(-1) if room.classes else said[:, 0]
    metrics[f"teacher_{room.metric}"] = own(items["label"], pd.Series(teacher.numpy()))
    kept = geometry_kept(room.calibrations, features)
    for layer, calibration in room.earlier.items():
        kept |= geometry_kept({f"procrustes/layer{layer}": calibration}, layers[layer - 1])
    return metrics | kept | {"cka": float(cka(room.probe_features(), features))}, items


def _run(room: ClassificationSetup, student: Any) -> tuple[Tensor, list[Tensor]]:
    """Logits of every item, and the features of the probe's tokens, layer by layer."""
    student.eval()
    ids = room.test["input_ids"]
    logits = torch.empty(len(ids), student.config.num_labels)
    probe: dict[int, Tensor] = {}
    for batch in in_batches([{"input_ids": e} for e in ids], 128, room.pad_id):
        rows = batch.pop("row")
        batch = beside(student, batch)
        mask = batch["attention_mask"].bool()
        out = student(**batch, output_hidden_states=True)
        logits[rows] = out.logits.cpu()
        features = torch.stack(out.hidden_states[1:], dim=2)  # (b, t, layer, d)
        for row, sentence, kept in zip(rows.tolist(), features, mask, strict=True):
            if row < room.setting.probe:
                probe[row] = sentence[kept].cpu()
    return logits, list(torch.cat([probe[i] for i in range(len(probe))]).unbind(1))


def _classes(logits: Tensor, said: Tensor, labels: Tensor) -> tuple[pd.DataFrame, dict[str, float]]:
    scores = logits.log_softmax(-1)
    nll = -scores.gather(1, labels[:, None])[:, 0]
    predicted, teacher = scores.argmax(-1), said.argmax(-1)
    right = (predicted == labels).double()
    items = pd.DataFrame(
        {
            "label": labels.numpy(),
            "prediction": predicted.numpy(),
            "score": right.numpy(),
            "nll": nll.double().numpy(),
        }
    )
    return items, {
        "accuracy": float(right.mean()),
        "nll": float(items["nll"].mean()),
        "calibration_error": calibration_error(scores.amax(-1).exp(), right),
        "agreement": float((predicted == teacher).double().mean()),
        "teacher_accuracy": float((teacher == labels).double().mean()),
        "majority_accuracy": float(labels.bincount().max() / len(labels)),
    }


def _scores(logits: Tensor, said: Tensor, labels: Tensor) -> tuple[pd.DataFrame, dict[str, float]]:
    predicted, labels = logits[:, 0].double(), labels.double()
    squared = (predicted - labels) ** 2
    items = pd.DataFrame(
        {"label": labels.numpy(), "prediction": predicted.numpy(), "score": -squared.numpy()}
    )
    return items, {
        "mse": float(squared.mean()),
        "spearman": float(items["label"].corr(items["prediction"], method="spearman")),
        "agreement": float(items["prediction"].corr(pd.Series(said[:, 0].double().numpy()))),
    }


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Expected calibration error over 15 equal bins of confidence (Guo et al., 2017)."""
    place = (confidence.double() * BINS).long().clamp_max(BINS - 1)
    gap = torch.zeros(BINS, dtype=torch.float64)
    gap.index_add_(0, place, right.double() - confidence.double())
    return float(gap.abs().sum() / len(right))


def _accuracy(labels: Any, predictions: Any) -> float:
    return float((labels == predictions).mean())


def _f1(labels: Any, predictions: Any) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions))


def _matthews(labels: Any, predictions: Any) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def _pearson(labels: pd.Series, predictions: pd.Series) -> float:
    return float(labels.corr(predictions))


METRICS = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews_correlation": _matthews,
    "pearson": _pearson,
}
