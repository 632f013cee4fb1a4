"""The command line: immediate help, errors in one line, parameters with their types."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from support.command_line import run, run_in_fresh_interpreter
from support.tiny_study import lines, tiny_study
from typer.testing import CliRunner

import geodistill
from geodistill.cli import main
from geodistill.errors import AssetError, InputError
from geodistill.experiments import registry
from geodistill.publish import execute

COMMANDS = (
    "notebook",
    "experiments",
    "compare",
    "power",
    "compare-layers",
    "reproduce",
    "download",
    "book",
    "provenance",
)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A study named "tiny" of three instant runs."""
    monkeypatch.setenv("GEODISTILL_RESULTS", str(tmp_path / "results"))
    find_study = registry.find_study

    def find_tiny(name, section=""):
        study = tiny_study(tmp_path / "log", runs=3)
        return study if name == "tiny" else find_study(name, section)

    monkeypatch.setattr(registry, "find_study", find_tiny)


@pytest.fixture
def error_of(monkeypatch, capsys):
    """A function that runs a command that has to fail, and returns what it prints as an error."""

    def fail(*words):
        monkeypatch.setattr(sys, "argv", ["geodistill", *words])
        with pytest.raises(SystemExit) as end:
            main.main()
        assert end.value.code == 2
        return capsys.readouterr().err

    return fail


@pytest.mark.parametrize(
    "command", [["-m", "geodistill"], ["-c", "from geodistill.cli.main import main; main()"]]
)
def test_the_version_is_that_of_the_package(command):
    done = subprocess.run([sys.executable, *command, "--version"], capture_output=True, text=True)
    assert done.stdout == f"geodistill {geodistill.__version__}\n", done.stderr


