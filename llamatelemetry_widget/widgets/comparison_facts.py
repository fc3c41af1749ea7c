"""What a comparison of heads compares, what its browser side is told, and its numbers.

In: two traces, or one. Out: `Alignment` (which tokens go together, or why none do), the trait `facts` (plain JSON),
distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..analysis.attention import STATISTICS
from ..analysis.compare import cluster, compare, overlap, spread_rows
from ..engine.cpu import usable_threads
from ..trace import LayerFacts, Trace, display_token
from . import attention_facts as told

Array = np.ndarray[Any, Any]
Head = tuple[int, int]

CELLS = 300_000_000  # of both sides that distances are computed from: 1024 tokens of 270 heads, in some seconds
PRODUCTS = 10_000_000_000  # that overlaps are computed from: 512 tokens of 200 heads, in about a second
_EXCERPT = 3  # tokens that stand for a prompt
_SETTINGS = {"kv_type": "KV cache", "flash_attention": "flash attention", "n_ubatch": "ubatch"}


@dataclass(frozen=True)
class Alignment:
    """Which tokens of two traces go together.

    Attributes
    ----------
    how : {"tokens", "position", "prefix", "nothing"}
        The same tokens; other tokens at the same places; the tokens before the prompts part; none.
    rows, keys : int
        Query and key tokens that are compared: these first ones.
    sentence : str
        What is not as it could be, and what is compared all the same; empty where the tokens are the same.
    """

    how: str
    rows: int
    keys: int
    sentence: str = ""


def align(a: Trace, b: Trace, part: str) -> Alignment:
    """Find out what can be compared."""
    (rows_a, keys_a), (rows_b, keys_b) = (_pieces(trace, part) for trace in (a, b))
    if (rows_a, keys_a) == (rows_b, keys_b):
        return Alignment("tokens", len(rows_a), len(keys_a))
    if (len(rows_a), len(keys_a)) == (len(rows_b), len(keys_b)):
        other = sum(x != y for x, y in zip(keys_a, keys_b, strict=True))
        where = f"The prompts have other tokens at {other} of {len(keys_a)} places"
        return Alignment("position", len(rows_a), len(keys_a), f"{where}: compared place by place.")
    lengths = f"{len(keys_a)} and {len(keys_b)} tokens"
    same = next((i for i, (x, y) in enumerate(zip(keys_a, keys_b, strict=False)) if x != y), None)
    shared = min(len(keys_a), len(keys_b)) if same is None else same
    if shared >= 2 and rows_a == keys_a and rows_b == keys_b and _looks_back(a, part) and _looks_back(b, part):
        after = f"after “{display_token(keys_a[shared - 1])}”"
        words = f"The prompts ({lengths}) part {after}: their first {shared} tokens are compared, the rest is not."
        return Alignment("prefix", shared, shared, words)
    why = "begin with different tokens" if shared < 2 else "are of different lengths, and every token sees all others"
    words = (
        f"The prompts ({lengths}) {why}: no token has its counterpart. Heads and their statistics stand side by side."
    )
    return Alignment("nothing", 0, 0, words)


def _pieces(trace: Trace, part: str) -> tuple[list[bytes], list[bytes]]:
    """Bytes of the query tokens and of the key tokens: numbers mean other tokens in other vocabularies."""
    own = list(trace.token_bytes)
    if trace.decoder is None or part == "encoder":
        return own, own
    target = list(trace.decoder[1])
    return target, (own if part == "cross" else target)


def _looks_back(trace: Trace, part: str) -> bool:
    """No token sees a later one, so that the first tokens do not know how the prompt goes on."""
    return all(layer.mask == "causal" for layer in with_attention(trace, part))


def with_attention(trace: Trace, part: str) -> list[LayerFacts]:
    """A part's layers that have attention."""
    return [layer for layer in trace.layers_of(part) if layer.kind == "attention"]


def shared_layers(a: Trace, b: Trace, part: str) -> list[tuple[int, int]]:
    """(layer, heads) of the layers that have attention in both, heads that both have."""
    heads = {layer.layer: layer.heads for layer in with_attention(b, part)}
    return [(own.layer, min(own.heads, heads[own.layer])) for own in with_attention(a, part) if own.layer in heads]


def namesakes(a: Trace, b: Trace, part: str) -> str:
    """Empty where every head has its namesake, else one sentence on why not and what is compared instead."""
    one, two = ([(layer.layer, layer.heads) for layer in with_attention(trace, part)] for trace in (a, b))
    if one == two:
        return ""
    counts = [f"{len(x)} layers × {max((heads for _, heads in x), default=0)} heads" for x in (one, two)]
    return (
        f"The models have {counts[0]} and {counts[1]} with attention: heads have no namesake. "
        "One layer of each is compared, every head with every head."
    )


# ------------------------------------------------------------------------ numbers


def by_layer(a: Trace, b: Trace, part: str, alignment: Alignment) -> tuple[Array, int]:
    """float32 (2, heads, layers) of all namesakes, Jensen-Shannon and total variation; how many rows they come from.

    NaN where a layer has fewer heads, or nothing can be compared.
    """
    shared = shared_layers(a, b, part)
    out = np.full((2, max((heads for _, heads in shared), default=0), len(shared)), np.nan, np.float32)
    if alignment.how == "nothing":
        return out, 0
    rows = spread_rows(alignment.rows, alignment.keys * max(sum(heads for _, heads in shared), 1), CELLS)
    threads = usable_threads()
    for at, (layer, heads) in enumerate(shared):
        found = compare(a.scoring(layer, part), b.scoring(layer, part), None, rows, threads)
        out[:, :heads, at] = found.js[:heads], found.tv[:heads]
    return out, len(rows)


