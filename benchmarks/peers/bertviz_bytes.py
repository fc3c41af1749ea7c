"""Bytes that bertviz's model view gives to the browser for some attention.

In: a .npy file, float32 (layers, heads, n, n). Out: a JSON line, the length of the HTML.
"""

import json
import sys

import bertviz
import numpy as np
import torch

attention = np.load(sys.argv[1])
layers = [torch.from_numpy(layer)[None] for layer in attention]
html = bertviz.model_view(layers, [f"t{i}" for i in range(attention.shape[-1])], html_action="return")
print(json.dumps({"bytes": len(html.data.encode())}))
