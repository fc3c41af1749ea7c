"""PNG and SVG of all heads: labels, legend, provenance, colours."""

from __future__ import annotations

import base64
import io
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import llamatelemetry_widget as lt
from llamatelemetry_widget.export import colour
from llamatelemetry_widget.export.raster import png
from llamatelemetry_widget.export.thumbnails import FUTURE, OUTSIDE, shrink, unseen

SVG = "{http://www.w3.org/2000/svg}"
COLOURS = Path(__file__).parents[2] / "js" / "src" / "shared" / "colour.ts"


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def raster(svg):
    """The thumbnails' pixels of an SVG."""
    image = next(ElementTree.fromstring(svg).iter(f"{SVG}image"))
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(image.get("href").split(",")[1]))).convert("RGB"))


def test_the_svg_names_every_layer_and_head_and_says_where_it_comes_from(grid, trace):
    said = texts(grid.to_svg())
    assert {f"L{layer}" for layer in range(30)} | {f"H{head}" for head in range(9)} <= set(said)
    assert {"KV 0", "KV 1", "KV 2"} <= set(said)
    assert any(trace.provenance in line for line in said)
    assert {"≤ 0.001", "0.01", "0.1", "1"} <= set(said)


def test_a_cell_has_the_colour_of_its_weight(grid, trace):
    pixels = raster(grid.to_svg())
    weights = trace.attention(16, 0)
    ramp = colour.ramp(colour.SEQUENTIAL["light"])
    column, row = 16 * 50, 0  # thumbnails of 48 px, 2 px apart
    query, key = 20, 19
    place = np.clip(np.log10(weights[query, key]) / 3 + 1, 0, 1) * 255
    near = ramp[max(int(place) - 6, 0) : int(place) + 7].astype(int)
    found = pixels[row + query * 2, column + key * 2].astype(int)
    assert np.abs(near - found).sum(1).min() < 12
    assert tuple(pixels[row, column + 46]) == tuple(colour.rgb(colour.PAGE["light"]["fill"]))  # masked, not zero


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_png_is_the_same_picture(grid, theme, tmp_path):
    data = grid.to_png(tmp_path / "a.png", theme=theme)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    root = ElementTree.fromstring(grid.to_svg(theme=theme))
    assert image.size == (2 * int(root.get("width")), 2 * int(root.get("height")))
    assert image.getpixel((0, 0)) == tuple(colour.rgb(colour.PAGE[theme]["paper"]))
    inner = next(root.iter(f"{SVG}image"))
    x, y = 2 * int(inner.get("x")), 2 * int(inner.get("y"))
    thumbs = raster(grid.to_svg(theme=theme))
    cut = np.asarray(image)[y : y + 2 * thumbs.shape[0] : 2, x : x + 2 * thumbs.shape[1] : 2]
    assert np.array_equal(cut, thumbs)
    assert (tmp_path / "a.png").read_bytes() == data


def test_what_the_filter_leaves_out_is_dimmed_and_the_locked_head_has_a_ring(grid):
    before = raster(grid.to_svg()).astype(int)
    grid.select(16, 0)
    grid.filter = {"previous_token": [0.7, None]}
    svg = grid.to_svg()
    after = raster(svg).astype(int)
    assert np.array_equal(before[:48, 800:848], after[:48, 800:848])
    assert after[:48, :48].sum() > before[:48, :48].sum()
    assert colour.PAGE["light"]["accent"] in svg
    assert any("of 270 heads pass the filter" in line for line in texts(svg))


def test_scales_change_the_picture_and_its_legend(grid):
    pictures = {}
    for scale in ("log", "linear", "row"):
        grid.scale = scale
        pictures[scale] = raster(grid.to_svg())
        assert any(scale if scale != "row" else "own maximum" in line for line in texts(grid.to_svg()))
    assert not np.array_equal(pictures["log"], pictures["linear"])
    assert not np.array_equal(pictures["linear"], pictures["row"])


