"""Large graphs for Graphistry: typed tables, encodings, and checks of the login before anything is built.

In: a graph, and an account that the user has registered. Out: the address of the picture. Nothing is uploaded unless
`to_graphistry` is called after `graphistry.register`.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ..errors import BackendMissing, LlamaTelemetryError
from .graphs import Graphs, graph_of

_TIMEOUT = 8
_COLOURS = ["#2f6fb3", "#8b5a9e", "#3aa08f", "#c98500", "#b3563a", "#5d7a2e", "#7a6a5d", "#40607a"]


def registered() -> str | None:
    """The host that `graphistry.register` was called for in this session; None where it was not. Asks nobody."""
    module = sys.modules.get("graphistry")
    return str(module.server()) if module is not None and module.api_token() else None


def to_graphistry(graph: Graphs, *, url_params: dict[str, Any] | None = None) -> str:
    """Upload a graph with the account that `graphistry.register` was called with.

    Parameters
    ----------
    graph : Graph, ModelTree or OperatorGraph
        E.g. ``model.tree``, ``model.graph(prompt)``, `attention_graph`, `similarity_graph`.
    url_params : dict, optional
        Graphistry's own, e.g. ``{"play": 0}``.

    Returns
    -------
    str
        Address of the picture.

    Raises
    ------
    BackendMissing
        The client is not installed (the extra ``graphistry``).
    LlamaTelemetryError
        Nobody is registered, the server does not answer, or the login is wrong or has expired; the host is named.
    """
    client, host = _checked_client()
    made = graph_of(graph)
    plot = client.bind(source="src", destination="dst", node="id", point_title=made.title)
    plot = plot.nodes(made.nodes).edges(made.edges).name(f"llamatelemetry: {made.name}")
    if made.color is not None:
        plot = _coloured(plot, made.nodes, made.color)
    if made.size is not None:
        plot = plot.encode_point_size(made.size)
    plot = plot.settings(url_params={"play": 2000, **(url_params or {})})
    try:
        return str(plot.plot(render=False))
    except Exception as error:
        raise LlamaTelemetryError(f"{host} did not take the graph: {_first_line(error)}") from None


def _coloured(plot: Any, nodes: Any, column: str) -> Any:
    if nodes[column].dtype != "string":
        return plot.encode_point_color(column, palette=["#d3eee0", "#348fa7", "#160d1e"], as_continuous=True)
    values = [str(value) for value in nodes[column].dropna().unique()]
    mapping = {value: _COLOURS[i] for i, value in enumerate(values[: len(_COLOURS)])}
    return plot.encode_point_color(column, categorical_mapping=mapping, default_mapping="#9aa2ac")


def _checked_client() -> tuple[Any, str]:
    """The client and its host, once the host has said that the login is good."""
    try:
        import requests

        graphistry: Any = importlib.import_module("graphistry")
    except ImportError as error:
        raise BackendMissing(
            "Graphistry's client is not installed: pip install 'llamatelemetry-widget[graphistry]'"
        ) from error
    token, host = graphistry.api_token(), str(graphistry.server())
    if not token:
        raise LlamaTelemetryError(
            "nothing is uploaded without an account: call graphistry.register(api=3, username=…, password=…) first"
        )
    try:
        answer = requests.post(
            f"{graphistry.protocol()}://{host}/api-token-verify/", json={"token": token}, timeout=_TIMEOUT
        )
    except requests.RequestException as error:
        raise LlamaTelemetryError(
            f"{host} does not answer ({type(error).__name__}): check the server that graphistry.register was given"
        ) from None
    if not answer.ok:
        raise LlamaTelemetryError(
            f"{host} refuses the login (code {answer.status_code}): it has expired or is wrong, "
            f"call graphistry.register again"
        )
    return graphistry, host


def _first_line(error: Exception) -> str:
    """What went wrong, short, and without what a client may have put into it of our login."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160]}" if text else type(error).__name__
