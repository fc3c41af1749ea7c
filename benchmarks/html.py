"""An exported page of all 270 heads against bertviz and inspectus given the same attention: megabytes and seconds.

Ours is the file that `to_html` writes: thumbnails and statistics of all heads, the most striking heads exactly, the
widget's JavaScript, a picture for readers without scripts. Theirs are all matrices, which is what they have.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

import llamatelemetry_widget as lt

from .figure import Figure, Skipped, interleaved, seconds
from .peers import measure
from .prompts import MODEL, prompt_ids
from .wire import PEERS

LENGTHS = (64, 128, 256, 512)
LIMIT, ROUNDS = 2.0, 3
BERTVIZ_BYTES = 45_000  # of memory that bertviz takes per square token at 270 heads: 11 GB at 512 tokens


def figures() -> Iterator[Figure]:
    """Our file's size and time at each length, against the goal and against each peer."""
    missing: dict[str, None] = {}
    with lt.open_model(MODEL) as model:
        for n in LENGTHS:
            trace = model.trace(prompt_ids(model, n), capture=("attention",), progress=False)
            yield from _ours(trace, n, missing)
    if missing:
        raise Skipped("; ".join(missing))


def _ours(trace: lt.Trace, n: int, missing: dict[str, None]) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        path, file = Path(folder) / "page.html", Path(folder) / "attention.npy"
        (took,) = interleaved(ROUNDS, lambda: seconds(lambda: path.write_text(lt.AttentionGrid(trace).to_html())))
        size = path.stat().st_size / 1e6
        yield Figure(f"html_bytes_{n}", size, "MB", size / LIMIT, "goal", f"<= {LIMIT:g} MB", size <= LIMIT)
        np.save(file, [[trace.attention(facts.layer, h) for h in range(facts.heads)] for facts in trace.layers])
        for peer, needs in PEERS.items():
            if peer == "bertviz" and psutil.virtual_memory().available < BERTVIZ_BYTES * n * n * 1.2:
                missing[f"bertviz at {n} tokens: not enough memory"] = None
                continue
            try:
                theirs = measure(f"{peer}_bytes.py", file, needs=needs)
            except Skipped as reason:
                missing[str(reason)] = None
                continue
            megabytes, wait = theirs["bytes"] / 1e6, theirs["seconds"]
            yield Figure(f"html_bytes_{n}", size, "MB", size / megabytes, f"{peer} ({megabytes:.0f} MB)")
            yield Figure(f"html_time_{n}", took, "s", took / wait, f"{peer} ({wait:.2g} s)")
