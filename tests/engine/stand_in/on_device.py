"""Makes a worker believe that the tensors of its graphs lie on a GPU; to be imported before it starts.

There is none: the memory is the host's. `STAND_IN_PLACE` is what llama.cpp would call the device.
"""

from __future__ import annotations

import os

from llamatelemetry_widget.engine.worker import device, ggml

ggml.on_host = lambda tensor: False
ggml.place = lambda tensor: os.environ.get("STAND_IN_PLACE", "CUDA0")


def fail_in_reduction(number: int) -> None:
    """Let that reduction of the process and all later ones fail."""
    own, calls = device.reduce, []

    def reduce(*given, **named):
        calls.append(given)
        if len(calls) >= number:
            raise MemoryError("Out of memory allocating 512 bytes")
        return own(*given, **named)

    device.reduce = reduce
