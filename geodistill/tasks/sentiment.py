"""Is a sentence positive or negative? Four sets of texts rated by at least 20 people each.

The texts and ratings are those of Hutto and Gilbert, "VADER: a parsimonious rule-based model for
sentiment analysis of social media text" (ICWSM 2014), as shipped in the ``vaderSentiment`` source
distribution (MIT). A rating is the mean over raters on a scale from -4 to 4.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import lru_cache

from geodistill.errors import InputError
from geodistill.tasks import assets
from geodistill.tasks.base import (
    SPLITS,
    ClassificationData,
    Row,
    content_hash,
    fraction,
    link_sources,
    normalise,
    split_by_source,
    to_datasets,
)

FILES = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}
TEST, VALIDATION = 0.25, 0.08
"""Shares of the sources that are kept for test and validation."""
SECOND = {"movie-b": "movie", "product-b": "product"}
"""A second split of two sets, whose test sources are all in the first split's training part: what
was looked at while settings were sought is not tested on again."""
DEGREE_WORDS = frozenset(
    normalise(
        "a an the and it is so very really super extremely far seriously just kinda sorta uber "
        "fucking absolutely major especially rt anonymous"
    ).split()
)


@dataclass(frozen=True)
class Rated:
    """One text of the set ``domain`` with its mean human rating in [-4, 4].

    Texts with the same ``gist`` are the same but for spelling, order and degree words.
    """

    domain: str
    item: str
    source: str
    text: str
    rating: float
    gist: str


@lru_cache
def rated_texts(name: str) -> tuple[Rated, ...]:
    """All texts of one set in the order of the file, the neutral ones (rating 0) too.

    The source of a product or news sentence is its review or article (the id's first part), that
    of a movie sentence or a tweet the text itself; sources are one where two of their texts have
    the same words (:func:`_gist`). Texts without a letter or digit are left out.

    Raises:
        InputError: no such set.
        AssetError: the texts are missing and can't be downloaded.
    """
    if name not in FILES:
        raise InputError(f"unknown sentiment set {name!r}; known: {', '.join(FILES)}")
    file = assets.path("sentiment") / FILES[name]
    lines = file.read_text(encoding="utf-8").splitlines()
    rows = [(key, float(rating), _clean(text)) for key, rating, text in map(_fields, lines)]
    rows = [row for row in rows if normalise(row[2])]
    gists = [_gist(text) for _, _, text in rows]
    origins = [key.split("_")[0] for key, _, _ in rows]
    roots = link_sources([(f"id {at}", gist) for at, gist in zip(origins, gists, strict=True)])
    return tuple(
        Rated(name, f"{name}/{key}", f"{name}/{origins[root]}", text, rating, gist)
        for (key, rating, text), root, gist in zip(rows, roots, gists, strict=True)
    )


def load(name: str) -> ClassificationData:
    """``"movie"``, ``"product"``, ``"news"`` or ``"tweets"``: the sign of the mean rating.

    Texts rated exactly 0 are left out. Metric: accuracy. ``"movie-b"`` and ``"product-b"`` are the
    same texts split anew (`SECOND`).
    """
    rows: list[Row] = [
        {"item": r.item, "source": r.source, "sentence": r.text, "label": int(r.rating > 0)}
        for r in rated_texts(SECOND.get(name, name))
        if r.rating != 0
    ]
    splits = split_by_source(rows, test=TEST, validation=VALIDATION)
    if name in SECOND:
        splits = _split_anew(splits)
    return ClassificationData(
        name=name,
        **to_datasets(splits),
        text_columns=("sentence",),
        label_names=("negative", "positive"),
        metric="accuracy",
        data_hash=content_hash(splits),
    )


def _split_anew(first: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """New test and validation sources out of the training part; the old ones join the rest."""
    share = len(first["train"]) / sum(map(len, first.values()))
    second: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for side in SPLITS:
        for row in first[side]:
            place = fraction(f"second split:{row['source']}") * share
            new = "test" if place < TEST else "validation" if place < TEST + VALIDATION else "train"
            second[new if side == "train" else "train"].append(row)
    return second


def _fields(line: str) -> list[str]:
    return line.split("\t", maxsplit=2)


def _gist(text: str) -> str:
    """The set of words but for degree words and addressees, so that variants have one source.

    The tweets hold sentences rewritten with capitals, exclamation marks and degree words.
    """
    words = set(normalise(text).split())
    return " ".join(sorted(words - DEGREE_WORDS or words))


def _clean(text: str) -> str:
    """Entities resolved (tweets write ``&amp;``), white space single."""
    return " ".join(html.unescape(text).split())
