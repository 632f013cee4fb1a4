"""A reader's own table as a task: four formats, one split, and the inputs that are refused."""

import json
from collections import Counter

import datasets
import pandas as pd
import pytest

from geodistill.errors import InputError
from geodistill.tasks import load_table
from geodistill.tasks.base import SPLITS


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


def write(tmp_path, frame, kind="csv"):
    path = tmp_path / ("mine" if kind == "folder" else f"mine.{kind}")
    WRITERS[kind](frame, path)
    return path


def load(tmp_path, frame, **options):
    return load_table(write(tmp_path, frame), **{"texts": ["review"], "label": "kind", **options})


def test_every_format_gives_the_same_task(tmp_path):
    loaded = [
        load_table(write(tmp_path, table(), kind), texts=["review"], label="kind")
        for kind in WRITERS
    ]
    assert len({data.data_hash for data in loaded}) == 1
    assert loaded[0].label_names == ("bad", "good")
    counts = Counter(label for split in SPLITS for label in getattr(loaded[0], split)["label"])
    assert counts == {0: 40, 1: 80}
    assert min(len(getattr(loaded[0], split)) for split in SPLITS) > 0


def test_rows_of_one_group_or_one_text_stay_together(tmp_path):
    frame = table()
    frame.loc[119, "review"] = "Review 0 says WORD0!"  # the first text, spelt otherwise
    data = load(tmp_path, frame, group="author")
    splits = {}
    for split in SPLITS:
        rows = getattr(data, split)
        for item, source in zip(rows["item"], rows["source"], strict=True):
            splits.setdefault(source, set()).add(split)
            if item in ("mine/0", "mine/1", "mine/118", "mine/119"):
                assert source == "mine/0"
    assert all(len(names) == 1 for names in splits.values())
    assert len(splits) == 59  # 60 authors, two of them linked by a text


def test_decimal_labels_make_a_regression(tmp_path):
    frame = table().assign(kind=[i / 7 for i in range(120)])
    data = load(tmp_path, frame)
    assert data.label_names == ()
    assert data.metric == "pearson"
    assert isinstance(data.test["label"][0], float)


