"""What the browser side of an attention grid is told about a trace.

In: a `Trace`, whole or still growing. Out: the trait `facts` (plain JSON), and thumbnails and statistics of all heads
in one order: layers with attention, then heads.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

from ..analysis.attention import STATISTICS, Reduced, name_head
from ..errors import CaptureUnavailable
from ..export.thumbnails import shrink
from ..trace import LayerFacts, Trace

Array = np.ndarray[Any, Any]

SIDE = 64  # cells of a thumbnail's side at most, as `analysis.attention.reduce` makes them
STATE_BYTES = 2_000_000  # of thumbnails in a saved notebook: 1024 heads of 64 x 64 would be 4.2 MB
HISTOGRAMS = STATISTICS[:5]
TITLES = {"encoder": "Encoder attention", "decoder": "Decoder attention", "cross": "Cross-attention"}
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"  # not by the locale: the same picture everywhere


def facts(trace: Trace, part: str, phase: str, done: int, total: int, message: str) -> dict[str, Any]:
    """The trait `facts`."""
    rows, keys = trace.part_tokens(part if trace.parts else None)
    layers = layers_of(trace, part)
    side_rows, side_keys = sides(layers, len(rows), len(keys))
    return {
        "title": TITLES.get(part, "Attention"),
        "model": str(trace.info.get("model") or ""),
        "provenance": provenance(trace, phase),
        "details": details(trace),
        "live": True,
        "saved": day(trace),
        "n_tokens": len(keys),
        "tokens": keys,
        "kinds": kinds(trace, part),
        "query_tokens": rows,
        "layers": [layer_facts(trace, layer, part) for layer in layers],
        "statistics": statistic_facts(statistics(trace, part), len(keys)),
        "side_rows": side_rows,
        "side_keys": side_keys,
        "part": part,
        "parts": list(trace.parts),
        "names": names(trace, part),
        "phase": phase,
        "done": done,
        "total": total,
        "message": message,
    }


def empty_facts(message: str) -> dict[str, Any]:
    """The trait `facts` before a run has said what it will give."""
    nothing: dict[str, Any] = dict.fromkeys(("model", "provenance", "part"), "")
    nothing |= {key: [] for key in ("tokens", "kinds", "query_tokens", "layers", "statistics", "parts")}
    nothing |= dict.fromkeys(("n_tokens", "side_rows", "side_keys", "done", "total"), 0)
    more = {"title": "Attention", "details": {}, "names": {}, "live": True, "saved": None}
    return {**nothing, **more, "phase": "computing", "message": message}


def sides(layers: list[LayerFacts], rows: int, keys: int) -> tuple[int, int]:
    """Cells of a thumbnail, halved until all heads fit the state of a saved notebook."""
    heads = sum(layer.heads for layer in layers)
    side_rows, side_keys = min(SIDE, rows), min(SIDE, keys)
    while heads * side_rows * side_keys > STATE_BYTES and max(side_rows, side_keys) > 8:
        side_rows, side_keys = -(-side_rows // 2), -(-side_keys // 2)
    return side_rows, side_keys


def layer_facts(trace: Trace, layer: LayerFacts, part: str) -> dict[str, Any]:
    """One layer's entry. Before it has arrived its mask is taken as causal, which nothing is drawn from yet."""
    arrived = layer.kind == "attention" and trace.arrived(layer.layer, part)
    return {
        "layer": layer.layer,
        "kind": layer.kind,
        "reason": layer.reason,
        "heads": layer.heads,
        "kv_heads": layer.kv_heads,
        "window": layer.window if arrived else None,
        "mask": layer.mask if arrived else "causal",
        "stages": list(trace.stages(layer.layer, part)) if arrived else [],
        "scale": float(trace.scoring(layer.layer, part).scale) if arrived else 0.0,
    }


def statistic_facts(table: Array, tokens: int) -> list[dict[str, Any]]:
    """Labels and ends of the axes; that of induction ends at its highest value, which is often far below 1."""
    highest = dict.fromkeys(STATISTICS, 1.0) | {"mean_distance": float(tokens)}
    induction = table[:, STATISTICS.index("induction")]
    if np.isfinite(induction).any():
        highest["induction"] = max(float(np.ceil(np.nanmax(induction) * 100) / 100), 0.05)
    return [
        {
            "key": name,
            "label": name.replace("_", " ").capitalize(),
            "lo": 0.0,
            "hi": high,
            "histogram": name in HISTOGRAMS,
        }
        for name, high in highest.items()
    ]


def provenance(trace: Trace, phase: str) -> str:
    """Where the numbers come from; only a whole run has been checked."""
    return trace.provenance if phase == "done" else trace.provenance.replace(" · checked", "")


def kinds(trace: Trace, part: str) -> list[str]:
    """Kinds of the key tokens."""
    return trace.token_kinds if trace.decoder is None or part in ("encoder", "cross") else trace.decoder[2]


