"""What stands where no widget can be drawn: a picture of all heads and a table of the most striking ones, plain HTML.

In: facts, thumbnails and statistics of an attention grid. Out: an HTML fragment without scripts.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from .picture import Look, clean, draw, subtitle, svg

Array = np.ndarray[Any, Any]

_CELL = 24  # px: the picture is stored with every output, so it is small


def strongest(facts: Mapping[str, Any], statistics: Array) -> list[tuple[str, int, int, float]]:
    """For each statistic with a histogram: its label, the layer and head with the highest value, and the value."""
    heads = [(layer["layer"], head) for layer in facts["layers"] for head in range(layer["heads"])]
    found = []
    for i, fact in enumerate(facts["statistics"]):
        values = statistics[:, i] if len(statistics) else np.empty(0, np.float32)
        if fact["histogram"] and np.isfinite(values).any():
            best = int(np.nanargmax(values))
            found.append((fact["label"], *heads[best], float(values[best])))
    return found


def fallback(facts: Mapping[str, Any], thumbnails: Array, statistics: Array, look: Look, why: str = "") -> str:
    """The fragment.

    Parameters
    ----------
    facts, thumbnails, statistics
        As the widget sends them to the browser.
    look : Look
    why : str
        One line on why this is no live widget; empty where it only stands in.
    """
    name = f"{facts['title']}: {subtitle(facts)} · {facts['provenance']}"
    small = Look(look.theme, look.scale, look.sink_aside, look.kept, look.locked, _CELL)
    source = base64.b64encode(svg(draw(facts, thumbnails, small), name).encode()).decode()
    picture = f'<img alt="{_text(name)}" style="max-width:100%" src="data:image/svg+xml;base64,{source}">'
    words = [f"<p>{_text(line)}</p>" for line in (why, facts["message"]) if line]
    shown = picture if thumbnails.size else ""
    return f"<div>{''.join(words)}{shown}<p>{_text(name)}</p>{_table(facts, statistics)}</div>"


def _table(facts: Mapping[str, Any], statistics: Array) -> str:
    rows = [
        f"<tr><td>{_text(label)}</td><td>L{layer} H{head}</td><td>{value:.2f}</td>"
        f"<td>{_text(facts['names'].get(f'{layer},{head}', ''))}</td></tr>"
        for label, layer, head, value in strongest(facts, statistics)
    ]
    head = "<tr><th>Statistic</th><th>Highest in</th><th>Value</th><th>Head</th></tr>"
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>" if rows else ""
    shown = " ".join(facts["tokens"][:64]) + (" …" if len(facts["tokens"]) > 64 else "")
    return f"{table}<p><code>{_text(shown)}</code></p>" if shown else table


def _text(text: str) -> str:
    return escape(clean(str(text)))
