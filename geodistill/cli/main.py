"""`geodistill`: run a notebook, run a grid, build the book, ask where a figure comes from."""

import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geodistill.errors import AssetError, InputError

if TYPE_CHECKING:  # at run time `--help` must need no torch
    from geodistill.experiments.runner import Study

INTERRUPTED = 130
"""Exit code that typer gives to Ctrl-C."""
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="notebook, or a unique part of its name")],
) -> None:
    """Execute one notebook by papermill; set parameters by -p NAME VALUE, as often as needed."""
    from geodistill.publish.execute import run_notebook

    run_notebook(name, _parameters(context.args))


@app.command()
def grid(
    study: Annotated[str, typer.Argument(help="classification, instruction, synthetic or readout")],
    workers: Annotated[int, typer.Option(min=1, help="processes, one compute thread each")] = 2,
    verify: Annotated[int, typer.Option(min=0, help="rerun this many stored runs instead")] = 0,
    dry_run: Annotated[bool, typer.Option(help="say what would run, and how long")] = False,
    section: Annotated[str, typer.Option(help="of the study's protocol: tuning, ...")] = "",
    scheduler: Annotated[str, typer.Option(help="run on this Dask cluster: tcp://...")] = "",
) -> None:
    """Make every run of a study that is not stored yet; killed at any point, it goes on."""
    from geodistill.experiments import runner as grids
    from geodistill.experiments.registry import study as find

    chosen = find(study, section)
    if dry_run:
        typer.echo(grids.plan(chosen, workers))
    elif verify:
        _verify(chosen, verify, workers)
    else:
        _run_grid(chosen, workers, scheduler)


def _run_grid(study: "Study", workers: int, scheduler: str) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from geodistill.experiments.runner import pending, plan, run_grid

    typer.echo(plan(study, workers))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        bar = progress.add_task(study.folder, total=len(pending(study)))
        stored = run_grid(
            study, workers=workers, report=progress.console.print, scheduler=scheduler
        )
        for job in stored:
            progress.console.print(f"stored {job.label}")
            progress.advance(bar)
    typer.echo(f"{len(study.jobs)} runs stored under {study.path}")


def _verify(study: "Study", count: int, workers: int) -> None:
    from geodistill.experiments.runner import verify

    for table in verify(study, count, workers=workers, report=typer.echo):
        typer.echo(table.to_string(float_format="{:.4f}".format))


@app.command()
def compare(
    rows: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, Parquet, or a results folder")],
    baseline: Annotated[str, typer.Option(help="the method that all others are compared with")],
    metric: Annotated[str | None, typer.Option(help="which, where the rows hold several")] = None,
    primary: Annotated[
        list[str] | None, typer.Option(help="method of the primary family; default all")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="least difference that matters, in the metric's unit")
    ] = None,
    higher: Annotated[
        bool | None, typer.Option("--higher/--lower", help="which is better, if not known")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="these tasks alone; may be repeated")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="OURS=THEIRS, such as method=model; may be repeated")
    ] = None,
    second: Annotated[bool, typer.Option("--all", help="second opinions as well")] = False,
    out: Annotated[Path | None, typer.Option(help="folder for figure and methods text")] = None,
) -> None:
    """Say which methods beat a baseline, by how much, how surely, and what would settle it."""
    from geodistill.cli.compare import ask

    ask(
        rows,
        baseline,
        columns=column or (),
        metric=metric,
        higher=higher,
        tasks=task or (),
        primary=primary or (),
        margin=margin,
        second=second,
        out=out,
    )


@app.command()
def power(
    rows: Annotated[
        str, typer.Option(help="pilot rows, a file or folder; else give the three deviations")
    ] = "",
    method: Annotated[list[str] | None, typer.Option(help="of the pilot; may be repeated")] = None,
    baseline: Annotated[str, typer.Option(help="of the pilot")] = "kd",
    metric: Annotated[str | None, typer.Option(help="of the pilot, where it has several")] = None,
    task: Annotated[list[str] | None, typer.Option(help="of the pilot; may be repeated")] = None,
    seed_sd: Annotated[float, typer.Option(min=0, help="σ_A of the paired difference")] = 0.0,
    item_sd: Annotated[float, typer.Option(min=0, help="σ_B")] = 0.0,
    rest_sd: Annotated[float, typer.Option(min=0, help="σ_E, the seed × item part")] = 0.0,
    seeds: Annotated[int, typer.Option(help="planned; default the pilot's, or 5")] = 0,
    items: Annotated[int, typer.Option(help="planned; default the pilot's, or 1000")] = 0,
    tests: Annotated[int, typer.Option(help="in the family; default the methods'")] = 0,
    gain: Annotated[list[float] | None, typer.Option(help="in the score's unit")] = None,
    out: Annotated[Path | None, typer.Option(help="protocol file to put the design into")] = None,
) -> None:
    """Plan a comparison: seeds and items for a gain, the least gain that a design can see."""
    from geodistill.cli.power import plan

    pilot = (rows, tuple(method or ()), baseline, metric, tuple(task or ()))
    deviations = (seed_sd, item_sd, rest_sd)
    plan(pilot, deviations, (seeds, items, tests), tuple(gain or ()), out)


