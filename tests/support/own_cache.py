"""A cache folder with the embedded assets and nothing that former runs left."""

import os
from contextlib import contextmanager

import pytest

from geodistill.tasks import assets


@contextmanager
def own_cache(folder):
    """$GEODISTILL_CACHE is `folder`, in which the assets are links."""
    found = [assets.path(name) for name in ("minilm", "sentiment", "smollm2")]
    folder.mkdir()
    for path in found:
        os.symlink(path, folder / path.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEODISTILL_CACHE", str(folder))
        yield
