"""Groups of points, named by their own tokens, and how the groups go together.

In: positions, vectors, tokens. Out: `Clusters`. Names are tokens of the group: the most typical, common words first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendMissing
from .projection import unit, usable

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
_NAMED_BY = 3


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
    parents : int32 (groups, levels)
        Group of groups at each level, from few (far away) to many: for labels that come apart on approach.
    """

    labels: Ints
    names: list[str]
    centers: Floats
    counts: Ints
    parents: Ints

    @property
    def unclustered(self) -> float:
        """Share of the rows that are in no group."""
        return float((self.labels < 0).mean()) if len(self.labels) else 0.0


def find_clusters(positions: Floats, least: int | None = None) -> Ints:
    """HDBSCAN on the points of a picture.

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
        scikit-learn is not installed.

    References
    ----------
    Campello, Moulavi, Sander: Density-based clustering based on hierarchical density estimates, 2013.
    """
    try:
        from sklearn.cluster import HDBSCAN
    except ImportError as error:
        raise BackendMissing("scikit-learn is not installed: pip install 'llamatelemetry-widget[umap]'") from error
    placed = np.flatnonzero(np.isfinite(positions).all(1))
    labels = np.full(len(positions), -1, np.int32)
    least = least or max(12, len(placed) // 2000)
    if len(placed) < 2 * least:
        return labels
    found = HDBSCAN(min_cluster_size=least, min_samples=5, algorithm="kd_tree", copy=True).fit_predict(
        positions[placed]
    )
    order = np.argsort(-np.bincount(found[found >= 0]), kind="stable") if (found >= 0).any() else np.zeros(0, int)
    rank = np.empty(len(order) + 1, np.int32)
    rank[order] = np.arange(len(order))
    rank[-1] = -1  # what index -1 reads
    labels[placed] = rank[found]
    return labels


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
    names, centers, directions = [], np.zeros((count, 3), np.float32), np.zeros((count, vectors.shape[1]), np.float32)
    for group in range(count):
        rows = np.flatnonzero(labels == group)
        rows = rows[usable(vectors[rows])]
        own = unit(vectors[rows])
        middle = own.mean(0)
        directions[group] = middle
        centers[group] = np.median(positions[rows], axis=0)
        names.append(_name(rows, own @ middle, tokens))
    counts = np.bincount(labels[labels >= 0], minlength=count).astype(np.int32)
    return Clusters(labels, names, centers, counts, _levels(directions, levels))


def _name(rows: NDArray[np.int64], typical: Floats, tokens: Sequence[str]) -> str:
    """The most typical tokens of a group that are words, one spelling each."""
    ranked = typical - 0.02 * np.log1p(rows)  # among equally typical ones the common word
    chosen: list[str] = []
    seen: set[str] = set()
    for i in np.argsort(-ranked, kind="stable"):
        word = tokens[rows[i]].lstrip("·▁ ").strip()
        key = word.lower().rstrip("s")
        if key and key not in seen and (word.isalpha() or len(rows) < 40 or i > len(rows)):
            seen.add(key)
            chosen.append(word)
        if len(chosen) == _NAMED_BY:
            break
    if not chosen:
        chosen = [tokens[rows[i]] for i in np.argsort(-ranked, kind="stable")[:_NAMED_BY]]
    return ", ".join(chosen)


def _levels(directions: Floats, levels: int) -> Ints:
    """Groups of groups by average linkage of their mean directions: about 8, then 4 times as many, …"""
    count = len(directions)
    out = np.tile(np.arange(count, dtype=np.int32)[:, None], (1, levels))
    if count < 3:
        return out
    from scipy.cluster.hierarchy import fcluster, linkage

    lengths = np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)
    tree = linkage(directions / lengths, "average", metric="cosine")
    for level in range(levels):
        out[:, level] = fcluster(tree, min(8 * 4**level, count), "maxclust") - 1
    return out
