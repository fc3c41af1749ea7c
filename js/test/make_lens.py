"""Makes the layer lens's test data from a real model: python js/test/make_lens.py.

In: the catalogue's "smollm2". Out: js/test/data/lens.json, the traits as the kernel sends them (buffers in base64), and
what Python says of some cells.
"""

import base64
import json
from pathlib import Path

import numpy as np

import llamatelemetry_widget as lt

PROMPT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)


def text(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode()


def main() -> None:
    """Write the file."""
    with lt.open_model("smollm2") as model:
        trace = model.trace(PROMPT, progress=False)
        whole = trace.lens()
        lens = lt.LayerLens(trace, selected_tokens=[11])
        lens.page_part()  # reads what a picture shows
        lens.selected_tokens = [23]
        lens.page_part()
        parts = trace.contributions().parts
    state = {name: getattr(lens, name) for name in ("facts", "embedded", "words", "push")}
    made = {
        **state,
        "streams": text(lens.streams.tobytes()),
        "push_heads": text(lens.push_heads.tobytes()),
        "embedded_lens": [text(own) for own in lens.embedded_lens],
        "cells": [
            [
                whole.layers[row],
                token,
                whole.ids[row, token].tolist(),
                whole.probabilities[row, token].tolist(),
                int(whole.final_rank[row, token]),
                float(whole.final_probability[row, token]),
            ]
            for row in (0, 5, 24, 30)
            for token in (3, 22, 23)
        ],
        "head": float(parts.query("part == 'head' and layer == 23 and head == 1").logit.item()),
        "norm": float(np.median(np.linalg.norm(trace.hidden(12)[1:], axis=1))),
    }
    (Path(__file__).parent / "data" / "lens.json").write_text(json.dumps(made) + "\n", "utf-8")


if __name__ == "__main__":
    main()
