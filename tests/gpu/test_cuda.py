"""What only a CUDA device can show: analysis on CuPy, memory that is not copied, a worker on one GPU, real counters.

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
from llamatelemetry_widget.engine.worker.device import DeviceArray
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


def test_the_worker_sees_one_gpu():
    with lt.open_model("smollm2", gpu=0) as model:
        assert model.trace("a b c", progress=False).info["device"] == "CUDA0"


def test_counters_and_devices_are_real():
    sample = GpuTelemetry().read()
    assert sample.values["gpu0.memory_total"] > 1e9
    assert any(device.is_gpu and device.total > 1e9 for device in backends().devices)