BAD = {
    "has no column 'title'; it has review, kind, author": {"texts": ["title"]},
    "has no column 'mark'": {"label": "mark"},
    "has no column 'writer'": {"group": "writer"},
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
    chats = table()
    chats["review"] = [[{"role": "user", "content": text}] for text in chats["review"]]
    with pytest.raises(InputError, match=r"\d+ rows have a list in place of a text, the first"):
        load_table(write(tmp_path, chats, "jsonl"), texts="review", label="kind")
    with pytest.raises(InputError, match="holds no rows"):
        load(tmp_path, table()[:0])
    with pytest.raises(InputError, match="has no column ''"):
        load(tmp_path, table(), label="")


def test_blanks_around_a_label_make_no_other_class(tmp_path):
    frame = table()
    frame.loc[::3, "kind"] += " "
    data, reference = load(tmp_path, frame), load(tmp_path, table())
    assert data.label_names == reference.label_names == ("bad", "good")
    assert data.train["label"][:] == reference.train["label"][:]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_blank_label_is_a_missing_label(tmp_path, kind):
    frame = table()
    frame.loc[[4, 9, 11], "kind"] = ["", " ", "\t"]
    with pytest.raises(InputError, match=r"3 rows have no kind, the first is row 5"):
        load_table(write(tmp_path, frame, kind), texts="review", label="kind")


@pytest.mark.parametrize("cell", ["00007", "0.50", "+490", "1e3", "123456789012345678", " 7"])
def test_texts_of_a_csv_stay_as_they_are_written(tmp_path, cell):
    cells = [cell, *(f"{i}.50" for i in range(1, 120))]
    data = load(tmp_path, table().assign(review=cells))
    assert {text for split in SPLITS for text in getattr(data, split)["text"]} == set(cells)
    pair = load(tmp_path, table().assign(author=cells), texts=["review", "author"])
    assert {text for split in SPLITS for text in getattr(pair, split)["text_2"]} == set(cells)


CSV_LABELS = {
    ("01", "02"): ("01", "02"),
    ("1", "01"): ("01", "1"),
    ("+1", "-1"): ("+1", "-1"),
    ("1", "2", "10"): ("1", "2", "10"),
    ("-1", " 1"): ("-1", "1"),
    ("100000000000000001", "100000000000000002"): ("100000000000000001", "100000000000000002"),
    ("1E5", "1F5"): ("1E5", "1F5"),
    ("1_0", "2_0"): ("1_0", "2_0"),
    ("true", "FALSE"): ("False", "True"),
    ("nan", "1.5"): ("1.5", "nan"),
    ("1", "2.5", "03"): (),
    ("1e-3", "+2"): (),
    ("1.1", "1.2"): (),
}


@pytest.mark.parametrize("cells", CSV_LABELS, ids=str)
def test_labels_of_a_csv_are_numbers_only_if_that_changes_none_of_them(tmp_path, cells):
    frame = table().assign(kind=[cells[i % len(cells)] for i in range(120)])
    data = load(tmp_path, frame)
    assert data.label_names == CSV_LABELS[cells]
    assert data.metric == ("accuracy" if data.label_names else "pearson")
    for item, label in zip(data.train["item"], data.train["label"], strict=True):
        cell = cells[int(item.split("/")[1]) % len(cells)].strip()
        if data.label_names:
            assert data.label_names[label].lower() == cell.lower()
        else:
            assert label == float(cell)


def test_blanks_around_the_names_of_columns_do_not_count(tmp_path):
    renamed = {"review": " review", "kind": "kind ", "author": " author "}
    for kind in WRITERS:
        plain, blanks = table(), table().rename(columns=renamed)
        options = {"texts": "review", "label": "kind", "group": "author"}
        reference = load_table(write(tmp_path, plain, kind), **options)
        path = write(tmp_path, blanks, kind)
        assert load_table(path, **options).data_hash == reference.data_hash
        exact = load_table(path, texts=" review", label="kind ", group=" author ")
        assert exact.data_hash == reference.data_hash
    classes = datasets.Dataset.from_pandas(table()).class_encode_column("kind")
    classes.rename_column("kind", " kind").save_to_disk(tmp_path / "classes")
    named = load_table(tmp_path / "classes", texts="review", label="kind")
    assert named.label_names == ("bad", "good")
    with pytest.raises(InputError, match=r"has two columns 'review', as blanks .+ rename one"):
        load(tmp_path, table().rename(columns={"author": "review "}))


def test_a_column_whose_name_has_a_comma_is_one_column(tmp_path):
    frame = table().rename(columns={"review": "title, body"})
    data = load(tmp_path, frame, texts="title, body")
    assert data.data_hash == load(tmp_path, table()).data_hash
    pair = load(tmp_path, table(), texts="review, author")
    assert pair.text_columns == ("text_1", "text_2")
    assert pair.data_hash == load(tmp_path, table(), texts=["review", "author"]).data_hash


def test_categories_and_times_with_gaps_are_texts_or_missing(tmp_path):
    for words in (
        pd.Categorical([None, *table()["review"][1:]]),
        pd.to_datetime([None, *range(119)], unit="D"),
    ):
        frame, path = table().assign(review=words), tmp_path / "mine.parquet"
        frame.to_parquet(path)
        with pytest.raises(InputError, match="1 rows have an empty text, the first is row 1"):
            load_table(path, texts="review", label="kind")
        frame[1:].to_parquet(path, index=False)
        data = load_table(path, texts="review", label="kind")
        texts = {text for split in SPLITS for text in getattr(data, split)["text"]}
        assert texts == set(frame["review"][1:].astype(object).astype(str))


@pytest.mark.parametrize("dtype", ["Float32", "Float64", "float32", "float64[pyarrow]"])
def test_scores_of_every_type_are_numbers(tmp_path, dtype):
    scores = [i / 8 for i in range(120)]
    frame, path = table().assign(kind=pd.array(scores, dtype=dtype)), tmp_path / "mine.parquet"
    frame.to_parquet(path)
    data = load_table(path, texts="review", label="kind")
    assert (data.metric, data.label_names) == ("pearson", ())
    assert sorted(label for split in SPLITS for label in getattr(data, split)["label"]) == scores


def test_a_stored_index_is_a_column(tmp_path):
    table().set_index("review").to_parquet(tmp_path / "mine.parquet")
    data = load_table(tmp_path / "mine.parquet", texts="review", label="kind")
    assert data.data_hash == load(tmp_path, table()).data_hash


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path):
    names = [str(i % 12) for i in range(600)]
    data = load(tmp_path, table(600).assign(kind=[f"{name}" for name in names]))
    assert data.label_names == tuple(map(str, range(12)))
    words = table(600).assign(kind=names)
    words.to_parquet(tmp_path / "mine.parquet")
    data = load_table(tmp_path / "mine.parquet", texts="review", label="kind")
    assert data.label_names == tuple(map(str, range(12)))


def test_a_label_that_training_never_sees_is_refused(tmp_path):
    original = load(tmp_path, table())
    frame = table()
    row = int(original.test["item"][0].split("/")[1])
    frame.loc[row, "kind"] = "odd"
    with pytest.raises(InputError, match=f"mine/{row} of the test split has the label 'odd'"):
        load(tmp_path, frame)
    with pytest.raises(InputError, match="all training rows have the label 'bad'"):
        load(tmp_path, table().assign(kind="bad"))


