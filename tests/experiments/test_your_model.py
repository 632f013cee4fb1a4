"""Your own model: checked first, tuned alike, resumed, answered, and loadable."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from support.tiny_classification import MINILM, small_config
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from geodistill.analysis.stored_results import read_stored
from geodistill.errors import InputError
from geodistill.experiments import cluster, runner
from geodistill.experiments.run_store import locked
from geodistill.experiments.your_model import (
    YourModelSettings,
    distill_your_model,
    text_classification,
)
from geodistill.experiments.your_model.record import record_of
from geodistill.experiments.your_model.text_inputs import number_labels, read_inputs
from geodistill.publish.study_figures import draw_runs
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
        data=str(home / "my.csv"), text="review", label="kind", teacher=str(home / "classifier"),
        layers=1, seeds=2, learning_rates=(3e-4, 1e-3), epochs=2, max_rows=64,
        out=str(home / "student"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def distilled(settings):
    """The answer, the plan and the lines of progress."""
    plans, lines = [], []
    answer = distill_your_model(settings, lines.append, plans.append)
    return answer, plans[0], lines


def quietly(settings, log=lambda line: None):
    return distill_your_model(settings, log, lambda plan: None)


def stored(settings, name):
    """A table of the runs on test, or of those that chose learning rates."""
    (path,) = settings.runs_folder.glob(f"*/{name}.parquet")
    return read_stored(path)


def weights(folder):
    return AutoModelForSequenceClassification.from_pretrained(folder).state_dict()


def predictions(folder, texts):
    """By a plain call of the model that `from_pretrained` gives."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        numbers = model(**batch).logits.argmax(-1).tolist()
    return [model.config.id2label[number] for number in numbers]


def test_the_student_in_the_folder_has_the_score_of_its_run(distilled, home, settings):
    answer, _, _ = distilled
    items = stored(settings, "test/items")
    run = items[(items["method"] == answer.arm) & (items["seed"] == 0)]
    table = pd.read_csv(home / "my.csv").iloc[run["item"].str.split("/").str[1].astype(int)]
    by_hand = np.array(predictions(answer.folder, table["review"].tolist())) == table["kind"]
    assert by_hand.astype(float).tolist() == run["score"].tolist()
    assert 0 < by_hand.mean() < 1
    card = (answer.folder / "README.md").read_text()
    assert answer.sentence in card
    assert "bhattarai2025geometry" in card
    assert "| task | 0.1 |" in card  # the trainer's section: labels have a tenth of the loss


def test_the_sentence_is_the_difference_of_the_means(distilled):
    assert "nan" not in distilled[0].levels.to_string()
    answer, _, _ = distilled
    means = 100 * answer.runs.groupby("method")["accuracy"].mean()
    n_items = len(answer.report.scores.frame["item"].unique())
    difference = means["kd+procrustes"] - means["kd"]
    assert f"kd+procrustes vs kd: {difference:+.1f} points (interval" in answer.sentence
    assert f"the same 2 seeds on the same {n_items} items" in answer.sentence
    assert any(word in answer.sentence for word in ("inconclusive", "better", "worse"))
    levels = answer.levels.set_index("student")
    assert levels["mean (points)"].astype(float)["KD"] == pytest.approx(means["kd"], abs=0.05)
    assert float(levels["mean (points)"]["teacher"]) == pytest.approx(means["teacher"], abs=0.05)
    assert levels["runs"].to_dict()["KD"] == "2"
    assert list(levels.index) == [
        "majority class", "TF-IDF, linear model", "KD", "KD + Procrustes", "teacher",
    ]  # fmt: skip


def test_a_classifier_is_used_as_it_is_with_its_own_order_of_labels(distilled, home, settings):
    items = stored(settings, "test/items")
    run = items[items["method"] == "teacher"]
    table = pd.read_csv(home / "my.csv").iloc[run["item"].str.split("/").str[1].astype(int)]
    by_hand = np.array(predictions(home / "classifier", table["review"].tolist())) == table["kind"]
    assert by_hand.mean() == run["score"].mean() > 0.9


