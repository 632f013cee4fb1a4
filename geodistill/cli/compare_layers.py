"""The `geodistill compare-layers` command: load two models, compare layers, print, write."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

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

if TYPE_CHECKING:
    from geodistill.layers.layer_map import LayerMap

DTYPES = ("float32", "float16", "bfloat16", "auto")


def run_compare_layers(
    model_a: str,
    model_b: str,
    texts: Path | None,
    images: Path | None,
    *,
    pooling: str,
    measure: str,
    drop_outliers: bool,
    device: str,
    dtype: str,
    batch_size: int,
    out: Path | None,
) -> None:
    """Print the closest layer of B for each layer of A, and a mapping; arguments as in the command.

    Raises:
        InputError: unknown measure, pooling or dtype; models, features, texts or images that cannot
            be read or compared.
    """
    _check_options(measure, dtype)
    kind = _kind_of_input((model_a, model_b), texts, images)
    if kind != "text" and (pooling or drop_outliers):
        raise InputError(f"--pooling and --drop-outliers are for --texts; got a map by {kind}")
    lines = read_texts(texts) if texts else []
    console = wide_console()
    if kind == "row":
        from geodistill.layers.features import compare_features, load_features

        layers = compare_features(*(load_features(Path(name)) for name in (model_a, model_b)))
    elif images:
        layers = _compare_by_images(model_a, model_b, images, device, dtype, batch_size)
    else:
        layers = _compare_by_texts(
            model_a, model_b, lines, pooling, drop_outliers, device, dtype, batch_size
        )
    matches = match_table(layers.table, measure)
    console.print(rich_table(matches, f"{MEASURE_LABELS[measure]}: A is {model_a}, B is {model_b}"))
    console.print(_describe_rows(layers, len(lines), drop_outliers), highlight=False)
    if layers.mapping is not None:
        console.print(describe_mapping(layers.mapping, measure), soft_wrap=True)
    if out:
        paths = write_map(layers.table, measure, out, (model_a, model_b))
        console.print("written: " + ", ".join(map(str, paths)), soft_wrap=True)


def _check_options(measure: str, dtype: str) -> None:
    for option, value, known in (("measure", measure, MEASURE_LABELS), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise InputError(f"--{option} {value!r}: expected one of {', '.join(known)}")


def _kind_of_input(names: tuple[str, str], texts: Path | None, images: Path | None) -> str:
    """What a row is: "text", "image", or "row" of two files of features."""
    are_files = [name.endswith((".npy", ".safetensors")) for name in names]
    if any(are_files) != all(are_files):
        raise InputError(
            f"{names[are_files.index(True)]} is a file of features and the other is none: expected "
            "two files of features, or two models"
        )
    from_files = all(are_files)
    if (texts is not None) + (images is not None) != 1 - from_files:
        raise InputError(
            "expected --texts FILE for two language models, --images FOLDER for two models of "
            "images, and neither for two .npy or .safetensors files of features (rows, width)"
        )
    for path in map(Path, names) if from_files else filter(None, [images]):
        if not path.exists():
            raise InputError(f"no file or folder at {path}")
    if from_files:
        return "row"
    for name in names:  # an absent folder would be looked up on the hub
        if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
            raise InputError(
                f"model {name!r}: expected a folder, a hub name, minilm or smollm2; there is no "
                "such folder"
            )
    return "image" if images else "text"


def _compare_by_images(
    model_a: str, model_b: str, path: Path, device: str, dtype: str, batch_size: int
) -> LayerMap:
    from transformers import AutoImageProcessor

    from geodistill.layers.features import compare_features, image_features, load_images

    images, by_name = load_images(path), {}
    for name in dict.fromkeys((model_a, model_b)):
        model, processor = load_model(name, device, dtype, AutoImageProcessor)
        by_name[name] = image_features(model, processor, images, batch_size=batch_size)
    return compare_features(by_name[model_a], by_name[model_b], unit="image")


def _compare_by_texts(
    model_a: str,
    model_b: str,
    lines: Sequence[str],
    pooling: str,
    drop_outliers: bool,
    device: str,
    dtype: str,
    batch_size: int,
) -> LayerMap:
    from geodistill.layers.compare_layers import compare_layers  # loads torch, in seconds

    with wide_console().status("loading"):
        a = load_model(model_a, device, dtype)
        b = a if model_b == model_a else load_model(model_b, device, dtype)
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
    return layers


def _describe_rows(layers: LayerMap, n_texts: int, drop_outliers: bool) -> str:
    """The rows compared, and what the columns mean."""
    n, unit = layers.table[["n", "pooling"]].iloc[0]
    by_text = n_texts > 0
    cut = f"; {layers.truncated} texts were truncated" if layers.truncated else ""
    if drop_outliers:
        cut += "; outlier tokens left out: {} of A, {} of B".format(*layers.dropped)
    rows = f"{n_texts} texts, {n} rows, one per {unit}{cut}" if by_text else f"{n} {unit}s"
    return (
        f"{rows}. null: unrelated rows with these "
        "spectra. beyond chance: 0 at the null, 1 for equal features; it decides the closest layer "
        "(by value: the closest without it). geometry kept: 1 for the best student of B's width, 0 "
        f"for that student with shuffled rows. p_search: {'texts' if by_text else f'{unit}s'} "
        "permuted, over all pairs of layers."
    )


def read_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 file without blank ones; InputError if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(
            f"--texts {path}: {reason}; expected a text file, one text per line"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def load_model(name: str, device: str, dtype: str, preparer: Any = None) -> tuple[Any, Any]:
    """A model without its head, and its tokenizer or image processor.

    Args:
        name: "minilm" or "smollm2", the embedded ones; a folder; or a hub name.
        device: such as "cuda"; "" is the CPU.
        dtype: one of `DTYPES`; "auto" is that of the file.
        preparer: `AutoImageProcessor`; by default `AutoTokenizer`.

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
        prepare = (preparer or AutoTokenizer).from_pretrained(source, **options)
        model = load_pretrained(AutoModel, source, dtype=dtype, **options)
        return model.to(device or "cpu"), prepare
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
        f"    FeatureTerm(teacher_layer={a!r}, student_layer={b!r}, loss=ProcrustesLoss()),"
        for a, b in rows[["layer_a", "layer_b"]].itertuples(index=False)
    ]
    gain, p = rows["beyond_chance"].mean(), format_p(rows["p_map"].iloc[0])
    words = (
        "suggested mapping with A as the teacher: deeper layers to deeper ones, mean beyond "
        f"chance {gain:.2f}, p {p} (of the best mapping of permuted rows)"
    )
    return "\n".join([words, "terms = [", *terms, "]"])


def write_map(
    table: pd.DataFrame, measure: str, folder: Path, names: tuple[str, str]
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
