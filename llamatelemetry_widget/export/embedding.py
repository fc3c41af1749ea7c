"""The picture of an embedding space: the cloud from its front, labels, legend, provenance; and its plain HTML.

In: facts, quantised points, groups or a column. Out: a `Picture`, an HTML fragment without scripts.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from . import colour
from .picture import MARGIN, Box, Picture, Text, clean, svg

Array = np.ndarray[Any, Any]

WIDTH, HEIGHT = 880, 620  # px of the plate
_GREYS, _RAMP = 24, 64
_UNPLACED = 65535
_LABEL = 13


def draw(
    facts: Mapping[str, Any],
    positions: Array,
    labels: Array,
    theme: str,
    color: str,
    column: tuple[Array, list[str]] | None,
    marked: Sequence[tuple[int, str]],
) -> Picture:
    """Lay out the picture.

    Parameters
    ----------
    facts : mapping
        As the widget sends it to the browser.
    positions : uint16 (n, 3)
    labels : int16 (n,)
    theme : {"light", "dark"}
    color : str
        The column that colours the points; ``"cluster"`` takes `labels`.
    column : (values, names) or None
        As `embedding_facts.column` gives it; None for groups.
    marked : sequence of (row, text)
        The locked token, then its neighbours.
    """
    picture = Picture(WIDTH + 2 * MARGIN, 0, theme)
    picture.texts.append(Text(MARGIN, 28, facts["title"], 15, "ink", bold=True))
    picture.texts.append(Text(MARGIN + 16 + 8.5 * len(facts["title"]), 28, facts["subtitle"], 13, "ink2"))
    picture.texts.append(Text(MARGIN, 48, f"● {facts['provenance']}", 11, "ink3"))
    top = 60
    x, y, frame = _front(positions)
    palette = _palette(theme)
    values, legend = _values(facts, labels, color, column)
    picture.images.append((MARGIN, top, _splat(x, y, values), palette))
    taken: list[tuple[float, float, float, float]] = []
    _marks(picture, x, y, marked, top, taken)
    if color == "cluster":
        _names(picture, facts, frame, top, taken)
    picture.texts.append(Text(MARGIN + WIDTH - 12, top + HEIGHT - 12, advice(facts), 11, "ink3", anchor="end"))
    picture.height = _legend(picture, legend, palette, top + HEIGHT + 22) + 16
    return picture


def point_colours(
    facts: Mapping[str, Any], labels: Array, theme: str, color: str, column: tuple[Array, list[str]] | None
) -> Array:
    """uint8 (n, 3): the colour of each point, as `draw` has it; a point without a hue is grey."""
    palette = _palette(theme)
    palette[0] = colour.rgb(colour.PAGE[theme]["ink3"])
    values, _ = _values(facts, labels, color, column)
    return palette[values]


def advice(facts: Mapping[str, Any]) -> str:
    """How far the picture can be trusted, in one line."""
    trust = facts["trustworthiness"]
    rows = facts["quality_rows"]
    if trust is None:
        few = "too few points to measure how far to trust the picture"
        return few if rows == 0 else "trustworthiness not measured: trust the list"
    kept = facts["neighbours_kept"]
    share = "" if kept is None else f", {kept:.0%} of neighbours kept".replace("%", "\u202f%")
    estimated = rows < facts["n_points"] - facts["unplaced"]
    source = f" (estimated from {rows} tokens)" if estimated else ""
    return f"trustworthiness {trust:.2f}{share}{source}: trust the list for distances"


def _front(positions: Array) -> tuple[Array, Array, Array]:
    """Pixels of all points, -1 where there is none, and what turns a coordinate into one."""
    good = (positions != _UNPLACED).all(1)
    flat = positions[:, :2].astype(np.float64) / (_UNPLACED - 1)
    flat[:, 1] = 1 - flat[:, 1]
    placed = flat[good] if good.any() else np.zeros((1, 2))
    low, high = np.quantile(placed, (0.001, 0.999), axis=0)
    span = np.maximum(high - low, 1e-3)
    scale = float(min((WIDTH - 48) / span[0], (HEIGHT - 48) / span[1]))
    start = np.array([WIDTH, HEIGHT]) / 2 - (low + high) / 2 * scale
    pixels = np.floor(flat * scale + start).astype(np.int64)
    inside = good & (pixels >= 1).all(1) & (pixels[:, 0] < WIDTH - 1) & (pixels[:, 1] < HEIGHT - 1)
    pixels[~inside] = -1
    return pixels[:, 0], pixels[:, 1], np.array([scale, *start])


def _palette(theme: str) -> Array:
    """uint8 (n, 3): plate, greys, hues, ramp."""
    page = colour.PAGE[theme]
    ink, fill = colour.rgb(page["ink3"]).astype(np.float64), colour.rgb(page["fill"])
    shares = np.linspace(0.28, 1, _GREYS)[:, None]
    greys = (fill + (ink - fill) * shares).astype(np.uint8)
    hues = np.stack([colour.rgb(pair[theme == "dark"]) for pair in colour.GROUPS])
    steps = np.linspace(40, 255, _RAMP).astype(int)
    return np.concatenate([fill[None], greys, hues, colour.ramp(colour.SEQUENTIAL[theme])[steps]])


def _values(
    facts: Mapping[str, Any], labels: Array, color: str, column: tuple[Array, list[str]] | None
) -> tuple[Array, Any]:
    """Palette index of each point (0 = grey), and what the legend holds."""
    first = 1 + _GREYS
    if column is None:
        hue = np.full(int(labels.max(initial=-1)) + 2, 0)
        for group in facts["clusters"]:
            if group["hue"] is not None:
                hue[group["label"]] = first + group["hue"]
        hue[-1] = 0
        named = [
            (group["hue"], group["name"], group["count"]) for group in facts["clusters"] if group["hue"] is not None
        ]
        return hue[labels], named
    values, names = column
    if names:
        counts = np.bincount(values, minlength=len(names))
        hues = len(colour.GROUPS)
        listed = [(i, name, int(counts[i])) for i, name in enumerate(names[:hues])]
        return np.where(values < hues, first + values.astype(np.int64), 0), listed
    known = np.isfinite(values)
    low, high = np.quantile(values[known], (0.01, 0.99)).tolist() if known.any() else (0.0, 1.0)
    share = np.clip((np.nan_to_num(values) - low) / ((high - low) or 1), 0, 1)
    place = first + len(colour.GROUPS) + np.rint(share * (_RAMP - 1)).astype(np.int64)
    label = next((own["label"] for own in facts["columns"] if own["name"] == color), color)
    unit = next((own["unit"] for own in facts["columns"] if own["name"] == color), "")
    return np.where(known, place, 0), (low, high, f"{label}{f', {unit}' if unit else ''}; 98\u202f% lie between")


def _splat(x: Array, y: Array, values: Array) -> Array:
    """uint8 (HEIGHT, WIDTH): grey where points lie, by their number, coloured ones on top."""
    out = np.zeros((HEIGHT, WIDTH), np.uint8)
    grey = (values == 0) & (x >= 0)
    counts = np.zeros((HEIGHT, WIDTH))
    np.add.at(counts, (y[grey], x[grey]), 1)
    some = counts > 0
    level = np.minimum(np.log2(counts[some]) * 5, _GREYS - 1).astype(np.uint8)
    out[some] = 1 + level
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        on = (values > 0) & (x >= 0)
        out[y[on] + dy, x[on] + dx] = values[on]
    return out


def _room(text: str, size: int) -> float:
    return 0.58 * size * len(text)


def _free(box: tuple[float, float, float, float], taken: list[tuple[float, float, float, float]]) -> bool:
    left, top, right, bottom = box
    if left < 4 or right > WIDTH - 4 or top < 4 or bottom > HEIGHT - 24:
        return False
    return all(right < a or c < left or bottom < b or d < top for a, b, c, d in taken)


def _names(picture: Picture, facts: Mapping[str, Any], frame: Array, top: int, taken: list[Any]) -> None:
    low, high = np.array(facts["low"]), np.array(facts["high"])
    for group in sorted(facts["clusters"], key=lambda own: (own["hue"] is None, own["level"])):
        if group["level"] > 1:
            break
        at = (np.array(group["at"]) - low) / (high - low)
        x, y = at[0] * frame[0] + frame[1], (1 - at[1]) * frame[0] + frame[2]
        half = _room(group["name"], _LABEL) / 2
        box = (x - half, y - 20, x + half, y - 4)
        if _free(box, taken):
            taken.append(box)
            bold = group["hue"] is not None
            shade = "ink" if bold else "ink2"
            picture.texts.append(Text(MARGIN + x, top + y - 7, group["name"], _LABEL - 1, shade, bold, "middle"))


def _marks(picture: Picture, x: Array, y: Array, marked: Sequence[tuple[int, str]], top: int, taken: list[Any]) -> None:
    for place, (row, text) in enumerate(marked):
        if x[row] < 0:
            continue
        own = (float(x[row]), float(y[row]))
        size = 4 if place else 7
        picture.boxes.append(Box(MARGIN + own[0] - size / 2, top + own[1] - size / 2, size, size, "accent"))
        box = (own[0] + 6, own[1] - 8, own[0] + 8 + _room(text, 12), own[1] + 6)
        if _free(box, taken):
            taken.append(box)
            picture.texts.append(Text(MARGIN + own[0] + 8, top + own[1] + 4, text, 12, "accent", place == 0))


def _legend(picture: Picture, legend: Any, palette: Array, top: float) -> int:
    first = 1 + _GREYS
    if isinstance(legend, tuple):
        low, high, words = legend
        start = first + len(colour.GROUPS)
        ramp = np.tile(np.arange(start, start + _RAMP, dtype=np.uint8).repeat(3), (10, 1))
        picture.images.append((MARGIN, int(top), ramp, palette))
        picture.texts.append(Text(MARGIN, top + 24, f"{low:.4g}", 10, "ink3"))
        picture.texts.append(Text(MARGIN + 3 * _RAMP, top + 24, f"{high:.4g}", 10, "ink3", anchor="end"))
        picture.texts.append(Text(MARGIN + 3 * _RAMP + 14, top + 9, words, 11, "ink2"))
        return int(top + 30)
    x, y = float(MARGIN), top
    for hue, name, count in legend:
        words = f"{name} {count}"
        width = 26 + _room(words, 12)
        if x + width > WIDTH:
            x, y = float(MARGIN), y + 20
        picture.images.append((int(x), int(y - 4), np.full((8, 8), first + hue, np.uint8), palette))
        picture.texts.append(Text(x + 13, y + 4, words, 12, "ink2"))
        x += width
    return int(y + 12)


def fallback(
    facts: Mapping[str, Any], picture: Picture, name: str, listed: Sequence[tuple[str, float]], why: str
) -> str:
    """The fragment.

    Parameters
    ----------
    facts : mapping
    picture : Picture
    name : str
        The locked token, empty where none is.
    listed : sequence of (token, cosine)
        Its neighbours.
    why : str
        One line on why this is no live widget; empty where it only stands in.
    """
    title = f"{facts['title']}: {facts['subtitle']} · {facts['provenance']}"
    source = base64.b64encode(svg(picture, title).encode()).decode()
    image = f'<img alt="{_text(title)}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    rows = "".join(f"<tr><td><code>{_text(text)}</code></td><td>{cosine:.3f}</td></tr>" for text, cosine in listed)
    head = f"<tr><th>Nearest to <code>{_text(name)}</code></th><th>Cosine</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>" if rows else ""
    words = f"<p>{_text(why)}</p>" if why else ""
    return f"<div>{words}{image}<p>{_text(title)}</p>{table}</div>"


def _text(text: str) -> str:
    return escape(clean(str(text)))
