"""Lines on the terminal that leave papermill's progress bar whole."""

from __future__ import annotations

import sys

from tqdm import tqdm  # type: ignore[import-untyped]


def say(text: str) -> None:
    """Print `text` at once, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


class Indented:
    """A write-only stream: passes on whole lines of a running cell, indented.

    Of a line that a progress bar overwrites, only what stands in the end.
    """

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            last = line.rstrip("\r").rpartition("\r")[2]
            if last.strip():
                say(f"    {last}")

    def flush(self) -> None:
        """Nothing is held back but an unfinished line."""
