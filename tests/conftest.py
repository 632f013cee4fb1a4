"""Shared by all tests: no model hub, and the real book, built once."""

import os

import pytest
from filelock import FileLock
from tiny_project import REPOSITORY

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def smoke_book(tmp_path_factory):
    """This repository's book under the profile `smoke`, warnings as errors, in a folder of its own.

    Tests that use it carry `xdist_group("book")`, so that one worker builds it.
    """
    from geodistill.publish.book import build_book
    from geodistill.publish.project import Project

    build = REPOSITORY / "_build" / "test"
    build.mkdir(parents=True, exist_ok=True)
    project = Project.at(REPOSITORY, build, tmp_path_factory.mktemp("book"))
    with FileLock(build / "lock"):
        build_book("smoke", clean=True, project=project)
    return project
