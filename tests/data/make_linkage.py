#!/usr/bin/env python3
"""Average linkage of 40 items by SciPy, which the package does not need: the reference of its own clustering.

In: nothing. Out, beside this script: linkage.npz with similarity (40, 40) float64 and merges (39, 4) float64.

Run:  python make_linkage.py
Needs: scipy, numpy.
"""

from pathlib import Path

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform


def main() -> None:
    r = np.random.default_rng(5)
    points = r.normal(size=(40, 6))
    points[:13] += 3
    points[25:] -= 2
    distance = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    similarity = np.round(1 - distance / distance.max(), 6)
    similarity = (similarity + similarity.T) / 2
    np.fill_diagonal(similarity, 1)
    merges = linkage(squareform(1 - similarity, checks=False), "average")
    np.savez_compressed(Path(__file__).with_name("linkage.npz"), similarity=similarity, merges=merges)


if __name__ == "__main__":
    main()
