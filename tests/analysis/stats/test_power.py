"""Plans against closed forms, simulation, and the file they are written into."""

import math

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats
from statsmodels.stats.power import TTestPower
from support import simulated_results
from typer.testing import CliRunner

from geodistill.analysis.protocol_file import read_design, read_protocol, write_design
from geodistill.analysis.stats.coverage import Truth
from geodistill.analysis.stats.crossed_anova import Components, estimate
from geodistill.analysis.stats.power import (
    RTE_DEV,
    Design,
    from_deviations,
    from_pilot,
    items_for_one_pair,
    needed,
    rule_of_thumb,
)
from geodistill.cli import main
from geodistill.errors import InputError

NOISE = {"seed": 0.01, "item": 0.2, "residual": 0.3}


def design(seeds=5, items=1000, tests=1, **noise):
    return Design(from_deviations(**{**NOISE, **noise}), 1, seeds, items, tests)


def test_seeds_alone_give_the_power_of_the_t_test():
    alone = design(item=0.0, residual=0.0)
    for seeds, gain in ((3, 0.03), (5, 0.01), (12, 0.01)):
        expected = TTestPower().power(gain / 0.01, seeds, 0.05)
        assert alone.chance(gain, seeds, 1000) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(
    ("seeds", "items", "gain"), [(5, 300, 0.03), (10, 200, 0.04), (3, 400, 0.04)]
)
def test_power_is_what_simulation_finds(seeds, items, gain):
    rng, repeats = np.random.default_rng(1), 1500
    tables = (Truth(gain, **NOISE).draw(rng, seeds, items) for _ in range(repeats))
    found = np.mean([estimate([table]).p < 0.05 for table in tables])
    expected = design().chance(gain, seeds, items)
    assert 0.2 < expected < 0.95
    assert found == pytest.approx(expected, abs=3.5 * math.sqrt(0.25 / repeats))


def test_the_smallest_gain_is_found_with_the_wanted_power():
    for one in (design(), design(seeds=2), design(seeds=20, items=277, tests=3)):
        least = one.smallest_gain()
        assert one.chance(least, one.seeds, one.items) == pytest.approx(0.8, abs=1e-6)
    assert design(tests=2).smallest_gain() > design().smallest_gain()


def test_needs_are_the_least_and_say_where_none_is_enough():
    plan = design()
    seeds, items = plan.seeds_for(0.02, 1000), plan.items_for(0.02, 5)
    assert plan.chance(0.02, seeds, 1000) >= 0.8 > plan.chance(0.02, seeds - 1, 1000)
    assert plan.chance(0.02, 5, items) >= 0.8 > plan.chance(0.02, 5, items - 1)
    # σ_A/√5 alone is 0.0045: no item helps against 0.005; σ_B/√100 = 0.02: no seed against 0.02.
    assert plan.items_for(0.005, 5) is None
    assert plan.seeds_for(0.02, 100) is None
    table = needed(plan, (0.005, 0.02))
    assert table["items"].isna().tolist() == [True, False]
    assert table["seeds"].iloc[1] == seeds
    assert table["power"].iloc[1] == pytest.approx(plan.chance(0.02, 5, 1000))


def test_power_that_falls_again_with_more_items_is_still_found():
    plan = design()
    least = plan.items_for(0.032, 3)
    assert plan.chance(0.032, 3, least) >= 0.8 > plan.chance(0.032, 3, least - 1)
    assert plan.chance(0.032, 3, 10**7) < 0.8  # two degrees of freedom are all that is left


def test_more_seeds_leave_the_items_part():
    least = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    many = design(seeds=5000, items=277)
    assert many.smallest_gain() == pytest.approx(least * 0.2 / math.sqrt(277), rel=0.02)


def test_one_pair_of_runs_needs_the_items_of_the_rule_of_thumb():
    items = items_for_one_pair(0.02, 0.15)
    plain = (1.959964 + 0.841621) ** 2 * (0.15 - 0.02**2) / 0.02**2  # the unconditional z-test
    assert items == pytest.approx(plain, rel=0.01)
    assert round(items, -2) == 2900
    assert f"{items:,} items" in rule_of_thumb()
    assert str(RTE_DEV) == "277"
    assert "277" in rule_of_thumb()


def test_mcnemar_at_that_size_has_that_power():
    rng, items = np.random.default_rng(0), items_for_one_pair(0.02, 0.15)
    wins = rng.multinomial(items, [0.085, 0.065, 0.85], size=4000)
    z = (wins[:, 0] - wins[:, 1]) / np.sqrt(wins[:, 0] + wins[:, 1])
    assert np.mean(np.abs(z) > 1.959964) == pytest.approx(0.8, abs=0.025)


