"""The drawings of a tour as plain JSON: tokens, vectors, matrices, bars, angles, groups of heads.

In: arrays and words. Out: dictionaries that `js/src/tour` draws; their numbers are rounded to four figures, a
vector that is longer than a screen is reduced to the largest numbers of its runs, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Figure = dict[str, Any]

CELLS = 192  # of a drawn vector
_FIRST = 4  # numbers of a vector that are written out


def number(value: float) -> str:
    """Three figures: ``54.2``, ``\u22120.00312``, ``1\u202f024``; a whole number below a thousand as it is."""
    size = float(f"{abs(value):.2e}")
    if size >= 1000 or value == int(value):
        text = f"{abs(round(value)):,}".replace(",", "\u202f")
    elif size >= 1e-4:
        text = f"{size:.{max(0, 2 - math.floor(math.log10(size)))}f}"
    else:
        mantissa, _, power = f"{size:.1e}".partition("e")
        text = f"{mantissa}e\u2212{abs(int(power))}"
    return f"\u2212{text}" if value < 0 else text


def share(value: float) -> str:
    """A probability as UI text: ``78 %``, ``9.3 %``, ``0.78 %``, ``<1e−6``."""
    if value < 1e-6:
        return "<1e\u22126"
    percent = 100 * value
    digits = 0 if percent >= 9.95 else 1 if percent >= 0.995 else 2 if percent >= 0.0995 else 4
    return f"{percent:.{digits}f}\u202f%"


def name(tokens: Sequence[str], at: int) -> str:
    """A token with its place: ``·lamp₆``."""
    return tokens[at] + "".join(chr(0x2080 + int(digit)) for digit in str(at))


def rounded(values: Array) -> list[float]:
    """Numbers with four figures."""
    return [float(f"{value:.4g}") for value in np.asarray(values, np.float64).reshape(-1).tolist()]


def chips(tokens: Sequence[str], marked: Sequence[int]) -> Figure:
    """Tokens in a row, some of them marked."""
    return {"kind": "chips", "tokens": list(tokens), "marked": [int(at) for at in marked]}


def strips(*rows: tuple[str, Array], sign: str = "") -> Figure:
    """Vectors, one below the other on one scale of colours.

    Parameters
    ----------
    *rows : (str, ndarray)
        Label and numbers.
    sign : str
        What stands before each row, e.g. ``" +="``.
    """
    vectors = [np.asarray(vector, np.float64).reshape(-1) for _, vector in rows]
    return {
        "kind": "strips",
        "limit": float(f"{max(float(np.abs(vector).max(initial=0)) for vector in vectors):.4g}"),
        "rows": [
            {
                "label": label,
                "sign": sign[at : at + 1].strip(),
                "cells": rounded(_reduced(vector)),
                "size": vector.size,
                "first": [number(value) for value in vector[:_FIRST].tolist()],
                "norm": number(float(np.linalg.norm(vector))),
            }
            for at, ((label, _), vector) in enumerate(zip(rows, vectors, strict=True))
        ],
    }


def _reduced(vector: Array) -> Array:
    """At most `CELLS` numbers: of each run the one farthest from 0, as it is."""
    if vector.size <= CELLS:
        return vector
    runs = np.array_split(vector, CELLS)
    return np.array([run[np.abs(run).argmax()] for run in runs])


def matrix(values: Array, rows: Sequence[str], columns: Sequence[str], scale: str, mark: Sequence[int] = ()) -> Figure:
    """A heat map; cells that are not finite are masked. ``scale`` is ``"weight"`` (from 0) or ``"signed"``."""
    table = np.asarray(values, np.float64)
    seen = np.isfinite(table)
    limit = float(np.abs(table[seen]).max(initial=0))
    cells = [
        [float(f"{v:.3g}") if ok else None for v, ok in zip(*row, strict=True)] for row in zip(table, seen, strict=True)
    ]
    found = {"kind": "matrix", "rows": list(rows), "columns": list(columns), "cells": cells, "scale": scale}
    return {**found, "limit": float(f"{limit:.4g}"), "mark": [int(at) for at in mark]}


def bars(rows: Sequence[tuple[str, float, str]], marked: Sequence[int] = (), what: str = "") -> Figure:
    """Lengths with labels and their numbers as text; a value that is not finite has no bar."""
    return {
        "kind": "bars",
        "what": what,
        "rows": [
            {"label": label, "value": float(f"{value:.4g}") if math.isfinite(value) else None, "text": text}
            for label, value, text in rows
        ],
        "marked": [int(at) for at in marked],
    }


def dials(angles: Array, turns: Sequence[str], what: str) -> Figure:
    """Hands of clocks, in radians; ``turns`` says under each how far one token turns it."""
    return {"kind": "dials", "angles": rounded(angles), "turns": list(turns), "what": what}


def groups(heads: int, kv_heads: int, head: int) -> Figure:
    """Which query heads read which keys and values."""
    return {"kind": "groups", "heads": heads, "kv_heads": kv_heads, "head": head}
