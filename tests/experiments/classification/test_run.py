"""The classification study in miniature: paired, repeatable, and measured as it says."""

import errno
import os
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError
from support.own_cache import own_cache
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from geodistill.errors import InputError
from geodistill.experiments.classification import (
    run as classification_run,
)
from geodistill.experiments.classification import (
    setup as classification_setup,
)
from geodistill.experiments.classification import (
    teacher,
)
from geodistill.experiments.classification.run import (
    classification_config,
    open_classroom,
    run_classification,
    smoke,
)
from geodistill.experiments.methods import CLASSIFICATION_METHODS
from geodistill.experiments.run_store import collect, finished, write_run
from geodistill.geometry import procrustes_distance
from geodistill.geometry.normalized_score import calibrate

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("classification")]


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    lines = []
    folder = tmp_path_factory.mktemp("classification") / "cache"
    with own_cache(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher, "TEACHER_THREADS", 1)
        made = open_classroom(smoke("product"), lines.append)
        assert lines[0] == "training the product teacher"
        yield made


@pytest.fixture(scope="module")
def runs(room):
    return {method: run_classification(room, method, 0) for method in ("kd", "kd+procrustes")}


def test_a_trained_teacher_is_found_again(room):
    lines = []
    again = open_classroom(room.setting, lines.append)
    assert not any("training" in line for line in lines)
    one, other = (r.teacher.classifier.weight for r in (room, again))
    assert torch.equal(one, other)


def test_the_pool_is_limited_for_the_teacher_its_cache_and_students(room):
    assert len(room.train) == len(room.train_cache) == room.setting.teacher.max_train == 64
    assert len(room.test) == len(room.test_cache) == 64
    assert room.train["row"] == list(range(64))
    assert not set(room.train["source"]) & set(room.test["source"])
    greedy = replace(room, setting=replace(room.setting, n_train=65))
    with pytest.raises(InputError, match="got 65, expected 1 to 64"):
        run_classification(greedy, "kd", 0)


def test_the_same_run_twice_is_the_same(room, runs):
    run, student = runs["kd+procrustes"]
    again, twin = run_classification(room, "kd+procrustes", 0)
    assert again.metrics == run.metrics
    assert again.items.equals(run.items)
    assert again.run_id == run.run_id
    for one, other in zip(student.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)


def test_another_seed_or_method_is_another_run(room, runs):
    run, _ = runs["kd+procrustes"]
    for other in (run_classification(room, "kd+procrustes", 1)[0], runs["kd"][0]):
        assert (other.items["nll"] - run.items["nll"]).abs().max() > 1e-4
        assert other.run_id != run.run_id
        assert list(other.items["item"]) == list(run.items["item"])


def test_metrics_are_those_of_the_items(room, runs):
    for run, student in runs.values():
        items, metrics = run.items, run.metrics
        correct = items["prediction"] == items["label"]
        assert (items["score"] == correct).all()
        assert metrics["accuracy"] == pytest.approx(correct.mean())
        assert metrics["nll"] == pytest.approx(items["nll"].mean())
        assert len(set(items["item"])) == 64
        with torch.no_grad():  # one sentence at a time, without padding
            logits = [student(torch.tensor([ids])).logits[0] for ids in room.test["input_ids"]]
            said = [room.teacher(torch.tensor([ids])).logits[0] for ids in room.test["input_ids"]]
        scores = torch.stack(logits).log_softmax(-1)
        nll = -scores[range(64), room.test["labels"]]
        assert items["nll"].tolist() == pytest.approx(nll.tolist(), abs=1e-4)
        same = scores.argmax(-1) == torch.stack(said).argmax(-1)
        assert metrics["agreement"] == pytest.approx(float(same.double().mean()), abs=1 / 64)
        right = torch.stack(said).argmax(-1) == torch.tensor(room.test["labels"])
        assert metrics["teacher_accuracy"] == pytest.approx(
            float(right.double().mean()), abs=1 / 64
        )
        assert metrics["majority_accuracy"] == max(items["label"].value_counts()) / 64


def test_the_geometry_kept_is_measured_and_below_one(runs):
    for run, _ in runs.values():
        for name in ("procrustes", "gram", "cka"):
            assert -1 < run.metrics[f"geometry_kept/{name}"] < 1
        assert 0 < run.metrics["cka"] < 1
    kept = {method: run.metrics["geometry_kept/procrustes"] for method, (run, _) in runs.items()}
    assert kept["kd+procrustes"] > kept["kd"]


def test_a_run_records_the_weight_of_its_term_and_can_be_stored(runs, tmp_path):
    run, _ = runs["kd+procrustes"]
    assert run.metrics["weight/ProcrustesLoss[-1--1]"] > 0
    assert not any(name.startswith("weight") for name in runs["kd"][0].metrics)
    write_run(tmp_path, run)
    collect(tmp_path)
    assert set(finished(tmp_path)) == {run.run_id}


