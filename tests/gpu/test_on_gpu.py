"""What a GPU computes is what a CPU computes in float64: losses, nuclear norm, trainings."""

from copy import deepcopy

import pytest
import torch
from support.feature_losses import NAMES, STUDENT, TEACHER, build_losses, normal
from support.tiny_models import answers, arguments, collate, sentences, tiny_bert, tiny_opt
from torch import Tensor, nn

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm, build_cache
from geodistill.distill.collate import batches_by_length
from geodistill.experiments.training import fit
from geodistill.geometry import SecondMoments, nuclear_norm, procrustes_distance
from geodistill.losses import KLDivergenceLoss, ProcrustesLoss, chunked_moments

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU"),
]
LARGE = ["procrustes", "gram", "cka", "spectrum", "isotropy"]


def value_and_gradient(loss: nn.Module, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    y = student.clone().requires_grad_()
    value = loss(y, teacher)
    value.backward()
    assert y.grad is not None
    return value.detach().double().cpu(), y.grad.double().cpu()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "shuffled"])
def test_every_loss_equals_the_cpus_in_float64(name: str) -> None:
    exact, gradient = value_and_gradient(build_losses()[name].double(), STUDENT, TEACHER)
    on_gpu = build_losses()[name].double().cuda()
    value, there = value_and_gradient(on_gpu, STUDENT.cuda(), TEACHER.cuda())
    assert float(value) == pytest.approx(float(exact), rel=1e-8)
    assert (there - gradient).norm() < 1e-6 * gradient.norm()
    assert gradient.norm() > 1e-4


def test_a_shuffled_teacher_stays_on_its_device() -> None:
    value, gradient = value_and_gradient(
        build_losses()["shuffled"].cuda(), STUDENT.cuda(), TEACHER.cuda()
    )
    assert 0 < float(value) <= 2
    assert gradient.norm() > 0


@pytest.mark.parametrize("offset", [0, 10])
@pytest.mark.parametrize(("d_student", "flat"), [(128, False), (384, True)])
@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("chunk", [1000, 8192])  # by sums of chunks, and as rows
def test_float32_is_as_close_to_float64_as_on_a_cpu(
    monkeypatch, chunk: int, name: str, d_student: int, flat: bool, offset: float
) -> None:
    """The bounds that `tests/losses/test_features.py` sets for a CPU."""
    monkeypatch.setattr(chunked_moments, "GPU_CHUNK", chunk)
    teacher, student = (
        (normal(4096, d, seed=d) * torch.arange(1, d + 1) ** (0.0 if flat else -1.0) + offset)
        .float()
        .cuda()
        for d in (768, d_student)
    )
    exact, gradient = value_and_gradient(build_losses()[name], student.double(), teacher.double())
    value, approximate = value_and_gradient(build_losses()[name], student, teacher)
    loose = name == "spectrum" or (name == "isotropy" and offset)
    assert float(value) == pytest.approx(float(exact), abs=1e-5)
    assert (approximate - gradient).norm() < (2e-3 if loose else 1e-4) * gradient.norm()


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_float32(name: str, dtype: torch.dtype) -> None:
    student, teacher = (f.to("cuda", dtype) for f in (STUDENT, TEACHER))
    exact, _ = value_and_gradient(build_losses()[name], student.double(), teacher.double())
    with torch.autocast("cuda", dtype=dtype):
        value, gradient = value_and_gradient(build_losses()[name], student, teacher)
    assert float(value) == pytest.approx(float(exact), abs=2e-5)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", LARGE)
def test_tensor_float_32_that_a_user_turned_on_is_told_by_its_size(name: str) -> None:
    """TF32 has ten bits: what its products cost a loss stays near 1e-3, and is no garbage."""
    teacher, student = (
        (normal(4096, d, seed=d) / torch.arange(1, d + 1)).float().cuda() for d in (768, 128)
    )
    exact, gradient = value_and_gradient(build_losses()[name], student.double(), teacher.double())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        value, approximate = value_and_gradient(build_losses()[name], student, teacher)
    finally:
        torch.set_float32_matmul_precision(before)
    error = (approximate - gradient).norm() / gradient.norm()
    print(f"TF32 {name}: value {float(value - exact):+.1e}, gradient {float(error):.1e}")
    assert float(value) == pytest.approx(float(exact), abs=2e-3)
    assert error < 0.05


