"""`LayerLens`: what the model would say after each layer, and what each layer does to the answer and to the stream.

In: a `Trace`; times of its layers, if they are to be shown. Out: an interactive widget, its selection as traits, and
the same data as HTML, PNG, SVG and pandas.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import traitlets

from ..engine.client import STOPPED
from ..errors import LlamaTelemetryError
from ..trace import Trace
from .base import Heard, Message, TelemetryWidget
from .lens_facts import EMBEDDING, Reading, Streams, facts, layers_of
from .push_facts import Push, read_push
from .traits import Buffer, Buffers, Index, Switch, Tokens, as_bytes

if TYPE_CHECKING:
    import pandas as pd

    from ..engine.operators import OperatorGraph
    from ..export.page import Part

Array = np.ndarray[Any, Any]

_NOTEBOOK_BYTES = 600_000  # of the lens in a saved notebook: the tokens that were looked at, the locked one first
_PAGE_BYTES = 4_000_000  # the same in an exported page
_SHOWN = 12  # tokens in a picture, the locked one among them
_WINDOW = 64  # tokens that one question may ask for


class LayerLens(TelemetryWidget):
    """The logit lens as a table of layers and tokens, and strips of what the layers do.

    The model's own final norm and output matrix are applied to the residual stream after every layer. What that reads
    is no thought of the model's: middle layers are often sure of words that never come.

    Parameters
    ----------
    trace : Trace
        A whole run whose model is still open; without it only what the trace holds is shown.
    times : OperatorGraph, optional
        ``model.graph(prompt)``: its seconds per layer are drawn as a strip. Without it no times are shown.
    **traits
        Any of the attributes below.

    Attributes
    ----------
    selected_layer : int or None
        The locked layer. Default None.
    selected_head : int or None
        The head that is marked in the map of contributions. Default None.
    selected_tokens : list of int
        ``[token, ...]``: the first is the column that is read. Default ``[]``, which reads the last token.
    at_embedding : bool
        The row below layer 0 is locked. Default False.
    word : int or None
        Id of the next token whose contributions are shown. Default None: the model's own answer.
    against : int or None
        Id of a second token: contributions are then of the difference of the two logits. Default None.
    measure : {"probability", "rank", "entropy", "kl"}
        What the colour of a cell says: the probability of the token it shows (default), the rank of the model's final
        answer, the entropy, or how far the layer's distribution is from the one that the model ends with (KL, nats).
    every : {None, 1, 2, 4}
        Every how many layers a row is shown. Default None: as many as fit.
    theme : {"auto", "light", "dark"}
        ``auto`` follows the host. Default ``"auto"``.

    Examples
    --------
    >>> lens = LayerLens(trace, times=model.graph(trace.text))  # doctest: +SKIP
    >>> lens.selected_layer, lens.selected_tokens = 23, [23]  # doctest: +SKIP
    """

    bundle = "layer_lens"

    selected_layer = Index().tag(sync=True)
    selected_head = Index().tag(sync=True)
    selected_tokens = Tokens().tag(sync=True)
    at_embedding = Switch().tag(sync=True)
    word = Index().tag(sync=True)
    against = Index().tag(sync=True)
    measure = traitlets.Enum(("probability", "rank", "entropy", "kl"), "probability").tag(sync=True)
    every = traitlets.Enum((None, 1, 2, 4), None, allow_none=True).tag(sync=True)
    theme = traitlets.Enum(("auto", "light", "dark"), "auto").tag(sync=True)

    facts = traitlets.Dict().tag(sync=True)
    streams = Buffer(np.float32, "measures layers")
    embedded = traitlets.List(traitlets.Int()).tag(sync=True)
    embedded_lens = Buffers()
    words = traitlets.Dict().tag(sync=True)
    push = traitlets.Dict().tag(sync=True)
    push_heads = Buffer(np.float32, "layers heads")

    def __init__(self, trace: Trace, times: OperatorGraph | None = None, **traits: Any) -> None:
        if not isinstance(trace, Trace):
            raise LlamaTelemetryError(f"LayerLens shows a Trace (model.trace(…)), not {type(trace).__name__}")
        self._trace, self._times = trace, times
        self._reading = Reading(trace)
        self._layers = layers_of(trace)
        self._streams = Streams(trace, self._layers)
        self._stopped = Event()
        self._pushes: dict[tuple[int, int, int | None], Push] = {}
        super().__init__(facts=self._facts(), streams=self._streams.table, **traits)

    def __repr__(self) -> str:
        locked = "" if self.selected_layer is None else f" · L{self.selected_layer} locked"
        return f"<LayerLens: {self.facts['message'] or self.facts['provenance']}{locked}>"

    @property
    def trace(self) -> Trace:
        """The trace that is shown."""
        return self._trace

    def _facts(self) -> dict[str, Any]:
        return facts(self._trace, self._reading, self._streams, self._times)

    # -------------------------------------------------------------------- messages

    def _answer(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "window":
            first, stop = (int(end) for end in message["positions"])
            n = len(self._trace.token_ids)
            positions = range(max(first, 0), min(stop, n, first + _WINDOW))
            self._answer_later(message, "window", lambda heard: self._send_window(message, positions, heard))
        elif kind == "stop":
            self._stopped.set()
        elif kind == "push":
            self._answer_later(message, "push", lambda _: self._send_push(message))
        else:
            raise LlamaTelemetryError(f"message {kind!r} is not known: reload the page")

    def _send_window(self, message: Message, positions: range, heard: Heard) -> None:
        self._stopped.clear()
        before = STOPPED.set(self._stopped.is_set)
        try:
            self._reading.read(positions, heard)
        finally:
            STOPPED.reset(before)
        heard(1, 1)
        answer = {"type": "window", "id": message["id"], "positions": list(positions), "rows": self._reading.layers}
        words = self._reading.words_of(positions)
        arrays = [as_bytes(own) for own in self._reading.arrays(positions)]
        self.send({**answer, "words": words}, arrays)
        self._embed()

    def _send_push(self, message: Message) -> None:
        found = self._pushed(int(message["position"]), message.get("word"), message.get("against"))
        self._show_push(found)
        answer = {"type": "push", "id": message["id"], "push": self.push, "heads": list(found.heads.shape)}
        self.send(answer, [as_bytes(found.heads)])

    def _pushed(self, position: int, word: int | None, against: int | None) -> Push:
        """The push on a word after a token, read once."""
        named = self._reading.final(position) if word is None else int(word)
        key = position, named, None if against is None else int(against)
        if key not in self._pushes:
            self._pushes[key] = read_push(self._trace, self._layers, *key)
        return self._pushes[key]

    def _show_push(self, found: Push) -> None:
        own = found.facts
        texts = {name: None if own[name] is None else self._word_text(own[name]) for name in ("word", "against")}
        with self.hold_sync():
            self.push_heads = found.heads
            self.push = {**own, "texts": texts, "heads": int(found.heads.shape[1])}

    def _word_text(self, word: int) -> str:
        """As it is shown; a word that stands in no cell that was read has its number."""
        return self._reading.words.get(word, f"#{word}")

    # ------------------------------------------------------------------- selection

    @traitlets.validate("selected_layer")
    def _valid_layer(self, proposal: Any) -> Any:
        layer, known = proposal["value"], self._layers
        if layer is not None and layer not in known:
            span = f"it has {known[0]} to {known[-1]}" if known else "it has none"
            raise traitlets.TraitError(f"layer {layer} is not in this trace: {span}")
        return layer

    @traitlets.validate("selected_head")
    def _valid_head(self, proposal: Any) -> Any:
        head = proposal["value"]
        most = max((layer["heads"] for layer in self.facts["layers"]), default=0)
        if head is not None and head >= most:
            raise traitlets.TraitError(f"head {head} does not exist: this trace has heads 0 to {most - 1}")
        return head

    @traitlets.validate("selected_tokens")
    def _valid_tokens(self, proposal: Any) -> Any:
        tokens, n = proposal["value"], len(self._trace.token_ids)
        if any(token >= n for token in tokens):
            raise traitlets.TraitError(f"token {max(tokens)} does not exist: the prompt has tokens 0 to {n - 1}")
        return tokens

    @traitlets.validate("word", "against")
    def _valid_word(self, proposal: Any) -> Any:
        word, n = proposal["value"], self.facts["n_words"]
        if word is not None and word >= n:
            raise traitlets.TraitError(f"token id {word} does not exist: the vocabulary has 0 to {n - 1}")
        return word

    @traitlets.observe("selected_layer")
    def _left_embedding(self, _: Any) -> None:
        if self.selected_layer is not None:
            self.at_embedding = False

    @traitlets.observe("at_embedding")
    def _left_layers(self, _: Any) -> None:
        if self.at_embedding:
            self.selected_layer = None

    @property
    def _position(self) -> int:
        """The token that is read."""
        return self.selected_tokens[0] if self.selected_tokens else len(self._trace.token_ids) - 1

    @property
    def _push_position(self) -> int:
        """The token after which a push is taken apart: others than the last need the logits of all."""
        return self._position if self.facts["every_logit"] else len(self._trace.token_ids) - 1

    def _embed(self, budget: int = _NOTEBOOK_BYTES) -> None:
        """Put what was read into the state, so that a saved notebook shows it without a kernel."""
        positions = self._fitting(budget)
        with self.hold_sync():
            self.facts = self._facts()
            self.words = self._reading.words_of(positions)
            self.embedded_lens = [own.tobytes() for own in self._reading.arrays(positions)]
            self.embedded = positions

    def _fitting(self, budget: int) -> list[int]:
        """Tokens that were read, as many as fit, those near the chosen one first; in order."""
        there = np.flatnonzero(self._reading.known)
        near = there[np.argsort(np.abs(there - self._position), kind="stable")]
        return sorted(near[: budget // self._reading.bytes_each].tolist())

    # ---------------------------------------------------------------------- exports

    def to_pandas(self) -> pd.DataFrame:
        """The lens of all tokens: one row per layer, token and place; see `Lens.to_pandas`."""
        return self._trace.lens().to_pandas()

    @property
    def layers(self) -> pd.DataFrame:
        """What the layers do, one row each: medians over the tokens, the first left out.

        Returns
        -------
        DataFrame
            ``layer``, ``residual`` (norm of the stream after it), ``attention`` and ``mlp`` (norm of what they write),
            ``cosine`` (of the stream before and after), ``outliers`` (dimensions ten times the median or more) and
            ``milliseconds`` (NaN without `times`).
        """
        import pandas as pd

        from .lens_facts import MEASURES

        own = dict(zip(MEASURES, self.streams, strict=True))
        times = (self.facts["times"] or {}).get("ms") or [None] * len(self._layers)
        frame: pd.DataFrame = pd.DataFrame(
            {"layer": self._layers, **own, "milliseconds": np.array(times, np.float64)}
        ).astype({"outliers": "Int64"})
        return frame

    def to_svg(self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None) -> str:
        """The table around the chosen token, the strips and the provenance, as SVG.

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
        from ..export.picture import svg

        self._read_shown()
        text = svg(self._drawn(theme), self._title())
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
        from ..export.picture import png_file

        self._read_shown()
        data = png_file(self._drawn(theme))
        if path is not None:
            self._path(path, "png").write_bytes(data)
        return data

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The widget as one HTML file that needs no kernel and no network.

        The tokens that were looked at go in, as many as fit 4 MB; where none was, those around the chosen one.

        Parameters
        ----------
        path : path, optional
            Where to write it; its size is then printed. A folder gets a file named after the model.

        Returns
        -------
        str
            The page.
        """
        from ..export.page import page

        part = self.page_part()
        text = page(part)
        if path is not None:
            target = self._path(path, "html")
            target.write_text(text, "utf-8")
            count, there = len(self._trace.token_ids), len(part.state["embedded"])
            print(f"{target} · {target.stat().st_size / 1e6:.1f} MB · {there} of {count} tokens")
        return text

    def page_part(self) -> Part:
        """The widget as a part of a page with several, for `save_html`."""
        from ..export.page import Part

        self._read_shown()
        positions = self._fitting(_PAGE_BYTES)
        binary = {
            "streams": self.streams.tobytes(),
            "push_heads": self.push_heads.tobytes(),
            "embedded_lens": [own.tobytes() for own in self._reading.arrays(positions)],
        }
        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        state |= {"facts": {**self._facts(), "live": False}, "embedded": positions, "push": self.push}
        state["words"] = self._reading.words_of(positions)
        shares = [(self._trace, "self")]
        return Part(self._title(), self._esm, state, binary, self._static_html(""), shares)

    def _read_shown(self) -> None:
        """Read what a picture shows, where there is something to read and a model to read it with."""
        from ..errors import CaptureUnavailable

        if self.facts["message"]:
            return
        try:
            self._reading.read(self._shown())
            self._show_push(self._pushed(self._push_position, self.word, self.against))
        except CaptureUnavailable:
            if not self._reading.known.any():
                return  # the streams are in the trace; the table says that it is not there
        self._embed()

    def _shown(self) -> range:
        """The tokens of a picture."""
        n = len(self._trace.token_ids)
        stop = min(max(self._position + 1, _SHOWN), n)
        return range(max(stop - _SHOWN, 0), stop)

    def _drawn(self, theme: str | None) -> Any:
        from ..export.colour import THEMES
        from ..export.lens import draw

        chosen = theme or (self.theme if self.theme != "auto" else "light")
        if chosen not in THEMES:
            raise LlamaTelemetryError(f"theme {chosen!r} does not exist: choose from {', '.join(THEMES)}")
        row = EMBEDDING if self.at_embedding else self.selected_layer
        at = self._position if row is not None or self.selected_tokens else None
        positions = [p for p in self._shown() if self._reading.known[p]]
        return draw(self.facts, self._reading, positions, self.streams, self.push, chosen, (row, at), self.every)

    def _static_html(self, why: str) -> str:
        from ..export.lens import fallback

        if why and self.comm is not None and not self._has_picture():
            self._read_shown()  # this picture is all that the host shows
        return fallback(self.facts, self._drawn(None), why)

    def _has_picture(self) -> bool:
        return bool(self._reading.known.any())

    def _title(self) -> str:
        return f"Layer lens · {self.facts['model'] or 'model'} · {len(self.facts['tokens'])} tokens"

    def _path(self, path: str | os.PathLike[str], ending: str) -> Path:
        target = Path(path)
        if not target.is_dir():
            return target
        model = re.sub(r"[^\w.-]+", "_", str(self.facts["model"])).strip("._")[:80] or "model"
        return target / f"lens-{model}-{len(self.facts['tokens'])}-tokens.{ending}"


_PAGE_TRAITS = (
    "selected_layer",
    "selected_head",
    "selected_tokens",
    "at_embedding",
    "word",
    "against",
    "measure",
    "every",
    "theme",
)
