"""A grid that grows while a text is written: nothing is lost, nothing comes too often, a stop keeps what there is."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis.thumbnails import edges, encode
from llamatelemetry_widget.widgets.growth import Growth

from .conftest import PROMPT, Wire
from .test_attention_grid import wait_for


def laid_out(trace, n_max, side):
    """Thumbnails of a trace over n_max tokens, from its exact matrices."""
    cells = edges(n_max, side)[:-1]
    out = np.zeros((sum(layer.heads for layer in trace.layers), side, side), np.uint8)
    at = 0
    for layer in trace.layers:
        for head in range(layer.heads):
            p = np.zeros((n_max, n_max), np.float32)
            n = len(trace.token_ids)
            p[:n, :n] = trace.attention(layer.layer, head)
            out[at] = encode(np.maximum.reduceat(np.maximum.reduceat(p, cells, 0), cells, 1))
            at += 1
    return out


def near(a, b):
    """Codes of the same weights, computed in another order."""
    return np.abs(a.astype(int) - b.astype(int)).max() <= 1


@pytest.fixture(scope="module")
def written(model):
    return model.generate(PROMPT, 50).result()


@pytest.mark.parametrize("n_max", [74, 100, 640])
@pytest.mark.parametrize("steps", [(24, 74), (24, 25, 26, 40, 41, 74)])
def test_rows_in_pieces_are_the_rows_of_the_whole(written, n_max, steps):
    growth = Growth(written, n_max)
    assert growth.n_now == 24 and growth.thumbnails.shape == (270, 64, 64)
    growth.rows(0, 24)
    for a, b in pairwise(steps):
        first, codes = growth.rows(a, b)
        assert np.array_equal(codes, growth.thumbnails[:, first : first + codes.shape[1]])
        assert growth.n_now == b
    assert near(growth.thumbnails, laid_out(written, n_max, 64))


def test_a_prompt_s_layers_lie_where_the_rows_will_follow(model):
    events, generation = [], model.generate(PROMPT, 20)
    generation.subscribe(events.append)
    trace = generation.result()
    growth = Growth(trace, generation.n_max)
    for event in events:
        if event.kind == "layer":
            growth.take_layer(event.layer, event.reduced)
    exact = Growth(trace, generation.n_max)
    exact.rows(0, 24)
    assert near(growth.thumbnails, exact.thumbnails)


def test_a_layer_that_cannot_grow_waits_for_the_end(written, monkeypatch):
    growth = Growth(written, 74)
    scoring = written.scoring(3)
    monkeypatch.setattr(written, "scoring", lambda layer, part: type(scoring)(scoring.q[:, :30], *rest(scoring)))
    _, codes = growth.rows(24, 40)
    assert growth.n_now == 30 and codes.shape[1] > 0
    assert growth.rows(30, 40)[1].shape[1] == 0 and growth.n_now == 30


def rest(scoring):
    mask = type(scoring.mask)(scoring.mask.first[:30], scoring.mask.stop[:30])
    return scoring.k[:, :30], scoring.v[:, :30], mask, scoring.scale


def test_a_grid_grows_row_by_row_and_nothing_is_lost(model):
    generation = model.generate(PROMPT, 60)
    grid = lt.AttentionGrid(generation)
    wire = Wire(grid)
    stamps = []
    record = grid._send
    grid._send = lambda message, buffers=None: (stamps.append(time.monotonic()), record(message, buffers))[1]
    trace = generation.result()
    wait_for(lambda: grid.facts["phase"] == "done")
    updates = [state["facts"] for state in wire.updates() if "facts" in state]
    growing = next(facts for facts in updates if facts["phase"] == "generating")
    assert growing["n_tokens"] == 84 and growing["generated"] == 24 and growing["side_rows"] == 64
    tokens = list(growing["tokens"][:24])
    rows = np.zeros((270, 64, 64), np.uint8)
    grown = wire.customs("grow")
    assert grown, "it was over before anything could be told"
    n_now = 25  # the state with which the phase began had the first
    for message, (buffer,) in grown:
        assert message["from"] == n_now == message["n_now"] - len(message["tokens"])
        n_now = message["n_now"]
        assert len(message["stats"]) == len(message["kinds"]) == len(message["tokens"])
        tokens[message["from"] :] = message["tokens"]
        a, b = message["row0"], message["row1"]
        rows[:, a:b] = np.frombuffer(buffer, np.uint8).reshape(270, b - a, 64)
    assert trace.tokens[25:n_now] == tokens[24:]
    # What had not been told when the text ended came with the last state.
    assert len(grid.facts["tokens"]) == len(trace.tokens) == 84
    first = int(edges(84, 64).searchsorted(25, "right"))
    last = int(edges(84, 64).searchsorted(n_now, "right")) - 1
    assert near(rows[:, first:last], laid_out(trace, 84, 64)[:, first:last])
    assert np.array_equal(grid.thumbnails, lt.AttentionGrid(trace).thumbnails)
    assert (np.diff(stamps) > 0.05).mean() > 0.5 and len(grown) <= (stamps[-1] - stamps[0]) * 10 + 2
    grid.close()


def test_the_state_of_a_growing_grid_is_whole_for_a_page_that_opens_now(model):
    generation = model.generate(PROMPT, 300)
    grid = lt.AttentionGrid(generation)
    Wire(grid)
    wait_for(lambda: grid.facts.get("n_now", 0) >= 30)
    growth = grid._growth
    n = grid.facts["n_now"]
    assert len(grid.facts["tokens"]) == n and len(grid.facts["generation"]) == n - 24
    assert grid.thumbnails is growth.thumbnails
    json.dumps(grid.facts, allow_nan=False)
    grid.selected_tokens = [n - 1]
    generation.cancel()
    trace = generation.result()
    wait_for(lambda: grid.facts["phase"] == "done")
    assert len(trace.tokens) >= 30 and len(grid.facts["tokens"]) == len(trace.tokens) == grid.facts["n_tokens"]
    assert grid.facts["generated"] == 24 and len(grid.facts["generation"]) == len(trace.tokens) - 24
    grid.close()


def test_stop_keeps_what_was_written(model):
    generation = model.generate(PROMPT, 400)
    grid = lt.AttentionGrid(generation)
    wire = Wire(grid)
    wait_for(lambda: grid.facts["phase"] == "generating")
    wire.say(type="stop")
    wait_for(lambda: generation.done)
    assert generation.finish_reason == "cancelled"
    assert grid.facts["phase"] == "done" and 24 < len(grid.facts["tokens"]) < 424
    assert grid.trace.attention(29, 8).shape == (grid.facts["n_tokens"],) * 2
    grid.close()


def test_a_grid_of_a_text_that_is_finished(model, written):
    grid = lt.AttentionGrid(written)
    probability, rank, ms, top = grid.facts["generation"][0]
    told = written.generation.iloc[0]
    assert (probability, rank) == (told.probability, told["rank"]) and ms == pytest.approx(1000 * told.seconds)
    assert top[0] == [told.token, pytest.approx(probability)] and len(top) == 5
    assert "n_now" not in grid.facts and grid.facts["generated"] == 24
    late = lt.AttentionGrid(model.generate(PROMPT, 3))
    wait_for(lambda: late.facts["phase"] == "done")
    assert late.facts["generated"] == 24


def test_the_locked_head_is_embedded_when_the_text_has_ended(model):
    generation = model.generate(PROMPT, 20)
    grid = lt.AttentionGrid(generation)
    Wire(grid)
    grid.selected_layer, grid.selected_head = 17, 5
    generation.result()
    wait_for(lambda: grid.facts["phase"] == "done" and grid.embedded)
    assert grid.embedded["17,5"]["rows"] == 44
    grid.close()


def test_an_encoder_decoder_says_what_it_writes(zoo_models):
    with lt.open_model(zoo_models / "t5.gguf") as model:
        generation = model.generate(list(range(5, 12)), 4)
        grid = lt.AttentionGrid(generation)
        Wire(grid)
        trace = generation.result()
        wait_for(lambda: grid.facts["phase"] == "done")
        assert grid.facts["part"] == "encoder" and "generated" not in grid.facts
        decoder = lt.AttentionGrid(trace, part="decoder")
        assert decoder.facts["generated"] == 1 and len(decoder.facts["generation"]) == 4
        grid.close()
