"""Score tables named on the command line, and tables for a terminal."""

from collections.abc import Mapping, Sequence

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from geodistill.errors import InputError

PIPED = 110  # columns, where the output is no terminal and has no width of its own


def parse_columns(columns: Sequence[str]) -> dict[str, str]:
    """Options "OURS=THEIRS" as names in the file by ours; "OURS=" for none.

    Raises:
        InputError: an option of another form.
    """
    names = {}
    for column in columns:
        role, sign, name = column.partition("=")
        if not (role and sign):
            raise InputError(
                f"--column {column!r}: expected OURS=THEIRS, such as method=model, or OURS= if the "
                "table has none"
            )
        names[role] = name
    return names


def print_taken(console: Console, taken: Mapping[str, str]) -> None:
    """Print one line per role: what was taken for it."""
    for role, words in taken.items():
        console.print(f"{role}: {words}", soft_wrap=True)


def wide_console() -> Console:
    """Standard output, wide enough for a table where it goes into a file or a pipe.

    Names are shown as they are: brackets and colons are no markup.
    """
    plain = Console()
    width = None if plain.is_terminal else max(PIPED, plain.width)
    return Console(markup=False, emoji=False, highlight=False, width=width)


def rich_table(frame: pd.DataFrame, title: str = "") -> Table:
    """A frame of words and numbers as a terminal table; the first column stands left."""
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for at, name in enumerate(frame.columns):
        table.add_column(str(name), justify="left" if at == 0 else "right", no_wrap=at == 2)
    for row in frame.astype(str).itertuples(index=False):
        table.add_row(*row)
    return table
