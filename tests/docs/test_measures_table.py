"""The page of measures shows what the library declares."""

from pathlib import Path

from geodistill.geometry import CONVENTIONS, MEASURES
from geodistill.publish import measures_table

PAGE = Path(__file__).parents[2] / "book" / "measures.md"


def test_the_page_shows_the_generated_tables() -> None:
    text = PAGE.read_text()
    for table in (measures_table.measures(), measures_table.conventions()):
        assert table in text, (
            "book/measures.md is stale: insert the output of "
            "`python -m geodistill.publish.measures_table`"
        )


def test_and_the_tables_hold_every_measure() -> None:
    assert measures_table.measures().count("\n") == 1 + len(MEASURES) > 6
    assert measures_table.conventions().count("\n") == 1 + len(CONVENTIONS) == 10
