"""Bytes that reach the browser for 270 heads of 256 tokens, against inspectus and bertviz given the same attention.

Ours is everything: the widget's state with its JavaScript, its binary buffers, and the static fallback of the display.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import llamatelemetry_widget as lt

from .figure import Figure, Skipped
from .peers import measure
from .prompts import MODEL, prompt_ids

N, LIMIT = 256, 1.5
PEERS = {"inspectus": ("inspectus", "IPython"), "bertviz": ("bertviz", "torch")}


def figures() -> Iterator[Figure]:
    """Our megabytes to those of each peer, and alone where no peer is installed."""
    with lt.open_model(MODEL) as model, tempfile.TemporaryDirectory() as folder:
        trace = model.trace(prompt_ids(model, N), capture=("attention",), progress=False)
        ours = sent(lt.AttentionGrid(trace)) / 1e6
        goal, met = f"ours <= {LIMIT:g} MB", ours <= LIMIT
        yield Figure("bytes_to_browser_256", ours, "MB", ours / LIMIT, "goal", goal, met)
        file = Path(folder) / "attention.npy"
        np.save(file, [[trace.attention(facts.layer, h) for h in range(facts.heads)] for facts in trace.layers])
        missing = []
        for peer, needs in PEERS.items():
            try:
                theirs = measure(f"{peer}_bytes.py", file, needs=needs)["bytes"] / 1e6
                yield Figure("bytes_to_browser_256", ours, "MB", ours / theirs, f"{peer} ({theirs:.0f} MB)", goal, met)
            except Skipped as reason:
                missing.append(str(reason))
    if missing:
        raise Skipped("; ".join(missing))


def sent(grid: Any) -> int:
    """Bytes of a widget's whole state and of what displaying it writes into the notebook."""
    from ipywidgets.widgets.widget import _remove_buffers

    state, _, buffers = _remove_buffers(grid.get_state())
    shown = grid._repr_mimebundle_()
    bundle = shown[0] if isinstance(shown, tuple) else shown
    texts = json.dumps(state, ensure_ascii=False), json.dumps(bundle, ensure_ascii=False)
    return sum(len(text.encode()) for text in texts) + sum(memoryview(buffer).nbytes for buffer in buffers)
