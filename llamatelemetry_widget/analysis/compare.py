"""How far two heads' attention lies apart, and which heads of a model attend alike.

In: `Scoring`s. Out: distances per pair of heads and per query row; overlap of all heads, and the order that puts like
heads side by side. No matrix of tokens x tokens is ever held: memory is linear in tokens.

Rows are compared query by query, as probabilities p and q over the keys; the head's number is the mean over the rows
that have a choice (either head sees at least two keys).

- Jensen-Shannon divergence in bits, not its root: JS = sum of [p log2(p / m) + q log2(q / m)] / 2 with m = (p + q) / 2.
  0 = the same, 1 = no key in common.
- Total variation: TV = sum of |p - q| / 2: the share of attention that goes elsewhere, 0 to 1.
- Overlap (Bhattacharyya coefficient): sum of sqrt(p q), 1 = the same, 0 = no key in common.

What a head with a learned sink gives to nothing counts as one more key. Keys that only one side has are 0 on the other.

References
----------
Lin: Divergence Measures Based on the Shannon Entropy, 1991 (IEEE Transactions on Information Theory 37).
Bhattacharyya: On a Measure of Divergence between Two Statistical Populations, 1943.
Clark et al.: What Does BERT Look At?, 2019, arXiv:1906.04341 (heads clustered by Jensen-Shannon divergence).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, namespace, select
from .replay import QUIET, Scoring, replay_heads
from .rows import row_facts
from .thumbnails import edges

Ints = NDArray[np.int64]
_CELLS = 1 << 18  # of one head in a block: its temporary arrays stay in a core's cache
_BLOCK = 1 << 22  # of all heads in a block: 16 MB in float32
_ROWS = 128  # of a block at most: a causal block's first rows see less than its last


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances of pairs of heads.

    Parameters
    ----------
    js, tv : float32 (pairs,)
        Jensen-Shannon divergence in bits and total variation, means over the counted rows; NaN where there is none.
    js_rows, tv_rows : float32 (pairs, rows)
        The same of each query row; NaN where a row is not counted.
    """

    js: Array
    tv: Array
    js_rows: Array
    tv_rows: Array


def compare(
    a: Scoring,
    b: Scoring,
    pairs: Sequence[tuple[int, int]] | None = None,
    rows: Ints | None = None,
    threads: int = 1,
) -> Distances:
    """Distances between heads of two layers, which may be of two runs.

    Parameters
    ----------
    a, b : Scoring
        Row i of one is compared with row i of the other, key j with key j.
    pairs : sequence of (head of a, head of b), optional
        Each head with its namesake by default.
    rows : int64, optional
        Query rows, ascending; all that both have by default.
    threads : int
        Threads that NumPy arrays are worked on with.

    Raises
    ------
    ValueError
        A head or row does not exist on both sides.
    """
    chosen = [(h, h) for h in range(min(a.heads, b.heads))] if pairs is None else list(pairs)
    for s, side in ((a, 0), (b, 1)):
        wrong = [pair[side] for pair in chosen if not 0 <= pair[side] < s.heads]
        if wrong:
            raise ValueError(f"head {wrong[0]} does not exist: {'ab'[side]} has heads 0 to {s.heads - 1}")
    most = min(a.rows, b.rows)
    at = np.arange(most) if rows is None else np.asarray(rows, np.int64)
    if at.size and not 0 <= at.min() <= at.max() < most:
        raise ValueError(f"rows {at.min()} to {at.max()} do not exist on both sides: rows are 0 to {most - 1}")
    xp = namespace(a.q)
    stops = [_stops(s)[at] for s in (a, b)]
    blocks = _blocks(np.maximum(*stops), max(a.heads, b.heads)) if chosen else []

    def one(block: slice) -> tuple[Array, Array]:
        mine = [_probabilities(s, at[block], int(stop[block].max())) for s, stop in zip((a, b), stops, strict=True)]
        p, q = _with_rest(mine, (a, b))
        return _block_distances(p, q, chosen)

    found = _map(one, blocks, threads if isinstance(a.q, np.ndarray) else 1)
    if not found:
        nothing = xp.full((len(chosen), at.size), xp.nan, dtype=xp.float32)
        mean = xp.full((len(chosen),), xp.nan, dtype=xp.float32)
        return Distances(mean, mean, nothing, nothing)
    counted = _counted([a, b], at)
    js, tv = (xp.concat(list(x), axis=1) for x in zip(*found, strict=True))
    return Distances(*(_mean(x, counted, xp) for x in (js, tv)), *(_only(x, counted, xp) for x in (js, tv)))


