"""The grids of both studies: what protocols ask for, weights and tasks by their rules."""

import json
import shutil
from collections import Counter

import pandas as pd
import pytest
import yaml
from support.simulated_sections import copy_sections, write_section

from geodistill.errors import InputError
from geodistill.experiments import protocol_grid
from geodistill.experiments.classification.settings import TeacherSettings
from geodistill.experiments.methods import (
    CLASSIFICATION_METHODS,
    INSTRUCTION_METHODS,
    INSTRUCTION_REFERENCES,
    term_of,
)
from geodistill.experiments.protocol_grid import UnplannedError, expand_settings, weights_for
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
def test_every_stored_run_of_a_section_in_use_is_a_planned_one(study, name):
    """Or the section is not made yet."""
    path = GRIDS[study].section_dir(name) / "rows.parquet"
    if not path.is_file():
        return
    planned = [run.run_id for run in GRIDS[study].runs(name)]
    assert len(planned) == len(set(planned)) > 1
    assert set(stored_runs(path)["run_id"]) <= set(planned)


def test_every_stored_run_bears_the_hash_of_its_stored_configuration():
    tables = {path: stored_runs(path) for path in sorted(RESULTS.rglob("rows.parquet"))}
    runs = pd.concat(tables.values())
    ids = [
        run_id(row.task, row.method, row.seed, json.loads(row.config)) for row in runs.itertuples()
    ]
    assert ids == runs["run_id"].tolist()
    new = [
        path for path in tables if path.parent.parent.name in GRIDS and "earlier" not in path.parts
    ]
    former = pd.concat(table for path, table in tables.items() if path not in new)
    assert (len(former), former["run_id"].nunique()) == (2397, 2333)
    for path, table in tables.items():
        items = pd.read_parquet(path.with_name("items.parquet"), columns=["run_id"])
        assert set(items["run_id"]) == set(table["run_id"]), path


TUNED = {
    "classification": [
        "term-tuning",
        "term-tuning-edges",
        "term-tuning-pca",
        "term-tuning-quarter",
        "term-tuning-quarter-edges",
        "term-tuning-cola",
    ],
    "instruction": [
        "term-tuning",
        "term-tuning-beyond",
        "term-tuning-edges",
        "term-tuning-gram",
        "term-tuning-quarter",
        "term-tuning-quarter-edges",
        "term-tuning-t0",
    ],
}


@pytest.fixture(scope="module")
def written(simulated_results, tmp_path_factory):
    """Tuning and baseline sections of both studies, simulated."""
    folder = tmp_path_factory.mktemp("written")
    for study, names in TUNED.items():
        copy_sections(simulated_results, folder, study, names)
    return folder


