"""The logit lens: what the model would say if it ended after each layer, of the trace's own streams or of another run.

In: a request. Out: per layer and token the likeliest words, and where the model's final word stands.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...analysis.lens import Final, Rows, read_rows
from ...errors import CaptureUnavailable, EngineCancelled
from ..cpu import usable_threads
from ..wire import SharedBlock
from .graph import Plan
from .head import OutputHead
from .llama import Context, Llama, Settings
from .run import LOGIT_BYTES, Run

Array = np.ndarray[Any, Any]
EMBEDDING = -1  # the "layer" before the first


class LensRun(Run):
    """A request for the lens: besides what `Run` reads ``positions`` (list of int), ``rows`` (layers, -1 = the
    embedding), ``k`` and ``matrix`` (where the output matrix lies in its file).

    Where the trace holds the streams, the request brings them and nothing runs again: ``fd`` of a shared block of
    ``size`` bytes with float32 (rows, positions, width), the last layer's behind them.
    """

    def __call__(self) -> None:
        if self.llama.is_encoder_decoder:
            raise CaptureUnavailable("the lens reads models with one stack of layers; this one has an encoder")
        fits = max(32, LOGIT_BYTES // (4 * self.llama.n_vocab))
        self.request = {
            **self.request,
            "capture": ["hidden", "outputs"],
            "layers": None,
            "logits": "last",
            "n_ubatch": min(self.request["n_ubatch"], fits),
        }
        if not self.request.get("size"):
            super().__call__()
            return
        context = self.llama.context(self._settings(2, self.request["n_ubatch"]))
        self.plan = context.plan("self", self.ids)
        rows, count = self.request["rows"], len(self.request["positions"])
        block = SharedBlock(self.request["size"], self.request["fd"])
        streams = block.array(0, "<f4", (len(rows) + 1, count, self.plan.width))
        self._read(dict(zip(rows, streams, strict=False)), streams[-1])

    def _every_row(self) -> bool:
        return True

    def _start(self, *_: Any) -> None:
        """The arrays stay here: nobody is told of them."""

    def _compute(self, context: Context, plans: dict[str, Plan]) -> Array | None:
        self.plan = plans["self"]
        return super()._compute(context, plans)

    def _reduce(self, extent: int | None = None) -> None:
        arrays, positions = self.captures["self"]._arrays, np.asarray(self.request["positions"], np.int64)
        found = {layer: _stream(arrays, layer) for layer in self.request["rows"]}
        there = {layer: rows[positions] for layer, rows in found.items() if rows is not None}
        self._read(there, arrays[f"hidden.self.{max(self.plan.residual)}"][positions])

    def _read(self, streams: dict[int, Array], last: Array) -> None:
        """Read all layers' streams, block by block, so that few logits exist at once; tell what was found."""
        head = OutputHead(self.plan, self.n_threads, self.request["matrix"])
        starts = range(0, len(last), head.rows_at_once)
        done, total = 0, len(starts) * len(streams)
        parts: dict[int, list[Rows]] = {layer: [] for layer in streams}
        finals = []
        with ThreadPoolExecutor(self.n_threads) as pool:
            for start in starts:
                own = slice(start, start + head.rows_at_once)
                final = Final.of(head.logits(last[own]))
                finals.append(final.ids)
                for layer, rows in streams.items():
                    if self.cancelled():
                        raise EngineCancelled("the lens was stopped; the model can be used again")
                    parts[layer] += self._rows_of(pool, head.logits(rows[own]), final)
                    done += 1
                    self.send({"kind": "progress", "stage": "lens", "done": done, "total": total})
        self._tell(parts, np.concatenate(finals))

    def _rows_of(self, pool: ThreadPoolExecutor, logits: Array, final: Final) -> list[Rows]:
        """A block of logits, read by all threads."""
        size = -(-len(logits) // self.n_threads)
        spans = [slice(at, at + size) for at in range(0, len(logits), size)]
        return list(pool.map(lambda span: read_rows(logits[span], final[span], self.request["k"]), spans))

    def _finish(self, logits: Array | None) -> None:
        """What was found has been told."""

    def _tell(self, parts: dict[int, list[Rows]], final: Array) -> None:
        stacked = {
            name: np.stack([np.concatenate([getattr(part, name) for part in own]) for own in parts.values()])
            for name in ("ids", "probabilities", "entropy", "probability", "rank", "kl")
        }
        words = np.unique(np.concatenate([stacked["ids"].ravel(), final]))
        pieces, _ = self.llama.pieces(words.tolist())
        self.send(
            {
                "kind": "done",
                "layers": list(parts),
                "final": final,
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
