"""The picture of a telemetry panel, and the HTML that stands where no widget can be drawn.

In: the facts, the series of its runs, the samples of its source. Out: a `Picture`, an HTML fragment.
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

Array = np.ndarray[Any, Any]
_CHART = 900  # px: the charts
_AXIS = 40  # px: their labels, left of them
_BITS, _READABLE = 6.0, 0.6  # where the colour of surprise ends, and how far it goes into the ramp
_ROWS = 8  # figures of a live source that have a line, and operations
_BUSY = 1.5  # a run without stops that takes so much longer than one with them was disturbed
_SEEN = 0.5  # px: what is thinner cannot be drawn
_KINDS = {"attention": "attention", "recurrence": "ink2", "MLP": "mlp", "norm": "ink3", "other": "line"}


def size(n: float) -> str:
    """``652 kB``, ``98.4 MB``, ``1.23 GB``."""
    for unit in ("B", "kB", "MB"):
        if n < 999.5:
            return f"{n:.0f} {unit}" if unit == "B" or n >= 99.95 else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.2f} GB"


def number(value: Any, digits: int = 3) -> str:
    """So many figures; a dash where nothing was measured."""
    if value is None or not math.isfinite(value):
        return "–"
    whole = abs(value) >= 10 ** (digits - 1)
    return f"{value:,.0f}".replace(",", "\u202f") if whole or value == 0 else f"{value:.{digits}g}"


def duration(ms: float | None) -> str:
    """``8.7 ms``, ``99 ms``, ``1.4 s``."""
    if ms is None or not math.isfinite(ms):
        return "–"
    return f"{number(ms, 2)} ms" if ms < 999.5 else f"{ms / 1e3:.1f} s"


def top_of(most: float) -> float:
    """Where an axis from 0 ends: 1, 2 or 5 times a power of ten."""
    if not math.isfinite(most) or most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= most * (1 - 1e-9))


def figures(run: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Value, unit and name of what stands in the line."""
    told = run["numbers"]
    memory = told.get("memory")
    value, _, unit = ("–", "", "") if memory is None else size(memory).partition(" ")
    first, _, first_unit = duration(told.get("first")).partition(" ")
    used, room = told.get("used"), told.get("size")
    return [
        (number(told.get("decode")), "tokens/s", "decode"),
        (first, first_unit, "first token"),
        (number(told.get("prefill")), "tokens/s", "prefill"),
        (value, unit, "memory"),
        (number(used), f"/ {number(room)}", "context"),
    ]


def draw(
    facts: Mapping[str, Any],
    series: Sequence[Array],
    samples: Array,
    theme: str,
    times: Mapping[str, Any],
    layer: int | None = None,
) -> Picture:
    """Lay out the picture.

    Parameters
    ----------
    facts : mapping
        As the widget sends it to the browser.
    series : sequence of float32 (3, written)
        Milliseconds, threads and surprise of each token, of each run.
    samples : float64 (1 + figures, samples)
    theme : {"light", "dark"}
    times : mapping
        The trait `operation_times`.
    layer : int, optional
        The layer that is marked.
    """
    picture = Picture(2 * MARGIN + _AXIS + _CHART, 0, theme)
    picture.texts += [
        Text(MARGIN, 28, facts["title"], 15, "ink", bold=True),
        Text(MARGIN, 48, f"● {facts['provenance']}", 11, "ink3"),
    ]
    y = 66
    for run in facts["runs"]:
        y = _line(picture, run, y)
    if any(own.shape[1] for own in series):
        y = _bars(picture, series, y + 22)
    if times:
        y = _operations(picture, times, _layers(picture, times, layer, y + 30))
    for run in facts["runs"]:
        y = _memory(picture, run, y)
        y = _overhead(picture, run, y)
    if samples.shape[1]:
        y = _samples(picture, facts, samples, y + 12)
    if facts["no_gpu"]:
        picture.texts.append(Text(MARGIN, y + 24, facts["no_gpu"], 12, "ink3"))
        y += 24
    picture.height = y + MARGIN
    return picture


