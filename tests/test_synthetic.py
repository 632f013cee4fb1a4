"""The synthetic study: floors, moments of measurement, what each loss does on a small setting."""

import math

import pandas as pd
import pytest
import torch
from scipy import stats

from geodistill.errors import InputError
from geodistill.experiments import synthetic
from geodistill.experiments.synthetic import Setting, by_seed, floor, mean_interval, study

SMALL = Setting(n=40, d_teacher=20, d_student=6, steps=150, learning_rate=0.05)
TWO = "two directions, perturbed"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return study(SMALL, [TWO, "4 orthogonal"], [0, 1])


def test_every_run_is_measured_at_start_on_the_way_and_at_the_end(frame: pd.DataFrame) -> None:
    runs = frame.groupby(["teacher", "objective", "seed"])
    assert len(runs) == 2 * len(synthetic.OBJECTIVES) * 2
    for _, run in runs:
        counts = run["moment"].value_counts()
        assert counts[synthetic.START] == counts[synthetic.END] == 1
        assert counts[synthetic.PATH] >= 8
        assert counts.get(synthetic.LOW, 0) <= 1
        assert run[run["moment"] == synthetic.END]["step"].item() == SMALL.steps
    low = frame[frame["moment"] == synthetic.LOW]
    assert len(low) > 10
    assert (low["left"] <= synthetic.LOW_LOSS).all()


def test_no_loss_ends_below_its_floor_and_all_come_near(frame: pd.DataFrame) -> None:
    end = frame[frame["moment"] == synthetic.END]
    assert end["left"].min() > -1e-4
    assert end["left"].max() < 0.05


def test_procrustes_keeps_the_geometry_and_the_spectrum_alone_has_none(frame: pd.DataFrame) -> None:
    end = frame[frame["moment"] == synthetic.END].groupby("objective")["kept"]
    assert end.min()["procrustes"] > 0.99
    assert end.max()["spectrum"] < 0.3
    assert end.max()["projection"] < 0.95
    start = frame[frame["moment"] == synthetic.START]["kept"]
    assert start.max() < 0.3


def test_a_run_is_its_seed(frame: pd.DataFrame) -> None:
    again = study(SMALL, [TWO], [1], ["cka"]).reset_index(drop=True)
    chosen = (frame["teacher"] == TWO) & (frame["objective"] == "cka") & (frame["seed"] == 1)
    pd.testing.assert_frame_equal(again, frame[chosen].reset_index(drop=True))
    other = study(SMALL, [TWO], [0], ["cka"])
    assert not other["loss"].equals(again["loss"])


def test_the_projection_floor_is_the_variance_beyond_the_width() -> None:
    teacher = synthetic.TEACHERS["16 orthogonal"](SMALL, 0)
    centred = teacher - teacher.mean(0)
    values = torch.linalg.svdvals(centred).square()
    lost = float(values[SMALL.d_student :].sum() / values.sum())
    assert floor("projection", teacher, SMALL.d_student) == pytest.approx(lost)
    assert lost > 0.3


def test_mean_interval_is_scipy_s() -> None:
    values = [0.3, 0.5, 0.45, 0.6]
    mean, low, high = mean_interval(values)
    expected = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert mean == pytest.approx(math.fsum(values) / 4)


def test_by_seed_averages_within_a_seed_first() -> None:
    rows = [("a", s, t, s + t) for s in (0, 1, 2) for t in (0, 10)]
    frame = pd.DataFrame(rows, columns=["objective", "seed", "teacher", "kept"])
    found = by_seed(frame, "kept", ["objective"]).iloc[0]
    assert found["n"] == 3
    assert (found["mean"], found["low"], found["high"]) == pytest.approx(mean_interval([5, 6, 7]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: study(SMALL, ["5 orthogonal"], [0]),
            "teacher '5 orthogonal' is unknown",
        ),
        (
            lambda: study(SMALL, [TWO], [0], ["mse"]),
            "objective 'mse' is unknown: .*cka",
        ),
        (lambda: mean_interval([1.0]), "values has 1: expected at least two"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
