"""Tensors that lie on a GPU, for array libraries of that GPU: the same memory, not a copy.

In: a ggml tensor of a CUDA build. Out: an object that ``cupy.asarray`` takes as it is; `analysis` then runs there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ...errors import LlamaTelemetryError
from . import ggml

_TYPES = {ggml.F32: ("<f4", 4), ggml.F16: ("<f2", 2), ggml.I32: ("<i4", 4)}


@dataclass(frozen=True)
class DeviceArray:
    """Memory of a GPU that llama.cpp owns; valid until the operation after the one that was stopped at.

    Attributes
    ----------
    pointer : int
        Address on the device.
    shape, strides : tuple of int
        Slowest axis first; strides in bytes.
    typestr : str
        As NumPy writes it.
    """

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    typestr: str

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3, read only."""
        return {
            "version": 3,
            "shape": self.shape,
            "strides": self.strides,
            "typestr": self.typestr,
            "data": (self.pointer, True),
        }


def view(tensor: ggml.Tensor) -> DeviceArray:
    """A tensor where it lies, shape (ne3, ne2, ne1, ne0).

    Raises
    ------
    LlamaTelemetryError
        Its type is quantized: there are no numbers that could be looked at without expanding them.
    """
    if tensor.type not in _TYPES:
        raise LlamaTelemetryError("only float32, float16 and int32 tensors can be looked at where they lie")
    typestr, size = _TYPES[tensor.type]
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    if math.prod(shape) and strides[-1] % size:
        raise LlamaTelemetryError("this tensor's numbers lie across each other")
    return DeviceArray(int(tensor.data or 0), shape, strides, typestr)
