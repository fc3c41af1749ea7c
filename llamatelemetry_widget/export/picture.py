"""The picture of all heads: where each thumbnail, label and legend stands, drawn as SVG or as PNG from one layout.

In: the facts, thumbnails and view state of an attention grid. Out: a `Picture`, its SVG text, its PNG bytes.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from ..errors import BackendMissing
from . import colour
from .raster import png
from .thumbnails import FUTURE, OUTSIDE, shrink, unseen

Array = np.ndarray[Any, Any]

MARGIN, LABELS, GAP, GROUP_GAP = 16, 58, 2, 4  # px; GROUP_GAP stands between heads of different KV heads
_LEVELS = 120  # shades of the ramp in the raster: with the dimmed ones they fit one colour table
_PAPER, _FILL, _RAMP = 0, 1, 2
_LEGEND = 220
_SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Look:
    """How the grid is looked at.

    Attributes
    ----------
    theme : {"light", "dark"}
    scale : {"log", "linear", "row"}
    sink_aside : bool
    kept : bool (heads,) or None
        Heads that pass the filter; None = all.
    locked : (layer, head) or None
    cell : int
        The most pixels of a thumbnail's side.
    """

    theme: str = "light"
    scale: str = "log"
    sink_aside: bool = True
    kept: Array | None = None
    locked: tuple[int, int] | None = None
    cell: int = 64


@dataclass(frozen=True)
class Text:
    """A line of text: its point on the baseline, size in px, where it is anchored, whether it reads upwards."""

    x: float
    y: float
    text: str
    size: int = 11
    colour: str = "ink3"
    bold: bool = False
    anchor: str = "start"
    turned: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle: filled with a colour of the page, or outlined by `width` px."""

    x: float
    y: float
    w: float
    h: float
    colour: str
    width: int = 0


@dataclass
class Picture:
    """Everything to be drawn, in px."""

    width: int
    height: int
    theme: str
    images: list[tuple[int, int, Array, Array]] = field(default_factory=list)  # x, y, pixels, palette
    boxes: list[Box] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)


@dataclass(frozen=True)
class _Places:
    """Where the cells stand: left edges of the layers' columns, top edges of the heads' rows, size of a cell."""

    x: list[int]
    y: list[int]
    w: int
    h: int
    repeat: tuple[int, int]  # px per cell of a thumbnail, downwards and to the right


def draw(facts: Mapping[str, Any], thumbnails: Array, look: Look) -> Picture:
    """Lay out the picture.

    Parameters
    ----------
    facts : mapping
        As the widget sends it to the browser: layers, tokens, provenance.
    thumbnails : uint8 (heads, side_rows, side_keys)
        Codes of all heads, in the order of layers, then heads.
    look : Look
    """
    codes = shrink(thumbnails, look.cell, look.cell)
    at = _place(facts["layers"], codes.shape[1], codes.shape[2], look.cell)
    width = max(MARGIN * 2 + LABELS + (at.x[-1] + at.w if at.x else 0), _room_for(facts["provenance"]))
    picture = Picture(width, 0, look.theme)
    top = _header(picture, facts, look)
    if not at.y:
        reason = facts["layers"][0]["reason"] if facts["layers"] else facts["message"]
        picture.texts.append(Text(MARGIN, top + 16, f"No layer has attention: {reason}"[:110], 13, "ink2"))
        picture.height = top + 32
        return picture
    palette = _palette(look.theme)
    picture.images.append((MARGIN + LABELS, top + 16, _cells(facts, codes, look, at), palette))
    _labels(picture, facts["layers"], look, at, top)
    bottom = top + 16 + at.y[-1] + at.h + (18 if _windows(facts["layers"]) else 0)
    _legend(picture, look, bottom + 14, any(layer["mask"] != "none" for layer in facts["layers"]))
    picture.height = bottom + 14 + 48
    return picture


