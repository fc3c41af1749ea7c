"""Reductions where the attention was scored, of real runs of llama.cpp.

There is no GPU here. A stand-in says so of the host's memory and plays CuPy on it (folder `stand_in`): what these tests
show is which memory is read when, that the numbers are those of the host, and what happens when a device fails.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from analysis.test_reduce import assert_same

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis import attention
from llamatelemetry_widget.engine import client
from llamatelemetry_widget.engine.wire import SharedBlock
from llamatelemetry_widget.engine.worker import ggml
from llamatelemetry_widget.engine.worker.capture import Capture, Ubatch
from llamatelemetry_widget.engine.worker.device import OnDevice
from llamatelemetry_widget.engine.worker.llama import Llama, Settings
from llamatelemetry_widget.engine.worker.run import Run

STAND_IN = Path(__file__).parent / "stand_in"
IDS = [5 + i * 7 % 60 for i in range(90)]
KEY = "self", 1
MODELS = ["llama", "gemma2", "gemma3", "gpt-oss", "gpt2", "mpt", "deepseek2", "lfm2", "qwen3moe", "bert", "t5"]


@pytest.fixture
def boot(monkeypatch):
    """Puts a statement before the start of every worker."""

    def first(statement):
        monkeypatch.setattr(client, "_BOOT", client._BOOT.replace("from llama", f"{statement}; from llama"))

    return first


@pytest.fixture
def on_device(zoo_model, boot):
    """Opens a file of the zoo in a worker that takes its memory for a GPU's."""
    boot(f"sys.path.insert(0, {str(STAND_IN)!r}); import on_device")
    return zoo_model


def assert_reduced_as_on_the_host(trace):
    assert trace._attention
    for (part, _), record in trace._attention.items():
        ids = {"decoder": trace.decoder and trace.decoder[0], "cross": None}.get(part, trace.token_ids)
        assert_same(record.reduced, attention.reduce(record.scoring, ids))
    assert (trace.check.max_difference <= trace.check.tolerance).all()


@pytest.mark.parametrize("flash", ["on", "off"])
@pytest.mark.parametrize("name", MODELS)
def test_the_numbers_are_those_of_the_host(on_device, name, flash):
    trace = on_device(name).trace(IDS, flash_attention=flash, n_ubatch=32)
    assert trace.telemetry["reduced_on"] == "CUDA0" and "reduced_on_cpu_because" not in trace.telemetry
    assert_reduced_as_on_the_host(trace)


@pytest.mark.parametrize("flash", ["on", "off"])
def test_keys_that_are_cast_for_the_scoring_are_not_taken_for_the_cache(on_device, flash):
    trace = on_device("llama").trace(IDS, flash_attention=flash, n_ubatch=32, kv_type="f32")
    assert trace.telemetry["reduced_on"] == "CUDA0"
    assert_reduced_as_on_the_host(trace)


def test_a_trace_is_that_of_a_worker_without_a_device(zoo_models, on_device, monkeypatch):
    there = on_device("llama").trace(IDS)
    monkeypatch.undo()
    with lt.open_model(zoo_models / "llama.gguf") as model:
        here = model.trace(IDS)
    assert (there.telemetry["reduced_on"], here.telemetry["reduced_on"]) == ("CUDA0", "CPU")
    for key, record in there._attention.items():
        assert_same(record.reduced, here._attention[key].reduced)
        np.testing.assert_array_equal(record.scoring.q, here._attention[key].scoring.q)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_text_that_is_written_is_reduced_there_again(on_device, name):
    trace = on_device(name).generate(IDS, 8, n_ubatch=32).result()
    assert trace.telemetry["reduced_on"] == "CUDA0" and len(trace.generation) == 8
    assert_reduced_as_on_the_host(trace)


def test_a_text_that_is_stopped_keeps_its_rows(on_device):
    generation = on_device("llama").generate(IDS, 400)
    for token in generation:
        if token.position == len(IDS) + 4:
            generation.cancel()
    trace = generation.result()
    assert generation.finish_reason == "cancelled" and trace.telemetry["reduced_on"] == "CUDA0"
    assert_reduced_as_on_the_host(trace)


# ------------------------------------------------------------------ where the device cannot


def test_without_a_device_cupy_is_not_even_imported(zoo_model, boot, tmp_path):
    (tmp_path / "cupy.py").write_text("import os; os._exit(9)")
    boot(f"sys.path.insert(0, {str(tmp_path)!r})")
    telemetry = zoo_model("llama").trace(IDS).telemetry
    assert telemetry["reduced_on"] == "CPU" and "reduced_on_cpu_because" not in telemetry


def test_nothing_is_reduced_where_no_attention_is_captured(zoo_model):
    assert zoo_model("mamba").trace(IDS).telemetry["reduced_on"] is None
    assert zoo_model("llama").trace(IDS, capture=("hidden",)).telemetry["reduced_on"] is None


def test_a_quantized_cache_is_reduced_on_the_host(on_device, smollm2_path):
    trace = on_device(smollm2_path.with_suffix("")).trace(IDS, layers=range(2), kv_type="q8_0")
    assert trace.telemetry["reduced_on"] == "CPU"
    assert trace.telemetry["reduced_on_cpu_because"] == "keys of type q8_0 are expanded on the CPU"
    assert_reduced_as_on_the_host(trace)


def test_another_kind_of_device_is_not_read_as_a_cuda_device(on_device, monkeypatch):
    monkeypatch.setenv("STAND_IN_PLACE", "RPC0[10.0.0.2:50052]")
    trace = on_device("llama").trace(IDS)
    assert trace.telemetry["reduced_on"] == "CPU" and "RPC0" in trace.telemetry["reduced_on_cpu_because"]
    assert_reduced_as_on_the_host(trace)


