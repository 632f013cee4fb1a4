"""A reader's own data with splits of its own, from folders and the hub; prompts in tables."""

import json
import re

import datasets
import pandas as pd
import pytest

from geodistill.errors import InputError
from geodistill.tasks import load_instructions, load_table
from geodistill.tasks.base import SPLITS
from geodistill.tasks.own_data import data_name, is_hub_name


def reviews(split, n, labels=None):
    features = datasets.Features(
        {"review": datasets.Value("string"), "kind": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = {
        "review": [f"{split} review {i}" for i in range(n)],
        "kind": labels or [i % 2 for i in range(n)],
    }
    return datasets.Dataset.from_dict(rows, features)


def pairs(split, n):
    rows = [{"prompt": f"{split} {i}?", "completion": f"{i}!"} for i in range(n)]
    return datasets.Dataset.from_list(rows)


def in_folder(tmp_path, monkeypatch, splits):
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "folder")
    return tmp_path / "folder"


def on_hub(tmp_path, monkeypatch, splits):
    def load_dataset(repository, subset):
        assert (repository, subset) == ("owner/folder", "first")
        return datasets.DatasetDict(splits)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return "owner/folder:first"


@pytest.fixture(params=[in_folder, on_hub])
def store(request, tmp_path, monkeypatch):
    """Where splits are stored, by a function that returns the name of the data."""
    return lambda **splits: request.param(tmp_path, monkeypatch, splits)


def texts(data, column="text"):
    return {split: getattr(data, split)[column][:] for split in SPLITS}


def load(name):
    return load_table(name, texts="review", label="kind")


def test_a_data_set_keeps_its_splits(store):
    splits = {"train": reviews("a", 60), "validation": reviews("b", 9), "test": reviews("c", 20)}
    data = load(store(**splits, other=reviews("d", 5)))
    assert texts(data) == {name: rows["review"][:] for name, rows in splits.items()}
    assert data.label_names == ("no", "yes")
    assert data.test["label"][:] == splits["test"]["kind"][:]


def test_validation_is_taken_from_train_where_there_is_none(store):
    data = load(store(train=reviews("a", 400), test=reviews("c", 20)))
    parts = texts(data)
    assert parts["test"] == reviews("c", 20)["review"][:]
    assert sorted(parts["train"] + parts["validation"]) == sorted(reviews("a", 400)["review"])
    assert 20 <= len(parts["validation"]) <= 60


def as_type(dataset, kind, hidden):
    """The labels of a split as other values."""
    if hidden == "no column":
        return dataset.remove_columns("kind")
    values = [kind(label) if label >= 0 else hidden for label in dataset["kind"]]
    return dataset.remove_columns("kind").add_column("kind", values)


@pytest.mark.parametrize(
    ("kind", "hidden"),
    [
        (None, None),
        (int, -1),
        (lambda label: label + 0.5, -1.0),
        (str, ""),
        (str, None),
        (int, None),
        (str, "no column"),
    ],
)
def test_validation_is_the_test_split_where_no_test_row_has_a_label(store, kind, hidden):
    splits = {"train": reviews("a", 400), "validation": reviews("b", 30)}
    splits["test"] = reviews("c", 20, [-1] * 20)
    if kind is not None:
        splits = {name: as_type(rows, kind, hidden) for name, rows in splits.items()}
    if hidden == "no column":
        splits |= {name: as_type(reviews(*of), str, "") for name, of in
                   (("train", ("a", 400)), ("validation", ("b", 30)))}  # fmt: skip
    data = load(store(**splits))
    assert texts(data)["test"] == splits["validation"]["review"][:]
    assert len(data.train) + len(data.validation) == 400


def test_a_class_of_minus_one_is_a_class(store):
    def signed(rows):
        return as_type(rows, lambda label: 2 * label - 1, None)

    data = load(store(train=signed(reviews("a", 99)), test=signed(reviews("c", 20, [0] * 20))))
    assert data.label_names == ("-1", "1")
    assert data.test["label"][:] == [0] * 20


def test_scores_that_are_all_the_same_in_a_split_are_refused(store):
    train = as_type(reviews("a", 99), lambda label: label + 0.5, None)
    test = as_type(reviews("c", 20), lambda _: 2.5, None)
    with pytest.raises(InputError, match=r"all test rows have the score 2\.5; expected several"):
        load(store(train=train, test=test))


def test_labels_of_two_types_are_refused(store):
    splits = {"train": as_type(reviews("a", 99), int, None)}
    splits["test"] = as_type(reviews("c", 20), float, None)
    with pytest.raises(InputError, match="kind is float64 in test, int64 in train; expected one"):
        load(store(**splits))


@pytest.mark.parametrize("others", [("dev",), ("validation_matched", "test_matched")])
def test_splits_of_other_names_are_named(store, others):
    splits = {"train": reviews("a", 99), **{name: reviews("b", 20) for name in others}}
    with pytest.raises(InputError, match=f"has the splits train, {', '.join(others)}; expected"):
        load(store(**splits))


def test_a_train_split_alone_is_split_by_group(store):
    data = load(store(train=reviews("a", 200)))
    assert sum(map(len, texts(data).values())) == 200
    assert 30 <= len(data.test) <= 70


def test_training_rows_with_a_text_of_a_later_split_are_left_out(store):
    train = datasets.concatenate_datasets([reviews("a", 50), reviews("b", 2), reviews("c", 3)])
    validation = datasets.concatenate_datasets([reviews("b", 9), reviews("c", 1)])
    data = load(store(train=train, validation=validation, test=reviews("c", 20)))
    assert texts(data) == {
        "train": reviews("a", 50)["review"][:],
        "validation": reviews("b", 9)["review"][:],
        "test": reviews("c", 20)["review"][:],
    }


def test_a_test_row_without_a_label_among_others_is_refused(store):
    name = store(train=reviews("a", 60), test=reviews("c", 4, [0, 1, -1, 1]))
    with pytest.raises(InputError, match="1 rows have no kind, the first is test row 3"):
        load(name)


def test_without_a_train_split_a_data_set_is_refused(store):
    with pytest.raises(
        InputError, match="has the splits test; expected train, alone or with validation or test"
    ):
        load(store(test=reviews("c", 9)))


def test_prompts_keep_their_splits_but_for_those_of_the_test_split(store):
    train = datasets.concatenate_datasets([pairs("a", 50), pairs("c", 3)])
    data = load_instructions(store(train=train, validation=pairs("b", 9), test=pairs("c", 20)))
    assert texts(data, "prompt") == {
        split: pairs(letter, n)["prompt"][:]
        for split, letter, n in (("train", "a", 50), ("validation", "b", 9), ("test", "c", 20))
    }


def test_every_form_of_a_file_of_prompts_gives_the_same_pairs(tmp_path):
    frame = pairs("ä", 300).to_pandas()
    frame.to_json(tmp_path / "mine.jsonl", orient="records", lines=True)
    frame.to_csv(tmp_path / "mine.csv", index=False)
    frame.to_parquet(tmp_path / "mine.parquet")
    datasets.Dataset.from_pandas(frame).save_to_disk(tmp_path / "mine")
    names = ("mine.jsonl", "mine.csv", "mine.parquet", "mine")
    loaded = [load_instructions(tmp_path / name) for name in names]
    assert len({data.data_hash for data in loaded}) == 1
    assert sum(len(getattr(loaded[0], split)) for split in SPLITS) == 300


def test_chats_of_a_data_set_are_those_of_a_file(tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"q {i}"},
                {"role": "assistant", "content": f"a {i}"},
            ]
        }
        for i in range(200)
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "mine")
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "mine.parquet")
    names = ("mine.jsonl", "mine.parquet", "mine")
    loaded = [load_instructions(tmp_path / name) for name in names]
    assert len({data.data_hash for data in loaded}) == 1
    assert loaded[1].test["turns"][0][0]["content"] == loaded[1].test["prompt"][0]


