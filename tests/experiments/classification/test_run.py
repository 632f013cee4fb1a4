"""The classification study in miniature: paired, reproducible, and measured as documented."""

import errno
import os
from dataclasses import fields, replace

import pytest
import torch
from safetensors import SafetensorError
from support.own_cache import own_cache
from support.tiny_classification import tiny_settings
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from geodistill.errors import InputError
from geodistill.experiments.classification import run as run_module
from geodistill.experiments.classification.cached_outputs import cache_outputs
from geodistill.experiments.classification.run import run_classification
from geodistill.experiments.classification.settings import ClassificationSettings, smoke_settings
from geodistill.experiments.classification.setup import prepare_classification
from geodistill.experiments.classification.teacher import (
    check_n_labels,
    is_complete,
    load_teacher,
    train_teacher,
)
from geodistill.experiments.methods import BASELINES, CLASSIFICATION_METHODS
from geodistill.experiments.run_store import finished_runs, merge_runs, write_run
from geodistill.experiments.settings import run_config, setup_settings
from geodistill.experiments.training import torch_threads
from geodistill.geometry import procrustes_distance, score_range
from geodistill.tasks import assets

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("classification")]
TRAINING = "training the product teacher"


@pytest.fixture(scope="module")
def setup(cache):
    return prepare_classification(smoke_settings("product"))


@pytest.fixture(scope="module")
def runs(setup):
    return {method: run_classification(setup, method, 0) for method in ("kd", "kd+procrustes")}


def changed(setup, **settings):
    return replace(setup, settings=replace(setup.settings, **settings))


def test_a_stored_teacher_is_loaded(setup):
    lines = []
    again = prepare_classification(setup.settings, lines.append)
    assert not any("training" in line for line in lines)
    assert torch.equal(again.teacher.classifier.weight, setup.teacher.classifier.weight)


def test_teacher_outputs_are_computed_by_one_thread_whatever_the_process_has(setup, tmp_path):
    threads = []
    hook = setup.teacher.register_forward_hook(lambda *_: threads.append(torch.get_num_threads()))
    with torch_threads(2):
        cache_outputs(setup.teacher, setup.train, ("t",), setup.pad_id, (-1,), print, tmp_path)
        assert torch.get_num_threads() == 2
    hook.remove()
    assert set(threads) == {1}


def test_the_pool_is_limited_for_the_teacher_its_cache_and_students(setup):
    assert len(setup.train) == len(setup.train_cache) == setup.settings.teacher.max_train == 64
    assert len(setup.test) == len(setup.test_cache) == 64
    assert setup.train["row"] == list(range(64))
    assert not set(setup.train["source"]) & set(setup.test["source"])
    with pytest.raises(InputError, match="got 65, expected 1 to 64"):
        run_classification(changed(setup, n_train=65), "kd", 0)


