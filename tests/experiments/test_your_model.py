"""Your own model: checked first, tuned alike, resumed, answered, and loadable."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from support.tiny_classification import MINILM, small_config
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments.your_model import run as run_module
from geodistill.experiments.your_model.answer import draw_answer
from geodistill.experiments.your_model.checks import (
    check_teacher,
    claim_folder,
    load_data,
    order_labels,
)
from geodistill.experiments.your_model.run import distil_your_model
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.tasks import load_table

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("classification")]
WORDS = {"good": ("fine", "lovely", "great"), "bad": ("poor", "awful", "sad")}


def save_model(folder, kind, **config):
    torch.manual_seed(0)
    model = kind(small_config(**config))
    model.save_pretrained(folder)
    MINILM.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a table, an encoder, and a classifier that numbers the classes its own way."""
    folder = tmp_path_factory.mktemp("home")
    kinds = ["good", "bad", "good"] * 60
    texts = [f"{WORDS[kind][i % 3]} thing of shop {i}" for i, kind in enumerate(kinds)]
    pd.DataFrame({"review": texts, "kind": kinds}).to_csv(folder / "my.csv", index=False)
    save_model(folder / "encoder", BertModel)
    numbers = {"good": 0, "bad": 1}  # in the order of the alphabet bad is 0
    names = {number: name for name, number in numbers.items()}
    model = save_model(
        folder / "classifier", BertForSequenceClassification, id2label=names, initializer_range=0.2
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    batch = MINILM(texts[:60], padding=True, return_tensors="pt")
    labels = torch.tensor([numbers[kind] for kind in kinds[:60]])
    for _ in range(25):
        optimizer.zero_grad()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder / "classifier")
    return folder


@pytest.fixture(scope="module")
def settings(home):
    return YourModelSettings(
        teacher="classifier", student="take 1 layer", data="my.csv", text="review", label="kind",
        seeds=2, learning_rates=(3e-4, 1e-3), epochs=2, out="student", max_rows=64, max_test=40,
    ).relative_to(home)  # fmt: skip


@pytest.fixture(scope="module")
def distilled(settings):
    """The answer, the plan and the lines of progress."""
    plans, lines = [], []
    answer = distil_your_model(settings, lines.append, plans.append)
    return answer, plans[0], lines


def weights(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder).state_dict()


