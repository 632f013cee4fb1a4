"""The command line: quick help, errors of one line, parameters as they were meant."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.tiny_study import lines, tiny_study
from typer.testing import CliRunner

import geodistill
from geodistill.cli import main
from geodistill.errors import AssetError, InputError
from geodistill.experiments import registry
from geodistill.publish import execute

COMMANDS = ("run", "grid", "compare", "power", "inspect", "preset", "assets", "book", "why")
HEAVY = ("torch", "transformers", "pandas", "matplotlib", "datasets")


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A study named "tiny" of three instant runs."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path / "results"))
    monkeypatch.setitem(registry.STUDIES, "tiny", lambda: tiny_study(tmp_path / "log", runs=3))


def test_help_is_quick_and_loads_nothing_heavy():
    code = f"""
import sys
from geodistill.cli.main import app
try:
    app(["--help"])
except SystemExit:
    pass
print("loaded:", *(name for name in {HEAVY} if name in sys.modules))
"""
    before = os.times().children_user
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stdout.splitlines()[-1] == "loaded:"
    assert all(name in run.stdout for name in COMMANDS)
    assert os.times().children_user - before < 2  # seconds of one core, however busy the others


def test_the_check_for_heavy_packages_can_fail():
    run = subprocess.run(
        [sys.executable, "-c", "import geodistill.geometry, sys; print('torch' in sys.modules)"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout == "True\n"


def test_the_installed_command_is_this_one():
    script = Path(sys.executable).with_name("geodistill")
    run = subprocess.run([script, "grid", "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    assert "--verify" in run.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(main.app, [command, "--help"])
    assert result.exit_code == 0
    function = next(
        c.callback for c in main.app.registered_commands if c.callback.__name__ == command
    )
    assert function.__doc__.split(";")[0].split(",")[0] in " ".join(result.output.split())


def test_the_list_of_commands_is_complete():
    assert {command.callback.__name__ for command in main.app.registered_commands} == set(COMMANDS)


# ---- errors ----


def test_a_mistake_is_one_line_on_stderr_and_an_exit_code():
    code = "from geodistill.cli.main import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "run", "01_theory", "-p", "seed"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert run.stderr == "error: got '-p seed'; expected -p NAME VALUE\n"
    assert run.stdout == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["grid", "glue"], "study is 'glue'; expected one of classification, instruction"),
        (["grid", "tiny", "--verify", "1"], "run `geodistill grid` first"),
        (["run", "no_such_notebook"], "no_such_notebook"),
        (["why", "no_such_figure"], "no_such_figure"),
    ],
)
def test_what_is_unknown_is_named(words, expected, monkeypatch, capsys, tiny):
    monkeypatch.setattr(sys, "argv", ["geodistill", *words])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error


@pytest.mark.parametrize(
    "error", [InputError("a"), AssetError("b"), FloatingPointError("the loss is nan at step 3")]
)
def test_errors_that_are_expected_are_one_line(error, monkeypatch, capsys):
    def fails():
        raise error

    monkeypatch.setattr(main, "app", fails)
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_other_errors_are_not_hidden(monkeypatch):
    def fails():
        raise KeyError("a bug")

    monkeypatch.setattr(main, "app", fails)
    with pytest.raises(KeyError):
        main.main()


def test_no_command_at_all_shows_the_help():
    result = CliRunner().invoke(main.app, [])
    assert "grid" in result.output


def test_a_number_out_of_range_is_refused():
    result = CliRunner().invoke(main.app, ["grid", "classification", "--workers", "0"])
    assert result.exit_code == 2
    assert "--workers" in result.output


# ---- parameters ----


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["-p", "seed", "3"], {"seed": 3}),
        (["-p", "seed", "-3", "--parameter", "profile", "smoke"], {"seed": -3, "profile": "smoke"}),
        (["-p", "rate", "1e-3", "-p", "flag", "True"], {"rate": 0.001, "flag": True}),
        (["-p", "tasks", "['movie', 'product']"], {"tasks": ["movie", "product"]}),
        (["-p", "name", "two words", "-p", "path", "a/b.jsonl"],
         {"name": "two words", "path": "a/b.jsonl"}),
        (["-p", "text", "'3'"], {"text": "3"}),
    ],
)  # fmt: skip
def test_parameters_reach_the_notebook_with_their_type(words, expected, monkeypatch):
    seen = []
    monkeypatch.setattr(execute, "run_notebook", lambda name, given: seen.append((name, given)))
    result = CliRunner().invoke(main.app, ["run", "theory", *words])
    assert result.exit_code == 0, result.output
    assert seen == [("theory", expected)]


@pytest.mark.parametrize("words", [["seed", "3"], ["-p", "seed"], ["--seed", "3", "4"]])
def test_parameters_of_another_form_are_refused(words):
    with pytest.raises(InputError, match="expected -p NAME VALUE"):
        main._parameters(words)


# ---- grid ----


def test_a_dry_run_says_what_would_run_and_runs_nothing(tiny, tmp_path):
    dry = CliRunner().invoke(main.app, ["grid", "tiny", "--dry-run"])
    assert dry.output == (
        "exploratory/tiny: 3 runs, 0 finished, 3 to do, about 3 minutes with 2 workers, "
        "0.0 MB in all\n"
    )
    assert not (tmp_path / "log").exists()
    assert not (tmp_path / "results").exists()
    real = CliRunner().invoke(main.app, ["grid", "tiny", "--workers", "1"])
    assert real.exit_code == 0, real.output
    assert "stored toy kd seed 2" in real.output
    assert "3 runs stored under" in real.output
    assert lines(tmp_path / "log", "begin") == [0, 1, 2]
    again = CliRunner().invoke(main.app, ["grid", "tiny", "--verify", "2", "--workers", "1"])
    assert again.exit_code == 0, again.output
    agreed = [line.split() for line in again.output.splitlines() if "same_items" in line]
    assert agreed == [["same_items", "1.0000", "1.0000"]] * 2


# ---- the lazy top level ----


def test_the_stub_names_what_the_top_level_offers():
    tree = ast.parse(Path(geodistill.__file__).with_suffix(".pyi").read_text())
    named = {
        a.asname: n.module for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names
    }
    assert named == {name: f"geodistill.{room}" for name, room in geodistill._ROOM_OF.items()}
    assert set(geodistill.__all__) == {*named, "__version__"} == set(dir(geodistill))
    for name in named:
        offered = getattr(geodistill, name)
        assert getattr(offered, "__name__", name) == name  # MEASURES is a table, all else callable


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'geodistill' has no attribute 'nothing'"):
        geodistill.nothing  # noqa: B018
