"""X1, X3: the exported page is one file that draws from disk, offline, and runs nothing that a text brings along."""

from __future__ import annotations

import base64
import json
import re
import zlib

import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.export.page import embed

from .conftest import HOSTILE


def data_of(html):
    """The data of a page with one widget, as its browser reads them."""
    data = json.loads(re.search(r'<script type="application/json" id="lt-data">(.*?)</script>', html, re.DOTALL)[1])
    (part,) = data["parts"]
    return {**part, "module": blob(data, data["modules"][part["module"]]).decode(), "blobs": data["blobs"]}


def blob(data, place):
    """One of a page's buffers."""
    text, packed = data["blobs"][place]
    raw = base64.b64decode(text)
    return zlib.decompress(raw) if packed else raw


@pytest.mark.browser
def test_x1_the_page_draws_from_disk_without_a_network(grid, page, tmp_path, capsys):
    grid.select(17, 5)
    grid.to_html(tmp_path / "attention.html")
    opened = page.open(tmp_path / "attention.html")
    assert "MB · all 270 heads" in capsys.readouterr().out
    assert page.complaints == []
    assert page.foreign == []
    text = opened.inner_text("main")
    assert "30 layers × 9 heads" in text
    assert "Layer 17 · head 5" in text
    assert "not live" in text
    assert "SmolLM2" in text


@pytest.mark.browser
def test_x1_embedded_heads_open_and_others_say_what_they_need(grid, page, tmp_path):
    grid.select(17, 5)
    grid.to_html(tmp_path / "few.html", heads=[(17, 5)])
    opened = page.open(tmp_path / "few.html")
    assert "0.7" in opened.inner_text("main")
    opened.locator("[role=grid]").first.focus()
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("Enter")
    opened.wait_for_timeout(300)
    text = opened.inner_text("main")
    assert "Layer 18" in text
    assert "kernel" in text
    assert page.complaints == []


@pytest.mark.browser
def test_a_page_with_all_heads_sums_over_them_itself(grid, trace, page, tmp_path):
    grid.select(17, 5)
    grid.selected_tokens = [23, 6]
    grid.to_html(tmp_path / "all.html", heads="all")
    opened = page.open(tmp_path / "all.html")
    sums = opened.locator(".lt-sums")
    sums.get_by_role("radio", name="All heads").click()
    looks = np.mean([trace.attention(layer, head)[23] for layer in range(30) for head in range(9)], 0)
    best = int(looks.argmax())
    sums.get_by_text(f"{looks[best]:.3f}".lstrip("0")).first.wait_for(timeout=10_000)
    assert trace.tokens[best] in sums.inner_text()
    assert page.complaints == []


@pytest.mark.browser
def test_x3_hostile_texts_are_shown_and_run_nothing(hostile, page, tmp_path):
    grid = lt.AttentionGrid(hostile)
    grid.select(0, 0)
    html = grid.to_html(tmp_path / "hostile.html")
    opened = page.open(tmp_path / "hostile.html")
    assert page.complaints == []
    assert page.foreign == []
    assert opened.title().startswith("Attention · </ScRiPt><img")
    assert opened.locator("img").count() == 0
    assert "onerror" in opened.inner_text("main")
    assert "".join(data_of(html)["state"]["facts"]["tokens"]).startswith("</ScRiPt><img")
    assert html.lower().count("<script") == 2


@pytest.mark.browser
def test_x3_the_picture_for_hosts_without_widgets_runs_nothing_either(hostile, page, tmp_path):
    html = lt.AttentionGrid(hostile)._repr_mimebundle_()[0]["text/html"]
    path = tmp_path / "fallback.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><canvas></canvas>{html}", "utf-8")
    opened = page.open(path)
    assert opened.title() != "pwned"
    assert opened.locator("img").count() == 1
    assert opened.evaluate("document.images[0].naturalWidth") > 500
    assert "ScRiPt" in opened.locator("img").get_attribute("alt")
    assert page.complaints == []


