"""Splits, groups, hashes and subsamples: functions of the data alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from geodistill.errors import InputError
from geodistill.tasks import CLASSIFICATION_TASKS, load_classification, stratified_subsample
from geodistill.tasks import base as tasks


def _labelled(counts: dict[int, int]) -> Dataset:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return Dataset.from_dict({"item": [f"t/{i}" for i in range(len(labels))], "label": labels})


def test_a_subsample_keeps_the_proportions_and_the_seed_decides() -> None:
    data = _labelled({0: 300, 1: 600, 2: 100})
    first, again, other = (
        stratified_subsample(data, 50, 0),
        stratified_subsample(data, 50, 0),
        stratified_subsample(data, 50, 1),
    )
    assert Counter(first["label"]) == {0: 15, 1: 30, 2: 5}
    assert first["item"] == again["item"]
    assert set(first["item"]) != set(other["item"])
    assert len(set(first["item"])) == 50


def test_a_subsample_ignores_the_order_of_the_rows_and_mixes_labels() -> None:
    data = _labelled({0: 100, 1: 100})
    order = list(range(200))
    random.Random(0).shuffle(order)
    subsample = stratified_subsample(data, 40, 3)
    assert stratified_subsample(data.select(order), 40, 3)["item"] == subsample["item"]
    assert 5 < sum(subsample["label"][:20]) < 15


def test_a_larger_subsample_contains_the_smaller() -> None:
    data = _labelled({0: 333, 1: 667})
    assert set(stratified_subsample(data, 30, 0)["item"]) < set(
        stratified_subsample(data, 90, 0)["item"]
    )


def test_a_subsample_stratifies_scores_by_their_nearest_integer() -> None:
    data = _labelled({0: 100, 5: 100}).map(lambda row: {"label": row["label"] * 0.99})
    assert Counter(round(label) for label in stratified_subsample(data, 20, 0)["label"]) == {
        0: 10,
        5: 10,
    }


@pytest.mark.parametrize("n", [0, -1, 11])
def test_a_subsample_of_an_impossible_size_is_refused(n: int) -> None:
    with pytest.raises(InputError, match=f"n: got {n}, expected 1 to 10"):
        stratified_subsample(_labelled({0: 5, 1: 5}), n, 0)


@given(st.dictionaries(st.integers(0, 5), st.integers(1, 50), min_size=1), st.data())
def test_quotas_sum_to_n_and_stay_within_one_of_the_share(
    counts: dict[int, int], data: st.DataObject
) -> None:
    total = sum(counts.values())
    n = data.draw(st.integers(1, total))
    quotas = tasks._quotas(counts, n)
    assert sum(quotas.values()) == n
    assert all(abs(quotas[k] - n * counts[k] / total) < 1 for k in counts)
    assert all(quotas[k] <= counts[k] for k in counts)


def test_items_are_grouped_by_chains_of_shared_keys() -> None:
    assert tasks.group_by_shared_keys([["a"], ["b"], ["a", "c"], ["d"], ["c", "b"]]) == [
        0,
        0,
        0,
        3,
        0,
    ]
    assert tasks.group_by_shared_keys([["a"], ["b"], ["c"]]) == [0, 1, 2]


@given(st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=3), max_size=25))
def test_groups_are_the_connected_components(keys: list[set[int]]) -> None:
    """Against a fixed point of the definition: join groups until none shares a key."""
    groups = [({i}, set(item_keys)) for i, item_keys in enumerate(keys)]
    while True:
        pair = next(((a, b) for a in groups for b in groups if a is not b and a[1] & b[1]), None)
        if pair is None:
            break
        groups = [group for group in groups if group not in pair]
        groups.append((pair[0][0] | pair[1][0], pair[0][1] | pair[1][1]))
    expected = {item: min(items) for items, _ in groups for item in items}
    roots = tasks.group_by_shared_keys([[str(key) for key in item_keys] for item_keys in keys])
    assert roots == [expected[i] for i in range(len(keys))]


def test_splits_have_their_shares_and_depend_on_the_group_alone() -> None:
    splits = {f"s/{i}": tasks.split_of(f"s/{i}", test=0.25, validation=0.1) for i in range(20_000)}
    shares = Counter(splits.values())
    assert shares["test"] / 20_000 == pytest.approx(0.25, abs=0.01)
    assert shares["validation"] / 20_000 == pytest.approx(0.10, abs=0.01)
    assert tasks.split_of("s/7", test=0.25, validation=0.1) == splits["s/7"]


def test_normalised_texts() -> None:
    assert tasks.normalize_text("  It's  GREAT -- really!") == "it s great really"
    assert tasks.text_key("...") == "..."
    assert tasks.word_ngrams("a b, c D", 3) == {"a b c", "b c d"}
    assert tasks.word_ngrams("a b", 3) == set()


def test_the_content_hash_covers_every_field_and_the_split() -> None:
    row = {"item": "a", "label": 1}
    splits = {"train": [row], "validation": [], "test": [row]}
    changed = [
        {**splits, "train": [{**row, "label": 0}]},
        {**splits, "train": [], "validation": [row]},
        {**splits, "test": []},
    ]
    hashes = {tasks.content_hash(each) for each in [splits, *changed]}
    assert len(hashes) == 4
    assert tasks.content_hash({**splits, "train": [dict(reversed(row.items()))]}) in hashes


def test_unknown_task_lists_the_known() -> None:
    with pytest.raises(InputError, match=r"unknown task 'imdb'; known: movie, product, .*mnli"):
        load_classification("imdb")
    assert {"movie", "product", "cola", "mrpc", "rte", "sst2", "stsb", "qnli", "mnli"} <= set(
        CLASSIFICATION_TASKS
    )


def test_a_data_folder_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEODISTILL_DATA_DIR", "/no/such/folder")
    with pytest.raises(InputError, match="GEODISTILL_DATA_DIR: '/no/such/folder' is not a folder"):
        load_classification("cola")
