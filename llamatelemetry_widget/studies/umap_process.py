"""What the projecting process does: UMAP, HDBSCAN and the quality of the picture, from a folder into it.

In: ``vectors.npy`` and ``settings.json``. Out: ``result.npz``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(folder: str) -> None:
    """Entry of the process."""
    import numpy as np

    from ..engine.cpu import usable_threads

    os.environ.setdefault("NUMBA_NUM_THREADS", str(usable_threads()))
    from dataclasses import replace

    from ..analysis.clusters import find_clusters
    from ..analysis.projection import quality, umap
    from ..errors import LlamaTelemetryError
    from .embedding_space import save_result

    place = Path(folder)
    x = np.load(place / "vectors.npy")
    try:
        made = umap(x, **json.loads((place / "settings.json").read_text()))
        trust, kept = quality(x, made.positions)
        labels = find_clusters(made.positions)
    except LlamaTelemetryError as error:
        print(error)
        sys.exit(1)
    save_result(place / "result.npz", replace(made, trustworthiness=trust, neighbours_kept=kept), labels)
