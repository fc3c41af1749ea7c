"""One block of text through the base and through every candidate, side by side, in the process that is asked to.

In: a `Task`, plain data that any executor can send. Out: the scores of each candidate, or why it has none.
"""

from __future__ import annotations

import atexit
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..analysis.quality import Scores, joined
from ..engine.wire import SharedBlock
from ..errors import EngineCancelled, LlamaTelemetryError
from ..model import Model, open_model
from .windows import Block

_STEP_BYTES = 128_000_000  # of the logits that lie in shared memory at once
_LEAST_ROWS, _MOST_ROWS = 32, 512
_IDLE_SECONDS = 60.0  # a worker in another machine's process ends by itself
_NAMES = ("kl", "base_log_p", "log_p", "same_top")


@dataclass(frozen=True)
class Source:
    """A file and how it runs.

    Attributes
    ----------
    path : str
    placed : dict
        ``n_gpu_layers``, ``devices``, ``rpc`` as `open_model` takes them.
    kv_type : str
        Type of the KV cache.
    """

    path: str
    placed: dict[str, Any] = field(default_factory=dict)
    kv_type: str = "f16"


@dataclass(frozen=True)
class Task:
    """A block and who is to run it."""

    base: Source
    candidates: dict[str, Source]
    block: Block
    n_ctx: int
    n_vocab: int


class Workers:
    """Open models of one task after the other; each stays loaded."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}
        self._memory: SharedBlock | None = None

    def model(self, role: str, source: Source) -> Model:
        """The opened file; each role has a process of its own, so that the same file can be base and candidate."""
        key = repr((role, source))
        if key not in self._models:
            self._models[key] = open_model(source.path, idle_seconds=_IDLE_SECONDS, **source.placed)
        return self._models[key]

    def memory(self, size: int) -> SharedBlock:
        """Shared memory of at least so many bytes."""
        if self._memory is None or self._memory.size < size:
            self._free()
            self._memory = SharedBlock(size)
        return self._memory

    def close(self) -> None:
        """End every worker."""
        self._free()
        for model in self._models.values():
            model.close()
        self._models.clear()

    def _free(self) -> None:
        if self._memory is not None:
            self._memory.release()
            self._memory = None


def score(task: Task, workers: Workers | None = None) -> dict[str, Scores | str]:
    """Run a block: the base once, then each candidate against its logits, step by step.

    Parameters
    ----------
    task : Task
    workers : Workers, optional
        By default ones of this process that are kept for the next task.

    Returns
    -------
    dict of str to (Scores or str)
        Per candidate; a text where it failed.

    Raises
    ------
    LlamaTelemetryError
        The base failed.
    EngineCancelled
    """
    if workers is not None:
        return _score(task, workers)
    with _lock:
        own = _idle.pop() if _idle else Workers()
    try:
        return _score(task, own)
    finally:
        with _lock:
            _idle.append(own)


def _score(task: Task, workers: Workers) -> dict[str, Scores | str]:
    block, size = task.block, min(_MOST_ROWS, max(_LEAST_ROWS, _STEP_BYTES // (4 * task.n_vocab)))
    memory = workers.memory(4 * min(size, len(block.ids)) * task.n_vocab)
    found: dict[str, list[Scores]] = {name: [] for name in task.candidates}
    failed: dict[str, str] = {}
    for start in range(0, len(block.ids), size):
        ids = block.ids[start : start + size]
        first = max(block.first - start, 0)
        stop = max(min(block.first + len(block.targets) - start, len(ids)), first)
        step = {
            "ids": list(ids),
            "start": start,
            "rows": [first, stop],
            "n_ctx": task.n_ctx,
            "n_ubatch": size,
            "flash_attention": "auto",
            "size": memory.size,
        }
        at = start + first - block.first
        targets = np.asarray(block.targets[at : at + stop - first], np.int32)
        base = {**step, "do": "logits", "kv_type": task.base.kv_type}
        workers.model("", task.base)._request(base, fd=memory.fd)
        for name, source in task.candidates.items():
            if name in failed:
                continue
            asked = {**step, "do": "compare", "kv_type": source.kv_type, "targets": targets}
            try:
                answer = workers.model(name, source)._request(asked, fd=memory.fd)
            except EngineCancelled:
                raise
            except LlamaTelemetryError as error:
                failed[name] = str(error)
                continue
            found[name].append(Scores(*(answer[key] for key in _NAMES)))
    made = {name: joined(parts) for name, parts in found.items() if name not in failed}
    odd = {name: _odd(scores) for name, scores in made.items() if not np.isfinite(scores.kl).all()}
    return {**made, **odd, **failed}


def _odd(scores: Scores) -> str:
    where = int(np.flatnonzero(~np.isfinite(scores.kl))[0])
    return f"its logits after token {where} of a block are no numbers, or rule out what the base expects"


_idle: list[Workers] = []
_lock = threading.Lock()


@atexit.register
def close_idle() -> None:
    """End the workers that this process keeps for the next task."""
    with _lock:
        while _idle:
            _idle.pop().close()
