"""Score tables of any origin: each shape gives the same scores; unfit tables are refused."""

import numpy as np
import pandas as pd
import pytest
from support.paired_items import crossed_rows

from geodistill.analysis.report.comparison_report import compare_all
from geodistill.analysis.score_tables import read_scores
from geodistill.analysis.stats.collapse import find_collapsed
from geodistill.errors import InputError

KEYS = ["task", "method", "seed", "item"]


@pytest.fixture
def long():
    frame = crossed_rows(task="ab", method=["kd", "cka"], seed=range(2), item=range(3))
    return frame.assign(value=np.random.default_rng(0).integers(0, 2, len(frame)).astype(float))


def read(frame, tmp_path, name="x.csv", **options):
    path = tmp_path / name
    writers = {
        "csv": lambda: frame.to_csv(path, index=False),
        "tsv": lambda: frame.to_csv(path, index=False, sep="\t"),
        "jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        "parquet": lambda: frame.to_parquet(path),
    }
    writers[path.suffix[1:]]()
    return read_scores(path, "kd", **({"metric": "accuracy"} | options))


def same(scores, long):
    expected = long.assign(item=long["item"].astype(str)).set_index(KEYS)["value"].sort_index()
    found = scores.frame.set_index(KEYS)["score"].sort_index()
    pd.testing.assert_series_equal(found, expected, check_names=False, check_index_type=False)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_scores(long, tmp_path, ending):
    scores = read(long, tmp_path, f"x.{ending}")
    same(scores, long)
    assert (scores.n_rows, scores.sign_flipped, scores.has_items) == (24, False, True)
    assert set(scores.left_out.values()) == {0}


def test_other_names_by_option_and_by_convention(long, tmp_path):
    columns = {"method": "arm", "task": "bench", "value": "v", "item": "n"}
    same(read(long.rename(columns=columns), tmp_path, columns=columns), long)
    aliases = {"method": "model", "task": "dataset", "value": "score", "item": "id"}
    same(read(long.rename(columns=aliases), tmp_path, metric=None), long)


def test_wide_by_method_and_wide_by_metric(long, tmp_path):
    by_method = long.pivot(index=["task", "seed", "item"], columns="method", values="value")
    same(read(by_method.reset_index(), tmp_path), long)
    wide = long.rename(columns={"value": "accuracy"}).assign(nll=9.0)
    same(read(wide, tmp_path), long)
    same(read(wide.drop(columns="nll"), tmp_path, metric=None), long)
    with pytest.raises(InputError, match="has the columns accuracy, nll: choose one by --metric"):
        read(wide, tmp_path, metric=None)
    assert set(read(wide, tmp_path, metric="nll").frame["score"]) == {-9.0}


def test_one_metric_of_several_rows(long, tmp_path):
    both = pd.concat([long.assign(metric="accuracy"), long.assign(metric="nll", value=7.0)])
    same(read(both, tmp_path), long)
    scores = read(both, tmp_path, metric="nll")
    assert scores.sign_flipped
    assert set(scores.frame["score"]) == {-7.0}
    with pytest.raises(InputError, match="holds the metrics accuracy, nll: choose one"):
        read(both, tmp_path, metric=None)
    with pytest.raises(InputError, match="has no metric 'f1'; it has accuracy, nll"):
        read(both, tmp_path, metric="f1")


def test_labels_and_predictions_give_correctness(long, tmp_path):
    labelled = long.assign(label=1, prediction=long["value"].astype(int))
    same(read(labelled.drop(columns="value"), tmp_path, metric=None), long)


def test_sources_seed_and_task_may_be_absent(long, tmp_path):
    one = long[(long["task"] == "a") & (long["seed"] == 0)].drop(columns=["task", "seed"])
    scores = read(one.assign(cluster=[5, 5, 6] * 2), tmp_path)
    assert scores.frame["source"].astype(float).tolist() == [5, 5, 6] * 2
    assert set(scores.frame["task"]) == {"all"}
    assert scores.taken["task"] == "none: all rows count as one task"
    assert scores.taken["seed"] == "none: all rows count as one seed"
    assert scores.taken["cluster"] == "column cluster: 2"
    assert scores.frame["item"].nunique() == 3


def test_what_is_left_out_is_counted(long, tmp_path):
    spoilt = long.copy()
    spoilt.loc[0, "value"] = np.nan
    spoilt.loc[1, "value"] = np.inf
    spoilt.loc[2, "method"] = None
    scores = read(pd.concat([spoilt, spoilt.iloc[[5, 6]]]), tmp_path, "x.parquet")
    assert scores.n_rows == 26
    assert len(scores.frame) == 21
    assert list(scores.left_out.values()) == [1, 0, 1, 1, 2]
    assert scores.notes[0].startswith("infinite scores of kd are left out (1): if these runs div")


