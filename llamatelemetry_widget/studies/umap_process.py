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
    from ..analysis.clusters import find_clusters
    from ..analysis.projection import measured, umap
    from ..errors import LlamaTelemetryError
    from .embedding_space import save_result

    place = Path(folder)
    x = np.load(place / "vectors.npy")
    try:
        made = measured(x, umap(x, **json.loads((place / "settings.json").read_text())))
        labels = find_clusters(made.positions)
    except LlamaTelemetryError as error:
        print(error)
        sys.exit(1)
    save_result(place / "result.npz", made, labels)
