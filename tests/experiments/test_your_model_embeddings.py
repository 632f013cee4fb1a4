"""Your own sentence encoder: scored by the teacher's neighbours, loadable, refused in one line."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from support.tiny_classification import MINILM, small_config
from transformers import AutoModel, AutoTokenizer, BertModel, pipeline

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments.your_model import (
    YourModelSettings,
    distill_your_model,
    sentence_similarity,
)
from geodistill.experiments.your_model.record import record_of
from geodistill.experiments.your_model.sentence_encoder import SentenceEncoder, pooling_of
from geodistill.tasks import load_table

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("classification")]


WORDS = {"good": ("fine", "lovely", "great"), "bad": ("poor", "awful", "sad"), "red": ("warm",)}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A table without labels, a teacher that takes the first token, a student's configuration."""
    folder = tmp_path_factory.mktemp("home")
    words = [word for kind in WORDS.values() for word in kind]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, size=5)) + f" thing {i}" for i in range(300)]
    pd.DataFrame({"sentence": texts, "other": texts}).to_csv(folder / "my.csv", index=False)
    torch.manual_seed(0)
    teacher = BertModel(small_config(initializer_range=0.3))
    (folder / "teacher").mkdir()
    SentenceEncoder(teacher, "cls").save_pretrained(folder / "teacher")
    MINILM.save_pretrained(folder / "teacher")
    small_config().save_pretrained(folder / "untrained")
    return folder


