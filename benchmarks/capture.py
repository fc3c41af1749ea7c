"""What capture costs: a traced run against plain llama-cpp-python on the same prompt, in the same turn.

`capture_*` is the worker's prefill with q, k, v of all 270 heads copied out. `grid_*` is the whole call as a user waits
for it: capture, the transport, and every thumbnail and statistic of every head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import llamatelemetry_widget as lt

from .figure import Figure, at_most, interleaved, seconds
from .prompts import MODEL, prompt_ids

PEER = "llama-cpp-python-prefill"
ROUNDS = {512: 7, 2048: 4}


def figures() -> Iterator[Figure]:
    """Both costs at 512 and 2048 tokens, with flash attention on and off."""
    with lt.open_model(MODEL) as model:
        for n in ROUNDS:
            for flash in ("on", "off"):
                yield from _compare(model, prompt_ids(model, n), flash)


def _compare(model: lt.Model, ids: list[int], flash: Literal["on", "off"]) -> Iterator[Figure]:
    import llama_cpp

    settings = {"flash_attention": flash, "capture": ("attention",), "progress": False}
    threads = model.trace(ids, **settings).info["n_threads"]  # also warms up both the worker and the file cache
    plain = llama_cpp.Llama(
        str(model.info.path), n_ctx=len(ids), n_batch=512, n_ubatch=512, n_threads=threads, n_threads_batch=threads,
        flash_attn=flash == "on", verbose=False,
    )  # fmt: skip
    grids = []

    def peer() -> float:
        plain.reset()
        return seconds(lambda: plain.eval(ids))

    def traced() -> float:
        found = []
        grids.append(seconds(lambda: found.append(model.trace(ids, **settings))))
        return float(found[0].telemetry["prefill_seconds"])

    peer()
    theirs, ours = interleaved(ROUNDS[len(ids)], peer, traced)
    plain.close()
    name = f"{len(ids)}_flash_{flash}"
    yield at_most(f"capture_{name}", ours, "s", theirs, PEER, 1.10)
    yield at_most(f"grid_{name}", min(grids), "s", theirs, PEER, 1.35)
