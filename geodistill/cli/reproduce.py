"""`geodistill reproduce`: settings with their sources, the trainings, scores and published ones."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from geodistill.errors import InputError, refuse_several_processes

if TYPE_CHECKING:
    import pandas as pd

DRY_LENGTH, DRY_PROMPT_LENGTH = 40, 20


def run_reproduction(
    name: str,
    *,
    teacher: Path | None,
    out: Path | None,
    dry_run: bool,
    seed: int,
    weight: float | None,
    methods: Sequence[str],
) -> None:
    """Print the settings with their sources, run every stage, and print the scores.

    Args:
        name: of the published pair.
        teacher: folder of a fine-tuned teacher; None fine-tunes it first.
        out: folder of models, answers and scores, of all seeds and weights; None takes `name`, a
            dry run a temporary folder.
        dry_run: whether to take tiny models, sixteen questions and shorter texts; the rest stays.
        seed: of the students' trainings.
        weight: of the term and its controls; None takes the pair's.
        methods: to train; none is all.

    Raises:
        InputError: no such pair or method; several processes; no GPU, without a dry run; a teacher
            that is no folder of a model, or one for a dry run; a folder of another run.
        AssetError: the hub can't be reached.
    """
    refuse_several_processes("run every stage")
    import torch

    from geodistill.experiments.published_pairs import config, data, train

    pair = config.load_pair(name)
    choice: dict[str, Any] = {"seed": seed, "weight": weight, "methods": methods or config.METHODS}
    config.plan_students(pair, **choice)  # before data and models are loaded
    if teacher is not None and dry_run:
        raise InputError("--teacher and --dry-run: a dry run has a teacher; expected one of them")
    if teacher is not None and not (teacher / "config.json").is_file():
        raise InputError(f"--teacher is {teacher}: expected a folder with a fine-tuned model")
    for row in config.settings_table(name).itertuples():
        typer.echo(f"{row.setting:<28} {row.value!s:<20} # {row.source}")
    if not dry_run and not torch.cuda.is_available():
        raise InputError(f"{name!r} needs a GPU, and there is none; try it by --dry-run")
    with tempfile.TemporaryDirectory(prefix="geodistill-") as temporary:
        folder = out or Path(temporary if dry_run else name)
        if dry_run:
            pair = replace(pair, max_length=DRY_LENGTH, max_prompt_length=DRY_PROMPT_LENGTH)
            materials = data.tiny_models_and_data(pair)
        else:
            materials = data.load_from_hub(pair, teacher, typer.echo)
        scores = train.train_and_evaluate(pair, materials, folder, typer.echo, **choice)
        if dry_run:
            typer.echo("\na dry run: tiny untrained models, so these scores mean nothing")
        _show(name, scores, folder)


def _show(name: str, scores: pd.DataFrame, folder: Path) -> None:
    """Print the table with its caveats, and how the stored seeds can be compared."""
    from geodistill.experiments.published_pairs import evaluate

    table = evaluate.comparison_table(name, scores)
    typer.echo(table.to_string(index=False, float_format="{:.2f}".format, na_rep=""))
    for sentence in evaluate.caveats(table):
        typer.echo(sentence)
    seeds = evaluate.stored_seeds(folder)
    if len(seeds) > 1:
        typer.echo(
            f"training seeds {', '.join(map(str, seeds))} are stored: "
            f"`geodistill compare {folder / evaluate.ITEMS} --baseline kd` says which methods "
            "beat KD"
        )
    else:
        typer.echo(
            f"one training seed, {seeds[0]}, which does not show how trainings vary: run again "
            "with another --seed into the same folder, then `geodistill compare` its "
            f"{evaluate.ITEMS}"
        )
