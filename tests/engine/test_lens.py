"""The logit lens: its last layer is the model's own logits; earlier layers are the head applied in NumPy."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis.lens import Final, read_rows
from llamatelemetry_widget.engine.client import STOPPED

STORY = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)
IDS = list(range(5, 25))
READ = [
    "llama",
    "llama-f16",
    "llama-q8-0",
    "llama-q4-0",
    "gemma2",
    "gemma3",
    "gpt-oss",
    "gpt2",
    "mpt",
    "qwen3moe",
    "deepseek2",
]


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("name", [*READ, "lfm2", "mamba", "wide"])
def test_the_last_layer_is_what_the_model_says(zoo_model, name):
    trace = zoo_model(name).trace(IDS, logits="all")
    lens, own = trace.lens(k=4), softmax(trace.logits)
    np.testing.assert_allclose(lens.probabilities[-1], np.sort(own, 1)[:, ::-1][:, :4], atol=1e-6)
    assert lens.final_ids.tolist() == own.argmax(1).tolist() and (lens.final_rank[-1] == 1).all()
    assert lens.layers[-1] == trace.layers[-1].layer and lens.ids.shape == (len(lens.layers), len(IDS), 4)
    np.testing.assert_allclose(lens.entropy[-1], -(own * np.log(own)).sum(1), atol=1e-4)


def test_earlier_layers_are_the_head_applied_to_their_stream(zoo_model):
    model = zoo_model("llama")
    trace = model.trace(IDS, logits="all")
    lens, file = trace.lens(), {t.name: t for t in gguf.GGUFReader(model.info.path).tensors}
    matrix = gguf.dequantize(file["output.weight"].data, file["output.weight"].tensor_type).astype(np.float64)
    norm, epsilon = file["output_norm.weight"].data, model.info.metadata["llama.attention.layer_norm_rms_epsilon"]
    embedding = model.embeddings(IDS)
    for row, layer in enumerate(lens.layers):
        x = (embedding if layer < 0 else trace.hidden(layer)).astype(np.float64)
        x = x / np.sqrt((x**2).mean(1, keepdims=True) + epsilon) * norm
        own = softmax(x @ matrix.T)
        np.testing.assert_allclose(lens.probabilities[row], np.sort(own, 1)[:, ::-1][:, :5], atol=1e-4)
        final = own[np.arange(len(IDS)), lens.final_ids]
        np.testing.assert_allclose(lens.final_probability[row], final, atol=1e-4)
        assert (np.abs(lens.final_rank[row] - 1 - (own > final[:, None]).sum(1)) <= 1).all()


def test_streams_that_the_trace_holds_are_not_computed_again(zoo_model):
    model = zoo_model("llama")
    whole, last = (model.trace(IDS, logits=kept, progress=False) for kept in ("all", "last"))
    asked, own = [], model._request
    model._request = lambda message, *more: asked.append("size" in message) or own(message, *more)
    held, run = whole.lens(), last.lens()
    end = last.lens(positions=[-1])
    assert [one for one in asked if one is not None] == [True, False, True]
    for name in ("probabilities", "entropy", "final_probability", "kl"):
        np.testing.assert_allclose(getattr(held, name), getattr(run, name), atol=2e-5)
        np.testing.assert_allclose(getattr(end, name)[:, 0], getattr(run, name)[:, -1], atol=2e-5)
    assert held.layers == run.layers == [-1, 0, 1, 2, 3] and held.pieces == run.pieces


def test_kl_is_that_to_the_final_distribution(zoo_model):
    trace = zoo_model("gpt2").trace(IDS, logits="all", progress=False)
    lens, q = trace.lens(k=400), softmax(trace.logits)
    for row in range(len(lens.layers)):
        own = np.zeros_like(q)
        np.put_along_axis(own, lens.ids[row].astype(np.int64), lens.probabilities[row].astype(np.float64), 1)
        want = (q * np.log(q / own.clip(1e-300))).sum(1)
        np.testing.assert_allclose(lens.kl[row], want, rtol=1e-3, atol=1e-5)
    assert lens.kl[-1].max() <= 1e-5 < lens.kl[0].min() and "kl" in lens.to_pandas()


def test_reading_tells_how_far_it_is_and_stops(zoo_model):
    trace, heard = zoo_model("wide").trace(IDS, progress=False), []
    trace._lens(5, None, None, lambda done, total: heard.append((done, total)))
    assert heard == [(at, 33) for at in range(1, 34)]
    token = STOPPED.set(lambda: len(heard) > 36)
    try:
        with pytest.raises(lt.EngineCancelled):
            trace._lens(4, None, None, lambda done, total: heard.append((done, total)))
    finally:
        STOPPED.reset(token)
    assert len(heard) < 66 and len(trace.lens(k=3).layers) == 33


def test_the_answer_comes_late_in_smollm2(smollm2):
    trace = smollm2.trace(STORY)
    lens = trace.lens(positions=[-1])
    table = lens.to_pandas()
    assert table.word.iloc[-1] == " lamp" and lens.layers == [-1, *range(30)]
    rank = dict(zip(lens.layers, lens.final_rank[:, 0].tolist(), strict=True))
    assert rank[22] > 1000 > rank[23] and rank[29] == 1
    assert trace.lens(positions=[-1]) is lens, "asked again, it is there"


def test_a_long_prompt_and_a_large_vocabulary_keep_no_logits(gemma3):
    trace = gemma3.trace("word " * 300)
    lens = trace.lens(layers=[5, 17], positions=range(0, 300, 30))
    assert lens.ids.shape == (2, 10, 5) and lens.probabilities.max() <= 1


def test_what_cannot_be_read_is_said(zoo_model, smollm2, tmp_path):
    with pytest.raises(lt.CaptureUnavailable, match="no output matrix"):
        zoo_model("bert").trace(IDS).lens()
    with pytest.raises(lt.CaptureUnavailable, match="one stack of layers"):
        zoo_model("t5").trace(IDS, decoder_prompt=[0, 1]).lens()
    trace = smollm2.trace("the sea")
    with pytest.raises(lt.CaptureUnavailable, match="tokens 0 to 1"):
        trace.lens(positions=[2])
    with pytest.raises(lt.CaptureUnavailable, match="no model that could run it"):
        lt.load_trace(trace.save(tmp_path / "t.safetensors")).lens()


def test_rows_of_logits_are_read_as_they_are():
    r = np.random.default_rng(0)
    x = (r.normal(size=(9, 300)) * 4).astype(np.float32)
    x[3, 17] = -np.inf
    other = (r.normal(size=(9, 300)) * 4).astype(np.float32)
    final, targets = Final.of(other.copy()), other.argmax(1)
    own, found = softmax(x), read_rows(x.copy(), final, 6)
    assert found.ids.tolist() == np.argsort(-own, axis=1, kind="stable")[:, :6].tolist()
    np.testing.assert_allclose(found.probabilities, np.sort(own, 1)[:, ::-1][:, :6], rtol=1e-5)
    np.testing.assert_allclose(found.probability, own[np.arange(9), targets], rtol=1e-5)
    q = softmax(other)
    q[3, 17], own[3, 17] = 0, 1  # minus infinity: counted where the other one gives it nothing
    plain = np.arange(9) != 3
    np.testing.assert_allclose(found.kl[plain], (q * np.log(q.clip(1e-300) / own)).sum(1)[plain], rtol=1e-4, atol=1e-5)
    own[3, 17] = 0
    assert found.rank.tolist() == [1 + int((row > row[t]).sum()) for row, t in zip(own, targets, strict=True)]
