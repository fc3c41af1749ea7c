"""Metrics and live sources as Prometheus reads them: plain text over HTTP, for who asks on the loopback.

In: a metric reader of the SDK, sources. Out: ``/metrics``. Everything is read when it is asked for and not before.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ..errors import LlamaTelemetryError
from .samples import QUANTITIES, Source

_UNITS = {"s": "_seconds", "B": "_bytes", "%": "_percent", "W": "_watts", "°C": "_celsius"}
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def scraped_provider() -> tuple[Any, Any]:
    """A meter provider that only keeps its sums, and the reader of these."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    return MeterProvider([reader], shutdown_on_exit=False), reader


class Endpoint:
    """An HTTP server that tells metrics. Made by `Instrumentation.serve_prometheus`.

    Attributes
    ----------
    url : str
        What to give to Prometheus, or to read.
    """

    def __init__(self, reader: Any, host: str, port: int, sources: Sequence[Source]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404)
                    return
                body = text(reader, sources).encode()
                self.send_response(200)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: Any) -> None:
                """Nobody's output is disturbed."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise LlamaTelemetryError(
                f"{host}:{port} cannot be served: {error.strerror}: choose another port"
            ) from None
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_port}/metrics"
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def __repr__(self) -> str:
        return f"<Endpoint: {self.url}>"

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


def text(reader: Any, sources: Sequence[Source]) -> str:
    """All metrics now."""
    lines = [line for metric in _metrics(reader) for line in _histogram(metric)]
    return "\n".join([*lines, *_of_sources(sources)]) + "\n"


def _metrics(reader: Any) -> Iterator[Any]:
    data = reader.get_metrics_data()
    for resource in () if data is None else data.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def _histogram(metric: Any) -> Iterator[str]:
    name = re.sub(r"\W", "_", metric.name) + _UNITS.get(metric.unit, "")
    yield f"# HELP {name} {_line(metric.description)}"
    yield f"# TYPE {name} histogram"
    for point in metric.data.data_points:
        so_far = 0
        for limit, count in zip([*point.explicit_bounds, math.inf], point.bucket_counts, strict=True):
            so_far += count
            yield f"{name}_bucket{_labels({**point.attributes, 'le': _number(limit)})} {so_far}"
        yield f"{name}_sum{_labels(point.attributes)} {_number(point.sum)}"
        yield f"{name}_count{_labels(point.attributes)} {point.count}"


def _of_sources(sources: Sequence[Source]) -> Iterator[str]:
    """Figures of live sources; what cannot be read is not there."""
    found: dict[str, list[str]] = {}
    for source in sources:
        for key, value in source.read().values.items():
            device, _, name = key.rpartition(".")
            if value is not None:
                unit = QUANTITIES[name].unit
                full = f"llamatelemetry_{name}{_UNITS.get(unit, '')}"
                labels = {"source": source.title, **({"device": device} if device else {})}
                found.setdefault(full, [f"# TYPE {full} gauge"]).append(f"{full}{_labels(labels)} {_number(value)}")
    for lines in found.values():
        yield from lines


def _labels(values: Mapping[str, Any]) -> str:
    told = [f'{re.sub(r"[^A-Za-z0-9_]", "_", name)}="{_quoted(str(value))}"' for name, value in values.items()]
    return "{" + ",".join(told) + "}" if told else ""


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _line(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", " ")


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else repr(float(value)) if not float(value).is_integer() else str(int(value))
