"""The picture of a quantization report, and the HTML that stands where no widget can be drawn.

In: the facts and drift that the widget sends to its browser side, the choice at its budget. Out: a `Picture`, an HTML
fragment.
"""

from __future__ import annotations

import base64
import math
import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

from ..studies.recommend import measured, number, share, short_names, size
from . import colour
from .picture import MARGIN, Box, Picture, Text, clean, svg

Array = np.ndarray[Any, Any]
Row = Mapping[str, Any]

_WIDTH = 1100
_PLOT, _TALL = 560, 300  # px of the plot
_LEFT, _DISC, _LINE = 64, 13, 22
_DRIFT = 640  # where the maps begin
_NAMES = 74
#: Columns of the table: heading, right edge; the first begins at its own.
_COLUMNS = (
    ("candidate", 16),
    ("size", 290),
    ("bits/weight", 370),
    ("KL to base", 500),
    ("worst 1 %", 575),
    ("perplexity", 650),
    ("same top token", 755),
    ("speed", 860),
    ("asked for, got", 1084),
)
_NAME = 28  # characters of a candidate's name in the table
_SHADES = 9  # of a disc's edge


def draw(
    facts: Mapping[str, Any],
    choice: Mapping[str, Any] | None,
    max_bytes: int | None,
    layers: Array,
    heads: Array,
    theme: str,
) -> Picture:
    """Lay out the picture.

    Parameters
    ----------
    facts : mapping
        As the widget sends it to the browser.
    choice : mapping or None
        The recommendation's words at the budget.
    max_bytes : int or None
    layers : float32 (candidates, layers)
    heads : float32 (candidates, layers, heads)
    theme : {"light", "dark"}
    """
    picture = Picture(_WIDTH, 0, theme)
    picture.texts += [
        Text(MARGIN, 28, facts["title"], 15, "ink", bold=True),
        Text(MARGIN + 178, 28, facts["subtitle"], 13, "ink2"),
        Text(MARGIN, 48, f"● {facts['provenance']}", 11, "ink3"),
    ]
    y = _answer(picture, choice, 64)
    done = [row for row in facts["rows"] if is_measured(row)]
    chosen = choice["name"] if choice else None
    below = y
    if done:
        below = _plot(picture, facts, done, chosen, max_bytes, y)
        below = max(below, _maps(picture, facts["rows"], chosen, layers, heads, y))
    picture.height = int(_table(picture, facts, chosen, below + 12)) + MARGIN
    return picture


def is_measured(row: Row) -> bool:
    """Whether a candidate has figures; in part, where the study runs or was stopped."""
    return row["kl"] is not None and row["status"] != "failed"


def _answer(picture: Picture, choice: Mapping[str, Any] | None, y: int) -> int:
    if choice is None:
        picture.texts.append(Text(MARGIN, y + 16, "Nothing has been measured yet.", 13, "ink2"))
        return y + 36
    left = textwrap.wrap(choice["body"], 62)
    right = textwrap.wrap(f"How sure: {choice['sure']}", 70)
    right += [line for limit in choice["limits"] for line in textwrap.wrap(f"Limit: {limit}", 70)]
    tall = max(44 + 18 * len(left), 22 + 16 * len(right))
    picture.boxes.append(Box(MARGIN, y, _WIDTH - 2 * MARGIN, tall, "fill"))
    picture.texts.append(Text(MARGIN + 16, y + 28, choice["headline"], 17, "ink", bold=True))
    for at, line in enumerate(left):
        picture.texts.append(Text(MARGIN + 16, y + 52 + 18 * at, line, 13, "ink2"))
    for at, line in enumerate(right):
        picture.texts.append(Text(570, y + 24 + 16 * at, line, 12, "ink2"))
    return y + tall + 24


# -------------------------------------------------------------------------------- plot


