"""A study of five types against llama-perplexity, run for the base and for each type: time, and bytes on disk for it.

Both read the same files and the same 16 windows of 512 tokens. llama-perplexity is built from llama-cpp-python's own
sources (vendor/llama.cpp: ``cmake -S . -B build -DLLAMA_BUILD_TOOLS=ON``, target ``llama-perplexity``) and is found on
PATH or by LLAMATELEMETRY_PERPLEXITY.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.cpu import usable_threads

from .figure import Figure, Skipped, at_most, seconds
from .prompts import ENGLISH, MODEL

TYPES = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q2_K")
CHUNKS, CHARACTERS = 16, 60_000
MORE_TIME, MORE_DISK = 1.0, 0.05


def figures() -> Iterator[Figure]:
    """In seconds and bytes, without making the files."""
    tool = os.environ.get("LLAMATELEMETRY_PERPLEXITY") or shutil.which("llama-perplexity")
    if tool is None:
        raise Skipped("llama-perplexity is not there: build it, or set LLAMATELEMETRY_PERPLEXITY")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = lt.quantize(MODEL, "F32", folder / "F32.gguf")
        files = [lt.quantize(base, kind, folder / f"{kind}.gguf") for kind in TYPES]
        (folder / "text.txt").write_text(ENGLISH[:CHARACTERS])
        study = lt.QuantizationStudy(
            base,
            files,
            ENGLISH[:CHARACTERS],
            windows="llama-perplexity",
            n_blocks=CHUNKS,
            drift=False,
            speed=False,
            directory=folder / "results",
        )
        ours = seconds(study.run)
        logits, theirs, told = folder / "logits.bin", 0.0, {}
        for path in (base.info.path, *(file.info.path for file in files)):
            judge = [] if path == base.info.path else ["--kl-divergence"]
            command = [tool, "-m", path, "-f", folder / "text.txt", "--kl-divergence-base", logits, *judge]
            command += ["-c", "512", "--chunks", str(CHUNKS), "-t", str(usable_threads())]
            started = time.perf_counter()
            told[path.stem] = _output([str(part) for part in command])
            theirs += time.perf_counter() - started
        disk = sum(path.stat().st_size for path in (folder / "results").rglob("*.npz"))
        peer = f"llama-perplexity ({theirs:.0f} s)"
        yield at_most("study_of_five_types", ours, "s", theirs, peer, MORE_TIME)
        size = logits.stat().st_size
        yield at_most(
            "study_on_disk", disk / 1e6, "MB", size / 1e6, f"llama-perplexity ({size / 1e6:.0f} MB)", MORE_DISK
        )
        for row in study.results.itertuples():
            kl, error = (float(x) for x in re.findall(r"Mean +KLD: +(-?[\d.]+) ± +([\d.]+)", told[row.name])[0])
            yield at_most(
                f"kl_{row.name}_apart", abs(row.kl - kl), "nats", error, f"llama-perplexity's error ({kl})", 1.0
            )


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"llama-perplexity failed: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout + done.stderr
