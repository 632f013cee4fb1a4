"""One cache for the tests of this folder: the teacher of the smallest settings is trained once."""

import pytest
from support.own_cache import own_cache


@pytest.fixture(scope="package")
def cache(tmp_path_factory):
    with own_cache(tmp_path_factory.mktemp("classification") / "cache") as folder:
        yield folder