def start_of(room, monkeypatch, method, seed):
    """Sentences, first batches and untrained weights of a run that is not trained."""
    seen = {}

    def looks(trainer):
        seen["items"] = trainer.train_dataset["item"]
        seen["weights"] = [p.detach().clone() for p in trainer.model.parameters()]
        seen["seeds"] = (trainer.args.seed, trainer.args.data_seed)
        raise StopIteration

    monkeypatch.setattr(classification_run, "fit", looks)
    with pytest.raises(StopIteration):
        run_classification(room, method, seed)
    return seen


def test_methods_of_one_seed_share_sentences_start_and_order(room, monkeypatch):
    first = start_of(room, monkeypatch, "ce", 0)
    assert len(first["items"]) == 48
    for method in ("kd", "kd+projection", "kd+procrustes-shuffled"):  # the last two draw numbers
        other = start_of(room, monkeypatch, method, 0)
        assert other["items"] == first["items"]
        assert other["seeds"] == first["seeds"]
        assert all(map(torch.equal, other["weights"], first["weights"]))
    another = start_of(room, monkeypatch, "ce", 1)
    assert set(another["items"]) != set(first["items"])
    assert another["seeds"] != first["seeds"]
    assert not all(map(torch.equal, another["weights"], first["weights"]))


def test_every_method_runs_and_its_term_changes_the_student(room):
    setting = replace(room.setting, n_train=16, epochs=1.0, batch_size=4)  # the window is 2 of 4
    nll = {}
    for method in CLASSIFICATION_METHODS:
        # The angles of RKD are counted by the cube of the rows.
        rows = "first" if method == "kd+rkd" else "all"
        small = replace(room, setting=replace(setting, rows=rows))
        nll[method] = run_classification(small, method, 0)[0].items["nll"].tolist()
    assert len(nll) == len(CLASSIFICATION_METHODS) == 18
    assert len({tuple(values) for values in nll.values()}) == 18


def test_past_moments_change_a_run_and_count_for_its_name(room, runs):
    kept = replace(room, setting=replace(room.setting, memory=0.9))
    run, _ = run_classification(kept, "kd+procrustes", 0)
    without, _ = runs["kd+procrustes"]
    assert run.run_id != without.run_id
    assert (run.items["nll"] - without.items["nll"]).abs().max() > 1e-4
    assert run_classification(kept, "kd", 0)[0].items.equals(runs["kd"][0].items)


def test_a_start_seed_leaves_the_subsample_to_the_runs_seed(room, monkeypatch):
    one, two = (
        start_of(
            replace(room, setting=replace(room.setting, start_seed=start)), monkeypatch, "ce", 0
        )
        for start in (0, 1)
    )
    assert one["items"] == two["items"]
    assert one["seeds"] != two["seeds"]
    assert not all(map(torch.equal, one["weights"], two["weights"]))
    plain = start_of(room, monkeypatch, "ce", 0)
    assert all(map(torch.equal, plain["weights"], one["weights"]))


def test_several_layers_share_the_factor_and_match_the_students_last(room, monkeypatch):
    setting = replace(
        room.setting, layers=2, teacher_layers=(3, 6), rows="first", factor=10.0, epochs=1.0
    )
    both = open_classroom(setting)
    assert both.train_cache.manifest["layers"] == [3, 6]
    seen = {}

    class Spy(classification_run.FeatureDistillationTrainer):
        def __init__(self, *args, terms, **kwargs):
            seen["terms"] = [(t.teacher_layer, t.student_layer, t.weight) for t in terms]
            seen["components"] = [t.loss.components for t in terms]
            super().__init__(*args, terms=terms, **kwargs)

    monkeypatch.setattr(classification_run, "FeatureDistillationTrainer", Spy)
    run, _ = run_classification(both, "kd+pca", 0)
    assert seen["terms"] == [(3, -2, 5.0), (6, -1, 5.0)]
    assert not torch.equal(*seen["components"])  # each layer has its own axes
    assert sum(name.startswith("weight/") for name in run.metrics) == 2


def test_the_geometry_kept_is_measured_layer_by_layer_at_the_teachers_same_depth(room):
    assert classification_setup.same_depth(6, 3) == (2, 4, 6)
    assert classification_setup.same_depth(6, 1) == (6,)
    assert classification_setup.same_depth(2, 4) == (1, 1, 2, 2)
    deep = open_classroom(replace(room.setting, layers=2, epochs=1.0, n_train=16))
    assert deep.test_cache.manifest["layers"] == [3, 6]
    run, student = run_classification(deep, "kd", 0)
    probe = deep.test.select(range(deep.setting.probe))
    mine, theirs = [], []
    for ids in probe["input_ids"]:
        given = {"input_ids": torch.tensor([ids]), "output_hidden_states": True}
        with torch.no_grad():
            mine.append(student(**given).hidden_states[1][0])
            theirs.append(deep.teacher(**given).hidden_states[3][0])
    calibration = calibrate(procrustes_distance, torch.cat(theirs), deep.setting.width)
    by_hand = calibration.kept(torch.cat(mine))
    assert run.metrics["geometry_kept/procrustes/layer1"] == pytest.approx(by_hand, abs=2e-3)
    assert "geometry_kept/procrustes/layer2" not in run.metrics  # the last has its own name


