"""Header and tree of Gemma 3 270M (262144 tokens) against gguf.GGUFReader and Netron, and the worker's start apart."""

from __future__ import annotations

from collections.abc import Iterator

import llamatelemetry_widget as lt

from .figure import Figure, interleaved, seconds, times_better
from .peers import measure
from .prompts import MODEL

LARGE = "gemma3-270m"


def figures() -> Iterator[Figure]:
    """Header of a large vocabulary; time until a fresh worker has loaded a model and answered."""
    import gguf

    from llamatelemetry_widget.models.find import resolve

    path = resolve(LARGE)
    theirs = seconds(lambda: gguf.GGUFReader(path))
    (ours,) = interleaved(5, lambda: seconds(lambda: lt.open_model(path)))
    yield times_better("header_gemma3", ours, "s", theirs, "gguf.GGUFReader", 100)
    (tree,) = interleaved(5, lambda: seconds(lambda: lt.open_model(path).tree))
    yield times_better("open_and_tree_gemma3", tree, "s", theirs, "gguf.GGUFReader", 100)
    netron = measure("netron_tree.py", path, needs=("netron",))
    yield times_better("open_and_tree_gemma3", tree, "s", netron["seconds"], "netron", 5)
    yield Figure("worker_start_and_load", min(_first_answer() for _ in range(3)), "s", None, "-")


def _first_answer() -> float:
    with lt.open_model(MODEL) as model:
        return seconds(lambda: model.tokenize("a"))
