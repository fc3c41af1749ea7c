"""A thousand heads in JupyterLab: 32 layers of 32 heads, and 420 layers; legible, and quick to filter and to sort."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from .grid import Grid
from .notebook import Notebook

SETUP = """import llamatelemetry_widget as lt
models = {{name: lt.open_model(f"{folder}/{{name}}.gguf") for name in ("wide", "deep")}}
ids = [5 + (i * 7) % 53 for i in range(160)]"""
SHOW = "{name} = lt.AttentionGrid(models['{name}'].trace(ids, capture=('attention',), progress=False))\n{name}"
HEADS = {"wide": 1024, "deep": 840}
AT = {"wide": 0, "deep": 1}


@pytest.fixture(scope="module")
def notebook(lab, module_context, record, zoo_models):
    cells = [SHOW.format(name=name) for name in HEADS]
    opened = Notebook.write(lab, module_context, "many", SETUP.format(folder=zoo_models.resolve()), *cells)
    opened.run_all()
    yield opened
    opened.close()


def of(notebook: Notebook, name: str) -> Grid:
    notebook.kernel.run(f"{name}.select(None); {name}.filter = {{}}; {name}.sort = 'layer'; {name}.theme = 'auto'")
    grid = notebook.grid(AT[name])
    grid.root.scroll_into_view_if_needed()
    grid.settled()
    return grid


@pytest.mark.parametrize("theme", ("light", "dark"))
@pytest.mark.parametrize("width", (1100, 600))
@pytest.mark.parametrize("name", HEADS)
def test_legible(notebook, pictures, name, width, theme):
    page = notebook.page
    page.set_viewport_size({"width": width, "height": 1000})
    notebook.sidebar(False)
    grid = of(notebook, name)
    notebook.kernel.run(f"{name}.theme = '{theme}'; {name}.select(3, 1)")
    expect(grid.lock_ring).to_be_visible()
    grid.settled()
    ring = grid.lock_ring.bounding_box()
    assert 15 <= ring["width"] - 4 <= 20, "cells of 15 to 20 px"
    assert grid.too_wide() == ""
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    columns = {"wide": 32, "deep": 30}[name]
    counts = grid.tiles(columns, 4)
    assert sum(count > 6 for count in counts) > 0.9 * len(counts), "heads everywhere"
    grid.photograph(pictures / f"many-{name}-{theme}-{width}.png")
    notebook.sidebar(True)


@pytest.mark.parametrize("name", HEADS)
def test_a_brush_filters_and_the_heads_stay_where_they_are(notebook, name):
    page = notebook.page
    page.set_viewport_size({"width": 1400, "height": 1100})
    grid = of(notebook, name)
    whole = grid.tiles(8, 4)
    bars = grid.root.locator(".lt-filters svg").nth(4)
    bars.scroll_into_view_if_needed()
    box = bars.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, y, steps=12)
    page.mouse.up()
    grid.settled()
    kept = notebook.kernel.value(f"int({name}.kept().sum())")
    count = f"{HEADS[name]:,}".replace(",", "\u202f")
    expect(grid.kept).to_have_text(f"{kept} of {count} heads")
    assert 0 < kept < HEADS[name]
    assert min(grid.tiles(8, 4)) > 6, "what is filtered out is dimmed, not gone"
    page.keyboard.press("Escape")
    expect(grid.kept).to_have_text(f"{count} of {count} heads")
    grid.settled()
    assert grid.tiles(8, 4) == whole, "nothing is left of the filter"


@pytest.mark.parametrize("name", HEADS)
def test_ranked_and_back(notebook, name):
    grid = of(notebook, name)
    before = grid.tiles(16, 8)
    grid.root.get_by_role("radio", name="Ranked").click()
    notebook.becomes(f"{name}.sort", "induction")
    grid.settled()
    assert grid.tiles(16, 8) != before
    grid.root.get_by_role("radio", name="By layer").click()
    grid.settled()
    assert grid.tiles(16, 8) == before


@pytest.mark.parametrize("name", HEADS)
def test_the_head_under_the_pointer_is_the_one_that_opens(notebook, name):
    grid = of(notebook, name)
    layer = {"wide": 20, "deep": 301}[name]
    grid.click(notebook.kernel, layer, 1, name)
    notebook.becomes(f"[{name}.selected_layer, {name}.selected_head]", [layer, 1])
    assert grid.title() == f"Layer {layer} · head 1"
    expect(grid.matrix).to_be_visible()