def frontier(rows: Sequence[Row]) -> list[Row]:
    """Candidates that none is both smaller and closer than, by size."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["bytes"], row["kl"])):
        if not kept or row["kl"] < kept[-1]["kl"]:
            kept.append(row)
    return kept


def _plot(
    picture: Picture,
    facts: Mapping[str, Any],
    done: Sequence[Row],
    chosen: str | None,
    max_bytes: int | None,
    y: int,
) -> int:
    shown = [row for row in done if row["kind"] != "kv" and row["kl"] > 0]
    picture.texts += [
        Text(MARGIN, y, "Distance from the base against size", 12, "ink", bold=True),
        Text(MARGIN + 268, y, "lower left is better · bars = 95 % · dots = text blocks", 11, "ink3"),
    ]
    if not shown:
        return y + 20
    top, bottom = y + 16, y + 16 + _TALL
    sizes = [row["bytes"] for row in shown]
    pad = max(max(sizes) - min(sizes), 0.04 * max(sizes)) * 0.12
    low, high = min(sizes) - pad, max(sizes) + pad
    names_of = [row["name"] for row in shown]
    names = set(names_of)
    dots = [(name, kl) for name, _, _, kl in facts["blocks"] if name in names and kl and kl > 0]
    ends = [kl for _, kl in dots] + [row["kl"] for row in shown]
    small, large = math.log10(min(ends)) - 0.08, math.log10(max(ends)) + 0.08
    x_of = {row["name"]: _LEFT + (row["bytes"] - low) / (high - low) * (_PLOT - _LEFT) for row in shown}

    def y_of(kl: float) -> float:
        return bottom - (math.log10(kl) - small) / (large - small) * _TALL

    for tick in ticks(10**small, 10**large):
        picture.boxes.append(Box(_LEFT, y_of(tick), _PLOT - _LEFT, 1, "fill"))
        picture.texts.append(Text(_LEFT - 6, y_of(tick) + 4, f"{tick:g}", 10, "ink3", False, "end"))
    picture.boxes.append(Box(_LEFT, bottom, _PLOT - _LEFT, 1, "line"))
    best = frontier(shown)
    for a, b in pairwise(best):
        picture.boxes.append(Box(x_of[a["name"]], y_of(a["kl"]), x_of[b["name"]] - x_of[a["name"]], 1, "ink3"))
        picture.boxes.append(Box(x_of[b["name"]], y_of(a["kl"]), 1, y_of(b["kl"]) - y_of(a["kl"]), "ink3"))
    y_own = {row["name"]: y_of(row["kl"]) for row in shown}
    for name, kl in dots:
        if abs(y_of(kl) - y_own[name]) > _DISC / 2 + 2:
            picture.boxes.append(Box(x_of[name] - 1, y_of(kl) - 1, 3, 3, "line"))
    short = dict(zip(names_of, short_names(names_of), strict=True))
    for row in shown:
        place = x_of[row["name"]], short[row["name"]]
        _point(picture, row, place, y_of, row in best, row["name"] == chosen, 10**small)
    if max_bytes is not None and low < max_bytes < high:
        x = _LEFT + (max_bytes - low) / (high - low) * (_PLOT - _LEFT)
        picture.boxes.append(Box(x, top, 1, _TALL, "accent"))
        picture.texts.append(Text(x + 5, top + 10, f"budget {size(max_bytes)}", 11, "accent", bold=True))
    for x, tick, anchor in ((_LEFT, min(sizes), "start"), (_PLOT, max(sizes), "end")):
        picture.texts.append(Text(x, bottom + 16, size(tick), 10, "ink3", False, anchor))
    picture.texts.append(Text((_LEFT + _PLOT) / 2, bottom + 16, "file size", 10, "ink3", False, "middle"))
    picture.texts.append(Text(MARGIN + 4, (top + bottom) / 2, "KL, nats per token (log)", 10, "ink3", turned=True))
    words = f"Filled = none is smaller and closer. Base: {size(facts['base'].get('bytes') or math.nan)}."
    picture.texts.append(Text(MARGIN, bottom + 36, words, 11, "ink2"))
    return bottom + 44


def ticks(low: float, high: float) -> list[float]:
    """1 and 3 of each decade between the ends."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**e for e in decades for m in (1, 3) if low <= m * 10.0**e <= high]


def _point(
    picture: Picture, row: Row, at_name: tuple[float, str], y_of: Any, filled: bool, mine: bool, low: float
) -> None:
    x, name = at_name
    y = y_of(row["kl"])
    if row["kl_ci"]:
        above, below = y_of(row["kl"] + row["kl_ci"]), y_of(max(row["kl"] - row["kl_ci"], low))
        for top, bottom in ((above, y - _DISC / 2), (y + _DISC / 2, below)):
            if bottom > top:
                picture.boxes.append(Box(x, top, 1, bottom - top, "ink3"))
    at = round(x - _DISC / 2), round(y - _DISC / 2)
    picture.images.append((*at, _disc(filled), _swatch(row, picture.theme)))
    if mine:
        picture.boxes.append(Box(at[0] - 4, at[1] - 4, _DISC + 8, _DISC + 8, "accent", 2))
    right = x < _PLOT - 110
    place = (x + 12, "start") if right else (x - 12, "end")
    picture.texts.append(Text(place[0], y - 6, name, 11, "accent" if mine else "ink", mine, place[1]))


