"""The embedded instruction set: questions with short answers that human ratings decide.

Each template asks about one, two or three of the rated texts of `geodistill.tasks.sentiment`. A
text has a *level* from -2 to 2, the band of its mean rating; ratings between the bands are not
used, so that every answer has a margin. A template is a wording and a function from levels to the
answer. The answers of a template alternate, so that its most frequent answer scores no better than
chance.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from geodistill.tasks import sentiment
from geodistill.tasks.base import Row, hash_to_unit, pair_row, split_of
from geodistill.tasks.sentiment import RatedText

RATING_BANDS = {-2: (-4.0, -2.0), -1: (-1.5, -0.7), 0: (-0.2, 0.2), 1: (0.7, 1.5), 2: (2.0, 4.0)}
"""Lowest and highest mean rating of each level, both included."""
PROMPTS_PER_TEMPLATE = {"train": 270, "validation": 16, "test": 27}
TEXT_TYPE = {
    "movie": "movie review",
    "product": "product review",
    "news": "editorial",
    "tweets": "tweet",
}
SINGLE_TEXT_GROUPS = ("movie", "tweets")
"""Sets whose texts are groups of their own. Only these are used in questions on several texts, so
that a test prompt shares its group with no other and intervals can be clustered by it."""
VALIDATION = 0.08
"""Expected share of the groups in the validation split."""
MAX_CHARACTERS = 110
"""Of a text; three of them and a question stay below 420."""
EXCLUDED = re.compile(
    r"^\d+[.)]|http|@|&|fuck|shit|bitch|cunt|slut|whore|nigg|\bfags?\b|\bass\b", re.I
)
"""Numbered lines, addresses, and words unfit for a book."""


@dataclass(frozen=True)
class Template:
    """A type of question.

    Attributes:
        name: of the template.
        prompt: wording with the fields `{kind}`, `{a}`, `{b}` and `{c}`.
        answer: the answer to texts of given levels, or None if the question does not fit them; it
            may quote a text as "{a}".
        levels: levels that a text may have.
    """

    name: str
    prompt: str
    answer: Callable[..., str | None]
    levels: tuple[int, ...]

    @property
    def n_texts(self) -> int:
        """Number of texts in the question."""
        return sum(field in self.prompt for field in ("{a}", "{b}", "{c}"))

    def levels_by_answer(self) -> dict[str, list[tuple[int, ...]]]:
        """For each answer the levels of texts that lead to it, in a fixed order."""
        by_answer: dict[str, list[tuple[int, ...]]] = defaultdict(list)
        for levels in product(self.levels, repeat=self.n_texts):
            answer = self.answer(*levels)
            if answer is not None:
                by_answer[answer].append(levels)
        return dict(sorted(by_answer.items()))


def _polarity(level: int) -> str:
    return "positive" if level > 0 else "negative"


def _odd_one_out(*levels: int) -> str | None:
    """The number of the one text of three whose sign differs from the others'."""
    positive = [level > 0 for level in levels]
    odd = [i for i in range(3) if positive.count(positive[i]) == 1]
    return str(odd[0] + 1) if odd else None


def _strongest(*levels: int) -> str | None:
    strong = [i for i in range(3) if abs(levels[i]) == 2]
    return f"text {strong[0] + 1}" if len(strong) == 1 else None


def _order(*levels: int) -> str | None:
    if len(set(levels)) < 3:
        return None
    return ", ".join(str(i + 1) for i in sorted(range(3), key=lambda i: levels[i]))


