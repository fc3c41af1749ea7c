"""llama.cpp by way of llama-cpp-python's bindings: a loaded model, its vocabulary, and contexts that run ubatches.

In: a path, settings, token ids. Out: computed graphs, seen through the `Evaluation` of the context.
"""

from __future__ import annotations

import ctypes as C
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as L

from ...errors import (
    BackendMissing,
    CaptureUnavailable,
    EngineCancelled,
    LlamaTelemetryError,
    ModelFileError,
)
from . import ggml
from .graph import Node, Plan, make_plan
from .log import Log
from .taps import Evaluation, Tap

Array = np.ndarray[Any, Any]
FLASH = {"auto": -1, "off": 0, "on": 1}
KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}


@dataclass(frozen=True)
class Settings:
    """How a context runs; two runs with equal settings can share one."""

    n_ctx: int
    n_ubatch: int
    n_outputs: int
    flash_attention: str
    kv_type: str
    n_threads: int


class Llama:
    """A model that llama.cpp has loaded.

    Parameters
    ----------
    path : str
        GGUF file; the first of a split set.
    n_gpu_layers : int or None
        Layers to offload; None leaves llama.cpp's default (all, where the library was built for a GPU).
    devices : list of str
        Names of ggml devices to use instead of all, e.g. ``["CUDA1"]``.
    rpc : list of str
        ``host:port`` of llama.cpp RPC servers that take layers.
    cancelled : callable
        Polled while loading and computing; True stops.
    log : Log, optional
        Where llama.cpp says what it allocates.
    """

    def __init__(
        self,
        path: str,
        n_gpu_layers: int | None,
        devices: Sequence[str],
        rpc: Sequence[str],
        cancelled: Callable[[], bool],
        log: Log | None = None,
    ) -> None:
        self._cancelled, self._log = cancelled, log
        self.allocated()  # what was said before is not this model's
        self.devices = [*_rpc_devices(rpc), *_named_devices(devices)]
        parameters = L.llama_model_default_params()
        if self.devices:
            self._list = (C.c_void_p * (len(self.devices) + 1))(*self.devices, None)
            parameters.devices = C.cast(self._list, C.c_void_p)
            parameters.n_gpu_layers = 999
        if n_gpu_layers is not None:
            parameters.n_gpu_layers = n_gpu_layers
        self._progress = L.llama_progress_callback(lambda _fraction, _data: not cancelled())
        parameters.progress_callback = self._progress
        self.model = L.llama_model_load_from_file(os.fsencode(path), parameters)
        if not self.model:
            if cancelled():
                raise EngineCancelled("stopped while the model was loading; the model can be used again")
            raise ModelFileError(
                f"llama.cpp does not load {os.path.basename(path)}; its last lines are in the error's log"
            )
        self.vocab = L.llama_model_get_vocab(self.model)
        self.n_layers = int(L.llama_model_n_layer(self.model))
        self.n_vocab = int(L.llama_vocab_n_tokens(self.vocab))
        self.buffers = self.allocated()
        self.is_encoder_decoder = bool(L.llama_model_has_encoder(self.model) and L.llama_model_has_decoder(self.model))
        self._context: Context | None = None

    def facts(self) -> dict[str, Any]:
        """What the kernel side keeps of the loaded model."""
        return {
            "n_vocab": self.n_vocab,
            "n_ctx_train": int(L.llama_model_n_ctx_train(self.model)),
            "encoder_decoder": self.is_encoder_decoder,
            "decoder_start": int(L.llama_model_decoder_start_token(self.model)),
            "adds_bos": bool(L.llama_vocab_get_add_bos(self.vocab)),
            "adds_eos": bool(L.llama_vocab_get_add_eos(self.vocab)),
            "llama_cpp_python": llama_cpp.__version__,
            "system": bytes(L.llama_print_system_info()).decode(),
            "device": ", ".join(device_name(d) for d in self.devices) or _default_device(),
        }

    def allocated(self) -> list[list[Any]]:
        """Buffers that llama.cpp reported since this was last asked: ``[owner, where, bytes]``."""
        return [] if self._log is None else self._log.buffers()

    # ------------------------------------------------------------ vocabulary

    def tokenize(self, text: bytes, add_special: bool, parse_special: bool) -> list[int]:
        """Token ids of a text; `parse_special` turns the spelling of control tokens into them."""
        room = len(text) + 16
        ids = (L.llama_token * room)()
        n = L.llama_tokenize(self.vocab, text, len(text), ids, room, add_special, parse_special)
        if n < 0:
            ids = (L.llama_token * -n)()
            n = L.llama_tokenize(self.vocab, text, len(text), ids, -n, add_special, parse_special)
        if n < 0:
            raise LlamaTelemetryError(f"llama.cpp cannot tokenize this text of {len(text)} bytes")
        return list(ids[:n])

    def pieces(self, ids: Sequence[int]) -> tuple[list[bytes], list[str]]:
        """The exact bytes of each token, and what kind it is."""
        return [self._piece(i) for i in ids], [self._kind(i) for i in ids]

    def _piece(self, token: int) -> bytes:
        size = 64
        while True:
            buffer = C.create_string_buffer(size)
            n = L.llama_token_to_piece(self.vocab, token, buffer, size, 0, True)
            if n >= 0:
                return buffer.raw[:n]
            size = -n

    def _kind(self, token: int) -> str:
        attribute = int(L.llama_vocab_get_attr(self.vocab, token))
        for bit, kind in ((8, "control"), (32, "byte"), (1, "unknown"), (16, "user"), (2, "unused")):
            if attribute & bit:
                return kind
        return "normal"

    def chat_template(self) -> str | None:
        """The model's own template, as the file has it."""
        found = L.llama_model_chat_template(self.model, None)
        return bytes(found).decode("utf-8", "replace") if found else None

    def token_text(self, token: int) -> str:
        """A special token as templates spell it; empty where there is none (-1)."""
        return self._piece(token).decode("utf-8", "replace") if token >= 0 else ""

    def special_tokens(self) -> dict[str, str]:
        """What templates call the start and end of a text."""
        bos, eos = int(L.llama_vocab_bos(self.vocab)), int(L.llama_vocab_eos(self.vocab))
        return {"bos_token": self.token_text(bos), "eos_token": self.token_text(eos)}

    # --------------------------------------------------------------- contexts

    def context(self, settings: Settings, clear: bool = True) -> Context:
        """A context with these settings, the one there is where it fits, else a new one; without its tokens."""
        if self._context is not None and self._context.settings != settings:
            self._context.close()
            self._context = None
        if self._context is None:
            self._context = Context(self, settings, self._cancelled)
        if clear:
            self._context.clear()
        return self._context

    def continued(self, settings: Settings, room: int) -> Context:
        """The context there is, with its tokens, if it is long enough and otherwise the same; else one with room."""
        there = self._context
        if there is not None and there.settings.n_ctx >= settings.n_ctx:
            settings = replace(settings, n_ctx=there.settings.n_ctx)
            if there.settings == settings:
                return there
        return self.context(replace(settings, n_ctx=settings.n_ctx + room))

    def close(self) -> None:
        """Free the context and the model."""
        if self._context is not None:
            self._context.close()
        L.llama_model_free(self.model)


