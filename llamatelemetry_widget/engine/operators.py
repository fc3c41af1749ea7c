"""The operator graph of a prompt, as llama.cpp really built it: tables of operations and of what flows between them.

In: what the worker recorded. Out: `OperatorGraph`, whole or folded by layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .operator_kinds import kinds_of
from .wire import Message

if TYPE_CHECKING:
    import pandas as pd

_IN_NAME = re.compile(r"(?:-|\bcache_\w_l)(\d+)\b")
_IN_WEIGHT = re.compile(r"(?:^|\.)blk\.(\d+)\.")


@dataclass(frozen=True, eq=False)
class OperatorGraph:
    """What runs for one prompt.

    Attributes
    ----------
    info : dict
        ``n_tokens`` and ``whole_seconds`` (the prompt without stops, median) per part, ``n_threads``, ``repeats``,
        ``model``, ``quant_type``, ``device``.
    """

    info: dict[str, Any]
    _parts: list[dict[str, Any]] = field(repr=False)

    def __repr__(self) -> str:
        count = sum(len(part["nodes"]) for part in self._parts)
        return f"<OperatorGraph: {self.info['model']} · {count} operations · {self.info['device']}>"

    @property
    def nodes(self) -> pd.DataFrame:
        """One row per operation and per leaf.

        Returns
        -------
        DataFrame
            ``id``, ``part`` (``"self"``, or ``"encoder"`` and ``"decoder"``), ``index`` (in the order of the run; <NA>
            for a leaf), ``name`` (llama.cpp's), ``op`` (ggml's; ``"WEIGHT"`` for a tensor of the file, ``"INPUT"`` for
            other leaves), ``stage`` (``"input"``, ``"layers"``, ``"output"``), ``layer``, ``kind`` (``"attention"``,
            ``"recurrence"``, ``"MLP"``, ``"norm"``, ``"other"``; None for a leaf), ``shape`` (ggml's order), ``type``,
            ``backend`` (the buffer that holds the result), ``fused`` (the operation does what other graphs do in
            several), ``seconds`` (median of runs that stop after every operation; NaN where none was timed).
        """
        import pandas as pd

        columns = [
            "id",
            "part",
            "index",
            "name",
            "op",
            "stage",
            "layer",
            "kind",
            "shape",
            "type",
            "backend",
            "fused",
            "seconds",
        ]
        rows = [row for part in self._parts for row in _rows(part)]
        frame: pd.DataFrame = pd.DataFrame(rows, columns=columns)
        typed: pd.DataFrame = frame.astype({"index": "Int64", "layer": "Int64", "seconds": "float64"})
        return typed

    @property
    def edges(self) -> pd.DataFrame:
        """One row per source of an operation: ``source``, ``target`` (ids of `nodes`), ``place`` among its sources."""
        import pandas as pd

        rows = [
            (_id(part["part"], source), _id(part["part"], target), place)
            for part in self._parts
            for source, target, place in part["edges"]
        ]
        frame: pd.DataFrame = pd.DataFrame(rows, columns=["source", "target", "place"])
        return frame

    @property
    def layers(self) -> pd.DataFrame:
        """The graph folded by layer: ``part``, ``stage``, ``layer``, number of ``operations``, ``seconds``."""
        nodes = self.nodes
        nodes = nodes[nodes["index"].notna()]
        grouped = nodes.groupby(["part", "stage", "layer"], dropna=False, sort=False)
        frame: pd.DataFrame = grouped.agg(operations=("id", "size"), seconds=("seconds", _sum)).reset_index()
        return frame


def _sum(seconds: Any) -> float:
    return float(seconds.sum(min_count=1))


def operator_graph(answer: Message, info: dict[str, Any]) -> OperatorGraph:
    """The graph that a worker's answer describes."""
    parts = answer["parts"]
    whole = {part["part"]: part["whole_seconds"] for part in parts}
    tokens = {part["part"]: part["n_tokens"] for part in parts}
    return OperatorGraph({**info, "n_tokens": tokens, "whole_seconds": whole, "n_threads": answer["n_threads"]}, parts)


def _id(part: str, which: int | str) -> str:
    return f"{part}/{which}" if isinstance(which, int) else f"{part}/leaf/{which}"


def _rows(part: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Rows of one part: operations in order, then leaves."""
    name, places, kinds = part["part"], _places(part), kinds_of(part["nodes"], part["edges"])
    rows: list[tuple[Any, ...]] = []
    for i, (node, seconds, (stage, layer)) in enumerate(zip(part["nodes"], part["seconds"], places, strict=True)):
        title, op, shape, type_, backend, fused = node
        place = (_id(name, i), name, i, title, op, stage, layer, kinds[i])
        rows.append((*place, tuple(shape), type_, backend, fused, seconds))
    for leaf, first in _leaves(part).items():
        op = "WEIGHT" if leaf.endswith((".weight", ".bias")) or _IN_WEIGHT.search(leaf) else "INPUT"
        stage, layer = places[first]
        rows.append((_id(name, leaf), name, None, leaf, op, stage, layer, None, None, None, None, False, None))
    return rows


def _leaves(part: dict[str, Any]) -> dict[str, int]:
    """Leaves, each with the first operation that reads it."""
    found: dict[str, int] = {}
    for source, target, _ in part["edges"]:
        if isinstance(source, str):
            found.setdefault(source, target)
    return found


def _places(part: dict[str, Any]) -> list[tuple[str, int | None]]:
    """Stage and layer of each operation: by the weights it reads, by its name, else that of the operation before it."""
    weights: dict[int, int] = {}
    for source, target, _ in part["edges"]:
        if isinstance(source, str) and (found := _IN_WEIGHT.search(source)):
            weights[target] = int(found[1])
    own: list[int | None] = []
    for i, node in enumerate(part["nodes"]):
        named = _IN_NAME.search(node[0])
        own.append(weights.get(i, int(named[1]) if named else None))
    labelled = [i for i, layer in enumerate(own) if layer is not None]
    if not labelled:
        return [("layers", None)] * len(own)
    places: list[tuple[str, int | None]] = []
    now = own[labelled[0]]
    for i, layer in enumerate(own):
        now = layer if layer is not None else now
        if i < labelled[0]:
            places.append(("input", None))
        elif i > labelled[-1]:
            places.append(("output", None))
        else:
            places.append(("layers", now))
    return places
