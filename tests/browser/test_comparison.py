"""HeadComparison in JupyterLab: everything a user does with it, and what Python then knows."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from .conftest import PROMPT, WIDE
from .grid import FITS, TILES
from .notebook import Notebook

RUNS = f"""import llamatelemetry_widget as lt
with lt.open_model("smollm2") as model:
    a = model.trace({PROMPT!r}, progress=False)
    b = model.trace({PROMPT.replace("lighthouse", "museum")!r}, progress=False)"""
TWO = "two = lt.HeadComparison(a, b); two"
ONE = "one = lt.HeadComparison(a, a=(17, 5), b=(16, 0)); one"
LAYERS = "layers = lt.HeadComparison(a, a=17, b=16); layers"
DARK = re.compile(r"\blt-dark\b")


@pytest.fixture(scope="module")
def compared(lab, module_context, record):
    """A notebook with a comparison of two prompts and one of two heads."""
    notebook = Notebook.write(lab, module_context, "comparison", RUNS, TWO, ONE, LAYERS)
    notebook.run_all(180)
    yield notebook
    notebook.close()


class Comparison:
    """One comparison on the page."""

    def __init__(self, notebook, at):
        self.page, self.root = notebook.page, notebook.page.locator(".jp-Notebook .lt-hc").nth(at)
        self.root.wait_for(timeout=60_000)
        self.map = self.root.locator(".lt-map > canvas")
        self.square = self.root.locator(".lt-clusters > canvas")
        self.ranks = self.root.locator(".lt-rank")
        self.plates = self.root.locator(".lt-plate")
        self.canvases = self.root.locator(".lt-matrix > canvas")
        self.crosses = self.root.locator(".lt-cross-cell:visible")
        self.tip = self.page.locator(".lt-tip:visible")
        self.sentence = self.root.locator(".lt-sentence")
        self.map.scroll_into_view_if_needed()
        expect(self.plates.first).to_be_visible()
        self.settled()

    def settled(self):
        self.page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(() => done()), 260))")

    def cell(self, layer, head):
        """Where a head's cell of the map is."""
        self.map.scroll_into_view_if_needed()
        box = self.map.bounding_box()
        size = (box["width"] - 30) / 30
        return box["x"] + 30 + (layer + 0.5) * size, box["y"] + 18 + (head + 0.5) * size

    def numbers(self):
        """The three numbers of the chosen cell, as they are said."""
        texts = self.sentence.locator(".lt-big").all_inner_texts()
        return [float(text.replace("−", "-").replace("+", "")) for text in texts]

    def photograph(self, path):
        size, box = self.page.viewport_size, self.root.bounding_box()
        self.page.set_viewport_size({"width": size["width"], "height": int(box["height"]) + 500})
        self.root.scroll_into_view_if_needed()
        self.settled()
        self.root.screenshot(path=path)
        self.page.set_viewport_size(size)


@pytest.fixture
def two(compared):
    """Two prompts, as they are at first."""
    compared.kernel.run(
        "two.select((9, 2)); two.selected_tokens = []; two.distance, two.scale = 'jensen-shannon', 'log'"
    )
    compared.page.set_viewport_size(WIDE)
    compared.page.mouse.move(2, 2)
    return Comparison(compared, 0)


@pytest.fixture
def one(compared):
    """Two heads, as they are at first."""
    compared.kernel.run("one.select((17, 5), (16, 0)); one.selected_tokens = []")
    compared.page.set_viewport_size(WIDE)
    compared.page.mouse.move(2, 2)
    return Comparison(compared, 1)


def exact(trace, head, cell):
    return f"float({trace}.attention({head[0]}, {head[1]})[{cell[0]}, {cell[1]}])"


def test_hover_shows_a_heads_distance_and_changes_nothing(compared, two):
    two.page.mouse.move(*two.cell(27, 0))
    expect(two.tip).to_contain_text("L27 H0")
    value = compared.kernel.value("float(two.to_numpy()[27, 0])")
    expect(two.tip).to_contain_text(f"{value:.3f}")
    assert compared.kernel.value("list(two.left)") == [9, 2]


def test_a_click_in_the_map_shows_that_head_with_exact_numbers(compared, two):
    two.page.mouse.click(*two.cell(27, 0))
    compared.becomes("list(two.left)", [27, 0])
    expect(two.plates.first.locator("h4")).to_contain_text("L27 H0")
    compared.kernel.run("two.selected_tokens = [20, 3]")
    two.settled()
    left, right, difference = two.numbers()
    assert left == pytest.approx(compared.kernel.value(exact("a", (27, 0), (20, 3))), abs=6e-4)
    assert right == pytest.approx(compared.kernel.value(exact("b", (27, 0), (20, 3))), abs=6e-4)
    assert difference == pytest.approx(right - left, abs=2e-3)
    found = compared.kernel.value("two.to_pandas().query('layer == 27 and head == 0')[['js', 'tv']].iloc[0].tolist()")
    expect(two.sentence).to_contain_text(f"whole head: JS {found[0]:.3f} bits, TV {found[1]:.3f}")


def test_the_list_goes_from_the_most_changed_to_the_least(compared, two):
    order = compared.kernel.value("two.to_pandas()[['layer', 'head']].head(3).to_numpy().tolist()")
    for at, (layer, head) in enumerate(order):
        expect(two.ranks.nth(at)).to_contain_text(f"L{layer} H{head}")
    two.ranks.nth(2).click()
    compared.becomes("list(two.left)", order[2])
    two.root.get_by_role("button", name="least changed").click()
    least = compared.kernel.value("two.to_pandas()['js'].min()")
    expect(two.ranks.first.locator("b")).to_have_text(f"{least:.3f}" if least >= 0.0005 else re.compile(r"0\.00"))
    two.root.get_by_role("button", name="most changed").click()


