"""Blocks of text scored for a study: the base writes logits where a candidate reads them, so that none travel or stay.

In: requests with the tokens of one step of a block, and shared memory. Out: how many rows; or four numbers per row.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ...analysis.quality import Scores, compare_rows, joined
from ...errors import CaptureUnavailable, LlamaTelemetryError
from ..cpu import usable_threads
from ..wire import SharedBlock
from .llama import Llama, Settings

Array = np.ndarray[Any, Any]
_AT_ONCE = 1 << 17  # logits: what a core's cache holds


class Scorer:
    """Runs blocks step by step; a block's tokens stay in the context between its steps.

    A request has ``ids`` (of this step), ``start`` (position of the first; 0 begins a block), ``rows`` (first and stop
    of those that are scored, counted in the step), ``n_ctx`` (tokens of a block), ``n_ubatch`` (of a step),
    ``kv_type``, ``flash_attention``, ``size`` (bytes of the shared block).
    """

    def __init__(self, llama: Llama) -> None:
        if llama.is_encoder_decoder:
            raise CaptureUnavailable("a study reads models with one stack of layers; this one has an encoder")
        self.llama, self.threads, self._at = llama, usable_threads(), 0

    def logits(self, request: dict[str, Any], block: SharedBlock) -> dict[str, Any]:
        """Write the scored rows' logits, float32 (rows, vocab), into the block."""
        rows = self._run(request)
        block.array(0, "<f4", rows.shape)[:] = rows
        return {"rows": len(rows)}

    def compare(self, request: dict[str, Any], block: SharedBlock) -> dict[str, Any]:
        """Compare the scored rows with those in the block; ``targets`` are the tokens that came."""
        other = self._run(request)
        base, targets = block.array(0, "<f4", other.shape), np.asarray(request["targets"], np.int64)
        size = max(1, _AT_ONCE // self.llama.n_vocab)

        def part(at: int) -> Scores:
            own = slice(at, at + size)
            return compare_rows(base[own], other[own], targets[own])

        with ThreadPoolExecutor(self.threads) as pool:
            scores = joined(list(pool.map(part, range(0, len(other), size))))
        names = ("kl", "base_log_p", "log_p", "same_top")
        return {name: getattr(scores, name) for name in names}

    def _run(self, request: dict[str, Any]) -> Array:
        """float32 (rows, vocab): the scored rows' logits, in llama.cpp's memory."""
        ids, start, (first, stop) = request["ids"], request["start"], request["rows"]
        n_ctx, step = -(-request["n_ctx"] // 256) * 256, request["n_ubatch"]
        settings = Settings(n_ctx, step, step, request["flash_attention"], request["kv_type"], self.threads)
        if start and start != self._at:
            raise LlamaTelemetryError(f"this worker has {self._at} tokens of the block, not {start}: run it again")
        self._at = 0
        context = self.llama.context(settings, clear=not start)
        context.run("self", ids, start, range(first, stop))
        self._at = start + len(ids)
        return context.logits(stop - first)
