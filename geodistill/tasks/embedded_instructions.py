"""The embedded instruction set: questions whose short answers the human ratings decide.

Each template asks about one, two or three of the rated texts of :mod:`geodistill.tasks.sentiment`.
A text has a *level* from -2 to 2, the band of its mean rating; ratings between the bands are not
used, so that every answer has a margin. A template is a wording and a function from levels to the
answer. Answers take turns, so that the most frequent answer of a template scores no better than
chance.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from geodistill.tasks import sentiment
from geodistill.tasks.base import Row, fraction, split_of
from geodistill.tasks.sentiment import Rated

BANDS = {-2: (-4.0, -2.0), -1: (-1.5, -0.7), 0: (-0.2, 0.2), 1: (0.7, 1.5), 2: (2.0, 4.0)}
"""Level: lowest and highest mean rating, both included."""
PER_TEMPLATE = {"train": 270, "validation": 16, "test": 27}
KIND = {
    "movie": "movie review",
    "product": "product review",
    "news": "editorial",
    "tweets": "tweet",
}
ALONE = ("movie", "tweets")
"""Sets whose texts have a source of their own: only they stand in questions on several texts, so
that a test prompt shares its source with no other and intervals can be clustered by it."""
LONGEST = 110
"""Characters of a text; three of them and a question stay below 420."""
UNWANTED = re.compile(
    r"^\d+[.)]|http|@|&|fuck|shit|bitch|cunt|slut|whore|nigg|\bfags?\b|\bass\b", re.I
)
"""Numbered lines, addresses, and words that we would rather not print in a book."""


@dataclass(frozen=True)
class Template:
    """A wording with ``{kind}``, ``{a}``, ``{b}``, ``{c}`` and the answer as a function of levels.

    ``answer`` returns ``None`` for levels that do not fit the question; an answer may quote a text
    as ``"{a}"``. ``texts`` is the number of texts, ``levels`` those that are tried for each.
    """

    name: str
    texts: int
    prompt: str
    answer: Callable[..., str | None]
    levels: tuple[int, ...] = (-2, -1, 1, 2)

    def cases(self) -> dict[str, list[tuple[int, ...]]]:
        """For each answer the levels that call for it, in a fixed order."""
        found: dict[str, list[tuple[int, ...]]] = defaultdict(list)
        for levels in product(self.levels, repeat=self.texts):
            answer = self.answer(*levels)
            if answer is not None:
                found[answer].append(levels)
        return dict(sorted(found.items()))


def _word(a: int) -> str:
    return "positive" if a > 0 else "negative"


def _odd(*x: int) -> str | None:
    """The place of the one text whose sign differs from the two others'."""
    positive = [level > 0 for level in x]
    odd = [place for place in range(3) if positive.count(positive[place]) == 1]
    return str(odd[0] + 1) if odd else None


def _strongest(*x: int) -> str | None:
    strong = [place for place in range(3) if abs(x[place]) == 2]
    return f"text {strong[0] + 1}" if len(strong) == 1 else None


def _order(*x: int) -> str | None:
    if len(set(x)) < 3:
        return None
    return ", ".join(str(place + 1) for place in sorted(range(3), key=lambda place: x[place]))


