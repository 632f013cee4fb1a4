"""The answer to a chapter's two questions, from its tests: is there a gain, and is it the geometry?

An ordered rule, so that no reading of the numbers comes in between:

1. The method against the baseline, by the verdict of its family: better (by less than the margin or
   not) is a gain; anything else is none, or none that is known.
2. With a gain: the method against each control, which shares all but the thing asked about. Better
   than every control: the gain needs what the controls lack. Equivalent to one, or worse: that
   control brings as much. Else it is open.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from geodistill.analysis.figures.style import look, versus
from geodistill.analysis.report.format import Unit, say_p
from geodistill.analysis.report.gain_tables import said
from geodistill.analysis.stats.compare import Comparison
from geodistill.analysis.stats.verdict import BETTER, CANNOT_TELL, EQUIVALENT, WORSE, verdict


@dataclass(frozen=True)
class Conclusion:
    """gain: answer to the first question; geometry: to the second; still_open: what would settle
    each "cannot tell"; evidence: a line a comparison, with interval, p and word.
    """

    gain: str
    geometry: str
    still_open: tuple[str, ...]
    evidence: tuple[str, ...]

    def __str__(self) -> str:
        """As Markdown."""
        lines = [f"**Is there a gain?** {self.gain}", f"**Is it the geometry?** {self.geometry}"]
        listed = [f"- {line}" for line in (*self.evidence, *self.still_open)]
        return "\n\n".join([*lines, "\n".join(listed)])


def conclude(
    gain: Comparison,
    others: Sequence[Comparison],
    controls: Sequence[Comparison],
    margin: float,
    unit: Unit,
) -> Conclusion:
    """The rule above.

    Args:
        gain: the method against the baseline, in its family.
        others: the rest of that family; evidence only.
        controls: the same method against each control, at its weight.
        margin: the least difference that matters, in the score's unit.
        unit: of the score.
    """
    every = [gain, *others, *controls]
    return Conclusion(
        _of_gain(gain, margin),
        " ".join([_of_geometry(gain, controls, margin), *_left(gain, controls, margin, unit)]),
        tuple(line for answer in every if (line := _settled_by(answer, margin))),
        tuple(_evidence(answer, margin, unit) for answer in every),
    )


def _of_gain(answer: Comparison, margin: float) -> str:
    given = verdict(answer, margin)
    name, base = look(answer.method).label, look(answer.baseline).label
    less = ", but by less than the margin that we call of practical weight"
    return {
        BETTER: f"Yes: {name} is better than {base}{less if given.by_less else ''}.",
        WORSE: f"No: {name} is worse than {base}{less if given.by_less else ''}.",
        EQUIVALENT: f"No: {name} and {base} differ by less than the margin, if at all.",
        CANNOT_TELL: f"These rows cannot tell {name} from {base}.",
    }[given.word]


def _of_geometry(gain: Comparison, controls: Sequence[Comparison], margin: float) -> str:
    terms = [a.baseline.partition("+")[2] or a.baseline for a in controls]
    found = {f"*{look(t).label}*": verdict(a, margin) for t, a in zip(terms, controls, strict=True)}
    enough = [name for name, given in found.items() if given.word in (EQUIVALENT, WORSE)]
    unsure = [name for name, given in found.items() if given.word == CANNOT_TELL]
    told = "; ".join(f"against {name}: {given}" for name, given in found.items())
    if not controls:
        return "Not asked: the runs of the controls are not all made."
    base, known = look(gain.baseline).label, verdict(gain, margin).word
    if known == CANNOT_TELL:
        return f"A gain over {base} is not shown, so whose it would be stays open ({told})."
    if known != BETTER:
        return f"With no gain over {base} there is none to explain ({told})."
    if enough:
        bring = "brings" if len(enough) == 1 else "bring"
        return f"Not by itself: {_and(enough)} {bring} as much ({told})."
    if unsure:
        return f"Open: {_and(unsure)} may bring as much ({told})."
    return f"Yes, as far as these controls go: none of them brings as much ({told})."


def _left(gain: Comparison, controls: Sequence[Comparison], margin: float, unit: Unit) -> list[str]:
    """How much of a gain is what a control lacks: at least, where it is beaten, else at most."""
    if verdict(gain, margin).word != BETTER or not controls:
        return []
    bounds = []
    for answer in controls:
        name = look(answer.baseline.partition("+")[2]).label
        if verdict(answer, margin).word == BETTER:
            bounds.append(f"at least {unit.show(answer.low)} (*{name}*)")
        else:
            bounds.append(f"at most {unit.show(max(0.0, answer.high))} (*{name}*)")
    return [
        f"Of the gain of {unit.show(gain.estimate)} {unit.name}, what a control lacks is "
        f"{_and(bounds)}, by the ends of the 95 % intervals."
    ]


def _settled_by(answer: Comparison, margin: float) -> str:
    given = verdict(answer, margin)
    if given.word != CANNOT_TELL:
        return ""
    return f"{versus(answer.method, answer.baseline)} would be settled by {given.settle}."


def _evidence(answer: Comparison, margin: float, unit: Unit) -> str:
    given = verdict(answer, margin)
    return (
        f"{versus(answer.method, answer.baseline)}: {said(answer, unit)} {unit.name}, "
        f"{say_p(answer.p_decisive)} ({answer.correction}), "
        f"P(better in one new pair of runs) = {answer.p_better:.2f}: **{given}**."
    )


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
