"""Scores of regression students and calibration, against hand values and scipy."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from geodistill.experiments.classification.evaluate import _scores, calibration_error
from geodistill.experiments.classification.run import SquaredError


def test_a_calibrated_and_an_overconfident_student():
    right = torch.tensor([1.0, 1.0, 1.0, 0.0] * 10)
    assert calibration_error(torch.full((40,), 0.75), right) == pytest.approx(0, abs=1e-12)
    assert calibration_error(torch.full((40,), 1.0), right) == pytest.approx(0.25)
    # Two bins that err in opposite ways do not cancel: (20·0.25 + 20·0.25) / 40.
    confidence = torch.tensor([1.0] * 20 + [0.5] * 20)
    assert calibration_error(confidence, right) == pytest.approx(0.25)


def test_a_score_is_judged_by_its_squared_error_and_correlations():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randn(50, generator=generator)
    logits = (labels + torch.randn(50, generator=generator))[:, None]
    said = (labels + 0.1 * torch.randn(50, generator=generator))[:, None]
    items, metrics = _scores(logits, said, labels)
    x, y = labels.double().numpy(), logits[:, 0].double().numpy()
    assert np.allclose(items["score"], -((x - y) ** 2))
    assert metrics["mse"] == pytest.approx(((x - y) ** 2).mean())
    assert metrics["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert metrics["agreement"] == pytest.approx(stats.pearsonr(y, said[:, 0].numpy()).statistic)
    assert metrics["spearman"] < 0.9 < pd.Series(x).corr(pd.Series(said[:, 0].numpy()))


def test_the_logit_loss_of_a_score_is_the_squared_error():
    student, teacher = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    assert float(SquaredError()(student, teacher)) == 2.5
