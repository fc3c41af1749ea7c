"""Speed and memory of several candidates on this machine: measured in turns, so that what slows one slows all.

In: how to ask each worker, tokens. Out: `Speed` of each, or why its figures cannot be compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import EngineCancelled, LlamaTelemetryError
from .wire import Message

Ask = Callable[[Message], Message]
TOLERATED = 0.10  # of the median: repeats that differ more say nothing about a difference between candidates


@dataclass(frozen=True)
class Speed:
    """What one candidate needs.

    Attributes
    ----------
    prefill_tps, decode_tps : float
        Tokens per second, read at once and written one by one: the median of the repeats. NaN where ``speed_note``
        says why they cannot be compared.
    prefill_spread, decode_spread : float
        Difference between the fastest and the slowest repeat as a part of the median.
    memory_bytes : int or None
        What llama.cpp allocated: weights, cache, computation, logits.
    speed_note : str
        Empty where the figures can be compared.
    """

    prefill_tps: float = math.nan
    prefill_spread: float = math.nan
    decode_tps: float = math.nan
    decode_spread: float = math.nan
    memory_bytes: int | None = None
    speed_note: str = ""


def measure(
    candidates: Mapping[str, tuple[Ask, str]],
    ids: Sequence[int],
    *,
    n_decode: int = 32,
    repeats: int = 3,
    n_ctx: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Speed]:
    """Time every candidate on the same tokens, one after the other, several times around.

    Parameters
    ----------
    candidates : mapping of str to (callable, str)
        Name to what asks its worker (e.g. `Engine.request`), and the type of its KV cache.
    ids : sequence of int
        Real text; the last `n_decode` are given one by one, the others at once.
    n_decode, repeats : int
    n_ctx : int
        Tokens of the context, which the memory depends on.
    progress : callable, optional
        Hears (passes done, passes).

    Returns
    -------
    dict of str to Speed
        A candidate that fails has a note that says why.

    Raises
    ------
    LlamaTelemetryError
        Too few tokens.
    EngineCancelled
    """
    n = len(ids) - n_decode
    if n < 2 or n_decode < 1 or repeats < 2:
        raise LlamaTelemetryError(
            f"{len(ids)} tokens, {n_decode} of them one by one, {repeats} times are too few for a speed: give more"
        )
    asked = {"do": "speed", "ids": [int(i) for i in ids], "n_prefill": n, "n_ctx": n_ctx}
    passes: dict[str, list[Message]] = {name: [] for name in candidates}
    failed: dict[str, str] = {}
    for repeat in range(repeats):
        for at, (name, (ask, kv_type)) in enumerate(candidates.items()):
            if name not in failed:
                try:
                    passes[name].append(ask({**asked, "kv_type": kv_type, "warm": bool(passes[name])}))
                except EngineCancelled:
                    raise
                except LlamaTelemetryError as error:
                    failed[name] = str(error)
            if progress is not None:
                progress(repeat * len(candidates) + at + 1, repeats * len(candidates))
    return {
        name: Speed(speed_note=failed[name]) if name in failed else summed_up(own, n, n_decode)
        for name, own in passes.items()
    }


def summed_up(passes: Sequence[Message], n_prefill: int, n_decode: int) -> Speed:
    """One candidate's passes as its `Speed`.

    Parameters
    ----------
    passes : sequence of dict
        ``prefill_seconds``, ``decode_seconds``, ``buffers`` (``[owner, where, bytes]``).
    n_prefill, n_decode : int
        Tokens that the seconds were spent on.
    """
    rates = {
        kind: [tokens / own[f"{kind}_seconds"] for own in passes]
        for kind, tokens in (("prefill", n_prefill), ("decode", n_decode))
    }
    middle = {kind: statistics.median(own) for kind, own in rates.items()}
    spread = {kind: (max(own) - min(own)) / middle[kind] for kind, own in rates.items()}
    noisy = [f"{kind} by {100 * own:.0f} %" for kind, own in spread.items() if own > TOLERATED]
    note = f"not comparable: {len(passes)} repeats differ in {' and '.join(noisy)}" if noisy else ""
    memory = sum(size for _, _, size in passes[-1]["buffers"])
    return Speed(
        math.nan if noisy else middle["prefill"],
        spread["prefill"],
        math.nan if noisy else middle["decode"],
        spread["decode"],
        memory,
        note,
    )
