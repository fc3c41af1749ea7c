"""Who hears of every piece of work that begins: tools that watch from outside, of which the engine knows nothing.

In: runs and studies, as they begin. Out: each is handed to every observer, which may subscribe to its events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

#: Called in the thread that starts the work, before it does. An observer must not raise.
OBSERVERS: list[Callable[[Work], None]] = []


class Work(Protocol):
    """What a run and a study have in common."""

    @property
    def operation(self) -> str:
        """``"trace"``, ``"generate"`` or ``"study"``."""

    @property
    def model_name(self) -> str:
        """Of which model."""

    @property
    def error(self) -> BaseException | None:
        """What ended it; None while it goes on, and where it ended well."""

    def subscribe(self, callback: Callable[[Any], None]) -> None:
        """Call back with every event; each has a ``kind``, the last one "done", "error" or "cancelled"."""


def begins(work: Work) -> None:
    """Tell every observer."""
    for observe in list(OBSERVERS):
        observe(work)
