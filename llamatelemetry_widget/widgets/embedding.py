"""Heads that travel with a saved notebook or an exported page: what each is replayed from, nothing of it twice.

In: heads of a trace. Out: the traits `embedded` (JSON) and `embedded_data` (bytes).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..trace import Trace
from .attention_facts import Array, find_layer, head_parts, parts_of


class Embedding:
    """Heads of one part of a trace. Heads that share their keys share these here, too.

    Attributes
    ----------
    facts : dict of str to dict
        Per head, ``"layer,head"``: its constants, and which of the buffers are its own.
    size : int
        Bytes of all buffers.
    """

    def __init__(self, trace: Trace, part: str) -> None:
        self._trace, self._part = trace, part
        self._places: dict[bytes, int] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.size = 0

    @property
    def data(self) -> list[bytes]:
        """The buffers."""
        return list(self._places)

    def add(self, layer: int, head: int, budget: float = float("inf")) -> bool:
        """Take a head in unless it would make all more than `budget` bytes; whether it is in."""
        return self._take(layer, head, head_parts(self._trace, layer, head, self._part), budget)

    def add_all(self, heads: Iterable[tuple[int, int]]) -> None:
        """Take heads in, each (layer, head). Those of one layer are computed together."""
        chosen: dict[int, list[int]] = {}
        for layer, head in heads:
            chosen.setdefault(int(layer), []).append(int(head))
        for layer, own in chosen.items():
            facts = find_layer(self._trace, layer, self._part)
            for head, parts in zip(own, parts_of(self._trace, facts, own, self._part), strict=True):
                self._take(layer, head, parts, float("inf"))

    def _take(self, layer: int, head: int, parts: tuple[dict[str, Any], list[Array]], budget: float) -> bool:
        facts, arrays = parts
        buffers = [array.tobytes() for array in arrays]
        more = sum(len(buffer) for buffer in set(buffers) - self._places.keys())
        if self.size + more > budget:
            return False
        self.size += more
        places = [self._places.setdefault(buffer, len(self._places)) for buffer in buffers]
        self.facts[f"{layer},{head}"] = {**facts, "buffers": places}
        return True
