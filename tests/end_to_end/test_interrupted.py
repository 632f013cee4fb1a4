"""A build that is killed goes on where it stopped, and leaves no kernel behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.tiny_project import notebook, printed, tiny_project

NAMES = ["one", "two", "three"]  # two notebooks run at a time
BUILD = """
import sys
from pathlib import Path
from geodistill.publish.book import build_book
from geodistill.publish.project import Project
build_book("smoke", project=Project.at(Path(sys.argv[1])))
"""
# announces its kernel, then waits until the test allows it to go on
WAIT = """
import os, time
from pathlib import Path
Path("../started_{name}").write_text(str(os.getpid()))
for _ in range(6000):
    if Path("../go_{name}").exists(): break
    time.sleep(0.05)
print("went through")
"""


@pytest.fixture
def project(tmp_path):
    sources = {
        f"_0{i}_{name}": notebook(name, WAIT.format(name=name))
        for i, name in enumerate(NAMES, start=1)
    }
    return tiny_project(tmp_path, **sources)


def start(root: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # a shell's background job, as which tests may run, would hand down a deaf SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(path: Path, build: subprocess.Popen, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not (path.exists() and path.read_text()):
        assert build.poll() is None, build.communicate()[0]
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def gone(pid: int, seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def allow(project, *names: str) -> None:
    for name in names:
        (project.root / f"go_{name}").touch()


def wait_until_finished(project, names: list[str], build: subprocess.Popen) -> None:
    for name in names:
        wait_for(project.executed("smoke") / f"0{NAMES.index(name) + 1}_{name}.ipynb", build)


def assert_no_kernel_lives(project) -> None:
    started = list(project.root.glob("started_*"))
    assert started
    for path in started:
        assert gone(int(path.read_text())), f"the kernel of {path.name} lives on"


@pytest.mark.parametrize("point", NAMES)
def test_sigkill_keeps_what_was_finished(project, point):
    before = NAMES[: NAMES.index(point)]
    allow(project, *before)
    build = start(project.root)
    wait_for(project.root / f"started_{point}", build)
    wait_until_finished(project, before, build)
    build.kill()
    build.wait()
    assert_no_kernel_lives(project)
    finished = sorted(path.stem[3:] for path in project.executed("smoke").glob("*.ipynb"))
    assert finished == sorted(before)

    for name in before:
        (project.root / f"started_{name}").unlink()
    allow(project, *NAMES)
    build = start(project.root)
    output, _ = build.communicate(timeout=600)
    assert build.returncode == 0, output
    for name in before:  # reused: it did not start again
        assert not (project.root / f"started_{name}").exists()
    for path in project.executed("smoke").glob("*.ipynb"):
        assert printed(path) == "went through\n"
    assert (project.html / "index.html").exists()


def test_ctrl_c_stops_at_once_and_keeps_what_was_finished(project):
    allow(project, "one")
    build = start(project.root)
    wait_for(project.root / "started_two", build)
    wait_until_finished(project, ["one"], build)
    build.send_signal(signal.SIGINT)
    output, _ = build.communicate(timeout=300)
    assert build.returncode != 0, output
    assert_no_kernel_lives(project)
    assert [path.stem for path in project.executed("smoke").glob("*.ipynb")] == ["01_one"]
