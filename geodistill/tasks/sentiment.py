"""Sentiment of sentences: four sets of texts rated by at least 20 people each.

The texts and ratings are those of Hutto and Gilbert, "VADER: a parsimonious rule-based model for
sentiment analysis of social media text" (ICWSM 2014), from the `vaderSentiment` source
distribution (MIT). A rating is the mean over raters on a scale from -4 to 4.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import lru_cache

from geodistill.errors import check_choice
from geodistill.tasks import assets
from geodistill.tasks.base import (
    SPLITS,
    ClassificationData,
    Row,
    content_hash,
    group_by_shared_keys,
    hash_to_unit,
    normalize_text,
    split_by_group,
    to_datasets,
)

FILES = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}
TEST, VALIDATION = 0.25, {"movie": 0.08, "product": 0.08, "news": 0.25, "tweets": 0.25}
"""Expected shares of the groups in the test split, and in the validation split of each set."""
SECOND_SPLITS = {"movie-b": "movie", "product-b": "product"}
"""Two sets split a second time. All test groups were training groups in the first split, so that
items on which settings were chosen are not tested on again."""
DEGREE_WORDS = frozenset(
    normalize_text(
        "a an the and it is so very really super extremely far seriously just kinda sorta uber "
        "fucking absolutely major especially rt anonymous"
    ).split()
)


@dataclass(frozen=True)
class RatedText:
    """One text of a set with its human rating.

    Attributes:
        domain: name of the set.
        item: id of the text.
        source: id of its group.
        text: the text.
        rating: mean over raters, from -4 to 4.
        variant_key: the same for texts that differ in spelling, order and degree words alone.
    """

    domain: str
    item: str
    source: str
    text: str
    rating: float
    variant_key: str


@lru_cache
def rated_texts(name: str) -> tuple[RatedText, ...]:
    """All texts of one set in the order of its file, those rated 0 included.

    A product or news sentence is grouped by its review or article (the first part of its id), a
    movie sentence or a tweet is its own group; groups with variants of one text are merged. Texts
    without a letter or digit are left out.

    Args:
        name: "movie", "product", "news" or "tweets".

    Raises:
        InputError: no such set.
        AssetError: the texts are missing and can't be downloaded, or are damaged.
    """
    check_choice("sentiment set", name, FILES)
    file = assets.path("sentiment") / FILES[name]
    fields = [line.split("\t", 2) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [  # tweets hold entities such as `&amp;`
        (text_id, float(rating), " ".join(html.unescape(text).split()))
        for text_id, rating, text in fields
    ]
    rows = [row for row in rows if normalize_text(row[2])]
    variants = [_variant_key(text) for _, _, text in rows]
    origins = [text_id.split("_")[0] for text_id, _, _ in rows]
    keys = [(f"id {origin}", variant) for origin, variant in zip(origins, variants, strict=True)]
    groups = group_by_shared_keys(keys)
    return tuple(
        RatedText(name, f"{name}/{text_id}", f"{name}/{origins[group]}", text, rating, variant)
        for (text_id, rating, text), group, variant in zip(rows, groups, variants, strict=True)
    )


def load(name: str) -> ClassificationData:
    """The sign of the mean rating, by accuracy; texts rated exactly 0 are left out.

    Args:
        name: a set of `rated_texts`, or "movie-b" or "product-b" for a second split.

    Raises:
        AssetError: the texts are missing and can't be downloaded, or are damaged.
    """
    rows: list[Row] = [
        {"item": r.item, "source": r.source, "sentence": r.text, "label": int(r.rating > 0)}
        for r in rated_texts(SECOND_SPLITS.get(name, name))
        if r.rating != 0
    ]
    validation = VALIDATION[SECOND_SPLITS.get(name, name)]
    splits = split_by_group(rows, test=TEST, validation=validation)
    if name in SECOND_SPLITS:
        splits = _split_again(splits, validation)
    return ClassificationData(
        name=name,
        **to_datasets(splits),
        text_columns=("sentence",),
        label_names=("negative", "positive"),
        metric="accuracy",
        data_hash=content_hash(splits),
    )


def _split_again(first: dict[str, list[Row]], validation: float) -> dict[str, list[Row]]:
    """Test and validation groups out of the training split; the former ones become training."""
    share = len(first["train"]) / sum(map(len, first.values()))
    second: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for row in first[split]:
            position = hash_to_unit(f"second split:{row['source']}") * share
            if split != "train" or position >= TEST + validation:
                second["train"].append(row)
            else:
                second["test" if position < TEST else "validation"].append(row)
    return second


def _variant_key(text: str) -> str:
    """The set of words without degree words: variants of a text have the same.

    The tweets hold sentences rewritten with capitals, exclamation marks and degree words.
    """
    words = set(normalize_text(text).split())
    return " ".join(sorted(words - DEGREE_WORDS or words))