@pytest.mark.parametrize(
    ("metric", "sign_flipped"),
    [
        ("Rouge-L", False),
        ("exact_match", False),
        ("NLL", True),
        ("WER", True),
        ("episode_return", False),
        ("mean_absolute_error", True),
        ("neg_log_loss", False),
        ("negative_log_likelihood", True),
        ("brier_score", True),
        ("log_loss_score", True),
        ("f1_score", False),
        ("main_score", False),
        ("1-auc", True),
        ("1 - accuracy", True),
        ("1-shot accuracy", False),
        ("-nll", False),
        ("score ↓", True),
        ("Index ↑", False),
        ("1 \N{MINUS SIGN} accuracy", True),
        ("\N{MINUS SIGN}RMSE", False),
        ("1\N{EN DASH}F1", True),
        ("1\N{NON-BREAKING HYPHEN}accuracy", True),
        ("1.0 - accuracy", True),
        ("1 - token accuracy", True),
        ("1 - eval/accuracy", True),
        ("mean_test_neg_log_loss", False),
        ("Rouge\N{NON-BREAKING HYPHEN}L", False),
    ],
)
def test_directions_are_known_by_name(long, tmp_path, metric, sign_flipped):
    assert read(long, tmp_path, metric=metric).sign_flipped is sign_flipped


def test_an_unknown_direction_is_asked_for(long, tmp_path):
    reversing = ("one minus f1", "inverse accuracy", "drop in accuracy", "accuracy decline")
    for metric in (None, "zeal", "toxicity_score", "brier_skill_score", *reversing):
        with pytest.raises(InputError, match=r"metric '.*' is unknown: choose --higher or"):
            read(long, tmp_path, metric=metric)
    assert read(long, tmp_path, metric="zeal", higher_is_better=False).sign_flipped
    assert not read(long, tmp_path, metric="nll", higher_is_better=True).sign_flipped


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("meth", "unknown column 'meth'; known are met"),
        ("method", "has no column 'arm'; it has"),
    ],
)
def test_columns_that_are_not_there(long, tmp_path, role, message):
    with pytest.raises(InputError, match=message):
        read(long, tmp_path, columns={role: "arm"})


