"""The grids of both studies: what protocols ask for, weights and tasks by their rules."""

import json
import os
import shutil
from collections import Counter

import pandas as pd
import pytest
import yaml
from support.simulated_sections import write_sections

from geodistill.errors import InputError
from geodistill.experiments import protocol_grid
from geodistill.experiments.classification.settings import TeacherSettings
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
MAIN_SECTION = {"classification": "full", "instruction": "primary"}
SECTIONS = [(study, name) for study, grid in GRIDS.items() for name in grid.protocol()["grid"]]


def stored_runs(path):
    columns = ["run_id", "task", "method", "seed", "config"]
    return pd.read_parquet(path, columns=columns).drop_duplicates("run_id")


@pytest.mark.parametrize(("study", "name"), SECTIONS)
def test_every_stored_run_of_a_section_in_use_is_a_planned_one(study, name):
    """Or the section is not made yet; the sections of the instruction study are complete."""
    path = GRIDS[study].section_dir(name) / "rows.parquet"
    if study == "classification" and not path.is_file():
        return
    planned = [run.run_id for run in GRIDS[study].runs(name)]
    assert len(planned) == len(set(planned)) > 2
    stored = set(stored_runs(path)["run_id"])
    assert stored <= set(planned)
    assert study == "classification" or stored == set(planned)


def test_every_stored_run_bears_the_hash_of_its_stored_configuration():
    tables = {path: stored_runs(path) for path in sorted(RESULTS.rglob("rows.parquet"))}
    runs = pd.concat(tables.values())
    ids = [
        run_id(row.task, row.method, row.seed, json.loads(row.config)) for row in runs.itertuples()
    ]
    assert ids == runs["run_id"].tolist()
    new = [path for path in tables if path.parent.parent == RESULTS / "classification"]
    former = pd.concat(table for path, table in tables.items() if path not in new)
    assert (len(former), former["run_id"].nunique()) == (2395, 2331)
    for path, table in tables.items():
        items = pd.read_parquet(path.with_name("items.parquet"), columns=["run_id"])
        assert set(items["run_id"]) == set(table["run_id"]), path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Tuning and baseline sections of the classification study, simulated."""
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODISTILL_RESULTS", str(folder))
        names = ["term-tuning", "term-tuning-quarter", "term-tuning-cola"]
        write_sections(folder, "classification", names, n_items=4)
    return folder


@pytest.fixture
def simulated(written, monkeypatch):
    """The classification study with its tuning and baseline sections."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(written))
    return GRIDS["classification"]


def of_split(grid, split):
    """Names of the sections that score students on that split."""
    names = {
        name: {run.settings.split for run in grid.runs(name)} for name in grid.protocol()["grid"]
    }
    assert all(len(splits) == 1 for splits in names.values())
    return [name for name, splits in names.items() if splits == {split}]


@pytest.mark.parametrize(("study", "n_tuning", "n_test"), [("classification", 9, 7),
                                                           ("instruction", 1, 4)])  # fmt: skip
def test_tuning_seeds_and_the_validation_split_go_together(simulated, study, n_tuning, n_test):
    if study == "instruction":
        os.environ.pop("GEODISTILL_RESULTS")  # whose tuning section is committed
    grid = GRIDS[study]
    protocol = grid.protocol()
    tuning, test = of_split(grid, "validation"), of_split(grid, "test")
    assert (len(tuning), len(test)) == (n_tuning, n_test)
    for name in tuning:
        assert set(protocol["grid"][name]["seeds"]) <= set(protocol["seeds"]["tuning"])
    for name in test:
        assert not set(protocol["grid"][name]["seeds"]) & set(protocol["seeds"]["tuning"])


@pytest.mark.parametrize(
    ("study", "section"),
    [
        ("classification", "term-tuning"),
        ("classification", "term-tuning-quarter"),
        ("classification", "term-tuning-cola"),
        ("instruction", "tuning"),
    ],
)
def test_every_term_is_tuned_by_equally_many_runs(written, monkeypatch, study, section):
    if study == "classification":
        monkeypatch.setenv("GEODISTILL_RESULTS", str(written))
    runs = Counter(run.method for run in GRIDS[study].runs(section))
    terms = {n for method, n in runs.items() if term_of(method)}
    assert len(terms) == 1
    assert all(3 * n in terms for method, n in runs.items() if not term_of(method))