def _line(picture: Picture, run: Mapping[str, Any], y: int) -> int:
    picture.boxes.append(Box(MARGIN, y, _AXIS + _CHART, 1, "line"))
    for i, (value, unit, label) in enumerate(figures(run)):
        x = MARGIN + i * 188
        picture.texts.append(Text(x, y + 20, value, 17, "ink", bold=True))
        picture.texts.append(Text(x + 11 * len(value) + 6, y + 20, unit, 12, "ink2"))
        picture.texts.append(Text(x, y + 37, label, 11, "ink3"))
    if run["message"]:
        picture.texts.append(Text(MARGIN, y + 58, run["message"][:130], 12, "ink2"))
        y += 20
    picture.boxes.append(Box(MARGIN, y + 46, _AXIS + _CHART, 1, "line"))
    return y + 46


def _axis(picture: Picture, top: int, high: int, most: float) -> None:
    """Lines at 0, the middle and the top."""
    for share in (0.0, 0.5, 1.0):
        y = top + round(high * (1 - share))
        picture.boxes.append(Box(MARGIN + _AXIS, y, _CHART, 1, "line"))
        picture.texts.append(Text(MARGIN + _AXIS - 8, y + 4, number(most * share), 10, "ink3", False, "end"))


def _bars(picture: Picture, series: Sequence[Array], y: int) -> int:
    """Milliseconds of every token, from 0, over its surprise."""
    times = series[0][0]
    both = np.concatenate([own[0] for own in series])
    words = (
        f"median {number(float(np.median(times)), 2)} · slowest {number(float(times.max()), 2)}" if times.size else ""
    )
    picture.texts.append(Text(MARGIN, y, "Milliseconds per token", 12, "ink", bold=True))
    picture.texts.append(Text(MARGIN + 160, y, words, 12, "ink3"))
    top, high, most = y + 14, 72, top_of(float(both.max()))
    _axis(picture, top, high, most)
    n = max(own.shape[1] for own in series)
    step = _CHART / n
    ramp = colour.ramp(colour.SEQUENTIAL[picture.theme])
    for column in range(min(n, _CHART)):
        tokens = (
            slice(column, column + 1) if n <= _CHART else slice(*(round(e * n / _CHART) for e in (column, column + 1)))
        )
        x = MARGIN + _AXIS + column * max(step, 1)
        wide = max(1, step - (1.5 if step >= 4 else 0))
        for own, shade in zip(series, ("ink3", "ink"), strict=False):
            part = own[:, tokens]
            if not part.shape[1]:
                continue
            tall = max(1.0, high * float(part[0].max()) / most)
            drawn = Box(x, top + high - tall, wide, tall if shade == "ink3" else 2, shade)
            picture.boxes.append(drawn)
        bits = series[0][2, tokens]
        if bits.size:
            place = round(min(float(bits.max()) / _BITS, 1) * _READABLE * 255)
            strip = np.zeros((7, max(1, round(wide))), np.uint8)
            picture.images.append((round(x), top + high + 4, strip, ramp[place][None]))
    under = top + high + 24
    note = "colour = less expected by the model" + (" · line = the other run" if len(series) > 1 else "")
    picture.texts += [
        Text(MARGIN + _AXIS, under, "token 1", 10, "ink3"),
        Text(MARGIN + _AXIS + _CHART, under, str(n), 10, "ink3", False, "end"),
        Text(MARGIN + _AXIS + _CHART / 2, under, note, 10, "ink3", False, "middle"),
    ]
    return under + 6


def times_words(times: Mapping[str, Any]) -> str:
    """How the times of operations are meant."""
    n, ms, whole = times["tokens"], times["ms"], times["whole_ms"]
    slower = ", slower than a plain run" if ms > whole else ""
    busy = ", the machine was busy" if whole > _BUSY * ms else ""
    return (
        f"measured op by op{slower}: {duration(ms)}, without stops {duration(whole)}{busy} · "
        f"prompt of {number(n)} token{'' if n == 1 else 's'} · median of {times['repeats']}"
    )


