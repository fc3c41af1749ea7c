"""Peak memory of a traced prompt against its length: kernel and worker, each run in a fresh process.

`python -m benchmarks.memory N` is one such run: it prints the peak of both processes in bytes. What both map (the
shared block of the trace) counts twice, so the sum is an upper bound.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

import llamatelemetry_widget as lt

from .figure import Figure
from .prompts import MODEL, prompt_ids

LENGTHS = (512, 1024, 2048, 4096)
TOLERANCE = 0.1


def figures() -> Iterator[Figure]:
    """Peak megabytes at each length, and how far they lie from one straight line."""
    peaks = [_measure(n) for n in LENGTHS]
    slope, base = np.polyfit(LENGTHS, peaks, 1)
    for n, peak in zip(LENGTHS, peaks, strict=True):
        ratio = peak / (base + slope * n)
        yield Figure(
            f"peak_memory_{n}", peak / 1e6, "MB", ratio, "straight-line",
            f"within {TOLERANCE:.0%} of the line", abs(ratio - 1) <= TOLERANCE,
        )  # fmt: skip
    matrices = 30 * 9 * 2 * 4 * LENGTHS[-1]  # bytes per further token at this length, if softmax matrices were kept
    yield Figure("memory_per_token", slope / 1e3, "kB", slope / matrices, "softmax-matrices-at-4096")


def _measure(n: int) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", str(n)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return float(sum(json.loads(done.stdout).values()))


def peak(pid: int) -> int:
    """The most memory a process ever had, in bytes (now, where the system does not keep it)."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    memory = psutil.Process(pid).memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def run(n: int) -> dict[str, int]:
    """Trace n tokens in this process and say what it and its worker took."""
    with lt.open_model(MODEL) as model:
        trace = model.trace(prompt_ids(model, n), capture=("attention",), progress=False)
        trace.attention(17, 5, rows=slice(0, 512))
        assert model.worker_pid is not None
        return {"kernel": peak(psutil.Process().pid), "worker": peak(model.worker_pid)}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]))))
