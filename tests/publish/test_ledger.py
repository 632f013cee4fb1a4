"""The ledger: computed verdicts go from a cell to the pages of the book."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import IPython.display
import nbclient
import numpy as np
import pandas as pd
import pytest
from support.simulated_sections import GAINS

from geodistill.analysis import compare, simulate_items
from geodistill.analysis.stats.verdict import WORDS
from geodistill.errors import InputError
from geodistill.experiments.methods import term_of
from geodistill.files import CHECKSUMS
from geodistill.publish.claims import judge, ledger
from geodistill.publish.notebook_source import read_source

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(simulated_results, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(simulated_results))
    return simulated_results


@pytest.fixture
def no_results(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    return tmp_path


@pytest.fixture
def executed(tmp_path, monkeypatch):
    """A function that makes an executed notebook out of calls of `ledger.record_verdict`."""
    outputs = []

    def display(data, raw, metadata):
        outputs.append({"output_type": "display_data", "data": data, "metadata": metadata})

    monkeypatch.setattr(IPython.display, "display", display)

    def make(stem, *records):
        outputs.clear()
        for given in records:
            ledger.record_verdict(**given)
        path = tmp_path / f"{stem}.ipynb"
        cells = [{"cell_type": "markdown", "source": "text"}, {"outputs": list(outputs)}]
        path.write_text(json.dumps({"cells": cells}))
        return path

    return make


def row(table, key):
    """The four entries of one claim in the rendered table."""
    found = re.search(rf"\* - \*\*{key}\*\*(.*?)(?=\n\* - |\n````)", table, re.DOTALL)
    return found[1].split("\n  - ")


def test_without_records_nothing_is_tested_yet():
    table = ledger.render([])
    for claim in judge.all_claims():
        statement, test, verdict, where = row(table, claim.key)
        assert claim.statement in statement
        assert test == claim.test_in_words
        assert verdict == "**not yet tested**"
        assert "not in this book" in where


def test_a_record_reaches_the_home_page(executed):
    path = executed(
        "06_significance",
        {"claim": "C5", "verdict": "better", "value": 0.31, "low": 0.1049, "high": 0.52,
         "unit": "nats", "detail": "KD + Procrustes vs KD", "rows": "data/results/x",
         "run_ids": ("a", "b")},
    )  # fmt: skip
    found = ledger.read_records(path)[0]
    assert (found.claim, found.value, found.run_ids) == ("C5", 0.31, ("a", "b"))
    _, _, verdict, where = row(ledger.render([path]), "C5")
    assert verdict == "**better**, KD + Procrustes vs KD, +0.31 (+0.10 to +0.52) nats"
    anchor = re.search(r"notebooks/06_significance.html#([\w-]+)", where)[1]
    assert f'id="{anchor}"' in path.read_text().replace('\\"', '"')
    assert where.endswith("2 runs of <code>data/<wbr>results/<wbr>x</code>")
    assert row(ledger.render([path]), "C4a")[2] == "**not yet tested**"


def test_a_live_record_says_live_and_parts_stand_together(executed):
    parts = [
        {"claim": "C1", "verdict": "holds", "detail": "CKA"},
        {"claim": "C1", "verdict": "does not hold", "detail": "projection", "value": 0.5},
        {"claim": "C1", "verdict": "inconclusive", "detail": "CKA"},
    ]
    _, _, verdict, where = row(ledger.render([executed("01_theory", *parts)]), "C1")
    assert verdict == "**inconclusive**, CKA<br>**does not hold**, projection, 0.5"
    assert where.endswith(", live")


BAD = [
    ({"claim": "C9", "verdict": "holds"}, r"unknown claim 'C9'; known: C1, C2"),
    ({"claim": "C1", "verdict": "true"}, r"verdict 'true' of C1 is unknown; known: better, worse"),
    ({"claim": "C1", "verdict": "holds", "low": float("nan")}, "low of claim C1 is nan"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_what_is_no_record_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        ledger.record_verdict(**given)


def decided():
    return [claim.key for claim in judge.all_claims() if claim.test]


def test_stored_results_decide_as_they_were_made(results):
    verdicts = {key: [r.verdict for r in judge.Judge().evaluate(key)] for key in decided()}
    assert verdicts["C4a"] == verdicts["C5"] == ["better", "better"]
    assert (len(verdicts["C4b"]), len(verdicts["P1-bert"]), len(verdicts["P1-opt"])) == (1, 2, 3)
    assert {word for words in verdicts.values() for word in words} <= set(WORDS)


def test_a_claim_without_results_has_no_verdict(no_results):
    lines = []
    assert judge.Judge(lines.append).evaluate("C5") == []
    (line,) = lines
    assert line.startswith(
        "section full: 70 runs are planned (section lookups-validation lacks 4 r"
    )
    with pytest.raises(InputError, match="C1 is not decided by stored results; these are: C4a"):
        judge.Judge().evaluate("C1")


def without_later_seeds(written, folder, section, last_seed):
    """A copy of the results in which a section of classification has only some of its runs."""
    shutil.copytree(written, folder, dirs_exist_ok=True)
    for table in ("rows", "items"):
        path = folder / "classification" / section / f"{table}.parquet"
        frame = pd.read_parquet(path)
        frame[frame["seed"] <= last_seed].to_parquet(path)
        path.with_name(CHECKSUMS).unlink(missing_ok=True)


@pytest.mark.parametrize("last_seed", [101, 108])
def test_a_section_that_was_stopped_decides_nothing(simulated_results, no_results, last_seed):
    """With two seeds of ten, or with all but the last one's: whole seeds are no whole section."""
    without_later_seeds(simulated_results, no_results, "full", last_seed)
    for key in ("C4a", "C4b", "P1-bert"):
        assert judge.Judge(lambda line: None).evaluate(key) == []
    assert len(judge.Judge().evaluate("P1-opt")) == 3
    assert ledger.summary_list(["C4a"]).splitlines()[1:] == ["  - **not yet tested**"]
    assert ledger.summary_list(["P1-bert"]).count("**not yet tested**") == 1


