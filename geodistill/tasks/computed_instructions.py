"""Instructions with computed answers, drawn from a seed: no file holds them, no lookup knows them.

Which split an instruction is in depends on its content alone, all its words and numbers whatever
their order and whatever is asked about them. What a test instruction is about is therefore never
seen in training, in no family and no wording.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

from geodistill.errors import InputError, check_choice
from geodistill.tasks.base import SPLITS, Row, pair_row, split_of
from geodistill.tasks.computed_families import FAMILIES, TRAINED_FAMILIES, TRANSFER_FAMILIES
from geodistill.tasks.computed_wordings import WORDINGS

SEED = 0
TEST, VALIDATION = 0.15, 0.1
"""Expected shares of the contents in these splits."""
ROWS_PER_WORDING = {"train": 150, "validation": 10, "test": 15}
ROWS_PER_TRANSFER_WORDING = 30
N_TRAINED_WORDINGS = 4
"""The first ones of each family; the last one is kept for transfer."""


def load() -> dict[str, list[Row]]:
    """Rows of all splits in the wordings and families that students are trained on.

    Example:
        >>> rows = load()
        >>> {split: len(rows[split]) for split in rows}
        {'train': 9600, 'validation': 640, 'test': 960}
    """
    wordings = range(N_TRAINED_WORDINGS)
    return {
        split: list(_rows(split, TRAINED_FAMILIES, wordings, ROWS_PER_WORDING[split], "none"))
        for split in SPLITS
    }


def load_wordings() -> dict[str, list[Row]]:
    """Test rows in the wordings that students are not trained on."""
    rows = _rows(
        "test", TRAINED_FAMILIES, [N_TRAINED_WORDINGS], ROWS_PER_TRANSFER_WORDING, "wording"
    )
    return {"test": list(rows)}


def load_families() -> dict[str, list[Row]]:
    """Test rows of the families that students are not trained on."""
    wordings = range(N_TRAINED_WORDINGS + 1)
    rows = _rows("test", TRANSFER_FAMILIES, wordings, ROWS_PER_TRANSFER_WORDING, "family")
    return {"test": list(rows)}


def draw_rows(
    generator: Random, n: int, split: str, weights: Mapping[str, float] | None = None
) -> list[Row]:
    """Fresh instructions of any family in any wording, those kept for transfer included.

    Args:
        generator: draws everything.
        n: number of instructions.
        split: "train", "validation" or "test".
        weights: relative frequency of each family by name; equal if none are given.

    Raises:
        InputError: a family or a split that doesn't exist, or weights without a positive one.

    Example:
        >>> row = draw_rows(Random(0), 1, "train", {"reverse": 1.0})[0]
        >>> row["prompt"].split()[-1] == row["completion"].split()[0]
        True
    """
    weights = dict.fromkeys(FAMILIES, 1.0) if weights is None else weights
    for family in weights:
        check_choice("family", family, FAMILIES)
    check_choice("split", split, SPLITS)
    if min(weights.values(), default=0) < 0 or not any(weights.values()):
        raise InputError(
            f"weights is {dict(weights)}; expected numbers of at least 0, not all of them 0"
        )
    names = generator.choices(list(weights), list(weights.values()), k=n)
    return [
        _row(
            generator,
            split,
            name,
            generator.randrange(len(WORDINGS[name])),
            turn=generator.randrange(1_000_000),
            item=f"fresh/{name}/0/{index}",
        )
        for index, name in enumerate(names)
    ]


def family_of(item: str) -> str:
    """The family of an item, by its id.

    Example:
        >>> family_of("computed/test/reverse/0/7")
        'reverse'
    """
    return item.split("/")[-3]


def _rows(
    split: str, families: Sequence[str], wordings: Sequence[int], n: int, transfer: str
) -> Iterator[Row]:
    """`n` rows of each family in each wording; no two have the same prompt."""
    prompts = set()
    for family in families:
        for block, wording in enumerate(wordings):
            for index in range(n):
                item = f"computed/{split}/{family}/{wording}/{index}"
                generator = Random(f"{SEED}/{item}")
                row = _row(generator, split, family, wording, block * n + index, item)
                while row["prompt"] in prompts:
                    row = _row(generator, split, family, wording, block * n + index, item)
                prompts.add(row["prompt"])
                yield {**row, "family": family, "wording": wording, "transfer": transfer}


def _row(generator: Random, split: str, family: str, wording: int, turn: int, item: str) -> Row:
    """One instruction, drawn until its content is in the split."""
    rule = FAMILIES[family]
    while True:
        operands = rule.operands(generator, turn)
        source = f"computed/{operands.content}"
        if split_of(source, test=TEST, validation=VALIDATION) == split:
            template = f"{family}/{wording}"
            words = WORDINGS[family][wording]
            prompt = words.format(items=" ".join(operands.items), **operands.fields)
            return pair_row(item, source, template, prompt, rule.answer(operands))
