"""Lens, contributions and sampler against arrays that Hugging Face computed from the same weights.

Ten models: SmolLM2 (Q4_1), Gemma 3 (Q4_K_M) and, in F32, seven of the zoo and a parallel residual: output tied and
untied, soft-capped and scaled logits, layer norms with biases, experts. llama.cpp rounds the activations that enter a
quantized product, Hugging Face does not: the real files are held to the wider tolerances.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import llamatelemetry_widget as lt

from .zoo import ZOO, correlation

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import make_more

pytestmark = pytest.mark.parity

DATA = Path(make_more.__file__).parent
LENS = DATA / "lens"
EXACT = [*sorted(path.stem for path in LENS.glob("zoo-*.npz")), "command-r"]
REAL = {"smollm2": "smollm2", "gemma3": "gemma3-270m"}
NEUTRAL = {"top_k": 0, "typical_p": 1.0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0, "repeat_penalty": 1.0}
SETTINGS = [
    {"top_k": 40},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"typical_p": 0.7},
    {"temperature": 0.5},
    {"repeat_penalty": 1.3},
    {"top_k": 50, "typical_p": 0.9, "top_p": 0.9, "min_p": 0.02, "temperature": 0.8, "repeat_penalty": 1.1},
]


def stored(name):
    with np.load(LENS / f"{name}.npz") as file:
        return dict(file)


@pytest.fixture(scope="module", params=[*EXACT, *REAL])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def want(name):
    return stored(name)


@pytest.fixture(scope="module")
def model(name, tmp_path_factory):
    if name in REAL:
        where = REAL[name]
    elif name.startswith("zoo-"):
        where = ZOO / "models" / f"{name.removeprefix('zoo-')}.gguf"
    else:
        where = make_more.write(name, tmp_path_factory.mktemp("made") / f"{name}.gguf")
    with lt.open_model(where) as opened:
        yield opened


@pytest.fixture(scope="module")
def trace(name, want, model):
    settings = {} if name in REAL else {"flash_attention": "off", "kv_type": "f32"}
    return model.trace(want["ids"].tolist(), logits="all", progress=False, **settings)


def test_the_lens_agrees_with_hugging_face(name, want, trace):
    lens = trace.lens(positions=want["positions"].tolist())
    assert lens.layers == [-1, *range(len(want["entropy"]) - 1)]
    clear = want["probabilities"][-1, :, 0] - want["probabilities"][-1, :, 1] >= (0.05 if name in REAL else 1e-3)
    assert (lens.final_ids == want["final"])[clear].all() and clear.any()
    if name in REAL:
        assert correlation(lens.entropy, want["entropy"]) >= 0.99
        assert correlation(lens.final_probability, want["final_probability"]) >= 0.99
        return
    np.testing.assert_allclose(lens.probabilities, want["probabilities"], atol=1e-3)
    np.testing.assert_allclose(lens.entropy, want["entropy"], atol=5e-3)
    np.testing.assert_allclose(lens.final_probability, want["final_probability"], atol=1e-3)
    assert (lens.ids[..., 0] == want["words"][..., 0]).all()


def test_the_last_layer_is_what_the_model_says(want, trace):
    own = trace.logits[want["positions"]].astype(np.float64)
    shares = np.exp(own - own.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    found = trace.lens(positions=want["positions"].tolist()).probabilities[-1]
    np.testing.assert_allclose(found, np.sort(shares, 1)[:, ::-1][:, :5], atol=1e-3)


def test_contributions_agree_with_hugging_face(name, want, trace):
    found = trace.contributions(int(want["token"]))
    assert abs(found.rounding) <= (2e-2 if name in REAL else 1e-2), "what the output product's rounding adds"
    assert found.sum == pytest.approx(found.logit, abs=1e-9)
    parts, (layers,) = found.parts, want["mlp"].shape
    of_layer = parts[parts.layer.notna()]
    attention = of_layer[of_layer.part != "mlp"].groupby("layer").logit.sum().reindex(range(layers)).to_numpy(float)
    mlp = of_layer[of_layer.part == "mlp"].set_index("layer").logit.reindex(range(layers)).to_numpy(float)
    pairs = [(attention, want["attention"]), (mlp, want["mlp"])]
    assert ("head" in want) == (parts.part == "head").any()
    if "head" in want:
        heads = parts[parts.part == "head"].logit.to_numpy(float).reshape(want["head"].shape)
        pairs.append((heads, want["head"]))
    if name in REAL:
        assert min(correlation(got, wanted) for got, wanted in pairs) >= 0.99
        return
    for got, wanted in pairs:
        np.testing.assert_allclose(got, wanted, atol=1e-2)
    embedding = float(parts[parts.part == "embedding"].logit.sum())
    assert embedding == pytest.approx(float(want["embedding"]), abs=1e-2)
    assert found.logit == pytest.approx(float(want["logit"]), abs=1e-2)


def test_the_sampler_agrees_with_hugging_face(name, want, model):
    logits = want["logits"] if "logits" in want else np.load(DATA / f"{name}.npz")["logits"].astype(np.float32)
    for i, setting in enumerate(SETTINGS):
        ids, shares, _ = model._sampled(logits, want["ids"].tolist(), {**NEUTRAL, **setting, "seed": 1})
        assert len(ids) == want[f"count_{i}"], setting
        left = dict(zip(ids.tolist(), shares.tolist(), strict=True))
        own = [left[token] for token in want[f"ids_{i}"].tolist()]
        np.testing.assert_allclose(own, want[f"shares_{i}"], atol=1e-6)