@pytest.fixture
def simulated(written, monkeypatch):
    """The studies with their tuning and baseline sections."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(written))
    return GRIDS


def of_split(grid, split):
    """Names of the sections that score students on that split."""
    names = {
        name: {run.settings.split for run in grid.runs(name)} for name in grid.protocol()["grid"]
    }
    assert all(len(splits) == 1 for splits in names.values())
    return [name for name, splits in names.items() if splits == {split}]


@pytest.mark.parametrize(("study", "n_tuning", "n_test"), [("classification", 18, 7),
                                                           ("instruction", 17, 9)])  # fmt: skip
def test_tuning_seeds_and_the_validation_split_go_together(simulated, study, n_tuning, n_test):
    grid = simulated[study]
    protocol = grid.protocol()
    tuning, test = of_split(grid, "validation"), of_split(grid, "test")
    assert (len(tuning), len(test)) == (n_tuning, n_test)
    own = {*protocol["seeds"]["tuning"], *protocol["seeds"].get("pilot", [])}
    for name in tuning:
        assert set(protocol["grid"][name]["seeds"]) <= own
    for name in test:
        assert not set(protocol["grid"][name]["seeds"]) & own


@pytest.mark.parametrize(
    ("study", "section"), [(study, name) for study, names in TUNED.items() for name in names]
)
def test_every_term_is_tuned_by_equally_many_runs(simulated, study, section):
    runs = Counter(run.method for run in simulated[study].runs(section))
    terms = {n for method, n in runs.items() if term_of(method)}
    assert len(terms) == 1
    assert all(3 * n in terms for method, n in runs.items() if not term_of(method))


@pytest.mark.parametrize("study", GRIDS)
def test_a_protocol_names_known_tasks_and_methods_and_tests_what_it_runs(study):
    protocol = GRIDS[study].protocol()
    assert {*protocol["pooled"], *protocol["tasks"]} <= TASKS[study]
    for name, spec in protocol["grid"].items():
        assert set(spec["methods"]) <= METHODS[study], name
        assert set(spec.get("tasks", [])) <= TASKS[study]
    family = {name for pair in protocol["family"] for name in pair.values()}
    assert family <= set(protocol["grid"]["full"]["methods"])
    assert "data/results/earlier" in yaml.safe_dump(protocol["looked_at"])


@pytest.mark.parametrize("study", GRIDS)
def test_a_sentence_is_planned_for_each_confirmatory_test(study):
    protocol = GRIDS[study].protocol()
    assert len(protocol["family"]) == len(protocol["sentences"]) == 5
    assert all(sentence.count("[points]") == 1 for sentence in protocol["sentences"])


@pytest.mark.parametrize(("study", "n_sections"), [("classification", 5), ("instruction", 7)])
def test_all_terms_of_the_test_sections_are_tuned_in_the_sections_that_they_name(study, n_sections):
    grid = GRIDS[study]
    protocol = grid.protocol()["grid"]
    n_checked = 0
    for name, spec in protocol.items():
        if isinstance(spec["weights"], str):
            named = spec["weights"].split(", ")
            tuned = {term_of(method) for tuning in named for method in protocol[tuning]["methods"]}
            assert {term_of(method) for method in spec["methods"]} <= {"", *tuned}, name
            for tuning in named:
                assert set(grid.tasks(name)) <= set(grid.tasks(tuning)), name
                assert spec["settings_from"] == protocol[tuning]["settings_from"], name
            n_checked += 1
    assert n_checked == n_sections


def test_the_gate_of_some_tasks_rests_on_these_alone():
    grid = GRIDS["classification"]  # KD's best settings on stsb took a section of its own
    both, all_three = (grid.gate_table(["news", "tweets", *more]) for more in ([], ["stsb"]))
    assert both["passed"].all()
    assert both.equals(all_three.loc[both.index])
    assert {run.settings.task for run in grid.runs("text")} == {"news", "tweets"}


def test_settings_weights_and_tasks_of_a_section_are_those_of_its_tuning_sections(simulated):
    simulated = simulated["classification"]
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


def test_the_instruction_settings_are_those_of_the_tuning_sections_too(simulated):
    for name, epochs, n_runs in (("full", 15.0, 70), ("quarter", 3.75, 80), ("skew", 15.0, 20)):
        runs = simulated["instruction"].runs(name)
        assert len(runs) == n_runs
        for run in runs:
            settings = run.settings
            assert (settings.learning_rate, settings.kd_weight) == (1e-3, 0.5)
            assert settings.epochs == epochs
    sizes = {(r.settings.width, r.settings.epochs) for r in simulated["instruction"].runs("sizes")}
    assert sizes == {(64, 3.75), (64, 15.0), (192, 3.75), (192, 15.0)}


@pytest.mark.parametrize(
    ("exact_match", "collapsed"), [(0.05, True), (0.12, True), (0.121, False), (0.9, False)]
)
def test_an_instruction_run_has_collapsed_if_a_lookup_is_nearly_as_good(exact_match, collapsed):
    metrics = {"exact_match": exact_match, "lookup_exact_match": 0.1, "nll": 1.0}
    rows = pd.DataFrame({"run_id": "r", "task": "t", "metric": metrics.keys(),
                         "value": metrics.values()})  # fmt: skip
    (run,) = GRIDS["instruction"].run_scores(rows).to_dict("records")
    assert run == {"run_id": "r", "task": "t", "score": 100 * exact_match, "collapsed": collapsed}


def test_an_incomplete_tuning_section_is_refused_with_the_command(written, tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    shutil.copytree(written / "instruction", tmp_path / "instruction")
    grid = GRIDS["instruction"]
    path = grid.section_dir("term-tuning") / "rows.parquet"
    rows = pd.read_parquet(path)
    rows[rows["seed"] == 200].to_parquet(path)
    path.with_name("SHA256SUMS").unlink()
    message = "lacks 27 runs.*experiments instruction --section term-tuning"
    with pytest.raises(InputError, match=message):
        grid.runs("full")
    assert grid.n_planned("full") == 70


def test_a_tuning_run_without_its_items_does_not_count(written, tmp_path, monkeypatch):
    """The same rule as for every section."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    shutil.copytree(written / "instruction", tmp_path / "instruction")
    grid = GRIDS["instruction"]
    assert len(grid.tuning_rows("kd-tuning")["run_id"].unique()) == 18
    path = grid.section_dir("kd-tuning") / "items.parquet"
    items = pd.read_parquet(path)
    items[items["run_id"] != items["run_id"].iloc[0]].to_parquet(path)
    path.with_name("SHA256SUMS").unlink()
    with pytest.raises(InputError, match="section kd-tuning lacks 1 runs, and others rest on it"):
        grid.runs("full")


