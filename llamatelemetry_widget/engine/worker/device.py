"""Tensors that lie on a GPU, for array libraries of that GPU: the same memory, not a copy; and reductions there.

In: ggml tensors of a CUDA build. Out: objects that ``cupy.asarray`` takes as they are, and what `analysis` makes of
them on the device.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...analysis.arrays import host
from ...analysis.attention import Reduced, Scoring, reduce
from ...errors import BackendMissing, LlamaTelemetryError
from . import ggml

Array = np.ndarray[Any, Any]
Key = tuple[str, int]  # part, layer

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


@dataclass
class _Kept:
    """One layer's q and k on a device, and how many rows of q have arrived there."""

    place: str
    q: Any
    k: Any = None
    rows: int = 0


class OnDevice:
    """Reductions of a run on the GPU that scored its attention; nothing where the CPU did.

    Keys stay where they lie in the KV cache; queries, and keys that are no cache, lie in memory that llama.cpp uses
    again, so that a copy on the device is kept. Whatever fails leaves all further layers to the CPU.

    Attributes
    ----------
    why : str
        Why the CPU reduced what a device scored; empty where it did not.
    """

    def __init__(self) -> None:
        self.why = ""
        self._cupy: Any = None
        self._failed = False
        self._kept: dict[Key, _Kept] = {}
        self._places: dict[Key, str] = {}
        self._devices: dict[int, Any] = {}  # CuPy's, by number

    @property
    def places(self) -> str | None:
        """Where layers were reduced, e.g. ``"CPU"`` or ``"CUDA0, CPU"``; None where none was."""
        return ", ".join(dict.fromkeys(self._places.values())) or None

    def keep(self, key: Key, whole: Array, q: ggml.Tensor, k: ggml.Tensor, start: int, keys: int) -> None:
        """Keep what some rows of a layer read, at the stop where they are scored.

        Parameters
        ----------
        key : tuple
            Part and layer.
        whole : ndarray (heads, rows, d)
            The host's array of all queries: the shape and type to keep them in.
        q, k : Tensor
            The queries of these rows, all keys.
        start : int
            The first of these rows.
        keys : int
            How many of the keys are in use.
        """
        if self._failed or ggml.on_host(k):
            return
        place = ggml.place(k)
        if not place.startswith("CUDA"):
            self.why = f"reductions run on CUDA devices, not on {place}"
        elif k.type not in (ggml.F32, ggml.F16):
            self.why = f"keys of type {ggml.type_name(k.type)} are expanded on the CPU"
        else:
            try:
                self._keep(key, whole, q, k, start, keys, place)
            except Exception as error:  # whatever CuPy and the driver raise
                self._give_up(error)

    def _keep(self, key: Key, whole: Array, q: ggml.Tensor, k: ggml.Tensor, start: int, keys: int, place: str) -> None:
        xp = self._library()
        there = xp.asarray(view(k))[0, :, :keys]
        self._devices[int(there.device.id)] = there.device
        with there.device:
            kept = self._kept.setdefault(key, _Kept(place, None))
            if kept.q is None:
                kept.q = xp.empty(whole.shape, dtype=whole.dtype)
            rows = xp.asarray(view(q))[0, ...]
            if start == kept.rows:  # else some rows before were scored by the CPU
                kept.rows += int(rows.shape[1])
                kept.q[:, start : kept.rows] = rows
            kept.k = there if ggml.outlives_graph(k) else there.copy()
            there.device.synchronize()  # llama.cpp computes on streams of its own, which do not wait for these copies

    def reduce(self, key: Key, s: Scoring, token_ids: Array | None, extent: int | None) -> Reduced | None:
        """What `analysis.attention.reduce` makes of a layer, made on the device; its numbers lie on the host.

        Parameters
        ----------
        key : tuple
            Part and layer.
        s : Scoring
            The same layer on the host.

        Returns
        -------
        Reduced or None
            None: the layer is not on a device, or the device failed.
        """
        self._places[key] = "CPU"
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.rows < s.rows:
            self.why = "some of the rows were scored by the CPU"
            return None
        try:
            with kept.k.device:
                reduced = _on_host(reduce(self._moved(kept, s), token_ids, extent=extent))
        except Exception as error:  # as above
            self._give_up(error)
            return None
        self._places[key] = kept.place
        return reduced

    def _moved(self, kept: _Kept, s: Scoring) -> Scoring:
        xp = self._library()

        def there(x: Array | None) -> Any:
            return None if x is None else xp.asarray(x)

        mask = s.mask and replace(s.mask, first=there(s.mask.first), stop=there(s.mask.stop), bits=there(s.mask.bits))
        q, k = kept.q[:, : s.rows], kept.k[:, : s.keys]
        return replace(s, q=q, k=k, v=None, mask=mask, bias=there(s.bias), sinks=there(s.sinks))

    def close(self) -> None:
        """Give the devices' memory back, so that llama.cpp can have it."""
        self._kept.clear()
        for device in self._devices.values():
            with contextlib.suppress(Exception), device:  # one that has failed may fail here, too
                self._cupy.get_default_memory_pool().free_all_blocks()

    def _give_up(self, error: Exception) -> None:
        self._failed, self.why = True, str(error).partition("\n")[0]
        if not isinstance(error, LlamaTelemetryError):
            self.why = f"{type(error).__name__}: {self.why}"
        self.close()

    def _library(self) -> Any:
        if self._cupy is None:
            try:
                import cupy
            except ImportError as error:
                raise BackendMissing(
                    f"CuPy cannot be imported ({error}): pip install 'llamatelemetry-widget[gpu-cu12]' or [gpu-cu13]"
                ) from error
            self._cupy = cupy
        return self._cupy


def _on_host(reduced: Reduced) -> Reduced:
    statistics = {name: host(x) for name, x in reduced.statistics.items()}
    return Reduced(statistics, host(reduced.thumb_max), host(reduced.thumb_mean))
