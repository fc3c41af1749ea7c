"""llama.cpp's log: passed on to the worker's stderr, and read for the sizes of the buffers that it allocates.

In: llama.cpp's log callback. Out: bytes by owner and by the device that they lie on, as llama.cpp reports them.
"""

from __future__ import annotations

import os
import re
from collections import deque
from typing import Any

from llama_cpp import llama_cpp as L

_DEBUG = 1  # GGML_LOG_LEVEL_DEBUG
_KEPT = 5_000  # pieces of the log that are kept until somebody reads the sizes
MIB = 1024 * 1024
#: What llama.cpp calls its buffers when it allocates them: the device, and the size in MiB.
BUFFERS = {
    "weights": re.compile(r"(\S+) model buffer size = *([\d.]+) MiB"),
    "kv": re.compile(r"(\S+) KV buffer size = *([\d.]+) MiB"),
    "recurrent": re.compile(r"(\S+) RS buffer size = *([\d.]+) MiB"),
    "compute": re.compile(r"(\S+) compute buffer size = *([\d.]+) MiB"),
    "output": re.compile(r"(\S+) +output buffer size = *([\d.]+) MiB"),
}


class Log:
    """Listens to llama.cpp for as long as the worker lives; debug lines are left out."""

    def __init__(self) -> None:
        self._said: deque[bytes] = deque(maxlen=_KEPT)
        self._callback = L.llama_log_callback(self._hear)
        L.llama_log_set(self._callback, None)

    def _hear(self, level: int, text: bytes, _data: Any) -> None:
        if level != _DEBUG:
            self._said.append(text)
            os.write(2, text)

    def buffers(self) -> list[list[Any]]:
        """Buffers allocated since this was last asked: ``[owner, where, bytes]``."""
        text = b"".join(self._said).decode("utf-8", "replace")
        self._said.clear()
        return allocated(text)


def allocated(text: str) -> list[list[Any]]:
    """Buffers that a log speaks of: ``[owner, where, bytes]``, those of one owner in one place added up."""
    found: dict[tuple[str, str], float] = {}
    for owner, rule in BUFFERS.items():
        for where, size in rule.findall(text):
            found[owner, where] = found.get((owner, where), 0.0) + float(size)
    return [[owner, where, round(size * MIB)] for (owner, where), size in found.items()]
