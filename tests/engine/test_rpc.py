"""Memory that the worker cannot read directly: a model whose layers lie behind llama.cpp's RPC, as on a GPU."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.worker import ggml

SERVER = """
import ctypes as C, pathlib, sys, llama_cpp
lib = pathlib.Path(llama_cpp.__file__).parent / "lib"
base, main, rpc = (C.CDLL(str(lib / f"lib{n}.so")) for n in ("ggml-base", "ggml", "ggml-rpc"))
main.ggml_backend_dev_by_type.restype = C.c_void_p
device = (C.c_void_p * 1)(main.ggml_backend_dev_by_type(0))
start = rpc.ggml_backend_rpc_start_server
start.argtypes = [C.c_char_p, C.c_char_p, C.c_size_t, C.c_size_t, C.c_void_p]
start(sys.argv[1].encode(), None, 2, 1, device)
"""


@pytest.fixture(scope="module")
def server():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt-oss"])
@pytest.mark.parametrize("flash", ["on", "off"])
def test_a_model_behind_rpc_is_captured_like_one_here(zoo_models, server, name, flash):
    ids = list(range(10, 34))
    with (
        lt.open_model(zoo_models / f"{name}.gguf") as here,
        lt.open_model(zoo_models / f"{name}.gguf", rpc=[server]) as there,
    ):
        a, b = (m.trace(ids, flash_attention=flash, logits="all") for m in (here, there))
    assert b.info["device"].startswith("RPC") and a.info["device"] == "CPU"
    for facts in a.layers:
        for head in range(facts.heads):
            np.testing.assert_allclose(b.attention(facts.layer, head), a.attention(facts.layer, head), atol=2e-3)
        np.testing.assert_allclose(b.hidden(facts.layer), a.hidden(facts.layer), rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(b.logits, a.logits, atol=5e-2)


def test_an_absent_server_and_a_library_without_rpc_are_named(zoo_models, monkeypatch):
    with (
        lt.open_model(zoo_models / "llama.gguf", rpc=["127.0.0.1:9"]) as model,
        pytest.raises(lt.BackendMissing, match=r"no llama\.cpp RPC server answers at 127\.0\.0\.1:9"),
    ):
        model.tokenize("a")
    from llamatelemetry_widget.engine.worker import llama

    def missing(_name):
        raise lt.BackendMissing("none")

    monkeypatch.setattr(ggml, "library", missing)
    with pytest.raises(lt.BackendMissing, match=r"built without RPC.*GGML_RPC=ON"):
        llama._rpc_devices(["127.0.0.1:9"])
    with pytest.raises(lt.BackendMissing, match="no device 'CUDA7'; it has CPU"):
        monkeypatch.undo()
        llama._named_devices(["CUDA7"])
