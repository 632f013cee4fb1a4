"""Instruction sets of the Hugging Face hub: Dolly-15k, P3, and MiniLLM's evaluation files.

Each is pinned to a commit; `data/cards` describes it and where the commit's hash was found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geodistill.errors import AssetError, InputError
from geodistill.files import first_line
from geodistill.tasks.base import Row, group_by_shared_keys, pair_row, split_by_group, text_key
from geodistill.tasks.prompts import alpaca_prompt

if TYPE_CHECKING:
    from datasets import DatasetDict

TEST, VALIDATION = 0.1, 0.05
"""Expected shares of the prompts in the test and validation splits."""
P3_PREFIX = "p3:"
"""What the name of one of P3's subsets begins with, as in `p3:ag_news_classify`."""
HASH_LENGTH = 40


@dataclass(frozen=True)
class HubDataset:
    """A data set on the hub at one commit of its own repository.

    Attributes:
        repository: owner and name.
        revision: the commit's hash, all 40 digits or the first seven.
        file: one of its JSON files, for evaluation only; empty for all of its splits.
    """

    repository: str
    revision: str
    file: str = ""


DOLLY = HubDataset("databricks/databricks-dolly-15k", "bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a")
P3 = HubDataset("bigscience/P3", "db48520")
EVALUATION = {
    "s_ni": HubDataset("MiniLLM/sinst", "84b8356", "11_/valid.jsonl"),
    "u_ni": HubDataset(
        "MiniLLM/uinst", "b3c77603ffaf9b9c15dc1f1a20dc2f2145580db0", "11_/valid.jsonl"
    ),
}


def load_dolly() -> dict[str, list[Row]]:
    """Dolly-15k with Alpaca's prompt template; equal prompts are in one split.

    Raises:
        AssetError: the hub can't be reached.
    """
    pairs = [
        (row["category"], alpaca_prompt(row["instruction"], row["context"]), row["response"])
        for row in _load("dolly", DOLLY)["train"]
    ]
    return split_by_group(_rows("dolly", pairs), test=TEST, validation=VALIDATION)


def load_evaluation(name: str) -> dict[str, list[Row]]:
    """One of `EVALUATION`: test rows alone, with MiniLLM's prompts.

    Of several reference answers (S-NI) the first is kept, so that scores are lower than published
    scores against the best of them.

    Raises:
        AssetError: the hub can't be reached.
    """
    pairs = [
        (name, row["prompt"].rstrip("\n"), _first_answer(row["output"]))
        for row in _load(name, EVALUATION[name])["test"]
    ]
    return {"test": _rows(name, pairs)}


def load_p3(subset: str) -> dict[str, list[Row]]:
    """One of P3's subsets; its test part, or else its validation part, is our test split.

    Test prompts that occur in its training part are dropped.

    Raises:
        AssetError: the hub can't be reached, or has no such subset.
        InputError: the subset has no training part, or neither validation nor test.
    """
    hub = _load("p3", P3, subset)
    test_part = next((part for part in ("test", "validation") if part in hub), None)
    if test_part is None or "train" not in hub:
        raise InputError(
            f"{P3_PREFIX}{subset} has the parts {', '.join(hub)}; expected train and a test"
        )
    train, test = (
        [
            (subset, row["inputs_pretokenized"].strip(), row["targets_pretokenized"].strip())
            for row in hub[part]
        ]
        for part in ("train", test_part)
    )
    train_prompts = {prompt for _, prompt, _ in train}
    new = [pair for pair in test if pair[1] not in train_prompts]
    train_rows = _rows(f"{P3_PREFIX}{subset}/train", train)
    return {
        **split_by_group(train_rows, test=0.0, validation=VALIDATION),
        "test": _rows(f"{P3_PREFIX}{subset}/{test_part}", new),
    }


def _first_answer(output: str | list[str]) -> str:
    return output if isinstance(output, str) else output[0]


def _rows(name: str, pairs: Iterable[tuple[str, str, str]]) -> list[Row]:
    """Rows of (template, prompt, answer); pairs with an empty prompt or answer are left out.

    An item is numbered by its position on the hub; a prompt's group is its first occurrence.
    """
    numbered = [
        (number, *pair) for number, pair in enumerate(pairs) if pair[1].strip() and pair[2].strip()
    ]
    groups = group_by_shared_keys([[text_key(prompt)] for _, _, prompt, _ in numbered])
    return [
        pair_row(f"{name}/{number}", f"{name}/{numbered[group][0]}", template, prompt, answer)
        for (number, template, prompt, answer), group in zip(numbered, groups, strict=True)
    ]


def resolve_commit(dataset: HubDataset) -> str:
    """The full hash of the pinned commit, from the hub's list if only its start is recorded.

    If the hub can't be reached the start is returned: `datasets` may have the rows in its cache.

    Raises:
        ValueError: no commit of the repository begins so, or several do.
    """
    if len(dataset.revision) == HASH_LENGTH:
        return dataset.revision
    from huggingface_hub import HfApi

    try:
        history = HfApi().list_repo_commits(dataset.repository, repo_type="dataset")
    except Exception:  # its client's errors have changed from version to version
        return dataset.revision
    hashes = [c.commit_id for c in history if c.commit_id.startswith(dataset.revision)]
    if len(hashes) != 1:
        raise ValueError(f"{len(hashes)} commits begin with {dataset.revision}, expected one")
    return hashes[0]


def _load(name: str, dataset: HubDataset, subset: str | None = None) -> DatasetDict:
    from datasets import load_dataset

    files = {"data_files": {"test": dataset.file}} if dataset.file else {}
    try:
        return load_dataset(dataset.repository, subset, revision=resolve_commit(dataset), **files)
    except (OSError, ValueError) as error:  # unreachable, offline, not in the cache, no such part
        raise AssetError(
            f"instruction set {name!r}: {dataset.repository} can't be loaded from the hub "
            f"({first_line(error)}); connect to the hub, see data/cards/{name}.md"
        ) from error
