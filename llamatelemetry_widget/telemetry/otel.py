"""OpenTelemetry: one span and a few metrics for every trace, generation and study.

In: runs, as `engine.observers` tells of them. Out: to the user's own provider where there is one, else to the collector
that the ``OTEL_*`` variables name, else nowhere. Texts are only told where that is asked for.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.observers import OBSERVERS, Work
from ..errors import BackendMissing
from . import names
from .collector import Collector
from .prometheus import Endpoint, scraped_provider

if TYPE_CHECKING:
    from .samples import Source

_LOG = logging.getLogger("llamatelemetry_widget.telemetry")
_STAGES = ("load", "prefill", "reduce", "decode")
#: A dashboard for Grafana over the Prometheus end points of this package and of llama.cpp's server.
DASHBOARD = Path(__file__).with_name("grafana.json")


def instrument(
    *, tracer_provider: Any = None, meter_provider: Any = None, content: bool | None = None
) -> Instrumentation:
    """Tell OpenTelemetry of every trace, generation and study from now on.

    Your own provider is used and never replaced, also one that you set later. Without one, the standard variables
    decide: ``OTEL_EXPORTER_OTLP_ENDPOINT`` and its like. Where nothing is set nothing is sent. A second call takes the
    place of the first.

    Parameters
    ----------
    tracer_provider, meter_provider : optional
        Providers to use instead of the global ones.
    content : bool, optional
        Put prompts and written texts into spans. By default what
        ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`` says, else not.

    Returns
    -------
    Instrumentation

    Raises
    ------
    BackendMissing
        The extra ``otel`` is not installed.

    Examples
    --------
    >>> lt.instrument()  # doctest: +SKIP
    <Instrumentation: spans to http://127.0.0.1:4318/v1/traces, metrics to http://127.0.0.1:4318/v1/metrics>
    """
    global _current
    try:
        import opentelemetry.sdk  # noqa: F401
    except ImportError:
        raise BackendMissing("OpenTelemetry is not installed: pip install 'llamatelemetry-widget[otel]'") from None
    if _current is not None:
        _current.close()
    if content is None:
        content = os.environ.get(names.CAPTURE_CONTENT, "").strip().lower() in (
            "true",
            "1",
            "span_only",
            "span_and_event",
        )
    _current = Instrumentation(tracer_provider, meter_provider, content)
    return _current


class Instrumentation:
    """What tells OpenTelemetry of runs. Made by `instrument`.

    Attributes
    ----------
    content : bool
        Whether texts are put into spans.
    """

    def __init__(self, tracer_provider: Any, meter_provider: Any, content: bool) -> None:
        self.content = content
        self._given = tracer_provider, meter_provider
        self._collector = Collector()
        self._meters: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._endpoints: list[Endpoint] = []
        self._scraped: Any = None
        self._failed = False
        OBSERVERS.append(self._begins)

    def __repr__(self) -> str:
        return f"<Instrumentation: {self.status}>"

    @property
    def status(self) -> str:
        """One line: where spans and metrics go."""
        collector = self._collector
        spans = _where(self._tracer_provider(), collector.tracer_provider, collector.traces_to)
        metrics = _where(self._meter_provider(), collector.meter_provider, collector.metrics_to)
        scraped = "".join(f", scraped at {endpoint.url}" for endpoint in self._endpoints)
        return f"spans to {spans}, metrics to {metrics}{scraped}"

    def serve_prometheus(self, port: int = 9464, host: str = "127.0.0.1", sources: Sequence[Source] = ()) -> Endpoint:
        """Let Prometheus read the metrics, and live sources, at ``http://127.0.0.1:9464/metrics``.

        Parameters
        ----------
        port : int
            0: any that is free; `Endpoint.url` says which.
        host : str
            Other machines reach it only where this is another address than the loopback's.
        sources : sequence of Source
            E.g. ``[lt.Telemetry(url), lt.GpuTelemetry()]``: read when the end point is, and only then.

        Raises
        ------
        LlamaTelemetryError
            The port is in use.
        """
        if self._scraped is None:
            self._scraped = scraped_provider()
        endpoint = Endpoint(self._scraped[1], host, port, sources)
        self._endpoints.append(endpoint)
        return endpoint

    def flush(self, seconds: float = 10.0) -> bool:
        """Send now what waits for the collector of the environment; whether all went out in time."""
        return self._collector.flush(seconds)

    def close(self) -> None:
        """Tell nothing any more. What waits is sent, if the collector answers."""
        global _current
        if self._begins in OBSERVERS:
            OBSERVERS.remove(self._begins)
        for endpoint in self._endpoints:
            endpoint.close()
        self._collector.close()
        if _current is self:
            _current = None

    # ---------------------------------------------------------------------- inside

    def _tracer_provider(self) -> Any:
        """The one that was given, else the user's global one, else ours; None where there is none."""
        from opentelemetry import trace

        user = trace.get_tracer_provider()
        return self._given[0] or (self._collector.tracer_provider if _is_proxy(user) else user)

    def _meter_provider(self) -> Any:
        from opentelemetry import metrics

        user = metrics.get_meter_provider()
        return self._given[1] or (self._collector.meter_provider if _is_proxy(user) else user)

    def _meter_providers(self) -> list[Any]:
        return [one for one in (self._meter_provider(), self._scraped and self._scraped[0]) if one is not None]

    def _begins(self, work: Work) -> None:
        try:
            provider = self._tracer_provider()
            tracer = None if provider is None else provider.get_tracer("llamatelemetry_widget", _version())
            if tracer is not None or self._meter_providers():
                work.subscribe(_Told(self, work, tracer))
        except Exception as error:
            self._fails(error)

    def _record(self, name: str, value: float | None, attributes: Mapping[str, Any]) -> None:
        if value is None:
            return
        for provider in self._meter_providers():
            if id(provider) not in self._meters:
                meter = provider.get_meter("llamatelemetry_widget", _version())
                made = {
                    own: meter.create_histogram(
                        own, unit=unit, description=text, explicit_bucket_boundaries_advisory=list(limits)
                    )
                    for own, (unit, text, limits) in names.HISTOGRAMS.items()
                }
                self._meters[id(provider)] = provider, made  # the provider is kept, so that its id stays its own
            self._meters[id(provider)][1][name].record(value, attributes)

    def _fails(self, error: Exception) -> None:
        """A fault of telling must not end a run: one line, once."""
        if not self._failed:
            _LOG.warning("OpenTelemetry: a run could not be told: %s: %s", type(error).__name__, error)
        self._failed = True


