"""Which of many vectors are alike: pairs by cosine, the nearest of each or all above a threshold.

In: float32 (n, width). Out: pairs of rows with their cosines, the most alike first. Memory is for a block of rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .projection import unit, usable

Floats = NDArray[np.float32]
MOST_PAIRS = 1_000_000
_BLOCK = 512  # rows


def similar_pairs(
    x: Floats, k: int = 3, threshold: float | None = None, still: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.int32], Floats]:
    """Pairs of rows that are alike.

    Parameters
    ----------
    x : float (n, width)
        Rows that are zero or not finite are in no pair.
    k : int
        Pairs of each row with so many nearest others.
    threshold : float, optional
        Instead: all pairs whose cosine is at least this.
    still : callable
        Called for each block; may raise to stop.

    Returns
    -------
    pairs : int32 (m, 2)
        The smaller row first, each pair once, the most alike first.
    cosines : float32 (m,)

    Raises
    ------
    ValueError
        More than `MOST_PAIRS` pairs reach the threshold.
    """
    good = np.flatnonzero(usable(x))
    own, n = unit(x[good]), len(good)
    found = np.zeros(0, np.int64)
    for start in range(0, n, _BLOCK):
        still()
        rows = np.arange(start, min(start + _BLOCK, n))
        alike = own[rows] @ own.T
        alike[rows - start, rows] = -np.inf
        if threshold is None:
            near = np.argpartition(-alike, min(k, n - 1) - 1, axis=1)[:, : min(k, n - 1)] if n > 1 else alike[:, :0]
            a, b = np.repeat(rows, near.shape[1]), near.ravel().astype(np.int64)
        else:
            at, b = np.nonzero(alike >= threshold)
            a = rows[at]
            a, b = a[a < b], b[a < b]
        found = np.union1d(found, np.minimum(a, b) * n + np.maximum(a, b))
        if len(found) > MOST_PAIRS:
            raise ValueError(f"more than {MOST_PAIRS:,} pairs reach a cosine of {threshold}: choose a larger one")
    pairs = np.stack(np.divmod(found, max(n, 1)), axis=1)
    cosines = np.einsum("ij,ij->i", own[pairs[:, 0]], own[pairs[:, 1]]) if len(pairs) else np.zeros(0, np.float32)
    order = np.argsort(-cosines, kind="stable")
    return good[pairs[order]].astype(np.int32), cosines[order].astype(np.float32)
