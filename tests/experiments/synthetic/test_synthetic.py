"""Free students: a batch equals a loop, objectives equal the library's losses, refusals."""

import math

import pandas as pd
import pytest
import torch
from scipy import stats

from geodistill.errors import InputError
from geodistill.experiments.synthetic import optimize
from geodistill.experiments.synthetic import study as measured
from geodistill.experiments.synthetic.optimize import (
    TWO,
    Setting,
    descend,
    floor,
    make_start,
    make_teachers,
)
from geodistill.experiments.synthetic.study import Bench, by_seed, mean_interval, study
from geodistill.geometry import (
    best_student,
    feature_gram_distance,
    geometry_kept,
    procrustes_distance,
)
from geodistill.losses import (
    CKALoss,
    FeatureGramLoss,
    PCATargetLoss,
    ProcrustesLoss,
    ProjectionLoss,
    SpectrumLoss,
)

SMALL = Setting(n=40, d_teacher=20, d_student=6, steps=150)
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return study(SMALL, [TWO, "8 orthogonal"], SEEDS)


@pytest.mark.parametrize("objective", optimize.OBJECTIVES)
def test_a_batch_of_seeds_is_a_loop_over_them(objective: str) -> None:
    teachers = make_teachers("power law", SMALL, SEEDS)
    start = make_start("random", teachers, 6, SEEDS)
    together = descend(objective, teachers, start, steps=20)
    assert not torch.equal(together.loss[0], together.loss[-1])
    if "projection" in objective:  # its map is drawn with the batch: members alone differ in it
        return
    for i in range(len(SEEDS)):
        alone = descend(objective, teachers[i : i + 1], start[i : i + 1], steps=20)
        torch.testing.assert_close(alone.loss[:, 0], together.loss[:, i], rtol=1e-3, atol=1e-5)


def test_objectives_are_the_library_s_losses() -> None:
    teachers = make_teachers("power law", SMALL, SEEDS)
    students = make_start("random", teachers, 6, SEEDS)
    losses = {
        "procrustes": lambda x: ProcrustesLoss(),
        "gram": lambda x: FeatureGramLoss(),
        "cka": lambda x: CKALoss(),
        "spectrum": lambda x: SpectrumLoss(),
        "pca": lambda x: PCATargetLoss.fit(x, 6),
    }
    for name, make in losses.items():
        ours = optimize.evaluate(name, teachers, students)
        theirs = [float(make(x)(y, x)) for x, y in zip(teachers, students, strict=True)]
        if name == "pca":  # signs of components are free: compare at the target itself
            targets = optimize.principal_scores(teachers, 6).float()
            assert optimize.evaluate(name, teachers, targets).abs().max() < 1e-6
            continue
        assert ours.tolist() == pytest.approx(theirs, abs=1e-5)


def test_the_learned_maps_start_where_procrustes_is_a_lower_bound() -> None:
    teachers = make_teachers("power law", SMALL, SEEDS)
    students = make_start("near", teachers, 6, SEEDS)
    procrustes = optimize.evaluate("procrustes", teachers, students)
    for name in ("projection", "orthogonal-projection"):
        assert (optimize.evaluate(name, teachers, students) >= procrustes - 1e-6).all()
    end = descend("orthogonal-projection", teachers, students, steps=150)
    exact = ProcrustesLoss()(end.students[-1][0], teachers[0])
    assert float(end.loss[-1, 0]) == pytest.approx(float(exact), abs=0.02)
    library = ProjectionLoss(6, 20)
    weight = library.weight.detach()[None]
    m = optimize.row_moments(teachers[:1], students[:1], center=True, scale="frobenius")
    expected = float(library(students[0], teachers[0]).detach())
    assert float(optimize.residual(m, weight)) == pytest.approx(expected, abs=1e-5)


def test_orthonormal_maps_both_ways() -> None:
    for shape in ((2, 3, 7), (2, 7, 3)):
        w = optimize.orthonormal(torch.randn(shape, dtype=torch.float64))
        product = w @ w.mT if shape[1] < shape[2] else w.mT @ w
        torch.testing.assert_close(product, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))


def test_batched_diagnostics_are_the_library_s() -> None:
    bench = Bench.of("power law", SMALL, SEEDS)
    students = make_start("near", bench.teachers, 6, SEEDS)
    found = bench.measure(students[None])
    kept = geometry_kept(procrustes_distance, bench.teachers[1], students[1])
    assert float(found["kept"][0, 1]) == pytest.approx(kept, abs=1e-6)
    parts = (found["spectrum"] + found["alignment"])[0, 1]
    assert float(parts) == pytest.approx(float(found["procrustes"][0, 1]) ** 2, abs=1e-9)
    same = bench.measure(bench.teachers[None])
    assert same["pc1"].tolist() == [pytest.approx([1.0] * 3)]
    assert float(same["pc16"].mean()) == pytest.approx(1.0)


