"""The picture of a comparison: the map of all heads, and the chosen heads left, right and as a difference.

In: facts, distances or overlaps, two matrices of weights, how it is looked at. Out: a `Picture`; an HTML fragment where
no widget can be.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..analysis.thumbnails import edges
from . import colour
from .picture import MARGIN, Box, Picture, Text, clean

Array = np.ndarray[Any, Any]

_MATRIX = 264  # px of one matrix's side at most
_MAP = 420  # px of the map's width or of the clustered matrix's side at most
_PAPER, _FILL, _RAMP = 0, 1, 2
_LEVELS = 254
_LABELS = 34
_LIST, _LINE = 230, 20  # px: width of the list beside the map, height of its lines
_FEW = 0.1  # share of overlaps that may lie below the low end of their scale
_LOWEST = 1e-3  # of the logarithmic scale of weights

MEASURES = {
    "jensen-shannon": ("Jensen-Shannon divergence", "bits"),
    "total-variation": ("Total variation", "0 to 1"),
}


@dataclass(frozen=True)
class Look:
    """How the comparison is looked at.

    Attributes
    ----------
    theme : {"light", "dark"}
    distance : {"jensen-shannon", "total-variation"}
    scale : {"log", "linear"}
    sink_aside : bool
        Leave the first key out of automatic maxima.
    left, right : (layer, head)
    """

    theme: str
    distance: str
    scale: str
    sink_aside: bool
    left: tuple[int, int]
    right: tuple[int, int]


def draw(
    facts: Mapping[str, Any],
    table: Array,
    matrices: Sequence[Array],
    look: Look,
    subtitle: str,
    rows: Sequence[Sequence[str]] = (),
) -> Picture:
    """Lay out the picture.

    Parameters
    ----------
    facts : mapping
        As the widget sends it to the browser.
    table : float32
        Distances (2, rows, columns), or overlaps (heads, heads) in their clustered order.
    matrices : two of float32 (query tokens, key tokens)
        Weights of the left and of the right head; NaN where a token may not be seen.
    look : Look
    subtitle : str
    rows : sequence of (heads, number, ...)
        What the list beside the map says.
    """
    picture = Picture(3 * _MATRIX + 2 * 24 + 2 * MARGIN, 0, look.theme)
    top = _header(picture, facts, subtitle)
    y = _map(picture, facts, table, look, top)
    if rows:
        y = max(y, _list(picture, facts, rows, look, top))
    picture.height = _matrices(picture, facts, matrices, look, y) + MARGIN
    return picture


def _header(picture: Picture, facts: Mapping[str, Any], subtitle: str) -> int:
    picture.texts.append(Text(MARGIN, 28, facts["title"], 15, "ink", bold=True))
    picture.texts.append(Text(MARGIN + 152, 28, subtitle, 13, "ink2"))
    y = 46
    for side in facts["sides"]:
        picture.texts.append(Text(MARGIN, y, f"● {side['provenance']}", 11, "ink3"))
        y += 16
    for note in facts["notes"]:
        picture.texts.append(Text(MARGIN, y, note, 11, "ink2"))
        y += 16
    return y + 4


def _palette(stops: Mapping[str, list[str]], theme: str) -> Array:
    """uint8 (256, 3): paper, fill, the ramp."""
    page = colour.PAGE[theme]
    levels = colour.ramp(stops[theme])[np.linspace(0, 255, _LEVELS).round().astype(int)]
    return np.concatenate([np.stack([colour.rgb(page["paper"]), colour.rgb(page["fill"])]), levels])


def _shades(values: Array) -> Array:
    """uint8 ramp indices of values from 0 to 1; NaN is plain fill."""
    at = np.round(np.clip(np.nan_to_num(values), 0, 1) * (_LEVELS - 1)) + _RAMP
    return np.where(np.isnan(values), _FILL, at).astype(np.uint8)


# -------------------------------------------------------------------------------- map


def _map(picture: Picture, facts: Mapping[str, Any], table: Array, look: Look, y: int) -> int:
    if facts["mode"] == "heads":
        return _similarity(picture, facts, table, y)
    measure = table[0 if look.distance == "jensen-shannon" else 1]
    name, unit = MEASURES[look.distance]
    _heading(picture, MARGIN, y + 12, name, " · ".join([unit, *([facts["sampled"]] if facts["sampled"] else [])]))
    rows, columns = (int(n) for n in measure.shape)
    room = picture.width - 2 * MARGIN - _LABELS - (_LIST if columns * 2 < _MAP else 0)
    w = max(2, min(26, room // max(columns, 1)))
    h = max(w, min(14, 200 // max(rows, 1)))
    most = _round_up(float(np.nanmax(measure))) if np.isfinite(measure).any() else 1.0
    pixels = _shades(measure / most).repeat(h, 0).repeat(w, 1)
    for size, axis in ((h, 0), (w, 1)):
        if size >= 6:  # a line between cells
            np.moveaxis(pixels, axis, 0)[size - 1 :: size] = _PAPER
    top, left = y + 34, MARGIN + _LABELS
    picture.images.append((left, top, pixels, _palette(colour.SEQUENTIAL, look.theme)))
    across, down = _axes(facts, look)
    for j, label in enumerate(across[:columns]):
        if j % _step(26 / w) == 0:
            picture.texts.append(Text(left + j * w + w / 2, top - 5, label, 10, "ink3", False, "middle"))
    for i, label in enumerate(down[:rows]):
        if i % _step(11 / h) == 0:
            picture.texts.append(Text(left - 6, top + i * h + h / 2 + 4, label, 10, "ink3", False, "end"))
    row, column = _chosen(facts, look)
    picture.boxes.append(Box(left + column * w - 1, top + row * h - 1, w + 1, h + 1, "accent", 2))
    bottom = top + rows * h + 10
    _legend(picture, left, bottom, colour.SEQUENTIAL, ["0", _number(most / 2), _number(most)])
    return bottom + 46


def _step(least: float) -> int:
    """1, 2, 5, 10 …: the first that is at least `least`."""
    found: int = next(k * 10**ten for ten in range(9) for k in (1, 2, 5) if k * 10**ten >= least)
    return found


def _list(picture: Picture, facts: Mapping[str, Any], rows: Sequence[Sequence[str]], look: Look, y: int) -> int:
    """The first pairs of the list, right of the map."""
    x = picture.width - MARGIN - _LIST + 24
    alike, bits = facts["mode"] == "heads", look.distance == "jensen-shannon"
    name, column = ("Most alike", "overlap") if alike else ("Most changed", "JS, bits" if bits else "TV")
    right = picture.width - MARGIN
    picture.texts.append(Text(x, y + 12, name, 12, "ink", bold=True))
    picture.texts.append(Text(right, y + 12, column, 11, "ink3", anchor="end"))
    for at, (heads, *numbers) in enumerate(rows):
        line = y + 34 + at * _LINE
        picture.texts.append(Text(x, line, heads, 12, "ink2"))
        number = numbers[0 if alike or bits else 1]
        picture.texts.append(Text(right, line, number, 12, "ink", anchor="end"))
        picture.boxes.append(Box(x, line + 6, right - x, 1, "fill"))
    return y + 34 + len(rows) * _LINE + 12


def _axes(facts: Mapping[str, Any], look: Look) -> tuple[list[str], list[str]]:
    """Names of the columns and of the rows."""
    if facts["mode"] == "traces":
        most = max((heads for _, heads in facts["layers"]), default=0)
        return [f"L{layer}" for layer, _ in facts["layers"]], [f"H{head}" for head in range(most)]
    counts = []
    for side, chosen in ((facts["sides"][-1], look.right), (facts["sides"][0], look.left)):
        counts.append(next(layer["heads"] for layer in side["layers"] if layer["layer"] == chosen[0]))
    return [f"H{head}" for head in range(counts[0])], [f"H{head}" for head in range(counts[1])]


def _chosen(facts: Mapping[str, Any], look: Look) -> tuple[int, int]:
    """Row and column of the chosen pair in the map."""
    if facts["mode"] == "layers":
        return look.left[1], look.right[1]
    return look.left[1], [layer for layer, _ in facts["layers"]].index(look.left[0])


def _similarity(picture: Picture, facts: Mapping[str, Any], alike: Array, y: int) -> int:
    words = "all heads of the model, like ones side by side" + (f" · {facts['sampled']}" if facts["sampled"] else "")
    _heading(picture, MARGIN, y + 12, "Overlap of attention", words)
    n = len(alike)
    repeat = max(1, _MAP // n)
    cells = alike.repeat(repeat, 0).repeat(repeat, 1) if n <= _MAP else _reduced(alike, _MAP)
    side = len(cells)
    low = min(0.9, float(np.floor(np.quantile(alike, _FEW) * 10) / 10))
    shades = _shades((cells - low) / (1 - low))
    picture.images.append((MARGIN, y + 24, shades, _palette(colour.SEQUENTIAL, picture.theme)))
    ticks = [f"≤ {_number(low)}", _number((low + 1) / 2), "1"]
    _legend(picture, MARGIN, y + 34 + side, colour.SEQUENTIAL, ticks)
    return y + 34 + side + 46


# --------------------------------------------------------------------------- matrices


def _matrices(picture: Picture, facts: Mapping[str, Any], matrices: Sequence[Array], look: Look, y: int) -> int:
    """Left, right and difference; only what goes together where the sides are of different lengths."""
    together = facts["how"] != "nothing"
    rows, keys = facts["rows"], facts["keys"]
    shown = [m[:rows, :keys] for m in matrices] if together else list(matrices)
    sides = (facts["sides"][0], look.left), (facts["sides"][-1], look.right)
    one = len(facts["sides"]) == 1
    titles = [f"L{layer} H{head}" + ("" if one else f" · {side['label']}") for side, (layer, head) in sides]
    bottom = y
    for at, (matrix, title) in enumerate(zip(shown, titles, strict=True)):
        x = MARGIN + at * (_MATRIX + 24)
        _heading(picture, x, y + 12, "AB"[at], title)
        values = np.log10(np.maximum(matrix, 1e-9)) / -np.log10(_LOWEST) + 1 if look.scale == "log" else matrix
        bottom = max(bottom, _put(picture, x, y + 24, values, colour.SEQUENTIAL))
    x = MARGIN + 2 * (_MATRIX + 24)
    if together:
        _heading(picture, x, y + 12, "B − A", "difference of the weights")
        difference = _minus(shown[1], shown[0])
        most = _limit(difference, look.sink_aside)
        bottom = max(bottom, _put(picture, x, y + 24, difference / most / 2 + 0.5, colour.DIVERGING))
        _legend(picture, x, bottom + 10, colour.DIVERGING, [f"−{_number(most)}", "0", f"+{_number(most)}"])
    log = ["≤ 0.001", "0.01", "0.1", "1"]
    _legend(picture, MARGIN, bottom + 10, colour.SEQUENTIAL, log if look.scale == "log" else ["0", "½", "1"])
    return bottom + 46


def _minus(b: Array, a: Array) -> Array:
    """b - a; what only one may see is 0 in the other."""
    return np.asarray(np.where(np.isnan(a) & np.isnan(b), np.nan, np.nan_to_num(b) - np.nan_to_num(a)))


def _put(picture: Picture, x: int, y: int, values: Array, stops: Mapping[str, list[str]]) -> int:
    """A matrix as an image; returns where it ends."""
    most = max(values.shape)
    if most <= _MATRIX:
        cell = min(20, _MATRIX // most)
        values = values.repeat(cell, 0).repeat(cell, 1)
    else:
        values = _reduced(values, _MATRIX, 0.5 if stops is colour.DIVERGING else 0.0)
    picture.images.append((x, y, _shades(values), _palette(stops, picture.theme)))
    picture.boxes.append(Box(x - 1, y - 1, values.shape[1] + 2, values.shape[0] + 2, "line", 1))
    return y + int(values.shape[0])


def _reduced(values: Array, side: int, zero: float = 0.0) -> Array:
    """At most side x side cells, each the value farthest from zero: thin lines are the finding."""
    for axis in (0, 1):
        bounds = edges(values.shape[axis], min(side, values.shape[axis]))[:-1]
        high, low = (f.reduceat(values, bounds, axis=axis) for f in (np.fmax, np.fmin))
        values = np.where(high - zero >= zero - low, high, low)
    return values


def _limit(difference: Array, sink_aside: bool) -> float:
    """The end of the symmetric scale."""
    inner = difference[:, 1:] if sink_aside and difference.shape[1] > 1 else difference
    found = [float(np.fmax.reduce(np.abs(x), axis=None, initial=0)) for x in (inner, difference)]
    return _round_up(found[0] or found[1])


def _round_up(value: float) -> float:
    """The first of 1, 2, 5, 10 … times a power of ten that is at least `value`; 1 where that is 0."""
    if not value > 0:
        return 1.0
    ten = 10.0 ** np.floor(np.log10(value))
    return float(next(step for step in (1 * ten, 2 * ten, 5 * ten, 10 * ten) if step >= value * (1 - 1e-6)))


def _number(value: float) -> str:
    return f"{value:.3g}"


def _heading(picture: Picture, x: int, y: int, name: str, words: str) -> None:
    picture.texts.append(Text(x, y, name, 12, "ink", bold=True))
    picture.texts.append(Text(x + 12 + 7.4 * len(name), y, words, 11, "ink3"))


def _legend(picture: Picture, x: int, y: int, stops: Mapping[str, list[str]], ticks: Sequence[str]) -> None:
    width = 190
    ramp = np.linspace(_RAMP, _RAMP + _LEVELS - 1, width).round().astype(np.uint8)
    picture.images.append((x, y, np.tile(ramp, (8, 1)), _palette(stops, picture.theme)))
    picture.boxes.append(Box(x, y, width, 8, "line", 1))
    for i, tick in enumerate(ticks):
        anchor = "start" if i == 0 else "end" if i == len(ticks) - 1 else "middle"
        picture.texts.append(Text(x + width * i / (len(ticks) - 1), y + 20, tick, 10, "ink3", False, anchor))


# --------------------------------------------------------------------------- fragment


def fallback(facts: Mapping[str, Any], picture: str, name: str, rows: Sequence[Sequence[str]], why: str = "") -> str:
    """Picture and list as an HTML fragment without scripts; `why` is one line on why this is no live widget."""
    source = base64.b64encode(picture.encode()).decode()
    image = f'<img alt="{_text(name)}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    words = "".join(f"<p>{_text(line)}</p>" for line in (why, *facts["notes"]) if line)
    columns = ("Head", "Overlap") if facts["mode"] == "heads" else ("Head", "Jensen-Shannon", "Total variation")
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    return f"<div>{words}{image}<p>{_text(name)}</p>{table}</div>"


def _text(text: str) -> str:
    return escape(clean(str(text)))