@pytest.mark.parametrize("name", ["source", "item", "label", "labels", "input_ids", "row"])
def test_a_text_column_of_any_name_stays_a_text(tmp_path, name):
    """Texts are stored under our name: under the table's they could replace another column."""
    frame = table().rename(columns={"review": name})
    data, reference = load(tmp_path, frame, texts=name), load(tmp_path, table())
    assert data.text_columns == ("text",)
    for split in SPLITS:
        for column in ("item", "source", "text", "label"):
            assert getattr(data, split)[column][:] == getattr(reference, split)[column][:]
    pair = load(tmp_path, table(), texts=["review", "author"])
    assert pair.text_columns == ("text_1", "text_2")
    assert pair.train["text_2"][0].startswith("a")
    with pytest.raises(InputError, match=r"texts is \[\]: expected one column, or the two"):
        load(tmp_path, table(), texts=[])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_words_that_look_like_missing_values_or_numbers_are_words(tmp_path, kind):
    frame = table()
    frame.loc[0, "review"], frame.loc[1, "review"] = "NA", "None"
    frame["kind"] = ["N/A" if kind == "good" else "003" for kind in frame["kind"]]
    path = write(tmp_path, frame, kind)
    data = load_table(path, texts="review", label="kind")
    texts = {t for split in SPLITS for t in getattr(data, split)["text"]}
    assert {"NA", "None"} <= texts
    assert data.label_names == ("003", "N/A")


def test_rows_without_a_group_are_their_own_and_class_names_are_kept(tmp_path):
    data = load(tmp_path, table().assign(author=None), group="author")
    assert len({s for split in SPLITS for s in getattr(data, split)["source"]}) == 120
    folder = datasets.Dataset.from_pandas(table()).class_encode_column("kind")
    folder.save_to_disk(tmp_path / "classes")
    named = load_table(tmp_path / "classes", texts="review", label="kind")
    assert named.label_names == ("bad", "good")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_row_with_a_blank_group_is_its_own(tmp_path, kind):
    frame = table().assign(author=[f"a{i}" if i % 2 else ["", " "][i // 2 % 2] for i in range(120)])
    data = load_table(write(tmp_path, frame, kind), texts="review", label="kind", group="author")
    assert len({s for split in SPLITS for s in getattr(data, split)["source"]}) == 120


def test_groups_of_a_csv_are_compared_as_they_are_written(tmp_path):
    numbers = [str(10**17 + i // 2) if i > 1 else None for i in range(120)]
    data = load(tmp_path, table().assign(author=numbers), group="author")
    assert len({s for split in SPLITS for s in getattr(data, split)["source"]}) == 61
    codes = [f"{i // 2:03d}" if i % 2 else str(i // 2) for i in range(120)]
    data = load(tmp_path, table().assign(author=codes), group="author")
    assert len({s for split in SPLITS for s in getattr(data, split)["source"]}) > 100


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder"])
def test_long_integers_with_gaps_are_not_rounded(tmp_path, kind):
    rows = [
        {**row, "author": 10**17 + i // 2 if i > 1 else None}
        for i, row in enumerate(table().drop(columns="author").to_dict("records"))
    ]
    path, dataset = tmp_path / f"mine.{kind}", datasets.Dataset.from_list(rows)
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "parquet":
        dataset.to_parquet(path)
    else:
        dataset.save_to_disk(path)
    data = load_table(path, texts="review", label="kind", group="author")
    assert len({s for split in SPLITS for s in getattr(data, split)["source"]}) == 61


def test_labels_and_scores_that_cannot_be_learned(tmp_path):
    mixed = [1 if i % 2 else "one" for i in range(120)]
    lists = [[i % 2] for i in range(120)]
    for labels, kinds in ((mixed, "int, str"), (lists, "list")):
        path = tmp_path / "mine.jsonl"
        table().assign(kind=labels).to_json(path, orient="records", lines=True)
        with pytest.raises(InputError, match=f"kind holds {kinds}; expected words, or numbers"):
            load_table(path, texts="review", label="kind")
    with pytest.raises(InputError, match=r"all train rows have the score 0\.5; expected several"):
        load(tmp_path, table().assign(kind=0.5))
    with pytest.raises(InputError, match=r"\w+ rows have infinite scores"):
        load(tmp_path, table().assign(kind=[float("inf")] + [0.5 * i for i in range(119)]))


BROKEN = {
    "x.csv": b"",
    "y.csv": b'review,kind\n"open,good\n',
    "z.csv": "review,kind\nschön,good\n".encode("latin-1"),
    "x.jsonl": b'{"review": ',
    "x.parquet": b"PAR1 and no more",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path, name):
    message = "line 1: not JSON" if name == "x.jsonl" else "can't be read: .+"
    (tmp_path / name).write_bytes(BROKEN[name])
    with pytest.raises(InputError, match=message) as caught:
        load_table(tmp_path / name, texts="review", label="kind")
    assert "\n" not in str(caught.value)
    assert ("expected UTF-8" in str(caught.value)) == (name == "z.csv")


def test_files_that_are_no_tables(tmp_path):
    with pytest.raises(InputError, match="no file at"):
        load_table(tmp_path / "gone.csv", texts=["t"])
    with pytest.raises(InputError, match=r"expected a folder or a file ending in \.csv"):
        load_table(tmp_path / "mine.xlsx", texts=["t"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not a folder that datasets wrote"):
        load_table(tmp_path / "empty", texts=["t"])
    with pytest.raises(InputError, match=r"2 rows in 2 groups leave none for \w+"):
        load(tmp_path, table(2))
