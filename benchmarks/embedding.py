"""Embedding spaces: UMAP of a whole vocabulary against plain umap-learn, exact neighbours against scikit-learn."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import llamatelemetry_widget as lt
from llamatelemetry_widget.studies import embedding_space
from llamatelemetry_widget.studies.embedding_space import EmbeddingSpace

from .figure import Figure, Skipped, at_most, interleaved, seconds
from .header import LARGE
from .prompts import MODEL

#: What somebody would write: one call, in a process of its own, as ours is.
PLAIN = """
import sys, numpy as np, umap
x = np.load(sys.argv[1])
made = umap.UMAP(n_components=3, metric="cosine", n_neighbors=15, min_dist=0.1, random_state=0).fit_transform(x)
np.save(sys.argv[2], made)
"""
_SETTINGS = {"n_neighbors": 15, "min_dist": 0.1, "seed": 0}


def figures() -> Iterator[Figure]:
    """49 152 tokens of SmolLM2, 262 144 of Gemma 3."""
    try:
        import sklearn  # noqa: F401
        import umap  # noqa: F401
    except ImportError as error:
        raise Skipped("the extra `umap` is not installed") from error
    with lt.open_model(LARGE) as model:
        yield from _neighbours(model)
    with lt.open_model(MODEL) as model:
        yield from _pipeline(EmbeddingSpace(model).vectors)
    with lt.open_model(LARGE) as model:
        x = EmbeddingSpace(model).vectors
        taken = seconds(lambda: _ours(x))
        yield Figure("umap_262144", taken, "s", taken / 300, "goal", "ours <= 300 s", taken <= 300)


def _neighbours(model: lt.Model) -> Iterator[Figure]:
    from sklearn.neighbors import NearestNeighbors

    x = model.embeddings()
    theirs = NearestNeighbors(n_neighbors=11, metric="cosine", algorithm="brute").fit(x)
    query = x[5000:5001]
    model.neighbours(5000)  # the first call expands the matrix
    ours, peer = interleaved(
        5, lambda: seconds(lambda: model.neighbours(query)), lambda: seconds(lambda: theirs.kneighbors(query))
    )
    yield Figure("neighbours_262144", ours * 1e3, "ms", ours / 0.05, "goal", "ours <= 50 ms", ours <= 0.05)
    yield at_most("neighbours_262144", ours * 1e3, "ms", peer * 1e3, "scikit-learn", 1.0)


def _pipeline(x: np.ndarray) -> Iterator[Figure]:
    plain = seconds(lambda: _plain(x))
    ours = seconds(lambda: _ours(x))
    yield at_most("picture_49152", ours, "s", plain, "umap-learn (no groups, no quality)", 1.1)


def _ours(x: np.ndarray) -> None:
    """UMAP, groups and quality, in the process that does it, nothing cached."""
    embedding_space._run(x, _SETTINGS, None, lambda: False)


def _plain(x: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "x.npy", Path(folder) / "y.npy"
        np.save(source, x)
        subprocess.run([sys.executable, "-c", PLAIN, source, target], check=True, capture_output=True)
