"""A llama.cpp server as a source: the real server under load, killed and restarted, and what it does not tell."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llamatelemetry_widget.errors import LlamaTelemetryError
from llamatelemetry_widget.telemetry.samples import QUANTITIES, Source
from llamatelemetry_widget.telemetry.server import Telemetry

from .llama_server import LlamaServer, free_port

pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def server(smollm2_path):
    running = LlamaServer(smollm2_path, free_port(), "metrics", "slots")
    yield running
    running.kill()


def until(found, seconds=60.0):
    """Wait until `found` gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = found()
        if got:
            return got
        time.sleep(0.02)
    raise AssertionError("it did not come")


def test_a_server_tells_what_it_does(server):
    source = Telemetry(server.url)
    assert isinstance(source, Source) and source.facts == {}
    sample = source.read()
    assert set(sample.values) <= set(QUANTITIES)
    assert sample.values["slots"] == 2 and sample.values["slots_busy"] == 0
    assert sample.values["context_size"] == 1024 and sample.values["requests_running"] == 0
    assert sample.values["decode_tps"] is None and "two" in sample.notes["decode_tps"]
    assert source.facts["model"].startswith("SmolLM2") and source.facts["slots"] == "2" and "SmolLM2" in source.title
    assert "" not in sample.notes


def test_under_load_figures_come_while_somebody_listens_and_none_after(server):
    source, samples = Telemetry(server.url, every=0.1), []
    threads = threading.active_count()
    cancel = source.subscribe(samples.append)
    writing = server.write(200)
    live = until(lambda: [one for one in samples if one.values["decode_tps"]])
    assert live[0].values["slots_busy"] == 1 and live[0].values["context_used"] > 0
    writing.join()
    done = until(lambda: [one for one in samples if (one.values["tokens_written"] or 0) >= 200])
    assert done[0].values["tokens_read"] > 0
    cancel()
    until(lambda: threading.active_count() <= threads)
    n = len(samples)
    time.sleep(0.3)
    assert len(samples) == n


def test_two_listen_and_one_leaves(server):
    source, one, two = Telemetry(server.url, every=0.05), [], []
    leave, also = source.subscribe(one.append), source.subscribe(two.append)
    until(lambda: one and two)
    leave()
    leave()
    n = len(two)
    until(lambda: len(two) > n + 1)
    also()


def test_a_killed_server_is_waited_for(server):
    source, samples = Telemetry(server.url, every=0.05), []
    cancel = source.subscribe(samples.append)
    until(lambda: samples and samples[-1].values["slots"])
    server.kill()
    lost = until(lambda: samples[-1] if samples[-1].values["slots"] is None else None)
    assert "waiting for it" in lost.notes[""] and set(lost.values.values()) == {None} and source.facts == {}
    server.start()
    back = until(lambda: samples[-1] if samples[-1].values["slots"] else None)
    assert back.values["decode_tps"] is None and "SmolLM2" in source.facts["model"]
    cancel()


def test_what_is_off_is_said_with_its_flag_and_the_key_is_asked_for(smollm2_path):
    running = LlamaServer(smollm2_path, free_port(), "key=secret")
    try:
        sample = Telemetry(running.url).read()
        assert "api_key=" in sample.notes["slots"]
        source = Telemetry(running.url, api_key="secret")
        sample = source.read()
        assert "--metrics" in sample.notes["tokens_written"] and "--slots" in sample.notes["slots"]
        assert sample.notes[""].count("start the server with") == 2
        assert "SmolLM2" in source.facts["model"]
        assert "--slots or --metrics" in source.read().notes["decode_tps"]
        assert "secret" not in repr(source) + str(sample)
        assert "another API key" in Telemetry(running.url, api_key="wrong").read().notes["slots"]
    finally:
        running.kill()


def test_rates_without_slots_are_of_requests_that_ended(smollm2_path):
    running = LlamaServer(smollm2_path, free_port(), "metrics")
    try:
        source = Telemetry(running.url)
        source.read()
        running.write(8).join()
        sample = until(lambda: (s := source.read()).values["decode_tps"] and s)
        assert "requests that ended" in sample.notes["decode_tps"] and sample.values["prefill_tps"] > 0
    finally:
        running.kill()


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://host", "http://", "http://host:port", "http://a:b@host", ""])
def test_no_address(url):
    with pytest.raises(LlamaTelemetryError, match="is no server's address"):
        Telemetry(url)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello"),
        (200, b"[1, 2]"),
        (200, b"{"),
        (302, b""),
        (200, b"x" * 5_000_000),
        (503, b"{}"),
        (200, b"\xff"),
    ],
)
def test_whatever_else_answers_there_is_no_reason_to_fail(status, body):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        sample = Telemetry(f"http://127.0.0.1:{other.server_port}/api").read()
        other.shutdown()
    assert sample.notes and sample.values["tokens_written"] is None
