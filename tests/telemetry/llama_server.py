"""The real llama.cpp HTTP server in a process of its own, as tests start, kill and restart it.

In: a GGUF, a port and what is switched on, as arguments. Out: the server, until its process ends.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LlamaServer:
    """A server that runs; `port` is kept over `kill` and `start`."""

    def __init__(self, model: Path, port: int, *switched_on: str) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self._command = [sys.executable, __file__, str(model), str(port), *switched_on]
        self.start()

    def start(self) -> None:
        """Start it and wait until it has loaded its model."""
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(600):
            assert self.process.poll() is None, "the server did not start"
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=1).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def write(self, n: int) -> threading.Thread:
        """Let it write so many tokens, in a thread."""
        body = json.dumps({"prompt": "The sea was calm and", "n_predict": n, "ignore_eos": True}).encode()

        def ask() -> None:
            with contextlib.suppress(OSError):  # it was killed meanwhile
                urllib.request.urlopen(f"{self.url}/completion", body, timeout=120).read()

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        return thread


def main(model: str, port: str, *switched_on: str) -> None:
    """Serve until the parent closes our standard input, also by dying."""
    from xllamacpp import CommonParams, Server

    p = CommonParams()
    p.model.path, p.port, p.n_ctx, p.n_parallel, p.cpuparams.n_threads = model, int(port), 1024, 2, 1
    p.endpoint_metrics, p.endpoint_slots = "metrics" in switched_on, "slots" in switched_on
    p.api_keys = [word.removeprefix("key=") for word in switched_on if word.startswith("key=")]
    server = Server(p)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main(*sys.argv[1:])
