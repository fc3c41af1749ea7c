"""LayerLens in JupyterLab: the magic draws it, it reads what is seen, it is linked with the grid, it survives."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import PROMPT, WIDE
from .grid import Grid
from .notebook import Notebook

DARK = re.compile(r"\blt-dark\b")
ROW, HEAD = 25, 30


class Lens(Grid):
    """One lens."""

    def __init__(self, page: Page, root: Locator) -> None:
        super().__init__(page, root)
        self.canvas = root.locator(".lt-ll-table > canvas")
        self.strips = root.locator(".lt-ll-strips > canvas")
        self.scroller = root.locator(".lt-ll-scroller")
        self.title = root.locator(".lt-ll-panel h3")
        self.list = root.locator(".lt-ll-list")
        self.sum = root.locator(".lt-ll-sum")
        self.tip = page.locator(".lt-ll-tip:visible")

    def ready(self) -> Lens:
        """Wait until the lens and the push were read."""
        expect(self.sum).to_contain_text("left over", timeout=60_000)
        self.settled()
        return self

    def cell(self, row: int, token: int) -> tuple[float, float]:
        """The middle of a cell: row from the top, token; the table is scrolled so that it is seen."""
        self.canvas.scroll_into_view_if_needed()
        width = self.scroller.locator(".lt-ll-spacer").evaluate("(e) => e.clientWidth - 2")
        each = width / 24
        self.scroller.evaluate("(e, x) => { e.scrollLeft = x; }", max(0, each * (token - 2)))
        self.settled()
        box = self.scroller.bounding_box()
        left = self.scroller.evaluate("(e) => e.scrollLeft")
        return box["x"] + each * (token + 0.5) - left, box["y"] + HEAD + ROW * (row + 0.5)


def lens_of(opened: Notebook) -> Lens:
    root = opened.page.locator(".jp-Notebook .lt-ll").first
    root.wait_for(timeout=60_000)
    return Lens(opened.page, root)


@pytest.fixture(scope="module")
def opened(lab, module_context, record):
    load = "import llamatelemetry_widget as lt\n%load_ext llamatelemetry"
    magic = f"%%llamatelemetry layers --into trace\n{PROMPT}"
    notebook = Notebook.write(
        lab,
        module_context,
        "layers",
        load,
        magic,
        "lens = _2; grid = lt.AttentionGrid(trace)",
        "lt.link(lens, grid); grid",
    )
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture
def lens(opened) -> Lens:
    opened.kernel.run(
        "lens.selected_layer, lens.selected_head, lens.selected_tokens, lens.at_embedding = None, None, [], False\n"
        "lens.word, lens.against, lens.measure, lens.every, lens.theme = None, None, 'probability', None, 'auto'"
    )
    opened.page.set_viewport_size(WIDE)
    opened.page.mouse.move(2, 2)
    return lens_of(opened).ready()


def test_the_magic_shows_the_lens_and_the_answer(opened, lens):
    expect(lens.root.locator("h2")).to_have_text("Layer lens30 layers × 24 tokens")
    expect(lens.provenance).to_contain_text("computed by llama.cpp · SmolLM2-135M-Instruct Q4_1")
    expect(lens.title).to_have_text("After layer 29, at ·the₂₃")
    expect(lens.list.locator("bdi").first).to_have_text("·lamp")
    assert all(count > 3 for count in lens.tiles(4, 4))
    assert all(count > 1 for count in lens.tiles(4, 2, lens.strips))


def test_only_what_was_seen_is_read(opened, lens):
    known = opened.kernel.value("lens._reading.known.tolist()")
    assert sum(known) < 24 and known[23]
    lens.scroller.evaluate("(e) => { e.scrollLeft = 0; }")
    opened.becomes("bool(lens._reading.known[0])", True, 30)
    lens.settled()
    assert lens.root.locator(".lt-ll-status").is_hidden()


def test_hover_reads_a_cell_and_moves_nothing(opened, lens):
    x, y = lens.cell(3, 22)
    before = lens.root.bounding_box()
    opened.page.mouse.move(x, y)
    expect(lens.tip).to_contain_text("After layer 23 ·lit₂₂")
    word = opened.kernel.value("lens._reading.words[int(trace.lens(positions=[22]).ids[24, 0, 0])]")
    expect(lens.tip.locator("bdi").first).to_have_text(word)
    assert lens.root.bounding_box() == before
    opened.becomes("lens.selected_layer", None)


def test_click_locks_and_the_grid_follows(opened, lens, pictures):
    opened.page.mouse.click(*lens.cell(3, 23))
    opened.becomes("[lens.selected_layer, lens.selected_tokens]", [23, [23]])
    opened.becomes("[grid.selected_layer, grid.selected_tokens]", [23, [23]])
    expect(lens.title).to_have_text("After layer 23, at ·the₂₃")
    opened.kernel.run("grid.select(17, 5)")
    opened.becomes("[lens.selected_layer, lens.selected_head]", [17, 5])
    expect(lens.title).to_have_text("After layer 17, at ·the₂₃")
    opened.kernel.run("lens.selected_layer, lens.selected_head = 23, 1")
    expect(lens.title).to_have_text("After layer 23, at ·the₂₃")
    lens.settled()
    lens.photograph(pictures / "layers-light.png")


def test_a_head_is_chosen_in_the_map(opened, lens):
    lens.root.locator("[data-region=strips]").focus()
    for key in ("End", "ArrowDown", "Enter"):
        opened.page.keyboard.press(key)
    opened.becomes("[lens.selected_layer, lens.selected_head]", [29, 1])
    opened.becomes("grid.locked", [29, 1])


def test_another_word_and_the_difference_of_two(opened, lens):
    word, against = lens.root.locator(".lt-ll-select").all()
    expect(word.locator("option").first).to_have_text("·lamp (the answer)")
    against.select_option(index=1)
    opened.becomes("lens.push['against'] == lens.against and lens.against is not None", True, 20)
    expect(lens.sum).to_contain_text("the model’s logit difference", timeout=20_000)
    logit, rest = opened.kernel.value("[lens.push['logit'], lens.push['sum'] - lens.push['logit']]")
    assert abs(rest) < 1e-2
    expect(lens.sum).to_contain_text(f"difference +{logit:.2f}")
    expect(lens.root.locator(".lt-ll-sentence")).to_contain_text("·lamp − ")


def test_measures_and_rows(opened, lens):
    height = lens.canvas.bounding_box()["height"]
    lens.root.get_by_role("radio", name="Every layer").click()
    opened.becomes("lens.every", 1)
    expect(lens.root.locator(".lt-legend")).to_contain_text("probability of the shown token")
    lens.settled()
    assert lens.canvas.bounding_box()["height"] > height + 10 * ROW
    lens.root.get_by_role("radio", name="Rank of answer").click()
    opened.becomes("lens.measure", "rank")
    expect(lens.root.locator(".lt-legend")).to_contain_text("rank of the model’s final answer")
    lens.root.get_by_role("radio", name="KL").click()
    opened.becomes("lens.measure", "kl")
    expect(lens.root.locator(".lt-legend")).to_contain_text("KL divergence")


def test_keys_stay_in_the_widget(opened, lens):
    page = opened.page
    page.mouse.click(*lens.cell(0, 23))
    opened.becomes("lens.selected_layer", 29)
    mode, cells = opened.mode(), page.locator(".jp-Cell").count()
    for key in ("ArrowDown", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    opened.becomes("[lens.selected_layer, lens.selected_tokens]", [27, [22]])
    for _ in range(4):
        page.keyboard.press("Escape")
    opened.becomes("[lens.selected_layer, lens.selected_tokens]", [None, []])
    assert opened.mode() == mode and page.locator(".jp-Cell").count() == cells


@pytest.mark.parametrize("width", [1400, 1000, 700])
def test_it_fits_at_every_width_and_in_the_dark(opened, lens, pictures, width):
    opened.kernel.run("lens.theme = 'dark'; lens.selected_layer, lens.selected_tokens = 23, [23]")
    opened.page.set_viewport_size({"width": width, "height": 1100})
    opened.sidebar(False)
    expect(lens.root).to_have_class(DARK)
    lens.settled()
    assert lens.too_wide() == ""
    lens.photograph(pictures / f"layers-dark-{width}.png")
    opened.sidebar(True)


def test_a_saved_lens_is_read_without_a_kernel(lab, module_context, record):
    make = (
        "import llamatelemetry_widget as lt\n"
        "model = lt.open_model('smollm2')\n"
        f"trace = model.trace({PROMPT!r}, progress=False)\n"
        "lens = lt.LayerLens(trace, selected_layer=23, selected_tokens=[22]); lens"
    )
    notebook = Notebook.write(lab, module_context, "layers-saved", make)
    notebook.run_all()
    lens_of(notebook).ready()
    notebook.save()
    notebook.end_kernel()
    notebook.open()
    again = lens_of(notebook)
    expect(again.provenance).to_contain_text("not live", timeout=20_000)
    expect(again.title).to_have_text("After layer 23, at ·lit₂₂")
    expect(again.list.locator("bdi")).to_have_count(5)
    expect(again.sum).to_contain_text("left over")
    again.settled()
    assert any(count > 3 for count in again.tiles(4, 4))
    notebook.close()
