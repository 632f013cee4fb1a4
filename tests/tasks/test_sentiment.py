"""The human-rated sets: counts by an independent reader, and no group in two splits."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest

from geodistill.errors import InputError
from geodistill.paths import data_dir
from geodistill.tasks import ClassificationData, load_classification, sentiment
from geodistill.tasks.base import SPLITS

# Positive and negative texts, counted with awk over the files as shipped:
# awk -F'\t' '$3 ~ /[A-Za-z0-9_]/ && $2+0 > 0' FILE | wc -l
COUNTS = {
    "movie": (5242, 5326),
    "product": (2125, 1481),
    "news": (2204, 2742),
    "tweets": (2897, 1299),
}
# Sizes of the splits as data/cards/sentiment.md has them.
SIZES = {
    "movie": (7060, 839, 2669),
    "product": (2539, 192, 875),
    "news": (2583, 1229, 1134),
    "tweets": (2185, 1027, 984),
}
# The committed results were measured on exactly these rows and splits.
HASHES = {
    "movie": "4a0483ec0433ba9915e1a4bfce5b3f117a792deda4ad11db2640cda71236f504",
    "product": "e2841b48fbe3ad734591f80d5da6a016cab81c8952c3e402bd4d86d9180dee78",
    "news": "8432e4bad6ff28b17e7c3b3bb5976b396ae4d2ef4ef87e9c8c56b8ec2f3a61e9",
    "tweets": "74df9d0ac908806e1cf69b773df1a542932f4dafd44ba47aaa7d52e36a3fffdf",
}


@pytest.fixture(scope="module", params=list(COUNTS))
def data(request: pytest.FixtureRequest) -> ClassificationData:
    return load_classification(request.param)


def _rows(data: ClassificationData) -> list[tuple[str, dict[str, object]]]:
    return [(split, dict(row)) for split in SPLITS for row in getattr(data, split)]


def test_label_counts(data: ClassificationData) -> None:
    labels = Counter(row["label"] for _, row in _rows(data))
    assert (labels[1], labels[0]) == COUNTS[data.name]
    assert sum(labels.values()) == sum(COUNTS[data.name])


def test_no_group_and_no_text_in_two_splits(data: ClassificationData) -> None:
    variant_of = {rated.item: rated.variant_key for rated in sentiment.rated_texts(data.name)}
    splits: dict[str, set[str]] = defaultdict(set)
    for split, row in _rows(data):
        splits[f"source {row['source']}"].add(split)
        splits[f"text {variant_of[str(row['item'])]}"].add(split)
    assert len(splits) > 2000
    assert all(len(names) == 1 for names in splits.values())


def test_a_split_by_item_would_fail_the_check_above() -> None:
    """Reviews do give several sentences: the check is not vacuous."""
    product = load_classification("product")
    by_item = Counter(row["source"] for row in product.test)
    assert max(by_item.values()) > 20
    assert len(by_item) < len(product.test) / 5


def test_shape_and_sizes(data: ClassificationData) -> None:
    items = [row["item"] for _, row in _rows(data)]
    assert len(set(items)) == len(items)
    assert data.text_columns == ("sentence",)
    assert data.label_names == ("negative", "positive")
    assert data.metric == "accuracy"
    assert data.train.column_names == ["item", "source", "sentence", "label"]
    for split in SPLITS:
        share = len(getattr(data, split)) / len(items)
        validation = 0.25 if data.name in ("news", "tweets") else 0.08
        expected = {"train": 0.75 - validation, "validation": validation, "test": 0.25}
        assert share == pytest.approx(expected[split], abs=0.04)
        assert set(getattr(data, split)["label"]) == {0, 1}
    assert all(row["sentence"] == " ".join(str(row["sentence"]).split()) for _, row in _rows(data))


def test_the_sizes_are_those_of_the_card(data: ClassificationData) -> None:
    sizes = tuple(len(getattr(data, split)) for split in SPLITS)
    assert sizes == SIZES[data.name]
    card = (data_dir() / "cards" / "sentiment.md").read_text()
    (row,) = re.findall(rf"^\| {data.name} \|.*$", card, re.MULTILINE)
    numbers = [int(cell.strip().split()[0].replace(",", "")) for cell in row.split("|")[2:8]]
    assert numbers == [*COUNTS[data.name], *sizes, len(set(data.test["source"]))]


def test_known_rows() -> None:
    rows = {str(row["item"]): row for _, row in _rows(load_classification("movie"))}
    assert rows["movie/3"]["sentence"] == "Effective but too tepid biopic"
    assert rows["movie/3"]["label"] == 0
    assert rows["movie/4"]["label"] == 1
    rated = {r.item: r for r in sentiment.rated_texts("tweets")}
    assert rated["tweets/3"].text.startswith("We were 17 deep last night & the love")
    assert rated["tweets/3"].rating == pytest.approx(2.873684211)


def test_variants_of_one_tweet_are_one_group() -> None:
    """3861 to 3866 are "Ugh! I hate hate hate getting blood drawn!" in capitals and so on."""
    rated = {r.item: r for r in sentiment.rated_texts("tweets")}
    assert len({rated[f"tweets/{i}"].source for i in range(3861, 3867)}) == 1
    assert rated["tweets/3867"].source != rated["tweets/3866"].source


@pytest.mark.parametrize("name", list(HASHES))
def test_the_rows_are_those_of_the_committed_results(name: str) -> None:
    assert load_classification(name).data_hash == HASHES[name]


def test_unknown_set() -> None:
    with pytest.raises(InputError, match="sentiment set is 'books'; expected one of movie, "):
        sentiment.rated_texts("books")


@pytest.mark.parametrize("name", ["movie", "product"])
def test_the_second_split_tests_on_items_not_used_before(name: str) -> None:
    first, second = load_classification(name), load_classification(f"{name}-b")
    items = {
        which: {split: set(getattr(data, split)["item"]) for split in SPLITS}
        for which, data in (("first", first), ("second", second))
    }
    seen = items["first"]["test"] | items["first"]["validation"]
    assert not seen & (items["second"]["test"] | items["second"]["validation"])
    assert seen < items["second"]["train"]
    all_items = [set().union(*splits.values()) for splits in items.values()]
    assert all_items[0] == all_items[1]
    sources = {split: set(getattr(second, split)["source"]) for split in SPLITS}
    assert not sources["test"] & (sources["train"] | sources["validation"])
    assert not sources["validation"] & sources["train"]
    share = len(second.test) / len(all_items[1])
    assert 0.2 < share < 0.3
    assert first.data_hash != second.data_hash
