"""Colours of the house, in Python: two colour scales, the page's colours, and the way from weights to places on a ramp.

In: a theme's name, thumbnail codes. Out: RGB tables and ramp places 0 (paper) to 255. The frontend has the same in
`js/src/shared/colour.ts` and `js/src/attention_grid/scale.ts`; a test keeps both equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.attention import decode_thumbnail

Array = np.ndarray[Any, Any]

THEMES = ("light", "dark")

#: Probability, attention: equal steps of lightness, the first stop is paper.
SEQUENTIAL = {
    "light": ["#f3f7f6", "#d3eee0", "#8bdab2", "#40b7ad", "#348fa7", "#37659e", "#413d7b", "#2e1e3b", "#160d1e"],
    "dark": ["#1b1e25", "#2c2446", "#413d7b", "#37659e", "#348fa7", "#40b7ad", "#8bdab2", "#def5e5", "#fbfff8"],
}

#: Scores, differences: always symmetric about 0, the middle is paper.
DIVERGING = {
    "light": ["#0c3c78", "#2b6cb0", "#6fa8d6", "#c3dcec", "#f5f5f3", "#f6d2c3", "#e59078", "#c2452f", "#7d1717"],
    "dark": ["#8cc4ff", "#4f92d6", "#2d5f94", "#22384f", "#1f2329", "#50302c", "#93473c", "#d8705f", "#ffab98"],
}

#: Quant types by their bits: light, dark.
QUANT = {
    2: ("#5e2a72", "#a06cc0"),
    3: ("#a8437c", "#d271a8"),
    4: ("#e58488", "#f2a0a0"),
    5: ("#efd183", "#f0d98f"),
    6: ("#7fc4bd", "#8fd6cc"),
    8: ("#2f8bb0", "#4fa9d6"),
    16: ("#2f5597", "#7d9ae0"),
    32: ("#9aa2ac", "#8a929d"),
}

#: Groups, at most eight: light, dark. What belongs to no group is grey.
GROUPS = (
    ("#1570b8", "#6cb2f0"),
    ("#b07d00", "#e0b64a"),
    ("#158a5c", "#4fc795"),
    ("#c43c94", "#f07cc4"),
    ("#6e4fcf", "#a993ff"),
    ("#84532a", "#c9996b"),
    ("#568a0e", "#a3cf5a"),
    ("#128c99", "#4cc7d4"),
)

#: The page: paper, fill, line, three inks, accent; attention against MLP.
PAGE = {
    "light": {
        "paper": "#ffffff",
        "fill": "#f4f6f8",
        "line": "#c3cad2",
        "ink": "#171b21",
        "ink2": "#454d57",
        "ink3": "#68727e",
        "accent": "#d4540a",
        "attention": "#2f6fb3",
        "mlp": "#8b5a9e",
    },
    "dark": {
        "paper": "#14171b",
        "fill": "#1c2025",
        "line": "#464e58",
        "ink": "#eceff2",
        "ink2": "#bac2cb",
        "ink3": "#8c96a2",
        "accent": "#ffa336",
        "attention": "#7db8f0",
        "mlp": "#cf9fe0",
    },
}

DIMMED = 0.36  # opacity of what a filter leaves out: position is memory, so it stays visible
_DECADES = 3  # the logarithmic scale shows 0.001 to 1


def rgb(colour: str) -> Array:
    """uint8 (3,) of ``"#rrggbb"``."""
    return np.frombuffer(bytes.fromhex(colour.removeprefix("#")), np.uint8)


def ramp(stops: list[str]) -> Array:
    """uint8 (256, 3): linear between the stops."""
    table = np.stack([rgb(stop) for stop in stops]).astype(np.float64)
    at = np.linspace(0, len(stops) - 1, 256)
    low = np.minimum(at.astype(int), len(stops) - 2)
    mixed = table[low] + (table[low + 1] - table[low]) * (at - low)[:, None]
    out: Array = np.floor(mixed + 0.5).astype(np.uint8)  # as JavaScript rounds
    return out


def mix(table: Array, paper: str, share: float) -> Array:
    """uint8, like `table`: `share` of the colour, the rest paper."""
    mixed: Array = np.floor(rgb(paper) + (table.astype(np.float64) - rgb(paper)) * share + 0.5).astype(np.uint8)
    return mixed


def places(codes: Array, scale: str, sink_aside: bool) -> Array:
    """Ramp places of thumbnails.

    Parameters
    ----------
    codes : uint8 (heads, rows, keys)
    scale : {"log", "linear", "row"}
        ``log`` shows 0.001 to 1; ``linear`` 0 to the largest weight; ``row`` divides each row by its largest.
    sink_aside : bool
        Leave the first key token out of the largest weight of ``linear``.

    Returns
    -------
    uint8 (heads, rows, keys)
        0 is paper.
    """
    weights: Array = decode_thumbnail(codes)
    if scale == "log":
        with np.errstate(divide="ignore"):
            shown = np.log10(weights) / _DECADES + 1
    else:
        shown = weights / _largest(weights, scale, sink_aside)
    out: Array = np.floor(np.clip(np.nan_to_num(shown, neginf=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)
    return out


def _largest(weights: Array, scale: str, sink_aside: bool) -> Array:
    """The weight that gets the strongest colour, per row or per head; 1 where there is none."""
    others = weights[:, :, 1:]
    if scale == "row":
        most = others.max(-1, keepdims=True, initial=0)
        most = np.where(most > 0, most, weights[:, :, :1])
    elif sink_aside:
        most = others.max((1, 2), keepdims=True, initial=0)
    else:
        return np.ones((len(weights), 1, 1), np.float32)
    return np.asarray(np.where(most > 0, most, np.float32(1)))
