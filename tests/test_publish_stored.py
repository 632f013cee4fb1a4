"""Only whole sections of a protocol are shown, and what is shown says where it is from."""

import pandas as pd
import pytest
import simulated_instruction as simulated

from geodistill.errors import InputError
from geodistill.experiments import plan
from geodistill.experiments.instruction_sections import FOLDER, progress, runs
from geodistill.publish import claims, provenance
from geodistill.publish.stored import Sections


def planned(section):
    """Runs of a section, as many as the protocol says today."""
    return dict(progress()[["section", "planned"]].to_numpy())[section]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODISTILL_RESULTS", str(folder))
        simulated.write(folder, ("tuning", "primary", "curve", "controls", "variance"), items=105)
    return folder


@pytest.fixture
def results(made, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(made))
    return made


@pytest.fixture
def study(results):
    return Sections.of(FOLDER, progress())


def test_a_section_is_whole_with_all_its_runs_and_no_others(tmp_path, monkeypatch, results):
    rows = pd.read_parquet(results / FOLDER / "curve" / "rows.parquet")
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    target = tmp_path / FOLDER / "curve" / "rows.parquet"
    target.parent.mkdir(parents=True)
    n = planned("curve")
    assert not plan.whole(FOLDER, "curve", n)
    rows.to_parquet(target)
    assert plan.whole(FOLDER, "curve", n)
    assert not plan.whole(FOLDER, "curve", n - 1)  # a run that nobody planned
    one = rows["run_id"] == rows["run_id"].iloc[0]
    for change in ({"dirty": True}, {"status": "failed"}):
        rows.assign(**{k: rows[k].mask(one, v) for k, v in change.items()}).to_parquet(target)
        assert plan.stored_runs(FOLDER, "curve") == n - 1
        assert not plan.whole(FOLDER, "curve", n)


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
    for name, device in (("primary", "cuda: simulated"), ("curve", "cpu: simulated")):
        rows = pd.read_parquet(results / FOLDER / name / "rows.parquet")
        target = tmp_path / FOLDER / name / "rows.parquet"
        target.parent.mkdir(parents=True)
        rows.assign(device=device).to_parquet(target)
    study = Sections.of(FOLDER, progress())
    assert study.whole("primary")
    assert study.whole("curve")
    assert capsys.readouterr().out == ""
    assert not study.whole("primary", "curve")
    told = "sections of different devices are not compared (primary cuda, curve cpu)\n"
    assert capsys.readouterr().out == told


def test_settings_that_vary_are_columns(study):
    curve = study.rows("curve", "factor")
    assert curve.groupby("factor").size().nunique() == 1
    starts = study.rows("variance", "start_seed")
    assert starts.groupby(["start_seed", "seed"]).size().tolist() == [1] * planned("variance")
    items = study.items("variance", "start_seed")
    assert items.groupby(["start_seed", "seed"]).size().tolist() == [105] * planned("variance")
    with pytest.raises(InputError, match="two clean runs of t0/kd"):
        study.rows("variance")
    with pytest.raises(InputError, match="no column or setting 'head'"):
        study.rows("curve", "head")


def test_provenance_names_commands_folders_and_runs(study):
    found = study.source("curve", "controls")
    assert found["source"] == "stored"
    assert found["made_by"] == (
        "geodistill grid instruction --section curve && "
        "geodistill grid instruction --section controls"
    )
    assert found["rows"] == "data/results/instruction/curve, data/results/instruction/controls"
    assert len(found["run_ids"]) == planned("curve") + planned("controls")
    assert study.source("curve", run_ids=["b", "a", "b"])["run_ids"] == ("a", "b")


def test_simulated_runs_are_those_of_the_protocol(study):
    asked = {(s.weight, m, seed) for s, m, seed in runs("controls")}
    rows = study.rows("controls", "factor")
    assert set(zip(rows["factor"], rows["method"], rows["seed"], strict=True)) == asked


def test_the_ledger_tests_the_protocols_family_of_two(results):
    family = claims.answers("C5", results)
    asked = plan.protocol(FOLDER)["family"]
    assert [(a.method, a.baseline) for a in family] == [(f["method"], f["baseline"]) for f in asked]
    assert {a.correction for a in family} == {"Holm over 2"}
    assert [r.verdict for r in claims.judge("C5", results)] == ["better", "better"]
    (placebo,) = claims.judge("P1-opt", results)
    assert placebo.verdict == "equivalent"
    assert placebo.rows == "data/results/instruction/primary, data/results/instruction/controls"


def test_exploratory_rows_answer_for_the_methods_that_they_have():
    test = claims.claim("C5").stored
    assert test.pairs_in(pd.DataFrame({"method": ["kd", "kd+procrustes"]})) == test.pairs[:1]
    with pytest.raises(InputError, match=r"the rows hold kd; asked were kd, kd\+gram, kd\+proc"):
        test.pairs_in(pd.DataFrame({"method": ["kd"]}))


def test_figures_of_comparisons_carry_their_numbers_and_their_runs(study, results, monkeypatch):
    seen = []
    monkeypatch.setattr(provenance, "_display", lambda html, facts: seen.append(facts))
    answers, test = claims.answers("C5", results), claims.claim("C5").stored
    study.show_forest(answers, test, "forest", "primary")
    study.show_groups({"one\ngroup": answers}, test, "groups", "primary", along="students")
    for facts in seen:
        assert len(facts["run_ids"]) == planned("primary")
        assert test.unit.show(answers[0].estimate) in facts["text"]
    assert [facts["name"] for facts in seen] == ["forest", "groups"]
    assert "one group (5 seeds): KD + Procrustes vs KD" in seen[1]["text"]