def _layers(picture: Picture, times: Mapping[str, Any], layer: int | None, y: int) -> int:
    """A bar for each layer, from 0, of parts of each kind; before and after them what is in no layer."""
    own = times["layers"]
    picture.texts.append(Text(MARGIN, y, "Layers", 12, "ink", bold=True))
    picture.texts.append(Text(MARGIN + 60, y, times_words(times), 12, "ink3"))
    top, high, most = y + 14, 72, top_of(max(sum(bar["ms"]) for bar in own))
    _axis(picture, top, high, most)
    step = _CHART / len(own)
    wide = max(1, step - (1.5 if step >= 4 else 0))
    for at, bar in enumerate(own):
        x, foot = MARGIN + _AXIS + at * step, float(top + high)
        for kind, ms in zip(times["kinds"], bar["ms"], strict=True):
            tall = high * ms / most
            if tall >= _SEEN:
                picture.boxes.append(Box(x, foot - tall, wide, tall, _KINDS[kind]))
            foot -= tall
        if layer is not None and bar["layer"] == layer:
            picture.boxes.append(Box(x - 1, foot - 1, wide + 2, top + high - foot + 2, "accent", 2))
    under = top + high + 14
    picture.texts.append(Text(MARGIN + _AXIS, under, _bar_name(own[0]), 10, "ink3"))
    picture.texts.append(Text(MARGIN + _AXIS + _CHART, under, _bar_name(own[-1]), 10, "ink3", False, "end"))
    x = MARGIN + _AXIS + 100
    for kind in times["kinds"]:
        picture.boxes.append(Box(x, under - 8, 9, 9, _KINDS[kind]))
        picture.texts.append(Text(x + 14, under, kind, 10, "ink2"))
        x += 40 + 6 * len(kind)
    return under + 26


def _bar_name(bar: Mapping[str, Any]) -> str:
    """``L3``, ``embedding``, ``decoder output``."""
    own = f"L{bar['layer']}" if bar["stage"] == "layers" else {"input": "embedding"}.get(bar["stage"], bar["stage"])
    return own if bar["part"] == "self" else f"{bar['part']} {own}"


def _operations(picture: Picture, times: Mapping[str, Any], y: int) -> int:
    """A line for each of the costliest operations: its share, and to what it belongs."""
    picture.texts.append(Text(MARGIN, y, "Operations", 12, "ink", bold=True))
    picture.texts.append(Text(MARGIN + 80, y, "by their share of these times", 12, "ink3"))
    whole = max(times["ms"], 1e-12)
    most = max(sum(own["ms"]) for own in times["operations"]) or 1.0
    left, wide = MARGIN + 180, _CHART - 320
    for own in times["operations"][:_ROWS]:
        y += 20
        ms, x = sum(own["ms"]), float(left)
        picture.texts.append(Text(MARGIN, y, f"{own['op']} × {own['count']}", 11, "ink2"))
        for kind, part in zip(times["kinds"], own["ms"], strict=True):
            if wide * part / most >= _SEEN:
                picture.boxes.append(Box(x, y - 9, wide * part / most, 10, _KINDS[kind]))
            x += wide * part / most
        words = f"{share(ms / whole)} · {duration(ms)}"
        picture.texts.append(Text(MARGIN + _AXIS + _CHART, y, words, 11, "ink2", False, "end"))
    rest = [sum(own["ms"]) for own in times["operations"][_ROWS:]]
    if rest:
        y += 20
        words = f"{len(rest)} more, together {share(sum(rest) / whole)}"
        picture.texts.append(Text(MARGIN, y, words, 11, "ink3"))
    return y + 6