ONE_TEXT, TWO_TEXTS, THREE_TEXTS = "\n{a}", "\n1. {a}\n2. {b}", "\n1. {a}\n2. {b}\n3. {c}"
PROMPTS = {
    "label": "Is this {kind} positive or negative?" + ONE_TEXT,
    "pleased": "Does the writer of this {kind} sound pleased? Answer yes or no." + ONE_TEXT,
    "critical": "{a}\nIs this {kind} critical of what it speaks about? Answer yes or no.",
    "three_way": "Is the opinion in this {kind} positive, negative or neutral?" + ONE_TEXT,
    "band": "Choose what fits this {kind}: very negative, negative, positive, very positive.\n{a}",
    "stars": "{a}\nHow many stars would the writer of this {kind} give: one, two, four or five?",
    "strength": "Is the feeling in this {kind} strong or mild?" + ONE_TEXT,
    "thinks": "What does the writer of this {kind} think of it? Answer in one sentence.\n{a}",
    "finish": "{a}\nFinish the sentence: Whoever wrote this {kind} would call it",
    "more_positive": "Which text is more positive, 1 or 2?" + TWO_TEXTS,
    "more_negative": "Here are two texts."
    + TWO_TEXTS
    + "\nWhich one is more negative, the first or the second?",
    "same_opinion": "Do these two texts hold the same opinion, good or bad, or a different one?"
    + TWO_TEXTS,
    "claim": "True or false: text 1 is more negative than text 2." + TWO_TEXTS,
    "both": "Say of each text whether it is positive or negative." + TWO_TEXTS,
    "copy_positive": "Copy the text that is positive." + TWO_TEXTS,
    "odd_one_out": "Two of these texts agree. Which is the odd one out?" + THREE_TEXTS,
    "strongest": "Which of these texts has the strongest feeling?" + THREE_TEXTS,
    "count": "How many of these texts are positive: none, one, two or three?" + THREE_TEXTS,
    "order": "Order these texts from the most negative to the most positive." + THREE_TEXTS,
}
"""Wording of each template."""
STARS = {-2: "one star", -1: "two stars", 1: "four stars", 2: "five stars"}
BAND_NAME = {-2: "very negative", -1: "negative", 1: "positive", 2: "very positive"}
OPINION = {-2: "very badly", -1: "badly", 1: "well", 2: "very well"}
COUNT_WORD = ("none", "one", "two", "three")
ANSWERS: dict[str, Callable[..., str | None]] = {
    "label": _polarity,
    "pleased": lambda a: "yes" if a > 0 else "no",
    "critical": lambda a: "yes" if a < 0 else "no",
    "three_way": lambda a: _polarity(a) if a else "neutral",
    "band": BAND_NAME.get,
    "stars": STARS.get,
    "strength": lambda a: "strong" if abs(a) == 2 else "mild",
    "thinks": lambda a: f"The writer thinks {OPINION[a]} of it.",
    "finish": lambda a: "a good thing." if a > 0 else "a bad thing.",
    "more_positive": lambda a, b: None if a == b else "1" if a > b else "2",
    "more_negative": lambda a, b: None if a == b else "the first" if a < b else "the second",
    "same_opinion": lambda a, b: "the same" if a * b > 0 else "a different one",
    "claim": lambda a, b: None if a == b else "true" if a < b else "false",
    "both": lambda a, b: f"The first is {_polarity(a)}, the second is {_polarity(b)}.",
    "copy_positive": lambda a, b: None if a * b > 0 else "{a}" if a > 0 else "{b}",
    "odd_one_out": _odd_one_out,
    "strongest": _strongest,
    "count": lambda *levels: COUNT_WORD[sum(level > 0 for level in levels)],
    "order": _order,
}
"""Answer of each template as a function of the texts' levels."""
TEMPLATES = tuple(
    Template(
        name, prompt, ANSWERS[name], (-2, -1, 0, 1, 2) if name == "three_way" else (-2, -1, 1, 2)
    )
    for name, prompt in PROMPTS.items()
)


def rows(split: str) -> Iterator[Row]:
    """The prompts of one split ("train", "validation" or "test").

    Templates alternate, so that the first `n` rows are a balanced smaller set.
    """
    sampler = _TextSampler(usable_texts(split))
    cases = [(template, list(template.levels_by_answer().items())) for template in TEMPLATES]
    for i in range(PROMPTS_PER_TEMPLATE[split]):
        for template, answers in cases:
            cycle, index = divmod(i, len(answers))
            answer, possible_levels = answers[index]
            levels = possible_levels[cycle % len(possible_levels)]
            texts = [sampler.draw(level, single=template.n_texts > 1) for level in levels]
            yield _row(template, answer, texts, item=f"{template.name}/{split}/{i}")


def _row(template: Template, answer: str, texts: Sequence[RatedText], item: str) -> Row:
    fields = dict(zip("abc", (text.text for text in texts), strict=False))
    source = " ".join(sorted({text.source for text in texts}))
    prompt = template.prompt.format(kind=TEXT_TYPE[texts[0].domain], **fields)
    return pair_row(item, source, template.name, prompt, answer.format(**fields))


def usable_texts(split: str) -> list[RatedText]:
    """The rated texts of one split that may be used in a prompt, in the order of their ids' hash.

    The test texts are test texts of the classification tasks. Texts that occur in two sets are
    left out, as their splits could differ. One text is taken of each group of rewritten variants.
    """
    rated_texts = [rated for name in sentiment.FILES for rated in sentiment.rated_texts(name)]
    domains: dict[str, set[str]] = defaultdict(set)
    for rated in rated_texts:
        domains[rated.variant_key].add(rated.domain)
    usable: dict[str, RatedText] = {}
    for rated in sorted(rated_texts, key=lambda rated: hash_to_unit(f"deck:{rated.item}")):
        text = re.sub(r"^(RT\s+)?(@anonymous[\s:]*)+", "", rated.text)
        in_one_set = len(domains[rated.variant_key]) == 1
        text_split = split_of(rated.source, test=sentiment.TEST, validation=VALIDATION)
        if in_one_set and text_split == split and _is_usable(text):
            key = rated.source if rated.domain in SINGLE_TEXT_GROUPS else rated.item
            usable.setdefault(key, replace(rated, text=text))
    return list(usable.values())


def _is_usable(text: str) -> bool:
    return 20 <= len(text) <= MAX_CHARACTERS and len(text.split()) > 3 and not EXCLUDED.search(text)


class _TextSampler:
    """Draws texts by level, each once before any is drawn again."""

    def __init__(self, texts: Sequence[RatedText]) -> None:
        self.by_level = {
            level: [text for text in texts if low <= text.rating <= high]
            for level, (low, high) in RATING_BANDS.items()
        }
        self.remaining = {level: list(texts) for level, texts in self.by_level.items()}

    def draw(self, level: int, *, single: bool) -> RatedText:
        """The next text of a level; `single` restricts it to groups of one text."""
        for index, text in enumerate(self.remaining[level]):
            if not single or text.domain in SINGLE_TEXT_GROUPS:
                return self.remaining[level].pop(index)
        self.remaining[level] = list(self.by_level[level])
        return self.draw(level, single=single)
