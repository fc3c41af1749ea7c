"""AttentionGrid in Python: what it tells the browser, how it answers, what it refuses, what it leaves behind."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
import types
import warnings
import weakref

import numpy as np
import pytest
import traitlets

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis.attention import STATISTICS, Mask, Scoring
from llamatelemetry_widget.trace import AttentionRecord, LayerFacts
from llamatelemetry_widget.widgets import attention_facts, attention_grid, base, embedding, hosts

from .conftest import PROMPT, Wire

WIDGET = "application/vnd.jupyter.widget-view+json"
TILE = {"type": "tile", "layer": 0, "head": 0, "stage": "softmax", "rows": [0, 24], "keys": [0, 24], "size": [4, 4]}
SUMS = {"type": "sums", "tokens": [3], "direction": "seen", "heads": "all", "how": "mean"}


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


# --------------------------------------------------------------- what is told


def test_facts_say_what_the_trace_holds(trace, wired):
    grid, _ = wired(trace)
    facts = grid.facts
    assert facts["tokens"] == trace.tokens
    assert facts["kinds"] == trace.token_kinds
    assert [layer["layer"] for layer in facts["layers"]] == list(range(30))
    assert facts["layers"][17]["heads"] == 9
    assert facts["layers"][17]["kv_heads"] == 3
    assert facts["layers"][17]["stages"] == list(trace.stages(17))
    assert facts["layers"][17]["scale"] == pytest.approx(0.125)
    assert [s["key"] for s in facts["statistics"] if s["histogram"]] == list(STATISTICS[:5])
    assert facts["provenance"] == trace.provenance
    assert facts["phase"] == "done"
    json.dumps(facts, allow_nan=False)


def test_thumbnails_and_statistics_stand_in_the_order_of_head_stats(trace, wired):
    grid, _ = wired(trace)
    row = 17 * 9 + 5
    assert np.array_equal(grid.thumbnails[row], trace.layer_reduced(17).thumb_max[5])
    assert np.allclose(grid.statistics, grid.head_stats[list(STATISTICS)], equal_nan=True)
    assert grid.to_numpy().shape == (270, 24, 24)
    exact = trace.attention(17, 5)
    shown = grid.to_numpy()[row]
    assert np.isnan(shown[0, 1:]).all()
    assert np.allclose(np.nan_to_num(shown), np.where(exact >= 1e-4, exact, 0), rtol=0.02, atol=1e-6)


def test_w5_no_warning_and_no_text_instead_of_numbers(trace, wired):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid, _ = wired(trace, selected_layer=np.int64(17), selected_head=np.int32(5), sink_aside=np.bool_(True))
        state = grid.get_state()
    heavy = {"thumbnails", "statistics", "token_stats", "embedded_data"}
    json.dumps({k: v for k, v in state.items() if k not in heavy}, allow_nan=False)


def test_w8_thumbnails_of_a_thousand_heads_fit_the_saved_notebook():
    layers = [LayerFacts(layer, "attention", "", 32, 8) for layer in range(32)]
    assert attention_facts.sides(layers, 2048, 2048) == (32, 32)
    assert attention_facts.sides(layers[:8], 2048, 2048) == (64, 64)
    assert attention_facts.sides(layers, 51, 51) == (26, 26)


def test_layers_without_attention_are_told_with_their_reason(zoo_hybrid, wired):
    grid, _ = wired(zoo_hybrid)
    kinds = {layer["kind"] for layer in grid.facts["layers"]}
    without = [layer for layer in grid.facts["layers"] if layer["kind"] == "none"]
    assert kinds == {"attention", "none"}
    assert all(layer["reason"] and layer["heads"] == 0 for layer in without)
    assert len(grid.thumbnails) == sum(layer["heads"] for layer in grid.facts["layers"])
    with pytest.raises(traitlets.TraitError, match="has no attention to select"):
        grid.selected_layer = without[0]["layer"]


# ------------------------------------------------------------------- messages


def decoded(facts, buffers):
    """q, k, normalizers, first and stop of a head as it travelled, in float64."""
    dtype = {"f2": np.float16, "f4": np.float32}[facts["dtype"]]
    q, k = (np.frombuffer(bytes(b), dtype).reshape(-1, facts["size"]).astype(np.float64) for b in buffers[:2])
    return q, k, np.frombuffer(bytes(buffers[2])), *(np.frombuffer(bytes(b), np.int32) for b in buffers[3:5])


def softmax_of(facts, buffers):
    """The weights of a head without cap, bias or distance, from nothing but what travelled; masked cells 0."""
    q, k, normalizers, first, stop = decoded(facts, buffers)
    j = np.arange(facts["keys"])
    seen = (j >= first[:, None]) & (j < stop[:, None])
    return np.where(seen, np.exp(q @ k.T * facts["scale"] - normalizers[:, None]), 0)


def test_a_head_comes_back_under_the_id_of_its_request(trace, wired):
    _, wire = wired(trace)
    wire.say(type="head", id="view-1", layer=17, head=5)
    ((answer, buffers),) = wire.customs("head")
    assert answer == {**answer, "id": "view-1", "layer": 17, "head": 5, "rows": 24, "keys": 24, "size": 64}
    assert answer["stages"] == list(trace.stages(17))
    assert np.allclose(softmax_of(answer, buffers), trace.attention(17, 5), atol=1e-5)
    assert sum(len(bytes(b)) for b in buffers) == 24 * (2 * 64 * 2 + 8 + 4 + 4)
    json.dumps(answer, allow_nan=False)


def test_a_head_of_another_kind_brings_what_its_formula_needs(zoo_models, wired):
    with lt.open_model(zoo_models / "t5.gguf") as model:
        trace = model.trace(list(range(5, 29)), decoder_prompt=[0, 7, 8], progress=False)
    _, wire = wired(trace, part="encoder")
    wire.say(type="head", id="1", layer=1, head=2)
    ((answer, buffers),) = wire.customs("head")
    assert answer["has_bias"]
    assert answer["stages"] == ["scores", "scaled", "biased", "masked", "softmax"]
    bias = np.frombuffer(bytes(buffers[5]), np.float32).reshape(24, 24)
    q, k, normalizers, *_ = decoded(answer, buffers)
    weights = np.exp(q @ k.T * answer["scale"] + bias - normalizers[:, None])
    assert np.allclose(weights, trace.attention(1, 2, part="encoder"), atol=1e-5)


@pytest.mark.parametrize("stage", ["scores", "scaled", "masked", "softmax"])
def test_a_tile_is_a_part_of_the_traces_own_stage(trace, wired, stage):
    _, wire = wired(trace)
    wire.say(type="tile", id="v-1", layer=3, head=2, stage=stage, rows=[4, 20], keys=[0, 24], size=[16, 640])
    ((answer, (buffer,)),) = wire.customs("tile")
    assert (answer["id"], answer["rows"], answer["keys"]) == ("v-1", 16, 24)
    cells = np.frombuffer(bytes(buffer), np.float32).reshape(16, 24)
    want = trace.attention(3, 2, stage)[4:20]
    seen = np.tri(24, dtype=bool)[4:20]
    assert np.allclose(cells[seen], want[seen], atol=1e-4)
    assert np.isnan(cells).any() == (stage in ("masked", "softmax"))


def test_sums_over_all_heads_and_over_some(trace, wired):
    _, wire = wired(trace)
    p = np.stack([[trace.attention(layer, head) for head in range(9)] for layer in range(30)])
    ask = {"type": "sums", "tokens": [4, 9], "how": "mean"}
    wire.say(id="v-1", direction="looks", heads="all", **ask)
    wire.say(id="v-2", direction="seen", heads=[[17, 5], [3, 2], [17, 4]], **ask)
    wait_for(lambda: len(wire.customs("sums")) == 2)
    found = {c["id"]: np.frombuffer(bytes(b), np.float32) for c, (b,) in wire.customs("sums")}
    looks = p[:, :, [4, 9]].sum(2).mean((0, 1))
    assert np.isnan(found["v-1"][10:]).all()
    assert np.allclose(found["v-1"][:10], looks[:10], atol=1e-5)
    seen = np.mean([p[layer, head][:, [4, 9]].sum(1) for layer, head in ((17, 5), (3, 2), (17, 4))], 0)
    assert np.isnan(found["v-2"][:4]).all()
    assert np.allclose(found["v-2"][4:], seen[4:], atol=1e-5)
    assert {c["total"] for c, _ in wire.customs("progress")} <= {0, 30, 2}


def test_a_newer_question_ends_the_older_and_the_kernel_stays_free(trace, wired, monkeypatch):
    _, wire = wired(trace)
    begun, go_on = threading.Event(), threading.Event()

    def slow(layers, tokens, how, heard, threads):
        begun.set()
        assert go_on.wait(30)
        heard(1, 2)
        return np.zeros(24, np.float32)

    monkeypatch.setattr(attention_grid, "seen", slow)
    ask = {"type": "sums", "direction": "seen", "heads": "all", "how": "max"}
    wire.say(id="one-1", tokens=[1], **ask)
    assert begun.wait(30)
    wire.say(id="one-2", tokens=[2], **ask)
    wire.say(id="two-1", tokens=[3], **ask)  # another view's question stands in nobody's way
    wire.say(type="head", id="one-3", layer=0, head=0)
    assert wire.customs("head")
    go_on.set()
    wait_for(lambda: len(wire.customs("sums")) == 2)
    assert [c["id"] for c, _ in wire.customs("sums")] == ["one-2", "two-1"]
    ((error, _),) = wire.customs("error")
    assert error["id"] == "one-1"
    assert "newer" in error["message"]


def test_a_closed_widget_ends_what_it_was_asked(trace, monkeypatch):
    grid = lt.AttentionGrid(trace)
    wire = Wire(grid)
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(layers, tokens, how, heard):
        begun.set()
        assert go_on.wait(30)
        try:
            heard(1, 2)
        finally:
            ended.set()

    monkeypatch.setattr(attention_grid, "looks", slow)
    wire.say(type="sums", id="a-1", tokens=[1], direction="looks", heads="all", how="max")
    assert begun.wait(30)
    grid.close()
    go_on.set()
    assert ended.wait(30)
    time.sleep(0.2)
    assert not wire.customs("progress")
    assert not wire.customs("sums")


def test_a_long_answer_says_that_somebody_is_at_work(trace, wired, monkeypatch):
    _, wire = wired(trace)
    monkeypatch.setattr(base, "ALIVE", 0.02)
    monkeypatch.setattr(attention_grid, "looks", lambda *_: time.sleep(0.3) or np.zeros(24, np.float32))
    wire.say(type="sums", id="a-1", tokens=[1], direction="looks", heads="all", how="max")
    wait_for(lambda: wire.customs("sums"))
    said = [content for content, _ in wire.customs("progress")]
    assert len(said) > 2
    assert all((c["id"], c["total"]) == ("a-1", 0) for c in said)
    time.sleep(0.1)
    assert len(wire.customs("progress")) == len(said)


def test_statistics_of_tokens_come_when_they_are_asked_for(trace, wired):
    grid, wire = wired(trace)
    assert grid.token_stats.size == 0
    assert grid.facts["token_stats"] == ["probability", "loss", "entropy", "rank"]
    wire.say(type="token_stats", id="v-1")
    wait_for(lambda: wire.customs("token_stats"))
    assert grid.token_stats.shape == (4, 24)
    assert np.isnan(grid.token_stats[:, 0]).all()
    assert np.allclose(grid.token_stats, trace.token_stats[grid.facts["token_stats"]].T, equal_nan=True)
    updates = [message for message, _ in wire.sent if message["method"] == "update"]
    assert [message["buffer_paths"] for message in updates] == [[["token_stats"]]]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"layer": 99, "head": 0}, "layer 99"),
        ({"layer": 0, "head": 9}, "head 9 does not exist"),
        ({"layer": "x", "head": 0}, "ValueError"),
        ({}, "KeyError"),
        ({"type": "tile", "layer": 0, "head": 0, "stage": "nonsense"}, "KeyError"),
        (TILE | {"stage": "nonsense"}, "stage 'nonsense'"),
        (TILE | {"rows": [20, 30], "size": [0, 4]}, "no part of 24 rows"),
        (SUMS | {"heads": [[0, 9]]}, "head 9 does not exist"),
        (SUMS | {"heads": [[99, 0]]}, "layer 99"),
        (SUMS | {"tokens": [24]}, "tokens 0 to 23"),
        (SUMS | {"how": "median"}, "how='median'"),
    ],
)
def test_a_request_that_fails_is_answered_under_its_id(trace, wired, message, words):
    _, wire = wired(trace)
    wire.say(id="7", **{"type": "head", **message})
    wait_for(lambda: wire.customs("error"))
    ((answer, _),) = wire.customs("error")
    assert answer["id"] == "7"
    assert words in answer["message"]


@pytest.mark.parametrize("content", [{"type": "nonsense"}, {}])
def test_a_message_that_is_not_known_does_no_harm(trace, wired, content):
    _, wire = wired(trace)
    wire.say(**content)
    assert wire.customs("error")


def test_two_widgets_of_one_model_answer_each_for_itself(trace, wired):
    (_, one), (_, two) = wired(trace), wired(trace)
    one.say(type="head", id="a", layer=1, head=1)
    two.say(type="head", id="b", layer=2, head=2)
    assert [c["id"] for c, _ in one.customs("head")] == ["a"]
    assert [c["id"] for c, _ in two.customs("head")] == ["b"]


def test_resync_sends_the_whole_state(trace, wired):
    _, wire = wired(trace)
    wire.say(type="resync")
    ((message, buffers),) = [sent for sent in wire.sent if sent[0]["method"] == "update"]
    assert "facts" in message["state"]
    assert message["buffer_paths"] == [["thumbnails"], ["statistics"], ["token_stats"]]
    assert len(buffers) == 3


# ------------------------------------------------------------------ selection


def test_selection_is_readable_settable_and_observable(trace, wired):
    grid, wire = wired(trace)
    seen = []
    grid.observe(lambda change: seen.append((change["name"], change["new"])), ["selected_layer", "selected_head"])
    wire.change(selected_layer=17, selected_head=5, selected_tokens=[23, 6])
    assert grid.locked == (17, 5)
    assert grid.selected_tokens == [23, 6]
    assert sorted(seen) == [("selected_head", 5), ("selected_layer", 17)]
    grid.select(None)
    assert grid.locked is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("selected_layer", 30, "layer 30 is not in this trace: it has 0 to 29"),
        ("selected_head", 9, "head 9 does not exist: this trace has heads 0 to 8"),
        ("selected_tokens", [24], "query token 24 does not exist: the prompt has tokens 0 to 23"),
        ("selected_tokens", [0, 24], "key token 24"),
        ("filter", {"inductoin": [0, 1]}, "filter 'inductoin' is no statistic: choose from induction"),
        ("scale", "cubic", "scale"),
        ("sort", "beauty", "sort"),
        ("theme", "blue", "theme"),
    ],
)
def test_a_value_that_does_not_exist_is_refused_in_words(trace, wired, name, value, words):
    grid, _ = wired(trace)
    before = getattr(grid, name)
    with pytest.raises(traitlets.TraitError, match=words.replace("[", r"\[")):
        setattr(grid, name, value)
    assert getattr(grid, name) == before


def test_the_locked_head_is_kept_in_the_state_for_readers_without_a_kernel(trace, wired):
    grid, _ = wired(trace)
    grid.select(17, 5)
    (facts,) = grid.embedded.values()
    assert list(grid.embedded) == ["17,5"]
    kept = softmax_of(facts, [grid.embedded_data[i] for i in facts["buffers"]])
    assert np.allclose(kept, trace.attention(17, 5), atol=1e-5)


def test_a_head_of_4096_tokens_is_kept_too_but_not_one_that_is_too_large():
    small, large = (embedding.Embedding(made_up_trace(n), "self") for n in (4096, 8192))
    assert small.add(0, 1, budget=attention_grid._NOTEBOOK_BYTES)
    assert 1_000_000 < small.size < 1_200_000
    assert not large.add(0, 1, budget=attention_grid._NOTEBOOK_BYTES)
    assert (large.size, large.data, large.facts) == (0, [], {})


def test_heads_that_share_their_keys_share_them_when_embedded():
    kept = embedding.Embedding(made_up_trace(64), "self")
    for head in range(6):
        assert kept.add(0, head)
    keys = {facts["buffers"][1] for facts in kept.facts.values()}
    assert len(keys) == 2
    assert kept.size == sum(len(data) for data in kept.data) == 64 * (6 * (128 + 8) + 2 * 128 + 4 + 4)


def made_up_trace(n):
    """One layer of 6 heads with 2 KV heads; the numbers are drawn at random."""
    r = np.random.default_rng(0)
    q, k = (r.normal(size=(heads, n, 64)).astype(np.float16) for heads in (6, 2))
    mask = Mask(np.zeros(n, np.int32), np.arange(1, n + 1, dtype=np.int32))
    record = AttentionRecord("self", 0, 6, 2, Scoring(q, k, None, mask, 0.125))
    attention, layers = {("self", 0): record}, {"self": [0]}
    return lt.Trace(np.arange(n), [b"x"] * n, ["normal"] * n, {}, _attention=attention, _part_layers=layers)


def test_the_filter_keeps_the_heads_that_pass(trace, wired):
    grid, _ = wired(trace)
    assert grid.kept().all()
    grid.filter = {"previous_token": [0.6, None]}
    assert set(np.flatnonzero(grid.kept())) == set(grid.head_stats.query("previous_token >= 0.6").index)


# ------------------------------------------------------------- a running trace


def test_a_running_trace_fills_in_layer_by_layer(model, wired):
    running = model.start_trace(PROMPT * 12)
    grid, wire = wired(running)
    assert grid.facts["phase"] == "computing"
    running.result()
    wait_for(lambda: grid.facts["phase"] == "done")
    phases = [state["facts"]["phase"] for state in wire.updates() if "facts" in state]
    assert phases[0] == "computing"
    assert phases[-1] == "done"
    layers = wire.customs("layer")
    assert layers
    for content, (thumbs, stats) in layers:
        row = content["layer"] * 9
        assert bytes(thumbs) == grid.thumbnails[row : row + 9].tobytes()
        assert bytes(stats) == grid.statistics[row : row + 9].tobytes()
        assert content["facts"]["mask"] == "causal"
    whole = lt.AttentionGrid(running.result())
    assert np.array_equal(grid.thumbnails, whole.thumbnails)
    assert grid.facts == whole.facts


def test_w7_a_run_sends_at_most_ten_messages_a_second(model, wired):
    running = model.start_trace(PROMPT * 20)
    grid, wire = wired(running)
    times = []
    send = grid._send
    grid._send = lambda message, buffers=None: (times.append(time.monotonic()), send(message, buffers))
    running.result()
    wait_for(lambda: grid.facts["phase"] == "done")
    # the beginning and the end are sent at once, whatever came just before
    assert len(times) <= 10 * (times[-1] - times[0]) + 4
    assert wire.sent


def test_a_widget_that_fails_does_not_stop_the_run(model, wired):
    running = model.start_trace(PROMPT * 4)
    grid, _ = wired(running)
    grid._state = lambda *_: 1 / 0
    assert running.result().tokens
    wait_for(lambda: grid.facts["phase"] == "error")
    assert "the run itself goes on" in grid.facts["message"]


def test_only_a_whole_run_says_that_it_was_checked(trace):
    assert "checked" in attention_facts.facts(trace, "self", "done", 30, 30, "")["provenance"]
    assert "checked" not in attention_facts.facts(trace, "self", "computing", 3, 30, "")["provenance"]


def test_a_picture_that_fails_does_not_cost_the_widget(trace, wired, caplog):
    grid, _ = wired(trace)
    grid._static_html = lambda why: 1 / 0
    data, _ = grid._repr_mimebundle_()
    assert WIDGET in data
    assert "SmolLM2" in data["text/html"]
    assert "cannot be drawn" in caplog.text


def test_w3_stop_cancels_the_run_and_what_came_stays(model, wired):
    running = model.start_trace(PROMPT * 40)
    grid, wire = wired(running)
    wait_for(lambda: grid.facts["layers"])
    wire.say(type="stop")
    with pytest.raises(lt.EngineCancelled):
        running.result()
    wait_for(lambda: grid.facts["phase"] == "cancelled")
    assert model.trace(PROMPT, progress=False).tokens  # the model stays usable


def test_stop_after_the_end_says_how_it_ended(trace, wired):
    _, wire = wired(trace)
    wire.say(type="stop")
    ((state, _),) = wire.customs("state")
    assert state["phase"] == "done"


def test_a_run_that_fails_says_why(model, wired):
    grid, _ = wired(model.start_trace("lamp " * 9000))
    wait_for(lambda: grid.facts["phase"] == "error")
    assert "tokens" in grid.facts["message"]
    assert "tokens" in grid._repr_mimebundle_()[0]["text/html"]


def test_anything_else_than_a_trace_is_refused():
    with pytest.raises(lt.LlamaTelemetryError, match=r"shows a Trace \(model.trace\(…\)\), not str"):
        lt.AttentionGrid("a prompt")


def test_a_part_that_does_not_exist_is_refused(trace):
    with pytest.raises(lt.LlamaTelemetryError, match="part 'cross' does not exist in this trace: it has self"):
        lt.AttentionGrid(trace, part="cross")


# -------------------------------------------------------------------- display


def test_w9_every_display_carries_a_picture_and_words(trace, wired):
    grid, _ = wired(trace)
    data, _ = grid._repr_mimebundle_()
    assert data[WIDGET]["model_id"] == grid.model_id
    assert "SmolLM2" in data["text/plain"]
    assert "data:image/svg+xml;base64," in data["text/html"]
    assert "L16 H0" in data["text/html"]
    assert "script" not in data["text/html"]
    assert len(data["text/html"]) < 300_000


def test_v1_kaggle_gets_the_picture_alone_with_one_line_why(trace, wired, monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    grid, _ = wired(trace)
    data, _ = grid._repr_mimebundle_()
    assert WIDGET not in data
    assert "Kaggle&#x27;s page cannot load widgets" in data["text/html"]
    monkeypatch.setenv("LLAMATELEMETRY_DISPLAY", "widget")
    assert WIDGET in grid._repr_mimebundle_()[0]


def test_v3_the_custom_widget_manager_of_colab_is_enabled(trace, wired, monkeypatch):
    calls = []
    output = types.ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: calls.append(1)
    output._widgets = types.SimpleNamespace(_installed_url="https://colab.example/manager.js")
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    grid, _ = wired(trace)
    _, metadata = grid._repr_mimebundle_()
    assert calls
    assert metadata[WIDGET]["colab"]["custom_widget_manager"]["url"] == "https://colab.example/manager.js"


@pytest.mark.parametrize(("name", "stacked"), [("PATH", True), ("VSCODE_PID", False)])
def test_only_jupyter_itself_gets_picture_and_widget_apart(monkeypatch, name, stacked):
    monkeypatch.setenv("JPY_SESSION_NAME", "lamp.ipynb")
    monkeypatch.setenv(name, "1")
    assert hosts.stacks_outputs() == stacked


def test_a_frontend_that_was_not_built_is_said(trace, monkeypatch, tmp_path):
    monkeypatch.setattr(base, "STATIC", tmp_path)
    with pytest.raises(lt.LlamaTelemetryError, match=r"is not built .* npm run build"):
        lt.AttentionGrid(trace)


def test_a_closed_widget_displays_as_a_picture_and_is_freed(trace):
    grid = lt.AttentionGrid(trace)
    grid.close()
    data, _ = grid._repr_mimebundle_()
    assert WIDGET not in data
    assert "was closed" in data["text/html"]
    gone = weakref.ref(grid)
    del grid
    gc.collect()
    assert gone() is None


def test_g3_a_widget_can_be_made_in_a_thread(trace):
    made = []
    thread = threading.Thread(target=lambda: made.append(lt.AttentionGrid(trace)))
    thread.start()
    thread.join()
    assert made[0].facts["n_tokens"] == 24
    made[0].close()


def test_w5_a_row_of_nan_is_drawn_as_no_value(trace, wired):
    grid, _ = wired(trace)
    table = grid.statistics.copy()
    table[0] = np.nan
    grid.statistics = table
    grid.filter = {"sink": [0, 1]}
    assert not grid.kept()[0]
    assert '"statistics":null' not in grid.to_html()
    assert grid.to_png().startswith(b"\x89PNG")