def test_a_theme_that_does_not_exist_is_refused(grid):
    with pytest.raises(lt.LlamaTelemetryError, match="theme 'blue' does not exist: choose from light, dark"):
        grid.to_png(theme="blue")


def test_without_pillow_the_extra_is_named_and_svg_still_works(grid, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(lt.BackendMissing, match=r"llamatelemetry-widget\[export\]"):
        grid.to_png()
    assert grid.to_svg().startswith("<svg")


def test_hostile_names_are_text_in_the_svg(hostile):
    svg = lt.AttentionGrid(hostile).to_svg()
    root = ElementTree.fromstring(svg)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {"svg", "title", "rect", "image", "text"}
    assert any("</ScRiPt><img" in (line or "") for line in texts(svg))


@pytest.mark.parametrize("name", ["lfm2", "mamba", "gemma3", "bert", "t5", "gpt2"])
def test_every_kind_of_model_has_a_picture(zoo_models, name):
    with lt.open_model(zoo_models / f"{name}.gguf") as model:
        trace = model.trace(list(range(5, 45)), progress=False)
    for part in trace.parts or (None,):
        grid = lt.AttentionGrid(trace, part=part)
        said = texts(grid.to_svg())
        assert ("L0" in said) == (name != "mamba")
        assert any("No layer has attention: recurrent" in line for line in said) == (name == "mamba")
        assert grid.to_png()
        assert "data:image" in grid._static_html("") or name == "mamba"


def test_one_token_has_a_picture(model):
    grid = lt.AttentionGrid(model.trace("The", progress=False))
    assert grid.thumbnails.shape == (270, 1, 1)
    assert grid.to_png()


def test_both_scales_of_colour_are_those_of_the_frontend():
    source = COLOURS.read_text("utf-8")
    for name, own in (("SEQUENTIAL", colour.SEQUENTIAL), ("DIVERGING", colour.DIVERGING)):
        block = re.search(rf"{name} = {{(.*?)}} as const", source, re.DOTALL)[1]
        for theme in colour.THEMES:
            assert re.findall("#[0-9a-f]{6}", re.search(rf"{theme}: \[(.*?)\]", block, re.DOTALL)[1]) == own[theme]


def test_the_hues_of_groups_are_those_of_the_frontend():
    source = (COLOURS.parents[1] / "embedding_space" / "colours.ts").read_text("utf-8")
    block = re.search(r"GROUPS = \[(.*?)\] as const", source, re.DOTALL)[1]
    assert re.findall("#[0-9a-f]{6}", block) == [hue for pair in colour.GROUPS for hue in pair]


def test_the_ramp_begins_and_ends_with_its_stops():
    ramp = colour.ramp(colour.SEQUENTIAL["light"])
    assert ramp.shape == (256, 3)
    assert tuple(ramp[0]) == (0xF3, 0xF7, 0xF6)
    assert tuple(ramp[-1]) == (0x16, 0x0D, 0x1E)


def test_a_png_of_the_standard_library_reads_back():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    palette = np.stack([np.arange(12), np.zeros(12), np.full(12, 7)], 1).astype(np.uint8)
    image = Image.open(io.BytesIO(png(pixels, palette)))
    assert np.array_equal(np.asarray(image.convert("RGB")), palette[pixels])


def test_thumbnails_shrink_by_maximum():
    codes = np.zeros((1, 6, 6), np.uint8)
    codes[0, 4, 1] = 200
    assert np.array_equal(shrink(codes, 3, 3)[0], [[0, 0, 0], [0, 0, 0], [200, 0, 0]])
    assert shrink(codes, 10, 10) is codes


def test_cells_outside_the_mask_are_known_by_rule():
    assert np.array_equal(unseen({"mask": "causal", "window": None}, 4, 2, 2), [[0, FUTURE], [0, 0]])
    windowed = [[0, FUTURE, FUTURE], [OUTSIDE, 0, FUTURE], [OUTSIDE, OUTSIDE, 0]]
    assert np.array_equal(unseen({"mask": "causal", "window": 1}, 3, 3, 3), windowed)
    assert not unseen({"mask": "none", "window": None}, 4, 4, 4).any()
