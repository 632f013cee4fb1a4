"""torch.compile sees each loss without a graph break, and gives its value and gradient."""

import copy
import pickle
import warnings

import pytest
import torch
from support.feature_losses import D_S, D_T, NAMES, STUDENT, TEACHER, build_losses, normal
from torch import Tensor, nn

from geodistill.errors import InputError
from geodistill.losses import CosineLoss, IsotropyLoss, ProcrustesLoss, ShuffledRows

MASK = torch.arange(30).view(3, 10) % 7 != 0


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


def compiled(call: object, backend: str = "aot_eager") -> object:
    return torch.compile(call, fullgraph=True, backend=backend)


def step(loss: object, student: Tensor, teacher: Tensor, mask: Tensor | None) -> list[Tensor]:
    """The value, and gradients of both sides and of parameters, in a graph with other terms."""
    y, x = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    value = loss(2 * y, x, mask)
    (3 * value + y.square().mean()).backward()
    parameters = [p.grad.clone() for p in loss.parameters()]
    return [value.detach(), y.grad, *([] if x.grad is None else [x.grad]), *parameters]


@pytest.mark.parametrize(("name", "mask"), [*((n, MASK) for n in NAMES), ("procrustes", None)])
def test_value_and_gradients_are_those_of_plain_code(name: str, mask: Tensor | None) -> None:
    loss = build_losses()[name]
    plain = step(copy.deepcopy(loss), STUDENT.float(), TEACHER.float(), mask)
    graph = step(compiled(loss), STUDENT.float(), TEACHER.float(), mask)
    if name == "isotropy":
        graph = graph[:2]  # the teacher's are zeros, not None
    assert plain[1].norm() > 1e-4
    assert len(graph) == len(plain)
    for there, here in zip(graph, plain, strict=True):
        assert there.dtype == here.dtype
        assert (there - here).norm() < 1e-6 * here.norm()


def test_one_graph_of_several_losses_and_shapes() -> None:
    first, second = ProcrustesLoss(), ProcrustesLoss(center=False, scale="rms")

    def both(y: Tensor, x: Tensor) -> Tensor:
        return first(y, x) + 0.1 * second(y, x)

    run = compiled(both, "eager")
    for rows in (30, 5, 17, 60):
        y, x = normal(rows, D_S, seed=1), normal(rows, D_T)
        assert torch.equal(run(y, x), both(y, x))
    assert abs(first(y, x) - second(y, x)) > 1e-3


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_past_batches_count_and_evaluation_leaves_them(backend: str) -> None:
    loss = ProcrustesLoss(decay=0.9)
    plain, run = copy.deepcopy(loss), compiled(loss, backend)
    for seed in range(3):
        y, x = normal(20, D_S, seed=seed), normal(20, D_T, seed=9)
        assert torch.equal(run(y, x), plain(y, x))
    assert plain.past_n > 40
    assert torch.equal(loss.past_xy, plain.past_xy)
    loss.eval()
    assert torch.equal(run(y, x), ProcrustesLoss()(y, x))
    assert torch.equal(loss.past_xy, plain.past_xy)


def test_equal_calls_in_one_graph_are_two_batches() -> None:
    loss = ProcrustesLoss(decay=1.0)
    compiled(lambda y, x: loss(y, x) + loss(y, x))(STUDENT, TEACHER)
    assert loss.past_n == 60


@pytest.mark.parametrize("named", [0, 1, 2])
def test_arguments_by_name(named: int) -> None:
    values = {"student": STUDENT, "teacher": TEACHER, "mask": MASK}
    names = list(values)
    args, rest = [values[n] for n in names[:named]], {n: values[n] for n in names[named:]}
    assert torch.equal(
        compiled(ProcrustesLoss())(*args, **rest), ProcrustesLoss()(*values.values())
    )


def test_without_a_gradient() -> None:
    loss = CosineLoss(nn.Linear(D_S, D_T))
    run = compiled(loss)
    expected = loss(STUDENT, TEACHER)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            value = run(STUDENT, TEACHER)
        assert not value.requires_grad
        torch.testing.assert_close(value, expected.detach())


def test_a_side_without_influence_gets_zeros() -> None:
    x = TEACHER.clone().requires_grad_()
    compiled(IsotropyLoss())(STUDENT, x).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_loss_scaling_saves_small_gradients_of_half_precision() -> None:
    student, teacher = STUDENT.half(), 2e3 * TEACHER.half()
    gradients = []
    for loss in (ProcrustesLoss(), compiled(ProcrustesLoss())):
        y = (2e3 * student).requires_grad_()
        (2.0**14 * loss(y, teacher)).backward()
        gradients.append(y.grad)
    assert gradients[0].abs().max() > 1e-4
    torch.testing.assert_close(*gradients, rtol=2e-3, atol=1e-6)


def test_copies_and_pickles_are_losses_of_their_own() -> None:
    loss = ShuffledRows(ProcrustesLoss(), seed=3)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        other.seed = 5
        expected = copy.deepcopy(other)(STUDENT, TEACHER)
        assert torch.equal(compiled(other)(STUDENT, TEACHER), expected)
        assert abs(expected - copy.deepcopy(loss)(STUDENT, TEACHER)) > 1e-6


def test_bad_input_and_dominance_are_told_as_in_plain_code() -> None:
    run = compiled(ProcrustesLoss())
    far = STUDENT.clone()
    far[0, :2] += 1e3
    with pytest.warns(UserWarning, match="2 of 30 rows of the student have"):
        run(far, TEACHER)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(far, TEACHER)
    far[0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="student holds 1 NaN"):
        run(far, TEACHER)


def test_cuda_graphs_leave_the_loss_out() -> None:
    if not hasattr(torch.Tag, "cudagraph_unsafe"):
        pytest.skip("this PyTorch has no such tag")
    for operator in (torch.ops.geodistill.loss, torch.ops.geodistill.nuclear_norm):
        assert torch.Tag.cudagraph_unsafe in operator.default.tags
