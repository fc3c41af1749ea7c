"""The compute graph as llama.cpp runs it: every operation with its sources, shape, backend and time.

In: a model, a prompt. Out: columns of nodes and edges. Times come from runs that stop after every operation, so each
stands alone; how long the same prompt takes without stops is measured beside them.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

from ..cpu import usable_threads
from . import ggml
from .graph import Node
from .llama import Context, Llama, Settings
from .taps import Tap

FUSED = {"FLASH_ATTN_EXT", "GLU"}  # operations that do what other graphs do in several


class GraphRun:
    """A request for the graph of a prompt.

    Parameters
    ----------
    llama : Llama
        The model.
    request : dict
        ``ids``, ``decoder_ids``, ``flash_attention``, ``kv_type``, ``repeats`` (timed runs; 0 = none).
    """

    def __init__(self, llama: Llama, request: dict[str, Any]) -> None:
        self.llama, self.request = llama, request

    def __call__(self) -> dict[str, Any]:
        """The graphs of all parts, one after the other."""
        ids, decoder_ids = self.request["ids"], self.request["decoder_ids"]
        parts = {"encoder": ids, "decoder": decoder_ids} if self.llama.is_encoder_decoder else {"self": ids}
        n = max(len(own) for own in parts.values())
        context = self._context(n, n if self.llama.is_encoder_decoder else 2)
        if any(not a.cached for a in context.plan(next(iter(parts)), ids).attention):
            context = self._context(n, n)  # no cache: llama.cpp gives every row
        found = [self._part(context, part, own) for part, own in parts.items()]
        return {"parts": found, "n_threads": usable_threads()}

    def _context(self, n: int, outputs: int) -> Context:
        n_ctx, flash, kv_type = -(-max(n, 2) // 256) * 256, self.request["flash_attention"], self.request["kv_type"]
        return self.llama.context(Settings(n_ctx, max(n, 2), max(outputs, 2), flash, kv_type, usable_threads()))

    def _part(self, context: Context, part: str, ids: list[int]) -> dict[str, Any]:
        last = [len(ids) - 1]

        def run(record: bool = False, timed: bool = False) -> float:
            context.clear()
            started = time.perf_counter()
            context.run(part, ids, 0, last, record=record, timed=timed)
            return time.perf_counter() - started

        run(record=True)
        nodes, places = context.evaluation.recorded(), context.evaluation.places()
        times: list[list[float]] = []
        whole: list[float] = []
        for _ in range(self.request["repeats"]):
            whole.append(run())
            run(timed=True)
            times.append(context.evaluation.times)
        seconds = np.median(times, axis=0) if times else np.full(len(nodes), np.nan)
        return {
            "part": part,
            "n_tokens": len(ids),
            "whole_seconds": statistics.median(whole) if whole else None,
            "nodes": [_node(node, place) for node, place in zip(nodes, places, strict=True)],
            "edges": _edges(nodes),
            "seconds": [None if np.isnan(s) else float(s) for s in seconds],
        }


class ValuesRun(GraphRun):
    """A request for what some operations gave for the last token of a prompt.

    Parameters
    ----------
    llama : Llama
        The model.
    request : dict
        As of `GraphRun`, and ``picks``: ``[part, index, axis]`` of operations, whose last slice along that axis (ggml's
        order) is read.
    """

    def __call__(self) -> dict[str, Any]:
        """``values_i`` (axes reversed) and ``params_i`` (the operation's parameters as int32) of each pick."""
        found = super().__call__()["parts"]
        return {name: value for part in found for name, value in part.items()}

    def _part(self, context: Context, part: str, ids: list[int]) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def tap(at: int, node: Node, axis: int) -> Tap:
            def act(tensor: ggml.Tensor) -> None:
                found[f"values_{at}"] = ggml.read(tensor, axis, max(int(tensor.ne[axis]) - 1, 0))
                found[f"params_{at}"] = np.array(tensor.op_params, np.int32)

            return Tap(node, act)

        context.clear()
        context.run(part, ids, 0, [len(ids) - 1], record=True)
        nodes = context.evaluation.recorded()
        own = [(at, pick) for at, pick in enumerate(self.request["picks"]) if pick[0] == part]
        context.clear()
        context.run(part, ids, 0, [len(ids) - 1], [tap(at, nodes[index], axis) for at, (_, index, axis) in own])
        return found


def _node(node: Node, place: str) -> list[Any]:
    return [node.name, node.op, list(node.ne), ggml.type_name(node.type), place, node.op in FUSED]


def _edges(nodes: list[Node]) -> list[list[Any]]:
    """``[source, target, place]``: the source is a node's index, or the name of a leaf (weight, cache, input)."""
    return [
        [source.name if source.is_leaf else source.index, node.index, at]
        for node in nodes
        for at, source in enumerate(node.src)
        if source is not None
    ]
