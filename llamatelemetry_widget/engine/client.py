"""The kernel's side of the engine: one worker process per open model, started on first use and restarted after a crash.

In: requests as dictionaries. Out: the worker's messages, one by one, or an error of our family. Whatever happens to the
worker, the process that uses this class lives on, and no worker outlives it.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import IO, Any

from .. import errors
from ..errors import EngineCancelled, EngineCrashed, LlamaTelemetryError
from .wire import Disconnected, Message, Wire

OnMessage = Callable[[Message], None]
IDLE_SECONDS = 15 * 60.0
STOP_SECONDS = 5.0  # a worker that does not stop within this is replaced
LOG_LINES = 50
# llama.cpp's threads meet after every operation, and OpenMP lets them spin for milliseconds until all are there. Where
# something else computes too, each then waits for one that is not scheduled: 0.4 instead of 40 tokens/s (SmolLM2, two
# cores, three busy processes beside). A short spin costs nothing when the cores are free.
_PATIENT = {"GOMP_SPINCOUNT": "2000"}
_QUIET = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "GGML_NO_BACKTRACE": "1"}

# The child gets our import path as arguments: no module of the user's folder can stand in for one of ours, and the
# user's __main__ is never run again.
_BOOT = (
    "import sys; fd, idle = int(sys.argv[1]), float(sys.argv[2]); sys.path[:] = sys.argv[3:]; "
    "from llamatelemetry_widget.engine.worker.serve import main; main(fd, idle)"
)
_CAUSES = {
    signal.SIGILL: "llama.cpp was built for a newer CPU than this one (illegal instruction): reinstall "
    "llama-cpp-python from source here",
    signal.SIGABRT: "llama.cpp aborted",
    signal.SIGSEGV: "llama.cpp read memory that is not its own (the file lacks a tensor, or llama.cpp was built for "
    "this exact CPU on a virtual machine that hides AMX: rebuild it with CMAKE_ARGS=-DGGML_NATIVE=OFF)",
    signal.SIGBUS: "the model file changed or shrank while it was in use",
    signal.SIGKILL: "it was killed from outside, most likely because memory ran out: use a shorter prompt or a "
    "smaller model",
    signal.SIGTERM: "it was terminated from outside",
}
#: Whether the work of this thread is to stop; polled before and during every request. Set by whoever runs the thread.
STOPPED: ContextVar[Callable[[], bool]] = ContextVar("STOPPED", default=lambda: False)
#: Called when a request has to wait for others of the same worker.
WAITS: ContextVar[Callable[[], None]] = ContextVar("WAITS", default=lambda: None)
_alive: weakref.WeakSet[Engine] = weakref.WeakSet()


class _WorkerLeft(Exception):
    """The worker ended by itself between two requests."""


class Engine:
    """A worker process that has one model open. Requests from several threads queue up.

    Parameters
    ----------
    load : dict
        The load request: ``path``, ``n_gpu_layers``, ``devices``, ``rpc``.
    idle_seconds : float
        The worker ends by itself after so long without a request.
    environment : mapping of str to str, optional
        Variables that the worker has besides those of this process.
    """

    def __init__(
        self, load: dict[str, Any], idle_seconds: float = IDLE_SECONDS, environment: Mapping[str, str] | None = None
    ) -> None:
        self._load, self._idle, self._environment = load, idle_seconds, dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: Wire | None = None
        self._log: IO[bytes] | None = None
        self._turn = threading.Lock()
        self._run = 0
        self._closing = False
        self.facts: Message = {}
        self.load_seconds = 0.0
        _alive.add(self)

    @property
    def pid(self) -> int | None:
        """Process id of the worker that runs now, if one does."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def request(self, message: Message, on_message: OnMessage | None = None, fd: int | None = None) -> Message:
        """Send one request and wait for its answer.

        Parameters
        ----------
        message : dict
            With ``do``: what to do.
        on_message : callable, optional
            Called with each message before the last.
        fd : int, optional
            Descriptor of a `SharedBlock` that the worker is to see.

        Returns
        -------
        dict
            The last message (``kind`` "done").

        Raises
        ------
        EngineCrashed
            The worker died; the next request starts another.
        EngineCancelled
            `STOPPED` of the calling thread said so, before or during the request, or the user pressed Ctrl-C.
        LlamaTelemetryError
            What the worker reports.
        """
        if not self._turn.acquire(timeout=0.1):
            WAITS.get()()
            while not self._turn.acquire(timeout=0.1):  # requests queue up; one that nobody wants any more leaves
                _refuse_stopped()
        try:
            self._closing = False
            self._ensure()
            try:
                return self._converse(message, on_message, fd)
            except _WorkerLeft:  # it had just ended by itself, being idle
                self._ensure()
                return self._converse(message, on_message, fd)
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the worker; what it computes is lost. A later request starts another."""
        self._closing = True
        self._end()

    def _end(self) -> None:
        process, wire, log = self._process, self._wire, self._log
        self._process = self._wire = self._log = None
        if wire is not None:
            wire.close()  # the worker sees the end of the socket and leaves
        if process is not None:
            try:
                process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if log is not None:
            log.close()

    def log(self) -> list[str]:
        """The last lines that llama.cpp wrote."""
        if self._log is None:
            return []
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 64_000, max(0, size - 64_000))
        return text.decode("utf-8", "replace").splitlines()[-LOG_LINES:]

    # ------------------------------------------------------------------ inside

    def _ensure(self) -> None:
        """A worker that has the model loaded."""
        if self._process is not None and self._process.poll() is None:
            return
        self._end()
        started = time.perf_counter()
        self._start()
        try:
            self.facts = self._converse({**self._load, "do": "load"}, None)
        except BaseException:
            self._end()
            raise
        self.load_seconds = time.perf_counter() - started

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker; has no name to leave behind
        path = [entry for entry in sys.path if entry]
        home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), str(self._idle), home, *path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # an interrupt of the kernel's group is not for the worker
                env={**_PATIENT, **os.environ, **_QUIET, **self._environment},
            )
        self._wire = Wire(ours)
        try:
            self._wait(0)
        except Disconnected:
            raise self._gone() from None

    def _converse(self, message: Message, on_message: OnMessage | None, fd: int | None = None) -> Message:
        _refuse_stopped()
        self._run += 1
        try:
            if self._wire is None:
                raise Disconnected
            self._wire.send({**message, "run": self._run}, fd)
            while True:
                answer = self._wait(self._run)
                if answer["kind"] == "done":
                    return answer
                if answer["kind"] == "error":
                    raise self._error(answer)
                if on_message is not None:
                    on_message(answer)
        except Disconnected:
            raise self._gone() from None
        except KeyboardInterrupt:
            self._abandon()
            raise EngineCancelled("interrupted; the model can be used again") from None
        except LlamaTelemetryError:
            raise
        except BaseException:  # the caller's on_message failed: the worker must not be left in the middle of a run
            self._abandon()
            raise

    def _wait(self, run: int) -> Message:
        """The next message of this run; what an abandoned run still says is passed over."""
        while True:
            if self._wire is None:
                raise Disconnected
            answer = self._wire.receive(timeout=0.1)
            if STOPPED.get()():
                self._wire.send({"do": "cancel", "run": run})
            if answer is None:
                continue
            if answer["run"] == run:
                return answer
            if answer["fd"] is not None:
                os.close(answer["fd"])

    def _abandon(self) -> None:
        """Stop the run in progress and wait until the worker is free; replace a worker that does not listen."""
        deadline = time.monotonic() + STOP_SECONDS
        try:
            if self._wire is not None:
                self._wire.send({"do": "cancel", "run": self._run})
            while time.monotonic() < deadline:
                answer = self._wire.receive(timeout=0.1) if self._wire is not None else None
                if answer is not None and answer["fd"] is not None:
                    os.close(answer["fd"])
                if answer is not None and answer["run"] == self._run and answer["kind"] in ("done", "error"):
                    return
        except Disconnected:
            pass
        if self._process is not None:
            self._process.kill()
        self._end()

    def _error(self, answer: Message) -> LlamaTelemetryError:
        kind = getattr(errors, answer["type"], LlamaTelemetryError)
        if kind is EngineCrashed:
            return EngineCrashed(answer["message"], self.log())
        error: LlamaTelemetryError = kind(answer["message"])
        error.log = self.log()  # type: ignore[attr-defined]
        return error

    def _gone(self) -> Exception:
        """What became of the worker, with the likely cause and llama.cpp's last words."""
        if self._closing:
            return EngineCancelled("the model was closed while it ran; the next call starts it again")
        process = self._process
        code = None
        if process is not None:
            try:
                code = process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
        lines = self.log()
        self._end()
        if code == 0:
            return _WorkerLeft()
        name = os.path.basename(self._load.get("path", "the model"))
        cause = cause_of_end(code)
        said = next((line.strip() for line in reversed(lines) if "GGML_ASSERT" in line or "error" in line.lower()), "")
        hint = f" ({said[:200]})" if said else ""
        return EngineCrashed(
            f"the worker running {name} died: {cause}{hint}; the notebook is fine, the next call starts a new worker",
            lines,
        )


def cause_of_end(code: int | None) -> str:
    """Why a process ended so, in words.

    Parameters
    ----------
    code : int or None
        As `subprocess.Popen.returncode` has it.
    """
    if code is None or code >= 0:
        return f"it ended with code {code}"
    return _CAUSES.get(signal.Signals(-code), f"it received {signal.Signals(-code).name}")


def _refuse_stopped() -> None:
    if STOPPED.get()():
        raise EngineCancelled("stopped before it began; the model can be used")


@atexit.register
def _close_all() -> None:
    """End every worker when the kernel ends."""
    for engine in list(_alive):
        engine.close()
