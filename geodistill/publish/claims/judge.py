"""The claims under test, read from `claims.yaml`, and the verdicts that stored results give."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from geodistill.analysis.figures.style import comparison_label
from geodistill.analysis.report.format import NATS, POINTS, Unit
from geodistill.analysis.stats.compare import Comparison, compare, compare_family
from geodistill.analysis.stats.verdict import WORDS, verdict
from geodistill.errors import InputError
from geodistill.experiments.methods import CONTROLS, term_of
from geodistill.experiments.stored_sections import StoredSections

VERDICTS = (*WORDS, "holds", "does not hold")
NOT_YET = "not yet tested"
KD = "kd"
WORSE_THAN_KD = "worse than KD"
_UNITS = {"points": POINTS, "nats": NATS}


@dataclass(frozen=True)
class ClaimTest:
    """A family of comparisons on stored item scores, pooled over the tasks of a study.

    Attributes:
        study: whose sections decide.
        section: that must be complete.
        pairs: (method, baseline), corrected by Holm together with those of all claims that rest on
            the same section.
        margin: smallest difference that matters, in the unit of the item score.
        unit: in which differences are shown.
    """

    study: str
    section: str
    pairs: tuple[tuple[str, str], ...]
    margin: float
    unit: Unit


@dataclass(frozen=True)
class Claim:
    """One row of the ledger.

    Attributes:
        key: short name, such as "C4a".
        origin: "paper" or "ours".
        statement: what is claimed.
        test_in_words: how we test it.
        page: stem of the notebook that records the verdict.
        test: on stored results; None where the notebook decides by itself.
    """

    key: str
    origin: str
    statement: str
    test_in_words: str
    page: str
    test: ClaimTest | None = None


@dataclass(frozen=True)
class Record:
    """A verdict as a cell of a notebook recorded it.

    Attributes:
        claim: key of the claim.
        verdict: one of `VERDICTS`.
        value: the measured number, in `unit`; None if there is none.
        low: lower end of its interval.
        high: upper end of its interval.
        unit: of the three numbers.
        detail: which part of the claim this is, if it has several.
        rows: folders of the stored results behind it; empty for what the page computes.
        run_ids: of these results.
        note: what the reader has to know beside it, such as how a control compares with KD.
    """

    claim: str
    verdict: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    detail: str = ""
    rows: str = ""
    run_ids: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "run_ids", tuple(self.run_ids))
        find_claim(self.claim)
        if self.verdict not in VERDICTS:
            known = ", ".join(VERDICTS)
            raise InputError(f"verdict {self.verdict!r} of {self.claim} is unknown; known: {known}")
        for name in ("value", "low", "high"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise InputError(f"{name} of claim {self.claim} is {number}; it must be finite")

    @property
    def number(self) -> str:
        """The value with its interval and unit, to two digits of the interval's width; or ""."""
        if self.value is None:
            return ""
        text = f"{self.value:.3g}"
        if self.low is not None and self.high is not None:
            digits = _decimals(self.high - self.low)
            low, value, high = (f"{x:+.{digits}f}" for x in (self.low, self.value, self.high))
            text = f"{value} ({low} to {high})"
        return f"{text} {self.unit}".strip()


def _decimals(width: float) -> int:
    return max(0, 1 - math.floor(math.log10(width))) if width > 0 else 3


@cache
def claims_file() -> dict[str, Any]:
    """The content of `claims.yaml`."""
    path = Path(__file__).with_name("claims.yaml")
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


@cache
def all_claims() -> tuple[Claim, ...]:
    """The claims of `claims.yaml`, in their order."""
    table = claims_file()
    return tuple(_claim(entry, table["studies"], table["phrases"]) for entry in table["claims"])


def _claim(
    entry: dict[str, Any], studies: dict[str, dict[str, Any]], phrases: dict[str, str]
) -> Claim:
    spec, test = entry.get("comparisons"), None
    if spec:
        pairs = tuple((method, baseline) for method, baseline in spec["pairs"])
        study = studies[spec["study"]]
        unit = _UNITS[study["unit"]]
        test = ClaimTest(spec["study"], spec["section"], pairs, study["margin"], unit)
    words = {name: entry[name] for name in ("key", "origin", "statement", "page")}
    return Claim(**words, test_in_words=entry["test"].format(**phrases), test=test)


