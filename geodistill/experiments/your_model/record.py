"""What a student was made of: the record in its folder, which differs for another student."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from geodistill.errors import InputError
from geodistill.experiments.your_model.settings import YourModelSettings
from geodistill.files import sha256_once

RECORD = "distillation.json"
"""The file in a student's folder that says what it was made of."""


def record_of(settings: YourModelSettings, data_hash: str) -> dict[str, Any]:
    """What makes a student another one, as JSON reads it back.

    Args:
        settings: but for `out`, `workers`, `scheduler` and `seeds`.
        data_hash: is joined with the hash of the models' files as `content`.

    Raises:
        InputError: `out` holds anything but a student with the same record.
    """
    parts, out = [data_hash], Path(settings.out)
    for folder in map(Path, (settings.teacher, settings.student)):
        paths = sorted([*folder.glob("*"), *folder.glob("*/config.json")])  # such as 1_Pooling's
        files = [path for path in paths if path.is_file()]
        parts += [str(folder), *(f"{p.relative_to(folder)} {sha256_once(p)}" for p in files)]
    record: dict[str, Any] = asdict(settings) | {
        "content": sha256("\n".join(parts).encode()).hexdigest()[:12]
    }
    for name in ("out", "workers", "scheduler", "seeds"):
        del record[name]
    record = json.loads(json.dumps(record))
    if out.is_symlink():
        raise InputError(f"out: {out} is a link; expected a folder, or the name of a new one")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        if not (out / RECORD).is_file():
            raise InputError(f"out: {out} holds other files; expected a new or empty folder")
        try:
            stored = json.loads((out / RECORD).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"out: {out / RECORD} is damaged; expected another out, or remove the folder"
            ) from error
        if changed := [name for name in record if stored.get(name) != record[name]]:
            name = changed[0]
            raise InputError(
                f"out: {out} holds the student of another distillation: its {name} was "
                f"{stored.get(name)}, now it is {record[name]}; expected the same, or another out"
            )
    return record