def test_tuning_sections_named_together_are_judged_as_one(written, tmp_path, monkeypatch):
    """The best weight of one section lies at its edge; a second section goes beyond it."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    shutil.copytree(written / "instruction", tmp_path / "instruction")
    grid = GRIDS["instruction"]
    protocol = grid.protocol()
    spec = protocol["grid"]["term-tuning"]
    protocol["grid"]["beyond"] = {**spec, "methods": ["kd+cka"], "weights": [32]}
    protocol["grid"]["full"] = {**protocol["grid"]["full"], "weights": "term-tuning, beyond"}
    monkeypatch.setattr(type(grid), "protocol", lambda self: protocol)
    rise = {0.5: 0.5, 2.0: 0.6, 8.0: 0.7, 32.0: 0.65}

    def measure(planned):
        exact_match = rise[planned.settings.weight]
        items = pd.DataFrame({"item": ["a"], "source": ["a"], "score": [1.0]})
        return {"exact_match": exact_match, "lookup_exact_match": 0.1}, items

    write_section(grid, "term-tuning", measure)
    with pytest.raises(InputError, match=r"kd.alignment in section term-tuning is 8, at the ed"):
        grid.choose_weights("term-tuning")
    write_section(grid, "beyond", measure)
    with pytest.raises(InputError, match=r"kd\+alignment in sections term-tuning, beyond is 8, at"):
        grid.runs("full")
    protocol["grid"]["beyond"]["methods"] = spec["methods"]
    write_section(grid, "beyond", measure)
    assert set(grid.choose_weights("term-tuning", "beyond").values()) == {8.0}
    weights = {run.settings.weight for run in grid.runs("full") if term_of(run.method)}
    assert weights == {8.0}


def test_a_task_whose_settings_nobody_tuned_is_refused(written, tmp_path, monkeypatch):
    """It would run with settings that no protocol names."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    shutil.copytree(written / "instruction", tmp_path / "instruction")
    grid = GRIDS["instruction"]
    items = pd.DataFrame({"item": ["a"], "source": ["a"], "score": [1.0]})
    for name in ("kd-tuning", "kd-tuning-slower"):  # no better than the lookup: all collapsed
        scores = {"exact_match": 0.1, "lookup_exact_match": 0.1}
        write_section(grid, name, lambda planned, scores=scores: (scores, items))
    with pytest.raises(UnplannedError, match="section kd-length has no settings for computed: sec"):
        grid.runs("kd-length")


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


@pytest.mark.parametrize("tuned", [None, {"gram": 5.0}])
def test_a_term_without_a_weight_is_refused(tuned):
    with pytest.raises(
        InputError, match=r"^there is no weight for kd\+gram; the protocol must give"
    ) as refused:
        weights_for({"cka": [5]}, "kd+gram", tuned)
    assert not isinstance(refused.value, UnplannedError), "the section would count as incomplete"
    with pytest.raises(
        UnplannedError, match=r"^there is no weight for kd\+gram: section tuning did not tune it"
    ):
        weights_for("tuning", "kd+gram", {"cka": 5.0})


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
