"""The picture of a quantization report: its frontier, its ticks, and that text stays text."""

from __future__ import annotations

import numpy as np
import pytest

from llamatelemetry_widget.export.picture import svg
from llamatelemetry_widget.export.quantization import draw, fallback, frontier, ticks
from llamatelemetry_widget.widgets.quantization_facts import COLUMNS

NONE = np.zeros((3, 0), np.float32), np.zeros((3, 0, 0), np.float32)


def row(name, size, kl, **more):
    own = dict.fromkeys(COLUMNS) | {"kind": "type", "status": "done", "error": "", "speed_note": "", "hue": 4}
    return own | {"name": name, "bytes": size, "bits_per_weight": 5.0, "kl": kl, "kl_ci": kl and kl / 10, **more}


@pytest.fixture
def facts():
    rows = [row("small", 100, 0.3), row("large", 300, 0.01), row("worse", 200, 0.4)]
    base = {"name": "base", "bytes": 900, "bits_per_weight": 32.0, "perplexity": 12.0}
    blocks = [["small", "text", 0, 0.25], ["small", "text", 1, 0.6]]
    told = {"title": "Quantization report", "subtitle": "base", "provenance": "measured", "message": ""}
    return {**told, "rows": rows, "base": base, "blocks": blocks}


def test_the_frontier_has_what_none_is_smaller_and_closer_than(facts):
    assert [own["name"] for own in frontier(facts["rows"])] == ["small", "large"]


def test_ticks_are_ones_and_threes():
    assert ticks(0.002, 0.4) == pytest.approx([0.003, 0.01, 0.03, 0.1, 0.3])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_candidate_the_base_and_the_budget_are_drawn(facts, theme):
    choice = {"name": "large", "headline": "Take large.", "body": "It is.", "sure": "quite.", "limits": ["a limit."]}
    drawn = svg(draw(facts, choice, 250, *NONE, theme), "name")
    for words in ("small", "large", "worse", "base, the base", "budget 250", "Take large.", "Limit: a limit."):
        assert words in drawn, words
    assert "Residual stream drift" not in drawn


def test_drift_is_drawn_where_there_is_some(facts):
    layers = np.array([[0.1, 0.2], [0.01, 0.02], [np.nan, np.nan]], np.float32)
    heads = np.full((3, 2, 4), 0.1, np.float32)
    drawn = svg(draw(facts, None, None, layers, heads, "light"), "name")
    assert "Residual stream drift" in drawn and "mean of 4 heads" in drawn


def test_nothing_measured_and_text_that_is_no_markup(facts):
    rows = [row("<b>x</b>", 100, None, status="failed", error="<script>1</script>"), row("kv:q8_0", 900, 0.0)]
    own = {**facts, "rows": rows, "blocks": []}
    page = fallback(own, None, draw(own, None, None, *(part[:2] for part in NONE), "light"), "")
    assert "<b>x" not in page and "<script" not in page and "&lt;b&gt;x" in page
    empty = {**own, "rows": rows[:1]}
    assert "Nothing has been measured yet." in svg(draw(empty, None, None, *(p[:1] for p in NONE), "light"), "name")
