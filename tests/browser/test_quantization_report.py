"""QuantizationReport in JupyterLab: it fills in while the study runs, is stopped, goes on, and answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from .conftest import WIDE
from .grid import Grid
from .notebook import Notebook

ZOO = Path(__file__).resolve().parents[1] / "data" / "zoo" / "models"
DARK = re.compile(r"\blt-dark\b")
TEXT = "The quick brown fox jumps over the lazy dog, and then the token looks back at the first two words. "


class Report(Grid):
    """One report."""

    def __init__(self, page: Page, root: Locator) -> None:
        super().__init__(page, root)
        self.run = root.locator(".lt-qr-run")
        self.headline = root.locator(".lt-qr-headline")
        self.rows = root.locator(".lt-qr-table").first.locator("tbody tr")
        self.plot = root.locator(".lt-qr-plot svg")
        self.maps = root.locator(".lt-qr-map canvas:visible")

    def point(self, name: str) -> Locator:
        return self.plot.locator(f'.lt-qr-point[data-name="{name}"] .lt-qr-hit')


def report_of(opened: Notebook) -> Report:
    root = opened.page.locator(".jp-Notebook .lt-qr").first
    root.wait_for(timeout=60_000)
    return Report(opened.page, root)


@pytest.fixture(scope="module")
def opened(lab, module_context, tmp_path_factory, record):
    folder = tmp_path_factory.mktemp("study")
    make = (
        "import llamatelemetry_widget as lt\n"
        f"names = ['{ZOO}/llama-' + kind + '.gguf' for kind in ('q8-0', 'q4-0')]\n"
        f"TEXT = {TEXT!r} * 120\n"
        f"study = lt.QuantizationStudy('{ZOO}/llama.gguf', [*names, '{ZOO}/odd-tokens.gguf', 'kv:f16'], TEXT,\n"
        f"    n_ctx=64, speed=False, directory={str(folder)!r})"
    )
    notebook = Notebook.write(
        lab, module_context, "quantization", make, "report = lt.QuantizationReport(study); report"
    )
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture
def report(opened) -> Report:
    """The report of the finished study."""
    opened.page.set_viewport_size(WIDE)
    opened.page.mouse.move(2, 2)
    own = report_of(opened)
    if own.run.is_visible():
        own.run.get_by_role("button").click()
        expect(own.run).to_be_hidden(timeout=90_000)
    opened.kernel.run(
        "report.max_bytes, report.selected_candidate, report.selected_layer, report.selected_head = [None] * 4\n"
        "report.scale, report.theme = 'log', 'auto'"
    )
    own.settled()
    return own


def test_it_is_started_stopped_and_goes_on_in_the_browser(opened):
    own = report_of(opened)
    expect(own.headline).to_have_text("Nothing has been measured yet.")
    own.run.get_by_role("button", name="Start").click()
    expect(own.run).to_contain_text("block", timeout=30_000)
    own.run.get_by_role("button", name="Stop").click()
    own.run.get_by_role("button", name="Resume").click(timeout=30_000)
    expect(own.headline).to_contain_text("Take", timeout=60_000)
    expect(own.run).to_be_hidden(timeout=90_000)
    opened.becomes("list(study.results['status'])", ["done", "done", "failed", "done"])


def test_the_table_and_a_failed_candidate(opened, report):
    expect(report.rows).to_have_count(5)
    expect(report.rows.nth(2)).to_contain_text("failed: it has")
    expect(report.rows.nth(4)).to_contain_text("the base")
    kl = opened.kernel.value("float(study.results['kl'][1])")
    expect(report.rows.nth(1)).to_contain_text(f"{kl:.4f}" if kl < 0.2 else f"{kl:.3f}")
    expect(report.headline).to_have_text("Take llama-q8-0.")


def test_the_budget_is_dragged_and_the_answer_follows(opened, report):
    report.plot.scroll_into_view_if_needed()
    report.settled()
    grip, target = report.plot.locator(".lt-qr-grip").bounding_box(), report.point("llama-q4-0").bounding_box()
    opened.page.mouse.move(grip["x"] + 4, grip["y"] - 30)
    opened.page.mouse.down()
    opened.page.mouse.move(target["x"] + target["width"] / 2 + 40, grip["y"] - 30, steps=6)
    expect(report.headline).to_have_text("Take llama-q4-0.")
    opened.page.mouse.up()
    opened.becomes("study.recommend(max_bytes=report.max_bytes).name", "llama-q4-0", 10)
    slider = report.root.locator(".lt-qr-slider")
    slider.focus()
    opened.page.keyboard.press("End")
    opened.becomes("report.max_bytes", None, 10)
    expect(report.headline).to_have_text("Take llama-q8-0.")


def test_a_candidate_is_chosen_and_its_text_is_shown(opened, report):
    report.point("llama-q4-0").click()
    opened.becomes("report.selected_candidate", "llama-q4-0", 10)
    expect(report.root.locator(".lt-qr-tokens h3")).to_contain_text("llama-q4-0 · text")
    report.root.locator(".lt-qr-change").first.click()
    said = opened.kernel.value("report.strips['llama-q4-0']['worst'][0][1]")
    expect(report.root.locator(".lt-qr-token[aria-selected=true]")).to_have_text(said)
    opened.page.keyboard.press("Escape")
    opened.becomes("report.selected_candidate", None, 10)


def test_heads_open_a_comparison(opened, report):
    expect(report.maps).to_have_count(3)
    heads = report.maps.nth(2)
    heads.scroll_into_view_if_needed()
    report.settled()
    box = heads.bounding_box()
    opened.page.mouse.click(box["x"] + 80, box["y"] + 8)
    opened.becomes("[report.selected_layer, report.selected_head]", [0, 0], 10)
    report.root.get_by_role("button", name="Compare its heads").click()
    inner = report.root.locator(".lt-qr-comparison .lt-hc")
    expect(inner).to_be_visible(timeout=60_000)
    opened.becomes("[report.comparison.selected_layer, report.comparison.selected_head]", [0, 0], 10)
    report.root.get_by_role("button", name="Close the comparison").click()
    expect(inner).to_have_count(0)
    opened.becomes("report.comparison", None, 10)


def test_files_are_saved(opened, report):
    for kind in ("PNG", "HTML", "JSON", "Parquet"):
        with opened.page.expect_download(timeout=30_000) as download:
            report.root.locator(".lt-action", has_text=kind).click()
        assert download.value.suggested_filename == f"quantization-llama.{kind.lower()}"


def test_the_page_answers_without_a_kernel(opened, report, tmp_path):
    target = tmp_path / "report.html"
    opened.kernel.run(f"_ = report.to_html({str(target)!r})")
    page = opened.page.context.new_page()
    page.goto(target.as_uri())
    own = Report(page, page.locator(".lt-qr"))
    expect(own.headline).to_have_text("Take llama-q8-0.")
    own.root.locator(".lt-qr-slider").focus()
    for _ in range(4):
        page.keyboard.press("PageDown")
    expect(own.headline).to_have_text("Take llama-q4-0.")
    own.point("llama-q4-0").click()
    expect(own.root.locator(".lt-qr-tokens h3")).to_contain_text("llama-q4-0 · text")
    expect(own.root.locator(".lt-action").first).to_be_disabled()
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    page.close()


@pytest.mark.parametrize("width", [1100, 600])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_width_and_theme(opened, report, theme, width, pictures):
    opened.kernel.run(f"report.theme = '{theme}'; report.selected_layer = 1")
    opened.page.set_viewport_size({"width": width + 340, "height": 1000})
    report.settled()
    dark = expect(report.root)
    dark.to_have_class(DARK) if theme == "dark" else dark.not_to_have_class(DARK)
    assert report.too_wide() == ""
    report.photograph(pictures / f"quantization-{theme}-{width}.png")
