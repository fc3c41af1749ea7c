"""The architecture of a model in JupyterLab: map and tree by mouse and keyboard, linked with attention, two files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from .conftest import PROMPT, WIDE
from .grid import FITS
from .notebook import Notebook

ZOO = Path(__file__).resolve().parents[1] / "data" / "zoo" / "models"
CELLS = (
    "%load_ext llamatelemetry",
    "%llamatelemetry architecture smollm2",
    f"import llamatelemetry_widget as lt\ntree = _2\ntrace = tree.model.trace({PROMPT!r})",
    "grid = lt.AttentionGrid(trace)\nlink = lt.link(grid, tree)\ngrid",
)
PAIR = (
    "import llamatelemetry_widget as lt",
    f"models = [lt.open_model(f'{ZOO}/llama-{{kind}}.gguf') for kind in ('q8-0', 'q4-0')]",
    "pair = lt.ArchitectureTree(*models)\npair",
)
DEEP = (f"import llamatelemetry_widget as lt\ndeep = lt.ArchitectureTree(lt.open_model('{ZOO}/deep.gguf'))\ndeep",)
FFN = "model/layers/L17/MLP/ffn_down.weight"

#: Frames of a second in which `step` is done each time: count, median and 95th percentile of their milliseconds.
FRAMES = """async (root, body) => {
  const step = new Function("root", "i", body), times = [];
  const end = performance.now() + 1000;
  for (let i = 0, last = performance.now(); last < end; i++) {
    step(root, i);
    await new Promise((done) => requestAnimationFrame(done));
    times.push(performance.now() - last);
    last = performance.now();
  }
  times.sort((a, b) => a - b);
  return [times.length, times[times.length >> 1], times[Math.floor(times.length * 0.95)]];
}"""
HOVER = """
  const canvas = root.querySelector(".lt-at-single canvas"), box = canvas.getBoundingClientRect();
  const at = { clientX: box.left + (i * 7) % box.width, clientY: box.top + (i * 3) % box.height, bubbles: true };
  canvas.dispatchEvent(new PointerEvent("pointermove", at));
"""
SCROLL = """
  const rows = root.querySelector(".lt-at-scroll");
  rows.scrollTop = (i * 97) % Math.max(1, rows.scrollHeight - rows.clientHeight);
"""


@pytest.fixture(scope="module")
def shown(lab, module_context, record) -> Iterator[Notebook]:
    notebook = Notebook.write(lab, module_context, "architecture", *CELLS)
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture(scope="module")
def two(lab, module_context, record) -> Iterator[Notebook]:
    notebook = Notebook.write(lab, module_context, "two-files", *PAIR)
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture
def tree(shown: Notebook) -> Locator:
    """The model's tree, with nothing chosen, and the pointer away."""
    shown.kernel.run(
        "tree.selected_node = ''; tree.search = ''; tree.overlay = 'type'; tree.theme = 'auto'\ngrid.select(None)"
    )
    shown.page.set_viewport_size(WIDE)
    shown.page.mouse.move(2, 2)
    return widget(shown)


def widget(notebook: Notebook) -> Locator:
    """The tree of a page, in sight."""
    found = notebook.page.locator(".jp-Notebook .lt-at")
    found.wait_for(timeout=60_000)
    found.scroll_into_view_if_needed()
    return found


def settle(notebook: Notebook) -> None:
    notebook.page.wait_for_timeout(350)


def photograph(notebook: Notebook, root: Locator, path: Path) -> None:
    size = notebook.page.viewport_size
    box = root.bounding_box()
    assert size is not None and box is not None
    notebook.page.set_viewport_size({"width": size["width"], "height": int(box["height"]) + 500})
    root.scroll_into_view_if_needed()
    settle(notebook)
    root.screenshot(path=path)
    notebook.page.set_viewport_size(size)


def test_a_click_on_the_map_chooses_in_python_and_in_the_tree(shown, tree):
    canvas = tree.locator(".lt-at-single .lt-at-map canvas")
    box = canvas.bounding_box()
    shown.page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + 100)
    expect(shown.page.locator(".lt-at-tip:visible").first).to_contain_text("token_embd")
    shown.page.mouse.click(box["x"] + box["width"] * 0.1, box["y"] + 100)
    shown.becomes("tree.selected_node", "model/input/token_embd.weight")
    expect(tree.locator(".lt-at-row.lt-on .lt-at-name")).to_have_text("token_embd")
    expect(tree.locator(".lt-at-detail h3").first).to_contain_text("token_embd.weight")
    shown.page.keyboard.press("Escape")
    shown.page.keyboard.press("Escape")
    shown.becomes("tree.selected_node", "")


def test_python_chooses_and_the_ring_stands_on_the_map(shown, tree):
    shown.kernel.run(f"tree.selected_node = {FFN!r}")
    expect(tree.locator(".lt-at-row.lt-on .lt-at-name")).to_have_text("ffn_down")
    ring = tree.locator(".lt-at-single .lt-ring-lock")
    expect(ring).to_be_visible()
    map_box, ring_box = tree.locator(".lt-at-single canvas").first.bounding_box(), ring.bounding_box()
    assert (
        map_box["x"] <= ring_box["x"] + 3 and ring_box["y"] + ring_box["height"] <= map_box["y"] + map_box["height"] + 6
    )
    assert "all 30: 30 × Q4_1" in tree.locator(".lt-at-layers").inner_text()


