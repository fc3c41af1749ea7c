"""ggml by ctypes: the tensor struct, what its operations are called, and reading any slice of any tensor.

`ggml_tensor` is an internal of llama.cpp. `check_layout` builds known tensors with the loaded library and compares
what the struct below says of them, so that a library with another layout is refused at start-up and never misread.
"""

from __future__ import annotations

import ctypes as C
import functools
import os
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

from ...errors import BackendMissing, LlamaTelemetryError

Array = np.ndarray[Any, Any]
F32, F16, I32 = 0, 1, 26
MAX_SRC = 10
_USAGE_COMPUTE = 2  # ggml_backend_buffer_usage


class Tensor(C.Structure):
    """ggml_tensor as llama.cpp lays it out (llama-cpp-python 0.3.36)."""


Tensor._fields_ = [
    ("type", C.c_int),
    ("buffer", C.c_void_p),
    ("ne", C.c_int64 * 4),
    ("nb", C.c_size_t * 4),
    ("op", C.c_int),
    ("op_params", C.c_int32 * 16),
    ("flags", C.c_int32),
    ("src", C.c_void_p * MAX_SRC),
    ("view_src", C.c_void_p),
    ("view_offs", C.c_size_t),
    ("data", C.c_void_p),
    ("name", C.c_char * 64),
    ("extra", C.c_void_p),
    ("padding", C.c_char * 8),
]


class _Traits(C.Structure):
    """ggml_type_traits: how one quant type is stored and expanded."""

    _fields_ = [
        ("type_name", C.c_char_p),
        ("block", C.c_int64),
        ("interleave", C.c_int64),
        ("size", C.c_size_t),
        ("is_quantized", C.c_bool),
        ("to_float", C.c_void_p),
        ("from_float", C.c_void_p),
    ]


class _CpuTraits(C.Structure):
    """ggml_type_traits_cpu: what the CPU backend multiplies a type with."""

    _fields_ = [("from_float", C.c_void_p), ("vec_dot", C.c_void_p), ("vec_dot_type", C.c_int), ("nrows", C.c_int64)]


class InitParams(C.Structure):
    """ggml_init_params."""

    _fields_ = [("mem_size", C.c_size_t), ("mem_buffer", C.c_void_p), ("no_alloc", C.c_bool)]


def library(name: str) -> C.CDLL:
    """One of llama.cpp's libraries, out of llama-cpp-python's own folder."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    suffix = {"darwin": ".dylib"}.get(sys.platform, ".so")
    path = folder / f"lib{name}{suffix}"
    if not path.exists():
        raise BackendMissing(
            f"this llama-cpp-python has no {path.name}; install one built with it, "
            f'e.g. CMAKE_ARGS="-DGGML_RPC=ON" pip install llama-cpp-python'
        )
    return C.CDLL(os.fspath(path))


def declared(lib: C.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    """A C function with its types."""
    function = getattr(lib, name)
    function.restype, function.argtypes = result, arguments
    return function


BASE = library("ggml-base")
op_name_of = declared(BASE, "ggml_op_name", C.c_char_p, C.c_int)
unary_op = declared(BASE, "ggml_get_unary_op", C.c_int, C.c_void_p)
unary_name = declared(BASE, "ggml_unary_op_name", C.c_char_p, C.c_int)
n_bytes = declared(BASE, "ggml_nbytes", C.c_size_t, C.c_void_p)
buffer_usage = declared(BASE, "ggml_backend_buffer_get_usage", C.c_int, C.c_void_p)
buffer_name = declared(BASE, "ggml_backend_buffer_name", C.c_char_p, C.c_void_p)
is_host = declared(BASE, "ggml_backend_buffer_is_host", C.c_bool, C.c_void_p)
tensor_get = declared(BASE, "ggml_backend_tensor_get", None, C.c_void_p, C.c_void_p, C.c_size_t, C.c_size_t)
traits_of = declared(BASE, "ggml_get_type_traits", C.POINTER(_Traits), C.c_int)
_TO_FLOAT = C.CFUNCTYPE(None, C.c_void_p, C.c_void_p, C.c_int64)


@functools.cache
def op_name(code: int) -> str:
    """What ggml calls this operation, e.g. ``FLASH_ATTN_EXT``."""
    return bytes(op_name_of(code)).decode()


def at(address: int) -> Tensor:
    """The tensor struct at an address of this process."""
    return Tensor.from_address(address)


def params(tensor: Tensor, n: int) -> list[float]:
    """The first `n` operation parameters read as float32."""
    return [float(x) for x in np.frombuffer(tensor.op_params, np.float32, n)]


def type_name(code: int) -> str:
    """What ggml calls a tensor type, e.g. ``q8_0``."""
    return bytes(traits_of(code).contents.type_name).decode()


def place(tensor: Tensor) -> str:
    """What the backend calls the buffer that a tensor lies in, e.g. ``CPU``; a view lies where its root lies."""
    root = at(tensor.view_src) if tensor.view_src else tensor
    return bytes(buffer_name(root.buffer)).decode() if root.buffer else ""


def on_host(tensor: Tensor) -> bool:
    """Whether the tensor's bytes can be read through `data`; a view lies where its root lies."""
    root = at(tensor.view_src) if tensor.view_src else tensor
    return bool(root.buffer) and bool(is_host(root.buffer))


