"""What the operations of a compute graph belong to: attention, recurrence, MLP, a norm, or none of these.

In: operations and edges as the worker recorded them. Out: one word for each operation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..models.tree import block_of

#: In the order in which they are shown.
KINDS = ("attention", "recurrence", "MLP", "norm", "other")

_BLOCKS = {
    "attention": "attention",
    "cross-attention": "attention",
    "recurrence": "recurrence",
    "MLP": "MLP",
    "experts": "MLP",
    "shared expert": "MLP",
}
_OPS = {"FLASH_ATTN_EXT": "attention", "ROPE": "attention", "SSM_CONV": "recurrence", "SSM_SCAN": "recurrence"}
_NORMS = {"NORM", "RMS_NORM", "L2_NORM", "GROUP_NORM"}
_NAMES = (
    (re.compile(r"cache_[kv]_l|[QKV]cur\b|kqv?\b"), "attention"),
    (re.compile(r"cache_[rs]_l"), "recurrence"),
    (re.compile(r"ffn_moe"), "MLP"),
)
_LAYERED = re.compile(r"(?:^|\.)blk\.\d+\.(?P<rest>.+)")


def kinds_of(nodes: Sequence[Sequence[Any]], edges: Sequence[Sequence[Any]]) -> list[str]:
    """One of `KINDS` for each operation.

    What reads a weight belongs where the weight does; what reads none belongs where its sources do, by name or by what
    it computes. A sum of two things of different kinds, as the residual one, is "other"; so are the operations before
    and after all layers, but for their norms.

    Parameters
    ----------
    nodes : sequence of (name, op, ...)
    edges : sequence of (source, target, place)
        The source is the index of an operation, or the name of a leaf.
    """
    weights: list[str] = [""] * len(nodes)
    sources: list[list[int]] = [[] for _ in nodes]
    for source, target, _ in edges:
        if isinstance(source, int):
            sources[target].append(source)
        elif source.endswith((".weight", ".bias")) or _LAYERED.search(source):
            weights[target] = source
    found: list[str] = []
    for (name, op, *_), weight, own in zip(nodes, weights, sources, strict=True):
        found.append(_own(name, op, weight) or _inherited(op, [found[at] for at in own]))
    return found


def _own(name: str, op: str, weight: str) -> str:
    """The kind that an operation has by itself; empty where it has none."""
    if op in _NORMS or "norm" in weight:
        return "norm"
    if weight:
        layered = _LAYERED.search(weight)
        return _BLOCKS.get(block_of(layered["rest"], True), "other") if layered else "other"
    return _OPS.get(op) or next((kind for pattern, kind in _NAMES if pattern.search(name)), "")


def _inherited(op: str, sources: Sequence[str]) -> str:
    if op == "ADD" and len(set(sources)) > 1:
        return "other"
    return next((kind for kind in sources if kind != "norm"), "other")
