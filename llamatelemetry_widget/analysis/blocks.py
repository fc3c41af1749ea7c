"""How the fast path of `reduce` cuts a layer into blocks, and all about a block that is the same for every head.

In: shape, mask and tokens. Out: `Plan`, made once for all layers with the same mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .masks import Mask
from .replay import Scoring
from .rows import Ints, RowFacts, row_facts
from .statistics import STATISTICS
from .thumbnails import edges_within

Hidden: TypeAlias = "list[tuple[slice, NDArray[np.bool_]]]"
_CELLS = 1 << 18  # of a block, all heads: two such float32 arrays fit a core's second-level cache (2 MB) about
_FEW_ROWS, _MANY_ROWS = 24, 64  # of a block: products want many, the masked triangle of a causal block few
_PAIRS_KEPT = 64  # for each key: more earlier occurrences (a token repeated throughout) are listed again when needed


@dataclass(frozen=True, eq=False)
class Block:
    """Some rows and the keys that any of them sees, widened to whole columns of the thumbnail.

    Parameters
    ----------
    rows, keys : slice
        Which of the layer's.
    hidden : list of (columns of the block, bool (rows, columns))
        Cells that are not visible.
    blind : int64
        Rows of the block that see nothing.
    counted : slice or int64
        Rows of the block that the statistics are made of.
    picks : Picks or None
        Cells that are summed, None where they are too many to keep.
    positions : int64 (rows,) or None
        Keys of the rows' own tokens.
    thumb_rows, thumb_keys : slice
        Cells of the thumbnail that the block touches.
    row_bounds : list of int
        Where the block's rows go to another row of the thumbnail, from 0 to the number of rows.
    even : int
        Rows per row of the thumbnail, 0 if they differ.
    key_starts, key_stops : int64
        Where the thumbnail's columns start and stop in the block.
    """

    rows: slice
    keys: slice
    hidden: Hidden
    blind: Ints
    counted: slice | Ints
    picks: Picks | None
    positions: Ints | None
    thumb_rows: slice
    thumb_keys: slice
    row_bounds: list[int]
    even: int
    key_starts: Ints
    key_stops: Ints

    @property
    def width(self) -> int:
        """Number of keys."""
        return int(self.keys.stop - self.keys.start)

    @property
    def middle(self) -> int:
        """Position of a row in the middle: distances are counted from it, so that near keys lose no digits."""
        assert self.positions is not None
        return int(self.positions[self.positions.size // 2])


@dataclass(frozen=True, eq=False)
class Picks:
    """Statistics that are sums of single cells.

    Parameters
    ----------
    columns : list of int
        Which statistics.
    starts : list of int
        Where each one's cells start.
    cells : int64
        Indices into the flat block of a head, statistic after statistic.
    """

    columns: list[int]
    starts: list[int]
    cells: Ints


class Plan:
    """Blocks of a layer. Runs of blocks share no row of the thumbnail, so that threads can fill it in."""

    def __init__(self, s: Scoring, token_ids: NDArray[np.generic] | None, side: int, extent: int | None = None) -> None:
        self._shape, self._side = (*s.q.shape[:2], *s.k.shape[:2]), (side, extent)
        self._mask = _copy(s.mask)  # a copy, because the arrays may lie in memory that somebody else unmaps
        self._token_ids = None if token_ids is None else np.array(token_ids)
        self.facts: RowFacts = row_facts(s, token_ids)
        self.divisors = self.facts.divisors()
        self.row_edges, self.key_edges = (edges_within(n, side, extent) for n in (s.rows, s.keys))
        self.areas = np.outer(np.diff(self.row_edges), np.diff(self.key_edges)).astype(np.float32)
        self.narrowest = int(np.diff(self.key_edges).min())
        repeats = self.facts.repeats
        self._keep_pairs = repeats is None or int(repeats.count.sum()) <= _PAIRS_KEPT * s.keys
        widest = int((self.facts.stop - self.facts.first).max()) + _MANY_ROWS  # about: a window moves with its rows
        self.heads = _chunks(s, min(widest, s.keys))
        self._heads_at_once = self.heads[0].stop
        self.runs = [self._blocks(run, s.mask) for run in self._runs()]

    def fits(self, s: Scoring, token_ids: NDArray[np.generic] | None, side: int, extent: int | None) -> bool:
        """Whether this plan is the one for that layer."""
        shape = (*s.q.shape[:2], *s.k.shape[:2])
        if (self._shape, self._side) != (shape, (side, extent)) or not _equal(self._token_ids, token_ids):
            return False
        mine, other = self._mask, s.mask
        if mine is None or other is None or other.bits is not None:
            return mine is other
        same = mine.offset == other.offset and np.array_equal(mine.first, other.first)
        return same and np.array_equal(mine.stop, other.stop)

    def picks(self, block: Block) -> Picks:
        """Cells of a block that are summed."""
        return block.picks or self._picks(block.rows, block.keys)

    def _runs(self) -> list[slice]:
        """Rows of the thumbnail that make a block; the last first: in causal attention they are longest."""
        first = np.minimum.reduceat(self.facts.first, self.row_edges[:-1]).tolist()
        stop = np.maximum.reduceat(self.facts.stop, self.row_edges[:-1]).tolist()
        bounds = self.row_edges.tolist()
        runs, a = [], 0
        for cell in range(1, len(bounds)):
            last = cell == len(bounds) - 1
            rows = 0 if last else bounds[cell + 1] - bounds[a]
            if last or rows > self._rows_at_once(max(stop[a : cell + 1]) - min(first[a : cell + 1])):
                runs.append(slice(a, cell))
                a = cell
        return runs[::-1]

    def _rows_at_once(self, keys: int) -> int:
        return max(_FEW_ROWS // 3, min(_MANY_ROWS, _CELLS // (int(self._heads_at_once) * max(1, keys))))

    def _blocks(self, run: slice, mask: Mask | None) -> list[Block]:
        start, stop = int(self.row_edges[run.start]), int(self.row_edges[run.stop])
        keys = int(self.facts.stop[start:stop].max() - self.facts.first[start:stop].min())
        size = self._rows_at_once(keys)
        size = stop - start if stop - start < 2 * size else size  # one cell of a few rows more is not worth a cut
        blocks = [self._block(slice(a, min(stop, a + size)), mask) for a in range(start, stop, size)]
        return [b for b in blocks if b.width > 0]

    def _block(self, rows: slice, mask: Mask | None) -> Block:
        first, stop = self.facts.first[rows], self.facts.stop[rows]
        thumb_rows = _overlapped(self.row_edges, rows.start, rows.stop)
        thumb_keys = _overlapped(self.key_edges, int(first.min()), int(stop.max()))
        key_edges = self.key_edges[thumb_keys.start : thumb_keys.stop + 1]
        keys = slice(int(key_edges[0]), int(key_edges[-1]))
        bounds = np.clip(self.row_edges[thumb_rows.start : thumb_rows.stop + 1] - rows.start, 0, rows.stop - rows.start)
        sizes = np.diff(bounds)
        return Block(
            rows,
            keys,
            _hidden(rows, keys, first, stop, mask),
            np.flatnonzero(self.facts.visible[rows] == 0),
            _as_slice(np.flatnonzero(self.facts.counted[rows])),
            self._picks(rows, keys) if self._keep_pairs else None,
            None if self.facts.positions is None else self.facts.positions[rows],
            thumb_rows,
            thumb_keys,
            bounds.tolist(),
            int(sizes[0]) if (sizes == sizes[0]).all() else 0,
            key_edges[:-1] - keys.start,
            key_edges[1:] - keys.start,
        )

    def _picks(self, rows: slice, keys: slice) -> Picks:
        facts, width = self.facts, keys.stop - keys.start
        counted = np.flatnonzero(facts.counted[rows])
        chosen = {"sink": (counted, np.zeros_like(counted))}
        if facts.positions is not None:
            own = facts.positions[rows][counted]
            chosen |= {"diagonal": (counted, own), "previous_token": (counted, own - 1)}
        if facts.repeats is not None:
            i, j = facts.repeats.pairs(rows)
            chosen |= {"duplicate_token": (i, j), "induction": (i, j + 1)}
        columns, cells = [], []
        for name, (i, j) in chosen.items():
            inside = (j >= keys.start) & (j < keys.stop)
            if inside.any():
                columns.append(STATISTICS.index(name))
                cells.append((i * width + (j - keys.start))[inside])
        starts = np.cumsum([0] + [c.size for c in cells[:-1]]).tolist()
        return Picks(columns, starts, np.concatenate(cells) if cells else np.zeros(0, np.int64))


def _chunks(s: Scoring, keys: int) -> list[slice]:
    """Heads that are worked on at once, where a row sees so many keys: all of several KV heads, or some of one."""
    at_once = max(1, _CELLS // (_FEW_ROWS * keys))
    if at_once < s.group:
        return [
            slice(a, min(kv + s.group, a + at_once))
            for kv in range(0, s.heads, s.group)
            for a in range(kv, kv + s.group, at_once)
        ]
    step = at_once // s.group * s.group
    return [slice(a, min(s.heads, a + step)) for a in range(0, s.heads, step)]


def _hidden(rows: slice, keys: slice, first: Ints, stop: Ints, mask: Mask | None) -> Hidden:
    """Cells of a block that are not visible; only its edges are looked at where rows see intervals."""
    if mask is None:
        return []
    if mask.bits is not None:
        return [(slice(None), ~mask.visible(rows, keys.stop)[:, keys.start :])]
    left, right = int(first.max()), max(int(stop.min()), keys.start)
    found = []
    if left > keys.start:
        found.append((slice(0, left - keys.start), np.arange(keys.start, left) < first[:, None]))
    if right < keys.stop:
        found.append((slice(right - keys.start, None), np.arange(right, keys.stop) >= stop[:, None]))
    return found


def _copy(mask: Mask | None) -> Mask | None:
    return mask and Mask(np.array(mask.first), np.array(mask.stop), None, mask.distance, mask.offset)


def _equal(a: NDArray[np.generic] | None, b: NDArray[np.generic] | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def _as_slice(rows: Ints) -> slice | Ints:
    """Consecutive numbers as a slice, which copies nothing."""
    if rows.size and rows[-1] - rows[0] == rows.size - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _overlapped(bounds: Ints, start: int, stop: int) -> slice:
    """Cells of a thumbnail that a span of rows or keys touches."""
    return slice(int(np.searchsorted(bounds, start, "right")) - 1, int(np.searchsorted(bounds, stop, "left")))


_plans: tuple[Plan, ...] = ()  # of the last masks: layers with and without a window alternate


def plan_for(s: Scoring, token_ids: NDArray[np.generic] | None, side: int, extent: int | None = None) -> Plan:
    """The plan of a layer, the same one as for an earlier layer where mask, tokens and shape are the same."""
    global _plans
    for plan in _plans:
        if plan.fits(s, token_ids, side, extent):
            return plan
    plan = Plan(s, token_ids, side, extent)
    if s.mask is None or s.mask.bits is None:  # else it is as large as the matrix
        _plans = (plan, *_plans[:2])
    return plan