def test_the_same_run_twice_is_the_same(setup, runs):
    run, student = runs["kd+procrustes"]
    again, twin = run_classification(setup, "kd+procrustes", 0)
    assert again.metrics == run.metrics
    assert again.items.equals(run.items)
    assert again.run_id == run.run_id
    for weight, other in zip(student.parameters(), twin.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_another_seed_or_method_is_another_run(setup, runs):
    run, _ = runs["kd+procrustes"]
    for other in (run_classification(setup, "kd+procrustes", 1)[0], runs["kd"][0]):
        assert (other.items["nll"] - run.items["nll"]).abs().max() > 1e-4
        assert other.run_id != run.run_id
        assert list(other.items["item"]) == list(run.items["item"])


def test_metrics_are_those_of_the_items(setup, runs):
    labels = torch.tensor(setup.test["labels"])
    for run, student in runs.values():
        items, metrics = run.items, run.metrics
        correct = items["prediction"] == items["label"]
        assert (items["score"] == correct).all()
        assert metrics["accuracy"] == pytest.approx(correct.mean())
        assert metrics["nll"] == pytest.approx(items["nll"].mean())
        assert len(set(items["item"])) == 64
        with torch.no_grad():  # one sentence at a time, without padding
            logits, teacher = (
                torch.stack([model(torch.tensor([x])).logits[0] for x in setup.test["input_ids"]])
                for model in (student, setup.teacher)
            )
        scores, teacher = logits.log_softmax(-1), teacher.argmax(-1)
        nll = -scores[range(64), labels]
        assert items["nll"].tolist() == pytest.approx(nll.tolist(), abs=1e-4)
        agreement = float((scores.argmax(-1) == teacher).double().mean())
        assert metrics["agreement"] == pytest.approx(agreement, abs=1 / 64)
        accuracy = float((teacher == labels).double().mean())
        assert metrics["teacher_accuracy"] == pytest.approx(accuracy, abs=1 / 64)
        assert metrics["majority_accuracy"] == max(items["label"].value_counts()) / 64


def test_the_geometry_kept_is_measured_and_below_one(runs):
    for run, _ in runs.values():
        for name in ("procrustes", "gram", "cka"):
            assert -1 < run.metrics[f"geometry_kept/{name}"] < 1
        assert 0 < run.metrics["cka"] < 1
    score = {method: run.metrics["geometry_kept/procrustes"] for method, (run, _) in runs.items()}
    assert score["kd+procrustes"] > score["kd"]


def test_a_run_records_the_weight_of_its_term_and_can_be_stored(runs, tmp_path):
    run, _ = runs["kd+procrustes"]
    assert run.metrics["weight/ProcrustesLoss[-1--1]"] > 0
    assert not any(name.startswith("weight") for name in runs["kd"][0].metrics)
    write_run(tmp_path, run)
    merge_runs(tmp_path)
    assert set(finished_runs(tmp_path)) == {run.run_id}


@pytest.fixture
def trainer_of(monkeypatch):
    """A function that gives the trainer of a run as it is before its first step."""

    def make(setup, method, seed=0):
        class Stop(Exception):
            pass

        def stop(trainer):
            raise Stop(trainer)

        monkeypatch.setattr(run_module, "fit", stop)
        with pytest.raises(Stop) as stopped:
            run_classification(setup, method, seed)
        return stopped.value.args[0]

    return make


def equal_weights(trainer, other):
    return all(map(torch.equal, trainer.model.parameters(), other.model.parameters()))


def rows(trainer):
    return list(trainer.train_dataset["row"])


def seeds(trainer):
    return trainer.args.seed, trainer.args.data_seed


def test_methods_of_one_seed_share_subsample_initialisation_and_order(setup, trainer_of):
    first = trainer_of(setup, "ce", 0)
    assert len(rows(first)) == 48
    for method in ("kd", "kd+projection", "kd+procrustes-shuffled"):  # the last two draw numbers
        other = trainer_of(setup, method, 0)
        assert (rows(other), seeds(other)) == (rows(first), seeds(first))
        assert equal_weights(other, first)
    another = trainer_of(setup, "ce", 1)
    assert set(rows(another)) != set(rows(first))
    assert not {*seeds(another)} & {*seeds(first)}
    assert not equal_weights(another, first)


def test_the_loss_has_the_shares_the_temperature_and_one_term_on_the_last_layers(setup, trainer_of):
    settings = changed(setup, kd_weight=0.75, temperature=3.0, weight_multiplier=8.0)
    trainer = trainer_of(settings, "kd+gram")
    assert (trainer.task_weight, trainer.logit_weight) == (0.25, 0.75)
    assert trainer.logit_loss.temperature == 3.0
    (term,) = [module.term for module in trainer.term_modules]
    assert (term.teacher_layer, term.student_layer) == (-1, -1)
    assert (term.weight, term.weight_warmup_batches) == (8.0, 2)
    assert type(term.loss).__name__ == "FeatureGramLoss"
    kd, ce = trainer_of(settings, "kd"), trainer_of(settings, "ce")
    assert not kd.term_modules
    assert kd.logit_loss.temperature == 3.0
    assert (ce.task_weight, ce.logit_loss, ce.teacher_cache) == (1.0, None, None)


@pytest.mark.parametrize(("n_train", "steps"), [(48, 3), (20, 5), (0, 2)])
def test_a_run_has_as_many_optimizer_steps_as_its_settings_say(setup, n_train, steps):
    """Less than a pass over the sentences, and several."""
    count = []
    hook = register_optimizer_step_post_hook(lambda *_: count.append(1))
    try:
        short = changed(setup, n_train=n_train, steps=steps, batch_size=8)
        run_classification(short, "kd", 0)
    finally:
        hook.remove()
    assert len(count) == steps


def test_every_method_runs_and_its_term_changes_the_student(setup):
    small = changed(setup, n_train=16, batch_size=4)  # the warm-up is 2 of 4 batches
    nll = {}
    for method in CLASSIFICATION_METHODS:
        run, student = run_classification(small, method, 0)
        assert (student is None) == (method in BASELINES)
        assert len(run.items) == 64
        assert set(run.items) == {"item", "source", "label", "prediction", "score", "nll"}
        assert ("geometry_kept/gram" in run.metrics) == (method not in BASELINES)
        nll[method] = tuple(run.items["nll"])
    assert len(set(nll.values())) == len(CLASSIFICATION_METHODS) == 16


def test_procrustes_pretrained_matches_the_base_model_and_distils_the_teacher(setup, trainer_of):
    trainer = trainer_of(setup, "kd+procrustes-pretrained")
    base = AutoModel.from_pretrained(assets.path("minilm")).eval()
    teacher = setup.teacher
    indices = [0, 17, 63]
    for row in indices:  # one text at a time, without padding
        ids = torch.tensor([setup.train["input_ids"][row]])
        mask = torch.ones_like(ids, dtype=torch.bool)
        outputs = trainer.teacher_cache.lookup(torch.tensor([row]), mask, [6])
        with torch.no_grad():
            features = base(ids).last_hidden_state
            fine_tuned = teacher(ids, output_hidden_states=True)
        assert torch.allclose(outputs.features[6], features, atol=2e-3)
        assert (features - fine_tuned.hidden_states[-1]).abs().max() > 0.02
        assert torch.allclose(outputs.logits, fine_tuned.logits, atol=1e-4)
    assert trainer_of(setup, "kd+procrustes").teacher_cache is setup.train_cache


def test_the_geometry_kept_is_measured_layer_by_layer_at_the_teachers_same_depth(cache):
    settings = replace(smoke_settings("product"), layers=2, steps=2, n_train=16)
    deep = prepare_classification(settings)
    assert deep.test_cache.manifest["layers"] == [3, 6]
    run, student = run_classification(deep, "kd", 0)
    features, teacher_features = [], []
    for ids in deep.test.select(range(deep.settings.n_probe_items))["input_ids"]:
        inputs = {"input_ids": torch.tensor([ids]), "output_hidden_states": True}
        with torch.no_grad():
            features.append(student(**inputs).hidden_states[1][0])
            teacher_features.append(deep.teacher(**inputs).hidden_states[3][0])
    scores = score_range(procrustes_distance, torch.cat(teacher_features), deep.width)
    by_hand = scores.normalize(torch.cat(features))
    assert run.metrics["geometry_kept/procrustes/layer1"] == pytest.approx(by_hand, abs=2e-3)
    assert "geometry_kept/procrustes/layer2" not in run.metrics  # it is geometry_kept/procrustes


# ---- one setup for runs of several settings ----

OTHER_VALUES = {
    "task": "movie", "n_train": 7, "steps": 7, "batch_size": 7, "learning_rate": 7.0,
    "student": "uniform", "layers": 7, "temperature": 7.0, "kd_weight": 0.7,
    "weight_multiplier": 7.0, "weight_warmup_batches": 7, "max_length": 7, "max_test": 7,
    "n_probe_items": 7, "split": "validation", "teacher_layer": 1, "student_layer": 1,
}  # fmt: skip


def test_runs_share_a_setup_exactly_if_texts_teacher_and_probe_are_the_same():
    settings = smoke_settings("product")
    others = {**OTHER_VALUES, "teacher": replace(settings.teacher, seed=7)}
    assert set(others) == {field.name for field in fields(ClassificationSettings)}
    for name, value in others.items():
        other = replace(settings, **{name: value})
        differs = setup_settings(other) != setup_settings(settings)
        assert differs == (name in settings.SETUP_FIELDS), name


def test_a_run_in_a_shared_setup_is_the_same_run(setup, runs):
    """The registry makes a setup of `setup_settings`, for all runs of a task."""
    shared = prepare_classification(setup_settings(setup.settings))
    other = replace(shared, settings=setup.settings)
    assert other.score_ranges is shared.score_ranges
    run, _ = run_classification(other, "kd+procrustes", 0)
    expected, _ = runs["kd+procrustes"]
    assert run.run_id == expected.run_id
    assert run.metrics == expected.metrics
    assert run.items.equals(expected.items)


def test_a_teacher_of_another_number_of_labels_is_refused(setup, tmp_path):
    setup.teacher.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"fine-tuned for 2 labels, the task 'product' has 3"):
        check_n_labels(str(tmp_path), 3, "product")
    check_n_labels(str(tmp_path), 2, "product")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_settings(tmp_path_factory.mktemp("tiny"))


