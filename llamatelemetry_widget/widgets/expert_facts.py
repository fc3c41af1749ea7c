"""What the browser side of an expert strip is told about a trace.

In: a whole `Trace`. Out: the trait `facts` (plain JSON), an overview of all layers, loads, and one layer or token
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


class Routing:
    """The routing of a trace, read once.

    Attributes
    ----------
    trace : Trace
    experts : dict of int to (ids, weights)
        Per layer with experts.
    tokens : dict of int to int32 (n,)
        Which tokens the rows of a layer are.
    layers : list of int
        All layers of the trace, with experts or without.
    count : int
        How many experts a layer has: as the file says; at least as many as were chosen.
    most : float
        The greatest weight, which gets the strongest colour.
    rows : int
        Of the overview: one per token, or fewer where the state of a saved notebook would grow too large.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace, self.experts = trace, trace.experts
        self.tokens = {layer: trace.expert_tokens(layer) for layer in self.experts}
        self.layers = sorted({*self.experts, *(layer.layer for layer in trace.layers)})
        highest = max((int(ids.max()) + 1 for ids, _ in self.experts.values() if ids.size), default=0)
        self.count = max(int(trace.info.get("n_experts") or 0), highest) if self.experts else 0
        known = [float(np.nanmax(w)) for _, w in self.experts.values() if np.isfinite(w).any()]
        self.most = max(known, default=1.0)
        each = max(len(self.experts) * self.count, 1)
        self.rows = max(min(len(trace.token_ids), ROWS, STATE_BYTES // each), 1)

    def facts(self) -> dict[str, Any]:
        """The trait `facts`."""
        trace = self.trace
        return {
            "title": "Experts",
            "model": str(trace.info.get("model") or ""),
            "provenance": self._provenance(),
            "details": details(trace),
            "live": True,
            "saved": day(trace),
            "tokens": trace.tokens,
            "kinds": kinds(trace, "self"),
            "n_experts": self.count,
            "used": max((ids.shape[1] for ids, _ in self.experts.values()), default=0),
            "rows": self.rows,
            "most": self.most,
            "layers": [self._layer_facts(layer) for layer in self.layers],
            "message": self._message(),
        }

    def _provenance(self) -> str:
        """Where the numbers come from. Choices and weights are read, not replayed."""
        replayed = self.trace.provenance.split(" · ")
        return " · ".join(["measured in llama.cpp", *(part for part in replayed[1:] if part != "checked")])

    def _message(self) -> str:
        """Why there is nothing to show; empty where there is something."""
        if self.experts:
            return ""
        if not self.trace.telemetry:
            return "The run has not ended, so what the experts did is not known: run it again to the end."
        if self.trace.info.get("n_experts"):
            return "The experts were not captured: trace again with capture=(…, 'experts')."
        return "This model has no experts: every layer sends all tokens through the same MLP."

    def _layer_facts(self, layer: int) -> dict[str, Any]:
        if layer not in self.experts:
            return {"layer": layer, "used": 0}
        ids, weights = self.experts[layer]
        at, load = self.tokens[layer], experts.load(ids, self.count)
        bits = experts.entropy(experts.shares(weights))
        return {
            "layer": layer,
            "used": int(ids.shape[1]),
            "computed": None if len(at) == len(self.trace.token_ids) else at.tolist(),
            "weighted": bool(np.isfinite(weights).any()),
            "token_bits": _number(np.nanmean(bits) if np.isfinite(bits).any() else np.nan),
            "load_bits": _number(experts.entropy(load)),
            "evenness": _number(experts.evenness(load)),
        }

    def overview(self) -> Array:
        """uint8 (layers, rows, experts): the greatest weight that a token of the row gives an expert; 0 = not chosen.

        Code c >= 1 stands for ``(c - 1) / 254`` of `most`; where weights are not known, 255 for every choice.
        """
        n = len(self.trace.token_ids)
        starts, out = edges(n, self.rows)[:-1], np.zeros((len(self.experts), self.rows, self.count), np.uint8)
        for i, (layer, (ids, weights)) in enumerate(self.experts.items()):
            shown = np.clip(np.nan_to_num(weights, nan=self.most) / (self.most or 1), 0, 1)
            whole = np.zeros((n, self.count), np.uint8)
            whole[self.tokens[layer][:, None], ids] = 1 + np.round(shown * CODES)
            out[i] = np.maximum.reduceat(whole, starts, axis=0)
        return out

    def measures(self) -> Array:
        """float32 (2, layers, rows): greatest weight, and evenness of a token's weights; NaN = not computed, no choice.

        Of several tokens in a row the greatest weight, and the evenness of the least even.
        """
        n = len(self.trace.token_ids)
        out = np.full((2, len(self.experts), n), np.nan, np.float32)
        for i, (layer, (_, weights)) in enumerate(self.experts.items()):
            out[0, i, self.tokens[layer]] = weights.max(1, initial=-np.inf)
            out[1, i, self.tokens[layer]] = experts.evenness(experts.shares(weights))
        starts = edges(n, self.rows)[:-1]
        return np.stack([np.fmax.reduceat(out[0], starts, axis=-1), np.fmin.reduceat(out[1], starts, axis=-1)])

    def loads(self) -> Array:
        """float32 (layers, 2, experts): load, and load by weight (NaN where weights are not known)."""
        out = np.zeros((len(self.experts), 2, self.count), np.float32)
        for i, (ids, weights) in enumerate(self.experts.values()):
            out[i, 0] = experts.load(ids, self.count)
            out[i, 1] = experts.weighted_load(ids, weights, self.count) if np.isfinite(weights).any() else np.nan
        return out

    def layer(self, number: int) -> tuple[Array, Array]:
        """One layer exactly: ids uint16 (tokens, used) and weights float32 (tokens, used), strongest first.

        Raises
        ------
        CaptureUnavailable
            This layer has no experts.
        """
        if number not in self.experts:
            self.trace.expert_tokens(number)  # says so
        ids, weights, at = *self.experts[number], self.tokens[number]
        shape = len(self.trace.token_ids), ids.shape[1]
        order = np.argsort(-weights, axis=1, kind="stable")
        out = np.full(shape, NO_EXPERT, np.uint16), np.full(shape, np.nan, np.float32)
        for whole, own in zip(out, (ids, weights), strict=True):
            whole[at] = np.take_along_axis(own, order, 1)
        return out

    def token(self, number: int) -> tuple[Array, Array]:
        """One token exactly: ids uint16 (layers, used) and weights float32 (layers, used), strongest first.

        Raises
        ------
        CaptureUnavailable
            There is no such token.
        """
        n = len(self.trace.token_ids)
        if not 0 <= number < n:
            raise CaptureUnavailable(f"token {number} does not exist: the prompt has tokens 0 to {n - 1}")
        shape = len(self.experts), max((ids.shape[1] for ids, _ in self.experts.values()), default=0)
        out = np.full(shape, NO_EXPERT, np.uint16), np.full(shape, np.nan, np.float32)
        for i, (layer, (ids, weights)) in enumerate(self.experts.items()):
            for row in np.flatnonzero(self.tokens[layer] == number):
                order = np.argsort(-weights[row], kind="stable")
                out[0][i, : len(order)], out[1][i, : len(order)] = ids[row][order], weights[row][order]
        return out


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
