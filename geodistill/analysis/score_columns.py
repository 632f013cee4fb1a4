"""The role of each column of a table: method, task, seed, fold, item, cluster, metric, value.

Names are recognised in any spelling, every guess is reported in words, and `columns` overrules it:
another name for a role, or "" for none.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from geodistill.errors import InputError

_OTHER_NAMES = {
    "method": "model system algorithm algo approach framework learner classifier modelname "
    "methodname name runname file",
    "task": "dataset benchmark datasetname taskname data subtask problem corpus environment env",
    "seed": "randomseed rngseed trial run replicate rep repeat repetition cvrepeat",
    "fold": "cvfold foldid kfold outerfold cvsplit cv split",
    "item": "example instance sample question prompt itemid exampleid instanceid sampleid "
    "questionid docid uniqueid idx id",
    "metric": "metricname measure",
    "value": "score result performance",
    "label": "target gold reference groundtruth truth ytrue answerkey",
    "prediction": "predicted pred ypred response output",
    "cluster": "source group document doc user subject",
}
ROLES = tuple(_OTHER_NAMES)
NAMES = ("method", "task", "item", "cluster")
"""Roles whose values are names, also where they spell numbers."""
_ALIASES = {role: (role, *names.split()) for role, names in _OTHER_NAMES.items()}
_NEVER_METHODS = ("task", "item", "metric", "label", "prediction")
_NUMBERED = ("fold", "seed")  # roles whose other names hold texts elsewhere: split=test, rep=blue
_BOOKKEEPING = re.compile(
    r"^(unnamed\d+|index|level\d+|rownames?|id|idx|(global)?steps?|epochs?|iterations?|iters?|time(s?tamp)?|.*time"
    r"|.*runtime|duration|seconds|date|created|n?params?|numparams|nparameters|parameters|size|rank.*|std.*|"
    r"year|(n|nb|num|number|numberof)?(classes|features|attributes|instances|rows|samples|examples|"
    r"columns|layers)|n|nruns|lr|learningrate|batchsize|.*stderr|.*std|.*sd|.*sem|.*(min|max)imum|.*version|state|"
    r".*(size|param|memory|flops|latency|throughput|embeddingdim|maxtokens).*)$"
)
_MISSING = ("", "na", "n/a", "nan", "none", "null", "-", "–", ".")
_WORDS = {"true": "1", "false": "0", "yes": "1", "no": "0", "correct": "1", "incorrect": "0"}


def canonical(name: object) -> str:
    """A name without capitals, blanks and signs.

    Example:
        >>> canonical("Random Seed"), canonical("pass@1")
        ('randomseed', 'passat1')
    """
    return re.sub(r"[^a-z0-9]", "", str(name).lower().replace("@", "at"))


def is_name(column: object) -> bool:
    """Whether a column, by its own name, holds names: of methods, tasks, items or clusters.

    Example:
        >>> is_name("Model"), is_name("question_id"), is_name("accuracy")
        (True, True, False)
    """
    return role_of(column) in NAMES


def role_of(column: object) -> str:
    """The role that a column's name stands for, whatever the column holds; "" if none."""
    return next((role for role in ROLES if canonical(column) in _ALIASES[role]), "")


def is_bookkeeping(name: object) -> bool:
    """Whether a column is an index, a time, a size or a spread, and no score."""
    return bool(_BOOKKEEPING.match(canonical(name)))


