"""The models and the prompt of the benchmarks: the catalogue's, and English that every Python has."""

from __future__ import annotations

import pydoc_data.topics

import llamatelemetry_widget as lt

MODEL = "smollm2"  # 30 layers x 9 heads
ENGLISH = "\n".join(pydoc_data.topics.topics.values())


def prompt_ids(model: lt.Model, n: int) -> list[int]:
    """The first n tokens of the text."""
    ids = model.tokenize(ENGLISH[: 12 * n + 1000])[:n]
    assert len(ids) == n
    return ids
