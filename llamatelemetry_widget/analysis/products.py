"""Products q k^T that are as fast on a busy machine as on an idle one.

In: q and k of any array library, float32. Out: their product. BLAS hands a large one to threads of its own and waits
for them all: a hundred times as long where other programs hold the processor, or where a container has less of it
than the host. So NumPy's are made of pieces that are too small for that; whoever wants threads starts them.
"""

from __future__ import annotations

import math

import numpy as np

from .arrays import Array

_PIECE = 1 << 18  # multiplications up to which OpenBLAS uses one thread


def product(q: Array, k: Array) -> Array:
    """float32 (rows, keys): q (rows, d) times k (keys, d) transposed."""
    if not isinstance(q, np.ndarray) or not q.size or not k.size:
        return q @ k.T
    (rows, d), keys = q.shape, k.shape[0]
    height = min(rows, max(1, math.isqrt(_PIECE // d)))
    width = min(keys, max(1, _PIECE // (height * d)))
    out = np.empty((rows, keys), np.float32)
    for own, h in _pieces(rows, height):
        for other, w in _pieces(keys, width):
            left = q[own].reshape(-1, 1, h, d)
            right = k[other].reshape(1, -1, w, d).transpose(0, 1, 3, 2)
            np.matmul(left, right, out=out[own, other].reshape(-1, h, right.shape[1], w).transpose(0, 2, 1, 3))
    return out


def _pieces(n: int, size: int) -> list[tuple[slice, int]]:
    """Whole pieces as one slice, and what is left; each with the size of its pieces."""
    whole = n // size * size
    return [(slice(0, whole), size), *([(slice(whole, n), n - whole)] if whole < n else [])]
