"""A run in progress: events, and the bar that a waiting person sees."""

from __future__ import annotations

import io
import sys
import threading

import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine import running
from llamatelemetry_widget.engine.running import ProgressBar, TraceEvent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(ProgressBar, "AFTER_SECONDS", 0.0)


def test_a_notebook_gets_a_bar_and_it_is_closed(at_once, monkeypatch):
    monkeypatch.setattr(running, "_in_notebook", lambda: True)
    bar = ProgressBar()
    bar.show(256, 512, "token")
    assert (bar._bar.value, bar._bar.description) == (0.5, "token 256 of 512")
    bar.show(3, 30, "layer")
    assert bar._bar.description == "layer 3 of 30"
    bar.close()
    assert bar._bar.comm is None


def test_a_terminal_gets_a_line_that_is_wiped(at_once, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = ProgressBar()
    bar.show(1, 4, "token")
    bar.close()
    assert "token 1 of 4" in sys.stderr.getvalue() and sys.stderr.getvalue().endswith("\r")


def test_a_short_run_shows_nothing(monkeypatch):
    monkeypatch.setattr(running, "_in_notebook", lambda: True)
    bar = ProgressBar()
    bar.show(1, 4, "token")
    bar.close()
    assert bar._bar is None


def test_events_come_in_order_also_for_a_late_subscriber(zoo_model):
    started = zoo_model("llama").start_trace("a b c d e f")
    trace = started.result()
    late: list[TraceEvent] = []
    started.subscribe(late.append)
    assert [e.kind for e in late] == ["start", *["layer"] * 4, "done"]
    assert [e.layer for e in late[1:-1]] == [0, 1, 2, 3]
    assert late[-1].trace is trace and late[0].trace is trace and started.done


def test_a_failed_run_says_so_and_raises_from_result(zoo_model):
    started = zoo_model("llama").start_trace("a", layers=[9])
    with pytest.raises(lt.CaptureUnavailable, match="layer 9 does not exist"):
        started.result()
    seen: list[TraceEvent] = []
    started.subscribe(seen.append)
    assert [e.kind for e in seen] == ["error"] and "layer 9" in seen[0].message


def test_a_stop_before_the_worker_is_there_is_heard(smollm2_path):
    with lt.open_model(smollm2_path) as model:
        started = model.start_trace("the sea was calm " * 400)
        started.cancel()
        with pytest.raises(lt.EngineCancelled):
            started.result()
        assert model.trace("still here", layers=[0]).tokens


def test_a_stop_ends_the_run_it_was_meant_for_and_no_other(smollm2):
    first = smollm2.start_trace("the sea was calm " * 60, layers=[0])
    waiting = smollm2.start_trace("the lamp was lit " * 60, layers=[0])
    waiting.cancel()
    with pytest.raises(lt.EngineCancelled):
        waiting.result()
    assert len(first.result().tokens) > 200


def test_a_run_that_waits_for_another_says_so(smollm2, at_once, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    first = smollm2.generate("The lamp", max_tokens=2000)
    began, heard = threading.Event(), []
    first.subscribe(lambda event: event.kind == "token" and began.set())
    assert began.wait(60)
    second = smollm2.start_trace("The sea")
    second.subscribe(lambda event: heard.append(event.message))
    threading.Timer(1.0, first.cancel).start()
    second.result(progress=True)
    assert "waiting for another run of this model to end" in heard
    assert "waiting for another run of this model to end" in sys.stderr.getvalue()
