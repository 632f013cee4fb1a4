"""A reader's own table as a task: four formats, one split, and what is refused."""

from collections import Counter

import datasets
import pandas as pd
import pytest

from geodistill.errors import InputError
from geodistill.tasks import load_file


def table(n=120):
    return pd.DataFrame(
        {
            "review": [f"review {i} says word{i % 7}" for i in range(n)],
            "kind": ["good" if i % 3 else "bad" for i in range(n)],
            "author": [f"a{i // 2}" for i in range(n)],
        }
    )


WRITERS = {
    "csv": lambda t, p: t.to_csv(p, index=False),
    "jsonl": lambda t, p: t.to_json(p, orient="records", lines=True),
    "parquet": lambda t, p: t.to_parquet(p),
    "folder": lambda t, p: datasets.Dataset.from_pandas(t).save_to_disk(p),
}


def written(tmp_path, frame, kind="csv"):
    path = tmp_path / ("mine" if kind == "folder" else f"mine.{kind}")
    WRITERS[kind](frame, path)
    return path


def load(tmp_path, frame, **given):
    return load_file(written(tmp_path, frame), **{"texts": ["review"], "label": "kind", **given})


def test_every_format_gives_the_same_task(tmp_path):
    made = [
        load_file(written(tmp_path, table(), kind), texts=["review"], label="kind")
        for kind in WRITERS
    ]
    assert len({data.data_hash for data in made}) == 1
    assert made[0].label_names == ("bad", "good")
    counts = Counter(label for side in PARTS for label in getattr(made[0], side)["label"])
    assert counts == {0: 40, 1: 80}
    assert min(len(getattr(made[0], side)) for side in PARTS) > 0


PARTS = ("train", "validation", "test")


def test_rows_of_one_source_or_one_text_stay_together(tmp_path):
    frame = table()
    frame.loc[119, "review"] = "Review 0 says WORD0!"  # the first text, otherwise spelt
    data = load(tmp_path, frame, source="author")
    sides = {}
    for side in PARTS:
        part = getattr(data, side)
        for item, source in zip(part["item"], part["source"], strict=True):
            sides.setdefault(source, set()).add(side)
            if item in ("mine/0", "mine/1", "mine/118", "mine/119"):
                assert source == "mine/0"
    assert all(len(where) == 1 for where in sides.values())
    assert len(sides) == 59  # 60 authors, two of them linked by a text


def test_decimal_labels_make_a_regression(tmp_path):
    frame = table().assign(kind=[i / 7 for i in range(120)])
    data = load(tmp_path, frame)
    assert data.label_names == ()
    assert data.metric == "pearson"
    assert isinstance(data.test["label"][0], float)


BAD = {
    "has no column 'title'; it has review, kind, author": {"texts": ["title"]},
    "has no column 'mark'": {"label": "mark"},
    "has no column 'writer'": {"source": "writer"},
}


@pytest.mark.parametrize("message", BAD)
def test_a_missing_column_is_named(tmp_path, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, table(), **BAD[message])


def test_missing_labels_and_empty_texts_are_counted(tmp_path):
    frame = table()
    frame.loc[[4, 9], "kind"] = None
    with pytest.raises(InputError, match=r"2 rows have no kind, the first is row 5"):
        load(tmp_path, frame)
    frame = table()
    frame.loc[7, "review"] = "  "
    with pytest.raises(InputError, match=r"1 rows have an empty text, the first is row 8"):
        load(tmp_path, frame)


def test_a_label_that_training_never_sees_is_refused(tmp_path):
    known = load(tmp_path, table())
    frame = table()
    row = int(known.test["item"][0].split("/")[1])
    frame.loc[row, "kind"] = "odd"
    with pytest.raises(InputError, match=f"mine/{row} of the test part has the label 'odd'"):
        load(tmp_path, frame)
    with pytest.raises(InputError, match="all training rows have the label 'bad'"):
        load(tmp_path, table().assign(kind="bad"))


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(InputError, match="no file at"):
        load_file(tmp_path / "gone.csv", texts=["t"])
    with pytest.raises(InputError, match=r"expected a folder or a file ending in \.csv"):
        load_file(tmp_path / "mine.xlsx", texts=["t"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not a folder that datasets wrote"):
        load_file(tmp_path / "empty", texts=["t"])
    parts = datasets.DatasetDict({"train": datasets.Dataset.from_pandas(table())})
    parts.save_to_disk(tmp_path / "parts")
    with pytest.raises(InputError, match="holds the parts train; give the folder of one"):
        load_file(tmp_path / "parts", texts=["review"])
    with pytest.raises(InputError, match=r"2 rows of 2 sources leave none for \w+"):
        load(tmp_path, table(2))
