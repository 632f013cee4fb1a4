"""The carried probe: exact where geometry is equal, chance without it, always bounded."""

from dataclasses import replace

import pytest
import torch
from support.own_cache import own_cache

from geodistill.analysis.protocol_file import read_protocol
from geodistill.errors import InputError
from geodistill.experiments import probe_transfer, registry
from geodistill.experiments.classification import teacher as teacher_module
from geodistill.experiments.classification.run import open_classroom, smoke
from geodistill.experiments.probe_transfer import Rows, carry, run_readout, stored
from geodistill.experiments.run_store import data_dir

N, D = 2000, 12


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def world(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Teacher features, and labels that a linear probe of them nearly knows."""
    x = normal(n, D, seed=seed) * torch.linspace(2, 0.5, D)
    noise = normal(n, seed=seed + 1)
    return x, (x @ normal(D, seed=7) + noise > 0).long()


def both(student) -> tuple[Rows, Rows]:
    """Training and test rows of a student that is a function of the teacher's features."""
    (x, label), (x_test, label_test) = world(N, 1), world(N, 3)
    return Rows(x, student(x, 0), label), Rows(x_test, student(x_test, 1), label_test)


@pytest.mark.parametrize("width", [D, D + 5])
def test_a_turned_teacher_reads_as_the_teacher(width):
    turn = torch.linalg.qr(normal(width, D, seed=5))[0].mT
    metrics, said = carry(*both(lambda x, part: 3 * x @ turn + 5))
    assert metrics["error"] < 1e-6
    assert metrics["error_test"] < 1e-6
    assert metrics["distance"] < 1e-5
    assert (said["carried"] == said["teacher"]).all()
    assert metrics["carried"] == metrics["teacher"] > 0.8
    assert metrics["own"] == pytest.approx(metrics["teacher"], abs=0.01)


def test_a_student_of_noise_reads_at_chance():
    metrics, _ = carry(*both(lambda x, part: normal(len(x), D, seed=100 + part)))
    four_sigma = 4 * 0.5 / N**0.5
    for probe in ("carried", "own"):
        assert metrics[probe] == pytest.approx(0.5, abs=four_sigma)
    assert metrics["teacher"] > 0.8
    assert metrics["error"] > 0.8


@pytest.mark.parametrize("width", [1, 3, D, 20])
def test_the_bound_holds_on_the_rows_of_the_map(width):
    for noise in (0.1, 1.0, 10.0):
        mix = normal(D, width, seed=11)
        train, test = both(
            lambda x, part, m=mix, s=noise: x @ m + s * normal(len(x), m.shape[1], seed=50 + part)
        )
        metrics, _ = carry(train, test)
        assert 0 < metrics["error"] <= metrics["bound"]


def test_one_direction_attains_the_bound():
    """X = a uᵀ and Y = b vᵀ: the probe lies along u, the only direction that is wrong."""
    a, label = world(N, 1)
    b = normal(N, 1, seed=9)
    rows = Rows(a[:, :1] @ normal(1, D, seed=2), b @ normal(1, 4, seed=3), label)
    metrics, _ = carry(rows, rows)
    assert metrics["error"] == pytest.approx(metrics["bound"], rel=1e-6)
    assert metrics["error_test"] == pytest.approx(metrics["error"], rel=1e-9)


def test_accuracies_count_the_answers_given():
    train, test = both(lambda x, part: x[:, :4])
    metrics, said = carry(train, test)
    for probe in ("teacher", "carried", "own"):
        assert metrics[probe] == (said[probe].to_numpy() == test.labels.numpy()).mean()
    flipped, _ = carry(train, replace(test, labels=1 - test.labels))
    assert flipped["carried"] == pytest.approx(1 - metrics["carried"])


def test_features_without_variance_are_refused():
    train, test = both(lambda x, part: torch.ones(len(x), 3))
    with pytest.raises(InputError, match="the student's training rows are all equal"):
        carry(train, test)


def test_the_study_is_its_protocol_s():
    plan = read_protocol(data_dir() / "protocol" / "readout.yaml")
    assert plan["tasks"] == [probe_transfer.SETTING.task]
    assert plan["part"] == probe_transfer.SETTING.part
    assert plan["n_train"] == probe_transfer.SETTING.n_train
    labels = {job.label for job in registry.study("readout").jobs}
    cells = [(m, s) for m in plan["methods"] for s in plan["seeds"]]
    assert labels == {f"product-b {m} seed {s}" for m, s in cells}


def test_missing_rows_are_told_their_command(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    with pytest.raises(InputError, match=r"no stored rows at .*make them by `geodistill grid read"):
        stored()


@pytest.mark.smoke
@pytest.mark.xdist_group("readout")
def test_on_a_real_teacher_which_is_its_own_best_student(tmp_path_factory):
    """Both sides' tokens are the same texts', in order: they differ by half precision."""
    folder = tmp_path_factory.mktemp("readout") / "cache"
    with own_cache(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher_module, "TEACHER_THREADS", 1)
        tiny = replace(smoke("product"), n_train=16, epochs=1.0, max_test=32, probe=8)
        teacher = replace(tiny.teacher, max_train=32)
        room = open_classroom(replace(tiny, teacher=teacher))
        for part, cache in ((room.train, room.train_cache), (room.test, room.test_cache)):
            kinds = probe_transfer.paired_rows(room.teacher, part, cache, room.pad_id)
            lengths = [len(ids) for ids in part["input_ids"]]
            assert len(kinds["tokens"].labels) == sum(lengths)
            last = kinds["tokens"].student[-lengths[-1] :].mean(0)
            torch.testing.assert_close(kinds["pooled"].student[-1], last)
            assert kinds["pooled"].labels.tolist() == part["labels"]
            for rows in kinds.values():
                torch.testing.assert_close(rows.teacher, rows.student, rtol=1e-2, atol=1e-2)
        run = run_readout(room, "kd", 0)
        assert list(run.items["item"]) == room.test["item"]
        right = run.items["carried_probe"] == run.items["label"]
        assert run.metrics["carried/pooled"] == pytest.approx(right.mean())
        for kind in ("tokens", "pooled"):
            assert run.metrics[f"error/{kind}"] <= run.metrics[f"bound/{kind}"]
        with pytest.raises(InputError, match="product has 3 classes; a readout needs 2"):
            run_readout(replace(room, classes=3), "kd", 0)