@pytest.mark.parametrize("study", GRIDS)
def test_a_protocol_names_known_tasks_and_methods_and_tests_what_it_runs(study):
    protocol = GRIDS[study].protocol()
    assert set(protocol["pooled"]) <= set(protocol["tasks"]) <= TASKS[study]
    for name, spec in protocol["grid"].items():
        assert set(spec["methods"]) <= METHODS[study], name
        assert set(spec.get("tasks", [])) <= set(protocol["tasks"])
    family = {name for pair in protocol["family"] for name in pair.values()}
    assert family <= set(protocol["grid"][MAIN_SECTION[study]]["methods"])
    assert "data/results/earlier" in yaml.safe_dump(protocol["looked_at"])


def test_a_sentence_is_planned_for_each_confirmatory_test():
    protocol = GRIDS["classification"].protocol()
    assert len(protocol["family"]) == len(protocol["sentences"]) == 5
    assert all(sentence.count("[points]") == 1 for sentence in protocol["sentences"])


def test_all_terms_of_the_test_sections_are_tuned_in_the_sections_that_they_name():
    protocol = GRIDS["classification"].protocol()["grid"]
    n_checked = 0
    for name, spec in protocol.items():
        if isinstance(spec["weights"], str):
            tuning = protocol[spec["weights"]]
            assert {m for m in spec["methods"] if term_of(m)} <= set(tuning["methods"]), name
            assert set(spec["tasks"]) <= set(tuning["tasks"]), name
            assert spec["settings_from"] == tuning["settings_from"], name
            n_checked += 1
    assert n_checked == 5


def test_the_instruction_controls_are_run_at_every_tuned_weight():
    grid = GRIDS["instruction"]
    tuned = set(grid.protocol()["grid"]["tuning"]["weights"])
    for method in grid.protocol()["grid"]["controls"]["methods"]:
        runs = [run for run in grid.runs("controls") if run.method == method]
        assert {getattr(run.settings, grid.weight_field) for run in runs} == tuned


def test_settings_weights_and_tasks_of_a_section_are_those_of_its_tuning_sections(simulated):
    runs = simulated.runs("full")
    assert {run.settings.task for run in runs} == {"news", "tweets"}  # stsb fails the gate
    assert len(runs) == 2 * 7 * 10
    for run in runs:
        settings = run.settings
        assert (settings.learning_rate, settings.temperature, settings.steps) == (3e-4, 2, 192)
        assert settings.weight_multiplier == (2.0 if term_of(run.method) else 1.0)
        assert settings.n_train == {"news": 500, "tweets": 250}[settings.task]
        assert (settings.layers, settings.teacher.model) == (3, "minilm")
    (cola,) = {run.settings for run in simulated.runs("full-cola") if run.method == "kd"}
    assert (cola.learning_rate, cola.layers, cola.steps, cola.n_train) == (1e-4, 4, 256, 2000)
    assert (cola.teacher.model, cola.teacher.max_train) == ("mpnet", 3000)
    quarter = {run.settings.steps for run in simulated.runs("quarter")}
    assert quarter == {48}
    # What a section sets or varies comes before what the tuning section or the task sets.
    assert {run.settings.n_train for run in simulated.runs("text")} == {0}
    lengths = {run.settings.steps for run in simulated.runs("kd-length")}
    assert lengths == {96, 192, 384}


# ---- choosing weights ----


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


def test_the_chosen_weights_follow_the_tuning_and_controls_follow_procrustes(tmp_path, monkeypatch):
    def edit(rows):
        best = rows["metric"].eq("nll") & rows["method"].eq("kd+procrustes") & rows["factor"].eq(10)
        return with_value(rows, best, 0.1)

    grid = tuning("instruction", tmp_path, monkeypatch, edit)
    weights = grid.choose_weights("tuning")
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
    grid = tuning("instruction", tmp_path, monkeypatch, lambda rows: rows[rows["seed"] == 200])
    with pytest.raises(
        InputError, match=r"lacks 19 runs.*experiments instruction --section tuning"
    ):
        grid.runs("primary")
    assert grid.n_planned("primary") == 35


def test_a_tuning_run_without_its_items_does_not_count(tmp_path, monkeypatch):
    """The same rule as for every section."""
    grid = tuning("instruction", tmp_path, monkeypatch, lambda rows: rows)
    assert len(grid.tuning_rows("tuning")["run_id"].unique()) == 38
    path = grid.section_dir("tuning") / "items.parquet"
    items = pd.read_parquet(path)
    items[items["run_id"] != items["run_id"].iloc[0]].to_parquet(path)
    with pytest.raises(InputError, match="section tuning lacks 1 runs, and others rest on it"):
        grid.runs("primary")


