"""The picture of a token explorer, and the HTML that stands where no widget can be drawn.

In: the facts, the distribution and the written tokens. Out: a `Picture`, an HTML fragment.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from . import colour
from .picture import MARGIN, Box, Picture, Text, clean, svg

ROWS = 16
_HUES = {
    "top_k": ("#86909c", "#8c96a2"),
    "typical_p": ("#158a5c", "#4fc795"),
    "top_p": ("#2f6fb3", "#7db8f0"),
    "min_p": ("#8b5a9e", "#cf9fe0"),
    "temperature": ("#171b21", "#eceff2"),
}
_LEFT, _BARS = 120, 560  # px: tokens, bars
_READABLE = 0.6  # of the ramp: as far as text on it stays readable
_LINE = 860  # px of written tokens


def name(setting: str) -> str:
    """``top-k`` of ``top_k``."""
    known = {"top_k": "top-k", "typical_p": "typical", "top_p": "top-p", "min_p": "min-p"}
    return known.get(setting, setting.replace("_", " "))


def probability(value: float) -> str:
    """``78 %``, ``0.78 %``, ``<0.001 %``."""
    percent = 100 * value
    if percent < 0.0005:
        return "<0.001 %"
    digits = 0 if percent >= 9.95 else 1 if percent >= 0.995 else 2 if percent >= 0.0995 else 3
    return f"{percent:.{digits}f} %"


def count(value: int) -> str:
    """``49 152``."""
    return f"{value:,}".replace(",", "\u202f")


def draw(
    facts: Mapping[str, Any],
    table: Any,
    settings: Mapping[str, Any],
    written: Sequence[Mapping[str, Any]],
    shown: int,
    theme: str,
) -> Picture:
    """Lay out the picture.

    Parameters
    ----------
    facts : mapping
    table : DataFrame
        As `TokenExplorer.distribution`.
    settings : mapping
        Of the chain.
    written : sequence of mapping
        The tokens of the branch.
    shown : int
        How many of them come before the shown distribution.
    theme : {"light", "dark"}
    """
    picture = Picture(max(960, 60 + 7 * len(facts["provenance"])), 0, theme)
    before = [*facts["tokens"], *(node["text"] for node in written[:shown])]
    prompt = "".join(_running(word) for word in before)
    picture.texts += [
        Text(MARGIN, 28, facts["title"], 15, "ink", bold=True),
        Text(MARGIN + 104, 28, f"exact over all {count(facts['n_words'])} tokens", 13, "ink2"),
        Text(MARGIN, 48, f"● {facts['provenance']}", 11, "ink3"),
        Text(MARGIN, 76, (prompt if len(prompt) <= 100 else "… " + prompt[-100:].lstrip()) + " ?", 13, "ink"),
        Text(MARGIN, 96, _chain_words(table, settings), 11, "ink2"),
    ]
    y = _bars(picture, table, 124)
    if written:
        y = _written(picture, written, shown, y + 26)
    picture.height = y + MARGIN
    return picture


def _chain_words(table: Any, settings: Mapping[str, Any]) -> str:
    cut = table["cut_by"].value_counts()
    words = [f"{name(key)} {value:g}{_cuts(cut, key)}" for key, value in settings.items()]
    return f"llama.cpp's chain: {' · '.join(words)}; {count(int((table['after'] > 0).sum()))} left"


def _cuts(cut: Any, key: str) -> str:
    return f" (cuts {count(int(cut[key]))})" if key in cut else ""


def _bars(picture: Picture, table: Any, top: int) -> int:
    """The likeliest tokens, before and after; returns where they end."""
    dark = picture.theme == "dark"
    page, left = colour.PAGE[picture.theme], MARGIN + _LEFT
    most = max(float(table["probability"].iloc[0]), float(table["after"].max()), 1e-9)
    for tick in (0.01, 0.1, 0.25, 0.5, 0.75):
        if tick <= most:
            x = left + math.sqrt(tick / most) * _BARS
            picture.texts.append(Text(x, top, f"{tick:.0%}".replace("%", " %"), 10, "ink3", False, "middle"))
            picture.boxes.append(Box(x, top + 6, 1, ROWS * 20, "line"))
    columns = left + _BARS + 70, left + _BARS + 150
    for x, word in zip(columns, ("model", "after"), strict=True):
        picture.texts.append(Text(x, top, word, 10, "ink3", False, "end"))
    rows = table.head(ROWS)
    for i, row in enumerate(rows.itertuples(index=False)):
        y = top + 8 + i * 20
        cut = row.cut_by != ""
        long = max(1, round(math.sqrt(row.probability / most) * _BARS))
        hue = _HUES[row.cut_by][dark] if cut else page["ink"]
        tone = np.stack([colour.rgb(page["line"]), colour.rgb(hue)])
        pale = colour.mix(tone[1:], page["paper"], 0.45)
        picture.images.append((left, y, np.zeros((13 if cut else 5, long), np.uint8), pale if cut else tone[:1]))
        if not cut:
            after = max(1, round(math.sqrt(row.after / most) * _BARS))
            picture.images.append((left, y + 6, np.zeros((7, after), np.uint8), tone[1:]))
        word = row.token if len(row.token) <= 12 else row.token[:11] + "…"
        picture.texts.append(Text(left - 8, y + 11, word, 12, "ink3" if cut else "ink", not cut, "end"))
        picture.texts.append(Text(columns[0], y + 11, probability(row.probability), 11, "ink3", False, "end"))
        last = f"{name(row.cut_by)} cut" if cut else probability(row.after)
        picture.texts.append(Text(columns[1], y + 11, last, 11, "ink3" if cut else "ink", not cut, "end"))
    y = top + 8 + len(rows) * 20 + 16
    rest = len(table) - len(rows)
    if rest:
        held = max(0.0, float(table["probability"].iloc[len(rows) :].sum()))
        picture.texts.append(Text(left, y, f"and {count(rest)} more tokens, together {probability(held)}", 11, "ink3"))
    p = table["probability"].to_numpy()
    bits = -float((p[p > 0] * np.log2(p[p > 0])).sum())
    picture.texts.append(Text(columns[1], y, f"entropy {bits:.2f} bits", 11, "ink3", False, "end"))
    return y


def _written(picture: Picture, written: Sequence[Mapping[str, Any]], shown: int, top: int) -> int:
    """The written tokens by surprise; returns where they end."""
    ramp = colour.ramp(colour.SEQUENTIAL[picture.theme])
    picture.texts.append(Text(MARGIN, top, "Generated", 12, "ink", bold=True))
    words = f"{len(written)} tokens · stronger colour = less expected by the model (6 bits and more: strongest)"
    picture.texts.append(Text(MARGIN + 76, top, words, 12, "ink3"))
    x, y = MARGIN, top + 12
    for i, node in enumerate(written):
        word = _running(node["text"])
        wide = 6 + 7 * len(word)
        if x + wide > MARGIN + _LINE and x > MARGIN:
            x, y = MARGIN, y + 28
        bits = -math.log2(max(node["probability"], 1e-12))
        shade = ramp[round(min(bits / 6, 1) * _READABLE * 255)]
        picture.images.append((x, y, np.zeros((20, wide), np.uint8), shade[None]))
        if i == shown:
            picture.boxes.append(Box(x - 1, y - 1, wide + 2, 22, "accent", 2))
        picture.texts.append(Text(x + 3, y + 14, word, 12, _ink(shade, picture.theme)))
        x += wide + 2
    return y + 22


def _ink(shade: Any, theme: str) -> str:
    """The colour of the page that is read better on this one."""
    light = float(np.asarray(shade, np.float64) @ [0.2126, 0.7152, 0.0722]) > 120
    return "ink" if light == (theme == "light") else "paper"


def _running(token: str) -> str:
    return " " + token[1:] if token.startswith("·") and len(token) > 1 else token


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
    title = f"{facts['title']}: exact over all {count(facts['n_words'])} tokens · {facts['provenance']}"
    line = f"<p>{_text(why)}</p>" if why else ""
    source = base64.b64encode(svg(picture, title).encode()).decode()
    shown = f'<img alt="{_text(title)}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    return f"<div>{line}{shown}<p>{_text(title)}</p></div>"


def _text(text: str) -> str:
    return escape(clean(str(text)))
