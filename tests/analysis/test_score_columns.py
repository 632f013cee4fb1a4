"""Tables as people have them: every shape gives the same scores, and says what was taken."""

import gzip
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from geodistill.analysis import compare_all
from geodistill.analysis.score_columns import comparable, to_numbers
from geodistill.analysis.score_tables import read_scores
from geodistill.errors import InputError

ROWS = [
    {"Model": m, "Dataset": d, "Seed": s, "Accuracy": round(0.7 + 0.1 * i + 0.01 * s, 3)}
    for i, (m, d) in enumerate([("kd", "x"), ("kd", "y"), ("new", "x"), ("new", "y")])
    for s in range(3)
]
TABLE = pd.DataFrame(ROWS)
EXPECTED = {(r["Dataset"], r["Model"], r["Seed"]): r["Accuracy"] for r in ROWS}


def scores_of(path, **options):
    table = read_scores(path, "kd", **options)
    rows = table.frame[["task", "method", "seed", "score"]].itertuples(index=False)
    return table, {(task, method, int(seed)): score for task, method, seed, score in rows}


def wide_by_seed(prefix):
    wide = TABLE.pivot(index=["Model", "Dataset"], columns="Seed", values="Accuracy")
    return wide.rename(columns=lambda seed: f"{prefix}{seed}").reset_index()


def wide_by_method(name):
    wide = TABLE.pivot(index="Dataset", columns=["Model", "Seed"], values="Accuracy")
    wide.columns = [name.format(model, seed) for model, seed in wide.columns]
    return wide.reset_index()


