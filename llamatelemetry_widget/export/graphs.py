"""Graphs as two typed tables, whatever they are of: parts of a model, operations of a run, attention, similarity.

In: trees, operator graphs, traces, matrices. Out: `Graph`, as pandas, Parquet or NetworkX. Ids are text on both sides.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from ..engine.operators import OperatorGraph
from ..errors import BackendMissing, LlamaTelemetryError
from ..models.tree import ModelTree
from .table import parquet

if TYPE_CHECKING:
    from ..trace import Trace

Array = np.ndarray[Any, Any]
_NO_EDGES = ("src", "dst")


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes and edges.

    Attributes
    ----------
    nodes : DataFrame
        ``id`` (text) first.
    edges : DataFrame
        ``src`` and ``dst`` (ids) first.
    name : str
    title : str
        Column of `nodes` that names a point.
    color, size : str or None
        Columns of `nodes` that points are coloured and sized by.
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame
    name: str
    title: str = "id"
    color: str | None = None
    size: str | None = None
    _typed: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if not self._typed:
            object.__setattr__(self, "nodes", typed(self.nodes, ("id",), "nodes"))
            object.__setattr__(self, "edges", typed(self.edges, ("src", "dst"), "edges"))
            missing = set(self.edges["src"]) | set(self.edges["dst"])
            missing -= set(self.nodes["id"])
            if missing:
                raise LlamaTelemetryError(f"edges name {sorted(missing)[0]!r}, which is no node of {self.name}")

    def to_parquet(self, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write ``nodes.parquet`` and ``edges.parquet`` into a folder.

        Raises
        ------
        BackendMissing
            pyarrow is not installed (the extra ``export``).
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        return parquet(self.nodes, target / "nodes.parquet"), parquet(self.edges, target / "edges.parquet")

    def to_networkx(self) -> Any:
        """The graph as a ``networkx.DiGraph``, with the columns as attributes (missing values left out).

        Its analytics run on the GPU where NetworkX's cuGraph backend is installed.

        Raises
        ------
        BackendMissing
            NetworkX is not installed (the extra ``graphistry``).
        """
        try:
            import networkx
        except ImportError as error:
            raise BackendMissing(
                "NetworkX is not installed: pip install 'llamatelemetry-widget[graphistry]'"
            ) from error
        made = networkx.DiGraph(name=self.name)
        for row in self.nodes.to_dict("records"):
            made.add_node(row["id"], **_there(row, ("id",)))
        for row in self.edges.to_dict("records"):
            made.add_edge(row["src"], row["dst"], **_there(row, _NO_EDGES))
        return made


Graphs: TypeAlias = "Graph | ModelTree | OperatorGraph"


def graph_of(what: Graphs) -> Graph:
    """The graph of a model's tree or of its operators; a `Graph` as it is.

    Raises
    ------
    LlamaTelemetryError
        It is none of these.
    """
    if isinstance(what, Graph):
        return what
    if isinstance(what, ModelTree):
        nodes = what.nodes.drop(columns=["parent"]).assign(label=what.nodes["name"])
        edges = what.edges.rename(columns={"source": "src", "target": "dst"})
        return Graph(nodes, edges, f"architecture of {what.info.name}", "label", "kind", "n_bytes")
    if isinstance(what, OperatorGraph):
        nodes = what.nodes.assign(label=what.nodes["name"])
        edges = what.edges.rename(columns={"source": "src", "target": "dst"})
        return Graph(nodes, edges, f"operations of {what.info['model']}", "label", "op", "seconds")
    raise LlamaTelemetryError(
        f"{type(what).__name__} is no graph: give model.tree, model.graph(…), or attention_graph(…)"
    )


def attention_graph(trace: Trace, layer: int, head: int, threshold: float = 0.05, part: str | None = None) -> Graph:
    """Tokens of a prompt, and which look at which.

    Parameters
    ----------
    trace : Trace
    layer, head : int
    threshold : float
        Least weight of an edge.
    part : str, optional
        One of ``trace.parts``.

    Returns
    -------
    Graph
        Nodes ``id``, ``token``, ``side`` (``"query"`` or ``"key"`` where they are different texts, else ``"token"``),
        ``received`` (sum of the weights that it gets); edges ``src`` (the token that looks), ``dst``, ``weight``.
    """
    queries, keys = trace.part_tokens(part)
    weights = trace.attention(layer, head, part=part)
    same = (part or trace.parts[0]) != "cross"
    rows, columns = np.nonzero(weights >= threshold)
    prefix = ("", "") if same else ("q", "k")
    received = weights.sum(0)
    side = "token" if same else "key"
    nodes = [(f"{prefix[1]}{i}", token, side, float(received[i])) for i, token in enumerate(keys)]
    if not same:
        nodes += [(f"q{i}", token, "query", 0.0) for i, token in enumerate(queries)]
    edges = pd.DataFrame(
        {
            "src": [f"{prefix[0]}{i}" for i in rows],
            "dst": [f"{prefix[1]}{j}" for j in columns],
            "weight": weights[rows, columns],
        }
    )
    table = pd.DataFrame(nodes, columns=["id", "token", "side", "received"])
    return Graph(table, edges, f"attention of layer {layer} head {head}", "token", "received", "received")


def similarity_graph(similarity: Array, names: Sequence[str], k: int = 3, threshold: float | None = None) -> Graph:
    """Things that are alike.

    Parameters
    ----------
    similarity : float (n, n)
        Symmetric.
    names : sequence of str
        One each.
    k : int
        Edges to so many most similar others of each.
    threshold : float, optional
        Instead: edges wherever the similarity is at least this.

    Returns
    -------
    Graph
        Nodes ``id``, ``name``; edges ``src``, ``dst``, ``weight``, each pair once.
    """
    values = np.array(similarity, np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(names) != len(values):
        raise LlamaTelemetryError(f"similarity {values.shape} does not go with {len(names)} names")
    np.fill_diagonal(values, -np.inf)
    if threshold is None:
        nearest = np.argsort(-values, axis=1)[:, : min(k, len(values) - 1)]
        wanted = np.zeros(values.shape, bool)
        np.put_along_axis(wanted, nearest, True, axis=1)
    else:
        wanted = values >= threshold
    a, b = np.nonzero(np.triu(wanted | wanted.T, 1))
    nodes = pd.DataFrame({"id": [str(i) for i in range(len(names))], "name": list(names)})
    edges = pd.DataFrame({"src": a.astype(str), "dst": b.astype(str), "weight": values[a, b]})
    return Graph(nodes, edges, "similarity", "name")


def typed(table: pd.DataFrame, ids: Sequence[str], what: str) -> pd.DataFrame:
    """A table whose columns have one type each: ids as text, numbers as they are, everything else as text or missing.

    Raises
    ------
    LlamaTelemetryError
        A column of ids is not there, or has a missing value; it is named.
    """
    out = {}
    for name in ids:
        if name not in table:
            raise LlamaTelemetryError(f"the table of {what} has no column {name!r}")
        if table[name].isna().any():
            raise LlamaTelemetryError(f"column {name!r} of {what} has a missing value: every id must be there")
        out[name] = table[name].map(_text).astype("string")
    for name in table.columns:
        if name not in ids:
            column = table[name]
            plain = pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column)
            out[str(name)] = column if plain else column.map(_text_or_nothing).astype("string")
    made: pd.DataFrame = pd.DataFrame(out).reset_index(drop=True)
    return made


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # ids that pandas made floats of, because one was missing somewhere
    if isinstance(value, (tuple, list)):
        return " x ".join(str(v) for v in value)
    return str(value)


def _text_or_nothing(value: Any) -> str | None:
    missing = value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))
    return None if missing else _text(value)


def _there(row: dict[Any, Any], without: Sequence[str]) -> dict[str, Any]:
    return {str(k): v for k, v in row.items() if k not in without and not pd.isna(v)}
