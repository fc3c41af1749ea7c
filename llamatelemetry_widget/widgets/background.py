"""Long answers to the browser, computed beside the kernel's own thread.

In: work, each under the name of who asked. Out: it is done one after another; a newer question ends an older one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

Still = Callable[[], None]


@contextmanager
def every(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Repeat an action, from a thread of its own, for as long as the block runs; not once where that is shorter."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds):
            action()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Superseded(Exception):
    """Nobody waits for this answer any more."""


class Background:
    """Runs work in a thread of its own, which ends when there is none."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Hashable, Callable[[Still], None]]] = deque()
        self._latest: dict[Hashable, object] = {}
        self._lock = threading.Lock()
        self._running = False
        self._closed = False

    def put(self, asker: Hashable, work: Callable[[Still], None]) -> None:
        """Do `work`, which must not raise, when what was put before is done.

        It is given a function to call now and then, which raises `Superseded` once the same asker wants something newer
        or all is closed.
        """
        with self._lock:
            if self._closed:
                return
            self._waiting.append((asker, work))
            self._latest[asker] = work
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, daemon=True).start()

    def close(self) -> None:
        """Take nothing more; what is running ends when it next asks."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            self._latest.clear()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running = False
                    return
                asker, work = self._waiting.popleft()
            work(self._still(asker, work))

    def _still(self, asker: Hashable, work: object) -> Still:
        def still() -> None:
            with self._lock:
                if self._latest.get(asker) is not work:
                    raise Superseded

        return still
