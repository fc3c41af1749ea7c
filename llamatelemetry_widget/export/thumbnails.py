"""Thumbnails made smaller by maximum, and which of their cells nothing may see.

In: uint8 codes and facts of a layer. Out: fewer codes, and a mask. Never a mean: thin lines are the finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..analysis.thumbnails import edges

Array = np.ndarray[Any, Any]
FUTURE, OUTSIDE = 1, 2


def shrink(codes: Array, rows: int, keys: int) -> Array:
    """Thumbnails of at most rows x keys cells; each cell is the maximum of those it covers.

    Parameters
    ----------
    codes : uint8 (heads, side_rows, side_keys)
    """
    rows, keys = min(rows, codes.shape[1]), min(keys, codes.shape[2])
    if codes.size == 0 or (rows, keys) == codes.shape[1:]:
        return codes
    down = np.maximum.reduceat(codes, edges(codes.shape[1], rows)[:-1], axis=1)
    return np.asarray(np.maximum.reduceat(down, edges(codes.shape[2], keys)[:-1], axis=2))


def unseen(facts: Mapping[str, Any], n_tokens: int, rows: int, keys: int) -> Array:
    """Which cells of a thumbnail no query token in them may see.

    Parameters
    ----------
    facts : mapping
        The layer's ``mask`` and ``window``. Only a causal mask is known by rule.

    Returns
    -------
    uint8 (rows, keys)
        0 where it may be seen, `FUTURE`, or `OUTSIDE` the window.
    """
    if facts["mask"] != "causal" or rows == 0 or keys == 0:
        return np.zeros((rows, keys), np.uint8)
    row, key = edges(n_tokens, rows), edges(n_tokens, keys)
    first_row, last_row = row[:-1, None], np.maximum(row[:-1], row[1:] - 1)[:, None]
    first_key, last_key = key[None, :-1], np.maximum(key[:-1], key[1:] - 1)[None, :]
    window = facts["window"] if facts["window"] is not None else n_tokens
    outside = np.where(last_key <= first_row - window, np.uint8(OUTSIDE), np.uint8(0))
    return np.asarray(np.where(first_key > last_row, np.uint8(FUTURE), outside))
