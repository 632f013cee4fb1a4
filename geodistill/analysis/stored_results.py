"""The door for stored results: reads and checks them, and counts what it leaves out."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geodistill.errors import InputError

CELL = ("task", "method", "seed")
ROW_COLUMNS = ("run_id", *CELL, "metric", "value", "status", "dirty")
ITEM_COLUMNS = ("run_id", *CELL, "item", "source", "score")


@dataclass(frozen=True)
class Table:
    """Rows of finished, clean runs only.

    frame: the tidy rows; left_out: reason -> number of runs that the tables do not count.
    """

    frame: pd.DataFrame
    left_out: dict[str, int]

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(sorted(self.frame["run_id"].unique()))

    @property
    def says(self) -> str:
        """One line for a caption: runs used and runs left out, by reason."""
        left = "; ".join(f"{n} {reason}" for reason, n in self.left_out.items() if n)
        return f"{len(self.run_ids)} runs used, left out: {left or 'none'}"


def digest(run_ids: Sequence[str]) -> str:
    """A short name for a set of runs, in any order: 8 hexadecimal digits of its SHA-256."""
    return sha256("\n".join(sorted(set(run_ids))).encode()).hexdigest()[:8]


def load_rows(
    folder: Path,
    where: Mapping[str, Any] | None = None,
    vary: Sequence[str] = (),
    runs: Collection[str] | None = None,
) -> Table:
    """One row a metric from `folder/rows.parquet`: `run_id, task, method, seed, metric, value`.

    Args:
        folder: of one study.
        where: the setting to read, {name: value}, where the study holds several: a column of the
            rows (`n_train`) or a key of their `config`.
        vary: settings in which runs of one task, method and seed may differ; each becomes a column.
        runs: ids of the runs to read, which may then differ in their setting.

    Raises:
        InputError: no such file, a damaged one, missing columns, a run with one metric twice, a
            value that is not finite, a setting that no row has, or two clean runs of one task,
            method and seed (and of what may `vary`).
    """
    frame = _read(folder, "rows.parquet", ROW_COLUMNS)
    _refuse_duplicates(frame, ["run_id", "metric"], folder / "rows.parquet")
    dirty, unfinished = frame["dirty"].astype(bool), frame["status"] != "finished"
    left_out = {
        "unfinished": int(frame.loc[unfinished, "run_id"].nunique()),
        "from a changed checkout": int(frame.loc[dirty & ~unfinished, "run_id"].nunique()),
    }
    clean = frame[~dirty & ~unfinished].reset_index(drop=True)
    kept = _select(clean, where or {}, folder / "rows.parquet")
    if runs is not None:
        kept = kept[kept["run_id"].isin(runs)].reset_index(drop=True)
    if where or runs is not None:
        left_out["of another setting"] = clean["run_id"].nunique() - kept["run_id"].nunique()
    kept = kept.assign(**{k: _setting(kept, k, folder / "rows.parquet") for k in vary})
    _refuse_not_finite(kept, "value", folder / "rows.parquet")
    if runs is None:
        _refuse_rivals(kept, [*CELL, *vary], folder / "rows.parquet")
    return Table(kept, left_out)


def load_items(
    folder: Path,
    where: Mapping[str, Any] | None = None,
    vary: Sequence[str] = (),
    runs: Collection[str] | None = None,
) -> Table:
    """One row a run and test item from `folder/items.parquet`, of the runs that `load_rows` keeps.

    Raises:
        InputError: as `load_rows`; or a run with one item twice, or a score that is not finite.
    """
    rows = load_rows(folder, where, vary, runs)
    frame = _read(folder, "items.parquet", ITEM_COLUMNS)
    kept = frame[frame["run_id"].isin(rows.run_ids)].reset_index(drop=True)
    settings = rows.frame.drop_duplicates("run_id").set_index("run_id")
    kept = kept.assign(**{name: kept["run_id"].map(settings[name]) for name in vary})
    _refuse_duplicates(kept, ["run_id", "item"], folder / "items.parquet")
    _refuse_not_finite(kept, "score", folder / "items.parquet")
    without = len(rows.run_ids) - kept["run_id"].nunique()
    return Table(kept, {**rows.left_out, "without items": without})


def missing_cells(frame: pd.DataFrame) -> list[tuple[str, str, int]]:
    """The (task, method, seed) cells of a full grid of all three that `frame` lacks."""
    full = pd.MultiIndex.from_product([sorted(frame[name].unique()) for name in CELL])
    return sorted(set(full) - set(frame[list(CELL)].itertuples(index=False, name=None)))


def check_complete(frame: pd.DataFrame) -> None:
    """Raises InputError, naming the missing cells, unless every method ran every task and seed."""
    missing = missing_cells(frame)
    if missing:
        some = ", ".join(f"{task}/{method}/seed {seed}" for task, method, seed in missing[:3])
        raise InputError(
            f"the grid is not complete: {len(missing)} cells are missing ({some}, ...); "
            "finish it with `geodistill grid`"
        )


def wide(frame: pd.DataFrame, vary: Sequence[str] = ()) -> pd.DataFrame:
    """One row a run, a column a metric, beside `run_id, task, method, seed` and what may `vary`."""
    index = ["run_id", *CELL, *vary]
    return frame.pivot(index=index, columns="metric", values="value").reset_index()


def answers_beside(items: pd.DataFrame, seed: int, names: Mapping[str, str]) -> pd.DataFrame:
    """Generated answers of several methods side by side, an item a line; right ones have a ✓.

    Args:
        items: with `answer` and `exact_match`, one run of each method and seed.
        seed: whose runs are shown.
        names: column name by method, in their order.
    """
    asked = items[(items["seed"] == seed) & items["method"].isin(names)]
    right = asked["exact_match"].map({1.0: " ✓"}).fillna("")
    shown = asked.assign(answer=asked["answer"].str.strip() + right)
    table = shown.pivot(index="item", columns="method", values="answer")[list(names)]
    return table.rename(columns=dict(names)).reset_index().rename_axis(columns=None)


def read_stored(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A stored table, or some of its columns.

    Raises:
        InputError: the file can't be read: cut, damaged, or gone.
    """
    try:
        return pd.read_parquet(path, columns=columns)
    except Exception as error:  # pyarrow and pandas raise whatever the damage leads them to
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InputError(
            f"{path} can't be read ({reason}); restore it, or delete it and run its "
            "`geodistill grid` again, which makes the runs that are lost"
        ) from error


