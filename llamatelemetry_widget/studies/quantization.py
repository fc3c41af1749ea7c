"""Quantized files against their base, measured: the same tokens through all of them, block by block, side by side.

In: a base, candidates (files, types made on the fly, KV cache types), texts. Out: `QuantizationStudy` with its tables.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..analysis.quality import Scores, half_width, joined, summary
from ..engine import speed as speeds
from ..engine.client import STOPPED
from ..engine.observers import begins
from ..engine.quantize import QUANT_TYPES, made_from
from ..engine.running import ProgressBar
from ..errors import CaptureUnavailable, EngineCancelled, LlamaTelemetryError, MemoryBudgetExceeded
from ..model import Model, open_model
from ..models.find import cache_folder
from ..models.header import read_header
from ..trace import Trace, display_token
from .causes import By, Causes, Recipe
from .layers import LayerDrift, drift, sample
from .quantize import quantize
from .recommend import Recommendation, recommend
from .scoring import Source, Task, Workers, score
from .store import Store
from .windows import Block, Windows, cut, default_texts

if TYPE_CHECKING:
    import pandas as pd

Given = str | os.PathLike[str] | Model | Mapping[str, Any]
_SPEED_TOKENS = 256  # read at once and, a few of them, one by one
_FIGURES = (
    *("n_tokens", "kl", "kl_error", "kl_ci", "kl_90", "kl_95", "kl_99", "kl_999", "kl_max", "same_top"),
    *("same_top_error", "rms_dp", "rms_dp_error", "dp_mean", "dp_percentiles", "ppl", "ppl_error", "ppl_ratio"),
    "ppl_ratio_error",
)
_COST = ("prefill_tps", "prefill_spread", "decode_tps", "decode_spread", "memory_bytes")
COLUMNS = (
    *("name", "kind", "path", "bytes", "bits_per_weight", "got", "status", "error"),
    *_FIGURES,
    *_COST,
    "speed_note",
)


@dataclass(frozen=True)
class StudyEvent:
    """What a running study says.

    Attributes
    ----------
    kind : str
        ``"progress"`` (a block is done), ``"candidate"`` (one has ended, well or not), ``"done"``, ``"cancelled"`` or
        ``"error"``.
    candidate : str or None
    done, total : int
        Blocks.
    message : str
        What goes on, or went wrong.
    """

    kind: str
    candidate: str | None = None
    done: int = 0
    total: int = 0
    message: str = ""


@dataclass
class Candidate:
    """One candidate while it is studied; `facts` are those of its file, empty before that is made."""

    name: str
    kind: str
    model: Model | None = None
    kv_type: str = "f16"
    make: dict[str, Any] = field(default_factory=dict)  # type and tensor_types, of a file that is made
    status: str = "waiting"
    error: str = ""
    scores: dict[int, Scores] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    drift: LayerDrift | None = None


class QuantizationStudy:
    """How far quantized files are from their base.

    Parameters
    ----------
    base : Model, str or path
        What the candidates are compared with.
    candidates : sequence of str, path, Model or mapping
        Types (``"Q4_K_M"``: a file that is made from the base, kept in this package's cache), files (paths, names that
        `open_model` understands, models), recipes (``{"type": "Q4_K_M", "tensor_types": {…}, "name": "mine"}``, as
        `quantize` takes them) and KV cache types (``"kv:q8_0"``: the base's own file with a cache of that type).
        Files are compared, not labels.
    text : str or mapping of str to str, optional
        One text, or several by name; by default a prose and a code text that ship with this package.
    windows : {"blocks", "llama-perplexity"}
        Every token of a text scored once; or llama-perplexity's windows, of which the second half is scored.
    n_ctx : int
        Tokens of a block; each begins with an empty context.
    n_blocks : int, optional
        At most so many blocks of each text.
    drift : bool
        Also compare every layer and head, on the first tokens of the first text.
    speed : bool
        Also time every candidate on this machine, in turns, and note its memory.
    executor : concurrent.futures.Executor, optional
        Runs the blocks, wherever it runs things; the files must lie at the same paths there. By default they run here.
    directory : str or path, optional
        Where results are kept, so that a study that was stopped goes on; by default in this package's cache.

    Raises
    ------
    LlamaTelemetryError, ModelNotFound, ModelFileError
        A candidate is no type, no file and no cache type, or none is given.
    """

    operation = "study"

    def __init__(
        self,
        base: Model | str | os.PathLike[str],
        candidates: Sequence[Given],
        text: str | Mapping[str, str] | None = None,
        windows: Windows = "blocks",
        n_ctx: int = 512,
        n_blocks: int | None = None,
        drift: bool = True,
        speed: bool = True,
        executor: Executor | None = None,
        directory: str | os.PathLike[str] | None = None,
    ) -> None:
        self._base: Model | None = base if isinstance(base, Model) else open_model(base)
        texts = default_texts() if text is None else {"text": text} if isinstance(text, str) else dict(text)
        if isinstance(candidates, str):
            raise LlamaTelemetryError(f"candidates are several: write [{candidates!r}]")
        if not candidates or not texts:
            raise LlamaTelemetryError("a study needs at least one candidate and one text")
        self.settings: dict[str, Any] = {"windows": windows, "n_ctx": int(n_ctx), "n_blocks": n_blocks}
        self.given_texts = texts
        self._also = {"drift": drift, "speed": speed}
        self._executor = executor
        self._folder = cache_folder() / "studies" if directory is None else Path(directory).expanduser()
        self._rows: list[Candidate] = []
        for candidate in candidates:
            self._rows.append(self._row(candidate))
        origin = made_from(read_header(self.base.info.path))
        self._base_facts = {"name": self.base.info.name, **_facts(self.base), "made_from": origin or None}
        self._base_cost: dict[str, Any] = {}
        self._build: list[str] = []
        self._tokens: dict[str, list[int]] = {}
        self._shown: dict[int, str] = {}
        self._blocks: list[Block] = []
        self._wait_for_work()

    def _wait_for_work(self) -> None:
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: LlamaTelemetryError | None = None
        self._callbacks: list[Callable[[StudyEvent], None]] = []

    def __repr__(self) -> str:
        states = ", ".join(f"{row.name} {row.status}" for row in self._rows)
        return f"<QuantizationStudy of {self._base_facts['name']}: {states}>"

    @property
    def base(self) -> Model:
        """What the candidates are compared with.

        Raises
        ------
        ModelNotFound
            The study was loaded, and the base's file is not there any more.
        """
        if self._base is None:
            self._base = open_model(self._base_facts["path"])
        return self._base

    # ------------------------------------------------------------------ running

    def run(self) -> QuantizationStudy:
        """Measure every candidate and wait. An interrupt (Ctrl-C) stops it; what is measured stays, and it can go on.

        Raises
        ------
        EngineCancelled
            It was stopped.
        LlamaTelemetryError
            The base cannot be run. A candidate that fails is a row that says why.
        """
        self.start()
        thread = self._thread
        assert thread is not None
        bar = ProgressBar()
        try:
            while thread.is_alive():
                thread.join(0.1)
                bar.show(self._done, self._total, "block")
        except KeyboardInterrupt:
            self._stop.set()
            thread.join(10)
            raise EngineCancelled("interrupted; what was measured stays, run() goes on there") from None
        finally:
            bar.close()
        if self._failure is not None:
            raise self._failure
        return self

    def start(self, callback: Callable[[StudyEvent], None] | None = None) -> None:
        """Measure in the background.

        Parameters
        ----------
        callback : callable, optional
            As for `subscribe`.

        Raises
        ------
        LlamaTelemetryError
            It runs already.
        """
        if self.running:
            raise LlamaTelemetryError("this study runs already: wait for it, or cancel() it")
        if callback is not None:
            self.subscribe(callback)
        self._stop.clear()
        self._failure = None
        begins(self)
        self._thread = threading.Thread(target=self._run, name="llamatelemetry-study", daemon=True)
        self._thread.start()

    @property
    def model_name(self) -> str:
        """The base's."""
        return str(self._base_facts["name"])

    @property
    def error(self) -> BaseException | None:
        """What ended the study; None while it goes on, and where it ended well."""
        return self._failure

    def cancel(self) -> None:
        """Stop; what is finished stays. Safe from any thread."""
        self._stop.set()

    @property
    def running(self) -> bool:
        """Whether it is measuring."""
        return self._thread is not None and self._thread.is_alive()

    def subscribe(self, callback: Callable[[StudyEvent], None]) -> None:
        """Call `callback` with every `StudyEvent` from now on, in the thread that measures."""
        self._callbacks.append(callback)

    def _run(self) -> None:
        STOPPED.set(self._stop.is_set)
        workers = Workers()
        try:
            self._prepare(workers)
            self._measure(workers)
            if self._also["drift"]:
                self._drift(workers)
            if self._also["speed"]:
                self._speed(workers)
            for row in self._rows:
                if row.status == "running":
                    row.status = "done"
                    self._emit(StudyEvent("candidate", row.name, self._done, self._total))
            last = StudyEvent("done", done=self._done, total=self._total)
        except EngineCancelled as stopped:
            self._failure = stopped
            last = StudyEvent("cancelled", done=self._done, total=self._total, message=str(stopped))
        except LlamaTelemetryError as error:
            self._failure = error
            last = StudyEvent("error", done=self._done, total=self._total, message=str(error))
        except Exception as error:
            self._failure = LlamaTelemetryError(f"the study failed: {type(error).__name__}: {error}")
            last = StudyEvent("error", done=self._done, total=self._total, message=str(self._failure))
        finally:
            workers.close()
            for row in self._rows:
                if row.status == "running":
                    row.status = "cancelled"
        self._emit(last)

    def _emit(self, event: StudyEvent) -> None:
        for callback in list(self._callbacks):
            callback(event)

    @property
    def _alive(self) -> list[Candidate]:
        return [row for row in self._rows if row.status != "failed"]

    @property
    def _total(self) -> int:
        return len(self._alive) * len(self._blocks)

    @property
    def _done(self) -> int:
        return sum(len(row.scores) for row in self._alive)

    def _tell(self, message: str, candidate: str | None = None) -> None:
        self._emit(StudyEvent("progress", candidate, self._done, self._total, message))

    def _prepare(self, workers: Workers) -> None:
        """Tokens and blocks of the texts; the candidates' files; what is known of each from before."""
        if not self._blocks:
            s, model = self.settings, workers.model("", self._source(self.base))
            tokens, blocks = cut(model, self.given_texts, s["windows"], s["n_ctx"], s["n_blocks"])
            ids = sorted({i for own in tokens.values() for i in own})
            shown = {i: display_token(piece) for i, piece in zip(ids, model.token_bytes(ids), strict=True)}
            order = {name: at for at, name in enumerate(tokens)}
            blocks.sort(key=lambda block: (block.number, order[block.text]))  # partial results speak of all texts
            self._build = [str(model._engine.facts[name]) for name in ("llama_cpp_python", "system", "device")]
            with self._lock:
                self._tokens, self._shown, self._blocks = tokens, shown, blocks
        for row in self._rows:
            row.status, row.error = "running", ""
        for row in self._rows:
            try:
                self._open(row)
            except EngineCancelled:
                raise
            except LlamaTelemetryError as error:
                self._fail(row, str(error))

    def _open(self, row: Candidate) -> None:
        if row.model is None and not row.make:
            row.model = self.base if row.kind == "kv" else open_model(row.facts["path"])
        if row.model is None:

            def told(done: int, total: int) -> None:
                self._tell(f"making {row.name}: tensor {done} of {total}", row.name)

            row.model = quantize(self.base, **row.make, progress=told)
            row.facts = _facts(row.model)
        if why := row.model.info.cannot_run:
            raise LlamaTelemetryError(why)
        ours, theirs = self.base.info.vocab_size, row.model.info.vocab_size
        if ours != theirs:
            raise LlamaTelemetryError(f"it has {theirs} tokens, the base {ours}: only one vocabulary can be compared")
        store = self._store(row)
        found = {at: scores for at, block in enumerate(self._blocks) if (scores := store.load(block)) is not None}
        with self._lock:
            row.scores = {**found, **row.scores}

    def _store(self, row: Candidate) -> Store:
        assert row.model is not None
        files = [model.info.shards or (model.info.path,) for model in (self.base, row.model)]
        return Store(self._folder, files, [row.kv_type, self.base._placed, self.settings["n_ctx"], self._build])

    def _measure(self, workers: Workers) -> None:
        for at, found in self._scored(workers):
            for row in self._rows:
                scores = found.get(row.name)
                if isinstance(scores, str):
                    self._fail(row, scores)
                elif scores is not None and row.status == "running":
                    with self._lock:
                        row.scores[at] = scores
                    self._store(row).save(self._blocks[at], scores)
            block = self._blocks[at]
            self._tell(f"block {block.number + 1} of {block.text}")

    def _drift(self, workers: Workers) -> None:
        """Layers and heads, on the first tokens of the first text. A model without what is read has no drift."""
        missing = [row for row in self._rows if row.status == "running" and row.drift is None]
        ids, base = list(self._blocks[0].ids), None
        for row in missing:
            self._tell(f"layers of {row.name}", row.name)
            with suppress(CaptureUnavailable, MemoryBudgetExceeded):
                base = base or self._sample(workers, "", self.base, ids)
                assert row.model is not None
                row.drift = drift(base, self._sample(workers, row.name, row.model, ids, row.kv_type))

    def _sample(self, workers: Workers, role: str, model: Model, ids: list[int], kv_type: str = "f16") -> Trace:
        return sample(workers.model(role, self._source(model, kv_type)), ids, kv_type)

    def _speed(self, workers: Workers) -> None:
        """Base and candidates in turns, so that what slows one slows all."""
        running = {row.name: row for row in self._rows if row.status == "running" and row.model is not None}
        if all(row.cost for row in running.values()):
            return
        sources = {"": self._source(self.base)}
        sources |= {name: self._source(row.model, row.kv_type) for name, row in running.items() if row.model}
        asked = {name: (workers.model(name, source)._request, source.kv_type) for name, source in sources.items()}
        try:
            found = speeds.measure(
                asked,
                next(iter(self._tokens.values()))[:_SPEED_TOKENS],
                n_ctx=self.settings["n_ctx"],
                progress=lambda done, total: self._tell(f"speed: pass {done} of {total}"),
            )
        except EngineCancelled:
            raise
        except LlamaTelemetryError as error:
            found = {name: speeds.Speed(speed_note=str(error)) for name in sources}
        self._base_cost = asdict(found[""])
        for name, row in running.items():
            row.cost = asdict(found[name])

    def _fail(self, row: Candidate, why: str) -> None:
        if row.status != "failed":
            row.status, row.error = "failed", why
            self._emit(StudyEvent("candidate", row.name, self._done, self._total, why))

    def _scored(self, workers: Workers) -> Iterator[tuple[int, dict[str, Scores | str]]]:
        """Every block that is not known yet, scored."""
        if self._executor is None:
            for at in range(len(self._blocks)):
                task = self._task(at)
                if task is not None:
                    yield at, score(task, workers)
            return
        tasks = {at: task for at in range(len(self._blocks)) if (task := self._task(at)) is not None}
        futures: dict[Future[dict[str, Scores | str]], int] = {
            self._executor.submit(score, task): at for at, task in tasks.items()
        }
        try:
            while futures:
                ended, _ = wait(futures, timeout=0.1, return_when=FIRST_COMPLETED)
                if self._stop.is_set():
                    raise EngineCancelled("the study was stopped; what was measured stays, run() goes on there")
                for future in ended:
                    yield futures.pop(future), future.result()
        finally:
            for future in futures:
                future.cancel()

    def _task(self, at: int) -> Task | None:
        missing = [row for row in self._rows if row.status == "running" and at not in row.scores]
        sources = {row.name: self._source(row.model, row.kv_type) for row in missing if row.model}
        vocabulary = self.base.info.vocab_size
        if not sources:
            return None
        if vocabulary is None:
            raise LlamaTelemetryError(f"{self.base.info.path.name} has no vocabulary, so nothing can be compared")
        return Task(self._source(self.base), sources, self._blocks[at], self.settings["n_ctx"], vocabulary)

    def _source(self, model: Model, kv_type: str = "f16") -> Source:
        return Source(os.path.abspath(model.info.path), self.base._placed, kv_type)

    # ------------------------------------------------------------------- tables

    @property
    def base_facts(self) -> dict[str, Any]:
        """``name``, ``path``, ``bytes``, ``bits_per_weight``, ``types`` (tensors per type), ``got``, ``made_from`` (its
        own quant type, or those that its weights went through before; None where there are none), its ``perplexity``
        (NaN before it is measured) and, where it was timed, what `results` has of speed and memory."""
        with self._lock:
            longest = max((row.scores for row in self._rows), key=len)
        known = list(longest.values())
        perplexity = float(np.exp(-joined(known).base_log_p.mean())) if known else float("nan")
        return {**self._base_facts, "perplexity": perplexity, **self._base_cost}

    @property
    def results(self) -> pd.DataFrame:
        """One row per candidate, in the order given; what is not measured is NaN.

        Returns
        -------
        DataFrame
            ``name``, ``kind`` ("type", "file", "recipe", "kv"), ``path``, ``bytes``, ``bits_per_weight``, ``got``
            (tensors per type, norms left out), ``status`` ("waiting", "running", "done", "failed", "cancelled"),
            ``error``; ``n_tokens`` scored and what `llamatelemetry_widget.analysis.quality.summary` says of them, with
            ``kl_ci``, half of the 95 % interval over text blocks; tokens per second, their spread, and memory as
            `llamatelemetry_widget.engine.speed.Speed` has them.
        """
        import pandas as pd

        rows = []
        for row in self._rows:
            own = {
                "name": row.name,
                "kind": row.kind,
                "path": "",
                "got": "",
                **row.facts,
                "status": row.status,
                "error": row.error,
            }
            rows.append({"speed_note": "not measured", **own, **self._figures(row), **row.cost})
        frame: pd.DataFrame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
        frame["n_tokens"] = frame["n_tokens"].fillna(0).astype(int)
        return frame

    def _figures(self, row: Candidate, text: str | None = None) -> dict[str, Any]:
        """What the scored blocks of a candidate say, of all texts or of one."""
        with self._lock:
            own = [scores for at, scores in sorted(row.scores.items()) if text in (None, self._blocks[at].text)]
        if not own:
            return {}
        means, counts = np.array([s.kl.mean() for s in own]), np.array([len(s) for s in own])
        return {**summary(joined(own)), "kl_ci": half_width(means, counts)}

    @property
    def blocks(self) -> pd.DataFrame:
        """One row per candidate and block: ``candidate``, ``text``, ``block``, ``n_tokens``, ``kl``, ``same_top``."""
        import pandas as pd

        made = []
        for row in self._rows:
            with self._lock:
                known = sorted(row.scores.items())
            for at, scores in known:
                block = self._blocks[at]
                where = (row.name, block.text, block.number, len(scores))
                made.append((*where, float(scores.kl.mean()), float(scores.same_top.mean())))
        columns = ["candidate", "text", "block", "n_tokens", "kl", "same_top"]
        frame: pd.DataFrame = pd.DataFrame(made, columns=columns)
        return frame

    @property
    def texts(self) -> pd.DataFrame:
        """One row per candidate and text: ``candidate``, ``text``, ``n_tokens``, ``kl``, ``kl_error``, ``kl_ci``,
        ``same_top``, ``ppl``, ``ppl_ratio``."""
        import pandas as pd

        columns = ["candidate", "text", "n_tokens", "kl", "kl_error", "kl_ci", "same_top", "ppl", "ppl_ratio"]
        made = []
        for row in self._rows:
            for text in self._tokens:
                figures = self._figures(row, text)
                if figures:
                    made.append({"candidate": row.name, "text": text, **figures})
        frame: pd.DataFrame = pd.DataFrame(made, columns=columns)
        return frame

    def tokens(self, candidate: str) -> pd.DataFrame:
        """One row per scored token of a candidate, in the order of the texts.

        Returns
        -------
        DataFrame
            ``text``, ``block``, ``position`` (of the token in its text), ``id``, ``token``, ``base_probability`` and
            ``probability`` that the base and the candidate gave it, ``kl`` (nats) of the distributions that it was
            drawn from, ``same_top``.

        Raises
        ------
        LlamaTelemetryError
            There is no such candidate.
        """
        import pandas as pd

        row = self._named(candidate)
        order = {name: at for at, name in enumerate(self._tokens)}
        with self._lock:
            known = [(self._blocks[at], scores) for at, scores in row.scores.items()]
        known.sort(key=lambda pair: (order[pair[0].text], pair[0].number))
        parts = [
            pd.DataFrame(
                {
                    "text": block.text,
                    "block": block.number,
                    "position": block.position + np.arange(len(scores)),
                    "id": np.asarray(block.targets, np.int32),
                    "token": [self._shown[i] for i in block.targets],
                    "base_probability": np.exp(scores.base_log_p),
                    "probability": np.exp(scores.log_p),
                    "kl": scores.kl,
                    "same_top": scores.same_top,
                }
            )
            for block, scores in known
        ]
        columns = ["text", "block", "position", "id", "token", "base_probability", "probability", "kl", "same_top"]
        frame: pd.DataFrame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
        return frame

    @property
    def layer_drift(self) -> pd.DataFrame:
        """||h - h0|| / ||h0|| of the residual stream after each layer, median over tokens: candidates x layers."""
        import pandas as pd

        known = {row.name: row.drift for row in self._rows if row.drift is not None}
        columns = next((own.layers for own in known.values()), [])
        values = [own.stream for own in known.values()]
        frame: pd.DataFrame = pd.DataFrame(values, index=pd.Index(list(known), name="candidate"), columns=columns)
        return frame

    @property
    def head_drift(self) -> NDArray[np.float32]:
        """float32 (candidates, layers, heads): total variation of each head's attention (0 the same, 1 nothing in
        common), mean over tokens; NaN where a candidate or a layer has none. Candidates as in `results`."""
        shape = next((row.drift.heads.shape for row in self._rows if row.drift is not None), (0, 0))
        none = np.full(shape, np.nan, np.float32)
        return np.stack([none if row.drift is None else row.drift.heads for row in self._rows])

    def tensor_error(self, candidate: str) -> pd.DataFrame:
        """How far a candidate's weights are from the base's, tensor by tensor: `Model.weight_error`.

        Raises
        ------
        LlamaTelemetryError
            There is no such candidate, or its file is not made yet.
        """
        row = self._named(candidate)
        if not row.facts:
            raise LlamaTelemetryError(f"{row.name} is not made yet: run the study first")
        return self.base.weight_error(row.model or open_model(row.facts["path"]))

    def causes(
        self,
        type: str,
        by: By = "layer",
        n_blocks: int | None = 2,
        progress: Callable[[int, int], None] | None = None,
    ) -> pd.DataFrame:
        """Which part of the model pays: each quantized alone, by llama.cpp, all else as in the base, and measured.

        What was measured is kept; a call that was stopped goes on there. Files are temporary, at most four at a time,
        each as large as the base.

        Parameters
        ----------
        type : str
            As of `quantize`. Each tensor becomes what it becomes in a file of that type.
        by : {"layer", "group"}
            One layer at a time (and what stands outside the layers), or one kind of tensor in all layers.
        n_blocks : int, optional
            At most so many blocks of each text.
        progress : callable, optional
            Hears (steps done, steps).

        Returns
        -------
        DataFrame
            ``part``, ``tensors``, ``bytes_before``, ``bytes_after``, ``saved_bytes``, ``n_tokens``, ``kl`` (nats) that
            it causes with ``kl_error`` and ``kl_ci`` as in `results`, ``same_top``, ``kl_per_saved_mb``, ``error``.

        Raises
        ------
        LlamaTelemetryError
            The base is quantized itself, or there is no such type.
        EngineCancelled
        """
        return self._parts(n_blocks).measure(type, by, progress)

    def recipe(
        self,
        max_bytes: int,
        types: Sequence[str] = ("Q4_K_M", "Q8_0"),
        by: By = "layer",
        n_blocks: int | None = 2,
        progress: Callable[[int, int], None] | None = None,
    ) -> Recipe:
        """A type for each part, so that the file keeps a budget and the sum of what the parts cause is least.

        That sum is an estimate, as parts act together: give `Recipe.candidate` to a study to measure the file.

        Parameters
        ----------
        max_bytes : int
            Of the file.
        types : sequence of str
            What a part may become, beside staying as it is; `causes` of each is measured where it is not known yet.
        by, n_blocks, progress
            As of `causes`.

        Raises
        ------
        LlamaTelemetryError
            The budget is too small for these types, the base is quantized itself, or there is no such type.
        EngineCancelled
        """
        return self._parts(n_blocks).recipe(max_bytes, types, by, progress)

    def _parts(self, n_blocks: int | None) -> Causes:
        s = self.settings
        return Causes(self.base, self.given_texts, s["windows"], s["n_ctx"], n_blocks, self._folder)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write what was measured to one file, texts included; `load_study` reads it, with or without the models.

        Parameters
        ----------
        path : str or path
            Usually ``.npz``.

        Returns
        -------
        Path
        """
        from .saved import save_study

        return save_study(self, path)

    def recommend(
        self, max_bytes: int | None = None, max_kl: float | None = None, min_speed: float | None = None
    ) -> Recommendation:
        """What to take, with its reasons, how sure that is, and what this study cannot say.

        Parameters
        ----------
        max_bytes : int, optional
            Of the file.
        max_kl : float, optional
            Mean KL divergence in nats per token; the smallest file that keeps it is then recommended.
        min_speed : float, optional
            Decoded tokens per second.

        Raises
        ------
        LlamaTelemetryError
            Nothing was measured yet, or speed is asked for where it is not comparable.
        """
        return recommend(self.base_facts, self.results, self.blocks, max_bytes, max_kl, min_speed)

    def _named(self, candidate: str) -> Candidate:
        found = next((row for row in self._rows if row.name == candidate), None)
        if found is None:
            names = ", ".join(row.name for row in self._rows)
            raise LlamaTelemetryError(f"this study has no candidate {candidate!r}: it has {names}")
        return found

    # --------------------------------------------------------------- candidates

    def _row(self, candidate: Given) -> Candidate:
        taken = {row.name for row in self._rows}
        if isinstance(candidate, str) and candidate.startswith("kv:"):
            return Candidate(_free(candidate, taken), "kv", self.base, candidate[3:].lower(), facts=_facts(self.base))
        if isinstance(candidate, Mapping):
            make = {"type": "Q4_K_M", **{key: value for key, value in candidate.items() if key != "name"}}
            if "imatrix" in make:
                make["imatrix"] = os.path.abspath(make["imatrix"])
            if unknown := sorted(set(make) - {"type", "tensor_types", "imatrix"}):
                raise LlamaTelemetryError(
                    f"a recipe has no {unknown[0]!r}: it has type, tensor_types, imatrix and name"
                )
            return Candidate(_free(str(candidate.get("name", "recipe")), taken), "recipe", make=make)
        if isinstance(candidate, str) and candidate.upper() in QUANT_TYPES:
            return Candidate(_free(candidate.upper(), taken), "type", make={"type": candidate.upper()})
        model = candidate if isinstance(candidate, Model) else open_model(candidate)
        return Candidate(_free(model.info.path.stem, taken), "file", model, facts=_facts(model))


def _free(name: str, taken: set[str]) -> str:
    """The name, numbered where another candidate has it."""
    return next(own for own in (name, *(f"{name} ({i})" for i in range(2, 1000))) if own not in taken)


def _facts(model: Model) -> dict[str, Any]:
    """What the header says of a file."""
    info, counts = model.info, dict[str, int]()
    for node in model.tree.root.tensors:
        if node.tensor is not None and len(node.tensor.shape) > 1:  # norms stay as they are in every type
            counts[node.tensor.type_name] = counts.get(node.tensor.type_name, 0) + 1
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    return {
        "path": os.path.abspath(info.path),
        "bytes": info.n_bytes,
        "bits_per_weight": info.bits_per_weight,
        "types": dict(ordered),
        "got": ", ".join(f"{count} {kind}" for kind, count in ordered),
    }
