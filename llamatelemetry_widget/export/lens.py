"""The picture of a layer lens, and the HTML that stands where no widget can be drawn.

In: the facts, the lens and the strips that the widget sends to its browser side. Out: a `Picture`, an HTML fragment.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from . import colour
from .picture import MARGIN, Box, Picture, Text, clean, plural, svg

Array = np.ndarray[Any, Any]

GUTTER, CELL, ROW = 44, 78, 22  # px: row labels, a cell of the table
_LEFT = 150  # px: names of the strips
_READABLE = 0.625  # of the ramp: as far as text on it stays readable
_MOST_ROWS = 18
_ATTENTION, _MLP = {"light": "#2f6fb3", "dark": "#7db8f0"}, {"light": "#8b5a9e", "dark": "#cf9fe0"}
_MINUS = "\u2212"


def subtitle(facts: Mapping[str, Any]) -> str:
    """``30 layers × 24 tokens``."""
    return f"{plural(len(facts['layers']), 'layer')} × {plural(len(facts['tokens']), 'token')}"


def shown_rows(rows: Sequence[int], every: int | None, locked: int | None) -> list[int]:
    """Layers that get a row: from the output down, the embedding last, the locked one always."""
    layers = [row for row in rows if row >= 0][::-1]
    step = every or next((n for n in (1, 2) if len(layers) / n <= _MOST_ROWS), 4)
    return [row for i, row in enumerate(layers) if i % step == 0 or row == locked] + [r for r in rows if r < 0]


def row_name(row: int) -> str:
    """``L17``, or ``emb`` for what the first layer starts from."""
    return "emb" if row < 0 else f"L{row}"


def draw(
    facts: Mapping[str, Any],
    reading: Any,
    positions: Sequence[int],
    streams: Array,
    push: Mapping[str, Any],
    theme: str,
    locked: tuple[int | None, int | None],
    every: int | None,
) -> Picture:
    """Lay out the picture.

    Parameters
    ----------
    facts : mapping
    reading : Reading
        Holds the lens of `positions`.
    positions : sequence of int
        Tokens of the table.
    streams : float32 (measures, layers)
    push : mapping
        The contributions, or empty.
    theme : {"light", "dark"}
    locked : (row or None, token or None)
    every : int or None
        As the trait.
    """
    width = max(1000, 2 * MARGIN + GUTTER + CELL * len(positions), 60 + 7 * len(facts["provenance"]))
    picture = Picture(width, 0, theme)
    picture.texts += [
        Text(MARGIN, 28, facts["title"], 15, "ink", bold=True),
        Text(MARGIN + 16 + 8.5 * len(facts["title"]), 28, subtitle(facts), 13, "ink2"),
        Text(MARGIN, 48, f"● {facts['provenance']}", 11, "ink3"),
    ]
    if facts["message"]:
        picture.texts.append(Text(MARGIN, 76, facts["message"], 13, "ink2"))
        picture.height = 92
        return picture
    y = 68
    if len(positions):
        y = _table(picture, facts, reading, positions, locked, every, y)
    else:
        picture.texts.append(Text(MARGIN, y + 10, "The lens was not read: it needs the model.", 12, "ink2"))
        y += 30
    picture.height = _strips(picture, facts, streams, push, locked[0], y + 8) + MARGIN
    return picture


def _table(
    picture: Picture,
    facts: Mapping[str, Any],
    reading: Any,
    positions: Sequence[int],
    locked: tuple[int | None, int | None],
    every: int | None,
    top: int,
) -> int:
    """The cells, their words, the outlines and the legend; returns where they end."""
    rows, ramp = shown_rows(reading.layers, every, locked[0]), colour.ramp(colour.SEQUENTIAL[picture.theme])
    ids, probabilities, *_, final = reading.arrays(positions)
    left, first = MARGIN + GUTTER, top + 34
    picture.texts.append(Text(MARGIN, top + 10, "Logit lens", 12, "ink", bold=True))
    picture.texts.append(Text(MARGIN + 78, top + 10, "most likely next token if the model stopped here", 12, "ink3"))
    paper = colour.rgb(colour.PAGE[picture.theme]["paper"])
    cells = np.zeros((len(rows) * ROW, len(positions) * CELL), np.uint8)
    for i, row in enumerate(rows):
        at, y = reading.layers.index(row), first + i * ROW
        mine = row == locked[0]
        shade = "accent" if mine else "ink3"
        picture.texts.append(Text(left - 8, y + 15, row_name(row), 11, shade, mine, "end"))
        for j in range(len(positions)):
            place = round(float(np.clip(probabilities[j, at, 0], 0, 1)) * _READABLE * 255)
            cells[i * ROW : (i + 1) * ROW - 1, j * CELL : (j + 1) * CELL - 1] = place + 1
            word, x = reading.words[int(ids[j, at, 0])], left + j * CELL
            ink = _ink(ramp[place], picture.theme)
            picture.texts.append(Text(x + CELL / 2, y + 15, _short(word, 10), 11, ink, False, "middle"))
            if i > 0 and ids[j, at, 0] == final[j]:
                picture.boxes.append(Box(x + 1.5, y + 1.5, CELL - 4, ROW - 4, ink, 1))
            if mine and positions[j] == locked[1]:
                picture.boxes.append(Box(x - 2, y - 2, CELL + 3, ROW + 3, "accent", 2))
    for j, position in enumerate(positions):
        mine = position == locked[1]
        word = _short(facts["tokens"][position], 10)
        shade = "accent" if mine else "ink"
        picture.texts.append(Text(left + j * CELL + CELL / 2, first - 8, word, 11, shade, mine, "middle"))
    picture.images.append((left, first, cells, np.concatenate([paper[None], ramp[:255]])))
    picture.boxes.append(Box(left, first + ROW - 1, len(positions) * CELL - 1, 1, "ink"))
    y = first + len(rows) * ROW + 10
    bar = np.tile(np.round(np.linspace(0, _READABLE * 255, 160)).astype(np.uint8), (8, 1))
    picture.images.append((left, y, bar, ramp))
    picture.boxes.append(Box(left, y, 160, 8, "line", 1))
    for place, tick, anchor in ((0, "0", "start"), (80, "0.5", "middle"), (160, "1", "end")):
        picture.texts.append(Text(left + place, y + 20, tick, 10, "ink3", False, anchor))
    words = "probability of the shown token; outlined = already the model's final answer for that token"
    picture.texts.append(Text(left + 176, y + 8, words, 11, "ink2"))
    return y + 30


def _ink(shade: Array, theme: str) -> str:
    """The colour of the page that is read better on this one."""
    own = [_contrast(shade, colour.rgb(colour.PAGE[theme][name])) for name in ("ink", "paper")]
    return "ink" if own[0] >= own[1] else "paper"


def _contrast(a: Array, b: Array) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(shade: Array) -> float:
    x = np.asarray(shade, np.float64) / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _short(word: str, most: int) -> str:
    return word if len(word) <= most else word[: most - 1] + "…"


def signed(value: float) -> str:
    """``+4.9``, ``−0.3``."""
    return ("+" if value >= 0 else _MINUS) + f"{abs(value):.1f}"


def _strips(
    picture: Picture, facts: Mapping[str, Any], streams: Array, push: Mapping[str, Any], locked: int | None, top: int
) -> int:
    """The strips over one axis of layers; returns where they end."""
    layers = [layer["layer"] for layer in facts["layers"]]
    if not layers:
        return top
    step = (picture.width - 2 * MARGIN - _LEFT) / len(layers)
    left, y = MARGIN + _LEFT, top + 34
    picture.texts.append(Text(MARGIN, top + 10, "Through the layers", 12, "ink", bold=True))
    each = max(1, math.ceil(30 / step))
    for i, layer in enumerate(layers):
        if layer == locked or i % each == 0:
            mine = layer == locked
            shade = "accent" if mine else "ink3"
            picture.texts.append(Text(left + (i + 0.5) * step, y - 8, f"L{layer}", 10, shade, mine, "middle"))
    if push:
        pairs = np.array([[_or_nan(x) for x in push[name]] for name in ("attention", "mlp")])
        title = f"Push on {_short(push['texts']['word'], 12)}"
        if push["texts"]["against"]:
            title += f" − {_short(push['texts']['against'], 12)}"
        y = _pairs(picture, pairs, (title, "in logits, after " + _after(facts, push)), (left, y, step, 76), signed)
    names = facts["measures"]
    written = streams[[names.index("attention"), names.index("mlp")]]
    place = (left, y, step, 50)
    y = _pairs(picture, written, ("Written per layer", "norm, median of tokens"), place, None)
    y = _line(picture, streams[names.index("residual")], "Residual norm", (left, y, step, 34), True)
    y = _line(picture, streams[names.index("cosine")], "Cosine to the layer before", (left, y, step, 34), False)
    if facts["times"]:
        own = np.array([[_or_nan(x) for x in facts["times"]["ms"]]])
        words = f"median of {facts['times']['repeats']}, up to {np.nanmax(own):.1f} ms"
        y = _pairs(picture, own, ("Time per layer", words), (left, y, step, 34), None)
    _key(picture, y + 10, " or ".join(sorted({layer["mixer"] for layer in facts["layers"]})))
    return y + 26


def _key(picture: Picture, y: int, mixers: str) -> None:
    x = MARGIN
    for name, shade in ((mixers, _ATTENTION), ("MLP", _MLP)):
        own = np.stack([colour.rgb(shade[picture.theme])])
        picture.images.append((x, y, np.zeros((9, 9), np.uint8), own))
        picture.texts.append(Text(x + 14, y + 9, name, 11, "ink2"))
        x += 26 + 7 * len(name)
    picture.texts.append(Text(x + 6, y + 9, "first token left out of medians (it is the sink)", 11, "ink3"))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _after(facts: Mapping[str, Any], push: Mapping[str, Any]) -> str:
    return _short(facts["tokens"][push["position"]], 12)


def _pairs(picture: Picture, values: Array, name: tuple[str, str], at: tuple[int, int, float, int], words: Any) -> int:
    """Bars from a zero line, one or two per layer; the greatest two are named where `words` says how."""
    left, top, step, tall = at
    kinds, n = values.shape
    known = np.nan_to_num(values)
    high, low = max(float(known.max(initial=0)), 0.0), min(float(known.min(initial=0)), 0.0)
    span = max(high - low, 1e-12)
    zero = round(high / span * tall)
    width = round(n * step)
    pixels = np.zeros((tall + 1, width), np.uint8)
    bar = max(1, min(14, int(step * 0.72 / kinds)))
    for i in range(n):
        for kind in range(kinds):
            x = round((i + 0.5) * step + (kind - kinds / 2) * (bar + 0.5))
            end = zero - round(known[kind, i] / span * tall)
            a, b = sorted((zero, end))
            pixels[a : max(b, a + (values[kind, i] == values[kind, i])), x : x + bar] = 2 + kind
    pixels[zero, :][pixels[zero, :] == 0] = 1
    page = colour.PAGE[picture.theme]
    tones = [page["paper"], page["line"], _ATTENTION[picture.theme], _MLP[picture.theme]]
    if kinds == 1:
        tones[2] = page["line"]
    top += 14
    picture.images.append((left, top, pixels, np.stack([colour.rgb(tone) for tone in tones])))
    picture.texts.append(Text(MARGIN, top + tall / 2, name[0], 12, "ink", bold=True))
    picture.texts.append(Text(MARGIN, top + tall / 2 + 15, name[1], 10, "ink3"))
    if words is not None:
        for place in np.argsort(-np.abs(known), axis=None)[:2]:
            kind, i = divmod(int(place), n)
            y = top + zero - known[kind, i] / span * tall - 4
            picture.texts.append(Text(left + (i + 0.5) * step, y, words(known[kind, i]), 10, "ink", True, "middle"))
    return int(top + tall + 12)


def _line(picture: Picture, values: Array, name: str, at: tuple[int, int, float, int], log: bool) -> int:
    """One line through the layers; what was not captured leaves a gap."""
    left, top, step, tall = at
    shown = np.log10(np.maximum(values, 1e-9)) if log else values
    known = np.isfinite(shown)
    pixels = np.zeros((tall, round(len(values) * step)), np.uint8)
    words = "not captured"
    if known.any():
        low, high = float(shown[known].min()), float(shown[known].max())
        first, last = values[known][0], values[known][-1]
        words = f"{first:.3g} → {last:.3g}" + (", log" if log else "")
        centres = (np.arange(len(values)) + 0.5) * step
        along = np.arange(pixels.shape[1])
        inside = (along >= centres[known][0]) & (along <= centres[known][-1])
        height = np.interp(along, centres[known], shown[known])
        rows = np.round((1 - (height - low) / max(high - low, 1e-12)) * (tall - 3)).astype(int)
        for x in along[inside]:
            before = rows[x - 1] if x > 0 and inside[x - 1] else rows[x]
            a, b = sorted((rows[x], before))
            pixels[a : b + 2, x] = 1
    page = colour.PAGE[picture.theme]
    picture.images.append((left, top + 6, pixels, np.stack([colour.rgb(page[n]) for n in ("paper", "ink2")])))
    picture.texts.append(Text(MARGIN, top + tall / 2 + 2, name, 12, "ink", bold=True))
    picture.texts.append(Text(MARGIN, top + tall / 2 + 17, words, 10, "ink3"))
    return int(top + tall + 14)


def fallback(facts: Mapping[str, Any], picture: Picture, why: str) -> str:
    """The fragment: the picture and its name.

    Parameters
    ----------
    facts : mapping
    picture : Picture
        As `draw` laid it out.
    why : str
        One line on why this is no live widget; empty where it only stands in.
    """
    name = f"{facts['title']}: {subtitle(facts)} · {facts['provenance']}"
    lines = "".join(f"<p>{_text(line)}</p>" for line in (why, facts["message"]) if line)
    if facts["message"]:
        return f"<div>{lines}<p>{_text(name)}</p></div>"
    source = base64.b64encode(svg(picture, name).encode()).decode()
    shown = f'<img alt="{_text(name)}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    return f"<div>{lines}{shown}<p>{_text(name)}</p></div>"


def _text(text: str) -> str:
    return escape(clean(str(text)))
