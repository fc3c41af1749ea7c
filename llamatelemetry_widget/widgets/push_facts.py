"""The push of every part of a model on one word: direct logit attribution, as it travels to the browser.

In: a `Trace`, a token, a word or two. Out: plain JSON and a table layers x heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..trace import Trace

Array = np.ndarray[Any, Any]

#: Parts that belong to no layer, in the order in which they are named.
WHOLE = ("embedding", "bias", "rounding")


@dataclass(frozen=True)
class Push:
    """One attribution.

    Attributes
    ----------
    facts : dict
        ``position``, ``word``, ``against`` (ids or None), per layer ``attention`` (or what stands in its place) and
        ``mlp`` (None = no such part),
        ``embedding``, ``bias`` and ``rounding``, their ``sum``, the model's ``logit``, ``note``.
    heads : float32 (layers, heads)
        NaN where a layer has no such head.
    """

    facts: dict[str, Any]
    heads: Array


def read_push(trace: Trace, layers: Sequence[int], position: int, word: int, against: int | None) -> Push:
    """Ask the trace for the push on a word after a token, or on the difference of two words."""
    found = trace.contributions(token=word, position=position, against=against)
    parts = found.parts
    facts: dict[str, Any] = {"position": position, "word": word, "against": against}
    for name in WHOLE:
        own = parts.loc[parts["part"] == name, "logit"]
        facts[name] = float(own.sum()) if len(own) else None
    heads, attention = (
        _heads(parts, layers),
        _per_layer(parts, layers, ("attention", "head", "recurrence", "convolution")),
    )
    facts["attention"], facts["mlp"] = attention, _per_layer(parts, layers, ("mlp",))
    facts |= {"sum": float(found.sum), "logit": float(found.logit), "note": str(found.note or "")}
    return Push(facts, heads)


def _per_layer(parts: pd.DataFrame, layers: Sequence[int], kinds: tuple[str, ...]) -> list[float | None]:
    own = parts[parts["part"].isin(kinds)].groupby("layer")["logit"].sum()
    return [float(own[layer]) if layer in own.index else None for layer in layers]


def _heads(parts: pd.DataFrame, layers: Sequence[int]) -> Array:
    own = parts[parts["part"] == "head"]
    place = {layer: at for at, layer in enumerate(layers)}
    count = int(own["head"].max()) + 1 if len(own) else 0
    out = np.full((len(layers), count), np.nan, np.float32)
    for layer, head, logit in zip(own["layer"], own["head"], own["logit"], strict=True):
        if int(layer) in place:
            out[place[int(layer)], int(head)] = logit
    return out
