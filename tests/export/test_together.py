"""Several widgets in one file: it draws offline, and what is chosen in one is chosen in those it is linked with."""

from __future__ import annotations

import json
import re

import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.export.page import Part
from llamatelemetry_widget.export.page import page as made_of


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="lt-data">(.*?)</script>', html, re.DOTALL)[1])


def part(title, *shares, **buffers):
    return Part(title, "export default {}", {"theme": "dark"}, buffers, "", [(one, "") for one in shares])


@pytest.fixture(scope="session")
def other(model):
    return model.trace("The cat sat on the mat. The dog sat on the log.", progress=False)


def section(opened, at):
    return opened.locator("main > section").nth(at)


def click_a_head(opened, at):
    """Click in the middle of a grid's picture; returns the title of the head that opens."""
    canvas = section(opened, at).locator(".lt-grid > canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    opened.mouse.click(box["x"] + box["width"] * 0.52, box["y"] + box["height"] * 0.5)
    title = section(opened, at).locator(".lt-detail h3 b").first
    title.wait_for()
    opened.wait_for_timeout(300)
    return title.inner_text()


@pytest.mark.browser
def test_a_click_in_one_selects_in_the_other(trace, page, tmp_path, capsys):
    grids = [lt.AttentionGrid(trace) for _ in range(2)]
    lt.save_html(tmp_path / "both.html", grids[0].page_part(heads=[(15, 4)]), grids[1])
    assert "both.html" in capsys.readouterr().out
    opened = page.open(tmp_path / "both.html")
    assert opened.locator("main > section .lt-ag").count() == 2
    assert section(opened, 1).locator(".lt-ring-lock:visible").count() == 0
    chosen = click_a_head(opened, 0)
    assert section(opened, 1).locator(".lt-detail h3 b").first.inner_text() == chosen
    back = click_a_head(opened, 1)
    assert section(opened, 0).locator(".lt-detail h3 b").first.inner_text() == back
    assert page.complaints == []
    assert page.foreign == []


@pytest.mark.browser
def test_widgets_of_two_traces_are_linked_only_where_the_user_did(trace, other, page, tmp_path):
    first, second, third = lt.AttentionGrid(trace), lt.AttentionGrid(other), lt.AttentionGrid(other, theme="light")
    lt.save_html(tmp_path / "apart.html", first, second)
    opened = page.open(tmp_path / "apart.html")
    click_a_head(opened, 0)
    assert section(opened, 1).locator(".lt-ring-lock:visible").count() == 0
    lt.link(first, second)
    lt.save_html(tmp_path / "linked.html", first, third, second)
    opened = page.open(tmp_path / "linked.html")
    chosen = click_a_head(opened, 0)
    for at in (1, 2):
        assert section(opened, at).locator(".lt-detail h3 b").first.inner_text() == chosen
    assert page.complaints == []


@pytest.mark.browser
def test_a_head_that_the_other_model_lacks_is_no_fault(trace, zoo_models, page, tmp_path):
    with lt.open_model(zoo_models / "gpt2.gguf") as small:
        low = lt.AttentionGrid(small.trace(list(range(5, 13)), progress=False))
    deep = lt.AttentionGrid(trace)
    lt.link(deep, low)
    lt.save_html(tmp_path / "two.html", deep, low)
    opened = page.open(tmp_path / "two.html")
    click_a_head(opened, 0)
    assert section(opened, 1).locator(".lt-ring-lock:visible").count() == 0
    assert page.complaints == []


@pytest.mark.browser
def test_grid_comparison_and_experts_of_one_trace_are_linked(zoo_models, page, tmp_path):
    with lt.open_model(zoo_models / "qwen3moe.gguf") as mixture:
        trace = mixture.trace(list(range(5, 45)), progress=False)
    widgets = lt.AttentionGrid(trace), lt.HeadComparison(trace), lt.ExpertStrip(trace)
    lt.save_html(tmp_path / "three.html", *widgets)
    opened = page.open(tmp_path / "three.html")
    layer, head = re.findall(r"\d+", click_a_head(opened, 0))
    assert f"L{layer} H{head}" in section(opened, 1).inner_text()
    assert f"Layer {layer}" in section(opened, 2).inner_text()
    section(opened, 0).locator("[data-region=grid]").first.focus()
    opened.keyboard.press("Escape")
    opened.wait_for_timeout(300)
    assert "Click a head to open it" in section(opened, 0).inner_text()
    assert f"Layer {layer}" not in section(opened, 2).inner_text()
    assert page.complaints == []


def test_what_parts_have_in_common_stands_there_once():
    one, two = object(), object()
    same = b"0" * 1000
    html = made_of(part("A", one, big=same), part("B", one, big=[same, b"1"]), part("C", two), part("A", two, one))
    data = data_of(html)
    assert len(data["modules"]) == 1 and len(data["blobs"]) == 3
    assert [own["buffers"] for own in data["parts"]] == [{"big": 1}, {"big": [1, 2]}, {}, {}]
    assert [packed for _, packed in data["blobs"]] == [False, True, False]
    assert [own["links"] for own in data["parts"]] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert "<title>A · B · C</title>" in html and '<body class="dark">' in html


def test_parts_without_anything_in_common_are_not_linked():
    data = data_of(made_of(part("A", object()), part("B", object()), part("C")))
    assert [own["links"] for own in data["parts"]] == [[], [], []]


def test_what_cannot_stand_in_a_page_is_refused(tmp_path):
    with pytest.raises(lt.LlamaTelemetryError, match="at least one widget"):
        lt.save_html(tmp_path / "none.html")
    with pytest.raises(lt.LlamaTelemetryError, match="not str"):
        lt.save_html(tmp_path / "text.html", "grid")
    assert list(tmp_path.iterdir()) == []
