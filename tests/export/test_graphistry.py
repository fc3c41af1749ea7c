"""The real Graphistry client against a loopback server: what is sent, and what is said when it cannot be sent."""

from __future__ import annotations

import io
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import graphistry
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.export.graphistry import registered
from llamatelemetry_widget.export.graphs import graph_of, typed

SECRET = "kept-to-ourselves"


class Hub(BaseHTTPRequestHandler):
    """The part of a Graphistry server that an upload talks to."""

    seen: ClassVar[list[tuple[str, object]]] = []
    good: ClassVar[bool] = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        if path.endswith("/arrow"):
            table = pa.ipc.open_file(io.BytesIO(body)).read_all()
            self.seen.append((path.split("/")[-2], table))
            return self.answer({"success": True})
        message = json.loads(body or b"{}")
        self.seen.append((path, message))
        if path == "/api-token-auth/":
            return self.answer({"token": "a.b.c"} if message["password"] == SECRET else {}, 200 if self.good else 401)
        if path in ("/api-token-verify/", "/api/v2/auth/token/refresh"):
            return self.answer({"token": "a.b.c"}, 200 if self.good else 401)
        return self.answer({"success": True, "data": {"dataset_id": "d41d8"}})

    def answer(self, message: object, code: int = 200):
        data = json.dumps(message).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(Hub, "seen", [])
    monkeypatch.setattr(Hub, "good", True)
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    forget()


def forget():
    graphistry.PyGraphistry.session.api_token = None
    graphistry.PyGraphistry.session._is_authenticated = False


def register(host: str):
    graphistry.register(api=3, protocol="http", server=host, username="someone", password=SECRET)


def sent(kind: str) -> pd.DataFrame:
    return next(table for name, table in Hub.seen if name == kind).to_pandas()


def test_a_model_s_tree_is_uploaded_whole(hub, smollm2_path):
    tree = lt.open_model(smollm2_path).tree
    assert not registered()
    register(hub)
    assert registered() == hub
    url = lt.to_graphistry(tree, url_params={"bg": "%23ffffff"})
    assert url.startswith(f"http://{hub}/graph/graph.html?dataset=d41d8") and "bg=" in url
    nodes, edges = sent("nodes"), sent("edges")
    assert len(nodes) == len(tree.nodes) and len(edges) == len(tree.edges)
    assert nodes["n_bytes"].max() == smollm2_path.stat().st_size
    assert set(edges["src"]) | set(edges["dst"]) <= set(nodes["id"])
    table = next(t for name, t in Hub.seen if name == "nodes")
    assert pa.types.is_string(table.schema.field("id").type) or pa.types.is_large_string(table.schema.field("id").type)
    assert pa.types.is_integer(table.schema.field("layer").type)
    dataset = next(m for path, m in Hub.seen if path.endswith("/datasets/"))
    assert dataset["node_encodings"]["bindings"] == {
        "node": "id",
        "node_title": "label",
    } or "id" in json.dumps(dataset["node_encodings"])
    told = json.dumps(dataset["node_encodings"])
    assert '"label"' in told and '"n_bytes"' in told and '"kind"' in told


def test_a_large_tree_offers_it_and_sends_it_when_asked(hub, zoo_models, monkeypatch):
    model = lt.open_model(zoo_models / "deep.gguf")
    forget()
    assert lt.ArchitectureTree(model).facts["graphistry"] is None
    register(hub)
    tree = lt.ArchitectureTree(model)
    assert tree.facts["graphistry"] == hub and not any(kind == "nodes" for kind, _ in Hub.seen)
    heard = threading.Event()
    said: list[dict] = []
    monkeypatch.setattr(type(tree), "send", lambda self, message, buffers=None: (said.append(message), heard.set()))
    tree._receive(None, {"type": "graphistry", "id": "1"}, [])
    assert heard.wait(20) and said[-1]["url"].startswith(f"http://{hub}/graph/"), said
    assert len(sent("nodes")) == len(model.tree.nodes)
    monkeypatch.setattr(lt.config, "graphistry_threshold", 10_000)
    assert lt.ArchitectureTree(model).facts["graphistry"] is None


def test_nothing_is_sent_without_a_registration(hub, smollm2_path, monkeypatch):
    forget()
    with pytest.raises(lt.LlamaTelemetryError, match=r"without an account: call graphistry\.register"):
        lt.to_graphistry(lt.open_model(smollm2_path).tree)
    assert Hub.seen == []


