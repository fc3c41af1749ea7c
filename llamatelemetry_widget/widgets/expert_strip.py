"""`ExpertStrip`: which experts each token took in each layer, how even the load is, and any layer large on request.

In: a `Trace` of a mixture-of-experts model. Out: an interactive widget, its selection as traits, and the same data as
HTML, PNG, SVG, pandas and NumPy.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import traitlets

from ..analysis import experts
from ..errors import LlamaTelemetryError
from ..trace import Trace
from .base import Message, TelemetryWidget
from .expert_facts import Routing
from .traits import Buffer, Index, Tokens, as_bytes

if TYPE_CHECKING:
    import pandas as pd

    from ..export.page import Part

Array = np.ndarray[Any, Any]

_NOTEBOOK_BYTES = 1_048_576  # of exact routing in a saved notebook: all layers, or as many as fit, the locked one first
_PAGE_BYTES = 4_000_000  # the same in an exported page


class ExpertStrip(TelemetryWidget):
    """The routing of a mixture-of-experts model: layers left to right, tokens top to bottom, experts side by side.

    Parameters
    ----------
    trace : Trace
        A whole run. Of a model without experts the widget says so.
    **traits
        Any of the attributes below.

    Attributes
    ----------
    selected_layer : int or None
        The layer that is shown large. Default None.
    selected_tokens : list of int
        ``[token]``: whose way through the experts is read. Default ``[]``.
    selected_expert : int or None
        The expert whose tokens are marked in the text; by default the one with the greatest weight.
    measure : {"experts", "weight", "evenness"}
        What a cell of the overview shows: the chosen experts by their place (default), the greatest weight, or how
        evenly the weights are spread over the chosen experts.
    theme : {"auto", "light", "dark"}
        ``auto`` follows the host. Default ``"auto"``.

    Examples
    --------
    >>> strip = ExpertStrip(trace)  # doctest: +SKIP
    >>> strip.selected_layer, strip.selected_tokens = 12, [5]  # doctest: +SKIP
    """

    bundle = "expert_strip"

    selected_layer = Index().tag(sync=True)
    selected_tokens = Tokens().tag(sync=True)
    selected_expert = Index().tag(sync=True)
    measure = traitlets.Enum(("experts", "weight", "evenness"), "experts").tag(sync=True)
    theme = traitlets.Enum(("auto", "light", "dark"), "auto").tag(sync=True)

    facts = traitlets.Dict().tag(sync=True)
    overview = Buffer(np.uint8, "layers rows experts")
    measures = Buffer(np.float32, "measures layers rows")
    loads = Buffer(np.float32, "layers kinds experts")
    embedded = traitlets.List(traitlets.Int()).tag(sync=True)
    embedded_ids = Buffer(np.uint16, "values")
    embedded_weights = Buffer(np.float32, "values")

    def __init__(self, trace: Trace, **traits: Any) -> None:
        if not isinstance(trace, Trace):
            raise LlamaTelemetryError(f"ExpertStrip shows a Trace (model.trace(…)), not {type(trace).__name__}")
        self._trace = trace
        self._routing = own = Routing(trace)
        self._facts = own.facts()  # of a whole run, so they stay
        tables = {"overview": own.overview(), "measures": own.measures(), "loads": own.loads()}
        super().__init__(facts=self._facts, **tables, **traits)
        self._embed()

    def __repr__(self) -> str:
        locked = "" if self.selected_layer is None else f" · L{self.selected_layer} locked"
        return f"<ExpertStrip: {self._facts['message'] or self._facts['provenance']}{locked}>"

    @property
    def trace(self) -> Trace:
        """The trace that is shown."""
        return self._trace

    # -------------------------------------------------------------------- messages

    def _answer(self, message: Message) -> None:
        kind = message.get("type")
        if kind not in ("layer", "token"):
            raise LlamaTelemetryError(f"message {kind!r} is not known: reload the page")
        number = int(message[kind])
        ids, weights = (self._routing.layer if kind == "layer" else self._routing.token)(number)
        self.send({"type": kind, "id": message["id"], kind: number}, [as_bytes(ids), as_bytes(weights)])

    # ------------------------------------------------------------------- selection

    @traitlets.validate("selected_layer")
    def _valid_layer(self, proposal: Any) -> Any:
        layer, known = proposal["value"], self._routing.layers
        if layer is not None and layer not in known:
            span = f"it has {known[0]} to {known[-1]}" if known else "it has none"
            raise traitlets.TraitError(f"layer {layer} is not in this trace: {span}")
        return layer

    @traitlets.validate("selected_tokens")
    def _valid_tokens(self, proposal: Any) -> Any:
        tokens, n = proposal["value"], len(self._trace.token_ids)
        if any(token >= n for token in tokens):
            raise traitlets.TraitError(f"token {max(tokens)} does not exist: the prompt has tokens 0 to {n - 1}")
        return tokens

    @traitlets.validate("selected_expert")
    def _valid_expert(self, proposal: Any) -> Any:
        expert, n = proposal["value"], self._facts["n_experts"]
        if expert is not None and expert >= n:
            raise traitlets.TraitError(f"expert {expert} does not exist: this model has experts 0 to {n - 1}")
        return expert

    @traitlets.observe("selected_layer")
    def _selected(self, _: Any) -> None:
        if self.selected_layer not in self.embedded:
            self._embed()

    def _embed(self) -> None:
        """Put exact layers into the state, so that a saved notebook shows them without a kernel."""
        layers = self._fitting(_NOTEBOOK_BYTES)
        with self.hold_sync():
            self.embedded = layers
            self.embedded_ids, self.embedded_weights = self._exact(layers)

    def _fitting(self, budget: int) -> list[int]:
        """As many layers as fit, the locked one first; in order."""
        found, taken = [], 0
        for layer in sorted(self._routing.experts, key=lambda own: own != self.selected_layer):
            ids, _ = self._routing.experts[layer]
            taken += len(self._trace.token_ids) * ids.shape[1] * 6  # 2 for an id, 4 for a weight
            if taken <= budget:
                found.append(layer)
        return sorted(found)

    def _exact(self, layers: list[int]) -> tuple[Array, Array]:
        both = [self._routing.layer(layer) for layer in layers]
        ids = [own.ravel() for own, _ in both] or [np.zeros(0, np.uint16)]
        weights = [own.ravel() for _, own in both] or [np.zeros(0, np.float32)]
        return np.concatenate(ids), np.concatenate(weights)

    # ---------------------------------------------------------------------- exports

    def to_numpy(self) -> Array:
        """All weights.

        Returns
        -------
        ndarray of float32, shape (layers with experts, tokens, experts)
            NaN where an expert was not chosen, or the token was not computed (`Trace.expert_tokens`).
        """
        count, n = self._facts["n_experts"], len(self._trace.token_ids)
        out = np.full((len(self._routing.experts), n, count), np.nan, np.float32)
        for i, (layer, (ids, weights)) in enumerate(self._routing.experts.items()):
            out[i, self._routing.tokens[layer]] = experts.token_table(ids, weights, count)
        return out

    def to_pandas(self) -> pd.DataFrame:
        """One row per layer, token and chosen expert.

        Returns
        -------
        DataFrame
            ``layer``, ``token`` (index), ``text``, ``rank`` (1 = greatest weight), ``expert``, ``weight``, ``share``
            (of the token's weights).
        """
        import pandas as pd

        tokens, parts = self._trace.tokens, []
        for layer in self._routing.experts:
            ids, weights = self._routing.layer(layer)
            at, used = self._routing.tokens[layer], ids.shape[1]
            parts.append(
                pd.DataFrame(
                    {
                        "layer": layer,
                        "token": np.repeat(at, used),
                        "text": np.repeat(np.array([tokens[i] for i in at], object), used),
                        "rank": np.tile(np.arange(1, used + 1), len(at)),
                        "expert": ids[at].ravel().astype(np.int32),
                        "weight": weights[at].ravel(),
                        "share": np.asarray(experts.shares(weights[at])).ravel(),
                    }
                )
            )
        columns = ["layer", "token", "text", "rank", "expert", "weight", "share"]
        return _joined(parts, columns)

    @property
    def load(self) -> pd.DataFrame:
        """One row per (layer, expert): ``tokens`` it got, ``load`` (share of all hand-overs), ``weighted_load``."""
        import pandas as pd

        count, parts = self._facts["n_experts"], []
        for i, (layer, (ids, _)) in enumerate(self._routing.experts.items()):
            own = {"layer": layer, "expert": np.arange(count), "tokens": experts.counts(ids, count)}
            parts.append(pd.DataFrame({**own, "load": self.loads[i, 0], "weighted_load": self.loads[i, 1]}))
        columns = ["layer", "expert", "tokens", "load", "weighted_load"]
        return _joined(parts, columns)

    @property
    def entropy(self) -> pd.DataFrame:
        """One row per layer: ``token_bits`` (mean over tokens), ``load_bits``, ``evenness`` of the load (1 = even)."""
        import pandas as pd

        columns = ["layer", "token_bits", "load_bits", "evenness"]
        rows = [{name: layer[name] for name in columns} for layer in self._facts["layers"] if layer["used"]]
        return _joined([pd.DataFrame(rows, columns=columns)], columns)

    def to_svg(self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None) -> str:
        """The overview with load, labels and provenance, as SVG.

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

        data = png_file(self._drawn(theme))
        if path is not None:
            self._path(path, "png").write_bytes(data)
        return data

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The widget as one HTML file that needs no kernel and no network.

        Exact weights go in for as many layers as fit 4 MB, the locked one first; the others show the overview.

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
            count, exact = len(self._routing.experts), len(part.state["embedded"])
            print(f"{target} · {target.stat().st_size / 1e6:.1f} MB · {exact} of {count} layers with exact weights")
        return text

    def page_part(self) -> Part:
        """The widget as a part of a page with several, for `save_html`."""
        from ..export.page import Part

        layers = self._fitting(_PAGE_BYTES)
        ids, weights = self._exact(layers)
        binary = {name: getattr(self, name).tobytes() for name in ("overview", "measures", "loads")}
        binary |= {"embedded_ids": ids.tobytes(), "embedded_weights": weights.tobytes()}
        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        state |= {"facts": {**self._facts, "live": False}, "embedded": layers}
        shares = [(self._trace, "self")]
        return Part(self._title(), self._esm, state, binary, self._static_html(""), shares)

    def _drawn(self, theme: str | None) -> Any:
        from ..export.colour import THEMES
        from ..export.experts import draw

        chosen = theme or (self.theme if self.theme != "auto" else "light")
        if chosen not in THEMES:
            raise LlamaTelemetryError(f"theme {chosen!r} does not exist: choose from {', '.join(THEMES)}")
        return draw(self._facts, self.overview, self.loads, chosen, self.selected_layer)

    def _static_html(self, why: str) -> str:
        from ..export.experts import fallback

        return fallback(self._facts, self._drawn(None), self.loads, why)

    def _title(self) -> str:
        return f"Experts · {self._facts['model'] or 'model'} · {len(self._facts['tokens'])} tokens"

    def _path(self, path: str | os.PathLike[str], ending: str) -> Path:
        target = Path(path)
        if not target.is_dir():
            return target
        model = re.sub(r"[^\w.-]+", "_", str(self._facts["model"])).strip("._")[:80] or "model"
        return target / f"experts-{model}-{len(self._facts['tokens'])}-tokens.{ending}"


_PAGE_TRAITS = ("selected_layer", "selected_tokens", "selected_expert", "measure", "theme")


def _joined(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    import pandas as pd

    table: pd.DataFrame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return table
