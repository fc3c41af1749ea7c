"""OpenTelemetry: spans and metrics of real runs, in the SDK's memory and at a real OTLP/HTTP receiver, alive and dead.

In: a tiny model of the zoo; providers, environments. Out: spans once, with the names in force, and no text unasked.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest

pytest.importorskip("opentelemetry.sdk")

import opentelemetry.semconv._incubating.attributes.gen_ai_attributes as gen_ai
import opentelemetry.semconv._incubating.metrics.gen_ai_metrics as gen_ai_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import llamatelemetry_widget as lt
from llamatelemetry_widget.engine.observers import OBSERVERS
from llamatelemetry_widget.telemetry import names
from llamatelemetry_widget.telemetry.gpu import GpuTelemetry
from llamatelemetry_widget.telemetry.otel import DASHBOARD

from .llama_server import LlamaServer, free_port
from .receiver import Receiver
from .test_gpu import MockOfNvml
from .test_server import until

TEXT = "hello there"


@pytest.fixture(scope="module")
def model(zoo_models):
    with lt.open_model(zoo_models / "llama.gguf") as opened:
        yield opened


@pytest.fixture
def memory(monkeypatch):
    """Providers of a user, all in memory."""
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", names.CAPTURE_CONTENT):
        monkeypatch.delenv(name, raising=False)
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    yield SimpleNamespace(exporter=exporter, reader=reader, tracers=tracers, meters=meters)
    tracers.shutdown()
    meters.shutdown()


@pytest.fixture
def told(memory):
    made = lt.instrument(tracer_provider=memory.tracers, meter_provider=memory.meters)
    yield memory
    made.close()
    assert not OBSERVERS


def points(reader):
    """Name to its data points."""
    data = reader.get_metrics_data()
    scopes = [scope for one in data.resource_metrics for scope in one.scope_metrics] if data else []
    return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


# -------------------------------------------------------------------------- names


def test_the_names_are_those_in_force():
    attributes, metrics, own = (
        {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
        for module in (gen_ai, gen_ai_metrics, names)
    )
    used = {value for value in own if value.startswith("gen_ai.")}
    assert used <= attributes | metrics and set(names.HISTOGRAMS) <= metrics
    assert not used & {gen_ai.GEN_AI_SYSTEM, gen_ai.GEN_AI_PROMPT, gen_ai.GEN_AI_COMPLETION}  # of old versions


# --------------------------------------------------------------------------- spans


def test_a_trace_is_one_span_under_the_users_own(told, model):
    with told.tracers.get_tracer("user").start_as_current_span("notebook") as user:
        trace = model.trace(TEXT, progress=False)
    span, parent = told.exporter.get_finished_spans()
    assert parent.name == "notebook" and span.parent.span_id == user.get_span_context().span_id
    assert span.name == "trace llama" and span.status.status_code is StatusCode.UNSET
    got = dict(span.attributes)
    assert got[names.PROVIDER_NAME] == "llama.cpp" and got[names.INPUT_TOKENS] == len(trace.token_ids)
    assert got[f"{names.SECONDS}prefill"] == trace.telemetry["prefill_seconds"] and got[names.DEVICE] == "CPU"
    assert got[f"{names.MEMORY}kv"] > 0 and names.OUTPUT_TOKENS not in got
    assert (span.end_time - span.start_time) / 1e9 >= trace.telemetry["prefill_seconds"]


def test_a_generation_tells_its_settings_its_tokens_and_no_text(told, model):
    written = model.generate(TEXT, 4, temperature=0.7, seed=3)
    written.result()
    (span,) = told.exporter.get_finished_spans()
    got = dict(span.attributes)
    assert span.name == "text_completion llama" and [event.name for event in span.events] == ["first token"]
    assert (got[names.MAX_TOKENS], got[names.TEMPERATURE], got[names.SEED]) == (4, 0.7, 3)
    assert got[names.OUTPUT_TOKENS] == len(written.tokens) == 4 and got[names.FINISH_REASONS] == ("length",)
    assert names.INPUT_MESSAGES not in got and TEXT not in span.to_json() and written.text not in span.to_json()
    found = points(told.reader)
    assert set(found) == set(names.HISTOGRAMS)
    usage = {point.attributes[names.TOKEN_TYPE]: point.sum for point in found[names.TOKEN_USAGE]}
    assert usage == {"input": got[names.INPUT_TOKENS], "output": 4}
    assert found[names.PER_TOKEN][0].count == 4 and found[names.FIRST_TOKEN][0].count == 1
    assert found[names.FIRST_TOKEN][0].sum == written.telemetry["first_token_seconds"]
    assert found[names.DURATION][0].attributes[names.MODEL] == "llama"
    assert tuple(found[names.PER_TOKEN][0].explicit_bounds) == names.HISTOGRAMS[names.PER_TOKEN][2]


def test_texts_are_told_where_that_is_asked_for(memory, model, monkeypatch):
    monkeypatch.setenv(names.CAPTURE_CONTENT, "true")
    made = lt.instrument(tracer_provider=memory.tracers, meter_provider=memory.meters)
    try:
        before = model.trace(TEXT, progress=False)
        written = model.generate(TEXT, 3)
        written.result()
    finally:
        made.close()
    _, span = memory.exporter.get_finished_spans()
    (asked,), (answer,) = (json.loads(span.attributes[key]) for key in (names.INPUT_MESSAGES, names.OUTPUT_MESSAGES))
    assert asked == {"role": "user", "parts": [{"type": "text", "content": before.text}]}
    assert answer["role"] == "assistant" and answer["finish_reason"] == "length"
    assert answer["parts"][0]["content"] == written.text


def test_a_run_that_fails_says_why_and_of_which_model(told, model):
    with pytest.raises(lt.PromptTooLong):
        model.trace("a " * 5000, progress=False)
    (span,) = told.exporter.get_finished_spans()
    assert span.name == "trace llama" and span.status.status_code is StatusCode.ERROR
    assert span.attributes[names.ERROR_TYPE] == "PromptTooLong"
    (point,) = points(told.reader)[names.DURATION]
    assert point.attributes[names.ERROR_TYPE] == "PromptTooLong"


def test_a_run_that_is_stopped_is_no_error(told, model):
    running = model.start_trace(TEXT)
    running.cancel()
    with pytest.raises(lt.EngineCancelled):
        running.result()
    (span,) = told.exporter.get_finished_spans()
    assert span.status.status_code is StatusCode.UNSET and span.attributes[names.ERROR_TYPE] == "EngineCancelled"


def test_a_study_is_one_span_each_time_it_runs(told, zoo_models, tmp_path):
    files = [zoo_models / f"{name}.gguf" for name in ("llama", "llama-q8-0")]
    also = {"n_ctx": 32, "n_blocks": 1, "drift": False, "speed": False, "directory": tmp_path}
    study = lt.QuantizationStudy(files[0], files[1:], "The sea was calm and the lamp was lit. " * 8, **also)
    study.run()
    study.run()
    assert [span.name for span in told.exporter.get_finished_spans()] == ["study llama"] * 2
    assert points(told.reader)[names.DURATION][0].count == 2


# ----------------------------------------------------------------------- providers


def test_a_second_call_takes_the_place_of_the_first(memory, model):
    first = lt.instrument(tracer_provider=memory.tracers, meter_provider=memory.meters)
    second = lt.instrument(tracer_provider=memory.tracers, meter_provider=memory.meters)
    try:
        model.trace(TEXT, progress=False)
        assert len(memory.exporter.get_finished_spans()) == 1 and "your own provider" in repr(second)
    finally:
        first.close()
        second.close()
    model.trace(TEXT, progress=False)
    assert len(memory.exporter.get_finished_spans()) == 1


def test_without_a_provider_and_a_variable_nothing_is_sent(monkeypatch):
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    threads = threading.active_count()
    made = lt.instrument()
    assert "spans to nowhere" in made.status and "metrics to nowhere" in made.status
    assert threading.active_count() == threads
    made.close()


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
    ],
)
def test_variables_that_switch_it_off(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = lt.instrument()
    assert "spans to nowhere" in made.status
    made.close()


PROGRAM = """
import logging, sys, llamatelemetry_widget as lt
logging.basicConfig(format="LOG %(levelname)s %(name)s %(message)s")
made = lt.instrument()
with lt.open_model(sys.argv[1]) as model:
    model.generate("hello there", 1).result()
    print(made.status)
    MORE