class _Told:
    """One run, from its begin to its end: a callback of its events."""

    def __init__(self, owner: Instrumentation, work: Work, tracer: Any) -> None:
        self._owner, self._work, self._over = owner, work, False
        self._began = time.perf_counter()
        self._common = {
            names.OPERATION: names.OPERATIONS[work.operation],
            names.PROVIDER_NAME: names.PROVIDER,
            names.MODEL: work.model_name,
        }
        name = f"{self._common[names.OPERATION]} {work.model_name}"
        # Its parent is the span that is current where the run was started.
        self._span = None if tracer is None else tracer.start_span(name, attributes=self._common)

    def __call__(self, event: Any) -> None:
        if self._over:  # a study that runs again has the first callback still
            return
        try:
            if event.kind == "token":
                self._owner._record(names.PER_TOKEN, event.token.seconds, self._common)
                if self._span is not None and event.done == 1:
                    self._span.add_event("first token")
            elif event.kind in ("done", "error", "cancelled"):
                self._over = True
                self._ends(event)
        except Exception as error:
            self._owner._fails(error)

    def _ends(self, event: Any) -> None:
        error, trace = self._work.error, getattr(event, "trace", None)
        common = self._common if error is None else {**self._common, names.ERROR_TYPE: type(error).__name__}
        self._owner._record(names.DURATION, time.perf_counter() - self._began, common)
        if trace is not None:
            self._usage(trace)
        if self._span is None:
            return
        if error is not None:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute(names.ERROR_TYPE, type(error).__name__)
            if event.kind == "error":
                self._span.set_status(Status(StatusCode.ERROR, str(error)[:500]))
        if trace is not None:
            self._span.set_attributes(_facts(trace))
            if self._owner.content:
                self._span.set_attributes(_content(trace))
        self._span.end()

    def _usage(self, trace: Any) -> None:
        read, written = _counts(trace)
        self._owner._record(names.TOKEN_USAGE, read, {**self._common, names.TOKEN_TYPE: "input"})
        if "finish_reason" in trace.telemetry:
            self._owner._record(names.TOKEN_USAGE, written, {**self._common, names.TOKEN_TYPE: "output"})
            self._owner._record(names.FIRST_TOKEN, trace.telemetry.get("first_token_seconds"), self._common)


