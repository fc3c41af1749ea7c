"""Figures that need a CUDA device: capture on it, all heads of 512 tokens on CuPy, UMAP of a vocabulary on cuML.

Without a device, a CUDA build of llama.cpp, CuPy or cuML this says what is missing and measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import util
from typing import Any

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis import attention
from llamatelemetry_widget.analysis.projection import umap
from llamatelemetry_widget.engine.backends import backends
from llamatelemetry_widget.telemetry.gpu import GpuTelemetry

from .figure import Figure, Skipped, at_most, interleaved, seconds, times_better
from .prompts import MODEL, prompt_ids

TOKENS = 512
ROUNDS = 5


def missing() -> str:
    """Why nothing can be measured here; empty where it can."""
    note = GpuTelemetry().read().notes.get("", "")
    if note:
        return note
    if not any(device.is_gpu for device in backends().devices):
        return "a GPU is here, but this llama.cpp was built without CUDA: lt.doctor() says how to build it"
    return "" if util.find_spec("cupy") else "CuPy is not installed: pip install 'llamatelemetry-widget[gpu-cu12]'"


def figures() -> Iterator[Figure]:
    """Each against its peer in the same run."""
    why = missing()
    if why:
        raise Skipped(why)
    with lt.open_model(MODEL) as model:
        ids = prompt_ids(model, TOKENS)
        yield _capture(model, ids)
        yield _heads(model, ids)
        if util.find_spec("cuml") is None:
            raise Skipped("UMAP: cuML is not installed: pip install 'llamatelemetry-widget[gpu-cu12]'")
        yield _umap(model)


def _capture(model: lt.Model, ids: list[int]) -> Figure:
    """Prefill with capture against plain prefill, both on the device."""
    import llama_cpp

    plain = llama_cpp.Llama(
        str(model.info.path), n_ctx=len(ids), n_batch=512, n_ubatch=512, n_gpu_layers=-1, flash_attn=True, verbose=False
    )

    def peer() -> float:
        plain.reset()
        return seconds(lambda: plain.eval(ids))

    def ours() -> float:
        trace = model.trace(ids, capture=("attention",), flash_attention="on", progress=False)
        return float(trace.telemetry["prefill_seconds"])

    peer(), ours()
    theirs, own = interleaved(ROUNDS, peer, ours)
    plain.close()
    return at_most("gpu_capture_512", own, "s", theirs, "llama-cpp-python-prefill", 1.3)


def _heads(model: lt.Model, ids: list[int]) -> Figure:
    """Statistics and thumbnails of every head: arrays on the device, against the same on this machine's CPU."""
    import cupy

    trace = model.trace(ids, capture=("attention",), progress=False)
    here = [record.scoring for record in trace._attention.values() if record.scoring is not None]
    there = [moved(s, cupy) for s in here]

    def ours() -> float:
        def run() -> None:
            for s in there:
                attention.reduce(s, trace.token_ids)
            cupy.cuda.Device().synchronize()

        return seconds(run)

    def peer() -> float:
        return seconds(lambda: [attention.reduce(s, trace.token_ids, threads=trace.info["n_threads"]) for s in here])

    ours()
    theirs, own = interleaved(ROUNDS, peer, ours)
    return times_better("gpu_all_heads_512", own, "s", theirs, "numpy", 1.0)


def moved(s: attention.Scoring, cupy: Any) -> attention.Scoring:
    """The same scoring on the device."""

    def there(x: Any) -> Any:
        return None if x is None else cupy.asarray(x)

    mask = s.mask and replace(s.mask, first=there(s.mask.first), stop=there(s.mask.stop), bits=there(s.mask.bits))
    return replace(s, mask=mask, **{name: there(getattr(s, name)) for name in ("q", "k", "v", "bias", "sinks")})


def _umap(model: lt.Model) -> Figure:
    """The map of the whole vocabulary, by cuML and by umap-learn."""
    from cuml.manifold import UMAP

    vectors = model.embeddings()
    own = seconds(lambda: umap(vectors, estimator=UMAP))
    theirs = seconds(lambda: umap(vectors))
    return times_better("gpu_umap_vocabulary", own, "s", theirs, "umap-learn", 20)
