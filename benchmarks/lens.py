"""The logit lens of 256 tokens after every layer: ours, prompt included, against transformers in the same run.

Both give the five likeliest words of every token after every layer; loading counts for neither.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis.lens import Lens

from .figure import Figure, at_most, interleaved, seconds
from .peers import measure
from .prompts import MODEL, prompt_ids

N, K, ROUNDS = 256, 5, 3


def figures() -> Iterator[Figure]:
    """Seconds; and in how many layers both say the same of the last token."""
    with lt.open_model(MODEL) as model, tempfile.TemporaryDirectory() as folder:
        ids, found = prompt_ids(model, N), []
        file = Path(folder) / "ids.json"
        file.write_text(json.dumps(ids))

        def ours() -> float:
            return seconds(lambda: found.append(_lens(model, ids)))

        ours()
        (took,) = interleaved(ROUNDS, ours)
        theirs = measure("transformers_lens.py", model.info.path, file, needs=("torch", "transformers", "gguf"))
        yield at_most(f"lens_{N}", took, "s", theirs["seconds"], "transformers hidden states + matmul", 1.0)
        words = np.asarray(found[-1].ids)[:, -1, 0].tolist()
        same = sum(a == b for a, b in zip(words, theirs["words"], strict=True))
        yield Figure(f"lens_{N}_same_word", same, "layers", same / len(words), f"of {len(words)}")


def _lens(model: lt.Model, ids: list[int]) -> Lens:
    return model.trace(ids, capture=("hidden",), logits="all", progress=False).lens(K)