def test_one_crosshair_goes_through_all_three(compared, two):
    box = two.canvases.nth(1).bounding_box()
    two.page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.8)
    expect(two.tip).to_contain_text("B − A")
    assert two.root.locator(".lt-cross-hover:visible").count() == 3
    two.page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.8)
    two.settled()
    query, key = compared.kernel.value("list(two.selected_tokens)")
    assert 0 <= key <= query < 24
    expect(two.crosses).to_have_count(3)
    two.page.keyboard.press("ArrowUp")
    compared.becomes("list(two.selected_tokens)", [query - 1, key])
    two.page.mouse.move(2, 2)
    two.page.keyboard.press("Escape")
    compared.becomes("list(two.selected_tokens)", [])


def test_controls_set_traits(compared, two):
    two.root.get_by_role("radio", name="Total variation").click()
    two.root.get_by_role("radio", name="Linear").click()
    two.root.get_by_role("checkbox", name="Sink aside").click()
    compared.becomes("[two.distance, two.scale, two.sink_aside]", ["total-variation", "linear", False])
    expect(two.root.locator(".lt-map-box h4")).to_contain_text("Total variation")
    compared.kernel.run("two.sink_aside = True")


def test_keys_step_the_map_and_stay_in_the_widget(compared, two):
    cells, mode = two.page.locator(".jp-Cell").count(), compared.mode()
    two.page.mouse.click(*two.cell(9, 2))
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        two.page.keyboard.press(key)
    compared.becomes("list(two.left)", [10, 3])
    assert (two.page.locator(".jp-Cell").count(), compared.mode()) == (cells, mode)


def test_the_square_of_like_heads_chooses_two(compared, one):
    one.square.scroll_into_view_if_needed()
    box = one.square.bounding_box()
    place = box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.75
    one.page.mouse.move(*place)
    expect(one.tip).to_contain_text("overlap")
    one.page.mouse.click(*place)
    one.settled()
    left, right = compared.kernel.value("[list(one.left), list(one.right)]")
    assert left != [17, 5] and right != [16, 0]
    expect(one.plates.nth(1).locator("h4")).to_contain_text(f"L{right[0]} H{right[1]}")
    one.root.get_by_role("button", name="Swap A and B").click()
    compared.becomes("[list(one.left), list(one.right)]", [right, left])


def test_other_layers_are_compared_as_they_are_chosen(compared):
    layers = Comparison(compared, 2)
    layers.root.get_by_label("Layer of B").select_option("20")
    compared.becomes("[layers.left[0], layers.right[0]]", [17, 20])
    expect(layers.root.locator(".lt-map-box h4")).to_contain_text("layer 20")
    left, right = compared.kernel.value("[list(layers.left), list(layers.right)]")
    expect(layers.plates.nth(1).locator("h4")).to_contain_text(f"L{right[0]} H{right[1]}")
    value = compared.kernel.value(f"float(layers.to_numpy()[{left[1]}, {right[1]}])")
    chosen = layers.root.locator(".lt-rank[aria-selected=true] b")
    layers.root.get_by_role("button", name="more").click()
    layers.root.get_by_role("button", name="more").click()
    layers.root.get_by_role("button", name="more").click()
    layers.root.get_by_role("button", name="more").click()
    expect(chosen).to_have_text(f"{value:.3f}")


def test_a_head_chosen_in_a_grid_is_chosen_here(compared, two):
    compared.kernel.run("grid = lt.AttentionGrid(a); link = lt.link(grid, two); grid.select(5, 1)")
    expect(two.plates.first.locator("h4")).to_contain_text("L5 H1")
    compared.kernel.run("link.unlink(); grid.close()")


@pytest.mark.parametrize("width", (1400, 1100, 600, 420))
def test_fits_every_width(compared, one, pictures, width):
    compared.sidebar(False)
    for at, name in enumerate(("prompts", "heads")):
        compared.page.set_viewport_size({"width": width, "height": 1100})
        comparison = Comparison(compared, at)
        assert comparison.root.evaluate(FITS) == ""
        for canvas in comparison.canvases.all():
            assert sum(count > 3 for count in canvas.evaluate(TILES, [3, 3])) >= 5
        comparison.photograph(pictures / f"comparison-{name}-light-{width}.png")
    assert compared.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    compared.sidebar(True)


def test_follows_the_theme(compared, one, pictures):
    compared.sidebar(False)
    compared.menu("Settings", "Theme", "JupyterLab Dark")
    try:
        for at, name in enumerate(("prompts", "heads")):
            for width in (1100, 600):
                compared.page.set_viewport_size({"width": width, "height": 1100})
                comparison = Comparison(compared, at)
                expect(comparison.root).to_have_class(DARK)
                comparison.photograph(pictures / f"comparison-{name}-dark-{width}.png")
    finally:
        compared.page.set_viewport_size(WIDE)
        compared.menu("Settings", "Theme", "JupyterLab Light")
        compared.sidebar(True)


def test_reopened_without_a_kernel_it_shows_what_was_chosen(compared, one):
    compared.kernel.run("one.select((17, 5), (16, 0))")
    compared.page.wait_for_timeout(500)
    compared.save()
    compared.end_kernel()
    compared.open()
    compared.wait_kernel()  # a new one, which knows nothing of the widget
    saved = Comparison(compared, 1)
    expect(saved.root.locator(".lt-provenance").first).to_contain_text("not live", timeout=20_000)
    expect(saved.plates.first.locator("h4")).to_contain_text("L17 H5")
    expect(saved.sentence.locator(".lt-big")).to_have_count(3)
