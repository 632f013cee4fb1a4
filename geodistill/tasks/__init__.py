"""Tasks by name: text classification and instructions, each split by source."""

from __future__ import annotations

from geodistill.errors import InputError
from geodistill.tasks import glue, instructions, sentiment
from geodistill.tasks.base import ClassificationData, InstructionData, stratified_subsample
from geodistill.tasks.from_table import load_file

__all__ = [
    "CLASSIFICATION",
    "ClassificationData",
    "InstructionData",
    "stratified_subsample",
    "load_classification",
    "load_file",
    "load_instructions",
]

load_instructions = instructions.load
CLASSIFICATION = {
    **dict.fromkeys((*sentiment.FILES, *sentiment.SECOND), sentiment.load),
    **dict.fromkeys(glue.TASKS, glue.load),
}


def load_classification(name: str) -> ClassificationData:
    """The classification task ``name``.

    Raises:
        InputError: no such task; the message lists the known ones.
        AssetError: its data is missing and can't be downloaded.
    """
    if name not in CLASSIFICATION:
        raise InputError(
            f"unknown task {name!r}; known: {', '.join(CLASSIFICATION)}; a table of your own is "
            "read by load_file(path, texts=[...], label=...)"
        )
    return CLASSIFICATION[name](name)
