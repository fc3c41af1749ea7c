"""Pictures and pages of expert strips, and of a model's parts: whole, small, and safe whatever the texts."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

import llamatelemetry_widget as lt
from llamatelemetry_widget.export.experts import places

from .conftest import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def trace(zoo_models):
    with lt.open_model(zoo_models / "qwen3moe.gguf") as model:
        return model.trace("the old lamp on the sea was lit", progress=False)


@pytest.fixture
def strip(trace):
    made = lt.ExpertStrip(trace, selected_layer=1, selected_tokens=[6])
    yield made
    made.close()


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_the_picture_says_what_it_shows(strip, trace):
    words = texts(strip.to_svg())
    assert "Experts" in words and f"3 layers × 8 experts, 2 per token · {len(trace.tokens)} tokens" in words
    assert f"● {strip.facts['provenance']}" in words
    assert {"L0", "L1", "L2", "line: even 0.125"} <= set(words)
    assert set(trace.tokens) & set(words)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_png_and_svg_have_one_layout(strip, theme):
    root = ElementTree.fromstring(strip.to_svg(theme=theme))
    image = Image.open(BytesIO(strip.to_png(theme=theme)))
    assert image.size == (2 * int(root.get("width")), 2 * int(root.get("height")))
    assert len(np.unique(np.asarray(image.convert("RGB").resize((200, 100))).reshape(-1, 3), axis=0)) > 20


def test_every_choice_is_seen_and_nothing_else(strip):
    shown = places(strip.overview)
    assert np.array_equal(shown > 0, strip.overview > 0)
    assert shown[strip.overview > 0].min() >= 26


def test_files_are_named_after_the_model(strip, trace, tmp_path, capsys):
    strip.to_svg(tmp_path)
    strip.to_png(tmp_path)
    strip.to_html(tmp_path)
    name = f"experts-qwen3moe-{len(trace.tokens)}-tokens"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.{end}" for end in ("html", "png", "svg")]
    assert "3 of 3 layers with exact weights" in capsys.readouterr().out
    with pytest.raises(lt.LlamaTelemetryError, match="sepia"):
        strip.to_svg(theme="sepia")


def test_fallback_names_the_busiest_expert_of_each_layer(strip):
    html = strip._static_html("why not")
    assert "<p>why not</p>" in html and "<script" not in html
    rows = re.findall(r"<tr><td>L(\d+)</td><td>E(\d+)</td><td>([\d.]+)</td>", html)
    best = strip.load.loc[strip.load.groupby("layer").load.idxmax()]
    assert [(int(layer), int(expert)) for layer, expert, _ in rows] == list(
        zip(best.layer.tolist(), best.expert.tolist(), strict=True)
    )
    assert len(html) < 40_000


@pytest.mark.browser
def test_x1_the_page_reads_exact_weights_from_disk(strip, trace, page, tmp_path):
    strip.to_html(tmp_path / "experts.html")
    opened = page.open(tmp_path / "experts.html")
    assert page.complaints == [] and page.foreign == []
    text = opened.inner_text("main")
    assert f"{trace.experts[1][1][6].max():.3f}" in text
    assert "not live" in text and "Layer 1" in text


@pytest.mark.browser
def test_x3_hostile_texts_are_shown_and_run_nothing(zoo_models, page, tmp_path):
    with lt.open_model(zoo_models / "qwen3moe.gguf") as model:
        made = model.trace(HOSTILE, progress=False)
    made.info = {**made.info, "model": HOSTILE}
    made.token_bytes[3] = HOSTILE.encode()
    strip = lt.ExpertStrip(made, selected_layer=0, selected_tokens=[3])
    strip.to_html(tmp_path / "hostile.html")
    opened = page.open(tmp_path / "hostile.html")
    assert page.complaints == [] and page.foreign == []
    assert opened.title().startswith("Experts · </ScRiPt><img")
    assert "<script" not in strip._static_html("").lower() and ElementTree.fromstring(strip.to_svg()) is not None
    strip.close()


def test_views_of_a_trace_are_one_page_and_linked(trace, tmp_path):
    views = lt.TraceViews(trace)
    html = views.to_html(tmp_path / "both.html")
    data = json.loads(re.search(r'<script type="application/json" id="lt-data">(.*?)</script>', html, re.DOTALL)[1])
    assert [part["links"] for part in data["parts"]] == [[1], [0]]
    assert html.count("<section>") == 2
    views.close()


def test_pictures_of_the_parts_are_titled_and_have_files_of_their_own(zoo_models, tmp_path):
    with lt.open_model(zoo_models / "t5.gguf") as model:
        made = model.trace("the old lamp", decoder_prompt="a lamp", progress=False)
    views = lt.TraceViews(made)
    for part, title in (
        ("encoder", "Encoder attention"),
        ("decoder", "Decoder attention"),
        ("cross", "Cross-attention"),
    ):
        words = texts(views.grids[part].to_svg())
        assert words[0] == title
        assert title in views.grids[part]._static_html("")
        assert Image.open(BytesIO(views.grids[part].to_png(tmp_path))).width > 400
        assert views.grids[part]._title().startswith(f"{title} · t5")
    names = [path.name for path in tmp_path.iterdir()]
    assert sorted(name.partition("-t5-")[0] for name in names) == [
        "cross-attention",
        "decoder-attention",
        "encoder-attention",
    ]
    views.close()