def predictions(folder, texts):
    """By a plain call of the model that `from_pretrained` gives."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        numbers = model(**batch).logits.argmax(-1).tolist()
    return [model.config.id2label[number] for number in numbers]


def test_the_student_in_the_folder_has_the_score_of_its_run(distilled, home):
    answer, _, _ = distilled
    items = read_stored(answer.settings.runs_folder / "runs" / "items.parquet")
    run = items[(items["method"] == answer.arm) & (items["seed"] == 0)]
    table = pd.read_csv(home / "my.csv").iloc[run["item"].str.split("/").str[1].astype(int)]
    by_hand = np.array(predictions(answer.folder, table["review"].tolist())) == table["kind"]
    assert by_hand.astype(float).tolist() == run["score"].tolist()
    assert 0 < by_hand.mean() < 1
    card = (answer.folder / "README.md").read_text()
    assert answer.sentence in card
    assert "Bhattarai" in card


def test_the_sentence_is_the_difference_of_the_means(distilled):
    answer, _, _ = distilled
    means = 100 * answer.runs.groupby("method")["accuracy"].mean()
    assert f"{means['kd+procrustes'] - means['kd']:+.1f} (" in answer.sentence
    assert "2 seeds and 40 test items" in answer.sentence
    assert any(word in answer.sentence for word in ("inconclusive", "better", "worse"))
    levels = answer.levels.set_index("method")["mean (points)"].astype(float)
    assert levels["KD"] == pytest.approx(means["kd"], abs=0.05)
    assert levels["teacher"] == pytest.approx(means["teacher"], abs=0.05)
    assert answer.levels.set_index("method")["runs"].to_dict()["KD"] == "2"


def test_a_classifier_is_used_as_it_is_with_its_own_order_of_labels(distilled, home):
    answer, _, _ = distilled
    items = read_stored(answer.settings.runs_folder / "runs" / "items.parquet")
    run = items[items["method"] == "teacher"]
    table = pd.read_csv(home / "my.csv").iloc[run["item"].str.split("/").str[1].astype(int)]
    by_hand = np.array(predictions(home / "classifier", table["review"].tolist())) == table["kind"]
    assert by_hand.mean() == run["score"].mean() > 0.9


def test_what_spoils_a_comparison_is_said(distilled):
    answer, _, _ = distilled
    for arm, label in (("kd", "KD"), ("kd+procrustes", "KD + Procrustes")):
        runs = answer.runs[answer.runs["method"] == arm]
        n_collapsed = (runs["accuracy"] <= runs["majority_accuracy"] + 0.02).sum()
        assert (f"{n_collapsed} of 2 runs of {label} collapsed." in answer.sentence) == (
            n_collapsed > 0
        )
        rate = answer.learning_rates[arm]  # of two, each is at an edge
        edge = "largest" if rate == 1e-3 else "smallest"
        assert f"of {label}, {rate:g}, is the {edge} tried" in answer.sentence


def test_the_plan_counts_rows_and_runs(distilled, home):
    _, plan, _ = distilled
    taken = plan.set_index("what")["taken"]
    assert "2 layers × 48 wide" in taken["teacher"]
    assert "as it is" in taken["teacher"]
    assert "64 rows to train" in taken["data"]
    assert "40 to test" in taken["data"]
    assert "8 runs of 4 steps of 32 texts" in taken["arms"]  # 2 arms × (2 rates + 2 seeds)
    lengths = [len(MINILM(text)["input_ids"]) for text in pd.read_csv(home / "my.csv")["review"]]
    assert f"about {32 * np.mean(lengths):.0f}, 48 wide" in taken["rows of a batch"]
    assert "few test rows" in plan.set_index("what")["odd"]["data"]


def test_every_arm_tries_the_same_rates_and_takes_its_best(distilled):
    answer, _, _ = distilled
    rows = read_stored(answer.settings.runs_folder / "tuning" / "rows.parquet")
    rows["rate"] = rows["config"].map(lambda text: json.loads(text)["learning_rate"])
    tried = rows.pivot_table("value", ["method", "rate"], "metric")
    assert {arm: set(tried.loc[arm].index) for arm in ("kd", "kd+procrustes")} == {
        "kd": {3e-4, 1e-3}, "kd+procrustes": {3e-4, 1e-3},
    }  # fmt: skip
    for arm, rate in answer.learning_rates.items():
        best = tried.loc[arm].sort_values(["accuracy", "nll"], ascending=[False, True])
        assert rate == best.index[0]


def test_the_figure_has_a_mark_for_every_run(distilled):
    answer, _, _ = distilled
    left, right = draw_answer(answer).axes
    marks = [line for line in left.lines if line.get_marker() not in ("None", "")]
    shown = sorted(value for mark in marks for value in mark.get_xdata())
    of_arms = answer.runs["method"].isin(answer.settings.arms)
    assert shown == pytest.approx(sorted(100 * answer.runs.loc[of_arms, "accuracy"]))
    assert "points" in right.get_xlabel()


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("n_made", "workers"), [(3, 1), (7, 2)])
def test_an_interrupted_distillation_goes_on_to_the_same_weights(
    n_made, workers, settings, distilled, tmp_path, monkeypatch
):
    """After three runs it is tuning; after seven, the student of the eighth is kept already."""
    made, write_run = [], run_module.write_run

    def write(folder, run):
        if len(made) == n_made:
            raise Killed
        made.append(run.run_id)
        write_run(folder, run)

    again = replace(settings, out=str(tmp_path / "student"), workers=1)
    monkeypatch.setattr(run_module, "write_run", write)
    with pytest.raises(Killed):
        distil_your_model(again, lambda line: None)
    assert not (tmp_path / "student").exists()
    n_made, lines = None, []
    answer = distil_your_model(replace(again, workers=workers), lines.append)
    n_runs = 4 + 3 + 4  # tuning, baselines, two arms × two seeds
    assert len([line for line in lines if ": accuracy " in line]) == n_runs - (3, 7)[workers - 1]
    assert workers > 1 or len(made) == len(set(made)) == n_runs
    assert answer.sentence == distilled[0].sentence
    first = weights(distilled[0].folder)
    assert all(torch.equal(w, first[name]) for name, w in weights(tmp_path / "student").items())


def test_a_finished_distillation_trains_nothing(distilled, settings, monkeypatch):
    monkeypatch.setattr(run_module, "run_classification", lambda *args: pytest.fail("a run"))
    again = distil_your_model(settings, lambda line: None)
    assert again.sentence == distilled[0].sentence


def bad(field, value, message):
    return pytest.param({field: value}, message, id=f"{field}={value!r}"[:40])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        bad("task", "ner", "task is 'ner'; expected one of classification"),
        bad("term", "cosine", "term is 'cosine'; expected one of none, projection"),
        bad("layers", "top", "layers is 'top'; expected last or TEACHER:STUDENT"),
        bad("student", "take three layers", "student is 'take three layers'; expected such as"),
        bad("extra_arms", ("kd+rkd",), r"method is 'kd\+rkd'; expected one of kd"),
        bad("seeds", 0, "seeds is 0; expected 1 to 100"),
        bad("weight", -1.0, "weight is -1.0; expected 0 or more"),
        bad("weight", float("nan"), "weight is nan; expected 0 or more"),
        bad("learning_rates", (), r"learning_rates is \[\]; expected numbers between"),
        bad("out", "", "out is empty; expected the folder"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(settings, changes, message):
    with pytest.raises(InputError, match=message):
        replace(settings, **changes)


@pytest.fixture(scope="module")
def bad_home(home):
    """The folder with models and tables that can't be used."""
    save_model(home / "tagger", BertForTokenClassification)
    save_model(home / "three", BertForSequenceClassification, num_labels=3)
    save_model(home / "unnamed", BertForSequenceClassification)
    save_model(home / "words", BertModel, vocabulary=99)
    shutil.copytree(home / "encoder", home / "silent", ignore=shutil.ignore_patterns("token*"))
    table = pd.read_csv(home / "my.csv")
    table.assign(kind="good").to_csv(home / "one.csv", index=False)
    table.assign(kind=0.5).to_csv(home / "scores.csv", index=False)
    table[:4].to_csv(home / "few.csv", index=False)
    (home / "other").mkdir()
    (home / "other" / "thesis.txt").write_text("mine")
    (home / "file").write_text("mine")
    return home


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        bad("text", "body", "has no column 'body'; it has review, kind"),
        bad("label", "stars", "has no column 'stars'; it has review, kind"),
        bad("data", "no.csv", "no file at"),
        bad("data", "one.csv", "all training rows have the label 'good'; expected two"),
        bad("data", "scores.csv", "score|decimal numbers"),
        bad("data", "few.csv", "expected a few dozen groups"),
        bad("teacher", "nowhere", "teacher is 'nowhere'|teacher is .*expected minilm, mpnet"),
        bad("teacher", "tagger", "is a BertForTokenClassification, which has no head for text"),
        bad("teacher", "three", "has the labels LABEL_0, LABEL_1, LABEL_2, the data bad, good"),
        bad("teacher", "unnamed", "has the labels LABEL_0, LABEL_1, the data bad, good"),
        bad("teacher", "words", "has a tokenizer of .* tokens, its model takes 99"),
        bad("teacher", "silent", "has a tokenizer of 5 tokens, its model takes 30522"),
        bad("student", "words", "has other tokens than the teacher"),
        bad("student", "take 9 layers", "9"),
        bad("layers", "7:1", "teacher_layer is 7, the teacher has layers 0"),
        bad("layers", "2:5", "student_layer is 5, the student has layers 0"),
        bad("out", "other", "other holds other files; expected a new or empty folder"),
        bad("out", "file", "file holds other files; expected a new or empty folder"),
        bad("out", "file/student", r"can't be written \(Not a directory\)"),
        bad("weight", 2.0, "holds runs of another distillation: its weight was 1.0, now it is 2.0"),
    ],
)
def test_what_cannot_be_distilled_is_refused_before_any_training(
    bad_home, settings, distilled, changes, message, monkeypatch
):
    monkeypatch.setattr(run_module, "prepare_classification", lambda *args: pytest.fail("work"))
    named = {"teacher", "student", "data", "out"} & set(changes)
    values = {
        name: str(bad_home / value) if name in named and " " not in str(value) else value
        for name, value in changes.items()
    }
    values |= {} if "out" in changes or "weight" in changes else {"out": str(bad_home / "new")}
    with pytest.raises(InputError, match=message):
        distil_your_model(replace(settings, **values), lambda line: None)
    assert not (bad_home / "new").exists()
    assert not (bad_home / "new-runs").exists()
    assert (bad_home / "other" / "thesis.txt").read_text() == "mine"


