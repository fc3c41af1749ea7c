"""A cloud of points as plotly writes it: one page that needs no network.

In: a .npy file, float32 (n, 3); where to write the page. Out: the page; a JSON line with its bytes and seconds.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

points, target = np.load(sys.argv[1]), Path(sys.argv[2])
started = time.perf_counter()
x, y, z = points.T
cloud = go.Scatter3d(x=x, y=y, z=z, mode="markers", marker={"size": 1.5, "color": np.arange(len(points))})
go.Figure(cloud).write_html(target, include_plotlyjs=True)
print(json.dumps({"bytes": target.stat().st_size, "seconds": time.perf_counter() - started}))