@pytest.mark.parametrize(
    ("paths", "numbers"),
    [
        (("embeddings", "bert.encoder.layer.0"), (0, 1)),
        (("encoder.layer.1", "embeddings"), (2, 0)),
        (("layer.0", "layer.0.output"), (1, 1)),
    ],
)
def test_a_layer_named_by_its_path_is_that_hidden_state(settings, paths, numbers):
    names = dict(zip(("teacher_layer", "student_layer"), paths, strict=True))
    _, runs = read_inputs(replace(settings, **names))
    assert (runs.teacher_layer, runs.student_layer) == numbers


def test_what_spoils_a_comparison_is_said(distilled):
    answer, _, _ = distilled
    for arm, label in (("kd", "KD"), ("kd+procrustes", "KD + Procrustes")):
        runs = answer.runs[answer.runs["method"] == arm]
        n_collapsed = (runs["accuracy"] <= runs["majority_accuracy"] + 0.02).sum()
        shown = answer.levels.set_index("student")["collapsed"][label]
        assert shown == f"{n_collapsed} of 2"
        rate = answer.learning_rates[arm]  # of two, each is at an edge
        edge = "largest" if rate == 1e-3 else "smallest"
        assert f"of {arm}, {rate:g}, is the {edge} tried" in answer.sentence
    tfidf = answer.runs.set_index("method")["accuracy"]["tfidf"]
    kept = answer.runs.groupby("method")["accuracy"].mean()[answer.arm]
    assert ("don't keep it" in answer.sentence) == (kept <= tfidf)


def test_the_plan_counts_rows_and_runs(distilled, home):
    _, plan, _ = distilled
    taken, odd = (plan.set_index("what")[name] for name in ("taken", "odd"))
    assert "2 layers × 48 wide" in taken["teacher"]
    assert "as it is" in taken["teacher"]
    assert "1 layer × 48 wide" in taken["student"]
    assert "64 rows to train" in taken["data"]
    assert "8 runs of 4 steps of 32 texts" in taken["arms"]  # 2 arms × (2 rates + 2 seeds)
    lengths = [len(MINILM(text)["input_ids"]) for text in pd.read_csv(home / "my.csv")["review"]]
    assert f"about {32 * np.mean(lengths):.0f}, one per token, 48 wide" in taken["rows of a batch"]
    assert "few test rows" in odd["data"]
    assert "GB" in taken["cost"]


def test_the_cost_of_a_test_is_that_of_the_rows_used(settings):
    task, batch = text_classification.TextClassification(), SimpleNamespace(batch_size=32)
    inputs = task.read(replace(settings, max_rows=12, batch_size=4))
    seconds = task.test_seconds(inputs, SimpleNamespace(settings=batch), None, step=1.0)
    assert seconds == pytest.approx(12 / 32 / 3)


def test_every_arm_tries_the_same_rates_and_takes_its_best(distilled, settings):
    answer, _, _ = distilled
    rows = stored(settings, "tuning/rows")
    rows["rate"] = rows["config"].map(lambda text: json.loads(text)["learning_rate"])
    tried = rows.pivot_table("value", ["method", "rate"], "metric")
    for arm, rate in answer.learning_rates.items():
        assert set(tried.loc[arm].index) == {3e-4, 1e-3}
        collapsed = tried.loc[arm, "accuracy"] <= tried.loc[arm, "majority_accuracy"] + 0.02
        order = tried.loc[arm].assign(collapsed=collapsed).reset_index()
        order = order.sort_values(["collapsed", "accuracy", "rate"], ascending=[True, False, True])
        assert rate == order["rate"].iloc[0]


def test_the_figure_has_a_mark_for_every_run(distilled):
    answer, _, _ = distilled
    (ax,) = draw_runs(answer.runs, answer.metric).axes
    marks = [value for line in ax.lines if line.get_marker() != "|" or len(line.get_xdata()) > 1
             for value in line.get_xdata()]  # fmt: skip
    scores = 100 * answer.runs["accuracy"]
    assert set(np.round(marks, 6)) >= set(np.round(scores[answer.runs["method"] != "tfidf"], 6))


