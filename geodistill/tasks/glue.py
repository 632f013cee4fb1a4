"""GLUE tasks, from `$GEODISTILL_DATA_DIR/glue` or from the hub's `nyu-mll/glue`.

Wang et al., "GLUE: a multi-task benchmark and analysis platform for natural language
understanding" (ICLR 2019). GLUE's test labels are hidden, so its development set is our test set,
and validation is taken from train. Train rows in one group with a test row (a sentence in common,
or a member of a pair) are dropped; `data/cards/glue.md` lists how many.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geodistill.errors import AssetError, InputError
from geodistill.files import first_line
from geodistill.tasks.base import (
    ClassificationData,
    Row,
    content_hash,
    data_dir,
    group_by_shared_keys,
    split_around_test,
    text_key,
    to_datasets,
    word_ngrams,
)

VALIDATION = 0.1
"""Expected share of the groups of train in the validation split."""


def _all_texts(texts: tuple[str, ...]) -> list[str]:
    return [text_key(text) for text in texts]


def _first_text(texts: tuple[str, ...]) -> list[str]:
    """MNLI: short hypotheses repeat by chance; the rows were made from the premise."""
    return [text_key(texts[0])]


def _five_word_sequences(texts: tuple[str, ...]) -> list[str]:
    """SST-2: its rows are phrases; two that share five consecutive words are of one sentence."""
    return [text_key(texts[0]), *word_ngrams(texts[0], 5)]


@dataclass(frozen=True)
class GlueTask:
    """Columns, labels and files of one task.

    Attributes:
        columns: names of the text columns on the hub, and in our data.
        label_names: classes in the hub's order; empty in a regression.
        metric: the task's usual metric.
        group_keys: keys of a row's texts; rows that share a key are in one group.
        folder: folder of the TSV files; None for a task of the hub alone.
        tsv_columns: names of the text columns in the TSV files, in the order of `columns`.
        tsv_label: name of their label column.
        tsv_header: names of their columns; None if their first line has them.
        hub_test: the hub's split that is our test split.
    """

    columns: tuple[str, ...]
    label_names: tuple[str, ...]
    metric: str = "accuracy"
    group_keys: Callable[[tuple[str, ...]], list[str]] = _all_texts
    folder: str | None = None
    tsv_columns: tuple[str, ...] = ()
    tsv_label: str = "label"
    tsv_header: tuple[str, ...] | None = None
    hub_test: str = "validation"


_PAIR = ("sentence1", "sentence2")
TASKS = {
    "cola": GlueTask(
        columns=("sentence",),
        label_names=("unacceptable", "acceptable"),
        metric="matthews_correlation",
        folder="CoLA",
        tsv_columns=("sentence",),
        tsv_header=("source", "label", "star", "sentence"),
    ),
    "mrpc": GlueTask(
        columns=_PAIR,
        label_names=("not_equivalent", "equivalent"),
        metric="f1",
        folder="MRPC",
        tsv_columns=("#1 String", "#2 String"),
        tsv_label="Quality",
    ),
    "rte": GlueTask(
        columns=_PAIR, label_names=("entailment", "not_entailment"), folder="RTE", tsv_columns=_PAIR
    ),
    "sst2": GlueTask(
        columns=("sentence",),
        label_names=("negative", "positive"),
        group_keys=_five_word_sequences,
        folder="SST-2",
        tsv_columns=("sentence",),
    ),
    "stsb": GlueTask(
        columns=_PAIR,
        label_names=(),
        metric="pearson",
        folder="STS-B",
        tsv_columns=_PAIR,
        tsv_label="score",
    ),
    "qnli": GlueTask(
        columns=("question", "sentence"), label_names=("entailment", "not_entailment")
    ),
    "mnli": GlueTask(
        columns=("premise", "hypothesis"),
        label_names=("entailment", "neutral", "contradiction"),
        group_keys=_first_text,
        hub_test="validation_matched",
    ),
}

LabelledTexts = tuple[tuple[str, ...], int | float]
"""The text or texts of one row, and its label."""


def load(name: str) -> ClassificationData:
    """The GLUE task `name`; its label is a float from 0 to 5 for "stsb", else an index.

    Raises:
        InputError: a local file is malformed; the error names file and line.
        AssetError: there is no local folder and the hub can't be reached.
    """
    task, root = TASKS[name], data_dir()
    if root and task.folder and (root / "glue" / task.folder).is_dir():
        folder = root / "glue" / task.folder
        train, test = (list(read_tsv(folder / f"{part}.tsv", task)) for part in ("train", "dev"))
    else:
        train, test = _from_hub(name, task)
    if not train or not test:
        raise InputError(
            f"task {name!r}: {len(train)} train and {len(test)} dev rows, expected some"
        )
    splits = _split(name, task, train, test)
    return ClassificationData(
        name=name,
        **to_datasets(splits),
        text_columns=task.columns,
        label_names=task.label_names,
        metric=task.metric,
        data_hash=content_hash(splits),
    )


def _split(
    name: str, task: GlueTask, train: list[LabelledTexts], test: list[LabelledTexts]
) -> dict[str, list[Row]]:
    items = [f"{name}/dev/{i}" for i in range(len(test))]
    items += [f"{name}/train/{i}" for i in range(len(train))]
    examples = test + train
    groups = group_by_shared_keys([task.group_keys(texts) for texts, _ in examples])
    rows = [
        {
            "item": item,
            "source": items[group],
            **dict(zip(task.columns, texts, strict=True)),
            "label": label,
        }
        for item, group, (texts, label) in zip(items, groups, examples, strict=True)
    ]
    return split_around_test(rows[: len(test)], rows[len(test) :], validation=VALIDATION)


def read_tsv(path: Path, task: GlueTask) -> Iterator[LabelledTexts]:
    """Texts and label of each line; quotes are literal, a byte-order mark is skipped.

    Args:
        path: of a tab-separated file.
        task: names its columns.

    Raises:
        InputError: no such file, or a malformed one; the error names file and line.
    """
    lines = csv.reader(_text(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        names = list(task.tsv_header or next(lines, []))
        missing = [name for name in (*task.tsv_columns, task.tsv_label) if name not in names]
        if missing:
            raise InputError(f"{path}: no column {missing[0]!r}; its header is {names}")
        for fields in lines:
            where = f"{path}, line {lines.line_num}"
            if len(fields) != len(names):
                raise InputError(f"{where}: {len(fields)} fields, expected {len(names)}")
            row = dict(zip(names, fields, strict=True))
            texts = tuple(row[name] for name in task.tsv_columns)
            if not all(text.strip() for text in texts):
                raise InputError(f"{where}: an empty text")
            yield texts, _label(row[task.tsv_label], task, where)
    except csv.Error as error:  # a field of more than 131,072 characters
        raise InputError(
            f"{path}, line {lines.line_num}: {error}, expected one example on each line"
        ) from error


def _text(path: Path) -> io.StringIO:
    """The file's lines, decoded at once, so that the line of an invalid byte is known."""
    try:
        return io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; the other files of its task are there") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error