class Context:
    """One llama_context. It is run one ubatch at a time, so that each call computes exactly one graph."""

    def __init__(self, llama: Llama, settings: Settings, cancelled: Callable[[], bool]) -> None:
        if settings.flash_attention == "off" and settings.kv_type not in ("f32", "f16", "bf16"):
            raise CaptureUnavailable(
                f"a {settings.kv_type} cache needs flash attention: ask for flash_attention='auto' or kv_type='f16'"
            )
        self.llama, self.settings, self._cancelled = llama, settings, cancelled
        self.evaluation = Evaluation(cancelled)
        p = L.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch = settings.n_ctx, settings.n_ubatch, settings.n_ubatch
        p.n_outputs_max = settings.n_outputs
        p.n_threads = p.n_threads_batch = settings.n_threads
        p.flash_attn_type = FLASH[settings.flash_attention]
        p.type_k = p.type_v = KV_TYPES[settings.kv_type]
        p.swa_full = True  # windows keep all their keys, so that a cell is a position
        p.embeddings = False
        p.cb_eval = C.cast(self.evaluation.callback, type(p.cb_eval))
        p.abort_callback = C.cast(self.evaluation.abort, type(p.abort_callback))
        llama.allocated()
        self._context = L.llama_init_from_model(llama.model, p)
        if not self._context:
            raise LlamaTelemetryError(
                f"llama.cpp makes no context of {settings.n_ctx} tokens with flash attention "
                f"{settings.flash_attention} and a {settings.kv_type} cache: too little memory, or a cache type that "
                f"the model's heads do not fit; its last lines are in the error's log"
            )
        self.buffers = llama.allocated()
        self._held: list[int] | None = []  # tokens whose keys and values it holds; None: unknown, a run broke off
        self._plans: dict[tuple[str, int], Plan] = {}

    @property
    def pointer(self) -> Any:
        """The llama_context, for llama.cpp's own functions."""
        return self._context

    def clear(self) -> None:
        """Forget all tokens."""
        if memory := L.llama_get_memory(self._context):
            L.llama_memory_clear(memory, True)
        self._held = []

    def keep(self, ids: Sequence[int]) -> int:
        """Forget all but what these tokens begin with; how many stay. The last is computed anew, for its logits."""
        held, same = self._held or [], 0
        while same < min(len(held), len(ids) - 1) and held[same] == ids[same]:
            same += 1
        memory = L.llama_get_memory(self._context)
        if not same or not memory or not L.llama_memory_seq_rm(memory, 0, same, -1):  # a recurrent state has no middle
            self.clear()
            return 0
        self._held = held[:same]
        return same

    def close(self) -> None:
        """Free the context."""
        L.llama_free(self._context)

    def plan(self, part: str, ids: Sequence[int], rows: int = 2) -> Plan:
        """The plan of this part's graph, from a run of the first two tokens (or of one, for the graph of one row)."""
        if (part, rows) not in self._plans:
            self.replan(part, [*ids, *ids][:rows], rows)
            self.clear()
        return self._plans[part, rows]

    def replan(self, part: str, ids: Sequence[int], rows: int = 2) -> Plan:
        """Record the graph of these very tokens and plan on it."""
        self.clear()
        self.evaluation.begin(record=True)
        self._run(part, ids, 0, [len(ids) - 1])
        nodes = self.evaluation.recorded()
        plan = self._plans[part, rows] = make_plan(nodes, self._layers_of(nodes), part)
        return plan

    def _layers_of(self, nodes: list[Node]) -> int:
        """Layers that this graph runs: an encoder and its decoder may differ, extra prediction layers do not run."""
        names = [s.name for n in nodes for s in n.inputs() if s.is_leaf and "blk." in s.name]
        numbers = [int(name.split("blk.")[1].split(".")[0]) for name in names]
        return max(numbers) + 1 if numbers else self.llama.n_layers

    def run(
        self,
        part: str,
        ids: Sequence[int],
        start: int,
        outputs: Sequence[int],
        taps: Sequence[Tap] = (),
        record: bool = False,
        timed: bool = False,
    ) -> None:
        """Compute one ubatch.

        Parameters
        ----------
        part : str
            ``"encoder"`` runs the encoder; everything else decodes.
        ids : sequence of int
            The ubatch's tokens.
        start : int
            Position of the first.
        outputs : sequence of int
            Rows of the ubatch whose logits are wanted.
        taps : sequence of Tap
            Where to stop.
        record, timed : bool
            Keep the graph; stop after every node and keep its time (`Evaluation`).
        """
        self.evaluation.begin(taps, record, timed)
        self._run(part, ids, start, outputs)

    def _run(self, part: str, ids: Sequence[int], start: int, outputs: Sequence[int]) -> None:
        n = len(ids)
        held, self._held = self._held, None
        batch = L.llama_batch_init(n, 0, 1)
        try:
            batch.n_tokens = n
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, start + i, 1, 0
                batch.logits[i] = i in outputs if len(outputs) < n else 1
            call = L.llama_encode if part == "encoder" else L.llama_decode
            code = call(self._context, batch)
        finally:
            L.llama_batch_free(batch)
        if self._cancelled():
            raise EngineCancelled("the run was stopped; the model can be used again")
        self.evaluation.raise_error()
        if code != 0:
            raise LlamaTelemetryError(f"llama.cpp could not compute rows {start} to {start + n} (code {code})")
        self._held = None if held is None or part != "self" else [*held[:start], *ids]

    def logits(self, rows: int) -> Array:
        """float32 (rows, vocab) of the rows that the last call was asked for, in order."""
        pointer = L.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (rows, self.llama.n_vocab))


