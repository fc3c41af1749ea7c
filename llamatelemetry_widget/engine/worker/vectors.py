"""Embedding matrices of a file: rows expanded by ggml, and exact nearest neighbours by cosine.

In: where a matrix lies, which rows, query vectors. Out: float32 rows in a shared block; ids and cosines.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...errors import EngineCancelled
from ..cpu import usable_threads
from .weights import Stored

Array = np.ndarray[Any, Any]
_ROWS = 8192  # expanded at once
_SPARE = 8  # more candidates than are asked for, before they are ordered in float64


def fill_rows(where: dict[str, Any], ids: Array | None, out: Array, cancelled: Callable[[], bool]) -> None:
    """Write rows of a matrix (all, or those of `ids`) into `out`, float32 (n, width)."""
    matrix = Stored(where)
    width = matrix.width

    def copy(start: int) -> None:
        if cancelled():
            return
        stop = min(start + _ROWS, len(out))
        if ids is None:
            out[start:stop] = matrix.block(start * width, stop * width).reshape(-1, width)
        else:
            for at in range(start, stop):
                row = int(ids[at])
                out[at] = matrix.block(row * width, (row + 1) * width)

    with ThreadPoolExecutor(usable_threads()) as pool:
        list(pool.map(copy, range(0, len(out), _ROWS)))
    if cancelled():
        raise EngineCancelled("the reading of embeddings was stopped")


class Neighbours:
    """All rows of a matrix at length 1, to ask for the nearest."""

    def __init__(self, where: dict[str, Any], cancelled: Callable[[], bool]) -> None:
        count = int(where["n_weights"]) // int(where["width"])
        self.rows: Array = np.empty((count, int(where["width"])), np.float32)
        fill_rows(where, None, self.rows, cancelled)
        lengths = np.linalg.norm(self.rows, axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.rows /= lengths  # a row of zeros has no direction: NaN, and is nobody's neighbour
        self.valid = np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 0)
        self.rows[~self.valid] = 0

    def nearest(self, query: Array, k: int) -> tuple[Array, Array]:
        """int32 (k,) rows by falling cosine, and the cosines (float64), the query's own row among them."""
        q = np.asarray(query, np.float32) / np.float32(np.linalg.norm(query))
        found = np.empty(len(self.rows), np.float32)
        parts = usable_threads()
        bounds = [len(self.rows) * i // parts for i in range(parts + 1)]

        def multiply(i: int) -> None:
            np.dot(self.rows[bounds[i] : bounds[i + 1]], q, out=found[bounds[i] : bounds[i + 1]])

        with ThreadPoolExecutor(parts) as pool:
            list(pool.map(multiply, range(parts)))
        found[~self.valid] = -np.inf
        k = min(k, int(self.valid.sum()))
        some = min(k + _SPARE, len(found))
        candidates = np.argpartition(-found, some - 1)[:some]
        exact = self.rows[candidates].astype(np.float64) @ q.astype(np.float64)
        exact[~self.valid[candidates]] = -np.inf
        order = np.lexsort((candidates, -exact))[:k]
        return candidates[order].astype(np.int32), exact[order]
