"""Synthetic students: a batch equals a loop, objectives equal the library's losses, refusals."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from scipy import stats

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments.synthetic.evaluate import make_batch, train_block, train_blocks
from geodistill.experiments.synthetic.optimize import (
    initial_loss,
    make_students,
    make_teachers,
    min_loss,
    optimize_students,
    orthonormalize,
    pca_scores,
    projection_residual,
)
from geodistill.experiments.synthetic.results import load_results, mean_interval, means_over_seeds
from geodistill.experiments.synthetic.settings import (
    OBJECTIVES,
    TWO_DIRECTIONS,
    SyntheticSettings,
    synthetic_config,
)
from geodistill.experiments.synthetic.study import run_block, synthetic_study
from geodistill.geometry import (
    best_student,
    feature_gram_distance,
    geometry_kept,
    procrustes_distance,
)
from geodistill.geometry.moments import row_moments
from geodistill.losses import (
    CKALoss,
    FeatureGramLoss,
    PCATargetLoss,
    ProcrustesLoss,
    ProjectionLoss,
    SpectrumLoss,
)
from geodistill.paths import data_dir

SMALL = SyntheticSettings(n=40, d_teacher=20, d_student=6, steps=150, seeds=(0, 1, 2))
NOISY = replace(SMALL, start="noisy_pca")
TEACHERS = make_teachers(SMALL)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return train_blocks(SMALL, [TWO_DIRECTIONS, "8 orthogonal"])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_batch_of_seeds_is_a_loop_over_them(objective: str) -> None:
    students = make_students(SMALL, TEACHERS)
    together = optimize_students(objective, TEACHERS, students, steps=20)
    assert not torch.equal(together.loss[0], together.loss[-1])
    if "projection" in objective:  # its map is drawn with the batch: members alone differ in it
        return
    for i in range(len(SMALL.seeds)):
        alone = optimize_students(objective, TEACHERS[i : i + 1], students[i : i + 1], steps=20)
        torch.testing.assert_close(alone.loss[:, 0], together.loss[:, i], rtol=1e-3, atol=1e-5)


def test_objectives_are_the_library_s_losses() -> None:
    students = make_students(SMALL, TEACHERS)
    losses = {
        "procrustes": ProcrustesLoss(),
        "gram": FeatureGramLoss(),
        "cka": CKALoss(),
        "spectrum": SpectrumLoss(),
    }
    for name, loss in losses.items():
        expected = [float(loss(y, x)) for x, y in zip(TEACHERS, students, strict=True)]
        assert initial_loss(name, TEACHERS, students).tolist() == pytest.approx(expected, abs=1e-5)
    # The signs of components are free: compare at the target itself.
    targets = pca_scores(TEACHERS, 6).float()
    assert initial_loss("pca", TEACHERS, targets).abs().max() < 1e-6
    target = PCATargetLoss.fit(TEACHERS[0], 6)
    assert float(target(TEACHERS[0] @ target.components, TEACHERS[0])) < 1e-6


def test_the_learned_maps_start_where_procrustes_is_a_lower_bound() -> None:
    students = make_students(NOISY, TEACHERS)
    procrustes = initial_loss("procrustes", TEACHERS, students)
    for name in ("projection", "orthogonal-projection"):
        assert (initial_loss(name, TEACHERS, students) >= procrustes - 1e-6).all()
    end = optimize_students("orthogonal-projection", TEACHERS, students, steps=150)
    exact = ProcrustesLoss()(end.students[-1][0], TEACHERS[0])
    assert float(end.loss[-1, 0]) == pytest.approx(float(exact), abs=0.02)
    library = ProjectionLoss(6, 20)
    m = row_moments(TEACHERS[:1], students[:1], center=True, scale="frobenius")
    expected = float(library(students[0], TEACHERS[0]).detach())
    residual = projection_residual(m, library.weight.detach()[None])
    assert float(residual) == pytest.approx(expected, abs=1e-5)


def test_orthonormal_maps_both_ways() -> None:
    for shape in ((2, 3, 7), (2, 7, 3)):
        w = orthonormalize(torch.randn(shape, dtype=torch.float64))
        product = w @ w.mT if shape[1] < shape[2] else w.mT @ w
        torch.testing.assert_close(product, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))


def test_batched_diagnostics_are_the_library_s() -> None:
    batch = make_batch(SMALL)
    students = make_students(NOISY, batch.teachers)
    values = batch.measure(students[None])
    score = geometry_kept(procrustes_distance, batch.teachers[1], students[1])
    assert float(values["geometry_kept"][0, 1]) == pytest.approx(score, abs=1e-6)
    parts = (values["spectrum"] + values["alignment"])[0, 1]
    assert float(parts) == pytest.approx(float(values["procrustes"][0, 1]) ** 2, abs=1e-9)
    same = batch.measure(batch.teachers[None])
    assert same["pc1"].tolist() == [pytest.approx([1.0] * 3)]
    assert float(same["pc16"].mean()) == pytest.approx(1.0)


def test_nearly_orthonormal_teachers_have_smaller_cosines_than_random_ones() -> None:
    largest = {}
    for name in ("random", "ε-orthogonal"):
        teacher = make_teachers(replace(SMALL, teacher=name))[0]
        unit = torch.nn.functional.normalize(teacher - teacher.mean(0), dim=-1)
        largest[name] = float((unit @ unit.T).fill_diagonal_(0).abs().max())
    assert largest["ε-orthogonal"] < 0.4
    assert largest["random"] > 0.5


@pytest.mark.parametrize("width", [6, 20, 26])
def test_pca_starts_at_the_best_of_its_width(width: int) -> None:
    losses = {}
    for start in ("pca", "noisy_pca", "random"):
        students = make_students(replace(SMALL, d_student=width, start=start), TEACHERS)
        assert students.shape == (3, 40, width)
        losses[start] = initial_loss("procrustes", TEACHERS, students)
    lowest = [min_loss("procrustes", x, width) for x in TEACHERS]
    assert losses["pca"].tolist() == pytest.approx(lowest, abs=1e-4)
    assert (losses["pca"] + 0.02 < losses["noisy_pca"]).all()
    assert (losses["noisy_pca"] < losses["random"]).all()


def test_no_loss_ends_below_its_minimum_and_all_come_near(rows: pd.DataFrame) -> None:
    assert rows.groupby(["teacher", "objective", "seed"]).ngroups == 2 * len(OBJECTIVES) * 3
    assert 20 <= rows["step"].nunique() <= 32
    end = rows[rows["step"] == SMALL.steps]
    assert end["loss_remaining"].min() > -1e-4
    assert end["loss_remaining"].max() < 0.05


def test_procrustes_keeps_the_geometry_and_the_spectrum_alone_has_none(rows: pd.DataFrame) -> None:
    end = rows[rows["step"] == SMALL.steps].groupby("objective")["geometry_kept"]
    assert end.min()["procrustes"] > 0.98
    assert end.mean()["spectrum"] < 0.3
    assert end.min()["projection"] < 0.95
    assert rows[rows["step"] == 0]["geometry_kept"].max() < 0.3


def test_gram_s_best_student_has_the_flatter_spectrum() -> None:
    for x in TEACHERS:
        gram, procrustes = (
            torch.linalg.svdvals(best_student(measure, x, 6)).square()
            for measure in (feature_gram_distance, procrustes_distance)
        )
        flatness = [float((s.sum() ** 2) / s.square().sum()) for s in (gram, procrustes)]
        assert flatness[0] > flatness[1] + 0.1


def test_the_minimum_of_the_projection_is_the_variance_beyond_the_width() -> None:
    settings = SyntheticSettings("24 orthogonal", n=48, d_teacher=32, seeds=(0,))
    teacher = make_teachers(settings)[0].double()
    values = torch.linalg.svdvals(teacher).square()
    lost = float(values[8:].sum() / values.sum())
    assert min_loss("projection", teacher, 8) == pytest.approx(lost, abs=1e-6)
    assert lost > 0.3


def test_the_run_ids_of_the_study_are_those_of_the_stored_runs() -> None:
    stored = read_stored(data_dir() / "results" / "synthetic" / "rows.parquet")
    jobs = {job.run_id: job for job in synthetic_study().jobs}
    assert set(jobs) == set(stored["run_id"])
    assert len(jobs) == 7 * 3 * 3 * 7
    configs = stored.drop_duplicates("run_id").set_index("run_id")["config"]
    for run_id, job in jobs.items():
        config = synthetic_config(job.settings, job.method)
        assert json.loads(configs[run_id]) == {**config, "seeds": list(config["seeds"])}


def test_a_run_has_the_stored_columns() -> None:
    run = run_block(replace(SMALL, start="pca"), "cka")
    assert run.items["item"].is_unique
    assert set(run.items["start_seed"]) == {0, 1, 2}
    assert run.metrics["kept"] > 0.9
    stored = read_stored(data_dir() / "results" / "synthetic" / "items.parquet")
    assert set(run.items) == set(stored) - {"run_id", "task", "method", "seed", "pc32"}


def test_stored_rows_follow_the_steps_of_each_run() -> None:
    """Figures join them by lines: out of order a curve would run back and forth."""
    results = load_results()
    assert set(results["start"]) == {"random", "pca", "noisy_pca"}
    assert set(train_block(SMALL, "pca")) < set(results)
    runs = results.groupby(["run_id", "seed"])["step"]
    assert runs.ngroups > 1
    assert all(steps.is_monotonic_increasing and len(steps) > 2 for _, steps in runs)


def test_mean_interval_is_scipy_s() -> None:
    values = [0.3, 0.5, 0.45, 0.6]
    mean, low, high = mean_interval(values)
    expected = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected)
    assert mean == pytest.approx(math.fsum(values) / 4)


def test_means_over_seeds_average_within_a_seed_first() -> None:
    rows = [("a", s, t, s + t) for s in (0, 1, 2) for t in (0, 10)] + [
        ("b", 0, 0, 1),
        ("b", 1, 0, 3),
    ]
    frame = pd.DataFrame(rows, columns=["objective", "seed", "teacher", "value"])
    means = means_over_seeds(frame, "value", ["objective"]).set_index("objective")
    assert means["n"].tolist() == [3, 2]
    assert tuple(means.loc["a", ["mean", "low", "high"]]) == pytest.approx(mean_interval([5, 6, 7]))
    both = means_over_seeds(frame, "value", ["objective", "teacher"][:1])
    assert both["objective"].tolist() == ["a", "b"]
    frame["kind"] = "k"
    two = means_over_seeds(frame, "value", ["objective", "kind"])
    assert two[["objective", "kind"]].to_numpy().tolist() == [["a", "k"], ["b", "k"]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SyntheticSettings("5 orthogonal"), "teacher is '5 orthogonal'; expected one of"),
        (lambda: SyntheticSettings(start="warm"), "start is 'warm'; expected .*noisy_pca"),
        (lambda: train_block(SMALL, "mse"), "objective is 'mse'; expected .*cka"),
        (lambda: mean_interval([1.0]), "values has 1: expected at least two"),
    ],
)
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


def test_without_stored_results_the_command_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    with pytest.raises(InputError, match=r"no stored rows at .*: make them with `geodistill exper"):
        load_results()