def _rpc_devices(servers: Sequence[str]) -> list[int]:
    """Devices behind llama.cpp RPC servers."""
    if not servers:
        return []
    try:
        add = ggml.library("ggml-rpc").ggml_backend_rpc_add_server
    except BackendMissing as missing:
        raise BackendMissing(
            "this llama-cpp-python was built without RPC, so rpc=[…] cannot be used; "
            'rebuild it with CMAKE_ARGS="-DGGML_RPC=ON"'
        ) from missing
    add.restype, add.argtypes = C.c_void_p, [C.c_char_p]
    count = ggml.BASE.ggml_backend_reg_dev_count
    count.restype, count.argtypes = C.c_size_t, [C.c_void_p]
    get = ggml.BASE.ggml_backend_reg_dev_get
    get.restype, get.argtypes = C.c_void_p, [C.c_void_p, C.c_size_t]
    found: list[int] = []
    for server in servers:
        _reach(server)
        registry = add(server.encode())
        found += [get(registry, i) for i in range(count(registry))] if registry else []
    return found


def _reach(server: str) -> None:
    """llama.cpp aborts when an RPC server is not there, so knock first."""
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError) as error:
        raise BackendMissing(
            f"no llama.cpp RPC server answers at {server} ({error}); start one there with `rpc-server -p PORT`"
        ) from error


