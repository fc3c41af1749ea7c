"""Speed and memory: real passes of real workers, and what is said of repeats that differ."""

from __future__ import annotations

import math

import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.speed import measure, summed_up

IDS = [7 + at % 90 for at in range(128)]


def passes(*seconds):
    return [{"prefill_seconds": p, "decode_seconds": d, "buffers": [["weights", "CPU", 10]]} for p, d in seconds]


def test_repeats_that_agree_give_a_median_and_a_spread():
    found = summed_up(passes((1.0, 2.0), (1.05, 2.0), (1.02, 2.1)), 102, 20)
    assert found.prefill_tps == pytest.approx(100) and found.decode_tps == pytest.approx(10)
    assert found.prefill_spread == pytest.approx(102 / 100 - 102 / 1.05 / 100)
    assert found.speed_note == "" and found.memory_bytes == 10


def test_repeats_that_differ_by_more_than_a_tenth_are_not_printed():
    found = summed_up(passes((1.0, 2.0), (1.0, 2.3), (1.0, 2.0)), 100, 20)
    assert math.isnan(found.prefill_tps) and math.isnan(found.decode_tps)
    assert found.speed_note == "not comparable: 3 repeats differ in decode by 13 %"
    assert found.decode_spread == pytest.approx(1 - 2 / 2.3) and found.prefill_spread == 0


def test_candidates_take_turns_and_a_failure_is_a_note(zoo_model):
    order, heard = [], []

    def asks(name):
        model = zoo_model(name)

        def ask(message):
            order.append((name, message["kv_type"], message["warm"]))
            return model._engine.request(message)

        return ask

    llama = asks("llama")
    asked = {"f16": (llama, "f16"), "bert": (asks("bert"), "f16"), "wide": (llama, "f32"), "narrow": (llama, "q8_0")}
    found = measure(asked, IDS[:40], n_decode=4, repeats=2, progress=lambda done, total: heard.append((done, total)))
    first = [("llama", "f16", False), ("bert", "f16", False), ("llama", "f32", False), ("llama", "q8_0", False)]
    assert order == [*first, ("llama", "f16", True), ("llama", "f32", True)] and heard[-1] == (8, 8)
    assert "no cache" in found["bert"].speed_note and found["bert"].memory_bytes is None
    assert "a cache type that the model's heads do not fit" in found["narrow"].speed_note
    for own in (found["f16"], found["wide"]):
        assert own.prefill_spread >= 0 and own.decode_spread >= 0
        assert (own.prefill_tps > 0 and own.decode_tps > 0) != own.speed_note.startswith("not comparable")
    assert found["wide"].memory_bytes > found["f16"].memory_bytes


def test_memory_is_what_llama_cpp_plans(zoo_model):
    model = zoo_model("llama")
    own = measure({"llama": (model._engine.request, "f16")}, IDS[:40], n_decode=4, repeats=2, n_ctx=1024)["llama"]
    plan = model.fit(n_ctx=1024)
    assert own.memory_bytes == pytest.approx(plan.total_bytes, rel=0.02)


def test_too_few_tokens_are_refused(zoo_model):
    with pytest.raises(lt.LlamaTelemetryError, match="too few"):
        measure({"llama": (zoo_model("llama")._engine.request, "f16")}, IDS[:33])
