"""Architectures that are not in the zoo, as tiny random files made here: does the capture hold for each of them?

There is no reference, so each file is its own: the replay against llama.cpp's softmax, flash attention against none,
ubatches of 7 tokens against one of all, the residual stream against what its layers add to it and against the logits.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamatelemetry_widget as lt

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import make_more

pytestmark = pytest.mark.parity

IDS = [1, *np.random.default_rng(7).integers(3, make_more.TOKENS, 23).tolist()]
SETTINGS = [(flash, n_ubatch) for flash in ("off", "on") for n_ubatch in (512, 7)]
FLASH_ABORTS = {"plm"}  # llama.cpp itself: it does not cut V from what it was stored with

# Windows that llama.cpp builds (read in its sources), where there are any; encoders see half of it on either side.
WINDOWS: dict[str, list[int | None]] = {
    "cohere2": [8, 8, 8, None],
    "cohere2moe": [None, 8, 8, 8],
    "olmo2+window": [8, 8, 8, None],
    "plamo3": [8, None, 8],
    "gemma3n": [8, 8, 8, 8, None],
    "gemma4": [8, 8, None, 8, None],
    "gemma4+unscaled": [8, 8, None, 8, None],
    "afmoe": [8, 8, 8, None],
    "exaone-moe": [8, 8, 8, None],
    "mimo2": [None, 8, 8],
    "step35": [None, 8, 8],
    "mellum": [8, 8, None],
    "muse-glimmer": [8, 8, 8, None, 8],
    "spark2_5": [8, None, 8],
    "granite_swa": [8, None, 8],
    "maple": [8, None, 8],
    "deepseek4": [8, None, 8],
    "modern-bert": [None, 9, 9],
    "gemma-embedding": [9, 9, 9, 9, 9, None],
}
RECURRENT, CONVOLUTION, FEED_FORWARD = (
    f"{kind} layer: no attention" for kind in ("recurrent", "convolution", "feed-forward")
)
GROUPS = "attention with a mask for each group of heads: not captured"
COMPRESSED = "attention over compressed tokens: not captured"
WITHOUT: dict[str, dict[int, str]] = {
    "mamba2": dict.fromkeys(range(3), RECURRENT),
    "jamba": {0: RECURRENT, 2: RECURRENT},
    "plamo2": {0: RECURRENT, 2: RECURRENT},
    "granitehybrid": {0: RECURRENT, 2: RECURRENT},
    "granitehybrid+experts": {0: RECURRENT, 2: RECURRENT},
    "nemotron_h": {0: RECURRENT, 1: FEED_FORWARD, 3: RECURRENT, 4: FEED_FORWARD},
    "nemotron_h_moe": {0: RECURRENT, 1: FEED_FORWARD, 3: FEED_FORWARD},
    "rwkv6": dict.fromkeys(range(3), RECURRENT),
    "rwkv7": dict.fromkeys(range(3), RECURRENT),
    "rwkv6qwen2": dict.fromkeys(range(3), RECURRENT),
    "arwkv7": dict.fromkeys(range(3), RECURRENT),
    "qwen3next": dict.fromkeys(range(3), RECURRENT),
    "qwen35": dict.fromkeys(range(3), RECURRENT),
    "qwen35moe": dict.fromkeys(range(3), RECURRENT),
    "kimi-linear": {0: RECURRENT, 2: RECURRENT},
    "minimax-01": dict.fromkeys(range(3), RECURRENT),
    "lfm2moe": {0: CONVOLUTION, 2: CONVOLUTION},
    "deci": {1: FEED_FORWARD},
    "deci+linear": {1: FEED_FORWARD},
    "deepseek4": {1: COMPRESSED},
}
# Layers whose stream is not the one before plus what the layer adds: norms or a scale on it, several streams.
ALL = set(range(5))
NOT_ADDED: dict[str, set[int]] = {
    "nomic-bert": ALL,
    "nomic-bert+mean": ALL,
    "nomic-bert-moe": ALL,
    "jina-bert-v2": ALL,
    "jina-bert-v3": ALL,
    "minimax-01": ALL,
    "gemma3n": ALL,
    "gemma4": ALL,
    "deepseek4": ALL,
    "deci": {2},  # llama.cpp drops what attention computed where a layer has no MLP
    "rwkv6": {1},
    "nanbeige": {2},
    "hrm_text": {2, 4, 6, 8, 10},
}
# Models whose logits are no multiple of head(norm(stream)): streams that are merged, caps, pieces of the vocabulary.
OWN_HEAD = {"gemma3n", "gemma4", "gemma4+unscaled"}


@dataclass
class Seen:
    """One architecture, traced in every way."""

    name: str
    traces: dict[tuple[str, int], Any]
    last: Any  # with logits of the last token only
    verified: Any

    @property
    def trace(self) -> Any:
        return self.traces["off", 512]

    @property
    def n_layers(self) -> int:
        return len(self.trace.layers)

    def per_layer(self, key: str) -> list[int]:
        value = {**make_more.COMMON, **make_more.MORE[self.name]}[key]
        return value if isinstance(value, list) else [value] * self.n_layers

    def contributions(self, trace: Any, layer: int) -> dict[str, np.ndarray]:
        found = {}
        for kind in ("attention_out", "mlp_out"):
            try:
                found[kind] = getattr(trace, kind)(layer)
            except lt.CaptureUnavailable:
                continue
        return found


@pytest.fixture(scope="module", autouse=True)
def one_core():
    """Tiny models run fastest without threads that wait for each other."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(scope="module", params=list(make_more.MORE))
