"""Stored results, read and checked; runs that are left out are counted by reason."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geodistill.errors import InputError
from geodistill.files import error_summary, verify_checksum

CELL = ("task", "method", "seed")
ROW_COLUMNS = ("run_id", *CELL, "metric", "value", "dirty")
ITEM_COLUMNS = ("run_id", *CELL, "item", "source", "score")


@dataclass(frozen=True)
class StoredTable:
    """Rows of runs from a clean checkout.

    Attributes:
        frame: tidy rows.
        left_out: number of runs left out, by reason.
    """

    frame: pd.DataFrame
    left_out: dict[str, int]

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Ids of the runs, sorted."""
        return tuple(sorted(self.frame["run_id"].unique()))


def load_rows(
    folder: Path, vary: Sequence[str] = (), runs: Collection[str] | None = None
) -> StoredTable:
    """One row per run and metric from `folder/rows.parquet`.

    Args:
        folder: of one section of a study.
        vary: settings in which runs of one task, method and seed may differ; each becomes a column.
            A setting is a column of the file or a key of its `config`.
        runs: ids of the runs to read, which may then differ in any setting; all by default.

    Returns:
        `run_id, task, method, seed, metric, value`, the other columns of the file, and `vary`.

    Raises:
        InputError: no such file, a damaged one, missing columns, a run with a metric twice, a value
            that is not finite, an unknown setting, or two clean runs of one task, method and seed
            (and of the settings in `vary`).

    Example:
        >>> from pathlib import Path
        >>> from geodistill.analysis import load_rows
        >>> load_rows(Path("no/such/section"))
        Traceback (most recent call last):
        geodistill.errors.InputError: no stored rows at no/such/section/rows.parquet; expected ...
    """
    path = folder / "rows.parquet"
    frame = _read(path, ROW_COLUMNS)
    _refuse_duplicates(frame, ["run_id", "metric"], path)
    dirty = frame["dirty"].astype(bool)
    left_out = {"from a changed checkout": int(frame.loc[dirty, "run_id"].nunique())}
    rows = frame[~dirty].reset_index(drop=True)
    if runs is not None:
        n_clean = rows["run_id"].nunique()
        rows = rows[rows["run_id"].isin(runs)].reset_index(drop=True)
        left_out["of another setting"] = n_clean - rows["run_id"].nunique()
    rows = rows.assign(**{name: _setting(rows, name, path) for name in vary})
    _refuse_not_finite(rows, "value", path)
    if runs is None:
        _refuse_ambiguous_runs(rows, [*CELL, *vary], path)
    return StoredTable(rows, left_out)


def load_items(
    folder: Path, vary: Sequence[str] = (), runs: Collection[str] | None = None
) -> StoredTable:
    """One row per run and test item from `folder/items.parquet`, of the runs of `load_rows`.

    Args:
        folder: of one section of a study.
        vary: settings in which runs of one task, method and seed may differ; each becomes a column.
        runs: ids of the runs to read; all by default.

    Returns:
        `run_id, task, method, seed, item, source, score`, the other columns of the file, and
        `vary`.

    Raises:
        InputError: as `load_rows`; or a run with one item twice, or a score that is not finite.

    Example:
        >>> from geodistill.analysis import load_items
        >>> from geodistill.paths import data_dir
        >>> table = load_items(data_dir() / "results/earlier/classification/primary")
        >>> table.frame["score"].max(), table.left_out["without items"]
        (np.float64(1.0), 0)
    """
    table = load_rows(folder, vary, runs)
    path = folder / "items.parquet"
    frame = _read(path, ITEM_COLUMNS)
    items = frame[frame["run_id"].isin(table.run_ids)].reset_index(drop=True)
    settings = table.frame.drop_duplicates("run_id").set_index("run_id")
    items = items.assign(**{name: items["run_id"].map(settings[name]) for name in vary})
    _refuse_duplicates(items, ["run_id", "item"], path)
    _refuse_not_finite(items, "score", path)
    without = len(table.run_ids) - items["run_id"].nunique()
    return StoredTable(items, {**table.left_out, "without items": without})


def pivot_metrics(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per run and one column per metric, from rows as `load_rows` gives them."""
    index = ["run_id", *CELL]
    return frame.pivot(index=index, columns="metric", values="value").reset_index()


def read_stored(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A stored table, or some of its columns.

    Raises:
        InputError: the file can't be read: cut, damaged, or gone; or its hash is not the one that
            the `SHA256SUMS` of its folder lists.
    """
    try:
        verify_checksum(path)
        return pd.read_parquet(path, columns=columns)
    except InputError:
        raise
    except Exception as error:  # pyarrow and pandas raise whatever the damage leads them to
        raise InputError(
            f"{path} can't be read ({error_summary(error)}); restore it, or delete it and make its "
            "runs again"
        ) from error


def _read(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"no stored rows at {path}; expected a folder of results with this file")
    frame = read_stored(path)
    absent = [column for column in columns if column not in frame]
    if absent:
        raise InputError(
            f"{path} lacks the columns {', '.join(absent)}; it has {', '.join(frame.columns)}"
        )
    return frame


def _setting(frame: pd.DataFrame, name: str, path: Path) -> "pd.Series[Any]":
    """A column of the rows, or a key of their `config`."""
    if name in frame:
        return frame[name]
    if "config" in frame and any(name in json.loads(c) for c in frame["config"].unique()):
        return frame["config"].map(lambda config: json.loads(config).get(name))
    raise InputError(f"{path} has no column or setting {name!r}")


def _refuse_duplicates(frame: pd.DataFrame, key: list[str], path: Path) -> None:
    repeated = frame.loc[frame.duplicated(key), key]
    if len(repeated):
        first = " ".join(str(value) for value in repeated.iloc[0])
        raise InputError(
            f"{path} holds {len(repeated)} rows twice, the first: {' × '.join(key)} = {first}"
        )


def _refuse_not_finite(frame: pd.DataFrame, column: str, path: Path) -> None:
    bad = frame[~np.isfinite(frame[column].astype(float))]
    if len(bad):
        raise InputError(
            f"{path}: {len(bad)} rows have a {column} that is not finite, the first in run "
            f"{bad['run_id'].iloc[0]}"
        )


def _refuse_ambiguous_runs(frame: pd.DataFrame, key: list[str], path: Path) -> None:
    runs = frame[["run_id", *key]].drop_duplicates()
    same = runs[runs.duplicated(key, keep=False)].sort_values(key)
    if len(same):
        cell = "/".join(str(same.iloc[0][name]) for name in key)
        raise InputError(
            f"{path} holds two clean runs of {cell}: {same.iloc[0]['run_id']} and "
            f"{same.iloc[1]['run_id']}; keep one, or select runs by runs="
        )
