"""The fast path of `reduce` for NumPy arrays: cache-sized blocks, worked on by several threads.

In: `Scoring`, tokens. Out: statistics and thumbnail codes of every head. What makes it fast: blocks stop at the last
key that any of their rows sees; scores are powers of two (exp2 is twice as fast as exp); rows whose scores are small
are not shifted by their maximum first; sums over keys are products with a thin matrix; entropy needs no log of p.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .blocks import Block, Picks, Plan, plan_for
from .replay import QUIET, Scoring, alibi_slopes, distance_values
from .rows import Floats
from .statistics import STATISTICS
from .thumbnails import encode

# exp2 is slow, and -inf times its result NaN, where the result is 0; 2 ** -100 is as good as that beside 2 ** -_SMALL
_LOWEST = np.float32(-100)
_LOG2_E = math.log2(math.e)
_SMALL = 32.0  # 2 ** 32 sums without overflow or loss, so rows within it need no shift
_MEANS = [STATISTICS.index(name) for name in ("entropy", "max_weight", "mean_distance", "locality")]
_MOST_KEPT = 1 << 21  # numbers (8 MB) of a buffer that is kept
_spare: list[Floats] = []  # buffers of finished calls: asking the system for new pages costs as much as exp2


def reduce_numpy(
    s: Scoring, token_ids: NDArray[np.generic] | None, side: int, threads: int, extent: int | None = None
) -> tuple[dict[str, Floats], NDArray[np.uint8], NDArray[np.uint8]]:
    """Statistics by name (heads,), codes of the greatest and of the mean probability (heads, side_rows, side_keys)."""
    layer = _Layer(s, plan_for(s, token_ids, side, extent))
    runs = layer.plan.runs
    if threads == 1 or len(runs) == 1:
        parts = [layer.reduce(run) for run in runs]
    else:
        with ThreadPoolExecutor(min(threads, len(runs))) as pool:
            parts = list(pool.map(layer.reduce, runs))
    sums = np.sum(parts, axis=0)  # in one order, so that threads do not change the last digit
    means = (sums / layer.plan.divisors).astype(np.float32)
    statistics = {name: np.ascontiguousarray(means[:, i]) for i, name in enumerate(STATISTICS)}
    return statistics, encode(layer.greatest), encode(layer.mean / layer.plan.areas)


class _Layer:
    """What all blocks of one layer read, and the thumbnails that they fill in (each run its own rows)."""

    def __init__(self, s: Scoring, plan: Plan) -> None:
        self.s, self.plan = s, plan
        self.keys_t = np.ascontiguousarray(s.k.astype(np.float32).transpose(0, 2, 1))
        shape = (s.heads, *plan.areas.shape)
        self.greatest, self.mean = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.slopes = None
        if s.max_bias > 0 and s.mask is not None and s.mask.distance:
            self.slopes = np.array(alibi_slopes(s.heads, s.max_bias), np.float32) * np.float32(_LOG2_E)
        self.sinks = None if s.sinks is None else s.sinks.astype(np.float32) * np.float32(_LOG2_E)
        # rows of (1, n - i): a slice of it, times the weights of some keys, is their sum and their distance
        self.thin = np.ones((2 * s.keys + 1, 2), np.float32)
        self.thin[:, 1] = np.arange(s.keys, -s.keys - 1, -1)

    @np.errstate(**QUIET)  # type: ignore[arg-type]
    def reduce(self, run: list[Block]) -> NDArray[np.float64]:
        """Fill in some rows of the thumbnails; float64 (heads, statistics): sums over the counted among their rows."""
        sums = np.zeros((self.s.heads, len(STATISTICS)))
        for block in run:
            picks = self.plan.picks(block)
            for heads in self.plan.heads:
                self._reduce(block, heads, picks, sums[heads])
        return sums

    def _reduce(self, block: Block, heads: slice, picks: Picks, sums: NDArray[np.float64]) -> None:
        """Add some heads' statistics to `sums` (heads, statistics), and their probabilities to the thumbnails."""
        shape = (heads.stop - heads.start, block.rows.stop - block.rows.start, block.width)
        buffers = _Buffers(shape)
        x, p = buffers.x, buffers.p
        self._scores(block, heads, x)
        top, learned, shifted = self._shift(x, block, heads)
        np.exp2(x, out=p)
        mass, far = self._weigh(block, p)
        total = mass + learned
        share: Floats = np.float32(1) / total
        share[:, block.blind] = 0
        rows = np.zeros((len(_MEANS), *share.shape), np.float32)
        rows[0] = (np.log2(mass) - np.einsum("hij,hij->hi", p, x) / mass) / self.plan.facts.log2_visible[block.rows]
        rows[1] = np.exp2(top) * share
        p *= share[..., None]
        if shifted and np.isnan(share).any():
            _hide(p, block, np.float32(0))
        if block.positions is not None:
            rows[2] = _distance(block, p, mass, far, share)
            rows[3] = 1 - rows[2] / self.plan.facts.farthest[block.rows]
        np.maximum(rows, 0, out=rows)  # what rounding leaves below
        sums[:, _MEANS] += rows[:, :, block.counted].sum(axis=-1, dtype=np.float64).T
        if picks.columns:
            picked = np.take(p.reshape(shape[0], -1), picks.cells, axis=1)
            sums[:, picks.columns] += np.add.reduceat(picked, picks.starts, axis=1, dtype=np.float64)
        self._pool(block, heads, p)
        buffers.give_back()

    def _scores(self, block: Block, heads: slice, x: Floats) -> None:
        """Into x (heads, rows, keys): scores times log2 e, so that exp2 of them is exp of the scores."""
        s = self.s
        inner, outer = s.scale * _LOG2_E, 1.0
        if s.soft_cap:
            inner = (s.scale if s.fused else 1.0) / s.soft_cap
            outer = s.soft_cap * (1.0 if s.fused else s.scale) * _LOG2_E
        q = np.multiply(s.q[heads, block.rows], np.float32(inner), dtype=np.float32)
        group = min(q.shape[0], s.group)  # one product for all heads that share their keys
        kv = slice(heads.start // s.group, heads.start // s.group + q.shape[0] // group)
        stacked = (q.shape[0] // group, group * q.shape[1])
        np.matmul(q.reshape(*stacked, q.shape[2]), self.keys_t[kv, :, block.keys], out=x.reshape(*stacked, block.width))
        if s.soft_cap:
            np.tanh(x, out=x)
            x *= np.float32(outer)
        if s.bias is not None:
            x += s.bias[heads, block.rows, block.keys] * np.float32(_LOG2_E)
        if self.slopes is not None:
            x += self.slopes[heads, None, None] * distance_values(s, block.rows, block.keys)

    def _shift(self, x: Floats, block: Block, heads: slice) -> tuple[Floats, Floats | float, bool]:
        """Take each row's maximum off unless all are small: maxima then, exp2 of learned sinks, whether it was done."""
        sinks = None if self.sinks is None else self.sinks[heads, None]
        _hide(x, block, _LOWEST)
        top: Floats = np.maximum.reduce(x, axis=-1)
        highest = top if sinks is None else np.maximum(top, sinks)
        # a NaN is not small, nor is a row whose greatest score may be a hidden one
        if np.minimum.reduce(top, axis=None) >= -_SMALL and np.maximum.reduce(highest, axis=None) <= _SMALL:
            return top, 0.0 if sinks is None else np.exp2(sinks), False
        _hide(x, block, np.float32(-np.inf))
        top = np.maximum.reduce(x, axis=-1)
        highest = top if sinks is None else np.maximum(top, sinks)
        highest[:, block.blind] = 0
        x -= highest[..., None]
        np.maximum(x, _LOWEST, out=x)
        return top - highest, 0.0 if sinks is None else np.exp2(sinks - highest), True

    def _weigh(self, block: Block, weights: Floats) -> tuple[Floats, Floats | None]:
        """Sum over keys, and the sum of (middle - key) where that gives the distance; float32 (heads, rows) each."""
        flat, shape = weights.reshape(-1, block.width), weights.shape[:2]
        if block.positions is None or not self.plan.facts.causal:
            return (flat @ self.thin[: block.width, :1]).reshape(shape), None
        start = self.s.keys - block.middle + block.keys.start
        sums = flat @ self.thin[start : start + block.width]
        return sums[:, 0].reshape(shape), sums[:, 1].reshape(shape)

    def _pool(self, block: Block, heads: slice, p: Floats) -> None:
        """Add the block to the thumbnails."""
        greatest = self.greatest[heads, block.thumb_rows, block.thumb_keys]
        np.maximum(greatest, self._highest_of_keys(block, _pool_rows(np.maximum, block, p)), out=greatest)
        mean = self.mean[heads, block.thumb_rows, block.thumb_keys]
        mean += np.add.reduceat(_pool_rows(np.add, block, p), block.key_starts, axis=-1)

    def _highest_of_keys(self, block: Block, x: Floats) -> Floats:
        """Maximum over the keys of each cell, by doubling spans: several times faster than `maximum.reduceat`."""
        span = 1
        while 2 * span <= self.plan.narrowest:
            x = np.maximum(x[..., :-span], x[..., span:])  # now each element is the maximum of 2 * span keys
            span *= 2
        return np.maximum(np.take(x, block.key_starts, axis=-1), np.take(x, block.key_stops - span, axis=-1))


class _Buffers:
    """Two float32 arrays of a shape, in memory that is kept for the next block."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        size = math.prod(shape)
        try:
            self._both = _spare.pop()
        except IndexError:
            self._both = np.empty(0, np.float32)
        if self._both.size < 2 * size:
            self._both = np.empty(2 * size, np.float32)
        self.x, self.p = self._both[:size].reshape(shape), self._both[size : 2 * size].reshape(shape)

    def give_back(self) -> None:
        """Keep the memory, unless it is so much that somebody else may need it."""
        if self._both.size <= _MOST_KEPT:
            _spare.append(self._both)


def _hide(x: Floats, block: Block, value: np.float32) -> None:
    """Write `value` where a row does not see a key."""
    for columns, hidden in block.hidden:
        np.copyto(x[:, :, columns], value, where=hidden)


def _distance(block: Block, p: Floats, mass: Floats, far: Floats | None, share: Floats) -> Floats:
    """float32 (heads, rows): mean distance to the keys."""
    assert block.positions is not None
    if far is not None:
        return np.asarray((block.positions - block.middle).astype(np.float32) + far / mass)
    keys = np.arange(block.keys.start, block.keys.stop, dtype=np.float32)
    away = np.abs(block.positions.astype(np.float32)[:, None] - keys)
    return np.asarray(np.einsum("hij,ij->hi", p, away) / (mass * share))


def _pool_rows(how: np.ufunc, block: Block, p: Floats) -> Floats:
    """float32 (heads, cells, keys): rows pooled to those of the thumbnail."""
    if block.even:  # one call instead of one for each cell
        return np.asarray(how.reduce(p.reshape(p.shape[0], -1, block.even, block.width), axis=2))
    pooled = np.empty((p.shape[0], len(block.row_bounds) - 1, block.width), np.float32)
    for cell, (a, b) in enumerate(pairwise(block.row_bounds)):
        how.reduce(p[:, a:b], axis=1, out=pooled[:, cell])
    return pooled
