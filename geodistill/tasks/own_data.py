"""A reader's own data: a file, a folder that `datasets` wrote, or a data set of the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geodistill.errors import InputError
from geodistill.files import error_summary, first_line
from geodistill.tasks.base import SPLITS, Row, split_around_test, split_by_group
from geodistill.tasks.jsonl import read_jsonl

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

FILES = (".csv", ".jsonl", ".parquet")
EXPECTED = (
    f"a {', '.join(FILES[:-1])} or {FILES[-1]} file, a folder of datasets, or owner/name of the hub"
)
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def is_hub_name(name: Path | str) -> bool:
    """Whether a name, `owner/name` or `owner/name:subset`, is of no file or folder here."""
    is_file = Path(name).suffix.lower() in FILES or Path(name).exists()
    return not is_file and _HUB_NAME.fullmatch(str(name)) is not None


def data_name(name: Path | str) -> str:
    """The name of a file without its ending, or of a data set without its owner."""
    return Path(name).stem.replace(":", "-")


def load_splits(name: Path | str) -> dict[str, Dataset]:
    """The splits of a folder that `datasets` wrote or of a data set of the hub, by name.

    A folder without splits has one by the name "".

    Args:
        name: of the folder; `owner/name`, or `owner/name:subset`, of the hub.

    Raises:
        InputError: no such data, no train split, or other splits beside it than those of `SPLITS`.
    """
    import datasets

    try:
        if is_hub_name(name):
            repository, _, subset = str(name).partition(":")
            loaded: Any = datasets.load_dataset(repository, subset or None)
        else:
            loaded = datasets.load_from_disk(name)
    # no such data, offline, several subsets, a script, files that differ
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"{name} can't be loaded as a data set of the hub ({error_summary(error)}); expected "
            f"{EXPECTED}"
            if is_hub_name(name)
            else f"{name} is not a folder that datasets wrote"
        ) from error
    if isinstance(loaded, datasets.Dataset):
        return {"": loaded}
    if "train" not in loaded or (len(loaded) > 1 and not {"validation", "test"} & set(loaded)):
        raise InputError(
            f"{name} has the splits {', '.join(loaded)}; expected train, alone or with validation "
            "or test (a datasets.DatasetDict with these names can be saved with save_to_disk)"
        )
    return {split: loaded[split] for split in SPLITS if split in loaded}


def read_frame(path: Path) -> pd.DataFrame:
    """The table of a file, with blanks around names of columns stripped.

    Cells of a .csv file stay as they are written.

    Raises:
        InputError: no such file, another ending, a file that can't be read, or two columns of one
            name.
    """
    import pandas as pd
    import pyarrow.parquet as parquet

    # With gaps, long integers would be rounded as floats.
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": lambda file: pd.read_csv(file, dtype=str, keep_default_na=False, na_values=[""]),
        ".jsonl": lambda file: pd.DataFrame([row for _, row in read_jsonl(file)], dtype=object),
        ".parquet": lambda file: _to_pandas(parquet.read_table(file)),
    }
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: expected a folder or a file ending in {', '.join(readers)}")
    if not path.is_file():
        raise InputError(f"no file at {path}")
    try:
        return _with_stripped_names(readers[path.suffix.lower()](path), path)
    except InputError:
        raise
    except (ValueError, OSError) as error:  # pandas' and pyarrow's errors of form and encoding
        hint = "; expected UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise InputError(f"{path} can't be read: {first_line(error)}{hint}") from error


def _to_pandas(table: Any) -> pd.DataFrame:
    """An Arrow table with every column as one, and long integers exact where others are missing."""
    frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True, ignore_metadata=True)
    return frame


def read_frames(path: Path, label: str | None) -> dict[str, pd.DataFrame]:
    """The table of each split, "" for a file, with blanks around names of columns stripped.

    Args:
        path: of the data, or its name on the hub.
        label: column whose classes, where they are numbered, get their names.

    Raises:
        InputError: unusable data, or two columns of one name.
    """
    import datasets

    if not (path.is_dir() or is_hub_name(path)):
        return {"": read_frame(path)}
    frames = {}
    for split, rows in load_splits(path).items():
        frame = _with_stripped_names(_to_pandas(rows.with_format("arrow")[:]), path)
        for column, feature in rows.features.items():
            if column.strip() == label and isinstance(feature, datasets.ClassLabel):
                classes = [None if i < 0 else feature.int2str(i) for i in frame[label]]
                frame[label] = classes
        frames[split] = frame
    return frames


def _with_stripped_names(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    names = [str(name).strip() for name in frame.columns]
    repeated = [name for index, name in enumerate(names) if name in names[:index]]
    if repeated:
        raise InputError(
            f"{path} has two columns {repeated[0]!r}, as blanks around a name do not count; "
            "expected different names: rename one of them"
        )
    return frame.set_axis(names, axis=1)


def read_rows(name: Path | str) -> Iterator[tuple[str, str, Row]]:
    """The rows of a data set, each after its split, "" if it has none, and its place.

    Raises:
        InputError: unusable data.
    """
    path = Path(name)
    if path.suffix.lower() == ".jsonl":
        yield from (("", where, row) for where, row in read_jsonl(path))
    elif path.suffix.lower() in FILES:
        records: list[Any] = read_frame(path).to_dict("records")
        for i, row in enumerate(records, 1):
            lists = {k: v.tolist() for k, v in row.items() if isinstance(v, np.ndarray)}
            yield "", f"{path}, row {i}", {**row, **lists}
    else:
        for split, rows in load_splits(name).items():
            where = f"{name}, {split} row" if split else f"{name}, row"
            yield from ((split, f"{where} {i}", row) for i, row in enumerate(rows, 1))


def split_rows(
    rows: Sequence[Row], splits: Sequence[str], *, test: float, validation: float
) -> dict[str, list[Row]]:
    """Rows by split: their own, or by group where they have none.

    A row is left out if its group is in a later split, too: of train, validation and test. Where
    there is no test split, validation is it.

    Args:
        rows: with their group in the column `source`.
        splits: of each row; "" for none.
        test: expected share of the groups in the test split, from 0 to 1.
        validation: the same for validation; the rest is for training.
    """
    if "test" not in splits:
        splits = ["test" if split == "validation" else split for split in splits]
    parts = {
        name: [row for row, split in zip(rows, splits, strict=True) if split == name]
        for name in SPLITS
    }
    if not parts["test"]:
        return split_by_group(rows, test=test, validation=validation)
    if not parts["validation"]:
        return split_around_test(parts["test"], parts["train"], validation=validation)
    for name, later in (("train", "validation"), ("validation", "test"), ("train", "test")):
        groups = {row["source"] for row in parts[later]}
        parts[name] = [row for row in parts[name] if row["source"] not in groups]
    return parts
