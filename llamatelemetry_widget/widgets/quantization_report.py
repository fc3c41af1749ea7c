"""`QuantizationReport`: which quantized file to take, and everything that was measured for it.

In: a `QuantizationStudy`, finished, running or loaded. Out: an interactive widget, its selection as traits, and the
same data as HTML, PNG, SVG, JSON, Parquet and pandas.
"""

from __future__ import annotations

import json
import os
import re
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ipywidgets
import numpy as np
import traitlets

from ..errors import LlamaTelemetryError
from ..studies.quantization import QuantizationStudy, StudyEvent
from ..studies.recommend import Recommendation
from .base import Message, TelemetryWidget
from .head_comparison import HeadComparison
from .pace import Pacer
from .quantization_facts import drift, facts, strip, words
from .traits import Buffer, Index

if TYPE_CHECKING:
    import pandas as pd

    from ..export.page import Part
    from ..export.picture import Picture

_PACE = 0.25  # seconds between two updates while the study runs
_ENDED = ("done", "cancelled", "error")
_COMPARED = 400  # characters of the study's text that heads are compared on
_PAGE_TRAITS = ("max_bytes", "selected_candidate", "selected_layer", "selected_head", "scale", "theme")


class QuantizationReport(TelemetryWidget):
    """Quantized files side by side: the recommendation first, then distance, size, drift and tokens.

    While the study runs, its figures appear as they are measured; the report can stop it and go on with it.

    Parameters
    ----------
    study : QuantizationStudy
    max_bytes : int, optional
        The budget of the file in bytes.
    **traits
        Any of the attributes below.

    Attributes
    ----------
    max_bytes : int or None
        The budget: what is larger is not recommended. Default None.
    selected_candidate : str or None
        Whose heads and tokens are shown. Default None: the recommended one.
    selected_layer, selected_head : int or None
        What is marked in the maps of drift. Default None.
    scale : {"log", "linear"}
        Of the distance in the plot. Default ``"log"``.
    theme : {"auto", "light", "dark"}
        ``auto`` follows the host. Default ``"auto"``.
    comparison : HeadComparison or None
        What `compare_heads` opened last.

    Examples
    --------
    >>> report = QuantizationReport(study, max_bytes=110_000_000)  # doctest: +SKIP
    >>> report.recommendation.sentence  # doctest: +SKIP
    """

    bundle = "quantization_report"

    max_bytes = Index().tag(sync=True)
    selected_candidate = traitlets.Unicode(None, allow_none=True).tag(sync=True)
    selected_layer = Index().tag(sync=True)
    selected_head = Index().tag(sync=True)
    scale = traitlets.Enum(("log", "linear"), "log").tag(sync=True)
    theme = traitlets.Enum(("auto", "light", "dark"), "auto").tag(sync=True)
    comparison = traitlets.Instance(HeadComparison, allow_none=True).tag(sync=True, **ipywidgets.widget_serialization)

    facts = traitlets.Dict().tag(sync=True)
    strips = traitlets.Dict().tag(sync=True)
    layer_drift = Buffer(np.float32, "candidates layers")
    head_drift = Buffer(np.float32, "candidates layers heads")

    def __init__(self, study: QuantizationStudy, max_bytes: int | None = None, **traits: Any) -> None:
        if not isinstance(study, QuantizationStudy):
            raise LlamaTelemetryError(f"QuantizationReport shows a QuantizationStudy, not {type(study).__name__}")
        self._study = study
        self._progress, self._ended = "", False
        self._study_pacer = Pacer(_PACE)
        layers, heads = drift(study)
        super().__init__(facts=facts(study, ""), layer_drift=layers, head_drift=heads, max_bytes=max_bytes, **traits)
        self._show_strip()
        own = weakref.ref(self)

        def heard(event: StudyEvent) -> None:
            report = own()
            if report is not None:
                report._heard(event)

        study.subscribe(heard)

    def __repr__(self) -> str:
        rows = self.facts["rows"]
        done = sum(row["status"] == "done" for row in rows)
        said = self._choice()
        return f"<QuantizationReport: {done} of {len(rows)} measured{' · ' + said['headline'] if said else ''}>"

    @property
    def study(self) -> QuantizationStudy:
        """The study that is shown."""
        return self._study

    @property
    def recommendation(self) -> Recommendation:
        """What is recommended within the budget that is set; see `QuantizationStudy.recommend`."""
        return self._study.recommend(max_bytes=self.max_bytes)

    def _choice(self) -> dict[str, Any] | None:
        """The recommendation's words at the budget; None where nothing was measured."""
        return words(self.recommendation, self.max_bytes) if self.facts["choices"] else None

    # ---------------------------------------------------------------------- the study

    def _heard(self, event: StudyEvent) -> None:
        """The study got on; in its thread."""
        self._ended = event.kind in _ENDED
        share = f" · {100 * event.done // event.total} %" if event.total else ""
        self._progress = (
            f"{event.message}{share}" if not self._ended else event.message if event.kind == "error" else ""
        )
        whole = self._ended or event.kind == "candidate"
        self._study_pacer.put("whole" if whole else "part", lambda: self._refresh(whole))

    def _refresh(self, whole: bool) -> None:
        """Tell the browser what is known now; the tokens of the shown candidate only where it has `whole` rows."""
        layers, heads = drift(self._study)
        told = facts(self._study, self._progress)
        told["running"] = told["running"] and not self._ended
        with self.hold_sync():
            self.facts = told
            self.layer_drift, self.head_drift = layers, heads
            self._show_strip(again=whole)

    def _show_strip(self, again: bool = False) -> None:
        """Send the tokens of the shown candidate, where they are known."""
        said = self._choice()
        name = self.selected_candidate or (said["name"] if said else None)
        if name is None or (name in self.strips and not again):
            return
        found = strip(self._study, name)
        if found is not None:
            self.strips = {**({} if again else self.strips), name: found}

    @traitlets.observe("selected_candidate", "max_bytes")
    def _chosen(self, _: Any) -> None:
        if self.facts:
            self._show_strip()

    @traitlets.observe("comparison")
    def _compared(self, change: Any) -> None:
        if change["old"] is not None:
            change["old"].close()

    @traitlets.observe("theme")
    def _themed(self, change: Any) -> None:
        if self.comparison is not None:
            self.comparison.theme = change["new"]

    @traitlets.validate("selected_candidate")
    def _valid_candidate(self, proposal: Any) -> Any:
        name, names = proposal["value"], [str(own) for own in self._study.results["name"]]
        if name is not None and name not in names:
            raise traitlets.TraitError(f"candidate {name!r} does not exist: choose from {', '.join(names)}")
        return name

    def _answer(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "stop":
            self._study.cancel()
        elif kind == "start":
            self._answer_later(message, kind, lambda _: self._start(message))
        elif kind == "compare":
            self._answer_later(message, kind, lambda _: self._open(message))
        elif kind == "export":
            self._answer_later(message, kind, lambda _: self._send_file(message))
        elif kind != "ping":
            raise LlamaTelemetryError(f"message {kind!r} is not known: reload the page")
        if kind in ("stop", "ping"):
            self.send({"type": kind, "id": message.get("id")})

    def _start(self, message: Message) -> None:
        for _ in range(100):  # a study that said that it was stopped ends a moment later
            if not (self._ended and self._study.running):
                break
            time.sleep(0.02)
        self._ended = False
        if not self._study.running:
            self._study.start()
        self._study_pacer.put("part", lambda: self._refresh(False))
        self.send({"type": "start", "id": message["id"]})

    def _open(self, message: Message) -> None:
        self.compare_heads(str(message["candidate"]))
        self.send({"type": "compare", "id": message["id"]})

    def _send_file(self, message: Message) -> None:
        kind = str(message.get("kind"))
        made: dict[str, Callable[[], str | bytes]] = {
            "PNG": self.to_png,
            "HTML": self.to_html,
            "JSON": self.to_json,
            "Parquet": self._parquet,
        }
        if kind not in made:
            raise LlamaTelemetryError(f"file {kind!r} cannot be made: choose from {', '.join(made)}")
        data = made[kind]()
        body = data.encode() if isinstance(data, str) else data
        self.send({"type": "export", "id": message["id"], "name": self._file(kind.lower())}, [body])

    def close(self) -> None:
        """End the connection to the browser; the study goes on."""
        pacer = getattr(self, "_study_pacer", None)
        if pacer is not None:
            pacer.close()
        super().close()

    def compare_heads(self, candidate: str | None = None, prompt: str | None = None) -> HeadComparison:
        """Run the base and a candidate on a text and compare their attention head by head.

        Parameters
        ----------
        candidate : str, optional
            By default the selected one, else the recommended one.
        prompt : str, optional
            By default the beginning of the study's first text.

        Returns
        -------
        HeadComparison
            The base is on the left. It also opens in the report, where that is displayed.

        Raises
        ------
        LlamaTelemetryError
            The candidate has no file of its own.
        """
        from ..model import open_model

        said = self._choice()
        name = candidate or self.selected_candidate or (said["name"] if said else None)
        row = next((row for row in self._study.results.to_dict("records") if row["name"] == name), None)
        if row is None or row["kind"] == "kv" or not Path(str(row["path"])).is_file():
            raise LlamaTelemetryError(f"candidate {name!r} has no file of its own whose heads could be compared")
        text = next(iter(self._study.given_texts.values()))[:_COMPARED] if prompt is None else prompt
        with open_model(self._study.base_facts["path"]) as model:
            left = model.trace(text, progress=False)
        with open_model(row["path"]) as model:
            right = model.trace(text, progress=False)
        layer, head = self.selected_layer, self.selected_head
        chosen = None if layer is None or head is None else (layer, head)
        self.comparison = made = HeadComparison(left, right, a=chosen, theme=self.theme)
        return made

    # ------------------------------------------------------------------------- exports

    def to_pandas(self) -> pd.DataFrame:
        """`QuantizationStudy.results`: one row per candidate."""
        return self._study.results

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Base, results, text blocks and recommendation as JSON; what was not measured is null.

        Parameters
        ----------
        path : path, optional
            Where to write it; a folder gets a file named after the base.
        """
        own = {name: self.facts[name] for name in ("base", "rows", "blocks", "texts", "details", "provenance")}
        told = json.loads(self.recommendation.to_json()) if self.facts["choices"] else None
        text = json.dumps({**own, "max_bytes": self.max_bytes, "recommendation": told}, ensure_ascii=False, indent=1)
        if path is not None:
            self._path(path, "json").write_text(text, "utf-8")
        return text

    def to_parquet(self, path: str | os.PathLike[str]) -> Path:
        """Write the results, one row per candidate, with a column ``dp_50`` for each percentile of the change in
        probability; a folder gets a file named after the base.

        Raises
        ------
        BackendMissing
            pyarrow is not installed (the extra ``export``).
        """
        from ..export.table import parquet

        frame = self._study.results
        spread = [own if isinstance(own, dict) else {} for own in frame.pop("dp_percentiles")]
        for percent in sorted(set().union(*spread)):
            frame[f"dp_{percent:g}"] = [own.get(percent) for own in spread]
        return parquet(frame, self._path(path, "parquet"))

    def _parquet(self) -> bytes:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            return self.to_parquet(folder).read_bytes()

    def to_svg(self, path: str | os.PathLike[str] | None = None, theme: Literal["light", "dark"] | None = None) -> str:
        """The recommendation, the plot, the drift and the table as SVG.

        Parameters
        ----------
        path : path, optional
            Where to write it; a folder gets a file named after the base.
        theme : {"light", "dark"}, optional
            The widget's own by default, light where that is ``auto``.
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
        """The report as one HTML file that needs no kernel and no network; the budget can be dragged in it.

        Parameters
        ----------
        path : path, optional
            Where to write it; its size is then printed. A folder gets a file named after the base.
        """
        from ..export.page import page

        text = page(self.page_part())
        if path is not None:
            target = self._path(path, "html")
            target.write_text(text, "utf-8")
            print(f"{target} · {target.stat().st_size / 1e6:.1f} MB")
        return text

    def page_part(self) -> Part:
        """The widget as a part of a page with several, for `save_html`."""
        from ..export.page import Part

        names = [row["name"] for row in self.facts["rows"]]
        state = {name: getattr(self, name) for name in _PAGE_TRAITS}
        state["facts"] = facts(self._study, "", live=False) | {"running": False}
        state["strips"] = {name: own for name in names if (own := strip(self._study, name)) is not None}
        binary = {name: getattr(self, name).tobytes() for name in ("layer_drift", "head_drift")}
        return Part(self._title(), self._esm, state, binary, self._static_html(""))

    def _drawn(self, theme: str | None) -> Picture:
        from ..export.colour import THEMES
        from ..export.quantization import draw

        chosen = theme or (self.theme if self.theme != "auto" else "light")
        if chosen not in THEMES:
            raise LlamaTelemetryError(f"theme {chosen!r} does not exist: choose from {', '.join(THEMES)}")
        return draw(self.facts, self._told(), self.max_bytes, self.layer_drift, self.head_drift, chosen)

    def _told(self) -> dict[str, Any] | None:
        from ..studies.recommend import size

        said = self._choice()
        if said is None or self.max_bytes is None:
            return said
        return {**said, "body": said["body"].replace("{budget}", size(self.max_bytes))}

    def _static_html(self, why: str) -> str:
        from ..export.quantization import fallback

        return fallback(self.facts, self._told(), self._drawn(None), why)

    def _title(self) -> str:
        return f"Quantization report · {self.facts['base']['name']}"

    def _file(self, ending: str) -> str:
        model = re.sub(r"[^\w.-]+", "_", str(self.facts["base"]["name"])).strip("._")[:80] or "model"
        return f"quantization-{model}.{ending}"

    def _path(self, path: str | os.PathLike[str], ending: str) -> Path:
        target = Path(path)
        return target / self._file(ending) if target.is_dir() else target
