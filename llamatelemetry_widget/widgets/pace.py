"""At most ten messages a second from a widget to its browser side, the last of each kind always delivered.

In: actions that send something, each under a key. Out: the actions are run in order, the first at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

SECONDS = 0.1  # hosts drop connections that flood; a page that redraws more often than this freezes


class Pacer:
    """Runs actions one after another, `seconds` apart. An action replaces one that waits under the same key.

    Safe from any thread. Actions run in the caller's thread or in a timer's.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._last = 0.0
        self._closed = False

    def put(self, key: Hashable, action: Callable[[], None]) -> None:
        """Run an action as soon as the pace allows."""
        with self._lock:
            if self._closed:
                return
            self._waiting[key] = action
            wait = self._last + self._seconds - time.monotonic()
            if self._timer is not None:
                return
            if wait > 0:
                self._start(wait)
                return
            action = self._next()
        action()

    def clear(self) -> None:
        """Forget what waits: something newer has made it needless."""
        with self._lock:
            self._waiting.clear()

    def close(self) -> None:
        """Forget what waits and take nothing more."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            if self._timer is not None:
                self._timer.cancel()

    def _next(self) -> Callable[[], None]:
        """The oldest action; the timer goes on for the others. The lock is held."""
        action = self._waiting.pop(next(iter(self._waiting)))
        self._last = time.monotonic()
        if self._waiting:
            self._start(self._seconds)
        return action

    def _start(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._tick)
        self._timer.daemon = True
        self._timer.start()

    def _tick(self) -> None:
        with self._lock:
            self._timer = None
            if not self._waiting:
                return
            action = self._next()
        action()
