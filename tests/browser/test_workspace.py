"""A workspace in JupyterLab and its exported page: tabs, one selection in all of them, readable wide and narrow."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from .conftest import PROMPT
from .grid import Grid
from .notebook import Notebook

ROOTS = {"Attention": ".lt-ag", "Layers": ".lt-ll", "Next token": ".lt-te", "Model": ".lt-at"}


@pytest.fixture(scope="module")
def opened(lab, module_context, record):
    make = "import llamatelemetry_widget as lt\nmodel = lt.open_model('smollm2')"
    run = f"space = lt.Workspace(model.trace({PROMPT!r}, progress=False))\nspace"
    notebook = Notebook.write(lab, module_context, "workspace", make, run)
    notebook.run_all()
    yield notebook
    notebook.close()


def tab(opened, name):
    """The visible widget of a tab, once it is drawn."""
    opened.page.locator(".jp-Notebook .lm-TabBar-tab", has_text=name).click()
    root = opened.page.locator(f".jp-Notebook {ROOTS[name]}:visible").first
    root.wait_for(timeout=30_000)
    opened.page.wait_for_timeout(300)
    return root


@pytest.mark.parametrize(("theme", "width"), [("light", 1100), ("dark", 1100), ("dark", 600)])
def test_every_tab_is_drawn_and_none_is_too_wide(opened, pictures, theme, width):
    opened.page.set_viewport_size({"width": width, "height": 1100})
    opened.sidebar(False)
    opened.kernel.run(f"for widget in space: widget.theme = {theme!r}\nspace.grid.select(17, 5)")
    opened.kernel.run("space.grid.selected_tokens = [23, 6]")
    for name in ROOTS:
        root = tab(opened, name)
        if theme == "dark":
            expect(root).to_have_class(re.compile(r"\blt-dark\b"))
        assert root.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1"), name
        Grid(opened.page, root).photograph(pictures / f"workspace-{name.split()[0].lower()}-{theme}-{width}.png")


def test_a_choice_in_one_tab_stands_in_the_others(opened):
    opened.page.set_viewport_size({"width": 1400, "height": 1100})
    tab(opened, "Attention")
    opened.kernel.run("space.lens.selected_layer, space.lens.selected_head = 3, 2\nspace.lens.selected_tokens = [6]")
    opened.becomes("[space.grid.locked, space.explorer.selected_tokens, space.tree.selected_layer]", [[3, 2], [6], 3])
    expect(tab(opened, "Attention").locator("h3 b").first).to_have_text("Layer 3 · head 2")
    expect(tab(opened, "Next token").locator(".lt-te-marked")).to_have_count(1)
    expect(tab(opened, "Next token").locator(".lt-te-marked")).to_have_text(" lamp")


def test_the_page_keeps_the_link(opened, module_context):
    path = opened.server.notebooks / "space.html"
    opened.kernel.run("space.grid.select(17, 5)\nspace.to_html('space.html')")
    page = module_context.new_page()
    page.goto(path.as_uri())
    expect(page.locator(".lt-root")).to_have_count(4)
    expect(page.locator(".lt-ag h3 b").first).to_have_text("Layer 17 · head 5")
    page.locator(".lt-ag .lt-strip [data-token='6']").click()
    expect(page.locator(".lt-te .lt-te-marked").first).to_be_visible()
    page.close()
