"""ExpertStrip in JupyterLab: under the grid of a mixture-of-experts model, linked to it, and alone."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from .conftest import WIDE
from .grid import Grid
from .notebook import Notebook

PROMPT = "the old lamp on the sea was lit by the keeper every night"
DARK = re.compile(r"\blt-dark\b")


class Strip(Grid):
    """One strip."""

    def __init__(self, page, root):
        super().__init__(page, root)
        self.canvas = root.locator(".lt-overview > canvas")
        self.table = root.locator(".lt-es-plot > canvas").first
        self.tip = page.locator(".lt-tip:visible")

    def cell(self, opened: Notebook, layer: int, token: int, name: str = "strip") -> tuple[float, float]:
        """Where a cell is: Python locks it, its ring is looked at, and it is freed again."""
        self.canvas.scroll_into_view_if_needed()
        opened.kernel.run(f"{name}.selected_layer, {name}.selected_tokens = {layer}, [{token}]")
        expect(self.lock_ring).to_be_visible()
        self.settled()
        box = self.lock_ring.bounding_box()
        assert box is not None
        opened.kernel.run(f"{name}.selected_layer, {name}.selected_tokens = None, []")
        expect(self.lock_ring).to_be_hidden()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def strip_of(root: Locator, page) -> Strip:
    root.wait_for(timeout=60_000)
    return Strip(page, root)


@pytest.fixture(scope="module")
def opened(lab, module_context, record, zoo_models):
    load = "import llamatelemetry_widget as lt\n%load_ext llamatelemetry"
    magic = f"%%llamatelemetry --model '{zoo_models / 'qwen3moe.gguf'}' --into trace\n{PROMPT}"
    notebook = Notebook.write(lab, module_context, "experts", load, magic, "views = _2; strip = views.experts")
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture
def strip(opened) -> Strip:
    opened.kernel.run(
        "strip.selected_layer, strip.selected_tokens, strip.selected_expert = None, [], None\n"
        "strip.measure, strip.theme = 'experts', 'auto'; views.grids['self'].select(None)"
    )
    opened.page.set_viewport_size(WIDE)
    opened.page.mouse.move(2, 2)
    found = strip_of(opened.page.locator(".jp-Notebook .lt-es"), opened.page)
    found.settled()
    return found


def choices(opened, layer: int, token: int) -> list[tuple[int, str]]:
    rows = opened.kernel.value(
        f"[(int(e), float(w)) for e, w in zip(*(part[{token}] for part in trace.experts[{layer}]))]"
    )
    return [(expert, f"{weight:.3f}") for expert, weight in sorted(rows, key=lambda row: -row[1])]


def test_magic_shows_the_strip_under_the_grid(opened, strip):
    assert opened.page.locator(".jp-Notebook .lt-ag").count() == 1
    n = opened.kernel.value("len(trace.tokens)")
    expect(strip.root.locator("h2")).to_have_text(f"Experts3 layers × 8 experts, 2 per token · {n} tokens")
    expect(strip.provenance).to_contain_text("measured in llama.cpp · qwen3moe F32")
    counts = strip.tiles(3, 4)
    assert all(count > 3 for count in counts[:2])


def test_hover_reads_exact_weights_and_moves_nothing(opened, strip):
    x, y = strip.cell(opened, 1, 6)
    before = strip.root.bounding_box()
    opened.page.mouse.move(x, y)
    (first, weight), (second, other) = choices(opened, 1, 6)
    expect(strip.tip).to_contain_text(f"E{first} {weight} · E{second} {other}")
    assert strip.root.bounding_box() == before
    opened.becomes("strip.selected_layer", None)
    opened.page.mouse.move(2, 2)
    expect(strip.tip).to_have_count(0)


def test_click_locks_and_the_grid_follows(opened, strip, pictures):
    opened.page.mouse.click(*strip.cell(opened, 1, 6))
    opened.becomes("[strip.selected_layer, strip.selected_tokens]", [1, [6]])
    (first, weight), _ = choices(opened, 1, 6)
    expect(strip.detail.locator(".lt-sentence")).to_contain_text(f"goes toE{first}{weight}")
    strip.settled()
    strip.photograph(pictures / "experts-light.png")
    opened.kernel.run("views.grids['self'].select(0, 2)")
    opened.becomes("strip.selected_layer", 0)
    expect(strip.detail.locator("h3 b")).to_have_text("Layer 0")
    opened.kernel.run("strip.selected_layer = 1; strip.selected_tokens = [3]")
    opened.becomes("views.grids['self'].locked", [1, 2])
    opened.becomes("views.grids['self'].selected_tokens", [3])


def test_an_expert_is_chosen_in_the_table_and_marked_in_the_text(opened, strip):
    opened.kernel.run("strip.selected_layer, strip.selected_tokens = 1, [6]")
    expect(strip.table).to_be_visible()
    strip.table.scroll_into_view_if_needed()
    strip.settled()
    box = strip.table.bounding_box()
    opened.page.mouse.move(box["x"] + 116 + 5.5 * 34, box["y"] + box["height"] - 30)  # a bar of the load
    load = opened.kernel.value("strip.load.query('layer == 1 and expert == 5').load.item()")
    expect(strip.tip).to_contain_text(f"load {load:.3f}")
    opened.page.mouse.click(box["x"] + 116 + 5.5 * 34, box["y"] + box["height"] - 30)
    opened.becomes("strip.selected_expert", 5)
    taken = opened.kernel.value("int((trace.experts[1][0] == 5).sum())")
    expect(strip.root.locator(".lt-es-word.lt-some")).to_have_count(taken)
    expect(strip.detail).to_contain_text(f"Where E5 works{taken} of")


def test_keys_step_lock_and_free_and_stay_in_the_widget(opened, strip):
    page = opened.page
    page.mouse.click(*strip.cell(opened, 0, 2))
    opened.becomes("strip.selected_layer", 0)
    mode, cells = opened.mode(), page.locator(".jp-Cell").count()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    expect(strip.tip).to_contain_text("in layer 1")
    page.keyboard.press("Enter")
    opened.becomes("[strip.selected_layer, strip.selected_tokens]", [1, [4]])
    for _ in range(2):
        page.keyboard.press("Escape")
    opened.becomes("strip.selected_layer", None)
    assert opened.mode() == mode and page.locator(".jp-Cell").count() == cells


def test_measures_and_what_was_not_computed(opened, strip, pictures):
    strip.root.get_by_role("radio", name="Evenness").click()
    opened.becomes("strip.measure", "evenness")
    strip.root.get_by_role("radio", name="Top weight").click()
    opened.becomes("strip.measure", "weight")
    strip.settled()
    strip.photograph(pictures / "experts-weight-light.png")
    x, y = strip.cell(opened, 2, 3)
    opened.page.mouse.move(x, y)
    expect(strip.tip).to_contain_text("not computed")


def test_fits_narrow_and_dark(opened, strip, pictures):
    opened.kernel.run("strip.selected_layer, strip.selected_tokens, strip.theme = 1, [6], 'dark'")
    for width in (1400, 600, 420):
        opened.page.set_viewport_size({"width": width, "height": 1100})
        opened.sidebar(width > 1000)
        expect(strip.root).to_have_class(DARK)
        strip.settled()
        assert strip.too_wide() == ""
        strip.photograph(pictures / f"experts-dark-{width}.png")
    opened.page.set_viewport_size(WIDE)
    opened.sidebar(True)


def test_one_page_holds_grid_and_strip_linked(opened, strip, tmp_path, module_context, pictures):
    target = tmp_path / "experts.html"
    opened.kernel.run(f"views.grids['self'].select(0, 1); views.to_html({str(target)!r})")
    page = module_context.new_page()
    try:
        page.goto(target.as_uri())
        inside = strip_of(page.locator(".lt-es"), page)
        expect(inside.detail.locator("h3 b")).to_have_text("Layer 0")
        inside.root.locator("[data-region=overview]").focus()
        for key in ("ArrowRight", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        expect(inside.detail.locator("h3 b")).to_have_text("Layer 1")
        expect(page.locator(".lt-ag .lt-detail h3 b").first).to_have_text("Layer 1 · head 1")
        expect(inside.detail.locator(".lt-sentence")).to_contain_text("goes to")
        expect(inside.provenance).to_contain_text("not live")
        inside.photograph(pictures / "experts-page.png")
    finally:
        page.close()


def test_a_model_without_experts_says_so(opened, zoo_models, strip):
    opened.kernel.run(
        f"with lt.open_model({str(zoo_models / 'llama.gguf')!r}) as dense:\n"
        "    alone = lt.ExpertStrip(dense.trace([5, 6, 7], progress=False))"
    )
    opened.page.locator(".jp-Notebook .jp-Cell").last.locator(".jp-InputPrompt").click()
    opened.page.keyboard.press("b")
    opened.page.keyboard.press("Enter")
    opened.page.keyboard.type("alone")
    opened.page.keyboard.press("Control+Enter")
    dense = opened.page.locator(".jp-Notebook .lt-es").last
    expect(dense).to_contain_text("This model has no experts", timeout=20_000)
    expect(dense.locator("canvas").first).to_be_hidden()


def test_saved_strip_reads_exact_weights_without_a_kernel(lab, module_context, record, zoo_models):
    make = (
        "import llamatelemetry_widget as lt\n"
        f"model = lt.open_model({str(zoo_models / 'gpt-oss.gguf')!r})\n"
        f"trace = model.trace({PROMPT!r}, progress=False)\n"
        "weight = float(trace.experts[2][1][4].max())\n"
        "strip = lt.ExpertStrip(trace, selected_layer=2, selected_tokens=[4]); strip"
    )
    notebook = Notebook.write(lab, module_context, "experts-saved", make)
    notebook.run_all()
    weight = notebook.kernel.value("weight")
    notebook.page.locator(".jp-Notebook .lt-es").wait_for()
    notebook.save()
    notebook.end_kernel()
    notebook.open()
    again = strip_of(notebook.page.locator(".jp-Notebook .lt-es"), notebook.page)
    expect(again.detail.locator(".lt-big")).to_have_text(f"{weight:.3f}")
    again.settled()
    assert any(count > 3 for count in again.tiles(3, 4))
    notebook.close()
