"""What the projecting process does: UMAP, HDBSCAN and the quality of the picture, from a folder into it.

In: ``vectors.npy`` and ``settings.json``. Out: ``result.npz``.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread


def main(folder: str) -> None:
    """Entry of the process."""
    import numpy as np

    from ..engine.cpu import usable_threads

    threads = usable_threads()
    os.environ.setdefault("NUMBA_NUM_THREADS", str(threads))
    from ..analysis.clusters import compile_clusters, find_clusters
    from ..analysis.projection import measured, umap
    from ..errors import LlamaTelemetryError
    from .embedding_space import save_result

    place = Path(folder)
    x, settings = np.load(place / "vectors.npy"), json.loads((place / "settings.json").read_text())
    own = settings.pop("own", len(x))  # the rows after these are the same tokens of another model
    try:
        Thread(target=compile_clusters, daemon=True).start()  # UMAP's optimisation leaves a core free
        made = umap(x, **settings)
        mine = measured(x[:own], replace(made, positions=made.positions[:own]), threads)
        labels = find_clusters(mine.positions)
        made = replace(mine, positions=made.positions)
    except LlamaTelemetryError as error:
        print(error)
        sys.exit(1)
    save_result(place / "result.npz", made, labels)