def overlap(layers: Sequence[Scoring], rows: Ints | None = None) -> Array:
    """Overlap of every head with every head of some layers of one run.

    Parameters
    ----------
    layers : sequence of Scoring
        All with the same rows and keys.
    rows : int64, optional
        Query rows, ascending; all by default.

    Returns
    -------
    float32 (heads, heads)
        Mean over the counted rows of sum sqrt(p q); layer after layer, head after head.

    Raises
    ------
    ValueError
        The layers are of different texts.
    """
    if len({(s.rows, s.keys) for s in layers}) != 1:
        raise ValueError("layers to compare must have the same query rows and keys")
    xp = namespace(layers[0].q)
    at = np.arange(layers[0].rows) if rows is None else np.asarray(rows, np.int64)
    at = at[_counted(layers, at)]
    heads = sum(s.heads for s in layers)
    total = xp.zeros((heads, heads), dtype=xp.float32)
    stops = np.maximum.reduce([_stops(s) for s in layers])[at]
    for block in _blocks(stops, heads):
        stop = int(stops[block].max())
        sides = _with_rest([_probabilities(s, at[block], stop) for s in layers], layers)
        x = xp.reshape(xp.sqrt(xp.concat(sides)), (heads, -1))
        total = total + x @ x.T
    return xp.clip(total / max(at.size, 1), 0.0, 1.0)


