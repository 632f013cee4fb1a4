"""The benchmark at tiny sizes: every row is there and finite. No test asserts a time."""

import json
import math
import subprocess
import sys
from pathlib import Path

import torch
from support.tiny_project import REPOSITORY

from benchmarks.data_parallel import messages_of, process_group
from benchmarks.timing import peak_memory
from geodistill.losses import FeatureGramLoss, ProcrustesLoss


def test_every_comparison_has_a_finite_ratio_and_is_written(tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--repeats", "2", "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record["tiny"]
    assert record["versions"]["torch"]
    printed = done.stdout.splitlines()
    assert len(printed) == len(record["rows"])
    for words in (
        "own products",
        "svdvals + autograd over Proc",
        "nuclear_norm, auto",
        "n x n",
        "peak memory",
        "exponent",
        "netrep",
        "training step with KD + Procrustes",
        "live teacher over cache",
        "tokens a second, KD + Procrustes over KD",
        "tokens a second, cache over live teacher",
        "memory of the term, prompts",
        "share of a student's step: backward",
        "share of a student's step: Procrustes term",
        "share of a student's step: optimiser",
        "data parallel: bytes of Procrustes over the gradients'",
    ):
        assert any(words in row["what"] for row in record["rows"]), words
    for row in record["rows"]:
        assert math.isfinite(row["ratio"]), row
    shares = [row["ratio"] for row in record["rows"] if row["what"].startswith("share of a")]
    assert math.isclose(sum(shares), 1)
    assert min(shares) > 0
    errors = [row["gradient_error"] for row in record["rows"] if "gradient_error" in row]
    assert 0 < max(errors) < 1e-4


def test_a_term_reduces_the_sums_of_its_rows_and_their_gradient_whatever_the_rows(
    tmp_path: Path,
) -> None:
    """By count: n and both column sums; both sizes and the d x d products, then their gradients."""
    with process_group(tmp_path) as group:
        cross = messages_of(ProcrustesLoss(group=group), 24, 16)
        all_three = messages_of(FeatureGramLoss(group=group), 24, 16)
    assert cross == [8 * (1 + 24 + 16), 8 * (2 + 24 * 16), 8 * (2 + 24 * 16)]
    products = 24 * 16 + 24 * 24 + 16 * 16
    assert all_three == [8 * (1 + 24 + 16), 8 * (2 + products), 8 * (2 + products)]


def test_peak_memory_counts_what_is_made_while_it_is_held_and_no_view_of_the_inputs() -> None:
    x = torch.ones(1000)

    def twice() -> None:
        for _ in range(2):  # the first pair has gone before the second is made
            a = x[:500] + 1
            b = a.view(250, 2) * 2
            del a, b

    assert peak_memory(twice, x) == 2 * 500 * 4
    assert peak_memory(lambda: x[:500], x) == 0
    assert peak_memory(lambda: x[:500]) == 4000  # not named: its storage counts whole


def test_the_shares_that_the_readme_tells_are_the_stored_ones() -> None:
    stored = json.loads((REPOSITORY / "data/results/benchmarks/speed.json").read_text())["rows"]
    ratio = {
        row["what"].removeprefix("share of a student's step: "): row["ratio"] for row in stored
    }
    rest = ratio["teacher from the cache"] + ratio["KD"]
    told = (
        f"backward {ratio['backward']:.0%}, forward {ratio['student forward, task loss']:.0%}, "
        f"batches and logs {ratio['batches, logs and the rest']:.0%}, the Procrustes term "
        f"{ratio['Procrustes term']:.0%}, the optimiser {ratio['optimiser']:.0%}, "
        f"the teacher's cache and KD {rest:.0%}"
    ).replace("%", " %")
    factor = ratio["training step, live teacher over cache"]
    saved = f"gains as much as a step, a factor of {factor:.1f}"
    readme = " ".join((REPOSITORY / "benchmarks/README.md").read_text().split())
    procrustes, gram = (
        100 * ratio[f"data parallel: bytes of {name} over the gradients'"]
        for name in ("Procrustes", "Gram")
    )
    assert told in readme
    assert saved in readme
    assert f"a Procrustes term adds {procrustes:.1f} % to the bytes" in readme
    assert f"a Gram term {gram:.0f} %" in readme
