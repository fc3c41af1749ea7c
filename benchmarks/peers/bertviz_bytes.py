"""Bytes that bertviz's model view gives to the browser for some attention, and how long it takes to make them.

In: a .npy file, float32 (layers, heads, n, n). Out: a JSON line, the length of the HTML and seconds.
"""

import json
import sys
import time

import bertviz
import numpy as np
import torch

attention = np.load(sys.argv[1])
layers = [torch.from_numpy(layer)[None] for layer in attention]
started = time.perf_counter()
html = bertviz.model_view(layers, [f"t{i}" for i in range(attention.shape[-1])], html_action="return")
seconds = time.perf_counter() - started
print(json.dumps({"bytes": len(html.data.encode()), "seconds": seconds}))
