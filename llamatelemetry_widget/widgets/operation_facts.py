"""Where the time of a prompt goes: by layer and by operation, of each kind.

In: an `OperatorGraph` whose operations were timed. Out: tables in milliseconds, and the same as plain JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engine.operator_kinds import KINDS
from ..engine.operators import OperatorGraph
from ..trace import Trace
from .architecture_graph import STAGES, provenance

if TYPE_CHECKING:
    import pandas as pd


def graph_of_prompt(trace: Trace) -> OperatorGraph:
    """Time the operations of a run's prompt, with the settings of the run.

    Raises
    ------
    CaptureUnavailable
        The trace has no model that could run it again.
    """
    model = trace._asked("model", {}, "keep the model open")
    ids = trace.token_ids.tolist()
    decoder_ids = None if trace.decoder is None else trace.decoder[0].tolist()
    growing = ids if decoder_ids is None else decoder_ids
    del growing[len(growing) - len(trace._generated) :]
    settings = trace.info["settings"]
    found: OperatorGraph = model.graph(
        ids,
        flash_attention=settings["flash_attention"],
        kv_type=settings["kv_type"],
        decoder_prompt=decoder_ids,
    )
    return found


def layer_rows(graph: OperatorGraph | None) -> pd.DataFrame:
    """One row per layer, and one for what comes before and after all layers, in the order of the run.

    Returns
    -------
    DataFrame
        ``part``, ``stage``, ``layer`` (<NA> before and after the layers), ``operations``, ``milliseconds``, and the
        milliseconds of each kind.
    """
    table = _summed(graph, ["part", "stage", "layer"])
    order = {stage: at for at, stage in enumerate(STAGES)}
    parts = list(dict.fromkeys(table["part"]))
    table = table.assign(_part=table["part"].map(parts.index), _stage=table["stage"].map(order))
    table = table.sort_values(["_part", "_stage", "layer"], ignore_index=True)
    kept: pd.DataFrame = table[["part", "stage", "layer", "operations", "milliseconds", *KINDS]]
    return kept


def operation_rows(graph: OperatorGraph | None) -> pd.DataFrame:
    """One row per kind of operation, the costliest first.

    Returns
    -------
    DataFrame
        ``op`` (ggml's name), ``operations`` (how many), ``milliseconds``, ``share`` of all, and the milliseconds of
        each kind of block that they belong to.
    """
    table: pd.DataFrame = _summed(graph, ["op"]).sort_values("milliseconds", ascending=False, ignore_index=True)
    table["share"] = table["milliseconds"] / table["milliseconds"].sum()
    kept: pd.DataFrame = table[["op", "operations", "milliseconds", "share", *KINDS]]
    return kept


def _summed(graph: OperatorGraph | None, by: list[str]) -> pd.DataFrame:
    import pandas as pd

    if graph is None:
        empty: pd.DataFrame = pd.DataFrame(columns=[*by, "operations", "milliseconds", *KINDS])
        return empty
    nodes = graph.nodes
    nodes = nodes[nodes["index"].notna()].assign(milliseconds=1e3 * nodes["seconds"])
    groups = nodes.groupby(by, dropna=False, sort=False)
    table = groups.agg(operations=("id", "size"), milliseconds=("milliseconds", "sum"))
    for kind in KINDS:
        table[kind] = nodes[nodes["kind"] == kind].groupby(by, dropna=False)["milliseconds"].sum()
    filled: pd.DataFrame = table.fillna(dict.fromkeys(KINDS, 0.0)).reset_index()
    return filled


def times_facts(graph: OperatorGraph | None) -> dict[str, Any]:
    """What the browser is told: kinds that there are, bars of layers, operations; empty where nothing was timed."""
    if graph is None or not graph.info.get("repeats"):
        return {}
    layers, operations = layer_rows(graph), operation_rows(graph)
    kinds = [kind for kind in KINDS if layers[kind].sum() > 0]
    whole = [seconds for seconds in graph.info["whole_seconds"].values() if seconds is not None]
    return {
        "kinds": kinds,
        "layers": [
            {
                "part": row["part"],
                "stage": row["stage"],
                "layer": None if row["stage"] != "layers" else int(row["layer"]),
                "ms": [round(row[kind], 6) for kind in kinds],
            }
            for row in layers.to_dict("records")
        ],
        "operations": [
            {"op": row["op"], "count": row["operations"], "ms": [round(row[kind], 6) for kind in kinds]}
            for row in operations.to_dict("records")
        ],
        "ms": float(layers["milliseconds"].sum()),
        "whole_ms": 1e3 * sum(whole),
        "tokens": sum(graph.info["n_tokens"].values()),
        "repeats": int(graph.info["repeats"]),
        "provenance": provenance(graph),
    }
