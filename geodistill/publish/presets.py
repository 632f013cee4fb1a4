"""`geodistill preset`: settings with their sources, the run, scores beside published ones."""

import tempfile
from dataclasses import replace
from pathlib import Path

import typer

from geodistill.errors import InputError

DRY_LENGTH, DRY_PROMPT = 40, 20


def run_preset(name: str, *, teacher: Path | None, out: Path | None, dry_run: bool) -> None:
    """Print settings and sources, then run every stage, then print the scores.

    Args:
        name: of the preset.
        teacher: folder of a fine-tuned teacher; None fine-tunes it first.
        out: folder of models, answers and scores; None takes `name`, a dry run a scratch folder.
        dry_run: tiny models made on the spot, sixteen questions, shorter texts; all else as it is.

    Raises:
        InputError: no such preset; no GPU, which the real one needs; a teacher that is no folder of
            a model, or one for a dry run; a folder of another run.
        AssetError: the hub is out of reach.
    """
    import torch

    from geodistill.experiments.preset_parts import dry_parts, hub_parts
    from geodistill.experiments.presets import beside_published, preset, run, sources

    chosen = preset(name)
    if teacher is not None and dry_run:
        raise InputError("--teacher and --dry-run: a dry run makes its own; expected one of them")
    if teacher is not None and not (teacher / "config.json").is_file():
        raise InputError(f"--teacher is {teacher}: expected a folder with a fine-tuned model")
    for row in sources(name).itertuples():
        typer.echo(f"{row.setting:<22} {row.value!s:<20} # {row.source}")
    if not dry_run and not torch.cuda.is_available():
        raise InputError(f"preset {name!r} needs a GPU, and there is none; try it by --dry-run")
    if dry_run:
        short = replace(chosen, max_length=DRY_LENGTH, max_prompt=DRY_PROMPT)
        with tempfile.TemporaryDirectory(prefix="geodistill-") as scratch:
            scores = run(short, dry_parts(short), out or Path(scratch), typer.echo)
        typer.echo("\na dry run: tiny untrained models, so these scores mean nothing")
    else:
        scores = run(chosen, hub_parts(chosen, teacher, typer.echo), out or Path(name), typer.echo)
    table = beside_published(name, scores)
    typer.echo(table.to_string(index=False, float_format="{:.2f}".format, na_rep=""))