@pytest.mark.parametrize("solver", ["auto", "svd", "eigh", "polar_express"])
@pytest.mark.parametrize("shape", [(768, 128), (128, 768), (2048, 768), (3, 96, 64)])
def test_the_nuclear_norm_of_a_falling_spectrum(solver: str, shape: tuple[int, ...]) -> None:
    u, v = (torch.linalg.qr(normal(*shape[:-2], size, min(shape[-2:])))[0] for size in shape[-2:])
    s = 1 / torch.arange(1, min(shape[-2:]) + 1, dtype=torch.float64)
    polar = u @ v.mT
    c = ((u * s) @ v.mT).float().cuda().requires_grad_()
    value = nuclear_norm(c, solver)
    value.sum().backward()
    assert c.grad is not None
    full = s.sum().expand(shape[:-2]).float()
    assert torch.allclose(value.detach().cpu(), full, rtol=1e-5)
    assert (c.grad.double().cpu() - polar).norm() < 1e-4 * polar.norm()


@pytest.mark.parametrize("solver", ["svd", "eigh", "polar_express"])
def test_zero_and_a_lower_rank_have_a_subgradient_that_leaves(solver: str) -> None:
    """The polar factor, completed to orthonormal columns."""
    low = normal(64, 3) @ normal(3, 32, seed=1)
    u, _, vh = torch.linalg.svd(low, full_matrices=False)
    for matrix in (torch.zeros(64, 32, dtype=torch.float64), low):
        c = matrix.cuda().requires_grad_()
        nuclear_norm(c, solver).backward()
        assert c.grad is not None
        gradient = c.grad.cpu()
        assert torch.allclose(gradient.T @ gradient, torch.eye(32).double(), atol=1e-5)
    assert torch.allclose(gradient @ vh[:3].T, u[:, :3], atol=1e-5)


def test_moments_of_a_gpus_features_give_the_distance_of_the_whole() -> None:
    teacher, student = normal(600, 48) + 3, normal(600, 16, seed=1) - 2
    moments = SecondMoments(48, 16, device="cuda")
    for rows in range(0, 600, 100):
        part = slice(rows, rows + 100)
        moments.update(teacher[part].float().cuda(), student[part].float().cuda())
    full = procrustes_distance(teacher, student)
    assert float(procrustes_distance(moments)) == pytest.approx(float(full), rel=1e-5)


@pytest.mark.parametrize("kind", ["bert", "opt"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_training_is_the_cpus(tmp_path, kind: str, cached: bool) -> None:
    """The same losses step by step, with a live teacher and with its cached outputs."""
    lengths = [8, 7, 8, 6, 9, 8, 7, 6]
    if kind == "bert":
        data, models = sentences(lengths, seed=1), (tiny_bert(1, 48), tiny_bert(2, 16))
        rows = lengths
    else:
        rows = [3, 1, 5, 2, 4, 3, 2, 1]
        data, models = answers(lengths, rows, seed=1), (tiny_opt(1, 48), tiny_opt(2, 16))
    teacher, student = models
    logs = {}
    for device in ("cpu", "cuda"):
        source = {"teacher_model": deepcopy(teacher).to(device)}
        if cached:
            cache = build_cache(
                source["teacher_model"],
                batches_by_length(data, 4, 0),
                rows,
                tmp_path / device,
                layers=(-1,),
                top_k=99 if kind == "opt" else 0,
                progress=lambda line: None,
            )
            source = {"teacher_cache": cache}
        trainer = FeatureDistillationTrainer(
            model=deepcopy(student),
            args=arguments(
                tmp_path, use_cpu=device == "cpu", max_steps=6, per_device_train_batch_size=4
            ),
            train_dataset=data,
            data_collator=collate,
            terms=[FeatureTerm(-1, -1, ProcrustesLoss(), weight_warmup_batches=2)],
            logit_loss=KLDivergenceLoss(),
            **source,
        )
        fit(trainer)
        assert next(trainer.model.parameters()).device.type == device
        logs[device] = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(logs["cuda"]) == 6
    assert logs["cuda"] == pytest.approx(logs["cpu"], rel=1e-3)
