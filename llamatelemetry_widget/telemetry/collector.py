"""Providers of our own, where the standard ``OTEL_*`` variables name a collector and the user has set no provider.

In: the environment. Out: a tracer and a meter provider that send by OTLP/HTTP from threads of their own. A collector
that is dead costs one log line; spans wait in the SDK's queue (``OTEL_BSP_MAX_QUEUE_SIZE``, 2048) until it answers.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

_LOG = logging.getLogger("llamatelemetry_widget.telemetry")
_EXIT_SECONDS = 2.0  # the most that the end of the process waits for a collector
_LONGEST_PAUSE = 30.0
_OTHERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
)


def wanted(signal: str) -> bool:
    """Whether the environment asks for OTLP of ``"TRACES"`` or ``"METRICS"``."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    if exporter and exporter != "otlp":
        if exporter != "none":
            _LOG.warning("OTEL_%s_EXPORTER=%s is not known here: use otlp, or set a provider", signal, exporter)
        return False
    return bool(exporter) or any(os.environ.get(name) for name in endpoints)


class Collector:
    """Our providers, each None where the environment does not ask for it."""

    def __init__(self) -> None:
        self.tracer_provider: Any = None
        self.meter_provider: Any = None
        self.traces_to = self.metrics_to = ""
        self._state = _State()
        self._closed = threading.Event()
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        if not (wanted("TRACES") or wanted("METRICS")):
            return
        if protocol != "http/protobuf":
            _LOG.warning("OTEL_EXPORTER_OTLP_PROTOCOL=%s is not known here: use http/protobuf", protocol)
            return
        if wanted("TRACES"):
            self._traces()
        if wanted("METRICS"):
            self._metrics()
        atexit.register(self.close)

    def _traces(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

        state, closed = self._state, self._closed

        class Patient(SpanExporter):
            """Tries a batch again until the collector takes it; the SDK's queue fills meanwhile."""

            def __init__(self) -> None:
                self._sends = OTLPSpanExporter()

            def export(self, spans: Sequence[Any]) -> SpanExportResult:
                pause = 1.0
                while True:
                    with _quiet():
                        done = self._sends.export(spans)
                    state.heard(done is SpanExportResult.SUCCESS, self._sends._endpoint)
                    if done is SpanExportResult.SUCCESS or closed.wait(pause):
                        return done
                    pause = min(2 * pause, _LONGEST_PAUSE)

            def shutdown(self) -> None:
                with _quiet():
                    self._sends.shutdown()  # type: ignore[no-untyped-call]

        exporter = Patient()
        self.traces_to = exporter._sends._endpoint
        self.tracer_provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(BatchSpanProcessor(exporter))

    def _metrics(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader

        state = self._state

        class Quiet(OTLPMetricExporter):
            """Sums are cumulative: what one export misses the next one tells."""

            def export(self, *arguments: Any, **more: Any) -> MetricExportResult:
                with _quiet():
                    done = super().export(*arguments, **more)
                state.heard(done is MetricExportResult.SUCCESS, self._endpoint)
                return done

        exporter = Quiet()
        self.metrics_to = exporter._endpoint
        reader = PeriodicExportingMetricReader(exporter)
        self.meter_provider = MeterProvider([reader], resource=_resource(), shutdown_on_exit=False)

    def flush(self, seconds: float) -> bool:
        """Send what waits, for so long at most; whether all went out."""
        providers = [one for one in (self.tracer_provider, self.meter_provider) if one is not None]
        sent: list[bool] = []

        def send() -> None:
            sent.extend([bool(one.force_flush()) for one in providers])

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(seconds)
        return len(sent) == len(providers) and all(sent) and not self._state.silent

    def close(self) -> None:
        """Send what waits, if the collector answers, and end."""
        if self._closed.is_set():
            return
        if not self._state.silent:
            self.flush(_EXIT_SECONDS)
        self._state.ended = True
        self._closed.set()
        atexit.unregister(self.close)
        for provider in (self.tracer_provider, self.meter_provider):
            if provider is not None:  # what does not end at once ends with the process
                threading.Thread(target=provider.shutdown, daemon=True).start()


class _State:
    """Whether the collector answers; one line in the log when it stops to."""

    def __init__(self) -> None:
        self._silent: dict[str, bool] = {}
        self._lock = threading.Lock()
        self.ended = False

    @property
    def silent(self) -> bool:
        """Whether something that was sent last was not taken."""
        return any(self._silent.values())

    def heard(self, answered: bool, endpoint: str) -> None:
        with self._lock:
            was = self.silent
            self._silent[endpoint] = not answered
        if not answered and not was and not self.ended:
            _LOG.warning("OpenTelemetry: %s does not take what it is sent; it is tried again, spans wait", endpoint)


def _resource() -> Any:
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    made = Resource.create({})
    named = str(made.attributes.get(SERVICE_NAME, "unknown_service"))
    return (
        made.merge(Resource({SERVICE_NAME: "llamatelemetry-widget"})) if named.startswith("unknown_service") else made
    )


_here = threading.local()


class _Filter(logging.Filter):
    """Keeps back what the exporters say in a thread that speaks for itself; other users of them are still heard."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_here, "quiet", False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    for name in _OTHERS:
        logging.getLogger(name).addFilter(_FILTER)  # the same one twice is kept once
    _here.quiet = True
    try:
        yield
    finally:
        _here.quiet = False


_FILTER = _Filter()
