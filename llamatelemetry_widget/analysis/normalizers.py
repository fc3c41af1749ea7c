"""What each row's scores are divided by in the softmax, without ever holding a whole matrix.

In: `Scoring`. Out: float64 numbers per row; softmax = exp(masked - normalizer). They are kept for as long as the
`Scoring` lives: whoever asks about a head again has them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .arrays import Array, float32, host, namespace
from .replay import QUIET, Scoring, score_heads

BLOCK = 1 << 18  # cells of a block: one float32 array of it fits a core's second-level cache
_kept: WeakKeyDictionary[Scoring, dict[int, Array]] = WeakKeyDictionary()


def normalizers(s: Scoring, head: int) -> Array:
    """Natural logarithm of the sum of exp(score) over the keys that a row sees, and over the sink if there is one.

    Parameters
    ----------
    s : Scoring
    head : int
        0 .. heads - 1.

    Returns
    -------
    float64 (rows,)
        inf where a row sees nothing.

    Raises
    ------
    ValueError
        No such head.
    """
    return normalizers_of(s, [head])[0, :]


def normalizers_of(s: Scoring, heads: Sequence[int], threads: int = 1) -> Array:
    """float64 (heads, rows): the normalizers of several heads; those that share their keys are computed together."""
    missing = next((head for head in heads if not 0 <= head < s.heads), None)
    if missing is not None:
        raise ValueError(f"head {missing} does not exist: this layer has heads 0 to {s.heads - 1}")
    kept = _kept.setdefault(s, {})
    runs = spans(sorted({head for head in heads if head not in kept}), s.group)
    blocks = row_blocks(s, 0, s.rows, max((b - a for a, b in runs), default=1))
    jobs = [(a, b, rows, keys) for a, b in runs for rows, keys in blocks]
    parts = mapped(lambda job: _normalize(s, *job), jobs, threads)
    xp = namespace(s.q)
    for i, (a, b) in enumerate(runs):
        found = xp.concat(parts[i * len(blocks) : (i + 1) * len(blocks)], axis=1)
        for head in range(a, b):
            kept[head] = found[head - a, :]
    return xp.stack([kept[head] for head in heads])


def row_blocks(s: Scoring, start: int, stop: int, heads: int) -> list[tuple[slice, slice]]:
    """Consecutive rows that make a block for so many heads, each with the keys that any of them sees."""
    if s.mask is None:
        first, last = np.zeros(s.rows, np.int64), np.full(s.rows, s.keys)
    else:
        first, last = host(s.mask.first), np.minimum(host(s.mask.stop), s.keys)
    widest = max(1, int((last - first).max(initial=0)))
    # few rows leave little of a causal block masked; where there are few keys, too, work goes into starting blocks
    size = max(8, min(BLOCK // (heads * widest), max(64, widest // 2)))
    blocks = []
    for a in range(start, stop, size):
        b = min(stop, a + size)
        from_key = int(first[a:b].min())
        blocks.append((slice(a, b), slice(from_key, max(from_key, int(last[a:b].max())))))
    return blocks


def mapped(work: Any, jobs: Sequence[Any], threads: int) -> list[Any]:
    """`work` done on every job, on so many threads; results in the jobs' order."""
    if threads == 1 or len(jobs) < 2:
        return [work(job) for job in jobs]
    with ThreadPoolExecutor(min(threads, len(jobs))) as pool:
        return list(pool.map(work, jobs))


def spans(heads: Sequence[int], group: int) -> list[tuple[int, int]]:
    """Runs of consecutive heads that share their keys, as (first, one past the last)."""
    runs: list[tuple[int, int]] = []
    for head in heads:
        if runs and runs[-1][1] == head and head % group:
            runs[-1] = runs[-1][0], head + 1
        else:
            runs.append((head, head + 1))
    return runs


@np.errstate(**QUIET)  # type: ignore[arg-type]
def _normalize(s: Scoring, start: int, stop: int, rows: slice, keys: slice) -> Array:
    """float64 (heads, rows) of one block."""
    xp = namespace(s.q)
    never = xp.full((stop - start, rows.stop - rows.start), xp.inf, dtype=xp.float64)
    if keys.stop == keys.start:
        return never
    x = score_heads(s, start, stop, rows, keys)
    top = xp.max(x, axis=-1)
    blind = top == -xp.inf
    sinks = None if s.sinks is None else float32(s.sinks)[start:stop, None]
    top = top if sinks is None else xp.maximum(top, sinks)
    top = xp.where(blind, xp.zeros_like(top), top)
    total = xp.sum(xp.exp(x - top[..., None]), axis=-1, dtype=xp.float64)
    if sinks is not None:
        total = total + xp.astype(xp.exp(sinks - top), xp.float64)
    return xp.where(blind, never, xp.astype(top, xp.float64) + xp.log(total))
