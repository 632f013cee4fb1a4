"""Tables for a terminal."""

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

PIPED = 110  # columns, where the output is no terminal and has no width of its own


def wide_console() -> Console:
    """Standard output, wide enough for a table where it goes into a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=max(PIPED, console.width))


def rich_table(frame: pd.DataFrame, title: str = "") -> Table:
    """A frame of words and numbers as a terminal table; the first column stands left."""
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for at, name in enumerate(frame.columns):
        table.add_column(str(name), justify="left" if at == 0 else "right", no_wrap=at == 2)
    for row in frame.astype(str).itertuples(index=False):
        table.add_row(*row)
    return table
