"""Importance matrices: against float64 sums of the captured stream, and as llama.cpp's quantizer takes them."""

from __future__ import annotations

import os

import gguf
import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.client import STOPPED

TEXT = "The old lighthouse keeper lit the lamp. " * 60


def sums(path):
    return {t.name: np.asarray(t.data, np.float64) for t in gguf.GGUFReader(path).tensors}


def weights(path, name):
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
    return gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)


def normed(x, path, name):
    x = x.astype(np.float64)
    return x / np.sqrt(np.square(x).mean(1, keepdims=True) + 1e-6) * weights(path, name)


def traced(model):
    """Every block that the matrix is made of, traced: (stream before layer 1, stream between its halves, trace)."""
    ids = model.tokenize(TEXT)
    size = min(512, model.info.context_length)
    for at in range(0, len(ids) - size + 1, size):
        own = ids[at : at + size]
        if model._engine.facts["adds_bos"]:
            own[0] = model.info.bos_id
        trace = model.trace(own, logits="all", progress=False)
        yield trace.hidden(0), trace.hidden(0) + trace.attention_out(1), trace


def test_the_sums_are_those_of_the_residual_stream(zoo_model, tmp_path):
    model, heard = zoo_model("llama"), []
    path = model.info.path
    found = sums(lt.imatrix(model, TEXT, tmp_path / "i.gguf", lambda *n: heard.append(n)))
    blocks = list(traced(model))
    assert len(blocks) > 1 and heard == [(at + 1, len(blocks)) for at in range(len(blocks))]
    queries = sum(np.square(normed(before, path, "blk.1.attn_norm.weight")).sum(0) for before, _, _ in blocks)
    gates = sum(np.square(normed(between, path, "blk.1.ffn_norm.weight")).sum(0) for _, between, _ in blocks)
    for part in ("attn_q", "attn_k", "attn_v"):
        np.testing.assert_allclose(found[f"blk.1.{part}.weight.in_sum2"][0], queries, rtol=1e-3)
    for part in ("ffn_gate", "ffn_up"):
        np.testing.assert_allclose(found[f"blk.1.{part}.weight.in_sum2"][0], gates, rtol=1e-3)
    n = sum(len(before) for before, _, _ in blocks)
    assert {float(v[0, 0]) for name, v in found.items() if name.endswith("counts")} == {n}
    assert len(found) == 2 * 7 * model.info.n_layers  # also the last layer's MLP, for every token


def test_every_expert_is_added_up_by_itself(zoo_model, tmp_path):
    model = zoo_model("qwen3moe")
    path = model.info.path
    found = sums(lt.imatrix(model, TEXT, tmp_path / "i.gguf"))
    n = model.info.n_experts
    squares, counts = np.zeros((n, found["blk.1.ffn_up_exps.weight.in_sum2"].shape[1])), np.zeros(n)
    for _, between, trace in traced(model):
        own = np.square(normed(between, path, "blk.1.ffn_norm.weight"))
        for token, chosen in enumerate(trace.experts[1][0]):
            squares[chosen] += own[token]
            counts[chosen] += 1
    np.testing.assert_allclose(found["blk.1.ffn_up_exps.weight.in_sum2"], squares, rtol=1e-3)
    np.testing.assert_array_equal(found["blk.1.ffn_up_exps.weight.counts"][:, 0], counts)
    np.testing.assert_array_equal(found["blk.1.ffn_down_exps.weight.counts"][:, 0], counts)


@pytest.mark.parametrize("name", ["llama", "deepseek2", "gpt-oss", "bert"])
def test_the_quantizer_takes_it(zoo_model, tmp_path, name):
    model = zoo_model(name)
    matrix = lt.imatrix(model, TEXT[:400], tmp_path / "i.gguf")
    assert min(v.min() for k, v in sums(matrix).items() if k.endswith("in_sum2")) >= 0
    plain = lt.quantize(model, "Q4_0", tmp_path / "plain.gguf").info.path
    guided = lt.quantize(model, "Q4_0", tmp_path / "guided.gguf", imatrix=matrix).info.path
    own = {t.name: (t.tensor_type, t.data.tobytes()) for t in gguf.GGUFReader(plain).tensors}
    changed = [t.name for t in gguf.GGUFReader(guided).tensors if own[t.name] != (t.tensor_type, t.data.tobytes())]
    assert changed and {f"{c}.in_sum2" for c in changed} <= set(sums(matrix))


def test_the_cache_a_short_text_and_a_stop(zoo_model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path))
    model = zoo_model("llama")
    first = lt.imatrix(model, TEXT[:300])
    assert first.is_relative_to(tmp_path) and lt.imatrix(model, TEXT[:300]) == first
    assert lt.imatrix(model, TEXT[:200]) != first
    field = gguf.GGUFReader(first).fields
    assert field["general.type"].contents() == "imatrix" and field["imatrix.chunk_count"].contents() == 1
    with pytest.raises(lt.LlamaTelemetryError, match="measure nothing"):
        lt.imatrix(model, "")
    token = STOPPED.set(lambda: True)
    try:
        with pytest.raises(lt.EngineCancelled):
            lt.imatrix(model, TEXT, tmp_path / "i.gguf")
    finally:
        STOPPED.reset(token)
    assert not (tmp_path / "i.gguf").exists() and not list(tmp_path.glob(".*"))
    with pytest.raises(lt.CaptureUnavailable, match="one stack"):
        lt.imatrix(zoo_model("t5"), TEXT, tmp_path / "t5.gguf")