def _counts(trace: Any) -> tuple[int, int]:
    """Tokens that were read and written."""
    written = len(trace.generation)
    read = len(trace.token_ids) + (0 if trace.decoder is None else len(trace.decoder[0]))
    return read - written, written


def _facts(trace: Any) -> dict[str, Any]:
    """Attributes of a run that ended: numbers and settings, no text."""
    told, settings = trace.telemetry, trace.info.get("settings", {})
    sampler = settings.get("sampler", {})
    read, written = _counts(trace)
    found = {
        names.INPUT_TOKENS: read,
        names.QUANT_TYPE: trace.info.get("quant_type"),
        names.DEVICE: trace.info.get("device"),
        names.THREADS: told.get("n_threads"),
        names.CAPTURE: list(settings.get("capture", ())),
        **{f"{names.SECONDS}{stage}": told.get(f"{stage}_seconds") for stage in _STAGES},
    }
    memory: dict[str, int] = {}
    for one in told.get("memory", ()):
        memory[one["owner"]] = memory.get(one["owner"], 0) + one["bytes"]
    found |= {f"{names.MEMORY}{owner}": size for owner, size in memory.items()}
    if "finish_reason" in told:
        found |= {
            names.OUTPUT_TOKENS: written,
            names.FINISH_REASONS: [told["finish_reason"]],
            names.MAX_TOKENS: settings.get("max_tokens"),
            names.TEMPERATURE: sampler.get("temperature"),
        }
        if sampler.get("temperature"):
            found |= {
                names.TOP_K: sampler.get("top_k"),
                names.TOP_P: sampler.get("top_p"),
                names.SEED: sampler.get("seed"),
            }
    return {name: value for name, value in found.items() if value is not None}


def _content(trace: Any) -> dict[str, str]:
    """Prompt and text, as messages of the conventions' form."""
    pieces = trace.token_bytes if trace.decoder is None else [*trace.token_bytes, *trace.decoder[1]]
    at = len(pieces) - _counts(trace)[1]
    prompt, written = (b"".join(part).decode("utf-8", "replace") for part in (pieces[:at], pieces[at:]))
    found = {names.INPUT_MESSAGES: json.dumps([_message("user", prompt)])}
    if "finish_reason" in trace.telemetry:
        answer = _message("assistant", written)
        found[names.OUTPUT_MESSAGES] = json.dumps([{**answer, "finish_reason": trace.telemetry["finish_reason"]}])
    return found


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _is_proxy(provider: Any) -> bool:
    """Whether this only stands where the user has set none."""
    return type(provider).__name__ in ("ProxyTracerProvider", "_ProxyMeterProvider")


def _where(provider: Any, ours: Any, endpoint: str) -> str:
    if provider is None:
        return "nowhere (set OTEL_EXPORTER_OTLP_ENDPOINT, or a provider of your own)"
    return endpoint if provider is ours else "your own provider"


def _version() -> str:
    from .. import __version__

    return __version__


_current: Instrumentation | None = None
