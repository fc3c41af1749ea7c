"""`EmbeddingSpace3D`: a vocabulary as a cloud of points to fly through, with exact neighbours and what a copy moved.

In: a `Model`, optionally tokens or texts, and a second model. Out: an interactive widget, its selection as traits, and
the same data as HTML, PNG, SVG and pandas.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import traitlets

from ..analysis.drift import onto
from ..analysis.network import similar_pairs
from ..analysis.projection import measured, pca, unit
from ..errors import EngineCancelled, LlamaTelemetryError
from ..studies.embedding_space import EmbeddingSpace
from . import embedding_facts as told
from .background import Still, Superseded
from .base import Message, TelemetryWidget
from .embedding_facts import count
from .traits import Buffer, Buffers, Index, Tokens, as_bytes

if TYPE_CHECKING:
    import pandas as pd

    from ..analysis.clusters import Clusters
    from ..analysis.drift import Drift
    from ..analysis.projection import Projected
    from ..export.graphs import Graph
    from ..export.page import Part
    from ..export.picture import Picture
    from ..model import Model
    from ..trace import Trace

Array = np.ndarray[Any, Any]

NEIGHBOURS = 10
_FOUND = 50  # rows that one search gives at most
_PAGE_TOKENS = 64  # chosen tokens whose neighbours and vectors stand in an exported page


class EmbeddingSpace3D(TelemetryWidget):
    """Embedding vectors of a model in three dimensions: every token of its vocabulary, or some, or texts.

    The picture starts as PCA, which is there at once; UMAP takes its place when it is ready. Distances are read from
    the list of neighbours, which is exact (cosine in all dimensions); the picture says how far it can be trusted.

    Parameters
    ----------
    model : Model or EmbeddingSpace
    what : sequence of int or of str, optional
        Token ids or texts; the whole vocabulary by default.
    projection : {"umap", "pca"}
    compare : Model, optional
        A second model with the same vocabulary: how far each token lies from itself there.
    select : int, str, or a sequence of either, optional
        A token (id or text) to fly to; of several, the first, and all of them are selected.
    color : str, optional
        What colours the points; by default groups, of a trace its layers.
    trace : Trace, optional
        Instead of `what`: the residual stream of its prompt, every token after every layer, as paths.
    columns : mapping, optional
        More to colour by: a name and one value (number or text) for every row.
    matrix : {"input", "output"}
        The token embedding, or the output matrix where that is a separate one.
    layer : int, optional
        Of texts: after which layer their residual stream is pooled (`Model.embeddings`).
    **traits
        Any of the attributes below.

    Attributes
    ----------
    token : int or None
        Id of the locked token, whose neighbours are listed (of texts and of a trace: its row). Default None.
    selected_tokens : list of int
        Ids that a lasso covered. Default ``[]``.
    color : str
        ``"cluster"`` (default), ``"norm"``, ``"rank"``, ``"kind"``, ``"script"``, ``"drift"`` or a name of `columns`.
    projection : {"umap", "pca"}
    network : int or float or None
        Lines between selected tokens that are alike: a whole number joins each with so many nearest of them, a number
        between 0 and 1 all pairs with at least that cosine. Where nothing is selected, of all rows, if they are few.
        Default None.
    search : str
        What the search box holds.
    theme : {"auto", "light", "dark"}
        ``auto`` follows the host. Default ``"auto"``.

    Examples
    --------
    >>> space = EmbeddingSpace3D(model, select=" lamp")  # doctest: +SKIP
    >>> space.neighbours(" lamp")  # doctest: +SKIP
    """

    bundle = "embedding_space"

    token = Index().tag(sync=True)
    selected_tokens = Tokens().tag(sync=True)
    color = traitlets.Unicode("cluster").tag(sync=True)
    projection = traitlets.Enum(("umap", "pca"), "umap").tag(sync=True)
    search = traitlets.Unicode("").tag(sync=True)
    network = traitlets.Any(None).tag(sync=True)
    theme = traitlets.Enum(("auto", "light", "dark"), "auto").tag(sync=True)

    facts = traitlets.Dict().tag(sync=True)
    positions = Buffer(np.uint16, "rows axes")
    moved = Buffer(np.uint16, "rows axes")
    labels = Buffer(np.int16, "rows")
    ids = Buffer(np.int32, "rows")
    joined = Buffer(np.int32, "pairs ends")
    cosines = Buffer(np.float32, "pairs")
    columns = traitlets.Dict().tag(sync=True)
    column_data = Buffers()
    embedded = traitlets.Dict().tag(sync=True)
    embedded_data = Buffers()

    def __init__(
        self,
        model: Model | EmbeddingSpace,
        what: Sequence[int] | Sequence[str] | None = None,
        projection: Literal["umap", "pca"] = "umap",
        compare: Model | EmbeddingSpace | None = None,
        select: int | str | Sequence[int] | Sequence[str] | None = None,
        trace: Trace | None = None,
        color: str | None = None,
        columns: Mapping[str, Any] | None = None,
        matrix: Literal["input", "output"] = "input",
        layer: int | None = None,
        **traits: Any,
    ) -> None:

        def space(of: Model | EmbeddingSpace) -> EmbeddingSpace:
            if isinstance(of, EmbeddingSpace):
                return of
            return EmbeddingSpace(of, what, matrix, layer) if trace is None else EmbeddingSpace.of_trace(of, trace)

        self._space = space(model)
        self._other = None if compare is None else space(compare)
        n = len(self._space.ids)
        if n == 0:
            raise LlamaTelemetryError("there is nothing to show: give at least one token id or text")
        self._own = told.user_columns(columns or {}, n)
        self._steps = self._space.steps
        if self._steps is not None:
            self._own = {"layer": self._steps[:, 0], **self._own}
        self._texts = int(self._space.ids[0]) < 0
        self._index: told.Search | None = None
        self._drift: Drift | None = None
        self._projected: dict[str, Projected] = {"pca": self._pca()}
        self._clusters: Clusters | None = None
        self._both: Array | None = None
        self._made: dict[str, tuple[Array, list[str]]] = {}
        self._changing = threading.RLock()
        self._stopped = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._wanted: list[str] = []
        self._status: dict[str, Any] = {
            "phase": "done",
            "done": 0,
            "total": 0,
            "error": "",
            "doing": "",
            "network": None,
        }
        given, chosen = traits.pop("token", None), traits.pop("selected_tokens", None)
        self._ready = False
        ids = np.zeros(0, np.int32)
        if self._texts or self._steps is not None:
            ids = np.arange(n, dtype=np.int32)
        elif not np.array_equal(self._space.ids, np.arange(n)):
            ids = self._space.ids
        shown = {"projection": projection, "theme": traits.pop("theme", "auto")}
        super().__init__(**self._state(self._projected["pca"]), ids=ids, **shown)
        self._ready = True
        color = color or ("cluster" if self._steps is None else "layer")
        self._check_color(color)
        self.color = color
        self._select(select)
        for name, value in {**traits, "token": given, "selected_tokens": chosen}.items():
            if value is not None:
                setattr(self, name, value)
        if self._other is not None:
            self._want("drift")
        self._want(projection)

    def __repr__(self) -> str:
        shown = told.TITLES[self.facts["method"]]
        return f"<EmbeddingSpace3D: {self.facts['subtitle']} · {shown} · {self.facts['provenance']}>"

    @property
    def space(self) -> EmbeddingSpace:
        """The vectors that are shown."""
        return self._space

    # -------------------------------------------------------------------- the work

    def _want(self, step: str) -> None:
        """Do a step beside the kernel's own thread, after those that wait already."""
        with self._changing:
            if step in self._wanted:
                return
            self._wanted.append(step)
            if not self._idle.is_set():
                return
            self._idle.clear()
        self._stopped.clear()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._changing:
                if not self._wanted:
                    self._idle.set()
                    return
                step = self._wanted[0]
            try:
                getattr(self, f"_find_{step}")()
                self._say(phase="done", error="")
            except EngineCancelled:
                self._say(phase="stopped")
            except Exception as error:
                words = str(error) if isinstance(error, LlamaTelemetryError) else f"{type(error).__name__}: {error}"
                self._say(phase="error", error=words)
            finally:
                with self._changing:
                    self._wanted.remove(step)

    def _pca(self) -> Projected:
        if self._steps is None:
            return pca(self._space.vectors)
        # The first token's residual stream is often a thousand times longer than the others.
        made = pca(unit(self._space.vectors))
        return replace(made, note="; ".join(filter(None, [made.note, "every vector at length 1"])))

    @property
    def _noun(self) -> str:
        return "texts" if self._texts else "tokens"

    def _text(self, row: int) -> str:
        """A row's text as the browser shows it."""
        layer = "" if self._steps is None else f" L{self._steps[row, 0]}"
        return self._space.tokens[row] + layer

    def _find_umap(self) -> None:
        if "umap" not in self._projected:
            self._say(phase="computing", doing="UMAP", done=0, total=0)
            compared = self._compared()
            picture = self._space.umap(compared=compared, progress=self._heard, cancelled=self._stopped.is_set)
            self._projected["umap"], self._clusters = picture.projected, picture.clusters
            self._both = picture.moved
            self._made.pop("cluster", None)
        self._show()

    def _find_pca(self) -> None:
        """PCA itself is there from the start; how far it can be trusted takes longer."""
        made = self._projected["pca"]
        if made.quality_rows is None:
            self._say(phase="computing", doing="trustworthiness", done=0, total=0)
            self._projected["pca"] = measured(self._space.vectors, made)
        self._show()

    def _find_drift(self) -> None:
        if self._other is not None and self._drift is None:
            self._say(phase="computing", doing="drift", done=0, total=0)
            self._drift = self._space.drift(self._other)
        self._show()
        self._put_column()

    def _heard(self, done: int, total: int) -> None:
        self._pacer.put("progress", lambda: self._say(phase="computing", done=done, total=total))

    def _say(self, **news: Any) -> None:
        with self._changing:
            self._status |= news
            self.facts = {**self.facts, **self._status}

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until projection, groups and drift are there; False where the time was too short."""
        return self._idle.wait(seconds)

    def stop(self) -> None:
        """Stop what is being computed; the picture stays what it is."""
        self._stopped.set()

    # -------------------------------------------------------------------- what is shown

    @property
    def _shown(self) -> Projected:
        return self._projected.get(self.projection) or self._projected["pca"]

    def _show(self) -> None:
        """Bring the traits to the projection that is there."""
        with self._changing, self.hold_sync():
            for name, value in self._state(self._shown).items():
                if name != "facts" and np.array_equal(value, getattr(self, name)):
                    continue
                setattr(self, name, value)

    def _state(self, shown: Projected) -> dict[str, Any]:
        """What the traits are for a projection."""
        n = len(self._space.ids)
        points, low, high = told.quantised(shown.positions)
        line, details = told.provenance(self._space)
        path = told.path(self._steps)
        what = f"{count(n)} {self._noun}"
        if path is not None:
            what = f"{count(path['tokens'])} tokens after {len(path['layers'])} layers"
        against = "" if self._other is None else f" · moved by {_label(self._space)} → {_label(self._other)}"
        facts = {
            "title": "Embedding space",
            "subtitle": f"{what} × {self._space.vectors.shape[1]}{against}",
            "provenance": f"{line} · {told.TITLES[shown.method]}",
            "details": details,
            "model": self._space.model.info.name,
            "live": True,
            "saved": time.strftime("%d %b").lstrip("0"),
            "n_points": n,
            "width": int(self._space.vectors.shape[1]),
            "texts": self._texts,
            "path": path,
            "method": shown.method,
            "low": low,
            "high": high,
            "unplaced": int((~shown.valid).sum()),
            "trustworthiness": shown.trustworthiness,
            "neighbours_kept": shown.neighbours_kept,
            "quality_rows": shown.quality_rows,
            "note": shown.note,
            "seconds": shown.seconds,
            "clusters": told.groups(self._clusters, shown.positions),
            "unclustered": None if self._clusters is None else self._clusters.unclustered,
            "columns": told.columns_of(self._own, self._other is not None, self._texts, path is not None),
            "drift": None
            if self._drift is None or self._other is None
            else told.drift_facts(self._drift, self._space, _label(self._other)),
            **self._status,
        }
        labels = np.full(n, -1, np.int16) if self._clusters is None else self._clusters.labels.astype(np.int16)
        places, how = self._moved(shown)
        moved = np.zeros((0, 3), np.uint16)
        if places is not None:
            moved = told.quantised(places, (np.array(low), np.array(high)))[0]
            facts["note"] = "; ".join(filter(None, [how, shown.note]))
        return {"facts": facts, "positions": points, "moved": moved, "labels": labels}

    def _compared(self) -> Array | None:
        """The other model's vectors in the space of this one's, once it is known how they go together."""
        if self._drift is None or self._other is None or self._steps is not None:
            return None
        return onto(self._space.vectors, self._other.vectors, self._drift.aligned)

    def _moved(self, shown: Projected) -> tuple[Array | None, str]:
        """Where the compared model has the tokens in this picture, and how they came there."""
        turned = self._drift is not None and self._drift.aligned == "procrustes"
        how = "; before, B was turned onto A and scaled as one (Procrustes)" if turned else ""
        if shown.method == "umap":
            return self._both, f"A and B are placed by one UMAP of both{how}"
        compared = self._compared()
        places = None if compared is None else told.along(self._space.vectors, compared)
        return places, f"B is placed along the components of A{how}"

    @traitlets.observe("projection")
    def _projection_changed(self, change: Any) -> None:
        if not self._ready:
            return
        self._show()
        self._want(change["new"])

    # ---------------------------------------------------------------------- colour

    def _check_color(self, name: str) -> None:
        known = [column["name"] for column in self.facts["columns"]]
        if name not in known:
            raise LlamaTelemetryError(f"color {name!r} does not exist: choose from {', '.join(known)}")

    @traitlets.validate("color")
    def _valid_color(self, proposal: Any) -> Any:
        if "columns" in self.facts:
            try:
                self._check_color(proposal["value"])
            except LlamaTelemetryError as error:
                raise traitlets.TraitError(str(error)) from None
        return proposal["value"]

    @traitlets.observe("color")
    def _color_changed(self, _: Any) -> None:
        self._put_column()

    def _put_column(self) -> None:
        """Send the column that colours the points, unless it is the groups, which are there, or not known yet."""
        name = self.color
        if "columns" not in self.facts or name == "cluster" or (name == "drift" and self._drift is None):
            return
        if name in self.columns:
            return
        facts, data = self._columns([name])
        with self._changing, self.hold_sync():
            self.columns, self.column_data = facts, data

    def _columns(self, names: Sequence[str]) -> tuple[dict[str, Any], list[bytes]]:
        facts: dict[str, Any] = {}
        data: list[bytes] = []
        for name in names:
            if name not in self._made:
                self._made[name] = told.column(name, self._space, self._own, self._drift)
            values, listed = self._made[name]
            counts = np.bincount(values, minlength=len(listed)).tolist() if listed else []
            facts[name] = {"names": listed, "counts": counts, "buffer": len(data)}
            data.append(bytes(as_bytes(values)))
        return facts, data

    # --------------------------------------------------------------------- network

    @traitlets.validate("network")
    def _valid_network(self, proposal: Any) -> Any:
        value = proposal["value"]
        if value is None:
            return None
        number = isinstance(value, (Integral, Real)) and not isinstance(value, bool)
        if not number or not (0 < value < 1 or (value >= 1 and value == int(value))):
            raise traitlets.TraitError(
                f"network {value!r} is neither None, a number of neighbours (1, 2, \u2026) nor a cosine between 0 and 1"
            )
        return float(value) if value < 1 else int(value)

    @traitlets.observe("network", "selected_tokens")
    def _network_changed(self, _: Any) -> None:
        if self.network is not None or len(self.joined):
            self._background.put("network", self._find_network)

    def _find_network(self, still: Still) -> None:
        """Send the lines between what is selected; what cannot be drawn says why."""
        network = self.network
        pairs, cosines, facts = np.zeros((0, 2), np.int32), np.zeros(0, np.float32), None
        if network is not None:
            try:
                rows = self._network_rows()
                pairs, cosines = self._pairs(rows, *_meaning(network), still)
                facts = told.network_facts(network, f"{count(len(rows))} {self._noun}", cosines)
            except Superseded:
                return
            except LlamaTelemetryError as error:
                facts = {"words": str(error), "low": 0.0, "high": 1.0}
        with self._changing, self.hold_sync():
            self.joined, self.cosines = pairs[: told.DRAWN], cosines[: told.DRAWN]
            self._say(network=facts)

    def _network_rows(self) -> Array:
        """The rows that are selected; all, where nothing is and they are few."""
        n, chosen = len(self._space.ids), self.selected_tokens
        if not chosen and n > told.FEW:
            raise LlamaTelemetryError("select tokens first: their network is drawn")
        rows = np.unique([self._row_of(token) for token in chosen]) if chosen else np.arange(n)
        if len(rows) > told.NETWORK_ROWS:
            raise LlamaTelemetryError(
                f"{count(len(rows))} tokens are too many for a network: select at most {count(told.NETWORK_ROWS)}"
            )
        return rows

    def _pairs(self, rows: Array, k: int, threshold: float | None, still: Still = lambda: None) -> tuple[Array, Array]:
        try:
            pairs, cosines = similar_pairs(self._space.vectors[rows], k, threshold, still)
        except ValueError as error:
            raise LlamaTelemetryError(str(error)) from None
        return rows[pairs].astype(np.int32), cosines

    def to_graph(self, k: int = 3, threshold: float | None = None) -> Graph:
        """The cosine similarity network of what is selected, complete: for NetworkX, Parquet, or `to_graphistry`.

        Parameters
        ----------
        k : int
            Edges from each token to so many nearest others of the selection.
        threshold : float, optional
            Instead: edges wherever the cosine is at least this.

        Returns
        -------
        Graph
            Nodes ``id``, ``name`` (the token), ``cluster``, ``norm``; edges ``src``, ``dst``, ``weight`` (the cosine),
            each pair once. Where nothing is selected, of all rows, if they are at most 2000.

        Raises
        ------
        LlamaTelemetryError
            Nothing is selected, or more than 20 000 tokens are, or more than a million pairs reach the threshold.
        """
        from ..export.graphs import Graph

        rows = self._network_rows()
        pairs, cosines = self._pairs(rows, k, threshold)
        table = self.to_pandas().loc[rows, ["id", "token", "cluster", "norm"]].rename(columns={"token": "name"})
        ids = np.array([self._id_of(row) for row in rows.tolist()])
        table["id"] = ids
        places = np.searchsorted(rows, pairs)
        edges = {"src": ids[places[:, 0]], "dst": ids[places[:, 1]], "weight": cosines}
        return Graph(table, type(table)(edges), f"similarity of {self.facts['model']}", "name", "cluster", "norm")

    # -------------------------------------------------------------------- messages

    def _answer(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "texts":
            rows = self._rows(message["rows"])
            self.send({"type": "texts", "id": message["id"], "texts": [self._text(row) for row in rows]})
        elif kind == "search":
            rows, found = self._search(str(message["text"]), int(message.get("limit", _FOUND)))
            texts = [self._text(row) for row in rows]
            self.send({"type": "search", "id": message["id"], "rows": rows, "texts": texts, "found": found})
        elif kind == "token":
            self._answer_later(message, "token", lambda heard: self._about(message))
        elif kind == "stop":
            self.stop()
        elif kind == "start":
            self._want(self.projection)
        else:
            raise LlamaTelemetryError(f"message {kind!r} is not known: reload the page")

    def _rows(self, rows: Sequence[Any]) -> list[int]:
        n = len(self._space.ids)
        found = [int(row) for row in rows]
        if any(not 0 <= row < n for row in found):
            raise LlamaTelemetryError(f"a row is outside the space of {n}")
        return found

    def _search(self, text: str, limit: int) -> tuple[list[int], int]:
        if self._index is None:
            self._index = told.Search(self._space.tokens)
        return self._index.find(text, min(limit, _FOUND))

    def _about(self, message: Message) -> None:
        row = self._rows([message["row"]])[0]
        facts, data = self._of_row(row)
        self.send({"type": "token", "id": message["id"], "row": row, **facts}, data)
        if row == self._row_of(self.token):  # so that a saved notebook shows it
            facts = {**facts, "buffers": list(range(len(data)))}
            with self._changing, self.hold_sync():
                self.embedded, self.embedded_data = {str(row): facts}, data

    def _of_row(self, row: int) -> tuple[dict[str, Any], list[bytes]]:
        """Text, neighbours, and vectors of a row: its own, and that of the model it is compared with."""
        near = self._nearest(row, NEIGHBOURS)
        vectors = [self._space.vectors[row]] + ([] if self._other is None else [self._other.vectors[row]])
        facts = {
            "text": self._text(row),
            "rows": [at for at, _ in near],
            "texts": [self._text(at) for at, _ in near],
            "cosines": [cosine for _, cosine in near],
        }
        return facts, [np.ascontiguousarray(vector, "<f4").tobytes() for vector in vectors]

    def _nearest(self, row: int, k: int) -> list[tuple[int, float]]:
        """The nearest rows by cosine: of a whole vocabulary from the worker, of a choice among themselves."""
        vectors = self._space.vectors
        own = np.asarray(vectors[row], np.float32)
        if not np.isfinite(own).all() or not own.any():
            return []
        if not len(self.ids):
            frame = self._space.model.neighbours(int(row), k, matrix=self._space.matrix)
            return [(int(i), float(c)) for i, c in zip(frame["id"], frame["cosine"], strict=True)]
        lengths = np.linalg.norm(vectors, axis=1)
        alike = (vectors @ own) / np.where(lengths > 0, lengths, 1) / np.linalg.norm(own)
        alike = np.where(np.isfinite(alike) & (lengths > 0), alike, -np.inf)
        alike[row] = -np.inf
        order = np.argsort(-alike, kind="stable")[:k]
        return [(int(i), float(alike[i])) for i in order if np.isfinite(alike[i])]

    # ------------------------------------------------------------------- selection

    def _row_of(self, token: int | None) -> int | None:
        """Row of a token id."""
        if token is None:
            return None
        if not len(self.ids):
            return token if token < len(self._space.ids) else None
        found = np.flatnonzero(self.ids == token)
        return int(found[0]) if len(found) else None

    def _id_of(self, row: int) -> int:
        return int(self.ids[row]) if len(self.ids) else row

    def _select(self, select: Any) -> None:
        if select is None:
            return
        several = not isinstance(select, (int, np.integer, str))
        found = [self._find(one) for one in (select if several else [select])]
        if found:
            self.token = found[0]
        if several:
            self.selected_tokens = found

    def _find(self, one: int | str) -> int:
        """Id of a token by id or text."""
        if not isinstance(one, str):
            return int(one)
        rows, _ = self._search(one, 1)
        if not rows:
            raise LlamaTelemetryError(f"no token holds {one!r}")
        return self._id_of(rows[0])

    @traitlets.validate("token")
    def _valid_token(self, proposal: Any) -> Any:
        if proposal["value"] is not None and self._row_of(proposal["value"]) is None:
            raise traitlets.TraitError(f"token {proposal['value']} is not in this space")
        return proposal["value"]

    @traitlets.validate("selected_tokens")
    def _valid_tokens(self, proposal: Any) -> Any:
        tokens = np.asarray(proposal["value"], np.int64)
        there = np.isin(tokens, self.ids) if len(self.ids) else tokens < len(self._space.ids)
        if not there.all():
            raise traitlets.TraitError(f"token {int(tokens[~there][0])} is not in this space")
        return proposal["value"]

    @property
    def selection(self) -> pd.DataFrame:
        """The rows of `to_pandas` that are selected."""
        frame = self.to_pandas()
        chosen: pd.DataFrame = frame[frame["selected"]].reset_index(drop=True)
        return chosen

    # ---------------------------------------------------------------------- exports

    def neighbours(self, token: int | str, k: int = NEIGHBOURS) -> pd.DataFrame:
        """The nearest rows by cosine, exact, in all dimensions.

        Parameters
        ----------
        token : int or str
            Id or text.
        k : int

        Returns
        -------
        DataFrame
            ``rank`` from 1, ``id``, ``token``, ``cosine``.
        """
        import pandas as pd

        row = self._row_of(self._find(token))
        if row is None:
            raise LlamaTelemetryError(f"token {token!r} is not in this space")
        near = self._nearest(row, k)
        rows = [(i, self._id_of(at), self._space.tokens[at], cosine) for i, (at, cosine) in enumerate(near, 1)]
        frame: pd.DataFrame = pd.DataFrame(rows, columns=["rank", "id", "token", "cosine"])
        return frame

    def to_pandas(self) -> pd.DataFrame:
        """One row per token or text.

        Returns
        -------
        DataFrame
            ``id``, ``token``, ``kind``, ``norm``, ``x``, ``y``, ``z`` of the projection that is shown (NaN where it
            has no place), ``cluster`` (its name, empty where it is in none), ``selected``; with `compare` also
            ``moved`` (1 − cosine) and ``neighbours_kept`` (NaN where neighbours were not looked at); the columns that
            were given.
        """
        frame = self._space.to_pandas()
        for i, axis in enumerate("xyz"):
            frame[axis] = self._shown.positions[:, i]
        names = np.array([*(self._clusters.names if self._clusters is not None else []), ""], object)
        frame["cluster"] = names[self.labels]
        frame["selected"] = np.isin(self.ids if len(self.ids) else self._space.ids, self.selected_tokens)
        if self._drift is not None:
            frame["moved"], frame["neighbours_kept"] = self._drift.moved, self._drift.kept
        for name, values in self._own.items():
            frame[name] = values
        return frame

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write the table of `to_pandas` as Parquet.

        Parameters
        ----------
        path : path
            The file; a folder gets a file named after the model.

        Returns
        -------
        Path

        Raises
        ------
        BackendMissing
            pyarrow is not installed (the extra ``export``).
        """
        from ..export.table import parquet

        return parquet(self.to_pandas(), self._path(path, "parquet"))

    def to_pythreejs(self, theme: Literal["light", "dark"] | None = None, size: tuple[int, int] = (880, 620)) -> Any:
        """The cloud as a pythreejs scene, to be mixed with one's own three.js objects.

        Points have the places (moved and scaled as one, so that 99 % of them lie in the unit ball) and the colours
        that the widget shows; the names of the coloured groups and the locked token are sprites. It is not linked to
        the widget.

        Parameters
        ----------
        theme : {"light", "dark"}, optional
            The widget's own by default, light where that is ``auto``.
        size : (width, height)
            In px.

        Returns
        -------
        pythreejs.Renderer
            Its scene's first child is the `pythreejs.Points` of all placed rows.

        Raises
        ------
        BackendMissing
            pythreejs is not installed (the extra ``pythreejs``).
        """
        from ..export.pythreejs import renderer

        chosen, column, marked = self._look(theme)
        shown = self._shown.positions
        return renderer(self.facts, shown, self.labels, chosen, self.color, column, marked, size)

    def to_svg(self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None) -> str:
        """The cloud from its front with labels, legend and provenance, as SVG.

        Parameters
        ----------
        path : path, optional
            Where to write it; a folder gets a file named after the model.
        theme : {"light", "dark"}, optional
            The widget's own by default, light where that is ``auto``.
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

        Points, groups, columns and the texts of all tokens go in, so that one can fly, search and colour; neighbours
        and vectors are there for the locked and the selected tokens.

        Parameters
        ----------
        path : path, optional
            Where to write it; its size is then printed. A folder gets a file named after the model.
        """
        from ..export.page import page

        part = self.page_part()
        text = page(part)
        if path is not None:
            target = self._path(path, "html")
            target.write_text(text, "utf-8")
            known = len(part.state["embedded"]) - 1
            size = target.stat().st_size / 1e6
            print(f"{target} · {size:.1f} MB · {count(len(self.positions))} points, {known} with their neighbours")
        return text

    def page_part(self) -> Part:
        """The widget as a part of a page with several, for `save_html`."""
        from ..export.page import Part

        names = [own["name"] for own in self.facts["columns"] if own["name"] != "cluster"]
        columns, column_data = self._columns([n for n in names if n != "drift" or self._drift is not None])
        lines = "\n".join(token.replace("\n", "\u23ce") for token in map(self._text, range(len(self._space.ids))))
        embedded: dict[str, Any] = {"texts": 0}
        data = [lines.encode("utf-8", "replace")]
        wanted = [row for row in map(self._row_of, [self.token, *self.selected_tokens]) if row is not None]
        for row in list(dict.fromkeys(wanted))[:_PAGE_TOKENS]:
            facts, vectors = self._of_row(row)
            embedded[str(row)] = {**facts, "buffers": [len(data) + i for i in range(len(vectors))]}
            data += vectors
        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        state |= {"facts": {**self.facts, "live": False, "phase": "done"}, "columns": columns, "embedded": embedded}
        binary = {name: getattr(self, name).tobytes() for name in _PAGE_BUFFERS}
        binary |= {"column_data": column_data, "embedded_data": data}
        return Part(self._title(), self._esm, state, binary, self._static_html(""))

    def _drawn(self, theme: str | None) -> Picture:
        from ..export.embedding import draw

        chosen, column, marked = self._look(theme)
        return draw(self.facts, self.positions, self.labels, chosen, self.color, column, marked)

    def _look(self, theme: str | None) -> tuple[str, tuple[Array, list[str]] | None, list[tuple[int, str]]]:
        """Theme, column that colours the points, and the locked row with its neighbours."""
        from ..export.colour import THEMES

        chosen = theme or (self.theme if self.theme != "auto" else "light")
        if chosen not in THEMES:
            raise LlamaTelemetryError(f"theme {chosen!r} does not exist: choose from {', '.join(THEMES)}")
        column = None
        if self.color != "cluster" and not (self.color == "drift" and self._drift is None):
            self._columns([self.color])
            column = self._made[self.color]
        row = self._row_of(self.token)
        near = [] if row is None else self._nearest(row, NEIGHBOURS)
        marked = [] if row is None else [(row, self._space.tokens[row])]
        return chosen, column, marked + [(at, self._space.tokens[at]) for at, _ in near]

    def _static_html(self, why: str) -> str:
        from ..export.embedding import fallback

        row = self._row_of(self.token)
        near = [] if row is None else self._nearest(row, NEIGHBOURS)
        listed = [(self._space.tokens[at], cosine) for at, cosine in near]
        name = "" if row is None else self._space.tokens[row]
        return fallback(self.facts, self._drawn(None), name, listed, why)

    def _title(self) -> str:
        return f"Embedding space · {self.facts['model']} · {self.facts['subtitle']}"

    def _path(self, path: str | os.PathLike[str], ending: str) -> Path:
        target = Path(path)
        if not target.is_dir():
            return target
        model = re.sub(r"[^\w.-]+", "_", str(self.facts["model"])).strip("._")[:80] or "model"
        return target / f"embedding-{model}.{ending}"

    def close(self) -> None:
        """End the connection to the browser and what is being computed."""
        stopped = getattr(self, "_stopped", None)
        if stopped is not None:
            stopped.set()
        super().close()


_PAGE_TRAITS = ("token", "selected_tokens", "color", "projection", "network", "search", "theme")
_PAGE_BUFFERS = ("positions", "moved", "labels", "ids", "joined", "cosines")


def _meaning(network: float) -> tuple[int, float | None]:
    """Neighbours and least cosine that a value of `network` asks for."""
    return (int(network), None) if network >= 1 else (0, float(network))


def _label(space: EmbeddingSpace) -> str:
    """What tells two models apart: the quant type of the file."""
    info = space.model.info
    return info.quant_type or info.name
