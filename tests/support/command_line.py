"""The command `geodistill`: what it prints, and which packages it loads."""

import subprocess
import sys

from typer.testing import CliRunner

from geodistill.cli import main
from geodistill.errors import InputError

HEAVY = ("torch", "transformers", "pandas", "matplotlib", "datasets")


def run(*words: object) -> str:
    """What a command prints; if it is refused with an `InputError`, that is raised."""
    result = CliRunner().invoke(main.app, [str(word) for word in words])
    if isinstance(result.exception, InputError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def run_in_fresh_interpreter(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command; the last line that it prints names the packages of `HEAVY` that it loaded."""
    code = f"""
import sys
from geodistill.cli.main import main
sys.argv = ["geodistill", *{words}]
try:
    main()
except SystemExit as end:
    code = end.code
else:
    code = 0
print("loaded:", *(name for name in {HEAVY} if name in sys.modules))
sys.exit(code)
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