def test_the_keyboard_alone_searches_steps_and_frees(shown, tree):
    tree.locator(".lt-at-grid").focus()
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("attn_v")
    expect(tree.locator(".lt-at-found")).to_have_text("30 found")
    shown.page.keyboard.press("Enter")
    expect(tree.locator(".lt-at-found")).to_have_text("1 of 30")
    shown.becomes("[tree.search, tree.selected_layer]", ["attn_v", 0])
    shown.page.keyboard.press("Escape")
    shown.becomes("tree.search", "")
    shown.page.keyboard.press("Escape")
    expect(tree.locator(".lt-at-grid")).to_be_focused()
    for key in ("Home", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown"):
        shown.page.keyboard.press(key)
    expect(tree.locator(".lt-at-focus .lt-at-name")).to_contain_text("layer 0")


def test_a_head_of_the_grid_is_chosen_in_the_tree_and_back(shown, tree):
    shown.grid(0).click(shown.kernel, 17, 5)
    shown.becomes("[tree.selected_layer, tree.selected_head]", [17, 5])
    expect(tree.locator(".lt-at-row.lt-on .lt-at-name")).to_have_text("H5")
    tree.scroll_into_view_if_needed()
    row = tree.locator(".lt-at-row .lt-at-name", has_text="H4")
    row.click()
    shown.becomes("list(grid.locked)", [17, 4])
    expect(shown.grid(0).detail.locator("h3 b").first).to_have_text("Layer 17 · head 4")


def test_values_of_a_tensor_come_from_the_worker(shown, tree):
    shown.kernel.run(f"tree.selected_node = {FFN!r}")
    tree.locator(".lt-at-values button").click()
    expect(tree.locator(".lt-at-histogram")).to_be_visible(timeout=30_000)
    expect(tree.locator(".lt-at-values")).to_contain_text("standard deviation")
    shown.kernel.run("tree.selected_node = 'model/layers/L16/MLP/ffn_down.weight'")
    expect(tree.locator(".lt-at-detail h3").first).to_contain_text("blk.16")
    expect(tree.locator(".lt-at-histogram")).to_be_visible(timeout=30_000)


def test_the_graph_comes_when_asked_for_and_its_times_colour_the_map(shown, tree):
    shown.kernel.run("tree.selected_layer = 3")
    button = tree.locator(".lt-at-offer button")
    if button.is_visible():
        button.click()
    expect(tree.locator(".lt-at-graph h4")).to_contain_text("Layer 3", timeout=90_000)
    assert tree.locator(".lt-at-op").count() > 15
    tree.locator("[role=radio]", has_text="Time").click()
    shown.becomes("tree.overlay", "time")
    expect(tree.locator(".lt-provenance")).to_contain_text("read from the running graph")
    weight = tree.locator(".lt-at-reads").first
    weight.click()
    shown.becomes("tree.selected_node.startswith('model/layers/L3/')", True)


def test_two_files_show_what_changed_and_how_far_the_weights_are(two):
    pair = widget(two)
    expect(pair.locator(".lt-at-both .lt-at-map")).to_have_count(3)
    expect(pair.locator(".lt-at-roles tbody tr").first).to_contain_text("8.50 → 4.50")
    pair.get_by_role("button", name="Show weight error").click()
    expect(pair.locator(".lt-at-roles-title").first).to_contain_text("Most affected", timeout=30_000)
    two.becomes("pair.errors.shape[0]", 3)
    pair.locator("[role=radio]", has_text="B").last.click()
    expect(pair.locator("h2")).to_contain_text("llama-q4-0")
    pair.locator("[role=radio]", has_text="A | B").click()


def test_thousands_of_nodes_stay_fluent(lab, module_context, record):
    """60 frames a second on a machine of its own; where others work too, the median still has to be near."""
    notebook = Notebook.write(lab, module_context, "deep", *DEEP)
    notebook.run_all()
    deep = widget(notebook)
    deep.locator(".lt-at-row", has_text="layers 0").locator(".lt-at-twist").click()
    settle(notebook)
    assert deep.locator("*").count() < 1500
    for name, step in (("hover", HOVER), ("scroll", SCROLL)):
        count, median, slow = deep.evaluate(FRAMES, step)
        print(f"{name}: {count} frames, median {median:.1f} ms, 95 % {slow:.1f} ms")
        assert median < 34, name
    notebook.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 600])
def test_pictures(shown, two, tree, pictures, theme, width):
    shown.kernel.run(f"tree.theme = {theme!r}; tree.selected_node = {FFN!r}; tree.search = 'ffn_down'")
    two.kernel.run(f"pair.theme = {theme!r}")
    for notebook, name in ((shown, "architecture"), (two, "architecture-compare")):
        notebook.page.set_viewport_size({"width": width + 300, "height": 1100})
        root = widget(notebook)
        photograph(notebook, root, pictures / f"{name}-{theme}-{width}.png")
        assert root.evaluate(FITS) == "", name