def seen(request, tmp_path_factory):
    name = request.param
    path = make_more.write(name, tmp_path_factory.mktemp("more") / "model.gguf")
    assert path.stat().st_size < (4_000_000 if name == "gemma3n" else 1_000_000)  # llama.cpp fixes one of its widths
    with lt.open_model(path) as model:
        traces = {
            (flash, n_ubatch): model.trace(IDS, flash_attention=flash, n_ubatch=n_ubatch, logits="all", progress=False)
            for flash, n_ubatch in SETTINGS
            if flash == "off" or name not in FLASH_ABORTS
        }
        last = model.trace(IDS, flash_attention="off", n_ubatch=10, progress=False)
        attends = any(facts.kind == "attention" for facts in traces["off", 512].layers)
        verified = model.verify(IDS) if attends else None
    path.unlink()
    return Seen(name, traces, last, verified)


def test_the_replay_is_llama_cpp_s_own_softmax(seen):
    if seen.verified is None:
        assert not seen.trace.parts
        return
    assert seen.verified.max_difference.max() <= 1e-4
    assert len(seen.verified) == sum(facts.heads for facts in seen.trace.layers)


def test_every_layer_with_attention_arrives_with_its_heads(seen):
    heads, kv_heads = seen.per_layer("attention.head_count"), seen.per_layer("attention.head_count_kv")
    for (flash, _), trace in seen.traces.items():
        assert len(trace.layers) == seen.n_layers
        for facts in trace.layers:
            expected = WITHOUT.get(seen.name, {}).get(facts.layer)
            if seen.name == "minimax-m3" and flash == "on" and facts.layer > 0:
                expected = GROUPS  # without flash attention llama.cpp lets every token see all before it
            if expected:
                assert (facts.kind, facts.reason) == ("none", expected)
            else:
                assert (facts.heads, facts.kv_heads) == (heads[facts.layer], kv_heads[facts.layer])
        assert len(trace.check) == sum(facts.heads for facts in trace.layers)
        assert (trace.check.max_difference <= trace.check.tolerance).all()


def test_windows_are_those_of_the_graph(seen):
    expected = WINDOWS.get(seen.name, [None] * seen.n_layers)
    for trace in seen.traces.values():
        assert [facts.window for facts in trace.layers] == expected
        for facts in trace.layers:
            if facts.kind == "attention":
                p = trace.attention(facts.layer, facts.heads - 1)
                assert np.isfinite(p).all() and p.sum(1).max() <= 1 + 1e-4
                if facts.mask == "causal":
                    assert not np.triu(p, 1).any()


