"""Protocol files: what is read, and the design block that is written."""

import pandas as pd
import pytest
import yaml

from geodistill.analysis.protocol_file import read_protocol, write_design
from geodistill.analysis.stats.crossed_anova import Components
from geodistill.analysis.stats.power import Design, components_from_sd
from geodistill.errors import InputError

PEOPLE = "# by hand\nstudy: toy  # größer als α\nfamily:  # two\n  - {method: a, baseline: kd}\n"


def design(seeds=5, tests=1):
    return Design(components_from_sd(0.01, 0.2, 0.3), 1, seeds, 1000, tests)


def stored_design(path):
    """The design that a block describes."""
    block = read_protocol(path)["design"]
    names = ("measured_at", "seeds", "items", "tests", "power", "alpha")
    return Design(Components(**block["variance"]), *(block[name] for name in names))


def test_a_design_is_written_beside_what_people_wrote(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(PEOPLE + "design:\n  old: 1\n# looked at\nlooked_at: [dev]\n", encoding="utf-8")
    block = write_design(path, design(), "a test")
    text = path.read_text(encoding="utf-8")
    assert text.startswith(PEOPLE)
    assert text.endswith("# looked at\nlooked_at: [dev]\n")
    assert yaml.safe_load(text)["design"] == block
    assert "old" not in block
    assert text.index("  from: a test") < text.index("  variance:") < text.index("  needed:")
    write_design(path, design(seeds=9), "again")
    assert path.read_text(encoding="utf-8").count("design:") == 1
    assert read_protocol(path)["design"]["seeds"] == 9
    assert block["needed"][0]["items"] is None
    assert [row["gain"] for row in block["needed"]] == [0.005, 0.01, 0.02]
    assert block["smallest_gain"] == pytest.approx(design().smallest_gain(), abs=1e-6)


def test_a_new_file_and_one_without_a_last_line_end(tmp_path):
    path = tmp_path / "new" / "toy.yaml"
    write_design(path, design(tests=2), "a test")
    assert stored_design(path) == design(tests=2)
    path.write_text("study: toy")
    write_design(path, design(), "a test", gains=(0.03,))
    assert path.read_text().startswith("study: toy\ndesign:\n")
    assert pd.DataFrame(read_protocol(path)["design"]["needed"])["gain"].tolist() == [0.03]


def test_files_that_are_no_protocol_are_refused(tmp_path):
    path = tmp_path / "toy.yaml"
    with pytest.raises(InputError, match="no protocol at"):
        read_protocol(path)
    for content, message in (
        (b"- a", "holds a list; expected named blocks"),
        (b"a: [", "is not YAML"),
        ("study: größer".encode("latin-1"), "is not UTF-8 .* at byte 9"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_protocol(path)
        with pytest.raises(InputError, match=message):
            write_design(path, design(), "a test")
        assert path.read_bytes() == content
    path.write_text("")
    assert read_protocol(path) == {}