def _disc(filled: bool) -> Array:
    """uint8 (13, 13): how much of each pixel a disc or a ring covers, 0 to `_SHADES` - 1."""
    middle = (_DISC - 1) / 2
    rows, columns = np.ogrid[:_DISC, :_DISC]
    far = np.hypot(rows - middle, columns - middle)
    cover = np.clip(middle + 0.5 - far, 0, 1)
    if not filled:
        cover -= np.clip(middle - 2 - far, 0, 1)
    return np.round(cover * (_SHADES - 1)).astype(np.uint8)


def _swatch(row: Row, theme: str) -> Array:
    """uint8 (9, 3): from paper to the colour of a candidate's type."""
    page = colour.PAGE[theme]
    own = colour.QUANT.get(row["hue"]) if row["hue"] is not None else None
    shade = page["ink3"] if own is None else own[0 if theme == "light" else 1]
    ends = colour.rgb(page["paper"]).astype(float), colour.rgb(shade).astype(float)
    steps = np.linspace(0, 1, _SHADES)[:, None]
    table: Array = np.round(ends[0] + (ends[1] - ends[0]) * steps).astype(np.uint8)
    return table


# -------------------------------------------------------------------------------- maps


def _maps(picture: Picture, rows: Sequence[Row], chosen: str | None, layers: Array, heads: Array, y: int) -> int:
    if layers.size and np.isfinite(layers).any():
        y = _map(picture, rows, chosen, layers, "Residual stream drift", "‖h − h₀‖ / ‖h₀‖ after each layer", y)
    if heads.size and np.isfinite(heads).any():
        known = np.isfinite(heads)
        mean = np.nan_to_num(heads).sum(-1) / np.maximum(known.sum(-1), 1)
        mean = np.where(known.any(-1), mean, np.nan)
        words = f"total variation, mean of {heads.shape[2]} heads"
        y = _map(picture, rows, chosen, mean, "Attention drift", words, y)
    return y