def assign_roles(
    frame: pd.DataFrame, columns: Mapping[str, str], baseline: str, path: object
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The frame with its columns renamed to `ROLES`.

    Of several columns that may hold the methods, the one that holds the baseline does.

    Args:
        frame: any table.
        columns: name in the table by role; "" where the table has none.
        baseline: name of a method.
        path: for messages.

    Returns:
        The frame, and the name in the table by role.

    Raises:
        InputError: an unknown role, or a column that is not there.
    """
    if unknown := sorted(set(columns) - set(ROLES)):
        raise InputError(f"unknown column {unknown[0]!r}; known are {join(ROLES)}")
    frame = frame.rename(columns={name: str(name).strip() for name in frame})
    if absent := sorted(set(columns.values()) - set(frame) - {""}):
        near = get_close_matches(absent[0], map(str, frame), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(f"{path} has no column {absent[0]!r}; it has {join(frame)}{hint}")
    name_by_role = {role: name for role, name in columns.items() if name}
    if "method" not in columns and (of_methods := _column_of(frame, baseline)):
        name_by_role["method"] = of_methods
    free = {
        canonical(name): name for name in reversed(list(frame)) if name not in name_by_role.values()
    }
    for role in ROLES:
        if role in columns or role in name_by_role:
            continue
        for alias in _ALIASES[role]:
            name = free.get(alias)
            if name is not None and _fits(role, alias, frame[name]):
                name_by_role[role] = str(free.pop(alias))
                break
    clashing = [role for role in ROLES if role in frame and name_by_role.get(role) != role]
    renamed = frame.drop(columns=[role for role in clashing if role not in name_by_role.values()])
    return renamed.rename(columns={name: role for role, name in name_by_role.items()}), name_by_role


def _column_of(frame: pd.DataFrame, baseline: str) -> str | None:
    """The column that holds the baseline: one named for methods, or of no other role."""
    if baseline in frame:
        return None  # methods have a column each
    taken = {alias for role in _NEVER_METHODS for alias in _ALIASES[role]}
    texts = [str(name) for name in frame if not is_numeric_dtype(frame[name])]
    known = [name for alias in _ALIASES["method"] for name in texts if canonical(name) == alias]
    others = [name for name in texts if canonical(name) not in taken]
    for name in dict.fromkeys([*known, *others]):
        if (frame[name].drop_duplicates().astype(str).str.strip() == baseline).any():
            return name
    return None


def _fits(role: str, alias: str, values: "pd.Series[Any]") -> bool:
    return role == alias or role not in _NUMBERED or "fold" in alias or is_numeric_dtype(values)


def score_candidates(frame: pd.DataFrame) -> list[str]:
    """Columns that may hold scores: numbers or per cents, no role, no bookkeeping."""
    names = [name for name in map(str, frame) if name not in ROLES and not is_bookkeeping(name)]
    return [name for name in names if frame[name].notna().any() and is_numeric(frame[name])]


def is_numeric(values: "pd.Series[Any]") -> bool:
    """Whether values are numbers, per cents, or means with their spread, judged by the first."""
    if is_numeric_dtype(values):
        return True
    texts = (str(value).strip() for value in values.dropna())
    first = next((text for text in texts if text.lower() not in _MISSING), "")
    return bool(re.match(r"[-+]?[\d.,]+(e[-+]?\d+)?\s*((%|±|\+/?-|\().*)?$", first))


def to_numbers(values: "pd.Series[Any]", path: object) -> "pd.Series[float]":
    """Scores as numbers; a per cent sign is taken off, `NA` and the like are missing.

    Raises:
        InputError: a text that is no number.
    """
    if is_numeric_dtype(values):
        return values.astype("Float64").astype(float)
    texts = values.astype("string").str.strip()
    texts = texts.mask(texts.str.lower().isin(list(_MISSING)))
    spread = texts[texts.str.contains(r"\d\s*(?:±|\+/?-|\()\s*\d", regex=True, na=False)]
    if len(spread):
        raise InputError(
            f"{path}: value {spread.iloc[0]!r} is a mean with its spread, which does not pair runs "
            "or items: expected one row per run (column seed) or per item"
        )
    if texts.dropna().str.lower().isin(list(_WORDS)).all():
        texts = texts.str.lower().map(_WORDS).astype("string")
    percent = texts.str.endswith("%", na=False)
    if percent.any() and not percent[texts.notna()].all():
        raise InputError(
            f"{path}: some values have a per cent sign and some have none; expected one kind"
        )
    numbers = pd.to_numeric(texts.str.removesuffix("%"), errors="coerce").astype(float)
    if (bad := texts[numbers.isna() & texts.notna()]).size:
        comma = ": write decimals with a point, and thousands without a sign"
        hint = comma if re.match(r"[-+\d.]*\d,\d", bad.iloc[0]) else ""
        raise InputError(f"{path}: value {bad.iloc[0]!r} is not a number{hint}")
    return numbers


def comparable(label: "pd.Series[Any]", prediction: "pd.Series[Any]") -> "list[pd.Series[Any]]":
    """Labels and predictions as numbers if all are, else as texts; missing where either is."""
    texts = [side.astype("string").str.strip() for side in (label, prediction)]
    sides = [text.mask(text == "") for text in texts]
    missing = sides[0].isna() | sides[1].isna()
    numbers = [pd.to_numeric(side, errors="coerce") for side in sides]
    if all(
        number.notna().equals(side.notna()) for number, side in zip(numbers, sides, strict=True)
    ):
        return [number.astype(float).mask(missing) for number in numbers]
    return [side.astype(object).mask(missing, None) for side in sides]


def clean_names(values: "pd.Series[Any]") -> "pd.Series[str]":
    """Names as texts without blanks around them; control characters are shown by their code."""
    codes, names = pd.factorize(values)
    table = pd.Series([*map(_clean_name, names), None], dtype=object)
    return pd.Series(table.to_numpy()[codes], index=values.index, name=values.name)


def _clean_name(name: object) -> str:
    text = str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda m: f"\\x{ord(m[0]):02x}", text.strip())


def refuse_absent_columns(frame: pd.DataFrame, names: Iterable[str], what: str = "items") -> None:
    """Raise InputError if a table lacks columns.

    Args:
        frame: the table.
        names: of the columns.
        what: the table holds.
    """
    if absent := [name for name in names if name not in frame]:
        raise InputError(
            f"{what} lack {', '.join(absent)}; the columns are {', '.join(map(str, frame))}"
        )


def as_names(names: str | float | Iterable[object]) -> list[str]:
    """One name, or several, as a list of texts.

    Example:
        >>> as_names("kd"), as_names([1, 2])
        (['kd'], ['1', '2'])
    """
    return [str(name) for name in ([names] if isinstance(names, (str, int, float)) else names)]


def join(names: Iterable[object], most: int = 20) -> str:
    """The first `most` names separated by commas, and the number of all if there are more."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f", ... ({len(texts)})" if len(texts) > most else "")
