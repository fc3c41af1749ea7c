"""TelemetryPanel in JupyterLab, of a tiny model that writes: the line, the charts, a linked grid, nobody who looks."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect

from .conftest import WIDE
from .grid import FITS, Grid
from .notebook import Notebook


class Panel(Grid):
    """One panel."""

    def __init__(self, page, root) -> None:
        super().__init__(page, root)
        self.line = root.locator(".lt-tp-line")
        self.body = root.locator(".lt-tp-body")
        self.areas = root.locator(".lt-tp-charts .lt-tp-area")
        self.layers = root.locator(".lt-tp-layers .lt-tp-area")
        self.sentence = root.locator(".lt-tp-sentence")
        self.tip = page.locator(".lt-tp-tip:visible")

    def bar(self, token: int, of: int = 24) -> tuple[float, float]:
        """The foot of a token's bar in the first chart."""
        canvas: Locator = self.areas.first.locator("canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        return box["x"] + 40 + (box["width"] - 40) * (token + 0.5) / of, box["y"] + 85


@pytest.fixture(scope="module")
def opened(lab, module_context, record, zoo_models):
    start = f"import llamatelemetry_widget as lt\nmodel = lt.open_model({str(zoo_models / 'llama.gguf')!r})"
    write = "written = model.generate(list(range(5, 29)), 24)\npanel = lt.TelemetryPanel(written)\npanel"
    grid = "trace = written.result(); grid = lt.AttentionGrid(trace); lt.link(panel, grid)\ngrid"
    notebook = Notebook.write(lab, module_context, "telemetry", start, write, grid)
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture
def panel(opened) -> Panel:
    opened.kernel.run("panel.selected_tokens, panel.span, panel.expanded, panel.theme = [], [], False, 'auto'")
    opened.kernel.run("panel.selected_layer = None")
    opened.page.set_viewport_size(WIDE)
    opened.page.mouse.move(2, 2)
    root = opened.page.locator(".jp-Notebook .lt-tp")
    root.wait_for(timeout=60_000)
    found = Panel(opened.page, root)
    expect(found.line).to_contain_text("MB")  # the run has ended
    found.settled()
    return found


def test_one_quiet_line_says_what_the_run_cost(opened, panel):
    assert panel.root.bounding_box()["height"] == 44
    speed = opened.kernel.value("trace.telemetry['decode_tokens_per_second']")
    shown = float(panel.line.locator("b").first.inner_text().replace("\u202f", ""))
    assert shown == pytest.approx(speed, rel=0.01)
    expect(panel.line).to_contain_text("48/ 256context")
    panel.line.click()
    expect(panel.body).to_be_visible()
    opened.becomes("panel.expanded", True)
    panel.line.press("Enter")
    expect(panel.body).to_be_hidden()


def test_a_click_on_a_bar_selects_its_token_everywhere(opened, panel):
    panel.line.click()
    panel.page.mouse.click(*panel.bar(5))
    opened.becomes("panel.selected_tokens", [29])
    opened.becomes("grid.selected_tokens", [29])
    word = opened.kernel.value("trace.tokens[29]")
    expect(panel.sentence).to_contain_text(f"{word} token 6: ")
    opened.kernel.run("grid.selected_tokens = [30]")
    expect(panel.sentence).to_contain_text("token 7: ")
    panel.areas.first.press("Escape")
    panel.areas.first.press("Escape")
    opened.becomes("grid.selected_tokens", [])


def test_tooltips_go_in_step_and_a_drag_looks_closer(opened, panel):
    panel.line.click()
    panel.page.mouse.move(*panel.bar(3))
    expect(panel.tip).to_contain_text("token 4")
    places = [column.bounding_box()["x"] for column in panel.root.locator(".lt-tp-column:visible").all()]
    assert len(places) == panel.areas.count() and len(set(places)) == 1
    panel.page.mouse.down()
    panel.page.mouse.move(*panel.bar(10), steps=4)
    panel.page.mouse.up()
    opened.becomes("panel.span", [3.0, 11.0])
    expect(panel.sentence).to_contain_text("tokens 4 to 11")
    panel.page.mouse.dblclick(*panel.bar(10))
    opened.becomes("panel.span", [])


def test_the_cost_of_capture_is_measured_by_a_click(opened, panel):
    panel.line.click()
    panel.root.get_by_role("button", name="Measure", exact=True).click()
    expect(panel.root.locator(".lt-tp-costs")).to_contain_text("medians of 3", timeout=60_000)
    assert opened.kernel.value("trace.telemetry['overhead']['decode_ratio']") > 0
    expect(panel.root.locator(".lt-tp-gpu")).to_contain_text("GPU")


def test_layers_and_operations_are_measured_by_a_click_and_a_layer_is_chosen_everywhere(opened, panel):
    panel.line.click()
    panel.root.get_by_role("button", name="Measure layers and operations").click()
    expect(panel.root.locator(".lt-tp-layers h3").first).to_contain_text("measured op by op", timeout=60_000)
    table = opened.kernel.value("panel.operations['op'].tolist()[:8]")
    assert panel.root.locator(".lt-tp-op bdi").all_inner_texts() == table
    panel.layers.scroll_into_view_if_needed()
    box = panel.layers.locator("canvas").bounding_box()
    middle = box["x"] + 40 + (box["width"] - 40) * 2.5 / 6  # embedding, L0, L1: the llama has four layers
    panel.page.mouse.click(middle, box["y"] + 78)
    opened.becomes("[panel.selected_layer, grid.selected_layer]", [1, 1])
    panel.layers.press("Escape")
    panel.layers.press("Escape")
    opened.becomes("grid.selected_layer", None)


def test_a_panel_that_nobody_sees_is_told_nothing_until_it_is_seen(opened, panel):
    opened.becomes("panel._looked_at()", True)
    panel.page.evaluate(
        """() => { Object.defineProperty(document, "visibilityState", { configurable: true, value: "hidden" });
        document.dispatchEvent(new Event("visibilitychange")); }"""
    )
    opened.becomes("panel._looked_at()", False)
    panel.page.evaluate(
        """() => { delete document.visibilityState;
        document.dispatchEvent(new Event("visibilitychange")); }"""
    )
    opened.becomes("panel._looked_at()", True)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 600])
def test_it_fits_and_is_pictured(opened, panel, pictures, theme, width):
    opened.kernel.run(f"panel.theme = {theme!r}; panel.expanded = True; panel.selected_tokens = [30]")
    opened.kernel.run("panel._show_times(model.graph(list(range(5, 29)))); panel.selected_layer = 2")
    opened.page.set_viewport_size({"width": width, "height": WIDE["height"]})
    expect(panel.sentence).to_contain_text("token 7: ")
    expect(panel.layers).to_be_visible()
    panel.settled()
    assert panel.root.evaluate(FITS) == ""
    panel.root.screenshot(path=pictures / f"telemetry-{theme}-{width}.png")
