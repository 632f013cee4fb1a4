"""Instruction sets of the Hugging Face hub: Dolly-15k, P3, and MiniLLM's evaluation files.

Each is pinned to a commit; ``data/cards`` says what it holds and where the hash was seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from geodistill.errors import AssetError, InputError
from geodistill.tasks.base import (
    SPLITS,
    Row,
    link_sources,
    split_by_source,
    split_of,
    text_key,
)
from geodistill.tasks.prompts import alpaca

TEST, VALIDATION = 0.1, 0.05
P3 = "p3:"
"""Before the name of one of P3's subsets, such as ``p3:ag_news_classify``."""
WHOLE = 40
"""Digits of a commit's hash."""


@dataclass(frozen=True)
class HubSet:
    """A data set on the hub at one commit of its own repository.

    ``revision`` is the commit's hash, whole or its first seven digits, which the hub completes.
    ``file`` is one of its JSON files, which is then for evaluation only.
    """

    repository: str
    revision: str
    file: str = ""


DOLLY = HubSet("databricks/databricks-dolly-15k", "bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a")
POOL = HubSet("bigscience/P3", "db48520")
EVALUATION = {
    "s_ni": HubSet("MiniLLM/sinst", "84b8356", "11_/valid.jsonl"),
    "u_ni": HubSet("MiniLLM/uinst", "b3c77603ffaf9b9c15dc1f1a20dc2f2145580db0", "11_/valid.jsonl"),
}


def dolly() -> dict[str, list[Row]]:
    """Dolly-15k in Alpaca's wording, split by prompt: equal prompts stand on one side.

    Raises:
        AssetError: the hub is out of reach.
    """
    pairs = [
        (row["category"], alpaca(row["instruction"], row["context"]), row["response"])
        for row in _load("dolly", DOLLY)["train"]
    ]
    return dict(split_by_source(_rows("dolly", pairs), test=TEST, validation=VALIDATION))


def evaluation(name: str) -> dict[str, list[Row]]:
    """One of `EVALUATION`, test rows alone, the prompt as MiniLLM words it.

    A set whose answers are lists (S-NI) keeps the first, so that scores against several references
    come out lower than published ones.

    Raises:
        AssetError: the hub is out of reach.
    """
    found = _load(name, EVALUATION[name])["test"]
    pairs = [(name, row["prompt"].rstrip("\n"), _first(row["output"])) for row in found]
    return {"train": [], "validation": [], "test": _rows(name, pairs)}


def p3(subset: str) -> dict[str, list[Row]]:
    """One of P3's subsets: its test part, else its validation part, is our test.

    Test prompts that stand in its training part are dropped.

    Raises:
        AssetError: the hub is out of reach, or has no such subset.
        InputError: the subset has no training part, or neither validation nor test.
    """
    hub = _load("p3", POOL, subset)
    held = next((part for part in ("test", "validation") if part in hub), None)
    if held is None or "train" not in hub:
        raise InputError(f"{P3}{subset} has the parts {', '.join(hub)}; expected train and a test")
    train, test = ([_p3_pair(subset, row) for row in hub[part]] for part in ("train", held))
    known = {prompt for _, prompt, _ in train}
    fresh = [pair for pair in test if pair[1] not in known]
    learned = _rows(f"{P3}{subset}/train", train)
    splits: dict[str, list[Row]] = {side: [] for side in SPLITS}
    splits["test"] = _rows(f"{P3}{subset}/{held}", fresh)
    for row in learned:
        splits[split_of(row["source"], test=0.0, validation=VALIDATION)].append(row)
    return splits


def _p3_pair(subset: str, row: Row) -> tuple[str, str, str]:
    return subset, row["inputs_pretokenized"].strip(), row["targets_pretokenized"].strip()


def _first(output: str | list[str]) -> str:
    return output if isinstance(output, str) else output[0]


def _rows(name: str, pairs: Iterable[tuple[str, str, str]]) -> list[Row]:
    """Rows of (template, prompt, answer) but for empty ones, which nothing can be learned from.

    An item is numbered by its place on the hub; the source of a prompt is its first occurrence.
    """
    found = [
        (place, *pair) for place, pair in enumerate(pairs) if pair[1].strip() and pair[2].strip()
    ]
    roots = link_sources([[text_key(prompt)] for _, _, prompt, _ in found])
    return [
        {
            "item": f"{name}/{place}",
            "source": f"{name}/{found[root][0]}",
            "template": template,
            "prompt": prompt,
            "completion": answer,
        }
        for (place, template, prompt, answer), root in zip(found, roots, strict=True)
    ]


def commit(wanted: HubSet) -> str:
    """The whole hash of the pinned commit, out of the hub's own list where only its start is known.

    It stays as it is where the hub can't be asked: `datasets` may have the rows in its cache.

    Raises:
        ValueError: the repository's history has no such commit, or two.
    """
    if len(wanted.revision) == WHOLE:
        return wanted.revision
    from huggingface_hub import HfApi

    try:
        history = HfApi().list_repo_commits(wanted.repository, repo_type="dataset")
    except Exception:  # its client's errors have changed from version to version
        return wanted.revision
    found = [one.commit_id for one in history if one.commit_id.startswith(wanted.revision)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} commits begin with {wanted.revision}, expected one")
    return found[0]


def _load(name: str, wanted: HubSet, subset: str | None = None) -> Any:
    from datasets import load_dataset

    files = {"data_files": {"test": wanted.file}} if wanted.file else {}
    try:
        return load_dataset(wanted.repository, subset, revision=commit(wanted), **files)
    except (OSError, ValueError) as error:  # unreachable, offline, not in the cache, no such part
        raise AssetError(
            f"instruction set {name!r}: {wanted.repository} can't be loaded from the hub "
            f"({str(error).splitlines()[0]}); connect to the hub, see data/cards/{name}.md"
        ) from error
