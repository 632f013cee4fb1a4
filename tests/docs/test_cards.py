"""Data cards: one for each source, with the hashes and counts that the code has."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from geodistill.tasks import (
    assets,
    embedded_instructions,
    glue,
    hub,
    instructions,
    load_classification,
    sentiment,
)
from geodistill.tasks.computed_families import FAMILIES
from geodistill.tasks.computed_tokenizer import computed_vocabulary
from geodistill.tasks.computed_wordings import WORDS

CARDS = Path(__file__).parents[2] / "data" / "cards"
REAL = os.environ.get("GEODISTILL_DATA_DIR")


def _card(name: str) -> str:
    return (CARDS / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(assets.ASSETS))
def test_the_card_of_an_asset_has_its_hash_and_version(name: str) -> None:
    asset = assets.ASSETS[name]
    assert f"`{asset.sha256}`" in _card(name)
    assert asset.requirement in _card(name)


def test_every_set_that_an_error_sends_to_a_card_has_one() -> None:
    fileless = {"embedded", "computed", "computed-wordings", "computed-families"}
    local = set(instructions.INSTRUCTION_SETS) - fileless
    assert {"glue", *local} <= {path.stem for path in CARDS.glob("*.md")}
    assert all(name in _card("glue") for name in glue.TASKS if glue.TASKS[name].folder)


@pytest.mark.parametrize("name", [*sentiment.FILES, *sentiment.SECOND_SPLITS])
def test_the_table_of_the_sentiment_sets(name: str) -> None:
    data = load_classification(name)
    line = next(line for line in _card("sentiment").splitlines() if line.startswith(f"| {name} "))
    numbers = [int(number.replace(",", "")) for number in re.findall(r"[\d,]+", line)]
    splits = [data.train, data.validation, data.test]
    positive = sum(sum(split["label"]) for split in splits)
    total = sum(map(len, splits))
    assert numbers == [positive, total - positive, *map(len, splits), len(set(data.test["source"]))]


def test_the_cards_of_the_hubs_sets_name_repository_revision_and_file() -> None:
    sets = {"dolly": hub.DOLLY, "p3": hub.P3, **hub.EVALUATION}
    assert len(sets) == 4
    for name, dataset in sets.items():
        text = _card(name)
        assert dataset.repository in text
        assert dataset.file in text
        assert f"`{dataset.revision}`" in text
    assert hub.P3_PREFIX in _card("p3")


def test_the_sizes_of_the_embedded_instructions() -> None:
    count = len(embedded_instructions.TEMPLATES)
    sizes = [
        f"{count * number:,}" for number in embedded_instructions.PROMPTS_PER_TEMPLATE.values()
    ]
    text = " ".join(_card("sentiment").split())
    assert f"{count} templates, {' / '.join(sizes)} prompts" in text


def test_the_sizes_the_hash_and_the_families_of_the_computed_instructions() -> None:
    card = " ".join(_card("computed").split())
    data = instructions.load_instructions("computed")
    further = [instructions.load_instructions(f"computed-{n}") for n in ("wordings", "families")]
    sizes = " / ".join(f"{len(split):,}" for split in (data.train, data.validation, data.test))
    assert f"`computed`: {sizes} prompts" in card
    assert f"`computed-wordings`: {len(further[0].test)} test prompts" in card
    assert f"`computed-families`: {len(further[1].test)}" in card
    assert f"`{data.data_hash}`" in card
    cells = re.findall(r"^\| ([a-z_, *]+) \|", _card("computed"), re.M)
    names = {name.strip("* ") for cell in cells for name in cell.split(",")}
    assert set(FAMILIES) <= names
    assert f"{len(FAMILIES)} families" in card
    assert f"There are {len(WORDS)} words" in card
    assert f"{len(computed_vocabulary())} tokens" in card


@pytest.mark.skipif(not REAL, reason="GEODISTILL_DATA_DIR is not set")
def test_the_local_files_are_those_of_the_cards() -> None:
    root = Path(str(REAL))
    files = [
        root / "glue" / str(task.folder) / f"{part}.tsv"
        for task in glue.TASKS.values()
        if task.folder
        for part in ("train", "dev")
    ]
    names = ("t0_train", "t0_valid", "self_instruct_eval", "vicuna_questions")
    files += [root / "instruct" / f"{name}.jsonl" for name in (*names, "vicuna_reference_gpt4")]
    cards = "".join(path.read_text(encoding="utf-8") for path in CARDS.glob("*.md"))
    assert len(files) == 15
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() in cards, file
