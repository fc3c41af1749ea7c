"""The guided tour in JupyterLab with a real model: steps, predictions, keys, a linked grid, looks, a page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect

from .conftest import WIDE
from .grid import FITS, Grid
from .notebook import Notebook

SETUP = """import llamatelemetry_widget as lt
model = lt.open_model("smollm2")
tour = lt.Tour(model)
grid = lt.AttentionGrid(tour.trace)
_ = lt.link(tour, grid)"""


class Tour(Grid):
    """One tour."""

    def __init__(self, page, root):
        super().__init__(page, root)
        self.title = root.locator(".lt-to-title")
        self.options = root.locator(".lt-to-option")
        self.verdict = root.locator(".lt-to-verdict")
        self.figures = root.locator(".lt-to-figure")
        self.next = root.get_by_role("button", name="Next", exact=True)

    def place(self, name: str) -> Locator:
        return self.root.locator(".lt-to-place", has_text=name)


@pytest.fixture(scope="module")
def opened(lab, module_context, record):
    notebook = Notebook.write(lab, module_context, "tour", SETUP, "tour", "grid")
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture
def tour(opened) -> Tour:
    opened.kernel.run("tour.step = 0; tour.predictions = {}; tour.theme = 'auto'")
    opened.page.set_viewport_size(WIDE)
    opened.page.mouse.move(2, 2)
    root = opened.page.locator(".jp-Notebook .lt-to")
    root.wait_for(timeout=60_000)
    found = Tour(opened.page, root)
    expect(found.title).to_have_text("Text becomes tokens")
    return found


def test_the_answer_comes_after_the_prediction(opened, tour, pictures):
    expect(tour.figures).to_have_count(0)
    expect(tour.verdict).to_be_hidden()
    tour.options.nth(0).click()
    opened.becomes("tour.predictions", {"tokens": 0})
    expect(tour.verdict).to_have_text("Not so: 24. A leading · is a space: it belongs to the token.")
    expect(tour.figures).to_have_count(1)
    expect(tour.root.locator(".lt-to-chip")).to_have_count(24)
    tour.photograph(pictures / "tour-tokens.png")


def test_keys_walk_and_the_notebook_does_not_hear_them(opened, tour):
    tour.next.focus()
    mode = opened.mode()
    opened.page.keyboard.press("ArrowRight")
    opened.becomes("tour.step", 1)
    expect(tour.title).to_have_text("A token becomes a vector")
    tour.options.nth(1).focus()
    opened.page.keyboard.press("2")
    opened.becomes("tour.predictions", {"embedding": 1})
    opened.page.keyboard.press("End")
    opened.becomes("tour.step", 20)
    expect(tour.next).to_be_disabled()
    opened.page.keyboard.press("Home")
    opened.becomes("tour.step", 0)
    assert opened.mode() == mode


def test_a_step_selects_its_head_in_the_linked_grid(opened, tour):
    tour.place("Mask").click()
    expect(tour.title).to_have_text("Mask")
    opened.becomes(
        "[grid.selected_layer, grid.selected_head]", opened.kernel.value("[tour.facts['layer'], tour.facts['head']]")
    )
    expect(opened.grid().lock_ring).to_be_visible()
    opened.kernel.run("tour.step = 1")
    expect(tour.title).to_have_text("A token becomes a vector")
    opened.becomes("grid.selected_layer", None)


@pytest.mark.parametrize(("theme", "width"), [("light", 1400), ("dark", 1400), ("light", 820), ("dark", 820)])
def test_every_step_fits(opened, tour, pictures, theme, width):
    opened.kernel.run(f"tour.theme = {theme!r}; tour.predictions = {{key: -1 for key in tour.steps}}")
    opened.page.set_viewport_size({"width": width, "height": WIDE["height"]})
    for at, key in enumerate(opened.kernel.value("tour.steps")):
        expect(tour.root.locator("h2")).to_have_text(f"Guided tourstep {at + 1} of 21")
        expect(tour.verdict).to_contain_text("Answer: ")
        assert tour.root.evaluate(FITS) == "", key
        if key in ("position", "softmax", "heads", "repeat"):
            tour.photograph(pictures / f"tour-{key}-{theme}-{width}.png")
        if at < 20:
            tour.next.click()


def test_a_page_works_without_a_kernel(opened, tour, tmp_path, module_context):
    target = tmp_path / "tour.html"
    opened.kernel.run(f"_ = lt.save_html({str(target)!r}, tour, grid)")
    page = module_context.new_page()
    try:
        page.goto(target.as_uri())
        inside = Tour(page, page.locator(".lt-to"))
        expect(inside.provenance).to_contain_text("not live")
        inside.place("Scores").click()
        expect(inside.title).to_have_text("Scores: query times key")
        expect(page.locator(".lt-ag .lt-ring-lock")).to_be_visible()
        inside.root.get_by_role("button", name="Show the answer").click()
        expect(inside.verdict).to_contain_text("Answer: ")
    finally:
        page.close()
