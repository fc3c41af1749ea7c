"""What a telemetry panel says: figures of a run, times of its tokens, memory by owner, and samples as columns.

In: traces and samples. Out: plain values and arrays, as they go to the browser. What was not measured is None or NaN.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..telemetry.samples import QUANTITIES, Sample
from ..trace import RunTelemetry, Trace
from .attention_facts import day, details

Array = np.ndarray[Any, Any]

#: Rows of a run's series.
SERIES = ("milliseconds", "threads", "bits")
KEPT = 20_000  # samples that a panel keeps; the oldest go
WINDOW = 0.25  # seconds: so long, CPU threads are told to a tenth of those given
_EXACT = 10
_SHORT, _ROUGH = 0.1, 4  # from so many seconds on to a quarter, and below not at all
_SHOWN = 1_200  # samples that the browser gets
_OWNERS = {
    "weights": "weights",
    "kv": "KV cache",
    "recurrent": "recurrent state",
    "compute": "compute buffers",
    "output": "logits",
    "capture": "the trace",
}
_REST = "Python and the rest"
_NUMBERS = {
    "decode": "decode_tokens_per_second",
    "prefill": "prefill_tokens_per_second",
    "memory": "worker_memory_bytes",
    "kernel": "kernel_memory_bytes",
    "used": "context_used",
    "size": "context_size",
    "threads": "n_threads",
    "prefill_threads": "prefill_threads_used",
    "decode_threads": "decode_threads_used",
    "overhead": "overhead",
}
_SECONDS = {
    "first": "first_token_seconds",
    "load": "load_seconds",
    "prefill_ms": "prefill_seconds",
    "reduce": "reduce_seconds",
    "total": "total_seconds",
}


def run_facts(trace: Trace | None, phase: str, message: str = "") -> dict[str, Any]:
    """What is told of a run.

    Parameters
    ----------
    trace : Trace or None
        None before it has begun.
    phase : str
        ``"waiting"``, ``"prefill"``, ``"decode"``, ``"done"`` or ``"failed"``.
    message : str
        What a run that failed says.
    """
    facts: dict[str, Any] = {"phase": phase, "message": message, "numbers": {}, "memory": [], "layers": None}
    if trace is None:
        return {**facts, "name": "", "provenance": "", "details": {}, "saved": None, "prompt": 0, "device": "CPU"}
    info = trace.info
    written = list(trace._generated)
    n = len(trace.token_ids if trace.decoder is None else trace.decoder[0])
    prompt = n - len(written)
    counts = f"{prompt} + {len(written)} tokens" if written else f"{prompt} token{'' if prompt == 1 else 's'}"
    name = " ".join(str(x) for x in (info.get("model"), info.get("quant_type")) if x)
    threads = info.get("n_threads")
    device = info.get("device", "CPU")
    where = f"{device}, {threads} thread{'' if threads == 1 else 's'}" if threads else device
    return {
        **facts,
        "name": name,
        "provenance": f"{name} · {counts} · {where}",
        "details": details(trace),
        "saved": day(trace),
        "prompt": prompt,
        "device": device,
        "numbers": _numbers(trace),
        "memory": memory_places(trace.telemetry),
    }


def _numbers(trace: Trace) -> dict[str, Any]:
    told: dict[str, Any] = dict(trace.telemetry)
    numbers = {name: told.get(key) for name, key in _NUMBERS.items()}
    numbers |= {name: None if told.get(key) is None else 1e3 * told[key] for name, key in _SECONDS.items()}
    given = trace.info.get("n_threads") or 1
    for name in ("prefill", "decode"):
        numbers[f"{name}_threads"] = threads_used(numbers[f"{name}_threads"], told.get(f"{name}_seconds"), given)
    numbers["between"] = {name: 1e3 * value for name, value in told.get("between_tokens", {}).items()}
    written = list(trace._generated)
    if not told and written:  # while it writes: what stands so far
        numbers["decode"] = len(written) / max(sum(token.seconds for token in written), 1e-9)
        numbers["threads"] = trace.info.get("n_threads")
        numbers["used"] = len(trace.token_ids if trace.decoder is None else trace.decoder[0])
    return numbers


def memory_places(telemetry: RunTelemetry) -> list[dict[str, Any]]:
    """Memory by place, then by owner: the engine's process first, then each device, then the notebook's kernel.

    Returns
    -------
    list of dict
        ``place``, ``total`` (bytes), ``parts`` (``owner``, ``label``, ``bytes``), ``note``.
    """
    if "memory" not in telemetry:
        return []
    owners: dict[str, dict[str, int]] = {}
    for row in telemetry["memory"]:
        where = str(row["where"])
        mine = where == "shared" or where.startswith("CPU") or where.endswith("_Host")
        place = owners.setdefault("" if mine else where, {})
        place[row["owner"]] = place.get(row["owner"], 0) + int(row["bytes"])
    host = owners.pop("", {})
    resident = int(telemetry["worker_memory_bytes"])
    rest = resident - sum(host.values())
    parts = _parts(host)
    if rest >= 0:
        parts.append({"owner": "rest", "label": _REST, "bytes": rest})
    note = "" if rest >= 0 else "not all of these buffers are in memory now: the weights are read from the file"
    places = [{"place": "Engine process", "total": resident, "parts": parts, "note": note}]
    for where, own in owners.items():
        places.append({"place": where, "total": sum(own.values()), "parts": _parts(own), "note": ""})
    kernel = int(telemetry["kernel_memory_bytes"])
    whole = {"owner": "rest", "label": "resident", "bytes": kernel}
    places.append({"place": "Notebook kernel", "total": kernel, "parts": [whole], "note": ""})
    return places


def _parts(own: dict[str, int]) -> list[dict[str, Any]]:
    return [{"owner": key, "label": word, "bytes": own[key]} for key, word in _OWNERS.items() if own.get(key)]


def threads_used(used: float | None, seconds: float | None, given: int) -> float | None:
    """CPU threads used, as exactly as such a time can tell; None where it is too short.

    Kernels add the time of a thread that runs to that of its process when their clock ticks, every 10 ms or less: so
    in a short time too much or too little is seen, even more threads than there are.
    """
    if used is None or seconds is None or not math.isfinite(used) or seconds < _SHORT:
        return None
    step = given / (_EXACT if seconds >= WINDOW else _ROUGH)
    return step * round(used / step)


def series(trace: Trace | None) -> Array:
    """float32 (len(SERIES), written): milliseconds and surprise in bits of each token, CPU threads used around it."""
    tokens = [] if trace is None else list(trace._generated)
    out = np.full((len(SERIES), len(tokens)), np.nan, np.float32)
    for i, token in enumerate(tokens):
        out[:, i] = 1e3 * token.seconds, math.nan, -math.log2(max(token.probability, 1e-12))
    if trace is not None and all(token.cpu_seconds is not None for token in tokens):
        out[1] = _threads(
            [t.seconds for t in tokens], [t.cpu_seconds for t in tokens], trace.info.get("n_threads") or 1
        )
    return out


def _threads(seconds: Sequence[float], spent: Sequence[float | None], given: int) -> Array:
    """CPU threads used in the `WINDOW` around each token; NaN where all tokens took less than that."""
    ends, cpu = (np.cumsum([0.0, *each]) for each in (seconds, np.array(spent, float)))
    middles = (ends[:-1] + ends[1:]) / 2
    if ends[-1] < WINDOW:
        return np.full(len(middles), np.nan)
    starts = np.clip(middles - WINDOW / 2, 0, ends[-1] - WINDOW)
    first = np.searchsorted(ends, starts, "right") - 1
    stop = np.minimum(np.searchsorted(ends, starts + WINDOW, "left"), len(seconds))
    step = given / _EXACT
    rounded: Array = step * np.round((cpu[stop] - cpu[first]) / (ends[stop] - ends[first]) / step)
    return rounded


class Record:
    """Samples of a source, as columns."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self.names: list[str] = []
        self.notes: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, sample: Sample) -> None:
        """Take in one more."""
        self._samples.append(sample)
        self.notes = dict(sample.notes)
        self.names += [name for name in sample.values if name not in self.names]

    def columns(self, most: int = _SHOWN) -> Array:
        """float64 (1 + figures, samples): seconds since 1970, then each figure; NaN where it could not be read."""
        rows = list(self._samples)[-most:]
        out = np.full((1 + len(self.names), len(rows)), np.nan)
        for i, sample in enumerate(rows):
            out[0, i] = sample.time
            for k, name in enumerate(self.names, 1):
                value = sample.values.get(name)
                out[k, i] = math.nan if value is None else value
        return out

    def figures(self) -> list[dict[str, Any]]:
        """Name, device, label and unit of each figure, in the order of `columns`."""
        return [figure(name, self.notes) for name in self.names]


def figure(name: str, notes: dict[str, str]) -> dict[str, Any]:
    """How one figure is shown; a name that nobody knows is its own label."""
    device, _, own = name.rpartition(".")
    known = QUANTITIES.get(own)
    label, unit = (known.label, known.unit) if known else (own, "")
    return {"name": own, "device": device, "label": label, "unit": unit, "note": notes.get(name, "")}


def token_rows(traces: Sequence[Trace | None]) -> Any:
    """DataFrame: `Trace.generation` of each run, with ``run`` before it."""
    import pandas as pd

    frames = [trace.generation.assign(run=run) for run, trace in enumerate(traces) if trace is not None]
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)
    return frame[["run", *(name for name in frame.columns if name != "run")]]
