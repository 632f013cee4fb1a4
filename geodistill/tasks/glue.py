"""GLUE tasks, from ``$GEODISTILL_DATA_DIR/glue`` or from the hub's ``nyu-mll/glue``.

Wang et al., "GLUE: a multi-task benchmark and analysis platform for natural language
understanding" (ICLR 2019). GLUE's own test labels are hidden, so its development set is our test
set, and validation is taken from train. Train rows that share a source (a sentence, or a member of
a pair) with the test set are dropped; ``data/cards/glue.md`` says how many.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geodistill.errors import AssetError, InputError
from geodistill.tasks.base import (
    ClassificationData,
    Row,
    content_hash,
    data_dir,
    link_sources,
    split_of,
    text_key,
    to_datasets,
    word_runs,
)

VALIDATION = 0.1
"""Share of the sources of train that is kept for validation."""


def _every_text(texts: tuple[str, ...]) -> list[str]:
    return [text_key(text) for text in texts]


def _first_text(texts: tuple[str, ...]) -> list[str]:
    """MNLI: hypotheses are short and repeat by chance; the premise is what rows were made from."""
    return [text_key(texts[0])]


def _phrases(texts: tuple[str, ...]) -> list[str]:
    """SST-2's rows are phrases of sentences: five words in a row in common mean one sentence."""
    return [text_key(texts[0]), *word_runs(texts[0], 5)]


@dataclass(frozen=True)
class GlueTask:
    """How one task lies in its files.

    ``text`` and ``label`` are column names of the TSV files below ``folder`` (``None``: the hub
    alone), whose first line names the columns unless ``header`` does; ``columns`` are the hub's
    names for the same texts, which are ours too. ``label_names`` in the hub's order, empty for
    regression. ``keys`` says by which texts two rows have one source.
    """

    columns: tuple[str, ...]
    label_names: tuple[str, ...]
    metric: str = "accuracy"
    keys: Callable[[tuple[str, ...]], list[str]] = _every_text
    folder: str | None = None
    text: tuple[str, ...] = ()
    label: str = "label"
    header: tuple[str, ...] | None = None
    hub_test: str = "validation"


_PAIR = ("sentence1", "sentence2")
TASKS = {
    "cola": GlueTask(
        columns=("sentence",),
        label_names=("unacceptable", "acceptable"),
        metric="matthews_correlation",
        folder="CoLA",
        text=("sentence",),
        header=("source", "label", "star", "sentence"),
    ),
    "mrpc": GlueTask(
        columns=_PAIR,
        label_names=("not_equivalent", "equivalent"),
        metric="f1",
        folder="MRPC",
        text=("#1 String", "#2 String"),
        label="Quality",
    ),
    "rte": GlueTask(
        columns=_PAIR, label_names=("entailment", "not_entailment"), folder="RTE", text=_PAIR
    ),
    "sst2": GlueTask(
        columns=("sentence",),
        label_names=("negative", "positive"),
        keys=_phrases,
        folder="SST-2",
        text=("sentence",),
    ),
    "stsb": GlueTask(
        columns=_PAIR, label_names=(), metric="pearson", folder="STS-B", text=_PAIR, label="score"
    ),
    "qnli": GlueTask(
        columns=("question", "sentence"), label_names=("entailment", "not_entailment")
    ),
    "mnli": GlueTask(
        columns=("premise", "hypothesis"),
        label_names=("entailment", "neutral", "contradiction"),
        keys=_first_text,
        hub_test="validation_matched",
    ),
}

Example = tuple[tuple[str, ...], int | float]


def load(name: str) -> ClassificationData:
    """The GLUE task ``name``; a float label in [0, 5] for ``"stsb"``, else an index.

    Raises:
        InputError: a local file is malformed; the message gives file and line.
        AssetError: no local folder and the hub is out of reach.
    """
    task, root = TASKS[name], data_dir()
    if root and task.folder and (root / "glue" / task.folder).is_dir():
        folder = root / "glue" / task.folder
        train, test = (list(read_tsv(folder / f"{part}.tsv", task)) for part in ("train", "dev"))
    else:
        train, test = (list(part) for part in _from_hub(name, task))
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
    name: str, task: GlueTask, train: list[Example], test: list[Example]
) -> dict[str, list[Row]]:
    """Test rows as they are; train rows by source, without those of a test source."""
    items = [f"{name}/dev/{i}" for i in range(len(test))]
    items += [f"{name}/train/{i}" for i in range(len(train))]
    examples = test + train
    roots = link_sources([task.keys(texts) for texts, _ in examples])
    tested = set(roots[: len(test)])
    splits: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for place, (item, (texts, label), root) in enumerate(zip(items, examples, roots, strict=True)):
        row = {"item": item, "source": items[root], **dict(zip(task.columns, texts, strict=True))}
        if place < len(test):
            side = "test"
        elif root in tested:
            continue
        else:
            side = split_of(items[root], test=0.0, validation=VALIDATION)
        splits[side].append({**row, "label": label})
    return splits


def read_tsv(path: Path, task: GlueTask) -> Iterator[Example]:
    """Texts and label of each line; quotes are literal, a byte-order mark is skipped."""
    lines = csv.reader(_text(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        names = list(task.header or next(lines, []))
        missing = [name for name in (*task.text, task.label) if name not in names]
        if missing:
            raise InputError(f"{path}: no column {missing[0]!r}; its header is {names}")
        for fields in lines:
            where = f"{path}, line {lines.line_num}"
            if len(fields) != len(names):
                raise InputError(f"{where}: {len(fields)} fields, expected {len(names)}")
            row = dict(zip(names, fields, strict=True))
            texts = tuple(row[name] for name in task.text)
            if not all(text.strip() for text in texts):
                raise InputError(f"{where}: an empty text")
            yield texts, _label(row[task.label], task, where)
    except csv.Error as error:  # a field of more than 131,072 characters
        raise InputError(
            f"{path}, line {lines.line_num}: {error}, expected one example on each line"
        ) from error


def _text(path: Path) -> io.StringIO:
    """The file's lines, decoded at once: only so is the line of a wrong byte known."""
    try:
        return io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing beside the other files of its task") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error


def _label(text: str, task: GlueTask, where: str) -> int | float:
    """An index into ``label_names``, from the name or the index itself; or a score in [0, 5]."""
    if not task.label_names:
        try:
            score = float(text)
        except ValueError:
            score = float("nan")
        if not 0 <= score <= 5:
            raise InputError(f"{where}: score {text!r}, expected a number from 0 to 5")
        return score
    known = {name: i for i, name in enumerate(task.label_names)}
    known |= {str(i): i for i in known.values()}
    if text not in known:
        raise InputError(f"{where}: label {text!r}, expected one of {', '.join(known)}")
    return known[text]


def _from_hub(name: str, task: GlueTask) -> Iterable[Iterator[Example]]:
    from datasets import load_dataset

    try:
        hub = load_dataset("nyu-mll/glue", name)
    except (OSError, ValueError) as error:  # unreachable, offline mode, or not in the local cache
        where = f"put {task.folder}/ in $GEODISTILL_DATA_DIR/glue or " if task.folder else ""
        raise AssetError(
            f"task {name!r}: nyu-mll/glue can't be loaded from the hub "
            f"({str(error).splitlines()[0]}); {where}connect to the hub, see data/cards/glue.md"
        ) from error
    return (_hub_examples(hub[part], task) for part in ("train", task.hub_test))


def _hub_examples(part: Iterable[Row], task: GlueTask) -> Iterator[Example]:
    for row in part:
        yield tuple(row[name] for name in task.columns), row["label"]
