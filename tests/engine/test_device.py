"""Tensors looked at where they lie. There is no GPU here: NumPy reads the same description of memory of the host."""

from __future__ import annotations

import ctypes as C

import numpy as np
import pytest

from llamatelemetry_widget.engine.worker import ggml
from llamatelemetry_widget.engine.worker.device import DeviceArray, view
from llamatelemetry_widget.errors import LlamaTelemetryError


class OnHost:
    """The description that CuPy would get, under the name that NumPy asks for: both have the same keys."""

    def __init__(self, seen: DeviceArray) -> None:
        self.__array_interface__ = seen.__cuda_array_interface__


@pytest.fixture
def context():
    made = ggml.declared(ggml.BASE, "ggml_init", C.c_void_p, ggml.InitParams)(ggml.InitParams(1 << 16, None, False))
    yield made
    ggml.declared(ggml.BASE, "ggml_free", None, C.c_void_p)(made)


def tensor(context, kind, *ne):
    new = ggml.declared(
        ggml.BASE, "ggml_new_tensor_3d", C.c_void_p, C.c_void_p, C.c_int, C.c_int64, C.c_int64, C.c_int64
    )
    return new(context, kind, *ne)


@pytest.mark.parametrize(("kind", "dtype"), [(ggml.F32, "f4"), (ggml.F16, "f2"), (ggml.I32, "i4")])
def test_the_same_memory_in_ggmls_order_and_turned(context, kind, dtype):
    pointer = tensor(context, kind, 5, 3, 2)
    own = np.arange(30).reshape(1, 2, 3, 5).astype(dtype)
    C.memmove(ggml.at(pointer).data, own.ctypes.data, own.nbytes)
    seen = np.asarray(OnHost(view(ggml.at(pointer))))
    assert seen.dtype == own.dtype and not seen.flags.writeable
    assert seen.__array_interface__["data"][0] == ggml.at(pointer).data  # not a copy
    np.testing.assert_array_equal(seen, own)
    permute = ggml.declared(
        ggml.BASE, "ggml_permute", C.c_void_p, C.c_void_p, C.c_void_p, C.c_int, C.c_int, C.c_int, C.c_int
    )
    turned = np.asarray(OnHost(view(ggml.at(permute(context, pointer, 0, 2, 1, 3)))))
    np.testing.assert_array_equal(turned, own.transpose(0, 2, 1, 3))


def test_quantized_tensors_are_refused(context):
    with pytest.raises(LlamaTelemetryError, match="float32, float16 and int32"):
        view(ggml.at(tensor(context, 8, 32, 3, 2)))
