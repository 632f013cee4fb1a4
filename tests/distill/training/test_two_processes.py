"""Two processes train as one does on the joined batch, and as they would have without a kill."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_processes.py")


def by_two(folder: Path, *checkpoint: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(SCRIPT), str(folder), *checkpoint]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def results(folder: Path) -> tuple[dict, list[dict]]:
    return load_file(folder / "weights.safetensors"), json.loads((folder / "log.json").read_text())


def apart(one: dict, other: dict) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_two_processes_are_one_on_the_joined_batch_also_when_resumed(tmp_path: Path) -> None:
    """Causal answers of unequal length, a measured weight, a memory, a learned projection."""
    spec = importlib.util.spec_from_file_location("one_process", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path / "one", None)
    by_two(tmp_path / "two")
    by_two(tmp_path / "again", str(tmp_path / "two/output/checkpoint-2"))
    (one, log), (two, log_of_two), (again, _) = (
        results(tmp_path / name) for name in ("one", "two", "again")
    )
    start = script.weights(script.tiny_opt(1))
    assert apart(start, one) > 1e-2
    assert apart(one, two) < 1e-5
    assert apart(two, again) < 1e-6
    compared = 0
    for row, other in zip(log, log_of_two, strict=True):
        for name, value in row.items():
            if name.startswith(("loss", "weight/", "eval_geometry_kept")) or name == "eval_loss":
                assert other[name] == pytest.approx(value, rel=1e-4), name
                compared += 1
    assert compared > 40
    assert log[1]["weight/ProcrustesLoss[-1--1]"] > 0
