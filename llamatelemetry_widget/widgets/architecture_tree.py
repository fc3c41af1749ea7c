"""`ArchitectureTree`: the whole model as a map of its bytes beside a tree of its tensors, and two files side by side.

In: a `Model`, perhaps another to compare with, perhaps a `Trace` of it. Out: an interactive widget, its selection as
traits, and the same data as HTML, PNG, SVG and pandas.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import traitlets

from ..engine.operators import OperatorGraph
from ..engine.sizing import Fit
from ..errors import LlamaTelemetryError
from ..model import Model
from ..models.differences import differences
from ..models.tree import ModelTree, TreeNode
from ..trace import Trace
from . import architecture_facts as told
from . import architecture_graph as graphs
from .base import Message, TelemetryWidget
from .traits import Buffer, Index, as_bytes

if TYPE_CHECKING:
    import pandas as pd

    from ..export.page import Part

Array = np.ndarray[Any, Any]

_OWN = ("type", "bits", "bytes")  # colours that need nothing but the file


class ArchitectureTree(TelemetryWidget):
    """A whole model: a map in which area is bytes, beside the tree of its layers, blocks, heads and tensors.

    Parameters
    ----------
    model : Model
        Only its header is read.
    compare : Model, optional
        Another file, e.g. another quant type of the same model: A, B and B - A are shown.
    trace : Trace, optional
        A run of the model: its activation norms can colour the map. In an exported page it links the tree with other
        views of the trace.
    graph : OperatorGraph, optional
        What ``model.graph(prompt)`` gave: the operations of each layer are drawn, their times can colour the map.
    **traits
        Any of the attributes below.

    Attributes
    ----------
    selected_node : str
        Id of the chosen node, as in ``model.tree.nodes["id"]``, e.g. ``"model/layers/L3/MLP/ffn_down.weight"``; empty
        for none. Default ``""``.
    selected_layer, selected_head : int or None
        Layer and head of the chosen node; setting them chooses that layer or head. `link` shares them with other
        widgets. Default None.
    overlay : str
        What colours stand for: ``"type"`` (default), ``"bits"`` per weight, ``"bytes"``; with a trace also ``"norm"``
        and ``"outliers"``, with a graph that was timed ``"time"``, after `compare_weights` ``"error"``.
    search : str
        Words that must all stand in a tensor's name, type or shape; the others dim. Default ``""``.
    theme : {"auto", "light", "dark"}
        ``auto`` follows the host. Default ``"auto"``.

    Examples
    --------
    >>> tree = ArchitectureTree(model)  # doctest: +SKIP
    >>> tree.selected_layer = 17  # doctest: +SKIP
    """

    bundle = "architecture_tree"

    selected_layer = Index().tag(sync=True)
    selected_head = Index().tag(sync=True)
    selected_node = traitlets.Unicode().tag(sync=True)
    overlay = traitlets.Unicode("type").tag(sync=True)
    search = traitlets.Unicode().tag(sync=True)
    theme = traitlets.Enum(("auto", "light", "dark"), "auto").tag(sync=True)

    facts = traitlets.Dict().tag(sync=True)
    nodes = Buffer(np.int32, "columns nodes")
    leaves = Buffer(np.float64, "columns leaves")
    nodes_b = Buffer(np.int32, "columns nodes")
    leaves_b = Buffer(np.float64, "columns leaves")
    pairs = Buffer(np.int32, "leaves")
    overlay_values = Buffer(np.float32, "overlays leaves")
    graph = traitlets.Dict().tag(sync=True)
    graph_nodes = Buffer(np.int32, "columns operations")
    graph_seconds = Buffer(np.float32, "operations")
    graph_edges = Buffer(np.int32, "columns edges")
    graph_weights = Buffer(np.int32, "columns weights")
    errors = Buffer(np.float32, "measures leaves")
    plan = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        model: Model,
        compare: Model | None = None,
        trace: Trace | None = None,
        graph: OperatorGraph | None = None,
        **traits: Any,
    ) -> None:
        kinds = {"model": (model, Model), "compare": (compare, Model), "trace": (trace, Trace)}
        for name, (value, kind) in {**kinds, "graph": (graph, OperatorGraph)}.items():
            if not isinstance(value, kind) and (value is not None or name == "model"):
                raise LlamaTelemetryError(
                    f"ArchitectureTree's {name} is a {kind.__name__}, not {type(value).__name__}: see open_model"
                )
        self._model, self._compare, self._trace = model, compare, trace
        tables = told.Tables.new()
        sides = [(own.tree, told.columns(own.tree, tables)) for own in (model, compare) if own is not None]
        a = sides[0][1]
        self._names = a.names
        self._overlays = told.of_trace(trace, model.tree, a.names) if trace is not None else []
        state: dict[str, Any] = {"nodes": a.nodes, "leaves": a.leaves}
        if compare is not None:
            b = sides[1][1]
            state |= {"nodes_b": b.nodes, "leaves_b": b.leaves, "pairs": told.pairs(a, b)}
        if graph is not None:
            state |= self._graph_state(graph)
        facts = told.facts(sides, tables) | {"graphistry": _graphistry_host(len(self.tree.by_id))}
        facts["roles"] = told.roles(sides[0][0], sides[1][0]) if compare is not None else []
        facts["runs"] = model.info.cannot_run or ""
        super().__init__(facts={**facts, **self._overlay_facts()}, **self._overlay_values(), **state, **traits)

    def __repr__(self) -> str:
        chosen = f" · {self.selected_node} chosen" if self.selected_node else ""
        other = f" against {self._compare.tree!r}" if self._compare is not None else ""
        return f"<ArchitectureTree: {self._model.tree!r}{other}{chosen}>"

    @property
    def model(self) -> Model:
        """The model that is shown."""
        return self._model

    @property
    def tree(self) -> ModelTree:
        """Its tree."""
        return self._model.tree

    # ------------------------------------------------------------ what is measured

    def _overlay_facts(self) -> dict[str, Any]:
        return {"overlays": [facts for facts, _ in self._overlays]}

    def _overlay_values(self) -> dict[str, Array]:
        return {"overlay_values": np.stack([values for _, values in self._overlays])} if self._overlays else {}

    def _put_overlay(self, facts: dict[str, str], values: Array) -> None:
        kept = [own for own in self._overlays if own[0]["name"] != facts["name"]]
        if np.isfinite(values).any():
            kept.append((facts, values))
        self._overlays = kept

    def _graph_state(self, graph: OperatorGraph) -> dict[str, Any]:
        """The traits of a graph; its times become an overlay."""
        facts, arrays = graphs.graph_facts(graph, self._names)
        words = "milliseconds of the operations that read the tensor"
        overlay = {"name": "time", "label": "Time", "words": words, "source": facts["provenance"]}
        self._put_overlay(overlay, graphs.time_of_tensors(arrays, len(self._names)))
        return {"graph": facts, **arrays}

    def _show(self, **state: Any) -> None:
        """New measurements, and the overlays that come with them."""
        with self.hold_sync():
            for name, value in {**state, **self._overlay_values()}.items():
                setattr(self, name, value)
            self.facts = {**self.facts, **self._overlay_facts()}

    def run_graph(self, prompt: Any = "The sea was calm.", **options: Any) -> OperatorGraph:
        """Run a prompt and draw the operations that computed it; ``overlay="time"`` then colours the map.

        Parameters
        ----------
        prompt, **options
            As `Model.graph` takes them.

        Returns
        -------
        OperatorGraph
        """
        graph = self._model.graph(prompt, **options)
        self._show(**self._graph_state(graph))
        return graph

    def compare_weights(self) -> pd.DataFrame:
        """Compare the weights of both files value by value; ``overlay="error"`` then colours the map.

        Returns
        -------
        DataFrame
            As `Model.weight_error` gives it, the largest relative error first.

        Raises
        ------
        LlamaTelemetryError
            There is one file only.
        """
        if self._compare is None:
            raise LlamaTelemetryError("there is one file only: ArchitectureTree(model, compare=other)")
        frame = self._model.weight_error(self._compare)
        errors = graphs.error_rows(frame, self._names)
        words = "RMSE of B's weights over the RMS of A's"
        source = "weights of both files, expanded and compared"
        self._put_overlay({"name": "error", "label": "Weight error", "words": words, "source": source}, errors[1])
        self._show(errors=errors)
        return frame

    def plan_memory(self, n_ctx: int | None = None, kv_type: str = "f16", gpu: str | int | None = None) -> Fit:
        """Show what the model takes in memory, and what of it fits a GPU.

        Parameters
        ----------
        n_ctx, kv_type, gpu
            As `Model.fit` takes them.

        Returns
        -------
        Fit
        """
        fit = self._model.fit(n_ctx, kv_type, gpu)
        self.plan = graphs.plan_facts(fit)
        return fit

    # -------------------------------------------------------------------- messages

    def _answer(self, message: Message) -> None:
        known = {"graph": self._send_graph, "errors": self._send_errors, "tensor": self._send_tensor}
        more = {"fit": self._send_plan, "graphistry": self._send_graphistry}
        work = {**known, **more}.get(str(message.get("type")))
        if work is None:
            raise LlamaTelemetryError(f"message {message.get('type')!r} is not known: reload the page")
        self._answer_later(message, message["type"], lambda _: work(message))

    def _send_graph(self, message: Message) -> None:
        self.run_graph()
        self.send({"type": "graph", "id": message["id"]})

    def _send_errors(self, message: Message) -> None:
        self.compare_weights()
        self.send({"type": "errors", "id": message["id"]})

    def _send_plan(self, message: Message) -> None:
        n_ctx, gpu = message.get("n_ctx"), message.get("gpu") or None
        self.plan_memory(None if n_ctx is None else int(n_ctx), str(message.get("kv_type") or "f16"), gpu)
        self.send({"type": "fit", "id": message["id"]})

    def _send_graphistry(self, message: Message) -> None:
        from ..export.graphistry import to_graphistry

        self.send({"type": "graphistry", "id": message["id"], "url": to_graphistry(self.tree)})

    def _send_tensor(self, message: Message) -> None:
        model = self._compare if message.get("side") == 1 and self._compare is not None else self._model
        numbers, buffers = graphs.statistics(model.tensor_stats(str(message["name"])))
        self.send({"type": "tensor", "id": message["id"], "statistics": numbers}, [as_bytes(own) for own in buffers])

    # ------------------------------------------------------------------- selection

    @traitlets.validate("selected_node")
    def _valid_node(self, proposal: Any) -> Any:
        node = proposal["value"]
        if node and node not in self.tree.by_id:
            raise traitlets.TraitError(f"node {node!r} does not exist: see model.tree.nodes['id']")
        return node

    @traitlets.validate("selected_layer")
    def _valid_layer(self, proposal: Any) -> Any:
        layer = proposal["value"]
        if layer is not None and self._node_of(layer, None) is None:
            raise traitlets.TraitError(f"layer {layer} does not exist: this model has {self._span()}")
        return layer

    @traitlets.validate("overlay")
    def _valid_overlay(self, proposal: Any) -> Any:
        known = [*_OWN, *(facts["name"] for facts, _ in self._overlays)]
        if proposal["value"] not in known:
            raise traitlets.TraitError(f"overlay {proposal['value']!r} does not exist here: choose from {known}")
        return proposal["value"]

    @traitlets.observe("selected_node")
    def _node_chosen(self, _: Any) -> None:
        node = self.tree.by_id.get(self.selected_node)
        with self.hold_trait_notifications():
            self.selected_layer = None if node is None else node.layer
            self.selected_head = None if node is None else node.head

    @traitlets.observe("selected_layer", "selected_head")
    def _layer_chosen(self, _: Any) -> None:
        """A layer or head that was chosen elsewhere is a node here; a tensor of that layer stays chosen."""
        layer, head = self.selected_layer, self.selected_head
        node = self.tree.by_id.get(self.selected_node)
        if (node and node.layer, node and node.head) == (layer, head):
            return
        found = self._node_of(layer, head) or self._node_of(layer, None)
        self.selected_node = "" if found is None else found.id

    def _node_of(self, layer: int | None, head: int | None) -> TreeNode | None:
        """The node of a layer, or of one of its heads; of the first stack that has it."""
        kind = "layer" if head is None else "head"
        return self._places.get((kind, layer, head)) if layer is not None else None

    @property
    def _places(self) -> dict[tuple[str, int | None, int | None], TreeNode]:
        if "places" not in self.__dict__:
            found: dict[tuple[str, int | None, int | None], TreeNode] = {}
            for node in self.tree:
                if node.kind in ("layer", "head"):
                    found.setdefault((node.kind, node.layer, node.head), node)
            self.__dict__["places"] = found
        places: dict[tuple[str, int | None, int | None], TreeNode] = self.__dict__["places"]
        return places

    def _span(self) -> str:
        layers = [layer for kind, layer, _ in self._places if kind == "layer" and layer is not None]
        return f"layers {min(layers)} to {max(layers)}" if layers else "no layers"

    # ---------------------------------------------------------------------- exports

    def to_pandas(self) -> pd.DataFrame:
        """One row per node, as ``model.tree.nodes``; with `compare` one row per tensor of either file, and its change.

        Returns
        -------
        DataFrame
            Overlays of a trace and of a graph are columns of their names.
        """
        if self._compare is not None:
            return differences(self.tree, self._compare.tree)
        frame = self.tree.nodes
        at = _ids(self.nodes, self.facts["strings"], self.leaves[0].astype(int))
        for facts, values in self._overlays:
            frame[facts["name"]] = frame["id"].map(dict(zip(at, values, strict=True)))
        return frame

    def to_svg(self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None) -> str:
        """The byte map with its colours, bytes by quant type, notices and provenance, as SVG.

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

        text = page(self.page_part())
        if path is not None:
            target = self._path(path, "html")
            target.write_text(text, "utf-8")
            print(f"{target} · {target.stat().st_size / 1e6:.1f} MB · {len(self.leaves[0])} tensors")
        return text

    def page_part(self) -> Part:
        """The widget as a part of a page with several, for `save_html`."""
        from ..export.page import Part

        state = {name: getattr(self, name) for name in _PAGE_TRAITS} | {"facts": {**self.facts, "live": False}}
        binary = {name: getattr(self, name).tobytes() for name in _BINARY}
        shares = [(self._trace, "self")] if self._trace is not None else []
        return Part(self._title(), self._esm, state, binary, self._static_html(""), shares)

    def _drawn(self, theme: str | None) -> Any:
        from ..export.architecture import draw
        from ..export.colour import THEMES

        chosen = theme or (self.theme if self.theme != "auto" else "light")
        if chosen not in THEMES:
            raise LlamaTelemetryError(f"theme {chosen!r} does not exist: choose from {', '.join(THEMES)}")
        sides = [(self.nodes, self.leaves), (self.nodes_b, self.leaves_b)]
        return draw(self.facts, sides[: len(self.facts["sides"])], chosen)

    def _static_html(self, why: str) -> str:
        from ..export.architecture import fallback

        trees = [own.tree for own in (self._model, self._compare) if own is not None]
        tables = [[(n.name, n.n_bytes or 0, n.bits_per_weight, n.types) for n in tree.root.children] for tree in trees]
        return fallback(self.facts, self._drawn(None), tables, why)

    def _title(self) -> str:
        sides = self.facts["sides"]
        return "Architecture · " + " against ".join(f"{s['model']} {s['quant_type'] or ''}".strip() for s in sides)

    def _path(self, path: str | os.PathLike[str], ending: str) -> Path:
        target = Path(path)
        if not target.is_dir():
            return target
        name = self._title().removeprefix("Architecture · ")
        return target / f"architecture-{re.sub(r'[^-.0-9A-Za-z]+', '_', name).strip('._')[:80] or 'model'}.{ending}"


def _ids(nodes: Array, strings: list[str], wanted: Array) -> list[str]:
    """Ids of nodes, put together from their names and those above."""
    layer = told.KINDS.index("layer")
    made: list[str] = []
    for parent, name, kind, number in nodes[:4].T.tolist():
        own = f"L{number}" if kind == layer else strings[name]
        made.append("model" if parent < 0 else f"{made[parent]}/{own}")
    return [made[at] for at in wanted]


_PAGE_TRAITS = ("selected_layer", "selected_head", "selected_node", "overlay", "search", "theme", "graph", "plan")
_BINARY = (
    *("nodes", "leaves", "nodes_b", "leaves_b", "pairs", "overlay_values"),
    *("graph_nodes", "graph_seconds", "graph_edges", "graph_weights", "errors"),
)


def _graphistry_host(nodes: int) -> str | None:
    """Where a tree of so many nodes can be sent: only a large one, and only where the user has registered."""
    from ..export.graphistry import registered
    from ..settings import config

    return registered() if nodes > config.graphistry_threshold else None
