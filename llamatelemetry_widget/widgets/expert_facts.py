"""What the browser side of an expert strip is told about a trace.

In: a whole `Trace`. Out: the trait `facts` (plain JSON), an overview of all layers, loads, and one layer
exactly. Where a table has one entry per layer, it has one per layer with experts, in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis import experts
from ..analysis.thumbnails import edges
from ..errors import CaptureUnavailable
from ..trace import Trace
from .attention_facts import day, details, kinds

Array = np.ndarray[Any, Any]

STATE_BYTES = 1_500_000  # of the overview in a saved notebook
ROWS = 512  # of the overview at most
NO_EXPERT = 65535  # in ids, where a layer uses fewer experts than another, or a token was not computed
CODES = 254  # steps of the overview between a weight just above 0 and the greatest


def facts(trace: Trace) -> dict[str, Any]:
    """The trait `facts`."""
    found = trace.experts
    count = n_experts(trace)
    rows = overview_rows(trace)
    return {
        "title": "Experts",
        "model": str(trace.info.get("model") or ""),
        "provenance": provenance(trace),
        "details": details(trace),
        "live": True,
        "saved": day(trace),
        "tokens": trace.tokens,
        "kinds": kinds(trace, "self"),
        "n_experts": count,
        "used": max((ids.shape[1] for ids, _ in found.values()), default=0),
        "rows": rows,
        "most": greatest(trace),
        "layers": [_layer(trace, layer, count) for layer in layers_of(trace)],
        "message": message(trace),
    }


def message(trace: Trace) -> str:
    """Why there is nothing to show; empty where there is something."""
    if trace.experts:
        return ""
    if trace.info.get("n_experts"):
        return "The experts were not captured: trace again with capture=(…, 'experts')."
    return "This model has no experts: every layer sends all tokens through the same MLP."


def provenance(trace: Trace) -> str:
    """Where the numbers come from. Choices and weights are read, not replayed."""
    replayed = trace.provenance.split(" · ")
    return " · ".join(["measured in llama.cpp", *(p for p in replayed[1:] if p != "checked")])


def layers_of(trace: Trace) -> list[int]:
    """All layers of the trace, with experts or without."""
    return sorted({*trace.experts, *(layer.layer for layer in trace.layers)})


def n_experts(trace: Trace) -> int:
    """How many experts a layer has: as the file says; at least as many as were chosen."""
    highest = max((int(ids.max()) + 1 for ids, _ in trace.experts.values() if ids.size), default=0)
    return max(int(trace.info.get("n_experts") or 0), highest) if trace.experts else 0


def greatest(trace: Trace) -> float:
    """The greatest weight, which gets the strongest colour."""
    tops = [float(np.nanmax(w)) for _, w in trace.experts.values() if w.size and not np.isnan(w).all()]
    return max(tops, default=1.0)


def _layer(trace: Trace, layer: int, count: int) -> dict[str, Any]:
    if layer not in trace.experts:
        return {"layer": layer, "used": 0}
    ids, weights = trace.experts[layer]
    at = trace.expert_tokens(layer)
    shares = experts.load(ids, count)
    bits = experts.entropy(experts.shares(weights))
    return {
        "layer": layer,
        "used": int(ids.shape[1]),
        "computed": None if len(at) == len(trace.token_ids) else at.tolist(),
        "weighted": not bool(np.isnan(weights).all()),
        "token_bits": _number(np.nanmean(bits) if np.isfinite(bits).any() else np.nan),
        "load_bits": _number(experts.entropy(shares)),
        "evenness": _number(experts.evenness(shares)),
    }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def overview_rows(trace: Trace) -> int:
    """Rows of the overview: one per token, or fewer where the state of a saved notebook would grow too large."""
    each = max(len(trace.experts) * n_experts(trace), 1)
    return max(min(len(trace.token_ids), ROWS, STATE_BYTES // each), 1)


def overview(trace: Trace) -> Array:
    """uint8 (layers, rows, experts): the greatest weight that a token of the row gives an expert; 0 = not chosen.

    Code c >= 1 stands for ``(c - 1) / 254`` of `greatest`; where weights are not known, 255 for every choice.
    """
    n, count, rows, most = len(trace.token_ids), n_experts(trace), overview_rows(trace), greatest(trace)
    out = np.zeros((len(trace.experts), rows, count), np.uint8)
    for i, (layer, (ids, weights)) in enumerate(trace.experts.items()):
        table = experts.token_table(ids, np.nan_to_num(weights, nan=most), count)
        codes = 1 + np.round(np.clip(np.nan_to_num(table) / (most or 1), 0, 1) * CODES)
        whole = np.zeros((n, count), np.uint8)
        whole[trace.expert_tokens(layer)] = np.where(np.isnan(table), 0, codes)
        out[i] = np.maximum.reduceat(whole, edges(n, rows)[:-1], axis=0)
    return out


def measures(trace: Trace) -> Array:
    """float32 (2, layers, rows): greatest weight, and evenness of a token's weights; NaN = not computed, no choice.

    Of several tokens in a row the greatest weight, and the evenness of the least even.
    """
    n, rows = len(trace.token_ids), overview_rows(trace)
    out = np.full((2, len(trace.experts), n), np.nan, np.float32)
    for i, (layer, (_, weights)) in enumerate(trace.experts.items()):
        at = trace.expert_tokens(layer)
        out[0, i, at] = weights.max(1, initial=-np.inf)
        out[1, i, at] = experts.evenness(experts.shares(weights))
    starts = edges(n, rows)[:-1]
    return np.stack([np.fmax.reduceat(out[0], starts, axis=-1), np.fmin.reduceat(out[1], starts, axis=-1)])


def loads(trace: Trace) -> Array:
    """float32 (layers, 2, experts): load, and load by weight."""
    count = n_experts(trace)
    out = np.zeros((len(trace.experts), 2, count), np.float32)
    for i, (ids, weights) in enumerate(trace.experts.values()):
        out[i] = experts.load(ids, count), experts.weighted_load(ids, weights, count)
        if np.isnan(weights).all():
            out[i, 1] = np.nan
    return out


def layer(trace: Trace, number: int) -> tuple[Array, Array]:
    """One layer exactly: ids uint16 (tokens, used) and weights float32 (tokens, used), strongest first.

    Raises
    ------
    CaptureUnavailable
        This layer has no experts.
    """
    at = trace.expert_tokens(number)
    found_ids, found_weights = trace.experts[number]
    order = np.argsort(-found_weights, axis=1, kind="stable")
    shape = len(trace.token_ids), found_ids.shape[1]
    ids, weights = np.full(shape, NO_EXPERT, np.uint16), np.full(shape, np.nan, np.float32)
    ids[at] = np.take_along_axis(found_ids, order, 1)
    weights[at] = np.take_along_axis(found_weights, order, 1)
    return ids, weights


def token(trace: Trace, number: int) -> tuple[Array, Array]:
    """One token exactly: ids uint16 (layers, used) and weights float32 (layers, used), strongest first.

    Raises
    ------
    CaptureUnavailable
        There is no such token.
    """
    if not 0 <= number < len(trace.token_ids):
        raise CaptureUnavailable(f"token {number} does not exist: the prompt has tokens 0 to {len(trace.token_ids) - 1}")
    used = max((ids.shape[1] for ids, _ in trace.experts.values()), default=0)
    ids, weights = np.full((len(trace.experts), used), NO_EXPERT, np.uint16), np.full((len(trace.experts), used), np.nan)
    for i, (own, (found_ids, found_weights)) in enumerate(trace.experts.items()):
        row = np.flatnonzero(trace.expert_tokens(own) == number)
        if row.size:
            order = np.argsort(-found_weights[row[0]], kind="stable")
            ids[i, : len(order)] = found_ids[row[0]][order]
            weights[i, : len(order)] = found_weights[row[0]][order]
    return ids, weights.astype(np.float32)
