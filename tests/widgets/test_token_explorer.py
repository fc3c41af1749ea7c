"""TokenExplorer in Python: what it tells the browser, how it writes, branches and answers, its tables."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import traitlets

import llamatelemetry_widget as lt
from llamatelemetry_widget.errors import LlamaTelemetryError
from llamatelemetry_widget.widgets.continuations import Continuations

from .conftest import PROMPT, Wire


@pytest.fixture
def explorer(model):
    made = lt.TokenExplorer(model, PROMPT)
    yield made
    made.close()


def answered(wire, kind):
    for _ in range(600):
        found = [m["content"] for m, _ in wire.sent if m.get("method") == "custom" and m["content"]["type"] == kind]
        if found:
            return found[-1]
        time.sleep(0.1)
    raise AssertionError(f"no {kind} among {[m.get('content') for m, _ in wire.sent]}")


def test_the_whole_vocabulary_travels_once(explorer, model):
    logits = np.frombuffer(explorer.logits[0], "<f4")
    assert explorer.here == [0] and len(logits) == model.info.vocab_size == explorer.facts["n_words"]
    trace = model.trace(PROMPT, capture=(), progress=False)
    np.testing.assert_allclose(logits, trace.logits[-1], atol=2e-2)
    assert explorer.words[str(int(logits.argmax()))] == ["·lamp", "normal"]
    assert explorer.facts["provenance"].startswith("llama.cpp logits · SmolLM2-135M")
    json.dumps([explorer.facts, explorer.nodes, explorer.words])


def test_the_table_says_what_each_filter_cut(explorer):
    explorer.min_p = 0.02
    table = explorer.to_pandas()
    assert list(table) == ["token", "id", "logit", "probability", "after", "cut_by"]
    assert table.probability.is_monotonic_decreasing and table.probability.sum() == pytest.approx(1)
    assert table.after.sum() == pytest.approx(1, abs=1e-6)
    cut = table.cut_by.value_counts()
    assert cut["top_k"] == len(table) - 40 and cut.sum() == len(table)
    assert ((table.cut_by == "") == (table.after > 0)).all()
    explorer.temperature = 0
    assert set(explorer.distribution.cut_by) == {"", "temperature"}


def test_tokens_are_written_and_branches_kept(explorer):
    explorer.seed = 3
    end = explorer.sample(4)
    assert explorer.leaf == explorer.node == end and len(explorer.nodes) == 5
    assert explorer.tokens.how.tolist() == ["sampled"] * 4 and (explorer.tokens.ms > 0).all()
    assert explorer.tokens.bits.to_numpy() == pytest.approx(-np.log2(explorer.tokens.probability))
    first = explorer.text
    assert explorer.back() == end - 1 and explorer.leaf == end and explorer.here == [end - 1]
    other = explorer.step(504)
    assert explorer.nodes[other]["parent"] == end - 1 and explorer.nodes[other]["how"] == "chosen"
    assert explorer.nodes[other]["ms"] is None and len(explorer.nodes[other]["top"]) == 5
    assert explorer.text != first
    explorer.node = end - 1
    assert explorer.step(504) == other and len(explorer.nodes) == 6  # kept, not made again
    explorer.node = 0
    assert explorer.leaf == other


def test_the_same_seed_gives_the_same_text(explorer, model):
    explorer.temperature, explorer.top_k = 1.5, 0
    explorer.sample(5)
    again = lt.TokenExplorer(model, PROMPT, temperature=1.5, top_k=0)
    again.sample(5)
    assert again.text == explorer.text
    again.close()


def test_what_the_worker_holds_is_not_run_again(explorer, model):
    explorer.step()
    explorer.greedy(2)
    explorer.node = 1
    explorer.step(504)
    n = len(explorer.facts["tokens"])
    again = model._resumed([*explorer.facts["ids"], *explorer.tokens.id])
    assert again.telemetry["context_reused"] == n + 1  # all but the last token of the shown branch


def test_greedy_is_what_the_model_does(explorer, model):
    explorer.greedy(3)
    generation = model.generate(PROMPT, 3, capture=())
    assert [token.id for token in generation] == explorer.tokens.id.tolist()
    assert explorer.tokens.how.tolist() == ["likeliest"] * 3


def test_the_browser_shows_steps_and_samples(explorer):
    wire = Wire(explorer)
    wire.say(type="step", id="v-1", node=0, token=None)
    assert answered(wire, "step")["id"] == "v-1"
    states = [m["state"] for m, _ in wire.sent if m.get("method") == "update"]
    assert any(len(state.get("nodes", [])) == 2 for state in states)  # the very first token is told too
    wire.say(type="sample", id="v-2", node=1, count=2)
    assert answered(wire, "sample")["id"] == "v-2"
    assert len(explorer.nodes) == 4 and explorer.node == 3
    wire.say(type="show", id="v-3", node=1)
    answered(wire, "show")
    assert explorer.here == [1]
    wire.say(type="show", id="v-4", node=99)
    assert "not known" in answered(wire, "error")["message"]
    wire.say(type="stop")


def test_what_is_refused(explorer, model):
    for name, value in {"temperature": -1, "top_p": 1.5, "repeat_penalty": 0.5, "node": 7, "top_k": -1}.items():
        with pytest.raises(traitlets.TraitError):
            setattr(explorer, name, value)
    with pytest.raises(LlamaTelemetryError, match="does not exist"):
        explorer.step(10**7)
    with pytest.raises(LlamaTelemetryError, match="no tokens"):
        lt.TokenExplorer(model, "")


def test_bytes_are_said_to_be_bytes_and_characters_are_completed():
    tree = Continuations(b"a \xf0")
    first = tree.add(0, 1, b"\x9f\x91", "normal", probability=0.5)
    second = tree.add(first, 2, b"\xa9x", "normal", probability=0.5)
    assert [tree.nodes[n]["text"] for n in (first, second)] == ["<0x9F><0x91>", "<0xA9>x"]
    assert tree.nodes[first]["joins"] is None and tree.nodes[second]["joins"] == "👩"
    assert tree.data(second) == b"\x9f\x91\xa9x" and tree.ids(second) == [1, 2]


def test_special_tokens_are_named(gemma):
    explorer = lt.TokenExplorer(gemma, "The sea <start_of_turn>")
    assert explorer.facts["kinds"][0] == "control" and explorer.facts["kinds"].count("control") == 1
    assert explorer.facts["added"] == "1 special token added by the tokenizer"
    assert explorer.facts["n_words"] == 262144
    explorer.close()


@pytest.fixture(scope="module")
def gemma(gemma3_path):
    with lt.open_model(gemma3_path) as opened:
        yield opened


def test_the_picture_stands_where_no_widget_can(explorer):
    explorer.sample(2)
    fragment = explorer._static_html("why not")
    assert "why not" in fragment and "exact over all 49" in fragment and "data:image/svg+xml" in fragment
    assert repr(explorer).endswith("2 tokens written>")
