"""Thumbnails: a head's probabilities pooled to at most side x side cells, each one byte on a logarithmic scale.

In: pooled probabilities. Out: uint8 codes, and probabilities again. Code 0: below 1e-4, masked, or no number;
code c from 1 to 255: p = 10 ** (-4 (255 - c) / 254).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, namespace

FLOOR = 1e-4  # what the code 1 stands for; a heat map from 0.001 to 1 needs nothing below
_STEPS_PER_DECADE = 254 / 4
_STEPS_PER_OCTAVE = _STEPS_PER_DECADE * float(np.log10(2.0))  # NumPy's log2 is several times faster than its log10


def edges(n: int, side: int) -> NDArray[np.int64]:
    """int64 (side + 1,): cell r of a thumbnail covers rows edges[r] .. edges[r + 1] - 1 of n; side <= n."""
    return np.arange(side + 1, dtype=np.int64) * n // side


def edges_within(n: int, side: int, extent: int | None) -> NDArray[np.int64]:
    """Edges of a thumbnail laid out over `extent` >= n rows, as far as its cells have any of the n there are."""
    extent = n if extent is None else extent
    whole = edges(extent, min(side, extent))
    return np.append(whole[whole < n], n)


def encode(p: Array) -> Array:
    """uint8 codes of probabilities, any shape."""
    xp = namespace(p)
    shown = p >= FLOOR  # False for NaN
    code = xp.round(255 + _STEPS_PER_OCTAVE * xp.log2(xp.where(shown, p, xp.ones_like(p))))
    code = xp.clip(code, 1.0, 255.0)  # a pooled sum may exceed 1 by a rounding error
    return xp.astype(xp.where(shown, code, xp.zeros_like(p)), xp.uint8)


def decode_thumbnail(codes: Array) -> Array:
    """Probabilities of thumbnail codes.

    Parameters
    ----------
    codes : uint8, any shape

    Returns
    -------
    float32, same shape
        Within 1.9 % of what was encoded; 0 for code 0.
    """
    xp = namespace(codes)
    c = xp.astype(codes, xp.float32)
    return xp.where(c > 0, 10 ** ((c - 255) / _STEPS_PER_DECADE), xp.zeros_like(c))