def test_welch_s_bound_is_refused_below_and_approached_above() -> None:
    bound = math.sqrt((40 - 20) / (20 * 39))
    with pytest.raises(InputError, match=r"expected √\(\(n − d\)/\(d\(n − 1\)\)\) = 0.1601 ≤ eps"):
        optimize.incoherent(40, 20, bound - 0.001, 0)
    x = optimize.incoherent(40, 20, 0.25, 0)
    cosines = (x @ x.T).fill_diagonal_(0).abs()
    assert bound <= cosines.max() < 0.27
    random = make_teachers("random", SMALL, [0])[0]
    unit = torch.nn.functional.normalize(random, dim=-1)
    assert (unit @ unit.T).fill_diagonal_(0).max() > 0.4


@pytest.mark.parametrize("width", [6, 20, 26])
def test_pca_starts_at_the_best_of_its_width(width: int) -> None:
    teachers = make_teachers("power law", SMALL, SEEDS)
    start = make_start("pca", teachers, width, SEEDS)
    assert start.shape == (3, 40, width)
    loss = optimize.evaluate("procrustes", teachers, start)
    lowest = [floor("procrustes", x, width) for x in teachers]
    assert loss.tolist() == pytest.approx(lowest, abs=1e-4)
    near = optimize.evaluate("procrustes", teachers, make_start("near", teachers, width, SEEDS))
    random = optimize.evaluate("procrustes", teachers, make_start("random", teachers, width, SEEDS))
    assert (loss + 0.02 < near).all()
    assert (near < random).all()


def test_no_loss_ends_below_its_floor_and_all_come_near(frame: pd.DataFrame) -> None:
    assert frame.groupby(["teacher", "objective", "start_seed"]).ngroups == (
        2 * len(optimize.OBJECTIVES) * len(SEEDS)
    )
    assert 20 <= frame["step"].nunique() <= 32
    end = frame[frame["step"] == SMALL.steps]
    assert end["left"].min() > -1e-4
    assert end["left"].max() < 0.05


def test_procrustes_keeps_the_geometry_and_the_spectrum_alone_has_none(frame: pd.DataFrame) -> None:
    end = frame[frame["step"] == SMALL.steps].groupby("objective")["kept"]
    assert end.min()["procrustes"] > 0.98
    assert end.mean()["spectrum"] < 0.3
    assert end.min()["projection"] < 0.95
    assert frame[frame["step"] == 0]["kept"].max() < 0.3


def test_gram_s_best_student_has_the_flatter_spectrum() -> None:
    teachers = make_teachers("power law", SMALL, SEEDS)
    for x in teachers:
        gram, procrustes = (
            torch.linalg.svdvals(best_student(measure, x, 6)).square()
            for measure in (feature_gram_distance, procrustes_distance)
        )
        flatness = [float((s.sum() ** 2) / s.square().sum()) for s in (gram, procrustes)]
        assert flatness[0] > flatness[1] + 0.1


def test_the_projection_floor_is_the_variance_beyond_the_width() -> None:
    teacher = make_teachers("24 orthogonal", Setting(n=48, d_teacher=32), [0])[0].double()
    values = torch.linalg.svdvals(teacher).square()
    lost = float(values[8:].sum() / values.sum())
    assert floor("projection", teacher, 8) == pytest.approx(lost, abs=1e-6)
    assert lost > 0.3


def test_the_study_s_runs_are_distinct_and_one_is_whole() -> None:
    found = measured.synthetic_study()
    assert len({job.run_id for job in found.jobs}) == len(found.jobs) == 7 * 3 * 3 * 7
    run = measured.run_cell(measured.Cell("power law", 6, "pca"), "cka", SMALL)
    assert run.items["item"].is_unique
    assert set(run.items["start_seed"]) == set(measured.SEEDS)
    assert run.metrics["kept"] > 0.9


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
        (lambda: study(SMALL, ["5 orthogonal"], [0]), "teacher is '5 orthogonal': expected one of"),
        (lambda: study(SMALL, [TWO], [0], ["mse"]), "objective is 'mse': expected .*cka"),
        (lambda: study(SMALL, [TWO], [0], ["cka"], "warm"), "start is 'warm': expected .*near"),
        (lambda: mean_interval([1.0]), "values has 1: expected at least two"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_stored_rows_follow_the_steps_of_each_run():
    """The figures join them by lines: out of order a curve would run back and forth."""
    rows = measured.stored()
    runs = rows.groupby(["run_id", "seed"])["step"]
    assert runs.ngroups > 1
    assert all(steps.is_monotonic_increasing and len(steps) > 2 for _, steps in runs)
