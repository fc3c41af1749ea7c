"""Headers of remote models, by ranges from a loopback hub: info, tree and fit without the weights."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.models.find import resolve

ZOO = Path(__file__).parents[1] / "data/zoo/models"


class Hub(BaseHTTPRequestHandler):
    """The little of the Hub that is asked for a header. `sent` counts the bytes of answers with content."""

    files: ClassVar[dict[str, Path]] = {}
    sent: ClassVar[list[int]] = []
    ranges: ClassVar[bool] = True

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        path, span = self.path.split("?")[0], self.headers.get("Range")
        if path.startswith("/api/models/owner/repo"):
            siblings = [{"rfilename": n, "size": p.stat().st_size, "blobId": "0"} for n, p in self.files.items()]
            return self.send(json.dumps({"id": "owner/repo", "sha": "c" * 40, "siblings": siblings}).encode(), body)
        file = self.files.get(path.removeprefix("/owner/repo/resolve/main/"))
        if file is None:
            return self.send(b"", body, 404)
        size = file.stat().st_size
        if span is None or not self.ranges:
            if body:
                self.sent.append(size)
                return self.send(file.read_bytes(), body)
            return self.send(None, body, length=size)
        start, stop = (int(x) for x in span.removeprefix("bytes=").split("-"))
        with file.open("rb") as opened:
            opened.seek(start)
            data = opened.read(stop - start + 1)
        self.sent.append(len(data))
        return self.send(data, body, 206)

    def send(self, data: bytes | None, body: bool, code: int = 200, length: int | None = None):
        self.send_response(code)
        self.send_header("Content-Length", str(len(data or b"") if length is None else length))
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("ETag", '"abc123"')
        self.end_headers()
        if body and data:
            self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    from huggingface_hub import constants, file_download

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(
        file_download,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
        raising=False,
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Hub, "sent", [])
    monkeypatch.setattr(Hub, "ranges", True)
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_header_without_the_download(hub, monkeypatch, gemma3_path):
    monkeypatch.setattr(Hub, "files", {"gemma.gguf": gemma3_path})
    remote, local = lt.open_model("hf:owner/repo/gemma.gguf", download=False), lt.open_model(gemma3_path)
    assert sum(hub.sent) < 0.1 * gemma3_path.stat().st_size, "of 253 MB the header only"
    assert remote.info.n_bytes == local.info.n_bytes and remote.tree.root.n_bytes == gemma3_path.stat().st_size
    assert remote.tree.nodes.drop(columns="name").equals(local.tree.nodes.drop(columns="name"))
    mine, theirs = remote.fit(4096, gpu="200MB"), local.fit(4096, gpu="200MB")
    for name in ("weights_bytes", "kv_bytes", "compute_bytes", "output_bytes", "gpu_layers"):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert remote.info.path.stat().st_blocks * 512 < 30_000_000, "the weights are a hole"
    with pytest.raises(lt.ModelFileError, match="header alone"):
        remote.trace("x")
    with pytest.raises(lt.ModelFileError, match="header alone"):
        remote.tensor_stats("output_norm.weight")


def test_it_is_fetched_once_and_not_taken_for_a_download(hub, monkeypatch):
    monkeypatch.setattr(Hub, "files", {"m.gguf": ZOO / "llama.gguf"})
    first = resolve("hf:owner/repo", download=False)
    count = len(hub.sent)
    assert resolve("hf:owner/repo/m.gguf", download=False) == first and len(hub.sent) == count
    assert not any(lt.list_models()["path"].astype(str).str.contains("headers"))
    whole = lt.open_model("hf:owner/repo/m.gguf")
    assert whole.info.has_weights and whole.info.path != first


def test_a_split_set_is_one_model(hub, monkeypatch):
    names = [f"q/llama-split-0000{n}-of-00003.gguf" for n in range(1, 4)]
    monkeypatch.setattr(Hub, "files", {name: ZOO / Path(name).name for name in names})
    model = lt.open_model(f"hf:owner/repo/{names[0]}", download=False)
    whole = lt.open_model(ZOO / "llama-split-00001-of-00003.gguf")
    assert len(model.info.shards) == 3 and model.tree.root.n_bytes == whole.tree.root.n_bytes


def test_a_server_without_ranges_says_so(hub, monkeypatch):
    monkeypatch.setattr(Hub, "files", {"m.gguf": ZOO / "llama.gguf"})
    monkeypatch.setattr(Hub, "ranges", False)
    with pytest.raises(lt.LlamaTelemetryError, match="whole file where a part was asked for"):
        lt.open_model("hf:owner/repo/m.gguf", download=False)


def test_what_is_no_gguf_is_refused_before_more_is_fetched(hub, monkeypatch, tmp_path):
    page = tmp_path / "page.gguf"
    page.write_bytes(b"<!doctype html>" + bytes(5_000_000))
    monkeypatch.setattr(Hub, "files", {"m.gguf": page})
    with pytest.raises(lt.ModelFileError, match="a web page"):
        lt.open_model("hf:owner/repo/m.gguf", download=False)
    assert sum(hub.sent) <= 1 << 20
    assert not list((tmp_path / "cache").rglob("*.gguf")) and not list((tmp_path / "cache").rglob("tmp*"))
