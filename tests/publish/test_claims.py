"""Only whole sections of a protocol are shown, and what is shown says where it is from."""

import shutil

import pandas as pd
import pytest
from support import simulated_instruction as simulated

from geodistill.errors import InputError
from geodistill.experiments import protocol_grid
from geodistill.experiments.instruction.grid import FOLDER, progress, runs
from geodistill.experiments.stored_sections import Sections
from geodistill.publish import provenance
from geodistill.publish.claims import judge
from geodistill.publish.claims.figures import show_forest, show_groups


def planned(section):
    """Runs of a section, as many as the protocol says today."""
    return dict(progress()[["section", "planned"]].to_numpy())[section]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODISTILL_RESULTS", str(folder))
        simulated.write(
            folder, ("tuning", "primary", "curve", "controls", "variance", "large-batch"), items=105
        )
    return folder


@pytest.fixture
def results(made, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(made))
    return made


@pytest.fixture
def study(results):
    return Sections(FOLDER)


def test_a_section_is_whole_with_all_its_runs(tmp_path, monkeypatch, results, capsys):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    for name in ("tuning", "curve"):
        shutil.copytree(results / FOLDER / name, tmp_path / FOLDER / name)
    target, n = tmp_path / FOLDER / "curve" / "rows.parquet", planned("curve")
    rows = pd.read_parquet(target)
    assert Sections(FOLDER).whole("curve")
    other = rows.assign(run_id="theirs-" + rows["run_id"], seed=99)
    pd.concat([rows, other]).to_parquet(target)  # runs that nobody planned
    assert len(Sections(FOLDER)["curve"].runs) == n
    one = rows["run_id"] == rows["run_id"].iloc[0]
    assert capsys.readouterr().out == ""
    for change in ({"dirty": True}, {"status": "failed"}):
        rows.assign(**{k: rows[k].mask(one, v) for k, v in change.items()}).to_parquet(target)
        assert not Sections(FOLDER).whole("curve")
        said = f"section curve: {n - 1} of {n} runs are stored; not shown\n"
        assert capsys.readouterr().out == said


def test_what_takes_its_weights_from_the_tuning_waits_for_it(
    tmp_path, monkeypatch, results, capsys
):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    shutil.copytree(results / FOLDER / "primary", tmp_path / FOLDER / "primary")
    assert not Sections(FOLDER).whole("primary", "controls")
    said = capsys.readouterr().out
    n, controls = planned("primary"), planned("controls")
    assert f"section primary: {n} of {n} runs are stored (the tuning section lacks 38 runs" in said
    assert f"section controls: 0 of {controls} runs are stored; not shown" in said


def test_what_is_not_whole_is_said_in_a_line(study, capsys):
    assert study.whole("tuning", "primary")
    assert capsys.readouterr().out == ""
    assert not study.whole("primary", "bases", "seqkd")
    assert capsys.readouterr().out == (
        f"section bases: 0 of {planned('bases')} runs are stored; not shown\n"
        f"section seqkd: 0 of {planned('seqkd')} runs are stored; not shown\n"
    )


def test_sections_of_two_devices_are_not_shown_together(tmp_path, monkeypatch, results, capsys):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    for name, device in (("primary", "cuda: simulated"), ("curve", "cpu: simulated")):
        target = tmp_path / FOLDER / name / "rows.parquet"
        pd.read_parquet(target).assign(device=device).to_parquet(target)
    study = Sections(FOLDER)
    assert study.whole("primary")
    assert study.whole("curve")
    assert capsys.readouterr().out == ""
    assert not study.whole("primary", "curve")
    told = "sections of different devices are not compared (primary cuda, curve cpu)\n"
    assert capsys.readouterr().out == told


def test_settings_in_which_runs_differ_are_columns(study):
    curve = study["curve"].runs
    assert sorted(curve["factor"].unique()) == [0.1, 1, 10]
    assert curve.groupby("factor").size().nunique() == 1
    variance = study["variance"]
    starts = variance.runs.groupby(["start_seed", "seed"]).size()
    assert starts.tolist() == [1] * planned("variance")
    items = variance.items.groupby(["start_seed", "seed"]).size()
    assert items.tolist() == [105] * planned("variance")
    assert {"nll", "rougeL"} <= set(variance.runs)


def test_provenance_names_commands_folders_and_runs(study):
    found = study.source("curve", "controls")
    assert found["source"] == "stored"
    assert found["made_by"] == (
        "geodistill grid instruction --section curve && "
        "geodistill grid instruction --section controls"
    )
    assert found["rows"] == "data/results/instruction/curve, data/results/instruction/controls"
    assert len(found["run_ids"]) == planned("curve") + planned("controls")


def test_simulated_runs_are_those_of_the_protocol(study):
    asked = {(s.weight, m, seed) for s, m, seed in runs("controls")}
    rows = study["controls"].runs
    assert set(zip(rows["factor"], rows["method"], rows["seed"], strict=True)) == asked


def test_the_ledger_tests_the_protocols_family_of_two(results):
    family = judge.answers("C5", results)
    asked = protocol_grid.protocol(FOLDER)["family"]
    assert [(a.method, a.baseline) for a in family] == [(f["method"], f["baseline"]) for f in asked]
    assert {a.correction for a in family} == {"Holm over 2"}
    assert [r.verdict for r in judge.judge("C5", results)] == ["better", "better"]
    placebo, *others = judge.judge("P1-opt", results)
    assert len(others) == 2
    assert placebo.verdict == "equivalent"
    assert placebo.rows == "data/results/instruction/primary, data/results/instruction/controls"
    again = list(judge.judge("P2-opt", results))
    assert [r.detail for r in again] == [r.detail for r in (placebo, *others)]
    assert {r.rows for r in again} == {"data/results/instruction/large-batch"}
    asked = protocol_grid.protocol(FOLDER)["grid"]["large-batch"]
    assert {a.n_seeds for a in judge.answers("P2-opt", results)} == {len(asked["seeds"])}


def test_exploratory_rows_answer_for_the_methods_that_they_have():
    test = judge.claim("C5").stored
    assert test.pairs_in(pd.DataFrame({"method": ["kd", "kd+procrustes"]})) == test.pairs[:1]
    with pytest.raises(InputError, match=r"the rows hold kd; asked were kd, kd\+gram, kd\+proc"):
        test.pairs_in(pd.DataFrame({"method": ["kd"]}))


def test_figures_of_comparisons_carry_their_numbers_and_their_runs(study, results, monkeypatch):
    seen = []
    monkeypatch.setattr(provenance, "_display", lambda html, facts: seen.append(facts))
    answers, test = judge.answers("C5", results), judge.claim("C5").stored
    show_forest(answers, test, "forest", study.source("primary"))
    source = study.source("primary")
    show_groups({"one\ngroup": answers}, test, "groups", source, along="students")
    for facts in seen:
        assert len(facts["run_ids"]) == planned("primary")
        assert test.unit.show(answers[0].estimate) in facts["text"]
    assert [facts["name"] for facts in seen] == ["forest", "groups"]
    assert "one group (5 seeds): KD + Procrustes vs KD" in seen[1]["text"]
