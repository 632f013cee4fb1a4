"""The ledger: computed verdicts go from a cell to the home page, and README says the same words."""

import json
import re
from pathlib import Path

import IPython.display
import nbclient
import pytest
from support import simulated_results

from geodistill.analysis.stored_results import digest
from geodistill.errors import InputError
from geodistill.publish import provenance
from geodistill.publish.claims import judge, ledger
from geodistill.publish.notebook_source import read_source

ROOT = Path(__file__).parents[2]
WORDS = {"better", "worse", "equivalent", "cannot tell"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    simulated_results.write(folder)
    return folder


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """A function that makes an executed notebook out of calls of `ledger.record`."""
    outputs = []

    def display(data, raw, metadata):
        outputs.append({"output_type": "display_data", "data": data, "metadata": metadata})

    monkeypatch.setattr(IPython.display, "display", display)

    def make(stem, *records):
        outputs.clear()
        for given in records:
            ledger.record(**given)
        path = tmp_path / f"{stem}.ipynb"
        cells = [{"cell_type": "markdown", "source": "text"}, {"outputs": list(outputs)}]
        path.write_text(json.dumps({"cells": cells}))
        return path

    return make


def row(table, key):
    """The four entries of one claim in the rendered table."""
    found = re.search(rf"\* - \*\*{key}\*\*(.*?)(?=\n\* - |\n````)", table, re.DOTALL)
    return found[1].split("\n  - ")


def test_without_records_nothing_can_be_told_yet():
    table = ledger.render([])
    for claim in judge.CLAIMS:
        statement, test, verdict, where = row(table, claim.key)
        assert claim.statement in statement
        assert test == claim.test
        assert verdict == "**cannot tell yet**"
        assert "not in this book" in where


def test_a_record_reaches_the_home_page(executed):
    path = executed(
        "06_significance",
        {"claim": "C5", "verdict": "better", "value": 0.31, "low": 0.1049, "high": 0.52,
         "unit": "nats", "detail": "KD + Procrustes vs KD", "rows": "data/results/x",
         "run_ids": ("a", "b")},
    )  # fmt: skip
    found = ledger.read(path)[0]
    assert (found.claim, found.value, found.run_ids) == ("C5", 0.31, ("a", "b"))
    _, _, verdict, where = row(ledger.render([path]), "C5")
    assert verdict == "**better**, KD + Procrustes vs KD, +0.31 (+0.10 to +0.52) nats"
    anchor = re.search(r"notebooks/06_significance.html#([\w-]+)", where)[1]
    assert f'id="{anchor}"' in path.read_text().replace('\\"', '"')
    assert digest(["a", "b"]) in where
    assert row(ledger.render([path]), "C4a")[2] == "**cannot tell yet**"


def test_a_live_record_says_live_and_parts_stand_together(executed):
    parts = [
        {"claim": "C1", "verdict": "holds", "detail": "CKA"},
        {"claim": "C1", "verdict": "does not hold", "detail": "projection", "value": 0.5},
        {"claim": "C1", "verdict": "cannot tell", "detail": "CKA"},
    ]
    _, _, verdict, where = row(ledger.render([executed("01_theory", *parts)]), "C1")
    assert verdict == "**cannot tell**, CKA<br>**does not hold**, projection, 0.5"
    assert where.endswith(", live")


BAD = [
    ({"claim": "C9", "verdict": "holds"}, r"unknown claim 'C9'; known: C1, C2"),
    ({"claim": "C1", "verdict": "true"}, r"verdict 'true' of C1 is unknown; known: better, worse"),
    ({"claim": "C1", "verdict": "holds", "low": float("nan")}, "low of claim C1 is nan"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_what_is_no_record_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        ledger.record(**given)


def test_stored_rows_decide_as_they_were_made(results):
    words = {
        claim.key: [found.verdict for found in judge.judge(claim.key, results)]
        for claim in judge.CLAIMS
        if claim.stored
    }
    assert words["C4a"][0] == "better"
    assert words["C4a"][1] != "better"
    assert words["P1-bert"][0] == words["C5"][0] == "better"
    assert words["P1-opt"][0] == "equivalent"
    assert len(words["C4b"]) == 4
    assert {word for found in words.values() for word in found} <= WORDS


def test_a_claim_without_rows_is_not_judged(results, tmp_path):
    with pytest.raises(InputError, match="C1 is not decided by stored rows; these are: C4a"):
        list(judge.judge("C1", results))
    with pytest.raises(InputError, match="no stored rows at"):
        list(judge.judge("C5", tmp_path))


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("confirmed")
    simulated_results.write(folder, n_items=90)
    simulated_results.write_confirmatory(folder)
    return folder


def test_rows_of_a_protocol_decide_once_their_sections_are_whole(confirmed, results):
    assert judge.claim("C4a").stored.rows(confirmed) == ("classification/primary",)
    assert judge.claim("C5").stored.rows(confirmed) == ("exploratory/instruction",)
    block = ledger.verdict_block(confirmed)
    assert block.count("(by the protocol's rows, `data/results/classification/primary`)") == 2
    assert block.count("`data/results/classification/placebos`)") == 1
    assert block.count("(exploratory, `data/results/exploratory/instruction`: the protocol's") == 2
    assert "by the protocol" not in ledger.verdict_block(results)


def test_a_grid_that_was_stopped_decides_nothing(tmp_path):
    simulated_results.write(tmp_path, n_items=60)
    simulated_results.write_confirmatory(tmp_path, seeds=range(100, 109))
    assert judge.claim("C4a").stored.rows(tmp_path) == ("exploratory/classification",)
    assert {r.rows for r in judge.judge("C4a", tmp_path)} == {
        "data/results/exploratory/classification"
    }


def test_a_control_that_lacks_a_factor_decides_nothing(tmp_path):
    simulated_results.write(tmp_path, n_items=60)
    simulated_results.write_confirmatory(tmp_path, others=(5.0,))
    placebo = judge.claim("P1-bert").stored
    assert placebo.rows(tmp_path) == ("exploratory/classification",)
    assert judge.claim("C4a").stored.rows(tmp_path) == ("classification/primary",)


def test_a_squared_error_is_not_pooled_with_accuracies(confirmed):
    assert {a.tasks for a in judge.answers("C4a", confirmed)} == {("movie-b", "product-b")}
    assert all(a.n_seeds == 10 for a in judge.answers("C4a", confirmed))


def test_a_control_counts_at_the_factor_of_what_it_controls(confirmed):
    every = judge.answers("P1-bert", confirmed)
    asked = [f"kd+{name}" for name in ("procrustes-shuffled", "spectrum", "isotropy")]
    assert [one.baseline for one in every] == asked
    found = every[0]
    assert found.n_seeds == 5
    assert found.estimate > 0.1  # at the other factor there is no difference
    assert {run.rsplit("-", 1)[1] for run in found.run_ids} == {"20.0"}


def test_numbers_show_two_digits_of_their_interval():
    def shown(value, low, high):
        return judge.Record("C1", "holds", value, low, high).number

    assert shown(1.234, 0.5, 2.0) == "+1.2 (+0.5 to +2.0)"
    assert shown(0.01234, 0.0119, 0.0127) == "+0.01234 (+0.01190 to +0.01270)"
    assert shown(1.0, 1.0, 1.0) == "+1.000 (+1.000 to +1.000)"
    assert shown(1e-7, None, None) == "1e-07"
    assert shown(None, None, None) == ""


def test_a_section_keeps_its_own_kd_whatever_the_factor(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    simulated_results.write_sections(tmp_path, ["pretrained"])
    found = judge.answers("P2-bert", tmp_path)
    assert [a.baseline for a in found] == ["kd", "kd+procrustes-shuffled", "kd+spectrum"]
    assert [a.n_seeds for a in found] == [5, 5, 5]
    gains = [simulated_results.TERMS["procrustes"] * simulated_results.fades(500)]
    gains += [gains[0] * (1 + 0.10 / 0.06), gains[0]]  # over KD, a control that does harm, one at 0
    assert [a.estimate for a in found] == pytest.approx(gains, abs=0.03)
    assert {r.rows for r in judge.judge("P2-bert", tmp_path)} == {
        "data/results/classification/pretrained"
    }


def test_exploratory_rows_do_not_stand_in_for_a_later_question(results):
    assert judge.answers("P2-bert", results) == ()
    assert list(judge.judge("P2-bert", results)) == []
    assert ledger.in_short(("P2-bert",), results).splitlines()[1:] == ["  - **cannot tell yet**"]


def test_a_page_says_in_short_what_its_rows_say_with_numbers(confirmed, tmp_path):
    told = ledger.in_short(("C4a", "P1-bert"), confirmed).splitlines()
    (first, *_), others = judge.answers("C4a", confirmed), judge.answers("P1-bert", confirmed)
    assert told[0] == f"- {judge.claim('C4a').statement}"
    gain = f"{100 * first.estimate:+.1f} ({100 * first.low:+.1f} to {100 * first.high:+.1f}) points"
    assert told[1] == f"  - KD + Procrustes vs KD: **better**, {gain}"
    assert told[3] == "  - (by the protocol's rows, `data/results/classification/primary`)"
    assert len(told) == 2 * 2 + 2 + len(others)
    assert ledger.in_short(("C4a",), tmp_path).splitlines()[1:] == ["  - **cannot tell yet**"]
    with pytest.raises(InputError, match="claim C1 is not decided by stored rows"):
        ledger.in_short(("C1",), confirmed)


def test_readme_says_the_words_that_the_committed_rows_give():
    text = (ROOT / "README.md").read_text()
    assert ledger.verdict_block(ROOT / "data" / "results") in text, (
        "README's verdicts are stale: put in what `python -m geodistill.publish.claims.ledger` prints"
    )


def test_and_that_check_can_fail(results, tmp_path):
    assert ledger.verdict_block(results) != ledger.verdict_block(tmp_path)
    assert (
        ledger.verdict_block(results).count("**better**") >= 3
    )  # else the comparison above says little
    asked = sum(claim.stored is not None for claim in judge.CLAIMS)
    assert ledger.verdict_block(tmp_path).count("**cannot tell yet**") == asked >= 6


def test_each_claim_is_recorded_by_its_page():
    for claim in judge.CLAIMS:
        source = (ROOT / "notebooks" / f"{claim.page}.py").read_text()
        assert f'"{claim.key}"' in source, f"{claim.page} does not record {claim.key}"


def test_pages_and_ledger_name_a_set_of_runs_alike():
    assert digest(["b", "a"]) == provenance.ids_hash(["a", "b"])


def run_significance(results, monkeypatch):
    """Outputs of the significance notebook on the rows under `results`, errors included."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(results))
    notebook = read_source(ROOT / "notebooks" / "06_significance.py")
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('"laptop"', '"smoke"')
    client = nbclient.NotebookClient(notebook, allow_errors=True, timeout=120)
    client.execute(cwd=str(ROOT / "notebooks"))
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def figures_of(outputs, source):
    facts = [out.get("metadata", {}).get("geodistill", {}) for out in outputs]
    return [found["name"] for found in facts if found.get("source") == source]


@pytest.mark.smoke
def test_without_rows_the_stored_figures_fail_and_no_live_one(results, tmp_path, monkeypatch):
    full = run_significance(results, monkeypatch)
    bare = run_significance(tmp_path, monkeypatch)
    assert not [out for out in full if out.output_type == "error"]
    assert len(figures_of(full, "live")) >= 3
    assert figures_of(bare, "live") == figures_of(full, "live")
    assert len(figures_of(full, "stored")) >= 6
    assert figures_of(bare, "stored") == ["coverage-at-five-seeds"]  # simulated, no study's rows
    first = next(out for out in bare if out.output_type == "error")
    assert first.ename == "InputError"
    assert "no stored rows at" in first.evalue
    assert "geodistill grid classification" in first.evalue
    assert "\n" not in first.evalue
    marks = [out.get("metadata", {}).get(ledger.KEY) for out in full]
    recorded = {mark["claim"] for mark in marks if mark}
    decided = [claim for claim in judge.CLAIMS if claim.stored]
    assert recorded == {one.key for one in decided if "primary" in one.stored.sections}
