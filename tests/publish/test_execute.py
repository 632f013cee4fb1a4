"""Notebook runs: complete or refused, and reused only if nothing that they depend on changed."""

import json
import os
import re
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jupytext
import nbformat
import papermill
import pytest
from support.tiny_project import FIGURE, PARAMETERS, notebook, printed, tiny_project

from geodistill.errors import InputError
from geodistill.publish.cache_key import notebook_key
from geodistill.publish.console import IndentedWriter
from geodistill.publish.display import describe_figure
from geodistill.publish.execute import (
    NotebookError,
    NotebookRun,
    check_complete,
    execute,
    run_notebook,
    run_notebooks,
)
from geodistill.publish.notebook_source import check_parameters, declared_parameters, read_source
from geodistill.publish.project import find_project

SAY = 'print("ran as", profile, seed)'


def test_runs_under_the_profile_and_reuses_what_did_not_change(tmp_path, capfd, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: 0.0)  # a slow start would change the minutes left
    monkeypatch.setattr("geodistill.publish.execute.time", clock)
    project = tiny_project(tmp_path, _01_one=notebook("One", SAY), _02_two=notebook("Two", SAY))
    first = run_notebooks(project, "smoke", project.sources())
    shown = capfd.readouterr().out
    assert "notebooks to run: 2, about 0.5 min\n" in shown  # two at a time, half a minute each
    assert {"01_one: started", "02_two: started"} <= {*shown.splitlines()}
    assert re.search(r"\[1/2\] 0._...: done after [\d.]+ min, about 0\.5 min left in all", shown)
    assert re.search(r"\[2/2\] 0._...: done after [\d.]+ min, about 0\.0 min left in all", shown)
    assert "    ran as smoke 0" in shown  # a cell's output reaches the terminal
    assert [printed(path) for path in first] == ["ran as smoke 0\n"] * 2

    times = [path.stat().st_mtime_ns for path in first]
    source = tmp_path / "notebooks" / "02_two.py"
    source.write_text(source.read_text() + "print('more')\n")
    run_notebooks(project, "smoke", project.sources())
    again = [path.stat().st_mtime_ns for path in first]
    assert again[0] == times[0]
    assert again[1] > times[1]
    assert "1 of 2 notebooks unchanged" in capfd.readouterr().out


