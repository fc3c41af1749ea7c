"""The formula of attention once more, in float64 and cell by cell where it can be: the oracle of these tests.

In: a Scoring of NumPy arrays and the mask as llama.cpp writes it. Out: float64 arrays.
"""

from __future__ import annotations

import numpy as np

from llamatelemetry_widget.analysis.attention import Mask, Scoring


def causal(
    n: int, window: int | None = None, keys: int | None = None, dtype: type[np.floating] = np.float32
) -> np.ndarray:
    """Mask values of n rows that end at the last key; a window counts the row's own key."""
    keys = keys or n
    i = np.arange(n)[:, None] + keys - n
    j = np.arange(keys)[None, :]
    hidden = (j > i) | (j <= i - (window or keys + n))
    return np.where(hidden, -np.inf, 0.0).astype(dtype)


def alibi(n: int, dtype: type[np.floating] = np.float32) -> np.ndarray:
    """Causal mask values that hold minus the distance."""
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    return np.where(j > i, -np.inf, -np.abs(i - j)).astype(dtype)


def scoring(
    seed: int,
    heads: int,
    kv_heads: int,
    rows: int,
    keys: int,
    d: int = 16,
    values: np.ndarray | None = None,
    **rest: object,
) -> Scoring:
    """Repeatable numbers of a size that gives peaked and flat heads."""
    r = np.random.default_rng(seed)
    q, k, v = (
        r.normal(size=(h, n, d)).astype(np.float16) for h, n in ((heads, rows), (kv_heads, keys), (kv_heads, keys))
    )
    q *= np.linspace(0.3, 3, heads, dtype=np.float16)[:, None, None]
    mask = None if values is None else Mask.from_values(values, keys - rows)
    return Scoring(q, k, v, mask, 1 / np.sqrt(d), **rest)  # type: ignore[arg-type]


def stage(s: Scoring, head: int, values: np.ndarray | None, name: str = "softmax") -> np.ndarray:
    """float64 (rows, keys) of one head; `values` is the mask as llama.cpp holds it."""
    x = s.q[head].astype(np.float64) @ s.k[head // (s.q.shape[0] // s.k.shape[0])].astype(np.float64).T
    found = {"scores": x}
    if s.soft_cap and s.fused:
        found["scaled"] = x * s.scale
        x = found["capped"] = s.soft_cap * np.tanh(x * s.scale / s.soft_cap)
    elif s.soft_cap:
        found["capped"] = s.soft_cap * np.tanh(x / s.soft_cap)
        x = found["scaled"] = found["capped"] * s.scale
    else:
        x = found["scaled"] = x * s.scale
    if s.bias is not None:
        x = found["biased"] = x + s.bias[head]
    if values is not None:
        x = x + (slope(head, s.q.shape[0], s.max_bias) if s.max_bias else 1.0) * values.astype(np.float64)
    found["masked"] = x
    found["softmax"] = softmax(x, None if s.sinks is None else float(s.sinks[head]))
    return found[name]


def slope(head: int, heads: int, max_bias: float) -> float:
    """ALiBi's slope; `heads` a power of two."""
    return 2.0 ** (-max_bias * (head + 1) / heads)


def softmax(x: np.ndarray, sink: float | None) -> np.ndarray:
    """Row by row; a row of -inf gives 0."""
    p = np.zeros_like(x)
    for i, row in enumerate(x):
        if np.isneginf(row).all():
            continue
        top = max(row.max(), -np.inf if sink is None else sink)
        e = np.exp(row - top)
        p[i] = e / (e.sum() + (0.0 if sink is None else np.exp(sink - top)))
    return p
