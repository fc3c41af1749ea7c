"""Attention of any head at any stage, computed again from what llama.cpp's scoring operation read.

In: `Scoring` (q, k, v, mask and the constants). Out: float32 matrices of single heads, outputs of single rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .arrays import Array, Rows, as_half, float32, namespace, select
from .masks import Mask
from .products import product

# llama.cpp computes on whatever the model gave it; what overflows there must not warn here
QUIET = {"over": "ignore", "invalid": "ignore", "divide": "ignore", "under": "ignore"}


@dataclass(frozen=True, eq=False)
class Scoring:
    """What one scoring operation of llama.cpp reads, in the order of its formula.

    Parameters
    ----------
    q : float16 or float32 (heads, rows, d)
        Queries as multiplied (rounded to float16 where the cache is float16).
    k : float16 or float32 (kv_heads, keys, d)
        Keys; head h uses `k[h // (heads // kv_heads)]`.
    v : float16 or float32 (kv_heads, keys, dv) or None
        Values, needed by `output` and `check` only.
    mask : Mask or None
        None: every row sees every key.
    scale : float
        Factor of the product q k^T.
    soft_cap : float
        0, or c of c tanh(s / c), which keeps scores within [-c, c].
    fused : bool
        True: scaled, then capped (flash attention); False: capped, then scaled (separate operations).
    max_bias : float
        Greater than 0: ALiBi, the distance in `mask` is multiplied by each head's slope.
    bias : float32 (heads, rows, keys) or None
        Relative position bias (T5).
    sinks : float32 (heads,) or None
        A score per head that takes its share of the sum and attends to nothing (gpt-oss).

    Raises
    ------
    ValueError
        Shapes do not belong together.
    """

    q: Array
    k: Array
    v: Array | None
    mask: Mask | None
    scale: float
    soft_cap: float = 0.0
    fused: bool = True
    max_bias: float = 0.0
    bias: Array | None = None
    sinks: Array | None = None

    def __post_init__(self) -> None:
        heads, rows, d = self.q.shape
        kv_heads, keys, key_d = self.k.shape
        if kv_heads == 0 or heads % kv_heads or d != key_d:
            raise ValueError(f"q {tuple(self.q.shape)} and k {tuple(self.k.shape)} do not belong together")
        if self.v is not None and tuple(self.v.shape[:2]) != (kv_heads, keys):
            raise ValueError(f"v {tuple(self.v.shape)} does not belong to k {tuple(self.k.shape)}")
        if self.mask is not None and self.mask.rows != rows:
            raise ValueError(f"the mask has {self.mask.rows} rows where q has {rows}")
        if self.bias is not None and tuple(self.bias.shape) != (heads, rows, keys):
            raise ValueError(f"bias {tuple(self.bias.shape)} is not (heads, rows, keys) = {(heads, rows, keys)}")
        if self.sinks is not None and tuple(self.sinks.shape) != (heads,):
            raise ValueError(f"sinks {tuple(self.sinks.shape)} are not one per head ({heads})")

    @property
    def heads(self) -> int:
        """Number of query heads."""
        return int(self.q.shape[0])

    @property
    def kv_heads(self) -> int:
        """Number of key heads."""
        return int(self.k.shape[0])

    @property
    def group(self) -> int:
        """Query heads per key head."""
        return self.heads // self.kv_heads

    @property
    def rows(self) -> int:
        """Number of query rows."""
        return int(self.q.shape[1])

    @property
    def keys(self) -> int:
        """Number of keys."""
        return int(self.k.shape[1])


def stages(s: Scoring) -> tuple[str, ...]:
    """Names of the stages that exist here, in the order in which they are computed."""
    cap = ("capped",) if s.soft_cap else ()
    scaling = ("scaled", *cap) if s.fused else (*cap, "scaled")
    return ("scores", *scaling, *(("biased",) if s.bias is not None else ()), "masked", "softmax")


def replay(s: Scoring, head: int, stage: str = "softmax", rows: Rows = slice(None)) -> Array:
    """One head's attention at one stage.

    The formula is llama.cpp's: s = q k^T; soft cap c: fused c tanh(s scale / c), unfused c tanh(s / c) scale; without
    one s scale; + bias; + slope mask; softmax, with exp(sink) in the row's sum only.

    Parameters
    ----------
    s : Scoring
        What the scoring operation read.
    head : int
        0 .. heads - 1.
    stage : str
        One of `stages(s)`.
    rows : slice or sequence of int
        Query rows wanted.

    Returns
    -------
    float32 (rows, keys)
        Masked cells are -inf at stage "masked" and 0 at "softmax"; a row that sees nothing is 0 at "softmax".

    Raises
    ------
    ValueError
        No such head or stage.
    """
    if not 0 <= head < s.heads:
        raise ValueError(f"head {head} does not exist: this layer has heads 0 to {s.heads - 1}")
    return replay_heads(s, head, head + 1, rows, stage)[0, ...]


def output(s: Scoring, rows: Rows) -> Array:
    """Attention output p v of some rows of every head: what llama.cpp's own kernel wrote, up to its rounding.

    Returns
    -------
    float32 (heads, len(rows), dv)

    Raises
    ------
    ValueError
        The values v were not kept.
    """
    if s.v is None:
        raise ValueError("v was not kept: capture it to compute the attention output")
    xp = namespace(s.q)
    parts = []
    for kv in range(s.kv_heads):
        p = replay_heads(s, kv * s.group, (kv + 1) * s.group, rows)
        flat = xp.reshape(p, (-1, s.keys)) @ float32(s.v[kv, ...])
        parts.append(xp.reshape(flat, (s.group, -1, s.v.shape[2])))
    return xp.concat(parts)


def check(s: Scoring, out: Array, rows: Rows) -> Array:
    """Largest difference between the replayed output and the one that llama.cpp wrote.

    Parameters
    ----------
    out : float (heads, len(rows), dv)
        llama.cpp's attention output.
    rows : slice or sequence of int
        The rows that `out` holds.

    Returns
    -------
    float32 (heads,)
        NaN where either output holds one.
    """
    xp = namespace(s.q)
    mine = output(s, rows)
    if tuple(out.shape) != tuple(mine.shape):
        raise ValueError(f"output {tuple(out.shape)} is not (heads, rows, dv) = {tuple(mine.shape)}")
    return xp.max(xp.abs(mine - float32(out)), axis=(1, 2))


@np.errstate(**QUIET)  # type: ignore[arg-type]
def replay_heads(s: Scoring, start: int, stop: int, rows: Rows, stage: str = "softmax") -> Array:
    """float32 (stop - start, rows, keys): heads of one KV head at one stage."""
    if stage not in stages(s):
        raise ValueError(f"stage {stage!r} does not exist here: choose one of {', '.join(stages(s))}")
    if stage == "softmax":
        return _softmax(s, slice(start, stop), score_heads(s, start, stop, rows))
    return score_heads(s, start, stop, rows, stage=stage)


@np.errstate(**QUIET)  # type: ignore[arg-type]
def score_heads(
    s: Scoring, start: int, stop: int, rows: Rows, keys: Rows = slice(None), stage: str = "masked"
) -> Array:
    """float32 (stop - start, rows, keys): heads of one KV head and some keys at a stage before the softmax."""
    part = _Part(slice(start, stop), rows, keys)
    x = _scores(s, part)
    for name in stages(s):
        x = _STEPS[name](s, part, x)
        if name == stage:
            break
    return x


@dataclass(frozen=True, eq=False)
class _Part:
    """What is computed at once."""

    heads: slice
    rows: Rows
    keys: Rows


def _scores(s: Scoring, part: _Part) -> Array:
    """q k^T with one product for all heads that share their keys."""
    xp = namespace(s.q)
    q = float32(select(s.q[part.heads, ...], part.rows, axis=1))
    k = float32(select(s.k[part.heads.start // s.group, ...], part.keys))
    return xp.reshape(product(xp.reshape(q, (-1, q.shape[2])), k), (q.shape[0], q.shape[1], k.shape[0]))


def _cap(s: Scoring, part: _Part, x: Array) -> Array:
    cap = float(s.soft_cap)  # a NumPy scalar would turn everything into float64
    return namespace(x).tanh(x / cap) * cap


def _add_bias(s: Scoring, part: _Part, x: Array) -> Array:
    assert s.bias is not None
    return x + float32(select(select(s.bias[part.heads, ...], part.rows, axis=1), part.keys, axis=2))


def _mask(s: Scoring, part: _Part, x: Array) -> Array:
    if s.mask is None:
        return x
    xp = namespace(x)
    if s.mask.distance and s.max_bias > 0:
        slopes = xp.asarray(alibi_slopes(s.heads, s.max_bias)[part.heads], dtype=xp.float32)
        x = x + slopes[:, None, None] * distance_values(s, part.rows, part.keys)[None, ...]
    visible = s.mask.visible(part.rows, s.keys, part.keys)
    return xp.where(visible[None, ...], x, xp.asarray(-xp.inf, dtype=xp.float32))


def _softmax(s: Scoring, heads: slice, x: Array) -> Array:
    xp = namespace(x)
    zero, one = xp.asarray(0.0, dtype=xp.float32), xp.asarray(1.0, dtype=xp.float32)
    top = xp.max(x, axis=-1, keepdims=True)
    sinks = None if s.sinks is None else float32(s.sinks)[heads][:, None, None]
    top = top if sinks is None else xp.maximum(top, sinks)
    top = xp.where(top == -xp.inf, zero, top)  # a row that sees nothing: exp(-inf - 0) = 0
    e = xp.exp(x - top)
    total = xp.sum(e, axis=-1, keepdims=True)
    if sinks is not None:
        total = total + xp.exp(sinks - top)
    return xp.where(x == -xp.inf, zero, e / xp.where(total == 0, one, total))  # 0 in rows that are NaN, too


def distance_values(s: Scoring, rows: Rows, keys: Rows = slice(None)) -> Array:
    """float32 (rows, keys): -|i - j|, rounded as the fused operation reads it (its masks are float16)."""
    assert s.mask is not None
    xp = namespace(s.q)
    i = select(xp.arange(s.rows, dtype=xp.float32) + float(s.mask.offset), rows)
    value = -xp.abs(i[:, None] - select(xp.arange(s.keys, dtype=xp.float32), keys)[None, :])
    return as_half(value) if s.fused else value


def alibi_slopes(heads: int, max_bias: float) -> list[float]:
    """Slope per head, as ggml computes it.

    References
    ----------
    Press, Smith, Lewis: Train Short, Test Long, 2022 (arXiv:2108.12409).
    """
    power = 1 << math.floor(math.log2(heads))
    base, between = 2.0 ** (-max_bias / power), 2.0 ** (-max_bias / 2 / power)
    return [base ** (h + 1) if h < power else between ** (2 * (h - power) + 1) for h in range(heads)]


_STEPS = {
    "scores": lambda s, part, x: x,
    "scaled": lambda s, part, x: x * float(s.scale),
    "capped": _cap,
    "biased": _add_bias,
    "masked": _mask,
}
