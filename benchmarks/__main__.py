"""Print the ratios and write them, with versions and device, to data/results/benchmarks."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy
import torch

from benchmarks.speed import rows

OUT = Path(__file__).resolve().parents[1] / "data" / "results" / "benchmarks" / "speed.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--repeats", type=int, default=15, help="times each rival runs (default 15)"
    )
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a test of the script")
    parser.add_argument("--out", type=Path, default=OUT, help="where the JSON goes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = rows(given.repeats, tiny=given.tiny)
    for row in found:
        target = "" if row["target"] is None else f"  (target {row['target']})"
        print(f"{row['what']:<58} {row['size']:<16} {row['ratio']:8.2f}{target}")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {"numpy": numpy.__version__}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"device": device, "threads": 1, "repeats": given.repeats, "tiny": given.tiny}
    given.out.write_text(
        json.dumps(record | {"versions": versions, "rows": found}, indent=1) + "\n"
    )


main()
