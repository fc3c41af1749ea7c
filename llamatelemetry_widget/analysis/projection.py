"""Vectors as points in three dimensions: PCA, UMAP, and how far the picture can be trusted.

In: float32 (n, width). Out: `Projected`. Rows that are not finite, or have no direction, are left out and counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BackendMissing

Floats = NDArray[np.float32]
DIRECT_NUMBERS = 120_000_000  # up to here UMAP sees all dimensions; above, principal components (faster, and coarser)
COMPONENTS = 64
LEAST_ROWS = 5  # UMAP's start needs more rows than dimensions


@dataclass(frozen=True, eq=False)
class Projected:
    """Points of a picture.

    Attributes
    ----------
    positions : float32 (n, 3)
        NaN in rows that are not placed.
    method : str
        ``"pca"`` or ``"umap"``.
    parameters : dict
    seconds : float
    note : str
        What was done otherwise than asked, and how many rows are not placed; empty where nothing was.
    trustworthiness, neighbours_kept : float or None
        Of `quality`; None where it was not measured.
    quality_rows : int or None
        Rows that the two were measured on: fewer than are placed means that they are estimates; 0 means that there are
        too few to measure anything. None where nobody has tried.
    """

    positions: Floats
    method: str
    parameters: dict[str, Any]
    seconds: float
    note: str = ""
    trustworthiness: float | None = None
    neighbours_kept: float | None = None
    quality_rows: int | None = None

    @property
    def valid(self) -> NDArray[np.bool_]:
        """bool (n,): rows that are placed."""
        return np.asarray(np.isfinite(self.positions).all(axis=1), np.bool_)


@dataclass(frozen=True, eq=False)
class Components:
    """The directions of largest variance.

    Attributes
    ----------
    mean : float32 (width,)
    directions : float32 (components, width)
    share : float
        Of the variance, that these directions hold.
    """

    mean: Floats
    directions: Floats
    share: float = field(default=0.0)


def cuml(part: str) -> Any | None:
    """A module of cuML (RAPIDS); None where it is not installed or finds no GPU."""
    try:
        import cupy

        return import_module(f"cuml.{part}") if cupy.cuda.runtime.getDeviceCount() else None
    except Exception:  # a driver that is not there or too old has many names
        return None


def usable(x: Floats) -> NDArray[np.bool_]:
    """bool (n,): finite rows that are not all zero."""
    found: NDArray[np.bool_] = np.isfinite(x).all(axis=1) & (np.abs(np.nan_to_num(x)).sum(axis=1) > 0)
    return found


def unit(x: Floats) -> Floats:
    """Rows at length 1."""
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def components(x: Floats, n: int) -> Components:
    """Principal components, from the covariance: memory for one more block of rows only."""
    width, n = x.shape[1], min(n, x.shape[1])
    mean = x.mean(0, dtype=np.float64).astype(np.float32)
    covariance = np.zeros((width, width))
    for start in range(0, len(x), 16384):
        block = x[start : start + 16384] - mean
        covariance += block.T @ block
    values, vectors = np.linalg.eigh(covariance)
    chosen = vectors[:, ::-1][:, :n].T
    signs = np.sign(chosen[np.arange(n), np.abs(chosen).argmax(1)])  # a sign is free: the largest entry is positive
    total = float(values.sum())
    share = float(values[::-1][:n].sum()) / total if total > 0 else 1.0
    return Components(mean, (chosen * signs[:, None]).astype(np.float32), share)


def pca(x: Floats, n: int = 3) -> Projected:
    """The first principal components.

    Parameters
    ----------
    x : float (rows, width)
    n : int
        Dimensions of the picture; where there are fewer, the rest is 0.
    """
    started = time.perf_counter()
    good = usable(x)
    out = np.full((len(x), n), np.nan, np.float32)
    share = 1.0
    if good.any():
        found = components(x[good], n)
        placed = (x[good] - found.mean) @ found.directions.T
        out[good] = 0
        out[np.flatnonzero(good)[:, None], np.arange(placed.shape[1])] = placed
        share = found.share
    return Projected(
        out, "pca", {"n": n, "variance_share": round(share, 4)}, time.perf_counter() - started, _left_out(good)
    )


def umap(
    x: Floats,
    n: int = 3,
    *,
    metric: str = "cosine",
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    seed: int = 0,
    estimator: Callable[..., Any] | None = None,
) -> Projected:
    """UMAP, seeded; PCA where there are fewer than five rows.

    Parameters
    ----------
    x : float (rows, width)
    n : int
        Dimensions of the picture.
    metric, n_neighbors, min_dist
        UMAP's own.
    seed : int
        The same seed and machine give the same picture.
    estimator : callable, optional
        Makes the estimator; by default cuML's where it is installed and finds a GPU, else ``umap.UMAP``.

    Raises
    ------
    BackendMissing
        umap-learn is not installed.

    References
    ----------
    McInnes, Healy, Melville: UMAP, 2018 (arXiv:1802.03426).
    """
    good = usable(x)
    rows = int(good.sum())
    if rows < LEAST_ROWS:
        plain = pca(x, n)
        why = f"PCA, because UMAP needs at least {LEAST_ROWS} vectors"
        return Projected(plain.positions, "pca", plain.parameters, plain.seconds, _joined(why, plain.note))
    note = _left_out(good)
    on_gpu = cuml("manifold") if estimator is None else None
    if on_gpu is not None:
        estimator, note = on_gpu.UMAP, _joined("by cuML, on the GPU", note)
    if estimator is None:
        try:
            from umap import UMAP

            estimator = UMAP
        except ImportError as error:
            raise BackendMissing("UMAP is not installed: pip install 'llamatelemetry-widget[umap]'") from error
    started = time.perf_counter()
    data = x[good]
    parameters = {"metric": metric, "n_neighbors": min(n_neighbors, rows - 1), "min_dist": min_dist, "seed": seed}
    if data.size > DIRECT_NUMBERS:
        if metric == "cosine":
            data = unit(data)
        found = components(data, COMPONENTS)
        data = data @ found.directions.T
        parameters |= {"components": COMPONENTS, "variance_share": round(found.share, 4)}
        note = _joined(
            f"neighbours by the first {COMPONENTS} principal components ({found.share:.0%} of variance)", note
        )
    fitted = estimator(
        n_components=n,
        metric=metric,
        n_neighbors=parameters["n_neighbors"],
        min_dist=min_dist,
        random_state=seed,
        init="random" if rows < 4 * n else "spectral",
        verbose=True,
    )
    out = np.full((len(x), n), np.nan, np.float32)
    out[good] = np.asarray(fitted.fit_transform(data), np.float32)
    lost = int((~np.isfinite(out[good]).all(1)).sum())
    if lost:
        out[~np.isfinite(out).all(1)] = np.nan
        note = _joined(f"{lost} vectors have no neighbours and are not placed", note)
    return Projected(out, "umap", parameters, time.perf_counter() - started, note)


@dataclass(frozen=True)
class Quality:
    """How far a picture keeps neighbourhoods.

    Attributes
    ----------
    trustworthiness : float
        1 = every neighbour in the picture is one; lower the farther away those are that are not.
    neighbours_kept : float
        Share of the k true nearest that are among the k nearest of the picture.
    rows : int
        Rows that were looked at, each compared with all.
    """

    trustworthiness: float
    neighbours_kept: float
    rows: int


def measured(x: Floats, made: Projected, threads: int = 1) -> Projected:
    """A picture with its `quality`."""
    found = quality(x, made.positions, threads=threads)
    if found is None:
        return replace(made, quality_rows=0)
    return replace(
        made,
        trustworthiness=found.trustworthiness,
        neighbours_kept=found.neighbours_kept,
        quality_rows=found.rows,
    )


def quality(
    x: Floats, positions: Floats, k: int = 10, sample: int = 500, seed: int = 0, threads: int = 1
) -> Quality | None:
    """How far a picture keeps neighbourhoods: exact up to `sample` rows, beyond that an estimate from a seeded sample.

    Parameters
    ----------
    x : float (n, width)
        Neighbours by cosine.
    positions : float (n, 3)
    k : int
        Neighbours looked at.
    sample : int
        Rows.
    seed : int
        Of the sample.
    threads : int

    Returns
    -------
    Quality or None
        None where fewer than three rows are placed: they have no neighbourhoods.

    References
    ----------
    Venna, Kaski: Neighborhood preservation in nonlinear projection methods, 2001 (trustworthiness).
    """
    good = np.flatnonzero(usable(x) & np.isfinite(positions).all(1))
    n = len(good)
    k = min(k, (n - 1) // 2)
    if k < 1:
        return None
    rows = np.sort(np.random.default_rng(seed).permutation(n)[:sample])
    data, points = unit(x[good]), positions[good].astype(np.float64)

    def block(at: int) -> tuple[float, int]:
        penalty, kept, own = 0.0, 0, rows[at : at + 50]
        alike = data[own] @ data.T
        alike[np.arange(len(own)), own] = -np.inf
        for i, row in enumerate(own):
            distance = np.square(points - points[row]).sum(1)
            distance[row] = np.inf
            near = np.argpartition(distance, k)[:k]
            true = np.argpartition(-alike[i], k)[:k]
            kept += len(np.intersect1d(near, true))
            wrong = np.setdiff1d(near, true)
            ranks = 1 + (alike[i][None, :] > alike[i][wrong][:, None]).sum(1)
            penalty += float(np.maximum(ranks - k, 0).sum())
        return penalty, kept

    with ThreadPoolExecutor(threads) as pool:
        penalties, keeps = zip(*pool.map(block, range(0, len(rows), 50)), strict=True)
    penalty, kept = sum(penalties), sum(keeps)
    worst = k * (2 * n - 3 * k - 1) / 2
    return Quality(1 - penalty / (len(rows) * worst), kept / (len(rows) * k), len(rows))


def _left_out(good: NDArray[np.bool_]) -> str:
    bad = int((~good).sum())
    return f"{bad} vectors are zero or not finite and are not placed" if bad else ""


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
