"""E4: what is read out of llama.cpp against a forward pass written out in NumPy, on a 2-layer F32 file.

Views, permuted and padded tensors, F16 and BF16 caches: a reader that took bytes as contiguous floats would differ.
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest

import llamatelemetry_widget as lt

IDS = [7, 40, 12, 99, 40]


@pytest.fixture(scope="module")
def forward(zoo_models):
    """(attention (layers, heads, n, n), hidden (layers, n, width), logits (n, vocab)) of a llama, in float64."""
    reader = gguf.GGUFReader(zoo_models / "odd-tokens.gguf")
    weight = {t.name: np.asarray(t.data, np.float64) for t in reader.tensors}

    def value(key):
        return reader.fields[f"llama.{key}"].contents()

    heads, kv_heads, layers = (value(k) for k in ("attention.head_count", "attention.head_count_kv", "block_count"))
    eps, base, size = value("attention.layer_norm_rms_epsilon"), value("rope.freq_base"), value("rope.dimension_count")
    n = len(IDS)

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight[name]

    def rotate(x):
        """Neighbouring pairs turn by position / base^(2i/size)."""
        angle = np.arange(n)[:, None] * base ** (-np.arange(0, size, 2) / size)
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = even * np.cos(angle) - odd * np.sin(angle), even * np.sin(angle) + odd * np.cos(angle)
        return np.stack(turned, -1).reshape(x.shape)

    def split(x, count):
        return x.reshape(n, count, -1).swapaxes(0, 1)

    x = weight["token_embd.weight"][IDS]
    attention, hidden = [], []
    for layer in range(layers):
        blk = f"blk.{layer}."
        h = norm(x, blk + "attn_norm.weight")
        q = rotate(split(h @ weight[blk + "attn_q.weight"].T, heads))
        k = rotate(split(h @ weight[blk + "attn_k.weight"].T, kv_heads)).repeat(heads // kv_heads, 0)
        v = split(h @ weight[blk + "attn_v.weight"].T, kv_heads).repeat(heads // kv_heads, 0)
        s = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]) + np.triu(np.full((n, n), -np.inf), 1)
        p = np.exp(s - s.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + (p @ v).swapaxes(0, 1).reshape(n, -1) @ weight[blk + "attn_output.weight"].T
        h = norm(x, blk + "ffn_norm.weight")
        gate = h @ weight[blk + "ffn_gate.weight"].T
        up = h @ weight[blk + "ffn_up.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weight[blk + "ffn_down.weight"].T
        attention.append(p)
        hidden.append(x)
    head = weight.get("output.weight", weight["token_embd.weight"])
    return np.stack(attention), np.stack(hidden), norm(x, "output_norm.weight") @ head.T


@pytest.mark.parametrize(
    ("kv_type", "flash", "tolerance"),
    [("f32", "off", 1e-5), ("f16", "off", 1e-3), ("f16", "on", 1e-3), ("bf16", "on", 2e-2)],
)
@pytest.mark.parametrize("n_ubatch", [512, 2])
def test_e4_attention_hidden_states_and_logits_are_those_of_a_forward_pass(
    zoo_model, forward, kv_type, flash, tolerance, n_ubatch
):
    attention, hidden, logits = forward
    trace = zoo_model("odd-tokens").trace(IDS, kv_type=kv_type, flash_attention=flash, n_ubatch=n_ubatch, logits="all")
    got = np.stack([[trace.attention(layer, head) for head in range(4)] for layer in range(2)])
    assert got.shape == attention.shape
    np.testing.assert_allclose(got, attention, atol=tolerance)
    for layer in range(2):
        np.testing.assert_allclose(trace.hidden(layer), hidden[layer], atol=tolerance * np.abs(hidden[layer]).max())
    np.testing.assert_allclose(trace.logits, logits, atol=tolerance * np.abs(logits).max())


def test_a_cache_type_that_the_head_size_does_not_fit_is_refused_with_what_llama_cpp_said(zoo_model):
    with pytest.raises(lt.LlamaTelemetryError, match=r"flash attention on and a q8_0 cache") as refused:
        zoo_model("odd-tokens").trace(IDS, kv_type="q8_0", flash_attention="on")
    assert any("block size" in line for line in refused.value.log)


def test_the_file_is_what_the_test_says(zoo_models):
    info = lt.open_model(zoo_models / "odd-tokens.gguf").info
    assert (info.n_layers, info.n_heads, info.n_kv_heads, info.quant_type) == (2, 4, 2, "F32")
