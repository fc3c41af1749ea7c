"""How fast a model reads and writes here: one timed pass of a context like any user's, without stops on its graph.

In: token ids, how many of them are read at once. Out: seconds of both, and the buffers that llama.cpp allocated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from llama_cpp import llama_cpp as L

from ...errors import CaptureUnavailable, EngineCancelled, LlamaTelemetryError
from ..cpu import usable_threads
from .llama import FLASH, KV_TYPES, Llama


class SpeedRun:
    """A request to time a model.

    Parameters
    ----------
    llama : Llama
        The model.
    request : dict
        ``ids``, ``n_prefill`` (how many are read at once; the others follow one by one), ``n_ctx``, ``kv_type``,
        ``warm`` (whether the same was run before and needs no warming up).
    cancelled : callable
        Polled between calls of llama.cpp.
    """

    def __init__(self, llama: Llama, request: dict[str, Any], cancelled: Callable[[], bool]) -> None:
        if llama.is_encoder_decoder:
            raise CaptureUnavailable("speed is measured of models with one stack of layers; this one has an encoder")
        self.llama, self.request, self._cancelled = llama, request, cancelled

    def __call__(self) -> dict[str, Any]:
        """``prefill_seconds``, ``decode_seconds``, ``buffers`` (``[owner, where, bytes]``)."""
        ids, n, p = self.request["ids"], self.request["n_prefill"], L.llama_context_default_params()
        p.n_ctx = max(self.request["n_ctx"], len(ids))
        p.n_batch = max(p.n_batch, n)
        p.n_threads = p.n_threads_batch = usable_threads()
        p.flash_attn_type = FLASH["auto"]
        p.type_k = p.type_v = KV_TYPES[self.request["kv_type"]]
        self.llama.allocated()
        context = L.llama_init_from_model(self.llama.model, p)
        if not context:
            raise LlamaTelemetryError(
                f"llama.cpp makes no context of {p.n_ctx} tokens with a {self.request['kv_type']} cache: too little "
                f"memory, or a cache type that the model's heads do not fit"
            )
        try:
            if not L.llama_get_memory(context):
                raise CaptureUnavailable(
                    "this model keeps no cache, so it writes no text whose speed could be measured"
                )
            buffers = [*self.llama.buffers, *self.llama.allocated()]
            if not self.request["warm"]:
                self._timed(context, ids[:n], 0)
                self._timed(context, ids[n : n + 1], n)
            L.llama_memory_clear(L.llama_get_memory(context), True)
            prefill = self._timed(context, ids[:n], 0)
            decode = sum(self._timed(context, [token], n + at) for at, token in enumerate(ids[n:]))
        finally:
            L.llama_free(context)
        return {"prefill_seconds": prefill, "decode_seconds": decode, "buffers": buffers}

    def _timed(self, context: Any, ids: list[int], start: int) -> float:
        """Seconds that some tokens take at once; logits of the last are computed, as for a user."""
        batch = L.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, start + i, 1, 0
                batch.logits[i] = i == len(ids) - 1
            began = time.perf_counter()
            code = L.llama_decode(context, batch)
            L.llama_synchronize(context)
            took = time.perf_counter() - began
        finally:
            L.llama_batch_free(batch)
        if self._cancelled():
            raise EngineCancelled("the run was stopped; the model can be used again")
        if code != 0:
            raise LlamaTelemetryError(f"llama.cpp could not compute {len(ids)} tokens (code {code})")
        return took