def details(trace: Trace) -> dict[str, str]:
    """Everything that a reader needs to repeat the run, as text."""
    info = trace.info
    words = {
        "model": info.get("model"),
        "file": info.get("file"),
        "sha256": info.get("sha256"),
        "architecture": info.get("architecture"),
        "quant type": info.get("quant_type"),
        "llama-cpp-python": info.get("llama_cpp_python"),
        "date": info.get("date"),
        "device": info.get("device"),
        "threads": info.get("n_threads"),
        **{key.replace("_", " "): value for key, value in (info.get("settings") or {}).items()},
    }
    return {key: str(value) for key, value in words.items() if value not in (None, "", [])}


def day(trace: Trace) -> str | None:
    """``25 Nov``, the day of the run."""
    try:
        date = datetime.fromisoformat(trace.info["date"])
    except (KeyError, TypeError, ValueError):
        return None
    return f"{date.day} {_MONTHS[3 * date.month - 3 : 3 * date.month]}"


def names(trace: Trace, part: str) -> dict[str, str]:
    """Names of the heads whose score is clear: ``{"17,5": "induction head"}``."""
    found = {}
    for layer in arrived_layers(trace, part):
        table = trace.layer_reduced(layer.layer, part).statistics
        for head in range(layer.heads):
            name = name_head({key: float(values[head]) for key, values in table.items()})
            if name is not None:
                found[f"{layer.layer},{head}"] = name
    return found


def arrived_layers(trace: Trace, part: str) -> list[LayerFacts]:
    """Layers with attention that are there."""
    return [own for own in layers_of(trace, part) if own.kind == "attention" and trace.arrived(own.layer, part)]


def layers_of(trace: Trace, part: str) -> list[LayerFacts]:
    """All layers of a part; where nothing has attention, the model's layers with the reason."""
    return trace.layers_of(part if trace.parts else None)


def layer_statistics(reduced: Reduced) -> Array:
    """float32 (heads, statistics) of one layer."""
    return np.stack([np.asarray(reduced.statistics[name], np.float32) for name in STATISTICS], 1)


def layer_thumbnails(reduced: Reduced, side_rows: int, side_keys: int) -> Array:
    """uint8 (heads, side_rows, side_keys) of one layer."""
    return shrink(np.asarray(reduced.thumb_max), side_rows, side_keys)


def thumbnails(trace: Trace, part: str, side_rows: int, side_keys: int) -> Array:
    """uint8 (heads, side_rows, side_keys) of all layers with attention; zeros where a layer has not arrived."""
    places = _places(trace, part)
    out = np.zeros((sum(layer.heads for layer, _ in places), side_rows, side_keys), np.uint8)
    for layer, at in places:
        if trace.arrived(layer.layer, part):
            own = layer_thumbnails(trace.layer_reduced(layer.layer, part), side_rows, side_keys)
            out[at : at + layer.heads, : own.shape[1], : own.shape[2]] = own
    return out


def statistics(trace: Trace, part: str) -> Array:
    """float32 (heads, statistics) of all layers with attention; NaN where a layer has not arrived."""
    places = _places(trace, part)
    out = np.full((sum(layer.heads for layer, _ in places), len(STATISTICS)), np.nan, np.float32)
    for layer, at in places:
        if trace.arrived(layer.layer, part):
            out[at : at + layer.heads] = layer_statistics(trace.layer_reduced(layer.layer, part))
    return out


def _places(trace: Trace, part: str) -> list[tuple[LayerFacts, int]]:
    """Layers with attention, each with the index of its first head among all."""
    found, at = [], 0
    for layer in layers_of(trace, part):
        if layer.kind == "attention":
            found.append((layer, at))
            at += layer.heads
    return found


def matrix(trace: Trace, layer: int, head: int, stage: str, part: str) -> Array:
    """float32 (rows, keys) of one head at one stage; NaN where a token may not be seen.

    Before the mask is applied (``"scores"``, ``"scaled"``) every cell has a value.
    """
    values = np.array(trace.attention(layer, head, stage, part=part), np.float32)
    if stage == "masked":
        values[np.isneginf(values)] = np.nan
    mask = trace.mask(layer, part)
    if stage == "softmax" and mask is not None:
        values[~np.asarray(mask.visible(slice(None), values.shape[1]))] = np.nan
    return values


def find_layer(trace: Trace, layer: int, part: str) -> LayerFacts:
    """A layer with attention.

    Raises
    ------
    CaptureUnavailable
        There is no such layer, or it has no attention.
    """
    layers = layers_of(trace, part)
    found = next((own for own in layers if own.layer == layer), None)
    if found is None:
        there = [own.layer for own in layers]
        span = f"it has {there[0]} to {there[-1]}" if there else "it has none"
        raise CaptureUnavailable(f"layer {layer} is not in this trace: {span}")
    if found.kind != "attention":
        raise CaptureUnavailable(f"layer {layer} has no attention to select ({found.reason})")
    return found
