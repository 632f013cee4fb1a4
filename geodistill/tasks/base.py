"""Data classes of tasks; splits by group, hashes of content, stratified subsamples."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodistill.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
"""One item: its values by column."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ClassificationData:
    """A labelled text task whose splits have no group of items in common.

    Each split has the columns `item` (stable id), `source` (group of the item, the cluster of every
    confidence interval), the text columns, and `label`: an index into `label_names`, or a float in
    a regression. Texts without labels have no such column.

    Attributes:
        name: of the task.
        train, validation, test: the splits.
        text_columns: the column of the text, or the two of a pair.
        label_names: names of the classes; empty in a regression and without labels.
        metric: the task's usual metric: "accuracy", "f1", "matthews_correlation" or "pearson".
        data_hash: SHA-256 of all rows.

    Example:
        >>> from geodistill.tasks import load_classification
        >>> data = load_classification("movie-b")
        >>> row = data.test[0]
        >>> row[data.text_columns[0]], data.label_names[row["label"]]
        ('Effective but too tepid biopic', 'negative')
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    text_columns: tuple[str, ...]
    label_names: tuple[str, ...]
    metric: str
    data_hash: str


@dataclass(frozen=True)
class InstructionData:
    """Prompts with reference answers; the splits have no group of prompts in common.

    Each split has the columns `item` (stable id), `source` (group of the item, the cluster of every
    confidence interval), `template`, `prompt` and `completion`.

    Attributes:
        name: of the instruction set.
        train, validation, test: the splits; a set for evaluation only has test rows alone.
        data_hash: SHA-256 of all rows.

    Example:
        >>> from geodistill.tasks import load_instructions
        >>> data = load_instructions("embedded")
        >>> data.test["completion"][:2]
        ['negative', 'no']
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    data_hash: str


def data_dir() -> Path | None:
    """The folder of local data files, `$GEODISTILL_DATA_DIR`, or None if it isn't set.

    Raises:
        InputError: the variable names no folder.
    """
    folder = os.environ.get("GEODISTILL_DATA_DIR")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise InputError(f"GEODISTILL_DATA_DIR: {folder!r} is not a folder")
    return Path(folder)


def normalize_text(text: str) -> str:
    """Words and digits in lower case, separated by single spaces."""
    return " ".join(re.findall(r"\w+", text.lower()))


def text_key(text: str) -> str:
    """The normalized text, or the text itself if it has neither letters nor digits."""
    return normalize_text(text) or text


def word_ngrams(text: str, n: int) -> set[str]:
    """All sequences of `n` consecutive words of the normalized text."""
    words = normalize_text(text).split()
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def group_by_shared_keys(keys: Sequence[Iterable[str]]) -> list[int]:
    """Group items that share a key, directly or through a chain of items.

    Args:
        keys: for each item its keys, such as a review id and a sentence.

    Returns:
        For each item the index of the first item of its group.
    """
    parent = list(range(len(keys)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first_with: dict[str, int] = {}
    for item, item_keys in enumerate(keys):
        for key in item_keys:
            a, b = root(item), root(first_with.setdefault(key, item))
            parent[max(a, b)] = min(a, b)
    return [root(item) for item in range(len(keys))]


def hash_to_unit(text: str) -> float:
    """A number in [0, 1) from the SHA-256 of a text, uniform over texts."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def split_of(group: str, *, test: float, validation: float) -> str:
    """The split of a group, by the hash of its name alone: no generator, no order of rows.

    Args:
        group: name of the group.
        test: expected share of the groups in the test split, from 0 to 1.
        validation: the same for validation; the rest is for training.
    """
    position = hash_to_unit(f"split:{group}")
    return "test" if position < test else "validation" if position < test + validation else "train"


def split_by_group(rows: Iterable[Row], *, test: float, validation: float) -> dict[str, list[Row]]:
    """Rows by split, which `split_of` decides from the group in their column `source`."""
    splits: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        splits[split_of(row["source"], test=test, validation=validation)].append(row)
    return splits


def split_around_test(
    test: list[Row], train: Iterable[Row], *, validation: float
) -> dict[str, list[Row]]:
    """Splits of a set with a test part of its own.

    Args:
        test: the test rows, with their group in the column `source`.
        train: the other rows; those in a group with a test row are dropped.
        validation: expected share of the remaining groups in the validation split, from 0 to 1.
    """
    test_groups = {row["source"] for row in test}
    remaining = [row for row in train if row["source"] not in test_groups]
    return {**split_by_group(remaining, test=0.0, validation=validation), "test": test}


def content_hash(splits: Mapping[str, Sequence[Row]]) -> str:
    """SHA-256 over every row of every split as sorted JSON lines."""
    digest = hashlib.sha256()
    for name in SPLITS:
        for row in splits.get(name, ()):
            line = json.dumps([name, row], sort_keys=True, ensure_ascii=False)
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def pair_row(item: str, source: str, template: str, prompt: str, completion: str) -> Row:
    """A row of `InstructionData`."""
    columns = ("item", "source", "template", "prompt", "completion")
    return dict(zip(columns, (item, source, template, prompt, completion), strict=True))


def to_datasets(splits: Mapping[str, Sequence[Row]]) -> dict[str, Dataset]:
    """One `datasets.Dataset` per split, in memory; an absent split is empty.

    Raises:
        InputError: there are no test rows.
    """
    from datasets import Dataset

    if not splits["test"]:
        raise InputError("the data has no test rows")
    columns = list(splits["test"][0])
    return {
        name: Dataset.from_dict({k: [row[k] for row in splits.get(name, ())] for k in columns})
        for name in SPLITS
    }


def stratified_subsample(dataset: Dataset, n: int, seed: int) -> Dataset:
    """Random rows of a split, with its proportions of labels.

    Rows are ordered by a hash of seed and item id, so a subsample depends neither on the order of
    the file nor on the version of a random number generator, and a larger one contains the smaller.

    Args:
        dataset: a split with a column `item`, and `label` unless it has none; scores are stratified
            by their nearest integer.
        n: number of rows.
        seed: the same seed selects the same rows.

    Raises:
        InputError: `n` is less than 1 or more than there are rows.

    Example:
        >>> from datasets import Dataset
        >>> rows = {"item": [f"x/{i}" for i in range(90)], "label": [0, 0, 1] * 30}
        >>> subsample = stratified_subsample(Dataset.from_dict(rows), 6, seed=0)
        >>> sorted(subsample["label"])
        [0, 0, 0, 0, 1, 1]
    """
    if not 1 <= n <= len(dataset):
        raise InputError(f"n: got {n}, expected 1 to {len(dataset)}, the rows of the data set")
    items, strata = dataset["item"], [0] * len(dataset)
    if "label" in dataset.column_names:
        strata = [round(label) for label in dataset["label"]]
    order = sorted(range(len(strata)), key=lambda i: hash_to_unit(f"few:{seed}:{items[i]}"))
    remaining = _quotas(Counter(strata), n)
    indices = []
    for index in order:
        if remaining[strata[index]]:
            remaining[strata[index]] -= 1
            indices.append(index)
    return dataset.select(indices)


def _quotas(counts: Mapping[int, int], n: int) -> dict[int, int]:
    """Divide `n` in the proportions of `counts`, by the largest remainder."""
    total = sum(counts.values())
    shares = {label: divmod(n * count, total) for label, count in sorted(counts.items())}
    quotas = {label: quotient for label, (quotient, _) in shares.items()}
    rest = n - sum(quotas.values())
    for label in sorted(shares, key=lambda label: -shares[label][1])[:rest]:
        quotas[label] += 1
    return quotas
