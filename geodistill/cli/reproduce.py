"""`geodistill preset`: settings with their sources, the run, scores beside published ones."""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geodistill.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

DRY_LENGTH, DRY_PROMPT = 40, 20


def run_preset(
    name: str,
    *,
    teacher: Path | None,
    out: Path | None,
    dry_run: bool,
    seed: int,
    weight: float | None = None,
    methods: Sequence[str] = (),
) -> None:
    """Print settings and sources, then run every stage, then print the scores.

    Args:
        name: of the preset.
        teacher: folder of a fine-tuned teacher; None fine-tunes it first.
        out: folder of models, answers and scores, of all seeds and weights; None takes `name`, a
            dry run a scratch folder.
        dry_run: tiny models made on the spot, sixteen questions, shorter texts; all else as it is.
        seed: of the students' trainings.
        weight: of the term and its controls; None takes the preset's.
        methods: those to train; none is all.

    Raises:
        InputError: no such preset or method; several processes; no GPU, which the real one needs; a
            teacher that is no folder of a model, or one for a dry run; a folder of another run.
        AssetError: the hub is out of reach.
    """
    _refuse_processes()
    import torch

    from geodistill.experiments.published_pairs.config import METHODS, preset, sources, students
    from geodistill.experiments.published_pairs.data import dry_parts, hub_parts
    from geodistill.experiments.published_pairs.train import run

    chosen = preset(name)
    asked: dict[str, Any] = {"seed": seed, "weight": weight, "methods": methods or METHODS}
    students(chosen, **asked)  # a bad one is told before data and models are loaded
    if teacher is not None and dry_run:
        raise InputError("--teacher and --dry-run: a dry run makes its own; expected one of them")
    if teacher is not None and not (teacher / "config.json").is_file():
        raise InputError(f"--teacher is {teacher}: expected a folder with a fine-tuned model")
    for row in sources(name).itertuples():
        typer.echo(f"{row.setting:<22} {row.value!s:<20} # {row.source}")
    if not dry_run and not torch.cuda.is_available():
        raise InputError(f"preset {name!r} needs a GPU, and there is none; try it by --dry-run")
    with tempfile.TemporaryDirectory(prefix="geodistill-") as scratch:
        folder = out or Path(scratch if dry_run else name)
        if dry_run:
            chosen = replace(chosen, max_length=DRY_LENGTH, max_prompt=DRY_PROMPT)
            scores = run(chosen, dry_parts(chosen), folder, typer.echo, **asked)
            typer.echo("\na dry run: tiny untrained models, so these scores mean nothing")
        else:
            parts = hub_parts(chosen, teacher, typer.echo)
            scores = run(chosen, parts, folder, typer.echo, **asked)
        _show(name, scores, folder)


def _refuse_processes() -> None:
    processes = os.environ.get("WORLD_SIZE") or "1"
    if processes != "1":
        raise InputError(
            f"WORLD_SIZE is {processes}: each process would run every stage in the same folder; "
            "expected one process, started without torchrun or accelerate"
        )


def _show(name: str, scores: "pd.DataFrame", folder: Path) -> None:
    """The table with its remarks, and what the kept seeds allow to ask."""
    from geodistill.experiments.published_pairs.evaluate import (
        ITEMS,
        beside_published,
        remarks,
        seeds,
    )

    table = beside_published(name, scores)
    typer.echo(table.to_string(index=False, float_format="{:.2f}".format, na_rep=""))
    for remark in remarks(table):
        typer.echo(remark)
    kept = seeds(folder)
    if len(kept) > 1:
        typer.echo(
            f"training seeds {', '.join(map(str, kept))} are kept: "
            f"`geodistill compare {folder / ITEMS} --baseline kd` says which methods beat KD"
        )
    else:
        typer.echo(
            f"one training seed, {kept[0]}: it says nothing of another training; run again with "
            f"another --seed into the same folder, then `geodistill compare` its {ITEMS}"
        )
