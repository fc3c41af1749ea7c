"""What the browser side of an attention grid is told about a trace.

In: a `Trace`, whole or still growing. Out: the trait `facts` (plain JSON), and thumbnails and statistics of all heads
in one order: layers with attention, then heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np

from ..analysis.attention import STATISTICS, Mask, Reduced, Scoring, alibi_slopes, name_head, normalizers_of, stages
from ..analysis.tokens import TOKEN_STATISTICS
from ..engine.cpu import usable_threads
from ..errors import CaptureUnavailable
from ..export.thumbnails import shrink
from ..trace import LayerFacts, Trace

Array = np.ndarray[Any, Any]

SIDE = 64  # cells of a thumbnail's side at most, as `analysis.attention.reduce` makes them
STATE_BYTES = 2_000_000  # of thumbnails in a saved notebook: 1024 heads of 64 x 64 would be 4.2 MB
DIVERGENCE = "divergence"  # among the statistics of tokens, where a second trace was given
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
        "token_stats": list(TOKEN_STATISTICS) if predicts(layers, part) else [],
        "phase": phase,
        "done": done,
        "total": total,
        "message": message,
    }


def empty_facts(message: str) -> dict[str, Any]:
    """The trait `facts` before a run has said what it will give."""
    nothing: dict[str, Any] = dict.fromkeys(("model", "provenance", "part"), "")
    lists = ("tokens", "kinds", "query_tokens", "layers", "statistics", "parts", "token_stats")
    nothing |= {key: [] for key in lists}
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


def head_parts(trace: Trace, layer: int, head: int, part: str) -> tuple[dict[str, Any], list[Array]]:
    """What one head is replayed from in the browser: its constants, and the arrays that travel beside them.

    Returns
    -------
    facts : dict
        Shape, stages, scale and the rest of the formula.
    arrays : list of ndarray
        q (rows, size) and k (keys, size) as measured; normalizers float64 (rows,); first and stop int32 (rows,) of the
        visible keys; where there are holes between these, packed bits (rows, keys / 8); where there is one, the bias.

    Raises
    ------
    CaptureUnavailable
        There is no such head.
    """
    return parts_of(trace, find_layer(trace, layer, part), [head], part)[0]


def parts_of(
    trace: Trace, layer: LayerFacts, heads: Sequence[int], part: str
) -> list[tuple[dict[str, Any], list[Array]]]:
    """`head_parts` of several heads of a layer."""
    wrong = [head for head in heads if not 0 <= head < layer.heads]
    if wrong:
        raise CaptureUnavailable(
            f"head {wrong[0]} does not exist: layer {layer.layer} has heads 0 to {layer.heads - 1}"
        )
    s = trace.scoring(layer.layer, part)
    mask = s.mask or Mask(np.zeros(s.rows, np.int32), np.full(s.rows, s.keys, np.int32))
    half = s.q.dtype == s.k.dtype == np.float16
    dtype = np.float16 if half else np.float32
    slopes = alibi_slopes(s.heads, s.max_bias) if mask.distance and s.max_bias > 0 else [0.0] * s.heads
    shared = {
        "rows": s.rows,
        "keys": s.keys,
        "size": int(s.q.shape[2]),
        "dtype": "f2" if half else "f4",
        "stages": list(stages(s)),
        "scale": float(s.scale),
        "soft_cap": float(s.soft_cap),
        "fused": bool(s.fused),
        "offset": int(mask.offset),
        "has_bits": mask.bits is not None,
        "has_bias": s.bias is not None,
        "window": layer.window,
    }
    ends = [np.asarray(np.minimum(x, s.keys), np.int32) for x in (mask.first, mask.stop)]
    bits = [] if mask.bits is None else [np.packbits(mask.visible(slice(None), s.keys), axis=1)]
    found: list[tuple[dict[str, Any], list[Array]]] = []
    for head, normalizers in zip(heads, normalizers_of(s, heads, usable_threads()), strict=True):
        sink = None if s.sinks is None else float(s.sinks[head])
        bias = [] if s.bias is None else [np.asarray(s.bias[head], np.float32)]
        vectors = [np.asarray(x, dtype) for x in (s.q[head], s.k[head // s.group])]
        facts = {**shared, "slope": slopes[head], "sink": sink}
        found.append((facts, [*vectors, np.asarray(normalizers, np.float64), *ends, *bits, *bias]))
    return found


def scorings(trace: Trace, part: str, heads: str | list[list[int]]) -> list[tuple[Scoring, list[int]]]:
    """Layers that are there with the heads asked for, ``"all"`` or ``[[layer, head], …]``, as the sums take them."""
    if isinstance(heads, str):
        return [(trace.scoring(own.layer, part), list(range(own.heads))) for own in arrived_layers(trace, part)]
    chosen: dict[int, list[int]] = {}
    for layer, head in heads:
        chosen.setdefault(int(layer), []).append(int(head))
    for layer in chosen:
        find_layer(trace, layer, part)
    return [(trace.scoring(layer, part), own) for layer, own in chosen.items()]


def predicts(layers: list[LayerFacts], part: str) -> bool:
    """Whether tokens of a part are predicted from those before them, as far as is known."""
    return part in ("self", "decoder") and all(own.kind != "attention" or own.mask != "none" for own in layers)


def against_facts(against: Trace | None, facts: dict[str, Any]) -> dict[str, Any]:
    """What the text can be coloured by besides, where there is a second trace, and which that is."""
    if against is None or not facts["token_stats"]:
        return {}
    model = " ".join(str(x) for x in (against.info.get("model"), against.info.get("quant_type")) if x)
    return {"token_stats": [*facts["token_stats"], DIVERGENCE], "against": model}


def token_stats(trace: Trace, facts: dict[str, Any], against: Trace | None = None) -> Array:
    """float32 (kinds, tokens): what is known of single tokens; the first one was predicted from nothing: NaN."""
    table = trace.token_stats
    if len(table) != facts["n_tokens"]:
        raise CaptureUnavailable(f"statistics of {len(table)} tokens do not belong to the {facts['n_tokens']} shown")
    if against is not None and DIVERGENCE in facts["token_stats"]:
        table[DIVERGENCE] = trace.divergence(against).kl
    return np.stack([np.asarray(table[kind], np.float32) for kind in facts["token_stats"]])


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
