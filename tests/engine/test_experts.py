"""`trace.experts` against a router written out in NumPy, fed with the stream that was captured in the same run."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

import llamatelemetry_widget as lt

IDS = list(range(5, 29))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def routed(path, trace, layer):
    """(scores of all experts (n, experts), weights as the model normalises them) of a layer, in float64."""
    reader = gguf.GGUFReader(path)
    weight = {t.name: np.asarray(t.data, np.float64) for t in reader.tensors}
    architecture = reader.fields["general.architecture"].contents()
    eps = reader.fields[f"{architecture}.attention.layer_norm_rms_epsilon"].contents()
    name = f"blk.{layer}."
    before = trace.hidden(layer - 1) if layer else weight["token_embd.weight"][trace.token_ids]
    stream = before[trace.expert_tokens(layer)] + trace.attention_out(layer).astype(np.float64)
    scale = weight.get(name + "ffn_norm.weight", weight.get(name + "post_attention_norm.weight"))
    x = stream / np.sqrt((stream**2).mean(-1, keepdims=True) + eps) * scale
    return x @ weight[name + "ffn_gate_inp.weight"].T + weight.get(name + "ffn_gate_inp.bias", 0), architecture


def expected(scores, architecture, used):
    """The chosen experts, strongest first, and their weights, as each model's paper says."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :used]
    if architecture == "gpt-oss":  # softmax over the chosen alone
        return order, softmax(np.take_along_axis(scores, order, 1))
    chosen = np.take_along_axis(softmax(scores), order, 1)
    return order, chosen / chosen.sum(1, keepdims=True) if architecture == "qwen3moe" else chosen


@pytest.mark.parametrize("name", ["qwen3moe", "deepseek2", "gpt-oss"])
@pytest.mark.parametrize(("flash", "n_ubatch", "logits"), [("auto", 512, "all"), ("off", 7, "last")])
def test_experts_are_those_of_a_router_in_numpy(zoo_model, zoo_models, name, flash, n_ubatch, logits):
    trace = zoo_model(name).trace(IDS, flash_attention=flash, n_ubatch=n_ubatch, logits=logits, progress=False)
    assert list(trace.experts) == ([1, 2] if name == "deepseek2" else [0, 1, 2])
    for layer, (ids, weights) in trace.experts.items():
        assert ids.dtype == np.int32 and weights.dtype == np.float32 and ids.shape == weights.shape
        scores, architecture = routed(zoo_models / f"{name}.gguf", trace, layer)
        order, want = expected(scores, architecture, ids.shape[1])
        np.testing.assert_array_equal(ids, order)
        np.testing.assert_allclose(weights, want, atol=2e-4)
        assert scores.shape[1] == trace.info["n_experts"]


def test_the_last_layer_has_the_tokens_that_were_computed(zoo_model):
    last = zoo_model("qwen3moe").trace(IDS, progress=False)
    whole = zoo_model("qwen3moe").trace(IDS, logits="all", progress=False)
    assert last.expert_tokens(2).tolist() == [23]
    assert last.expert_tokens(1).tolist() == whole.expert_tokens(2).tolist() == list(range(24))
    assert last.experts[2][0].tolist() == whole.experts[2][0][23:].tolist()


def test_experts_survive_a_file(zoo_model, tmp_path):
    trace = zoo_model("deepseek2").trace(IDS, progress=False)
    loaded = lt.load_trace(trace.save(tmp_path / "t.safetensors"))
    for layer, (ids, weights) in trace.experts.items():
        assert np.array_equal(loaded.experts[layer][0], ids) and np.array_equal(loaded.experts[layer][1], weights)
        assert np.array_equal(loaded.expert_tokens(layer), trace.expert_tokens(layer))


def test_a_layer_without_experts_is_named(zoo_model):
    trace = zoo_model("deepseek2").trace(IDS, progress=False)
    with pytest.raises(lt.CaptureUnavailable, match="layer 0 has no experts here; layers 1-2 have"):
        trace.expert_tokens(0)
    dense = zoo_model("llama").trace(IDS, progress=False)
    assert dense.experts == {}
    with pytest.raises(lt.CaptureUnavailable, match="no layer of this trace has"):
        dense.expert_tokens(0)
