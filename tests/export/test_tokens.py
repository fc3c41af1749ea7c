"""The token explorer's page and pictures."""

from __future__ import annotations

import json
import re

import pytest

import llamatelemetry_widget as lt


@pytest.fixture(scope="module")
def explorer(smollm2_path):
    with lt.open_model(smollm2_path) as model:
        made = lt.TokenExplorer(model, "Every night the old lighthouse keeper lit the <b>", min_p=0.02)
        made.greedy(2)
        made.back()
        yield made
        made.close()


def test_the_page_holds_the_distributions_that_are_there(explorer, tmp_path, capsys):
    text = explorer.to_html(tmp_path)
    assert "3 of 3 distributions" in capsys.readouterr().out
    assert (tmp_path / "tokens-SmolLM2-135M-Instruct.html").read_text("utf-8") == text
    data = json.loads(re.search(r'id="lt-data">(.*?)</script>', text, re.DOTALL)[1])
    state = data["parts"][0]["state"]
    assert state["facts"]["live"] is False and state["here"][0] == explorer.node and len(state["here"]) == 3
    assert "<b>" not in text.split('id="lt-data">')[1].split("</script>")[0]


def test_the_picture_says_what_is_left(explorer, tmp_path):
    svg = explorer.to_svg(tmp_path / "tokens.svg", "dark")
    assert "llama.cpp&#x27;s chain" in svg or "llama.cpp's chain" in svg
    assert "top-k 40 (cuts 49\u202f112)" in svg and "more tokens, together" in svg and "entropy" in svg
    assert (tmp_path / "tokens.svg").read_text("utf-8") == svg
    assert explorer.to_png(theme="light")[:4] == b"\x89PNG"
    with pytest.raises(lt.LlamaTelemetryError, match="theme"):
        explorer.to_svg(theme="blue")
