"""What all widgets share: JavaScript as text, answers to the browser, pacing, a picture for hosts without widgets.

In: a subclass that names its bundle and answers messages. Out: an anywidget that displays everywhere.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Hashable
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import traitlets

from ..errors import LlamaTelemetryError
from .background import Background, Still, Superseded, every
from .hosts import stacks_outputs, this_cell, why_static
from .pace import SECONDS, Pacer

if TYPE_CHECKING:
    from ..export.page import Part

_log = logging.getLogger(__name__)
_OUTPUT = ".jp-OutputArea-child"
_HIDE = f"<style>{_OUTPUT}:has(.lt-saved):has(+ {_OUTPUT} .lt-root) {{ display: none }}</style>"
STATIC = Path(__file__).with_name("static")
Message = dict[str, Any]
Heard = Callable[[int, int], None]
ALIVE = 1.0  # seconds; the browser takes a kernel that is silent for three for gone


def frontend(bundle: str) -> str:
    """The JavaScript of a widget, as text: anywidget never frees a widget whose code is a file path.

    Raises
    ------
    LlamaTelemetryError
        The bundle is not there: a checkout whose frontend was not built.
    """
    path = STATIC / f"{bundle}.js"
    try:
        return _text(path, path.stat().st_mtime_ns)
    except OSError:
        raise LlamaTelemetryError(
            f"the frontend of {bundle} is not built ({path} is missing): "
            "run `npm ci && npm run build` in the checkout, or install the wheel"
        ) from None


@lru_cache(maxsize=8)
def _text(path: Path, _changed: int) -> str:
    return path.read_text("utf-8")


def display_with_picture(picture: str, plain: str, bundle: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Display a picture, hidden while the widget below it is there, then the widget's mimebundle."""
    from IPython.display import display

    text = {"text/plain": plain}
    display({**text, "text/html": f'{_HIDE}<div class="lt-saved">{picture}</div>'}, raw=True)  # type: ignore[no-untyped-call]
    data, metadata = bundle
    display({**data, **text}, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]


#: Per notebook cell: the run of it that made widgets last, and those widgets.
_made: dict[str, tuple[str, weakref.WeakSet[TelemetryWidget]]] = {}


class TelemetryWidget(anywidget.AnyWidget):
    """Base of the package's widgets.

    A subclass sets `bundle`, answers messages in `_answer`, draws itself without scripts in `_static_html`, and gives
    what an exported page holds in `page_part`.
    """

    bundle: ClassVar[str]
    pace: ClassVar[float] = SECONDS  # between two messages of those that are paced
    links: tuple[object, ...] = ()  # what `link` joined it by
    _esm = traitlets.Unicode().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._pacer = Pacer(self.pace)
        self._background = Background()
        super().__init__(**traits)
        self._hear_while_cells_run()
        self.on_msg(self._receive)
        self._close_older()

    @traitlets.default("_esm")
    def _default_esm(self) -> str:
        return frontend(self.bundle)

    # ---------------------------------------------------------------- messages

    def _send(self, msg: Message, buffers: Any = None) -> None:
        super()._send(msg, buffers)
        self._hear_while_cells_run()

    def _hear_while_cells_run(self) -> None:
        """Let messages come through the subshell that the host chose for them, so that Stop works while a cell runs.

        ipykernel 7.4 sends what a browser says to the shell that published last, which is the one with the cell.
        """
        getattr(self.comm, "__dict__", {}).pop("_reply_subshell_id", None)

    def _answer(self, message: Message) -> None:
        """Act on a message from the browser; an error goes back with the message's id."""
        raise NotImplementedError

    def _receive(self, _: Any, content: Any, buffers: Any) -> None:
        message: Message = content if isinstance(content, dict) else {}
        try:
            self._answer(message)
        except Exception as error:
            self._send_error(message, error)

    def _send_error(self, message: Message, error: Exception) -> None:
        words = str(error) if isinstance(error, LlamaTelemetryError) else f"{type(error).__name__}: {error}"
        self.send({"type": "error", "id": message.get("id"), "message": words})

    def _answer_later(self, message: Message, what: Hashable, work: Callable[[Heard], None]) -> None:
        """Answer beside the kernel's own thread; a view's newest question about `what` ends its older ones.

        `work` is given a function that takes how much of how much is done: it goes to the browser, at a measured pace.
        """
        asked = str(message.get("id"))

        def run(still: Still) -> None:
            def heard(done: int, total: int) -> None:
                still()
                news = {"type": "progress", "id": asked, "done": done, "total": total}
                self._pacer.put(("progress", what), lambda: self.send(news))

            try:
                still()
                with every(ALIVE, lambda: self.send({"type": "progress", "id": asked, "done": 0, "total": 0})):
                    work(heard)
            except Superseded:
                self._send_error(message, LlamaTelemetryError("a newer question took this one's place"))
            except Exception as error:
                self._send_error(message, error)

        view = asked.rpartition("-")[0]  # views number what they ask: "name-1", "name-2"
        self._background.put((what, view), run)

    # ----------------------------------------------------------------- display

    def page_part(self) -> Part:
        """The widget as a part of a page, for `save_html`."""
        raise NotImplementedError

    def _static_html(self, why: str) -> str:
        """The widget as plain HTML; `why` is one line on why it is not live, or empty."""
        raise NotImplementedError

    def _picture(self, why: str) -> str:
        """`_static_html`; where that fails, words: a picture that stands in must never cost the widget."""
        try:
            return self._static_html(why)
        except Exception:
            _log.warning("the picture of a widget cannot be drawn", exc_info=True)
            return f"<p>{escape(why)}</p><p>{escape(repr(self))}</p>"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        why = why_static() if self.comm is not None else "This widget was closed: make it again for a live one."
        plain = {"text/plain": repr(self), "text/html": self._picture(why)}
        if why:
            return plain, {}
        bundle = super()._repr_mimebundle_(**options)
        if bundle is None:
            return plain, {}
        data, metadata = bundle
        return {**data, **plain}, metadata

    def _ipython_display_(self, **options: Any) -> None:
        """In JupyterLab and Notebook: a picture, hidden while the widget below it is there, then the widget.

        These two show "model not found" in a notebook that was saved without the state of its widgets, and never the
        picture that came in the same output. Elsewhere `_repr_mimebundle_` gives both in one.
        """
        if self.comm is None or why_static() or not stacks_outputs() or not self._has_picture():
            raise NotImplementedError  # IPython then asks for the mimebundle
        picture = self._picture("A saved picture: run the cell again for the live widget.")
        display_with_picture(picture, repr(self), super()._repr_mimebundle_(**options) or ({}, {}))

    def _has_picture(self) -> bool:
        """Whether there is something to draw yet."""
        return True

    # -------------------------------------------------------------------- life

    def _close_older(self) -> None:
        """Close what an earlier run of this notebook cell made: its state would stay in the saved notebook for ever."""
        cell = this_cell()
        if cell is None:
            return
        name, run = cell
        made = _made.get(name)
        if made is None or made[0] != run:
            for widget in list(made[1]) if made else []:
                widget._replaced()
            made = _made[name] = run, weakref.WeakSet()
        made[1].add(self)

    def _replaced(self) -> None:
        """A newer widget stands in this one's place."""
        self.close()

    def close(self) -> None:
        """End the connection to the browser; the widget then displays as a picture."""
        pacer = getattr(self, "_pacer", None)
        if pacer is not None:
            pacer.close()
            self._background.close()
        super().close()
        self.__dict__.pop("_repr_mimebundle_", None)  # ipywidgets sets it to None, which would display nothing
