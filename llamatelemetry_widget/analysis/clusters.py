"""Groups of points, named by their own tokens, and how the groups go together.

In: positions, vectors, tokens. Out: `Clusters`. Names are tokens of the group (`names`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendMissing
from .names import group_names, words_of
from .projection import cuml, unit, usable

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
NEIGHBOURS = 4  # that make a point dense, itself not counted


@dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of rows.

    Attributes
    ----------
    labels : int32 (n,)
        Group of each row, the largest group first; -1 = in none.
    names : list of str
    centers : float32 (groups, 3)
        Where each stands in the picture.
    counts : int32 (groups,)
    worded : float32 (groups,)
        Share of each group's tokens that begin a word and are whole: the others are pieces, signs, numbers.
    parents : int32 (groups, levels)
        Group of groups at each level, from few (far away) to many: for labels that come apart on approach.
    """

    labels: Ints
    names: list[str]
    centers: Floats
    counts: Ints
    worded: Floats
    parents: Ints

    @property
    def unclustered(self) -> float:
        """Share of the rows that are in no group."""
        return float((self.labels < 0).mean()) if len(self.labels) else 0.0


def find_clusters(positions: Floats, least: int | None = None) -> Ints:
    """HDBSCAN on the points of a picture: fast-hdbscan's, with a GPU cuML's.

    fast-hdbscan grows almost linearly with the rows (scikit-learn's with their square). It compiles for some seconds
    when a machine uses it for the first time: `compile_clusters` does that beforehand.

    Parameters
    ----------
    positions : float (n, 3)
        NaN rows are in no group.
    least : int, optional
        Rows of the smallest group; n / 2000 by default, at least 12.

    Returns
    -------
    int32 (n,)
        -1 = in none; groups are numbered from the largest.

    Raises
    ------
    BackendMissing
        The extra ``umap`` is not installed.

    References
    ----------
    Campello, Moulavi, Sander: Density-based clustering based on hierarchical density estimates, 2013.
    """
    placed = np.flatnonzero(np.isfinite(positions).all(1))
    labels = np.full(len(positions), -1, np.int32)
    least = least or max(12, len(placed) // 2000)
    if len(placed) < 2 * least:
        return labels
    on_gpu = cuml("cluster")
    hdbscan = on_gpu.HDBSCAN if on_gpu is not None else _hdbscan()
    found = np.asarray(
        hdbscan(min_cluster_size=least, min_samples=NEIGHBOURS).fit_predict(positions[placed].astype(np.float64))
    )
    order = np.argsort(-np.bincount(found[found >= 0]), kind="stable") if (found >= 0).any() else np.zeros(0, int)
    rank = np.empty(len(order) + 1, np.int32)
    rank[order] = np.arange(len(order))
    rank[-1] = -1  # what index -1 reads
    labels[placed] = rank[found]
    return labels


def compile_clusters() -> None:
    """Let numba compile what `find_clusters` runs (seconds, once per machine); nothing where it is not installed."""
    with suppress(BackendMissing):
        grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
        _hdbscan()(min_cluster_size=4, min_samples=NEIGHBOURS).fit_predict(grid)


def _hdbscan() -> Callable[..., Any]:
    try:
        from fast_hdbscan import HDBSCAN
    except ImportError as error:
        raise BackendMissing("HDBSCAN is not installed: pip install 'llamatelemetry-widget[umap]'") from error
    return cast("Callable[..., Any]", HDBSCAN)


def clusters_of(labels: Ints, positions: Floats, vectors: Floats, tokens: Sequence[str], levels: int = 3) -> Clusters:
    """Names, places and hierarchy of groups.

    Parameters
    ----------
    labels : int (n,)
    positions : float (n, 3)
    vectors : float (n, width)
    tokens : sequence of str
        Of each row, in the order of the vocabulary: earlier tokens are taken for more common ones.
    levels : int
        Of the hierarchy.
    """
    count = int(labels.max(initial=-1)) + 1
    centers, directions = np.zeros((count, 3), np.float32), np.zeros((count, vectors.shape[1]), np.float32)
    worded, members = np.zeros(count, np.float32), []
    words = words_of(tokens)
    for group in range(count):
        rows = np.flatnonzero(labels == group)
        rows = rows[usable(vectors[rows])]
        members.append(rows)
        directions[group] = unit(vectors[rows]).mean(0)
        centers[group] = np.median(positions[rows], axis=0)
        worded[group] = words.begins[rows].mean()
    names = group_names(members, directions, vectors, tokens, words)
    counts = np.bincount(labels[labels >= 0], minlength=count).astype(np.int32)
    return Clusters(labels, names, centers, counts, worded, _levels(centers, levels))


def _levels(centers: Floats, levels: int) -> Ints:
    """Groups of groups that lie together in the picture (Ward's linkage): about 8, then 4 times as many, …"""
    count = len(centers)
    out = np.tile(np.arange(count, dtype=np.int32)[:, None], (1, levels))
    if count < 3:
        return out
    from scipy.cluster.hierarchy import fcluster, linkage

    tree = linkage(centers, "ward")
    for level in range(levels):
        out[:, level] = fcluster(tree, min(8 * 4**level, count), "maxclust") - 1
    return out
