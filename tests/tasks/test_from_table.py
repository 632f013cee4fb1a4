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


@pytest.mark.parametrize("name", ["source", "item", "label", "labels", "input_ids", "row"])
def test_a_text_column_of_any_name_stays_a_text(tmp_path, name):
    """Its texts stand under our name: under theirs they would replace our own columns."""
    frame = table().rename(columns={"review": name})
    data, plain = load(tmp_path, frame, texts=name), load(tmp_path, table())
    assert data.text_columns == ("text",)
    for side in PARTS:
        for column in ("item", "source", "text", "label"):
            assert getattr(data, side)[column][:] == getattr(plain, side)[column][:]
    pair = load(tmp_path, table(), texts=["review", "author"])
    assert pair.text_columns == ("text_1", "text_2")
    assert pair.train["text_2"][0].startswith("a")
    with pytest.raises(InputError, match=r"texts is \[\]: expected one column, or the two"):
        load(tmp_path, table(), texts=[])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_words_that_look_like_nothing_or_like_numbers_are_words(tmp_path, kind):
    frame = table()
    frame.loc[0, "review"], frame.loc[1, "review"] = "NA", "None"
    frame["kind"] = ["N/A" if kind == "good" else "003" for kind in frame["kind"]]
    path = written(tmp_path, frame, kind)
    data = load_file(path, texts="review", label="kind")
    texts = {t for side in PARTS for t in getattr(data, side)["text"]}
    assert {"NA", "None"} <= texts
    assert data.label_names == ("003", "N/A")


def test_rows_without_a_source_stand_alone_and_class_names_are_kept(tmp_path):
    data = load(tmp_path, table().assign(author=None), source="author")
    assert len({s for side in PARTS for s in getattr(data, side)["source"]}) == 120
    folder = datasets.Dataset.from_pandas(table()).class_encode_column("kind")
    folder.save_to_disk(tmp_path / "classes")
    named = load_file(tmp_path / "classes", texts="review", label="kind")
    assert named.label_names == ("bad", "good")


def test_labels_and_scores_that_teach_nothing(tmp_path):
    mixed = [1 if i % 2 else "one" for i in range(120)]
    lists = [[i % 2] for i in range(120)]
    for labels, kinds in ((mixed, "int, str"), (lists, "list")):
        path = tmp_path / "mine.jsonl"
        table().assign(kind=labels).to_json(path, orient="records", lines=True)
        with pytest.raises(InputError, match=f"kind holds {kinds}; expected words, or numbers"):
            load_file(path, texts="review", label="kind")
    with pytest.raises(InputError, match=r"all rows have the score 0\.5; expected several"):
        load(tmp_path, table().assign(kind=0.5))
    with pytest.raises(InputError, match="kind has infinite scores"):
        load(tmp_path, table().assign(kind=[float("inf")] + [0.5 * i for i in range(119)]))


BROKEN = {
    "x.csv": b"",
    "y.csv": b'review,kind\n"open,good\n',
    "z.csv": "review,kind\nschön,good\n".encode("latin-1"),
    "x.jsonl": b'{"review": ',
    "x.parquet": b"PAR1 and no more",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_told_in_a_line(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(InputError, match=r"can't be read: .+") as caught:
        load_file(tmp_path / name, texts="review", label="kind")
    assert "\n" not in str(caught.value)


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