"""
# A user's own provider, set after ours; then the set-up runs a second time, as a cell does that is run again.
USERS = """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, ConsoleSpanExporter
    users = TracerProvider()
    users.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
    trace.set_tracer_provider(users)
    model.generate("hello there", 2).result()
    made = lt.instrument()
    model.generate("hello there", 3).result()
    print(made.status)
    assert trace.get_tracer_provider() is users
"""


def run(path, environment, more=""):
    """A process with its own global providers; what it prints, and what it logs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", PROGRAM.replace("MORE", more.strip()), str(path)]
    done = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, [line for line in done.stderr.splitlines() if line.startswith("LOG ")]


def test_the_users_provider_is_used_whenever_it_is_set_and_a_dead_collector_lets_the_process_end(zoo_models):
    dead = f"http://127.0.0.1:{free_port()}"
    out, logged = run(zoo_models / "llama.gguf", {"OTEL_EXPORTER_OTLP_ENDPOINT": dead}, USERS)
    assert out.count('"name": "text_completion llama"') == 2  # each once, and not the first
    assert f"spans to {dead}/v1/traces" in out and f"spans to your own provider, metrics to {dead}/v1/metrics" in out
    assert len(logged) <= 1 and not [line for line in logged if "does not take" not in line]


# ----------------------------------------------------------------- a real receiver