def spread_rows(rows: int, cells_per_row: int, most: int) -> Ints:
    """All query rows, or as many evenly spaced ones as keep to `most` cells; the last is always among them."""
    return np.asarray(edges(rows, max(1, min(rows, most // max(1, cells_per_row))))[1:] - 1)


def cluster(similarity: NDArray[np.floating[Any]]) -> tuple[Ints, NDArray[np.float64]]:
    """Average linkage of 1 - similarity, and the order in which like items stand side by side.

    Parameters
    ----------
    similarity : float (n, n)
        Symmetric; NaN counts as 0.

    Returns
    -------
    order : int64 (n,)
        Of the four ways to join two groups the one whose ends are most alike is taken.
    merges : float64 (n - 1, 4)
        The two groups, their distance, the size of the new group; group n + k is made by row k. As SciPy's `linkage`.

    References
    ----------
    Müllner: Modern hierarchical, agglomerative clustering algorithms, 2011, arXiv:1109.2378 (nearest-neighbour chain).
    """
    alike = np.nan_to_num(np.asarray(similarity, np.float64))
    merges = _numbered(_chain(1 - (alike + alike.T) / 2))
    n = len(alike)
    groups: dict[int, list[int]] = {i: [i] for i in range(n)}
    for k, (left, right) in enumerate(merges[:, :2].astype(int)):
        groups[n + k] = _joined(groups.pop(int(left)), groups.pop(int(right)), alike)
    return np.array([i for group in groups.values() for i in group], np.int64), merges


# ---------------------------------------------------------------------------- blocks of rows


def _stops(s: Scoring) -> Ints:
    """One past the last key that each row sees, at least 1."""
    return np.maximum(row_facts(s, None).stop, 1)


def _counted(layers: Sequence[Scoring], rows: Ints) -> NDArray[np.bool_]:
    """Rows that have a choice in any layer and see something in all; where there is none, all that see something."""
    visible = np.stack([row_facts(s, None).visible[rows] for s in layers])
    some = (visible > 0).all(0)
    choice = some & (visible >= 2).any(0)
    return np.asarray(choice if choice.any() else some)


def _blocks(stops: Ints, heads: int) -> list[slice]:
    """Rows that are worked on at once: few where rows are long."""
    blocks, start = [], 0
    while start < stops.size:
        keys = int(stops[start : start + _ROWS].max())
        size = max(1, min(_ROWS, _CELLS // keys, _BLOCK // (keys * heads)))
        blocks.append(slice(start, min(stops.size, start + size)))
        start += size
    return blocks


def _map(work: Any, items: Sequence[Any], threads: int) -> list[Any]:
    if threads <= 1 or len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def _probabilities(s: Scoring, rows: Ints, keys: int) -> Array:
    """float32 (heads, rows, keys): softmax of some rows of all heads, without the keys that none of them sees."""
    bias = None if s.bias is None else s.bias[:, :, :keys]
    seen = replace(s, k=s.k[:, :keys, :], v=None, bias=bias)
    parts = [replay_heads(seen, head, head + s.group, rows) for head in range(0, s.heads, s.group)]
    return namespace(s.q).concat(parts)


def _with_rest(sides: Sequence[Array], layers: Sequence[Scoring]) -> list[Array]:
    """Where a learned sink takes its share, one more key in front that holds it; 0 on a side that has no such sink."""
    if all(s.sinks is None for s in layers):
        return list(sides)
    return [_one_more(p, s.sinks is not None) for p, s in zip(sides, layers, strict=True)]


def _one_more(p: Array, sink: bool) -> Array:
    xp = namespace(p)
    rest = xp.clip(1 - xp.sum(p, axis=-1, keepdims=True), 0.0, 1.0)
    return xp.concat([rest if sink else xp.zeros_like(rest), p], axis=-1)


def _widened(p: Array, keys: int) -> Array:
    """`p` with zeros up to so many keys."""
    missing = keys - p.shape[-1]
    if missing <= 0:
        return p
    xp = namespace(p)
    return xp.concat([p, xp.zeros((*p.shape[:-1], missing), dtype=p.dtype)], axis=-1)


@np.errstate(**QUIET)  # type: ignore[arg-type]
def _block_distances(a: Array, b: Array, pairs: Sequence[tuple[int, int]]) -> tuple[Array, Array]:
    """float32 (pairs, rows) twice: Jensen-Shannon and total variation of a block of rows."""
    xp = namespace(a)
    widest = max(a.shape[2], b.shape[2])
    a, b = _widened(a, widest), _widened(b, widest)
    js, tv = zip(*(_distance(a[i, ...], b[j, ...], xp) for i, j in pairs), strict=True)
    return xp.stack(list(js)), xp.stack(list(tv))


def _distance(p: Array, q: Array, xp: Any) -> tuple[Array, Array]:
    """float32 (rows,) twice, of probabilities (rows, keys).

    With t = |p - q| / (p + q) the divergence is sum of (p + q) [(1 + t) ln(1 + t) + (1 - t) ln(1 - t)] / (4 ln 2):
    every term is at least 0, so that nothing cancels where p and q are nearly the same.
    """
    one = xp.asarray(1.0, dtype=p.dtype)
    both, apart = p + q, xp.abs(p - q)
    t = apart / xp.where(both == 0, one, both)
    less = one - t
    terms = (one + t) * xp.log(one + t) + less * xp.log(xp.where(less == 0, one, less))
    js = xp.sum(both * terms, axis=-1) * (0.25 / math.log(2))
    return xp.clip(js, 0.0, 1.0), xp.clip(xp.sum(apart, axis=-1) * 0.5, 0.0, 1.0)


def _mean(x: Array, counted: NDArray[np.bool_], xp: Any) -> Array:
    if not counted.any():
        return xp.full((x.shape[0],), xp.nan, dtype=xp.float32)
    return xp.mean(select(x, np.flatnonzero(counted), axis=1), axis=1)


def _only(x: Array, counted: NDArray[np.bool_], xp: Any) -> Array:
    nothing = xp.asarray(xp.nan, dtype=xp.float32)
    return xp.where(xp.asarray(counted)[None, :], x, nothing)


# ---------------------------------------------------------------------------- clustering


def _chain(distance: NDArray[np.float64]) -> list[tuple[int, int, float]]:
    """Merges of items (each named by one item of its group) and their distances, as they are found."""
    d = distance.copy()
    np.fill_diagonal(d, np.inf)
    sizes = np.ones(len(d))
    merges: list[tuple[int, int, float]] = []
    chain: list[int] = []
    alive = np.ones(len(d), bool)
    while len(merges) < len(d) - 1:
        if not chain:
            chain = [int(np.argmax(alive))]
        last = chain[-1]
        near = int(np.argmin(d[last]))
        if len(chain) > 1 and d[last, chain[-2]] <= d[last, near]:
            near = chain[-2]  # of equals the one before, else the chain would run in a circle
        if len(chain) < 2 or near != chain[-2]:
            chain.append(near)
            continue
        del chain[-2:]
        merges.append((last, near, float(d[last, near])))
        share = sizes[last] / (sizes[last] + sizes[near])
        row = share * d[last] + (1 - share) * d[near]
        row[near] = np.inf
        d[near], d[:, near] = row, row
        d[last], d[:, last] = np.inf, np.inf
        sizes[near] += sizes[last]
        alive[last] = False
    return merges


def _numbered(merges: list[tuple[int, int, float]]) -> NDArray[np.float64]:
    """The merges in the order of their distance, groups numbered as they are made."""
    n = len(merges) + 1
    group, sizes = list(range(n)), {i: 1 for i in range(n)}
    owner = list(range(n))

    def root(item: int) -> int:
        while owner[item] != item:
            owner[item] = owner[owner[item]]
            item = owner[item]
        return item

    out = np.zeros((n - 1, 4))
    for k, (x, y, distance) in enumerate(sorted(merges, key=lambda merge: merge[2])):
        left, right = root(x), root(y)
        pair = sorted((group[left], group[right]))
        sizes[n + k] = sizes[pair[0]] + sizes[pair[1]]
        out[k] = *pair, distance, sizes[n + k]
        owner[left], group[right] = right, n + k
    return out


def _joined(left: list[int], right: list[int], alike: NDArray[np.float64]) -> list[int]:
    """Two groups in a row, each maybe turned round, so that what meets is most alike."""
    ways = [(left, right), (left, right[::-1]), (left[::-1], right), (left[::-1], right[::-1])]
    best = max(ways, key=lambda way: alike[way[0][-1], way[1][0]])
    return best[0] + best[1]