def find_claim(key: str) -> Claim:
    """The claim of that key.

    Raises:
        InputError: there is none; the message lists the known keys.
    """
    for claim in all_claims():
        if claim.key == key:
            return claim
    raise InputError(f"unknown claim {key!r}; known: {', '.join(c.key for c in all_claims())}")


def find_test(key: str) -> ClaimTest:
    """The test of a claim on stored results.

    Args:
        key: of the claim.

    Raises:
        InputError: no such claim, or one that its notebook decides without stored results.
    """
    test = find_claim(key).test
    if test is None:
        known = ", ".join(claim.key for claim in all_claims() if claim.test)
        raise InputError(f"claim {key} is not decided by stored results; these are: {known}")
    return test


def _family(test: ClaimTest) -> tuple[tuple[str, str], ...]:
    """The pairs of all claims that rest on the same section: they are corrected together."""
    tests = [claim.test for claim in all_claims() if claim.test]
    same = [t for t in tests if (t.study, t.section) == (test.study, test.section)]
    return tuple(dict.fromkeys(pair for t in same for pair in t.pairs))


class Judge:
    """Evaluates claims on the stored results; each table is read once.

    Args:
        log: takes the line that says why a section is not used.
    """

    def __init__(self, log: Callable[[str], None] = print) -> None:
        self._log = log
        self._sections: dict[str, StoredSections] = {}

    def sections(self, study: str) -> StoredSections:
        """The stored sections of a study."""
        return self._sections.setdefault(study, StoredSections(study, self._log))

    def has_results(self, key: str) -> bool:
        """Whether the section of a claim is complete; where not, a line says why.

        Args:
            key: of the claim.

        Raises:
            InputError: no such claim, or one that stored results do not decide.
        """
        test = find_test(key)
        return self.sections(test.study).is_complete(test.section)

    def items(self, key: str) -> pd.DataFrame:
        """The items that decide a claim, of the tasks that all methods of its family share.

        Args:
            key: of the claim.

        Raises:
            InputError: as `has_results`; or a section is not complete.
        """
        test = find_test(key)
        items = self.sections(test.study)[test.section].pooled
        methods = {method for pair in _family(test) for method in pair}
        tasks = [set(items.loc[items["method"] == m, "task"].unique()) for m in methods]
        shared: pd.DataFrame = items[items["task"].isin(set.intersection(*tasks))]
        return shared.reset_index(drop=True)

    def comparisons(self, key: str) -> tuple[Comparison, ...]:
        """The comparisons of a claim; none while its section is incomplete.

        Claims that rest on the same section are one family of tests, corrected together.

        Args:
            key: of the claim.

        Raises:
            InputError: as `has_results`.
        """
        if not self.has_results(key):
            return ()
        test = find_test(key)
        family = compare_family(self.items(key), _family(test))
        return tuple(c for c in family if (c.method, c.baseline) in test.pairs)

    def provenance(self, key: str) -> dict[str, Any]:
        """Where a figure of a claim's comparisons comes from, for `publish.display.show`.

        Args:
            key: of the claim.

        Raises:
            InputError: as `has_results`; or a section is not complete.
        """
        test = find_test(key)
        return self.sections(test.study).provenance(test.section)

    def evaluate(self, key: str) -> list[Record]:
        """One record per comparison of a claim; none while its section is incomplete.

        Args:
            key: of the claim.

        Raises:
            InputError: as `has_results`.
        """
        test = find_test(key)
        return [
            Record(
                claim=key,
                verdict=verdict(comparison, test.margin).word,
                value=comparison.estimate * test.unit.factor,
                low=comparison.low * test.unit.factor,
                high=comparison.high * test.unit.factor,
                unit=test.unit.name,
                detail=comparison_label(comparison.method, comparison.baseline),
                rows=f"data/results/{test.study}/{test.section}",
                run_ids=comparison.run_ids,
                note=_control_vs_kd(self.items(key), comparison, test.unit),
            )
            for comparison in self.comparisons(key)
        ]


def _control_vs_kd(items: pd.DataFrame, comparison: Comparison, unit: Unit) -> str:
    """How a control compares with KD: beating a control that is worse than KD shows nothing."""
    if term_of(comparison.baseline) not in CONTROLS:
        return ""
    control = compare(items, comparison.baseline, KD)
    worse = f": {WORSE_THAN_KD}" if control.high < 0 else ""
    return f"the control over KD: {unit.format_difference(control)}{worse}"