def test_without_cupy_the_host_reduces_and_says_what_is_missing(on_device, boot, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libnvrtc.so.12: cannot open shared object file')")
    boot(f"sys.path.insert(0, {str(tmp_path)!r})")
    trace = on_device("llama").trace(IDS)
    assert trace.telemetry["reduced_on"] == "CPU"
    assert trace.telemetry["reduced_on_cpu_because"].startswith("CuPy cannot be imported (libnvrtc.so.12: cannot open")
    assert_reduced_as_on_the_host(trace)


@pytest.mark.parametrize("after", [0, 13], ids=["at once", "in the second ubatch"])
def test_a_device_that_fails_leaves_everything_to_the_host(on_device, monkeypatch, after):
    monkeypatch.setenv("STAND_IN_FAILS_AFTER", str(after))
    trace = on_device("llama").trace(IDS, n_ubatch=64)
    assert trace.telemetry["reduced_on"] == "CPU"
    assert trace.telemetry["reduced_on_cpu_because"] == "MemoryError: Out of memory allocating 512 bytes"
    assert_reduced_as_on_the_host(trace)


def test_a_device_that_fails_in_a_reduction_leaves_the_rest_to_the_host(on_device, boot):
    boot("on_device.fail_in_reduction(3)")
    model = on_device("llama")
    for where in "CUDA0, CPU", "CPU":  # the next run tries again
        trace = model.trace(IDS, n_ubatch=64)
        assert trace.telemetry["reduced_on"] == where
        assert trace.telemetry["reduced_on_cpu_because"] == "MemoryError: Out of memory allocating 512 bytes"
        assert_reduced_as_on_the_host(trace)


def test_a_device_that_fails_while_a_text_is_written_leaves_the_rest_to_the_host(on_device, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAILS_AFTER", "30")
    trace = on_device("llama").generate(IDS, 8).result()
    assert len(trace.generation) == 8
    assert trace.telemetry["reduced_on"] == "CPU" and "MemoryError" in trace.telemetry["reduced_on_cpu_because"]
    assert_reduced_as_on_the_host(trace)


# --------------------------------------------------------------------------- which memory


@pytest.fixture
def stand_in():
    """The module that plays CuPy, under a name of its own."""
    spec = importlib.util.spec_from_file_location("plays_cupy", STAND_IN / "cupy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def kept(zoo_models, stand_in, monkeypatch):
    """Captures a zoo model's prompt in this process: what is kept on the device, the host's copies, addresses of k."""
    monkeypatch.setattr(ggml, "on_host", lambda tensor: False)
    monkeypatch.setattr(ggml, "place", lambda tensor: "CUDA0")
    opened, addresses, keep = [], {}, OnDevice.keep

    def noted(self, key, whole, q, k, start, keys):
        addresses[key] = k.data
        keep(self, key, whole, q, k, start, keys)

    monkeypatch.setattr(OnDevice, "keep", noted)

    def capture(name, flash, kv_type="f16"):
        llama = Llama(str(zoo_models / f"{name}.gguf"), None, [], [], lambda: False)
        opened.append(llama)
        context = llama.context(Settings(256, 64, 64, flash, kv_type, 1))
        plan, device = context.plan("self", IDS), OnDevice()
        device._cupy = stand_in
        made = Capture(plan, 64, {"self": 64}, range(4), ["attention"], device=device)
        layout = made.layout()
        made.place(SharedBlock(layout.size), layout)
        context.clear()
        context.run("self", IDS[:64], 0, range(64), made.taps(Ubatch(0, 64, tuple(range(64)))))
        return device, made.scored, addresses

    yield capture
    for llama in opened:
        llama.close()


@pytest.mark.parametrize("flash", ["on", "off"])
def test_keys_stay_where_they_lie_in_the_cache_and_queries_are_rounded_copies(kept, flash):
    device, scored, addresses = kept("llama", flash)
    assert len(device._kept) == 4
    for key, there in device._kept.items():
        assert there.k.data.ptr == addresses[key]  # no copy
        assert not np.shares_memory(there.q.memory, scored[key].q) and there.q.dtype == np.float16
        np.testing.assert_array_equal(there.k.get(), scored[key].k)
        np.testing.assert_array_equal(there.q.get(), scored[key].q)


@pytest.mark.parametrize(("name", "kv_type"), [("bert", "f16"), ("llama", "f32")])
def test_keys_in_memory_that_is_used_again_are_copied(kept, name, kv_type):
    device, scored, addresses = kept(name, "on", kv_type)
    for key, there in device._kept.items():
        assert there.k.data.ptr != addresses[key]
        np.testing.assert_array_equal(there.k.get(), scored[key].k)


def test_rows_that_the_cpu_scored_are_missed(kept):
    device, scored, _ = kept("llama", "on")
    scoring = scored[KEY].scoring()
    device._kept[KEY].rows = 32
    assert device.reduce(KEY, scoring, None, None) is None
    assert device.places == "CPU" and device.why == "some of the rows were scored by the CPU"


def test_the_device_s_memory_is_given_back_after_every_run(zoo_models, monkeypatch):
    closed = []
    monkeypatch.setattr(OnDevice, "close", lambda self: closed.append(True))
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
    sent = []
    with pytest.raises(lt.EngineCancelled):
        Run(
            llama,
            request,
            lambda message, fd=None: sent.append(message),
            lambda: any(m["kind"] == "layer" for m in sent),
        )()
    Run(llama, request, lambda message, fd=None: None, lambda: False)()
    assert len(closed) == 2
    llama.close()


def test_closing_empties_the_pool(kept, stand_in):
    device, _, _ = kept("llama", "on")
    device.close()
    assert not device._kept and stand_in.Pool.emptied == 1