def test_a_table_of_pairs_and_chats(tmp_path):
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    rows = [
        {"prompt": f"q {i}", "completion": "a", "messages": None}
        if i % 2
        else {
            "prompt": None,
            "completion": None,
            "messages": [{**chat[0], "content": f"{i}"}, chat[1]],
        }
        for i in range(300)
    ]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "mine")
    data = load_instructions(tmp_path / "mine")
    turns = [row["turns"] for split in SPLITS for row in getattr(data, split)]
    assert sum(map(bool, turns)) == 150
    with pytest.raises(InputError, match="messages is None, expected a list of two or more"):
        load_instructions(store_one(tmp_path, {"messages": None}))


def store_one(tmp_path, row):
    (tmp_path / "one.jsonl").write_text(json.dumps(row))
    return tmp_path / "one.jsonl"


def test_blanks_around_names_of_columns_do_not_count_for_prompts(tmp_path):
    frame = pairs("a", 300).to_pandas()
    frame.to_csv(tmp_path / "mine.csv", index=False)
    reference = load_instructions(tmp_path / "mine.csv")
    frame.rename(columns=" {} ".format).to_csv(tmp_path / "mine.csv", index=False)
    assert load_instructions(tmp_path / "mine.csv").data_hash == reference.data_hash


def test_a_bad_row_of_prompts_is_named_by_its_place(store, tmp_path):
    pd.DataFrame({"prompt": ["a", "b"], "completion": ["c", None]}).to_csv(tmp_path / "gap.csv")
    with pytest.raises(InputError, match=r"gap\.csv, row 2: completion is nan, expected a text"):
        load_instructions(tmp_path / "gap.csv")
    name = store(train=pairs("a", 5), test=pairs("b", 2).rename_column("prompt", "question"))
    with pytest.raises(InputError, match=r"test row 1: prompt is None, .+ has question, compl"):
        load_instructions(name)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("offline"),
        ValueError("Config name is missing.\nPlease pick one: ['a', 'b']"),
        RuntimeError("Dataset scripts are no longer supported"),
        datasets.exceptions.DatasetGenerationError("columns differ"),
    ],
)
def test_data_that_the_hub_does_not_give_is_named(monkeypatch, error):
    def load_dataset(*_):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    message = re.escape(f"owner/name can't be loaded as a data set of the hub ({reason}); expected")
    with pytest.raises(InputError, match=message):
        load("owner/name")
    with pytest.raises(InputError, match=message):
        load_instructions("owner/name")


def test_names_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my/data").mkdir(parents=True)
    assert all(map(is_hub_name, ["owner/name", "owner/name-1.5:sub_set"]))
    for name in ("name", "my/data", "my/file.CSV", "a/b/c", "/a/b", "owner/", "owner/a b"):
        assert not is_hub_name(name)
    assert data_name("owner/name:first") == "name-first"
    assert data_name("folder/mine.csv") == "mine"
