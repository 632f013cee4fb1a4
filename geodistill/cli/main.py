"""The command line `geodistill`. Each command imports what it needs, so that help is immediate."""

import ast
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from geodistill.cli.run_app import run_app
from geodistill.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"geodistill {version('geodistill')}")
        raise typer.Exit


@app.callback()
def geodistill(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Feature-geometry distillation: its book, studies and tools."""


def _check_folder(path: Path | None) -> Path | None:
    """Refuse a file as `--out` before any work is done."""
    if path is not None and (path.exists() or path.is_symlink()) and not path.is_dir():
        kind = "file" if path.exists() else "link to nothing"
        raise InputError(f"--out {path} is a {kind}; expected a folder, new or existing")
    return path


Names = list[str] | None
Columns = Annotated[
    Names, typer.Option("--column", help="such as method=model, or item= for none; repeatable")
]
ScoreUnit = Annotated[str | None, typer.Option(help="fraction, percent, raw or relative")]
OutFolder = Annotated[Path | None, typer.Option(callback=_check_folder, help="output folder")]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def notebook(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="name of a notebook, or a unique part of it")],
) -> None:
    """Execute one notebook; set its parameters with -p NAME VALUE, once per parameter."""
    from geodistill.publish.execute import run_notebook

    run_notebook(name, _parameters(context.args))


@app.command()
def experiments(
    study: Annotated[str, typer.Argument(help="classification, instruction or synthetic")],
    section: Annotated[str, typer.Option(help="section of the protocol, such as full")] = "",
    dry_run: Annotated[
        bool, typer.Option(help="show missing runs and expected time, stop")
    ] = False,
    verify: Annotated[int, typer.Option(min=0, help="number of stored runs to repeat")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="processes, one compute thread each")] = 2,
    scheduler: Annotated[str, typer.Option(help="address of a Dask cluster: tcp://...")] = "",
) -> None:
    """Make every missing run of a study; after an interruption, the same command resumes."""
    from geodistill.cli.experiments import run_study, verify_study
    from geodistill.experiments.registry import find_study
    from geodistill.experiments.runner import describe_plan

    selected = find_study(study, section)
    if dry_run:
        typer.echo(describe_plan(selected, workers))
    elif verify:
        verify_study(selected, verify, workers)
    else:
        run_study(selected, workers, scheduler)


@app.command()
def compare(
    scores: Annotated[Path, typer.Argument(help="CSV, TSV, JSON, Parquet, or a results folder")],
    baseline: Annotated[list[str], typer.Option(help="method to compare with; repeatable")],
    metric: Annotated[str | None, typer.Option(help="metric, if the table has several")] = None,
    methods: Annotated[Names, typer.Option(help="to compare, as a,b,c (default: all)")] = None,
    primary: Annotated[Names, typer.Option(help="method of the primary family; repeatable")] = None,
    margin: Annotated[
        Names, typer.Option(help="smallest difference that matters: 0.5, 2% or TASK=0.5")
    ] = None,
    unit: ScoreUnit = None,
    over: Annotated[str, typer.Option(help="tasks: the result is about tasks like these")] = "",
    collapsed_at: Annotated[
        Names,
        typer.Option(help="score at which a run has collapsed: 0.5 or TASK=0.5 (default: labels)"),
    ] = None,
    higher_is_better: Annotated[
        bool | None, typer.Option("--higher/--lower", help="which values of the metric are better")
    ] = None,
    task: Annotated[Names, typer.Option(help="task to include; repeatable")] = None,
    column: Columns = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="show other tests too")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
    out: OutFolder = None,
) -> None:
    """Test which methods differ from a baseline, by how much, and what would settle the rest."""
    from geodistill.cli.compare import run_compare

    run_compare(
        scores,
        baseline,
        columns=column or (),
        metric=metric,
        higher_is_better=higher_is_better,
        tasks=task or (),
        methods=methods or (),
        primary=primary or (),
        margins=margin or (),
        unit=unit,
        over=over,
        collapsed_at=collapsed_at or (),
        sensitivity=sensitivity,
        as_json=json,
        out=out,
    )


@app.command()
def power(
    pilot: Annotated[
        Path | None,
        typer.Option(help="pilot scores (file or folder); else give the three deviations"),
    ] = None,
    method: Annotated[Names, typer.Option(help="method in the pilot; repeatable")] = None,
    baseline: Annotated[str, typer.Option(help="baseline in the pilot")] = "kd",
    metric: Annotated[str | None, typer.Option(help="metric, if the pilot has several")] = None,
    task: Annotated[Names, typer.Option(help="task in the pilot; repeatable")] = None,
    column: Columns = None,
    seed_sd: Annotated[float, typer.Option(min=0, help="deviation between seeds, σ_A")] = 0.0,
    item_sd: Annotated[float, typer.Option(min=0, help="deviation between items, σ_B")] = 0.0,
    rest_sd: Annotated[float, typer.Option(min=0, help="seed × item residual, σ_E")] = 0.0,
    seeds: Annotated[int, typer.Option(help="seeds planned (default: the pilot's, else 5)")] = 0,
    items: Annotated[int, typer.Option(help="items planned (default: the pilot's, else 1000)")] = 0,
    tests: Annotated[int, typer.Option(help="tests in the Holm family (default: methods)")] = 0,
    gain: Annotated[
        list[float] | None, typer.Option(help="true gain in units of the score; repeatable")
    ] = None,
    unit: ScoreUnit = None,
    out: Annotated[Path | None, typer.Option(help="protocol file to add the design to")] = None,
) -> None:
    """Plan a comparison: seeds and items needed for a gain, smallest gain that a design detects."""
    from geodistill.cli.power import run_power

    run_power(
        pilot=pilot,
        methods=method or (),
        baseline=baseline,
        columns=column or (),
        metric=metric,
        tasks=task or (),
        deviations=(seed_sd, item_sd, rest_sd),
        seeds=seeds,
        items=items,
        tests=tests,
        gains=gain or (),
        unit=unit,
        out=out,
    )


@app.command()
def compare_layers(
    model_a: Annotated[str, typer.Argument(help="folder, hub name, minilm, smollm2; or features")],
    model_b: Annotated[str, typer.Argument(help="likewise (features: .npy or .safetensors)")],
    texts: Annotated[Path | None, typer.Option(help="file of texts, one per line")] = None,
    images: Annotated[
        Path | None, typer.Option(help="folder of images, or .npy array (n, height, width, 3)")
    ] = None,
    pooling: Annotated[
        str, typer.Option(help="token or text (default: token, if the token ids are equal)")
    ] = "",
    measure: Annotated[
        str, typer.Option(help="procrustes, gram, cka, r2_to_a, ...")
    ] = "procrustes",
    drop_outliers: Annotated[
        bool, typer.Option("--drop-outliers", help="leave out tokens that dominate a layer")
    ] = False,
    device: Annotated[str, typer.Option(help="such as cuda (default: the CPU)")] = "",
    dtype: Annotated[
        str, typer.Option(help="float32, float16, bfloat16 or auto, that of the file")
    ] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="texts or images per pass")] = 16,
    out: OutFolder = None,
) -> None:
    """Compare all layers of two models: which pairs share their geometry, beyond chance."""
    from geodistill.cli.compare_layers import run_compare_layers

    run_compare_layers(
        model_a,
        model_b,
        texts,
        images,
        pooling=pooling,
        measure=measure,
        drop_outliers=drop_outliers,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        out=out,
    )


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="published pair: minillm-opt or distillm-opt125m")],
    dry_run: Annotated[bool, typer.Option(help="every stage with tiny models, on a CPU")] = False,
    teacher: Annotated[Path | None, typer.Option(help="folder of a fine-tuned teacher")] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of the students' training")] = 10,
    weight: Annotated[float | None, typer.Option(help="weight of the feature term")] = None,
    method: Annotated[Names, typer.Option(help="such as kd+procrustes; repeatable")] = None,
    out: OutFolder = None,
) -> None:
    """Run a published teacher and student pair; show Rouge-L next to the published scores."""
    from geodistill.cli.reproduce import run_reproduction

    run_reproduction(
        name,
        teacher=teacher,
        out=out,
        dry_run=dry_run,
        seed=seed,
        weight=weight,
        methods=method or (),
    )


@app.command()
def download(
    names: Annotated[
        list[str] | None, typer.Argument(help="of assets (default: those of the book)")
    ] = None,
) -> None:
    """Download models and texts once, and check their hashes."""
    from geodistill.tasks import assets

    assets.download(names or assets.DEFAULT_ASSETS, typer.echo)


@app.command()
def book(
    profile: Annotated[str, typer.Option(help="smoke, laptop or paper")] = "laptop",
    clean: Annotated[bool, typer.Option(help="remove the former pages first")] = False,
) -> None:
    """Execute the notebooks that changed and build the HTML book."""
    from geodistill.publish.book import build_book

    build_book(profile, clean=clean)


@app.command()
def provenance(
    figure: Annotated[str, typer.Argument(help="name printed under the figure or table")],
) -> None:
    """Show the command, stored tables and run ids behind a figure or table of the book."""
    from geodistill.publish.display import describe_figure

    typer.echo(describe_figure(figure))


def _parameters(words: Sequence[str]) -> dict[str, object]:
    """`-p seed 3 -p profile smoke` as a dictionary."""
    triples = [words[i : i + 3] for i in range(0, len(words), 3)]
    for triple in triples:
        if len(triple) < 3 or triple[0] not in ("-p", "--parameter"):
            raise InputError(f"got {' '.join(triple)!r}; expected -p NAME VALUE")
    return {name: _literal(value) for _, name, value in triples}


def _literal(text: str) -> object:
    """The number, boolean or list that a command-line value spells, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main() -> None:
    """Run the command; report an error that a user can fix in one line, with exit code 2."""
    run_app(app)
