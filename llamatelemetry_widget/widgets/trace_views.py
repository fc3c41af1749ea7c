"""`TraceViews`: everything that a trace has to show, one widget below the other, as the cell magic displays it.

In: a `Trace`. Out: an `AttentionGrid` per part of the model and an `ExpertStrip` where there are experts, linked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .attention_grid import AttentionGrid
from .expert_strip import ExpertStrip
from .links import link

if TYPE_CHECKING:
    from ..trace import Trace


class TraceViews:
    """The widgets of one trace. In a notebook it displays them one below the other.

    Parameters
    ----------
    trace : Trace
    grid : AttentionGrid, optional
        One that shows the trace's first part already; made anew by default.

    Attributes
    ----------
    grids : dict of str to AttentionGrid
        One per part: ``"self"``, or ``"encoder"``, ``"decoder"`` and ``"cross"``.
    experts : ExpertStrip or None
        Linked to the grid: a layer or token chosen in one is chosen in the other. None where the model has no experts.

    Examples
    --------
    >>> views = TraceViews(model.trace("Four score and seven"))  # doctest: +SKIP
    >>> views.grids["cross"].select(0, 1)  # doctest: +SKIP
    """

    def __init__(self, trace: Trace, grid: AttentionGrid | None = None) -> None:
        first = grid or AttentionGrid(trace)
        parts = trace.parts or ("self",)
        self.grids = {part: first if part == parts[0] else AttentionGrid(trace, part) for part in parts}
        self.experts = ExpertStrip(trace) if trace.experts else None
        if self.experts is not None:
            link(first, self.experts)

    def __iter__(self) -> Iterator[AttentionGrid | ExpertStrip]:
        yield from self.grids.values()
        if self.experts is not None:
            yield self.experts

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return "\n".join(repr(widget) for widget in self)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        for widget in self:
            display(widget)  # type: ignore[no-untyped-call]

    def to_html(self, path: str | os.PathLike[str]) -> str:
        """All of them in one HTML file that needs no kernel and no network, still linked; see `save_html`."""
        from ..export.together import save_html

        return save_html(path, *self)

    def close(self) -> None:
        """End the connections to the browser; the widgets then display as pictures."""
        for widget in self:
            widget.close()
