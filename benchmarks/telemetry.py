"""What watching costs: the seconds of a text while a TelemetryPanel hears it, against the same text unwatched.

The panel runs as in a notebook: it hears every token, and pushes its state four times a second to somebody who looks.
"""

from __future__ import annotations

from collections.abc import Iterator

import llamatelemetry_widget as lt

from .figure import Figure, at_most, interleaved
from .prompts import MODEL, prompt_ids

TOKENS, ROUNDS = 100, 9
PEER = "no-panel"


def figures() -> Iterator[Figure]:
    """Decode of 100 tokens, with the panel and without."""
    with lt.open_model(MODEL) as model:
        ids = prompt_ids(model, 64)

        def plain() -> float:
            return float(model.generate(ids, TOKENS).result().telemetry["decode_seconds"])

        def watched() -> float:
            generation = model.generate(ids, TOKENS)
            panel = lt.TelemetryPanel(generation, expanded=True)
            panel._receive(panel, {"type": "watch", "id": "bench-1", "on": True}, [])
            trace = generation.result()
            panel.close()
            return float(trace.telemetry["decode_seconds"])

        plain()
        with_panel, without = interleaved(ROUNDS, watched, plain)
        yield at_most("panel_decode_100", 1e3 * with_panel, "ms", 1e3 * without, PEER, 1.02)
