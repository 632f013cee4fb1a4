"""GLUE: small files like the real ones, rows like the hub's, and the real files if present."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from geodistill.errors import AssetError, InputError
from geodistill.tasks import ClassificationData, glue, load_classification
from geodistill.tasks.base import SPLITS, text_key

Write = Callable[[str, str, str], None]
REAL = os.environ.get("GEODISTILL_DATA_DIR")
needs_files = pytest.mark.skipif(not REAL, reason="GEODISTILL_DATA_DIR is not set")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes train.tsv and dev.tsv of one task into a data folder."""
    monkeypatch.setenv("GEODISTILL_DATA_DIR", str(tmp_path))

    def files(folder: str, train: str, dev: str) -> None:
        target = tmp_path / "glue" / folder
        target.mkdir(parents=True)
        (target / "train.tsv").write_text(train, encoding="utf-8")
        (target / "dev.tsv").write_text(dev, encoding="utf-8")

    return files


def _train_and_validation(data: ClassificationData) -> list[dict[str, Any]]:
    """Both splits: a hash decides in which of the two a row is."""
    return [*data.train, *data.validation]


def test_cola_has_no_header(write: Write) -> None:
    write("CoLA", "gj04\t1\t\tHe ran.\nbc01\t0\t*\tRan he the.\n", "gj04\t1\t\tShe left.\n")
    data = load_classification("cola")
    assert sorted((row["sentence"], row["label"]) for row in _train_and_validation(data)) == [
        ("He ran.", 1),
        ("Ran he the.", 0),
    ]
    assert data.test.to_list() == [
        {"item": "cola/dev/0", "source": "cola/dev/0", "sentence": "She left.", "label": 1}
    ]
    assert data.metric == "matthews_correlation"


def test_mrpc_has_a_byte_order_mark_and_literal_quotes(write: Write) -> None:
    head = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    write(
        "MRPC",
        head + '1\t1\t2\t" An open quote\tIts "" twin\n0\t3\t4\tOne\tTwo\n',
        head + "0\t5\t6\tThree\tFour\n",
    )
    data = load_classification("mrpc")
    pairs = {
        (row["sentence1"], row["sentence2"], row["label"]) for row in _train_and_validation(data)
    }
    assert pairs == {('" An open quote', 'Its "" twin', 1), ("One", "Two", 0)}


def test_rte_labels_are_words_in_the_hubs_order(write: Write) -> None:
    head = "index\tsentence1\tsentence2\tlabel\n"
    write("RTE", head + "0\tA cat.\tAn animal.\tentailment\n", head + "0\tB.\tC.\tnot_entailment\n")
    data = load_classification("rte")
    assert [row["label"] for row in _train_and_validation(data)] == [0]
    assert data.test["label"] == [1]
    assert data.label_names == ("entailment", "not_entailment")


def test_stsb_scores_are_floats_found_by_the_header(write: Write) -> None:
    head = (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    )
    row = "{}\tg\tf\ty\to\tn\tn\t{}\t{}\t{}\n"
    write("STS-B", head + row.format(0, "A.", "B.", "3.800"), head + row.format(0, "C.", "D.", "0"))
    data = load_classification("stsb")
    assert [row["label"] for row in _train_and_validation(data)] == [3.8]
    assert data.test["label"] == [0.0]
    assert data.label_names == ()


def test_train_rows_in_a_group_with_a_test_row_are_dropped(write: Write) -> None:
    head = "index\tsentence1\tsentence2\tlabel\n"
    row = "{}\t{}\t{}\tentailment\n"
    train = [("x", "y"), ("tested premise", "z"), ("w", "Z!"), ("v", "u")]
    write(
        "RTE",
        head + "".join(row.format(i, *pair) for i, pair in enumerate(train)),
        head + row.format(0, "Tested premise.", "t"),
    )
    kept = {row["item"] for row in _train_and_validation(load_classification("rte"))}
    assert kept == {"rte/train/0", "rte/train/3"}  # 1 shares the premise, 2 a hypothesis with 1


def test_phrases_of_a_test_sentence_are_dropped(write: Write) -> None:
    head = "sentence\tlabel\n"
    write(
        "SST-2",
        head + "a deeply moving and honest film \t1\nmoving and honest \t1\nno wit \t0\n",
        head + "this is a deeply moving and honest film about war . \t1\n",
    )
    kept = {row["sentence"].strip() for row in _train_and_validation(load_classification("sst2"))}
    assert kept == {"moving and honest", "no wit"}  # three words are no evidence of one sentence


GOOD = "gj04\t1\t\tHe ran.\n"
BAD_FILES = {
    "fields": (GOOD + "gj04\t1\tHe ran.\n", r"train.tsv, line 2: 3 fields, expected 4"),
    "label": (
        GOOD + "gj04\t2\t\tHe ran.\n",
        r"train.tsv, line 2: label '2', expected one of unacc",
    ),
    "empty text": (GOOD + "gj04\t1\t\t \n", r"train.tsv, line 2: an empty text"),
    "no rows": ("", r"task 'cola': 0 train and 1 dev rows"),
}


@pytest.mark.parametrize("case", list(BAD_FILES))
def test_a_malformed_file_says_where(write: Write, case: str) -> None:
    text, message = BAD_FILES[case]
    write("CoLA", text, GOOD)
    with pytest.raises(InputError, match=message) as caught:
        load_classification("cola")
    assert "\n" not in str(caught.value)