def test_a_login_that_has_expired_is_said_before_anything_is_built(hub, smollm2_path, monkeypatch):
    register(hub)
    monkeypatch.setattr(Hub, "good", False)
    before = len(Hub.seen)
    with pytest.raises(lt.LlamaTelemetryError, match=f"{hub} refuses the login") as raised:
        lt.to_graphistry(lt.open_model(smollm2_path).tree)
    assert [path for path, _ in Hub.seen[before:]] == ["/api-token-verify/"]
    assert SECRET not in str(raised.value) and "a.b.c" not in str(raised.value)


def test_a_host_that_does_not_answer_is_named(hub, smollm2_path):
    register(hub)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{free.getsockname()[1]}"
        graphistry.PyGraphistry.server(dead)
        with pytest.raises(lt.LlamaTelemetryError, match=f"{dead} does not answer"):
            lt.to_graphistry(lt.open_model(smollm2_path).tree)


def test_columns_of_all_kinds_are_typed(hub):
    nodes = pd.DataFrame({"id": [1, 2, 3], "token": [b"\xe2\x80", np.nan, "</script>"], "tags": [[], [1], None]})
    edges = pd.DataFrame({"src": ["1", "2"], "dst": [2.0, 3.0], "weight": [0.5, np.nan], "why": [1, "text"]})
    register(hub)
    lt.to_graphistry(lt.Graph(nodes, edges, "mixed"))
    got, lines = sent("nodes"), sent("edges")
    assert got["id"].tolist() == ["1", "2", "3"] and lines["dst"].tolist() == ["2", "3"]
    assert got["token"].isna().tolist() == [False, True, False] and lines["why"].tolist() == ["1", "text"]
    assert lines["weight"].dtype == np.float64


def test_bad_tables_name_the_column():
    with pytest.raises(lt.LlamaTelemetryError, match="column 'id' of nodes has a missing value"):
        typed(pd.DataFrame({"id": ["a", None]}), ("id",), "nodes")
    with pytest.raises(lt.LlamaTelemetryError, match="edges has no column 'dst'"):
        typed(pd.DataFrame({"src": ["a"]}), ("src", "dst"), "edges")
    nodes, edges = pd.DataFrame({"id": ["a"]}), pd.DataFrame({"src": ["a"], "dst": ["b"]})
    with pytest.raises(lt.LlamaTelemetryError, match="'b', which is no node"):
        lt.Graph(nodes, edges, "broken")
    with pytest.raises(lt.LlamaTelemetryError, match="int is no graph"):
        graph_of(3)


def test_attention_and_similarity_as_graphs(smollm2_path):
    with lt.open_model(smollm2_path) as model:
        trace = model.trace("the old lamp and the old sea", layers=[0, 1])
        graph = lt.attention_graph(trace, 1, 4, threshold=0.1)
        operators = graph_of(model.graph("the sea", repeats=0))
    weights = trace.attention(1, 4)
    assert len(graph.edges) == (weights >= 0.1).sum() and len(graph.nodes) == len(trace.tokens)
    row = graph.edges.iloc[0]
    assert row.weight == pytest.approx(weights[int(row.src), int(row.dst)])
    assert list(graph.nodes.columns[:2]) == ["id", "token"] and list(graph.edges.columns) == ["src", "dst", "weight"]
    assert len(operators.nodes) > 900 and operators.edges["src"].isin(operators.nodes["id"]).all()
    alike = np.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
    assert len(lt.similarity_graph(alike, ["a", "b", "c"], threshold=0.5).edges) == 1
    assert len(lt.similarity_graph(alike, ["a", "b", "c"], k=1).edges) == 2


def test_networkx_and_parquet_hold_the_same(smollm2_path, tmp_path):
    graph = graph_of(lt.open_model(smollm2_path).tree)
    made = graph.to_networkx()
    assert made.number_of_nodes() == len(graph.nodes) and made.number_of_edges() == len(graph.edges)
    assert made.nodes["model"]["n_bytes"] == smollm2_path.stat().st_size
    nodes, edges = graph.to_parquet(tmp_path / "g")
    assert pd.read_parquet(nodes)["id"].tolist() == graph.nodes["id"].tolist()
    assert len(pd.read_parquet(edges)) == len(graph.edges)