def test_a_squared_error_is_not_pooled_with_accuracies(results):
    comparisons = judge.Judge().comparisons("C4a")
    assert {c.tasks for c in comparisons} == {("news", "tweets")}
    assert all(c.n_seeds == 10 for c in comparisons)


@pytest.mark.parametrize("keys", [("C4a", "C4b", "P1-bert"), ("C5", "P1-opt")])
def test_claims_on_the_same_section_are_one_family(results, keys):
    comparisons = [c for key in keys for c in judge.Judge().comparisons(key)]
    assert len(comparisons) == 5
    assert {c.correction for c in comparisons} == {"Holm over 5"}
    ordered = sorted(comparisons, key=lambda c: c.p)
    by_hand = np.maximum.accumulate([(5 - i) * c.p for i, c in enumerate(ordered)])
    assert [c.p_holm for c in ordered] == pytest.approx(np.minimum(by_hand, 1))


def test_the_gains_are_those_that_were_drawn(results):
    gains = GAINS["instruction"]
    for comparison in judge.Judge().comparisons("P1-opt"):
        assert (comparison.n_seeds, comparison.tasks) == (10, ("computed",))
        assert len(comparison.run_ids) == 2 * 10
        expected = gains["procrustes"] - gains[term_of(comparison.baseline)]
        assert comparison.estimate == pytest.approx(expected, abs=0.02)


def test_a_control_that_is_worse_than_kd_is_said_to_be():
    gains = {"kd": 0.0, "kd+procrustes": 0.1, "kd+spectrum": -0.4, "kd+isotropy": 0.0, "kd+pca": -1}
    items = simulate_items(gains)

    def note(baseline):
        comparison = compare(items, "kd+procrustes", baseline)
        return judge._control_vs_kd(items, comparison, judge.POINTS)

    assert re.fullmatch(r"the control over KD: -.* to -.*: worse than KD", note("kd+spectrum"))
    assert re.fullmatch(r"the control over KD: [^:]*", note("kd+isotropy"))
    assert note("kd+pca") == ""  # no control