def test_the_pages_parameters_are_shown_once(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One"))
    (path,) = run_notebooks(project, "smoke", project.sources())
    tags = [cell.metadata.get("tags", []) for cell in nbformat.read(path, as_version=4).cells]
    assert ["parameters"] in tags
    assert ["injected-parameters", "remove-cell"] in tags  # Jupyter Book leaves it out


@pytest.mark.parametrize(
    "path",
    [
        "notebooks/01_one.py",
        "geodistill/part.py",
        "geodistill/new.py",
        "geodistill/figures/print.mplstyle",
        "geodistill/claims.yaml",
        "data/results/rows.csv",
        "data/cards/card.md",
        "constraints.txt",
    ],
)
def test_key_depends_on_source_library_data_and_lock(tmp_path, path):
    root = tmp_path / "runs"  # a name that has a meaning inside data/results only
    project = tiny_project(root, _01_one=notebook("One"))
    source = project.sources()[0]
    before = notebook_key(project, source, {"profile": "smoke"})
    (root / path).parent.mkdir(exist_ok=True)
    with (root / path).open("a") as file:
        file.write("# changed\n")
    assert notebook_key(project, source, {"profile": "smoke"}) != before


def test_key_depends_on_the_names_of_files(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One"))
    before = notebook_key(project, project.sources()[0], {})
    (tmp_path / "data" / "results" / "rows.csv").rename(tmp_path / "data" / "results" / "sows.csv")
    assert notebook_key(project, project.sources()[0], {}) != before


def test_key_depends_on_parameters_and_results_folder_not_on_times(tmp_path, monkeypatch):
    project = tiny_project(tmp_path, _01_one=notebook("One"))
    source = project.sources()[0]
    before = notebook_key(project, source, {"seed": 0})
    assert notebook_key(project, source, {"seed": 1}) != before
    assert notebook_key(project, source, {"seed": 0, "n": 1}) == notebook_key(
        project, source, {"n": 1, "seed": 0}
    )
    for change in (
        lambda patch: patch.setattr("platform.python_version", lambda: "3.99"),
        lambda patch: patch.setenv("GEODISTILL_DATA_DIR", "elsewhere"),
    ):
        with monkeypatch.context() as patch:
            change(patch)
            assert notebook_key(project, source, {"seed": 0}) != before
    os.utime(tmp_path / "geodistill" / "part.py", (1, 1))
    (tmp_path / "data" / "results" / "runs").mkdir()
    (tmp_path / "data" / "results" / "runs" / "half.parquet").write_text("x")
    (tmp_path / "geodistill" / "__pycache__").mkdir()
    (tmp_path / "geodistill" / "__pycache__" / "part.pyc").write_text("x")
    (tmp_path / "notebooks" / "02_other.py").write_text(notebook("Other"))
    assert notebook_key(project, source, {"seed": 0}) == before
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GEODISTILL_RESULTS", "~/elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "rows.csv").write_text("2")
    assert notebook_key(project, source, {"seed": 0}) != before


def test_papermill_alone_would_pass_an_unknown_parameter(tmp_path):
    """The contrast: why `check_parameters` exists."""
    project = tiny_project(tmp_path, _01_one=notebook("One"))
    jupytext.write(read_source(project.sources()[0]), tmp_path / "one.ipynb")
    papermill.execute_notebook(
        tmp_path / "one.ipynb", tmp_path / "out.ipynb", {"sead": 3}, progress_bar=False
    )
    with pytest.raises(InputError, match=r"no parameter 'sead'; it has: profile, seed"):
        run_notebook("one", {"sead": 3}, project)
    assert not (tmp_path / "_build").exists()  # refused before anything ran


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": "three"}, r"parameter seed of one: got 'three', expected int"),
        ({"seed": True}, r"got True, expected int"),
        ({"profile": "desktop"}, r"profile 'desktop' is unknown; .*: smoke, laptop, paper"),
    ],
)
def test_wrong_parameter_values_are_refused(tmp_path, given, message):
    project = tiny_project(tmp_path, _01_one=notebook("One"))
    with pytest.raises(InputError, match=message):
        check_parameters(read_source(project.sources()[0]), "one", given)


@pytest.mark.parametrize(("cells", "count"), [("", 0), (PARAMETERS * 2, 2)])
def test_exactly_one_parameters_cell(tmp_path, cells, count):
    project = tiny_project(tmp_path, _01_one=notebook("One", parameters=cells))
    with pytest.raises(InputError, match=f"{count} cells tagged `parameters`, needs one"):
        run_notebooks(project, "smoke", project.sources())


def test_declared_parameters_know_annotations_and_computed_defaults(tmp_path):
    text = '# %% tags=["parameters"]\nseed: int = 4\nrate = 0.5\nnames = sorted("ab")\n'
    text += "layer: object = -1\n"
    project = tiny_project(tmp_path, _01_one=notebook("One", parameters=text))
    declared = declared_parameters(read_source(project.sources()[0]), "one")
    assert declared == {"seed": 4, "rate": 0.5, "names": None, "layer": None}
    values = {"rate": 1, "names": "x", "layer": "encoder.layer.5"}
    check_parameters(read_source(project.sources()[0]), "one", values)


