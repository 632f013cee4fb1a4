"""The interactive figure in a real browser: its numbers are the library's, by mouse or keyboard."""

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from geodistill.geometry import (
    cka,
    feature_gram_distance,
    procrustes_distance,
    projection_distance,
)

PAGE = Path(__file__).resolve().parents[2] / "book" / "_static" / "geometry.html"
UNIT = {"center": True, "scale": "frobenius"}


@pytest.fixture(scope="module")
def tab(browser):
    tab = browser.new_page(viewport={"width": 720, "height": 640})
    tab.set_default_timeout(120_000)  # milliseconds
    tab.faults = []
    tab.on("pageerror", lambda error: tab.faults.append(str(error)))
    tab.on("request", lambda r: None if r.url.startswith("file:") else tab.faults.append(r.url))
    tab.goto(PAGE.as_uri())
    yield tab
    tab.close()


def place(tab, turn: float, stretch: tuple[float, ...], dropped: int | None, readout: int) -> None:
    """Set every control and tell the page, as a reader's hand would."""
    values = {"turn": turn, "s1": stretch[0], "s2": stretch[1], "s3": stretch[2]}
    for name, value in values.items():
        tab.locator(f"#{name}").fill(str(value))
    for i in (1, 2, 3):
        tab.locator(f"#d{i}").set_checked(i == dropped)
    tab.locator("#readout").select_option(str(readout))


def shown(tab) -> dict[str, float]:
    cells = tab.locator("td.value").evaluate_all("all => all.map(c => [c.id, c.dataset.value])")
    return {name.removeprefix("m-"): float(value) for name, value in cells}


def features(tab) -> tuple[torch.Tensor, torch.Tensor]:
    stretch = "[1, 2, 3].map(i => d[`d${i}`].checked ? 0 : +d[`s${i}`].value)"
    script = (
        "() => { const d = document.getElementById('controls').elements;"
        f"const stretch = {stretch}; const turn = +d.turn.value;"
        "return JSON.stringify([GEOMETRY.TEACHER, GEOMETRY.student({turn, stretch})]); }"
    )
    teacher, student = json.loads(tab.evaluate(script))
    return torch.tensor(teacher, dtype=torch.float64), torch.tensor(student, dtype=torch.float64)


def readout_error(x: torch.Tensor, y: torch.Tensor, k: int) -> float:
    """‖Xw − YQw‖ of w = e_k, Q the Procrustes map over the directions that the student has."""
    x, y = (f - f.mean(0) for f in (x, y))
    x, y = x / x.norm(), y / y.norm()
    u, s, vh = torch.linalg.svd(x.mT @ y)
    q = (u * (s > 1e-9 * s[0])) @ vh
    return float((x - y @ q.mT)[:, k].norm())


@pytest.mark.parametrize(
    ("turn", "stretch", "dropped", "readout"),
    [
        (0, (1, 1, 1), None, 2),
        (70, (1, 1, 1), None, 0),
        (25, (1, 3, 0.5), None, 1),
        (0, (1, 1, 1), 3, 2),
        (133, (0.4, 1, 2), 1, 0),
        (40, (1, 0, 0), None, 1),
    ],
)
def test_every_number_is_the_library_s(tab, turn, stretch, dropped, readout) -> None:
    place(tab, turn, stretch, dropped, readout)
    x, y = features(tab)
    expected = {
        "cka": float(cka(x, y)),
        "procrustes": float(procrustes_distance(x, y, **UNIT)),
        "gram": float(feature_gram_distance(x, y, **UNIT)),
        "projection": float(projection_distance(x, y, **UNIT)),
        "readout": readout_error(x, y, readout),
    }
    found = shown(tab)
    assert found == pytest.approx(expected, abs=1e-6)
    assert found["readout"] <= found["procrustes"] + 1e-9
    if stretch == (1, 1, 1) and dropped is None:
        assert found["cka"] == pytest.approx(1)
    else:
        assert found["procrustes"] > 0.05  # the contrast: the controls do something
    assert tab.faults == []


def test_the_keyboard_alone_moves_it(tab) -> None:
    place(tab, 0, (1, 1, 1), None, 2)
    before = shown(tab)
    tab.locator("#s3").focus()
    for _ in range(10):
        tab.keyboard.press("ArrowLeft")
    assert float(tab.locator("#s3").input_value()) == pytest.approx(0.5)
    assert shown(tab)["readout"] > before["readout"] + 0.01
    tab.get_by_role("button", name="same geometry").focus()
    tab.keyboard.press("Enter")
    assert shown(tab)["procrustes"] == pytest.approx(0, abs=1e-6)


def test_every_control_has_a_name_and_the_page_is_no_wider_than_a_phone(tab) -> None:
    controls = "input, select, button"
    assert tab.locator(controls).count() == 14
    unnamed = tab.locator(controls).evaluate_all(
        "all => all.filter(c => !c.textContent && !(c.labels && c.labels.length)).length"
    )
    assert unnamed == 0
    tab.set_viewport_size({"width": 340, "height": 640})
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.evaluate(wide) <= 0
    tab.set_viewport_size({"width": 720, "height": 640})


def positions(tab) -> list[list[str]]:
    """Of the student's vectors."""
    script = "all => all.map(c => [c.getAttribute('cx'), c.getAttribute('cy')])"
    return tab.locator("#plot circle[r='3']").evaluate_all(script)


def test_a_rotation_moves_the_vectors_until_it_is_undone(tab) -> None:
    place(tab, 0, (1, 1, 1), None, 2)
    start, measures = positions(tab), shown(tab)
    place(tab, 70, (1, 1, 1), None, 2)
    assert positions(tab) != start
    assert shown(tab) == pytest.approx(measures, abs=1e-6)
    tab.locator("#align").check()
    undone = [float(value) for point in positions(tab) for value in point]
    assert undone == pytest.approx([float(value) for point in start for value in point], abs=1e-3)
    tab.locator("#align").uncheck()


def test_it_has_the_theme_of_the_page_around_it_and_its_whole_height(browser, tmp_path) -> None:
    (tmp_path / "geometry.html").write_text(PAGE.read_text())
    outer = '<html data-theme="dark"><iframe src="geometry.html"></iframe></html>'
    (tmp_path / "outer.html").write_text(outer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path)))
    Thread(target=server.serve_forever, daemon=True).start()
    tab = browser.new_page(color_scheme="light")
    tab.set_default_timeout(120_000)  # milliseconds
    tab.goto(f"http://127.0.0.1:{server.server_port}/outer.html")
    frame = tab.frame_locator("iframe").locator("body")
    ground = "body => getComputedStyle(body).backgroundColor"
    assert frame.evaluate(ground) == "rgb(20, 24, 29)"
    tab.evaluate("document.documentElement.dataset.theme = 'light'")
    tab.wait_for_timeout(100)
    assert frame.evaluate(ground) == "rgb(255, 255, 255)"
    tab.set_viewport_size({"width": 360, "height": 700})
    tab.wait_for_timeout(100)
    hidden = "body => document.documentElement.scrollHeight - document.documentElement.clientHeight"
    assert frame.evaluate(hidden) <= 0
    tab.close()
    server.shutdown()


class Handler(SimpleHTTPRequestHandler):
    """A server without a log."""

    def log_message(self, *_: object) -> None: ...
