"""Widgets whose selections follow each other.

In: living widgets. Out: a `Link`; a head or token chosen in one is chosen in the others, in their browser sides too.
"""

from __future__ import annotations

from typing import Any

import traitlets

from ..errors import LlamaTelemetryError
from ..export.page import SHARED
from .base import TelemetryWidget

#: What goes together: a head means nothing without its layer. Each with the value that frees it.
_UNITS: tuple[dict[str, Any], ...] = ({"selected_layer": None, "selected_head": None}, {"selected_tokens": []})


class Link:
    """Made by `link`: the selections of its widgets follow each other until `unlink`."""

    def __init__(self, widgets: tuple[TelemetryWidget, ...]) -> None:
        self._widgets = widgets
        self._copying = False
        for widget in widgets:
            widget.observe(self._changed, [name for name in SHARED if widget.has_trait(name)])
            widget.links = (*widget.links, self)
        self._copy(widgets[0])

    def unlink(self) -> None:
        """Let each widget go its own way again."""
        for widget in self._widgets:
            widget.unobserve(self._changed, [name for name in SHARED if widget.has_trait(name)])
            widget.links = tuple(link for link in widget.links if link is not self)
        self._widgets = ()

    def _changed(self, change: Any) -> None:
        self._copy(change["owner"])

    def _copy(self, source: TelemetryWidget) -> None:
        """Give a widget's selection to the others; what they then change themselves does not come back."""
        if self._copying:
            return
        self._copying = True
        try:
            for target in self._widgets:
                if target is not source:
                    for unit in _UNITS:
                        _hand_on(source, target, unit)
        finally:
            self._copying = False


def link(*widgets: TelemetryWidget) -> Link:
    """Let widgets share what is selected: layer and head, and tokens.

    They may show different traces. What a widget does not have (a layer of a deeper model, a token of a longer prompt)
    frees its selection instead, where it can be free. `save_html` keeps the link in the file it writes.

    Parameters
    ----------
    *widgets
        Two or more; all take the selection of the first at once.

    Returns
    -------
    Link
        Its ``unlink()`` ends it.

    Examples
    --------
    >>> lt.link(lt.AttentionGrid(trace_q4), lt.AttentionGrid(trace_q8))  # doctest: +SKIP
    """
    for widget in widgets:
        if not isinstance(widget, TelemetryWidget) or not any(map(widget.has_trait, SHARED)):
            raise LlamaTelemetryError(f"{type(widget).__name__} has no selection to link")
    if len(widgets) < 2:
        raise LlamaTelemetryError("link joins two widgets or more: link(a, b)")
    return Link(widgets)


def _hand_on(source: TelemetryWidget, target: TelemetryWidget, unit: dict[str, Any]) -> None:
    names = [name for name in unit if source.has_trait(name) and target.has_trait(name)]
    for values in ({name: getattr(source, name) for name in names}, {name: unit[name] for name in names}):
        try:
            return _set(target, values)
        except traitlets.TraitError:
            continue


def _set(target: TelemetryWidget, values: dict[str, Any]) -> None:
    with target.hold_sync(), target.hold_trait_notifications():  # one message, and no half-way state
        for name, value in values.items():
            setattr(target, name, value)
