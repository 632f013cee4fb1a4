"""Protocol files, and their `design` block as `geodistill power` writes it.

`data/protocol/<study>.yaml` states what a study will test before its results exist. Only the design
block is replaced, as text, which keeps the comments and order of the others.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from geodistill.analysis.stats.power import GAINS, Design, required_sizes
from geodistill.errors import InputError
from geodistill.files import atomic_file

_BLOCK = re.compile(r"^design:.*?(?=^[^\s]|\Z)", re.MULTILINE | re.DOTALL)


def read_protocol(path: Path) -> dict[str, Any]:
    """The blocks of a protocol file.

    Raises:
        InputError: no such file, or one that is not YAML in UTF-8 or does not hold named blocks.
    """
    if not path.is_file():
        raise InputError(f"no protocol at {path}")
    try:
        blocks = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(blocks, dict):
        raise InputError(f"{path} holds a {type(blocks).__name__}; expected named blocks")
    return blocks


def write_design(
    path: Path, design: Design, source: str, gains: tuple[float, ...] = GAINS
) -> dict[str, Any]:
    """Write or replace the design block of `path` and return it; the file need not exist.

    Args:
        path: of the protocol file.
        design: planned.
        source: where the variance components come from, in words.
        gains: true differences whose requirements are listed, in the unit of the score.

    Raises:
        InputError: as `read_protocol`, if the file exists.
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
        "needed": [_plain(row) for row in required_sizes(design, gains).to_dict("records")],
    }
    text = yaml.safe_dump({"design": block}, sort_keys=False, allow_unicode=True, width=100)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    separator = "\n" if old and not old.endswith("\n") else ""
    new = _BLOCK.sub(lambda _: text, old, count=1) if _BLOCK.search(old) else old + separator + text
    with atomic_file(path) as partial:
        partial.write_text(new, encoding="utf-8")
    return block


def _plain(row: dict[Any, Any]) -> dict[str, float | int | None]:
    """One row of `required_sizes` in YAML's types; null where no number is enough."""
    sizes = {name: None if pd.isna(row[name]) else int(row[name]) for name in ("seeds", "items")}
    return {"gain": row["gain"], "power": round(row["power"], 4), **sizes}
