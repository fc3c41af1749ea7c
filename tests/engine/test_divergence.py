"""Surprise against another trace: the blocks of two workers give what all kept logits give."""

from __future__ import annotations

import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget import trace as traces

IDS = list(range(5, 45))


@pytest.mark.parametrize("other", ["llama-q4-0", "llama-f16"])
def test_blocks_agree_with_kept_logits(zoo_model, monkeypatch, other):
    models = zoo_model("llama"), zoo_model(other)
    monkeypatch.setattr(traces, "_BLOCK_BYTES", 4 * models[0].info.vocab_size * 7)
    kept = [model.trace(IDS, logits="all") for model in models]
    found = models[0].trace(IDS).divergence(models[1].trace(IDS))
    x, y = (np.log(softmax(trace.logits)) for trace in kept)
    expected = (np.exp(x) * (x - y)).sum(1)[:-1]
    np.testing.assert_allclose(found.kl[1:], expected, atol=1e-5)
    assert np.isnan(found.kl[0]) and len(found) == len(IDS)
    assert found.same_top[1:].tolist() == (x.argmax(1) == y.argmax(1))[:-1].tolist()
    np.testing.assert_array_equal(kept[0].divergence(kept[1]).kl, found.kl)


def test_a_trace_does_not_surprise_itself_but_another_kernel_does(zoo_model):
    model = zoo_model("llama")
    trace = model.trace(IDS)
    assert trace.divergence(trace).kl[1:].max() == 0
    assert 0 < trace.divergence(model.trace(IDS, flash_attention="off")).kl[1:].max() < 1e-3


def test_what_cannot_be_compared_is_said(zoo_model):
    trace = zoo_model("llama").trace(IDS)
    with pytest.raises(lt.CaptureUnavailable, match="different tokens"):
        trace.divergence(zoo_model("llama").trace(IDS[1:]))
    with pytest.raises(lt.CaptureUnavailable, match="no logits"):
        zoo_model("bert").trace(IDS).divergence(zoo_model("bert").trace(IDS))


def softmax(x):
    e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