@pytest.mark.parametrize("code_page", ["cp1252", "ascii"])
def test_output_is_utf_8_whatever_the_code_page(code_page):
    done = subprocess.run(
        [sys.executable, "-m", "geodistill", "-h"],
        capture_output=True, env={**os.environ, "PYTHONIOENCODING": code_page},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "─" in done.stdout.decode("utf-8")


@pytest.mark.parametrize(
    ("words", "package", "extras"),
    [
        (("compare", "x.csv", "--baseline", "kd"), "pandas", "analysis"),
        (("power", "--pilot", "x.csv", "--method", "a"), "scipy", "analysis"),
        (("experiments", "classification", "--section", "full"), "pandas", "train,analysis"),
        (("reproduce", "minillm-opt"), "transformers", "train,analysis"),
        (("compare-layers", "a", "b", "--texts", __file__), "transformers", "train,analysis"),
        (("compare-layers", "a", "b", "--texts", __file__), "matplotlib", "train,analysis"),
        (("notebook", "01_theory"), "jupytext", "book"),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(words, package, extras):
    code = f"""
import sys
sys.modules[{package!r}] = None
from geodistill.cli.main import main
sys.argv = ["geodistill", *{words}]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: there is no package {package}"), line
    assert f"pip install 'geodistill[{extras}]'" in line


@pytest.mark.parametrize("words", [("-h",), ("compare", "-h"), ("notebook", "-h")])
def test_the_short_form_of_help(words):
    short, long = (CliRunner().invoke(main.app, [*words[:-1], flag]) for flag in ("-h", "--help"))
    assert short.exit_code == 0
    assert short.output == long.output != ""


@pytest.mark.parametrize(("words", "shown"), [((), COMMANDS), (("compare-layers",), ["--texts"])])
def test_help_loads_nothing_heavy(words, shown):
    done = run_in_fresh_interpreter(*words, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded:"
    assert all(name in done.stdout for name in shown)


@pytest.mark.parametrize(
    ("words", "exit_code"),
    [
        (("classification", "--section", "kd-tuning", "--dry-run"), 0),
        (("instruction", "--section", "kd-tuning", "--dry-run"), 0),
        (("no_such_study", "--dry-run"), 2),
        (("classification", "--section", "no_such_section", "--dry-run"), 2),
    ],
)
def test_a_dry_run_and_a_wrong_name_load_no_torch(words, exit_code):
    done = run_in_fresh_interpreter("experiments", *words)
    assert done.returncode == exit_code, done.stderr
    loaded = done.stdout.splitlines()[-1].removeprefix("loaded:").split()
    assert not {"torch", "transformers", "datasets", "matplotlib"} & set(loaded)
    assert done.stderr.count("\n") <= 1


def test_the_installed_command_is_this_one():
    script = Path(sys.executable).with_name("geodistill")
    done = subprocess.run([script, "experiments", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--verify" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    function = getattr(main, command.replace("-", "_"))
    shown = " ".join(run(command, "--help").split())
    assert function.__doc__.split(";")[0].split(",")[0] in shown


def test_the_list_of_commands_is_complete():
    assert set(typer.main.get_command(main.app).commands) == set(COMMANDS)


# ---- errors ----


def test_a_mistake_is_one_line_on_stderr_and_an_exit_code():
    code = "from geodistill.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "notebook", "01_theory", "-p", "seed"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "error: got '-p seed'; expected -p NAME VALUE\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["experiments", "glue"], "study is 'glue'; expected one of classification, instruction"),
        (["experiments", "tiny", "--verify", "1"], "run `geodistill experiments` first"),
        (["notebook", "no_such_notebook"], "no_such_notebook"),
        (["provenance", "no_such_figure"], "no_such_figure"),
    ],
)
def test_what_is_unknown_is_named(words, expected, error_of, tiny):
    error = error_of(*words)
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert expected in error


@pytest.mark.parametrize(
    "error", [InputError("a"), AssetError("b"), FloatingPointError("the loss is nan at step 3")]
)
def test_errors_that_are_expected_are_one_line(error, monkeypatch, error_of):
    def fails():
        raise error

    monkeypatch.setattr(main, "app", fails)
    assert error_of() == f"error: {error}\n"


def test_other_errors_are_not_hidden(monkeypatch):
    def fails():
        raise KeyError("a bug")

    monkeypatch.setattr(main, "app", fails)
    with pytest.raises(KeyError):
        main.main()


def test_no_command_at_all_shows_the_help():
    result = CliRunner().invoke(main.app, [])
    assert "experiments" in result.output


def test_a_number_out_of_range_is_refused():
    result = CliRunner().invoke(main.app, ["experiments", "classification", "--workers", "0"])
    assert result.exit_code == 2
    assert "--workers" in result.output


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "rows.csv", "--baseline", "kd"],
        ["compare-layers", "minilm", "minilm", "--texts", "x"],
        ["reproduce", "minillm-opt", "--dry-run"],
    ],
)
def test_a_file_as_output_folder_is_refused_before_any_work(words, error_of, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name, kind in (("file", "file"), ("link", "link to nothing")):
        path = tmp_path / name
        message = f"error: --out {path} is a {kind}; expected a folder, new or existing\n"
        assert error_of(*words, "--out", str(path)) == message


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
    run("notebook", "theory", *words)
    assert seen == [("theory", expected)]


@pytest.mark.parametrize("words", [["seed", "3"], ["-p", "seed"], ["--seed", "3", "4"]])
def test_parameters_of_another_form_are_refused(words):
    with pytest.raises(InputError, match="expected -p NAME VALUE"):
        main._parameters(words)


# ---- experiments ----


def test_a_dry_run_says_what_would_run_and_runs_nothing(tiny, tmp_path):
    assert run("experiments", "tiny", "--dry-run") == (
        "tiny/first: 3 runs, 0 finished, 3 to do, about 3 minutes with 2 workers, 0.0 MB in all\n"
    )
    assert not (tmp_path / "log").exists()
    assert not (tmp_path / "results").exists()
    real = run("experiments", "tiny", "--workers", 1)
    assert "stored toy kd seed 2" in real
    assert "3 runs stored under" in real
    assert lines(tmp_path / "log", "begin") == [0, 1, 2]
    again = run("experiments", "tiny", "--verify", 2, "--workers", 1)
    agreed = [line.split() for line in again.splitlines() if "same_items" in line]
    assert agreed == [["same_items", "1.0000", "1.0000"]] * 2


# ---- the lazy top level ----


def test_the_stub_names_what_the_top_level_offers():
    tree = ast.parse(Path(geodistill.__file__).with_suffix(".pyi").read_text())
    named = {
        a.asname: n.module for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names
    }
    packages = geodistill._PACKAGE_OF.items()
    assert named == {name: f"geodistill.{package}" for name, package in packages}
    assert set(geodistill.__all__) == {*named, "__version__"} == set(dir(geodistill))
    for name in named:
        offered = getattr(geodistill, name)
        assert getattr(offered, "__name__", name) == name  # MEASURES is a table, all else callable


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'geodistill' has no attribute 'nothing'"):
        geodistill.nothing  # noqa: B018


def test_help_shows_the_names_that_are_at_hand(monkeypatch):
    """`help` looks at every name of `dir`, and one that lacks a package would end it."""
    assert "FeatureTerm" in dir(geodistill)
    monkeypatch.setattr(geodistill, "find_spec", lambda name: None if name == "numpy" else name)
    assert {"ProcrustesLoss", "InputError", "__version__"} <= {*dir(geodistill)}
    assert not {"FeatureTerm", "distill_your_model", "compare_layers"} & {*dir(geodistill)}


@pytest.mark.parametrize(
    ("name", "extras"), [("distill_your_model", "train,analysis"), ("FeatureTerm", "train")]
)
def test_a_name_that_lacks_a_package_says_how_to_install_it(monkeypatch, name, extras):
    def lacks_pandas(module):
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    monkeypatch.setattr(geodistill, "import_module", lacks_pandas)
    with pytest.raises(ModuleNotFoundError, match=rf"no package pandas here.*\[{extras}\]"):
        getattr(geodistill, name)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'pandas'$"):
        geodistill.ProcrustesLoss  # noqa: B018
