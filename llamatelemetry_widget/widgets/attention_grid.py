"""`AttentionGrid`: every attention head of every layer at once, and any head large on request.

In: a `Trace`, or a `RunningTrace` whose layers appear as they come. Out: an interactive widget, its selection as
traits, and the same data as HTML, PNG, SVG, pandas and NumPy.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import traitlets

from ..analysis.attention import STATISTICS, decode_thumbnail, looks, seen, tile
from ..engine.cpu import usable_threads
from ..errors import LlamaTelemetryError
from ..trace import Trace
from . import attention_facts as told
from .base import Heard, Message, TelemetryWidget
from .embedding import Embedding
from .growth import Growth, generation_facts
from .traits import Buffer, Buffers, Index, Ranges, Switch, Tokens, as_bytes

if TYPE_CHECKING:
    import pandas as pd

    from ..engine.generation import Generation
    from ..engine.running import RunningTrace, TraceEvent
    from ..export.page import Part
    from ..export.picture import Look
    from ..trace import GeneratedToken

Array = np.ndarray[Any, Any]
Heads = Iterable[tuple[int, int]]

_NOTEBOOK_BYTES = 2_000_000  # of the locked head in a saved notebook: 4096 tokens of 64 numbers take 1.1 MB
_PAGE_BYTES = 2_000_000  # of an exported page, unless more heads are asked for
_TEXT = 0.72  # bytes of heads that a byte of a page can hold: base64, and the facts of each


class AttentionGrid(TelemetryWidget):
    """All heads of all layers as thumbnails; hover previews, a click shows a head large.

    Parameters
    ----------
    trace : Trace, RunningTrace or Generation
        A running trace fills in layer by layer, a generation then row by row; the Stop button ends either, and what a
        generation has written stays.
    part : str, optional
        One of ``trace.parts``; the first by default.
    against : Trace, optional
        Of the same tokens by another model, quant type or KV cache: the text can then be coloured by how much the two
        differ (`Trace.divergence`).
    **traits
        Any of the attributes below.

    Attributes
    ----------
    selected_layer, selected_head : int or None
        The locked head. Default None.
    selected_tokens : list of int
        ``[query]`` or ``[query, key]``: the token that is read, and what it looks at; any that follow are summed over
        together with it. Default ``[]``.
    filter : dict of str to [float or None, float or None]
        Per statistic, what heads must lie within to stay bright. Default ``{}``.
    scale : {"log", "linear", "row"}
        ``log`` shows weights from 0.001 to 1 (default); ``row`` divides each row by its largest.
    sink_aside : bool
        Set the first token apart and leave it out of the automatic maximum. Default True.
    sort : str
        ``"layer"`` (default) or the name of a statistic.
    theme : {"auto", "light", "dark"}
        ``auto`` follows the host. Default ``"auto"``.

    Examples
    --------
    >>> grid = AttentionGrid(trace)  # doctest: +SKIP
    >>> grid.selected_layer, grid.selected_head = 17, 5  # doctest: +SKIP
    """

    bundle = "attention_grid"

    selected_layer = Index().tag(sync=True)
    selected_head = Index().tag(sync=True)
    selected_tokens = Tokens().tag(sync=True)
    filter = Ranges().tag(sync=True)
    scale = traitlets.Enum(("log", "linear", "row"), "log").tag(sync=True)
    sink_aside = Switch(True).tag(sync=True)
    sort = traitlets.Enum(("layer", *STATISTICS), "layer").tag(sync=True)
    theme = traitlets.Enum(("auto", "light", "dark"), "auto").tag(sync=True)

    facts = traitlets.Dict().tag(sync=True)
    thumbnails = Buffer(np.uint8, "heads rows keys")
    statistics = Buffer(np.float32, "heads statistics")
    token_stats = Buffer(np.float32, "kinds tokens")
    embedded = traitlets.Dict().tag(sync=True)
    embedded_data = Buffers()

    def __init__(
        self,
        trace: Trace | RunningTrace | Generation,
        part: str | None = None,
        against: Trace | None = None,
        **traits: Any,
    ) -> None:
        if against is not None and not (isinstance(trace, Trace) and isinstance(against, Trace)):
            raise LlamaTelemetryError(
                "against compares two traces that have ended: AttentionGrid(trace, against=other)"
            )
        self._trace: Trace | None = None
        self._against = against
        self._growth: Growth | None = None
        self._turn = threading.RLock()  # the run's thread and the pacer's take turns
        self._running: RunningTrace | None = None
        self._part, self._part_asked = part or "self", part
        if isinstance(trace, Trace):
            self._take(trace)
            super().__init__(**self._state("done"), **traits)
        elif hasattr(trace, "subscribe"):
            self._running = trace
            super().__init__(facts=told.empty_facts("starting the model"), **traits)
            trace.subscribe(self._event)
        else:
            raise LlamaTelemetryError(f"AttentionGrid shows a Trace (model.trace(…)), not {type(trace).__name__}")

    def __repr__(self) -> str:
        locked = "" if self.locked is None else " · L{} H{} locked".format(*self.locked)
        return f"<AttentionGrid: {self.facts['provenance'] or self.facts['message']}{locked}>"

    @property
    def trace(self) -> Trace | None:
        """The trace that is shown; while a run has not begun, None."""
        return self._trace

    @property
    def locked(self) -> tuple[int, int] | None:
        """(layer, head) of the locked head."""
        both = self.selected_layer, self.selected_head
        return None if None in both else cast("tuple[int, int]", both)

    def select(self, layer: int | None, head: int | None = None) -> None:
        """Lock a head, or free it with ``select(None)``."""
        with self.hold_trait_notifications():
            self.selected_layer, self.selected_head = layer, head

    # ------------------------------------------------------------- the running trace

    def _take(self, trace: Trace) -> None:
        self._trace, self._growth = trace, None
        if self._part_asked is None:
            self._part = trace.parts[0] if trace.parts else "self"
        elif self._part_asked not in trace.parts:
            there = ", ".join(trace.parts) or "none"
            raise LlamaTelemetryError(f"part {self._part_asked!r} does not exist in this trace: it has {there}")

    def _state(self, phase: str, message: str = "") -> dict[str, Any]:
        """The traits that say what is shown, for a phase of the run."""
        trace, part = cast(Trace, self._trace), self._part
        layers = [layer for layer in told.layers_of(trace, part) if layer.kind == "attention"]
        facts = told.facts(trace, part, phase, len(told.arrived_layers(trace, part)), len(layers), message)
        facts |= told.against_facts(self._against, facts)
        if self._growth is not None:
            self._growth.news()  # what would still be sent goes with the state
            facts |= self._growth.facts()
            thumbnails = self._growth.thumbnails
        else:
            facts |= generation_facts(trace, part)
            thumbnails = told.thumbnails(trace, part, facts["side_rows"], facts["side_keys"])
        return {"facts": facts, "thumbnails": thumbnails, "statistics": told.statistics(trace, part)}

    def _show(self, phase: str, message: str = "") -> None:
        """Send the whole state in one message."""
        self._pacer.clear()
        with self.hold_sync():
            for name, value in self._state(phase, message).items():
                setattr(self, name, value)

    def _event(self, event: TraceEvent) -> None:
        """Comes in the thread of the run, which must not end because it cannot be drawn."""
        if self.facts["phase"] == "error":
            return
        try:
            with self._turn:
                self._follow(event)
        except Exception as error:
            words = f"this widget cannot draw the run ({type(error).__name__}: {error}); the run itself goes on"
            self.facts = {**self.facts, "phase": "error", "message": words}

    def _follow(self, event: TraceEvent) -> None:
        if event.kind == "start" and event.trace is not None:
            self._take(event.trace)
            n_max: int = getattr(self._running, "n_max", 0)
            if n_max and self._part == "self":
                self._growth = Growth(event.trace, n_max)
            self._show("computing")
        elif event.kind == "progress" and self.facts["phase"] != "generating":
            self._send_progress(f"token {event.done} of {event.total}" if event.total else event.message)
        elif event.kind == "layer" and event.part == self._part and event.layer is not None:
            if self._growth is not None and event.reduced is not None:
                self._growth.take_layer(event.layer, event.reduced)
            self._pacer.put(("layer", event.layer), self._sends_layer(event))
        elif event.kind == "token" and event.token is not None:
            self._grow(event.token)
        elif event.kind == "done" and event.trace is not None:
            self._take(event.trace)
            if self.token_stats.size:
                self.token_stats = np.zeros((0, 0), np.float32)  # of fewer tokens
            self._show("done")
            self._embed_locked()
        elif event.kind in ("error", "cancelled"):
            self._end_early(event.kind, event.message)

    def _end_early(self, phase: str, message: str) -> None:
        if self._trace is not None:
            self._show(phase, message)
        else:
            self.facts = {**told.empty_facts(message), "phase": phase}

    def _grow(self, token: GeneratedToken) -> None:
        """A token came, and its row in every head."""
        if self._growth is None:  # an encoder-decoder: its rows come at the end
            self._send_progress(f"{token.text} \u00b7 token {token.position + 1}")
            return
        self._growth.hear(token)
        if self.facts["phase"] == "generating":
            self._pacer.put("grow", self._send_growth)
            return
        with self.hold_sync():
            self.embedded, self.embedded_data = {}, []  # a head has more rows now: it is asked for
            self._show("generating")  # with all layers of the prompt, which are there

    def _send_growth(self) -> None:
        """Send what is new. The state is written, not sent: only a page that is opened now reads it."""
        with self._turn:
            growth = self._growth
            news = growth.news() if growth is not None else None
            if growth is None or news is None:
                return
            self.facts.update(growth.facts())
            message, codes = news
            self.send(message, [as_bytes(codes)])

    def _send_progress(self, words: str) -> None:
        state = {"type": "state", "phase": "computing", "done": 0, "total": self.facts["total"], "message": words}
        self._pacer.put("state", lambda: self.send(state))

    def _sends_layer(self, event: TraceEvent) -> Callable[[], None]:
        def send() -> None:
            if event.reduced is None or self._trace is None:
                return
            facts, growth = self.facts, self._growth
            if growth is not None:
                thumbnails = growth.layer(cast(int, event.layer))
            else:
                thumbnails = told.layer_thumbnails(event.reduced, facts["side_rows"], facts["side_keys"])
            own = told.find_layer(self._trace, cast(int, event.layer), self._part)
            message = {
                "type": "layer",
                "layer": event.layer,
                "done": event.done,
                "total": event.total,
                "facts": told.layer_facts(self._trace, own, self._part),
            }
            self.send(message, [as_bytes(thumbnails), as_bytes(told.layer_statistics(event.reduced))])

        return send

    def _replaced(self) -> None:
        if self._running is not None and not self._running.done:
            self._running.cancel()
        self.close()

    # -------------------------------------------------------------------- messages

    def _answer(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "head":
            self._send_head(message)
        elif kind == "tile":
            self._send_tile(message)
        elif kind == "sums":
            self._answer_later(message, ("sums", message["direction"]), lambda heard: self._send_sums(message, heard))
        elif kind == "token_stats":
            self._answer_later(message, "token_stats", lambda _: self._send_token_stats(message))
        elif kind == "stop":
            self._stop()
        elif kind == "resync":
            self.send_state(["facts", "thumbnails", "statistics", "token_stats", "embedded", "embedded_data"])
        else:
            raise LlamaTelemetryError(f"message {kind!r} is not known: reload the page")

    def _send_head(self, message: Message) -> None:
        layer, head = int(message["layer"]), int(message["head"])
        facts, arrays = told.head_parts(self._ready(), layer, head, self._part)
        answer = {"type": "head", "id": message["id"], "layer": layer, "head": head}
        self.send({**answer, **facts}, [as_bytes(array) for array in arrays])

    def _send_tile(self, message: Message) -> None:
        scoring = self._ready().scoring(int(message["layer"]), self._part)
        rows, keys = (slice(*(int(end) for end in message[name])) for name in ("rows", "keys"))
        height, width = (int(cells) for cells in message["size"])
        head, stage = int(message["head"]), str(message["stage"])
        cells = tile(scoring, head, stage, rows, keys, (height, width), usable_threads())
        answer = {"type": "tile", "id": message["id"], "rows": cells.shape[0], "keys": cells.shape[1]}
        self.send(answer, [as_bytes(np.asarray(cells, np.float32))])

    def _send_sums(self, message: Message, heard: Heard) -> None:
        layers = told.scorings(self._ready(), self._part, message["heads"])
        tokens, how = message["tokens"], message["how"]
        if message["direction"] == "looks":
            values = looks(layers, tokens, how, heard)
        else:
            values = seen(layers, tokens, how, heard, usable_threads())
        self.send({"type": "sums", "id": message["id"]}, [as_bytes(values)])

    def _send_token_stats(self, message: Message) -> None:
        if not self.token_stats.size:
            self.token_stats = told.token_stats(self._ready(), self.facts, self._against)
        self.send({"type": "token_stats", "id": message["id"]})

    def _stop(self) -> None:
        if self._running is None or self._running.done:
            self.send({"type": "state", **{key: self.facts[key] for key in ("phase", "done", "total", "message")}})
            return
        self._running.cancel()

    def _ready(self) -> Trace:
        if self._trace is None:
            raise LlamaTelemetryError("the run has not begun: nothing is there yet")
        return self._trace

    # ------------------------------------------------------------------- selection

    @traitlets.validate("selected_layer")
    def _valid_layer(self, proposal: Any) -> Any:
        layer = proposal["value"]
        if layer is not None and self._trace is not None:
            self._checked(told.find_layer, self._trace, layer, self._part)
        return layer

    @traitlets.validate("selected_head")
    def _valid_head(self, proposal: Any) -> Any:
        head = proposal["value"]
        if head is None or self._trace is None:
            return head
        layers = [layer for layer in self.facts["layers"] if self.selected_layer in (None, layer["layer"])]
        most = max((layer["heads"] for layer in layers), default=0)
        if head >= most:
            where = "this trace" if self.selected_layer is None else f"layer {self.selected_layer}"
            raise traitlets.TraitError(f"head {head} does not exist: {where} has heads 0 to {most - 1}")
        return head

    @traitlets.validate("selected_tokens")
    def _valid_tokens(self, proposal: Any) -> Any:
        tokens, facts = proposal["value"], self.facts
        counts = len(facts.get("query_tokens", [])), len(facts.get("tokens", []))
        for at, index in enumerate(tokens):
            what, count = ("query", counts[0]) if at == 0 else ("key", counts[1])
            if self._trace is not None and index >= count:
                raise traitlets.TraitError(
                    f"{what} token {index} does not exist: the prompt has tokens 0 to {count - 1}"
                )
        return tokens

    @traitlets.validate("filter")
    def _valid_filter(self, proposal: Any) -> Any:
        for name in proposal["value"]:
            if name not in STATISTICS:
                raise traitlets.TraitError(f"filter {name!r} is no statistic: choose from {', '.join(STATISTICS)}")
        return proposal["value"]

    def _checked(self, check: Callable[..., Any], *values: Any) -> None:
        try:
            check(*values)
        except LlamaTelemetryError as error:
            raise traitlets.TraitError(str(error)) from None

    @traitlets.observe("selected_layer", "selected_head")
    def _selected(self, _: Any) -> None:
        layer = next((own for own in self.facts["layers"] if own["layer"] == self.selected_layer), None)
        if layer is not None and self.selected_head is not None and self.selected_head >= layer["heads"]:
            self.selected_head = None  # this layer has fewer heads
        self._embed_locked()

    def _embed_locked(self) -> None:
        """Put the locked head into the state, so that a saved notebook shows it without a kernel."""
        if self.locked is not None:
            self._pacer.put("embedded", self._embed_now)

    def _embed_now(self) -> None:
        trace, locked = self._trace, self.locked
        if trace is None or locked is None or not trace.arrived(locked[0], self._part):
            return
        if self._growth is not None:  # it has more rows soon
            return
        kept = Embedding(trace, self._part)
        kept.add(*locked, budget=_NOTEBOOK_BYTES)
        with self.hold_sync():
            self.embedded, self.embedded_data = kept.facts, kept.data

    # ---------------------------------------------------------------------- exports

    @property
    def head_stats(self) -> pd.DataFrame:
        """One row per (layer, head) of the part that is shown: its statistics and, where clear, its name."""
        table = self._ready().head_stats
        own: pd.DataFrame = table[table["part"] == self._part].reset_index(drop=True)
        return own

    def to_numpy(self) -> Array:
        """All thumbnails as weights.

        Returns
        -------
        ndarray of float32, shape (heads, rows, keys)
            In the order of `head_stats`; each cell is the largest weight of the tokens it covers, within 2 %. Weights
            below 1e-4 are 0, masked cells NaN. One head exactly: ``trace.attention(layer, head)``.
        """
        from ..export.thumbnails import unseen

        out = np.asarray(decode_thumbnail(self.thumbnails), np.float32)
        at = 0
        for layer in self.facts["layers"]:
            heads = out[at : at + layer["heads"]]
            masked = unseen(layer, self.facts["n_tokens"], *out.shape[1:])
            heads[(masked != 0)[None] & (heads == 0)] = np.nan
            at += layer["heads"]
        return out

    def kept(self) -> Array:
        """bool (heads,): which heads pass the filter, in the order of `head_stats`. A head without a value does not."""
        table = self.statistics
        kept = np.ones(len(table), bool)
        for name, (low, high) in self.filter.items():
            values = table[:, STATISTICS.index(name)]
            kept &= (values >= (-np.inf if low is None else low)) & (values <= (np.inf if high is None else high))
        return kept

    def _look(self, theme: str | None, cell: int = 64) -> Look:
        from ..export.colour import THEMES
        from ..export.picture import Look

        chosen = theme or (self.theme if self.theme != "auto" else "light")
        if chosen not in THEMES:
            raise LlamaTelemetryError(f"theme {chosen!r} does not exist: choose from {', '.join(THEMES)}")
        kept = self.kept() if self.filter else None
        return Look(chosen, self.scale, self.sink_aside, kept, self.locked, cell)

    def to_svg(self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None) -> str:
        """All heads with labels, legend and provenance, as SVG.

        Parameters
        ----------
        path : path, optional
            Where to write it; a folder gets a file named after the model.
        theme : {"light", "dark"}, optional
            The widget's own by default, light where that is ``auto``.

        Returns
        -------
        str
            The SVG.
        """
        from ..export.picture import draw, svg

        text = svg(draw(self.facts, self.thumbnails, self._look(theme)), self._title())
        if path is not None:
            self._path(path, "svg").write_text(text, "utf-8")
        return text

    def to_png(
        self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None
    ) -> bytes:
        """The picture of `to_svg` as PNG, two pixels per px.

        Raises
        ------
        BackendMissing
            Pillow is not installed (the extra ``export``).
        """
        from ..export.picture import draw, png_file

        data = png_file(draw(self.facts, self.thumbnails, self._look(theme)))
        if path is not None:
            self._path(path, "png").write_bytes(data)
        return data

    def to_html(self, path: str | os.PathLike[str] | None = None, heads: Heads | Literal["all"] | None = None) -> str:
        """The widget as one HTML file that needs no kernel and no network.

        Parameters
        ----------
        path : path, optional
            Where to write it; its size is then printed. A folder gets a file named after the model.
        heads : "all" or iterable of (layer, head), optional
            Heads that go in with their q and k, from which the page computes every stage exactly. By default the locked
            head and as many others as a page of 2 MB holds, the most striking first. The others show their thumbnail.

        Returns
        -------
        str
            The page.
        """
        from ..export.page import page

        part = self.page_part(heads)
        text = page(part)
        if path is not None:
            target = self._path(path, "html")
            target.write_text(text, "utf-8")
            size, count, chosen = target.stat().st_size / 1e6, len(self.statistics), len(part.state["embedded"])
            exact = f"all {count} heads" if chosen == count else f"{chosen} of {count} heads"
            print(f"{target} · {size:.1f} MB · {exact} with exact weights")
        return text

    def page_part(self, heads: Heads | Literal["all"] | None = None) -> Part:
        """The widget as a part of a page with several, for `save_html`; `heads` as in `to_html`."""
        from ..export.page import Part, page

        binary = {name: getattr(self, name).tobytes() for name in ("thumbnails", "statistics", "token_stats")}
        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        state["facts"] = {**self.facts, "live": False}
        shares = [(self._ready(), self._part)]
        part = Part(self._title(), self._esm, state, binary, self._static_html(""), shares)
        room = _TEXT * (_PAGE_BYTES - len(page(part).encode())) if heads is None else 0
        embedding = self._embedding(heads, room)
        return replace(
            part,
            state={**state, "embedded": embedding.facts},
            buffers={**binary, "embedded_data": embedding.data},
        )

    def _embedding(self, heads: Heads | Literal["all"] | None, room: float) -> Embedding:
        """The heads that an exported page embeds; those that it chooses itself take no more than `room` bytes."""
        kept = Embedding(self._ready(), self._part)
        if heads is None:
            for own in self._striking():
                if not kept.add(*own, budget=room if own != self.locked else float("inf")):
                    break
            return kept
        if isinstance(heads, str) and heads != "all":
            raise LlamaTelemetryError(f"heads={heads!r} is no choice: give 'all' or a list of (layer, head)")
        kept.add_all(self._striking() if isinstance(heads, str) else heads)
        return kept

    def _striking(self) -> list[tuple[int, int]]:
        """All heads that are there: the locked one, then by their highest rank in any of the first statistics."""
        owners = [(layer["layer"], head) for layer in self.facts["layers"] for head in range(layer["heads"])]
        first = np.nan_to_num(self.statistics[:, : len(told.HISTOGRAMS)], nan=-np.inf)
        ranks = np.argsort(np.argsort(-first, axis=0, kind="stable"), axis=0).min(1)
        order = [owners[i] for i in np.argsort(ranks, kind="stable")]
        there = [own for own in order if self._ready().arrived(own[0], self._part)]
        return sorted(there, key=lambda own: own != self.locked)

    def _has_picture(self) -> bool:
        return bool(self.facts["phase"] != "computing")

    def _static_html(self, why: str) -> str:
        from ..export.static import fallback

        return fallback(self.facts, self.thumbnails, self.statistics, self._look(None), why)

    def _title(self) -> str:
        return f"{self.facts['title']} · {self.facts['model'] or 'model'} · {self.facts['n_tokens']} tokens"

    def _path(self, path: str | os.PathLike[str], ending: str) -> Path:
        target = Path(path)
        if not target.is_dir():
            return target
        model = re.sub(r"[^\w.-]+", "_", str(self.facts["model"])).strip("._")[:80] or "model"
        part = str(self.facts["title"]).lower().replace(" ", "-")
        return target / f"{part}-{model}-{self.facts['n_tokens']}-tokens.{ending}"


_PAGE_TRAITS = ("selected_layer", "selected_head", "selected_tokens", "filter", "scale", "sink_aside", "sort", "theme")
