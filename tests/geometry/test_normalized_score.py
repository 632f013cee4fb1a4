"""Ceiling, chance level and geometry kept; orthogonality; the constructions and refusals."""

import math
import sys
from typing import Any

import pytest
import torch
from support.random_rows import normal
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry import (
    antiparallel,
    best_student,
    ceiling,
    chance_level,
    cka,
    controlled_teacher,
    epsilon_orthogonal_subset,
    feature_gram_distance,
    flat_halves,
    from_spectra,
    geometry_kept,
    nearly_orthogonal_teacher,
    orthogonality,
    procrustes_distance,
    projection_distance,
    spread_mass,
    welch_bound,
)
from geodistill.geometry.normalized_score import score_range

SCORED = [procrustes_distance, feature_gram_distance, cka]
SPECTRUM = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.06, 0.04], dtype=torch.float64)
LOST = 0.2  # the mass of SPECTRUM beyond its first three


def teacher(n: int = 40) -> Tensor:
    """Features of a known spectrum in general position, shifted and scaled."""
    rows = from_spectra(n, SPECTRUM.tolist(), [1.0]).teacher
    return 7 * rows @ torch.linalg.qr(normal(6, 6))[0] + 3


def test_ceiling_is_the_closed_form() -> None:
    x = teacher()
    assert ceiling(procrustes_distance, x, 3) == pytest.approx(
        math.sqrt(2 - 2 * math.sqrt(1 - LOST))
    )
    tail = SPECTRUM[3:].square().sum()
    assert ceiling(feature_gram_distance, x, 3) == pytest.approx(float((LOST**2 / 3 + tail).sqrt()))
    head = SPECTRUM[:3].square().sum()
    assert ceiling(cka, x, 3) == pytest.approx(float((head / (head + tail)).sqrt()))


def test_ceiling_without_scaling_is_what_the_top_components_leave() -> None:
    x = teacher()
    for center in (True, False):
        y = x - x.mean(0) if center else x
        tail = torch.linalg.svdvals(y)[3:].square()
        raw = {"center": center, "scale": None}
        assert ceiling(procrustes_distance, x, 3, **raw) == pytest.approx(float(tail.sum().sqrt()))
        assert ceiling(feature_gram_distance, x, 3, **raw) == pytest.approx(float(tail.norm()))
        share = geometry_kept(procrustes_distance, x, y[:, :3], **raw)
        assert share < geometry_kept(procrustes_distance, x, y, **raw) == pytest.approx(1, abs=1e-6)
    rms = ceiling(feature_gram_distance, x, 3, scale="rms")
    assert rms == pytest.approx(40 * ceiling(feature_gram_distance, x, 3))