def test_names_are_found_by_unique_parts(tmp_path, monkeypatch):
    project = tiny_project(
        tmp_path, _01_one=notebook("One"), _02_once=notebook("Once"), _03_one_more=notebook("More")
    )
    for name in ("01_one", "one", "01_one.py"):
        assert project.find_notebook(name).stem == "01_one"
    assert project.find_notebook("once").stem == "02_once"
    with pytest.raises(InputError, match=r"'on' matches 01_one, 02_once, 03_one_more"):
        project.find_notebook("on")
    with pytest.raises(InputError, match=r"'three' is unknown; the notebooks are: 01_one, 02_once"):
        project.find_notebook("three")
    with pytest.raises(InputError, match="is unknown"):
        project.find_notebook("")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert find_project().root == tmp_path


def test_without_a_checkout_the_notebook_of_the_wheel_runs_below_the_working_folder(
    tmp_path, monkeypatch
):
    installed, here = tmp_path / "env/share/geodistill", tmp_path / "here"
    tiny_project(installed, _08_your_model=notebook("Mine", SAY))
    (installed / "_toc.yml").unlink()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.prefix", str(tmp_path / "env"))
    monkeypatch.setattr("geodistill.paths.SOURCE_ROOT", installed.parent)
    path = run_notebook("your_model", {"seed": 3})
    assert path.is_relative_to(here / "_build")
    assert printed(path).endswith(" 3\n")
    with pytest.raises(
        InputError, match=r"no checkout .*\(notebooks without a checkout: 08_your_model\)"
    ):
        run_notebook("theory", {})


