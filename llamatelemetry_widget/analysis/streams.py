"""The residual stream from layer to layer: how long it is, how it turns, which dimensions stand out.

In: float32 (tokens, width), one layer's. Out: one number per token, or the
dimensions that are far larger than the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

OUTLIER = 10.0  # times the median dimension's mean magnitude


def norms(rows: Array) -> Array:
    """float64 (tokens,): the length of each row."""
    out: Array = np.linalg.norm(np.asarray(rows, np.float64), axis=1)
    return out


def cosines(a: Array, b: Array) -> Array:
    """float64 (tokens,): between rows of the same token; NaN where one of them is zero."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: Array = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return out


def outliers(rows: Array, factor: float = OUTLIER) -> list[tuple[int, float]]:
    """Dimensions whose mean magnitude is `factor` times the median dimension's or more, the largest first.

    Returns
    -------
    list of (int, float)
        The dimension, and how many times the median it is.
    """
    size = np.abs(np.asarray(rows, np.float64)).mean(0)
    middle = float(np.median(size)) if size.size else 0.0
    if not middle > 0:
        return []
    times = size / middle
    order = np.argsort(-times, kind="stable")
    return [(int(d), float(times[d])) for d in order[: int((times >= factor).sum())]]
