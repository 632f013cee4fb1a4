"""A reader's own classification task: one table with named columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geodistill.errors import InputError, first_names
from geodistill.tasks.base import (
    ClassificationData,
    Row,
    content_hash,
    group_by_shared_keys,
    text_key,
    to_datasets,
)
from geodistill.tasks.own_data import data_name, read_frames, split_rows

if TYPE_CHECKING:
    import pandas as pd

TEST, VALIDATION = 0.25, 0.1
"""Expected shares of the groups in the test and validation splits."""


def load_table(
    path: Path | str,
    *,
    texts: str | Sequence[str],
    label: str | None = "label",
    group: str | None = None,
) -> ClassificationData:
    """A classification or regression task, or texts without labels, from a table; split by group.

    Its columns are `item`, `source` (the group), `text` (`text_1` and `text_2` for a pair) and
    `label`; class names are the labels of the training split, sorted. Data with a train and a test
    split keep them, but for training rows whose group is in the test split; if no test row has a
    label, validation is the test split.

    Args:
        path: a .csv, .jsonl or .parquet file, a folder that `datasets` wrote, or `owner/name` or
            `owner/name:subset` of the hub.
        texts: column of the text, or the two columns of a pair, as a list or with a comma. Blanks
            around the names of columns do not count; the cells of a .csv file stay as they are
            written ("007", "0.50").
        label: column of the class, a word or an integer; blanks around words do not count.
            Decimal numbers, 1.0 included, make a regression; with None, the rows have no label.
            In a .csv file, whole numbers written otherwise (01, +1) are words.
        group: column that says which rows belong together, such as a review or an author. Rows
            that share a text are grouped too; a row without a group, or with blanks, is its own.

    Raises:
        InputError: no such file or column, two columns of one name, a file that can't be read or
            has no rows, a missing or blank label, an empty text, lists in place of texts, one class
            or score alone, labels of several types, an infinite score, a split without rows, or a
            label in validation or test that is not in train.

    Example:
        >>> import pandas as pd
        >>> texts = [f"text {i}" for i in range(80)]
        >>> table = pd.DataFrame({"review": texts, "kind": ["bad", "good"] * 40})
        >>> table.to_csv("mine.csv", index=False)
        >>> data = load_table("mine.csv", texts="review", label="kind")
        >>> data.label_names, len(data.train) + len(data.validation) + len(data.test)
        (('bad', 'good'), 80)
    """
    path = Path(path)
    label, group = (name if name is None else name.strip() for name in (label, group))
    table, own_splits = _read(path, label)
    if isinstance(texts, str):
        texts = [texts] if texts.strip() in table else texts.split(",")
    texts = [name.strip() for name in texts]
    if not 1 <= len(texts) <= 2:
        raise InputError(f"texts is {texts}: expected one column, or the two of a pair")
    missing = [c for c in (*texts, label, group) if c is not None and c not in table]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; it has {', '.join(table.columns)}")
    if table.empty:
        raise InputError(f"{path} holds no rows")
    text_columns = ("text",) if len(texts) == 1 else ("text_1", "text_2")
    rows = _rows(path, table, dict(zip(text_columns, texts, strict=True)), label, group)
    regression = label is not None and table[label].dtype.kind == "f"
    splits = split_rows(rows, own_splits, test=TEST, validation=VALIDATION)
    for name, split in splits.items():
        if not split:
            raise InputError(
                f"{path}: {len(rows)} rows in {len({row['source'] for row in rows})} groups leave "
                f"none for {name}; expected a few dozen groups"
            )
    if regression:
        _check_scores(path, splits)
    has_classes = label is not None and not regression
    label_names = _index_labels(path, splits) if has_classes else ()
    return ClassificationData(
        name=data_name(path),
        **to_datasets(splits),
        text_columns=text_columns,
        label_names=label_names,
        metric="pearson" if regression else "accuracy",
        data_hash=content_hash(splits),
    )


def _check_scores(path: Path, splits: dict[str, list[Row]]) -> None:
    for split, rows in splits.items():
        scores = {row["label"] for row in rows}
        if not all(map(math.isfinite, scores)):
            raise InputError(f"{path}: {split} rows have infinite scores; expected finite ones")
        if len(scores) < 2:
            raise InputError(
                f"{path}: all {split} rows have the score {scores.pop():g}; expected several"
            )


def _read(path: Path, label: str | None) -> tuple[pd.DataFrame, list[str]]:
    """The table, its labels as words or numbers, its index the place of each row; rows' splits."""
    import pandas as pd

    frames = read_frames(path, label)
    if "test" in frames and _has_hidden_labels(frames, label):
        del frames["test"]
    types = {
        f"{frame[label].dtype} in {split}" for split, frame in frames.items() if label in frame
    }
    if len(types) > 1 and 0 < sum("float" in name for name in types) < len(types):
        raise InputError(f"{path}: {label} is {first_names(sorted(types))}; expected one type")
    table = pd.concat(frames.values(), ignore_index=True)
    splits = [split for split, frame in frames.items() for _ in range(len(frame))]
    rows = [
        f"{split} row {i}".strip()
        for split, frame in frames.items()
        for i in range(1, len(frame) + 1)
    ]
    table.index = pd.Index(rows)
    if label in table and path.suffix.lower() == ".csv" and not path.is_dir():
        table[label] = _parse_labels(table[label])
    elif label in table:
        table[label] = table[label].infer_objects()
    return table, splits


