"""Where some tokens look, and who looks at them: sums of weights over many heads, without ever holding a matrix.

In: `Scoring` of layers with the heads that are asked about, and tokens. Out: one number per key or per query.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .arrays import host, namespace
from .normalizers import BLOCK, normalizers_of, spans
from .replay import QUIET, Scoring, replay_heads, score_heads

Floats: TypeAlias = NDArray[np.float32]
LayerHeads: TypeAlias = "tuple[Scoring, Sequence[int]]"
Heard: TypeAlias = Callable[[int, int], None]


def looks(layers: Sequence[LayerHeads], tokens: Sequence[int], how: str = "mean", heard: Heard | None = None) -> Floats:
    """Where the tokens look: per key, the weight that they give it together.

    Parameters
    ----------
    layers : sequence of (Scoring, sequence of int)
        Layers, each with the heads that count.
    tokens : sequence of int
        Query rows.
    how : {"mean", "max"}
        What is taken of all heads.
    heard : callable, optional
        Told how many layers of how many are done, before each; what it raises ends the work.

    Returns
    -------
    float32 (keys,)
        NaN where the key is masked for all of the tokens in all of the heads.

    Raises
    ------
    ValueError
        No heads, no such token, or another `how`.
    """
    rows = _checked(layers, tokens, how, [s.rows for s, _ in layers])
    return _over(layers, how, heard, lambda s, a, b: _looks(s, a, b, rows))


def seen(
    layers: Sequence[LayerHeads],
    tokens: Sequence[int],
    how: str = "mean",
    heard: Heard | None = None,
    threads: int = 1,
) -> Floats:
    """Who looks at the tokens: per query, the weight that it gives to all of them.

    The first question takes about as long as all of the heads' softmax; a second one of the same heads is quick.

    Parameters
    ----------
    layers, how, heard
        As in `looks`.
    tokens : sequence of int
        Keys.
    threads : int
        How many work on it.

    Returns
    -------
    float32 (rows,)
        NaN where the query sees none of the tokens in any of the heads.
    """
    keys = _checked(layers, tokens, how, [s.keys for s, _ in layers])

    def prepare(s: Scoring, heads: Sequence[int]) -> None:
        normalizers_of(s, heads, threads)

    return _over(layers, how, heard, lambda s, a, b: _seen(s, a, b, keys), prepare)


def _checked(layers: Sequence[LayerHeads], tokens: Sequence[int], how: str, counts: list[int]) -> list[int]:
    if how not in ("mean", "max"):
        raise ValueError(f"how={how!r} is no choice: give 'mean' or 'max'")
    if not any(len(heads) for _, heads in layers):
        raise ValueError("no heads were chosen")
    for s, heads in layers:
        wrong = [head for head in heads if not 0 <= head < s.heads]
        if wrong:
            raise ValueError(f"head {wrong[0]} does not exist: this layer has heads 0 to {s.heads - 1}")
    chosen = sorted({int(token) for token in tokens})
    if not chosen or chosen[0] < 0 or chosen[-1] >= min(counts):
        raise ValueError(f"tokens {list(tokens)} do not exist: there are tokens 0 to {min(counts) - 1}")
    return chosen


def _over(
    layers: Sequence[LayerHeads],
    how: str,
    heard: Heard | None,
    sums: Callable[[Scoring, int, int], tuple[Any, Any]],
    prepare: Callable[[Scoring, Sequence[int]], None] = lambda s, heads: None,
) -> Floats:
    """Mean or maximum over all heads of `sums`: (heads, n), and bool (n,) for where there is any weight at all."""
    total: Any = 0.0
    known: Any = False
    for i, (s, heads) in enumerate(layers):
        if heard is not None:
            heard(i, len(layers))
        prepare(s, heads)
        for a, b in spans(sorted(set(heads)), s.group):
            own, visible = sums(s, a, b)
            total = np.maximum(total, host(own).max(0)) if how == "max" else total + host(own).sum(0, np.float64)
            known = known | host(visible)
    count = 1 if how == "max" else sum(len(set(heads)) for _, heads in layers)
    return np.where(known, total / count, np.nan).astype(np.float32)


def _looks(s: Scoring, start: int, stop: int, rows: list[int]) -> tuple[Any, Any]:
    xp = namespace(s.q)
    own = xp.sum(replay_heads(s, start, stop, rows), axis=1)
    if s.mask is None:
        return own, xp.ones(s.keys, dtype=xp.bool)
    return own, xp.any(s.mask.visible(rows, s.keys), axis=0)


@np.errstate(**QUIET)  # type: ignore[arg-type]
def _seen(s: Scoring, start: int, stop: int, keys: list[int]) -> tuple[Any, Any]:
    xp = namespace(s.q)
    shift = normalizers_of(s, range(start, stop))
    step = max(1, BLOCK // ((stop - start) * len(keys)))
    parts = []
    for a in range(0, s.rows, step):
        rows = slice(a, min(s.rows, a + step))
        x = xp.astype(score_heads(s, start, stop, rows, keys), xp.float64)
        parts.append(xp.sum(xp.exp(x - shift[:, rows, None]), axis=-1))
    if s.mask is None:
        return xp.concat(parts, axis=1), xp.ones(s.rows, dtype=xp.bool)
    return xp.concat(parts, axis=1), xp.any(s.mask.visible(slice(None), s.keys, keys), axis=1)
