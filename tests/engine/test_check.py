"""The run's check of itself: what is planted wrong is caught, and named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis.attention import Mask, check
from llamatelemetry_widget.engine.wire import SharedBlock
from llamatelemetry_widget.engine.worker.capture import Capture, Scored, Ubatch
from llamatelemetry_widget.engine.worker.llama import Llama, Settings
from llamatelemetry_widget.engine.worker.run import CHECK_TOLERANCE, Run

IDS = list(range(10, 50))


@pytest.fixture(params=["on", "off"])
def captured(zoo_models, request):
    """All layers of a tiny llama (8 heads, 2 KV heads), with flash attention on and off."""
    llama = Llama(str(zoo_models / "llama.gguf"), None, [], [], lambda: False)
    context = llama.context(Settings(256, 64, 2, request.param, "f16", 1))
    capture = Capture(context.plan("self", IDS), len(IDS), {"self": len(IDS)}, range(4), ["attention"])
    layout = capture.layout()
    capture.place(SharedBlock(layout.size), layout)
    ubatch = Ubatch(0, len(IDS), (len(IDS) - 1,))
    context.run("self", IDS, 0, ubatch.outputs, capture.taps(ubatch))
    yield list(capture.scored.values())
    llama.close()


def difference(scoring, scored) -> np.ndarray:
    """Difference per head, in units of what is allowed."""
    rows = np.array([row for row, _ in scored.checked])
    out = np.stack([values for _, values in scored.checked], 1)
    return check(scoring, out, rows) / (CHECK_TOLERANCE * np.abs(scored.v).max())


def test_what_llama_cpp_computed_passes_far_below_the_tolerance(captured):
    for scored in captured:
        assert difference(scored.scoring(), scored).max() < 0.3


def test_a_wrong_head_is_caught_in_that_head_alone(captured):
    scored = captured[2]
    q = np.array(scored.q)
    q[5] = scored.q[4]
    found = difference(dataclasses.replace(scored.scoring(), q=q), scored)
    assert found[5] > 3 and np.delete(found, 5).max() < 0.3


def test_a_wrong_mask_is_caught(captured):
    scored = captured[1]
    mask = scored.scoring().mask
    narrow = Mask(np.maximum(mask.first, mask.stop - 8), mask.stop, None, False)
    wide = Mask(mask.first, np.full_like(mask.stop, len(IDS)), None, False)
    for wrong in (narrow, wide):
        assert difference(dataclasses.replace(scored.scoring(), mask=wrong), scored).max() > 3


def test_a_swapped_layer_is_caught(captured):
    one, other = captured[0].scoring(), captured[3].scoring()
    assert difference(dataclasses.replace(one, k=other.k), captured[0]).max() > 3
    assert difference(dataclasses.replace(one, v=other.v), captured[0]).max() > 3


def test_a_mismatch_ends_the_run_and_names_layer_and_head(zoo_models, monkeypatch):
    honest = Scored.scoring

    def planted(self, *arguments):
        scoring = honest(self, *arguments)
        if self.where.layer != 2:
            return scoring
        q = np.array(scoring.q)
        q[5] = scoring.q[4]
        return dataclasses.replace(scoring, q=q)

    monkeypatch.setattr(Scored, "scoring", planted)
    llama = Llama(str(zoo_models / "llama.gguf"), None, [], [], lambda: False)
    request = {
        "ids": IDS,
        "layers": None,
        "capture": ["attention"],
        "logits": "last",
        "flash_attention": "auto",
        "kv_type": "f16",
        "n_ubatch": 512,
        "memory_budget": 10**9,
    }
    sent: list[dict[str, object]] = []
    with pytest.raises(
        lt.LlamaTelemetryError, match=r"self-check failed: replayed attention of layer 2 head 5 \(self\)"
    ):
        Run(llama, request, lambda message, fd=None: sent.append(message), lambda: False)()
    assert [m["layer"] for m in sent if m["kind"] == "layer"] == [0, 1]
    llama.close()


def test_every_trace_carries_its_check(smollm2):
    trace = smollm2.trace("the sea was calm at dusk")
    assert len(trace.check) == 270
    assert list(trace.check.columns) == ["part", "layer", "head", "max_difference", "tolerance"]
    assert (trace.check.max_difference < trace.check.tolerance).all()


def test_verify_compares_with_llama_cpps_own_softmax(smollm2):
    found = smollm2.verify("The old lighthouse keeper lit the lamp at dusk, while the sea was calm.", n_ubatch=7)
    assert len(found) == 270 and found.max_difference.max() < 1e-5
