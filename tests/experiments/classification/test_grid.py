"""The confirmatory grid: what the protocol asks for, weights and tasks as its rules give them."""

from collections import Counter

import pandas as pd
import pytest
import yaml

from geodistill.errors import InputError
from geodistill.experiments import registry
from geodistill.experiments.classification import grid as classification_grid
from geodistill.experiments.classification.grid import chosen_factors, dropped, epochs_for, runs
from geodistill.experiments.methods import CLASSIFICATION_METHODS
from geodistill.tasks import CLASSIFICATION

TUNINGS = ("tuning", "tuning-others", "tuning-rkd", "tuning-pkd", "curve")
RULE = {"points": 1.0, "pearson": 0.1}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    return tmp_path / classification_grid.FOLDER / classification_grid.TUNING


def tuned(best, accuracy=0.8, pearson=0.5, section=classification_grid.TUNING):
    """Rows of a finished tuning section in which the factor `best[term]` scores highest."""
    rows = []
    for setting, method, seed in runs(section):
        term = method.partition("+")[2]
        gain = 0.05 if term and setting.factor == best[term] else 0.0
        cell = {"task": setting.task, "method": method, "seed": seed, "factor": setting.factor}
        cell["run_id"] = f"{setting.task}-{method}-{seed}-{setting.factor}"
        values = {"accuracy": accuracy + gain, "majority_accuracy": 0.6}
        if setting.task == "stsb":
            values = {"pearson": pearson + gain, "mse": 1.0}
        rows += [{**cell, "metric": k, "value": v} for k, v in values.items()]
    return pd.DataFrame(rows)


BEST = {"projection": 5, "pca": 20, "cka": 80, "procrustes": 20, "gram": 5}


@pytest.fixture
def finished(results):
    results.mkdir(parents=True)
    tuned(BEST).assign(wall_seconds=36.0).to_parquet(results / "rows.parquet")


def test_every_method_is_tuned_by_equally_many_trials_on_validation():
    trials = runs(classification_grid.TUNING)
    assert {setting.part for setting, _, _ in trials} == {"validation"}
    with_term = Counter(method for _, method, _ in trials if "+" in method)
    assert set(with_term.values()) == {5 * 3 * 2}
    assert len(with_term) == 5
    # Methods without a term have no factor to try: one run a task and seed.
    assert Counter(m for _, m, _ in trials if "+" not in m) == {"ce": 10, "kd": 10}


def test_tuning_seeds_appear_nowhere_else(finished):
    plan = classification_grid.protocol()
    tuning = set(plan["grid"][classification_grid.TUNING]["seeds"])
    reported = 0
    for name, spec in plan["grid"].items():
        if name in TUNINGS:
            assert set(spec["seeds"]) == tuning
            assert {setting.part for setting, _, _ in runs(name)} == {"validation"}
            continue
        reported += 1
        assert set(spec["seeds"]) <= set(plan["seeds"]["confirmatory"]) - tuning
        if "tuned_by" not in spec:
            assert {setting.part for setting, _, _ in runs(name)} == {"test"}
    assert reported > 10
    assert not (tuning | set(plan["seeds"]["confirmatory"])) & set(registry.SEEDS)


def test_the_protocol_names_only_known_tasks_and_methods(finished):
    plan = classification_grid.protocol()
    for name, spec in plan["grid"].items():
        assert set(spec["methods"]) <= set(CLASSIFICATION_METHODS), name
        assert set(spec["tasks"]) <= set(plan["tasks"]) <= set(CLASSIFICATION)
    asked = {(pair["method"], pair["baseline"]) for pair in plan["family"]}
    assert asked == {("kd+procrustes", "kd"), ("kd+gram", "kd")}
    assert {m for pair in asked for m in pair} <= set(plan["grid"]["primary"]["methods"])


def test_the_primary_section_crosses_everything_at_the_chosen_factors(finished):
    planned = runs("primary")
    assert len(planned) == len(set(planned)) == 5 * 6 * 10
    for setting, method, _ in planned:
        term = method.partition("+")[2]
        assert setting.factor == (BEST[term] if term else 1.0)
        assert (setting.n_train, setting.epochs) == (500, 15.0)
    jobs = registry.study("classification", "primary").jobs
    assert len({job.run_id for job in jobs}) == 300


def test_a_control_is_run_at_every_factor(finished):
    for method in ("kd+procrustes-shuffled", "kd+spectrum", "kd+isotropy"):
        assert {s.factor for s, m, _ in runs("placebos") if m == method} == {5.0, 20.0, 80.0}


