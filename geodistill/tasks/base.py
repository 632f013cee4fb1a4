"""What a task is: text with labels or answers, split by source, with a hash of its content."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geodistill.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ClassificationData:
    """A labelled text task, split so that no source stands on two sides.

    Each split has the columns ``item`` (stable id), ``source`` (what the item was taken from: the
    cluster of every interval), the ``text_columns``, and ``label``: an index into ``label_names``,
    or a float where ``label_names`` is empty (regression). ``data_hash``: SHA-256 of all rows.
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
    """Prompts with reference answers, split so that no source text stands on two sides.

    Each split has the columns ``item``, ``source``, ``template``, ``prompt``, ``completion``.
    ``data_hash`` is the SHA-256 of all rows.
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    data_hash: str


def data_dir() -> Path | None:
    """The folder of local data files, ``$GEODISTILL_DATA_DIR``, or ``None`` where it isn't set.

    Raises:
        InputError: the variable names no folder.
    """
    chosen = os.environ.get("GEODISTILL_DATA_DIR")
    if not chosen:
        return None
    if not Path(chosen).is_dir():
        raise InputError(f"GEODISTILL_DATA_DIR: {chosen!r} is not a folder")
    return Path(chosen)


def normalise(text: str) -> str:
    """Lower-case words and digits, single spaces: texts alike in this form are the same text."""
    return " ".join(re.findall(r"\w+", text.lower()))


def text_key(text: str) -> str:
    """:func:`normalise`, or the text itself where it has neither letters nor digits."""
    return normalise(text) or text


def word_runs(text: str, n: int) -> set[str]:
    """All runs of ``n`` words of the normalised text."""
    words = normalise(text).split()
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def link_sources(keys: Sequence[Iterable[str]]) -> list[int]:
    """For each item the index of the first item of its source.

    Items that share a key (a review id, a sentence) have one source, and so do items linked by a
    chain of shared keys. ``keys[i]`` are the keys of item ``i``.
    """
    root = list(range(len(keys)))

    def find(item: int) -> int:
        while root[item] != item:
            root[item] = root[root[item]]
            item = root[item]
        return item

    first: dict[str, int] = {}
    for item, own in enumerate(keys):
        for key in own:
            a, b = find(item), find(first.setdefault(key, item))
            root[max(a, b)] = min(a, b)
    return [find(item) for item in range(len(keys))]


def fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text alone, evenly spread over texts (SHA-256)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def split_of(source: str, *, test: float, validation: float) -> str:
    """The side on which a source stands, by its hash: no generator, no order of rows."""
    place = fraction(f"split:{source}")
    return "test" if place < test else "validation" if place < test + validation else "train"


def content_hash(splits: Mapping[str, Sequence[Row]]) -> str:
    """SHA-256 over every row of every split as sorted JSON lines."""
    digest = hashlib.sha256()
    for name in SPLITS:
        for row in splits[name]:
            line = json.dumps([name, row], sort_keys=True, ensure_ascii=False)
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def to_datasets(splits: Mapping[str, Sequence[Row]]) -> dict[str, Dataset]:
    """One ``datasets.Dataset`` a split, in memory; an empty split keeps the columns of the test."""
    from datasets import Dataset

    if not splits["test"]:
        raise InputError("the data has no test rows")
    columns = list(splits["test"][0])
    return {
        name: Dataset.from_dict({key: [row[key] for row in splits[name]] for key in columns})
        for name in SPLITS
    }


def stratified_subsample(dataset: Dataset, n: int, seed: int) -> Dataset:
    """``n`` rows of ``dataset``, labels in the proportions of the whole, the same for one seed.

    The order of the rows is that of a hash of seed and item id, so a subsample depends neither on
    the order of the file nor on a random number generator's version. Float labels are stratified
    by their nearest integer.

    Raises:
        InputError: ``n`` is less than 1 or more than there are rows.
    """
    if not 1 <= n <= len(dataset):
        raise InputError(f"n: got {n}, expected 1 to {len(dataset)}, the rows of the data set")
    items, strata = dataset["item"], [round(label) for label in dataset["label"]]
    order = sorted(range(len(strata)), key=lambda i: fraction(f"few:{seed}:{items[i]}"))
    left = _quotas(Counter(strata), n)
    chosen = []
    for index in order:
        if left[strata[index]]:
            left[strata[index]] -= 1
            chosen.append(index)
    return dataset.select(chosen)


def _quotas(counts: Mapping[int, int], n: int) -> dict[int, int]:
    """Split ``n`` in the proportions of ``counts``, by largest remainder."""
    total = sum(counts.values())
    shares = {label: divmod(n * count, total) for label, count in sorted(counts.items())}
    quotas = {label: whole for label, (whole, _) in shares.items()}
    rest = n - sum(quotas.values())
    for label in sorted(shares, key=lambda label: -shares[label][1])[:rest]:
        quotas[label] += 1
    return quotas


def split_by_source(rows: Iterable[Row], *, test: float, validation: float) -> dict[str, list[Row]]:
    """Rows by side; each row's ``source`` decides (see :func:`split_of`)."""
    splits: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        splits[split_of(row["source"], test=test, validation=validation)].append(row)
    return splits
