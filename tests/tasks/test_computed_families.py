"""Answers of the computed instructions: read from the prompt by a second implementation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from geodistill.tasks.computed_families import FAMILIES, TRAINED_FAMILIES, TRANSFER_FAMILIES
from geodistill.tasks.computed_instructions import draw_rows
from geodistill.tasks.computed_wordings import KINDS, WORDINGS, WORDS

POSITIONS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6}


def listed(prompt: str) -> tuple[str, list[str]]:
    """The instruction and the list of a prompt, which is its first line or follows its colon."""
    if "\n" in prompt:
        items, instruction = prompt.split("\n")
    else:
        instruction, items = prompt.rsplit(": ", 1)
    return instruction, items.split()


def backwards(items: list[str]) -> str:
    result: list[str] = []
    for item in items:
        result.insert(0, item)
    return " ".join(result)


def swapped(items: list[str]) -> str:
    numbered = dict(enumerate(items, start=1))
    places = {1: len(items), len(items): 1}
    return " ".join(numbered[places.get(n, n)] for n in numbered)


def replaced(words: list[str], items: list[str]) -> str:
    (old,), (new,) = set(words) & set(items), set(words) - set(items)
    place = items.index(old)
    return " ".join([*items[:place], new, *items[place + 1 :]])


def of_kind(instruction: str, items: list[str]) -> str:
    (kind,) = [kind for kind in KINDS if f" {kind}" in instruction]
    (word,) = set(KINDS[kind].split()) & set(items)
    return word


def ordered(items: list[str]) -> list[str]:
    numbers: list[int] = []
    for number in map(int, items):
        numbers.insert(sum(other < number for other in numbers), number)
    return list(map(str, numbers))


def second_answer(family: str, prompt: str) -> str:
    """The answer, from the text of the prompt alone; shares no code with the library's rules."""
    if family == "add":
        return str(sum(map(int, re.findall(r"\d+", prompt))))
    instruction, items = listed(prompt)
    spoken = re.findall(r"\w+", instruction)
    named = [word for word in spoken if word in WORDS]
    next_word = dict(pairwise(items))
    without_named = re.sub(rf"\b({'|'.join(named)})\b", " ", " ".join(items))
    answers: dict[str, Callable[[], str]] = {
        "nth": lambda: items[sum(POSITIONS.get(word, 0) for word in spoken) - 1],
        "last": lambda: list(items).pop(),
        "count": lambda: str(sum(1 for _ in items)),
        "reverse": lambda: backwards(items),
        "swap": lambda: swapped(items),
        "after": lambda: next_word[named[0]],
        "before": lambda: {b: a for a, b in next_word.items()}[named[0]],
        "remove": lambda: " ".join(without_named.split()),
        "replace": lambda: replaced(named, items),
        "contains": lambda: "yes" if Counter(items)[named[0]] else "no",
        "drop_last": lambda: " ".join(items).rsplit(" ", 1)[0],
        "drop_first": lambda: " ".join(items).split(" ", 1)[1],
        "initials": lambda: " ".join(re.findall(r"\b[a-z]", " ".join(items))).upper(),
        "kind": lambda: of_kind(instruction, items),
        "sort": lambda: " ".join(ordered(items)),
        "largest": lambda: ordered(items)[-1],
        "smallest": lambda: ordered(items)[0],
    }
    return answers[family]()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_implementation_gives_the_same_answers(family: str) -> None:
    rows = draw_rows(Random(3), 400, "test", {family: 1.0})
    assert len({row["template"] for row in rows}) == len(WORDINGS[family]) == 5
    assert [row["completion"] for row in rows] == [second_answer(family, r["prompt"]) for r in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_length_is_drawn_and_no_more(family: str) -> None:
    rule = FAMILIES[family]
    lengths = Counter(
        len(rule.operands(Random(turn), turn).items) for turn in range(12 * len(rule.lengths))
    )
    assert lengths == dict.fromkeys(rule.lengths, 12)


def test_the_list_of_families() -> None:
    assert len(TRAINED_FAMILIES) >= 12
    assert len(TRANSFER_FAMILIES) == 2
    assert {*TRAINED_FAMILIES, *TRANSFER_FAMILIES} == set(FAMILIES) == set(WORDINGS)


def test_what_is_asked_for_goes_through_all_cases() -> None:
    def fields(family: str, name: str, n: int) -> Counter[str]:
        rule = FAMILIES[family]
        return Counter(rule.operands(Random(turn), turn).fields[name] for turn in range(n))

    # 60 lists of each of 3, 4, 5 and 6 words; a place in a list of l words is asked 60 / l times.
    assert fields("nth", "n", 240) == {
        "first": 57,
        "second": 57,
        "third": 57,
        "fourth": 37,
        "fifth": 22,
        "sixth": 10,
    }
    kinds = fields("kind", "kind", 4 * 360)
    assert set(kinds) == set(KINDS)
    assert max(kinds.values()) - min(kinds.values()) <= 20
    contains = [FAMILIES["contains"].operands(Random(turn), turn) for turn in range(240)]
    present = [operands.fields["x"] in operands.items for operands in contains]
    assert sum(present) == 120
    places = Counter(o.items.index(o.fields["x"]) for o in contains if o.fields["x"] in o.items)
    assert min(places.values()) >= 5
    assert sorted(places) == [0, 1, 2, 3, 4, 5]


def test_words_are_of_one_kind_and_in_no_wording() -> None:
    assert len(set(WORDS)) == len(WORDS) == 6 * 20
    wording = re.findall(r"\w+", " ".join(w for ws in WORDINGS.values() for w in ws))
    assert not set(wording) & set(WORDS)
