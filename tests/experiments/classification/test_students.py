"""Students of every kind in the classification study, refused early if they do not fit."""

from dataclasses import replace

import pytest
import torch
from support.own_cache import own_cache
from support.tiny_classification import MINILM, small_config, tiny_settings
from transformers import AutoModel, BertForSequenceClassification, DistilBertConfig, DistilBertModel

from geodistill.errors import InputError
from geodistill.experiments.classification.evaluate import evaluate_student
from geodistill.experiments.classification.run import run_classification
from geodistill.experiments.classification.settings import smoke_settings
from geodistill.experiments.classification.setup import prepare_classification
from geodistill.geometry import procrustes_distance, score_range
from geodistill.tasks import assets, load_classification, stratified_subsample

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("classification")]
SMOKE = replace(smoke_settings("product"), steps=3, weight_warmup_batches=1)


def block_weights(student):
    return [block.output.dense.weight for block in student.bert.encoder.layer]


def test_a_student_that_is_its_teacher_keeps_all_geometry(tmp_path):
    settings = replace(tiny_settings(tmp_path / "base"), layers=2)
    with own_cache(tmp_path / "cache"):
        setup = prepare_classification(settings)
        metrics, _ = evaluate_student(setup, setup.teacher)
    assert (setup.width, setup.layers) == (48, 2)
    assert metrics["agreement"] == 1
    scores = {name: value for name, value in metrics.items() if name.startswith("geometry_kept")}
    kept = {f"geometry_kept/{name}" for name in ("procrustes", "gram", "cka")}
    assert set(scores) == {*kept, "geometry_kept/procrustes/layer1"}
    assert min(scores.values()) > 0.99  # cached features are in half precision


@pytest.mark.parametrize(("student", "blocks"), [("first", (0, 1)), ("uniform", (2, 5))])
def test_a_student_is_cut_from_what_its_teacher_was_before_fine_tuning(cache, student, blocks):
    setup = prepare_classification(replace(SMOKE, student=student, layers=2))
    first, same, other = (setup.build_student(seed) for seed in (1, 1, 2))
    base = AutoModel.from_pretrained(assets.path("minilm"))
    layers = [base.encoder.layer[k].output.dense.weight for k in blocks]
    assert (setup.width, setup.layers, len(block_weights(first))) == (384, 2, 2)
    assert all(map(torch.equal, block_weights(first), layers))
    assert not torch.equal(block_weights(setup.teacher)[blocks[1]], layers[1])
    assert torch.equal(first.get_input_embeddings().weight, base.get_input_embeddings().weight)
    assert torch.equal(first.classifier.weight, same.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)  # the head is random


