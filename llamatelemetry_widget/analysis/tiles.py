"""A part of one head in so many cells, at any stage, without ever holding the matrix that it is reduced from.

In: `Scoring`, a range of rows and of keys, a size. Out: float32 cells.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .arrays import Array, host, namespace
from .normalizers import mapped, normalizers_of, row_blocks
from .replay import QUIET, Scoring, score_heads, stages
from .thumbnails import edges


def tile(
    s: Scoring,
    head: int,
    stage: str = "softmax",
    rows: slice = slice(None),
    keys: slice = slice(None),
    size: tuple[int, int] = (640, 640),
    threads: int = 1,
) -> Array:
    """The overview of a head, or of a part of it.

    Parameters
    ----------
    s : Scoring
    head : int
        0 .. heads - 1.
    stage : str
        One of `stages(s)`.
    rows, keys : slice
        The part, without steps; all by default.
    size : (int, int)
        Cells: rows and keys; fewer where the part has fewer.
    threads : int
        How many work on it.

    Returns
    -------
    float32 (cells of rows, cells of keys)
        At stage "softmax" the greatest weight of each cell, at the others its entry of greatest magnitude; NaN where
        all of a cell is masked, which cells are from stage "masked" on.

    Raises
    ------
    ValueError
        No such head, stage or part.
    """
    if not 0 <= head < s.heads:
        raise ValueError(f"head {head} does not exist: this layer has heads 0 to {s.heads - 1}")
    if stage not in stages(s):
        raise ValueError(f"stage {stage!r} does not exist here: choose one of {', '.join(stages(s))}")
    row_edges = _edges(rows, s.rows, size[0], "rows")
    key_edges = _edges(keys, s.keys, size[1], "keys")
    shift = normalizers_of(s, [head], threads)[0, :] if stage == "softmax" else None
    work = _Tile(s, head, stage, key_edges, shift)
    return namespace(s.q).concat(mapped(work.cells, _runs(s, row_edges), threads))


class _Tile:
    """What is the same for all rows of cells."""

    def __init__(self, s: Scoring, head: int, stage: str, key_edges: Any, shift: Array | None) -> None:
        self.s, self.head, self.key_edges, self.shift = s, head, key_edges, shift
        self.stage = "masked" if stage == "softmax" else stage

    @np.errstate(**QUIET)  # type: ignore[arg-type]
    def cells(self, row_edges: Any) -> Array:
        """float32 (rows of cells, cells of keys): some of the tile's rows."""
        xp = namespace(self.s.q)
        start, stop = int(row_edges[0]), int(row_edges[-1])
        out = xp.full((len(row_edges) - 1, len(self.key_edges) - 1), xp.nan, dtype=xp.float32)
        columns = self._columns(start, stop)
        if columns.start >= columns.stop:
            return out
        bounds = self.key_edges[columns.start : columns.stop + 1]
        keys = slice(int(bounds[0]), int(bounds[-1]))
        x = score_heads(self.s, self.head, self.head + 1, slice(start, stop), keys, self.stage)[0, ...]
        out[:, columns] = self._reduce(x, row_edges - start, bounds - keys.start, slice(start, stop))
        return out

    def _columns(self, start: int, stop: int) -> slice:
        """Cells of keys that hold anything for these rows."""
        if self.stage != "masked" or self.s.mask is None:
            return slice(0, len(self.key_edges) - 1)
        first = int(host(self.s.mask.first)[start:stop].min())
        last = min(int(host(self.s.mask.stop)[start:stop].max()), int(self.key_edges[-1]))
        a = int(np.searchsorted(self.key_edges, first, "right")) - 1
        return slice(max(0, a), int(np.searchsorted(self.key_edges, last, "left")))

    def _reduce(self, x: Array, row_bounds: Any, key_bounds: Any, rows: slice) -> Array:
        xp = namespace(x)
        nothing, nan = (xp.asarray(value, dtype=xp.float32) for value in (-xp.inf, xp.nan))
        high = _pool_keys(x, key_bounds)
        if self.shift is not None:  # weights grow with their scores: one exp for each cell is enough
            high = xp.astype(xp.astype(high, xp.float64) - self.shift[rows][:, None], xp.float32)
            high = _pool_rows(high, row_bounds)
            return xp.where(high == nothing, nan, xp.exp(high))
        high = _pool_rows(high, row_bounds)
        low = _pool_rows(_pool_keys(xp.where(x == nothing, nothing, -x), key_bounds), row_bounds)
        return xp.where(high == nothing, nan, xp.where(low > high, -low, high))


def _edges(part: slice, n: int, cells: int, what: str) -> Any:
    """int64: where the cells of a range start, and where the last one stops."""
    start, stop, step = part.indices(n)
    if step != 1 or stop <= start or cells < 1:
        raise ValueError(f"{what} {part} in {cells} cells are no part of {n} {what}")
    return start + edges(stop - start, min(cells, stop - start))


def _runs(s: Scoring, row_edges: Any) -> list[Any]:
    """Edges of the rows of cells that are worked on at once."""
    runs, a = [], 0
    for rows, _ in row_blocks(s, int(row_edges[0]), int(row_edges[-1]), 1):
        b = int(np.searchsorted(row_edges, rows.stop, "left"))
        if b > a:
            runs.append(row_edges[a : b + 1])
            a = b
    return runs


def _pool_keys(x: Array, bounds: Any) -> Array:
    """Maximum over the keys of each cell, by doubling spans: several times faster than one cell after the other."""
    xp = namespace(x)
    narrowest, span = int(np.diff(bounds).min()), 1
    while 2 * span <= narrowest:
        x = xp.maximum(x[:, :-span], x[:, span:])  # now each element is the maximum of 2 * span keys
        span *= 2
    starts, stops = xp.asarray(bounds[:-1]), xp.asarray(bounds[1:] - span)
    # cells differ by one key at most, so two spans cover the widest
    return xp.maximum(xp.take(x, starts, axis=1), xp.take(x, stops, axis=1))


def _pool_rows(x: Array, bounds: Any) -> Array:
    """Maximum over the rows of each cell."""
    xp = namespace(x)
    return xp.stack([xp.max(x[a:b, :], axis=0) for a, b in pairwise(bounds.tolist())])
