"""Files and folders of scores, as one frame with the columns that they have."""

import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_object_dtype

from geodistill.analysis.score_columns import is_name, join, role_of
from geodistill.analysis.stored_results import load_items
from geodistill.errors import InputError
from geodistill.files import first_line

_HARNESS_TEXTS = ("target", "filter", "doc_hash", "prompt_hash", "target_hash")


def load_table(path: Path, names: Collection[str] = ()) -> pd.DataFrame:
    """The table in a file, in a folder of JSON files of one run each, or in stored results.

    Texts are read as they are written: a method may be called `null` or `NA`.

    Args:
        path: .csv, .tsv, .json, .jsonl (each also as .gz) or .parquet, or a folder.
        names: columns of texts, beside those whose names say so: in CSV 01 and 1 are two there.

    Raises:
        InputError: no such file, another kind of file, one that cannot be read or holds no rows;
            names that are rounded numbers.
    """
    frame = _load_folder(path) if path.is_dir() else _load_file(path, names)
    if frame.empty:
        raise InputError(f"{path} holds no rows")
    for name in frame.select_dtypes("float"):
        if (is_name(name) or name in names) and (frame[name].abs() >= 2**53).any():
            raise InputError(
                f"{path}: numbers of column {name} are too large to be read exactly beside missing "
                "ones: write them as texts"
            )
    return frame.rename(columns=str)


def _load_file(path: Path, names: Collection[str] = ()) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"no file at {path}")
    ending = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    reader = _READERS.get(ending.lower().removesuffix(".gz"))
    if reader is None:
        endings = ", ".join(_READERS)
        raise InputError(f"{path} is {path.suffix or 'without ending'}; expected {endings} or .gz")
    try:
        return _read_text(path, names) if reader is _read_text else reader(path)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8"
        ) from error
    except (ValueError, OSError, KeyError, EOFError) as error:  # pandas', pyarrow's and gzip's
        raise InputError(f"{path} cannot be read: {first_line(error)}") from error


def _read_text(path: Path, texts: Collection[str] = ()) -> pd.DataFrame:
    """Fields separated by whichever separator is most frequent in the first line."""
    with _open(path) as lines:
        header = next(lines, "")
    separator = max((",", ";", "\t"), key=header.count)
    fields = next(csv.reader([header], delimiter=separator), [])
    names = Counter(name.strip() for name in fields)
    if repeated := [name for name, count in names.items() if name and count > 1]:
        raise InputError(f"{path} has several columns called {join(repeated)}: rename all but one")
    decimal = "," if separator == ";" else "."
    options: dict[str, Any] = {"sep": separator, "decimal": decimal, "encoding": "utf-8-sig"}
    options |= {"keep_default_na": False, "na_values": [""], "low_memory": False}
    # In columns of names 1.10 and 1.1 are two.
    options["dtype"] = {name: str for name in fields if is_name(name) or name.strip() in texts}
    frame: pd.DataFrame = pd.read_csv(path, **options)
    if frame.shape[1] == 1:
        raise InputError(
            f"{path} has one column, {header.strip()!r}: expected fields separated by commas, "
            "semicolons or tabs, and their names in the first line"
        )
    if not isinstance(frame.index, pd.RangeIndex):
        if not len(frame) or frame.iloc[:, -1].isna().all():  # a separator ends each row
            frame = pd.read_csv(path, **options, index_col=False)
        elif isinstance(frame.index, pd.MultiIndex):
            raise ValueError(f"rows have more fields than the header {header.strip()!r} names")
        else:  # R writes row names without a header
            frame = frame.reset_index(drop=True)
    for name in options["dtype"]:
        if role_of(name) in ("item", "cluster"):  # numbers as pandas writes them beside gaps
            frame[name] = frame[name].str.replace(r"^(-?\d+)\.0$", r"\1", regex=True)
    return frame