@pytest.fixture
def receiver(monkeypatch):
    made = Receiver(free_port())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    yield made
    made.stop()


def test_spans_and_metrics_reach_a_collector(receiver, model):
    receiver.start()
    made = lt.instrument()
    try:
        assert made.status == f"spans to {receiver.url}/v1/traces, metrics to {receiver.url}/v1/metrics"
        model.generate(TEXT, 3).result()
        assert made.flush()
        until(lambda: {metric.name for metric in receiver.metrics} >= set(names.HISTOGRAMS), 20)
    finally:
        made.close()
    (span,) = receiver.spans
    got = {a.key: a.value for a in span.attributes}
    assert span.name == "text_completion llama" and got[names.OUTPUT_TOKENS].int_value == 3
    assert receiver.resources[0]["service.name"] == "llamatelemetry-widget"
    assert TEXT not in str(receiver.spans)


@pytest.mark.parametrize("how", ["refuses", "answers 503"])
def test_a_dead_collector_costs_one_line_and_nothing_is_lost(receiver, model, caplog, how):
    if how == "answers 503":
        receiver.start()
        receiver.status = 503
    made = lt.instrument()
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            model.trace(TEXT, progress=False)
        until(lambda: made._collector._state.silent, 30)
        if how == "answers 503":
            receiver.status = 200
        else:
            receiver.start()
        until(lambda: len(receiver.spans) == 3, 60)
    lines = [r for r in caplog.records if r.levelno >= logging.WARNING and "telemetry" in r.name]
    assert len(lines) == 1 and "does not take" in lines[0].message
    made.close()


