"""Turns the worker's messages of one run into a `Trace`, and into events as they come.

In: messages of a run. Out: a `Trace` that fills in, layer after layer, and grows while the model writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import psutil

from ..analysis.attention import Mask
from ..errors import LlamaTelemetryError
from ..models.info import ModelInfo
from ..trace import AttentionRecord, GeneratedToken, Trace, fill_record
from .client import Engine
from .running import TraceEvent
from .wire import Message, SharedBlock

Array = np.ndarray[Any, Any]
_NO_PREFILL = ("reduce", "first_token", "decode")


class Collector:
    """Collects one run.

    Parameters
    ----------
    info : ModelInfo
        Of the model that runs.
    engine : Engine
        Its worker: what it said when the model was loaded.
    ids, decoder_ids : list of int
        The prompt, and in encoder-decoders what the decoder is given.
    request : dict
        What the worker was asked.
    emit : callable
        Hears the events.
    """

    def __init__(
        self,
        info: ModelInfo,
        engine: Engine,
        ids: list[int],
        decoder_ids: list[int],
        request: Message,
        emit: Callable[[TraceEvent], None],
    ) -> None:
        self._model, self._engine, self._request, self._emit = info, engine, request, emit
        self._ids, self._decoder_ids = ids, decoder_ids
        self._made: Trace | None = None
        self._started = time.perf_counter()

    @property
    def _trace(self) -> Trace:
        if self._made is None:
            raise LlamaTelemetryError("the worker spoke of a run before it began")
        return self._made

    def __call__(self, message: Message) -> None:
        """Take in one message."""
        kind = message["kind"]
        if kind == "start":
            self._begin(message)
        elif kind == "progress":
            done, total = message["done"], message["total"]
            self._emit(TraceEvent("progress", done, total, message=message["stage"], trace=self._made))
        elif kind == "layer":
            self._layer(message)

    def _begin(self, message: Message) -> None:
        self._captured = int(message["size"])
        block = SharedBlock(message["size"], message["fd"])
        arrays = {name: block.array(at, dtype, tuple(shape)) for name, (at, dtype, shape) in message["arrays"].items()}
        trace = self._made = Trace(
            np.asarray(self._ids, np.int32),
            [bytes.fromhex(piece) for piece in message["pieces"]],
            message["kinds"],
            self._info(message),
            _without={int(k): v for k, v in message["without_attention"].items()},
            _part_layers=message["layers"],
            _arrays=self._there(arrays),
        )
        for a in message["attention"]:
            record = AttentionRecord(a["part"], a["layer"], a["heads"], a["kv_heads"])
            trace._attention[record.part, record.layer] = record
        if self._decoder_ids:
            pieces = [bytes.fromhex(piece) for piece in message["decoder_pieces"]]
            trace.decoder = np.asarray(self._decoder_ids, np.int32), pieces, message["decoder_kinds"]
        self._emit(TraceEvent("start", trace=trace))

    def _there(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """The arrays as far as they have rows."""
        return arrays

    def _info(self, message: Message) -> dict[str, Any]:
        info, facts = self._model, self._engine.facts
        state = os.stat(info.path)
        return {
            "model": info.name,
            "file": os.path.basename(info.path),
            "path": os.fspath(info.path),
            "file_state": [state.st_size, state.st_mtime_ns],
            "sha256": None,
            "architecture": info.architecture,
            "quant_type": info.quant_type,
            "quant_type_counts": dict(info.quant_type_counts),
            "n_experts": info.n_experts,
            "llama_cpp_python": facts["llama_cpp_python"],
            "device": facts["device"],
            "n_threads": message["n_threads"],
            "date": datetime.now().astimezone().isoformat(timespec="seconds"),
            "settings": {key: value for key, value in self._request.items() if key != "do"},
        }

    def _fill(self, message: Message) -> AttentionRecord:
        record = self._trace._attention[message["part"], message["layer"]]
        fill_record(record, message, self._trace._arrays)
        return record

    def _layer(self, message: Message) -> None:
        r, done, total = self._fill(message), message["done"], message["total"]
        self._emit(TraceEvent("layer", done, total, r.layer, r.part, r.reduced, trace=self._trace))

    def finish(self, answer: Message) -> Trace:
        """The whole trace, once the worker is done."""
        trace, seconds = self._trace, answer["seconds"]
        computed = len(self._ids) + len(self._decoder_ids) - answer["kept"]
        prefill = sum(value for name, value in seconds.items() if name not in _NO_PREFILL)
        spent = sum(value for name, value in answer["cpu_seconds"].items() if name not in _NO_PREFILL)
        buffers = [*answer["buffers"], ["capture", "shared", self._captured]]
        trace._rows = answer["rows"]
        trace.telemetry = {
            "load_seconds": self._engine.load_seconds,
            "prefill_seconds": prefill,
            "prefill_tokens_per_second": computed / prefill if prefill else None,
            "prefill_threads_used": spent / prefill if prefill else None,
            "reduce_seconds": seconds.get("reduce"),
            "reduced_on": answer["reduced_on"],
            "total_seconds": time.perf_counter() - self._started,
            "n_threads": trace.info["n_threads"],
            "memory": [dict(zip(("owner", "where", "bytes"), buffer, strict=True)) for buffer in buffers],
            "worker_memory_bytes": answer["worker_rss"],
            "kernel_memory_bytes": psutil.Process().memory_info().rss,
            "context_used": len(trace.token_ids if trace.decoder is None else trace.decoder[0]),
            "context_size": answer["n_ctx"],
        }
        if answer["reduced_on_cpu_because"]:
            trace.telemetry["reduced_on_cpu_because"] = answer["reduced_on_cpu_because"]
        if answer["kept"]:
            trace.telemetry["context_reused"] = answer["kept"]
        return trace


class GrowingCollector(Collector):
    """Collects a run that writes: its trace has as many rows as tokens have come."""

    def _there(self, arrays: dict[str, Array]) -> dict[str, Array]:
        self._whole = arrays
        self._part = "decoder" if self._decoder_ids else "self"
        self._n = len(self._decoder_ids or self._ids)
        self._masks: dict[tuple[str, int], Array] = {}
        return self._cut()

    def _cut(self) -> dict[str, Array]:
        return {name: array[self._rows(name)] for name, array in self._whole.items()}

    def _rows(self, name: str) -> tuple[slice, ...]:
        """Which part of an array has arrived."""
        kind, *where = name.split(".")
        now, every = slice(0, self._n), slice(None)
        if kind == "q" and where[0] in (self._part, "cross"):
            return every, now
        if kind in ("k", "v") and where[0] == self._part:
            return every, now
        own = where and (where[0] == self._part or kind.startswith("expert"))
        return (now,) if own and kind not in ("q", "k", "v") else (every,)

    def __call__(self, message: Message) -> None:
        if message["kind"] == "token":
            self._token(message)
        elif message["kind"] == "layer" and message["final"]:
            self._fill(message)  # all rows at their real length: told at the end, when everything has it
        else:
            super().__call__(message)

    def _layer(self, message: Message) -> None:
        super()._layer(message)
        mask = self._trace.mask(message["layer"], message["part"])
        if mask is not None and message["part"] == self._part:
            room = np.zeros((2, self._n + self._request["max_tokens"]), np.int32)
            room[0, : self._n], room[1, : self._n] = mask.first, mask.stop
            self._masks[message["part"], message["layer"]] = room

    def _token(self, message: Message) -> None:
        trace, row = self._trace, self._n
        self._n += 1
        token = _generated(message, row)
        if self._part == "self":
            trace.token_ids = np.append(trace.token_ids, np.int32(token.id))
            trace.token_bytes.append(token.bytes)
            trace.token_kinds.append(token.kind)
        elif trace.decoder is not None:
            ids, pieces, kinds = trace.decoder
            trace.decoder = np.append(ids, np.int32(token.id)), [*pieces, token.bytes], [*kinds, token.kind]
        trace._generated.append(token)
        trace._arrays = self._cut()
        records = [record for record in trace._attention.values() if record.part == self._part]
        for record, seen in zip(records, message["mask"], strict=True):
            self._grow(record, row, seen)
        self._emit(TraceEvent("token", message["done"], message["total"], token=token, trace=trace))

    def _grow(self, record: AttentionRecord, row: int, seen: Array) -> None:
        """Let a layer have one row more; those with a bias or a mask with gaps have all of theirs at the end."""
        scoring, name = record.scoring, f"{record.part}.{record.layer}"
        if scoring is None or scoring.bias is not None or (scoring.mask is not None and scoring.mask.bits is not None):
            return
        mask = scoring.mask
        if mask is not None:
            room = self._masks[record.part, record.layer]
            room[:, row] = seen
            mask = Mask(room[0, : row + 1], room[1, : row + 1], None, mask.distance, mask.offset)
        q, k, v = (self._trace._arrays[f"{x}.{name}"] for x in "qkv")
        record.scoring = replace(scoring, q=q, k=k, v=v, mask=mask)

    def finish(self, answer: Message) -> Trace:
        trace = super().finish(answer)
        seconds, written = answer["seconds"], len(trace._generated)
        each = [token.seconds for token in trace._generated]
        trace.telemetry |= {
            "first_token_seconds": seconds["first_token"],
            "decode_seconds": seconds["decode"],
            "decode_tokens_per_second": written / seconds["decode"] if written else None,
            "decode_threads_used": answer["cpu_seconds"]["decode"] / seconds["decode"] if written else None,
            "between_tokens": {f"p{p}": float(np.percentile(each, p)) for p in (50, 95, 99)} if written else {},
            "finish_reason": answer["reason"],
        }
        return trace


def _generated(message: Message, position: int) -> GeneratedToken:
    return GeneratedToken(
        id=message["id"],
        bytes=bytes.fromhex(message["piece"]),
        kind=message["token_kind"],
        position=position,
        probability=message["probability"],
        rank=message["rank"],
        entropy=message["entropy"],
        seconds=message["seconds"],
        cpu_seconds=message["cpu_seconds"],
        top=tuple((i, bytes.fromhex(piece), p) for i, piece, p in message["top"]),
    )
