"""The picture of an expert strip, and the HTML that stands where no widget can be drawn.

In: the facts, overview and loads that the widget sends to its browser side. Out: a `Picture`, an HTML fragment.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from . import colour
from .picture import MARGIN, Box, Picture, Text, clean, plural, svg

Array = np.ndarray[Any, Any]

_LABELS, _GAP = 96, 6  # px: room for token labels, between layers
_LOAD = 44  # px: the tallest bar of the load
_WIDTH, _HEIGHT = 1000, 420  # px that the cells may take
_LEGEND = 160
_UNSEEN, _FIRST = 0, 1  # palette: not computed, then the ramp; code 0 = not chosen = paper of the ramp
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
    layers, (_, rows, experts) = facts["layers"], overview.shape
    right = max(1, min(16, (_WIDTH // max(len(layers), 1) - _GAP) // max(experts, 1)))
    down = max(1, min(16, _HEIGHT // max(rows, 1)))
    step = experts * right + _GAP
    words = f"{facts['title']} {subtitle(facts)}"
    width = max(2 * MARGIN + _LABELS + len(layers) * step, 60 + 7 * max(len(facts["provenance"]), len(words)), 480)
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
    at = iter(zip(overview, loads, strict=True))
    for i, layer in enumerate(layers):
        x, mine = left + i * step, layer["layer"] == locked
        if mine or i % (1 if step >= 24 else 8) == 0:
            shade = "accent" if mine else "ink3"
            picture.texts.append(Text(x + (step - _GAP) / 2, top - 6, f"L{layer['layer']}", 10, shade, mine, "middle"))
        if not layer["used"]:
            picture.boxes.append(Box(x, top, step - _GAP, rows * down, "fill"))
            continue
        codes, load = next(at)
        _cells(picture, layer, codes, (x, top, right, down), len(facts["tokens"]))
        _bars(picture, load[0], (x, base, right))
        if mine:
            picture.boxes.append(Box(x - 2, top - 2, step - _GAP + 4, rows * down + 4, "accent", 2))
    _tokens(picture, facts, top, down)
    _load_words(picture, experts, base)
    _legend(picture, facts["most"], base + 18)
    picture.height = base + 18 + 44
    return picture


def _palette(theme: str) -> Array:
    """uint8 (256, 3): plain fill, then the ramp without its last step."""
    fill = colour.rgb(colour.PAGE[theme]["fill"])[None]
    return np.concatenate([fill, colour.ramp(colour.SEQUENTIAL[theme])[np.linspace(0, 255, 255).round().astype(int)]])


def _cells(
    picture: Picture, layer: Mapping[str, Any], codes: Array, at: tuple[int, int, int, int], tokens: int
) -> None:
    x, top, right, down = at
    shades = np.minimum(places(codes), 254) + _FIRST
    if layer["computed"] is not None:
        there = np.zeros(len(codes), bool)
        there[np.array(layer["computed"], int) * len(codes) // max(tokens, 1)] = True
        shades = np.where(there[:, None], shades, _UNSEEN)
    pixels = shades.astype(np.uint8).repeat(down, 0).repeat(right, 1)
    picture.images.append((x, top, pixels, _palette(picture.theme)))


def _bars(picture: Picture, load: Array, at: tuple[int, int, int]) -> None:
    """The load of one layer, each bar under its expert, and the line where all would be if it were even."""
    x, base, right = at
    most = max(float(load.max(initial=0)), 1 / max(len(load), 1))
    for expert, share in enumerate(load):
        tall = round(float(share) / most * _LOAD)
        if tall:
            picture.boxes.append(Box(x + expert * right, base - tall, max(right - 1, 1), tall, "ink3"))
    picture.boxes.append(Box(x, base - round(_LOAD / len(load) / most), len(load) * right, 1, "ink"))


def _tokens(picture: Picture, facts: Mapping[str, Any], top: int, down: int) -> None:
    tokens, rows = facts["tokens"], facts["rows"]
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
    bar = np.tile(np.minimum(shades, 254) + np.uint8(_FIRST), (8, 1))
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