def _map(picture: Picture, rows: Sequence[Row], chosen: str | None, table: Array, name: str, words: str, y: int) -> int:
    picture.texts += [
        Text(_DRIFT, y, name, 12, "ink", bold=True),
        Text(_DRIFT + 16 + 7.6 * len(name), y, words, 11, "ink3"),
    ]
    left, top = _DRIFT + _NAMES, y + 12
    wide = max(2, min(14, (_WIDTH - MARGIN - left) // max(table.shape[1], 1)))
    tall = 14
    positive = table[np.isfinite(table) & (table > 0)]
    if not positive.size:
        return y + 24
    low, high = float(positive.min()), float(positive.max())
    with np.errstate(divide="ignore", invalid="ignore"):
        at = (np.log(table) - math.log(low)) / max(math.log(high) - math.log(low), 1e-9)
    shades = np.round(np.clip(np.nan_to_num(at, neginf=0.0), 0, 1) * 253) + 2
    shades = np.where(np.isnan(table), 1, np.where(table == 0, 0, shades)).astype(np.uint8)
    pixels = shades.repeat(tall, 0).repeat(wide, 1)
    pixels[tall - 1 :: tall] = 0
    if wide >= 6:
        pixels[:, wide - 1 :: wide] = 0
    picture.images.append((left, top, pixels, _palette(picture.theme)))
    short = short_names([row["name"] for row in rows])
    for i, row in enumerate(rows):
        mine = row["name"] == chosen
        words = short[i] if len(short[i]) <= 12 else short[i][:11] + "…"
        picture.texts.append(Text(left - 6, top + i * tall + 11, words, 10, "accent" if mine else "ink2", mine, "end"))
    bottom = top + len(table) * tall
    for layer in range(0, table.shape[1], 10):
        picture.texts.append(Text(left + layer * wide, bottom + 11, f"L{layer}", 10, "ink3"))
    ramp = np.tile(np.linspace(2, 255, 160).round().astype(np.uint8), (8, 1))
    picture.images.append((left, bottom + 20, ramp, _palette(picture.theme)))
    picture.texts += [
        Text(left, bottom + 40, f"{low:.2g}", 10, "ink3"),
        Text(left + 160, bottom + 40, f"{high:.2g}", 10, "ink3", False, "end"),
    ]
    return bottom + 66


def _palette(theme: str) -> Array:
    """uint8 (256, 3): the page, plain fill, then the ramp."""
    page = [colour.rgb(colour.PAGE[theme][name]) for name in ("paper", "fill")]
    return np.concatenate([page, colour.ramp(colour.SEQUENTIAL[theme])[np.linspace(0, 255, 254).round().astype(int)]])


# ------------------------------------------------------------------------------- table


def _table(picture: Picture, facts: Mapping[str, Any], chosen: str | None, y: int) -> int:
    y += 16
    for at, (name, x) in enumerate(_COLUMNS):
        picture.texts.append(Text(x, y, name, 11, "ink3", anchor="start" if at == 0 else "end"))
    for row in facts["rows"]:
        mine = row["name"] == chosen
        picture.boxes.append(Box(MARGIN, y + 6, _WIDTH - 2 * MARGIN, 1, "accent" if mine else "fill"))
        y += _LINE
        name = row["name"] if len(row["name"]) <= _NAME else row["name"][: _NAME - 1] + "…"
        if not is_measured(row):
            why = f"{row['status']}: {row['error']}" if row["error"] else row["status"]
            picture.texts += [Text(MARGIN, y, name, 12, "ink"), Text(230, y, why[:120], 11, "ink3")]
            continue
        for at, (words, (_, x)) in enumerate(zip([name, *cells(row)], _COLUMNS, strict=True)):
            last = at == len(_COLUMNS) - 1
            shade = "accent" if mine and at == 0 else "ink3" if last else "ink"
            picture.texts.append(Text(x, y, words, 10 if last else 12, shade, mine and at == 0, _anchor(at)))
    picture.boxes.append(Box(MARGIN, y + 6, _WIDTH - 2 * MARGIN, 1, "fill"))
    y += _LINE
    base = facts["base"]
    picture.texts.append(Text(MARGIN, y, f"{base['name']}, the base"[:40], 12, "ink3"))
    own = [size(base["bytes"]), f"{base['bits_per_weight']:.2f}", "0", "0", _perplexity(base["perplexity"]), share(1.0)]
    for words, (_, x) in zip(own, _COLUMNS[1:], strict=False):
        picture.texts.append(Text(x, y, words, 12, "ink3", anchor="end"))
    return y + 8


def _anchor(column: int) -> str:
    return "start" if column == 0 else "end"


def cells(row: Row) -> list[str]:
    """What the table says of a measured candidate, after its name."""
    own = {name: math.nan if value is None else value for name, value in row.items()}
    speed = "not comparable" if row["speed_note"] else "–"
    if math.isfinite(own["decode_tps"]):
        speed = f"{own['decode_tps']:.0f} tokens/s"
    elif row["speed_note"] == "not measured":
        speed = row["speed_note"]
    return [
        size(own["bytes"]),
        f"{own['bits_per_weight']:.2f}",
        measured(own).removeprefix("KL "),
        number(own["kl_99"]),
        _perplexity(row["ppl"]),
        share(own["same_top"]),
        speed,
        str(row["got"] or ""),
    ]


def _perplexity(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def fallback(facts: Mapping[str, Any], choice: Mapping[str, Any] | None, picture: Picture, why: str) -> str:
    """The fragment: the recommendation, the picture and the table.

    Parameters
    ----------
    facts : mapping
    choice : mapping or None
    picture : Picture
        As `draw` laid it out.
    why : str
        One line on why this is no live widget; empty where it only stands in.
    """
    name = f"{facts['title']}: {facts['subtitle']} · {facts['provenance']}"
    said = [choice["headline"] + " " + choice["body"], f"How sure: {choice['sure']}"] if choice else []
    said += [f"Limit: {limit}" for limit in choice["limits"]] if choice else []
    lines = "".join(f"<p>{_text(line)}</p>" for line in (why, facts["message"], *said) if line)
    source = base64.b64encode(svg(picture, name).encode()).decode()
    shown = f'<img alt="{_text(name)}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    head = "".join(f"<th>{_text(column)}</th>" for column, _ in _COLUMNS)
    rows = "".join(_html_row(row) for row in facts["rows"])
    return f"<div>{lines}{shown}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def _html_row(row: Row) -> str:
    if not is_measured(row):
        return f"<tr><td>{_text(row['name'])}</td><td colspan=8>{_text(row['status'])} {_text(row['error'])}</td></tr>"
    return "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in [row["name"], *cells(row)]) + "</tr>"


def _text(text: Any) -> str:
    return escape(clean(str(text)))
