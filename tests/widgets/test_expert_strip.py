"""ExpertStrip in Python: what it tells the browser, how it answers, what it refuses, its tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
import traitlets

import llamatelemetry_widget as lt
from llamatelemetry_widget.trace import Trace
from llamatelemetry_widget.widgets.expert_facts import NO_EXPERT, STATE_BYTES, Routing

from .conftest import Wire

IDS = list(range(5, 29))


def traced(path, **options):
    with lt.open_model(path) as model:
        return model.trace(IDS, progress=False, **options)


@pytest.fixture(scope="module")
def trace(zoo_models):
    return traced(zoo_models / "qwen3moe.gguf")


@pytest.fixture(scope="module")
def mixed(zoo_models):
    """The first layer has no experts."""
    return traced(zoo_models / "deepseek2.gguf", logits="all")


@pytest.fixture
def wired():
    made = []

    def wire(*arguments, **options):
        widget = lt.ExpertStrip(*arguments, **options)
        made.append(widget)
        return widget, Wire(widget)

    yield wire
    for widget in made:
        widget.close()


def long_trace(trace, tokens=6000, layers=4, experts=64, used=8):
    """Routing of a larger model on a long prompt: every token to experts that follow one another."""
    ids = (np.arange(tokens)[:, None] + np.arange(used)[None, :]).astype(np.int32) % experts
    weights = np.linspace(1, 0.1, used, dtype=np.float32)[None, :].repeat(tokens, 0)
    arrays = {f"expert_ids.{layer}": ids for layer in range(layers)}
    arrays |= {f"expert_weights.{layer}": weights for layer in range(layers)}
    return Trace(
        np.zeros(tokens, np.int32),
        [b"a"] * tokens,
        ["normal"] * tokens,
        {**trace.info, "n_experts": experts},
        telemetry=trace.telemetry,
        _arrays=arrays,
    )


# --------------------------------------------------------------- what is told


def test_facts_say_what_the_trace_holds(trace, wired):
    strip, _ = wired(trace)
    facts = strip.facts
    assert facts["tokens"] == trace.tokens and facts["n_experts"] == 8 and facts["used"] == 2
    assert [layer["layer"] for layer in facts["layers"]] == [0, 1, 2]
    assert [layer["computed"] for layer in facts["layers"]] == [None, None, [23]]
    assert facts["provenance"] == "measured in llama.cpp · qwen3moe F32 · 24 tokens · CPU, " + (
        f"{trace.info['n_threads']} threads"
    )
    assert facts["most"] == pytest.approx(max(weights.max() for _, weights in trace.experts.values()))
    json.dumps(facts, allow_nan=False)


def test_overview_marks_exactly_the_chosen_experts(trace, wired):
    strip, _ = wired(trace)
    assert strip.overview.shape == (3, 24, 8)
    weights = strip.to_numpy()
    assert np.array_equal(strip.overview > 0, ~np.isnan(weights))
    shown = (strip.overview.astype(np.float32) - 1) / 254 * strip.facts["most"]
    chosen = ~np.isnan(weights)
    np.testing.assert_allclose(shown[chosen], weights[chosen], atol=0.6 / 254)
    np.testing.assert_allclose(strip.measures[0, 0], trace.experts[0][1].max(1))
    assert np.isnan(strip.measures[:, 2, :23]).all() and not np.isnan(strip.measures[:, 2, 23]).any()


def test_layers_without_experts_stay_in_their_place(mixed, wired):
    strip, _ = wired(mixed)
    assert [layer["used"] for layer in strip.facts["layers"]] == [0, 2, 2]
    assert strip.overview.shape[0] == strip.loads.shape[0] == 2
    strip.selected_layer = 0  # as a linked grid may


def test_w4_long_prompts_are_reduced_by_maximum_and_asked_for(trace, wired):
    strip, wire = wired(long_trace(trace))
    assert strip.overview.shape == (4, 512, 64)
    assert strip.overview.nbytes <= STATE_BYTES
    assert strip.overview.max() == 255
    assert 0 < len(strip.embedded) < 4
    wire.say(type="layer", id="a", layer=3)
    wire.say(type="token", id="b", token=5)
    (layer, [ids, weights]), (token, [own_ids, own_weights]) = wire.customs()
    assert layer == {"type": "layer", "id": "a", "layer": 3} and token == {"type": "token", "id": "b", "token": 5}
    assert np.frombuffer(ids, np.uint16).reshape(6000, 8)[5].tolist() == list(range(5, 13))
    assert np.frombuffer(weights, np.float32).reshape(6000, 8)[5, 0] == 1
    assert np.frombuffer(own_ids, np.uint16).reshape(4, 8).tolist() == [list(range(5, 13))] * 4
    assert np.frombuffer(own_weights, np.float32).size == 32


def test_the_locked_layer_is_in_a_saved_notebook(trace, wired):
    strip, _ = wired(long_trace(trace))
    strip.selected_layer = 3
    assert 3 in strip.embedded
    assert strip.embedded_ids.size == strip.embedded_weights.size == 6000 * 8 * len(strip.embedded)


def test_layers_come_strongest_expert_first(mixed):
    ids, weights = Routing(mixed).layer(1)
    assert (np.diff(weights, axis=1) <= 0).all()
    assert {(i, j) for i, row in enumerate(ids) for j in row} == {
        (i, int(j)) for i, row in enumerate(mixed.experts[1][0]) for j in row
    }


def test_tokens_that_were_not_computed_have_no_expert(trace):
    ids, weights = Routing(trace).layer(2)
    assert (ids[:23] == NO_EXPERT).all() and np.isnan(weights[:23]).all()
    ids, weights = Routing(trace).token(3)
    assert (ids[2] == NO_EXPERT).all() and np.isnan(weights[2]).all()
    assert ids[0].tolist() == trace.experts[0][0][3].tolist()


def test_w5_unknown_weights_are_no_numbers(trace, wired):
    plain = long_trace(trace, tokens=10)
    plain._arrays = {name: array for name, array in plain._arrays.items() if name.startswith("expert_ids")}
    strip, _ = wired(plain)
    assert not any(layer["weighted"] for layer in strip.facts["layers"])
    assert set(np.unique(strip.overview)) == {0, 255}
    assert np.isnan(strip.loads[:, 1]).all() and strip.entropy.token_bits.isna().all()
    json.dumps(strip.facts, allow_nan=False)


# ---------------------------------------------------------------- nothing to show


def test_a_model_without_experts_says_so(zoo_models, wired):
    strip, _ = wired(traced(zoo_models / "llama.gguf"))
    assert "no experts" in strip.facts["message"] and "no experts" in repr(strip)
    assert strip.to_pandas().empty and strip.load.empty and strip.entropy.empty
    assert strip.to_numpy().shape == (0, 24, 0)
    assert "no experts" in strip.to_svg() and "no experts" in strip._static_html("")
    assert strip.to_html().startswith("<!doctype html>")


def test_experts_that_were_not_captured_are_told_apart(zoo_models, wired):
    strip, _ = wired(traced(zoo_models / "qwen3moe.gguf", capture=("attention",)))
    assert "not captured" in strip.facts["message"]


def test_a_run_that_was_stopped_is_told_apart(trace, wired):
    stopped = Trace(trace.token_ids, trace.token_bytes, trace.token_kinds, trace.info, _arrays=trace._arrays)
    assert stopped.experts == {}  # arrays may be half filled
    strip, _ = wired(stopped)
    assert "has not ended" in strip.facts["message"]


def test_a_loaded_trace_shows_the_same(trace, wired, tmp_path):
    strip, _ = wired(trace)
    again, _ = wired(lt.load_trace(trace.save(tmp_path / "t.safetensors")))
    assert again.facts["layers"] == strip.facts["layers"]
    assert np.array_equal(again.overview, strip.overview) and again.to_pandas().equals(strip.to_pandas())


def test_what_is_no_trace_is_refused():
    with pytest.raises(lt.LlamaTelemetryError, match="ExpertStrip shows a Trace"):
        lt.ExpertStrip("trace")


# ---------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"selected_layer": 3}, "layer 3 is not in this trace: it has 0 to 2"),
        ({"selected_tokens": [24]}, "token 24 does not exist"),
        ({"selected_expert": 8}, "expert 8 does not exist: this model has experts 0 to 7"),
        ({"measure": "rainbow"}, "rainbow"),
    ],
)
def test_what_does_not_exist_cannot_be_selected(trace, wired, change, words):
    strip, _ = wired(trace)
    with pytest.raises(traitlets.TraitError, match=words):
        strip.set_trait(*next(iter(change.items())))


def test_grid_and_strip_follow_each_other(mixed):
    views = lt.TraceViews(mixed)
    grid, strip = views.grids["self"], views.experts
    grid.select(1, 2)
    grid.selected_tokens = [4, 1]
    assert strip.selected_layer == 1 and strip.selected_tokens == [4, 1]
    strip.selected_layer, strip.selected_tokens = 0, [7]
    assert grid.locked == (0, 2) and grid.selected_tokens == [7]
    assert list(views) == [grid, strip] and len(views) == 2
    views.close()


def test_views_of_an_encoder_decoder(zoo_models):
    with lt.open_model(zoo_models / "t5.gguf") as model:
        made = model.trace(IDS, decoder_prompt=[0, 7, 8], progress=False)
    views = lt.TraceViews(made)
    assert list(views.grids) == ["encoder", "decoder", "cross"] and views.experts is None
    titles = [grid.facts["title"] for grid in views]
    assert titles == ["Encoder attention", "Decoder attention", "Cross-attention"]
    assert [{layer["mask"] for layer in grid.facts["layers"]} for grid in views] == [{"none"}, {"causal"}, {"none"}]
    cross = views.grids["cross"]
    assert (len(cross.facts["query_tokens"]), cross.facts["n_tokens"]) == (3, 24)
    assert cross.head_stats[["induction", "previous_token", "locality", "diagonal"]].isna().all(axis=None)
    assert not cross.head_stats[["sink", "entropy", "max_weight"]].isna().any(axis=None)
    assert "3 decoder tokens look at 24 encoder tokens" in cross.to_svg()
    assert "future tokens are masked" not in cross.to_svg()
    assert "future tokens are masked" in views.grids["decoder"].to_svg()
    assert not np.isnan(cross.to_numpy()).any()
    views.close()


def test_an_encoder_alone_is_one_grid(zoo_models):
    views = lt.TraceViews(traced(zoo_models / "bert.gguf"))
    assert list(views.grids) == ["self"] and views.experts is None
    grid = views.grids["self"]
    assert grid.facts["title"] == "Attention" and {layer["mask"] for layer in grid.facts["layers"]} == {"none"}
    assert not np.isnan(grid.to_numpy()).any()
    views.close()


# ------------------------------------------------------------------------- tables


def test_tables_are_those_of_the_trace(trace, wired):
    strip, _ = wired(trace)
    table = strip.to_pandas()
    assert len(table) == (24 + 24 + 1) * 2
    assert table.groupby(["layer", "token"]).share.sum().to_numpy() == pytest.approx(1)
    row = table.query("layer == 1 and token == 6 and rank == 1").iloc[0]
    assert row.expert == trace.experts[1][0][6, trace.experts[1][1][6].argmax()] and row.text == trace.tokens[6]
    load = strip.load
    assert load.groupby("layer").load.sum().to_numpy() == pytest.approx(1)
    assert load.groupby("layer").weighted_load.sum().to_numpy() == pytest.approx(1)
    assert load.groupby("layer").tokens.sum().tolist() == [48, 48, 2]
    assert strip.entropy.load_bits.between(0, 3).all() and strip.entropy.evenness.between(0, 1).all()
