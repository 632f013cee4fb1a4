"""For all tests: no model hub; a browser for those that look at pages; simulated results."""

import os
import shutil

import pytest
from filelock import FileLock

os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        if os.environ.get("GEODISTILL_REQUIRE_BROWSER") == "1":
            pytest.fail("GEODISTILL_REQUIRE_BROWSER=1 and no chromium on PATH: install it")
        pytest.skip("no chromium on PATH (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # --no-sandbox: its namespaces are refused to root, as which containers run
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def simulated_results(tmp_path_factory):
    """A results folder with every section of both studies, made once for all workers."""
    from support.simulated_sections import GAINS, write_study

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    for study in GAINS:
        with FileLock(base / f"{study}.lock"), pytest.MonkeyPatch.context() as patch:
            patch.setenv("GEODISTILL_RESULTS", str(base / "partial"))
            if not (base / "simulated" / study).exists():
                write_study(study)
                (base / "simulated").mkdir(exist_ok=True)
                (base / "partial" / study).rename(base / "simulated" / study)
    return base / "simulated"