def _label(text: str, task: GlueTask, where: str) -> int | float:
    """The index of a class, from its name or the index itself; or a score from 0 to 5."""
    if not task.label_names:
        try:
            score = float(text)
        except ValueError:
            score = float("nan")
        if not 0 <= score <= 5:
            raise InputError(f"{where}: score {text!r}, expected a number from 0 to 5")
        return score
    index_of = {name: index for index, name in enumerate(task.label_names)}
    index_of |= {str(index): index for index in index_of.values()}
    if text not in index_of:
        raise InputError(f"{where}: label {text!r}, expected one of {', '.join(index_of)}")
    return index_of[text]


def _from_hub(name: str, task: GlueTask) -> Iterator[list[LabelledTexts]]:
    """The hub's train and test rows."""
    from datasets import load_dataset

    try:
        hub = load_dataset("nyu-mll/glue", name)
    except (OSError, ValueError) as error:  # unreachable, offline mode, or not in the local cache
        where = f"put {task.folder}/ in $GEODISTILL_DATA_DIR/glue or " if task.folder else ""
        raise AssetError(
            f"task {name!r}: nyu-mll/glue can't be loaded from the hub "
            f"({first_line(error)}); {where}connect to the hub, see data/cards/glue.md"
        ) from error
    for part in ("train", task.hub_test):
        yield [(tuple(row[name] for name in task.columns), row["label"]) for row in hub[part]]