SHAPES = {
    "capitals.csv": (TABLE, {}),
    "semicolons.csv": (TABLE, {"sep": ";", "decimal": ","}),
    "tabs.tsv": (TABLE, {"sep": "\t"}),
    "packed.csv.gz": (TABLE, {}),
    "blanks.csv": (TABLE.assign(Model=TABLE["Model"] + " "), {}),
    "named.csv": (TABLE.rename(columns={"Model": "Framework", "Dataset": "Benchmark"}), {}),
    "indexed.csv": (TABLE.reset_index().rename(columns={"index": "Unnamed: 0"}), {}),
    "a_column_a_seed.csv": (wide_by_seed("seed_"), {}),
    "bare_numbers.csv": (wide_by_seed(""), {}),
    "seed_in_the_name.csv": (
        TABLE.assign(Model=TABLE["Model"] + "-seed" + TABLE["Seed"].astype(str)).drop(
            columns="Seed"
        ),
        {},
    ),
    "a_column_a_run.csv": (wide_by_method("{}_seed{}"), {}),
    "a_column_a_numbered_run.csv": (wide_by_method("{}-{}"), {}),
    "other_words.csv": (
        TABLE.rename(columns={"Model": "algo", "Dataset": "Corpus", "Seed": "Run"}),
        {},
    ),
    "methods_are_groups.csv": (
        TABLE.rename(columns={"Model": "Group"}).assign(
            Name=[f"fancy-lion-{n}" for n in range(len(TABLE))], Sweep=None, State="finished"
        ),
        {},
    ),
    "row_names.csv": (TABLE.rename(columns={"Model": "Unnamed: 0"}), {}),
    "cross_validation.csv": (
        wide_by_seed("split")
        .rename(columns=lambda name: f"{name}_test_score" if "split" in name else name)
        .assign(split0_train_score=1.0, split1_train_score=1.0, rank_test_score=[1, 2, 3, 4]),
        {},
    ),
    "folds.csv": (
        TABLE.rename(columns={"Seed": "fold"}).assign(seed=range(100, 112), id=TABLE["Dataset"]),
        {},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_read_at_the_first_call(name, tmp_path):
    frame, options = SHAPES[name]
    frame.to_csv(tmp_path / name, index=False, **options)
    table, scores = scores_of(tmp_path / name, metric="accuracy")
    assert scores == pytest.approx(EXPECTED)
    assert not table.has_items
    assert set(table.taken) == {"method", "task", "seed", "item", "value"}
    assert table.taken["value"].endswith("; higher is better")


def test_json_of_records_of_columns_and_a_file_a_run(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps(ROWS))
    (tmp_path / "c.json").write_text(json.dumps(TABLE.to_dict("list")))
    with gzip.open(tmp_path / "l.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, ROWS)))
    folder = tmp_path / "runs"
    folder.mkdir()
    for number, row in enumerate(ROWS):
        (folder / f"{number}.json").write_text(json.dumps(row))
    for path in (tmp_path / "r.json", tmp_path / "c.json", tmp_path / "l.jsonl.gz", folder):
        assert scores_of(path)[1] == pytest.approx(EXPECTED)


def test_an_export_of_an_evaluation_harness(tmp_path):
    for model, right in (("kd", [1.0, 0.0, 1.0]), ("new", [1.0, 1.0, 1.0])):
        (tmp_path / model).mkdir()
        results = {"arc": {"alias": "arc", "acc,none": np.mean(right), "acc_stderr,none": 0.1}}
        content = {"results": results, "model_name": model, "config": {"model": "hf"}}
        (tmp_path / model / "results_2024.json").write_text(json.dumps(content))
    table, scores = scores_of(tmp_path, metric="acc")
    assert scores == pytest.approx({("arc", "kd", 0): 2 / 3, ("arc", "new", 0): 1.0})
    for model, right in (("kd", [1.0, 0.0, 1.0]), ("new", [1.0, 1.0, 1.0])):
        lines = [
            {"doc_id": i, "target": "a", "filtered_resps": ["b"], "doc": {"q": 1}, "acc": x}
            for i, x in enumerate(right)
        ]
        text = "\n".join(map(json.dumps, lines))
        (tmp_path / model / "samples_arc_2024-05-01T10-00-00.jsonl").write_text(text)
    table, _ = scores_of(tmp_path)
    assert table.has_items
    assert table.metric == "acc"
    means = table.frame.groupby(["task", "method"])["score"].mean().to_dict()
    assert means == pytest.approx({("arc", "kd"): 2 / 3, ("arc", "new"): 1.0})


def test_the_subtasks_of_a_group_are_no_tasks_beside_it(tmp_path):
    results = {"mmlu": {"acc,none": 0.5}, "law": {"acc,none": 0.4}, "art": {"acc,none": 0.6}}
    for model in ("kd", "new"):
        content = {"results": results | {"arc": {"acc,none": 0.7}}, "model_name": model}
        content["group_subtasks"] = {"mmlu": ["law", "art"], "arc": []}
        (tmp_path / f"{model}.json").write_text(json.dumps(content))
    _, scores = scores_of(tmp_path)
    assert {task: score for (task, method, _), score in scores.items() if method == "new"} == {
        "mmlu": 0.5,
        "arc": 0.7,
    }


def test_a_folder_of_an_embedding_benchmark(tmp_path):
    for model, score in (("kd", 0.7), ("new", 0.8)):
        folder = tmp_path / model / "revision"
        folder.mkdir(parents=True)
        for task, subsets in (("STS12", ["default"]), ("Massive", ["de", "en"])):
            rows = [{"main_score": score, "hf_subset": name} for name in subsets]
            content = {"task_name": task, "mteb_version": "1", "scores": {"test": rows}}
            (folder / f"{task}.json").write_text(json.dumps(content))
    table, scores = scores_of(tmp_path)
    assert table.metric == "main_score"
    assert {task for task, _, _ in scores} == {"STS12", "Massive/de", "Massive/en"}
    assert {method: score for (_, method, _), score in scores.items()} == {"kd": 0.7, "new": 0.8}


@pytest.mark.parametrize("prefix", ["fold_", "cv", "split "])
def test_one_column_per_fold_is_cross_validation(tmp_path, prefix):
    wide_by_seed(prefix).to_csv(tmp_path / "x.csv", index=False)
    table, scores = scores_of(tmp_path / "x.csv", metric="accuracy")
    assert "folds of cross-validation (K = 3)" in table.taken["seed"]
    assert table.frame["fold"].equals(table.frame["seed"])
    assert scores == pytest.approx(EXPECTED)


def test_per_cents_in_one_column_per_seed(tmp_path):
    wide = wide_by_seed("seed ")
    for name in ("seed 0", "seed 1", "seed 2"):
        wide[name] = [f"{100 * value:.1f} %" for value in wide[name]]
    wide.to_csv(tmp_path / "x.csv", index=False)
    _, scores = scores_of(tmp_path / "x.csv", metric="accuracy")
    assert scores == pytest.approx({key: 100 * value for key, value in EXPECTED.items()})


def test_two_values_of_one_score_name_the_column_that_differs(tmp_path):
    TABLE.rename(columns={"Dataset": "Where"}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InputError, match=r"keep one, or name .* --column task=Where or fold="):
        scores_of(tmp_path / "x.csv")
    _, scores = scores_of(tmp_path / "x.csv", columns={"task": "Where"})
    assert scores == pytest.approx(EXPECTED)
    clusters = "method,item,doc,accuracy\nkd,1,a,0.5\nkd,1,b,0.6\nkd,2,c,1\n"
    (tmp_path / "x.csv").write_text(clusters)
    with pytest.raises(InputError, match=r"task=NAME or seed=NAME \(the table has none"):
        scores_of(tmp_path / "x.csv")  # not "task=source": no column has that name
    columns = pd.DataFrame({"kd": [0.1, 0.2], "new": [0.2, 0.3], "series": ["a", "b"]})
    columns.to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InputError, match="seed=series or fold=series or item="):
        scores_of(tmp_path / "x.csv", metric="accuracy")


def test_the_export_of_a_chart_counts_the_last_value_of_each_run(tmp_path):
    frame = pd.DataFrame({"Step": [20, 10]})  # in any order
    for (_, model, seed), accuracy in EXPECTED.items():
        frame[f"{model}-seed{seed} - eval/accuracy"] = [accuracy, 0.0]
        frame[f"{model}-seed{seed} - eval/accuracy__MAX"] = 1.0
    frame.to_csv(tmp_path / "x.csv", index=False)
    _, scores = scores_of(tmp_path / "x.csv")
    assert scores == pytest.approx(
        {("all", m, s): v for (d, m, s), v in EXPECTED.items() if d == "y"}
    )


def test_one_column_per_task_without_their_average(tmp_path):
    wide = TABLE.pivot(index=["Model", "Seed"], columns="Dataset", values="Accuracy").reset_index()
    wide.assign(Average=wide[["x", "y"]].mean(axis=1)).to_csv(tmp_path / "x.csv", index=False)
    table, scores = scores_of(tmp_path / "x.csv", metric="accuracy")
    assert scores == pytest.approx(EXPECTED)
    assert table.taken["task"] == "one column each: x, y (left out: Average)"
    with pytest.raises(InputError, match=r"x, y, Average: choose one by --metric \(or, if they"):
        scores_of(tmp_path / "x.csv")


def test_words_for_right_and_wrong_are_read(tmp_path):
    text = "model,question_id,correct\nkd,0,yes\nkd,1,no\nnew,0,Yes\nnew,1,yes\n"
    (tmp_path / "x.csv").write_text(text)
    means = read_scores(tmp_path / "x.csv", "kd").frame.groupby("method")["score"].mean()
    assert means.to_dict() == {"kd": 0.5, "new": 1.0}


def test_row_names_and_separators_at_the_end_shift_no_column(tmp_path):
    lines = [f"{r['Model']},{r['Dataset']},{r['Seed']},{r['Accuracy']}" for r in ROWS]
    header = "model,dataset,seed,accuracy"
    by_r = "\n".join([header, *(f"{i},{line}" for i, line in enumerate(lines))])
    closed = "\n".join([header, *(f"{line}," for line in lines)])
    for text in (by_r, closed):
        (tmp_path / "x.csv").write_text(text)
        assert scores_of(tmp_path / "x.csv")[1] == pytest.approx(EXPECTED)
    (tmp_path / "x.csv").write_text(f"{header}\n" + "\n".join(f"1,2,{line}" for line in lines))
    with pytest.raises(InputError, match="rows have more fields than the header"):
        scores_of(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_bytes("modèle,accuracy\nkd,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8 text"):
        scores_of(tmp_path / "x.csv")


def test_names_are_names_and_only_values_are_missing(tmp_path):
    text = "method,seed,accuracy\nkd,0,0.5\nnull,0,NA\nNA,0,0.25\nNone,0,null\nnan,0,0.75\n"
    (tmp_path / "x.csv").write_text(text)
    table, scores = scores_of(tmp_path / "x.csv")
    assert scores == {("all", "kd", 0): 0.5, ("all", "NA", 0): 0.25, ("all", "nan", 0): 0.75}
    assert table.left_out["without a finite value"] == 2


def test_columns_that_are_no_methods_are_left_out_and_named(tmp_path):
    kd, new = [0.1, 0.9, 0.4], [0.3, 0.8, 0.7]
    frame = pd.DataFrame({"Step": [10, 20, 30], "kd": kd, "new": new, "n_params": 1e6, "odd": 7.0})
    frame.to_csv(tmp_path / "x.csv")  # with pandas' index
    table, _ = scores_of(tmp_path / "x.csv", metric="accuracy", columns={"seed": "Step"})
    assert set(table.frame["method"]) == {"kd", "new"}
    assert "not taken as methods: Unnamed: 0, n_params, odd" in table.taken["method"]
    table, _ = scores_of(
        tmp_path / "x.csv", metric="loss", columns={"seed": "Step"}, methods=["odd"]
    )
    assert set(table.frame["method"]) == {"kd", "odd"}


def test_an_id_of_the_task_is_no_item_and_a_column_can_be_unmapped(tmp_path):
    frame = TABLE.assign(id=TABLE["Dataset"].map({"x": "openml/1", "y": "openml/2"}))
    frame.to_csv(tmp_path / "x.csv", index=False)
    assert not scores_of(tmp_path / "x.csv")[0].has_items
    items = pd.DataFrame({"model": ["kd", "new"] * 4, "id": [0, 0, 1, 1] * 2, "acc": 0.5})
    items["seed"] = [0, 0, 0, 0, 1, 1, 1, 1]
    items.to_csv(tmp_path / "i.csv", index=False)
    assert scores_of(tmp_path / "i.csv")[0].has_items
    table, _ = scores_of(tmp_path / "i.csv", columns={"item": ""})
    assert not table.has_items


def test_folds_are_seeds_where_methods_share_no_seed(tmp_path):
    frame = TABLE.rename(columns={"Seed": "fold"}).assign(seed=range(12))
    frame.to_csv(tmp_path / "x.csv", index=False)
    table, _ = scores_of(tmp_path / "x.csv")
    assert table.taken["seed"].startswith("the fold (methods share no value of the column seed)")
    assert table.frame["fold"].nunique() == 3
    repeated = pd.concat([TABLE.rename(columns={"Seed": "fold"}).assign(seed=s) for s in (0, 1)])
    repeated.to_csv(tmp_path / "x.csv", index=False)
    table = read_scores(tmp_path / "x.csv", "kd")
    assert table.frame["seed"].nunique() == 6


def test_per_cents_are_numbers_and_a_mean_with_its_spread_is_refused():
    assert to_numbers(pd.Series(["81.3%", " 7 %", None]), "x").tolist()[:2] == [81.3, 7.0]
    assert to_numbers(pd.Series(["1e-3", "n/a", "-"]), "x").isna().tolist() == [False, True, True]
    for text in ("0.81 ± 0.01", "0.81 +/- 0.01", "0.81 (0.01)"):
        with pytest.raises(InputError, match=r"a mean with its spread.*one row per run"):
            to_numbers(pd.Series([text]), "x")
    with pytest.raises(InputError, match="some values have a per cent sign"):
        to_numbers(pd.Series(["81%", "0.7"]), "x")


def test_labels_and_predictions_are_compared_as_numbers_where_all_are():
    label, prediction = comparable(pd.Series([1, 2, 3]), pd.Series([1.0, np.nan, 2.0]))
    assert (label == prediction).tolist() == [True, False, False]
    assert label.isna().tolist() == [False, True, False]
    label, prediction = comparable(pd.Series(["a", "1"]), pd.Series(["a ", "1.0"]))
    assert (label == prediction).tolist() == [True, False]  # names, not numbers


def test_missing_predictions_are_left_out_and_counted(tmp_path):
    frame = pd.DataFrame({"method": ["kd", "new"] * 10, "item": np.repeat(range(10), 2)})
    frame = frame.assign(label=1, prediction=[1] * 20).astype({"prediction": "Int64"})
    frame.loc[[1, 3], "prediction"] = pd.NA
    frame.loc[5, "prediction"] = 2
    frame.to_csv(tmp_path / "x.csv", index=False)
    table = read_scores(tmp_path / "x.csv", "kd")
    assert table.left_out["without a label or a prediction"] == 2
    means = table.frame.groupby("method")["score"].mean()
    assert means.to_dict() == {"kd": 1.0, "new": 7 / 8}


def test_what_cannot_be_guessed_names_the_option(tmp_path):
    def refused(text, message, **options):
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            read_scores(tmp_path / "x.csv", "kd", **options)

    refused("kdd,new\n0.1,0.2\n", "neither a column method nor 'kd': kdd, new; did you mean 'kdd'")
    refused("model,note\nkd,good\n", "no column with values.*--column value=NAME")
    refused("model,accuracy\nkd,1\n", "method 'new' is none of the rows'", methods=["new"])
    misspelt = "modell,accuracy\nkd,1\n"
    refused(misspelt, "did you mean 'modell'", columns={"method": "model"})


def test_control_characters_are_shown_by_their_code(tmp_path):
    frame = pd.DataFrame({"method": ["kd", "e\x1b[31mvil"], "accuracy": [0.1, 0.2]})
    frame.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    table = read_scores(tmp_path / "x.jsonl", "kd")
    assert table.frame["method"].tolist() == ["kd", r"e\x1b[31mvil"]


def named_rows(names, column="method", seeds=("0", "1", "2")):
    """Rows of runs whose accuracy tells method and seed apart."""
    lines = [f"{n},{s},0.{i}{j}" for i, n in enumerate(names) for j, s in enumerate(seeds)]
    return "\n".join([f"{column},seed,accuracy", *lines]) + "\n"


@pytest.mark.parametrize("names", [("1e5", "1e6"), ("TRUE", "FALSE"), ("1.1", "1.10")])
def test_names_that_spell_numbers_stay_as_they_are_written(tmp_path, names):
    (tmp_path / "x.csv").write_text(named_rows(names, column="Model"))
    frame = read_scores(tmp_path / "x.csv", names[0]).frame
    assert dict(frame.groupby("method")["score"].mean()) == pytest.approx(
        {names[0]: 0.01, names[1]: 0.11}
    )


def test_items_and_columns_named_as_names_stay_as_they_are_written(tmp_path):
    items = ["01", "1", "2.1", "2.10", "1000000000000000001", "1000000000000000002", ""]
    lines = [f"{m},{i},0.{k}" for m in ("1.1", "1.10") for k, i in enumerate(items)]
    (tmp_path / "x.csv").write_text("\n".join(["variant,item,accuracy", *lines]) + "\n")
    scores = read_scores(tmp_path / "x.csv", "1.1", {"method": "variant"})
    assert set(scores.frame["item"]) == set(items[:-1])
    assert set(scores.frame["method"]) == {"1.1", "1.10"}


def test_an_item_has_one_name_in_every_format(tmp_path):
    """Also as pandas writes it where another one is missing."""
    text = "method,item,accuracy\nkd,1,0\nkd,2,1\nnew,1.0,1\nnew,2.0,1\n"
    for ending in ("", ","):  # of each row
        header, *rows = text.splitlines()
        lines = [header, *(row + ending for row in rows)]
        (tmp_path / "x.csv").write_text("\n".join(lines))
        assert set(read_scores(tmp_path / "x.csv", "kd").frame["item"]) == {"1", "2"}
    rows = [{"method": "kd", "item": item, "accuracy": 1.0} for item in (1, 2, None)]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    assert set(read_scores(tmp_path / "x.json", "kd").frame["item"]) == {"1", "2"}
    rows[0]["item"] = 10**18 + 1
    for name, text in (("x.json", json.dumps(rows)), ("x.jsonl", "\n".join(map(json.dumps, rows)))):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=r"column item are too large .*: write them as texts"):
            read_scores(tmp_path / name, "kd")


@pytest.mark.parametrize("orient", ["columns", "index", "split", "table", "records"])
def test_tables_as_pandas_writes_them(tmp_path, orient):
    TABLE.to_json(tmp_path / "x.json", orient=orient)
    assert scores_of(tmp_path / "x.json")[1] == pytest.approx(EXPECTED)


def test_an_index_with_names_and_a_byte_order_mark_are_read(tmp_path):
    TABLE.set_index(["Model", "Seed"]).to_parquet(tmp_path / "x.parquet")
    text = TABLE.to_json(orient="records", lines=True)
    (tmp_path / "x.jsonl").write_text(text, encoding="utf-8-sig")
    for name in ("x.parquet", "x.jsonl"):
        assert scores_of(tmp_path / name)[1] == pytest.approx(EXPECTED)


def test_seeds_are_the_same_with_blanks_and_as_text(tmp_path):
    (tmp_path / "x.csv").write_text("method,seed,accuracy\nkd,a,0.5\nnew,a ,0.6\n")
    assert set(read_scores(tmp_path / "x.csv", "kd").frame["seed"]) == {"a"}
    rows = [
        {"method": method, "seed": seed, "accuracy": 0.5}
        for method, kind in (("kd", int), ("new", str))
        for seed in map(kind, range(3))
    ]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    assert read_scores(tmp_path / "x.json", "kd").frame["seed"].nunique() == 3


def test_clusters_are_the_same_with_blanks_and_no_item_joins_another_by_its_name(tmp_path):
    clusters = ["a", "a ", "1", "1", None, None]
    frame = pd.DataFrame({"item": range(6), "doc": clusters, "accuracy": 1.0})
    both = pd.concat([frame.assign(method=method) for method in ("kd", "new")])
    both.to_csv(tmp_path / "x.csv", index=False)
    source = read_scores(tmp_path / "x.csv", "kd").frame.drop_duplicates("item")["source"]
    assert source.value_counts().tolist() == [2, 2, 1, 1]
    frame.assign(doc=[5, 5, 4, 4, 4, None], method="kd").to_csv(tmp_path / "x.csv", index=False)
    source = read_scores(tmp_path / "x.csv", "kd").frame["source"]  # item 5 is not in cluster 5
    assert source.value_counts().tolist() == [3, 2, 1]


@pytest.mark.parametrize("column", ["kfold", "outer_fold", "CV fold", "cv_fold"])
def test_folds_of_other_names_and_in_words_are_folds(tmp_path, column):
    frame = TABLE.rename(columns={"Seed": column})
    frame[column] = "fold" + frame[column].astype(str)
    frame.to_csv(tmp_path / "x.csv", index=False)
    table = read_scores(tmp_path / "x.csv", "kd")
    assert table.frame["fold"].nunique() == 3
    assert "folds of cross-validation (K = 3)" in table.taken["seed"]


def test_a_fold_that_is_not_recognised_is_not_called_a_seed_alone(tmp_path):
    TABLE.rename(columns={"Seed": "part"}).to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(InputError, match=r"--column seed=part or fold=part or item=part$"):
        read_scores(tmp_path / "x.csv", "kd")


def test_many_folds_may_be_those_of_a_repeated_cross_validation(tmp_path):
    wide = pd.DataFrame(0.5, index=["kd", "new"], columns=[f"split{i}_test_acc" for i in range(15)])
    wide.rename_axis("model").reset_index().to_csv(tmp_path / "x.csv", index=False)
    words = read_scores(tmp_path / "x.csv", "kd", metric="acc").taken["seed"]
    assert "(K = 15)" in words
    assert "if it was repeated, name the repetition by --column seed=NAME" in words


def test_counts_of_a_data_set_are_no_methods(tmp_path):
    columns = {"dataset": ["a", "b"], "kd": [4.0, 5.0], "new": [4.1, 5.2]}
    counts = {"n_classes": [2, 3], "num_rows": [90, 70], "NumberOfInstances": [1, 2], "year": 2001}
    pd.DataFrame(columns | counts).to_csv(tmp_path / "x.csv", index=False)
    table = read_scores(tmp_path / "x.csv", "kd", metric="rmse")
    assert set(table.frame["method"]) == {"kd", "new"}
    assert f"not taken as methods: {', '.join(counts)}" in table.taken["method"]


def test_a_table_without_a_second_method_names_the_columns_that_may_be_one(tmp_path):
    pd.DataFrame({"seed": [0, 1], "RF": [0.5, 0.6], "LR": [0.4, 0.5]}).to_csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match="choose from Unnamed: 0, LR by --methods"):
        read_scores(tmp_path / "x.csv", "RF", metric="auc")
    table = read_scores(tmp_path / "x.csv", "RF", metric="auc", methods=["LR"])
    assert table.frame.groupby("method")["score"].mean().to_dict() == {"LR": 0.45, "RF": 0.55}


def test_a_method_whose_first_value_is_missing_is_a_method(tmp_path):
    (tmp_path / "x.csv").write_text("seed,kd,new\n0,0.5,NaN\n1,0.6,0.7\n2,0.7,0.8\n")
    table, scores = scores_of(tmp_path / "x.csv", metric="auc")
    assert scores[("all", "new", 1)] == 0.7
    assert table.left_out["without a finite value"] == 1


def test_the_mean_over_tasks_is_no_task(tmp_path):
    """The paired t over two tasks, not over these and their mean."""
    rows = pd.DataFrame({"dataset": ["a", "b"], "kd": [0.5, 0.7], "new": [0.6, 0.72]})
    mean = rows.mean(numeric_only=True).to_frame().T.assign(dataset="Average")
    pd.concat([rows, mean]).to_csv(tmp_path / "x.csv", index=False)
    scores = read_scores(tmp_path / "x.csv", "kd", metric="auc")
    assert scores.left_out["of a mean over tasks (Average)"] == 2
    result = compare_all(scores, "kd", over_tasks=True).comparisons[0]
    assert result.p == pytest.approx(stats.ttest_rel(rows["new"], rows["kd"]).pvalue)
    chosen = read_scores(tmp_path / "x.csv", "kd", metric="auc", tasks=["Average"])
    assert set(chosen.frame["task"]) == {"Average"}


def test_runs_that_did_not_finish_are_told(tmp_path):
    TABLE.assign(State=["finished"] * 11 + ["crashed"]).to_csv(tmp_path / "x.csv", index=False)
    notes = read_scores(tmp_path / "x.csv", "kd").notes
    assert notes == ("column State: 1 of 12 rows are crashed; are their values final?",)
    TABLE.assign(State="finished").to_csv(tmp_path / "x.csv", index=False)
    assert read_scores(tmp_path / "x.csv", "kd").notes == ()


def test_two_filters_of_one_metric_are_two_metrics(tmp_path):
    for model, strict in (("kd", 0.5), ("new", 0.6)):
        scores = {
            "exact_match,strict-match": strict,
            "exact_match_stderr,strict-match": 0.1,
            "exact_match,flexible-extract": 0.9,
            "acc,none": 0.3,
        }
        content = {"results": {"gsm8k": scores}, "model_name": model, "config": {}}
        (tmp_path / f"{model}.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"metrics acc, exact_match,flex.*, exact_match,strict-m"):
        read_scores(tmp_path, "kd")
    table, scores = scores_of(tmp_path, metric="exact_match,strict-match")
    assert scores == {("gsm8k", "kd", 0): 0.5, ("gsm8k", "new", 0): 0.6}
    assert not table.sign_flipped


def test_nested_objects_of_json_lines_are_columns(tmp_path):
    lines = [
        {"config": {"method": method}, "seed": seed, "test": {"accuracy": 0.5 + seed}}
        for method in ("kd", "new")
        for seed in (0, 1)
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    table, scores = scores_of(tmp_path / "x.jsonl")
    assert table.metric == "test.accuracy"
    assert scores[("all", "new", 1)] == 1.5


def test_text_that_is_no_table_and_decimal_commas_are_refused_with_the_way_out(tmp_path):
    for text, message in (
        ("method|seed|acc\nkd|0|1\n", "one column, 'method.seed.acc': expected fields separated"),
        ("method\tseed\tacc\nkd\t0\t0,5\n", "'0,5' is not a number: write decimals with a point"),
        ('method,seed,acc\nkd,0,"1,234"\n', "'1,234' is not a number: write decimals with a po"),
    ):
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            read_scores(tmp_path / "x.csv", "kd")


def test_two_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("method,seed,accuracy,accuracy\nkd,0,0.7,0.6\nnew,0,0.8,0.5\n")
    with pytest.raises(InputError, match="has several columns called accuracy: rename all but one"):
        read_scores(path, "kd")
    path.write_text("seed,llama-3,llama-3.1\n0,0.7,0.8\n1,0.6,0.8\n")  # as pandas renames them
    assert set(read_scores(path, "llama-3", metric="accuracy").frame["method"]) == {
        "llama-3",
        "llama-3.1",
    }
