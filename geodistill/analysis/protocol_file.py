"""The `design` block of a protocol file: written by `geodistill power`, the rest by people.

`data/protocol/<study>.yaml` says before its rows what a study will test. Only the block is
replaced, as text, so that comments and order of the others stay.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from geodistill.analysis.stats.crossed_anova import Components
from geodistill.analysis.stats.power import GAINS, Design, needed
from geodistill.errors import InputError

_BLOCK = re.compile(r"^design:.*?(?=^[^\s]|\Z)", re.MULTILINE | re.DOTALL)


def read_protocol(path: Path) -> dict[str, Any]:
    """The blocks of a protocol file.

    Raises:
        InputError: no such file, or one that does not hold named blocks.
    """
    if not path.is_file():
        raise InputError(f"no protocol at {path}")
    try:
        blocks = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(blocks, dict):
        raise InputError(f"{path} holds a {type(blocks).__name__}; expected named blocks")
    return blocks


def read_design(path: Path) -> Design:
    """The planned design of a protocol file.

    Raises:
        InputError: as `read_protocol`, or a file without a design, or one that lacks an entry.
    """
    block = read_protocol(path).get("design")
    if block is None:
        raise InputError(f"{path} has no design; add one with `geodistill power --out {path}`")
    try:
        return Design(
            Components(**block["variance"]),
            block["measured_at"],
            *(block[name] for name in ("seeds", "items", "tests", "power", "alpha")),
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"the design of {path} is not complete: {error}") from error


def write_design(
    path: Path, design: Design, source: str, gains: tuple[float, ...] = GAINS
) -> dict[str, Any]:
    """Write or replace the design block of `path` and return it; the file need not exist.

    Args:
        path: of the protocol file.
        design: as planned.
        source: where the variance components come from, in words.
        gains: true differences, in the score's unit, for which needs are listed.

    Raises:
        InputError: as `read_protocol`, where the file exists.
    """
    if path.exists():
        read_protocol(path)
    block = {
        "from": source,
        "variance": vars(design.components),
        "measured_at": design.measured,
        "seeds": design.seeds,
        "items": design.items,
        "tests": design.tests,
        "power": design.power,
        "alpha": design.alpha,
        "smallest_gain": round(design.smallest_gain(), 6),
        "needed": [_plain(row) for row in needed(design, gains).to_dict("records")],
    }
    text = yaml.safe_dump({"design": block}, sort_keys=False, allow_unicode=True, width=100)
    old = path.read_text() if path.exists() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    if _BLOCK.search(old):
        path.write_text(_BLOCK.sub(lambda _: text, old, count=1))
    else:
        path.write_text(old + ("\n" if old and not old.endswith("\n") else "") + text)
    return block


def _plain(row: dict[Any, Any]) -> dict[str, float | int | None]:
    """One line of needs in YAML's own types; no number that is enough is null."""
    count = {
        name: None if row[name] is None or row[name] != row[name] else int(row[name])
        for name in ("seeds", "items")
    }
    return {"gain": row["gain"], "power": round(row["power"], 4), **count}