BAD = [
    (lambda: design(seeds=1), "needs 2 or more seeds and items and 1 or more tests; got 1 seeds"),
    (lambda: Design(from_deviations(1, 1, 1), 1, 5, 10, power=1.0), "power is 1.0; it must lie"),
    (lambda: from_deviations(-1, 0, 0), "the seed deviation is -1; it must be 0 or more"),
    (lambda: from_deviations(0, 0, 0), "the deviations are all 0"),
    (lambda: items_for_one_pair(0.2, 0.1), "gain is 0.2 and discordant 0.1"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_impossible_designs_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


# ---- the protocol file ----

PEOPLE = "# by hand\nstudy: toy\nfamily:  # two\n  - {method: a, baseline: kd}\n"


def test_a_design_is_written_beside_what_people_wrote(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(PEOPLE + "design:\n  old: 1\n# looked at\nlooked_at: [dev]\n")
    block = write_design(path, design(), "a test")
    text = path.read_text()
    assert text.startswith(PEOPLE)
    assert text.endswith("# looked at\nlooked_at: [dev]\n")
    assert yaml.safe_load(text)["design"] == block
    assert "old" not in block
    write_design(path, design(seeds=9), "again")
    assert path.read_text().count("design:") == 1
    assert read_protocol(path)["design"]["seeds"] == 9
    assert block["needed"][0]["items"] is None
    assert block["smallest_gain"] == pytest.approx(design().smallest_gain(), abs=1e-6)


def test_a_new_file_and_back(tmp_path):
    path = tmp_path / "new" / "toy.yaml"
    write_design(path, design(tests=2), "a test")
    assert read_design(path) == design(tests=2)


def test_files_that_are_no_protocol_are_refused(tmp_path):
    path = tmp_path / "toy.yaml"
    with pytest.raises(InputError, match="no protocol at"):
        read_protocol(path)
    for text, message in (
        ("- a", "holds a list; expected named blocks"),
        ("a: [", "is not YAML"),
        ("study: toy", "has no design; add one with `geodistill power --out"),
        ("design: {seeds: 1}", "the design of .* is not complete: 'variance'"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_design(path)


# ---- the command ----


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
    text = run("--rows", folder, *wanted, "--out", out)
    written = read_design(out)
    assert (written.seeds, written.items, written.tests) == (10, 300, 2)
    assert f"show a gain of {written.smallest_gain():.2g} or more" in text
    assert "the first of 2 tests under Holm" in text
    items = pd.read_parquet(folder / "items.parquet")
    items.to_csv(tmp_path / "x.csv", index=False)
    again = tmp_path / "again.yaml"
    run("--rows", tmp_path / "x.csv", *wanted, "--out", again)
    assert read_design(again) == written


def test_the_command_plans_from_deviations():
    text = run("--seed-sd", 0.01, "--item-sd", 0.2, "--rest-sd", 0.3, "--gain", 0.02)
    plan = design()
    assert f"{plan.chance(0.02, 5, 1000):.0%} {plan.seeds_for(0.02, 1000)} " in text
    assert f"{plan.items_for(0.02, 5):,}" in text
    assert "2,941 items" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either --rows"),
        (["--rows", "x", "--seed-sd", "1"], "give either --rows"),
        (["--rows", "x"], "--rows needs --method"),
        (["--rows", "x.csv", "--method", "a"], "no file at x.csv"),
    ],
)
def test_the_command_says_what_it_lacks(words, message):
    with pytest.raises(InputError, match=message):
        run(*words)


def test_a_pilot_that_cannot_be_planned_with(tmp_path):
    path = tmp_path / "x.csv"
    pd.DataFrame({"method": list("aabb"), "seed": [0, 1] * 2, "nll": [1.0, 2, 3, 5]}).to_csv(path)
    pilot = ["--rows", path, "--method", "a", "--baseline", "b", "--metric", "nll"]
    with pytest.raises(InputError, match="nll is not counted in points: say --gain"):
        run(*pilot)
    with pytest.raises(InputError, match="2 shared seeds and 0 items: a plan needs 2 or more"):
        run(*pilot, "--gain", 1)


def test_the_noisiest_pilot_counts():
    class Found:
        def __init__(self, se):
            self.se, self.n_items = se, 10
            self.components = Components(se**2, 0.0, 0.0, 9.0)

    parts, measured = from_pilot([Found(1.0), Found(3.0), Found(2.0)])
    assert (parts.seed, measured) == (9.0, 10)
