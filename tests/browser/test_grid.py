"""AttentionGrid in JupyterLab: what its user does, and what Python sees of it."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import expect

LAMP = 17, 5  # induction: the last ·the looks at ·lamp
PREVIOUS = 16, 0
DARK = re.compile(r"\blt-dark\b")


def test_magic_draws_every_head(opened, grid):
    assert grid.full()
    expect(grid.root.locator("h2")).to_have_text("Attention30 layers × 9 heads · 24 tokens")
    expect(grid.provenance).to_contain_text("SmolLM2-135M-Instruct Q4_1 · 24 tokens · CPU")
    expect(grid.kept).to_have_text("270 of 270 heads")
    opened.becomes("trace.tokens[6]", "·lamp")


def test_hover_previews_without_moving_anything(opened, grid):
    x, y = grid.centre(opened.kernel, *PREVIOUS)
    before = grid.root.bounding_box()
    opened.page.mouse.move(x, y)
    expect(grid.card).to_be_visible()
    expect(grid.card).to_contain_text("Layer 16 · head 0")
    expect(grid.card).to_contain_text("previous-token head · KV 0")
    expect(grid.card).to_contain_text("0.77")
    box = grid.card.bounding_box()
    inside = box["x"] <= x <= box["x"] + box["width"] and box["y"] <= y <= box["y"] + box["height"]
    assert not inside, "the preview covers what it previews"
    assert grid.root.bounding_box() == before
    opened.becomes("grid.selected_layer", None)
    opened.page.mouse.move(2, 2)
    expect(grid.card).to_have_count(0)


def test_click_locks_and_python_knows(opened, grid):
    grid.click(opened.kernel, *LAMP)
    expect(grid.lock_ring).to_be_visible()
    assert grid.title() == "Layer 17 · head 5"
    opened.becomes("[grid.selected_layer, grid.selected_head]", [17, 5])
    expect(grid.matrix).to_be_visible()
    grid.settled()
    assert sum(count > 1 for count in grid.tiles(6, 6, grid.matrix)) > 18
    expect(grid.detail).to_contain_text("induction head")


def test_a_later_cell_reads_the_selection(opened, grid):
    """With Jupyter's own means: a new cell, typed and run in the page."""
    grid.click(opened.kernel, *PREVIOUS)
    expect(grid.lock_ring).to_be_visible()
    page = opened.page
    page.locator(".jp-Notebook .jp-Cell").last.locator(".jp-InputPrompt").click()
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.keyboard.type("print('locked', grid.selected_layer, grid.selected_head)")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".jp-OutputArea").last).to_contain_text("locked 16 0", timeout=20_000)


def test_python_locks_and_the_page_follows(opened, grid):
    opened.kernel.run(f"grid.select(*{LAMP}); grid.selected_tokens = [23, 6]")
    expect(grid.detail.locator(".lt-sentence")).to_contain_text("·the₂₃")
    expect(grid.detail.locator(".lt-sentence")).to_contain_text("·lamp₆")
    weight = opened.kernel.value("float(trace.attention(17, 5)[23, 6])")
    expect(grid.detail.locator(".lt-sentence")).to_contain_text(f"{weight:.3f}")


def test_click_in_the_matrix_reads_a_token(opened, grid):
    opened.kernel.run(f"grid.select(*{LAMP})")
    expect(grid.matrix).to_be_visible()
    grid.matrix.scroll_into_view_if_needed()
    grid.settled()
    box = grid.matrix.bounding_box()
    opened.page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.8)
    grid.settled()
    query, key = opened.kernel.value("list(grid.selected_tokens)")
    assert 12 <= query < 24 and 0 <= key < query