def outlives_graph(tensor: Tensor) -> bool:
    """Whether the tensor's memory is its own, like a cache's; results of operations lie where later ones lie, too."""
    root = at(tensor.view_src) if tensor.view_src else tensor
    return bool(root.buffer) and int(buffer_usage(root.buffer)) != _USAGE_COMPUTE


def read(tensor: Tensor, axis: int = 1, start: int = 0, stop: int | None = None) -> Array:
    """A copy of a tensor, or of the slice ``start:stop`` along one of its axes, with axes reversed (NumPy's order).

    Parameters
    ----------
    tensor : Tensor
        Computed, on any backend. Strides are respected, so views and permuted tensors read correctly.
    axis : {0, 1, 2, 3}
        ggml's axis (0 runs fastest) to cut.
    start, stop : int
        The range; None reads to the end.

    Returns
    -------
    ndarray, shape (ne3, ne2, ne1, ne0)
        float16 and int32 as they are; float32 for everything else, quantized types expanded.
    """
    ne, nb = [int(n) for n in tensor.ne], [int(n) for n in tensor.nb]
    stop = ne[axis] if stop is None else min(stop, ne[axis])
    ne[axis] = max(stop - start, 0)
    if 0 in ne:
        return np.empty(ne[::-1], np.float32)
    traits = traits_of(tensor.type).contents
    plain = {F32: np.float32, F16: np.float16, I32: np.int32}.get(tensor.type)
    if plain is None:  # blocks run along axis 0, which nobody here cuts: a row is bytes
        width, ne[0], nb[0] = ne[0], ne[0] // traits.block * traits.size, 1
    dtype = np.dtype(plain or np.uint8)
    offset = start * nb[axis]
    span = sum((n - 1) * b for n, b in zip(ne, nb, strict=True)) + dtype.itemsize
    memory = _span(tensor, offset, span)
    view: Array = np.ndarray(ne[::-1], dtype, memory, 0, nb[::-1])
    return np.array(view) if plain else expand(np.ascontiguousarray(view), traits, width)


def _span(tensor: Tensor, offset: int, size: int) -> Any:
    if on_host(tensor):
        return (C.c_char * size).from_address(tensor.data + offset)
    copy = np.empty(size, np.uint8)
    tensor_get(C.addressof(tensor), copy.ctypes.data, offset, size)
    return copy


