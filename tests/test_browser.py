"""The smoke book's pages in a real browser: they load whole, alone, and with their mathematics."""

import os
import shutil

import pytest

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("book")]
PAGES = {  # page -> whether it holds mathematics
    "index": False,
    "book/use_it": False,
    "book/reproduce": False,
    "book/notation": True,
    "book/references": False,
    "notebooks/01_theory": True,
    "notebooks/02_synthetic": True,
    "notebooks/03_bert_classification": False,
    "notebooks/04_opt_instruction": False,
    "notebooks/05_significance": False,
}


@pytest.fixture(scope="module")
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


@pytest.fixture
def page(browser):
    """A fresh page; `page.faults` collects console errors, failed and outside requests."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(15_000)
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    page.on("request", lambda r: faults.append(f"outside: {r.url}") if outside(r.url) else None)
    yield page, faults
    page.close()


def outside(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))


def test_the_collector_sees_outside_requests_and_errors(page, tmp_path):
    """The contrast: a page at fault is found out."""
    tab, faults = page
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://localhost:9/x.png"><script>undefined_name()</script>')
    tab.goto(bad.as_uri(), wait_until="load")
    assert any(fault.startswith("outside: http://localhost:9") for fault in faults)
    assert any("undefined_name" in fault for fault in faults)


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(name, page, smoke_book):
    tab, faults = page
    tab.goto((smoke_book.html / f"{name}.html").as_uri(), wait_until="load")
    tab.wait_for_selector("article h1")
    if PAGES[name]:
        tab.wait_for_selector("mjx-container", state="attached")
    tab.wait_for_load_state("networkidle")
    assert faults == []
    assert tab.locator("mjx-merror").count() == 0
    assert tab.locator(".math.notranslate:not(:has(mjx-container))").count() == 0
    images = tab.locator("article img").evaluate_all(
        "all => all.map(i => [i.alt, i.complete && i.naturalWidth > 0])"
    )
    assert all(len(alt.split()) > 2 and loaded for alt, loaded in images), images
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.evaluate(wide) <= 0
    tab.set_viewport_size({"width": 400, "height": 800})
    assert tab.evaluate(wide) <= 0


def test_figures_stay_readable_in_the_dark(browser, smoke_book):
    tab = browser.new_page(color_scheme="dark")
    tab.goto((smoke_book.html / "notebooks" / "01_theory.html").as_uri())
    figure = tab.locator("img.gd-figure").first
    assert figure.evaluate("i => getComputedStyle(i).backgroundColor") == "rgb(255, 255, 255)"
    dark = "getComputedStyle(document.body).backgroundColor"
    assert tab.evaluate(dark) not in ("rgb(255, 255, 255)", "rgba(0, 0, 0, 0)")
    tab.close()
