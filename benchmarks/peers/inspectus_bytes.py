"""Bytes that inspectus gives to the browser for some attention, and how long it takes to make them.

In: a .npy file, float32 (layers, heads, n, n). Out: a JSON line, the length of the HTML and scripts that it displays,
and seconds.
"""

import json
import sys
import time

import IPython.display
import numpy as np

shown: list[object] = []


def keep(*objects: object, **options: object) -> None:
    """Stands where the notebook's display would be."""
    shown.extend(getattr(one, "data", one) for one in objects)


IPython.display.display = keep
import inspectus  # noqa: E402 - it must find the stand-in

attention = np.load(sys.argv[1])
started = time.perf_counter()
inspectus.attention(attention, [f"t{i}" for i in range(attention.shape[-1])])
seconds = time.perf_counter() - started
print(json.dumps({"bytes": sum(len(str(one).encode()) for one in shown), "seconds": seconds}))
