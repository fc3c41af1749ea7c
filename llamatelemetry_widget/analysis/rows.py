"""What the statistics need to know of each query row, whatever the head: where it stands, what it sees, what repeats.

In: `Scoring` and the token ids. Out: `RowFacts`, small NumPy arrays, linear in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, host
from .replay import Scoring
from .statistics import STATISTICS

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]
_NEEDS_POSITIONS = {"induction", "previous_token", "locality", "duplicate_token", "diagonal", "mean_distance"}
_NEEDS_REPEATS = {"induction", "duplicate_token"}


@dataclass(frozen=True, eq=False)
class Repeats:
    """Where the token of each row stood before, without a list of all pairs (that can be as long as the matrix).

    Parameters
    ----------
    order : int64 (keys,)
        Keys sorted by token, then by position.
    start, count : int64 (rows,)
        The earlier occurrences of a row's token are `order[start : start + count]`.
    ids : int64 (keys,)
        The tokens themselves.
    """

    order: Ints
    start: Ints
    count: Ints
    ids: Ints

    def pairs(self, rows: slice) -> tuple[Ints, Ints]:
        """Row (counted from the slice's first) and key of every earlier occurrence in some rows."""
        count = self.count[rows]
        before = np.cumsum(count) - count
        within = np.arange(int(count.sum())) - np.repeat(before, count)
        keys = self.order[np.repeat(self.start[rows], count) + within]
        return np.repeat(np.arange(count.size), count), keys


@dataclass(frozen=True, eq=False)
class RowFacts:
    """Facts of the query rows.

    Parameters
    ----------
    first, stop : int64 (rows,)
        Interval of keys outside of which a row sees nothing.
    counted : bool (rows,)
        Rows that have a choice (all rows where none has one): the statistics are their mean.
    visible : int64 (rows,)
        Number of keys that a row sees.
    log2_visible : float32 (rows,)
        log2 of the number of visible keys, 1 where there is one or none (their entropy is 0 whatever it is divided by).
    positions : int64 (rows,) or None
        Key of the row's own token; None where queries and keys are different texts.
    farthest : float32 (rows,)
        Distance to the farthest visible key, at least 1.
    causal : bool
        No row sees a key after its own.
    repeats : Repeats or None
        None where queries and keys are different texts.
    """

    first: Ints
    stop: Ints
    counted: NDArray[np.bool_]
    visible: Ints
    log2_visible: Floats
    positions: Ints | None
    farthest: Floats
    causal: bool
    repeats: Repeats | None

    def divisors(self) -> NDArray[np.float64]:
        """float64 (statistics,): what the sums over counted rows are divided by; NaN where nothing was measured."""
        return np.array([self._divisor(name) for name in STATISTICS])

    def _divisor(self, name: str) -> float:
        if name in _NEEDS_POSITIONS and self.positions is None:
            return np.nan
        if name in _NEEDS_REPEATS:
            repeated = 0 if self.repeats is None else np.count_nonzero(self.repeats.count)
            return float(repeated) or np.nan
        return float(np.count_nonzero(self.counted))


def row_facts(s: Scoring, token_ids: NDArray[Any] | None) -> RowFacts:
    """Read the facts off the mask and the tokens."""
    first, stop, visible = _visible(s)
    counted = visible >= 2
    if not counted.any():
        counted = np.ones(s.rows, np.bool_)
    ids = None if token_ids is None or len(token_ids) != s.keys else token_ids
    positions = None if ids is None else _positions(s)
    at = np.zeros(s.rows, np.int64) if positions is None else positions
    return RowFacts(
        first,
        stop,
        counted,
        visible,
        np.where(visible >= 2, np.log2(np.maximum(visible, 2)), 1).astype(np.float32),
        positions,
        np.maximum(np.maximum(at - first, stop - 1 - at), 1).astype(np.float32),
        bool((stop <= at + 1).all()),
        None if ids is None or positions is None else _repeats(ids, positions, counted),
    )


def _visible(s: Scoring) -> tuple[Ints, Ints, Ints]:
    """First and stop of the visible interval, and how many keys of it are visible; int64 (rows,) each."""
    if s.mask is None:
        whole = np.full(s.rows, s.keys)
        return np.zeros(s.rows, np.int64), whole, whole
    first, stop = (np.minimum(_int64(x), s.keys) for x in (s.mask.first, s.mask.stop))
    return first, stop, stop - first if s.mask.bits is None else _int64(s.mask.visible_counts())


def _positions(s: Scoring) -> Ints | None:
    """Keys of the rows' own tokens, None where rows and keys do not go together."""
    if s.mask is None:
        return np.arange(s.rows) if s.rows == s.keys else None
    positions = _int64(s.mask.positions())
    return positions if positions[0] >= 0 and positions[-1] == s.keys - 1 else None


def _repeats(ids: NDArray[Any], positions: Ints, counted: NDArray[np.bool_]) -> Repeats:
    order = np.argsort(ids, kind="stable")
    ranked = ids[order]
    start_of_class = np.searchsorted(ranked, ids)
    place = np.empty(ids.size, np.int64)
    place[order] = np.arange(ids.size)
    start = start_of_class[positions]
    return Repeats(order, start, np.where(counted, place[positions] - start, 0), ids.astype(np.int64))


def _int64(x: Array) -> Ints:
    return np.asarray(host(x), dtype=np.int64)