def parameters(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("student", ["first", "uniform"])
def test_word_embeddings_are_frozen_and_all_else_learns(cache, student):
    setup = prepare_classification(replace(SMOKE, student=student, layers=2))
    teacher = parameters(setup.teacher)
    start = parameters(setup.build_student(1000))
    run, trained = run_classification(setup, "kd+projection", 0)
    still = {name for name, value in parameters(trained).items() if torch.equal(value, start[name])}
    assert still == {"bert.embeddings.word_embeddings.weight"}
    assert all(
        torch.equal(value, teacher[name]) for name, value in parameters(setup.teacher).items()
    )
    assert run.config["student"] == student
    assert run.metrics["geometry_kept/procrustes"] > 0.05  # it has the teacher's pretraining


def test_a_configuration_alone_starts_from_the_teachers_embeddings(cache, tmp_path):
    small_config().save_pretrained(tmp_path)
    setup = prepare_classification(replace(SMOKE, student=str(tmp_path)))
    assert (setup.width, setup.layers) == (48, 2)
    first, same, other = (setup.build_student(seed) for seed in (1, 1, 2))
    embeddings = first.get_input_embeddings().weight.detach()
    teacher = setup.teacher.get_input_embeddings().weight.detach().double()
    top = torch.linalg.svdvals(teacher - teacher.mean(0))[:48]
    centred = embeddings.double() - embeddings.double().mean(0)
    assert torch.allclose(torch.linalg.svdvals(centred), top)
    assert torch.equal(embeddings, other.get_input_embeddings().weight)
    assert all(map(torch.equal, block_weights(first), block_weights(same)))
    assert not torch.equal(block_weights(first)[0], block_weights(other)[0])
    run, _ = run_classification(setup, "kd+procrustes", 0)
    by_hand = score_range(procrustes_distance, setup.probe_features(), 48)
    assert setup.score_ranges["procrustes"].ceiling == pytest.approx(by_hand.ceiling)
    assert -1 < run.metrics["geometry_kept/procrustes"] < 1
    assert "geometry_kept/procrustes/layer1" in run.metrics


def test_a_model_in_a_folder_keeps_its_weights(cache, tmp_path):
    torch.manual_seed(7)
    model = BertForSequenceClassification(small_config(num_labels=2))
    model.save_pretrained(tmp_path)
    MINILM.save_pretrained(tmp_path)
    setup = prepare_classification(replace(SMOKE, student=str(tmp_path)))
    assert all(map(torch.equal, model.parameters(), setup.build_student(3).parameters()))
    run, _ = run_classification(setup, "kd+gram", 0)
    assert 0 <= run.metrics["accuracy"] <= 1
    three = tmp_path / "three"
    BertForSequenceClassification(small_config(num_labels=3)).save_pretrained(three)
    with pytest.raises(InputError, match=r"student '.*three' was fine-tuned for 3 labels"):
        prepare_classification(replace(SMOKE, student=str(three)))


def test_a_teacher_of_another_family(cache, tmp_path):
    torch.manual_seed(0)
    config = DistilBertConfig(dim=64, n_layers=2, n_heads=2, hidden_dim=64)
    DistilBertModel(config).save_pretrained(tmp_path)
    MINILM.save_pretrained(tmp_path)
    settings = replace(SMOKE, teacher=replace(SMOKE.teacher, model=str(tmp_path)))
    setup = prepare_classification(settings)
    for method in ("kd+procrustes", "kd+procrustes-pretrained"):
        run, student = run_classification(setup, method, 0)
        assert type(student).__name__ == "DistilBertForSequenceClassification"
        assert len(student.distilbert.transformer.layer) == 1
        assert len(run.items) == 64
    assert setup.test_cache.manifest["layers"] == [2]
    assert 0 <= run_classification(setup, "frozen", 0)[0].metrics["accuracy"] <= 1


REFUSED = {
    "layers is 0; expected 1 to 6, the teacher's": {"layers": 0},
    "layers is 7; expected 1 to 6, the teacher's": {"student": "uniform", "layers": 7},
    "max_length is 600; expected at most 512, which is what the teacher 'minilm' takes": {
        "max_length": 600
    },
    "student is './gone'; expected first, uniform, a folder": {"student": "./gone"},
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_made_is_refused_before_a_teacher_is_trained(tmp_path, message):
    with own_cache(tmp_path / "cache"), pytest.raises(InputError, match=message):
        prepare_classification(replace(SMOKE, **REFUSED[message]))
    assert not (tmp_path / "cache" / "teachers").exists()


@pytest.mark.parametrize("vocabulary", [30522, 999])
def test_a_student_with_other_tokens(tmp_path, vocabulary):
    """Equally many but other ones, by its tokenizer; another number of them."""
    student = tmp_path / "student"
    small_config(vocabulary=vocabulary).save_pretrained(student)
    if vocabulary == 30522:
        MINILM.train_new_from_iterator(["another text"], 40).save_pretrained(student)
    with own_cache(tmp_path / "cache"), pytest.raises(InputError) as caught:
        prepare_classification(replace(SMOKE, student=str(student)))
    message = f"(vocabulary: {vocabulary}) has other tokens than the teacher (vocabulary"
    assert message in str(caught.value)
    assert not (tmp_path / "cache" / "teachers").exists()


def test_only_texts_that_lose_tokens_are_counted_as_cut(tmp_path):
    lines, settings = [], tiny_settings(tmp_path / "base")
    settings = replace(settings, max_length=24, teacher=replace(settings.teacher, max_train=64))
    with own_cache(tmp_path / "cache"):
        setup = prepare_classification(settings, lines.append)
    data = load_classification("product")
    train = stratified_subsample(data.train, 64, settings.teacher.seed)
    lengths = [len(MINILM(text)["input_ids"]) for text in train["sentence"]]
    assert len(setup.train) == 64
    longer = sum(n > 24 for n in lengths)
    assert 0 < longer < sum(n >= 24 for n in lengths), "no text fits exactly"
    line = f"product: {longer} of 64 train texts are longer than 24 tokens and are cut there"
    assert line in lines
