"""Names of methods, and the loss that each builds."""

import pytest
import torch

from geodistill import losses
from geodistill.errors import InputError
from geodistill.experiments.methods import (
    CLASSIFICATION_METHODS,
    FEATURE_TERMS,
    INSTRUCTION_METHODS,
    base_of,
    build_feature_loss,
    term_of,
)

ROWS = torch.Generator().manual_seed(0)
STUDENT = torch.randn(40, 3, generator=ROWS)
TEACHER = torch.randn(40, 5, generator=ROWS)


def build(method):
    return build_feature_loss(method, 3, 5, teacher_features=lambda: TEACHER)


@pytest.mark.parametrize("term", FEATURE_TERMS)
def test_every_term_builds_a_loss_with_a_gradient(term):
    loss = build(f"kd+{term}")
    student = STUDENT.clone().requires_grad_()
    value = loss(student, TEACHER)
    (gradient,) = torch.autograd.grad(value, student)
    assert value > 0
    assert gradient.norm() > 0


@pytest.mark.parametrize(
    ("term", "same"),
    [
        ("procrustes", losses.ProcrustesLoss()),
        ("procrustes-pretrained", losses.ProcrustesLoss()),
        ("gram", losses.FeatureGramLoss()),
        ("cka", losses.CKALoss()),
        ("spectrum", losses.SpectrumLoss()),
        ("alignment", losses.AlignmentLoss()),
        ("isotropy", losses.IsotropyLoss()),
    ],
)
def test_a_term_is_the_loss_of_its_name(term, same):
    assert torch.equal(build(f"kd+{term}")(STUDENT, TEACHER), same(STUDENT, TEACHER))


def test_spectrum_and_alignment_add_up_to_procrustes():
    parts = [build(f"kd+{term}")(STUDENT, TEACHER) for term in ("spectrum", "alignment")]
    torch.testing.assert_close(sum(parts), build("kd+procrustes")(STUDENT, TEACHER))


def test_a_name_is_a_base_and_a_term():
    for method in {*CLASSIFICATION_METHODS, *INSTRUCTION_METHODS}:
        base, term = base_of(method), term_of(method)
        assert method == (f"{base}+{term}" if term else base)
        assert (build(method) is not None) == bool(term)


@pytest.mark.parametrize("term", ["rkd", "Gram", "kd"])
def test_an_unknown_term_is_refused_with_the_known(term):
    with pytest.raises(InputError, match=rf"method is 'kd\+{term}'; .* one of projection, pca, "):
        build(f"kd+{term}")
