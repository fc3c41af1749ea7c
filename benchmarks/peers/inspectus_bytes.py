"""Bytes that inspectus gives to the browser for some attention.

In: a .npy file, float32 (layers, heads, n, n). Out: a JSON line, the length of the HTML and scripts that it displays.
"""

import json
import sys

import IPython.display
import numpy as np

sent = 0


def count(*shown: object, **options: object) -> None:
    """Stands where the notebook's display would be."""
    global sent
    sent += sum(len(str(getattr(one, "data", one)).encode()) for one in shown)


IPython.display.display = count
import inspectus  # noqa: E402 - it must find the counter

attention = np.load(sys.argv[1])
inspectus.attention(attention, [f"t{i}" for i in range(attention.shape[-1])])
print(json.dumps({"bytes": sent}))
