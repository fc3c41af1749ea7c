"""What only a CUDA device can show: analysis on CuPy, memory that is not copied, reductions there, a worker on one GPU,
real counters.

In: a machine with a CUDA build of llama.cpp and CuPy. Out: the same numbers as NumPy's.
"""

from __future__ import annotations

import numpy as np
import pytest
from analysis.test_replay import CASES

import llamatelemetry_widget as lt
from benchmarks.gpu import moved
from llamatelemetry_widget.analysis import attention
from llamatelemetry_widget.engine.backends import backends
from llamatelemetry_widget.engine.wire import SharedBlock
from llamatelemetry_widget.engine.worker.capture import Capture, Ubatch
from llamatelemetry_widget.engine.worker.device import DeviceArray, OnDevice
from llamatelemetry_widget.engine.worker.llama import Llama, Settings
from llamatelemetry_widget.telemetry.gpu import GpuTelemetry


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy")


@pytest.mark.parametrize("name", CASES)
def test_analysis_on_cupy_gives_what_numpy_gives(cupy, name):
    s, _ = CASES[name]
    there = moved(s, cupy)
    got, want = attention.reduce(there, None, side=8), attention.reduce(s, None, side=8)
    assert isinstance(got.thumb_max, cupy.ndarray)
    np.testing.assert_allclose(cupy.asnumpy(got.thumb_max), want.thumb_max, atol=1)
    np.testing.assert_allclose(cupy.asnumpy(attention.replay(there, 0)), attention.replay(s, 0), atol=1e-3)


def test_memory_of_a_device_is_not_copied(cupy):
    own = cupy.arange(12, dtype=cupy.float32).reshape(3, 4)
    seen = cupy.asarray(DeviceArray(own.data.ptr, own.shape, own.strides, "<f4"))
    assert seen.data.ptr == own.data.ptr
    own[0, 0] = 7
    assert float(seen[0, 0]) == 7


def test_a_trace_of_a_cuda_build_is_that_of_the_cpu(zoo_models):
    with (
        lt.open_model(zoo_models / "llama.gguf") as there,
        lt.open_model(zoo_models / "llama.gguf", n_gpu_layers=0) as here,
    ):
        one, two = (model.trace("the sea was calm", progress=False) for model in (there, here))
    assert one.info["device"].startswith("CUDA") and (one.check["max_difference"] <= one.check["tolerance"]).all()
    np.testing.assert_allclose(one.attention(0, 0), two.attention(0, 0), atol=5e-3)
    assert (one.telemetry["reduced_on"], two.telemetry["reduced_on"]) == ("CUDA0", "CPU")


@pytest.mark.parametrize("flash", ["on", "off"])
@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt-oss", "mpt", "bert", "t5"])
def test_reductions_on_the_device_are_those_of_the_host(zoo_models, name, flash):
    ids = [5 + i * 7 % 60 for i in range(90)]
    with lt.open_model(zoo_models / f"{name}.gguf") as model:
        trace = model.trace(ids, flash_attention=flash, n_ubatch=32, progress=False)
    assert trace.telemetry["reduced_on"] == "CUDA0" and "reduced_on_cpu_because" not in trace.telemetry
    for (part, _), record in trace._attention.items():
        own = {"decoder": trace.decoder and trace.decoder[0], "cross": None}.get(part, trace.token_ids)
        want = attention.reduce(record.scoring, own)
        for statistic, values in want.statistics.items():
            np.testing.assert_allclose(record.reduced.statistics[statistic], values, rtol=1e-3, atol=1e-4)
        for mine, other in ((record.reduced.thumb_max, want.thumb_max), (record.reduced.thumb_mean, want.thumb_mean)):
            np.testing.assert_allclose(mine.astype(int), other.astype(int), atol=1)


def test_a_text_that_is_written_is_reduced_on_the_device(zoo_models):
    with lt.open_model(zoo_models / "llama.gguf") as model:
        telemetry = model.generate("the sea was calm", 20).result().telemetry
    assert telemetry["reduced_on"] == "CUDA0" and "reduced_on_cpu_because" not in telemetry


def test_a_quantized_cache_is_reduced_on_the_host():
    with lt.open_model("smollm2") as model:
        telemetry = model.trace("the sea was calm", kv_type="q8_0", flash_attention="on", progress=False).telemetry
    assert telemetry["reduced_on"] == "CPU" and "q8_0" in telemetry["reduced_on_cpu_because"]


def test_keys_are_read_where_they_lie_in_the_cache(cupy, zoo_models, monkeypatch):
    addresses, keep = {}, OnDevice.keep

    def noted(self, key, whole, q, k, start, keys):
        addresses[key] = k.data
        keep(self, key, whole, q, k, start, keys)

    monkeypatch.setattr(OnDevice, "keep", noted)
    ids = list(range(10, 50))
    llama, device = Llama(str(zoo_models / "llama.gguf"), None, [], [], lambda: False), OnDevice()
    context = llama.context(Settings(256, 64, 2, "on", "f16", 1))
    capture = Capture(context.plan("self", ids), len(ids), {"self": len(ids)}, range(4), ["attention"], device=device)
    layout = capture.layout()
    capture.place(SharedBlock(layout.size), layout)
    ubatch = Ubatch(0, len(ids), (len(ids) - 1,))
    context.run("self", ids, 0, ubatch.outputs, capture.taps(ubatch))
    assert not device.why and len(device._kept) == 4
    for key, there in device._kept.items():
        assert there.k.data.ptr == addresses[key]
        np.testing.assert_array_equal(cupy.asnumpy(there.k), capture.scored[key].k)
        np.testing.assert_array_equal(cupy.asnumpy(there.q), capture.scored[key].q)
    device.close()
    llama.close()


def test_the_worker_sees_one_gpu():
    with lt.open_model("smollm2", gpu=0) as model:
        assert model.trace("a b c", progress=False).info["device"] == "CUDA0"


def test_counters_and_devices_are_real():
    sample = GpuTelemetry().read()
    assert sample.values["gpu0.memory_total"] > 1e9
    assert any(device.is_gpu and device.total > 1e9 for device in backends().devices)
