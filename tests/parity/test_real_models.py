"""SmolLM2 (Q4_1) and Gemma 3 270M (Q4_K_M) against arrays that Hugging Face computed from the same files.

llama.cpp rounds the activations that enter a quantized product, Hugging Face does not: so the thresholds of quantized
files hold here. Without rounding (the file expanded to F32) the agreement is as close as the zoo's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import llamatelemetry_widget as lt

from .zoo import attention, correlation, hidden, relative

pytestmark = pytest.mark.parity

DATA = Path(__file__).parents[1] / "data"


def stored(name):
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def test_tokens_are_those_of_hugging_face(real):
    name, model = real
    for wanted in (stored(name), stored(f"{name}-long")):
        ids = model.tokenize(str(wanted["text"]))
        assert ids[: len(wanted["ids"])] == wanted["ids"].tolist()


@pytest.mark.parametrize("kv_type", ["f16", "f32"])
@pytest.mark.parametrize("flash", ["on", "off"])
def test_a_short_prompt_agrees_in_every_head(real, flash, kv_type):
    name, model = real
    want = stored(name)
    trace = model.trace(want["ids"].tolist(), flash_attention=flash, kv_type=kv_type, logits="all", progress=False)
    got = attention(trace)
    assert correlation(got, want["attn"].astype(np.float32)) >= 0.9995
    assert np.abs(got - want["attn"]).mean() <= 2e-3
    layers = hidden(trace)[want["hidden_layers"]]
    assert correlation(layers, want["hidden"]) >= 0.9995
    assert correlation(trace.logits[-1], want["logits"].astype(np.float32)) >= 0.999
    assert trace.logits[-1].argmax() == want["logits"].argmax()
    assert (trace.check.max_difference <= trace.check.tolerance).all() and len(trace.check) == got.shape[0] * got.shape[
        1
    ]


@pytest.mark.parametrize(("flash", "n_ubatch"), [("on", 512), ("on", 100), ("off", 64)])
def test_a_prompt_longer_than_the_window_agrees_in_chosen_rows(real, flash, n_ubatch):
    name, model = real
    want = stored(f"{name}-long")
    layers = want["attn_layers"].tolist()
    trace = model.trace(
        want["ids"].tolist(), flash_attention=flash, n_ubatch=n_ubatch, logits="last",
        capture=("attention", "hidden"), progress=False,
    )  # fmt: skip
    rows = want["rows"]
    heads = want["attn"].shape[1]
    got = np.stack([np.stack([trace.attention(layer, head)[rows] for head in range(heads)]) for layer in layers])
    assert correlation(got, want["attn"].astype(np.float32)) >= 0.999
    assert np.abs(got - want["attn"]).mean() <= 2e-3
    assert correlation(trace.logits[-1], want["logits"].astype(np.float32)) >= 0.999
    for layer, states in zip(want["hidden_layers"].tolist(), want["hidden"], strict=True):
        own = trace.hidden(layer)
        if len(own) == len(trace.token_ids):  # the last layer keeps the row whose logits were asked for
            assert correlation(own[rows], states) >= 0.999


def test_gemma_s_windows_hide_what_lies_further_back_than_512_tokens():
    ids = stored("gemma3-long")["ids"].tolist()
    with lt.open_model("gemma3-270m") as model:
        trace = model.trace(ids, capture=("attention",), progress=False)
    windows = [facts.window for facts in trace.layers]
    assert windows == [None if layer % 6 == 5 else 512 for layer in range(18)]
    local, whole = trace.attention(0, 0, rows=slice(599, 600)), trace.attention(5, 0, rows=slice(599, 600))
    assert (local[0, : 600 - 512] == 0).all() and local[0, 600 - 512] > 0
    assert (whole[0] > 0).all()


def test_the_replay_is_llama_cpp_s_own_softmax(real):
    name, model = real
    table = model.verify(stored(f"{name}-long")["ids"].tolist()[:300], n_ubatch=100)
    assert table.scores_difference.max() <= 1e-5
    assert len(table) == len(table.drop_duplicates(["layer", "head"])) == model.info.n_layers * model.info.n_heads
    assert table.max_difference.max() <= 1e-4


def test_smollm2_expanded_to_f32_agrees_without_rounded_activations(smollm2_path, tmp_path):
    import llama_cpp.llama_cpp as native

    options = native.llama_model_quantize_default_params()
    options.ftype, options.allow_requantize = native.LLAMA_FTYPE_ALL_F32, True
    expanded = tmp_path / "expanded.gguf"
    assert native.llama_model_quantize(str(smollm2_path).encode(), str(expanded).encode(), options) == 0
    want = stored("smollm2")
    with lt.open_model(expanded) as exact:
        trace = exact.trace(want["ids"].tolist(), flash_attention="off", kv_type="f32", logits="all", progress=False)
    assert correlation(attention(trace), want["attn"].astype(np.float32)) >= 0.99999
    assert np.abs(attention(trace) - want["attn"]).mean() <= 1e-4
    assert correlation(hidden(trace)[want["hidden_layers"]], want["hidden"]) >= 0.99999
    assert relative(trace.logits[-1], want["logits"].astype(np.float32)) <= 1e-2