@pytest.fixture(scope="module")
def settings(home):
    return YourModelSettings(
        task="sentence-similarity", data=str(home / "my.csv"), text="sentence",
        teacher=str(home / "teacher"), student=str(home / "untrained"), seeds=2,
        learning_rates=(1e-3, 3e-3), epochs=4, out=str(home / "student"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def distilled(settings):
    """The answer and the plan."""
    plans = []
    answer = distill_your_model(settings, lambda line: None, plans.append)
    return answer, plans[0]


def embeddings(folder, texts):
    """The first token's last state, scaled to length one, by a plain call of the model."""
    model, tokenizer = (
        AutoModel.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    with torch.no_grad():
        first = model(**tokenizer(texts, padding=True, return_tensors="pt")).last_hidden_state[:, 0]
    return (first / first.norm(dim=1, keepdim=True)).double().numpy()


def shared_neighbours(first, second, n=10):
    """The share of each row's nearest other rows in `first` that are so in `second`."""
    nearest = []
    for x in (first, second):
        found = NearestNeighbors(n_neighbors=n + 1, metric="cosine").fit(x).kneighbors(x)[1]
        nearest.append([set(row) - {i} for i, row in enumerate(found)])
    return np.array([len(a & b) / n for a, b in zip(*nearest, strict=True)])


def items_of(settings, method, seed=0):
    (path,) = settings.runs_folder.glob("*/test/items.parquet")
    items = read_stored(path)
    return items[(items["method"] == method) & (items["seed"] == seed)]


def test_the_student_in_the_folder_has_the_score_of_its_run(distilled, home, settings):
    answer, _ = distilled
    items = items_of(settings, answer.arm)
    rows = items["item"].str.split("/").str[1].astype(int)
    texts = pd.read_csv(home / "my.csv")["sentence"].iloc[rows].tolist()
    by_hand = shared_neighbours(
        embeddings(home / "teacher", texts), embeddings(home / "student", texts)
    )
    assert np.isclose(by_hand, items["score"]).mean() > 0.97
    runs = answer.runs
    of_run = (runs["method"] == answer.arm) & (runs["seed"] == 0)
    assert runs.loc[of_run, "recall"].item() == pytest.approx(items["score"].mean())


def test_training_brings_the_embeddings_to_the_teachers(distilled, home, settings):
    texts = pd.read_csv(home / "my.csv")["sentence"].tolist()
    task = sentence_similarity.SentenceSimilarity()
    setup = task.prepare(task.read(settings), "test", settings.runs_folder / "again", print)
    setup.build_student(0).save_pretrained(home / "start")
    MINILM.save_pretrained(home / "start")
    teacher = embeddings(home / "teacher", texts)
    cosines = {n: (embeddings(home / n, texts) * teacher).sum(1) for n in ("start", "student")}
    assert np.median(cosines["start"]) < 0.3 < 0.6 < np.median(cosines["student"])


def test_references_stand_beside_the_arms(distilled):
    means = distilled[0].runs.groupby("method")["recall"].mean()
    assert list(distilled[0].levels["student"]) == [
        "TF-IDF, linear model", "untrained start", "KD", "KD + Procrustes", "teacher",
    ]  # fmt: skip
    assert means["teacher"] == 1
    assert means.drop("teacher").between(0.05, 0.95).all()


def test_the_pages_pipeline_loads_the_student(distilled):
    """There is none called sentence-similarity."""
    answer, _ = distilled
    features = pipeline("feature-extraction", model=str(answer.folder))("fine thing")
    assert np.isfinite(features).all()


def test_equal_texts_count_once(settings, home, tmp_path):
    """Which of two equal texts is nearer would be chance."""
    table = pd.read_csv(home / "my.csv")
    repeated = pd.concat([table, table[:100], table[:100]])
    repeated.to_csv(tmp_path / "repeated.csv", index=False)
    task = sentence_similarity.SentenceSimilarity()
    inputs = task.read(replace(settings, data=str(tmp_path / "repeated.csv")))
    texts = [text for name in inputs.sizes for text in getattr(inputs.data, name)["text"]]
    assert len(texts) == len(set(texts)) == 300
    setup = task.prepare(inputs, "validation", tmp_path / "runs", lambda line: None)
    assert "200 repeated texts are left out" in task.data_row(inputs, setup)[2]


def test_another_pooling_of_the_teacher_is_another_distillation(settings, home, tmp_path):
    teacher = shutil.copytree(home / "teacher", tmp_path / "teacher")
    own = replace(settings, teacher=str(teacher), out=str(tmp_path / "student"))
    before = record_of(own, "data")["content"]
    config = teacher / "1_Pooling" / "config.json"
    config.write_text(config.read_text().replace("true", "false"))
    assert record_of(own, "data")["content"] != before


def test_agreement_is_the_mean_correlation_of_similarities(settings):
    setup = sentence_similarity.SentenceSimilarity()
    inputs = setup.read(settings)
    prepared = setup.prepare(inputs, "test", settings.runs_folder / "again", lambda line: None)
    torch.manual_seed(1)
    teacher = torch.tensor(prepared.test_cache.array("logits"))
    other = torch.nn.functional.normalize(teacher + 0.05 * torch.randn_like(teacher), dim=1)
    metrics, items = sentence_similarity.neighbour_scores(prepared, other)
    first, second = (x.double().numpy() @ x.double().numpy().T for x in (teacher, other))
    keep = ~np.eye(len(teacher), dtype=bool)
    by_hand = [np.corrcoef(a[k], b[k])[0, 1] for a, b, k in zip(first, second, keep, strict=True)]
    assert metrics["agreement"] == pytest.approx(np.mean(by_hand), abs=1e-6)
    assert 0.1 < metrics["agreement"] < 0.95
    assert metrics["recall"] == pytest.approx(shared_neighbours(teacher, other).mean(), abs=2e-3)
    assert len(items) == len(teacher)


def test_chunks_do_not_change_the_scores(settings, monkeypatch):
    setup = sentence_similarity.SentenceSimilarity()
    prepared = setup.prepare(setup.read(settings), "test", settings.runs_folder / "again", print)
    embeddings = torch.nn.functional.normalize(torch.randn(len(prepared.test), 7), dim=1)
    whole, _ = sentence_similarity.neighbour_scores(prepared, embeddings)
    monkeypatch.setattr(sentence_similarity, "CHUNK", 7)
    assert sentence_similarity.neighbour_scores(prepared, embeddings)[0] == pytest.approx(whole)


def test_the_plan_the_card_and_the_folder_say_what_was_made(distilled, home):
    answer, plan = distilled
    taken = plan.set_index("what")["taken"]
    assert "cls pooling" in taken["teacher"]
    assert "texts to train" in taken["data"]
    assert "learning_rate" in (answer.folder / "distillation.json").read_text()
    card = (answer.folder / "README.md").read_text()
    assert "pipeline_tag: sentence-similarity" in card
    assert "the first token, scaled to length one" in card
    assert pooling_of(str(answer.folder)) == "cls"
    kinds = [
        m["type"].split(".")[-1] for m in json.loads((answer.folder / "modules.json").read_text())
    ]
    assert kinds == ["Transformer", "Pooling", "Normalize"]
    assert AutoModel.from_pretrained(answer.folder).config.problem_type is None


def test_mean_pooling_leaves_padding_out():
    torch.manual_seed(0)
    encoder = SentenceEncoder(BertModel(small_config()).eval(), "mean")
    short, padded = (
        MINILM(["a fine thing"], return_tensors="pt"),
        MINILM(
            ["a fine thing", "a much longer text than the other"], padding=True, return_tensors="pt"
        ),
    )
    with torch.no_grad():
        alone = encoder(short["input_ids"], short["attention_mask"])
        both = encoder(padded["input_ids"], padded["attention_mask"])
    by_hand = alone.last_hidden_state[0].mean(0)
    torch.testing.assert_close(alone.logits[0], by_hand / by_hand.norm())
    torch.testing.assert_close(both.logits[0], alone.logits[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"text": "sentence, other"}, "expected one column"),
        ({"text": "words"}, "has no column 'words'; it has sentence"),
        ({"max_rows": 20}, "has 20 different texts; expected more than 20"),
        ({"arms": ("ce",)}, "method is 'ce'; expected one of kd"),
        ({"student": "first", "layers": 9}, "layers"),
        ({"teacher_layer": 7}, "teacher"),
    ],
)
def test_refused_before_any_work(settings, monkeypatch, change, says):
    monkeypatch.setattr(sentence_similarity, "cache_outputs", lambda *args: pytest.fail("work"))
    with pytest.raises(InputError, match=says):
        distill_your_model(replace(settings, **change))


def test_a_student_of_another_width_is_refused(settings, tmp_path):
    config = small_config()
    config.hidden_size = 16
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"is 16 wide, the teacher \d+; expected the same"):
        distill_your_model(replace(settings, student=str(tmp_path)))


