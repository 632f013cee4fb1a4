"""Answers in a sentence: the rule's word, the number with its interval, what would settle it."""

from collections.abc import Iterable, Mapping, Sequence

from geodistill.analysis.figures.style import look
from geodistill.analysis.report.format import Unit
from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.verdict import BETTER, CANNOT_TELL, EQUIVALENT, WORSE, verdict

GAIN = {BETTER: "better", WORSE: "worse", EQUIVALENT: "as good within the margin"}
CHANGE = {BETTER: "larger", WORSE: "smaller", EQUIVALENT: "the same within the margin"}
"""Words for a difference of scores, and for one of gains."""


def say(
    answer: Comparison,
    margin: float,
    unit: Unit,
    words: Mapping[str, str] = GAIN,
    settle: bool = True,
) -> str:
    """One comparison as a clause of a sentence.

    Args:
        answer: corrected or not; its p-value for the verdict is used.
        margin: the least difference that matters, in the score's unit.
        unit: of the numbers.
        words: for the verdicts that are one.
        settle: whether to say what would settle an open question.
    """
    given = verdict(answer, margin)
    word = words.get(given.word, CANNOT_TELL)
    less = ", by less than the margin" if given.by_less else ""
    number = f"{unit.show(answer.estimate)} {unit.name} ({unit.interval(answer)})"
    open_ = f", it would take {given.settle}" if settle and given.settle else ""
    return f"**{word}**{less}, {number}{open_}"


def say_each(
    answers: Iterable[Comparison], margin: float, unit: Unit, words: Mapping[str, str] = GAIN
) -> str:
    """Several comparisons, each by its method's name, and their seeds and tasks; as `say`."""
    found = list(answers)
    told = "; ".join(f"{look(a.method).label}: {say(a, margin, unit, words)}" for a in found)
    return f"{told} ({whence(found)})"


def whence(answers: Sequence[Comparison]) -> str:
    """From how many seeds and which tasks some comparisons come."""
    counts = [a.n_seeds for a in answers]
    seeds = f"{min(counts)}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    tasks = sorted({task for a in answers for task in a.tasks})
    return f"{seeds} seeds; {', '.join(tasks)}"


def sentence(text: str) -> str:
    """The text with a capital at its start and a full stop at its end."""
    return f"{text[:1].upper()}{text[1:]}."
