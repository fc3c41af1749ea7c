"""Direct logit attribution: the parts add up to the model's own logit; single parts against NumPy on the weights."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

import llamatelemetry_widget as lt

STORY = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)
IDS = list(range(5, 25))
APART = ["llama", "llama-q8-0", "llama-q4-0", "gpt-oss", "gpt2", "mpt", "qwen2", "qwen3", "qwen3moe", "wide"]


@pytest.mark.parametrize("name", [*APART, "gemma2", "gemma3", "deepseek2", "lfm2", "mamba"])
def test_the_parts_add_up(zoo_model, name):
    trace = zoo_model(name).trace(IDS)
    found, logits = trace.contributions(), trace.logits[0]
    assert found.token == logits.argmax() and found.position == len(IDS) - 1
    assert found.sum == pytest.approx(found.logit, abs=1e-9)
    if "soft cap" not in found.note:
        assert found.logit == pytest.approx(float(logits.max()), abs=1e-5)
    assert abs(found.rounding) <= 0.05, "what the quantized output product adds"
    kinds = set(found.parts.part)
    assert ("head" in kinds) == (name in APART or name == "lfm2") and "embedding" in kinds
    assert ("recurrence" in kinds) == ("mlp" not in kinds) == (name == "mamba")
    assert ("convolution" in kinds) == (name == "lfm2")
    assert ("cannot be told apart" in found.note) == (name not in (*APART, "lfm2", "mamba"))


def test_heads_and_layers_are_those_of_numpy(zoo_model):
    model = zoo_model("llama")
    trace = model.trace(IDS, logits="all")
    file = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(model.info.path).tensors}
    position, word, other = 11, 40, 41
    found = trace.contributions(word, position, against=other)
    x = trace.hidden(3)[position].astype(np.float64)
    epsilon = model.info.metadata["llama.attention.layer_norm_rms_epsilon"]
    matrix = file["output.weight"].astype(np.float64)
    towards = (matrix[word] - matrix[other]) * file["output_norm.weight"] / np.sqrt((x**2).mean() + epsilon)
    assert found.logit == pytest.approx(float(trace.logits[position, word] - trace.logits[position, other]), abs=1e-4)
    table = found.parts.set_index(["part", "layer", "head"]).logit
    for layer in range(4):
        assert table["mlp", layer].item() == pytest.approx(towards @ trace.mlp_out(layer)[position], abs=1e-5)
        scoring = trace.scoring(layer)
        for head in range(8):
            v = scoring.v[head // scoring.group].astype(np.float64)
            values = trace.attention(layer, head)[position].astype(np.float64) @ v
            size = v.shape[1]
            out = (
                file[f"blk.{layer}.attn_output.weight"].astype(np.float64)[:, head * size : (head + 1) * size] @ values
            )
            assert table["head", layer, head] == pytest.approx(towards @ out, abs=1e-4)
    embedding = file["token_embd.weight"][IDS[position]]
    assert found.parts.logit[0] == pytest.approx(towards @ embedding, abs=1e-4)


def test_attention_of_layer_23_pushes_the_lamp(smollm2):
    found = smollm2.trace(STORY).contributions()
    assert smollm2.token_bytes([found.token]) == [b" lamp"]
    parts = found.parts
    attention = parts[parts.part.isin(["head", "rounding"])].groupby("layer").logit.sum()
    assert attention.idxmax() in (23, 24, 29) and attention[23] == pytest.approx(4.9, abs=0.5)
    assert len(parts[parts.part == "head"]) == 270


def test_what_cannot_be_taken_apart_is_said(zoo_model, smollm2):
    trace = smollm2.trace("the sea was calm")
    with pytest.raises(lt.CaptureUnavailable, match="those of the last token"):
        trace.contributions(position=0)
    with pytest.raises(lt.CaptureUnavailable, match="outside the vocabulary"):
        trace.contributions(10**6)
    with pytest.raises(lt.CaptureUnavailable, match="gives no logits"):
        zoo_model("bert").trace(IDS).contributions()
    bare = smollm2.trace("the sea", capture=("attention",))
    with pytest.raises(lt.CaptureUnavailable, match="capture it with"):
        bare.contributions()
