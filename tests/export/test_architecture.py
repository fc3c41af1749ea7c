"""Pictures and pages of an architecture: area is bytes, nothing of a file's text is markup, the page works offline."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.export import colour
from llamatelemetry_widget.export.architecture import boxes, columns_of, layout, size

from .conftest import HOSTILE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(model):
    made = lt.ArchitectureTree(model, selected_node="model/layers/L17/MLP/ffn_down.weight")
    yield made
    made.close()


@pytest.fixture
def pair(zoo_models):
    made = lt.ArchitectureTree(*(lt.open_model(zoo_models / f"llama-{kind}.gguf") for kind in ("q8-0", "q4-0")))
    yield made
    made.close()


def areas(own):
    return (own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1])


@pytest.mark.parametrize("name", ["llama", "t5", "qwen3moe", "moe-large", "deep"])
def test_area_is_bytes_exactly(zoo_models, name):
    widget = lt.ArchitectureTree(lt.open_model(zoo_models / f"{name}.gguf"))
    own = columns_of((widget.nodes, widget.leaves), widget.facts["strings"])
    at = layout([own], 960, 300)
    found = boxes(widget.leaves, own, at)
    np.testing.assert_allclose(areas(found), widget.leaves[4] * at.area, rtol=1e-9)
    assert found[:, 2].max() == pytest.approx(960) and found[:, 3].max() == pytest.approx(300)
    assert sum(column.n_bytes for column in own) == widget.tree.root.n_bytes
    widget.close()


def test_two_files_have_one_scale_and_the_same_places(pair):
    sides = [(pair.nodes, pair.leaves), (pair.nodes_b, pair.leaves_b)]
    own = [columns_of(side, pair.facts["strings"]) for side in sides]
    at = layout(own, 960, 130)
    for side, columns in zip(sides, own, strict=True):
        np.testing.assert_allclose(areas(boxes(side[1], columns, at)), side[1][4] * at.area, rtol=1e-9)
    assert [column.key for column in own[0]] == [column.key for column in own[1]]


def test_colours_are_those_of_the_frontend():
    text = (ROOT / "js/src/architecture_tree/colours.ts").read_text()
    theirs = {int(bits): (light, dark) for bits, light, dark in re.findall(r'(\d+): \["(#\w+)", "(#\w+)"\]', text)}
    assert theirs == colour.QUANT


@pytest.mark.parametrize(
    ("value", "words"),
    [(832, "832 B"), (2304, "2.3 kB"), (652_000, "652 kB"), (98_362_432, "98.4 MB"), (1e15, "1000 TB")],
)
def test_bytes_have_three_figures(value, words):
    assert size(value).replace("\u202f", " ") == words


def test_the_picture_says_what_and_where_from(tree, tmp_path):
    text = tree.to_svg(tmp_path)
    assert (tmp_path / "architecture-SmolLM2-135M-Instruct_Q4_1.svg").read_text("utf-8") == text
    for words in ("272 tensors", "5.74 bits per weight", "read from the file header", "1 tensor is not what", ">L25<"):
        assert words in text
    assert tree.to_svg(theme="dark") != text
    with pytest.raises(lt.LlamaTelemetryError, match="theme 'blue'"):
        tree.to_svg(theme="blue")


def test_the_picture_is_a_png_too(tree, pair):
    pytest.importorskip("PIL")
    for one in (tree, pair):
        assert one.to_png().startswith(b"\x89PNG")


def test_the_fallback_has_the_parts_with_their_bytes(tree):
    html = tree._static_html("no widgets here")
    assert "no widgets here" in html and "<img" in html and "<script" not in html
    assert f"<td>{30_081_024}</td>" in html and "tied to token_embd" in html


@pytest.fixture
def hostile(tmp_path):
    """A file whose every text tries to break out."""
    from models import make

    header = {"general.architecture": "llama", "general.name": HOSTILE, HOSTILE[:60]: HOSTILE, "llama.block_count": 1}
    tensors = [("token_embd.weight", (32, 8), 0, 1024), (f"blk.0.{HOSTILE}.weight", (32, 32), 0, 4096)]
    path = tmp_path / "<img src=x>.gguf"
    path.write_bytes(make.gguf(header, tensors))
    return lt.ArchitectureTree(lt.open_model(path))


@pytest.mark.browser
def test_x3_no_text_of_a_file_is_markup(hostile, page, tmp_path):
    target = tmp_path / "page.html"
    hostile.selected_layer = 0
    hostile.to_html(target)
    opened = page.open(target)
    assert opened.title() == "Architecture · <img src=x>"
    opened.locator(".lt-at-metadata button").click()
    assert "onerror" in opened.locator(".lt-at-metadata table").inner_text()
    assert opened.locator(".lt-at img, .lt-at script").count() == 0
    assert page.complaints == [] and page.foreign == []


@pytest.mark.browser
def test_the_page_works_without_kernel_and_network(tree, page, tmp_path, capsys):
    target = tmp_path / "page.html"
    tree.to_html(target)
    assert "273 tensors" in capsys.readouterr().out
    opened = page.open(target)
    chosen = opened.locator(".lt-at-row.lt-on .lt-at-name")
    assert chosen.inner_text() == "ffn_down"
    assert opened.locator(".lt-at-detail h3").first.inner_text().startswith("blk.17.ffn_down.weight")
    opened.locator(".lt-at-search input").fill("attn_v")
    opened.locator(".lt-at-found", has_text="30 found").wait_for()
    opened.keyboard.press("Enter")
    opened.locator(".lt-at-found", has_text="1 of 30").wait_for()
    assert opened.locator(".lt-at-detail h3").first.inner_text().startswith("blk.0.attn_v.weight")
    assert "needs a kernel" in opened.locator(".lt-at-values").inner_text()
    assert "not live" in opened.locator(".lt-provenance").inner_text()
    assert page.complaints == [] and page.foreign == []


@pytest.mark.browser
def test_a_head_chosen_in_the_grid_is_chosen_in_the_tree_of_a_page(model, trace, page, tmp_path):
    tree, grid = lt.ArchitectureTree(model, trace=trace), lt.AttentionGrid(trace)
    lt.save_html(tmp_path / "both.html", grid.page_part(heads=[(17, 5)]), tree)
    opened = page.open(tmp_path / "both.html")
    canvas = opened.locator(".lt-ag .lt-grid > canvas")
    box = canvas.bounding_box()
    opened.mouse.click(box["x"] + box["width"] * 0.52, box["y"] + box["height"] * 0.5)
    layer, head = re.findall(r"\d+", opened.locator(".lt-ag .lt-detail h3 b").first.inner_text())
    row = opened.locator(".lt-at-row.lt-on .lt-at-name")
    row.wait_for()
    assert row.inner_text() == f"H{head}"
    assert f"layer {layer}" in opened.locator(".lt-at-detail h3").first.inner_text()
    opened.locator(".lt-at-detail").scroll_into_view_if_needed()
    assert page.complaints == []
