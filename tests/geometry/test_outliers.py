"""Outlier rows and dominant directions, against rows and spectra that are known by construction."""

import math

import pytest
import torch
from support.random_rows import normal

from geodistill.errors import InputError
from geodistill.geometry import cka, diagnose, inlier_mask, procrustes_distance
from geodistill.geometry.outliers import bulk_center, dominance

UNIT = {"center": True, "scale": "frobenius", "form": "squared"}


def with_outliers(rows, where, size):
    """Rows with some of them moved far along the first axis."""
    rows = rows.clone()
    rows[where, 0] += size
    return rows


def rotation(d, seed=9):
    return torch.linalg.qr(normal(d, d, seed=seed))[0]


def by_hand(rows):
    """Outliers and their share, around the mean of the rows that are known to be no outliers."""
    distances = (rows - rows[10:].mean(0)).norm(dim=1)
    far = distances > 5 * distances.median()
    return far, float(distances[far].square().sum() / distances.square().sum())


def test_numbers_are_those_of_the_singular_values_and_the_rows():
    rows = with_outliers(normal(200, 16), slice(0, 10), 200.0)
    diagnosis = diagnose(rows)
    variances = torch.linalg.svdvals(rows - rows.mean(0)).square()
    ratio = variances.sum() ** 2 / variances.square().sum()
    assert diagnosis.participation_ratio == pytest.approx(float(ratio), rel=1e-9)
    assert diagnosis.first_share == pytest.approx(float(variances[0] / variances.sum()), rel=1e-9)
    far, share = by_hand(rows)
    assert diagnosis.outliers.tolist() == far.tolist() == [i < 10 for i in range(200)]
    assert diagnosis.outlier_share == pytest.approx(share, rel=1e-2)
    assert (diagnosis.n, diagnosis.width) == (200, 16)


@pytest.mark.parametrize("n", [40, 200])  # of 64 dimensions: both sides of the Gram matrix
def test_a_mild_spectrum_has_no_outliers_and_says_so(n):
    diagnosis = diagnose(normal(n, 64))
    assert not diagnosis.outliers.any()
    assert diagnosis.outlier_share == 0
    assert 10 < diagnosis.participation_ratio < 64
    assert str(diagnosis).endswith("Neither a few rows nor one direction dominates.")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.45])
@pytest.mark.parametrize("size", [60.0, 1e4])
def test_outliers_are_found_however_many_short_of_half(share, size):
    count = round(share * 400)
    rows = with_outliers(normal(400, 32), slice(0, count), size)
    assert diagnose(rows).outliers.tolist() == [i < count for i in range(400)]


def test_outliers_in_every_direction_are_found():
    rows = normal(300, 32)
    rows[:30] *= 40
    assert diagnose(rows).outliers.tolist() == [i < 30 for i in range(300)]


def test_the_threshold_is_five_medians():
    axes = torch.eye(40, dtype=torch.float64)
    rows = torch.cat([axes, -axes, 4.8 * axes[:1], -5.2 * axes[1:2]])
    assert diagnose(rows).outliers.nonzero().tolist() == [[81]]


