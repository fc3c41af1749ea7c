"""From a GGUF file to all attention of 512 tokens, against transformers loading the same file with output_attentions.

Ours counts everything after the import: header, worker, weights, run, statistics and thumbnails of all heads
(`open_to_grid`), and besides all 270 matrices as arrays, which is what the peer gives (`open_to_matrices`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import llamatelemetry_widget as lt

from .figure import Figure, interleaved, seconds, times_better
from .peers import measure
from .prompts import MODEL, prompt_ids

N = 512


def figures() -> Iterator[Figure]:
    """Both ways of having all attention."""
    from llamatelemetry_widget.models.find import resolve

    path = resolve(MODEL)
    with lt.open_model(path) as model:
        ids = prompt_ids(model, N)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ids.json"
        file.write_text(json.dumps(ids))

        def peer() -> float:
            return sum(measure("transformers_attention.py", path, file, needs=("torch", "transformers")).values())

        theirs, grid, matrices = interleaved(3, peer, lambda: _ours(path, ids, False), lambda: _ours(path, ids, True))
    yield times_better("open_to_grid_512", grid, "s", theirs, "transformers", 5)
    yield times_better("open_to_matrices_512", matrices, "s", theirs, "transformers", 5)


def _ours(path: Path, ids: list[int], matrices: bool) -> float:
    def run() -> None:
        with lt.open_model(path) as model:
            trace = model.trace(ids, capture=("attention",), progress=False)
            kept = [trace.attention(facts.layer, h) for facts in trace.layers for h in range(facts.heads) if matrices]
            assert len(kept) == (270 if matrices else 0)

    return seconds(run)
