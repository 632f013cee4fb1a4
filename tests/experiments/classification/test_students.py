"""Students of every kind in the classification study, refused early where they do not fit."""

from dataclasses import replace

import pytest
import torch
from support.own_cache import own_cache
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertModel,
)

from geodistill.errors import InputError
from geodistill.experiments.classification import setup as classification_setup
from geodistill.experiments.classification import teacher
from geodistill.experiments.classification.evaluate import score
from geodistill.experiments.classification.run import (
    classification_config,
    open_classroom,
    run_classification,
    smoke,
)
from geodistill.geometry.normalized_score import calibrate
from geodistill.tasks import assets, stratified_subsample, load_classification

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("classification")]
SMOKE = replace(smoke("product"), epochs=1.0, balance=1)
MINILM = AutoTokenizer.from_pretrained(assets.path("minilm"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with own_cache(tmp_path_factory.mktemp("pupils") / "cache"), pytest.MonkeyPatch.context() as p:
        p.setattr(teacher, "TEACHER_THREADS", 1)
        yield


def small_config(vocabulary=30522, **settings):
    return BertConfig(
        vocab_size=vocabulary, hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=96, **settings,
    )  # fmt: skip


def test_a_teacher_cut_to_all_its_layers_says_what_it_says(cache):
    room = open_classroom(replace(SMOKE, student="truncate", layers=6))
    metrics, _ = score(room, room.student(0))
    assert (room.width, room.layers) == (384, 6)
    assert metrics["agreement"] == 1
    kept = {name: value for name, value in metrics.items() if name.startswith("geometry_kept")}
    assert set(kept) == {f"geometry_kept/{name}" for name in ("procrustes", "gram", "cka")} | {
        f"geometry_kept/procrustes/layer{layer}" for layer in range(1, 6)
    }
    assert min(kept.values()) > 0.99  # cached features are halves


def test_a_truncated_student_learns_beside_its_teacher(cache):
    room = open_classroom(replace(SMOKE, student="truncate", layers=2))
    before = room.teacher.bert.encoder.layer[5].output.dense.weight.clone()
    start = room.student(0)
    run, student = run_classification(room, "kd+projection", 0)
    for one in (start, student):
        assert len(one.bert.encoder.layer) == 2
    own = student.bert.encoder.layer[1].output.dense.weight
    assert torch.equal(start.bert.encoder.layer[1].output.dense.weight, before)
    assert not torch.equal(own, before)
    assert torch.equal(room.teacher.bert.encoder.layer[5].output.dense.weight, before)
    assert run.config["student"] == "truncate"


def test_a_pretrained_student_is_cut_from_what_the_teacher_was_before(cache):
    room = open_classroom(replace(SMOKE, student="pretrained", layers=2))
    one, same, other = (room.student(seed) for seed in (1, 1, 2))
    base = AutoModel.from_pretrained(assets.path("minilm"))
    kept = [base.encoder.layer[k].output.dense.weight for k in (2, 5)]
    for layer, weight in zip(one.bert.encoder.layer, kept, strict=True):
        assert torch.equal(layer.output.dense.weight, weight)
    assert not torch.equal(room.teacher.bert.encoder.layer[5].output.dense.weight, kept[1])
    assert torch.equal(one.get_input_embeddings().weight, base.get_input_embeddings().weight)
    assert torch.equal(one.classifier.weight, same.classifier.weight)  # the head alone is drawn
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    run, _ = run_classification(room, "kd+procrustes", 0)
    assert (room.width, room.layers) == (384, 2)
    assert run.metrics["geometry_kept/procrustes"] > 0.3  # it has seen what the teacher saw


def test_a_configuration_alone_starts_from_the_teachers_embeddings(cache, tmp_path):
    small_config().save_pretrained(tmp_path)
    room = open_classroom(replace(SMOKE, student=str(tmp_path)))
    assert (room.width, room.layers) == (48, 2)
    one, same, other = (room.student(seed) for seed in (1, 1, 2))
    words = [s.get_input_embeddings().weight.detach() for s in (one, same, other)]
    teacher = room.teacher.get_input_embeddings().weight.detach().double()
    top = torch.linalg.svdvals(teacher - teacher.mean(0))[:48]
    assert torch.allclose(torch.linalg.svdvals(words[0].double() - words[0].double().mean(0)), top)
    assert torch.equal(words[0], words[2])
    dense = [s.bert.encoder.layer[0].output.dense.weight for s in (one, same, other)]
    assert torch.equal(dense[0], dense[1])
    assert not torch.equal(dense[0], dense[2])
    run, _ = run_classification(room, "kd+procrustes", 0)
    by_hand = calibrate(classification_setup.procrustes_distance, room.probe_features(), 48)
    assert room.calibrations["procrustes"].best == pytest.approx(by_hand.best)
    assert -1 < run.metrics["geometry_kept/procrustes"] < 1
    assert "geometry_kept/procrustes/layer1" in run.metrics


def test_a_model_in_a_folder_keeps_its_weights(cache, tmp_path):
    torch.manual_seed(7)
    own = BertForSequenceClassification(small_config(num_labels=2))
    own.save_pretrained(tmp_path)
    MINILM.save_pretrained(tmp_path)
    room = open_classroom(replace(SMOKE, student=str(tmp_path)))
    for one, other in zip(own.parameters(), room.student(3).parameters(), strict=True):
        assert torch.equal(one, other)
    run, _ = run_classification(room, "kd+gram", 0)
    assert 0 <= run.metrics["accuracy"] <= 1
    three = tmp_path / "three"
    BertForSequenceClassification(small_config(num_labels=3)).save_pretrained(three)
    with pytest.raises(InputError, match=r"student '.*three' was fine-tuned for 3 labels"):
        open_classroom(replace(SMOKE, student=str(three)))


def test_a_teacher_of_another_family(cache, tmp_path):
    torch.manual_seed(0)
    config = DistilBertConfig(dim=64, n_layers=2, n_heads=2, hidden_dim=64)
    DistilBertModel(config).save_pretrained(tmp_path)
    MINILM.save_pretrained(tmp_path)
    setting = replace(SMOKE, width=32, teacher=replace(SMOKE.teacher, model=str(tmp_path)))
    room = open_classroom(setting)
    assert type(room.teacher).__name__ == "DistilBertForSequenceClassification"
    run, student = run_classification(room, "kd+procrustes", 0)
    assert type(student).__name__ == "BertForSequenceClassification"
    assert room.test_cache.manifest["layers"] == [2]
    assert len(run.items) == 64


def test_a_small_bert_is_the_default_and_names_no_run_anew():
    assert "student" not in classification_config(SMOKE, "kd")
    assert classification_config(replace(SMOKE, student="truncate"), "kd")["student"] == "truncate"


REFUSED = {
    "width is 48; expected a multiple of 32": {"width": 48},
    "width is 416; expected at most 384, the teacher's embedding width": {"width": 416},
    "layers is 0; expected at least 1": {"layers": 0},
    "layers is 7; expected 1 to 6, the teacher's": {"student": "truncate", "layers": 7},
    "teacher_layer is 9, the teacher has layers 0": {"teacher_layers": (9,)},
    "max_length is 600; expected at most 512, which is what teacher.model 'minilm'": {
        "max_length": 600
    },
    "student is './gone'; expected bert, truncate, pretrained, a folder": {"student": "./gone"},
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_cannot_be_made_is_refused_before_a_teacher_is_trained(tmp_path, monkeypatch, told):
    monkeypatch.setattr(classification_setup, "train_teacher", None)
    with own_cache(tmp_path / "cache"), pytest.raises(InputError, match=told):
        open_classroom(replace(SMOKE, **REFUSED[told]))


@pytest.mark.parametrize("words", [30522, 999])
def test_a_student_that_reads_other_tokens(tmp_path, monkeypatch, words):
    """As many but other ones, where it has a tokenizer; another number of them."""
    monkeypatch.setattr(classification_setup, "train_teacher", None)
    small_config(vocabulary=words).save_pretrained(tmp_path)
    if words == 30522:
        MINILM.train_new_from_iterator(["another text"], 40).save_pretrained(tmp_path)
    with own_cache(tmp_path / "cache"), pytest.raises(InputError) as caught:
        open_classroom(replace(SMOKE, student=str(tmp_path)))
    assert f"(vocabulary: {words}) has other tokens than the teacher (voc" in str(caught.value)


def test_only_texts_that_lose_something_are_counted_as_cut(cache):
    lines = []
    room = open_classroom(replace(SMOKE, max_length=24), lines.append)
    data = load_classification("product")
    train = stratified_subsample(data.train, 64, SMOKE.teacher.seed)
    lengths = [len(MINILM(text)["input_ids"]) for text in train["sentence"]]
    assert len(room.train) == 64
    longer = sum(n > 24 for n in lengths)
    assert 0 < longer < sum(n >= 24 for n in lengths), "no text fits exactly"
    told = f"product: {longer} of 64 train texts are longer than 24 tokens and are cut there"
    assert told in lines
