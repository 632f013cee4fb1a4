"""Runs the command line: its errors in one line, its output in UTF-8."""

import sys
from collections.abc import Callable
from io import TextIOWrapper

from geodistill.errors import AssetError, InputError, missing_package

INTERRUPTED = 130
"""Exit code that typer gives to Ctrl-C."""
EXTRAS = {
    "compare": "analysis",
    "power": "analysis",
    **dict.fromkeys(("experiments", "compare-layers", "reproduce"), "train,analysis"),
    **dict.fromkeys(("notebook", "book", "provenance"), "book"),
}
"""What each command needs beside the base install."""


def run_app(app: Callable[[], object]) -> None:
    """Run the command; report an error that a user can fix in one line, with exit code 2.

    Args:
        app: runs the command in `sys.argv`.
    """
    for stream in (sys.stdout, sys.stderr):  # a pipe on Windows has the code page of the machine
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    try:
        app()
    except (InputError, AssetError, FloatingPointError) as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extras = EXTRAS.get(next(iter(sys.argv[1:]), ""))
        extras = "cluster" if package in ("dask", "distributed") else extras
        if extras is None or package == "geodistill":
            raise
        _fail(missing_package(error, "this command", extras))
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("stopped; finished work is kept, the same command resumes there", file=sys.stderr)
        raise


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