def test_chance_level_of_fewer_rows_is_nearer_to_the_ceiling() -> None:
    x = normal(300, 8)
    values = [chance_level(cka, x, 4, n) for n in (20, 60, 300)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.2 > values[2]


@pytest.mark.parametrize("measure", SCORED)
def test_no_student_of_that_width_does_better(measure: object) -> None:
    """An optimiser that starts at random, or at the claimed best, can't pass it."""
    x = teacher()
    reachable = ceiling(measure, x, 3)
    options = {} if measure is cka else {"center": True, "scale": "frobenius"}
    sign = -1 if measure is cka else 1
    for start in (normal(40, 3), best_student(measure, x, 3) + 1e-3 * normal(40, 3)):
        y = start.clone().requires_grad_()
        optimiser = torch.optim.LBFGS([y], max_iter=80, line_search_fn="strong_wolfe")

        def closure(y: Tensor = y, optimiser: torch.optim.LBFGS = optimiser) -> Tensor:
            optimiser.zero_grad()
            loss = sign * measure(x, y, **options)
            loss.backward()
            return loss

        optimiser.step(closure)
        reached = float(measure(x, y.detach(), **options))
        assert sign * reached >= sign * reachable - 1e-9
        assert reached == pytest.approx(reachable, abs=2e-3)


@pytest.mark.parametrize("measure", SCORED)
def test_a_wide_student_can_be_perfect(measure: object) -> None:
    x = teacher()
    perfect = 1.0 if measure is cka else 0.0
    assert ceiling(measure, x, 9) == pytest.approx(perfect, abs=1e-6)
    assert best_student(measure, x, 9).shape == (40, 6)  # no direction is left to fill
    assert geometry_kept(measure, x, x) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("measure", SCORED)
def test_geometry_kept_is_one_at_the_ceiling_zero_at_chance_and_falls_between(
    measure: object,
) -> None:
    x = teacher(200)
    y = best_student(measure, x, 3)
    noise = normal(200, 3) * y.norm() / normal(200, 3).norm()
    shares = [geometry_kept(measure, x, y + size * noise) for size in (0, 0.3, 1, 3)]
    assert shares[0] == pytest.approx(1, abs=1e-9)
    assert shares == sorted(shares, reverse=True)
    shuffled = geometry_kept(measure, x, y[torch.randperm(200)])
    assert abs(shuffled) < 0.15


def test_chance_level_depends_on_the_teacher_and_the_width_only() -> None:
    x = teacher()
    values = {d: chance_level(procrustes_distance, x, d) for d in (1, 3, 6)}
    assert len(set(values.values())) == 3
    assert chance_level(procrustes_distance, 5 * x - 2, 3) == pytest.approx(values[3], abs=1e-9)
    assert values[3] > ceiling(procrustes_distance, x, 3) + 0.1


def test_a_collapsed_student_is_not_rewarded() -> None:
    x = teacher(100)
    collapsed = torch.cat([normal(100, 1), torch.zeros(100, 2)], dim=1)
    assert geometry_kept(procrustes_distance, x, collapsed) < 0.1


@pytest.mark.parametrize("measure", SCORED)
def test_a_student_of_equal_rows_has_no_geometry_to_keep(measure: Any) -> None:
    """Its distance to the teacher is that to nothing: less than that to shuffled rows."""
    x, constant = normal(100, 12), torch.full((100, 3), 7.0)
    with pytest.raises(InputError, match="student's 100 rows are all equal: expected rows that"):
        geometry_kept(measure, x, constant)
    assert math.isnan(score_range(measure, x, 3).normalize(constant))
    assert score_range(measure, x, 3).normalize(normal(100, 3)) < 0.3
    if measure is not cka:  # unscaled, the distance to nothing is what was asked
        assert geometry_kept(measure, x, 0 * constant, scale=None) > 0


def test_flat_noise_scores_by_the_gram_distance_unless_its_own_rows_are_shuffled() -> None:
    """Its spectrum is nearer than the best student's: √(1/PR_X + 1/d_s) < √(1/PR_X + 1/PR_best)."""
    for n in (300, 1200):
        x = normal(n, 48) * torch.arange(1, 49) ** -0.75
        noise = normal(n, 16, seed=1)
        steep, line = noise * torch.arange(1, 17) ** -1.0, noise[:, :1] @ normal(1, 16)
        by_best = [geometry_kept(feature_gram_distance, x, y) for y in (noise, steep, line)]
        assert by_best[0] > 0.15
        assert by_best == sorted(by_best, reverse=True)
        assert by_best[2] < -0.3
        for measure in SCORED:
            for y in (noise, steep, line):
                assert abs(geometry_kept(measure, x, y, shuffled="student")) < 0.03
            best = best_student(measure, x, 16)
            assert geometry_kept(measure, x, best, shuffled="student") == pytest.approx(1)
    with pytest.raises(
        InputError, match="shuffled is 'rows': expected 'best_student' or 'student'"
    ):
        geometry_kept(cka, x, noise, shuffled="rows")


@pytest.mark.parametrize("measure", SCORED)
def test_the_best_student_has_the_documented_norm(measure: object) -> None:
    expected = 1.0 if measure is feature_gram_distance else 1 - LOST
    y = best_student(measure, teacher(), 3)
    assert float(y.norm() ** 2) == pytest.approx(expected)
    assert torch.allclose(y.mean(0), torch.zeros(3, dtype=y.dtype), atol=1e-12)
    if measure is not cka:
        rms = best_student(measure, teacher(), 3, scale="rms")
        assert float(rms.norm() ** 2) == pytest.approx(40 * expected)
        raw = best_student(measure, teacher(), 3, scale=None)
        assert float(raw.norm() ** 2) == pytest.approx(49 * (1 - LOST))  # the teacher is 7 times


@pytest.mark.parametrize("measure", SCORED)
def test_a_teacher_wider_than_its_rows_are_many(measure: object) -> None:
    """Rotated into n columns it is the same teacher."""
    x = normal(20, 6) @ normal(6, 60, seed=1) + 0.1 * normal(20, 60, seed=2)
    rotated = x @ torch.linalg.qr(x.T)[0]
    assert ceiling(measure, x, 3) == pytest.approx(ceiling(measure, rotated, 3), rel=1e-9)
    assert best_student(measure, x, 50).shape == (20, 20)
    y = x[:, :4]
    expected = geometry_kept(measure, rotated, y)
    assert geometry_kept(measure, x, y) == pytest.approx(expected, rel=1e-9)
    assert 0.1 < expected < 1


def test_chance_and_ceiling_must_differ_by_three_standard_deviations() -> None:
    """Shuffled rows of these teachers are 2.85 and 3.20 standard deviations from the ceiling."""
    with pytest.raises(InputError, match="expected more rows, so that the two differ"):
        score_range(cka, normal(6, 4, seed=5), 2)
    scores = score_range(cka, normal(6, 4, seed=0), 2)
    assert scores.chance_level < scores.ceiling


def test_chance_level_takes_one_to_all_rows() -> None:
    x = teacher()
    assert chance_level(cka, x, 2, n=1) == 0  # one row has no geometry
    assert chance_level(cka, x, 2, n=40) == pytest.approx(chance_level(cka, x, 2), rel=0.3)
    assert chance_level(cka, x, 2, n=20) == chance_level(cka, x, 2, n=20)
    assert chance_level(cka, x, 2, n=20) != chance_level(cka, x, 2, n=20, seed=1)


def test_geometry_kept_under_a_mask_is_that_of_the_kept_rows() -> None:
    x, y = teacher(), teacher()[:, :3]
    mask = torch.arange(40) < 25
    expected = geometry_kept(cka, x[:25], y[:25])
    y = torch.where(mask[:, None], y, float("nan"))
    assert geometry_kept(cka, x, y, mask=mask) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: geometry_kept(projection_distance, teacher(), teacher()), "measure is projection"),
        (lambda: geometry_kept(cka, teacher(), teacher()[:9]), r"teacher has rows \(40,\)"),
        (lambda: ceiling(cka, teacher(), 0), "d_student is 0"),
        (lambda: ceiling(cka, teacher(), 2, center=False), "center=False with cka"),
        (
            lambda: chance_level(cka, teacher(), 2, 41),
            "n is 41: expected 1 to the teacher's 40 rows",
        ),
        (lambda: chance_level(cka, teacher(), 2, 0), "n is 0: expected 1 to the teacher's 40"),
        (
            lambda: geometry_kept(cka, normal(4, 4), normal(4, 3)),
            "expected more rows, so that the two differ",
        ),
        (lambda: ceiling(cka, teacher()[None], 2), r"expected \(n, d\)"),
    ],
)
def test_score_refusals(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# --- orthogonality -----------------------------------------------------------------------------


def test_orthogonality_of_known_vectors() -> None:
    axes = torch.eye(4, dtype=torch.float64)
    rows = torch.cat([axes, -2 * axes])
    assert orthogonality(axes, 0) == 1
    assert float(orthogonality(rows, 0)) == pytest.approx(
        1 - 8 / 56
    )  # four opposite pairs, both orders
    assert orthogonality(torch.ones(5, 3), 0.9) == 0
    half = torch.tensor([[1.0, 0], [1, 3**0.5]])  # 60 degrees
    assert (orthogonality(half, 0.49), orthogonality(half, 0.51)) == (0, 1)


def test_orthogonality_counts_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(50, 4)
    full = orthogonality(x, 0.3)
    assert 0 < full < 1
    monkeypatch.setattr(sys.modules["geodistill.geometry.dimensionality"], "_CHUNK", 7)
    assert orthogonality(x, 0.3) == full


def test_epsilon_orthogonal_subset_is_pairwise_orthogonal_and_maximal() -> None:
    x = normal(60, 5)
    subset = epsilon_orthogonal_subset(x, 0.3)
    cosines = torch.nn.functional.normalize(x, dim=-1)
    cosines = cosines @ cosines.T
    inside = cosines[subset][:, subset].abs() - torch.eye(int(subset.sum()))
    assert inside.max() <= 0.3
    assert (cosines[~subset][:, subset].abs() > 0.3).any(-1).all()
    assert 3 <= subset.sum() < 60
    assert subset[0]  # greedy, in order


def test_orthogonality_of_a_batch_is_that_of_each() -> None:
    generator = torch.Generator().manual_seed(0)
    x, mask = normal(2, 3, 20, 5), torch.rand(2, 3, 20, generator=generator) > 0.3
    x[~mask] = torch.nan
    share = orthogonality(x, 0.3, mask=mask)
    subset = epsilon_orthogonal_subset(x, 0.3, mask=mask)
    assert share.shape == (2, 3)
    assert subset.shape == (2, 3, 20)
    for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(3)):
        rows = x[i, j][mask[i, j]]
        assert share[i, j] == orthogonality(rows, 0.3)
        assert torch.equal(subset[i, j][mask[i, j]], epsilon_orthogonal_subset(rows, 0.3))
    assert not subset[~mask].any()
    assert subset.sum(-1).unique().numel() > 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orthogonality(torch.zeros(3, 2), 0.1), "3 zero rows of 3"),
        (lambda: orthogonality(torch.ones(1, 2), 0.1), "1 row"),
        (
            lambda: orthogonality(
                torch.ones(2, 3, 2), 0.1, mask=torch.tensor([[1, 1, 1], [1, 0, 0]])
            ),
            "1 row",
        ),
        (
            lambda: orthogonality(torch.ones(3), 0.1),
            r"x has shape \(3,\): expected \(\.\.\., n, d\)",
        ),
        (lambda: epsilon_orthogonal_subset(torch.ones(0, 3), 0.1), r"x has shape \(0, 3\)"),
        (lambda: orthogonality(torch.ones(3, 2), 1.0), r"eps is 1.0"),
        (lambda: epsilon_orthogonal_subset(torch.ones(3, 2), -1), "eps is -1"),
    ],
)
def test_orthogonality_refusals(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# --- constructions -----------------------------------------------------------------------------


def test_antiparallel_loses_geometry_while_cka_hardly_sees_it() -> None:
    options = {"center": True, "scale": "frobenius"}
    scores = []
    for n in (20, 80, 320):
        x, y = antiparallel(n, n, 4, perturbed=n // 2)
        assert x.shape == (n, n)
        assert y.shape == (n, 4)
        scores.append((float(cka(x, y)), float(procrustes_distance(x, y, **options))))
    assert scores[0][0] < scores[1][0] < scores[2][0]
    assert scores[2][0] > 0.999
    assert min(d for _, d in scores) > 0.5


def test_antiparallel_moves_each_vector_along_its_own_orthogonal_direction() -> None:
    x, y = antiparallel(6, 5, 2, perturbed=3, size=0.5)
    moves = x - torch.nn.functional.pad(y, (0, 3))
    assert torch.equal(moves @ moves.T, 0.25 * torch.diag(torch.tensor([1.0, 1, 1, 0, 0, 0])))
    assert (moves @ torch.nn.functional.pad(y, (0, 3)).T).abs().max() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: antiparallel(7, 5, 2, 0), "perturbed = 0: expected perturbed ≥ 1"),
        (
            lambda: antiparallel(6, 9, 2, 5),
            r"n = 6: expected 1 \+ perturbed ≤ min\(d_teacher, n − 1",
        ),
        (lambda: antiparallel(8, 5, 2, 5), r"d_teacher = 5, n = 8: expected 1 \+ perturbed ≤ min"),
        (lambda: from_spectra(6, [], [1.0]), "one or more eigenvalues ≥ 0 of the teacher"),
        (lambda: from_spectra(6, [1.0], [0.5, -0.1]), "smallest = -0.1: .* ≥ 0 of the student"),
        (lambda: nearly_orthogonal_teacher(20, 10, 0.2), r"\(d \(n − 1\)\)\) = 0.2294 ≤ eps < 1"),
        (lambda: nearly_orthogonal_teacher(20, 10, 1.0), "eps = 1.0, n = 20, d = 10: expected"),
        (lambda: nearly_orthogonal_teacher(1, 10, 0.5), "n = 1, d = 10: expected n ≥ 2"),
        (lambda: antiparallel(6, 5, 5, 3), "expected 1 ≤ d_student < d_teacher"),
        (lambda: spread_mass(10, 9, 0.3, 20), r"expected 2 ≤ 1 \+ directions ≤ min"),
        (lambda: spread_mass(30, 20, 0.3, 20), r"expected 2 ≤ 1 \+ directions ≤ min"),
        (lambda: spread_mass(30, 5, 1.0, 20), "0 < lost < 1"),
        (lambda: flat_halves(8, 4), "directions ≤ n − 1"),
        (lambda: controlled_teacher(10, 4, 5), r"1 ≤ orthogonal ≤ min\(n, d\)"),
        (lambda: controlled_teacher(10, 4, 2, spread=1.0), "0 ≤ spread < 1"),
    ],
)
def test_impossible_sizes_are_refused_with_the_inequality(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("orthogonal", [1, 4, 16])
def test_controlled_teacher_has_as_many_orthogonal_vectors_as_asked(orthogonal: int) -> None:
    x = controlled_teacher(100, 32, orthogonal)
    assert torch.allclose(x.norm(dim=1), torch.ones(100, dtype=torch.float64))
    assert epsilon_orthogonal_subset(x, 0.4).sum() == orthogonal
    assert float(orthogonality(x, 0.4)) == pytest.approx(1 - 1 / orthogonal, abs=0.02)
    assert torch.equal(x, controlled_teacher(100, 32, orthogonal))
    assert not torch.equal(x, controlled_teacher(100, 32, orthogonal, seed=1))


@pytest.mark.parametrize(("n", "d", "eps"), [(20, 32, 0.0), (40, 20, 0.3), (100, 32, 0.25)])
def test_nearly_orthogonal_teacher_brings_every_pair_to_eps(n: int, d: int, eps: float) -> None:
    x = nearly_orthogonal_teacher(n, d, eps)
    assert x.shape == (n, d)
    assert torch.allclose(x.norm(dim=1), torch.ones(n, dtype=torch.float64))
    off = (x @ x.T).fill_diagonal_(0).abs().max()
    assert welch_bound(n, d) - 1e-12 <= off < eps + 0.02
    random = torch.nn.functional.normalize(normal(n, d), dim=1)
    assert (random @ random.T).fill_diagonal_(0).abs().max() > eps + 0.1  # the contrast
    assert not torch.equal(x, nearly_orthogonal_teacher(n, d, eps, seed=1))


def test_welch_bound_is_met_by_the_simplex_and_by_bases() -> None:
    simplex = torch.eye(5, dtype=torch.float64) - 0.2
    simplex = torch.nn.functional.normalize(simplex, dim=1)  # five vectors in four dimensions
    cosines = (simplex @ simplex.T).fill_diagonal_(0).abs()
    assert float(cosines.max()) == pytest.approx(welch_bound(5, 4))
    assert welch_bound(4, 4) == 0


@pytest.mark.parametrize("n", [7, 10])
def test_antiparallel_has_every_direction_it_was_asked_for(n: int) -> None:
    """Also where n is odd, and where the rows are centred."""
    x, y = antiparallel(n, n - 1, 2, perturbed=n - 2)
    centred = x - x.mean(0)
    assert torch.linalg.matrix_rank(centred) == n - 1
    assert torch.linalg.matrix_rank(y - y.mean(0)) == 1
