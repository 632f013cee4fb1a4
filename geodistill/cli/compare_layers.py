"""The `geodistill compare-layers` command: load two models, compare layers, print, write."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
import typer

from geodistill import files
from geodistill.analysis.figures.layer_map import (
    MEASURE_LABELS,
    closest_layers,
    describe_map,
    layer_map,
)
from geodistill.analysis.figures.style import geodistill_style
from geodistill.analysis.report.format import format_p
from geodistill.cli.tables import rich_table, wide_console
from geodistill.errors import InputError
from geodistill.tasks import assets


def run_compare_layers(
    model_a: str,
    model_b: str,
    texts: Path,
    *,
    pooling: str = "",
    measure: str,
    drop_outliers: bool = False,
    device: str = "",
    batch_size: int = 16,
    out: Path | None,
) -> None:
    """Print the closest layer of B for each layer of A, and a mapping; arguments as in the command.

    Raises:
        InputError: unknown measure or pooling; models or texts that cannot be read or compared.
    """
    if measure not in MEASURE_LABELS:
        raise InputError(f"--measure {measure!r}: expected one of {', '.join(MEASURE_LABELS)}")
    lines = read_texts(texts)
    for name in (model_a, model_b):
        _refuse_absent_folder(name)
    from geodistill.layers.compare_layers import compare_layers  # loads torch, in seconds

    console = wide_console()
    with console.status("loading"):
        a = load_model(model_a, device)
        b = a if model_b == model_a else load_model(model_b, device)
    unit = cast(Literal["token", "text"], pooling) if pooling else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        layers = compare_layers(
            a[0], b[0], lines, tokenizer_a=a[1], tokenizer_b=b[1], pooling=unit,
            drop_outliers=drop_outliers, batch_size=batch_size,
        )  # fmt: skip
    for warning in caught:
        if warning.category is UserWarning:
            typer.echo(f"warning: {warning.message}", err=True)
    matches = match_table(layers.table, measure)
    console.print(rich_table(matches, f"{MEASURE_LABELS[measure]}: A is {model_a}, B is {model_b}"))
    n, unit = layers.table[["n", "pooling"]].iloc[0]
    cut = f"; {layers.truncated} texts were truncated" if layers.truncated else ""
    if drop_outliers:
        cut += "; outlier tokens left out: {} of A, {} of B".format(*layers.dropped)
    console.print(
        f"{len(lines)} texts, {n} rows, one per {unit}{cut}. null: unrelated rows with these "
        "spectra. beyond chance: 0 at the null, 1 for equal features; it decides the closest layer "
        "(by value: the closest without it). geometry kept: 1 for the best student of B's width, 0 "
        "for that student with shuffled rows. p_search: texts permuted, over all pairs of layers.",
        highlight=False,
    )
    if layers.mapping is not None:
        console.print(describe_mapping(layers.mapping, measure), soft_wrap=True)
    if out:
        paths = write_map(layers.table, measure, out, (model_a, model_b))
        console.print("written: " + ", ".join(map(str, paths)), soft_wrap=True)


def read_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 file without blank ones; InputError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(
            f"--texts {path}: {reason}; expected a text file, one text per line"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def _refuse_absent_folder(name: str) -> None:
    """A path that is not there would be asked for as a hub name."""
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise InputError(
            f"model {name!r}: expected a folder, a hub name, minilm or smollm2; there is no such "
            "folder"
        )


def load_model(name: str, device: str = "") -> tuple[Any, Any]:
    """A model without its head, in float32, and its tokenizer.

    Args:
        name: "minilm" or "smollm2", the embedded ones; a folder; or a hub name.
        device: such as "cuda"; by default the CPU.

    Raises:
        InputError: `transformers` cannot load it, its weights are not those of the model, or there
            is no such device.
        AssetError: an embedded model cannot be downloaded.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    from geodistill.distill.pretrained import load_pretrained
    from geodistill.experiments.training import silence_libraries

    silence_libraries()
    try:
        torch.empty(0, device=device or "cpu")
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device!r}: {files.first_line(error)}") from error
    source = assets.path(name) if name in ("minilm", "smollm2") else str(Path(name).expanduser())
    options: dict[str, Any] = {"gguf_file": assets.SMOLLM2_GGUF} if name == "smollm2" else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = load_pretrained(AutoModel, source, dtype=torch.float32, **options)
        return model.to(device or "cpu"), tokenizer
    except InputError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"model {name!r}: expected a folder, a hub name, minilm or smollm2; transformers says: "
            f"{files.first_line(error)}"
        ) from error


def match_table(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The closest layer of B for each layer of A, formatted for print."""

    def decimals(value: float) -> str:
        return f"{value:.2f}" if pd.notna(value) else "–"

    matches = closest_layers(table, measure)
    return pd.DataFrame(
        {
            "layer of A": matches["layer_a"],
            "closest of B": matches["layer_b"],
            "value": matches["value"].map("{:.3f}".format),
            "null": matches["null"].map("{:.3f}".format),
            "beyond chance": matches["beyond_chance"].map(decimals),
            "geometry kept": matches["geometry_kept"].map(decimals),
            "p_search": [format_p(p) if pd.notna(p) else "–" for p in matches["p_search"]],
            "by value": closest_layers(table, measure, by="value")["layer_b"],
        }
    )


def describe_mapping(mapping: pd.DataFrame, measure: str) -> str:
    """The mapping of a measure as feature terms for the trainer, with A as the teacher."""
    rows = mapping[mapping["measure"] == measure]
    if rows.empty:
        return f"no mapping: {measure} is not defined for all pairs of layers; use more texts"
    terms = [
        f"    FeatureTerm(teacher_layer={a}, student_layer={b}, loss=ProcrustesLoss()),"
        for a, b in rows[["layer_a", "layer_b"]].itertuples(index=False)
    ]
    gain, p = rows["beyond_chance"].mean(), format_p(rows["p_map"].iloc[0])
    return "\n".join(
        [
            "suggested mapping with A as the teacher: deeper layers to deeper ones, mean beyond "
            f"chance {gain:.2f}, p {p} (of the best mapping of permuted texts)",
            "terms = [",
            *terms,
            "]",
        ]
    )


def write_map(
    table: pd.DataFrame, measure: str, folder: Path, names: tuple[str, str] = ("A", "B")
) -> Sequence[Path]:
    """Write `layers.csv`, `layers.svg` and `layers.png`, described in words; returns the paths."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    csv, *images = (folder / f"layers.{suffix}" for suffix in ("csv", "svg", "png"))
    table.to_csv(csv, index=False)
    with geodistill_style():
        figure = Figure(figsize=(5.2, 5.2), layout="constrained")
        layer_map(table, measure, figure.subplots(), names)
        for path in images:
            figure.savefig(path, dpi=200, metadata={"Description": describe_map(table, measure)})
    return [csv, *images]