def test_brush_in_a_histogram_filters(opened, grid):
    bars = grid.root.locator(".lt-filters svg").first
    bars.scroll_into_view_if_needed()
    box = bars.bounding_box()
    middle = box["y"] + box["height"] / 2
    opened.page.mouse.move(box["x"] + box["width"] * 0.5, middle)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] * 0.7, middle, steps=4)
    opened.page.mouse.move(box["x"] + box["width"] - 1, middle, steps=4)
    opened.page.mouse.up()
    expect(grid.kept).not_to_have_text("270 of 270 heads")
    grid.settled()
    low, _high = opened.kernel.value("grid.filter")["induction"]
    assert 0.15 < low < 0.35
    kept = opened.kernel.value("int(grid.kept().sum())")
    expect(grid.kept).to_have_text(f"{kept} of 270 heads")
    assert 0 < kept < 40
    opened.page.keyboard.press("Escape")
    expect(grid.kept).to_have_text("270 of 270 heads")


def test_filter_without_a_match_says_so(opened, grid):
    opened.kernel.run("grid.filter = {'induction': [0.9, None]}")
    expect(grid.root).to_contain_text("No head matches.")
    grid.root.get_by_role("button", name="Widen the range").click()
    expect(grid.root).not_to_contain_text("No head matches.")
    opened.becomes("bool(grid.kept().any())", True)


def test_keys_step_lock_and_free_and_stay_in_the_widget(opened, grid):
    page = opened.page
    grid.click(opened.kernel, *PREVIOUS)
    expect(grid.lock_ring).to_be_visible()
    cells, active = page.locator(".jp-Cell").count(), page.locator(".jp-Cell.jp-mod-active").count()
    mode = opened.mode()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    expect(grid.card).to_contain_text("Layer 17 · head 2")
    page.keyboard.press("Enter")
    opened.becomes("[grid.selected_layer, grid.selected_head]", [17, 2])
    assert grid.title() == "Layer 17 · head 2"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(grid.lock_ring).to_be_hidden()
    opened.becomes("grid.selected_layer", None)
    assert opened.mode() == mode == "command"
    assert (page.locator(".jp-Cell").count(), page.locator(".jp-Cell.jp-mod-active").count()) == (cells, active)


def test_controls_set_traits(opened, grid):
    grid.root.get_by_role("radio", name="Ranked").click()
    grid.root.get_by_role("radio", name="Linear").click()
    grid.root.get_by_role("checkbox", name="Sink aside").click()
    grid.settled()
    opened.becomes("[grid.sort, grid.scale, grid.sink_aside]", ["induction", "linear", False])
    assert grid.full()


@pytest.mark.parametrize("width", (1600, 1100, 600, 420))
def test_fits_every_width(opened, grid, pictures, width):
    page = opened.page
    page.set_viewport_size({"width": width, "height": 1100})
    opened.sidebar(False)
    opened.kernel.run(f"grid.select(*{LAMP}); grid.selected_tokens = [23, 6]")
    expect(grid.matrix).to_be_visible()
    grid.settled()
    assert grid.too_wide() == ""
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    counts = grid.tiles(4, 4)
    assert sum(count > 6 for count in counts) >= 14
    grid.photograph(pictures / f"lab-light-{width}.png")
    opened.sidebar(True)


def test_follows_the_theme(opened, grid, pictures):
    opened.kernel.run(f"grid.select(*{LAMP}); grid.selected_tokens = [23, 6]")
    expect(grid.matrix).to_be_visible()
    opened.menu("Settings", "Theme", "JupyterLab Dark")
    try:
        expect(opened.page.locator("body[data-jp-theme-light=false]")).to_have_count(1)
        expect(grid.root).to_have_class(DARK)
        grid.settled()
        assert grid.full()
        opacity, brightness = grid.paper()
        assert opacity == 0 or brightness < 60
        grid.photograph(pictures / "lab-dark-wide.png")
        opened.page.set_viewport_size({"width": 600, "height": 1100})
        opened.sidebar(False)
        grid.settled()
        grid.photograph(pictures / "lab-dark-600.png")
        opened.sidebar(True)
    finally:
        opened.menu("Settings", "Theme", "JupyterLab Light")
    expect(grid.root).not_to_have_class(DARK)


def test_state_is_plain_json(opened, grid):
    """What a save would store: numbers, strings, lists."""
    state = opened.kernel.run("import json; print(json.dumps({k: getattr(grid, k) for k in ('facts', 'filter')}))")
    assert json.loads(state)["facts"]["n_tokens"] == 24
