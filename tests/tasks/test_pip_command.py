"""The command of pip, in environments with and without one."""

import importlib.util
import subprocess
import sys

import pytest

from geodistill.errors import AssetError
from geodistill.tasks.pip_command import pip_command


@pytest.fixture
def hidden(monkeypatch):
    """Packages that can't be found."""
    names = set()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *args: None if name in names else find(name, *args),
    )
    return names


@pytest.mark.parametrize("without_pip", [False, True])
def test_the_command_runs_pip(hidden, without_pip):
    hidden.update({"pip"} if without_pip else set())
    command = pip_command()
    assert (command == [sys.executable, "-m", "pip"]) != without_pip
    run = subprocess.run([*command, "download", "--help"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "--require-hashes" in run.stdout


def test_without_any_pip_the_way_out_is_named(hidden):
    hidden.update({"pip", "ensurepip"})
    with pytest.raises(AssetError, match=r"there is no pip for .*`uv pip install pip`"):
        pip_command()
