"""Runs the benchmarks: ``python -m benchmarks [NAME ...]``; one line a figure: name, value, unit, ratio, peer.

A run of everything also writes RESULTS.md beside this file.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import sys
from datetime import date
from pathlib import Path

from .figure import Figure, Skipped

MODULES = (
    "capture",
    "opening",
    "header",
    "memory",
    "wire",
    "html",
    "lens",
    "paint",
    "frames",
    "architecture",
    "long",
    "embedding",
    "space",
    "telemetry",
    "gpu",
    "quantization",
)
RESULTS = Path(__file__).with_name("RESULTS.md")


def run(names: list[str]) -> tuple[list[Figure], list[str]]:
    """Figures of some modules, printed as they come, and what could not be measured."""
    found: list[Figure] = []
    skipped: list[str] = []
    for name in names:
        try:
            for figure in importlib.import_module(f"benchmarks.{name}").figures():
                print(figure, flush=True)
                found.append(figure)
        except Skipped as reason:
            skipped.append(f"{name}: {reason}")
            print(f"{name} skipped: {reason}", flush=True)
    return found, skipped


def report(found: list[Figure], skipped: list[str]) -> str:
    """All figures as a Markdown page."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("llama-cpp-python", "numpy"))
    lines = [
        "# Measured figures",
        "",
        f"Made by `make bench` on {date.today()}: {_cores()} CPU cores, {platform.system()} {platform.machine()}, "
        f"no GPU used; Python {platform.python_version()}, {packages}. Best of several, ours and peer in turns.",
        "",
        "| figure | value | unit | ratio | peer | goal | reached |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for f in found:
        ratio = "–" if f.ratio is None else f"{f.ratio:.3g}"
        reached = {None: "–", True: "yes", False: "**no**"}[f.met]
        lines.append(f"| {f.name} | {f.value:.4g} | {f.unit} | {ratio} | {f.peer} | {f.goal or '–'} | {reached} |")
    lines += ["", *(f"Not measured: {reason}." for reason in skipped)]
    return "\n".join(lines).rstrip() + "\n"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    """All modules, or those named on the command line."""
    names = sys.argv[1:] or list(MODULES)
    found, skipped = run(names)
    if names == list(MODULES):
        RESULTS.write_text(report(found, skipped))


if __name__ == "__main__":
    main()