def expand(rows: Array, traits: _Traits, width: int) -> Array:
    """Quantized or BF16 rows of bytes as float32, by ggml's own function."""
    out = np.empty((*rows.shape[:-1], width), np.float32)
    if not traits.to_float:
        raise LlamaTelemetryError(f"llama.cpp cannot expand tensors of type {traits.type_name.decode()}")
    convert = _TO_FLOAT(traits.to_float)
    convert(rows.ctypes.data, out.ctypes.data, out.size)  # rows lie one after another, each a whole number of blocks
    return out


def round_like(q: Array, k_type: int) -> Array:
    """Query vectors as the CPU backend multiplies them with keys of `k_type`: rounded to that type's partner.

    Parameters
    ----------
    q : ndarray, float32
        Contiguous; the last axis is the head size.
    k_type : int
        ggml type of the keys.
    """
    if k_type == F32:
        return q
    if k_type == F16:
        return q.astype(np.float16)
    cpu = library("ggml-cpu")
    partner_of = declared(cpu, "ggml_get_type_traits_cpu", C.POINTER(_CpuTraits), C.c_int)
    partner = partner_of(k_type).contents.vec_dot_type
    traits, source = traits_of(partner).contents, np.ascontiguousarray(q, np.float32)
    if not traits.from_float or not traits.to_float:  # Q8_1 has no way back; Q8_0 rounds the same values the same way
        traits = traits_of(8).contents
    packed = np.empty(source.size // traits.block * traits.size, np.uint8)
    _TO_FLOAT(traits.from_float)(source.ctypes.data, packed.ctypes.data, source.size)
    out = np.empty_like(source)
    _TO_FLOAT(traits.to_float)(packed.ctypes.data, out.ctypes.data, source.size)
    return out


def check_layout() -> None:
    """Refuse a library whose `ggml_tensor` is laid out otherwise than `Tensor` says.

    Raises
    ------
    BackendMissing
        Names the version found and the range that is known to fit.
    """
    init = declared(BASE, "ggml_init", C.c_void_p, InitParams)
    free = declared(BASE, "ggml_free", None, C.c_void_p)
    new = declared(BASE, "ggml_new_tensor_3d", C.c_void_p, C.c_void_p, C.c_int, C.c_int64, C.c_int64, C.c_int64)
    set_name = declared(BASE, "ggml_set_name", C.c_void_p, C.c_void_p, C.c_char_p)
    soft_max = declared(BASE, "ggml_soft_max_ext", C.c_void_p, C.c_void_p, C.c_void_p, C.c_void_p, C.c_float, C.c_float)
    permute = declared(BASE, "ggml_permute", C.c_void_p, C.c_void_p, C.c_void_p, C.c_int, C.c_int, C.c_int, C.c_int)
    context = init(InitParams(1 << 16, None, False))
    try:
        scores = new(context, F32, 5, 3, 2)
        mask = new(context, F16, 5, 3, 1)
        set_name(scores, b"known-7")
        soft, turned = soft_max(context, scores, mask, 0.25, 8.0), permute(context, scores, 0, 2, 1, 3)
        known, result, view = at(scores), at(soft), at(turned)
        plain = [
            (list(known.ne), [5, 3, 2, 1]),
            (list(known.nb), [4, 20, 60, 120]),
            (known.type, F32),
            (known.name, b"known-7"),
            (bool(known.data), True),
            (params(result, 2), [0.25, 8.0]),
            (list(result.src)[:3], [scores, mask, None]),
            (view.view_src, scores),
            (view.data, known.data),
            (list(view.ne), [5, 2, 3, 1]),
        ]
        _refuse_other_layout(plain)
        _refuse_other_layout([(op_name(result.op), "SOFT_MAX")])  # only now: an operation out of range would crash
    finally:
        free(context)


def _refuse_other_layout(facts: list[tuple[Any, Any]]) -> None:
    for found, expected in facts:
        if found != expected:
            raise BackendMissing(
                f"llama-cpp-python {llama_cpp.__version__} lays out ggml_tensor in a way this version does not know "
                f"(found {found!r}, expected {expected!r}); install llama-cpp-python>=0.3.36,<0.4"
            )