def test_a_half_written_teacher_is_trained_again(tiny, tmp_path):
    lines = []
    with own_cache(tmp_path / "cache"):
        first = prepare_classification(tiny, lines.append)
        folder = next((tmp_path / "cache" / "teachers").iterdir())
        (folder / "model.safetensors").unlink()
        second = prepare_classification(tiny, lines.append)
    assert lines[0] == TRAINING
    assert lines.count(TRAINING) == 2
    assert torch.equal(first.teacher.classifier.weight, second.teacher.classifier.weight)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def cut(name, share):
    """A damage: the file keeps that share of its bytes."""

    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


DAMAGES = {
    "weights cut": cut("model.safetensors", 0.5),
    "weights empty": cut("model.safetensors", 0),
    "configuration cut": cut("config.json", 0.5),
    "configuration empty": cut("config.json", 0),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_teacher_is_reported_in_a_line_and_trained_again_once(tiny, tmp_path, damage):
    lines = []
    with own_cache(tmp_path / "cache"):
        prepare_classification(tiny, lines.append)
        folder = next((tmp_path / "cache" / "teachers").iterdir())
        DAMAGES[damage](folder)
        message = "training the teacher .* again, it is damaged"
        with pytest.warns(UserWarning, match=message) as caught:
            prepare_classification(tiny, lines.append)
        assert not any("\n" in str(warning.message) for warning in caught)
        prepare_classification(tiny, lines.append)
    assert lines.count(TRAINING) == 2
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_teacher_that_cannot_be_read_is_not_removed(setup, tmp_path, monkeypatch):
    setup.teacher.save_pretrained(tmp_path)

    def refuses(folder, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", refuses)
    with pytest.raises(PermissionError):
        load_teacher(tmp_path)
    assert is_complete(tmp_path)


def save_with(error, monkeypatch, before=lambda folder: None):
    """Saving a model writes half of its weights and fails."""

    def save(model, folder, **settings):
        (folder / "model.safetensors").write_bytes(b"half")
        before(folder)
        raise error

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", save)


FULL_DISK = {
    "weights": SafetensorError("Error: I/O error: No space left on device (os error 28)"),
    "other files": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "quota": OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
}


@pytest.mark.parametrize("error", FULL_DISK)
def test_a_full_disk_keeps_no_part_of_a_teacher(tiny, tmp_path, monkeypatch, error):
    save_with(FULL_DISK[error], monkeypatch)
    message = (
        r"teacher .*/teachers/product-.*: .* while writing, nothing is kept; set GEODISTILL_CACHE"
    )
    with own_cache(tmp_path / "cache"), pytest.raises(InputError, match=message):
        prepare_classification(tiny)
    assert list((tmp_path / "cache" / "teachers").iterdir()) == []


def train_tiny(setup, tiny, folder):
    train_teacher(tiny.teacher.model, 2, setup.train, tiny.teacher, setup.pad_id, folder)


def test_another_error_while_saving_is_not_a_full_disk(setup, tiny, tmp_path, monkeypatch):
    save_with(OSError(errno.EIO, os.strerror(errno.EIO)), monkeypatch)
    with pytest.raises(OSError, match="Input/output error"):
        train_tiny(setup, tiny, tmp_path / "teacher")
    assert list(tmp_path.iterdir()) == []


def test_the_teacher_that_another_process_has_saved_meanwhile_is_as_good(
    setup, tiny, tmp_path, monkeypatch
):
    folder = tmp_path / "teacher"

    def save_of_the_other(partial_folder):
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            (folder / name).write_text("theirs")

    save_with(
        OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY)), monkeypatch, save_of_the_other
    )
    train_tiny(setup, tiny, folder)
    assert (folder / "config.json").read_text() == "theirs"


def test_the_configuration_holds_every_setting():
    settings = smoke_settings("product")
    config = run_config(settings, "kd")
    names = {f.name for f in fields(settings) if not f.metadata.get("added_later")}
    names -= {"weight_multiplier"}
    assert set(config) == {*names, "factor", "method"}
    assert (config["method"], config["teacher"]["max_train"]) == ("kd", 64)
    for name, value in OTHER_VALUES.items():
        stored_name = "factor" if name == "weight_multiplier" else name
        other = run_config(replace(settings, **{name: value}), "kd")
        assert other == {**config, stored_name: value}
        assert other != config


def test_unknown_names_are_refused(setup):
    with pytest.raises(InputError, match=r"method is 'sft'; expected one of majority, tfidf, "):
        run_classification(setup, "sft", 0)
    with pytest.raises(InputError, match="'films'"):
        prepare_classification(smoke_settings("films"))
    with pytest.raises(InputError, match="split is 'train'; expected one of test, validation"):
        prepare_classification(replace(smoke_settings("product"), split="train"))
