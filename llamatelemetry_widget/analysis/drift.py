"""What moved between two sets of vectors of the same tokens: two quant types, or two models with one vocabulary.

In: two float32 (n, width). Out: per token how far it moved, and which of its neighbours it kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .projection import unit, usable

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Drift:
    """How two embeddings differ.

    Attributes
    ----------
    moved : float32 (n,)
        Cosine distance between a token's two vectors, 0 to 2; NaN where either has no direction.
    kept : float32 (n,)
        Share of its k nearest neighbours that it still has; NaN in rows that were not looked at.
    k : int
    rows : int
        Rows whose neighbours were looked at, spread evenly.
    aligned : str
        ``"none"`` (one basis) or ``"procrustes"`` (b turned onto a).
    """

    moved: Floats
    kept: Floats
    k: int
    rows: int
    aligned: str


def drift(a: Floats, b: Floats, *, k: int = 10, rows: int = 2000, align: bool | None = None) -> Drift:
    """Compare two embeddings token by token.

    Parameters
    ----------
    a, b : float (n, width)
        Of the same tokens in the same order. Widths may differ where they are aligned.
    k : int
        Neighbours.
    rows : int
        Rows whose neighbours are looked at, all where there are no more.
    align : bool, optional
        Turn b onto a by orthogonal Procrustes. By default where their vectors do not share a basis: the mean cosine of
        a token with itself is below 0.5.

    Returns
    -------
    Drift

    Raises
    ------
    ValueError
        Other numbers of tokens.

    References
    ----------
    Schönemann: A generalized solution of the orthogonal Procrustes problem, 1966.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} vectors do not belong to the same tokens")
    good = np.flatnonzero(usable(a) & usable(b))
    one, two = unit(a[good]), unit(b[good])
    same = one.shape[1] == two.shape[1]
    if align is None:
        align = not same or (len(good) > 0 and float(np.einsum("ij,ij->i", one, two).mean()) < 0.5)
    turned = two @ _turn(one, two) if align else two
    moved = np.full(len(a), np.nan, np.float32)
    width = min(one.shape[1], turned.shape[1])
    moved[good] = 1 - np.einsum("ij,ij->i", one[:, :width], turned[:, :width])
    kept = np.full(len(a), np.nan, np.float32)
    k = min(k, max(len(good) - 1, 0))
    chosen = np.unique(np.linspace(0, len(good) - 1, min(rows, len(good))).astype(np.int64)) if k else np.zeros(0, int)
    for at in range(0, len(chosen), 64):
        own = chosen[at : at + 64]
        pairs = (_nearest(one, own, k), _nearest(two, own, k))
        for row, mine, theirs in zip(own, *pairs, strict=True):
            kept[good[row]] = len(np.intersect1d(mine, theirs)) / k
    return Drift(np.maximum(moved, 0), kept, k, len(chosen), "procrustes" if align else "none")


def onto(a: Floats, b: Floats, aligned: str) -> Floats:
    """Vectors of b as they lie in the space of a, so that one picture can hold both.

    Parameters
    ----------
    a, b : float (n, width)
        Of the same tokens.
    aligned : {"none", "procrustes"}
        As `Drift` has it: b as it is, or turned onto a and scaled as one to the length of a's vectors.

    Returns
    -------
    float32 (n, width of a)
        NaN in rows that have no direction in a or b, where b was turned.
    """
    if aligned == "none":
        return b
    good = usable(a) & usable(b)
    out = np.full(a.shape, np.nan, np.float32)
    if good.any():
        scale = np.median(np.linalg.norm(a[good], axis=1)) / np.median(np.linalg.norm(b[good], axis=1))
        out[good] = b[good] @ _turn(unit(a[good]), unit(b[good])) * scale
    return out


def _turn(a: Floats, b: Floats) -> Floats:
    """The rotation (and reflection), width of b by width of a, that brings b nearest to a."""
    u, _, v = np.linalg.svd(b.T @ a, full_matrices=False)
    return np.asarray(u @ v, np.float32)


def _nearest(x: Floats, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    alike = x[rows] @ x.T
    alike[np.arange(len(rows)), rows] = -np.inf
    return np.argpartition(-alike, k - 1, axis=1)[:, :k]
