"""Tasks by name: text classification and instructions, each split by group."""

from __future__ import annotations

from collections.abc import Callable

from geodistill.errors import InputError
from geodistill.tasks import glue, sentiment
from geodistill.tasks.base import ClassificationData, InstructionData, stratified_subsample
from geodistill.tasks.from_table import load_table
from geodistill.tasks.instructions import load_instructions

__all__ = [
    "CLASSIFICATION_TASKS",
    "ClassificationData",
    "InstructionData",
    "load_classification",
    "load_instructions",
    "load_table",
    "stratified_subsample",
]

CLASSIFICATION_TASKS: dict[str, Callable[[str], ClassificationData]] = {
    **dict.fromkeys((*sentiment.FILES, *sentiment.SECOND_SPLITS), sentiment.load),
    **dict.fromkeys(glue.TASKS, glue.load),
}
"""Loaders of the classification tasks, by task name."""


def load_classification(name: str) -> ClassificationData:
    """A classification task by name, one of `CLASSIFICATION_TASKS`.

    Args:
        name: "movie", "product", "news" or "tweets" (the embedded human-rated texts), "movie-b" or
            "product-b" (a second split), or a GLUE task such as "sst2".

    Raises:
        InputError: no such task; the error lists the known ones.
        AssetError: its data is missing and can't be downloaded, or is damaged.

    Example:
        >>> from geodistill.tasks import CLASSIFICATION_TASKS, load_classification
        >>> sorted(CLASSIFICATION_TASKS)[:4]
        ['cola', 'mnli', 'movie', 'movie-b']
        >>> data = load_classification("movie")
        >>> data.label_names, len(data.train), len(data.test)
        (('negative', 'positive'), 7060, 2669)
    """
    if name not in CLASSIFICATION_TASKS:
        raise InputError(
            f"unknown task {name!r}; known: {', '.join(CLASSIFICATION_TASKS)}; a table of your own "
            "is read by load_table(path, texts=[...], label=...)"
        )
    return CLASSIFICATION_TASKS[name](name)
