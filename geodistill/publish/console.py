"""Terminal output that leaves a progress bar intact."""

from __future__ import annotations

import sys

from tqdm import tqdm  # type: ignore[import-untyped]


def log(line: str) -> None:
    """Print a line at once, above a progress bar if there is one."""
    tqdm.write(f"{line}\n", file=sys.stdout, end="")  # at once: other processes write too
    sys.stdout.flush()


class IndentedWriter:
    """A write-only text stream that logs each complete line of a cell's output, indented.

    Of a line that a progress bar overwrites, only the last state is logged.
    """

    def __init__(self) -> None:
        self._incomplete = ""

    def write(self, text: str) -> None:
        """Log the lines that `text` completes."""
        *lines, self._incomplete = (self._incomplete + text).split("\n")
        for line in lines:
            last = line.rstrip("\r").rpartition("\r")[2]
            if last.strip():
                log(f"    {last}")

    def flush(self) -> None:
        """Do nothing: complete lines have been logged already."""
