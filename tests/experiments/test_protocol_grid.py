"""The grids of both studies: what protocols ask for, weights and tasks by their rules."""

import json
import shutil
from collections import Counter

import pandas as pd
import pytest
import yaml

from geodistill.errors import InputError
from geodistill.experiments import protocol_grid
from geodistill.experiments.methods import (
    CLASSIFICATION_METHODS,
    INSTRUCTION_METHODS,
    INSTRUCTION_REFERENCES,
    term_of,
)
from geodistill.experiments.protocol_grid import best_weights, expand_settings, weights_for
from geodistill.experiments.registry import GRIDS
from geodistill.experiments.settings import run_id
from geodistill.paths import data_dir
from geodistill.tasks import CLASSIFICATION_TASKS
from geodistill.tasks.instructions import INSTRUCTION_SETS

RESULTS = data_dir() / "results"
METHODS = {
    "classification": set(CLASSIFICATION_METHODS),
    "instruction": {*INSTRUCTION_METHODS, *INSTRUCTION_REFERENCES},
}
TASKS = {"classification": set(CLASSIFICATION_TASKS), "instruction": set(INSTRUCTION_SETS)}
SECTIONS = [(study, name) for study, grid in GRIDS.items() for name in grid.protocol()["grid"]]


def stored_runs(path):
    columns = ["run_id", "task", "method", "seed", "config"]
    return pd.read_parquet(path, columns=columns).drop_duplicates("run_id")


@pytest.mark.parametrize(("study", "name"), SECTIONS)
def test_every_run_of_a_section_in_use_is_found_by_its_id(study, name):
    planned = [run.run_id for run in GRIDS[study].runs(name)]
    assert len(planned) == len(set(planned)) > 2
    assert set(planned) == set(
        stored_runs(GRIDS[study].section_dir(name) / "rows.parquet")["run_id"]
    )


def test_every_stored_run_bears_the_hash_of_its_stored_configuration():
    tables = {path: stored_runs(path) for path in sorted(RESULTS.rglob("rows.parquet"))}
    runs = pd.concat(tables.values())
    ids = [
        run_id(row.task, row.method, row.seed, json.loads(row.config)) for row in runs.itertuples()
    ]
    assert ids == runs["run_id"].tolist()
    assert (len(runs), runs["run_id"].nunique()) == (2395, 2331)
    for path, table in tables.items():
        items = pd.read_parquet(path.with_name("items.parquet"), columns=["run_id"])
        assert set(items["run_id"]) == set(table["run_id"]), path


@pytest.mark.parametrize("study", GRIDS)
def test_tuning_seeds_and_the_validation_split_appear_nowhere_else(study):
    grid = GRIDS[study]
    protocol = grid.protocol()
    tuning = set(protocol["grid"]["tuning"]["seeds"])
    assert tuning == set(protocol["seeds"]["tuning"])
    assert {run.settings.split for run in grid.runs("tuning")} == {"validation"}
    names = [name for name in protocol["grid"] if name != "tuning"]
    assert len(names) >= 4
    for name in names:
        assert not set(protocol["grid"][name]["seeds"]) & tuning
        assert {run.settings.split for run in grid.runs(name)} == {"test"}


@pytest.mark.parametrize("study", GRIDS)
def test_every_term_is_tuned_by_equally_many_runs(study):
    runs = Counter(run.method for run in GRIDS[study].runs("tuning"))
    assert len({n for method, n in runs.items() if term_of(method)}) == 1
    assert len({n for method, n in runs.items() if not term_of(method)}) == 1
    assert runs["kd+procrustes"] == 3 * runs["kd"]


@pytest.mark.parametrize("study", GRIDS)
def test_a_protocol_names_known_tasks_and_methods_and_tests_what_it_runs(study):
    protocol = GRIDS[study].protocol()
    assert set(protocol["pooled"]) <= set(protocol["tasks"]) <= TASKS[study]
    for name, spec in protocol["grid"].items():
        assert set(spec["methods"]) <= METHODS[study], name
        assert set(spec.get("tasks", [])) <= set(protocol["tasks"])
    family = {name for pair in protocol["family"] for name in pair.values()}
    assert family <= set(protocol["grid"]["primary"]["methods"])
    assert "exploratory" in yaml.safe_dump(protocol["looked_at"])


