"""Several widgets in one HTML file, their selections linked.

In: widgets, or parts that they gave. Out: a file that needs neither kernel nor network.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from ..errors import LlamaTelemetryError
from .page import Part, page


class Exportable(Protocol):
    """A widget that can stand in a page."""

    links: tuple[object, ...]

    def page_part(self) -> Part:
        """What the page holds of it."""


def save_html(path: str | os.PathLike[str], *widgets: Exportable | Part) -> str:
    """Write several widgets into one HTML file that needs no kernel and no network.

    Widgets that show the same trace, and those that `link` joined, stay linked in the file: a head or token chosen in
    one is chosen in the others.

    Parameters
    ----------
    path : path
        Where to write it; its size is then printed.
    *widgets
        In the order in which they stand in the page. Where a widget's `page_part` takes options, its result can be
        given instead, e.g. ``grid.page_part(heads="all")``.

    Returns
    -------
    str
        The page.

    Examples
    --------
    >>> lt.save_html("both.html", lt.AttentionGrid(trace), lt.HeadComparison(trace))  # doctest: +SKIP
    """
    if not widgets:
        raise LlamaTelemetryError("save_html needs at least one widget: save_html(path, widget, ...)")
    text = page(*(one if isinstance(one, Part) else _part(one) for one in widgets))
    target = Path(path)
    target.write_text(text, "utf-8")
    print(f"{target} · {target.stat().st_size / 1e6:.1f} MB · {len(widgets)} widget{'' if len(widgets) == 1 else 's'}")
    return text


def _part(widget: Exportable) -> Part:
    if not hasattr(widget, "page_part"):
        raise LlamaTelemetryError(
            f"a page holds widgets of this package, not {type(widget).__name__}: save_html(path, widget, ...)"
        )
    part = widget.page_part()
    return replace(part, shares=[*part.shares, *((link, "") for link in widget.links)])
