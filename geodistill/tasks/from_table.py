"""A reader's own task: one table with named columns, from a file or a `datasets` folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodistill.errors import InputError
from geodistill.tasks.base import (
    ClassificationData,
    Row,
    content_hash,
    link_sources,
    split_by_source,
    text_key,
    to_datasets,
)
from geodistill.tasks.jsonl import read_jsonl

if TYPE_CHECKING:
    import pandas as pd

TEST, VALIDATION = 0.25, 0.1
"""Shares of the sources."""


def load_file(
    path: Path | str,
    *,
    texts: str | Sequence[str],
    label: str = "label",
    source: str | None = None,
) -> ClassificationData:
    """A task from a table: split by source, classes named by the labels of its training part.

    Its columns are item, source, `text` (of a pair `text_1` and `text_2`) and label.

    Args:
        path: .csv, .jsonl, .parquet, or a folder written by `datasets.Dataset.save_to_disk`.
        texts: column of the text, or the two columns of a pair.
        label: column of the class, a word or a whole number; decimal numbers, 1.0 too, make a
            regression.
        source: column that says which rows belong together (a review, an author); rows that share
            a text do so anyway, and one without a source stands alone.

    Raises:
        InputError: no such file or column, a file that can't be read, a missing label, an empty
            text, one class or score alone, labels of several kinds, a score that is not finite, a
            part without rows, a label that stands in validation or test but not in train.
    """
    path = Path(path)
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not 1 <= len(texts) <= 2:
        raise InputError(f"texts is {texts}: expected one column, or the two of a pair")
    table = _read(path, label)
    missing = [c for c in (*texts, label, *([source] if source else [])) if c not in table]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}; it has {', '.join(table.columns)}")
    named = ("text",) if len(texts) == 1 else ("text_1", "text_2")
    rows = _rows(path, table, dict(zip(named, texts, strict=True)), label, source)
    regression = table[label].dtype.kind == "f"
    if regression:
        _check_scores(path, table[label])
    splits = split_by_source(rows, test=TEST, validation=VALIDATION)
    for side in ("train", "validation", "test"):
        if not splits[side]:
            raise InputError(
                f"{path}: {len(rows)} rows of {len({row['source'] for row in rows})} sources leave "
                f"none for {side}; expected a few dozen sources"
            )
    names = () if regression else _index_labels(path, splits)
    return ClassificationData(
        name=path.stem,
        **to_datasets(splits),
        text_columns=named,
        label_names=names,
        metric="pearson" if regression else "accuracy",
        data_hash=content_hash(splits),
    )


def _check_scores(path: Path, scores: pd.Series) -> None:
    import numpy as np

    if not np.isfinite(scores).all():
        raise InputError(f"{path}: {scores.name} has infinite scores: expected finite ones")
    if scores.nunique() < 2:
        raise InputError(f"{path}: all rows have the score {scores.iloc[0]:g}; expected several")


def _read(path: Path, label: str) -> pd.DataFrame:
    import datasets
    import pandas as pd

    if path.is_dir():
        try:
            folder = datasets.load_from_disk(path)
        except FileNotFoundError as error:
            raise InputError(f"{path} is not a folder that datasets wrote") from error
        if isinstance(folder, datasets.DatasetDict):
            raise InputError(f"{path} holds the parts {', '.join(folder)}; give the folder of one")
        whole: pd.DataFrame = folder.to_pandas()
        classes = folder.features.get(label)
        if isinstance(classes, datasets.ClassLabel):
            whole[label] = [None if place < 0 else classes.int2str(place) for place in whole[label]]
        return whole
    readers: dict[str, Any] = {  # a text that says "NA" or "003" says so
        ".csv": lambda file: pd.read_csv(file, keep_default_na=False, na_values=[""]),
        ".jsonl": lambda file: pd.DataFrame([row for _, row in read_jsonl(file)]),
        ".parquet": pd.read_parquet,
    }
    if path.suffix not in readers:
        raise InputError(f"{path}: expected a folder or a file ending in {', '.join(readers)}")
    if not path.is_file():
        raise InputError(f"no file at {path}")
    try:
        table: pd.DataFrame = readers[path.suffix](path)
    except (ValueError, OSError) as error:  # pandas' and pyarrow's errors of form and encoding
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} can't be read: {reason}") from error
    return table


def _rows(
    path: Path, table: pd.DataFrame, texts: dict[str, str], label: str, source: str | None
) -> list[Row]:
    """Rows with item, source, texts and the label as it stands."""
    without = table[label].isna()
    if without.any():
        raise InputError(f"{path}: {int(without.sum())} rows have no {label}, the first is row "
                         f"{int(without.to_numpy().argmax()) + 1}")  # fmt: skip
    kinds = sorted({type(value).__name__ for value in table[label].tolist()})
    if len(kinds) > 1 or kinds[0] not in ("str", "int", "float", "bool"):
        raise InputError(f"{path}: {label} holds {', '.join(kinds)}; expected words, or numbers")
    words = table[list(texts.values())].fillna("").astype(str)
    empty = words.apply(lambda column: column.str.strip() == "").any(axis=1)
    if empty.any():
        raise InputError(f"{path}: {int(empty.sum())} rows have an empty text, the first is row "
                         f"{int(empty.to_numpy().argmax()) + 1}")  # fmt: skip
    keys = [[text_key(text) for text in row] for row in words.itertuples(index=False)]
    if source:
        for own, name, missing in zip(keys, table[source], table[source].isna(), strict=True):
            if not missing:
                own.append(f"source {name}")
    roots = link_sources(keys)
    return [
        {
            "item": f"{path.stem}/{place}",
            "source": f"{path.stem}/{root}",
            **dict(zip(texts, row, strict=True)),
            "label": value,
        }
        for place, (root, row, value) in enumerate(
            zip(roots, words.itertuples(index=False), table[label].tolist(), strict=True)
        )
    ]


def _index_labels(path: Path, splits: dict[str, list[Row]]) -> tuple[str, ...]:
    """Replace labels by indices into the sorted labels of the training part; return their names."""
    known = sorted({row["label"] for row in splits["train"]})
    if len(known) < 2:
        raise InputError(f"{path}: all training rows have the label {known[0]!r}; expected two")
    index = {value: place for place, value in enumerate(known)}
    for side, rows in splits.items():
        for row in rows:
            if row["label"] not in index:
                raise InputError(
                    f"{path}: {row['item']} of the {side} part has the label {row['label']!r}, "
                    f"which no training row has; known: {', '.join(map(str, known))}"
                )
            row["label"] = index[row["label"]]
    return tuple(map(str, known))