def test_a_folder_in_which_nothing_was_made_is_free_for_other_settings(settings, tmp_path):
    first = replace(settings, out=str(tmp_path / "student"))
    long = replace(first, max_length=9_999)  # refused once the folder is claimed
    with pytest.raises(InputError, match="max_length is 9999; expected at most 512"):
        distil_your_model(long, lambda line: None)
    claim_folder(first, "hash of the data")
    (first.runs_folder / "runs").mkdir()
    with pytest.raises(InputError, match="its max_length was 96, now it is 9999"):
        claim_folder(long, "hash of the data")


def test_an_encoder_without_a_head_needs_epochs(settings, home):
    encoder = replace(settings, teacher=str(home / "encoder"))
    config, base, _ = check_teacher(encoder)
    assert (config.hidden_size, base) == (48, encoder.teacher)
    with pytest.raises(InputError, match="without a head for text classification; expected a cla"):
        check_teacher(replace(encoder, teacher_epochs=0.0))


def test_labels_are_numbered_as_the_teachers_and_stay_the_same_words(home, settings):
    data = load_table(home / "my.csv", texts="review", label="kind")
    ordered = order_labels(data, {0: "Good", 1: "Bad"}, "mine")
    assert data.label_names == ("bad", "good")
    assert ordered.label_names == ("good", "bad")
    for name in ("train", "validation", "test"):
        words = [
            [d.label_names[label] for label in getattr(d, name)["label"]] for d in (data, ordered)
        ]
        assert words[0] == words[1]
    assert load_data(settings).data_hash == data.data_hash


def test_numbers_are_the_teachers_numbers_unless_its_names_say_otherwise(home):
    table = pd.read_csv(home / "my.csv")
    table["kind"] = (table["kind"] == "good").astype(int)
    table.to_csv(home / "numbers.csv", index=False)
    data = load_table(home / "numbers.csv", texts="review", label="kind")
    assert order_labels(data, {0: "LABEL_0", 1: "LABEL_1"}, "mine") is data
    turned = order_labels(data, {0: "1", 1: "0"}, "mine")
    assert [1 - label for label in turned.test["label"]] == data.test["label"][:]
    with pytest.raises(InputError, match="has the labels a, b, c, the data 0, 1"):
        order_labels(data, {0: "a", 1: "b", 2: "c"}, "mine")