def _place(layers: Sequence[Mapping[str, Any]], rows: int, keys: int, cell: int) -> _Places:
    down, right = (max(1, round(min(48, cell) / max(n, 1))) for n in (rows, keys))
    w, h = max(keys * right, 8), max(rows * down, 8)
    widest = max(layers, key=lambda layer: layer["heads"], default=None)
    heads = widest["heads"] if widest else 0
    share = max(heads // max(widest["kv_heads"], 1), 1) if widest else 1
    y = [head * (h + GAP) + head // share * (GROUP_GAP if share > 1 else 0) for head in range(heads)]
    return _Places([i * (w + GAP) for i in range(len(layers))], y, w, h, (down, right))


def _palette(theme: str) -> Array:
    """uint8 (242, 3): paper, fill, the ramp, the dimmed ramp."""
    page = colour.PAGE[theme]
    levels = colour.ramp(colour.SEQUENTIAL[theme])[np.linspace(0, 255, _LEVELS).round().astype(int)]
    flat = np.stack([colour.rgb(page["paper"]), colour.rgb(page["fill"])])
    return np.concatenate([flat, levels, colour.mix(levels, page["paper"], colour.DIMMED)])


def _cells(facts: Mapping[str, Any], codes: Array, look: Look, at: _Places) -> Array:
    """uint8 (height, width): palette indices of all thumbnails."""
    height, width = (at.y[-1] + at.h if at.y else 1), (at.x[-1] + at.w if at.x else 1)
    out = np.full((height, width), _PAPER, np.uint8)
    shades = colour.places(codes, look.scale, look.sink_aside).astype(np.uint16) * (_LEVELS - 1) // 255 + _RAMP
    if look.kept is not None:
        shades[~look.kept] += _LEVELS
    index = 0
    for x, layer in zip(at.x, facts["layers"], strict=False):
        if layer["kind"] != "attention":
            out[:, x : x + at.w] = _FILL
            continue
        masked = unseen(layer, facts["n_tokens"], codes.shape[1], codes.shape[2])
        for head in range(layer["heads"]):
            y, y_end = at.y[head], at.y[head] + at.h
            empty = codes[index] == 0
            cell = np.where(empty & (masked == OUTSIDE), np.uint16(_PAPER), shades[index])
            cell = np.where(empty & (masked == FUTURE), np.uint16(_FILL), cell)
            if facts["phase"] != "done" and empty.all():
                cell = np.full_like(cell, _FILL)  # not computed is not zero
            big = cell.repeat(at.repeat[0], 0).repeat(at.repeat[1], 1)
            out[y:y_end, x : x + at.w] = _FILL
            out[y : y + big.shape[0], x : x + big.shape[1]] = big
            index += 1
    return out


def _room_for(line: str) -> int:
    """px that a line of 11 px needs, within reason."""
    return min(max(640, 60 + 7 * len(line)), 1600)


def _header(picture: Picture, facts: Mapping[str, Any], look: Look) -> int:
    """Title and provenance; returns where the grid begins."""
    kept = "" if look.kept is None else f" · {int(look.kept.sum())} of {plural(len(look.kept), 'head')} pass the filter"
    picture.texts.append(Text(MARGIN, 28, facts["title"], 15, "ink", bold=True))
    picture.texts.append(Text(MARGIN + 16 + 8.5 * len(facts["title"]), 28, subtitle(facts) + kept, 13, "ink2"))
    picture.texts.append(Text(MARGIN, 48, f"● {facts['provenance']}", 11, "ink3"))
    return 60


def subtitle(facts: Mapping[str, Any]) -> str:
    """``30 layers × 9 heads · 24 tokens``."""
    counts = {layer["heads"] for layer in facts["layers"] if layer["kind"] == "attention"}
    total = sum(layer["heads"] for layer in facts["layers"])
    heads = f" · {plural(total, 'head')}" if counts else ""
    if len(counts) == 1:
        heads = f" × {plural(counts.pop(), 'head')}"
    return f"{plural(len(facts['layers']), 'layer')}{heads} · {_tokens(facts)}"


def _tokens(facts: Mapping[str, Any]) -> str:
    keys = facts["n_tokens"]
    if facts["part"] != "cross":
        return plural(keys, "token")
    rows = len(facts["query_tokens"])
    looks = "looks" if rows == 1 else "look"
    return f"{plural(rows, 'decoder token')} {looks} at {plural(keys, 'encoder token')}"


def plural(n: int, word: str) -> str:
    """``1 head``, ``2 heads``, ``49 152 tokens`` (thin no-break spaces)."""
    return f"{n:,}".replace(",", "\u202f") + f" {word}" + ("" if n == 1 else "s")


def _windows(layers: Sequence[Mapping[str, Any]]) -> bool:
    return any(layer["window"] is not None for layer in layers)


def _labels(picture: Picture, layers: Sequence[Mapping[str, Any]], look: Look, at: _Places, top: int) -> None:
    left, below = MARGIN + LABELS, top + 16
    locked = look.locked or (None, None)
    step_x, step_y = (1 if size >= 22 else 4 for size in (at.w, at.h))
    for i, (x, layer) in enumerate(zip(at.x, layers, strict=False)):
        mine = layer["layer"] == locked[0]
        if mine or i % step_x == 0:
            shade = "accent" if mine else "ink3"
            picture.texts.append(Text(left + x + at.w / 2, top + 11, f"L{layer['layer']}", 10, shade, mine, "middle"))
        if layer["kind"] != "attention":
            middle = below + (at.y[-1] + at.h) / 2
            picture.texts.append(Text(left + x + at.w / 2 + 4, middle, _why(layer), 10, "ink3", False, "middle", True))
        elif _windows(layers) and i % step_x == 0:
            seen = "all" if layer["window"] is None else str(layer["window"])
            under = below + at.y[-1] + at.h + 13
            picture.texts.append(Text(left + x + at.w / 2, under, seen, 10, "ink3", False, "middle"))
    for head, y in enumerate(at.y):
        mine = head == locked[1]
        if mine or head % step_y == 0:
            place = left - 8, below + y + at.h / 2 + 4
            picture.texts.append(Text(*place, f"H{head}", 10, "accent" if mine else "ink3", mine, "end"))
    _brackets(picture, layers, at, below)
    _ring(picture, layers, look, at, below)


def _why(layer: Mapping[str, Any]) -> str:
    """The first word or two of why a layer has no attention."""
    return str(layer["reason"]).split(":")[0].removesuffix(" layer")[:24] or "no attention"


def _brackets(picture: Picture, layers: Sequence[Mapping[str, Any]], at: _Places, below: int) -> None:
    """Lines that join the heads of one KV head."""
    widest = max(layers, key=lambda layer: layer["heads"], default=None)
    if widest is None or widest["kv_heads"] in (0, widest["heads"]):
        return
    share = widest["heads"] // widest["kv_heads"]
    for kv in range(widest["kv_heads"]):
        first, last = at.y[kv * share], at.y[kv * share + share - 1] + at.h
        picture.boxes.append(Box(MARGIN + 16, below + first, 1, last - first, "line"))
        middle = below + (first + last) / 2
        picture.texts.append(Text(MARGIN + 10, middle, f"KV {kv}", 10, "ink3", False, "middle", True))


def _ring(picture: Picture, layers: Sequence[Mapping[str, Any]], look: Look, at: _Places, below: int) -> None:
    """The accent ring around the locked head."""
    column = next(
        (x for x, layer in zip(at.x, layers, strict=False) if look.locked and layer["layer"] == look.locked[0]), None
    )
    if column is None or look.locked is None or look.locked[1] >= len(at.y):
        return
    x, y = MARGIN + LABELS + column, below + at.y[look.locked[1]]
    picture.boxes.append(Box(x - 1, y - 1, at.w + 2, at.h + 2, "accent", 2))


_TICKS = {
    "log": (["≤ 0.001", "0.01", "0.1", "1"], "log scale"),
    "linear": (["0", "½", "1"], "linear scale"),
    "row": (["0", "½", "row's max"], "each row by its own maximum"),
}


def _legend(picture: Picture, look: Look, y: int, masked: bool) -> None:
    ticks, words = _TICKS[look.scale]
    if look.scale == "linear" and look.sink_aside:
        ticks, words = ["0", "½", "head's max"], "linear scale, first token left out of the maximum"
    left = MARGIN + LABELS
    shades = np.linspace(0, _LEVELS - 1, _LEGEND).round().astype(np.uint8) + np.uint8(_RAMP)
    picture.images.append((left, y, np.tile(shades, (8, 1)), _palette(look.theme)))
    picture.boxes.append(Box(left, y, _LEGEND, 8, "line", 1))
    for i, tick in enumerate(ticks):
        anchor = "start" if i == 0 else "end" if i == len(ticks) - 1 else "middle"
        picture.texts.append(Text(left + _LEGEND * i / (len(ticks) - 1), y + 22, tick, 10, "ink3", False, anchor))
    picture.texts.append(Text(left + _LEGEND + 16, y + 8, f"attention weight, {words}", 11, "ink2"))
    note = "rows are queries, columns keys" + ("; future tokens are masked" if masked else "")
    picture.texts.append(Text(left + _LEGEND + 16, y + 22, note, 10, "ink3"))


# ------------------------------------------------------------------------ files

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Text without characters that XML forbids or that turn the reading direction."""
    return _CONTROL.sub("\ufffd", text)


def svg(picture: Picture, name: str) -> str:
    """The picture as SVG: thumbnails as an embedded PNG, everything else as shapes and text.

    Parameters
    ----------
    picture : Picture
    name : str
        What a screen reader says.
    """
    page = colour.PAGE[picture.theme]
    size = f'width="{picture.width}" height="{picture.height}" viewBox="0 0 {picture.width} {picture.height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="{_SANS}">',
        f"<title>{escape(clean(name))}</title>",
        f'<rect width="100%" height="100%" fill="{page["paper"]}"/>',
    ]
    parts += [_svg_image(*image) for image in picture.images]
    parts += [_svg_box(box, page) for box in picture.boxes]
    parts += [_svg_text(text, page) for text in picture.texts]
    return "\n".join([*parts, "</svg>", ""])


def _svg_image(x: int, y: int, pixels: Array, palette: Array) -> str:
    data = base64.b64encode(png(pixels, palette)).decode()
    size = f'x="{x}" y="{y}" width="{pixels.shape[1]}" height="{pixels.shape[0]}"'
    return f'<image {size} style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'


def _svg_box(box: Box, page: Mapping[str, str]) -> str:
    paint = f'fill="none" stroke-width="{box.width}" stroke' if box.width else "fill"
    return f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.w:g}" height="{box.h:g}" {paint}="{page[box.colour]}"/>'


def _svg_text(text: Text, page: Mapping[str, str]) -> str:
    weight = ' font-weight="600"' if text.bold else ""
    turn = f' transform="rotate(-90 {text.x:g} {text.y:g})"' if text.turned else ""
    style = f'font-size="{text.size}" fill="{page[text.colour]}" text-anchor="{text.anchor}"{weight}{turn}'
    return f'<text x="{text.x:g}" y="{text.y:g}" {style}>{escape(clean(text.text))}</text>'


def png_file(picture: Picture, ratio: int = 2) -> bytes:
    """The picture as PNG, `ratio` pixels per px.

    Raises
    ------
    BackendMissing
        Pillow, which draws the text, is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise BackendMissing(
            "PNG pictures need Pillow for their text: pip install 'llamatelemetry-widget[export]', or use to_svg"
        ) from None
    page = colour.PAGE[picture.theme]
    image = Image.new("RGB", (picture.width * ratio, picture.height * ratio), page["paper"])
    for x, y, pixels, palette in picture.images:
        big = palette[pixels].repeat(ratio, 0).repeat(ratio, 1)
        image.paste(Image.fromarray(big), (x * ratio, y * ratio))
    pen = ImageDraw.Draw(image)
    for box in picture.boxes:
        edge = [box.x * ratio, box.y * ratio, (box.x + box.w) * ratio - 1, (box.y + box.h) * ratio - 1]
        if box.width:
            pen.rectangle(edge, outline=page[box.colour], width=box.width * ratio)
        else:
            pen.rectangle(edge, fill=page[box.colour])
    for text in picture.texts:
        _png_text(image, text, page[text.colour], ratio)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


_PIL_ANCHOR = {"start": "ls", "middle": "ms", "end": "rs"}


def _png_text(image: Any, text: Text, ink: str, ratio: int) -> None:
    from PIL import Image, ImageDraw

    font = _font(text.size * ratio, text.bold)
    x, y, words = text.x * ratio, text.y * ratio, clean(text.text)
    if not text.turned:
        ImageDraw.Draw(image).text((x, y), words, ink, font, _PIL_ANCHOR[text.anchor])
        return
    left, top, right, bottom = font.getbbox(words, anchor="ls")
    stencil = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
    ImageDraw.Draw(stencil).text((-left, -top), words, 255, font, "ls")
    turned = stencil.rotate(90, expand=True)
    place = int(x + top), int(y - turned.height / 2)  # turned text is always centred on its point
    image.paste(ink, (*place, place[0] + turned.width, place[1] + turned.height), turned)


def _font(size: int, bold: bool) -> Any:
    """A font with the letters of many languages where the system has one, else the one that comes with Pillow."""
    from PIL import ImageFont

    for name in ("DejaVuSans", "NotoSans-Regular", "Arial", "Helvetica"):
        own = name.replace("-Regular", "") + ("-Bold" if bold else "") if "Noto" not in name or bold else name
        try:
            return ImageFont.truetype(f"{own}.ttf", size)
        except OSError:
            continue
    return ImageFont.load_default(size)
