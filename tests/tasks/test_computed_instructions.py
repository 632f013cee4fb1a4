"""The computed instructions: balanced, disjoint by content, and out of reach of any lookup."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from geodistill.errors import InputError
from geodistill.tasks import load_instructions
from geodistill.tasks.base import Row
from geodistill.tasks.computed_families import FAMILIES, TRAINED_FAMILIES, TRANSFER_FAMILIES
from geodistill.tasks.computed_instructions import draw_rows, family_of
from geodistill.tasks.computed_tokenizer import SYMBOL
from geodistill.tasks.computed_wordings import NUMBERS, WORDINGS, WORDS
from geodistill.tasks.instructions import drop_overlapping

# The teacher and the students of the committed results were trained on exactly these rows.
HASH = "82203963a2d69dc50b6f9786c77d5c419b30cc25a8bb1b0f9ad99ef817d3116f"
LOOKUP_FLOOR, FAMILY_FLOOR = 0.12, 0.55
"""Exact match that no lookup exceeds, over all families and in any one."""


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    data = load_instructions("computed")
    sets = {name: list(getattr(data, name)) for name in ("train", "validation", "test")}
    for name in ("wordings", "families"):
        further = load_instructions(f"computed-{name}")
        assert not len(further.train) + len(further.validation)
        sets[name] = list(further.test)
    return sets


def content(row: Row) -> frozenset[str]:
    """The words and numbers that a prompt is about, read from its text."""
    return frozenset(re.findall(r"\w+", row["prompt"])) & {*WORDS, *NUMBERS}


def test_sizes_columns_and_hash(rows: dict[str, list[Row]]) -> None:
    assert {name: len(rows[name]) for name in rows} == {
        "train": 9600,
        "validation": 640,
        "test": 960,
        "wordings": 480,
        "families": 300,
    }
    columns = ["item", "source", "template", "prompt", "completion"]
    assert all(list(r) == [*columns, "family", "wording", "transfer"] for r in rows["train"])
    assert load_instructions("computed").data_hash == HASH
    items = [row["item"] for name in ("train", "validation", "test") for row in rows[name]]
    assert len(set(items)) == len(items)
    assert all(family_of(row["item"]) == row["family"] for row in rows["test"])
    assert len({row["prompt"] for row in rows["train"]}) == len(rows["train"])


def test_no_content_is_in_two_splits(rows: dict[str, list[Row]]) -> None:
    train, validation = ({content(r) for r in rows[name]} for name in ("train", "validation"))
    test = {content(r) for name in ("test", "wordings", "families") for r in rows[name]}
    assert min(map(len, train | test)) >= 1
    assert len(train) > 9000
    assert not train & test
    assert not train & validation
    assert not validation & test
    fresh = {content(row) for row in draw_rows(Random(0), 4000, "train")}
    assert not fresh & (test | validation)
    groups = defaultdict(set)
    for row in rows["test"]:
        groups[row["source"]].add(content(row))
    assert {len(contents) for contents in groups.values()} == {1}


def test_families_wordings_and_answers_are_balanced(rows: dict[str, list[Row]]) -> None:
    for name, n in (("train", 150), ("validation", 10), ("test", 15)):
        templates = Counter(row["template"] for row in rows[name])
        assert templates == {f"{f}/{w}": n for f in TRAINED_FAMILIES for w in range(4)}
    train = defaultdict(list)
    for row in rows["train"]:
        train[row["family"]].append(row)
    assert Counter(r["completion"] for r in train["contains"]) == {"yes": 300, "no": 300}
    assert Counter(r["completion"] for r in train["count"]) == {str(n): 100 for n in range(2, 8)}
    for family, of_family in train.items():
        lengths = Counter(len(content(row)) for row in of_family)
        if family in ("reverse", "last", "initials", "drop_last", "swap"):
            assert lengths == dict.fromkeys((3, 4, 5, 6), 150)
        if family in ("sort", "largest"):
            assert lengths == dict.fromkeys((2, 3, 4, 5), 150)
        if family in ("last", "nth", "after", "before", "kind", "largest"):
            assert max(Counter(r["completion"] for r in of_family).values()) < 0.1 * len(of_family)


def test_what_is_kept_for_transfer(rows: dict[str, list[Row]]) -> None:
    assert {r["transfer"] for n in ("train", "validation", "test") for r in rows[n]} == {"none"}
    assert Counter((r["family"], r["wording"], r["transfer"]) for r in rows["wordings"]) == {
        (family, 4, "wording"): 30 for family in TRAINED_FAMILIES
    }
    assert Counter((r["family"], r["wording"], r["transfer"]) for r in rows["families"]) == {
        (family, wording, "family"): 30 for family in TRANSFER_FAMILIES for wording in range(5)
    }
    for name in ("wordings", "families"):
        assert drop_overlapping(rows[name], rows["train"]) == rows[name]


def test_wordings_for_transfer_have_no_new_words() -> None:
    def symbols(wordings: Sequence[str]) -> set[str]:
        return set(re.findall(SYMBOL, re.sub(r"{\w+}", " ", " ".join(wordings))))

    trained = symbols([w for family in TRAINED_FAMILIES for w in WORDINGS[family][:4]])
    held_out = symbols(
        [WORDINGS[family][4] for family in TRAINED_FAMILIES]
        + [w for family in TRANSFER_FAMILIES for w in WORDINGS[family]]
    )
    assert len(held_out) > 30
    assert held_out <= trained


def scores(test: list[Row], answers: Sequence[str]) -> dict[str, float]:
    """Exact match of some answers by family, and over all of them as `all`."""
    right = defaultdict(list)
    for row, answer in zip(test, answers, strict=True):
        right[row["family"]].append(row["completion"] == answer)
        right["all"].append(row["completion"] == answer)
    return {name: float(np.mean(values)) for name, values in right.items()}


@pytest.mark.parametrize("key", ["family", "template"])
def test_the_most_frequent_answer_is_below_the_floor(rows: dict[str, list[Row]], key: str) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows["train"]:
        counts[row[key]][row["completion"]] += 1
    answers = [counts[row[key]].most_common(1)[0][0] for row in rows["test"]]
    result = scores(rows["test"], answers)
    assert 0.03 < result["all"] < LOOKUP_FLOOR
    assert max(result.values()) == result["contains"] < FAMILY_FLOOR


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("within_family", [False, True])
def test_the_nearest_training_prompt_is_below_the_floor(
    rows: dict[str, list[Row]], words: int, within_family: bool
) -> None:
    vectorizer = TfidfVectorizer(token_pattern=r"\w+", lowercase=False, ngram_range=(1, words))
    train = vectorizer.fit_transform([row["prompt"] for row in rows["train"]])
    similarity = (vectorizer.transform([r["prompt"] for r in rows["test"]]) @ train.T).toarray()
    families = [np.array([row["family"] for row in rows[name]]) for name in ("test", "train")]
    if within_family:
        similarity[families[0][:, None] != families[1]] = -1
    nearest = similarity.argmax(1)
    result = scores(rows["test"], [rows["train"][i]["completion"] for i in nearest])
    assert 0.03 < result["all"] < LOOKUP_FLOOR
    assert max(result.values()) < FAMILY_FLOOR


def test_copying_from_a_fixed_place_is_below_the_floor(rows: dict[str, list[Row]]) -> None:
    def items(prompt: str) -> list[str]:
        return (prompt.split("\n")[0] if "\n" in prompt else prompt.rsplit(": ")[-1]).split()

    lists = [items(row["prompt"]) for row in rows["test"]]
    for place in (0, 1, -2, -1):
        result = scores(rows["test"], [each[place] for each in lists])
        assert result.pop("last") == float(place == -1)
        assert max(result.values()) < 0.4
    result = scores(rows["test"], [" ".join(each) for each in lists])
    assert max(result, key=lambda name: result[name]) == "sort"
    assert result["sort"] < 0.3  # two numbers are in order half the time


def test_fresh_rows_follow_the_weights() -> None:
    rows = draw_rows(Random(1), 2000, "validation", {"sort": 3.0, "reverse": 1.0})
    counts = Counter(family_of(row["item"]) for row in rows)
    assert set(counts) == {"sort", "reverse"}
    assert 1400 < counts["sort"] < 1600
    assert {family_of(r["item"]) for r in draw_rows(Random(1), 1000, "train")} == set(FAMILIES)
    assert rows == draw_rows(Random(1), 2000, "validation", {"sort": 3.0, "reverse": 1.0})


def test_bad_input_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"^family is 'revers'; expected one of nth, last, "):
        draw_rows(Random(0), 1, "train", {"revers": 1.0})
    with pytest.raises(InputError, match=r"^split is 'dev'; expected one of train, valid"):
        draw_rows(Random(0), 1, "dev")
    for weights in ({}, {"nth": 0.0}, {"nth": -1.0, "last": 2.0}):
        with pytest.raises(InputError, match=r"^weights is {.*}; expected numbers of at least 0"):
            draw_rows(Random(0), 1, "train", weights)
