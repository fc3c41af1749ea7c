"""The picture of an expert strip, and the HTML that stands where no widget can be drawn.

In: the facts, overview and loads that the widget sends to its browser side. Out: a `Picture`, an HTML fragment.
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
from .picture import MARGIN, Box, Picture, Text, clean, plural, svg
from .thumbnails import shrink

Array = np.ndarray[Any, Any]

_LABELS = 96  # px: room for token labels
_LOAD = 44  # px: the tallest bar of the load
_WIDTH, _HEIGHT = 1000, 420  # px that the cells may take
_LEGEND = 160
_PAGE, _UNSEEN, _FIRST = 0, 1, 2  # palette: the page, not computed, then the ramp; not chosen = its first step
_LEAST = 26  # place on the ramp of a weight just above 0, so that chosen is never not chosen


def places(codes: Array) -> Array:
    """Ramp places of overview codes: 0 stays paper, every choice is visible."""
    strong = _LEAST + (codes.astype(np.float32) - 1) / 254 * (255 - _LEAST)
    return np.where(codes == 0, 0, np.round(strong)).astype(np.uint8)


def subtitle(facts: Mapping[str, Any]) -> str:
    """``3 layers × 8 experts, 2 per token · 24 tokens``."""
    having = [layer for layer in facts["layers"] if layer["used"]]
    if not having:
        return plural(len(facts["tokens"]), "token")
    without = len(facts["layers"]) - len(having)
    rest = f" ({without} without)" if without else ""
    experts = f"{plural(facts['n_experts'], 'expert')}, {facts['used']} per token"
    return f"{plural(len(having), 'layer')}{rest} × {experts} · {plural(len(facts['tokens']), 'token')}"


def draw(facts: Mapping[str, Any], overview: Array, loads: Array, theme: str, locked: int | None) -> Picture:
    """Lay out the picture.

    Parameters
    ----------
    facts : mapping
    overview : uint8 (layers, rows, experts)
    loads : float32 (layers, 2, experts)
    theme : {"light", "dark"}
    locked : int or None
        The layer with the ring.
    """
    layers, experts = facts["layers"], overview.shape[2]
    room = _WIDTH // max(len(layers), 1)
    gap = 6 if room >= 24 else 2 if room >= 6 else 1
    overview = shrink(overview, _HEIGHT, max(room - gap, 2))  # by maximum, where there are more experts than pixels
    loads = _fewer(loads, overview.shape[2])
    rows = overview.shape[1]
    right = max(1, min(16, (room - gap) // max(overview.shape[2], 1)))
    down = max(1, min(16, _HEIGHT // max(rows, 1)))
    at = _Places(overview.shape[2] * right, gap, right, down)
    words = f"{facts['title']} {subtitle(facts)}"
    longest = max(len(facts["provenance"]), len(words), len(facts["message"]))
    width = max(2 * MARGIN + _LABELS + len(layers) * (at.cell + gap), 700, 60 + 7 * longest)
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
    left, top = MARGIN + _LABELS, 78
    base = top + rows * down + 12 + _LOAD
    picture.images.append((left, top, _cells(facts, overview, at), _palette(theme)))
    picture.images.append((left, base - _LOAD, _bars(facts, loads, at), _bar_palette(theme)))
    for i, layer in enumerate(layers):
        x, mine = left + i * (at.cell + gap), layer["layer"] == locked
        if mine or i % (1 if at.cell + gap >= 24 else -(-36 // (at.cell + gap))) == 0:
            shade = "accent" if mine else "ink3"
            picture.texts.append(Text(x + at.cell / 2, top - 6, f"L{layer['layer']}", 10, shade, mine, "middle"))
        if mine:
            picture.boxes.append(Box(x - 2, top - 2, at.cell + 4, rows * down + 4, "accent", 2))
    _tokens(picture, facts["tokens"], rows, top, down)
    _load_words(picture, experts, base)
    _legend(picture, facts["most"], base + 18)
    picture.height = base + 18 + 44
    return picture


@dataclass(frozen=True)
class _Places:
    """Width of a layer's column, the gap after it, px per expert, px per row."""

    cell: int
    gap: int
    right: int
    down: int


def _fewer(loads: Array, experts: int) -> Array:
    """Loads of neighbouring experts joined to their greatest."""
    if loads.size == 0 or experts == loads.shape[2]:
        return loads
    return np.asarray(np.maximum.reduceat(loads, edges(loads.shape[2], experts)[:-1], axis=2))


def _palette(theme: str) -> Array:
    """uint8 (256, 3): the page, plain fill, then the ramp without two of its steps."""
    page = [colour.rgb(colour.PAGE[theme][name]) for name in ("paper", "fill")]
    return np.concatenate([page, colour.ramp(colour.SEQUENTIAL[theme])[np.linspace(0, 255, 254).round().astype(int)]])


def _bar_palette(theme: str) -> Array:
    """uint8 (3, 3): the page, a bar, the line of an even load."""
    return np.stack([colour.rgb(colour.PAGE[theme][name]) for name in ("paper", "ink3", "ink")])