def test_unknown_profile_lists_the_known_ones(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One"))
    with pytest.raises(InputError, match="'desktop' is unknown; the profiles are: smoke, laptop"):
        run_notebooks(project, "desktop", project.sources())


def test_run_notebook_takes_parameters(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One", SAY))
    path = run_notebook("one", {"seed": 3, "profile": "smoke"}, project)
    assert printed(path) == "ran as smoke 3\n"
    assert path.name == "01_one-profile-smoke-seed-3.ipynb"


def test_a_progress_bar_takes_one_line(capsys):
    stream = IndentedWriter()
    for text in ("1/3", "\r2/3", "\r3/3\nnext", " line\r\n", "\n  \nrest"):
        stream.write(text)
    assert capsys.readouterr().out == "    3/3\n    next line\n"


@pytest.mark.parametrize("content", ["", '{"cells": [', "{}", "[]", '{"metadata": {}}', None])
def test_a_damaged_executed_notebook_is_made_again(tmp_path, content, capsys):
    project = tiny_project(tmp_path, _01_one=notebook("One", SAY))
    target = project.executed("smoke") / "01_one.ipynb"
    target.parent.mkdir(parents=True)
    if content is None:
        target.write_bytes(b"\xff\xfe")  # not UTF-8
    else:
        target.write_text(content)
    run = NotebookRun(project, project.sources()[0], {"profile": "smoke"}, target)
    assert not run.is_up_to_date()
    with pytest.raises(InputError, match="none yet"):
        describe_figure("rising", project)


def test_a_truncated_notebook_is_run_again_and_published(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One", SAY))
    (path,) = run_notebooks(project, "smoke", project.sources())
    complete = path.read_text()
    path.write_text(complete[: len(complete) // 2])
    (path,) = run_notebooks(project, "smoke", project.sources())
    assert printed(path) == "ran as smoke 0\n"


@pytest.mark.parametrize(("budget", "warns"), [("1e-5", True), ("1", False)])
def test_a_slow_notebook_is_a_warning_not_an_error(tmp_path, capsys, budget, warns):
    project = tiny_project(tmp_path, _01_one=notebook("One", SAY))
    (tmp_path / "notebooks" / "budgets.toml").write_text(f"[smoke]\n01_one = {budget}\n")
    start = time.monotonic()
    run_notebooks(project, "smoke", project.sources())
    seconds = time.monotonic() - start
    shown = capsys.readouterr().out
    assert ("warning: 01_one should take 1e-05 min on two idle cores\n" in shown) == warns
    minutes = float(re.search(r"01_one: done after ([\d.]+) min", shown)[1])
    assert minutes <= seconds / 60 + 0.05


def test_a_failed_notebook_is_refused_and_the_others_are_kept(tmp_path, capfd):
    bad = notebook("Bad", 'print("so far")\n# %%\nraise ValueError("no rows")')
    project = tiny_project(
        tmp_path, _01_one=notebook("One", SAY), _02_bad=bad, _03_three=notebook("Three", SAY)
    )
    with pytest.raises(NotebookError, match=r"02_bad.*ValueError: no rows") as caught:
        run_notebooks(project, "smoke", project.sources())
    assert str(caught.value).count("\n") == 0
    folder = project.executed("smoke")
    assert sorted(path.name for path in folder.glob("*.ipynb")) == [
        "01_one.ipynb",
        "03_three.ipynb",
    ]
    assert printed(folder / "in_progress" / "02_bad.ipynb") == "so far\n"
    shown = capfd.readouterr().out
    assert 'raise ValueError("no rows")' in shown  # the traceback
    assert re.search(r"\[./3\] 02_bad: FAILED after", shown)

    (tmp_path / "notebooks" / "02_bad.py").write_text(notebook("Good", SAY))
    run_notebooks(project, "smoke", project.sources())
    assert "2 of 3 notebooks unchanged" in capfd.readouterr().out


def test_an_error_that_a_user_can_fix_is_one_line_without_a_traceback(tmp_path, capsys):
    code = 'from geodistill.errors import InputError\nraise InputError("no rows in mine.csv")'
    project = tiny_project(tmp_path, _01_one=notebook("One", code))
    with pytest.raises(NotebookError, match=r"^notebook 01_one, cell 2: no rows in mine\.csv;"):
        run_notebook("one", {}, project)
    assert "Traceback" not in capsys.readouterr().out


def test_a_notebook_knows_the_callers_folder_and_takes_long_values(tmp_path, monkeypatch):
    code = "import os\nprint(os.environ['GEODISTILL_CALLER'], name)"
    parameters = PARAMETERS + 'name = ""\n'
    project = tiny_project(tmp_path / "checkout", _01_one=notebook("One", code, parameters))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEODISTILL_CALLER", raising=False)
    paths = [run_notebook("one", {"name": "x" * 300 + end}, project) for end in "ab"]
    assert [printed(path) for path in paths] == [f"{tmp_path} {'x' * 300}{end}\n" for end in "ab"]
    monkeypatch.delenv("GEODISTILL_CALLER")


def test_notebooks_that_run_at_once_share_the_cores(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # else what the run sets would outlive the test
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    code = "import os\nprint(os.environ['OMP_NUM_THREADS'], os.environ['OMP_WAIT_POLICY'])"
    project = tiny_project(tmp_path, _01_one=notebook("One", code), _02_two=notebook("Two", code))
    paths = run_notebooks(project, "smoke", project.sources())
    assert [printed(path) for path in paths] == ["3 PASSIVE\n"] * 2


def test_a_dead_kernel_is_a_failure(tmp_path):
    """papermill marks the cell in which the kernel died, and all after it, as completed."""
    project = tiny_project(tmp_path, _01_one=notebook("One", "import os; os._exit(1)"))
    with pytest.raises(NotebookError, match="01_one: its kernel died"):
        run_notebooks(project, "smoke", project.sources())
    assert not list(project.executed("smoke").glob("*.ipynb"))


@pytest.mark.parametrize("broken_starts", [1, 2])
def test_a_kernel_that_does_not_start_is_started_again(tmp_path, monkeypatch, capfd, broken_starts):
    """Two kernels that start at one time can choose the same port; one then never answers."""
    project = tiny_project(tmp_path, _01_one=notebook("One", SAY))
    starts, real = [], papermill.execute_notebook

    def start(*arguments, **options):
        starts.append(1)
        if len(starts) > broken_starts:
            return real(*arguments, **options)
        with monkeypatch.context() as patched:
            silent = lambda *_, **__: [sys.executable, "-c", "pass"]  # noqa: E731
            patched.setattr("jupyter_client.manager.KernelManager.format_kernel_cmd", silent)
            return real(*arguments, **options)

    monkeypatch.setattr(papermill, "execute_notebook", start)
    parameters = {"profile": "smoke"}
    run = NotebookRun(project, *project.sources(), parameters, tmp_path / "out" / "01_one.ipynb")
    if broken_starts == 1:
        execute(run)
        assert printed(run.target) == "ran as smoke 0\n"
    else:
        with pytest.raises(
            NotebookError, match=r"01_one: its kernel did not start, twice \(Kernel"
        ):
            execute(run)
        assert not run.target.exists()
    assert "01_one: its kernel did not start (Kernel died" in capfd.readouterr().out
    assert len(starts) == 2


def finished_notebook(**metadata: object) -> nbformat.NotebookNode:
    cell = nbformat.v4.new_code_cell("1", metadata={"papermill": {"status": "completed"}})
    return nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": metadata})


def test_refuses_each_sign_of_an_unfinished_run():
    check_complete(finished_notebook(exception=None), "fine")
    with pytest.raises(NotebookError, match="ended with an exception"):
        check_complete(finished_notebook(exception=True), "bad")
    pending = finished_notebook()
    pending.cells[0].metadata["papermill"]["status"] = "pending"
    with pytest.raises(NotebookError, match="cell 0: pending instead of completed"):
        check_complete(pending, "bad")
    never = finished_notebook()
    del never.cells[0].metadata["papermill"]
    with pytest.raises(NotebookError, match="never run"):
        check_complete(never, "bad")
    raised = finished_notebook()
    raised.cells[0].outputs = [nbformat.v4.new_output("error", ename="KeyError")]
    with pytest.raises(NotebookError, match="raised KeyError"):
        check_complete(raised, "bad")


def test_an_image_without_alternative_text_is_refused(tmp_path):
    bare = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    project = tiny_project(
        tmp_path, _01_bare=notebook("Bare", bare), _02_shown=notebook("Shown", FIGURE)
    )
    with pytest.raises(NotebookError, match="01_bare, cell 3: an image without alternative text"):
        run_notebooks(project, "smoke", project.sources())
    assert (project.executed("smoke") / "02_shown.ipynb").exists()


def test_no_path_of_this_machine_is_published(tmp_path):
    project = tiny_project(tmp_path, _01_one=notebook("One", SAY))
    (path,) = run_notebooks(project, "smoke", project.sources())
    assert str(tmp_path) not in path.read_text()
    assert json.loads(path.read_text())["metadata"]["geodistill"]["parameters"] == {
        "profile": "smoke"
    }


def test_a_kernel_in_the_home_folder_does_not_stand_in(tmp_path, monkeypatch):
    kernel = tmp_path / "home" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    broken = {"argv": ["false"], "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(broken))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    code = "import sys; print(sys.executable)"
    project = tiny_project(tmp_path, _01_one=notebook("One", code))
    (path,) = run_notebooks(project, "smoke", project.sources())
    assert Path(printed(path).strip()) == Path(sys.executable)


def test_an_invalid_header_is_named(tmp_path):
    header = "# ---\n# jupyter:\n#   kernelspec:\n#     name: python3\n# ---\n"
    project = tiny_project(tmp_path, _01_one=header + notebook("One"))
    with pytest.raises(InputError, match=r"01_one\.py has an invalid header: 'display_name'"):
        run_notebooks(project, "smoke", project.sources())


def test_source_edited_during_its_run_is_run_again(tmp_path):
    edit = "from pathlib import Path\nwith Path('01_one.py').open('a') as f: f.write('# later\\n')"
    project = tiny_project(tmp_path, _01_one=notebook("One", edit))
    target = project.executed("smoke") / "01_one.ipynb"
    run = NotebookRun(project, project.sources()[0], {"profile": "smoke"}, target)
    execute(run)
    assert target.exists()
    assert not run.is_up_to_date()