def test_a_section_crosses_what_it_varies(finished):
    for name, memory in (("batch", 0.0), ("batch-memory", 0.9)):
        found = {(s.batch_size, s.batch_size * s.balance, s.memory) for s, _, _ in runs(name)}
        assert found == {(16, 1024, memory), (128, 1024, memory)}
    assert {s.factor for s, m, _ in runs("batch") if "+" in m} == {BEST["procrustes"]}
    shares = {s.balance / (500 * s.epochs / s.batch_size) for s, _, _ in runs("length")}
    assert {s.epochs for s, _, _ in runs("length")} == {5.0, 45.0}
    assert all(abs(share - 32 / (500 * 15 / 32)) < 0.005 for share in shares)
    starts = Counter((s.start_seed, seed) for s, _, seed in runs("variance"))
    assert set(starts) == {(start, seed) for start in range(4) for seed in range(100, 105)}
    assert set(starts.values()) == {4}  # two tasks, two methods


def test_losses_of_other_papers_are_tuned_by_as_many_trials_a_task_in_their_own_section(results):
    results.mkdir(parents=True)
    tuned(BEST).assign(wall_seconds=36.0).to_parquet(results / "rows.parquet")
    per_task = Counter((m, s.task) for s, m, _ in runs(classification_grid.TUNING) if "+" in m)
    for name in ("others", "rkd", "pkd"):
        own = f"tuning-{name}"
        trials = Counter((m, s.task) for s, m, _ in runs(own))
        assert set(trials.values()) == set(per_task.values()) == {6}
        with pytest.raises(InputError, match=rf"the {own} section lacks \d+ runs.*--section {own}"):
            runs(name)
        (results.parent / own).mkdir()
        best = dict.fromkeys({m.partition("+")[2] for m, _ in trials}, 80.0)
        tuned(best, section=own).to_parquet(results.parent / own / "rows.parquet")
        assert {setting.factor for setting, _, _ in runs(name)} == {80.0}
    assert {s.teacher_layers for s, _, _ in runs("pkd")} == {(2, 4, 6)}


def test_without_the_tuning_the_rest_is_refused(results):
    with pytest.raises(InputError, match=r"tuning section lacks 170 runs.*--section tuning"):
        runs("primary")
    results.mkdir(parents=True)
    rows = tuned(BEST)
    rows[rows["seed"] == 200].to_parquet(results / "rows.parquet")
    with pytest.raises(InputError, match="lacks 85 runs"):
        runs("primary")


def test_unknown_sections_are_told_the_known():
    with pytest.raises(InputError, match="section is 'first'; expected one of tuning, primary, "):
        registry.study("classification", "first")
    with pytest.raises(InputError, match="section is 'tuning'; the study 'synthetic' has none"):
        registry.study("synthetic", "tuning")


def test_the_chosen_factor_has_the_best_mean_and_ties_go_to_the_smaller():
    assert chosen_factors(tuned(BEST)) == {term: float(f) for term, f in BEST.items()}
    rows = tuned(BEST)
    rows.loc[rows["metric"].isin(("accuracy", "pearson")), "value"] = 0.7
    assert set(chosen_factors(rows).values()) == {5.0}
    # One task alone does not decide.
    rows.loc[(rows["task"] == "cola") & (rows["factor"] == 20) & (rows["seed"] == 200), "value"] = 1
    assert chosen_factors(rows)["gram"] == 20.0


def test_a_task_is_dropped_where_neither_baseline_clears_the_majority():
    assert dropped(tuned(BEST), RULE) == []
    assert dropped(tuned(BEST, pearson=0.05), RULE) == ["stsb"]
    rows = tuned(BEST)
    cola = (rows["task"] == "cola") & (rows["metric"] == "accuracy")
    rows.loc[cola, "value"] = 0.605  # half a point above the majority
    assert dropped(rows, RULE) == ["cola"]
    rows.loc[cola & (rows["method"] == "ce"), "value"] = 0.611
    assert dropped(rows, RULE) == []


def test_a_dropped_task_leaves_the_primary_section_but_not_tuning(results):
    results.mkdir(parents=True)
    tuned(BEST, pearson=0.0).to_parquet(results / "rows.parquet")
    assert len(runs("primary")) == 4 * 6 * 10
    assert "stsb" not in {setting.task for setting, _, _ in runs("primary")}
    assert "stsb" in {setting.task for setting, _, _ in runs(classification_grid.TUNING)}


def test_few_sentences_are_seen_as_often_as_many():
    assert [n * epochs_for(n) for n in (125, 250, 500, 2500)] == [7500.0] * 4
    assert epochs_for(5000) == epochs_for(0) == 3.0


def test_what_was_looked_at_is_written_down():
    text = yaml.safe_dump(classification_grid.protocol()["looked_at"])
    for what in ("exploratory/classification", "SST-2", "movie-b", "factor 20"):
        assert what in text


def test_progress_counts_planned_and_stored_runs(finished):
    lines = classification_grid.progress().set_index("section")
    assert list(lines.index) == list(classification_grid.protocol()["grid"])
    assert tuple(lines.loc["tuning"]) == (170, 170, 1.7)
    assert tuple(lines.loc["primary"]) == (300, 0, 0)
    assert tuple(lines.loc["placebos"]) == (2 * 3 * 3 * 5, 0, 0)