def _read(folder: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    path = folder / name
    if not path.is_file():
        raise InputError(
            f"no stored rows at {path}: make them with `geodistill grid {folder.name}`"
        )
    frame = read_stored(path)
    absent = [column for column in columns if column not in frame]
    if absent:
        raise InputError(
            f"{path} lacks the columns {', '.join(absent)}; it has {', '.join(frame.columns)}"
        )
    return frame


def _select(frame: pd.DataFrame, where: Mapping[str, Any], path: Path) -> pd.DataFrame:
    for name, value in where.items():
        settings = _setting(frame, name, path)
        if not (settings == value).any():
            known = ", ".join(str(v) for v in settings.drop_duplicates())
            raise InputError(f"{path} has no run with {name} = {value!r}; there are {known}")
        frame = frame[settings == value]
    return frame.reset_index(drop=True)


def _setting(frame: pd.DataFrame, name: str, path: Path) -> "pd.Series[Any]":
    """A column of the rows, or a key of their `config`."""
    if name in frame:
        return frame[name]
    if "config" in frame and any(name in json.loads(c) for c in frame["config"].unique()):
        return frame["config"].map(lambda config: json.loads(config).get(name))
    raise InputError(f"{path} has no column or setting {name!r}")


def _refuse_duplicates(frame: pd.DataFrame, key: list[str], path: Path) -> None:
    twice = frame.loc[frame.duplicated(key), key]
    if len(twice):
        first = " ".join(str(value) for value in twice.iloc[0])
        raise InputError(
            f"{path} holds {len(twice)} rows twice, the first: {' × '.join(key)} = {first}"
        )


def _refuse_not_finite(frame: pd.DataFrame, column: str, path: Path) -> None:
    bad = frame[~np.isfinite(frame[column].astype(float))]
    if len(bad):
        raise InputError(
            f"{path}: {len(bad)} rows have a {column} that is not finite, the first in run "
            f"{bad['run_id'].iloc[0]}"
        )


def _refuse_rivals(frame: pd.DataFrame, key: list[str], path: Path) -> None:
    runs = frame[["run_id", *key]].drop_duplicates()
    rivals = runs[runs.duplicated(key, keep=False)].sort_values(key)
    if len(rivals):
        cell = "/".join(str(rivals.iloc[0][name]) for name in key)
        raise InputError(
            f"{path} holds two clean runs of {cell}: {rivals.iloc[0]['run_id']} and "
            f"{rivals.iloc[1]['run_id']}; keep one, or select a setting by where="
        )