def test_a_claim_against_runs_that_collapsed_is_not_tested(simulated_results, no_results):
    """All runs of the spectrum part predict one class; the other tests stay."""
    shutil.copytree(simulated_results, no_results, dirs_exist_ok=True)
    path = no_results / "classification" / "full" / "items.parquet"
    items = pd.read_parquet(path)
    dead = items["prediction"].mask(items["method"] == "kd+spectrum", 0)
    items = items.assign(prediction=dead.where(items["task"] != "stsb", items["prediction"]))
    items["score"] = items["score"].where(
        items["task"] == "stsb", (items["label"] == items["prediction"]).astype(float)
    )
    items.to_parquet(path)
    path.with_name(CHECKSUMS).unlink()
    spectrum, pca = judge.Judge().evaluate("P1-bert")
    assert spectrum.verdict == "no test: the control collapsed"
    assert pca.verdict in ("better", "inconclusive")
    assert "**no test: the control collapsed**" in ledger.summary_list(["P1-bert"])


def test_each_table_is_read_once(results, monkeypatch):
    reads = Counter()
    read = pd.read_parquet

    def counted(path, *args, **settings):
        if settings.get("columns") is None:
            reads[path] += 1
        return read(path, *args, **settings)

    monkeypatch.setattr(pd, "read_parquet", counted)
    board = judge.Judge()
    for _ in range(2):
        for key in decided():
            board.evaluate(key)
    items = {path: n for path, n in reads.items() if path.name == "items.parquet"}
    assert len(items) == 2
    assert set(items.values()) == {1}


def test_numbers_show_two_digits_of_their_interval():
    def shown(value, low, high):
        return judge.Record("C1", "holds", value, low, high).number

    assert shown(1.234, 0.5, 2.0) == "+1.2 (+0.5 to +2.0)"
    assert shown(0.01234, 0.0119, 0.0127) == "+0.01234 (+0.01190 to +0.01270)"
    assert shown(1.0, 1.0, 1.0) == "+1.000 (+1.000 to +1.000)"
    assert shown(1e-7, None, None) == "1e-07"
    assert shown(None, None, None) == ""


def test_a_page_summarises_its_claims_with_numbers(results):
    lines = ledger.summary_list(("C4a", "P1-bert")).splitlines()
    first = judge.Judge().comparisons("C4a")[0]
    assert lines[0] == f"- {judge.find_claim('C4a').statement}"
    gain = f"{100 * first.estimate:+.1f} ({100 * first.low:+.1f} to {100 * first.high:+.1f}) points"
    assert lines[1] == f"  - KD + Procrustes vs KD: **better**, {gain}"
    assert lines[3] == "  - (`data/results/classification/full`)"
    assert len(lines) == 2 * 2 + 2 + 2


def test_each_claim_is_recorded_by_its_page():
    """Those that stored results decide are recorded in a loop, which the smoke run below checks."""
    for claim in judge.all_claims():
        source = (ROOT / "notebooks" / f"{claim.page}.py").read_text()
        name = "all_claims" if claim.test else f'"{claim.key}"'
        assert name in source, f"{claim.page} does not record {claim.key}"


def run_significance():
    """Outputs of the significance notebook, errors included."""
    notebook = read_source(ROOT / "notebooks" / "06_significance.py")
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('"laptop"', '"smoke"')
    client = nbclient.NotebookClient(notebook, allow_errors=True, timeout=None)
    client.execute(cwd=str(ROOT / "notebooks"))
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def figures_of(outputs, source):
    facts = [out.get("metadata", {}).get("geodistill", {}) for out in outputs]
    return [found["name"] for found in facts if found.get("source") == source]


def recorded_by(outputs):
    records = [out.get("metadata", {}).get(ledger.KEY) for out in outputs]
    return {record["claim"] for record in records if record}


@pytest.mark.smoke
def test_without_results_the_page_is_the_same_and_records_no_verdict(
    results, tmp_path, monkeypatch
):
    """Its example is an earlier study, which is always there."""
    full = run_significance()
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path))
    bare = run_significance()
    for outputs in (full, bare):
        assert not [out for out in outputs if out.output_type == "error"]
    for source in ("live", "stored"):
        assert len(figures_of(full, source)) >= 3
        assert figures_of(bare, source) == figures_of(full, source)
    assert recorded_by(full) == set(decided())
    assert recorded_by(bare) == set()
    printed = "".join(out.get("text", "") for out in bare)
    assert "section full: 210 runs are planned" in printed
    for study in GAINS:
        assert f"geodistill experiments {study} --section" in printed
