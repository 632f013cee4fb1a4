"""The confirmatory instruction grid: what the protocol asks for, weights as its rule gives them."""

from collections import Counter
from dataclasses import asdict

import pandas as pd
import pytest
import yaml
from support.tiny_instructions import SETTING, letters_world

from geodistill.errors import InputError
from geodistill.experiments import registry
from geodistill.experiments.instruction import grid as instruction_grid
from geodistill.experiments.instruction.grid import (
    check_sanity,
    chosen_weights,
    progress,
    protocol,
    runs,
)
from geodistill.experiments.methods import (
    CONTROLS,
    INSTRUCTION_METHODS,
    INSTRUCTION_REFERENCES,
    MATCHES,
)
from geodistill.experiments.runner import pending, plan, run_grid, verify
from geodistill.tasks.instructions import KNOWN

BEST = {"projection": 0.1, "pca": 1, "cka": 10, "procrustes": 10, "gram": 0.1}
HOURS = 12


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    return tmp_path / instruction_grid.FOLDER / instruction_grid.TUNING


def tuned(best=BEST, sft=4.0):
    """Rows of a finished tuning section in which the weight `best[term]` has the least NLL."""
    values = {"unigram": 6.0, "start": 9.0, "sft": sft}
    rows = []
    for setting, method, seed in runs(instruction_grid.TUNING):
        term = method.partition("+")[2]
        nll = 3.5 if term and setting.weight == best[term] else values.get(method, 4.0)
        name = f"{method}-{seed}-{setting.weight}"
        cell = {"run_id": name, "method": method, "seed": seed, "factor": setting.weight}
        rows += [
            {**cell, "metric": "nll", "value": nll},
            {**cell, "metric": "rougeL", "value": nll},
        ]
    return pd.DataFrame(rows)


@pytest.fixture
def finished(results):
    results.mkdir(parents=True)
    tuned().assign(wall_seconds=360.0).to_parquet(results / "rows.parquet")


def test_every_method_is_tuned_by_equally_many_trials_on_validation():
    trials = runs(instruction_grid.TUNING)
    assert {setting.part for setting, _, _ in trials} == {"validation"}
    counts = Counter(method for _, method, _ in trials)
    assert counts == {
        **{f"kd+{term}": 3 * 2 for term in MATCHES},
        **dict.fromkeys(("unigram", "start", "sft", "kd"), 2),
    }


def test_tuning_seeds_appear_nowhere_else(finished):
    asked = protocol()
    reported = 0
    for name, spec in asked["grid"].items():
        if name == instruction_grid.TUNING:
            continue
        reported += 1
        own = "fresh" if name in ("large-batch", "long") else "confirmatory"
        assert set(spec["seeds"]) <= set(asked["seeds"][own])
        assert {setting.part for setting, _, _ in runs(name)} == {"test"}
    assert reported > 8
    kinds = ("tuning", "confirmatory", "fresh")
    every = {seed for kind in kinds for seed in asked["seeds"][kind]}
    assert len(every) == sum(len(asked["seeds"][kind]) for kind in kinds)
    assert not every & set(registry.SEEDS)


def test_the_protocol_meets_the_issue_s_sizes(finished):
    asked = protocol()
    assert asked["setting"]["n_train"] >= 4000
    primary = asked["grid"]["primary"]
    assert len(primary["methods"]) >= 7
    assert len(primary["seeds"]) >= 5
    assert set(asked["grid"]["controls"]["methods"]) == {f"kd+{name}" for name in CONTROLS}
    for pair in asked["family"]:
        assert {pair["method"], pair["baseline"]} <= set(primary["methods"])
    for name, spec in asked["grid"].items():
        assert set(spec["methods"]) <= {*INSTRUCTION_METHODS, *INSTRUCTION_REFERENCES}, name
    assert set(primary["setting"]["also"]) | set(asked["tasks"]) <= set(KNOWN)
    assert "exploratory/instruction" in yaml.safe_dump(asked["looked_at"])


def test_the_whole_grid_fits_twelve_core_hours(finished):
    planned = progress().set_index("section")["planned"]
    spent = {name: planned[name] * spec["minutes"] for name, spec in protocol()["grid"].items()}
    # Beyond the twelve, as the protocol says.
    assert 60 < spent.pop("larger") <= 2.5 * 60
    again = [spent.pop(name) for name in ("large-batch", "short", "long")]
    assert min(again) > 30
    assert 60 < spent.pop("elsewhere") <= 2 * 60
    assert sum(again) <= 4 * 60
    teacher = 2 * (15 + 20)  # its caches, its answers for seqkd, on two cores
    assert 6 * 60 < sum(spent.values()) + teacher <= HOURS * 60


def test_each_control_is_run_at_the_methods_weights(finished):
    weights = {s.weight for s, m, _ in runs("tuning") if m == "kd+procrustes"}
    for method in protocol()["grid"]["controls"]["methods"]:
        assert {s.weight for s, m, _ in runs("controls") if m == method} == weights == {0.1, 1, 10}
    assert {s.weight for s, _, _ in runs("curve")} == weights


