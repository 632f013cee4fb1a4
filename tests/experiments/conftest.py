"""Where the tests of the runner and of what verifies its runs keep the tiny study."""

import pytest
from support.tiny_study import FOLDER


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The folder of the tiny study, in a results folder of its own."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results" / FOLDER


@pytest.fixture
def log(tmp_path):
    """The file in which the tiny study writes a line for each run that it makes."""
    return tmp_path / "log"
