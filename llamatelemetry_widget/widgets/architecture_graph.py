"""What the browser side of an architecture tree is told about what was measured: operators, weights, memory.

In: an `OperatorGraph`, weight errors, statistics of a tensor, a `Fit`. Out: plain JSON and columns of numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..engine.operators import OperatorGraph
from ..engine.sizing import Fit
from .architecture_facts import Table

Array = np.ndarray[Any, Any]

STAGES = ("input", "layers", "output")


def graph_facts(graph: OperatorGraph, names: list[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The trait `graph`, and the binary traits that go with it.

    Parameters
    ----------
    graph : OperatorGraph
    names : list of str
        Of the tree's leaves: a weight is named by its place there.

    Returns
    -------
    facts : dict
        ``strings``, ``provenance``, ``n_tokens``, ``seconds`` (the prompt without stops).
    arrays : dict of str to ndarray
        ``graph_nodes``, int32 (9, operations): name, operation, stage, layer, shape, type, backend, fused, part;
        ``graph_seconds``, float32 (operations,), NaN where not timed; ``graph_edges``, int32 (2, edges): operations;
        ``graph_weights``, int32 (2, weights): leaf of the tree, operation that reads it.
    """
    table = graph.nodes
    operations: list[dict[str, Any]] = table[table["index"].notna()].to_dict("records")
    place = {own["id"]: at for at, own in enumerate(operations)}
    strings = Table()
    strings("")
    rows = [_operation(own, strings) for own in operations]
    leaves = {name: at for at, name in enumerate(names) if name}
    edges, weights = [], []
    for edge in graph.edges.to_dict("records"):
        target, source = place[edge["target"]], str(edge["source"])
        weight = leaves.get(source.rpartition("/leaf/")[2])
        if source in place:
            edges.append((place[source], target))
        elif weight is not None:
            weights.append((weight, target))
    facts = {
        "strings": strings.values,
        "provenance": provenance(graph),
        "n_tokens": sum(graph.info["n_tokens"].values()),
        "seconds": _sum(graph.info["whole_seconds"].values()),
    }
    arrays = {
        "graph_nodes": _columns(rows, 9),
        "graph_seconds": np.array([own["seconds"] for own in operations], np.float32),
        "graph_edges": _columns(edges, 2),
        "graph_weights": _columns(weights, 2),
    }
    return facts, arrays


def _operation(own: dict[str, Any], strings: Table) -> list[int]:
    """A column of ``graph_nodes``. The number of the layer is no part of the name, so that layers share their names."""
    layer = -1 if pd.isna(own["layer"]) else int(own["layer"])
    name = own["name"] if layer < 0 else re.sub(rf"-{layer}\b", "", own["name"])
    shape = " × ".join(map(str, _trimmed(own["shape"])))
    first = [strings(name), strings(own["op"]), STAGES.index(own["stage"]), layer]
    return [
        *first,
        strings(shape),
        strings(own["type"]),
        strings(own["backend"]),
        int(own["fused"]),
        strings(own["part"]),
    ]


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the ones at its end."""
    end = max((i + 1 for i, n in enumerate(shape) if n != 1), default=1)
    return shape[:end]


def _columns(rows: list[Any], width: int) -> Array:
    return np.ascontiguousarray(np.array(rows, np.int32).reshape(-1, width).T)


def _sum(values: Any) -> float | None:
    numbers = [float(value) for value in values if value is not None and value == value]
    return sum(numbers) if numbers else None


def provenance(graph: OperatorGraph) -> str:
    """Where the operations and times come from."""
    info = graph.info
    tokens = sum(info["n_tokens"].values())
    threads = info["n_threads"]
    timed = f"median of {info['repeats']} runs" if info["repeats"] else "not timed"
    where = f"{info['device']}, {threads} thread{'' if threads == 1 else 's'}"
    return f"read from the running graph in llama.cpp · {tokens} token{'' if tokens == 1 else 's'} · {where} · {timed}"


def time_of_tensors(arrays: Mapping[str, Array], leaves: int) -> Array:
    """float32 (leaves,): milliseconds of the operations that read each tensor; NaN where none does."""
    out = np.full(leaves, np.nan)
    seconds = arrays["graph_seconds"].astype(np.float64)
    for leaf, target in arrays["graph_weights"].T:
        if np.isfinite(seconds[target]):
            out[leaf] = np.nan_to_num(out[leaf]) + 1e3 * seconds[target]
    return out.astype(np.float32)


def error_rows(frame: pd.DataFrame, names: list[str]) -> Array:
    """float32 (3, leaves): RMSE, relative error and cosine of each tensor of A; NaN where there is none."""
    places = {name: at for at, name in enumerate(names) if name}
    out = np.full((3, len(names)), np.nan, np.float32)
    for own in frame.to_dict("records"):
        if own["tensor"] in places and not own["note"]:
            out[:, places[own["tensor"]]] = own["rmse"], own["relative"], own["cosine"]
    return out


def statistics(answer: Mapping[str, Any]) -> tuple[dict[str, Any], list[Array]]:
    """Statistics of a tensor as JSON; its histogram as two buffers, counts (float64) and edges (float64)."""
    numbers = {key: _plain(value) for key, value in answer.items() if key not in ("histogram", "edges")}
    if "histogram" not in answer:
        return numbers, []
    return numbers, [np.asarray(answer[key], np.float64) for key in ("histogram", "edges")]


def _plain(value: Any) -> Any:
    number = float(value)
    return number if np.isfinite(number) else None


_OWNERS = ("weights", "kv", "recurrent", "compute", "output")


def plan_facts(fit: Fit) -> dict[str, Any]:
    """The trait `plan`."""
    return {
        "n_ctx": fit.n_ctx,
        "kv_type": fit.kv_type,
        "owners": {name: int(getattr(fit, f"{name}_bytes")) for name in _OWNERS},
        "total": int(fit.total_bytes),
        "gpu_bytes": fit.gpu_bytes,
        "gpu_layers": fit.gpu_layers,
        "layers": fit.layers,
        "contexts": [[int(row["n_ctx"]), int(row["total_bytes"])] for row in fit.by_context.to_dict("records")],
        "server": fit.server_command,
        "modelfile": fit.modelfile,
    }
