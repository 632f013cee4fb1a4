"""Every measure against every kind of bad input: a clear refusal, or the documented limit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geodistill.errors import InputError
from geodistill.geometry import (
    MEASURES,
    Measure,
    best_student,
    geometry_kept,
    procrustes_distance,
)

Pair = tuple[Any, Any, Any]  # some of the spoilt are no tensors
N = 24


def _put(x: Tensor, index: int, value: float) -> Tensor:
    x = x.clone()
    x.view(-1)[index % x.numel()] = value
    return x


SPOILS: dict[str, tuple[Callable[[Tensor, Tensor, int], Pair], str]] = {
    "vector": (lambda x, y, k: (x[0], y, None), r"x has shape .*expected \(\.\.\., n, d\)"),
    "scalar": (lambda x, y, k: (x, y[0, 0], None), r"y has shape .*expected \(\.\.\., n, d\)"),
    "rows": (lambda x, y, k: (x, y[: 1 + k % (N - 1)], None), r"x has rows .* and y .*: expected"),
    "batch": (lambda x, y, k: (x.expand(2, -1, -1), y, None), r"x has rows \(2, .* and y"),
    "integers": (lambda x, y, k: (x.long(), y, None), r"x has dtype torch\.int64: expected"),
    "booleans": (lambda x, y, k: (x, y > 0, None), r"y has dtype torch\.bool: expected"),
    "complex": (lambda x, y, k: (x.to(torch.complex64), y, None), r"x has dtype torch\.complex"),
    "sparse": (lambda x, y, k: (x, y.to_sparse(), None), r"y has layout torch\.sparse_coo"),
    "list": (lambda x, y, k: (x.tolist(), y, None), r"x is a list: expected a torch\.Tensor"),
    "no width": (lambda x, y, k: (x, y[:, :0], None), r"y has shape .*n, d ≥ 1"),
    "no rows": (lambda x, y, k: (x[:0], y[:0], None), r"x has shape .*n, d ≥ 1"),
    "nan": (lambda x, y, k: (_put(x, k, float("nan")), y, None), r"x holds 1 NaN or infinite"),
    "inf": (lambda x, y, k: (x, _put(y, k, -float("inf")), None), r"y holds 1 NaN or infinite"),
    "mask list": (lambda x, y, k: (x, y, [True] * N), r"mask is a list: expected a torch\.Tensor"),
    "mask length": (lambda x, y, k: (x, y, torch.ones(N + 1)), r"mask has (dtype|shape)"),
    "mask values": (lambda x, y, k: (x, y, torch.rand(N)), r"mask has dtype .*expected booleans"),
    "mask empty": (
        lambda x, y, k: (x, y, torch.zeros(N, dtype=torch.bool)),
        r"mask of shape .*keeps no row of x and y: expected at least one",
    ),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)
@given(
    spoil=st.sampled_from(sorted(SPOILS)),
    widths=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    index=st.integers(0, 10_000),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
@settings(max_examples=60, deadline=None)
def test_every_measure_refuses_and_names_argument_given_and_expected(
    measure: Measure, spoil: str, widths: tuple[int, int], index: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(index)
    x, y = (torch.randn(N, d, generator=generator).to(dtype) for d in widths)
    measure.function(x, y)  # as it stands it is good
    change, message = SPOILS[spoil]
    x, y, mask = change(x, y, index)
    with pytest.raises(InputError, match=message):
        measure.function(x, y, mask=mask)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=lambda measure: measure.name)
def test_one_row_gives_the_documented_limit_or_a_reason(measure: Measure) -> None:
    """One row has no variance: CKA is 0 by its definition; fits are perfect and so refused."""
    x, y = torch.tensor([[3.0, 0.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    closed = {"procrustes": 4.0, "gram": 24.0, "cka": 0.0}  # |‖x‖ − ‖y‖| and |‖x‖² − ‖y‖²|
    if measure.name in closed:
        assert measure.function(x, y).item() == pytest.approx(closed[measure.name])
    else:
        with pytest.raises(InputError, match=r"1 rows at .*for any features: expected at least"):
            measure.function(x, y)


def test_geometry_kept_falls_strictly_with_the_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(400, 12, generator=generator, dtype=torch.float64)
    teacher *= torch.arange(1, 13) ** -0.5
    start = best_student(procrustes_distance, teacher, 6)
    away = torch.randn(400, 6, generator=generator, dtype=torch.float64) * start.std()
    students = [(1 - t) * start + t * away for t in torch.linspace(0, 1, 9)]
    distances = [
        procrustes_distance(teacher, s, center=True, scale="frobenius").item() for s in students
    ]
    scores = [float(geometry_kept(procrustes_distance, teacher, s)) for s in students]
    assert distances == sorted(distances)
    assert len(set(distances)) == 9
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 9
    assert scores[0] == pytest.approx(1, abs=1e-6)
    assert abs(scores[-1]) < 0.1
