"""For all tests: no model hub, and a browser for those that look at pages."""

import os
import shutil

import pytest

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