def _named_devices(names: Sequence[str]) -> list[int]:
    main = ggml.library("ggml")
    by_name = main.ggml_backend_dev_by_name
    by_name.restype, by_name.argtypes = C.c_void_p, [C.c_char_p]
    found = []
    for name in names:
        device = by_name(name.encode())
        if not device:
            there = ", ".join(map(device_name, all_devices()))
            raise BackendMissing(f"llama.cpp has no device {name!r}; it has {there}")
        found.append(device)
    return found


def all_devices() -> list[int]:
    """Every device that ggml found."""
    main = ggml.library("ggml")
    main.ggml_backend_dev_count.restype = C.c_size_t
    get = main.ggml_backend_dev_get
    get.restype, get.argtypes = C.c_void_p, [C.c_size_t]
    return [get(i) for i in range(main.ggml_backend_dev_count())]


def device_name(device: int) -> str:
    """What ggml calls it, e.g. ``"CUDA0"``."""
    name = ggml.BASE.ggml_backend_dev_name
    name.restype, name.argtypes = C.c_char_p, [C.c_void_p]
    return bytes(name(device)).decode()


def _default_device() -> str:
    """The first accelerator where the library offloads by default, else the CPU."""
    if L.llama_supports_gpu_offload():
        others = [name for name in map(device_name, all_devices()) if not name.startswith(("CPU", "BLAS", "RPC"))]
        if others:
            return others[0]
    return "CPU"
