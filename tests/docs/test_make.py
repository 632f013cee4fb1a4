"""The Makefile's own part: one environment, made on demand; one line when Python will not do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.tiny_project import REPOSITORY

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def make(
    checkout: Path, *arguments: str, python: str = "exit 0"
) -> subprocess.CompletedProcess[str]:
    """`make` with a python3 that runs the shell code `python`; "$2" is the code after -c."""
    fake = checkout / "bin" / "python3"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(f"#!/bin/sh\n{python}\n")
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    environment.pop("MAKEFLAGS", None)
    return subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("target", ["book", "test"])
@pytest.mark.parametrize(
    ("python", "message"),
    [
        ('case "$2" in *version*) exit 1;; esac', "python3 is missing or older than 3.11"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "apt install python3-venv"),
    ],
)
def test_an_unusable_python_is_named_in_one_line(checkout, target, python, message):
    done = make(checkout, target, python=python)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert line.startswith("error: ")
    assert message in line
    assert not (checkout / ".venv").exists()


def test_a_failed_install_is_not_taken_for_a_finished_one(checkout):
    pip_fails = (
        'case "$2" in venv) mkdir -p .venv/bin; cp "$0" .venv/bin/python;; pip) exit 1;; esac'
    )
    assert make(checkout, "book", python=pip_fails).returncode != 0
    assert not list((checkout / ".venv").glob("installed-*"))


def test_the_environment_is_made_again_only_when_the_pins_change(checkout):
    installs = 'case "$2" in venv) mkdir -p .venv/bin; cp "$0" .venv/bin/python;; esac'
    (stamp,) = stamped(checkout, installs)
    assert stamped(checkout, "exit 1") == [stamp]  # no Python is asked for
    with (checkout / "constraints.txt").open("a") as file:
        file.write("# newer\n")
    (newer,) = stamped(checkout, installs)
    assert newer != stamp


def stamped(checkout: Path, python: str) -> list[str]:
    """Stamps in .venv after `make book`, of which only the install can succeed here."""
    make(checkout, "book", python=python)
    return [path.name for path in (checkout / ".venv").glob("installed-*")]


def test_help_names_every_target(checkout):
    text = make(checkout, "help").stdout
    for target in ("book", "test", "release-notebooks", "clean"):
        assert f"make {target}" in text


def test_ci_calls_make_test_and_wants_a_browser():
    script = REPOSITORY / ".ci" / "run"
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    text = script.read_text()
    assert "GEODISTILL_REQUIRE_BROWSER=1" in text
    assert text.rstrip().endswith("exec make test")
