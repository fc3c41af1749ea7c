"""The exported page, opened from disk: it draws, it works, it asks nobody for anything."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

import llamatelemetry_widget as lt

from .conftest import PROMPT
from .grid import Grid


@pytest.fixture(scope="module")
def trace():
    with lt.open_model("smollm2") as model:
        yield model.trace(PROMPT)


def test_page_from_disk(trace, tmp_path, module_context, pictures):
    path = tmp_path / "a page, with spaces.html"
    made = lt.AttentionGrid(trace, selected_tokens=[23, 6])
    made.select(17, 5)
    path.write_text(made.to_html(), "utf-8")
    page = module_context.new_page()
    page.goto(path.as_uri())
    grid = Grid(page, page.locator(".lt-ag"))
    grid.root.wait_for()
    grid.settled()
    assert grid.full()
    assert grid.title() == "Layer 17 · head 5"
    expect(grid.detail.locator(".lt-sentence")).to_contain_text("·lamp₆")
    page.mouse.click(*grid.middle())
    expect(grid.detail.locator("h3 b")).not_to_have_text("Layer 17 · head 5")
    expect(grid.detail.locator(".lt-sentence")).to_contain_text("looks at")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    grid.photograph(pictures / "page-light.png")
    page.close()


@pytest.mark.parametrize("width", (360, 600))
def test_page_on_a_phone(trace, tmp_path, module_context, pictures, width):
    path = tmp_path / "page.html"
    path.write_text(lt.AttentionGrid(trace, selected_layer=17, selected_head=5, theme="dark").to_html(), "utf-8")
    page = module_context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(path.as_uri())
    grid = Grid(page, page.locator(".lt-ag"))
    grid.root.wait_for()
    grid.settled()
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert sum(count > 6 for count in grid.tiles(4, 4)) >= 14
    grid.photograph(pictures / f"page-dark-{width}.png")
    page.close()


def test_what_needs_a_kernel_says_so(trace, tmp_path, module_context):
    path = tmp_path / "page.html"
    path.write_text(lt.AttentionGrid(trace).to_html(heads=[(17, 5)]), "utf-8")
    page = module_context.new_page()
    page.goto(path.as_uri())
    grid = Grid(page, page.locator(".lt-ag"))
    grid.root.wait_for()
    grid.settled()
    page.mouse.click(*grid.middle())
    expect(grid.notice).to_contain_text("kernel")
    page.close()
