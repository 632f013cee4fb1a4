"""Scores of regression students and calibration, against hand values and scipy."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from geodistill.experiments.classification.evaluate import (
    METRICS,
    class_scores,
    expected_calibration_error,
    regression_scores,
)


def test_a_calibrated_and_an_overconfident_student():
    correct = torch.tensor([1.0, 1.0, 1.0, 0.0] * 10)
    calibrated, sure = (torch.full((40,), confidence) for confidence in (0.75, 1.0))
    assert expected_calibration_error(calibrated, correct) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(sure, correct) == pytest.approx(0.25)
    # Two bins that err in opposite ways do not cancel: (20·0.25 + 20·0.25) / 40.
    confidence = torch.tensor([1.0] * 20 + [0.5] * 20)
    assert expected_calibration_error(confidence, correct) == pytest.approx(0.25)


def test_a_regression_is_scored_by_squared_error_and_correlations():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randn(50, generator=generator)
    logits = (labels + torch.randn(50, generator=generator))[:, None]
    teacher = (labels + 0.1 * torch.randn(50, generator=generator))[:, None]
    items, metrics = regression_scores(logits, teacher, labels)
    x, y = labels.double().numpy(), logits[:, 0].double().numpy()
    assert np.allclose(items["score"], -((x - y) ** 2))
    assert metrics["mse"] == pytest.approx(((x - y) ** 2).mean())
    assert metrics["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert metrics["agreement"] == pytest.approx(stats.pearsonr(y, teacher[:, 0].numpy()).statistic)
    assert metrics["spearman"] < 0.9 < pd.Series(x).corr(pd.Series(teacher[:, 0].numpy()))


def test_the_tasks_metrics_by_hand():
    labels, predictions = pd.Series([1, 1, 1, 0, 0, 0]), pd.Series([1, 1, 0, 0, 0, 1])
    expected = {"accuracy": 4 / 6, "f1": 2 / 3, "matthews_correlation": 1 / 3, "pearson": 1 / 3}
    assert {name: metric(labels, predictions) for name, metric in METRICS.items()} == pytest.approx(
        expected
    )


def test_a_student_that_says_one_class_is_seen_by_its_largest_class():
    labels = torch.tensor([0, 1, 1, 1, 2, 2, 1])
    logits = torch.tensor([[0.0, 2.0, 1.0]] * 6 + [[0.0, 1.0, 2.0]])
    teacher = torch.tensor([[0.0, 2.0, 1.0]] * 7)
    items, metrics = class_scores(logits, teacher, labels)
    assert items["prediction"].tolist() == [1] * 6 + [2]
    assert metrics["largest_class"] == 6 / 7
    assert metrics["majority_accuracy"] == 4 / 7  # in double precision, as the accuracy
    assert metrics["accuracy"] == 3 / 7
    assert metrics["agreement"] == 6 / 7
