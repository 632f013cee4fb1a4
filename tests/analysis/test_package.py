"""The public names of the package `analysis`."""

from importlib import import_module

import pytest

from geodistill import analysis


def test_public_names_are_those_of_their_modules():
    assert sorted(analysis.__all__) == list(analysis.__all__)
    for name in analysis.__all__:
        value = getattr(analysis, name)
        assert getattr(import_module(value.__module__), name) is value
    with pytest.raises(AttributeError, match="has no attribute 'answer'"):
        _ = analysis.answer