def test_rotation_shift_and_scale_change_nothing():
    rows = with_outliers(normal(200, 16), slice(3, 9), 50.0)
    reference = diagnose(rows)
    for other in (rows @ rotation(16), rows + 1e4, 1e-30 * rows, 1e30 * rows, rows.flip(0)):
        diagnosis = diagnose(other)
        flags = diagnosis.outliers.flip(0) if other[0, 0] == rows[-1, 0] else diagnosis.outliers
        assert torch.equal(flags, reference.outliers)
        assert diagnosis.first_share == pytest.approx(reference.first_share, rel=1e-6)
        assert diagnosis.outlier_share == pytest.approx(reference.outlier_share, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_finds_the_same_rows(dtype):
    rows = with_outliers(normal(200, 16), slice(0, 6), 300.0).to(dtype)
    assert diagnose(rows).outliers.tolist() == [i < 6 for i in range(200)]


def test_tiny_float32_features_keep_their_outliers():
    rows = with_outliers(normal(200, 16), slice(0, 6), 300.0).mul(1e-30).float()
    assert inlier_mask(rows, rows).tolist() == [i >= 6 for i in range(200)]


def test_equal_rows_have_no_scale_and_no_outliers():
    rows = torch.ones(30, 8, dtype=torch.float64) * 0.1
    assert diagnose(rows).participation_ratio == diagnose(rows).first_share == 0
    rows[:5] = normal(5, 8)
    assert not diagnose(rows).outliers.any()
    assert not diagnose(torch.zeros(12, 3)).outliers.any()
    assert diagnose(torch.ones(1, 4)).outlier_share == 0


def test_masked_rows_count_for_nothing():
    rows = normal(4, 50, 8)
    rows[0, :2] += 100
    mask = torch.ones(4, 50, dtype=torch.bool)
    mask[:, 40:] = False
    rows[:, 40:] = torch.nan
    diagnosis = diagnose(rows, mask)
    alone = diagnose(rows[:, :40])
    assert diagnosis.outliers.shape == (4, 50)
    assert torch.equal(diagnosis.outliers[:, :40], alone.outliers)
    assert not diagnosis.outliers[:, 40:].any()
    assert diagnosis.n == alone.n == 160
    assert diagnosis.first_share == pytest.approx(alone.first_share)


def test_a_few_rows_or_one_direction_are_named_with_a_way_out():
    few = diagnose(with_outliers(normal(200, 16), slice(0, 10), 100.0))
    assert few.rows_dominate
    assert "outlier rows: 10, with 9" in str(few)
    assert "mask=inlier_mask(teacher, student, mask)" in str(few)
    steep = normal(200, 16)
    steep[:, 0] *= 30
    one = diagnose(steep)
    assert one.direction_dominates
    assert not one.rows_dominate
    assert "One direction dominates: project it out" in str(one)
    assert not diagnose(steep[:5]).direction_dominates  # five rows: one direction often dominates


def test_both_sides_lose_the_outliers_of_either():
    teacher = with_outliers(normal(100, 12), slice(0, 3), 100.0)
    student = with_outliers(normal(100, 6, seed=1), slice(50, 54), 100.0)
    keep = inlier_mask(teacher, student)
    assert keep.logical_not().nonzero()[:, 0].tolist() == [0, 1, 2, 50, 51, 52, 53]
    assert torch.equal(keep, inlier_mask(student, teacher))
    mask = torch.arange(100) < 90
    assert torch.equal(inlier_mask(teacher, student, mask), keep & mask)
    tokens = inlier_mask(*(x.reshape(5, 20, -1) for x in (teacher, student)), mask.reshape(5, 20))
    assert torch.equal(tokens, (keep & mask).reshape(5, 20))


def test_without_its_outliers_a_pair_shows_what_it_shares():
    """The outliers agree, the other rows do not: with them the pair looks the same."""
    teacher = with_outliers(normal(300, 12), slice(0, 9), 1000.0)
    student = with_outliers(normal(300, 12, seed=1), slice(0, 9), 1000.0)
    keep = inlier_mask(teacher, student)
    assert procrustes_distance(teacher, student, **UNIT) < 0.01
    assert cka(teacher, student) > 0.999
    expected = procrustes_distance(teacher[9:], student[9:], **UNIT)
    assert expected > 1
    assert float(procrustes_distance(teacher, student, **UNIT, mask=keep)) == pytest.approx(
        float(expected)
    )


def test_the_centre_of_the_bulk_is_the_mean_of_the_other_rows():
    rows = with_outliers(normal(400, 5), slice(0, 150), 1e3)
    assert (bulk_center(rows) - rows[150:].mean(0)).norm() < 0.4
    assert (rows.mean(0) - rows[150:].mean(0)).norm() > 300


def test_a_batch_is_told_of_rows_first_then_of_a_direction():
    mild = normal(200, 16)
    assert dominance([(mild, mild)]) is None
    few = dominance([(mild, with_outliers(mild, slice(0, 4), 300.0))])
    assert few.startswith("4 of 200 rows of the student have 99.")
    steep = mild.clone()
    steep[:, 5] *= 20
    centred = steep - steep.mean(0)
    share = float(centred[:, 5].square().sum() / centred.square().sum())
    one = dominance([(steep, mild)])
    assert one.startswith(f"one direction of the teacher has {share:.1%} of the variance")
    assert math.isclose(share, diagnose(steep).first_share, rel_tol=1e-2)


def test_few_outliers_of_many_rows_are_counted_in_parts():
    rows = with_outliers(normal(6000, 8), [700, 3000, 5999], 5000.0)
    parts = zip(rows.split(1000), normal(6000, 4, seed=1).split(1000), strict=True)
    words = dominance(parts)
    assert words.startswith("3 of 6000 rows of the teacher have 99.9")
    assert diagnose(rows).outliers.nonzero()[:, 0].tolist() == [700, 3000, 5999]


def test_unusable_features_are_refused():
    rows = normal(20, 4)
    with pytest.raises(InputError, match="features holds 1 NaN or infinite values of 80"):
        diagnose(torch.where(torch.arange(80).reshape(20, 4) == 7, torch.nan, rows))
    with pytest.raises(InputError, match="keeps no row of features"):
        diagnose(rows, torch.zeros(20, dtype=torch.bool))
    with pytest.raises(InputError, match=r"teacher has rows .* student"):
        inlier_mask(rows, rows[:5])
    with pytest.raises(InputError, match="student is a list"):
        inlier_mask(rows, rows.tolist())