def test_tables_that_cannot_be_read(long, tmp_path):
    with pytest.raises(InputError, match="no file at"):
        read_scores(tmp_path / "no.csv", "kd")
    for name, text, message in (
        ("x.txt", "a", r"is \.txt; expected \.csv, \.tsv, \.json, \.jsonl"),
        ("x.csv", "", "cannot be read: No columns"),
        ("x.parquet", "no", "cannot be read"),
        ("x.csv", "method,value\n", "holds no rows"),
        ("x.csv", "arm,value\na,1\n", "has neither a column method nor 'kd': arm, value"),
        ("x.csv", "method,seed\nkd,1\n", "has no metric 'accuracy'; its columns are method, seed"),
        ("x.csv", "method,value\nkd,much\n", "value 'much' is not a number"),
        ("x.csv", "method,metric\nkd,accuracy\n", "has a column metric and none for its value"),
        ("x.csv", "method,metric,value\nkd,,1\n", "has no metric 'accuracy'; it has $"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            read_scores(tmp_path / name, "kd", metric="accuracy")


def test_one_score_given_twice_and_differently(long, tmp_path):
    twice = pd.concat([long, long.iloc[[0]].assign(value=0.5)])
    with pytest.raises(
        InputError, match="two different values for task a, method kd, seed 0, item 0"
    ):
        read(twice, tmp_path)
    with pytest.raises(
        InputError, match=r"--column fold=NAME or item=NAME \(the table has none: add it\)"
    ):
        read(twice.drop(columns="item"), tmp_path)


@pytest.mark.parametrize("size", [1e80, 1e-12])
def test_scores_too_large_or_too_small_to_square_are_refused(long, tmp_path, size):
    with pytest.raises(InputError, match=r"largest score is .*expected a unit .* between 1e-09"):
        read(long.assign(value=size * (1 + long["value"])), tmp_path, metric="nll")


def test_a_method_without_a_finite_score_is_named(long, tmp_path):
    both = long.assign(value=long["value"].where(long["method"] == "kd"))
    assert read(both, tmp_path).notes == ("left out, since no row has a finite score: cka",)
    with pytest.raises(InputError, match="no row of 'kd' has a finite score"):
        read(long.assign(value=long["value"].where(long["method"] != "kd")), tmp_path)


def test_names_may_be_given_alone_or_as_numbers(long, tmp_path):
    numbered = long.assign(task=long["task"].map({"a": 1, "b": 2}))
    assert set(read(numbered, tmp_path, tasks=[1]).frame["task"]) == {"1"}
    same(read(long, tmp_path, methods="cka"), long)
    path = tmp_path / "x.csv"
    same(read_scores(str(path), "kd", metric="accuracy"), long)
    with pytest.raises(InputError, match="methods names the baseline 'kd' alone"):
        read(long, tmp_path, methods=["kd"])


@pytest.mark.parametrize(
    ("columns", "options"),
    [({"repeat": "r"}, "seed=repeat$"), ({"part": "p"}, "task=part or seed=part or item=part$")],
)
def test_a_repetition_of_folds_is_named_as_the_seed(tmp_path, columns, options):
    (name, letter), index = next(iter(columns.items())), range(20)
    frame = pd.DataFrame({"method": ["kd", "cka"] * 10, "fold": [i // 2 % 5 for i in index]})
    frame = frame.assign(
        value=np.linspace(0, 1, 20), **{name: [f"{letter}{i // 10}" for i in index]}
    )
    with pytest.raises(InputError, match=f"tells them apart by --column {options}"):
        read(frame, tmp_path)


def generated(long):
    """Free texts beside a reference of each item, with the overlap as a column."""
    reference = "summary of " + long["item"].astype(str)
    answer = reference.where(long.index % 3 == 0, "some words on " + long["item"].astype(str))
    overlap = np.random.default_rng(1).random(len(long))
    return long.drop(columns="value").assign(reference=reference, response=answer, rougeL=overlap)


@pytest.mark.parametrize("metric", [None, "rougeL"])
def test_free_texts_are_neither_classes_nor_scores(long, tmp_path, metric):
    frame = generated(long)
    scores = read(frame, tmp_path, metric=metric)
    assert scores.metric == "rougeL"
    assert scores.frame["score"].tolist() == pytest.approx(frame["rougeL"].tolist())
    assert not find_collapsed(scores.frame)["collapsed"].any()
    matches = read(frame.drop(columns="rougeL"), tmp_path, metric="exact_match").frame["score"]
    assert matches.sum() == len(frame) / 3


def test_numbers_on_a_scale_have_no_accuracy(long, tmp_path):
    frame = long.drop(columns="value").assign(target=long["item"] / 2, pred=long["seed"] / 4)
    with pytest.raises(
        InputError, match=r"numbers on a scale.*choose --metric pearson or spearman"
    ):
        read(frame, tmp_path, metric=None)
    errors = frame.assign(mae=(frame["target"] - frame["pred"]).abs())
    assert read(errors, tmp_path, metric=None).metric == "mae"


@pytest.mark.parametrize("metric", [None, "mcc"])
@pytest.mark.parametrize("coding", [("neg", "pos"), ("False", "True"), (3, 4)])
def test_predictions_in_another_coding_are_refused(long, tmp_path, coding, metric):
    label, guess = long["item"] % 2, long["value"].astype(int)
    other = guess.map(dict(enumerate(coding))).astype(object)
    frame = long.drop(columns="value").assign(label=label, prediction=guess)
    frame["prediction"] = frame["prediction"].astype(object).mask(frame["method"] == "cka", other)
    with pytest.raises(
        InputError, match=r"predictions of cka in a \(.*\) are none of the labels \(0, 1"
    ):
        read(frame, tmp_path, metric=metric)


def test_an_item_with_two_labels_is_two_items(long, tmp_path):
    labels = [0, 1, 0] * 7 + [1, 1, 0]  # shuffled in the last run
    frame = long.drop(columns="value").assign(label=labels, prediction=[0, 1] * 12)
    with pytest.raises(InputError, match="item 0 of b has the labels 0 and 1: expected one label"):
        read(frame, tmp_path)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_a_metric_of_labels_is_not_the_mean_of_a_column_of_scores(metric, tmp_path):
    """Items of a regression have minus the squared error as their score."""
    rng = np.random.default_rng(0)
    label = rng.normal(size=60)
    runs = []
    for method, noise, shift in (("kd", 1.0, 0.0), ("new", 0.3, 5.0)):
        for seed in range(3):
            prediction = label + shift + noise * rng.normal(size=60)
            run = {"method": method, "seed": seed, "item": np.arange(60).astype(str)}
            run |= {"label": label, "prediction": prediction, "score": -((prediction - label) ** 2)}
            runs.append(pd.DataFrame(run))
    items = pd.concat(runs)
    items.to_csv(tmp_path / "items.csv", index=False)
    scores = read_scores(tmp_path / "items.csv", "kd", metric=metric)
    assert (scores.metric, scores.metric_from_labels) == (metric, metric)
    report = compare_all(scores, "kd", ["new"])
    means = {
        method: np.mean(
            [r["label"].corr(r["prediction"], method=metric) for _, r in of.groupby("seed")]
        )
        for method, of in items.groupby("method")
    }
    difference = means["new"] - means["kd"]
    assert difference > 0.1, "a shift does not change it"
    assert report.rows[0].comparison.estimate == pytest.approx(difference, abs=1e-6)
    named = read_scores(tmp_path / "items.csv", "kd", {"value": "score"}, metric=metric)
    assert named.metric_from_labels == "", "a column that is named counts"
