"""The worker's main loop: one thread computes, one listens, so that a stop is heard while llama.cpp runs.

In: requests from the kernel side, one at a time. Out: messages that answer them. The process ends when the kernel's
end of the socket closes, however that came about, or when nobody has asked anything for a while.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import threading
from typing import Any

import numpy as np

from ... import errors
from ..wire import Disconnected, Message, SharedBlock, Wire
from . import ggml
from .generate import Generate
from .inputs import InputsRun
from .lens import LensRun, describe_head
from .llama import Llama
from .log import Log
from .operators import GraphRun, ValuesRun
from .run import Run, template
from .sampler import apply_chain
from .score import Scorer
from .speed import SpeedRun
from .vectors import Neighbours, fill_rows
from .weights import project, tensor_stats, weight_error


class Worker:
    """Answers requests over a wire.

    Parameters
    ----------
    wire : Wire
        To the kernel side.
    idle_seconds : float
        After so long without a request the process ends; the next request starts another.
    """

    def __init__(self, wire: Wire, idle_seconds: float) -> None:
        self._wire, self._idle = wire, idle_seconds
        self._requests: queue.Queue[Message] = queue.Queue()
        self._current = 0  # the run being answered
        self._cancelled = -1  # the latest run that the kernel wants stopped
        self._llama: Llama | None = None
        self._neighbours: tuple[tuple[str, int], Neighbours] | None = None
        self._scorer: Scorer | None = None
        self._log = Log()

    def serve(self) -> None:
        """Answer until the kernel goes or the idle time is over."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            try:
                request = self._requests.get(timeout=self._idle)
            except queue.Empty:
                return
            self._answer(request)

    def _listen(self) -> None:
        try:
            while True:
                message = self._wire.receive()
                if message is None:
                    continue
                if message["do"] == "cancel":
                    self._cancelled = max(self._cancelled, message["run"])
                else:
                    self._requests.put(message)
        except Disconnected:
            os._exit(0)  # the kernel is gone; llama.cpp may be deep in a computation that nobody wants

    def _answer(self, request: Message) -> None:
        run = request["run"]

        def send(message: Message, fd: int | None = None) -> None:
            self._wire.send({**message, "run": run}, fd)

        self._current = run
        try:
            answer = getattr(self, "_do_" + request["do"])(request, send)
            if answer is not None:
                send({"kind": "done", **answer})
        except Disconnected:
            raise
        except errors.LlamaTelemetryError as error:
            send({"kind": "error", "type": type(error).__name__, "message": str(error)})
        except MemoryError:
            send(
                {
                    "kind": "error",
                    "type": "MemoryBudgetExceeded",
                    "message": "the worker ran out of memory; ask for fewer layers or a shorter prompt",
                }
            )
        except Exception as error:
            send(
                {
                    "kind": "error",
                    "type": "LlamaTelemetryError",
                    "message": f"{type(error).__name__} in the worker: {error}",
                }
            )

    def _stopped(self) -> bool:
        return self._cancelled >= self._current

    def _model(self) -> Llama:
        if self._llama is None:
            raise errors.LlamaTelemetryError("no model was loaded in this worker")
        return self._llama

    def _do_load(self, request: Message, _send: Any) -> dict[str, Any]:
        ggml.check_layout()
        where = request["n_gpu_layers"], request["devices"], request["rpc"]
        self._llama = Llama(request["path"], *where, self._stopped, self._log)
        return self._llama.facts()

    def _do_tokenize(self, request: Message, _send: Any) -> dict[str, Any]:
        text = request["text"].tobytes()
        return {"ids": self._model().tokenize(text, request["add_special"], request["parse_special"])}

    def _do_pieces(self, request: Message, _send: Any) -> dict[str, Any]:
        pieces, kinds = self._model().pieces(request["ids"])
        return {"pieces": [piece.hex() for piece in pieces], "kinds": kinds}

    def _do_template(self, request: Message, _send: Any) -> dict[str, Any]:
        special = self._model().special_tokens()
        return {
            "text": template(self._model(), request["messages"], special["bos_token"], special["eos_token"]),
            **special,
        }

    def _do_trace(self, request: Message, send: Any) -> None:
        Run(self._model(), request, send, self._stopped)()

    def _do_graph(self, request: Message, _send: Any) -> dict[str, Any]:
        return GraphRun(self._model(), request)()

    def _do_values(self, request: Message, _send: Any) -> dict[str, Any]:
        return ValuesRun(self._model(), request)()

    def _do_tensor_stats(self, request: Message, _send: Any) -> dict[str, Any]:
        return tensor_stats(request["tensor"], self._stopped)

    def _do_weight_error(self, request: Message, send: Any) -> dict[str, Any]:
        found = []
        for done, (a, b) in enumerate(request["pairs"], 1):
            found.append(weight_error(a, b, self._stopped))
            send({"kind": "progress", "stage": "weights", "done": done, "total": len(request["pairs"])})
        return {"errors": found}

    def _do_embeddings(self, request: Message, send: Any) -> dict[str, Any]:
        where, ids = request["tensor"], request.get("ids")
        count = int(where["n_weights"]) // int(where["width"]) if ids is None else len(ids)
        block = SharedBlock(4 * count * int(where["width"]))
        fill_rows(where, ids, block.array(0, "<f4", (count, int(where["width"]))), self._stopped)
        send({"kind": "block", "size": block.size}, block.fd)
        block.release()
        return {"shape": [count, int(where["width"])]}

    def _do_neighbours(self, request: Message, _send: Any) -> dict[str, Any]:
        where = request["tensor"]
        key = where["path"], where["offset"]
        if self._neighbours is None or self._neighbours[0] != key:
            self._neighbours = None  # the memory of the other matrix first
            self._neighbours = key, Neighbours(where, self._stopped)
        found = [self._neighbours[1].nearest(query, request["k"]) for query in request["queries"]]
        return {"ids": np.stack([ids for ids, _ in found]), "cosines": np.stack([cosines for _, cosines in found])}

    def _do_vocabulary(self, _request: Message, _send: Any) -> dict[str, Any]:
        model = self._model()
        pieces, kinds = model.pieces(range(model.n_vocab))
        names = sorted(set(kinds))
        return {
            "pieces": np.frombuffer(b"".join(pieces), np.uint8),
            "lengths": np.array([len(piece) for piece in pieces], np.int32),
            "kinds": np.array([names.index(kind) for kind in kinds], np.uint8),
            "names": names,
        }

    def _do_lens(self, request: Message, send: Any) -> None:
        LensRun(self._model(), request, send, self._stopped)()

    def _do_head(self, request: Message, _send: Any) -> dict[str, Any]:
        return describe_head(self._model(), request)

    def _do_project(self, request: Message, _send: Any) -> dict[str, Any]:
        answer = {}
        for i, where in enumerate(request["tensors"]):
            found = project(where, request["direction"], request[f"inputs_{i}"], self._stopped)
            answer[f"seen_{i}"], answer[f"outputs_{i}"] = found
        return answer

    def _do_chain(self, request: Message, _send: Any) -> dict[str, Any]:
        return apply_chain(self._model().n_vocab, request["sampler"], request["before"], request["logits"])

    def _do_inputs(self, request: Message, send: Any) -> dict[str, Any]:
        return InputsRun(self._model(), request, send, self._stopped)()

    def _do_speed(self, request: Message, _send: Any) -> dict[str, Any]:
        return SpeedRun(self._model(), request, self._stopped)()

    def _do_generate(self, request: Message, send: Any) -> None:
        Generate(self._model(), request, send, self._stopped)()

    def _do_logits(self, request: Message, _send: Any) -> dict[str, Any]:
        return self._scores().logits(request, SharedBlock(request["size"], request["fd"]))

    def _do_compare(self, request: Message, _send: Any) -> dict[str, Any]:
        return self._scores().compare(request, SharedBlock(request["size"], request["fd"]))

    def _scores(self) -> Scorer:
        self._scorer = self._scorer or Scorer(self._model())
        return self._scorer


def main(fd: int, idle_seconds: float) -> None:
    """Entry of the worker process: `fd` is its end of the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the kernel, which then asks us to stop
    wire = Wire(socket.socket(fileno=fd))
    try:
        wire.send({"kind": "ready", "run": 0, "pid": os.getpid()})
        Worker(wire, idle_seconds).serve()
    except Disconnected:
        pass
    os._exit(0)  # no destructor of a native library may turn a clean end into a crash