def test_the_instruction_study_tunes_no_settings():
    with pytest.raises(
        InputError, match="settings_from is 'tuning'; instruction tunes weights alone"
    ):
        GRIDS["instruction"].choose_settings("tuning")


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


def test_weights_are_a_list_a_list_by_term_or_those_of_a_tuning_section():
    assert weights_for([5, 20], "kd+gram", None) == [5.0, 20.0]
    assert weights_for({"gram": [3, 4], "cka": [1]}, "kd+gram", None) == [3.0, 4.0]
    assert weights_for("tuning", "kd+gram", {"gram": 5.0, "cka": 1.0}) == [5.0]
    for weights in ([5, 20], [], {"gram": [3]}, "tuning"):
        assert weights_for(weights, "kd", {"gram": 5.0}) == [1.0]


@pytest.mark.parametrize(("weights", "tuned"), [("tuning", {"cka": 5.0}), ({"cka": [5]}, None),
                                                ({"cka": [5]}, {"gram": 5.0})])  # fmt: skip
def test_a_term_without_a_weight_is_refused(weights, tuned):
    with pytest.raises(
        InputError, match=r"^there is no weight for kd\+gram; the protocol must give"
    ):
        weights_for(weights, "kd+gram", tuned)


@pytest.fixture
def protocol_of(tmp_path, monkeypatch):
    """A function that puts a protocol in the place of the classification study's."""

    def write(grid, **more):
        (tmp_path / "protocol").mkdir(exist_ok=True)
        blocks = {"tasks": ["news"], "pooled": ["news"], "grid": grid, **more}
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
    ({**SPEC, "methods": ["kd+gramm"]}, r"method is 'kd\+gramm'; expected one of majority, "),
    ({**SPEC, "vary": {"kd": [1]}}, "section tuning of .* has the unknown setting 'kd'; expected"),
    (
        {**SPEC, "setting": {"steps": {"a": 1}}},
        "steps of section tuning .* is {'a': 1}; expected a s",
    ),
    (
        {**SPEC, "setting": {"teacher": {"modle": "minilm"}}},
        "teacher of section tuning of .* has the unknown setting 'modle'; expected one of mod",
    ),
]


@pytest.mark.parametrize(("spec", "message"), BAD_PROTOCOLS)
def test_a_protocol_with_an_unknown_key_is_refused_in_one_sentence(protocol_of, spec, message):
    with pytest.raises(InputError, match=message):
        protocol_of({"tuning": spec}).runs("tuning")


def test_weights_by_term_cross_with_seeds(protocol_of):
    spec = {**SPEC, "methods": ["kd", "kd+gram", "kd+cka"], "weights": {"gram": [1, 2], "cka": [3]}}
    runs = protocol_of({"one": spec}).runs("one")
    weights = [(run.method, run.settings.weight_multiplier) for run in runs]
    assert weights == [("kd", 1.0), ("kd+gram", 1.0), ("kd+gram", 2.0), ("kd+cka", 3.0)]
    with pytest.raises(InputError, match=r"there is no weight for kd\+pca"):
        protocol_of({"one": {**spec, "methods": ["kd+pca"]}}).runs("one")


def test_a_sections_settings_go_before_the_tasks_and_these_before_the_studys(protocol_of):
    settings = {"setting": {"steps": 10, "batch_size": 4, "layers": 2}}
    by_task = {"news": {"batch_size": 8, "layers": 1, "teacher": {"model": "mpnet", "epochs": 3.0}}}
    spec = {**SPEC, "setting": {"layers": 3}, "tasks": ["news", "tweets"]}
    grid = protocol_of({"one": spec}, task_settings=by_task, **settings)
    news, tweets = (run.settings for run in grid.runs("one"))
    assert (news.steps, news.batch_size, news.layers) == (10, 8, 3)
    assert (tweets.steps, tweets.batch_size, tweets.layers) == (10, 4, 3)
    assert news.teacher == TeacherSettings(model="mpnet", epochs=3.0)
    assert tweets.teacher == TeacherSettings()
    hash(news)  # a mapping in it would not be hashable


def test_a_changed_protocol_is_read_again(protocol_of):
    assert len(protocol_of({"tuning": SPEC}).runs("tuning")) == 1
    assert len(protocol_of({"tuning": {**SPEC, "seeds": [7, 8, 9]}}).runs("tuning")) == 3
