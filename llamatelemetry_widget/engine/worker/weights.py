"""Weights of a file, expanded by ggml's own functions a block at a time: statistics, histogram, distance of two files.

In: where a tensor lies and how it is stored. Out: numbers in float64, summed over blocks, so that memory stays small.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import EngineCancelled, LlamaTelemetryError, ModelFileError
from . import ggml

Array = np.ndarray[Any, Any]
_WEIGHTS_AT_ONCE = 1 << 22
BINS = 64


class Stored:
    """A tensor in its file.

    Parameters
    ----------
    where : dict
        ``path``, ``offset`` (bytes), ``type`` (ggml's code), ``n_weights``, ``width`` (of a row).
    """

    def __init__(self, where: dict[str, Any]) -> None:
        self.count, self.width = int(where["n_weights"]), int(where["width"])
        self.traits = ggml.traits_of(where["type"]).contents
        self._type, self._offset = int(where["type"]), int(where["offset"])
        if self._type not in (ggml.F32, ggml.F16) and not self.traits.to_float:
            name = bytes(self.traits.type_name or b"?").decode()
            raise LlamaTelemetryError(f"this llama.cpp cannot expand tensors of type {name}")
        with Path(where["path"]).open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._offset + self.bytes_of(self.count) > len(self._map):
            raise ModelFileError(f"{where['path']} ends before this tensor does; fetch it again")

    @property
    def address(self) -> int:
        """Of the first byte, in the mapped file."""
        return int(np.frombuffer(self._map, np.uint8, 1, self._offset).ctypes.data)

    def bytes_of(self, weights: int) -> int:
        """Bytes of so many weights."""
        return int(weights // self.traits.block * self.traits.size)

    def block(self, start: int, stop: int) -> Array:
        """float32 weights ``start:stop``; both on the border of a row."""
        a, b = self._offset + self.bytes_of(start), self._offset + self.bytes_of(stop)
        data = np.frombuffer(self._map, np.uint8, b - a, a)
        if self._type == ggml.F32:
            return data.view(np.float32)
        if self._type == ggml.F16:
            return data.view(np.float16).astype(np.float32)
        rows: Array = ggml.expand(data.reshape(1, -1), self.traits, stop - start)[0]
        return rows


def _spans(count: int, width: int, cancelled: Callable[[], bool]) -> Iterator[tuple[int, int]]:
    step = max(1, _WEIGHTS_AT_ONCE // width) * width
    for start in range(0, count, step):
        if cancelled():
            raise EngineCancelled("the reading of weights was stopped")
        yield start, min(start + step, count)


def project(
    where: dict[str, Any], direction: Array, inputs: Array, cancelled: Callable[[], bool]
) -> tuple[Array, Array]:
    """A direction of a matrix's outputs as its inputs see it, float64 (in,); and the outputs of some inputs, (out,)."""
    tensor = Stored(where)
    seen, outputs = np.zeros(tensor.width), np.zeros(tensor.count // tensor.width)
    for start, stop in _spans(tensor.count, tensor.width, cancelled):
        rows = tensor.block(start, stop).reshape(-1, tensor.width)
        own = slice(start // tensor.width, stop // tensor.width)
        seen += direction[own] @ rows
        outputs[own] = rows @ inputs
    return seen, outputs


def tensor_stats(where: dict[str, Any], cancelled: Callable[[], bool]) -> dict[str, Any]:
    """Statistics and a histogram of one tensor's weights; what is not finite is counted and left out."""
    tensor = Stored(where)
    total = squares = 0.0
    least, most = np.inf, -np.inf
    finite = zeros = 0
    for start, stop in _spans(tensor.count, tensor.width, cancelled):
        x = tensor.block(start, stop)
        x = x[np.isfinite(x)]
        if not x.size:
            continue
        finite, zeros = finite + x.size, zeros + int((x == 0).sum())
        least, most = min(least, float(x.min())), max(most, float(x.max()))
        total, squares = total + float(x.sum(dtype=np.float64)), squares + float(np.square(x, dtype=np.float64).sum())
    if not finite:
        return {"count": tensor.count, "not_finite": tensor.count}
    mean = total / finite
    edges = np.linspace(least, most, BINS + 1) if most > least else np.linspace(least - 0.5, most + 0.5, BINS + 1)
    counts, deviation = np.zeros(BINS, np.int64), float(np.sqrt(max(squares / finite - mean**2, 0.0)))
    beyond = 0
    for start, stop in _spans(tensor.count, tensor.width, cancelled):
        x = tensor.block(start, stop)
        x = x[np.isfinite(x)]
        counts += np.histogram(x, edges)[0]
        beyond += int((np.abs(x - mean) > 6 * deviation).sum()) if deviation else 0
    return {
        "count": tensor.count,
        "not_finite": tensor.count - finite,
        "min": least,
        "max": most,
        "mean": mean,
        "std": deviation,
        "rms": float(np.sqrt(squares / finite)),
        "zeros": zeros,
        "outliers": beyond,
        "edges": edges,
        "histogram": counts,
    }


def weight_error(a: dict[str, Any], b: dict[str, Any], cancelled: Callable[[], bool]) -> dict[str, float]:
    """How far the weights of b are from those of a: RMSE, RMSE over the RMS of a, cosine."""
    one, two = Stored(a), Stored(b)
    wrong = own = other = both = 0.0
    for start, stop in _spans(one.count, one.width, cancelled):
        x, y = one.block(start, stop).astype(np.float64), two.block(start, stop).astype(np.float64)
        wrong, both = wrong + float(np.square(x - y).sum()), both + float(x @ y)
        own, other = own + float(x @ x), other + float(y @ y)
    rmse = float(np.sqrt(wrong / one.count))
    return {
        "rmse": rmse,
        "relative": rmse / float(np.sqrt(own / one.count)) if own else float("nan"),
        "cosine": both / float(np.sqrt(own * other)) if own and other else float("nan"),
    }