class Killed(BaseException):
    pass


@pytest.mark.parametrize(("n_made", "workers"), [(3, 0), (10, 2)])
def test_an_interrupted_distillation_goes_on_to_the_same_weights(
    n_made, workers, settings, distilled, tmp_path, monkeypatch
):
    """After three runs it is tuning; after ten, one run is left, and its student is kept."""
    made, write_run = [], runner.write_run

    def write(folder, run):
        if len(made) == n_made:
            raise Killed
        made.append(run.run_id)
        write_run(folder, run)

    again = replace(settings, out=str(tmp_path / "student"))
    monkeypatch.setattr(runner, "write_run", write)
    with pytest.raises(Killed):
        quietly(again)
    assert not (tmp_path / "student").exists()
    n_made, lines = None, []
    answer = quietly(replace(again, workers=workers), lines.append)
    n_runs = 4 + 3 + 4  # tuning, baselines, two arms × two seeds
    resumed = [line for line in lines if "of this stage left" in line]
    assert len(resumed) == n_runs - (10 if workers else 3)
    assert workers or len(made) == len(set(made)) == n_runs
    assert answer.sentence == distilled[0].sentence
    first = weights(distilled[0].folder)
    assert all(torch.equal(w, first[name]) for name, w in weights(tmp_path / "student").items())


def test_a_cluster_makes_the_same_student(settings, distilled, tmp_path, monkeypatch):
    from distributed import LocalCluster

    def run(*arguments):
        pytest.fail("a run in this process")

    monkeypatch.setattr(text_classification, "run_classification", run)  # not in the workers
    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=2, **options) as two_processes:
        address = two_processes.scheduler_address
        answer = quietly(replace(settings, scheduler=address, out=str(tmp_path / "student")))
    assert answer.sentence == distilled[0].sentence
    first = weights(distilled[0].folder)
    assert all(torch.equal(w, first[name]) for name, w in weights(tmp_path / "student").items())


def test_a_cluster_that_does_not_see_the_folder_is_refused_before_any_work(settings, monkeypatch):
    def client(address):
        return nullcontext(SimpleNamespace(run=lambda work, folder: {"tcp://there:1": False}))

    monkeypatch.setattr(cluster, "connect", client)
    message = r"scheduler tcp://a:1 has workers that do not see .*: tcp://there:1; expected a disk"
    monkeypatch.setattr(text_classification.TextClassification, "prepare", None)
    with pytest.raises(InputError, match=message):
        quietly(replace(settings, scheduler="tcp://a:1"))
    nobody = nullcontext(SimpleNamespace(run=lambda work, folder: {}))
    monkeypatch.setattr(cluster, "connect", lambda address: nobody)
    with pytest.raises(InputError, match="scheduler tcp://a:1 has no worker; start some with"):
        quietly(replace(settings, scheduler="tcp://a:1"))


def test_a_finished_distillation_trains_nothing(distilled, settings, monkeypatch):
    monkeypatch.setattr(
        text_classification, "run_classification", lambda *args: pytest.fail("a run")
    )
    assert quietly(settings).sentence == distilled[0].sentence
    threads = torch.get_num_threads()
    quietly(settings)
    assert torch.get_num_threads() == threads


