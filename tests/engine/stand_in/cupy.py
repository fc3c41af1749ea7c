"""Plays CuPy on a machine without a GPU: the memory of the host stands for that of a device.

NumPy computes, but may not touch these arrays unasked, nor these functions NumPy's arrays, as it is with CuPy.
`asarray` wraps what `__cuda_array_interface__` describes without a copy. Assignments and copies are queued like a
GPU's: they are carried out when somebody waits (`Device.synchronize`) or looks, with what the memory holds by then.
`STAND_IN_FAILS_AFTER` is how many can be wrapped before the device's memory is said to be full.
"""

from __future__ import annotations

import builtins  # some of whose names stand for NumPy's functions below
import ctypes
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

wrapped = 0  # arrays that lay on the device already
_queue: list[Callable[[], None]] = []


class Device:
    """The one device; entered like CuPy's."""

    id = 0

    def __init__(self, _id: int | None = None) -> None:
        """Any number is this one."""

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was changed."""

    def synchronize(self) -> None:
        while _queue:
            _queue.pop(0)()


class ndarray:
    """An array "on the device"."""

    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    @property
    def looked_at(self) -> np.ndarray:
        """What it holds once all that was queued is done."""
        self.device.synchronize()
        return self.memory

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0  # kDLCUDA

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__array"):
            raise AttributeError(name)
        found = getattr(self.memory, name)
        return _function(found) if callable(found) else _there(found)

    @property
    def device(self) -> Device:
        return Device()

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.memory.__array_interface__["data"][0])

    def get(self) -> np.ndarray:
        return self.looked_at.copy()

    def copy(self) -> ndarray:
        other = ndarray(np.zeros(self.memory.shape, self.memory.dtype))
        other[...] = self
        return other

    def __getitem__(self, key: Any) -> ndarray:
        seen = self.memory[_here(key)]
        return (
            ndarray(seen) if isinstance(seen, np.ndarray) else _there(self.looked_at[key])
        )  # a view reads nothing yet

    def __setitem__(self, key: Any, value: Any) -> None:
        target, key, source = self.memory, _here(key), value.memory if isinstance(value, ndarray) else _here(value)
        _queue.append(lambda: target.__setitem__(key, source))

    def __len__(self) -> int:
        return len(self.memory)

    def __bool__(self) -> bool:
        return self.looked_at.__bool__()

    def __int__(self) -> int:
        return int(self.looked_at)

    def __float__(self) -> float:
        return float(self.looked_at)


def _operator(name: str) -> Callable[..., Any]:
    return lambda self, *others: _function(getattr(self.looked_at, name))(*others)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "pow", "matmul", "and", "or"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
    setattr(ndarray, f"__r{_name}__", _operator(f"__r{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "invert", "abs"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))


def _here(x: Any) -> Any:
    """Arguments as NumPy takes them; arrays of the host are none of ours."""
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, ndarray):
        return x.looked_at
    return type(x)(map(_here, x)) if isinstance(x, (list, tuple)) else x


def _there(x: Any) -> Any:
    """Results as CuPy gives them: single numbers are arrays, too."""
    if isinstance(x, (np.ndarray, np.generic)):
        return ndarray(np.asarray(x))
    return type(x)(map(_there, x)) if type(x) in (list, tuple) else x


def _function(own: Callable[..., Any]) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        return _there(own(*_here(given), **{name: _here(x) for name, x in named.items()}))

    return call


def asarray(x: Any, dtype: Any = None) -> ndarray:
    global wrapped
    if described := getattr(x, "__cuda_array_interface__", None):
        wrapped += 1
        if wrapped > int(os.environ.get("STAND_IN_FAILS_AFTER", sys.maxsize)):
            raise MemoryError("Out of memory allocating 512 bytes\n(allocated so far: 1,024 bytes)")
        address, shape, strides = described["data"][0], described["shape"], described["strides"]
        kind = np.dtype(described["typestr"])
        span = builtins.sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + kind.itemsize
        memory = (ctypes.c_char * span).from_address(address)
        return ndarray(np.ndarray(shape, kind, memory, 0, strides))
    memory = x.looked_at if isinstance(x, ndarray) else np.asarray(x)
    return ndarray(np.asarray(memory, dtype) if isinstance(x, ndarray) else np.array(memory, dtype))


class Pool:
    """Knows how often it was emptied."""

    emptied = 0

    def free_all_blocks(self) -> None:
        Pool.emptied += 1


def get_default_memory_pool() -> Pool:
    return Pool()


cuda = SimpleNamespace(Device=Device, Stream=object, runtime=SimpleNamespace(getDeviceCount=lambda: 1))
_taken = set(globals())
for _name in np.__all__:
    if _name not in _taken:
        _own = getattr(np, _name)
        globals()[_name] = _own if isinstance(_own, type) or not callable(_own) else _function(_own)
_modules = {"linalg": np.linalg, "fft": np.fft, "cuda": cuda, "cuda.device": SimpleNamespace(Device=Device)}
sys.modules |= {f"{__name__}.{_name}": _module for _name, _module in _modules.items()}
__all__ = list(np.__all__)
