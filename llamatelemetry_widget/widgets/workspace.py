"""`Workspace`: everything about one prompt side by side: attention, layers, next token, model, one selection.

In: a `Trace` whose model is open. Out: a plain ipywidgets layout of the widgets, linked, and one HTML file of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from ..errors import CaptureUnavailable, LlamaTelemetryError
from ..trace import Trace
from .architecture_tree import ArchitectureTree
from .attention_grid import AttentionGrid
from .base import TelemetryWidget, display_with_picture
from .expert_strip import ExpertStrip
from .hosts import stacks_outputs, why_static
from .layer_lens import LayerLens
from .links import link
from .token_explorer import TokenExplorer
from .trace_views import TraceViews

if TYPE_CHECKING:
    import ipywidgets


class Workspace:
    """The widgets of one trace in tabs, sharing what is selected.

    A layer, head or token that is chosen in one is chosen in the others. What this model or trace cannot show is left
    out, with a sentence that says why.

    Parameters
    ----------
    trace : Trace
        Of a model that is still open; without one, what needs the model is left out.

    Attributes
    ----------
    grid : AttentionGrid or None
        Of the first part of the model.
    experts : ExpertStrip or None
        Where the model has experts.
    lens : LayerLens or None
    explorer : TokenExplorer or None
    tree : ArchitectureTree or None
    missing : dict of str to str
        What was left out, and why.
    box : ipywidgets.Widget
        The layout, to be put into another one.

    Examples
    --------
    >>> space = Workspace(model.trace("The old lighthouse keeper lit the"))  # doctest: +SKIP
    >>> space.grid.select(23, 3)  # doctest: +SKIP
    """

    def __init__(self, trace: Trace) -> None:
        if not isinstance(trace, Trace):
            raise LlamaTelemetryError(f"Workspace shows a Trace (model.trace(…)), not {type(trace).__name__}")
        self._trace = trace
        self.missing: dict[str, str] = {}
        views = self._had("Attention", self._views)
        self.grid: AttentionGrid | None = None if views is None else next(iter(views.grids.values()))
        self.experts: ExpertStrip | None = self._experts() if views is None else views.experts
        self.lens: LayerLens | None = self._had("Layers", self._lens)
        self.explorer: TokenExplorer | None = self._had("Next token", self._explorer)
        self.tree: ArchitectureTree | None = self._had("Model", lambda: ArchitectureTree(self._model()))
        attention = [] if views is None else list(views.grids.values())
        self._tabs: dict[str, list[TelemetryWidget]] = {
            title: [widget for widget in widgets if widget is not None]
            for title, widgets in {
                "Attention": attention,
                "Experts": [self.experts],
                "Layers": [self.lens],
                "Next token": [self.explorer],
                "Model": [self.tree],
            }.items()
        }
        both = [widget for widget in (self.grid, self.lens, self.explorer, self.tree) if widget is not None]
        joined: list[TelemetryWidget] = [*both, *([] if self.experts is None or views is not None else [self.experts])]
        if len(joined) > 1:
            link(*joined)
        self.box = self._layout()

    def _had(self, title: str, make: Callable[[], Any]) -> Any:
        """A widget, or None and the reason kept."""
        try:
            return make()
        except LlamaTelemetryError as error:
            self.missing[title] = str(error)
            return None

    def _model(self) -> Any:
        return self._trace._asked("model", {}, "keep the model open")

    def _views(self) -> TraceViews:
        if not self._trace.parts:
            raise CaptureUnavailable("no attention was captured: this model has none, or it was not asked for")
        return TraceViews(self._trace)

    def _experts(self) -> ExpertStrip | None:
        return ExpertStrip(self._trace) if self._trace.experts else None

    def _lens(self) -> LayerLens:
        lens = LayerLens(self._trace)
        if lens.facts["message"]:
            lens.close()
            raise CaptureUnavailable(lens.facts["message"])
        return lens

    def _explorer(self) -> TokenExplorer:
        if "logits" not in self._trace._arrays:
            raise CaptureUnavailable("this model gives no logits, so it has no next token")
        if self._trace.decoder is not None and len(self._trace.decoder[0]) > 1:
            raise CaptureUnavailable("the decoder was given a text: use TokenExplorer for its start alone")
        return TokenExplorer(self._model(), self._trace.token_ids.tolist())

    def _layout(self) -> ipywidgets.Widget:
        import ipywidgets

        there = {title: widgets for title, widgets in self._tabs.items() if widgets}
        tabs = ipywidgets.Tab([ipywidgets.VBox(widgets) for widgets in there.values()])
        for at, title in enumerate(there):
            tabs.set_title(at, title)
        lines = [ipywidgets.HTML(f"<small>{escape(line)}</small>") for line in self._left_out()]
        return ipywidgets.VBox([tabs, *lines])

    def _left_out(self) -> list[str]:
        return [f"{title} is left out: {why}" for title, why in self.missing.items()]

    def __iter__(self) -> Iterator[TelemetryWidget]:
        for widgets in self._tabs.values():
            yield from widgets

    def __len__(self) -> int:
        return sum(map(len, self._tabs.values()))

    def __repr__(self) -> str:
        return "\n".join(["<Workspace:", *(f"  {widget!r}" for widget in self), *self._left_out()]) + ">"

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if why_static():
            for widget in self:
                display(widget)  # type: ignore[no-untyped-call]
            for line in self._left_out():
                print(line)
            return
        bundle = self.box._repr_mimebundle_()
        if not stacks_outputs():
            display({**bundle, "text/plain": repr(self)}, raw=True)  # type: ignore[no-untyped-call]
            return
        why = "A saved picture: run the cell again for the live widget."
        pictures = "".join(widget._picture(why) for widget in self if widget._has_picture())
        display_with_picture(pictures, repr(self), (bundle, {}))

    def to_html(self, path: str | os.PathLike[str]) -> str:
        """All of them in one HTML file that needs no kernel and no network, still linked; see `save_html`."""
        from ..export.together import save_html

        return save_html(path, *self)

    def close(self) -> None:
        """End the connections to the browser; the widgets then display as pictures."""
        for widget in self:
            widget.close()
        self.box.close()