def _cells(facts: Mapping[str, Any], overview: Array, at: _Places) -> Array:
    """uint8: palette indices of all layers' cells."""
    layers, rows, tokens = facts["layers"], overview.shape[1], max(len(facts["tokens"]), 1)
    out = np.full((rows * at.down, len(layers) * (at.cell + at.gap) - at.gap), _PAGE, np.uint8)
    having = iter(overview)
    for i, layer in enumerate(layers):
        shades = np.full((rows, 1), _UNSEEN, np.uint8)
        if layer["used"]:
            shades = _FIRST + np.minimum(places(next(having)), 253)
        if layer["used"] and layer["computed"] is not None:
            there = np.zeros(rows, bool)
            there[np.array(layer["computed"], int) * rows // tokens] = True
            shades = np.where(there[:, None], shades, _UNSEEN)
        x = i * (at.cell + at.gap)
        wide = at.right if layer["used"] else at.cell
        out[:, x : x + at.cell] = shades.astype(np.uint8).repeat(at.down, 0).repeat(wide, 1)
    return out


def _bars(facts: Mapping[str, Any], loads: Array, at: _Places) -> Array:
    """uint8: the loads, each bar under its expert, and the line where all would end if the work were even."""
    layers = facts["layers"]
    out = np.zeros((_LOAD, len(layers) * (at.cell + at.gap) - at.gap), np.uint8)
    having = iter(loads[:, 0])
    for i, layer in enumerate(layers):
        if not layer["used"]:
            continue
        load = next(having)
        even = 1 / facts["n_experts"]
        most, x = max(float(load.max()), even), i * (at.cell + at.gap)
        tall = np.round(load / most * _LOAD).astype(int).repeat(at.right)
        if at.right > 2:  # a line of paper between bars
            tall[at.right - 1 :: at.right] = 0
        out[:, x : x + at.cell] = np.arange(_LOAD, 0, -1)[:, None] <= tall
        out[_LOAD - max(round(_LOAD * even / most), 1), x : x + at.cell] = 2
    return out


def _tokens(picture: Picture, tokens: Sequence[str], rows: int, top: int, down: int) -> None:
    every = max(1, -(-12 // down))
    for row in range(0, rows, every):
        word = tokens[row * len(tokens) // rows]
        short = word if len(word) <= 12 else word[:11] + "…"
        picture.texts.append(
            Text(MARGIN + _LABELS - 8, top + row * down + min(down, 12) - 2, short, 10, "ink3", False, "end")
        )


def _load_words(picture: Picture, experts: int, base: int) -> None:
    right = MARGIN + _LABELS - 8
    picture.texts.append(Text(right, base - _LOAD + 10, "load", 11, "ink2", True, "end"))
    picture.texts.append(Text(right, base - _LOAD + 24, f"line: even {1 / experts:.3f}", 10, "ink3", False, "end"))


def _legend(picture: Picture, most: float, y: int) -> None:
    left = MARGIN + _LABELS
    shades = places(np.linspace(1, 255, _LEGEND).round().astype(np.uint8))
    bar = np.tile(np.minimum(shades, 253) + np.uint8(_FIRST), (8, 1))
    picture.images.append((left, y, bar, _palette(picture.theme)))
    picture.boxes.append(Box(left, y, _LEGEND, 8, "line", 1))
    for place, tick, anchor in ((0, "0", "start"), (_LEGEND, f"{most:.3g}", "end")):
        picture.texts.append(Text(left + place, y + 22, tick, 10, "ink3", False, anchor))
    picture.texts.append(Text(left + _LEGEND + 16, y + 8, "weight of a chosen expert; paper = not chosen", 11, "ink2"))
    words = "each layer: its experts side by side, E0 at the left; plain = not computed"
    picture.texts.append(Text(left + _LEGEND + 16, y + 22, words, 10, "ink3"))


def fallback(facts: Mapping[str, Any], picture: Picture, loads: Array, why: str) -> str:
    """The fragment: the picture and, per layer, its busiest expert.

    Parameters
    ----------
    facts : mapping
    picture : Picture
        As `draw` laid it out.
    loads : float32 (layers, 2, experts)
    why : str
        One line on why this is no live widget; empty where it only stands in.
    """
    name = f"{facts['title']}: {subtitle(facts)} · {facts['provenance']}"
    lines = "".join(f"<p>{_text(line)}</p>" for line in (why, facts["message"]) if line)
    if facts["message"]:
        return f"<div>{lines}<p>{_text(name)}</p></div>"
    source = base64.b64encode(svg(picture, name).encode()).decode()
    shown = f'<img alt="{_text(name)}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    rows = "".join(
        f"<tr><td>L{layer['layer']}</td><td>E{int(own[0].argmax())}</td><td>{own[0].max():.3f}</td>"
        f"<td>{'–' if layer['evenness'] is None else format(layer['evenness'], '.2f')}</td></tr>"
        for layer, own in zip((layer for layer in facts["layers"] if layer["used"]), loads, strict=True)
    )
    head = "<tr><th>Layer</th><th>Busiest expert</th><th>Load</th><th>Evenness of the load</th></tr>"
    return f"<div>{lines}{shown}<p>{_text(name)}</p><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>"


def _text(text: str) -> str:
    return escape(clean(str(text)))
