"""Pages and pictures of a comparison: what is embedded, what they say, and that no text in them runs."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

import llamatelemetry_widget as lt
from llamatelemetry_widget.export import colour
from llamatelemetry_widget.export.comparison import Look, draw

from .conftest import HOSTILE
from .test_page import data_of

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def other(model):
    prompt = (
        "The old museum keeper lit the lamp at dusk, while the sea was calm. Every night the old museum keeper lit the"
    )
    return model.trace(prompt, progress=False)


@pytest.fixture
def comparison(trace, other):
    made = lt.HeadComparison(trace, other)
    yield made
    made.close()


def said(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.browser
def test_x1_the_page_draws_and_works_from_disk_without_a_network(comparison, page, tmp_path, capsys):
    comparison.to_html(tmp_path / "comparison.html")
    assert "heads with exact weights" in capsys.readouterr().out
    opened = page.open(tmp_path / "comparison.html")
    assert page.complaints == []
    assert page.foreign == []
    text = opened.inner_text("main")
    assert "other tokens at 2 of 24 places" in text
    assert "not live" in text
    layer, head = comparison.left
    assert f"L{layer} H{head}" in text
    second = comparison.to_pandas().loc[1]
    opened.locator(".lt-rank").nth(1).click()
    opened.wait_for_timeout(300)
    assert f"L{second['layer']} H{second['head']}" in opened.locator(".lt-plate h4").first.inner_text()
    assert f"{second['js']:.3f} bits" in opened.locator(".lt-sentence").inner_text()
    assert page.complaints == []


@pytest.mark.browser
def test_x1_heads_that_are_not_embedded_say_what_they_need(comparison, page, tmp_path, monkeypatch):
    monkeypatch.setattr("llamatelemetry_widget.widgets.head_comparison._PAGE_BYTES", 20_000)
    comparison.to_html(tmp_path / "few.html")
    opened = page.open(tmp_path / "few.html")
    opened.locator("[data-region=map]").focus()
    opened.keyboard.press("End")
    opened.keyboard.press("Enter")
    opened.wait_for_timeout(300)
    assert "need a kernel" in opened.inner_text("main")
    assert page.complaints == []


@pytest.mark.browser
def test_x3_hostile_texts_are_shown_and_run_nothing(hostile, page, tmp_path):
    lt.HeadComparison(hostile).to_html(tmp_path / "hostile.html")
    opened = page.open(tmp_path / "hostile.html")
    assert page.complaints == []
    assert page.foreign == []
    assert opened.locator("img").count() == 0
    assert "onerror" in opened.inner_text("main")


@pytest.mark.browser
def test_a_page_holds_grid_and_comparison_with_one_selection(trace, page, tmp_path):
    lt.save_html(tmp_path / "both.html", lt.AttentionGrid(trace), lt.HeadComparison(trace, a=(17, 5)))
    opened = page.open(tmp_path / "both.html")
    opened.locator("[data-region=clusters]").focus()
    for key in (*["ArrowDown"] * 30, "Enter"):  # a head of another layer
        opened.keyboard.press(key)
    opened.wait_for_timeout(400)
    left = opened.locator(".lt-plate h4").first.inner_text().split(" · ")[0].removeprefix("A").strip()
    layer, head = left.split()
    assert f"Layer {layer[1:]} · head {head[1:]}" in opened.locator(".lt-ag").inner_text()
    assert page.complaints == []


def test_the_chosen_pair_goes_in_first_and_the_list_follows(comparison):
    comparison.select((3, 3))
    state = data_of(comparison.to_html())["state"]
    assert next(iter(state["embedded"])) == "0:3,3"
    assert "1:3,3" in state["embedded"]
    best = comparison.to_pandas().loc[0]
    assert f"0:{best['layer']},{best['head']}" in state["embedded"]
    assert state["facts"]["live"] is False
    assert (state["selected_layer"], state["other_layer"]) == (3, None)


def test_the_svg_says_what_is_compared_and_where_it_comes_from(comparison, trace, other):
    lines = said(comparison.to_svg())
    assert [line for line in lines if trace.provenance in line]
    assert any("compared place by place" in line for line in lines)
    assert {"L0", "L28", "H0", "H8", "A", "B", "B − A"} <= set(lines)
    assert any("bits" in line for line in lines)
    comparison.distance = "total-variation"
    assert "Total variation" in said(comparison.to_svg())


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_png_is_the_same_picture(comparison, theme, tmp_path):
    data = comparison.to_png(tmp_path / "a.png", theme=theme)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    root = ElementTree.fromstring(comparison.to_svg(theme=theme))
    assert image.size == (2 * int(root.get("width")), 2 * int(root.get("height")))
    assert image.getpixel((1, 1)) == tuple(colour.rgb(colour.PAGE[theme]["paper"]))
    assert (tmp_path / "a.png").read_bytes() == data


def test_every_kind_of_comparison_has_a_picture(trace, tmp_path):
    for options in ({}, {"a": 17, "b": 16}, {"a": (17, 5), "b": (16, 0)}):
        made = lt.HeadComparison(trace, **options)
        assert len(said(made.to_svg())) > 10
        made.to_svg(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["comparison-SmolLM2-135M-Instruct.svg"]


def test_a_theme_that_does_not_exist_is_refused(comparison):
    with pytest.raises(lt.LlamaTelemetryError, match="theme 'blue' does not exist: choose from light, dark"):
        comparison.to_svg(theme="blue")


def test_the_difference_is_blue_where_the_right_is_less_and_masked_is_not_zero(comparison):
    a, b = np.full((2, 2), np.nan, np.float32), np.full((2, 2), np.nan, np.float32)
    a[0, 0], a[1], b[0, 0], b[1] = 1, (0.9, 0.1), 1, (0.1, 0.9)
    facts = {**comparison.facts, "rows": 2, "keys": 2}
    look = Look("light", "jensen-shannon", "linear", False, (0, 0), (0, 0))
    picture = draw(facts, comparison.distances, [a, b], look, "")
    difference = next(pixels for x, _, pixels, palette in picture.images if len(pixels) == 40 and x > 500)
    blue, red, masked, same = (int(difference[y, x]) for y, x in ((30, 5), (30, 30), (5, 30), (5, 5)))
    assert blue < same < red
    assert masked == 1


def test_hostile_texts_stay_texts_without_scripts(hostile):
    html = lt.HeadComparison(hostile)._static_html("why <b>")
    assert "<img src=x" not in html and "<b>" not in html
    assert HOSTILE[:10] not in html
