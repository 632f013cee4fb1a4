"""What `geodistill inspect` does: load two models, compare their layers, print, write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
import torch
from transformers import AutoModel, AutoTokenizer

from geodistill.analysis.figures.layer_map import LABELS, closest, layer_map, map_in_words
from geodistill.analysis.figures.style import geodistill_style
from geodistill.analysis.report.format import show_p
from geodistill.cli.tables import rich_table, wide_console
from geodistill.errors import InputError
from geodistill.experiments.training import quiet
from geodistill.layers.compare_layers import compare_layers
from geodistill.tasks import assets


def inspect(
    model_a: str, model_b: str, texts: Path, *, rows: str = "", measure: str, out: Path | None
) -> None:
    """Print the closest layer of B for each layer of A; arguments as the command's.

    Raises:
        InputError: as `load_model`, `read_texts`, `compare_layers` and `layer_figure.closest`.
    """
    if measure not in LABELS:
        raise InputError(f"--measure {measure!r}: expected one of {', '.join(LABELS)}")
    if out and out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file: expected a folder, new or old")
    read = read_texts(texts)
    console = wide_console()
    with console.status("loading"):
        a = load_model(model_a)
        b = a if model_b == model_a else load_model(model_b)
    kind = cast(Literal["token", "text"], rows) if rows else None
    found = compare_layers(a[0], b[0], read, tokenizer_a=a[1], tokenizer_b=b[1], rows=kind)
    table = match_table(found.rows, measure)
    console.print(rich_table(table, f"{LABELS[measure]}: A is {model_a}, B is {model_b}"))
    first = found.rows.iloc[0]
    cut = f"; {found.truncated} texts cut at what the models take" if found.truncated else ""
    console.print(
        f"{len(read)} texts, {first['n']} rows, each a {first['rows']}{cut}. null: unrelated rows "
        "of these spectra. beyond chance: 0 there, 1 for equal features; it decides the closest, "
        "by value: the closest without it. geometry kept: 1 the best of B's width, 0 that with its "
        "rows shuffled. p_search: permuted texts, over all pairs of layers.",
        highlight=False,
    )
    if out:
        written = write(found.rows, measure, out)
        console.print("written: " + ", ".join(map(str, written)), soft_wrap=True)


def read_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 file, blank ones left out; raises InputError where it can't be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"--texts {path}: {why}; expected a text file, one text a line") from error
    return [line.strip() for line in lines if line.strip()]


def load_model(name: str) -> tuple[Any, Any]:
    """A model without its head, float32, and its tokenizer.

    Args:
        name: "minilm" or "smollm2", the embedded ones; a folder; or a hub name.

    Raises:
        InputError: `transformers` can't load it.
        AssetError: an embedded one can't be downloaded.
    """
    quiet()
    where: dict[str, Any] = {"pretrained_model_name_or_path": name}
    if name in ("minilm", "smollm2"):
        where = {"pretrained_model_name_or_path": assets.path(name)}
    if name == "smollm2":
        where["gguf_file"] = assets.SMOLLM2_GGUF
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        return AutoModel.from_pretrained(**where, dtype=torch.float32), tokenizer
    except (OSError, ValueError, KeyError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"model {name!r}: expected a folder, a hub name, minilm or smollm2; transformers says: "
            f"{first}"
        ) from error


def match_table(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The closest layer of B for each layer of A, in words and rounded numbers."""
    nearest = closest(rows, measure, by="value")["layer_b"]
    return pd.DataFrame(
        [
            {
                "layer of A": one["layer_a"],
                "closest of B": one["layer_b"],
                "value": f"{one['value']:.3f}",
                "null": f"{one['null']:.3f}",
                "beyond chance": _or_dash(one["beyond_chance"]),
                "geometry kept": _or_dash(one["geometry_kept"]),
                "p_search": show_p(one["p_search"]) if pd.notna(one["p_search"]) else "–",
                "by value": layer,
            }
            for one, layer in zip(closest(rows, measure).to_dict("records"), nearest, strict=True)
        ]
    )


def _or_dash(value: float) -> str:
    return f"{value:.2f}" if pd.notna(value) else "–"


def write(rows: pd.DataFrame, measure: str, folder: Path) -> Sequence[Path]:
    """Write `rows.csv`, `layers.svg` and `layers.png`, described in words; returns their paths."""
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    table, *images = (folder / name for name in ("rows.csv", "layers.svg", "layers.png"))
    rows.to_csv(table, index=False)
    with geodistill_style():
        figure = Figure(figsize=(5.2, 5.2), layout="constrained")
        layer_map(rows, measure, figure.subplots())
        for path in images:
            figure.savefig(path, dpi=200, metadata={"Description": map_in_words(rows, measure)})
    return [table, *images]