def bad(field, value, message):
    return pytest.param({field: value}, message, id=f"{field}={value!r}"[:40])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        bad("arms", ("kd", "kd+rkd"), r"method is 'kd\+rkd'; expected one of ce, kd"),
        bad("task", "translation", "task is 'translation'; expected one of text-classification, "),
        bad("out", ".", r"out is '\.'; expected the name of the student's folder"),
        bad("arms", (), r"arms is \(\); expected one or more different methods"),
        bad("arms", ("kd", "kd"), "expected one or more different methods"),
        bad("seeds", 0, "seeds is 0; expected 1 to 100"),
        bad("weight", -1.0, "weight is -1.0; expected 0 or more"),
        bad("weight", float("nan"), "weight is nan; expected 0 or more"),
        bad("teacher_epochs", 0, "teacher_epochs is 0; expected 1 or more"),
        bad("learning_rates", (), r"learning_rates is \(\); expected numbers between"),
        bad("out", "", "out is ''; expected the name of the student's folder"),
        bad("out", 7, "out is 7; expected a text, such as 'student'"),
        bad("data", None, "data is None; expected a text"),
        bad("arms", "kd", "arms is 'kd'; expected a list, such as"),
        bad("arms", ("kd", 1), r"arms is \('kd', 1\); expected a list"),
        bad("learning_rates", 0.001, "learning_rates is 0.001; expected a list, such as"),
        bad("learning_rates", ("a",), r"learning_rates is \('a',\); expected a list"),
        bad("seeds", 2.5, "seeds is 2.5; expected a whole number, such as 3"),
        bad("workers", True, "workers is True; expected a whole number, such as 0"),
        bad("layers", "2", "layers is '2'; expected a whole number"),
        bad("epochs", "many", "epochs is 'many'; expected a number, such as 1.5"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(settings, changes, message):
    with pytest.raises(InputError, match=message):
        replace(settings, **changes)


def test_lists_paths_and_whole_numbers_are_taken(settings, tmp_path):
    same = replace(settings, arms=list(settings.arms), data=tmp_path / "a.csv", weight=1)
    assert same.arms == settings.arms
    assert same.data == str(tmp_path / "a.csv")
    assert hash(same) != hash(settings)


@pytest.fixture(scope="module")
def bad_home(home):
    """The folder with models and tables that can't be used."""
    save_model(home / "tagger", BertForTokenClassification)
    save_model(home / "three", BertForSequenceClassification, num_labels=3)
    save_model(home / "unnamed", BertForSequenceClassification)
    save_model(home / "number", BertForSequenceClassification, num_labels=1)
    save_model(home / "words", BertModel, vocabulary=99)
    names = {"id2label": {0: "good", 1: "bad"}}
    several = {**names, "problem_type": "multi_label_classification"}
    save_model(home / "several", BertForSequenceClassification, **several)
    config = json.loads((home / "unnamed" / "config.json").read_text())
    config |= {"id2label": names["id2label"], "label2id": {"good": 0, "bad": 1}}
    changed = {"no_padding": {"pad_token_id": None}, "other_padding": {"pad_token_id": 7},
               "generator": {"architectures": ["GPT2LMHeadModel"]}}  # fmt: skip
    for name, values in changed.items():
        save_model(home / name, BertForSequenceClassification, **names)
        (home / name / "config.json").write_text(json.dumps({**config, **values}))
    small_config(pad_token_id=7).save_pretrained(home / "student_padding")
    (home / "damaged").mkdir()
    (home / "damaged" / "distillation.json").write_text("{")
    small_config(max_position_embeddings=40).save_pretrained(home / "short")
    wide = small_config()
    wide.hidden_size = 96
    wide.save_pretrained(home / "wide")
    AlbertConfig(
        vocab_size=30522, embedding_size=16, hidden_size=16, num_attention_heads=2,
        intermediate_size=32, architectures=["AlbertModel"],
    ).save_pretrained(home / "albert")  # fmt: skip
    MINILM.save_pretrained(home / "albert")
    (home / "folder").mkdir()
    (home / "link").symlink_to(home / "folder")
    shutil.copytree(home / "encoder", home / "silent", ignore=shutil.ignore_patterns("token*"))
    table = pd.read_csv(home / "my.csv")
    table.assign(kind="good").to_csv(home / "one.csv", index=False)
    table.assign(kind=np.arange(len(table)) / 2).to_csv(home / "scores.csv", index=False)
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
        bad("data", "no.csv", "there is no such file"),
        bad("data", "one.csv", "all training rows have the label 'good'; expected two"),
        bad("data", "scores.csv", "labels good, bad, the data decimal numbers; expected the same"),
        bad("data", "few.csv", "expected a few dozen groups"),
        (
            {"max_rows": 9, "batch_size": 2},
            r"has 9 training rows \(max_rows is 9\); expected at least 10, 5 for each class",
        ),
        bad("epochs", 0.1, "give the training rows 1 step, .* expected more epochs or smaller"),
        bad("teacher", "number", "predicts a number, on a scale that its folder does not tell"),
        bad("teacher", "nowhere", "teacher is .*expected minilm, mpnet"),
        bad("teacher", "tagger", "is a BertForTokenClassification, which has no head for text"),
        bad("teacher", "three", "has the labels LABEL_0, LABEL_1, LABEL_2, the data bad, good"),
        bad("teacher", "unnamed", "has the labels LABEL_0, LABEL_1, the data bad, good"),
        bad("teacher", "words", "has a tokenizer of .* tokens, its model takes 99"),
        bad(
            "teacher", "several", "has problem_type multi_label_classification; expected one label"
        ),
        bad(
            "teacher", "no_padding", "has the pad_token_id None in its config.json; expected 0, it"
        ),
        bad(
            "teacher", "other_padding", "has the pad_token_id 7 in its config.json; expected 0, it"
        ),
        bad("student", "student_padding", "student .+ has the pad_token_id 7 .+; expected 0"),
        bad("teacher", "generator", "is a GPT2LMHeadModel, which has no head for text"),
        bad("out", "damaged", "distillation.json is damaged; expected another out, or remove"),
        bad("teacher", "albert", "has 0 lists of 12 blocks"),
        bad("student", "short", "max_length is 96; expected at most 40, which is what the student"),
        bad("student", "wide", "is 96 wide and has no weights; expected at most 48, the teacher's"),
        bad("out", "link", "link is a link; expected a folder, or the name of a new one"),
        bad("teacher", "silent", "has a tokenizer of 5 tokens, its model takes 30522"),
        bad("student", "words", "has other tokens than the teacher"),
        bad("student", "nowhere", "expected first, uniform, a folder"),
        bad("layers", 9, "9"),
        bad("teacher_layer", 7, "teacher_layer is 7, the teacher has layers 0"),
        bad("student_layer", 5, "student_layer is 5, the student has layers 0"),
        bad("teacher_layer", "encoder.layer.9", "teacher_layer is .+, which names 0 modules"),
        bad("student_layer", "layer.0.intermediate", "whose output is none of the student's hid"),
        bad("out", "other", "other holds other files; expected a new or empty folder"),
        bad("out", "file", "file holds other files; expected a new or empty folder"),
        bad("out", "file/student", r"can't be written \(Not a directory\)"),
        bad("weight", 2.0, "the student of another distillation: its weight was 1.0, now it is 2"),
    ],
)
def test_what_cannot_be_distilled_is_refused_before_any_training(
    bad_home, settings, distilled, changes, message, monkeypatch
):
    monkeypatch.setattr(
        text_classification, "prepare_classification", lambda *args: pytest.fail("work")
    )
    named = {"teacher", "student", "data", "out"} & set(changes)
    values = {
        name: str(bad_home / value) if name in named else value for name, value in changes.items()
    }
    values |= {} if "out" in changes or "weight" in changes else {"out": str(bad_home / "new")}
    with pytest.raises(InputError, match=message):
        quietly(replace(settings, **values))
    assert not (bad_home / "new").exists()
    assert not (bad_home / "new-runs").exists()
    assert (bad_home / "other" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("setting", "name"), [("data", "product"), ("teacher", "minilm"), ("student", "first")]
)
def test_a_name_of_the_library_that_is_a_folder_too_is_refused(
    settings, tmp_path, monkeypatch, setting, name
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{setting} is '{name}', which comes with .+ './{name}'"):
        quietly(replace(settings, **{setting: name}))


def test_columns_of_data_that_has_its_own_are_refused(settings):
    for name in ("text", "label", "group"):
        defaults = {"text": "text", "label": "label", "group": ""}
        changed = replace(settings, data="product", **{**defaults, name: "mine"})
        message = f"{name} is 'mine', but data 'product' has its own columns; leave it out"
        with pytest.raises(InputError, match=message):
            read_inputs(changed)


def test_an_epoch_is_a_pass_with_its_last_smaller_batch(settings):
    few = replace(settings, max_rows=33, batch_size=32, epochs=10)
    assert read_inputs(few)[1].steps == 20


def test_texts_longer_than_the_teacher_takes_are_refused(settings, tmp_path):
    long = replace(settings, out=str(tmp_path / "student"), max_length=9_999)
    with pytest.raises(InputError, match="max_length is 9999; expected at most 512"):
        quietly(long)
    assert not (tmp_path / "student-runs").exists()


def test_a_distillation_that_another_process_makes_is_told_by_its_argument(settings, tmp_path):
    busy = replace(settings, out=str(tmp_path / "student"))
    with (  # also one of other data: it would write to the same student's folder
        locked(busy.runs_folder),
        pytest.raises(InputError, match=r"is in use by process .*name another folder by out"),
    ):
        quietly(busy)


def test_runs_of_other_texts_or_of_another_teacher_are_no_runs_of_these(settings, home, tmp_path):
    """Files that change under the same name: what was made of the former ones is not taken."""
    shutil.copytree(home / "classifier", teacher := tmp_path / "classifier")
    shutil.copy(home / "my.csv", table := tmp_path / "my.csv")
    changed = replace(settings, teacher=str(teacher), data=str(table), out=str(tmp_path / "new"))
    contents = []
    for change in (None, teacher / "config.json", table):
        if change:
            change.write_text(change.read_text().replace("great", "pretty") + "\n")
        contents.append(record_of(changed, read_inputs(changed)[0].data_hash)["content"])
    assert len(set(contents)) == 3


def test_an_encoder_without_a_head_is_fine_tuned_on_classes_and_on_numbers(home, settings):
    encoder = replace(settings, teacher=str(home / "encoder"))
    data, runs = read_inputs(encoder)
    assert (data.label_names, runs.teacher.epochs) == (("bad", "good"), 2)
    assert read_inputs(settings)[1].teacher.epochs == 0


def test_numbers_are_distilled_and_their_scale_is_said(home, tmp_path):
    table = pd.read_csv(home / "my.csv")
    stars = np.where(table["kind"] == "good", 4.5, 1.5) + np.arange(len(table)) % 3 / 4
    table.assign(stars=stars).to_csv(tmp_path / "stars.csv", index=False)
    numbers = YourModelSettings(
        data=str(tmp_path / "stars.csv"), text="review", label="stars", layers=1, seeds=2,
        teacher=str(home / "encoder"), learning_rates=(3e-3,), out=str(tmp_path / "student"),
    )  # fmt: skip
    answer = quietly(numbers)
    assert answer.metric == "pearson"
    means = answer.runs.groupby("method")["pearson"].mean()
    shown = answer.levels.set_index("student")["mean (points)"].astype(float)
    assert shown["KD"] == pytest.approx(100 * means["kd"], abs=0.05)
    difference = means["kd+procrustes"] - means["kd"]  # not of the squared errors
    assert answer.report.rows[0].comparison.estimate == pytest.approx(difference, abs=1e-6)
    train = pd.Series(read_inputs(numbers)[0].train["label"], dtype=float)
    scale = f"It predicts (number - {train.mean():.6g}) / {train.std():.6g}."
    assert scale in (answer.folder / "README.md").read_text()
    assert AutoModelForSequenceClassification.from_pretrained(answer.folder).num_labels == 1


def test_a_pair_is_read_as_its_tokenizer_gives_it_to_models(home, tmp_path):
    """Models that know which text a token is of, by plain calls of teacher and student."""
    table = pd.read_csv(home / "my.csv")
    table.assign(other=table["review"][::-1].to_numpy()).to_csv(tmp_path / "p.csv", index=False)
    names = {0: "good", 1: "bad"}
    save_model(tmp_path / "t", BertForSequenceClassification, id2label=names, initializer_range=0.5)
    pairs = YourModelSettings(
        data=str(tmp_path / "p.csv"), text="review, other", label="kind", layers=1, seeds=1,
        teacher=str(tmp_path / "t"), arms=("kd",), learning_rates=(1e-3,), max_rows=64,
        out=str(tmp_path / "student"),
    )  # fmt: skip
    quietly(pairs)
    (path,) = pairs.runs_folder.glob("*/test/items.parquet")
    stored_items = read_stored(path)
    data = read_inputs(pairs)[0]
    test = data.test.to_pandas().set_index("item")
    for method, folder in (("teacher", tmp_path / "t"), ("kd", tmp_path / "student")):
        items = stored_items[stored_items["method"] == method].set_index("item")
        rows = test.loc[items.index]
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        texts = [list(rows[column]) for column in data.text_columns]
        batch = tokenizer(*texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            nll = -model(**batch).logits.log_softmax(-1)
        by_hand = nll.gather(1, torch.tensor(items["label"].to_numpy())[:, None])[:, 0].numpy()
        assert items["nll"].to_numpy() == pytest.approx(by_hand, abs=1e-4)
        batch["token_type_ids"].zero_()
        with torch.no_grad():
            without = -model(**batch).logits.log_softmax(-1)
        assert (without - nll).abs().max() > 0.01, "the second text is marked"


def test_students_of_a_half_precision_teacher_are_trained_in_single_precision(
    home, settings, tmp_path
):
    teacher = AutoModelForSequenceClassification.from_pretrained(home / "classifier").bfloat16()
    teacher.save_pretrained(tmp_path / "half")
    MINILM.save_pretrained(tmp_path / "half")
    half = replace(
        settings, teacher=str(tmp_path / "half"), arms=("kd",), seeds=1, learning_rates=(1e-5,),
        out=str(tmp_path / "student"),
    )  # fmt: skip
    quietly(half)
    student, start = weights(tmp_path / "student"), weights(tmp_path / "half")
    assert {value.dtype for value in student.values()} == {torch.float32}
    name = "bert.encoder.layer.0.output.dense.weight"
    moved = (student[name] != start[name].float()).float().mean()
    assert moved > 0.9, "small steps are not rounded off"


def test_a_student_that_was_removed_from_the_runs_is_made_again(settings, distilled, tmp_path):
    again = replace(settings, out=str(tmp_path / "student"))
    first = weights(distilled[0].folder)
    shutil.copytree(settings.runs_folder, again.runs_folder)
    for folder in again.runs_folder.glob("*/students"):
        shutil.rmtree(folder)
    answer = quietly(again)
    assert all(torch.equal(w, first[name]) for name, w in weights(answer.folder).items())


def test_labels_are_numbered_as_the_teachers_and_stay_the_same_words(home, settings):
    data = load_table(home / "my.csv", texts="review", label="kind")
    ordered = read_inputs(settings)[0]
    assert data.label_names == ("bad", "good")
    assert ordered.label_names == ("good", "bad")
    for name in ("train", "validation", "test"):
        words = [
            [d.label_names[label] for label in getattr(d, name)["label"]] for d in (data, ordered)
        ]
        assert words[0] == words[1]


def test_numbers_are_the_teachers_numbers_unless_its_names_say_otherwise(home):
    table = pd.read_csv(home / "my.csv")
    table["kind"] = (table["kind"] == "good").astype(int)
    table.to_csv(home / "numbers.csv", index=False)
    data = load_table(home / "numbers.csv", texts="review", label="kind")
    assert number_labels(data, {0: "LABEL_0", 1: "LABEL_1"}, "mine") is data
    turned = number_labels(data, {0: "1", 1: "0"}, "mine")
    assert [1 - label for label in turned.test["label"]] == data.test["label"][:]
    with pytest.raises(InputError, match="has the labels a, b, c, the data 0, 1"):
        number_labels(data, {0: "a", 1: "b", 2: "c"}, "mine")


def test_several_processes_are_refused(settings, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"WORLD_SIZE is 2: .* without torchrun or accelerate"):
        quietly(settings)
