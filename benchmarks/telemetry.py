"""What watching costs: the seconds of a text that a TelemetryPanel or OpenTelemetry hears, against the same unheard.

The panel runs as in a notebook: it hears every token, and pushes its state four times a second to somebody who looks.
OpenTelemetry makes spans and metrics of every token's time and keeps them in memory.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import llamatelemetry_widget as lt

from .figure import Figure, Skipped, at_most, interleaved
from .prompts import MODEL, prompt_ids

TOKENS, ROUNDS = 100, 9
PEER = "no-panel"


def figures() -> Iterator[Figure]:
    """Decode of 100 tokens, with the panel and without, then with spans and without."""
    with lt.open_model(MODEL) as model:
        ids = prompt_ids(model, 64)

        def plain() -> float:
            return float(model.generate(ids, TOKENS).result().telemetry["decode_seconds"])

        def watched() -> float:
            generation = model.generate(ids, TOKENS)
            panel = lt.TelemetryPanel(generation, expanded=True)
            panel._receive(panel, {"type": "watch", "id": "bench-1", "on": True}, [])
            trace = generation.result()
            panel.close()
            return float(trace.telemetry["decode_seconds"])

        plain()
        with_panel, without = interleaved(ROUNDS, watched, plain)
        yield at_most("panel_decode_100", 1e3 * with_panel, "ms", 1e3 * without, PEER, 1.02)
        if importlib.util.find_spec("opentelemetry.sdk") is None:
            raise Skipped("spans: the extra `otel` is not installed")
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        tracers, kept = TracerProvider(), InMemorySpanExporter()
        tracers.add_span_processor(SimpleSpanProcessor(kept))
        meters = MeterProvider([InMemoryMetricReader()])

        def spanned() -> float:
            told = lt.instrument(tracer_provider=tracers, meter_provider=meters)
            try:
                return plain()
            finally:
                told.close()

        with_spans, without = interleaved(ROUNDS, spanned, plain)
        assert len(kept.get_finished_spans()) == ROUNDS
        yield at_most("spans_decode_100", 1e3 * with_spans, "ms", 1e3 * without, "no-spans", 1.02)
