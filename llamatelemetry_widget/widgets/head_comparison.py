"""`HeadComparison`: two heads side by side with their difference, and how far all heads of two runs lie apart.

In: two traces, or one. Out: an interactive widget, its selection as traits, and the same data as HTML, PNG, SVG, pandas
and NumPy.
"""

from __future__ import annotations

import os
import re
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import traitlets

from ..analysis.attention import STATISTICS
from ..errors import LlamaTelemetryError
from ..trace import Trace
from . import attention_facts as told
from . import comparison_facts as compared
from .base import Message, TelemetryWidget
from .embedding import Embedding
from .traits import Buffer, Buffers, Index, Switch, Tokens, as_bytes

if TYPE_CHECKING:
    import pandas as pd

    from ..export.page import Part
    from ..export.picture import Picture

Array = np.ndarray[Any, Any]
Head = tuple[int, int]

DISTANCES = ("jensen-shannon", "total-variation")
_NOTEBOOK_BYTES = 1_500_000  # of the chosen heads in a saved notebook: 2048 tokens
_PAGE_BYTES = 2_000_000  # of heads embedded in an exported page
_LISTED = 9  # heads that a picture names


class HeadComparison(TelemetryWidget):
    """Two heads: left, right, difference. Two models, quant types, prompts, layers, or two heads of one trace.

    Parameters
    ----------
    trace_a : Trace
    trace_b : Trace, optional
        Compared with `trace_a` head by head; without it heads of `trace_a` are compared with each other.
    a, b : (layer, head) or layer, optional
        What is chosen at first on the left and on the right. A layer alone compares two layers, every head with every
        head. By default the heads that differ most, in one trace the most striking head and the one most like it.
    distance : {"jensen-shannon", "total-variation"}
        What the map and the list show.
    part : str, optional
        One of ``trace_a.parts``; the first by default.
    **traits
        Any of the attributes below.

    Attributes
    ----------
    selected_layer, selected_head : int or None
        The left head; the right one, too, where `other_layer` is None.
    other_layer, other_head : int or None
        The right head, where it is another one.
    selected_tokens : list of int
        ``[query]`` or ``[query, key]``: the cell that is read. Default ``[]``: where they differ most.
    distance : {"jensen-shannon", "total-variation"}
        Jensen-Shannon divergence in bits, or total variation; both from 0 to 1, means over the query tokens.
    scale : {"log", "linear"}
        Colours of left and right, as in `AttentionGrid`. Default ``"log"``.
    sink_aside : bool
        Set the first token apart and leave it out of automatic maxima. Default True.
    theme : {"auto", "light", "dark"}
        ``auto`` follows the host. Default ``"auto"``.

    Examples
    --------
    >>> HeadComparison(q4.trace(text), q8.trace(text)).to_pandas()  # doctest: +SKIP
    >>> HeadComparison(trace, a=(17, 5), b=(16, 0))  # doctest: +SKIP
    """

    bundle = "head_comparison"

    selected_layer = Index().tag(sync=True)
    selected_head = Index().tag(sync=True)
    other_layer = Index().tag(sync=True)
    other_head = Index().tag(sync=True)
    selected_tokens = Tokens().tag(sync=True)
    distance = traitlets.Enum(DISTANCES, DISTANCES[0]).tag(sync=True)
    scale = traitlets.Enum(("log", "linear"), "log").tag(sync=True)
    sink_aside = Switch(True).tag(sync=True)
    theme = traitlets.Enum(("auto", "light", "dark"), "auto").tag(sync=True)

    facts = traitlets.Dict().tag(sync=True)
    distances = Buffer(np.float32, "measures rows columns")
    similarity = Buffer(np.uint8, "heads heads")
    statistics = Buffer(np.float32, "heads statistics")
    embedded = traitlets.Dict().tag(sync=True)
    embedded_data = Buffers()

    def __init__(
        self,
        trace_a: Trace,
        trace_b: Trace | None = None,
        a: Head | int | None = None,
        b: Head | int | None = None,
        distance: Literal["jensen-shannon", "total-variation"] = "jensen-shannon",
        part: str | None = None,
        **traits: Any,
    ) -> None:
        self._traces = _checked(trace_a, trace_b, part)
        self._part = part or trace_a.parts[0]
        self._alike: Array | None = None
        left, right = self._traces[0], self._traces[-1]
        self._alignment = compared.align(left, right, self._part)
        apart = compared.namesakes(left, right, self._part)
        whole_layers = isinstance(a, Integral) or isinstance(b, Integral)
        self._mode = "layers" if whole_layers or apart else "heads" if trace_b is None else "traces"
        self._notes = [note for note in (apart, self._alignment.sentence) if note]
        first = self._first(a, b)
        super().__init__(**self._state(first), **_selection(*first), distance=distance, **traits)
        self._embed_chosen()

    def __repr__(self) -> str:
        return f"<HeadComparison: {self._subtitle()}>"

    @property
    def left(self) -> Head:
        """(layer, head) of the left head."""
        return cast("Head", (self.selected_layer, self.selected_head))

    @property
    def right(self) -> Head:
        """(layer, head) of the right head."""
        return self.left if self.other_layer is None else cast("Head", (self.other_layer, self.other_head))

    def select(self, left: Head, right: Head | None = None) -> None:
        """Choose both heads; without `right` the same one on both sides."""
        for head, trace, side in ((left, self._traces[0], "left"), (right or left, self._traces[-1], "right")):
            _exists(trace, head, self._part, side)
        with self.hold_trait_notifications():
            for name, value in _selection(left, right or left).items():
                setattr(self, name, value)

    # ----------------------------------------------------------------------- state

    def _first(self, a: Head | int | None, b: Head | int | None) -> tuple[Head, Head]:
        """What is chosen at first."""
        left, right = self._traces[0], self._traces[-1]
        one, two = (_as_head(x, trace, self._part, side) for x, trace, side in ((a, left, "a"), (b, right, "b")))
        if self._mode == "layers":
            start = one or (_nearest(two, left, self._part) if two else _first_head(left, self._part))
            end = two or _nearest(start, right, self._part)
            return (None if isinstance(a, tuple) else self._closest(start[0], end[0])) or (start, end)
        if one and two:
            return one, two
        if self._mode == "heads":
            return self._most_alike(one or two or self._striking())
        found = one or two or self._most_changed()
        return found, found

    def _closest(self, layer: int, other: int) -> tuple[Head, Head] | None:
        """The two heads of two layers that lie nearest to each other, not one head twice."""
        table = compared.every_pair(self._traces[0], self._traces[-1], self._part, (layer, other), self._alignment)[0][
            0
        ]
        if len(self._traces) == 1 and layer == other:
            np.fill_diagonal(table, np.nan)
        if not np.isfinite(table).any():
            return None
        i, j = np.unravel_index(int(np.nanargmin(table)), table.shape)
        return (layer, int(i)), (other, int(j))

    def _striking(self) -> Head:
        """The head with the clearest induction; where nothing repeats, the one that looks back most."""
        table = compared.statistics(self._traces[0], self._part)
        for name in ("induction", "previous_token", "max_weight"):
            values = table[:, STATISTICS.index(name)]
            if np.isfinite(values).any():
                return self._owners(0)[int(np.nanargmax(values))]
        return self._owners(0)[0]

    def _most_alike(self, head: Head) -> tuple[Head, Head]:
        owners, row = self._owners(0), self._overlap()[self._owners(0).index(head)].copy()
        row[owners.index(head)] = -1
        return head, owners[int(np.argmax(row))]

    def _most_changed(self) -> Head:
        table = self._by_layer()[0][0]
        layers = compared.shared_layers(self._traces[0], self._traces[-1], self._part)
        if not np.isfinite(table).any():
            return layers[0][0], 0
        head, at = np.unravel_index(int(np.nanargmax(table)), table.shape)
        return layers[int(at)][0], int(head)

    def _owners(self, side: int) -> list[Head]:
        """(layer, head) of all heads of a side."""
        layers = compared.with_attention(self._traces[side], self._part)
        return [(layer.layer, head) for layer in layers for head in range(layer.heads)]

    def _by_layer(self) -> tuple[Array, int]:
        if not hasattr(self, "_computed"):
            self._computed = compared.by_layer(self._traces[0], self._traces[1], self._part, self._alignment)
        return self._computed

    def _overlap(self) -> Array:
        if self._alike is None:
            self._alike, self._order, self._used = compared.alike(self._traces[0], self._part)
        return self._alike

    def _state(self, first: tuple[Head, Head]) -> dict[str, Any]:
        """The traits that say what is compared."""
        (left, right), rows = first, self._alignment.rows
        state: dict[str, Any] = {}
        order: list[int] = []
        if self._mode == "heads":
            codes = np.round(np.nan_to_num(self._overlap()) * 255).astype(np.uint8)
            state["similarity"], order, used = codes, self._order, self._used
        elif self._mode == "traces":
            state["distances"], used = self._by_layer()
        else:
            state["distances"], used = self._pairs(left[0], right[0])
        sides = self._traces
        state["statistics"] = np.concatenate([compared.statistics(trace, self._part) for trace in sides])
        state["facts"] = {
            "title": "Head comparison",
            "mode": self._mode,
            "how": self._alignment.how,
            "rows": rows,
            "keys": self._alignment.keys,
            "notes": self._notes,
            "sampled": compared.sampled(used, rows),
            "sides": [
                compared.side_facts(trace, self._part, label)
                for trace, label in zip(sides, compared.names(sides), strict=True)
            ],
            "layers": [list(x) for x in compared.shared_layers(sides[0], sides[-1], self._part)],
            "statistics": compared.STATISTIC_NAMES,
            "order": order,
            "part": self._part,
            "live": True,
            "saved": told.day(self._traces[0]),
        }
        return state

    def _pairs(self, layer: int, other: int) -> tuple[Array, int]:
        return compared.every_pair(self._traces[0], self._traces[-1], self._part, (layer, other), self._alignment)

    @traitlets.observe("selected_layer", "other_layer")
    def _layers_changed(self, _: Any) -> None:
        if self._mode == "layers" and None not in (self.selected_layer, self.selected_head):
            table, used = self._pairs(self.left[0], self.right[0])
            with self.hold_sync():
                self.distances = table
                self.facts = {**self.facts, "sampled": compared.sampled(used, self._alignment.rows)}

    # -------------------------------------------------------------------- messages

    def _answer(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "head":
            self._send_head(message)
        elif kind == "resync":
            self.send_state(["facts", "distances", "similarity", "statistics", "embedded", "embedded_data"])
        else:
            raise LlamaTelemetryError(f"message {kind!r} is not known: reload the page")

    def _send_head(self, message: Message) -> None:
        side, layer, head = (int(message[name]) for name in ("side", "layer", "head"))
        facts, arrays = told.head_parts(self._traces[side], layer, head, self._part)
        answer = {"type": "head", "id": message["id"], "side": side, "layer": layer, "head": head}
        self.send({**answer, **facts}, [as_bytes(array) for array in arrays])

    # ------------------------------------------------------------------- selection

    @traitlets.validate("selected_layer", "other_layer")
    def _valid_layer(self, proposal: Any) -> Any:
        left = proposal["trait"].name == "selected_layer"
        trace = self._traces[0 if left else -1]
        if proposal["value"] is None:
            return _none(left)
        try:
            told.find_layer(trace, proposal["value"], self._part)
        except LlamaTelemetryError as error:
            raise traitlets.TraitError(str(error)) from None
        return proposal["value"]

    @traitlets.validate("selected_head", "other_head")
    def _valid_head(self, proposal: Any) -> Any:
        head, left = proposal["value"], proposal["trait"].name == "selected_head"
        if head is None:
            return _none(left)
        layer = self.selected_layer if left else self.other_layer
        layers = compared.with_attention(self._traces[0 if left else -1], self._part)
        most = max(own.heads for own in layers if layer in (None, own.layer))
        if head >= most:
            where = "this trace" if layer is None else f"layer {layer}"
            raise traitlets.TraitError(f"head {head} does not exist: {where} has heads 0 to {most - 1}")
        return head

    @traitlets.validate("selected_tokens")
    def _valid_tokens(self, proposal: Any) -> Any:
        counts = [max(len(side[name]) for side in self.facts["sides"]) for name in ("query_tokens", "tokens")]
        for index, count, what in zip(proposal["value"], counts, ("query", "key"), strict=False):
            if index >= count:
                raise traitlets.TraitError(f"{what} token {index} does not exist: there are tokens 0 to {count - 1}")
        return proposal["value"]

    @traitlets.observe("selected_layer", "selected_head", "other_layer", "other_head")
    def _chosen_changed(self, change: Any) -> None:
        name, old = change["name"], change["old"]
        if change["new"] is None and old is not None and name.startswith("selected"):
            setattr(self, name, old)  # a linked widget has freed its head; here there is always one
        for trace, side in ((self._traces[0], "selected"), (self._traces[-1], "other")):
            layer, head = getattr(self, f"{side}_layer"), getattr(self, f"{side}_head")
            if None not in (layer, head):
                heads = told.find_layer(trace, layer, self._part).heads
                setattr(self, f"{side}_head", min(head, heads - 1))  # this layer may have fewer
        if self.comm is not None:
            self._pacer.put("embedded", self._embed_chosen)

    def _embed_chosen(self) -> None:
        """Put the chosen heads into the state, so that a saved notebook shows them without a kernel."""
        if None in self.left or None in self.right:
            return
        facts, data = self._embed([(self.left, self.right)], _NOTEBOOK_BYTES)
        with self.hold_sync():
            self.embedded, self.embedded_data = facts, data

    def _embed(self, pairs: list[tuple[Head, Head]], budget: int) -> tuple[dict[str, Any], list[bytes]]:
        """As many pairs of heads as fit, both heads of each."""
        sides = [Embedding(trace, self._part) for trace in self._traces]
        for pair in pairs:
            room = [budget - sum(other.size for other in sides if other is not own) for own in (sides[0], sides[-1])]
            fits = [
                own.add(*head, budget=left) for own, head, left in zip((sides[0], sides[-1]), pair, room, strict=True)
            ]
            if not all(fits):
                break
        facts: dict[str, Any] = {}
        data: list[bytes] = []
        for at, side in enumerate(sides):
            for key, own in side.facts.items():
                facts[f"{at}:{key}"] = {**own, "buffers": [place + len(data) for place in own["buffers"]]}
            data += side.data
        return facts, data

    # ---------------------------------------------------------------------- exports

    def to_pandas(self) -> pd.DataFrame:
        """How far the heads lie apart, most changed first.

        Returns
        -------
        DataFrame
            Two traces: one row per (part, layer, head) with ``js`` (bits) and ``tv``, means over the query tokens. Two
            layers, or heads of one trace: also ``other_layer`` and ``other_head``; in one trace each head is compared
            with the left one, and ``overlap`` says how much alike they are. Sorted by the trait `distance`.
        """
        import pandas as pd

        by = "js" if self.distance == DISTANCES[0] else "tv"
        frame = pd.DataFrame([{"part": self._part, **row} for row in self._rows()])
        out: pd.DataFrame = frame.sort_values(by, ascending=False, kind="stable", ignore_index=True)
        return out

    def _rows(self) -> list[dict[str, Any]]:
        if self._mode == "heads":
            names = {"layer": self.left[0], "head": self.left[1]}
            owners, near = self._owners(0), self._overlap()[self._owners(0).index(self.left)]
            return [
                {**names, "other_layer": layer, "other_head": head, "js": js, "tv": tv, "overlap": float(near[at])}
                for layer, head, js, tv in compared.from_one(self._traces[0], self._part, self.left)
                for at in [owners.index((layer, head))]
            ]
        js, tv = self.distances
        if self._mode == "layers":
            layers = {"layer": self.left[0], "other_layer": self.right[0]}
            return [
                {"layer": layers["layer"], "head": i, "other_layer": layers["other_layer"], "other_head": j}
                | {"js": float(js[i, j]), "tv": float(tv[i, j])}
                for i, j in np.ndindex(*js.shape)
            ]
        return [
            {"layer": layer, "head": head, "js": float(js[head, at]), "tv": float(tv[head, at])}
            for at, (layer, heads) in enumerate(self.facts["layers"])
            for head in range(heads)
        ]

    def to_numpy(self) -> Array:
        """What the map shows.

        Returns
        -------
        ndarray of float32
            Two traces: (layers, heads), the chosen distance. Two layers: (heads of the left, heads of the right). One
            trace: (heads, heads), the overlap of every head with every head, layer after layer.
        """
        if self._mode == "heads":
            return np.array(self._overlap())
        table = self.distances[DISTANCES.index(self.distance)]
        return np.array(table if self._mode == "layers" else table.T)

    def to_svg(self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None) -> str:
        """Map, both heads and their difference with legends and provenance, as SVG.

        Parameters
        ----------
        path : path, optional
            Where to write it; a folder gets a file named after the models.
        theme : {"light", "dark"}, optional
            The widget's own by default, light where that is ``auto``.
        """
        from ..export.picture import svg

        text = svg(self._picture_of(theme), self._title())
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

        data = png_file(self._picture_of(theme))
        if path is not None:
            self._path(path, "png").write_bytes(data)
        return data

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The widget as one HTML file that needs no kernel and no network.

        The chosen heads and as many others as fit 2 MB go in exactly, those that differ most first; the map and the
        list show all.

        Parameters
        ----------
        path : path, optional
            Where to write it; its size is then printed. A folder gets a file named after the models.
        """
        from ..export.page import page

        part = self.page_part()
        text = page(part)
        if path is not None:
            target = self._path(path, "html")
            target.write_text(text, "utf-8")
            heads = len(part.state["embedded"])
            print(f"{target} · {target.stat().st_size / 1e6:.1f} MB · {heads} heads with exact weights")
        return text

    def page_part(self) -> Part:
        """The widget as a part of a page with several, for `save_html`."""
        from ..export.page import Part

        embedded, data = self._embed(self._worth(), _PAGE_BYTES)
        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        state |= {"facts": {**self.facts, "live": False}, "embedded": embedded}
        state["facts"]["shape"] = list(self.distances.shape)
        binary = {name: getattr(self, name).tobytes() for name in ("distances", "similarity", "statistics")}
        shares = [(trace, self._part) for trace in self._traces]
        return Part(self._title(), self._esm, state, {**binary, "embedded_data": data}, self._static_html(""), shares)

    def _worth(self) -> list[tuple[Head, Head]]:
        """Pairs in the order in which they are worth a place in a page: the chosen one, then the list's."""
        rows = self.to_pandas() if self._mode != "heads" else None
        chosen = [(self.left, self.right)]
        if rows is None:
            owners = self._owners(0)
            near = np.argsort(-self._overlap()[owners.index(self.left)], kind="stable")
            return chosen + [(self.left, owners[int(at)]) for at in near]
        others = rows[["other_layer", "other_head"] if self._mode == "layers" else ["layer", "head"]].to_numpy()
        return chosen + [
            ((int(a), int(b)), (int(c), int(d)))
            for (a, b), (c, d) in zip(rows[["layer", "head"]].to_numpy(), others, strict=True)
        ]

    # --------------------------------------------------------------------- picture

    def _picture_of(self, theme: str | None) -> Picture:
        from ..export.colour import THEMES
        from ..export.comparison import Look, draw

        chosen = theme or (self.theme if self.theme != "auto" else "light")
        if chosen not in THEMES:
            raise LlamaTelemetryError(f"theme {chosen!r} does not exist: choose from {', '.join(THEMES)}")
        look = Look(chosen, self.distance, self.scale, self.sink_aside, self.left, self.right)
        sides = (self._traces[0], self.left), (self._traces[-1], self.right)
        matrices = [compared.seen(trace, head, self._part) for trace, head in sides]
        table = self._overlap()[np.ix_(self._order, self._order)] if self._mode == "heads" else self.distances
        return draw(self.facts, table, matrices, look, self._subtitle(), self._listed(_LISTED))

    def _static_html(self, why: str) -> str:
        from ..export.comparison import fallback
        from ..export.picture import svg

        picture = svg(self._picture_of(None), self._title())
        return fallback(self.facts, picture, self._title(), self._listed(_LISTED), why)

    def _listed(self, most: int) -> list[tuple[str, ...]]:
        """The first rows of the list, as text."""
        if self._mode == "heads":
            owners, near = self._owners(0), self._overlap()[self._owners(0).index(self.left)]
            order = [int(at) for at in np.argsort(-near, kind="stable") if owners[int(at)] != self.left][:most]
            return [("L{} H{}".format(*owners[at]), f"{near[at]:.3f}") for at in order]
        rows = self.to_pandas().dropna().head(most).to_dict("records")
        return [
            (
                " – ".join(
                    f"L{row[layer]} H{row[head]}"
                    for layer, head in (("layer", "head"), ("other_layer", "other_head"))
                    if layer in row
                ),
                f"{row['js']:.4f}",
                f"{row['tv']:.4f}",
            )
            for row in rows
        ]

    def _subtitle(self) -> str:
        sides = self.facts["sides"]
        if len(sides) == 1:
            what = f"{'two layers' if self._mode == 'layers' else 'heads'} of {sides[0]['label']}"
        else:
            what = f"{sides[0]['label']} against {sides[1]['label']}"
        return f"{what} · {self.facts['keys']} tokens" if self.facts["keys"] else what

    def _title(self) -> str:
        return f"Head comparison · {self._subtitle()}"

    def _path(self, path: str | os.PathLike[str], ending: str) -> Path:
        target = Path(path)
        if not target.is_dir():
            return target
        models = "-".join(dict.fromkeys(side["model"] for side in self.facts["sides"]))
        name = re.sub(r"[^\w.-]+", "_", models).strip("._")[:80] or "model"
        return target / f"comparison-{name}.{ending}"


_PAGE_TRAITS = (
    *("selected_layer", "selected_head", "other_layer", "other_head", "selected_tokens"),
    *("distance", "scale", "sink_aside", "theme"),
)


def _checked(a: Trace, b: Trace | None, part: str | None) -> tuple[Trace, ...]:
    """The traces, if there is anything to compare in them."""
    traces = (a,) if b is None else (a, b)
    for trace in traces:
        if not isinstance(trace, Trace):
            kind = type(trace).__name__
            raise LlamaTelemetryError(f"HeadComparison compares Traces (model.trace(…)), not {kind}")
        if not trace.parts:
            raise LlamaTelemetryError(f"no layer of {trace.info.get('model') or 'the model'} has attention to compare")
        wanted = part or a.parts[0]
        if wanted not in trace.parts:
            there = ", ".join(trace.parts)
            raise LlamaTelemetryError(f"part {wanted!r} does not exist in every trace: one has {there}")
    return traces


def _selection(left: Head, right: Head) -> dict[str, int | None]:
    names = ("selected_layer", "selected_head", "other_layer", "other_head")
    return dict(zip(names, (*left, *((None, None) if left == right else right)), strict=True))


def _as_head(x: Head | int | None, trace: Trace, part: str, side: str) -> Head | None:
    if x is None:
        return None
    head = (int(x[0]), int(x[1])) if isinstance(x, tuple) else (int(x), 0)
    _exists(trace, head, part, side)
    return head


def _none(left: bool) -> None:
    if left:
        raise traitlets.TraitError("a comparison always has a left head")


def _exists(trace: Trace, head: Head, part: str, side: str) -> None:
    heads = told.find_layer(trace, head[0], part).heads
    if not 0 <= head[1] < heads:
        raise LlamaTelemetryError(f"{side}: head {head[1]} does not exist: layer {head[0]} has heads 0 to {heads - 1}")


def _first_head(trace: Trace, part: str) -> Head:
    return compared.with_attention(trace, part)[0].layer, 0


def _nearest(head: Head, trace: Trace, part: str) -> Head:
    """The same layer where there is one, else the last before it."""
    layers = [layer.layer for layer in compared.with_attention(trace, part)]
    return max((layer for layer in layers if layer <= head[0]), default=layers[0]), 0
