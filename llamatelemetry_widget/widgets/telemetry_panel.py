"""`TelemetryPanel`: what a run costs, in one quiet line that opens to charts; and live figures of servers and GPUs.

In: a trace, a text that is written, a model, or a live source. Out: an interactive widget, and the same figures as
pandas, Parquet, JSON, HTML, PNG and SVG.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import traitlets

from ..engine.running import RunningTrace, TraceEvent
from ..errors import LlamaTelemetryError
from ..model import Model
from ..telemetry.gpu import GpuTelemetry
from ..telemetry.samples import Sample, Source
from ..trace import Trace
from . import telemetry_facts as told
from .attention_facts import details
from .base import Message, TelemetryWidget
from .operation_facts import graph_of_prompt, layer_rows, operation_rows, times_facts
from .traits import Buffer, Buffers, Index, Switch, Tokens, as_bytes

if TYPE_CHECKING:
    import pandas as pd

    from ..engine.operators import OperatorGraph
    from ..export.page import Part

Array = np.ndarray[Any, Any]
_LOOKED = 45.0  # seconds that a view counts as looked at without saying so again; it does every 15
_PAGE_TRAITS = ("expanded", "selected_layer", "selected_tokens", "span", "theme", "operation_times")
_PHASES = {"start": "prefill", "progress": "prefill", "layer": "prefill", "token": "decode", "done": "done"}


@dataclass(eq=False)
class _Run:
    """A run that is shown, as far as it has come."""

    trace: Trace | None = None
    phase: str = "waiting"
    message: str = ""


class TelemetryPanel(TelemetryWidget):
    """What a run costs: speed, time to first token, memory and context in one line that opens to charts.

    It draws at most four times a second, and neither draws nor reads counters while nobody looks at it.

    Parameters
    ----------
    what : Trace, Generation, RunningTrace, Model or telemetry Source
        A run, finished or not; a model, whose runs are shown as they come; or a live source, as ``lt.Telemetry(url)``.
    compare : Trace or Generation, optional
        Another run, drawn over the first one.
    times : OperatorGraph, optional
        ``model.graph(prompt)``: its milliseconds by layer and by operation are drawn. Without it a click measures them,
        with the prompt of the run.
    **traits
        Any of the attributes below.

    Attributes
    ----------
    expanded : bool
        Whether the charts are shown. Default False.
    selected_layer : int or None
        The layer that is marked among the times; shared by linked widgets. Default None.
    selected_tokens : list of int
        The chosen token; shared by linked widgets. Default ``[]``.
    span : list of float
        What the charts are narrowed to: ``[first, stop]`` as tokens after the prompt from 0, or as seconds since 1970
        where a source is shown; ``[]`` = everything. Default ``[]``.
    theme : {"auto", "light", "dark"}
        ``auto`` follows the host. Default ``"auto"``.

    Examples
    --------
    >>> lt.TelemetryPanel(model.generate("Once upon a time", 200), expanded=True)  # doctest: +SKIP
    """

    bundle = "telemetry_panel"
    pace = 0.25

    expanded = Switch().tag(sync=True)
    selected_layer = Index().tag(sync=True)
    selected_tokens = Tokens().tag(sync=True)
    span: traitlets.List[float] = traitlets.List(traitlets.Float()).tag(sync=True)
    theme = traitlets.Enum(("auto", "light", "dark"), "auto").tag(sync=True)

    facts = traitlets.Dict().tag(sync=True)
    words: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    series = Buffers()
    samples = Buffer("f8", "figures samples")
    operation_times = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        what: Trace | RunningTrace | Model | Source,
        compare: Trace | RunningTrace | None = None,
        times: OperatorGraph | None = None,
        **traits: Any,
    ) -> None:
        self._times = self._given_times = times
        self._runs: list[_Run] = []
        self._source: Source | None = None
        self._record = told.Record()
        self._views: dict[str, float] = {}
        self._behind = False
        self._unsubscribe: Any = None
        self._stopped = False
        self._follow: list[tuple[_Run, RunningTrace]] = []
        if isinstance(what, (Trace, RunningTrace)):
            self._add(what)
        elif isinstance(what, Model):
            self._runs.append(_Run())
        elif isinstance(what, Source):
            self._source = what
        else:
            raise LlamaTelemetryError(
                f"TelemetryPanel shows a run, a model or a live source, not {type(what).__name__}: "
                "give it model.generate(…), a trace, or lt.Telemetry(url)"
            )
        if compare is not None:
            if not isinstance(what, (Trace, RunningTrace)) or not isinstance(compare, (Trace, RunningTrace)):
                raise LlamaTelemetryError(
                    "compare takes a run beside another run: TelemetryPanel(trace, compare=other)"
                )
            self._add(compare)
        if times is not None and self._source is not None:
            raise LlamaTelemetryError("times are of a run or of a model: TelemetryPanel(trace, times=model.graph(…))")
        self._gpu = None if self._source is not None else GpuTelemetry()
        self._no_gpu: str | None = None  # why there is none, once somebody has looked
        super().__init__(**self._state(), operation_times=times_facts(times), **traits)
        for run, running in self._follow:
            running.subscribe(lambda event, run=run: self._hear(run, event))  # type: ignore[misc]
        if isinstance(what, Model):
            what._watch(weakref.WeakMethod(self._next_run))

    def __repr__(self) -> str:
        return f"<TelemetryPanel: {self._provenance()}>"

    def _add(self, what: Trace | RunningTrace) -> None:
        if isinstance(what, Trace):
            self._runs.append(_Run(what, "done"))
        else:
            self._runs.append(_Run())
            self._follow.append((self._runs[-1], what))

    # ------------------------------------------------------------------------- running

    def _next_run(self, running: RunningTrace) -> None:
        """A model that is watched has begun another run: it takes the place of the one before."""
        if self.comm is None or self._stopped:
            return
        run = self._runs[0] = _Run()
        self.selected_tokens, self.span = [], []
        self._show_times(self._given_times)
        running.subscribe(lambda event: self._hear(run, event))

    def _hear(self, run: _Run, event: TraceEvent) -> None:
        """An event of a run, in its own thread."""
        if run not in self._runs or self.comm is None or self._stopped:
            return
        if event.trace is not None:
            run.trace = event.trace
        run.phase = _PHASES.get(event.kind, "failed")
        run.message = event.message if run.phase == "failed" else ""
        if run.phase == "failed" and event.kind == "cancelled" and run.trace is not None:
            run.message = "stopped"
        self._changed(run.phase in ("done", "failed"))

    def _sampled(self, sample: Sample) -> None:
        """A sample of the source, in its own thread."""
        if not self._looked_at():
            self._listen(False)
            return
        self._record.add(sample)
        self._changed()

    def _changed(self, last: bool = False) -> None:
        """Tell the browser, at a measured pace, while somebody looks; at the end of a run always."""
        if last or self._looked_at():
            self._pacer.put("state", self._push)
        else:
            self._behind = True

    def _push(self) -> None:
        self._behind = False
        with self.hold_sync():
            for name, value in self._state().items():
                setattr(self, name, value)

    def _state(self) -> dict[str, Any]:
        runs = [told.run_facts(run.trace, run.phase, run.message) for run in self._runs]
        facts = {"title": "Telemetry", "live": True, "provenance": self._provenance(), "runs": runs}
        facts |= {"source": self._source_facts(), "figures": self._record.figures(), "no_gpu": self._no_gpu}
        words = [
            [] if run.trace is None else [token.text for token in list(run.trace._generated)] for run in self._runs
        ]
        each = [as_bytes(told.series(run.trace)).tobytes() for run in self._runs]
        return {"facts": facts, "words": words, "series": each, "samples": self._record.columns()}

    def _source_facts(self) -> dict[str, Any] | None:
        """What is said of the live source; of the machine's GPUs where a run is shown and there are any."""
        own = self._source if self._source is not None else self._gpu
        if own is None or (self._source is None and not len(self._record)):
            return None
        return {"title": own.title, "facts": dict(own.facts), "notes": self._record.notes}

    def _provenance(self) -> str:
        if self._source is not None:
            return self._source.title
        shown = [told.run_facts(run.trace, run.phase) for run in self._runs]
        return " against ".join(run["provenance"] or "no run yet" for run in shown)

    # ------------------------------------------------------------------------ who looks

    def _looked_at(self) -> bool:
        now = time.monotonic()
        return any(until > now for until in list(self._views.values()))

    def _watch(self, view: str, on: bool) -> None:
        """A view has come into sight, or gone out of it."""
        before = self._looked_at()
        if on:
            self._views[view] = time.monotonic() + _LOOKED
        else:
            self._views.pop(view, None)
        now = self._looked_at()
        if now != before:
            self._listen(now)
        if now and self._behind:
            self._pacer.put("state", self._push)

    def _listen(self, on: bool) -> None:
        """Let the source, or the GPUs, be read; or not."""
        cancel, self._unsubscribe = self._unsubscribe, None
        if cancel is not None:
            cancel()
        if not on or self._stopped:
            return
        if self._source is not None:
            self._unsubscribe = self._source.subscribe(self._sampled)
        elif self._gpu is not None and self._no_gpu is None:
            sample = self._gpu.read()
            if sample.values:
                self._unsubscribe = self._gpu.subscribe(self._sampled)
            else:
                self._no_gpu = sample.notes.get("", self._gpu.title)
                self._behind = True

    # ------------------------------------------------------------------------- messages

    def _answer(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "watch":
            self._watch(str(message["id"]).rpartition("-")[0], bool(message["on"]))
            self.send({"type": "watch", "id": message["id"]})
        elif kind == "overhead":
            self._answer_later(message, kind, lambda _: self._measure_overhead(message))
        elif kind == "times":
            self._answer_later(message, kind, lambda _: self._measure_times(message))
        else:
            raise LlamaTelemetryError(f"message {kind!r} is not known: reload the page")

    def _finished(self) -> Trace:
        """The run that can be measured again."""
        trace = self._runs[0].trace if self._runs else None
        if trace is None or not trace.telemetry:
            raise LlamaTelemetryError("there is no finished run yet")
        return trace

    def _measure_overhead(self, message: Message) -> None:
        self._finished().measure_overhead()
        self._push()
        self.send({"type": "overhead", "id": message["id"]})

    def _measure_times(self, message: Message) -> None:
        trace = self._finished()
        found = graph_of_prompt(trace)
        if self._runs[0].trace is trace:  # no other run came meanwhile
            self._show_times(found)
        self.send({"type": "times", "id": message["id"]})

    def _show_times(self, times: OperatorGraph | None) -> None:
        self._times = times
        with self.hold_sync():
            self.operation_times = times_facts(times)
            if self._timed_layers and self.selected_layer not in self._timed_layers:
                self.selected_layer = None

    @property
    def _timed_layers(self) -> list[int]:
        return [own["layer"] for own in self.operation_times.get("layers", ()) if own["layer"] is not None]

    @traitlets.validate("selected_layer")
    def _valid_layer(self, proposal: Any) -> Any:
        layer, known = proposal["value"], self._timed_layers
        if layer is not None and known and layer not in known:
            raise traitlets.TraitError(f"layer {layer} was not timed: there are {known[0]} to {known[-1]}")
        return layer

    @traitlets.validate("selected_tokens")
    def _valid_tokens(self, proposal: Any) -> Any:
        tokens = proposal["value"]
        n = max((len(run.trace.token_ids) for run in self._runs if run.trace is not None), default=0)
        if any(token >= n for token in tokens):
            raise traitlets.TraitError(f"token {max(tokens)} does not exist: this run has tokens 0 to {n - 1}")
        return tokens

    @traitlets.validate("span")
    def _valid_span(self, proposal: Any) -> Any:
        span = proposal["value"]
        if span and (len(span) != 2 or not span[0] < span[1] or not all(map(math.isfinite, span))):
            raise traitlets.TraitError(f"span {span} is no range: give [first, stop], or [] for everything")
        return span

    def stop(self) -> None:
        """Take no more figures; what was recorded stays."""
        self._stopped = True
        self._listen(False)

    def close(self) -> None:
        """End the connection to the browser and stop reading counters; the widget then displays as a picture."""
        if "_views" in self.__dict__:  # else it was refused before it began, and is only collected
            self._views.clear()
            self._listen(False)
        super().close()

    # -------------------------------------------------------------------------- exports

    def to_pandas(self) -> pd.DataFrame:
        """What was recorded.

        Returns
        -------
        DataFrame
            Of runs: one row per written token, ``run`` (0, or 1 for `compare`) and the columns of `Trace.generation`.
            Of a live source: one row per sample, ``time`` and each figure.
        """
        frame: pd.DataFrame = self.recorded if self._source is not None else told.token_rows(self._traces)
        return frame

    @property
    def recorded(self) -> pd.DataFrame:
        """Samples of the live source, or of the GPUs during a run: ``time`` and each figure; NaN = not to be read."""
        import pandas as pd

        columns = self._record.columns(told.KEPT)
        frame: pd.DataFrame = pd.DataFrame(columns.T, columns=["time", *self._record.names])
        frame["time"] = pd.to_datetime(frame["time"], unit="s", utc=True)
        return frame

    @property
    def memory(self) -> pd.DataFrame:
        """Memory by owner: ``run``, ``place``, ``owner``, ``bytes``."""
        import pandas as pd

        rows = [
            (at, place["place"], part["owner"], part["bytes"])
            for at, trace in enumerate(self._traces)
            if trace is not None
            for place in told.memory_places(trace.telemetry)
            for part in place["parts"]
        ]
        frame: pd.DataFrame = pd.DataFrame(rows, columns=["run", "place", "owner", "bytes"])
        return frame

    @property
    def layers(self) -> pd.DataFrame:
        """Milliseconds of each layer, and of what comes before and after all; empty where nothing was timed.

        Returns
        -------
        DataFrame
            ``part``, ``stage`` (``"input"``, ``"layers"``, ``"output"``), ``layer``, ``operations``, ``milliseconds``;
            and of these ``attention``, ``recurrence``, ``MLP``, ``norm``, ``other``.
        """
        return layer_rows(self._times)

    @property
    def operations(self) -> pd.DataFrame:
        """Milliseconds of each kind of operation, the costliest first; empty where nothing was timed.

        Returns
        -------
        DataFrame
            ``op`` (ggml's name), ``operations`` (how many), ``milliseconds``, ``share`` of all; and the milliseconds
            that belong to ``attention``, ``recurrence``, ``MLP``, ``norm``, ``other``.
        """
        return operation_rows(self._times)

    @property
    def _traces(self) -> list[Trace | None]:
        return [run.trace for run in self._runs]

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_pandas` as a Parquet file; a folder gets a file named after the model.

        Raises
        ------
        BackendMissing
            pyarrow is not installed (the extra ``export``).
        """
        from ..export.table import parquet

        return parquet(self.to_pandas(), self._path(path, "parquet"))

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Everything that is shown, as JSON: of each run its provenance, figures, tokens; times by operation; samples.

        Parameters
        ----------
        path : path, optional
            Where to write it; a folder gets a file named after the model.
        """
        runs = [
            {
                "provenance": told.run_facts(trace, "done")["provenance"],
                "details": details(trace),
                "telemetry": trace.telemetry,
                "tokens": json.loads(trace.generation.to_json(orient="records")),
            }
            for trace in self._traces
            if trace is not None
        ]
        samples = json.loads(self.recorded.to_json(orient="records", date_format="iso", date_unit="ms"))
        source = self._source_facts()
        times = self.operation_times or None
        every = {"runs": runs, "operation_times": times, "source": source, "samples": samples}
        text = json.dumps(every, ensure_ascii=False, indent=1)
        if path is not None:
            self._path(path, "json").write_text(text, "utf-8")
        return text

    def to_svg(self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None) -> str:
        """The figures, the charts and the provenance, as SVG.

        Parameters
        ----------
        path : path, optional
            Where to write it; a folder gets a file named after the model.
        theme : {"light", "dark"}, optional
            The widget's own by default, light where that is ``auto``.

        Returns
        -------
        str
            The SVG.
        """
        from ..export.picture import svg

        text = svg(self._drawn(theme), self._title())
        if path is not None:
            self._path(path, "svg").write_text(text, "utf-8")
        return text

    def to_png(
        self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None
    ) -> bytes:
        """The picture of `to_svg` as PNG, two pixels per px.

        Raises
        ------
        BackendMissing
            Pillow is not installed (the extra ``export``).
        """
        from ..export.picture import png_file

        data = png_file(self._drawn(theme))
        if path is not None:
            self._path(path, "png").write_bytes(data)
        return data

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """The panel as one HTML file that needs no kernel and no network, with all that was recorded.

        Parameters
        ----------
        path : path, optional
            Where to write it; its size is then printed. A folder gets a file named after the model.

        Returns
        -------
        str
            The page.
        """
        from ..export.page import page

        text = page(self.page_part())
        if path is not None:
            target = self._path(path, "html")
            target.write_text(text, "utf-8")
            print(f"{target} · {target.stat().st_size / 1e6:.1f} MB")
        return text

    def page_part(self) -> Part:
        """The panel as a part of a page with several, for `save_html`."""
        from ..export.page import Part

        own = self._state()
        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        state |= {"facts": {**own["facts"], "live": False}, "words": own["words"]}
        binary = {"series": own["series"], "samples": own["samples"].tobytes()}
        shares = [(run.trace, "self") for run in self._runs[:1] if run.trace is not None]
        return Part(self._title(), self._esm, state, binary, self._static_html(""), shares)

    def _drawn(self, theme: str | None) -> Any:
        from ..export.colour import THEMES
        from ..export.telemetry import draw

        chosen = theme or (self.theme if self.theme != "auto" else "light")
        if chosen not in THEMES:
            raise LlamaTelemetryError(f"theme {chosen!r} does not exist: choose from {', '.join(THEMES)}")
        own = self._state()
        series = [told.series(trace) for trace in self._traces]
        return draw(own["facts"], series, own["samples"], chosen, self.operation_times, self.selected_layer)

    def _static_html(self, why: str) -> str:
        from ..export.telemetry import fallback

        return fallback(self._title(), self._drawn(None), why)

    def _has_picture(self) -> bool:
        return any(run.phase == "done" for run in self._runs) or len(self._record) > 0

    def _title(self) -> str:
        return f"Telemetry · {self._provenance()}"

    def _path(self, path: str | os.PathLike[str], ending: str) -> Path:
        target = Path(path)
        if not target.is_dir():
            return target
        name = self._source.title if self._source is not None else told.run_facts(self._runs[0].trace, "")["name"]
        short = re.sub(r"[^\w.-]+", "_", name).strip("._")[:80] or "run"
        return target / f"telemetry-{short}.{ending}"