def test_the_end_of_a_process_sends_what_waits(receiver, zoo_models):
    receiver.start()
    run(zoo_models / "llama.gguf", {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_SERVICE_NAME": "mine"})
    assert [span.name for span in receiver.spans] == ["text_completion llama"]
    assert receiver.resources[0]["service.name"] == "mine" and receiver.metrics


# ---------------------------------------------------------------------- Prometheus


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_prometheus_reads_metrics_and_sources(told, model):
    made = lt.instrument(tracer_provider=told.tracers, meter_provider=told.meters)
    endpoint = made.serve_prometheus(0, sources=[GpuTelemetry()])
    model.generate(TEXT, 3).result()
    kind, body = get(endpoint.url)
    assert kind.startswith("text/plain; version=0.0.4")
    line = next(
        line for line in body.splitlines() if line.startswith("gen_ai_client_token_usage_sum") and "output" in line
    )
    assert line.endswith(" 3") and 'gen_ai_request_model="llama"' in line
    pattern = r'[a-z_:]+(\{([a-z_]+="(\\.|[^"\\])*",?)*\})? ([0-9.e+-]+|\+Inf)'
    assert all(line.startswith("#") or re.fullmatch(pattern, line) for line in body.splitlines()), body
    counts = [int(n) for n in re.findall(r"time_per_output_chunk_seconds_bucket.* (\d+)$", body, re.MULTILINE)]
    assert counts == sorted(counts) and counts[-1] == 3
    assert points(told.reader)[names.PER_TOKEN][0].count == 3  # and the user's own meter has them too
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(endpoint.url.replace("/metrics", "/other"))
    with pytest.raises(lt.LlamaTelemetryError, match="choose another port"):
        made.serve_prometheus(int(endpoint.url.split(":")[2].split("/")[0]))
    assert "127.0.0.1" in endpoint.url and endpoint.url in made.status
    made.close()
    with pytest.raises(urllib.error.URLError):
        get(endpoint.url)


def told_names(url):
    """Names of what stands there now, each with the labels that it has."""
    found = {}
    for name, labels in re.findall(r"^([A-Za-z_:]+)(\{.*\})?", get(url)[1], re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def test_every_metric_and_label_of_the_dashboard_is_one_that_is_told(told, model, zoo_models, monkeypatch):
    pytest.importorskip("xllamacpp")
    monkeypatch.setitem(sys.modules, "pynvml", MockOfNvml())  # a mock: no GPU is needed to see its figures' names
    server = LlamaServer(zoo_models / "llama.gguf", free_port(), "metrics", "slots")
    made = lt.instrument(tracer_provider=told.tracers, meter_provider=told.meters)
    there = {}

    def look(url):
        for name, labels in told_names(url).items():
            there.setdefault(name, set()).update(labels)
        return there

    try:
        endpoint = made.serve_prometheus(0, sources=[lt.Telemetry(server.url), GpuTelemetry()])
        model.generate(TEXT, 3).result()
        with pytest.raises(lt.PromptTooLong):
            model.trace("a " * 5000, progress=False)
        look(f"{server.url}/metrics")
        look(endpoint.url)  # a rate needs two readings
        server.write(400)
        until(lambda: {"llamatelemetry_prefill_tps", "llamatelemetry_context_used"} <= set(look(endpoint.url)))
    finally:
        made.close()
        server.kill()
    seen = set()
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            names = re.findall(r"\b((?:gen_ai|llamatelemetry|llamacpp)[A-Za-z0-9_:]+)", bare(target["expr"]))
            assert names and set(names) <= set(there), target["expr"]
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            labels = {label for group in grouped for label in group.split(", ")}
            labels |= set(re.findall(r"\{(\w+)", target["expr"])) | set(
                re.findall(r"\{\{(\w+)", target["legendFormat"])
            )
            labels.discard("instance")  # which Prometheus adds: the address that it scrapes
            assert all(labels <= there[name] for name in names), target
            seen.update(names)
    assert len(seen) > 15


def bare(expression):
    """An expression without labels and what it is grouped by."""
    return re.sub(r"by \([^)]*\)|\{[^}]*\}", "", expression)


# Ids of units as Grafana's value formats name them.
UNITS = {"short", "s", "percent", "decbytes", "watt", "celsius"}


def test_the_dashboard_is_as_grafana_s_schema_asks():
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    panels = dashboard["panels"]
    assert dashboard["uid"] and len(dashboard["uid"]) <= 40 and "id" not in dashboard  # else an import would overwrite
    assert dashboard["schemaVersion"] >= 36 and re.fullmatch(r"\d+[smh]", dashboard["refresh"])
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids) and all(isinstance(one, int) for one in ids)
    (variable,) = dashboard["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    own = {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] >= 0 and place["w"] > 0 and place["h"] > 0 and place["x"] + place["w"] <= 24
        cells = {(place["x"] + right, place["y"] + down) for right in range(place["w"]) for down in range(place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] == "timeseries" and panel["datasource"] == own and panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS and panel["fieldConfig"]["overrides"] == []
        refs = [target["refId"] for target in panel["targets"]]
        assert refs and len(set(refs)) == len(refs) and all(t["datasource"] == own for t in panel["targets"])
        for target in panel["targets"]:
            expression = target["expr"]
            assert expression.count("(") == expression.count(")") and "[5m]" not in expression
            variables = set(re.findall(r"\$\{?(\w+)", expression))
            assert variables <= {"__rate_interval", "__range"}
            if re.search(r"_(total|count|sum|bucket)\b", bare(expression)) and "llamacpp" not in expression:
                assert re.search(r"\b(rate|increase)\(", expression), "a counter is shown as what it gains"
    rows = {y for _, y in taken}
    assert rows == set(range(max(rows) + 1))
