"""What every live source of figures gives: a `Sample` now and then, to whoever listens, and nothing while nobody does.

In: a source's own reading. Out: samples, to each subscriber, from the source's thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Quantity:
    """How a figure is shown: its label, its unit (``"B"``, ``"%"``, ``"W"``, ``"°C"``, ``"tokens/s"`` or ``""``)."""

    label: str
    unit: str


#: Every figure that a source may give. A device's name stands before a dot: ``"gpu0.power"``.
QUANTITIES = {
    "decode_tps": Quantity("decode", "tokens/s"),
    "prefill_tps": Quantity("prefill", "tokens/s"),
    "tokens_written": Quantity("tokens written", ""),
    "tokens_read": Quantity("tokens read", ""),
    "requests_running": Quantity("requests running", ""),
    "requests_waiting": Quantity("requests waiting", ""),
    "slots_busy": Quantity("slots busy", ""),
    "slots": Quantity("slots", ""),
    "context_used": Quantity("context used", "tokens"),
    "context_size": Quantity("context of all slots", "tokens"),
    "busy": Quantity("busy", "%"),
    "memory_used": Quantity("memory", "B"),
    "memory_total": Quantity("memory there is", "B"),
    "power": Quantity("power", "W"),
    "power_limit": Quantity("power limit", "W"),
    "temperature": Quantity("temperature", "°C"),
}


@dataclass(frozen=True)
class Sample:
    """What a source read at one moment.

    Attributes
    ----------
    time : float
        Seconds since 1970.
    values : dict
        Figure (a name of `QUANTITIES`, with ``"gpu0."`` before it where it is a device's) to its value; None where it
        could not be read.
    notes : dict
        Figure, or ``""`` for the whole source, to one line: why it is None and what turns it on, or how it was read.
    """

    time: float
    values: dict[str, float | None]
    notes: dict[str, str] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """Where live figures come from."""

    @property
    def title(self) -> str:
        """One short line: what is read, e.g. the server's address."""

    @property
    def facts(self) -> dict[str, str]:
        """What is known of it and does not change from sample to sample, e.g. the model; empty until it was read."""

    def read(self) -> Sample:
        """Read once, now, in the caller's thread. Never raises: what could not be read is None with its note."""

    def subscribe(self, callback: Callable[[Sample], None]) -> Callable[[], None]:
        """Call back with each sample, from the source's own thread; what comes back ends it."""


class Polled:
    """A `Source` that reads every so often in a daemon thread, while at least one listens.

    Subclasses give `title`, `facts` and `read`.

    Parameters
    ----------
    every : float
        Seconds between two readings.
    """

    def __init__(self, every: float) -> None:
        self.every = every
        self._callbacks: list[Callable[[Sample], None]] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self) -> Sample:
        """Read once, now."""
        raise NotImplementedError

    def subscribe(self, callback: Callable[[Sample], None]) -> Callable[[], None]:
        """Call back with each sample, from the source's own thread; what comes back ends it."""
        with self._lock:
            self._callbacks = [*self._callbacks, callback]
            if self._thread is None:
                self._wake = threading.Event()
                self._thread = threading.Thread(target=self._poll, args=(self._wake,), daemon=True)
                self._thread.start()

        def cancel() -> None:
            with self._lock:
                self._callbacks = [kept for kept in self._callbacks if kept is not callback]
                if not self._callbacks and self._thread is not None:
                    self._wake.set()
                    self._thread = None

        return cancel

    def _poll(self, over: threading.Event) -> None:
        while not over.is_set():
            sample = self.read()
            for callback in self._callbacks:
                if not over.is_set():
                    callback(sample)
            over.wait(self.every)
