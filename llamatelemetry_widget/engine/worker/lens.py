"""The logit lens: what the model would say if it ended after each layer. The prompt runs once more, all rows computed.

In: a request. Out: per layer and token the likeliest words, and where the model's final word stands.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...analysis.lens import Rows, read_rows
from ...errors import CaptureUnavailable, EngineCancelled
from ..cpu import usable_threads
from .graph import Plan
from .head import OutputHead
from .llama import Context, Llama, Settings
from .run import LOGIT_BYTES, Run

Array = np.ndarray[Any, Any]
EMBEDDING = -1  # the "layer" before the first


class LensRun(Run):
    """A request for the lens: besides what `Run` reads ``positions`` (list of int), ``rows`` (layers, -1 = the
    embedding), ``k`` and ``matrix`` (where the output matrix lies in its file).
    """

    def __call__(self) -> None:
        fits = max(32, LOGIT_BYTES // (4 * self.llama.n_vocab))
        self.request = {
            **self.request,
            "capture": ["hidden", "outputs"],
            "layers": None,
            "logits": "last",
            "n_ubatch": min(self.request["n_ubatch"], fits),
        }
        if self.llama.is_encoder_decoder:
            raise CaptureUnavailable("the lens reads models with one stack of layers; this one has an encoder")
        super().__call__()

    def _every_row(self) -> bool:
        return True

    def _start(self, *_: Any) -> None:
        """The arrays stay here: nobody is told of them."""

    def _compute(self, context: Context, plans: dict[str, Plan]) -> Array | None:
        self.plan = plans["self"]
        return super()._compute(context, plans)

    def _reduce(self, extent: int | None = None) -> None:
        head = OutputHead(self.plan, self.n_threads, self.request["matrix"])
        arrays = self.captures["self"]._arrays
        last, positions = max(self.plan.residual), np.asarray(self.request["positions"], np.int64)
        wanted = [layer for layer in self.request["rows"] if layer == EMBEDDING or layer in self.plan.residual]
        final = self._final(head, arrays[f"hidden.self.{last}"][positions])
        found = []
        for done, layer in enumerate(wanted, 1):
            stream = _stream(arrays, layer)
            if stream is not None:
                found.append((layer, self._read(head, stream[positions], final)))
            self.send({"kind": "progress", "stage": "lens", "done": done, "total": len(wanted)})
        self.found, self.final = found, final

    def _final(self, head: OutputHead, rows: Array) -> Array:
        """int32 (positions,): the word that the model ends with."""
        spans = range(0, len(rows), head.rows_at_once)
        return np.concatenate([head.logits(rows[a : a + head.rows_at_once]).argmax(1) for a in spans]).astype(np.int32)

    def _read(self, head: OutputHead, rows: Array, final: Array) -> Rows:
        parts: list[Rows] = []
        for at in range(0, len(rows), head.rows_at_once):
            if self.cancelled():
                raise EngineCancelled("the lens was stopped; the model can be used again")
            logits, own = head.logits(rows[at : at + head.rows_at_once]), final[at : at + head.rows_at_once]
            pieces = zip(np.array_split(logits, self.n_threads), np.array_split(own, self.n_threads), strict=True)
            with ThreadPoolExecutor(self.n_threads) as pool:
                parts += pool.map(
                    lambda piece: read_rows(piece[0], piece[1], self.request["k"]), [p for p in pieces if len(p[0])]
                )
        names = ("ids", "probabilities", "entropy", "probability", "rank")
        return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def _finish(self, logits: Array | None) -> None:
        layers = [layer for layer, _ in self.found]
        stacked = {
            name: np.stack([getattr(rows, name) for _, rows in self.found])
            for name in ("ids", "probabilities", "entropy", "probability", "rank")
        }
        words = np.unique(np.concatenate([stacked["ids"].ravel(), self.final]))
        pieces, _ = self.llama.pieces(words.tolist())
        self.send(
            {
                "kind": "done",
                "layers": layers,
                "final": self.final,
                "words": words.astype(np.int32),
                "pieces": [piece.hex() for piece in pieces],
                **stacked,
            }
        )


def describe_head(llama: Llama, request: dict[str, Any]) -> dict[str, Any]:
    """What stands between the residual stream and the logits: for attributions."""
    n = usable_threads()
    flash, kv_type = request["flash_attention"], request["kv_type"]
    context = llama.context(Settings(256, max(request["n_ubatch"], 2), 2, flash, kv_type, n))
    head = OutputHead(context.plan("self", request["ids"]), n, request["matrix"])
    steps = head.before_matrix()
    return {
        "before": [[op, value] for op, _, value in steps],
        "after": [[op, value] for op, value in head.after_matrix()],
        **{f"weight_{i}": weight for i, (_, weight, _) in enumerate(steps) if weight is not None},
    }


def _stream(arrays: dict[str, Array], layer: int) -> Array | None:
    """float32 (n, width): the residual stream after a layer, or before the first, where that can be told."""
    if layer != EMBEDDING:
        return arrays.get(f"hidden.self.{layer}")
    first, added = arrays.get("hidden.self.0"), [arrays.get(f"{kind}.self.0") for kind in ("attention_out", "mlp_out")]
    if first is None or any(part is None for part in added):
        return None
    return first - sum(part for part in added if part is not None)
