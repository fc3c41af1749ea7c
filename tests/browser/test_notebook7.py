"""AttentionGrid in Notebook 7: the magic, a click, a saved notebook."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from .conftest import MAGIC
from .notebook import ALLOWED, Notebook, Record


@pytest.fixture(scope="module")
def allowed():
    return ALLOWED


@pytest.fixture(scope="module")
def opened(notebook7, module_context, record):
    notebook = Notebook.write(notebook7, module_context, "attention", "%load_ext llamatelemetry", MAGIC, "grid = _2")
    notebook.run_all()
    yield notebook
    notebook.close()


def test_magic_hover_click(opened, pictures):
    grid, kernel = opened.grid(), opened.kernel
    assert grid.full()
    x, y = grid.centre(kernel, 16, 0)
    opened.page.mouse.move(x, y)
    expect(grid.card).to_contain_text("Layer 16 · head 0")
    opened.page.mouse.click(x, y)
    opened.becomes("[grid.selected_layer, grid.selected_head]", [16, 0])
    assert grid.title() == "Layer 16 · head 0"
    opened.page.keyboard.press("ArrowRight")
    opened.page.keyboard.press("Enter")
    opened.becomes("[grid.selected_layer, grid.selected_head]", [17, 0])
    assert opened.mode() == "command"
    assert grid.too_wide() == ""
    grid.photograph(pictures / "notebook7-light.png")


def test_the_host_is_known(opened):
    assert (
        opened.kernel.value("__import__('llamatelemetry_widget.widgets.hosts', fromlist=['host']).host()") == "Notebook"
    )


def test_dark_theme(opened, pictures):
    grid = opened.grid()
    opened.menu("Settings", "Theme", "JupyterLab Dark")
    try:
        expect(opened.page.locator(".lt-ag.lt-dark")).to_have_count(1)
        grid.settled()
        assert grid.full()
        grid.photograph(pictures / "notebook7-dark.png")
    finally:
        opened.menu("Settings", "Theme", "JupyterLab Light")


def test_reopened(opened, notebook7):
    opened.grid().settled()
    opened.save()
    opened.end_kernel()
    opened.open()
    grid = opened.grid()
    expect(grid.provenance).to_contain_text("not live", timeout=15_000)
    assert grid.full()


def test_allowed_messages_are_jupyters_own(browser, notebook7):
    """A page without this package says the same."""
    context = browser.new_context()
    record = Record(context)
    notebook = Notebook.write(notebook7, context, "empty", "print(1)")
    notebook.run_all()
    said = {pattern for pattern in ALLOWED if any(re.search(pattern, text) for text in record.messages)}
    notebook.close()
    context.close()
    assert said == set(ALLOWED)
