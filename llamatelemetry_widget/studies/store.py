"""Scores of blocks on disk, so that a study that was stopped goes on, and unlike runs never meet.

In: the files' content, the tokens, the settings, the build of llama.cpp. Out: `Scores` of a block, or None.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.quality import Scores
from ..engine.client import STOPPED
from ..errors import EngineCancelled
from .windows import Block

_FORMAT = 1
_NAMES = ("kl", "base_log_p", "log_p", "same_top")


class Store:
    """What is known of one candidate against one base.

    Parameters
    ----------
    folder : Path
    files : sequence of sequence of Path
        Of the base and of the candidate.
    settings : JSON
        All else that makes a run what it is.
    """

    def __init__(self, folder: Path, files: Sequence[Sequence[Path]], settings: Any) -> None:
        content = [[content_hash(path, *_stamp(path)) for path in own] for own in files]
        self._folder = folder / _digest([_FORMAT, content, settings])

    def load(self, block: Block) -> Scores | None:
        """A block's scores, where they are known."""
        try:
            with np.load(self._path(block)) as found:
                scores = Scores(*(found[name] for name in _NAMES))
        except (OSError, ValueError, KeyError):  # not there, or not what this version writes
            return None
        return scores if len(scores) == len(block.targets) else None

    def save(self, block: Block, scores: Scores) -> None:
        """Keep a block's scores; a disk that is full or closed costs the resuming, not the study."""
        path = self._path(block)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    np.savez(file, **{key: getattr(scores, key) for key in _NAMES})
                os.replace(name, path)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError:
            return

    def _path(self, block: Block) -> Path:
        return self._folder / f"{_digest([block.ids, block.first, block.targets])}.npz"


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=256)
def content_hash(path: Path, _size: int, _changed: int) -> str:
    """SHA-256 of a file, read once while its size and date stay."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 22):
            if STOPPED.get()():
                raise EngineCancelled("stopped while a file was read")
            digest.update(part)
    return digest.hexdigest()
