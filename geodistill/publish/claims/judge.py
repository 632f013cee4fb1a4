"""The claims under test, as data, and the verdicts that stored rows give on them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from geodistill.analysis.figures.style import versus
from geodistill.analysis.report.format import NATS, POINTS, Unit
from geodistill.analysis.stats.compare import Comparison, compare, compare_family
from geodistill.analysis.stats.verdict import CANNOT_TELL, WORDS, verdict
from geodistill.analysis.stored_results import Table, load_items, load_rows, read_stored
from geodistill.errors import InputError
from geodistill.experiments import protocol_grid

HOLDS, FAILS = "holds", "does not hold"
VERDICTS = (*WORDS, HOLDS, FAILS)
YET = f"{CANNOT_TELL} yet"
EXPLORATORY, PRIMARY = "exploratory", "primary"


@dataclass(frozen=True)
class StoredTest:
    """A family of comparisons on committed item scores, pooled over the study's tasks.

    study: name of the protocol and of the folder of its rows; exploratory rows stand in for the
    primary section until the `sections` are whole; those after the first hold controls.
    pairs: (method, baseline), corrected together by Holm; margin: the least difference that
    matters, in the item score's unit; grid: the command that makes the rows, but for the section.
    """

    study: str
    pairs: tuple[tuple[str, str], ...]
    margin: float
    unit: Unit
    grid: str
    sections: tuple[str, ...] = (PRIMARY,)

    def rows(self, results: Path) -> tuple[str, ...]:
        """The folders under `results` that decide; none where a later question has no rows yet."""
        own = tuple(f"{self.study}/{section}" for section in self.sections)
        if all(_whole(results / folder, self.study) for folder in own):
            return own
        return (f"{EXPLORATORY}/{self.study}",) if PRIMARY in self.sections else ()

    def source(self, results: Path) -> dict[str, str]:
        """What a figure of these rows says of where they come from."""
        folders = self.rows(results)
        commands = [f"{self.grid} --section {name}" for name in self.sections]
        if folders[0].startswith(EXPLORATORY):
            commands = [self.grid]
        return {
            "source": "stored",
            "made_by": " && ".join(commands),
            "rows": ", ".join(f"data/results/{folder}/items.parquet" for folder in folders),
        }

    def pairs_in(self, items: pd.DataFrame) -> tuple[tuple[str, str], ...]:
        """The pairs that were run: exploratory rows may lack a method, a protocol's must not.

        Raises:
            InputError: none of the pairs was run.
        """
        ran = set(items["method"])
        found = tuple(pair for pair in self.pairs if set(pair) <= ran)
        if not found:
            asked = ", ".join(sorted({name for pair in self.pairs for name in pair}))
            raise InputError(f"the rows hold {', '.join(sorted(ran))}; asked were {asked}")
        return found

    def items(self, results: Path) -> Table:
        """The items of all methods, in the tasks that the protocol pools and the asked ones share.

        A control, which is run at several factors, counts at that of the method it controls.

        Raises:
            InputError: rows that are missing or unfit.
        """
        folders = self.rows(results)
        if folders[0].startswith(EXPLORATORY):
            return load_items(results / folders[0])
        first, *controls = (results / folder for folder in folders)
        rows = load_rows(first).frame
        factor = rows.loc[rows["method"] == self.pairs[0][0], "factor"].iloc[0]
        tables = [load_items(first), *(load_items(one, {"factor": factor}) for one in controls)]
        frame = pd.concat([table.frame for table in tables], ignore_index=True)
        asked = {name for pair in self.pairs for name in pair}
        tasks = [set(frame.loc[frame["method"] == name, "task"]) for name in asked]
        shared = set.intersection(set(protocol_grid.protocol(self.study)["pooled"]), *tasks)
        left = Counter[str]()
        for table in tables:
            left.update(table.left_out)
        return Table(frame[frame["task"].isin(shared)].reset_index(drop=True), dict(left))


def _whole(folder: Path, study: str) -> bool:
    """Whether every method of a section has all its seeds in `folder`, in some task at least.

    Which tasks remain is for the tuning to say; a grid makes the seeds one after another. (A page
    asks `Sections.whole`, which knows every planned run, but takes torch to load.)
    """
    if not (folder / "items.parquet").is_file():
        return False
    spec = protocol_grid.protocol(study)["grid"][folder.name]
    runs = read_stored(folder / "rows.parquet", ["task", "method", "seed", "factor"])
    asked = spec.get("factors", spec.get("weights"))  # as each study calls them
    given = asked if asked != protocol_grid.CHOSEN else [1]
    made = runs.drop_duplicates().groupby(["method", "task", "seed"]).size()
    for method in spec["methods"]:
        trials = len(given) if "+" in method else 1
        cells = pd.MultiIndex.from_product([[method], runs["task"].unique(), spec["seeds"]])
        if (made.reindex(cells, fill_value=0) < trials).any():
            return False
    return True


@dataclass(frozen=True)
class Claim:
    """One line of the ledger: what is claimed, by whom, how we test it, and on which page.

    page: stem of the notebook that records the verdict; stored: set where it comes from rows.
    """

    key: str
    whose: str
    statement: str
    test: str
    page: str
    stored: StoredTest | None = None


@dataclass(frozen=True)
class Record:
    """A verdict as a notebook's cell recorded it; value, low, high in `unit`, None if unsaid.

    note: what the reader has to know beside it, as how a control by itself stands to KD.
    """

    claim: str
    verdict: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    detail: str = ""
    rows: str = ""
    run_ids: tuple[str, ...] = field(default=())
    note: str = ""

    def __post_init__(self) -> None:
        claim(self.claim)
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
        shown = f"{self.value:.3g}"
        if self.low is not None and self.high is not None:
            digits = _decimals(self.high - self.low)
            low, value, high = (f"{x:+.{digits}f}" for x in (self.low, self.value, self.high))
            shown = f"{value} ({low} to {high})"
        return f"{shown} {self.unit}".strip()


def _decimals(width: float) -> int:
    return max(0, 1 - math.floor(math.log10(width))) if width > 0 else 3


BERT, OPT = "classification", "instruction"
KD, PROCRUSTES, GRAM = "kd", "kd+procrustes", "kd+gram"
AGAINST_CONTROLS = tuple(
    (PROCRUSTES, control) for control in ("kd+procrustes-shuffled", "kd+spectrum", "kd+isotropy")
)
HARM = "it does harm of its own"
_SECONDARY = "Secondary: corrected within this line, in no confirmatory family."
_BEATS_CONTROLS = (
    "Procrustes beats the same term on shuffled rows, its spectrum part, which knows no rows, and "
    "isotropy, which knows no teacher."
)


def _bert(*pairs: tuple[str, str], sections: tuple[str, ...] = (PRIMARY,)) -> StoredTest:
    return StoredTest(BERT, pairs, 0.01, POINTS, "geodistill grid classification", sections)


def _opt(*pairs: tuple[str, str], sections: tuple[str, ...] = (PRIMARY,)) -> StoredTest:
    return StoredTest(OPT, pairs, 0.05, NATS, "geodistill grid instruction", sections)


_ON_BERT = "Accuracy of a narrow BERT student taught by few labelled sentences, tasks pooled"
_ON_OPT = (
    "Log-likelihood per token of held-out answers, by an untrained student of OPT's architecture "
    "(about 11 million parameters) whose teacher is SmolLM2-135M-Instruct with an adapter; the "
    "paper's are trained OPT models"
)
CLAIMS: tuple[Claim, ...] = (
    Claim(
        "C1",
        "paper",
        "A projection loss or CKA can be nearly perfect while the student has lost the teacher's "
        "feature geometry.",
        "Constructed pairs with exact values, and the bounds that say how near.",
        "01_theory",
    ),
    Claim(
        "C2",
        "paper",
        "The Procrustes distance and the distance of feature Gram matrices vanish together, "
        "exactly where the geometry is the same.",
        "Zero sets on constructed pairs, two-sided bounds on random ones.",
        "01_theory",
    ),
    Claim(
        "C3a",
        "paper",
        "Students trained on CKA or a learned projection reach a low loss and lose the geometry.",
        "Synthetic teachers of controlled orthogonality, free students, each loss optimised.",
        "03_synthetic",
    ),
    Claim(
        "C3b",
        "paper",
        "Students trained on the Procrustes distance keep the geometry.",
        "The same students, by geometry kept.",
        "03_synthetic",
    ),
    Claim(
        "C3c",
        "paper",
        "Random students gain little orthogonality from CKA or a projection.",
        "The same students: how far they go toward the teacher's nearly orthogonal vectors.",
        "03_synthetic",
    ),
    Claim(
        "C4a",
        "paper",
        "A Procrustes or Gram term improves BERT classification over distilling logits alone (KD).",
        f"{_ON_BERT}.",
        "06_significance",
        _bert((PROCRUSTES, KD), (GRAM, KD)),
    ),
    Claim(
        "C4b",
        "paper",
        "On BERT classification those terms do better than a learned projection and than CKA.",
        f"{_ON_BERT}. {_SECONDARY}",
        "06_significance",
        _bert(
            *(
                (ours, f"kd+{rival}")
                for ours in (PROCRUSTES, GRAM)
                for rival in ("projection", "cka")
            )
        ),
    ),
    Claim(
        "P1-bert",
        "ours",
        f"On BERT classification it is where the teacher's rows lie that helps: {_BEATS_CONTROLS}",
        f"{_ON_BERT}, against the controls at the same weight. {_SECONDARY}",
        "06_significance",
        _bert(*AGAINST_CONTROLS, sections=(PRIMARY, "placebos")),
    ),
    Claim(
        "P2-bert",
        "ours",
        "With a BERT student that is pretrained, Procrustes beats KD, the same term on shuffled "
        "rows, and its spectrum part, which knows no rows.",
        "Accuracy of three layers of the model that the teacher was fine-tuned from, taught by few "
        "labelled sentences, tasks pooled; against the controls at the same weight. "
        f"{_SECONDARY} Its runs were planned before they were made, this line was written after.",
        "06_significance",
        _bert((PROCRUSTES, KD), *AGAINST_CONTROLS[:2], sections=("pretrained",)),
    ),
    Claim(
        "P3-bert",
        "ours",
        "In a short training (five epochs, not fifteen) Procrustes improves BERT classification "
        "over KD, and more than CKA, a learned projection and the PCA target do.",
        f"{_ON_BERT}, on seeds that no such run had: earlier rows had suggested the "
        f"question. {_SECONDARY}",
        "06_significance",
        _bert(
            *((PROCRUSTES, name) for name in (KD, "kd+cka", "kd+projection", "kd+pca")),
            sections=("short",),
        ),
    ),
    Claim(
        "C5",
        "paper",
        "A Procrustes term improves instruction following of OPT students over KD. (The Gram term "
        "is in the same family of tests.)",
        f"{_ON_OPT}.",
        "06_significance",
        _opt((PROCRUSTES, KD), (GRAM, KD)),
    ),
    Claim(
        "P1-opt",
        "ours",
        "In instruction following it is where the teacher's rows lie that helps: "
        f"{_BEATS_CONTROLS}",
        f"{_ON_OPT}; against the controls at the same weight. {_SECONDARY}",
        "06_significance",
        _opt(*AGAINST_CONTROLS, sections=(PRIMARY, "controls")),
    ),
    Claim(
        "P2-opt",
        "ours",
        "In a short training on instructions (half as many steps, of larger batches) it is where "
        f"the teacher's rows lie that helps: {_BEATS_CONTROLS}",
        f"{_ON_OPT}; against the controls at the same weight, on seeds set aside for this "
        "question, which earlier rows had suggested.",
        "06_significance",
        _opt(*AGAINST_CONTROLS, sections=("large-batch",)),
    ),
)


def claim(key: str) -> Claim:
    """The claim of that key; InputError with the known keys if there is none."""
    for candidate in CLAIMS:
        if candidate.key == key:
            return candidate
    raise InputError(f"unknown claim {key!r}; known: {', '.join(c.key for c in CLAIMS)}")


def answers(key: str, results: Path) -> tuple[Comparison, ...]:
    """The comparisons that claim `key` asks for, on the rows under `results`; () without any.

    Raises:
        InputError: a claim that stored rows do not decide, or rows that are missing or unfit.
    """
    return _compared(decided_by(key), results)[1]


def judge(key: str, results: Path) -> Iterator[Record]:
    """One record a comparison of claim `key`, computed from the rows under `results`."""
    test = decided_by(key)
    rows = ", ".join(f"data/results/{folder}" for folder in test.rows(results))
    items, found = _compared(test, results)
    for answer in found:
        yield Record(
            claim=key,
            verdict=verdict(answer, test.margin).word,
            value=answer.estimate * test.unit.factor,
            low=answer.low * test.unit.factor,
            high=answer.high * test.unit.factor,
            unit=test.unit.name,
            detail=versus(answer.method, answer.baseline),
            rows=rows,
            run_ids=answer.run_ids,
            note=_alone(items, answer, test.unit),
        )


def _compared(test: StoredTest, results: Path) -> tuple[pd.DataFrame, tuple[Comparison, ...]]:
    """The items of a test, and its comparisons on them; none where no rows decide yet."""
    if not test.rows(results):
        return pd.DataFrame(), ()
    items = test.items(results).frame
    return items, compare_family(items, test.pairs_in(items))


def _alone(items: pd.DataFrame, answer: Comparison, unit: Unit) -> str:
    """How a control stands to KD by itself: to beat one that does harm shows nothing."""
    if (answer.method, answer.baseline) not in AGAINST_CONTROLS or KD not in set(items["method"]):
        return ""
    own = compare(items, answer.baseline, KD)
    harm = f": {HARM}" if own.high < 0 else ""
    return f"the control over KD: {unit.show(own.estimate)} ({unit.interval(own)}){harm}"


def decided_by(key: str) -> StoredTest:
    """The test of claim `key`; InputError where stored rows do not decide it."""
    test = claim(key).stored
    if test is None:
        known = ", ".join(c.key for c in CLAIMS if c.stored)
        raise InputError(f"claim {key} is not decided by stored rows; these are: {known}")
    return test
