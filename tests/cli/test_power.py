"""`geodistill power`: a plan from a pilot or from standard deviations, printed and written."""

import pandas as pd
import pytest
import yaml
from support import simulated_results
from typer.testing import CliRunner

from geodistill.analysis.stats.crossed_anova import Components
from geodistill.analysis.stats.power import Design, components_from_sd
from geodistill.cli import main
from geodistill.errors import InputError


def stored_design(path):
    """The design that a protocol file holds."""
    block = yaml.safe_load(path.read_text(encoding="utf-8"))["design"]
    names = ("measured_at", "seeds", "items", "tests", "power", "alpha")
    return Design(Components(**block["variance"]), *(block[name] for name in names))


def run(*words):
    result = CliRunner().invoke(main.app, ["power", *map(str, words)])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_the_command_plans_from_a_pilot_and_writes(tmp_path):
    simulated_results.write(tmp_path, n_items=150)
    folder, out = tmp_path / "exploratory/classification", tmp_path / "x.yaml"
    wanted = ["--method", "kd+procrustes", "--method", "kd+gram", "--seeds", 10]
    text = run("--pilot", folder, *wanted, "--out", out)
    written = stored_design(out)
    assert (written.seeds, written.items, written.tests) == (10, 300, 2)
    assert f"detect a gain of {written.smallest_gain():.2g} or more" in text
    assert "the first of 2 tests under Holm" in text
    items = pd.read_parquet(folder / "items.parquet")
    items.to_csv(tmp_path / "x.csv", index=False)
    again = tmp_path / "again.yaml"
    run("--pilot", tmp_path / "x.csv", *wanted, "--out", again)
    assert stored_design(again) == written


def test_the_command_plans_from_deviations():
    text = run("--seed-sd", 0.01, "--item-sd", 0.2, "--rest-sd", 0.3, "--gain", 0.02)
    plan = design()
    assert f"{plan.power_at(0.02, 5, 1000):.0%} {plan.seeds_for(0.02, 1000)} " in text
    assert f"{plan.items_for(0.02, 5):,}" in text
    assert "2,941 items" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --pilot"),
        (["--pilot", "x", "--seed-sd", "1"], "give either --pilot"),
        (["--pilot", "x"], "--pilot needs --method"),
        (["--pilot", "x.csv", "--method", "a"], "no file at x.csv"),
    ],
)
def test_missing_options_are_named(words, message):
    with pytest.raises(InputError, match=message):
        run(*words)


def test_a_pilot_that_cannot_be_planned_with(tmp_path):
    path = tmp_path / "x.csv"
    pd.DataFrame({"method": list("aabb"), "seed": [0, 1] * 2, "nll": [1.0, 2, 3, 5]}).to_csv(path)
    pilot = ["--pilot", path, "--method", "a", "--baseline", "b", "--metric", "nll"]
    with pytest.raises(InputError, match="nll is not counted in points: choose --gain"):
        run(*pilot)
    with pytest.raises(InputError, match="2 shared seeds and 0 items: a plan needs 2 or more"):
        run(*pilot, "--gain", 1)
