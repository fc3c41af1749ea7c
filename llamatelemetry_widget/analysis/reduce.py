"""All heads of one layer at once: their statistics and thumbnails, without ever holding a whole matrix.

In: `Scoring` and the token ids. Out: `Reduced`. NumPy arrays take the fast path of `reduce_numpy`; the code here runs
on any array library, one block of rows after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, host, namespace
from .reduce_numpy import reduce_numpy
from .replay import QUIET, Scoring, replay_heads
from .rows import RowFacts, row_facts
from .statistics import STATISTICS
from .thumbnails import edges_within, encode

_CELLS = 1 << 22  # of a block: 16 MB in float32, enough to keep a GPU busy


@dataclass(frozen=True, eq=False)
class Reduced:
    """What is left of one layer's attention.

    Parameters
    ----------
    statistics : dict of float32 (heads,)
        One array for each name in `STATISTICS`; NaN where nothing was measured.
    thumb_max, thumb_mean : uint8 (heads, side_rows, side_keys)
        Greatest and mean probability of each cell, as codes (`decode_thumbnail`); masked keys count as 0 in the mean.
    """

    statistics: dict[str, Array]
    thumb_max: Array
    thumb_mean: Array


def reduce(s: Scoring, token_ids: Array | None, side: int = 64, threads: int = 1, extent: int | None = None) -> Reduced:
    """Statistics and thumbnails of every head of a layer.

    Parameters
    ----------
    s : Scoring
        What the scoring operation read; memory stays linear in its rows.
    token_ids : int (keys,) or None
        Tokens of the keys. None, or another length: queries and keys are different texts (cross-attention).
    side : int
        Side of the thumbnails; not more cells than there are rows or keys.
    threads : int
        Threads that NumPy arrays are worked on with. BLAS should use one thread of its own meanwhile.
    extent : int, optional
        Rows and keys that the thumbnails are laid out over, where more tokens are to come. They then hold the cells
        that have tokens already.

    Returns
    -------
    Reduced

    Raises
    ------
    ValueError
        No rows, no keys, or a side or number of threads below 1.

    See Also
    --------
    llamatelemetry_widget.analysis.statistics : the definitions and their sources.
    """
    if s.rows == 0 or s.keys == 0:
        raise ValueError(f"nothing to reduce: {s.rows} query rows and {s.keys} keys")
    if side < 1 or threads < 1:
        raise ValueError(f"side {side} and threads {threads} must be at least 1")
    ids = None if token_ids is None else host(token_ids)
    if isinstance(s.q, np.ndarray):
        return Reduced(*reduce_numpy(s, ids, side, threads, extent))
    return reduce_any(s, row_facts(s, ids), side, extent)


@np.errstate(**QUIET)  # type: ignore[arg-type]
def reduce_any(s: Scoring, facts: RowFacts, side: int, extent: int | None = None) -> Reduced:
    """What `reduce` does where the arrays are not NumPy's (it would do it with those, too)."""
    xp = namespace(s.q)
    at_once = s.group * max(1, _CELLS // (s.group * s.rows * s.keys))  # all that share their keys, and more if they fit
    chunks = [slice(a, min(s.heads, a + at_once)) for a in range(0, s.heads, at_once)]
    parts = [_reduce_heads(s, facts, side, extent, heads) for heads in chunks]
    sums, greatest, mean = (xp.concat(x) for x in zip(*parts, strict=True))
    means = sums / xp.asarray(facts.divisors(), dtype=xp.float32)
    return Reduced({name: means[:, i] for i, name in enumerate(STATISTICS)}, encode(greatest), encode(mean))


def _reduce_heads(
    s: Scoring, facts: RowFacts, side: int, extent: int | None, heads: slice
) -> tuple[Array, Array, Array]:
    """Heads of whole groups: sums (heads, statistics), and two thumbnails (heads, side_rows, side_keys)."""
    xp = namespace(s.q)
    row_edges, key_edges = edges_within(s.rows, side, extent), edges_within(s.keys, side, extent)
    count = heads.stop - heads.start
    sums = xp.zeros((count, len(STATISTICS)), dtype=xp.float32)
    greatest, total = [], []
    size = max(1, _CELLS // (count * s.keys))  # few large blocks: a GPU takes its time to begin with each
    for a in range(0, s.rows, size):
        rows = slice(a, min(s.rows, a + size))
        groups = range(heads.start, heads.stop, s.group)
        p = xp.concat([replay_heads(s, head, head + s.group, rows) for head in groups])
        sums = sums + _sums(p, rows, facts, xp)
        cells, real = _cells(p, key_edges, 2)
        greatest.append(xp.max(cells, axis=3))
        total.append(_sum(cells, real, 3))
    areas = xp.asarray(np.outer(np.diff(row_edges), np.diff(key_edges)), dtype=xp.float32)
    top, _ = _cells(xp.concat(greatest, axis=1), row_edges, 1)
    cells, real = _cells(xp.concat(total, axis=1), row_edges, 1)
    return sums, xp.max(top, axis=2), _sum(cells, real, 2) / areas[None, ...]


def _cells(x: Array, edges: NDArray[np.int64], axis: int) -> tuple[Array, NDArray[np.bool_]]:
    """`x` with two axes instead of one: cells of a thumbnail, and what lies in each; the last again where one has less.

    The second result, bool (cells, widest), is False for what stands there again.
    """
    xp = namespace(x)
    sizes = np.diff(edges)[:, None]
    within = np.arange(sizes.max())[None, :]
    if (sizes != sizes[0]).any():
        x = xp.take(x, xp.asarray((edges[:-1, None] + np.minimum(within, sizes - 1)).ravel()), axis=axis)
    shape = (*x.shape[:axis], len(sizes), within.size, *x.shape[axis + 1 :])
    return xp.reshape(x, shape), within < sizes


def _sum(cells: Array, real: NDArray[np.bool_], axis: int) -> Array:
    """Sums over what lies in each cell, along `axis`."""
    xp = namespace(cells)
    if not real.all():
        shape = (*real.shape, *(1,) * (len(cells.shape) - axis - 1))
        cells = xp.where(xp.asarray(real.reshape(shape)), cells, xp.asarray(0.0, dtype=xp.float32))
    return xp.sum(cells, axis=axis)


def _sums(p: Array, rows: slice, facts: RowFacts, xp: Any) -> Array:
    """float32 (heads, statistics): sums over the counted rows of p (heads, rows, keys)."""
    counted = np.flatnonzero(facts.counted[rows])
    if counted.size == 0:
        return xp.zeros((p.shape[0], len(STATISTICS)), dtype=xp.float32)
    p = xp.take(p, xp.asarray(counted), axis=1)
    chosen = counted + rows.start
    zero, one = (xp.asarray(x, dtype=xp.float32) for x in (0.0, 1.0))
    mass = xp.sum(p, axis=-1)
    safe = xp.where(mass == 0, one, mass)  # rows that see nothing
    information = xp.sum(p * xp.log2(xp.where(p == 0, one, p)), axis=-1)
    values = {
        "entropy": (xp.log2(safe) - information / safe) / xp.asarray(facts.log2_visible[chosen]),
        "max_weight": xp.max(p, axis=-1),
        "sink": p[:, :, 0],
    }
    if facts.positions is not None:
        values.update(_of_positions(p, safe, chosen, facts, xp))
    nothing = xp.zeros_like(mass)
    return xp.stack([xp.sum(xp.maximum(values.get(name, nothing), zero), axis=1) for name in STATISTICS], axis=1)


def _of_positions(p: Array, mass: Array, rows: Any, facts: RowFacts, xp: Any) -> dict[str, Array]:
    """Statistics (heads, rows) that compare a row's position with a key's."""
    assert facts.positions is not None and facts.repeats is not None
    own = xp.asarray(facts.positions[rows])[:, None]
    key = xp.arange(p.shape[2], dtype=own.dtype)[None, :]
    ids = xp.asarray(facts.repeats.ids)
    earlier = (xp.take(ids, own[:, 0], axis=0)[:, None] == ids[None, :]) & (key < own)

    def weight(where: Array) -> Array:
        return xp.sum(
            xp.where(where, p[..., p.shape[2] - where.shape[1] :], xp.asarray(0.0, dtype=xp.float32)),
            axis=-1,
        )

    distance = xp.sum(p * xp.astype(xp.abs(own - key), xp.float32), axis=-1) / mass
    return {
        "mean_distance": distance,
        "locality": 1 - distance / xp.asarray(facts.farthest[rows]),
        "diagonal": weight(key == own),
        "previous_token": weight(key == own - 1),
        "duplicate_token": weight(earlier),
        "induction": weight(earlier[:, :-1]),
    }