def share(part: float) -> str:
    """``78 %``, ``0.4 %``, ``<0.1 %``."""
    return "<0.1 %" if 0 < part < 0.001 else f"{number(100 * part, 2)} %"


def _memory(picture: Picture, run: Mapping[str, Any], y: int) -> int:
    most = max((place["total"] for place in run["memory"]), default=0)
    for place in run["memory"]:
        y += 24
        picture.texts.append(Text(MARGIN, y, f"Memory: {place['place'].lower()}", 12, "ink", bold=True))
        picture.texts.append(Text(MARGIN + 210, y, size(place["total"]), 12, "ink3"))
        x = float(MARGIN)
        for i, part in enumerate(place["parts"]):
            wide = (_AXIS + _CHART) * part["bytes"] / max(most, 1)
            shade = "line" if part["owner"] == "rest" else ("ink2", "ink3")[i % 2]
            picture.boxes.append(Box(x, y + 8, max(wide - 2, 1), 12, shade))
            x += max(wide, 2)
        words = " · ".join(f"{part['label']} {size(part['bytes'])}" for part in place["parts"])
        picture.texts.append(Text(MARGIN, y + 34, words + (f" · {place['note']}" if place["note"] else ""), 11, "ink2"))
        y += 36
    return y


def _overhead(picture: Picture, run: Mapping[str, Any], y: int) -> int:
    words = overhead_words(run["numbers"].get("overhead"))
    if words:
        y += 24
        picture.texts.append(Text(MARGIN, y, words, 12, "ink2"))
    return y


def overhead_words(found: Mapping[str, Any] | None) -> str:
    """What capture adds, in a sentence; empty where it was not measured."""
    if not found:
        return ""
    parts = [
        f"{name} × {found[f'{name}_ratio']:.2f} ({duration(1e3 * found[f'{name}_seconds'])}, without capture "
        f"{duration(1e3 * found[f'plain_{name}_seconds'])})"
        for name in ("prefill", "decode")
        if f"{name}_ratio" in found
    ]
    return f"Capture: {'; '.join(parts)}; medians of {found['repeats']}"


def _samples(picture: Picture, facts: Mapping[str, Any], samples: Array, y: int) -> int:
    """One line of points for each figure of the source, from 0."""
    when = samples[0]
    span = max(float(when[-1] - when[0]), 1e-9)
    for figure, values in list(zip(facts["figures"], samples[1:], strict=False))[:_ROWS]:
        known = np.isfinite(values)
        last = values[known][-1] if known.any() else None
        name = f"{figure['device']} {figure['label']}".strip()
        shown = size(last) if figure["unit"] == "B" and last is not None else f"{number(last)} {figure['unit']}".strip()
        picture.texts.append(Text(MARGIN, y + 22, name, 12, "ink"))
        picture.texts.append(Text(MARGIN + _AXIS + _CHART, y + 22, shown, 12, "ink2", True, "end"))
        left, wide, high = MARGIN + 180, _CHART - 260, 24
        picture.boxes.append(Box(left, y + 4 + high, wide, 1, "line"))
        most = top_of(float(values[known].max())) if known.any() else 1.0
        for at, value in zip(when[known], values[known], strict=True):
            x = left + wide * float(at - when[0]) / span
            picture.boxes.append(Box(x, y + 4 + high - high * float(value) / most, 2, 2, "ink2"))
        y += 34
    return y


def fallback(title: str, picture: Picture, why: str) -> str:
    """The fragment: the picture and its name.

    Parameters
    ----------
    title : str
    picture : Picture
        As `draw` laid it out.
    why : str
        One line on why this is no live widget; empty where it only stands in.
    """
    line = f"<p>{_text(why)}</p>" if why else ""
    source = base64.b64encode(svg(picture, title).encode()).decode()
    shown = f'<img alt="{_text(title)}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    return f"<div>{line}{shown}<p>{_text(title)}</p></div>"


def _text(text: str) -> str:
    return escape(clean(str(text)))