@app.command()
def inspect(
    model_a: Annotated[str, typer.Argument(help="folder, hub name, minilm or smollm2")],
    model_b: Annotated[str, typer.Argument(help="the same; may be the same model")],
    texts: Annotated[Path, typer.Option(help="file, one text a line, at least four")],
    rows: Annotated[
        str, typer.Option(help="token or text; default token where the token ids are equal")
    ] = "",
    measure: Annotated[
        str, typer.Option(help="procrustes, gram, cka, cka_debiased, r2_to_a, ...")
    ] = "procrustes",
    out: Annotated[Path | None, typer.Option(help="folder for rows.csv and the figure")] = None,
) -> None:
    """Say which layers of two models hold the same geometry, and how surely."""
    try:
        from geodistill.cli.compare_layers import inspect as ask
    except ModuleNotFoundError as error:
        raise InputError(
            f"no {error.name} here; the layer map needs the extras: pip install '.[train,analysis]'"
        ) from error

    ask(model_a, model_b, texts, rows=rows, measure=measure, out=out)


@app.command()
def preset(
    name: Annotated[str, typer.Argument(help="minillm-opt or distillm-opt125m")],
    dry_run: Annotated[
        bool, typer.Option(help="every stage on tiny models made on the spot, on a CPU")
    ] = False,
    teacher: Annotated[
        Path | None, typer.Option(help="folder of a fine-tuned teacher; else it is made first")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the students' trainings")] = 10,
    weight: Annotated[
        float | None, typer.Option(help="of the term and its controls; default the preset's")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="kd+procrustes, ...; may be repeated; default all")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of all seeds and weights; default the name")
    ] = None,
) -> None:
    """Run a published pair: SFT start, KD, a term, its controls; Rouge-L beside theirs."""
    from geodistill.cli.reproduce import run_preset

    run_preset(
        name,
        teacher=teacher,
        out=out,
        dry_run=dry_run,
        seed=seed,
        weight=weight,
        methods=method or (),
    )


@app.command()
def assets() -> None:
    """Download the embedded models and texts (once), checking their hashes."""
    from geodistill.tasks.assets import fetch_all

    fetch_all(typer.echo)


@app.command()
def book(
    profile: Annotated[str, typer.Option(help="smoke, laptop or paper")] = "laptop",
    clean: Annotated[bool, typer.Option(help="remove the former pages first")] = False,
) -> None:
    """Execute the notebooks that changed and build the HTML book."""
    from geodistill.publish.book import build_book

    build_book(profile, clean=clean)


@app.command()
def why(figure: Annotated[str, typer.Argument(help="name printed under the figure")]) -> None:
    """Say which command, rows and runs a figure or table was made from."""
    from geodistill.publish.provenance import why as explain

    typer.echo(explain(figure))


def _parameters(words: Sequence[str]) -> dict[str, object]:
    """`-p seed 3 -p profile smoke` as a dictionary."""
    triples = [words[i : i + 3] for i in range(0, len(words), 3)]
    for triple in triples:
        if len(triple) < 3 or triple[0] not in ("-p", "--parameter"):
            raise InputError(f"got {' '.join(triple)!r}; expected -p NAME VALUE")
    return {name: _literal(value) for _, name, value in triples}


def _literal(text: str) -> object:
    """A command-line value as the number, boolean or list it spells, else as text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main() -> None:
    """Run the command; an error that a user can mend is one line and exit code 2."""
    try:
        app()
    except (InputError, AssetError, FloatingPointError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            typer.echo(
                "stopped; what is finished is kept, the same command goes on from there", err=True
            )
        raise
