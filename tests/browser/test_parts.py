"""Encoders and encoder-decoders in JupyterLab: one titled grid per part, each with its own tokens and mask."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .conftest import WIDE
from .grid import Grid
from .notebook import Notebook

PROMPT = "the old lamp on the sea was lit"
DARK = re.compile(r"\blt-dark\b")

#: How many of twelve patches above the diagonal differ: cells with weights do, hatching repeats.
HATCHED = """(canvas) => {
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const at = (x, y) => context.getImageData(Math.round(x * copy.width), Math.round(y * copy.height), 8, 8).data.join();
  return new Set([0.8, 0.84, 0.88, 0.92].flatMap((x) => [0.18, 0.22, 0.26].map((y) => at(x, y)))).size;
}"""


def magic(path: Path, *options: str) -> str:
    return f"%%llamatelemetry --model '{path}' --into trace {' '.join(options)}\n{PROMPT}"


@pytest.fixture(scope="module")
def opened(lab, module_context, record, zoo_models):
    load = "import llamatelemetry_widget as lt\n%load_ext llamatelemetry"
    notebook = Notebook.write(
        lab, module_context, "parts", load, magic(zoo_models / "t5.gguf", "--predict", "6"), "views = _2"
    )
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture(scope="module")
def bert(lab, module_context, record, zoo_models):
    load = "import llamatelemetry_widget as lt\n%load_ext llamatelemetry"
    notebook = Notebook.write(lab, module_context, "bert", load, magic(zoo_models / "bert.gguf"), "grid = _2")
    notebook.run_all()
    yield notebook
    notebook.close()


def grids(opened: Notebook) -> dict[str, Grid]:
    opened.page.set_viewport_size(WIDE)
    found = {part: opened.grid(at) for at, part in enumerate(("encoder", "decoder", "cross"))}
    for grid in found.values():
        grid.settled()
    return found


def test_one_titled_grid_per_part(opened):
    found = grids(opened)
    assert opened.page.locator(".jp-Notebook .lt-ag").count() == 3
    expect(opened.page.locator(".lt-saved:visible")).to_have_count(0)
    n = opened.kernel.value("len(trace.tokens)")
    titles = {part: grid.root.locator("h2").inner_text().replace("\n", "") for part, grid in found.items()}
    assert titles["encoder"] == f"Encoder attention3 layers × 4 heads · {n} tokens"
    assert titles["decoder"] == "Decoder attention2 layers × 4 heads · 7 tokens"
    assert titles["cross"] == f"Cross-attention2 layers × 4 heads · 7 decoder tokens look at {n} encoder tokens"
    opened.becomes("[list(views.grids), views.experts]", [["encoder", "decoder", "cross"], None])


def test_cross_attention_names_rows_and_columns_after_their_own_texts(opened, pictures):
    cross = grids(opened)["cross"]
    opened.kernel.run("views.grids['cross'].select(1, 2); views.grids['cross'].selected_tokens = [3, 9]")
    expect(cross.matrix).to_be_visible()
    sentence = cross.detail.locator(".lt-sentence")
    tokens = opened.kernel.value("[trace.part_tokens('cross')[0][3], trace.part_tokens('cross')[1][9]]")
    expect(sentence).to_contain_text(f"{tokens[0]}₃")
    expect(sentence).to_contain_text(f"{tokens[1]}₉")
    weight = opened.kernel.value("float(trace.attention(1, 2, part='cross')[3, 9])")
    if weight >= 0.0005:
        expect(sentence).to_contain_text(f"{weight:.3f}")
    cross.photograph(pictures / "parts-cross-light.png")


def test_statistics_that_make_no_sense_across_texts_are_dashes(opened):
    cross = grids(opened)["cross"]
    opened.kernel.run("views.grids['cross'].select(1, 2)")
    expect(cross.matrix).to_be_visible()
    rows = cross.detail.locator(".lt-among-rows")
    for name in ("Induction", "Previous token", "Locality"):
        expect(rows).to_contain_text(re.compile(rf"{name}\s*–"))
    stats = opened.kernel.value(
        "views.grids['cross'].head_stats[['induction', 'previous_token', 'locality']].isna().all().tolist()"
    )
    assert stats == [True, True, True]
    cross.centre(opened.kernel, 1, 2, "views.grids['cross']")


def test_only_the_decoder_is_masked(opened, pictures):
    found = grids(opened)
    for part, grid in found.items():
        opened.kernel.run(f"views.grids['{part}'].select(0, 1)")
        expect(grid.matrix).to_be_visible()
        grid.settled()
        grid.photograph(pictures / f"parts-{part}-light.png")
    kinds = "[[layer['mask'] for layer in grid.facts['layers']][0] for grid in views.grids.values()]"
    opened.becomes(kinds, ["none", "causal", "none"])
    expect(found["decoder"].root.locator(".lt-footer")).to_contain_text("hatched")
    for part in ("encoder", "cross"):
        expect(found[part].root.locator(".lt-footer")).not_to_contain_text("hatched")


def test_parts_fit_narrow_and_dark(opened, pictures):
    found = grids(opened)
    opened.kernel.run("for own in views: own.select(1, 0); own.theme = 'dark'")
    opened.page.set_viewport_size({"width": 600, "height": 1100})
    opened.sidebar(False)
    try:
        for part, grid in found.items():
            expect(grid.root).to_have_class(DARK)
            grid.settled()
            assert grid.too_wide() == ""
            grid.photograph(pictures / f"parts-{part}-dark-600.png")
    finally:
        opened.page.set_viewport_size(WIDE)
        opened.sidebar(True)
        opened.kernel.run("for own in views: own.theme = 'auto'")


def test_one_page_holds_all_parts(opened, tmp_path, module_context, pictures):
    target = tmp_path / "parts.html"
    opened.kernel.run(f"views.grids['cross'].select(1, 2)\nviews.to_html({str(target)!r})")
    page = module_context.new_page()
    try:
        page.goto(target.as_uri())
        for title in ("Encoder attention", "Decoder attention", "Cross-attention"):
            expect(page.locator("h2", has_text=title)).to_be_visible()
        cross = Grid(page, page.locator(".lt-ag").nth(2))
        expect(cross.detail.locator(".lt-sentence")).to_contain_text("looks at")
        cross.photograph(pictures / "parts-page-cross.png")
    finally:
        page.close()


def test_bert_sees_all_tokens_and_has_no_logits(bert, pictures):
    bert.page.set_viewport_size(WIDE)
    grid = bert.grid()
    expect(grid.root.locator("h2 b")).to_have_text("Attention")
    bert.kernel.run("grid.select(1, 1); grid.selected_tokens = [2, 8]")  # looks ahead
    expect(grid.matrix).to_be_visible()
    grid.settled()
    weight = bert.kernel.value("float(trace.attention(1, 1)[2, 8])")
    assert weight > 0
    expect(grid.detail.locator(".lt-sentence")).not_to_contain_text("masked")
    assert grid.matrix.evaluate(HATCHED) >= 6, "cells above the diagonal look alike"
    bert.becomes("[layer['mask'] for layer in grid.facts['layers']]", ["none"] * 3)
    expect(grid.root.locator(".lt-footer")).not_to_contain_text("hatched")
    grid.photograph(pictures / "parts-bert-light.png")
    assert "CaptureUnavailable" in bert.kernel.run(
        "try:\n    trace.logits\nexcept lt.CaptureUnavailable as e:\n    print(type(e).__name__)"
    )
