"""A run in progress: its events, a handle to wait for it or stop it, and the bar that shows how far it is.

In: a function that does the work and emits events. Out: a `Trace`, or the error that ended the run.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..analysis.attention import Reduced
from ..errors import EngineCancelled, LlamaTelemetryError
from ..trace import GeneratedToken, Trace
from .client import STOPPED, WAITS
from .observers import begins


@dataclass(frozen=True)
class TraceEvent:
    """What a running trace says: ``kind`` is "start", "progress", "layer", "token", "done", "error" or "cancelled"."""

    kind: str
    done: int = 0
    total: int = 0
    layer: int | None = None
    part: str | None = None
    reduced: Reduced | None = None
    message: str = ""
    trace: Trace | None = None
    token: GeneratedToken | None = None


class RunningTrace:
    """A trace in progress. It runs in a thread of its own, so that it can be watched and stopped meanwhile.

    Callbacks of `subscribe` come in that thread.

    Attributes
    ----------
    operation : str
        ``"trace"``, or ``"generate"`` of a `Generation`.
    model_name : str
        Of which model.
    """

    operation = "trace"

    def __init__(self, work: Callable[[Callable[[TraceEvent], None]], Trace], model_name: str = "") -> None:
        self._work, self.model_name = work, model_name
        self._stop = threading.Event()
        self.latest: TraceEvent | None = None
        self._lock = threading.Lock()
        self._seen: list[TraceEvent] = []
        self._callbacks: list[Callable[[TraceEvent], None]] = []
        self._trace: Trace | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="llamatelemetry-trace", daemon=True)
        begins(self)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the run has ended, one way or another."""
        return not self._thread.is_alive()

    @property
    def error(self) -> BaseException | None:
        """What ended the run; None while it goes on, and where it ended well."""
        return self._error

    def subscribe(self, callback: Callable[[TraceEvent], None]) -> None:
        """Call `callback` with every event, those that came before included."""
        with self._lock:
            for event in self._seen:
                callback(event)
            self._callbacks.append(callback)

    def cancel(self) -> None:
        """Ask the run to stop; `result` then raises `EngineCancelled`. Safe from any thread."""
        self._stop.set()

    def result(self, progress: bool = False) -> Trace:
        """Wait for the trace. An interrupt (Ctrl-C) stops the run and raises `EngineCancelled`.

        Parameters
        ----------
        progress : bool
            Show a bar when the run takes longer than a second.
        """
        bar = ProgressBar() if progress else None
        try:
            while self._thread.is_alive():
                self._thread.join(0.1)
                if bar is not None and (latest := self.latest) is not None:
                    unit = "layer" if latest.kind == "layer" else "token"
                    bar.show(latest.done, latest.total, unit, "" if latest.total else latest.message)
        except KeyboardInterrupt:
            self._stop.set()
            self._thread.join(10)
            raise EngineCancelled("interrupted; the model can be used again") from None
        finally:
            if bar is not None:
                bar.close()
        if self._error is not None:
            raise self._error
        if self._trace is None:
            raise LlamaTelemetryError("the run ended without a trace")
        return self._trace

    def _run(self) -> None:
        STOPPED.set(self._stop.is_set)  # heard also while the worker starts or another run is in its turn
        WAITS.set(lambda: self._emit(TraceEvent("progress", message="waiting for another run of this model to end")))
        try:
            self._trace = self._work(self._emit)
            self._emit(TraceEvent("done", 1, 1, trace=self._trace))
        except EngineCancelled as error:
            self._error = error
            self._emit(TraceEvent("cancelled", message=str(error)))
        except BaseException as error:  # it belongs to whoever asks for the result
            self._error = error
            self._emit(TraceEvent("error", message=str(error)))

    def _emit(self, event: TraceEvent) -> None:
        with self._lock:
            self.latest = event
            if event.kind != "progress":
                self._seen.append(event)
            callbacks = list(self._callbacks)
        for callback in callbacks:  # outside: whoever subscribes meanwhile must not wait for those who listen already
            callback(event)


class ProgressBar:
    """How far a run is, for runs longer than a second: an ipywidgets bar in a notebook, a line of text on a terminal.

    It is driven by the thread that waits, so that what it shows lands under the cell that waits.
    """

    AFTER_SECONDS = 1.0

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._bar: Any = None
        self._place: Any = None
        self._line = False

    def show(self, done: int, total: int, unit: str, instead: str = "") -> None:
        """Draw how many of all units are done, or say something else."""
        text = instead or f"{unit} {done} of {total}"
        if not (total or instead) or time.monotonic() - self._began < self.AFTER_SECONDS:
            return
        fraction = done / total if total else 0.0
        if self._bar is None and not self._line:
            self._open()
        if self._bar is not None:
            self._bar.value, self._bar.description = fraction, text
        elif self._line:
            sys.stderr.write(f"\r{text:<45}")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave nothing behind, also in a saved notebook: a view of a closed bar is drawn as a broken link."""
        if self._bar is not None:
            self._bar.close()
            if self._place is not None:
                self._place.update({"text/plain": ""}, raw=True)
        elif self._line:
            sys.stderr.write("\r" + " " * 45 + "\r")

    def _open(self) -> None:
        if _in_notebook():
            from IPython.display import display
            from ipywidgets import FloatProgress, Layout

            style, room = {"description_width": "initial"}, Layout(width="420px")
            self._bar = FloatProgress(value=0, min=0, max=1, style=style, layout=room)
            self._place = display(self._bar, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]
        else:
            self._line = sys.stderr is not None and sys.stderr.isatty()


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs us in its main thread, where a widget can be displayed."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel") and threading.current_thread() is threading.main_thread()
