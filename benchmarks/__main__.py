"""Print the ratios and write them, with commit, versions and device, to data/results/benchmarks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import torch
from matplotlib.figure import Figure

from benchmarks.data_parallel import data_parallel
from benchmarks.language import language
from benchmarks.speed import rows, rows_on_gpu
from benchmarks.step_parts import step_parts
from benchmarks.students import students
from benchmarks.timing import Row
from geodistill.experiments.provenance import provenance

OUT = Path(__file__).resolve().parents[1] / "data" / "results" / "benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--repeats", type=int, default=15, help="runs of each alternative (default 15)"
    )
    parser.add_argument("--tiny", action="store_true", help="small sizes, to test the script")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="device to benchmark (default: a GPU if there is one)",
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file to write (default speed.json, on a GPU speed-gpu.json)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    on_gpu = options.device == "cuda"
    out = options.out or OUT / f"speed{'-gpu' if on_gpu else ''}.json"
    record = {"threads": 1, "repeats": options.repeats, "tiny": options.tiny} | provenance()
    record["versions"] = json.loads(record["versions"])
    tensors = rows_on_gpu if on_gpu else rows
    out.parent.mkdir(parents=True, exist_ok=True)
    parts: list[Callable[..., list[Row]]] = [
        partial(tensors, options.repeats),
        partial(language, max(2, options.repeats // 5), options.device),
        partial(students, max(2, options.repeats // 3), options.device),
        *([] if on_gpu else [step_parts, data_parallel]),
    ]
    measured: list[Row] = []
    for part in parts:  # if stopped, the finished parts stay
        new_rows = part(tiny=options.tiny)
        for row in new_rows:
            target = "" if row["target"] is None else f"  (target {row['target']})"
            median = f"  median {row['median_ratio']:8.2f}" if "median_ratio" in row else ""
            print(
                f"{row['what']:<58} {row['size']:<16} {row['ratio']:8.2f}{median}{target}",
                flush=True,
            )
        measured += new_rows
        partial_file = out.with_suffix(".partial")
        partial_file.write_text(
            json.dumps(record | {"rows": measured}, indent=1) + "\n", encoding="utf-8"
        )
        partial_file.replace(out)
    if not on_gpu:
        draw(measured, out.with_suffix(".svg"))


def draw(measured: list[Row], path: Path) -> None:
    """Plot the seconds of the losses against n and d on log axes, with fitted exponents."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axis, panel in zip("nd", figure.subplots(1, 2, sharey=True), strict=True):
        for row in measured:
            if row["what"].endswith(f"cost in {axis}"):
                sizes = [int(size) for size in row["seconds"]]
                label = f"{row['what'].split(':')[0]}, exponent {row['ratio']:.2f}"
                panel.loglog(sizes, list(row["seconds"].values()), "o-", label=label)
        panel.set_xlabel("rows n" if axis == "n" else "width d of both sides")
        panel.legend()
    figure.axes[0].set_ylabel("minimum seconds, forward and backward")
    with matplotlib.rc_context({"svg.hashsalt": "speed"}):
        figure.savefig(path, metadata={"Date": None})


main()