def test_a_control_is_run_at_every_tuned_weight():
    for study, name in (("classification", "placebos"), ("instruction", "controls")):
        grid = GRIDS[study]
        tuned = set(grid.protocol()["grid"]["tuning"]["weights"])
        for method in grid.protocol()["grid"][name]["methods"]:
            runs = [run for run in grid.runs(name) if run.method == method]
            assert {getattr(run.settings, grid.weight_field) for run in runs} == tuned


# ---- choosing weights, dropping tasks ----


def test_the_best_mean_wins_and_ties_go_to_the_smaller_weight():
    scores = pd.DataFrame(
        [("kd+gram", 5, 0.7), ("kd+gram", 5, 0.8), ("kd+gram", 20, 0.9), ("kd+gram", 20, 0.7),
         ("kd+cka", 20, 0.6), ("kd+cka", 5, 0.6), ("kd", 1, 0.99)],
        columns=["method", "factor", "value"],
    )  # fmt: skip
    assert best_weights(scores, higher_is_better=True) == {"gram": 20.0, "cka": 5.0}
    assert best_weights(scores, higher_is_better=False) == {"gram": 5.0, "cka": 5.0}


def tuning(study, tmp_path, monkeypatch, edit):
    """The committed tuning section, edited, in a results folder of its own."""
    committed = GRIDS[study].section_dir("tuning") / "rows.parquet"
    rows = pd.read_parquet(committed)
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    path = GRIDS[study].section_dir("tuning") / "rows.parquet"
    path.parent.mkdir(parents=True)
    edit(rows).to_parquet(path)
    shutil.copy(committed.with_name("items.parquet"), path.parent)
    return GRIDS[study]


def with_value(rows, where, value):
    return rows.assign(value=rows["value"].mask(where, value))


def test_a_task_without_signal_leaves_all_sections_but_tuning(tmp_path, monkeypatch):
    def edit(rows):
        mrpc = (rows["task"] == "mrpc") & (rows["metric"] == "accuracy")
        majority = rows.loc[
            (rows["task"] == "mrpc") & (rows["metric"] == "majority_accuracy"), "value"
        ].max()
        return with_value(rows, mrpc, majority + 0.005)  # half a point, where the rule asks for one

    grid = tuning("classification", tmp_path, monkeypatch, edit)
    assert {run.settings.task for run in grid.runs("primary")} == {"movie-b", "product-b", "stsb"}
    assert "mrpc" in {run.settings.task for run in grid.runs("tuning")}


def test_without_any_task_a_study_is_refused(tmp_path, monkeypatch):
    edit = lambda rows: with_value(rows, rows["metric"].isin(("accuracy", "pearson")), 0.0)  # noqa: E731
    grid = tuning("classification", tmp_path, monkeypatch, edit)
    with pytest.raises(InputError, match="no student learns any of the tasks cola, mrpc, stsb"):
        grid.runs("primary")


def test_the_chosen_weights_follow_the_tuning_and_controls_follow_procrustes(tmp_path, monkeypatch):
    def edit(rows):
        best = rows["metric"].eq("nll") & rows["method"].eq("kd+procrustes") & rows["factor"].eq(10)
        return with_value(rows, best, 0.1)

    grid = tuning("instruction", tmp_path, monkeypatch, edit)
    weights = grid.choose_weights(grid.tuning_rows())
    assert {weights[name] for name in ("procrustes", "spectrum", "isotropy")} == {10.0}
    runs = grid.runs("large-batch")
    assert {run.settings.weight for run in runs if term_of(run.method)} == {10.0}


def test_students_that_learn_nothing_are_not_compared(tmp_path, monkeypatch):
    sft = lambda rows: rows["metric"].eq("nll") & rows["method"].eq("sft")  # noqa: E731
    grid = tuning("instruction", tmp_path, monkeypatch, lambda r: with_value(r, sft(r), 99.0))
    with pytest.raises(InputError, match=r"sft has a validation NLL of 99.00; expected at most"):
        grid.runs("primary")
    assert len(grid.runs("tuning")) == 38