def test_the_teachers_gradients_stand_where_its_classifier_looks(room):
    shots = room.train.select(range(4))
    gradients = classification_run.teacher_gradients(room, shots, -1)
    lengths = [len(ids) for ids in shots["input_ids"]]
    # Longest first; BERT's head reads the first token alone, so the last layer's others get none.
    ends = torch.tensor(sorted(lengths, reverse=True)).cumsum(0)
    firsts = torch.tensor([0, *ends[:-1].tolist()])
    norms = gradients.norm(dim=1)
    assert gradients.shape == (sum(lengths), 384)
    assert (norms[firsts] > 0).all()
    assert norms.count_nonzero() == len(firsts)


def test_a_teacher_of_another_number_of_labels_is_refused(room, tmp_path):
    room.teacher.save_pretrained(tmp_path)
    named = replace(room.setting.teacher, model=str(tmp_path))
    with pytest.raises(InputError, match=r"fine-tuned for 2 labels, the task 'product' has 3"):
        teacher.check_labels(named.model, 3, "product")
    teacher.check_labels(named.model, 2, "product")


def test_a_teacher_found_half_written_is_trained_again(room, tmp_path):
    lines = []
    with own_cache(tmp_path / "cache"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher, "TEACHER_THREADS", 1)
        again = open_classroom(room.setting, lines.append)
        folder = next((tmp_path / "cache" / "teachers").iterdir())
        (folder / "model.safetensors").unlink()
        open_classroom(room.setting, lines.append)
    assert lines.count("training the product teacher") == 2
    assert torch.equal(again.teacher.classifier.weight, room.teacher.classifier.weight)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def cut(name, keep):
    """A damage: the file keeps that share of its bytes."""

    def damage(folder):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(len(whole) * keep)])

    return damage


DAMAGES = {
    "weights cut": cut("model.safetensors", 0.5),
    "weights empty": cut("model.safetensors", 0),
    "configuration cut": cut("config.json", 0.5),
    "configuration empty": cut("config.json", 0),
}


def untrained(trainer):
    """In the place of `fit`: what is asked is whether it was called."""


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_teacher_is_told_in_a_line_and_trained_again_once(
    room, tmp_path, monkeypatch, damage
):
    report = []
    with own_cache(tmp_path / "cache"):
        monkeypatch.setattr(teacher, "fit", untrained)
        open_classroom(room.setting, report.append)
        folder = next((tmp_path / "cache" / "teachers").iterdir())
        DAMAGES[damage](folder)
        with pytest.warns(
            UserWarning, match="training the teacher .* again, it is damaged"
        ) as told:
            open_classroom(room.setting, report.append)
        assert not any("\n" in str(one.message) for one in told)
        open_classroom(room.setting, report.append)
    assert report.count("training the product teacher") == 2
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_teacher_that_cannot_be_read_is_not_removed(room, tmp_path, monkeypatch):
    room.teacher.save_pretrained(tmp_path)

    def refuses(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", refuses)
    with pytest.raises(PermissionError):
        teacher.stored_teacher(tmp_path)
    assert teacher.is_teacher(tmp_path)


FULL = [
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
]


@pytest.mark.parametrize("error", FULL, ids=["weights", "other files", "quota"])
def test_a_full_disk_keeps_no_part_of_a_teacher_and_says_what_to_do(
    room, tmp_path, monkeypatch, error
):
    def fills_the_disk(model, folder, **settings):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(teacher, "fit", untrained)
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fills_the_disk)
    told = (
        r"teacher .*/teachers/product-.*: .* while writing, nothing is kept; set GEODISTILL_CACHE"
    )
    with own_cache(tmp_path / "cache"), pytest.raises(InputError, match=told):
        open_classroom(room.setting)
    assert list((tmp_path / "cache" / "teachers").iterdir()) == []


def test_another_error_while_saving_is_not_a_full_disk(room, tmp_path, monkeypatch):
    def breaks(model, folder, **settings):
        folder.mkdir()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", breaks)
    with pytest.raises(OSError, match="Input/output error"):
        teacher._save(room.teacher, tmp_path / "teacher")
    assert list(tmp_path.iterdir()) == []


def test_the_configuration_holds_every_setting(room):
    config = classification_config(room.setting, "kd")
    assert config["method"] == "kd"
    assert config["teacher"]["max_train"] == 64
    assert set(vars(room.setting)) - set(config) == set(classification_run.LATER)  # all at default
    later = classification_config(replace(room.setting, rows="first", part="validation"), "kd")
    assert (later["rows"], later["part"]) == ("first", "validation")


def test_what_is_unknown_is_named(room):
    with pytest.raises(InputError, match=r"method is 'sft'; expected one of ce, ce\+cka, "):
        run_classification(room, "sft", 0)
    with pytest.raises(InputError, match="'films'"):
        open_classroom(smoke("films"))
    with pytest.raises(InputError, match="part is 'train'; expected test or validation"):
        open_classroom(replace(smoke("product"), part="train"))
