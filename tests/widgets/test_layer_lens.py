"""LayerLens in Python: what it tells the browser, how it answers, what it refuses, its tables."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pytest
import traitlets

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis import streams
from llamatelemetry_widget.widgets.lens_facts import MEASURES

from .conftest import Wire


@pytest.fixture
def lens(trace):
    made = lt.LayerLens(trace)
    yield made
    made.close()


@pytest.fixture
def wire(lens):
    return Wire(lens)


def answered(wire, kind):
    """The one answer of a kind, once it has come."""
    for _ in range(600):
        found = wire.customs(kind)
        if found:
            return found[-1]
        errors = wire.customs("error")
        assert not errors, errors
        time.sleep(0.05)
    raise TimeoutError(kind)


def read(buffers, positions, rows):
    """ids, probabilities, entropy, probability, rank, KL, final of a window's buffers."""
    kinds = [np.int32, np.float32, np.float32, np.float32, np.int32, np.float32, np.int32]
    ids, probabilities, *cells, final = (np.frombuffer(b, kind) for b, kind in zip(buffers, kinds, strict=True))
    shape = len(positions), len(rows)
    return ids.reshape(*shape, -1), probabilities.reshape(*shape, -1), *(own.reshape(shape) for own in cells), final


# --------------------------------------------------------------- what is told


def test_facts_say_what_the_trace_holds(lens, trace):
    facts = lens.facts
    assert facts["tokens"] == trace.tokens and facts["rows"] == [-1, *range(30)]
    assert [layer["heads"] for layer in facts["layers"]] == [9] * 30
    assert facts["n_words"] == 49152 and not facts["every_logit"] and facts["times"] is None
    assert facts["provenance"].startswith("computed by llama.cpp · SmolLM2-135M-Instruct Q4_1 · 24 tokens")
    json.dumps(facts, allow_nan=False)


def test_nothing_is_read_before_it_is_asked_for(lens):
    assert lens.embedded == [] and lens.embedded_lens == [] and lens.push == {}
    assert not lens._has_picture()


def test_streams_are_medians_without_the_first_token(lens, trace):
    table = lens.layers
    norms = np.linalg.norm(trace.hidden(12)[1:], axis=1)
    assert table.residual[12] == pytest.approx(np.median(norms), rel=1e-5)
    assert table.attention[3] == pytest.approx(np.median(np.linalg.norm(trace.attention_out(3)[1:], axis=1)), rel=1e-5)
    a, b = trace.hidden(4)[1:], trace.hidden(5)[1:]
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert table.cosine[5] == pytest.approx(np.median(cosine), rel=1e-5)
    assert table.residual[29] == pytest.approx(np.linalg.norm(trace.hidden(29)[-1]), rel=1e-5)
    assert table.milliseconds.isna().all()


def test_outliers_are_named_with_how_far_they_stand_out(lens, trace):
    rows = trace.hidden(12)[1:]
    size = np.abs(rows).mean(0)
    largest = int(size.argmax())
    (first, times), *_ = lens.facts["layers"][12]["outliers"]
    assert first == largest and times == pytest.approx(size[largest] / np.median(size), abs=0.06)
    assert lens.layers.outliers[12] == int((size >= 10 * np.median(size)).sum())
    assert streams.outliers(np.zeros((3, 4))) == []


def test_what_was_not_captured_is_no_number(model):
    made = lt.LayerLens(model.trace("a b c", capture=("attention",), progress=False))
    assert np.isnan(made.streams).all()
    assert made.layers[list(MEASURES)].isna().all().all()
    made.close()


def test_times_are_those_that_were_measured(model, trace):
    times = model.graph("the lamp", repeats=1)
    made = lt.LayerLens(trace, times=times)
    own = times.layers.dropna(subset=["layer"])
    assert made.facts["times"]["ms"] == pytest.approx((own["seconds"] * 1000).tolist())
    assert made.layers.milliseconds.notna().all()
    made.close()


# ------------------------------------------------------------------ messages


def test_a_window_is_what_the_trace_says_and_no_more(lens, wire, trace):
    wire.say(type="window", id="v-1", positions=[20, 24])
    answer, buffers = answered(wire, "window")
    assert answer["positions"] == [20, 21, 22, 23] and answer["rows"] == [-1, *range(30)]
    whole = trace.lens(positions=[20, 21, 22, 23])
    ids, probabilities, entropy, probability, rank, kl, final = read(buffers, answer["positions"], answer["rows"])
    assert np.array_equal(ids, whole.ids.swapaxes(0, 1))
    np.testing.assert_allclose(probabilities, whole.probabilities.swapaxes(0, 1), rtol=1e-6)
    np.testing.assert_allclose(entropy, whole.entropy.T, rtol=1e-6)
    np.testing.assert_allclose(probability, whole.final_probability.T, rtol=1e-6)
    np.testing.assert_allclose(kl, whole.kl.T, atol=1e-6)
    assert np.array_equal(rank, whole.final_rank.T) and np.array_equal(final, whole.final_ids)
    assert set(answer["words"]) == {str(i) for i in {*ids.ravel(), *final}}
    assert answer["words"][str(final[-1])] == "·lamp"
    assert sum(map(len, buffers)) < 4 * 31 * 60
    assert lens.embedded == [20, 21, 22, 23]  # a saved notebook keeps what was looked at