def _has_hidden_labels(frames: dict[str, pd.DataFrame], label: str | None) -> bool:
    """Whether no test row has a label, as in a competition: none, or -1 where none is in train."""
    if label is None or label not in frames["train"]:
        return False
    if label not in frames["test"] or _is_missing(frames["test"][label]).all():
        return True
    hidden = {"-1", "-1.0"}
    in_train, in_test = (set(frames[split][label].astype(str)) for split in ("train", "test"))
    return in_test <= hidden and not in_train & hidden


def _parse_labels(cells: pd.Series) -> pd.Series:
    """Labels of a .csv file: booleans, integers or decimal numbers if all of them are, or words."""
    import pandas as pd

    words = cells.str.strip()
    if words.str.lower().isin(["true", "false"]).all():
        return words.str.lower() == "true"
    try:
        if words.str.fullmatch("[+-]?[0-9]+").all():
            integers = pd.Series([int(word) for word in words], words.index, dtype=object)
            return integers if (integers.map(str) == words).all() else words
        return pd.to_numeric(words)
    except ValueError:  # of to_numeric; int has a limit of digits, too
        return words


def _rows(
    path: Path, table: pd.DataFrame, texts: dict[str, str], label: str | None, group: str | None
) -> list[Row]:
    """Rows with item, source, texts and the label as the table has it."""
    from pandas.api.types import is_list_like

    if label is not None:
        _check_labels(path, table[label])
    values = table[list(texts.values())].astype(object)
    is_list = values.map(is_list_like).any(axis=1)
    _refuse_rows(path, is_list, "a list in place of a text")
    words = values.where(values.notna(), "").astype(str)
    empty = words.apply(lambda column: column.str.strip() == "").any(axis=1)
    _refuse_rows(path, empty, "an empty text")
    keys = [[text_key(text) for text in row] for row in words.itertuples(index=False)]
    if group:
        groups = table[group]
        for row_keys, name, is_missing in zip(keys, groups, _is_missing(groups), strict=True):
            if not is_missing:
                row_keys.append(f"source {_stripped(name)}")
    items = [f"{data_name(path)}/{index}" for index in range(len(table))]
    columns = {
        "item": items,
        "source": [items[first] for first in group_by_shared_keys(keys)],
        **{name: words.iloc[:, index].tolist() for index, name in enumerate(texts)},
        **({} if label is None else {"label": [_stripped(value) for value in table[label]]}),
    }
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _is_missing(column: pd.Series) -> pd.Series:
    """Which cells are missing or blank."""
    return column.isna() | (column.astype(str).str.strip() == "")


def _stripped(label: object) -> object:
    return label.strip() if isinstance(label, str) else label


def _check_labels(path: Path, labels: pd.Series) -> None:
    _refuse_rows(path, _is_missing(labels), f"no {labels.name}")
    types = sorted({type(value).__name__ for value in labels.tolist()})
    if len(types) > 1 or types[0] not in ("str", "int", "float", "bool"):
        raise InputError(
            f"{path}: {labels.name} holds {', '.join(types)}; expected words, or numbers"
        )


def _refuse_rows(path: Path, bad: pd.Series, fault: str) -> None:
    """Raise InputError if any rows are bad, with their number and the first of them."""
    if bad.any():
        raise InputError(f"{path}: {int(bad.sum())} rows have {fault}, the first is {bad.idxmax()}")


def _index_labels(path: Path, splits: dict[str, list[Row]]) -> tuple[str, ...]:
    """Replace labels by indices into the sorted training labels; return the names of these."""
    labels = sorted({row["label"] for row in splits["train"]})
    if all(str(label).isdecimal() for label in labels):  # "10" follows "9"
        labels.sort(key=int)
    if len(labels) < 2:
        raise InputError(f"{path}: all training rows have the label {labels[0]!r}; expected two")
    index_of = {value: index for index, value in enumerate(labels)}
    for split, rows in splits.items():
        for row in rows:
            if row["label"] not in index_of:
                raise InputError(
                    f"{path}: {row['item']} of the {split} split has the label {row['label']!r}, "
                    f"which no training row has; known: {first_names(labels)}"
                )
            row["label"] = index_of[row["label"]]
    return tuple(map(str, labels))
