"""The hub's sets through `datasets`, here from rows of the same columns; and with no hub at all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import datasets
import pytest
from huggingface_hub import GitCommitInfo, HfApi

from geodistill.errors import AssetError, InputError
from geodistill.tasks import hub, load_instructions
from geodistill.tasks.base import SPLITS
from geodistill.tasks.prompts import alpaca_prompt


class Hub:
    """Stands in for `datasets.load_dataset`: returns `parts`, records the request."""

    def __init__(self) -> None:
        self.parts: dict[str, list[dict[str, Any]]] = {}
        self.request: tuple[Any, ...] = ()

    def __call__(self, repository: str, name: str | None = None, **options: Any) -> Any:
        self.request = (repository, name, options)
        return datasets.DatasetDict(
            {part: datasets.Dataset.from_list(rows) for part, rows in self.parts.items()}
        )


def full_hash(revision: str) -> str:
    return revision.ljust(40, "0")


@pytest.fixture(autouse=True)
def history(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stands in for the hub's list of commits; what is pinned is not the newest."""
    pinned = [s.revision for s in (hub.P3, *hub.EVALUATION.values())]
    hashes = ["f" * 40, *map(full_hash, pinned)]

    def commits(api: Any, repository: str, *, repo_type: str) -> list[GitCommitInfo]:
        assert repo_type == "dataset"
        return [
            GitCommitInfo(
                commit_id=name, authors=[], created_at=datetime.now(UTC), title="", message="",
                formatted_title=None, formatted_message=None,
            )
            for name in hashes
        ]  # fmt: skip

    monkeypatch.setattr(HfApi, "list_repo_commits", commits)
    return hashes


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    monkeypatch.setattr(datasets, "load_dataset", hub)
    return hub


def test_dolly_is_pinned_with_a_template_and_split_by_prompt(fake: Hub) -> None:
    fake.parts = {
        "train": [
            {
                "instruction": f"Ask {i // 2}",
                "context": "a text" if i % 4 else "",
                "response": f"Say {i}",
                "category": "open_qa",
            }
            for i in range(400)
        ]
    }
    fake.parts["train"][5]["response"] = " "
    data = load_instructions("dolly")
    assert fake.request == (hub.DOLLY.repository, None, {"revision": hub.DOLLY.revision})
    assert len(hub.DOLLY.revision) == 40
    rows = {row["item"]: row for split in SPLITS for row in getattr(data, split)}
    assert rows.keys() == {f"dolly/{i}" for i in range(400)} - {"dolly/5"}
    assert rows["dolly/0"]["prompt"] == alpaca_prompt("Ask 0")
    assert rows["dolly/6"]["prompt"] == alpaca_prompt("Ask 3", "a text")
    assert rows["dolly/7"]["source"] == "dolly/6"
    assert rows["dolly/7"]["completion"] == "Say 7"
    prompts = [set(getattr(data, split)["prompt"]) for split in SPLITS]
    assert all(prompts)
    assert sum(map(len, prompts)) == len(set.union(*prompts))


@pytest.mark.parametrize("name", list(hub.EVALUATION))
def test_evaluation_sets_keep_the_first_answer(name: str, fake: Hub) -> None:
    fake.parts = {"test": [{"prompt": alpaca_prompt("Name one") + "\n", "output": ["a b", "c"]}]}
    data = load_instructions(name)
    dataset = hub.EVALUATION[name]
    options = {"revision": full_hash(dataset.revision), "data_files": {"test": "11_/valid.jsonl"}}
    assert fake.request == (dataset.repository, None, options)
    assert (len(data.train), len(data.validation)) == (0, 0)
    assert data.test["prompt"] == [alpaca_prompt("Name one")]
    assert data.test["completion"] == ["a b"]


def _p3(i: int) -> dict[str, Any]:
    return {"inputs_pretokenized": f" Ask {i}\n", "targets_pretokenized": f"\nSay {i}"}


def test_p3_drops_test_prompts_that_stand_in_training(fake: Hub) -> None:
    fake.parts = {
        "train": [_p3(i) for i in range(100)],
        "validation": [_p3(i) for i in (7, 100, 101)],
    }
    data = load_instructions("p3:ag_news_classify")
    assert fake.request == (
        "bigscience/P3", "ag_news_classify", {"revision": full_hash(hub.P3.revision)},
    )  # fmt: skip
    assert data.test["prompt"] == ["Ask 100", "Ask 101"]
    assert len(data.train) + len(data.validation) == 100
    assert len(data.validation) > 0
    assert data.train["template"][0] == "ag_news_classify"


def test_p3_without_a_test_part(fake: Hub) -> None:
    fake.parts = {"train": [_p3(1)]}
    with pytest.raises(InputError, match="p3:x has the parts train; expected train and a test"):
        load_instructions("p3:x")


def test_every_set_is_pinned_to_a_commit() -> None:
    for dataset in (hub.DOLLY, hub.P3, *hub.EVALUATION.values()):
        assert set(dataset.revision) <= set("0123456789abcdef")
        assert len(dataset.revision) in (7, 40)
        assert hub.resolve_commit(dataset) == full_hash(dataset.revision)


def test_a_commit_that_is_gone_or_is_ambiguous_is_refused(history: list[str]) -> None:
    history.append(hub.P3.revision.ljust(40, "1"))
    with pytest.raises(AssetError, match="2 commits begin with db48520, expected one"):
        load_instructions("p3:ag_news_classify")
    del history[1:]
    with pytest.raises(AssetError, match=r"'s_ni': MiniLLM/sinst .*0 commits begin with 84b8356"):
        load_instructions("s_ni")


def test_without_a_list_of_commits_the_cache_of_datasets_is_tried(
    fake: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: Any, **options: Any) -> Any:
        raise RuntimeError("no route")

    monkeypatch.setattr(HfApi, "list_repo_commits", unreachable)
    fake.parts = {"test": [{"prompt": "Ask", "output": "Say"}]}
    assert load_instructions("s_ni").test["prompt"] == ["Ask"]
    assert fake.request[2]["revision"] == hub.EVALUATION["s_ni"].revision


@pytest.mark.parametrize("name", ["dolly", "s_ni", "u_ni", "p3:ag_news_classify"])
def test_no_hub_is_one_clear_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`HF_HUB_OFFLINE` is read when the hub's client is imported, so its setting is set here."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    short = name.partition(":")[0]
    with pytest.raises(
        AssetError, match=rf"'{short}': \w+/\S+ can't .*data/cards/{short}\.md"
    ) as e:
        load_instructions(name)
    assert "\n" not in str(e.value)