def test_hidden_states_of_every_layer_arrive_with_all_rows(seen):
    whole = seen.trace
    for trace in seen.traces.values():
        for facts in trace.layers:
            got, want = trace.hidden(facts.layer), whole.hidden(facts.layer)
            assert got.shape == (len(IDS), make_more.COMMON["embedding_length"])
            assert np.isfinite(got).all() and np.abs(got).sum(1).all()
            assert np.linalg.norm(got - want) <= 1e-2 * np.linalg.norm(want)


def test_asking_for_the_last_logits_only_changes_no_number(seen):
    whole = seen.trace
    for facts in whole.layers:
        got, want = seen.last.hidden(facts.layer), whole.hidden(facts.layer)
        assert len(got) in ((1, len(IDS)) if facts.layer == seen.n_layers - 1 else (len(IDS),))
        want = want[-len(got) :]
        assert np.linalg.norm(got - want) <= 1e-2 * np.linalg.norm(want)
        if facts.kind == "attention":
            assert np.abs(seen.last.attention(facts.layer, 0) - whole.attention(facts.layer, 0)).max() <= 1e-2
    assert seen.last.experts.keys() == whole.experts.keys()


def test_a_layer_adds_its_attention_and_its_mlp_to_the_stream(seen):
    for trace in seen.traces.values():
        for layer in range(1, seen.n_layers):
            parts = seen.contributions(trace, layer)
            assert bool(parts) == (layer not in NOT_ADDED.get(seen.name, set()))
            if parts:
                total, want = trace.hidden(layer - 1) + sum(parts.values()), trace.hidden(layer)
                assert np.linalg.norm(total - want) <= 1e-4 * np.linalg.norm(want)


def test_what_is_attention_and_what_is_mlp_is_told_apart(seen):
    for facts in seen.trace.layers[1:]:
        parts = set(seen.contributions(seen.trace, facts.layer))
        if seen.name in ("nemotron_h", "nemotron_h_moe"):  # each layer is one or the other
            assert parts == {"mlp_out" if facts.reason == FEED_FORWARD else "attention_out"}
        elif parts and facts.reason == FEED_FORWARD:
            assert parts == {"mlp_out"}
        elif parts:
            assert parts == ({"attention_out"} if seen.name == "mamba2" else {"attention_out", "mlp_out"})


def test_the_last_stream_gives_the_logits(seen):
    try:
        logits = seen.trace.logits
    except lt.CaptureUnavailable:
        assert make_more.MORE[seen.name].get("attention.causal") is False
        return
    if seen.name in OWN_HEAD:
        return
    weights, x = make_more.tensors(seen.name), seen.trace.hidden(seen.n_layers - 1)
    layer_norm, root_mean_square = x - x.mean(1, keepdims=True), x
    best = 0.0
    for centred in (layer_norm, root_mean_square):
        normed = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
        normed = normed * weights.get("output_norm.weight", weights.get("token_embd_norm.weight", 1))
        normed = normed + weights.get("output_norm.bias", 0)
        for head in ("output.weight", "token_embd.weight"):
            if head in weights:
                got = normed @ weights[head].T + weights.get("output.bias", 0)
                best = max(best, float(np.corrcoef(got.ravel(), logits.ravel())[0, 1]))
    assert best >= 0.9999


def test_experts_are_chosen_and_weighed(seen):
    header = {**make_more.COMMON, **make_more.MORE[seen.name]}
    count, used = header.get("expert_count", 0), header.get("expert_used_count", 0)
    assert bool(seen.trace.experts) == (count > 0)
    for trace in seen.traces.values():
        assert trace.experts.keys() == seen.trace.experts.keys()
        for layer, (ids, weights) in trace.experts.items():
            assert ids.shape == weights.shape == (len(IDS), used)
            assert ids.min() >= 0 and ids.max() < count and len(np.unique(ids)) > used
            assert all(len(set(row)) == used for row in ids.tolist())
            assert np.isfinite(weights).all() and (weights > 0).all()
            want_ids, want = seen.trace.experts[layer]
            same = (ids == want_ids).all(1)  # a token between two experts may tip over
            assert same.mean() >= 0.8 and np.abs(weights[same] - want[same]).max() <= 2e-2
