"""What a benchmark gives: figures, one line each, and the means to take them fairly.

In: functions to time. Out: `Figure`s that print as ``name value unit ratio peer``.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass


class Skipped(Exception):
    """This peer cannot be measured here; the message says what is missing."""


@dataclass(frozen=True)
class Figure:
    """One measured number, and how it stands to a peer measured in the same run.

    Attributes
    ----------
    name : str
    value : float
        Ours, in `unit`.
    unit : str
    ratio : float or None
        To the peer; what is divided by what stands in `goal`.
    peer : str
        What it was compared with.
    goal : str
        What is wanted, e.g. ``"ours / peer <= 1.10"``; empty where a figure only explains another.
    met : bool or None
        Whether the goal was reached.
    """

    name: str
    value: float
    unit: str
    ratio: float | None
    peer: str
    goal: str = ""
    met: bool | None = None

    def __str__(self) -> str:
        ratio = "-" if self.ratio is None else f"{self.ratio:.3g}"
        return f"{self.name} {self.value:.4g} {self.unit} {ratio} {self.peer}"


def at_most(name: str, value: float, unit: str, peer_value: float, peer: str, goal: float) -> Figure:
    """A figure whose ratio ours / peer must not exceed the goal."""
    ratio = value / peer_value
    return Figure(name, value, unit, ratio, peer, f"ours / peer <= {goal:g}", ratio <= goal)


def times_better(name: str, value: float, unit: str, peer_value: float, peer: str, goal: float) -> Figure:
    """A figure whose ratio peer / ours must reach the goal."""
    ratio = peer_value / value
    return Figure(name, value, unit, ratio, peer, f"peer / ours >= {goal:g}", ratio >= goal)


def interleaved(rounds: int, *runs: Callable[[], float]) -> list[float]:
    """The best time of each run in seconds, taken in turns, so that a busy moment meets all of them.

    Each run measures itself, so that its preparation need not count.
    """
    best = [float("inf")] * len(runs)
    for _ in range(rounds):
        for i, run in enumerate(runs):
            gc.collect()
            best[i] = min(best[i], run())
    return best


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