def test_a_byte_or_a_field_that_cannot_be_read_says_where(write: Write, tmp_path: Path) -> None:
    write("CoLA", GOOD, GOOD)
    train = tmp_path / "glue" / "CoLA" / "train.tsv"
    for mark in (b"", b"\xef\xbb\xbf"):
        train.write_bytes(mark + GOOD.encode() * 2000 + "gj04\t1\t\tA café.\n".encode("latin-1"))
        with pytest.raises(InputError, match=r"train.tsv, line 2001: not UTF-8 \(invalid cont"):
            load_classification("cola")
    train.write_text(GOOD * 2 + "gj04\t1\t\t" + "so " * 50_000 + "\n")
    with pytest.raises(InputError, match=r"train.tsv, line 3: field larger than field limit"):
        load_classification("cola")


def test_a_missing_column_a_bad_score_a_missing_file(write: Write, tmp_path: Path) -> None:
    write("RTE", "index\tsentence1\tsentence2\n", "")
    with pytest.raises(InputError, match=r"train.tsv: no column 'label'; its header is \['index'"):
        load_classification("rte")
    write("STS-B", "sentence1\tsentence2\tscore\na\tb\t7\n", "")
    with pytest.raises(InputError, match="line 2: score '7', expected a number from 0 to 5"):
        load_classification("stsb")
    write("CoLA", GOOD, GOOD)
    (tmp_path / "glue" / "CoLA" / "dev.tsv").unlink()
    with pytest.raises(InputError, match=r"dev.tsv is missing; the other files"):
        load_classification("cola")


def test_the_hub_gives_the_same_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """QNLI and MNLI come from the hub: here a stand-in with the hub's columns and splits."""
    rows = {
        "question": ["Who?", "What?"],
        "sentence": ["He.", "It."],
        "label": [0, 1],
        "idx": [0, 1],
    }
    dev = {"question": ["When?"], "sentence": ["Now."], "label": [1], "idx": [0]}
    hub = {"train": datasets.Dataset.from_dict(rows), "validation": datasets.Dataset.from_dict(dev)}
    requests: list[tuple[str, str]] = []
    monkeypatch.delenv("GEODISTILL_DATA_DIR", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *name: requests.append(name) or hub)
    data = load_classification("qnli")
    assert requests == [("nyu-mll/glue", "qnli")]
    assert data.text_columns == ("question", "sentence")
    assert sorted((row["question"], row["label"]) for row in _train_and_validation(data)) == [
        ("What?", 1),
        ("Who?", 0),
    ]
    assert data.test["question"] == ["When?"]


def test_mnli_is_grouped_by_premise_and_tested_on_the_matched_set() -> None:
    task = glue.TASKS["mnli"]
    assert task.hub_test == "validation_matched"
    assert task.group_keys(("A premise.", "No.")) == ["a premise"]


@pytest.mark.parametrize("name", ["mnli", "cola"])
def test_no_hub_and_no_files_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: str) -> None:
        raise ConnectionError("Couldn't reach 'nyu-mll/glue' on the Hub\nmore")

    monkeypatch.delenv("GEODISTILL_DATA_DIR", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(AssetError, match="nyu-mll/glue can't be loaded from the hub") as caught:
        load_classification(name)
    assert "\n" not in str(caught.value)
    assert "connect to the hub" in str(caught.value)


# Counted with cut, sort and uniq over the files; SST-2's and STS-B's are GLUE's published sizes.
DEV_COUNTS = {
    "cola": {1: 721, 0: 322},
    "mrpc": {1: 279, 0: 129},
    "rte": {0: 146, 1: 131},
    "sst2": {1: 444, 0: 428},
}
TRAIN_ROWS = {"cola": 8551, "mrpc": 3667, "rte": 2490, "sst2": 67_349, "stsb": 5749}
TRAIN_COUNTS = {
    "cola": {1: 6023, 0: 2528},
    "mrpc": {1: 2473, 0: 1194},
    "rte": {0: 1249, 1: 1241},
    "sst2": {1: 37_569, 0: 29_780},
}
DROPPED = {"cola": 18, "mrpc": 58, "rte": 213, "sst2": 2250, "stsb": 607}


@needs_files
@pytest.mark.parametrize("name", list(TRAIN_ROWS))
def test_the_real_files(name: str) -> None:
    task = glue.TASKS[name]
    path = Path(str(REAL)) / "glue" / str(task.folder) / "train.tsv"
    train = list(glue.read_tsv(path, task))
    data = load_classification(name)
    if name == "stsb":
        assert len(data.test) == 1500
    else:
        assert Counter(data.test["label"]) == DEV_COUNTS[name]
        assert Counter(label for _, label in train) == TRAIN_COUNTS[name]
    assert len(train) == TRAIN_ROWS[name]
    assert len(data.train) + len(data.validation) == TRAIN_ROWS[name] - DROPPED[name]
    sources = [set(getattr(data, split)["source"]) for split in SPLITS]
    assert sum(map(len, sources)) == len(set.union(*sources))
    texts = [
        {text_key(text) for column in data.text_columns for text in getattr(data, split)[column]}
        for split in SPLITS
    ]
    assert all(len(split) > 100 for split in texts)
    assert sum(map(len, texts)) == len(set.union(*texts))