def test_the_output_row_is_what_the_model_says(lens, trace):
    lens._reading.read([23])
    _, probabilities, _, _, rank, _kl, final = lens._reading.arrays([23])
    logits = trace.logits[-1].astype(np.float64)
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert final[0] == logits.argmax() and rank[0, -1] == 1
    np.testing.assert_allclose(probabilities[0, -1], np.sort(shares)[::-1][:5], atol=1e-3)


def test_a_push_adds_up_to_the_logit(lens, wire, trace):
    wire.say(type="push", id="v-1", position=23, word=None, against=None)
    answer, (heads,) = answered(wire, "push")
    push = answer["push"]
    assert push["texts"] == {"word": "·lamp", "against": None} and push["heads"] == 9
    assert push["logit"] == pytest.approx(trace.logits[-1].max(), abs=1e-3)
    assert push["sum"] == pytest.approx(push["logit"], abs=1e-2)
    table = np.frombuffer(heads, np.float32).reshape(30, 9)
    np.testing.assert_allclose(table.sum(1), push["attention"], atol=1e-3)
    assert lens.push["word"] == push["word"] and np.array_equal(lens.push_heads, table)
    json.dumps(lens.push, allow_nan=False)


def test_a_push_may_be_against_another_word(lens, trace):
    lens.word, lens.against = int(trace.logits[-1].argmax()), 5
    found = lens._pushed(23, lens.word, lens.against)
    assert found.facts["logit"] == pytest.approx(trace.logits[-1].max() - trace.logits[-1][5], abs=1e-3)
    assert found.facts["sum"] == pytest.approx(found.facts["logit"], abs=1e-2)


def test_a_push_without_logits_says_so(lens, wire):
    wire.say(type="push", id="v-1", position=3, word=5, against=None)
    for _ in range(200):
        if wire.customs("error"):
            break
        time.sleep(0.02)
    ((error, _),) = wire.customs("error")
    assert error["id"] == "v-1" and "logits='all'" in error["message"]


def test_what_is_read_can_be_stopped(lens, wire):
    lens._stopped.clear = lambda: None  # so that the stop surely comes before the end
    wire.say(type="stop")
    wire.say(type="window", id="v-1", positions=[0, 24])
    for _ in range(200):
        if wire.customs("error"):
            break
        time.sleep(0.02)
    ((error, _),) = wire.customs("error")
    assert error["id"] == "v-1" and "stopped" in error["message"] and not lens._reading.known.any()


def test_an_unknown_message_is_an_error(lens, wire):
    wire.say(type="ping", id="v-1")
    ((error, _),) = wire.customs("error")
    assert "not known" in error["message"]


# ----------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("selected_layer", 30, "layer 30 is not in this trace: it has 0 to 29"),
        ("selected_head", 9, "head 9 does not exist: this trace has heads 0 to 8"),
        ("selected_tokens", [24], "token 24 does not exist: the prompt has tokens 0 to 23"),
        ("word", 49152, "token id 49152 does not exist: the vocabulary has 0 to 49151"),
        ("measure", "loss", "measure"),
        ("every", 3, "every"),
    ],
)
def test_wrong_values_are_refused(lens, name, value, words):
    with pytest.raises(traitlets.TraitError, match=words):
        setattr(lens, name, value)


def test_a_layer_and_the_embedding_take_each_others_place(lens):
    lens.selected_layer = 3
    lens.at_embedding = True
    assert lens.selected_layer is None
    lens.selected_layer = 4
    assert not lens.at_embedding


def test_it_is_linked_with_the_grid(lens, trace):
    grid = lt.AttentionGrid(trace)
    link = lt.link(lens, grid)
    lens.selected_layer, lens.selected_head, lens.selected_tokens = 17, 5, [23]
    assert (grid.selected_layer, grid.selected_head, grid.selected_tokens) == (17, 5, [23])
    grid.select(3, 1)
    assert (lens.selected_layer, lens.selected_head) == (3, 1)
    link.unlink()
    grid.close()


def test_other_things_are_refused():
    with pytest.raises(lt.LlamaTelemetryError, match="LayerLens shows a Trace"):
        lt.LayerLens("trace")


# -------------------------------------------------------------------- tables


def test_to_pandas_is_the_lens_of_all_tokens(lens, trace):
    table = lens.to_pandas()
    pd.testing.assert_frame_equal(table, trace.lens().to_pandas())


def test_many_tokens_are_kept_up_to_a_budget(lens):
    lens._reading.read(range(24))
    lens.selected_tokens = [2]
    each = lens._reading.bytes_each
    assert lens._fitting(5 * each) == [0, 1, 2, 3, 4]
    assert lens._fitting(10**9) == list(range(24))


# ----------------------------------------------------------------- other models


@pytest.mark.parametrize("name", ["t5", "bert"])
def test_models_that_cannot_be_read_say_why(zoo_models, name):
    options = {"decoder_prompt": [5, 6]} if name == "t5" else {}
    with lt.open_model(zoo_models / f"{name}.gguf") as opened:
        made = lt.LayerLens(opened.trace([5, 6, 7], progress=False, **options))
    assert made.facts["message"]
    assert made.facts["message"] in made._static_html("")
    made.close()


def test_a_trace_from_a_file_shows_its_streams(trace, tmp_path):
    made = lt.LayerLens(lt.load_trace(trace.save(tmp_path / "t.safetensors")))
    assert np.isfinite(made.streams[0]).all()
    assert "needs the model" in made.to_svg()
    with pytest.raises(lt.CaptureUnavailable):
        made.to_pandas()
    made.close()
