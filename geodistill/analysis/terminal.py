"""Tables for a terminal."""

import pandas as pd
from rich.table import Table


def rich_table(frame: pd.DataFrame, title: str = "") -> Table:
    """A frame of words and numbers as a terminal table; the first column stands left."""
    table = Table(title=title or None, title_justify="left")
    for at, name in enumerate(frame.columns):
        table.add_column(str(name), justify="left" if at == 0 else "right")
    for row in frame.astype(str).itertuples(index=False):
        table.add_row(*row)
    return table