def test_the_file_name_is_safe(hostile, tmp_path):
    grid = lt.AttentionGrid(hostile)
    grid.to_html(tmp_path)
    grid.to_svg(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert all(re.fullmatch(r"attention-[\w.-]+-tokens\.(html|svg)", name) for name in names)


@pytest.mark.parametrize("text", [HOSTILE, "\u2028\u2029", "\ud800", "&lt;", "</script"])
def test_x3_json_in_a_page_cannot_end_its_element(text):
    coded = embed({"text": text})
    assert not re.search("[<>&\u2028\u2029]", coded)
    coded.encode("utf-8")
    assert json.loads(coded)["text"] in (text, "?")


def test_w5_numbers_that_json_lacks_become_null():
    assert json.loads(embed({"a": float("nan"), "b": [float("inf"), 1.5]})) == {"a": None, "b": [None, 1.5]}


def test_the_page_holds_the_state_and_all_that_was_asked_for(grid):
    grid.filter, grid.scale, grid.theme = {"sink": [0.5, None]}, "row", "dark"
    grid.select(16, 0)
    data = data_of(grid.to_html(heads=[(16, 0), (17, 5)]))
    assert list(data["state"]["embedded"]) == ["16,0", "17,5"]
    places = [set(own["buffers"]) for own in data["state"]["embedded"].values()]
    assert set.union(*places) == set(range(len(data["buffers"]["embedded_data"])))
    assert data["state"]["filter"] == {"sink": [0.5, None]}
    assert (data["state"]["scale"], data["state"]["theme"]) == ("row", "dark")
    assert data["state"]["facts"]["live"] is False
    assert data["module"] == grid._esm


def test_the_locked_head_goes_in_first_and_the_most_striking_follow(grid):
    grid.select(3, 3)
    embedded = data_of(grid.to_html())["state"]["embedded"]
    first = [tuple(map(int, own.split(","))) for own in embedded][:6]
    assert first[0] == (3, 3)
    tops = {
        tuple(grid.head_stats.loc[grid.head_stats[name].idxmax(), ["layer", "head"]]) for name in ("sink", "induction")
    }
    assert tops <= set(first)


@pytest.mark.parametrize(
    ("heads", "words"),
    [([(99, 0)], "layer 99"), ([(0, 9)], "head 9 does not exist"), ("some", "'all' or a list")],
)
def test_heads_that_do_not_exist_are_refused(grid, heads, words):
    with pytest.raises(lt.LlamaTelemetryError, match=words):
        grid.to_html(heads=heads)


@pytest.mark.parametrize(("tokens", "least"), [(16, 270), (64, 40), (512, 5)])
def test_a_page_is_no_more_than_2_mb_and_as_full_as_it_can_be(model, tokens, least):
    """Thumbnails of all heads, the code, the picture for readers without scripts, and the chosen heads."""
    text = "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. " * 40
    grid = lt.AttentionGrid(model.trace(model.tokenize(text)[:tokens], progress=False))
    html = grid.to_html()
    heads = len(data_of(html)["state"]["embedded"])
    assert len(html.encode()) <= 2_000_000
    assert heads >= least


def test_a_page_with_all_heads_grows_with_the_tokens_not_with_their_square(model):
    text = "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. " * 40
    trace = model.trace(model.tokenize(text)[:256], progress=False)
    grid = lt.AttentionGrid(trace)
    html = grid.to_html(heads="all")
    assert len(html) < 18_000_000  # as matrices they would be 94 MB
    data = data_of(html)
    head = data["state"]["embedded"]["17,5"]
    q, k, normalizers, first, stop = (blob(data, data["buffers"]["embedded_data"][at]) for at in head["buffers"])
    q, k = (np.frombuffer(x, np.float16).reshape(256, 64).astype(np.float64) for x in (q, k))
    weights = np.exp(q @ k.T * head["scale"] - np.frombuffer(normalizers)[:, None])
    assert np.allclose(np.tril(weights), trace.attention(17, 5), atol=1e-5)
    assert np.array_equal(np.frombuffer(stop, np.int32), np.arange(1, 257))
    assert not np.frombuffer(first, np.int32).any()


def test_statistics_of_tokens_go_along_if_they_were_looked_at(grid, trace):
    without = data_of(grid.to_html(heads=[]))
    assert blob(without, without["buffers"]["token_stats"]) == b""
    grid.token_stats = np.asarray(trace.token_stats[grid.facts["token_stats"]].T, np.float32)
    along = data_of(grid.to_html(heads=[]))
    assert blob(along, along["buffers"]["token_stats"]) == grid.token_stats.tobytes()