def test_few_texts_are_refused(settings, tmp_path):
    texts = [f"text {i}" for i in range(60)]
    pd.DataFrame({"sentence": texts}).to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(InputError, match=r"validation split has .* texts; expected more than 20"):
        distill_your_model(replace(settings, data=str(tmp_path / "few.csv")))


@pytest.mark.parametrize(
    ("pooling", "says"),
    [
        ({"pooling_mode_max_tokens": True}, "by max; expected mean or cls"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "by mean_sqrt_len"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "mean and cls"),
        ({"pooling_mode": "lasttoken"}, "by lasttoken"),
    ],
)
def test_another_pooling_is_refused(tmp_path, pooling, says):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    with pytest.raises(InputError, match=says):
        pooling_of(str(tmp_path))


def test_a_layer_after_the_pooling_is_refused(tmp_path):
    modules = [{"type": f"sentence_transformers.models.{k}"} for k in ("Transformer", "Dense")]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(InputError, match="by mean and Dense; expected mean or cls"):
        pooling_of(str(tmp_path))


def test_texts_in_lower_case_are_refused_and_the_length_of_texts_is_written(
    distilled, settings, tmp_path
):
    written = json.loads((distilled[0].folder / "sentence_bert_config.json").read_text())
    assert written["max_seq_length"] == settings.max_length
    assert not written["do_lower_case"]
    (tmp_path / "sentence_bert_config.json").write_text('{"do_lower_case": true}')
    with pytest.raises(InputError, match="puts texts in lower case before its tokenizer"):
        pooling_of(str(tmp_path))


def test_a_table_without_labels_has_texts_alone(home):
    data = load_table(home / "my.csv", texts="sentence", label=None)
    assert data.train.column_names == ["item", "source", "text"]
    assert data.label_names == ()
    sizes = [len(split) for split in (data.train, data.validation, data.test)]
    assert sum(sizes) == 300
    assert min(sizes) > 20
