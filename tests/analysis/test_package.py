"""The package `analysis`: its public names, and what importing it loads."""

import subprocess
import sys
from importlib import import_module

import pytest

from geodistill import analysis


def test_the_package_alone_imports_nothing_heavy():
    code = (
        "import sys, geodistill.analysis\n"
        "print(sorted({'torch', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == ("[]", "")


def test_public_names_are_those_of_their_modules():
    assert sorted(analysis.__all__) == list(analysis.__all__)
    for name in analysis.__all__:
        value = getattr(analysis, name)
        assert getattr(import_module(value.__module__), name) is value
    with pytest.raises(AttributeError, match="has no attribute 'answer'"):
        _ = analysis.answer