def every_pair(a: Trace, b: Trace, part: str, layers: tuple[int, int], alignment: Alignment) -> tuple[Array, int]:
    """float32 (2, heads of a, heads of b) of two layers, and how many rows they come from."""
    s, t = a.scoring(layers[0], part), b.scoring(layers[1], part)
    out = np.full((2, s.heads, t.heads), np.nan, np.float32)
    if alignment.how == "nothing":
        return out, 0
    rows = spread_rows(alignment.rows, alignment.keys * s.heads * t.heads, CELLS)
    pairs = [(i, j) for i in range(s.heads) for j in range(t.heads)]
    found = compare(s, t, pairs, rows, usable_threads())
    return np.stack([np.reshape(x, (s.heads, t.heads)) for x in (found.js, found.tv)]), len(rows)


def from_one(trace: Trace, part: str, head: Head) -> list[tuple[int, int, float, float]]:
    """(layer, head, Jensen-Shannon, total variation) of every other head, each compared with this one."""
    layers = with_attention(trace, part)
    own = trace.scoring(head[0], part)
    rows = spread_rows(own.rows, own.keys * sum(layer.heads for layer in layers), CELLS)
    found, threads = [], usable_threads()
    for layer in layers:
        pairs = [(head[1], other) for other in range(layer.heads)]
        d = compare(own, trace.scoring(layer.layer, part), pairs, rows, threads)
        found += [(layer.layer, other, float(d.js[other]), float(d.tv[other])) for _, other in pairs]
    return [entry for entry in found if entry[:2] != head]


def alike(trace: Trace, part: str) -> tuple[Array, list[int], int]:
    """Overlap of all heads (float32, layer after layer), their clustered order, and how many rows it comes from."""
    layers = [trace.scoring(layer.layer, part) for layer in with_attention(trace, part)]
    heads = sum(s.heads for s in layers)
    rows = spread_rows(layers[0].rows, layers[0].keys * heads * heads, PRODUCTS)
    found = np.asarray(overlap(layers, rows), np.float32)
    return found, cluster(found)[0].tolist(), len(rows)


def seen(trace: Trace, head: Head, part: str) -> Array:
    """float32 (rows, keys): weights of a head, NaN where a token may not be seen."""
    weights = np.array(trace.attention(*head, part=part), np.float32)
    mask = trace.mask(head[0], part)
    if mask is not None:
        weights[~np.asarray(mask.visible(slice(None), weights.shape[1]))] = np.nan
    return weights


# -------------------------------------------------------------------------- facts


def side_facts(trace: Trace, part: str, label: str) -> dict[str, Any]:
    """One side: what it is called, its tokens and its layers."""
    rows, keys = trace.part_tokens(part)
    return {
        "label": label,
        "model": str(trace.info.get("model") or ""),
        "provenance": trace.provenance,
        "details": told.details(trace),
        "tokens": keys,
        "query_tokens": rows,
        "kinds": told.kinds(trace, part),
        "layers": [told.layer_facts(trace, layer, part) for layer in with_attention(trace, part)],
        "names": told.names(trace, part),
    }


def names(traces: tuple[Trace, ...]) -> tuple[str, ...]:
    """What each side is called; of two, what tells them apart: model, file, setting, prompt, or its length."""
    if len(traces) == 1:
        return (_name(traces[0]),)
    a, b = traces
    for name in (_name, _file):
        found = name(a), name(b)
        if found[0] != found[1]:
            return found
    settings = [trace.info.get("settings") or {} for trace in traces]
    for key, word in _SETTINGS.items():
        values = [own.get(key) for own in settings]
        if values[0] != values[1]:
            return tuple(f"{word} {value}" for value in values)
    pieces = list(zip(a.token_bytes, b.token_bytes, strict=False))
    parts = next((i for i, (x, y) in enumerate(pieces) if x != y), None)
    if parts is not None:
        return _excerpt(a, parts), _excerpt(b, parts)
    counts = [f"{len(trace.token_bytes)} tokens" for trace in (a, b)]
    return (counts[0], counts[1]) if counts[0] != counts[1] else ("first run", "second run")


def _name(trace: Trace) -> str:
    return " ".join(str(trace.info[key]) for key in ("model", "quant_type") if trace.info.get(key)) or "model"


def _file(trace: Trace) -> str:
    return str(trace.info.get("file") or "")


def _excerpt(trace: Trace, at: int) -> str:
    """The first words of a prompt that are other than in the other one."""
    start = max(0, at - 1)
    text = b"".join(trace.token_bytes[start : start + _EXCERPT]).decode("utf-8", "replace").strip()
    return f"“{'… ' if start else ''}{text} …”"


def sampled(used: int, of: int) -> str:
    """Empty where all query rows were used, else how many."""
    return "" if used in (0, of) else f"from {used} of {of} query tokens, evenly spaced"


def statistics(trace: Trace, part: str) -> Array:
    """float32 (heads, statistics) of all heads of one side."""
    return told.statistics(trace, part)


STATISTIC_NAMES = [name.replace("_", " ").capitalize() for name in STATISTICS]
