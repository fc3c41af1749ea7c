"""Pictures and pages of a layer lens: whole, small, and safe whatever the texts."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import llamatelemetry_widget as lt
from llamatelemetry_widget.export.lens import shown_rows

from .conftest import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def lens(trace):
    made = lt.LayerLens(trace, selected_layer=23, selected_tokens=[23])
    yield made
    made.close()


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def data_of(html):
    return json.loads(re.search(r'id="lt-data">(.*?)</script>', html, re.DOTALL)[1])


def test_the_picture_says_what_it_shows(lens):
    words = texts(lens.to_svg())
    assert "Layer lens" in words and "30 layers × 24 tokens" in words
    assert f"● {lens.facts['provenance']}" in words
    assert {"L29", "L27", "L23", "emb", "·lamp", "Push on ·lamp", "Written per layer", "Residual norm"} <= set(words)
    assert "L28" not in words[: words.index("Through the layers")]
    assert "Time per layer" not in words


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_png_and_svg_have_one_layout(lens, theme):
    root = ElementTree.fromstring(lens.to_svg(theme=theme))
    image = Image.open(BytesIO(lens.to_png(theme=theme)))
    assert image.size == (2 * int(root.get("width")), 2 * int(root.get("height")))
    assert len(np.unique(np.asarray(image.convert("RGB").resize((200, 100))).reshape(-1, 3), axis=0)) > 20


def test_rows_end_with_the_embedding_and_keep_the_locked_one():
    assert shown_rows([-1, 0, 1, 2, 3], 2, None) == [3, 1, -1]
    assert shown_rows([-1, 0, 1, 2, 3], 2, 2) == [3, 2, 1, -1]
    assert len(shown_rows([-1, *range(80)], None, None)) == 21


def test_the_page_holds_what_was_looked_at_and_needs_nothing(lens, tmp_path, capsys, page):
    lens._reading.read(range(24))
    lens.to_html(tmp_path)
    said = capsys.readouterr().out
    (path,) = tmp_path.glob("lens-SmolLM2*.html")
    assert "24 of 24 tokens" in said and path.stat().st_size < 400_000
    opened = page.open(path)
    assert opened.locator(".lt-ll-panel h3").inner_text() == "After layer 23, at ·the₂₃"
    assert opened.locator(".lt-ll-sum").inner_text().startswith("Adds up: embedding ")
    opened.locator("[data-region=table]").focus()
    for key in ("Home", "ArrowDown", "Enter"):
        opened.keyboard.press(key)
    opened.wait_for_timeout(200)
    assert opened.locator(".lt-ll-panel h3").inner_text().endswith(lens.facts["tokens"][0] + "₀")
    assert opened.locator(".lt-ll-status").is_hidden()
    assert page.foreign == [] and page.complaints == []


def test_a_page_is_linked_with_the_grid(lens, trace, tmp_path, page):
    grid = lt.AttentionGrid(trace)
    lt.save_html(tmp_path / "both.html", grid, lens)
    opened = page.open(tmp_path / "both.html")
    opened.locator("[data-region=strips]").focus()
    for key in ("Home", "ArrowDown", "Enter"):
        opened.keyboard.press(key)
    opened.wait_for_timeout(400)
    assert opened.locator(".lt-ag .lt-detail h3 b").first.inner_text() == "Layer 0 · head 1"
    assert page.complaints == []
    grid.close()


def test_a_page_reads_the_shown_tokens_itself(trace):
    lens = lt.LayerLens(trace, selected_tokens=[12])
    (part,) = data_of(lens.to_html())["parts"]
    assert part["state"]["embedded"] == [*range(1, 13), 23]  # the last is what the push is of
    assert part["state"]["push"]["position"] == 23 and part["state"]["push"]["texts"]["word"] == "·lamp"
    lens.close()


def test_hostile_text_stays_text(hostile, tmp_path, page):
    lens = lt.LayerLens(hostile, selected_layer=3, selected_tokens=[4])
    lens.to_html(tmp_path / "h.html")
    opened = page.open(tmp_path / "h.html")
    assert opened.title() != "pwned" and page.foreign == [] and page.complaints == []
    ElementTree.fromstring(lens.to_svg())
    assert HOSTILE not in lens._static_html("")
    lens.close()


def test_a_widget_without_a_picture_says_so_in_words(trace):
    lens = lt.LayerLens(trace)
    assert "was not read" in lens._drawn("light").texts[3].text
    lens.close()
