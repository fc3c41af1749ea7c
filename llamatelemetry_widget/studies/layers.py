"""Where in the model two files part: the residual stream after each layer and the attention of each head.

In: traces of the same tokens by the base and by a candidate. Out: one number per layer and per head.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..analysis.compare import compare
from ..engine.cpu import usable_threads
from ..errors import CaptureUnavailable
from ..model import Model, What
from ..trace import Trace

Floats = NDArray[np.float32]
SAMPLE = 256  # tokens that are traced
_LOGIT_BYTES = 128_000_000  # of the trace: only with all logits does the last layer's stream come for all rows
_WHAT: tuple[What, ...] = ("attention", "hidden")


@dataclass(frozen=True, eq=False)
class LayerDrift:
    """How far a candidate is from its base, by layer and head.

    Attributes
    ----------
    layers : list of int
    stream : float32 (layers,)
        ||h - h0|| / ||h0|| of the residual stream after the layer, median over tokens.
    heads : float32 (layers, heads)
        Total variation of the attention (0 the same, 1 nothing in common), mean over tokens; NaN where there is none.
    """

    layers: list[int]
    stream: Floats
    heads: Floats


def sample(model: Model, ids: list[int], kv_type: str) -> Trace:
    """A trace of the first tokens, with what `drift` reads."""
    words = model.info.vocab_size or 1
    own = ids[: max(32, min(SAMPLE, _LOGIT_BYTES // (4 * words)))]
    return model.trace(own, capture=_WHAT, logits="all", kv_type=kv_type, progress=False)


def drift(base: Trace, other: Trace) -> LayerDrift:
    """Compare two traces of the same tokens.

    Raises
    ------
    CaptureUnavailable
        The models have other layers.
    """
    ours, theirs = ([own.layer for own in trace.layers] for trace in (base, other))
    if ours != theirs:
        raise CaptureUnavailable(
            f"the two have {len(ours)} and {len(theirs)} layers: nothing to compare layer by layer"
        )
    most = max((own.heads for own in base.layers), default=0)
    heads = np.full((len(ours), most), np.nan, np.float32)
    for row, (own, their) in enumerate(zip(base.layers, other.layers, strict=True)):
        if own.heads and own.heads == their.heads:
            found = compare(base.scoring(own.layer), other.scoring(own.layer), threads=usable_threads())
            heads[row, : own.heads] = found.tv
    return LayerDrift(ours, np.array([_moved(base, other, layer) for layer in ours], np.float32), heads)


def _moved(base: Trace, other: Trace, layer: int) -> float:
    a, b = (np.asarray(trace.hidden(layer), np.float64) for trace in (base, other))
    if a.shape != b.shape:
        return float("nan")
    length = np.linalg.norm(a, axis=1)
    moved = np.linalg.norm(b - a, axis=1)
    return float(np.median(moved[length > 0] / length[length > 0])) if (length > 0).any() else float("nan")
