"""The picture of an architecture: maps of all bytes, what the colours mean, and HTML where no widget can be.

In: the facts and columns of numbers that the widget sends to its browser side. Out: a `Picture`, an HTML fragment. The
places are those of `js/src/architecture_tree/layout.ts`: area = bytes, left to right = through the model.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np

from . import colour
from .picture import MARGIN, Picture, Text, clean, plural, svg

Array = np.ndarray[Any, Any]
Side = tuple[Array, Array]  # nodes and leaves, as the widget has them

_WIDTH, _HEIGHT, _SMALL = 960, 300, 130  # px of the map; the last one where there are two
_LAYER = 3  # kind of a node
_CHARACTERS = 128  # of a line of 12 px
_TEXTURE = 0.62  # of the colour, in the lines and dots of a texture
_LINE = 4  # px of a column from which lines are drawn between leaves


@dataclass(frozen=True)
class Column:
    """A column of the map: leaves [first, end), stacked; columns of a group are equally wide."""

    key: str
    label: str
    first: int
    end: int
    n_bytes: float
    group: str


def columns_of(side: Side, strings: Sequence[str]) -> list[Column]:
    """The columns of a model, in its order: its parts, and of stacks their layers."""
    nodes, leaves = side
    parent, names, kinds, layers = nodes[:4]
    at = leaves[0].astype(int)
    tops = np.flatnonzero(parent == 0)
    found = []
    for top, stop in zip(tops, [*tops[1:], len(parent)], strict=True):
        below = np.flatnonzero((parent == top) & (kinds == _LAYER))
        name = strings[names[top]]
        ends = [*below[1:], stop] if len(below) else [stop]
        for own, end in zip(below if len(below) else [top], ends, strict=True):
            label = f"L{layers[own]}" if len(below) else name
            first, last = np.searchsorted(at, [own, end])
            key = f"{name}/{label}" if len(below) else name
            found.append(Column(key, label, int(first), int(last), float(leaves[4][first:last].sum()), name))
    return found


@dataclass(frozen=True)
class Layout:
    """Left and right edge of each column, by key; square pixels of a byte."""

    edges: Mapping[str, tuple[float, float]]
    area: float


def layout(sides: Sequence[Sequence[Column]], width: float, height: float) -> Layout:
    """Places of the columns of one model, or of two on one scale."""
    order: list[Column] = []
    for side in sides:
        at = 0
        for column in side:
            known = next((i for i, other in enumerate(order) if other.key == column.key), None)
            if known is None:
                order.insert(at, column)
            at = (at if known is None else known) + 1
    most: dict[str, float] = {}
    for column in (column for side in sides for column in side):
        most[column.group] = max(most.get(column.group, 0.0), column.n_bytes)
    shares = np.array([most[column.group] for column in order])
    total = max(float(shares.sum()), 1.0)
    edges = np.concatenate([[0.0], np.cumsum(shares)]) / total * width
    return Layout({c.key: (edges[i], edges[i + 1]) for i, c in enumerate(order)}, width * height / total)


def boxes(leaves: Array, columns: Sequence[Column], at: Layout) -> Array:
    """float64 (leaves, 4): left, top, right and bottom of each leaf. Its area is its bytes times ``at.area``."""
    out = np.zeros((leaves.shape[1], 4))
    for column in columns:
        left, right = at.edges[column.key]
        own = slice(column.first, column.end)
        stacked = np.concatenate([[0.0], np.cumsum(leaves[4][own])]) * (at.area / (right - left) if right > left else 0)
        out[own, 0], out[own, 1], out[own, 2], out[own, 3] = left, stacked[:-1], right, stacked[1:]
    return out


# ------------------------------------------------------------------------ drawing


def draw(facts: Mapping[str, Any], sides: Sequence[Side], theme: str) -> Picture:
    """Lay out the picture.

    Parameters
    ----------
    facts : mapping
    sides : sequence of (nodes, leaves)
        One model, or A and B.
    theme : {"light", "dark"}
    """
    width = _WIDTH + 2 * MARGIN
    picture = Picture(width, 0, theme)
    names = [_name(side) for side in facts["sides"]]
    words = " against ".join(names) if len(sides) > 1 else f"{names[0]} · {totals(facts, sides[0])}"
    picture.texts += [
        Text(MARGIN, 28, facts["title"], 15, "ink", bold=True),
        Text(MARGIN + 16 + 8.5 * len(facts["title"]), 28, words, 13, "ink2"),
        Text(MARGIN, 48, f"● {facts['provenance']}", 11, "ink3"),
    ]
    columns = [columns_of(side, facts["strings"]) for side in sides]
    height = _HEIGHT if len(sides) == 1 else _SMALL
    at = layout(columns, _WIDTH, height)
    y = 64
    for own, side, name in zip(columns, sides, names, strict=True):
        if len(sides) > 1:
            letter = "AB"[names.index(name)] if len(set(names)) > 1 else ""
            picture.texts.append(Text(MARGIN, y + 14, f"{letter} · {name}".strip(" ·"), 12, "ink", bold=True))
            picture.texts.append(Text(MARGIN + 40 + 8.2 * len(name), y + 14, totals(facts, side), 12, "ink3"))
            y += 22
        picture.images.append((MARGIN, y, *_map(facts, side, own, at, height, theme)))
        _axis(picture, own, at, y + height + 12)
        y += height + 20
    y = _types(picture, facts, sides, y + 8)
    if len(sides) == 1:
        for strong, text in facts["sides"][0]["notices"]:
            for line in wrap(f"{strong} {text}", _CHARACTERS):
                picture.texts.append(Text(MARGIN, y + 14, line, 12, "ink2"))
                y += 18
    picture.height = y + MARGIN
    return picture


def _name(side: Mapping[str, Any]) -> str:
    return f"{side['model']} {side['quant_type'] or ''}".strip()


def totals(facts: Mapping[str, Any], side: Side) -> str:
    """``272 tensors · 104 MB · 6.17 bits per weight``."""
    leaves = side[1]
    own = leaves[:, leaves[2] >= 0]
    weights = sum(int(np.prod(facts["shapes"][int(shape)], dtype=object)) for shape in own[3])
    known = all(facts["types"][int(t)]["bits"] is not None for t in own[2])
    bits = f"{8 * own[4].sum() / weights:.2f} bits per weight" if weights and known else "bits per weight unknown"
    return f"{plural(own.shape[1], 'tensor')} · {size(leaves[4].sum())} · {bits}"


def size(n_bytes: float) -> str:
    """``98.4 MB``: decimal, three figures."""
    value, unit = float(n_bytes), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, bigger
    return f"{value:.0f}\u202f{unit}" if unit == "B" or value >= 99.95 else f"{value:.1f}\u202f{unit}"


def quant_colour(kind: Mapping[str, Any] | None, theme: str) -> Array:
    """uint8 (3,): of a quant type; of what is no tensor where it is None."""
    page = colour.PAGE[theme]
    if kind is None:
        return np.asarray(colour.mix(colour.rgb(page["ink"])[None], page["paper"], 0.1)[0])
    own = colour.QUANT.get(kind["hue"] or 0)
    shade: Array = colour.rgb(page["ink3"] if own is None else own[colour.THEMES.index(theme)])
    return shade


def _map(
    facts: Mapping[str, Any], side: Side, columns: Sequence[Column], at: Layout, height: int, theme: str
) -> tuple[Array, Array]:
    """Pixels and colour table of one map: per type its colour and the lighter one of its texture."""
    page, types = colour.PAGE[theme], facts["types"]
    plain = [quant_colour(None, theme), *(quant_colour(kind, theme) for kind in types)]
    table = np.stack([colour.rgb(page["paper"]), colour.rgb(page["fill"]), *plain])
    lighter = colour.mix(np.stack(plain), page["paper"], _TEXTURE)
    palette = np.concatenate([table, lighter])[:256]
    pixels = np.ones((height, _WIDTH), np.uint8)
    own = boxes(side[1], columns, at)
    kinds = side[1][2].astype(int)
    for leaf, (left, top, right, bottom) in enumerate(np.floor(own + 0.5).astype(int)):
        if right <= left or bottom <= top:
            continue
        cell = pixels[top : min(bottom, height), left:right]
        cell[:] = 2 + min(kinds[leaf] + 1, 120)
        if kinds[leaf] >= 0:
            marks = _marks(types[kinds[leaf]]["family"], np.ogrid[top : top + cell.shape[0], left:right])
            cell[marks] += len(plain)
        if own[leaf, 2] - own[leaf, 0] >= _LINE:
            cell[:, -1] = 0
            if top and bottom - top >= _LINE:
                cell[0] = 0
    return pixels, palette


def _marks(family: str, at: Sequence[Array]) -> Array:
    """Where the texture of a family has its lines or dots."""
    rows, across = at
    if family == "legacy":
        return np.asarray((rows + across) % 6 < 1)
    return np.asarray((rows % 5 < 1) & (across % 5 < 1)) if family == "iq" else np.zeros((rows + across).shape, bool)


def _shades(shade: Array, theme: str) -> Array:
    """uint8 (2, 3): a colour, and the lighter one of its texture."""
    return np.concatenate([shade[None], colour.mix(shade[None], colour.PAGE[theme]["paper"], _TEXTURE)])


def _axis(picture: Picture, columns: Sequence[Column], at: Layout, y: int) -> None:
    layers = [c for c in columns if c.key != c.group]
    if not layers:
        return
    wide = at.edges[layers[0].key][1] - at.edges[layers[0].key][0]
    step = next((n for n in (1, 5, 10, 20, 50, 100, 200, 500) if n * wide >= 34), 1000)
    for column in layers:
        if int(column.label[1:]) % step == 0:
            middle = MARGIN + sum(at.edges[column.key]) / 2
            picture.texts.append(Text(middle, y, column.label, 10, "ink3", False, "middle"))


def _types(picture: Picture, facts: Mapping[str, Any], sides: Sequence[Side], y: int) -> int:
    """A square and a line for each quant type; returns where it ends."""
    x = MARGIN
    counts: Counter[int] = Counter()
    amounts: Counter[int] = Counter()
    for _, leaves in sides:
        for kind, n_bytes in zip(leaves[2].astype(int).tolist(), leaves[4].tolist(), strict=True):
            if kind >= 0:
                counts[kind] += 1
                amounts[kind] += int(n_bytes)
    for kind, amount in amounts.most_common():
        own = facts["types"][kind]
        words = f"{own['name']} · {size(amount)} · {counts[kind]} ×"
        if x + 30 + 6.4 * len(words) > _WIDTH:
            x, y = MARGIN, y + 18
        square = _marks(own["family"], np.ogrid[0:12, 0:12]).astype(np.uint8)
        picture.images.append((x, y - 1, square, _shades(quant_colour(own, picture.theme), picture.theme)))
        picture.texts.append(Text(x + 15, y + 9, words, 11, "ink2"))
        x += round(34 + 6.4 * len(words))
    return y + 18


# ----------------------------------------------------------------------- fallback

Part = tuple[str, int, float | None, Mapping[str, int]]  # name, bytes, bits per weight, bytes of each type


def fallback(facts: Mapping[str, Any], picture: Picture, parts: Sequence[Sequence[Part]], why: str) -> str:
    """The picture and a table of the model's parts, plain HTML.

    Parameters
    ----------
    facts : mapping
    picture : Picture
        As `draw` laid it out.
    parts : sequence of sequence of (name, bytes, bits per weight, bytes of each type)
        Of each model.
    why : str
        One line on why this is no live widget; empty where it only stands in.
    """
    name = f"{facts['title']}: {' against '.join(map(_name, facts['sides']))} · {facts['provenance']}"
    source = base64.b64encode(svg(picture, name).encode()).decode()
    shown = f'<img alt="{_text(name)}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    tables = []
    for own, side in zip(parts, facts["sides"], strict=True):
        rows = "".join(
            f"<tr><td>{_text(part)}</td><td>{n_bytes}</td><td>{'–' if bits is None else format(bits, '.2f')}</td>"
            f"<td>{_text(', '.join(types) or '–')}</td></tr>"
            for part, n_bytes, bits, types in own
        )
        head = "<tr><th>Part</th><th>Bytes</th><th>Bits per weight</th><th>Quant types</th></tr>"
        notices = "".join(f"<p><b>{_text(strong)}</b> {_text(text)}</p>" for strong, text in side["notices"])
        caption = f"<caption>{_text(_name(side))}</caption>"
        tables.append(f"<table>{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>{notices}")
    line = f"<p>{_text(why)}</p>" if why else ""
    return f"<div>{line}{shown}<p>{_text(name)}</p>{''.join(tables)}</div>"


def _text(text: str) -> str:
    return escape(clean(str(text)))