ONE, TWO, THREE = "\n{a}", "\n1. {a}\n2. {b}", "\n1. {a}\n2. {b}\n3. {c}"
STARS = {-2: "one star", -1: "two stars", 1: "four stars", 2: "five stars"}
BAND = {-2: "very negative", -1: "negative", 1: "positive", 2: "very positive"}
THINKS = {-2: "very badly", -1: "badly", 1: "well", 2: "very well"}
COUNT = ("none", "one", "two", "three")
TEMPLATES = (
    Template("label", 1, "Is this {kind} positive or negative?" + ONE, _word),
    Template(
        "pleased",
        1,
        "Does the writer of this {kind} sound pleased? Answer yes or no." + ONE,
        lambda a: "yes" if a > 0 else "no",
    ),
    Template(
        "critical",
        1,
        "{a}\nIs this {kind} critical of what it speaks about? Answer yes or no.",
        lambda a: "yes" if a < 0 else "no",
    ),
    Template(
        "three_way",
        1,
        "Is the opinion in this {kind} positive, negative or neutral?" + ONE,
        lambda a: _word(a) if a else "neutral",
        levels=(-2, -1, 0, 1, 2),
    ),
    Template(
        "band",
        1,
        "Choose what fits this {kind}: very negative, negative, positive, very positive." + ONE,
        BAND.get,
    ),
    Template(
        "stars",
        1,
        "{a}\nHow many stars would the writer of this {kind} give: one, two, four or five?",
        STARS.get,
    ),
    Template(
        "strength",
        1,
        "Is the feeling in this {kind} strong or mild?" + ONE,
        lambda a: "strong" if abs(a) == 2 else "mild",
    ),
    Template(
        "thinks",
        1,
        "What does the writer of this {kind} think of it? Answer in one sentence." + ONE,
        lambda a: f"The writer thinks {THINKS[a]} of it.",
    ),
    Template(
        "finish",
        1,
        "{a}\nFinish the sentence: Whoever wrote this {kind} would call it",
        lambda a: "a good thing." if a > 0 else "a bad thing.",
    ),
    Template(
        "more_positive",
        2,
        "Which text is more positive, 1 or 2?" + TWO,
        lambda a, b: None if a == b else "1" if a > b else "2",
    ),
    Template(
        "more_negative",
        2,
        "Here are two texts." + TWO + "\nWhich one is more negative, the first or the second?",
        lambda a, b: None if a == b else "the first" if a < b else "the second",
    ),
    Template(
        "same_opinion",
        2,
        "Do these two texts hold the same opinion, good or bad, or a different one?" + TWO,
        lambda a, b: "the same" if a * b > 0 else "a different one",
    ),
    Template(
        "claim",
        2,
        "True or false: text 1 is more negative than text 2." + TWO,
        lambda a, b: None if a == b else "true" if a < b else "false",
    ),
    Template(
        "both",
        2,
        "Say of each text whether it is positive or negative." + TWO,
        lambda a, b: f"The first is {_word(a)}, the second is {_word(b)}.",
    ),
    Template(
        "copy_positive",
        2,
        "Copy the text that is positive." + TWO,
        lambda a, b: None if a * b > 0 else "{a}" if a > 0 else "{b}",
    ),
    Template("odd_one_out", 3, "Two of these texts agree. Which is the odd one out?" + THREE, _odd),
    Template("strongest", 3, "Which of these texts has the strongest feeling?" + THREE, _strongest),
    Template(
        "count",
        3,
        "How many of these texts are positive: none, one, two or three?" + THREE,
        lambda *x: COUNT[sum(level > 0 for level in x)],
    ),
    Template(
        "order", 3, "Order these texts from the most negative to the most positive." + THREE, _order
    ),
)


def rows(side: str) -> Iterator[Row]:
    """The prompts of one side (``"train"``, ``"validation"``, ``"test"``).

    Templates take turns, so that the first ``n`` rows are a balanced smaller set.
    """
    deck = _Deck(usable_texts(side))
    choices = [(template, list(template.cases().items())) for template in TEMPLATES]
    for i in range(PER_TEMPLATE[side]):
        for template, cases in choices:
            turn, place = divmod(i, len(cases))
            answer, fitting = cases[place]
            levels = fitting[turn % len(fitting)]
            texts = [deck.draw(level, alone=template.texts > 1) for level in levels]
            yield _row(template, answer, texts, item=f"{template.name}/{side}/{i}")


def _row(template: Template, answer: str, texts: Sequence[Rated], item: str) -> Row:
    fields = dict(zip("abc", (text.text for text in texts), strict=False))
    return {
        "item": item,
        "source": " ".join(sorted({text.source for text in texts})),
        "template": template.name,
        "prompt": template.prompt.format(kind=KIND[texts[0].domain], **fields),
        "completion": answer.format(**fields),
    }


def usable_texts(side: str) -> list[Rated]:
    """The rated texts of one side that may stand in a prompt, in an order fixed by their ids.

    A side is that of the classification tasks. Texts that occur in two sets are left out: their
    sides could differ. Of a source with rewritten variants one text is taken.
    """
    every = [rated for name in sentiment.FILES for rated in sentiment.rated_texts(name)]
    domains: dict[str, set[str]] = defaultdict(set)
    for rated in every:
        domains[rated.gist].add(rated.domain)
    kept: dict[str, Rated] = {}
    for rated in sorted(every, key=lambda rated: fraction(f"deck:{rated.item}")):
        text = re.sub(r"^(RT\s+)?(@anonymous[\s:]*)+", "", rated.text)
        unique = len(domains[rated.gist]) == 1
        if unique and _fits(text) and _side(rated) == side:
            key = rated.source if rated.domain in ALONE else rated.item
            kept.setdefault(key, replace(rated, text=text))
    return list(kept.values())


def _fits(text: str) -> bool:
    return 20 <= len(text) <= LONGEST and len(text.split()) > 3 and not UNWANTED.search(text)


def _side(rated: Rated) -> str:
    return split_of(rated.source, test=sentiment.TEST, validation=sentiment.VALIDATION)


class _Deck:
    """Texts by level, each drawn once before any is drawn again."""

    def __init__(self, texts: Sequence[Rated]) -> None:
        self.full = {
            level: [text for text in texts if low <= text.rating <= high]
            for level, (low, high) in BANDS.items()
        }
        self.left = {level: list(texts) for level, texts in self.full.items()}

    def draw(self, level: int, *, alone: bool) -> Rated:
        pile = self.left[level]
        place = next((i for i, text in enumerate(pile) if not alone or text.domain in ALONE), None)
        if place is None:
            self.left[level] = list(self.full[level])
            return self.draw(level, alone=alone)
        return pile.pop(place)
