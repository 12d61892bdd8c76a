"""The web page of a diagram."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hrg.load("hiresnet18").variant("full").render(tmp_path_factory.mktemp("page") / "net.html")


def test_the_page_is_one_file_with_a_switch_for_each_family(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    assert set(re.findall(r'https?://[^"\s<]*', text)) == {"http://www.w3.org/2000/svg"}
    assert "<title>hiresnet18, full</title>" in text and not re.search("%[A-Z]+%", text)
    assert re.findall(r'value="(\w+)" checked> (.*?)</label>', text) == [
        ("flow", "flow (10)"),
        ("shortcut", "shortcuts of blocks (8)"),
        ("skip", "skips (6)"),
        ("in", "in (3)"),
        ("out", "out (3)"),
        ("p1", "p1 (3)"),
        ("p2", "p2 (2)"),
        ("p3", "p3 (1)"),
    ]


@contextmanager
def _page(file: Path) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        except sync_api.Error:
            pytest.skip("there is no /usr/bin/chromium")
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())
        yield page
        browser.close()
        assert not errors


@pytest.mark.slow
def test_in_a_browser(page_file: Path) -> None:
    with _page(page_file) as page:
        details = page.locator("#details")
        assert details.inner_text().startswith("Point at an edge")
        middle = """() => {
          const path = document.getElementById("edge.edges.stem__stage3").querySelector("path");
          const point = path.getPointAtLength(path.getTotalLength() / 2).matrixTransform(path.getScreenCTM());
          return [point.x, point.y];
        }"""
        page.mouse.move(*page.evaluate(middle))
        shown = [line for line in details.inner_text().split("\n") if line]
        assert shown[:4] == [
            "edges.stem__stage3: stem -> stage3, slot output (add)",
            "avg pool, 1x1 conv, BN",
            "16x32x32 -> 64x8x8",
            "1,152 params, 65.5 k MACs",
        ]
        assert page.locator("g.node.end").count() == 2
        page.mouse.move(1, 1)
        assert details.inner_text().startswith("Point at an edge")

        page.uncheck("input[value=in]")
        off = page.evaluate("[...document.querySelectorAll('g.edge.off')].map(one => one.id)")
        assert off == ["edge.edges.stem__stage1", "edge.edges.stem__stage2", "edge.edges.stem__stage3"]
        page.uncheck("input[value=p1]")
        assert page.locator("g.edge.off").count() == 5
        page.check("input[value=in]")
        page.check("input[value=p1]")
        assert page.locator("g.edge.off").count() == 0

        page.locator("input[value=p3]").focus()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "node.input"
        assert details.inner_text().startswith("input")
        page.keyboard.press("Enter")
        page.mouse.move(*page.evaluate(middle))
        assert details.inner_text().startswith("input")
        page.keyboard.press("Escape")
        assert details.inner_text().startswith("Point at an edge")