def test_an_incomplete_tuning_section_is_refused_with_the_command(tmp_path, monkeypatch):
    grid = tuning("classification", tmp_path, monkeypatch, lambda rows: rows[rows["seed"] == 200])
    with pytest.raises(InputError, match=r"lacks 85 runs.*experiments classification --section tu"):
        grid.runs("primary")
    assert grid.n_planned("primary") == 300


def test_a_tuning_run_without_its_items_does_not_count(tmp_path, monkeypatch):
    """The same rule as for every section."""
    grid = tuning("classification", tmp_path, monkeypatch, lambda rows: rows)
    assert len(grid.tuning_rows()["run_id"].unique()) == 170
    path = grid.section_dir("tuning") / "items.parquet"
    items = pd.read_parquet(path)
    items[items["run_id"] != items["run_id"].iloc[0]].to_parquet(path)
    with pytest.raises(InputError, match="the tuning section lacks 1 runs"):
        grid.runs("primary")


# ---- protocols ----


def test_settings_cross_a_mapping_and_list_those_that_go_together():
    crossed = expand_settings({"setting": {"a": 1}, "vary": {"b": [2, 3], "c": [4, 5]}})
    assert [tuple(values.values()) for values in crossed] == [
        (1, 2, 4), (1, 2, 5), (1, 3, 4), (1, 3, 5),
    ]  # fmt: skip
    assert expand_settings({"vary": [{"b": 2, "c": 4}, {"b": 3, "c": 5}]}) == [
        {"b": 2, "c": 4},
        {"b": 3, "c": 5},
    ]
    assert expand_settings({}) == [{}]


def test_a_term_without_a_tuned_weight_is_refused():
    assert weights_for("chosen", "kd+gram", {"gram": 5.0}) == [5.0]
    with pytest.raises(InputError, match=r"no weight was tuned for kd\+gram"):
        weights_for("chosen", "kd+gram", {"cka": 5.0})


@pytest.fixture
def protocol_of(tmp_path, monkeypatch):
    """A function that puts a protocol in the place of the classification study's."""

    def write(grid):
        (tmp_path / "protocol").mkdir(exist_ok=True)
        blocks = {"tasks": ["movie-b"], "pooled": ["movie-b"], "grid": grid}
        (tmp_path / "protocol" / "classification.yaml").write_text(yaml.safe_dump(blocks))
        monkeypatch.setattr(protocol_grid, "data_dir", lambda: tmp_path)
        return GRIDS["classification"]

    return write


SPEC = {"methods": ["kd"], "weights": [1], "seeds": [7]}
BAD_PROTOCOLS = [
    ({**SPEC, "weigths": [5]}, "section tuning of .* has the unknown key 'weigths'; expected minu"),
    ({**SPEC, "setting": {"factor": 1}}, "section tuning .* has the unknown setting 'factor'; exp"),
    ({"methods": ["kd"], "seeds": [7]}, "section tuning of .* lacks 'weights'"),
    ({**SPEC, "methods": "kd"}, "methods of section tuning of .* is 'kd'; expected a list"),
    ({**SPEC, "seeds": 7}, "seeds of section tuning of .* is 7; expected a list"),
    ({**SPEC, "methods": ["kd+gramm"]}, r"method is 'kd\+gramm'; expected one of ce, "),
]


@pytest.mark.parametrize(("spec", "message"), BAD_PROTOCOLS)
def test_a_protocol_with_an_unknown_key_is_refused_in_one_sentence(protocol_of, spec, message):
    with pytest.raises(InputError, match=message):
        protocol_of({"tuning": spec}).runs("tuning")


def test_a_changed_protocol_is_read_again(protocol_of):
    assert len(protocol_of({"tuning": SPEC}).runs("tuning")) == 1
    assert len(protocol_of({"tuning": {**SPEC, "seeds": [7, 8, 9]}}).runs("tuning")) == 3
