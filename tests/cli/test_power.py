"""`geodistill power`: a plan from a pilot or from standard deviations, printed and written."""

import numpy as np
import pandas as pd
import pytest
import yaml
from support.command_line import run
from support.paired_items import crossed_rows

from geodistill.analysis.stats.power import Design, components_from_sd
from geodistill.errors import InputError


def stored_design(path):
    """The design block of a protocol file without its source."""
    block = yaml.safe_load(path.read_text(encoding="utf-8"))["design"]
    return {name: value for name, value in block.items() if name != "from"}


def run_power(*words):
    return " ".join(run("power", *words).split())


def store_pilot(folder):
    """Rows and items of three methods, in the format of stored results."""
    rng = np.random.default_rng(0)
    methods = ["kd", "kd+gram", "kd+procrustes"]
    items = crossed_rows(task="ab", method=methods, seed=range(5), item=range(150))
    items["run_id"] = items["task"] + items["method"] + items["seed"].astype(str)
    items["score"] = (rng.random(len(items)) < 0.7).astype(float)
    items["source"] = items["item"] // 3
    rows = items.drop_duplicates("run_id")[["run_id", "task", "method", "seed"]]
    rows = rows.assign(metric="accuracy", value=0.7, status="finished", dirty=False)
    folder.mkdir()
    rows.to_parquet(folder / "rows.parquet")
    items.to_parquet(folder / "items.parquet")
    return items


def test_the_command_plans_from_a_pilot_and_writes(tmp_path):
    folder, out = tmp_path / "pilot", tmp_path / "x.yaml"
    items = store_pilot(folder)
    options = ["--method", "kd+procrustes", "--method", "kd+gram", "--seeds", 10]
    text = run_power("--pilot", folder, *options, "--out", out)
    written = stored_design(out)
    assert [written[name] for name in ("seeds", "items", "tests")] == [10, 300, 2]
    assert f"detect a gain of {written['smallest_gain']:.2g} or more" in text
    assert "the first of 2 tests under Holm" in text
    assert "kd+procrustes, kd+gram against kd on a, b, 5 seeds × 300 items" in text
    items.to_csv(tmp_path / "x.csv", index=False)
    again = tmp_path / "again.yaml"
    run_power("--pilot", tmp_path / "x.csv", *options, "--out", again)
    assert stored_design(again) == written
    assert [row["gain"] for row in written["needed"]] == [0.005, 0.01, 0.02]
    single = run_power("--pilot", folder, "--method", "kd+gram", "--items", 9000)
    assert "5 seeds × 9,000 items detect" in single
    assert "under Holm" not in single


def test_a_pilot_in_percent_is_planned_in_percent(tmp_path):
    items = store_pilot(tmp_path / "pilot")
    items.assign(score=100 * items["score"]).to_csv(tmp_path / "x.csv", index=False)
    out = tmp_path / "x.yaml"
    run_power("--pilot", tmp_path / "x.csv", "--method", "kd+gram", "--out", out)
    assert [row["gain"] for row in stored_design(out)["needed"]] == [0.5, 1.0, 2.0]


def test_the_command_plans_from_deviations():
    text = run_power("--seed-sd", 0.01, "--item-sd", 0.2, "--rest-sd", 0.3, "--gain", 0.02)
    plan = Design(components_from_sd(0.01, 0.2, 0.3), 1, 5, 1000)
    assert f"{plan.power_at(0.02, 5, 1000):.0%} {plan.seeds_for(0.02, 1000)} " in text
    assert f"{plan.items_for(0.02, 5):,}" in text
    assert "2,941 items" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --pilot"),
        (["--pilot", "x", "--seed-sd", "1"], "give either --pilot"),
        (["--pilot", "x"], "--pilot needs --method"),
        (
            ["--seed-sd", "1", "--unit", "raw", "--method", "a"],
            "--method, --unit are about a pilot",
        ),
        (["--pilot", "x.csv", "--method", "a"], "no file at x.csv"),
    ],
)
def test_missing_options_are_named(words, message):
    with pytest.raises(InputError, match=message):
        run_power(*words)


def test_a_pilot_that_cannot_be_planned_with(tmp_path):
    path = tmp_path / "x.csv"
    pd.DataFrame({"method": list("aabb"), "seed": [0, 1] * 2, "nll": [1.0, 2, 3, 5]}).to_csv(path)
    pilot = ["--pilot", path, "--method", "a", "--baseline", "b", "--metric", "nll"]
    with pytest.raises(InputError, match="nll is not counted in points: choose --gain"):
        run_power(*pilot)
    with pytest.raises(InputError, match=r"2 shared seeds and 0 items: a plan.*by --seed-sd"):
        run_power(*pilot, "--gain", 1)


def test_options_that_do_not_fit_the_pilot_are_named(tmp_path):
    folder = tmp_path / "pilot"
    store_pilot(folder)
    for words, message in (
        (["--method", "kd+gran"], r"^method 'kd\+gran' is no method of the rows"),
        (["--method", "kd"], "^method 'kd' is the baseline itself"),
        (
            ["--method", "kd+gram", "--gain", 2],
            "^--gain is 2, all of the metric's range.* 0.01 for",
        ),
    ):
        with pytest.raises(InputError, match=message):
            run_power("--pilot", folder, *words)


def test_a_plan_says_nothing_on_the_direction_of_a_metric(tmp_path):
    items = store_pilot(tmp_path / "pilot").rename(columns={"score": "nll"})
    items.to_csv(tmp_path / "x.csv", index=False)
    text = run_power("--pilot", tmp_path / "x.csv", "--method", "kd+gram", "--gain", 0.1)
    assert "value: nll Variance" in text
    assert "is better" not in text


def test_the_unit_of_a_pilot_can_be_given(tmp_path):
    folder = tmp_path / "pilot"
    items = store_pilot(folder).assign(metric="my index")
    items.to_csv(tmp_path / "x.csv", index=False)
    options = ["--pilot", tmp_path / "x.csv", "--metric", "my index", "--method", "kd+gram"]
    with pytest.raises(InputError, match="not counted in points: choose --gain"):
        run_power(*options)
    run_power(*options, "--unit", "fraction", "--out", tmp_path / "x.yaml")
    needed = stored_design(tmp_path / "x.yaml")["needed"]
    assert [row["gain"] for row in needed] == [0.005, 0.01, 0.02]
    with pytest.raises(InputError, match="unit is 'relative': choose tasks of one scale by --task"):
        run_power(*options, "--unit", "relative")
