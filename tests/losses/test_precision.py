"""The stated bound: float32 losses against float64 by the SVD of the rows, on steep spectra."""

import pytest
import torch
from torch import Tensor, nn

from geodistill.geometry import formulas, nuclear_norm
from geodistill.losses import (
    AlignmentLoss,
    CKALoss,
    FeatureGramLoss,
    IsotropyLoss,
    ProcrustesLoss,
    SpectrumLoss,
)
from geodistill.tasks import assets

LOSSES: dict[str, nn.Module] = {
    "procrustes": ProcrustesLoss(),
    "spectrum": SpectrumLoss(),
    "alignment": AlignmentLoss(),
    "gram": FeatureGramLoss(),
    "cka": CKALoss(),
    "isotropy": IsotropyLoss(),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turned(d: int, seed: int = 7) -> Tensor:
    return torch.linalg.qr(normal(d, d, seed=seed))[0]


def one_direction(times: float) -> tuple[Tensor, Tensor]:
    spectrum = torch.ones(64)
    spectrum[0] = times
    teacher = normal(300, 64) * spectrum @ turned(64)
    return teacher, teacher @ turned(64, 8) + 0.3 * normal(300, 64, seed=1)


def cubic() -> tuple[Tensor, Tensor]:
    spectrum = 1 / torch.arange(1, 65) ** 3
    teacher = normal(300, 64) * spectrum @ turned(64)
    return teacher, (teacher + 0.1 * (normal(300, 64, seed=1) * spectrum)) @ turned(64, 8)


def low_rank() -> tuple[Tensor, Tensor]:
    teacher = normal(300, 10) @ normal(10, 64, seed=1)
    return teacher, teacher[:, :48] + 0.1 * normal(300, 48, seed=2)


def offset() -> tuple[Tensor, Tensor]:
    teacher = normal(300, 64) + 1e4
    return teacher, teacher[:, :32] + normal(300, 32, seed=1)


def columns_of_all_sizes(n: int) -> tuple[Tensor, Tensor]:
    return normal(n, 48), normal(n, 32, seed=1) * torch.logspace(0, -8, 32)


SYNTHETIC = {
    "30": lambda: one_direction(30),
    "300": lambda: one_direction(300),
    "3000": lambda: one_direction(3000),
    "cubic": cubic,
    "low rank": low_rank,
    "offset": offset,
    "a student of lower rank": lambda: (normal(300, 64), normal(300, 10) @ normal(10, 48, seed=1)),
    "columns of all sizes": lambda: columns_of_all_sizes(300),
    "columns of all sizes, few rows": lambda: columns_of_all_sizes(40),
    "fewer rows than columns": lambda: (normal(24, 64), normal(24, 48, seed=1)),
}


def exact(teacher: Tensor, student: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Values and gradients in float64, by singular vectors of the rows; no code of the library."""
    x, y = (rows.double() - rows.double().mean(0) for rows in (teacher, student))
    size = y.norm()
    x, y = x / x.norm(), y / size
    (u, s, v), (ux, sx, vx) = (torch.linalg.svd(rows, full_matrices=False) for rows in (y, x))
    core = (sx[:, None] * (ux.T @ u)) * s
    a, overlaps, b = torch.linalg.svd(core, full_matrices=False)
    polar = vx.T @ (a * (overlaps > 1e-14 * overlaps[0])) @ b @ v
    k = min(len(s), len(sx))
    weights = torch.zeros_like(s)
    weights[:k] = sx[:k]
    there = s > 1e-14 * s[0]
    cross, ky, kx = x.T @ y, (y.T @ y).norm(), (x.T @ x).norm()
    overlap = cross.square().sum()
    at_y = {
        "procrustes": (2 - 2 * overlaps.sum(), -2 * x @ polar),
        "spectrum": (2 - 2 * (s * weights).sum(), -2 * (u * weights * there) @ v),
        "gram": (kx**2 + ky**2 - 2 * overlap, 4 * (y @ (y.T @ y) - x @ cross)),
        "cka": (
            1 - overlap / kx / ky,
            -2 * x @ cross / kx / ky + 2 * overlap / kx / ky**3 * y @ (y.T @ y),
        ),
        "isotropy": (
            2 - 2 * s.sum() / len(s) ** 0.5,
            -2 * (u * there) @ v / len(s) ** 0.5,
        ),
    }
    at_y["alignment"] = tuple(
        p - q for p, q in zip(at_y["procrustes"], at_y["spectrum"], strict=True)
    )
    results = {}
    for name, (value, gradient) in at_y.items():
        gradient = (gradient - (gradient * y).sum() * y) / size
        results[name] = (value, gradient - gradient.mean(0))
    return results


def check(teacher: Tensor, student: Tensor) -> None:
    expected = exact(teacher, student)
    assert expected.keys() == LOSSES.keys()
    for name, loss in LOSSES.items():
        y = student.clone().requires_grad_()
        value = loss(y, teacher)
        value.backward()
        right, gradient = expected[name]
        assert value.dtype == torch.float32
        assert float(value.detach()) == pytest.approx(float(right), abs=1e-5), name
        assert gradient.norm() > 0
        assert (y.grad.double() - gradient).norm() < 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("case", SYNTHETIC)
@pytest.mark.parametrize("solver", ["svd", "eigh", "polar_express"])
def test_steep_spectra(case: str, solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "nuclear_norm", lambda c: nuclear_norm(c, solver))
    check(*SYNTHETIC[case]())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_of_a_steep_spectrum(dtype: torch.dtype) -> None:
    teacher, student = (rows.to(dtype).float() for rows in one_direction(30))
    expected = exact(teacher, student)
    for name, loss in LOSSES.items():
        y = student.to(dtype).requires_grad_()
        value = loss(y, teacher.to(dtype))
        (1000 * value).backward()  # as loss scaling does, or float16's gradient underflows
        assert float(value.detach()) == pytest.approx(float(expected[name][0]), abs=1e-5), name
        gradient = 1000 * expected[name][1]  # returned in the student's precision
        error = (y.grad.double() - gradient).norm()
        assert error < torch.finfo(dtype).eps * gradient.norm(), name


@pytest.mark.parametrize("layer", [16, 20, 24, 28, 30])
def test_inner_layers_of_smollm2(layer: int, smollm2_layers: list[Tensor]) -> None:
    """One direction has 99 % of the variance of the middle ones."""
    check(smollm2_layers[layer], smollm2_layers[layer - 1])


@pytest.mark.parametrize("layer", [1, 3, 6])
def test_layers_of_minilm(layer: int, minilm_layers: list[Tensor]) -> None:
    check(minilm_layers[layer], minilm_layers[layer - 1])


@pytest.mark.parametrize("name", ["procrustes", "isotropy"])
@pytest.mark.parametrize("lost", ["a zero column", "a copy with a zero column", "all but one"])
def test_a_lost_direction_comes_alive(name: str, lost: str) -> None:
    teacher = normal(200, 12) * torch.arange(1, 13) ** -0.5
    student = teacher[:, :6].clone() if lost.startswith("a copy") else normal(200, 6, seed=1)
    if lost == "all but one":
        student = student[:, :1] * torch.tensor([1.0, 2, -1, 0.5, 3, 1])
    else:
        student[:, 0] = 0
    y = student.requires_grad_()
    values, smallest = [], []
    for _ in range(11):
        value = LOSSES[name](y, teacher)
        (gradient,) = torch.autograd.grad(value, y)
        values.append(float(value.detach()))
        smallest.append(float(torch.linalg.svdvals(y.detach() - y.detach().mean(0))[-1]))
        y = (y.detach() - 20 * gradient).requires_grad_()
    assert smallest[0] < 1e-4
    assert smallest[10] > 1
    assert values[10] < 0.95 * values[0]


TEXT = " ".join(f"The {i}th line tells of {i * i % 97} teachers and students." for i in range(75))


@pytest.fixture(scope="module")
def smollm2_layers() -> list[Tensor]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = assets.path("smollm2")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=assets.SMOLLM2_GGUF)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=assets.SMOLLM2_GGUF)
    words = tokenizer(TEXT, return_tensors="pt", truncation=True, max_length=900)["input_ids"]
    assert words.shape[1] > 600
    with torch.no_grad():
        return [rows[0].float() for rows in model(words, output_hidden_states=True).hidden_states]


@pytest.fixture(scope="module")
def minilm_layers() -> list[Tensor]:
    from transformers import AutoModel, AutoTokenizer

    folder = assets.path("minilm")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    pieces = [TEXT[i : i + 300] for i in range(0, len(TEXT), 300)]
    words = tokenizer(pieces, return_tensors="pt", padding=True, truncation=True, max_length=96)
    with torch.no_grad():
        layers = model.eval()(**words, output_hidden_states=True).hidden_states
    return [rows[words["attention_mask"].bool()].float() for rows in layers]
