"""What a run cost, as the trace tells it: times, CPU, memory by owner, the context, and what capture adds."""

from __future__ import annotations

import os

import numpy as np
import psutil
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.worker.log import allocated

IDS = list(range(5, 21))
SOMETIMES = {"overhead", "context_reused", "reduced_on_cpu_because"}


def owners(telemetry):
    return {row["owner"]: row["bytes"] for row in telemetry["memory"]}


def test_a_run_that_writes_tells_all_its_figures(zoo_model):
    generation = zoo_model("llama").generate(IDS, 8)
    trace = generation.result()
    told = trace.telemetry
    assert generation.telemetry is told and set(lt.trace.RunTelemetry.__annotations__) - set(told) <= SOMETIMES
    seconds = trace.generation["seconds"]
    assert told["decode_seconds"] == pytest.approx(seconds.sum())
    assert told["decode_tokens_per_second"] == pytest.approx(8 / seconds.sum())
    assert told["between_tokens"] == {f"p{p}": pytest.approx(np.percentile(seconds, p)) for p in (50, 95, 99)}
    assert told["decode_threads_used"] == pytest.approx(trace.generation["cpu_seconds"].sum() / seconds.sum())
    assert told["prefill_tokens_per_second"] == pytest.approx(16 / told["prefill_seconds"])
    assert (told["context_used"], told["context_size"], told["finish_reason"]) == (24, 256, "length")
    assert 0 < told["prefill_threads_used"] < 2 * (os.cpu_count() or 1)


@pytest.mark.parametrize("name", ["llama", "gemma3", "mamba", "t5", "bert"])
def test_memory_is_what_llama_cpp_says_of_its_buffers(zoo_model, name):
    model = zoo_model(name)
    told = model.trace(IDS).telemetry
    found = owners(told)
    weights = sum(node.n_bytes for node in model.tree.root.tensors)
    assert found["weights"] == pytest.approx(weights, rel=0.1)
    assert found["compute"] > 0 and found["capture"] > 0
    assert ("recurrent" in found) == (name == "mamba") and ("kv" in found) == (name in ("llama", "gemma3", "t5"))
    assert told["worker_memory_bytes"] == pytest.approx(psutil.Process(model.worker_pid).memory_info().rss, rel=0.2)
    assert told["kernel_memory_bytes"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


def test_memory_is_that_of_the_run_and_not_of_the_one_before(zoo_model):
    model = zoo_model("llama")
    short, long, again = (owners(model.trace(ids).telemetry) for ids in (IDS, IDS * 20, IDS))
    assert (
        long["kv"] == pytest.approx(2 * short["kv"], rel=1e-3)
        and long["weights"] == short["weights"]
        and again["kv"] == short["kv"]
    )


def test_the_log_s_buffers_are_added_up_by_owner_and_place():
    text = (
        "load_tensors:   CPU_Mapped model buffer size =    10.00 MiB\n"
        "load_tensors:        CUDA0 model buffer size =    80.00 MiB\n"
        "llama_kv_cache:      CUDA0 KV buffer size =     1.50 MiB\n"
        "llama_kv_cache:      CUDA0 KV buffer size =     0.50 MiB\n"
        "llama_context:        CPU  output buffer size =     0.25 MiB\n"
        "llama_kv_cache: size =    2.00 MiB (   256 cells,   4 layers,  1/1 seqs)\n"
    )
    mib = 1024 * 1024
    assert allocated(text) == [
        ["weights", "CPU_Mapped", 10 * mib],
        ["weights", "CUDA0", 80 * mib],
        ["kv", "CUDA0", 2 * mib],
        ["output", "CPU", mib // 4],
    ]


def test_the_overhead_of_capture_is_measured_on_request_and_kept_beside(zoo_model, tmp_path):
    model = zoo_model("llama")
    trace = model.trace(IDS)
    before = dict(trace.telemetry)
    found = trace.measure_overhead(2)
    assert set(found) == {"repeats", "prefill_seconds", "plain_prefill_seconds", "prefill_ratio"}
    assert found["prefill_ratio"] == found["prefill_seconds"] / found["plain_prefill_seconds"]
    assert trace.telemetry == {**before, "overhead": found}
    trace.save(tmp_path / "t.safetensors")
    loaded = lt.load_trace(tmp_path / "t.safetensors")
    assert loaded.telemetry == trace.telemetry
    with pytest.raises(lt.CaptureUnavailable, match="keep the model open"):
        loaded.measure_overhead()


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_the_overhead_of_a_text_that_was_written_tells_its_decode_too(zoo_model, name):
    trace = zoo_model(name).generate(IDS[:4], 2, temperature=1.0, seed=3).result()
    tokens, rows = trace.tokens, trace.generation
    found = trace.measure_overhead(1)
    assert found["decode_seconds"] > 0 and found["plain_decode_seconds"] > 0 and found["decode_ratio"] > 0
    assert trace.tokens == tokens and trace.generation.equals(rows)
