"""A reader's own data with splits of its own, from folders and the hub; prompts in tables."""

import json

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


def test_validation_is_the_test_split_where_no_test_row_has_a_label(store):
    splits = {"train": reviews("a", 400), "validation": reviews("b", 30)}
    data = load(store(**splits, test=reviews("c", 20, [-1] * 20)))
    assert texts(data)["test"] == splits["validation"]["review"][:]
    assert len(data.train) + len(data.validation) == 400


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
    with pytest.raises(InputError, match="1 rows have no kind, the first is row 63"):
        load(name)


def test_without_a_train_split_a_data_set_is_refused(store):
    with pytest.raises(InputError, match="has the splits test; expected train among them"):
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


def test_a_bad_row_of_prompts_is_named_by_its_place(store, tmp_path):
    pd.DataFrame({"prompt": ["a", "b"], "completion": ["c", None]}).to_csv(tmp_path / "gap.csv")
    with pytest.raises(InputError, match=r"gap\.csv, row 2: completion is nan, expected a text"):
        load_instructions(tmp_path / "gap.csv")
    name = store(train=pairs("a", 5), test=pairs("b", 2).rename_column("prompt", "question"))
    with pytest.raises(InputError, match=r"test row 1: prompt is None, .+ has question, compl"):
        load_instructions(name)


@pytest.mark.parametrize("error", [ConnectionError("offline"), ValueError("Config name missing")])
def test_data_that_the_hub_does_not_give_is_named(monkeypatch, error):
    def load_dataset(*_):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = rf"owner/name can't be loaded as a data set of the hub \({error}\); expected a .csv"
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
