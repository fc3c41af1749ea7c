"""Linked widgets in JupyterLab: a click in one opens the same head in the other, and the other way round."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from .conftest import PROMPT
from .notebook import Notebook

CELLS = (
    "import llamatelemetry_widget as lt\nmodel = lt.open_model('smollm2')",
    f"a = lt.AttentionGrid(model.trace({PROMPT!r}))\na",
    "b = lt.AttentionGrid(model.trace('The cat sat on the mat. The dog sat on the log.'))\nb",
    "link = lt.link(a, b)",
)


@pytest.fixture(scope="module")
def pair(lab, module_context, record):
    notebook = Notebook.write(lab, module_context, "links", *CELLS)
    notebook.run_all()
    yield notebook
    notebook.close()


def test_a_click_in_one_opens_the_head_in_the_other(pair):
    first, second = pair.grid(0), pair.grid(1)
    first.click(pair.kernel, 17, 5, "a")
    expect(second.detail.locator("h3 b").first).to_have_text("Layer 17 · head 5")
    second.canvas.scroll_into_view_if_needed()
    pair.page.mouse.click(*second.middle())
    expect(first.detail.locator("h3 b").first).not_to_have_text("Layer 17 · head 5")
    chosen = second.title()
    expect(first.detail.locator("h3 b").first).to_have_text(chosen)
    pair.becomes("'Layer {} · head {}'.format(*a.locked)", chosen)
    pair.becomes("a.locked == b.locked", True)


def test_a_token_that_the_other_lacks_is_not_selected_there(pair):
    pair.kernel.run("a.select(17, 5); a.selected_tokens = [23, 6]")
    pair.becomes("[a.selected_tokens, b.selected_tokens]", [[23, 6], []])
    pair.kernel.run("a.selected_tokens = [9, 2]")
    expect(pair.grid(1).detail.locator(".lt-sentence")).to_contain_text("\u2089")


def test_unlinked_each_goes_its_own_way(pair):
    pair.kernel.run("link.unlink()")
    pair.grid(0).click(pair.kernel, 3, 1, "a")
    pair.becomes("[a.locked, b.locked]", [[3, 1], [17, 5]])
