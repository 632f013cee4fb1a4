"""Losses say once that a few rows or one direction have almost everything."""

import copy
import warnings

import pytest
import torch
from torch import nn

from geodistill import losses
from geodistill.geometry import inlier_mask

LOSSES = [
    losses.ProcrustesLoss(),
    losses.ProcrustesLoss(decay=0.9),
    losses.FeatureGramLoss(),
    losses.CKALoss(),
    losses.RelationalLoss(),
]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def outliers(rows, count=4):
    """The rows, the first of them far from the others."""
    return torch.cat([rows[:count] + 20, rows[count:]])


def name(loss):
    return type(loss).__name__


def messages(loss, student, teacher, mask=None, calls=1):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(calls):
            loss(student, teacher, mask)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_the_warning_comes_once_with_number_share_and_a_way_out(loss):
    loss = copy.deepcopy(loss)
    teacher, student = outliers(normal(100, 12)), normal(100, 12, seed=1)
    (words,) = messages(loss, student, teacher, calls=9)
    assert words.startswith(f"{name(loss)}: 4 of 100 rows of the teacher have 94.1%")
    assert "mask=inlier_mask(teacher, student, mask) or drop_outliers=True" in words
    assert messages(loss, student, teacher) == []


@pytest.mark.parametrize("loss", LOSSES, ids=name)
def test_mild_features_and_those_without_their_outliers_raise_no_warning(loss):
    loss = copy.deepcopy(loss)
    teacher, student = outliers(normal(100, 12)), normal(100, 12, seed=1)
    keep = inlier_mask(teacher, student)
    assert messages(loss, student, teacher, keep, calls=4) == []
    alone = copy.deepcopy(loss)(student[4:], teacher[4:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(copy.deepcopy(loss)(student, teacher, keep), alone)


def test_students_and_directions_count_too():
    teacher, student = normal(100, 12), normal(100, 12, seed=1)
    (words,) = messages(losses.ProcrustesLoss(), outliers(student), teacher)
    assert "4 of 100 rows of the student" in words
    steep = teacher * torch.tensor([50.0, *[1.0] * 11])
    (words,) = messages(losses.ProcrustesLoss(), student, steep)
    assert "one direction of the teacher has 99." in words


def test_a_loss_without_a_teacher_looks_at_the_students_rows():
    loss, mild = losses.IsotropyLoss(), normal(100, 12)
    assert messages(loss, mild * torch.tensor([50.0, *[1.0] * 11]), outliers(mild)) == []
    (words,) = messages(losses.IsotropyLoss(), outliers(mild), mild)
    assert words.startswith("IsotropyLoss: 4 of 100 rows of the student have")


@pytest.mark.parametrize("loss", [*LOSSES, losses.IsotropyLoss()], ids=name)
def test_the_warning_points_to_the_call(loss):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        copy.deepcopy(loss)(outliers(normal(100, 12)), normal(100, 12, seed=1))
    assert [warning.filename for warning in caught] == [__file__]


def test_dominance_that_begins_later_is_seen_at_a_later_check():
    """Calls 1 and 100 are examined: call 99 is not, call 100 is."""
    loss, mild = losses.ProcrustesLoss(), normal(100, 12)
    assert messages(loss, mild, mild, calls=4) == []
    assert messages(loss, mild, outliers(mild), calls=95) == []
    assert len(messages(loss, mild, outliers(mild))) == 1


@pytest.mark.parametrize(
    ("loss", "count"),
    [
        *((loss, 1) for loss in LOSSES if not getattr(loss, "decay", None)),
        (losses.ProjectionLoss(12, 12), 1),
        (losses.FlexLoss(torch.arange(12)), 1),
        (losses.ProcrustesLoss(center=False), 1),
        (losses.ProcrustesLoss(decay=0.9), 0),  # whose past batches have more rows
        (losses.CosineLoss(), 0),
        (losses.PatientLoss(), 0),
    ],
)
def test_one_row_is_warned_of_unless_a_loss_can_learn_from_it(loss, count):
    loss = copy.deepcopy(loss)
    words = messages(loss, normal(1, 12), normal(1, 12, seed=1), calls=3)
    assert len(words) == count
    assert all("a batch of one row has no geometry" in text for text in words)
    assert messages(copy.deepcopy(loss), normal(2, 12), normal(2, 12, seed=1)) == []


def test_a_wrapped_loss_and_a_network_around_it_warn_once():
    teacher, student = outliers(normal(100, 12)), normal(100, 12, seed=1)
    wrapped = losses.ShuffledRows(losses.ProcrustesLoss())
    assert len(messages(wrapped, student, teacher, calls=3)) == 1
    assert not [key for key in nn.ModuleList([wrapped]).state_dict() if "_calls" in key]