def _open(path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _read_lines(path: Path) -> pd.DataFrame:
    """One JSON object per line; samples of an evaluation harness have the task in the file name."""
    options: dict[str, Any] = {"lines": True, "dtype": False, "encoding": "utf-8-sig"}
    frame: pd.DataFrame = pd.read_json(path, **options)
    if {"doc_id", "target", "filtered_resps"} <= set(frame):
        task = re.sub(r"^samples_|_\d{4}-\d\d-\d\dT.*$|\.jsonl.*$", "", path.name)
        nested = [name for name in frame if frame[name].map(type).isin((list, dict)).any()]
        frame = frame.drop(columns=[*nested, *_HARNESS_TEXTS], errors="ignore")
        return frame.assign(task=task, method=path.parent.name).rename(columns={"doc_id": "item"})
    objects = [frame[name] for name in frame if is_object_dtype(frame[name])]
    if any(column.map(type).isin([dict]).any() for column in objects):
        records: Any = frame.to_dict("records")
        frame = pd.json_normalize(records)
    return frame


def _read_json(path: Path) -> pd.DataFrame:
    with _open(path) as file:
        content = json.load(file)
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return pd.json_normalize(content)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a list of objects")
    if isinstance(content.get("results"), dict):
        return pd.DataFrame(_harness_rows(content))
    if {"task_name", "scores"} <= set(content):
        return pd.DataFrame(_embedding_rows(content, method=path.parents[1].name))
    if "data" in content and {"columns", "schema"} & set(content):
        return pd.DataFrame(content["data"], columns=content.get("columns"))
    values = list(content.values())
    if _are_rows(content):  # as pandas writes orient="index"
        return pd.DataFrame(values)
    are_lists = all(isinstance(value, list) for value in values)
    if are_lists or all(map(_are_rows, values)):  # the latter as pandas writes by default
        return pd.DataFrame(content)
    return pd.json_normalize([content])


def _are_rows(content: object) -> bool:
    """Whether a JSON object holds one value per row number."""
    return isinstance(content, dict) and bool(content) and all(map(str.isdecimal, content))


def _read_parquet(path: Path) -> pd.DataFrame:
    frame = pd.read_parquet(path)
    named = any(name is not None for name in frame.index.names)
    return frame.reset_index() if named else frame


def _harness_rows(content: dict[str, Any]) -> Iterator[dict[str, object]]:
    """One row per task and metric of `lm_eval --output_path`, without the standard errors.

    The subtasks of a group are left out, since its score includes them. A metric with several
    filters in a task is named with its filter.
    """
    config = content.get("config", {})
    method = content.get("model_name") or config.get("model_args") or config.get("model")
    seed = {"seed": config["random_seed"]} if "random_seed" in config else {}
    groups = content.get("group_subtasks", {})
    subtasks = {name for group in groups if group in content["results"] for name in groups[group]}
    tasks = {task: scores for task, scores in content["results"].items() if task not in subtasks}
    filtered = {  # as in "exact_match,strict-match" beside "exact_match,flexible-extract"
        metric
        for scores in tasks.values()
        for metric, n_filters in Counter(key.partition(",")[0] for key in scores).items()
        if n_filters > 1
    }
    for task, scores in tasks.items():
        for key, value in scores.items():
            metric = key.partition(",")[0]
            if isinstance(value, (int, float)) and not metric.endswith("_stderr"):
                name = key if metric in filtered else metric
                yield {"method": method, **seed, "task": task, "metric": name, "value": value}


def _embedding_rows(content: dict[str, Any], method: str) -> Iterator[dict[str, object]]:
    """One row per split and subset of MTEB's `MODEL/REVISION/TASK.json`."""
    for split, subsets in content["scores"].items():
        for scores in subsets:
            parts = [content["task_name"], split if len(content["scores"]) > 1 else ""]
            parts.append(scores["hf_subset"] if len(subsets) > 1 else "")
            task, value = "/".join(filter(None, parts)), scores["main_score"]
            yield {"method": method, "task": task, "metric": "main_score", "value": value}


def _load_folder(path: Path) -> pd.DataFrame:
    """Stored results, or all JSON files below a folder, each with one run or more."""
    if (path / "rows.parquet").is_file():
        return load_items(path).frame
    sections = sorted(str(rows.parent) for rows in path.rglob("rows.parquet"))
    if sections:
        raise InputError(f"{path} holds several tables; choose one: {join(sections, 8)}")
    samples = sorted(path.rglob("samples_*.jsonl"))
    paths = samples or sorted([*path.rglob("*.json"), *path.rglob("*.jsonl")])
    if not paths:
        raise InputError(
            f"no stored rows at {path}/rows.parquet and no JSON file in it; expected a folder of "
            "results, or of one JSON file per run"
        )
    frames = [_load_file(file) for file in paths]
    if all(len(frame) == 1 for frame in frames):  # one run per file, perhaps named by it alone
        frames = [rows.assign(file=file.stem) for rows, file in zip(frames, paths, strict=True)]
    return pd.concat(frames, ignore_index=True)


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _read_text,
    ".tsv": _read_text,
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".parquet": _read_parquet,
}