def test_the_primary_section_takes_the_chosen_weights(finished):
    planned = runs("primary")
    assert len(planned) == len(set(planned)) == 7 * 5
    for setting, method, _ in planned:
        assert setting.weight == BEST.get(method.partition("+")[2], 1.0)
        assert (setting.task, setting.adapter, setting.n_train) == ("t0", "smollm2-t0", 4000)
        assert setting.decodings == (10, 20, 30, 40, 50)
    jobs = registry.study("instruction", "primary").jobs
    assert len({job.run_id for job in jobs}) == 35
    # A control has the weight of what it controls.
    assert {s.weight for s, m, _ in runs("rows-128") if "+" in m} == {BEST["procrustes"]}


def test_the_sections_on_rows_make_steps_of_equally_many_examples(finished):
    steps = {
        (s.batch_size, s.batch_size * s.accumulate)
        for name in ("rows-32", "rows-128", "rows-512")
        for s, _, _ in runs(name)
    }
    assert steps == {(4, 64), (16, 64), (64, 64)}


def test_steps_are_crossed_with_the_examples_in_each(finished):
    examples = 4000
    cells = {
        name: {
            (examples * s.epochs / s.batch_size / s.accumulate, s.batch_size)
            for s, _, _ in runs(name)
        }
        for name in ("short", "large-batch", "primary", "long", "rows-512")
    }
    assert cells == {
        "short": {(125, 32)},
        "large-batch": {(125, 64)},
        "primary": {(250, 32)},
        "long": {(250, 64)},
        "rows-512": {(125, 64)},
    }


def test_starts_are_crossed_with_orders(finished):
    cells = [(s.start_seed, seed) for s, _, seed in runs("variance")]
    assert sorted(cells) == [(a, b) for a in (0, 1, 2) for b in (100, 101, 102)]


def test_ties_go_to_the_smaller_weight_and_controls_follow_procrustes():
    assert chosen_weights(tuned()) == {**BEST, **dict.fromkeys(CONTROLS, 10)}
    rows = tuned()
    rows["value"] = 1.0
    assert set(chosen_weights(rows).values()) == {0.1}


def test_without_the_tuning_the_rest_is_refused(results):
    with pytest.raises(InputError, match=r"tuning section lacks 38 runs.*grid instruction --sec"):
        runs("primary")


def test_students_that_learn_nothing_are_not_compared(results):
    check_sanity(tuned(sft=5.5), 0.5)
    told = (
        r"sft has a validation NLL of 5.51; expected at most 5.50, 0.5 below the better of start "
        r"\(9.00\) and unigram \(6.00\)"
    )
    with pytest.raises(InputError, match=told):
        check_sanity(tuned(sft=5.51), 0.5)
    results.mkdir(parents=True)
    tuned(sft=5.9).to_parquet(results / "rows.parquet")
    with pytest.raises(InputError, match="learn too little to be compared"):
        runs("primary")
    assert len(runs("tuning")) == 38


def test_progress_counts_planned_and_stored_runs(finished):
    lines = progress().set_index("section")
    assert list(lines.index) == list(protocol()["grid"])
    assert tuple(lines.loc["tuning"]) == (38, 38, 3.8)
    assert tuple(lines.loc["primary"]) == (35, 0, 0)


# ---- a section in miniature, from its first run to its verification ----


@pytest.fixture
def letters(tmp_path, monkeypatch):
    """A protocol of letters: three methods, one of which needs the teacher's answers."""
    kept = ("task", "adapter", "n_train", "n_test", "batch_size", "width", "layers", "max_length",
            "new_tokens", "top_k", "epochs")  # fmt: skip
    runner = {
        "tuning": {
            "minutes": 1, "methods": ["start", "kd+gram", "seqkd"], "weights": [1, 2], "seeds": [7],
        }
    }  # fmt: skip
    asked = {
        "setting": {name: asdict(SETTING)[name] for name in kept},
        "seeds": {"tuning": [7]},
        "grid": runner,
    }
    monkeypatch.setattr(instruction_grid, "protocol", lambda: asked)
    registry._shared_room.cache_clear()
    with letters_world(tmp_path / "cache"):
        yield
    registry._shared_room.cache_clear()


def in_this_process(jobs, workers, act):
    for job in jobs:
        yield act(job)


def test_a_section_is_made_resumed_and_verified(letters, results, monkeypatch):
    from geodistill.experiments import runner

    monkeypatch.setattr(runner, "_in_parallel", in_this_process)
    study = registry.study("instruction", "tuning")
    assert plan(study, 1).startswith(
        "instruction/tuning: 4 runs, 0 finished, 4 to do, about 4 minutes with 1 workers"
    )
    lines = []
    made = run_grid(study, workers=1, report=lines.append)
    next(made)
    made.close()  # interrupted after the first run
    assert len(pending(study)) == 3
    assert "teacher: 48 of 48 answers" in lines
    assert len(list(run_grid(study, workers=1, report=lines.append))) == 3
    rows = pd.read_parquet(results / "rows.parquet")
    assert Counter(rows.drop_duplicates("run_id")["method"]) == {
        "start": 1,
        "kd+gram": 2,
        "seqkd": 1,
    }
    assert set(rows.loc[rows["method"] == "kd+gram", "factor"]) == {1.0, 2.0}
    assert registry._shared_room.cache_info().misses == 1  # one teacher for all weights
    (table,) = verify(study, 1, workers=1, report=lines.append)
    assert (table["stored"] == table["again"]).all()
    assert table.loc["same_items", "again"] == 1
