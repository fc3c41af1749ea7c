"""One traced run: prompt in, captured arrays and their reductions out, streamed as messages while they come.

The order of messages: ``start`` (facts and the shared block), ``progress`` per ubatch, ``layer`` per attention layer
(its mask and formula, head statistics, thumbnails, self-check), ``done``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil

from ...analysis.attention import STATISTICS, Mask, check, reduce
from ...analysis.tokens import TOKEN_STATISTICS, token_statistics
from ...errors import CaptureUnavailable, EngineCancelled, LlamaTelemetryError, MemoryBudgetExceeded
from ..cpu import usable_threads
from ..wire import SharedBlock
from .capture import Capture, Layout, Scored, Ubatch
from .device import OnDevice
from .graph import Plan
from .llama import Context, Llama, Settings
from .taps import GraphChanged

Array = np.ndarray[Any, Any]
Send = Callable[..., None]
CHECK_TOLERANCE = 1e-2  # of the largest |v|; llama.cpp's own error in short prompts is below 2e-3 of that
HALF_STEP = 2.0**-10  # its kernel for few rows sums v in F16: a random walk of steps of up to twice 2^-11, one per key
ROOM = 512  # tokens that a context which is to be continued has beyond those that are asked for
LOGIT_BYTES = 128_000_000  # of the logits of one ubatch, where only their statistics are wanted


class Run:
    """A request to trace a prompt, while it is carried out.

    Parameters
    ----------
    llama : Llama
        The model.
    request : dict
        ``ids``, ``decoder_ids`` (encoder-decoders), ``layers`` (None = all), ``capture``, ``logits`` ("last" | "all"),
        ``logit_rows`` (first and stop of those that "all" means; every row where it is not there),
        ``flash_attention``, ``kv_type``, ``n_ubatch``, ``memory_budget`` (bytes), ``verify``, ``token_stats``
        (probability, loss, entropy, rank of every token), ``reuse`` (with nothing captured and only the last logits:
        rows whose keys and values the context still holds are not computed again).
    send : callable
        Sends a message, with an optional file descriptor.
    cancelled : callable
        Polled between layers.
    """

    def __init__(self, llama: Llama, request: dict[str, Any], send: Send, cancelled: Callable[[], bool]) -> None:
        self.llama, self.request, self.send, self.cancelled = llama, request, send, cancelled
        self.ids: list[int] = request["ids"]
        self.decoder_ids: list[int] = request.get("decoder_ids") or []
        self.n_threads = usable_threads()
        self.verify: bool = request.get("verify", False)
        self.token_stats: bool = request.get("token_stats", False)
        self.logit_rows = range(*(request.get("logit_rows") or (0, len(self.decoder_ids or self.ids))))
        self.captures: dict[str, Capture] = {}
        self.device = OnDevice()
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}  # of all threads of this process, under the same names
        self.planned: set[str] = set()
        once = not (request["capture"] or self.verify or self.llama.is_encoder_decoder or self._every_row())
        self.reuse = once and bool(request.get("reuse"))
        self.kept = 0  # rows that were not computed again

    # ------------------------------------------------------------------ whole

    def __call__(self) -> None:
        self._refuse_logits_beyond_budget()
        try:
            self._run()
        finally:
            self.device.close()

    def _run(self) -> None:
        while True:
            context, plans = self._prepare()
            self._context = context
            try:
                logits = self._compute(context, plans)
                break
            except GraphChanged as changed:
                self._replan(context, changed)
        if self.verify:
            self._send_differences()
        else:
            self._reduce()
            self._finish(logits)

    def _refuse_logits_beyond_budget(self) -> None:
        """All logits of a long prompt are the one thing that grows with the vocabulary: refuse before anything runs."""
        if self.request["logits"] != "all":
            return
        needed = 2 * 4 * len(self.logit_rows) * self.llama.n_vocab  # llama.cpp's copy and ours
        if needed > self.request["memory_budget"]:
            raise MemoryBudgetExceeded(
                f"logits of {len(self.logit_rows)} tokens x {self.llama.n_vocab} words need {needed / 1e9:.1f} GB, "
                f"the budget is {self.request['memory_budget'] / 1e9:.1f} GB: ask for logits='last' "
                f"or raise memory_budget"
            )

    def _prepare(self) -> tuple[Context, dict[str, Plan]]:
        """A context that fits, and the plans of its graphs."""
        n, ubatch = max(self._length("self"), self._length("decoder")), min(self.request["n_ubatch"], 4096)
        if self.token_stats:
            ubatch = min(ubatch, max(32, LOGIT_BYTES // (4 * self.llama.n_vocab)))
        if self.llama.is_encoder_decoder:
            ubatch = max(ubatch, n)
        settings = self._settings(n, ubatch)
        context = self.llama.continued(settings, ROOM) if self.reuse else self.llama.context(settings)
        parts = (
            {"encoder": self.ids, "decoder": self.decoder_ids} if self.llama.is_encoder_decoder else {"self": self.ids}
        )
        plans = {part: context.plan(part, ids) for part, ids in parts.items()}
        if self.reuse:
            context.plan("self", self.ids, 1)  # a text that is written needs it; made later it would empty the context
        whole = any(not a.cached for plan in plans.values() for a in plan.attention if a.part == "self")
        if whole and (n > ubatch or context.settings.n_outputs != context.settings.n_ubatch):
            context = self.llama.context(self._settings(n, max(ubatch, n), every=True))  # no cache: all rows at once
            plans = {part: context.plan(part, ids) for part, ids in parts.items()}
        if self.reuse:
            self.kept = context.keep(self.ids)
        else:
            context.clear()
        return context, plans

    def _settings(self, n: int, ubatch: int, every: bool = False) -> Settings:
        every = every or self._every_row() or self.llama.is_encoder_decoder
        outputs = ubatch if every else 2
        n_ctx = -(-max(n, 2) // 256) * 256
        return Settings(
            n_ctx, ubatch, outputs, self.request["flash_attention"], self.request["kv_type"], self.n_threads
        )

    def _replan(self, context: Context, changed: GraphChanged) -> None:
        """The graph of these rows differs from that of the first two tokens: plan on the rows themselves, once."""
        for part, capture in self.captures.items():
            if part in self.planned:
                raise CaptureUnavailable(
                    f"llama.cpp builds another graph at every call ({changed}); nothing can be captured"
                )
            self.planned.add(part)
            context.replan(part, self._tokens(part)[: min(capture.n_rows, context.settings.n_ubatch)])

    def _tokens(self, part: str) -> list[int]:
        return self.decoder_ids if part == "decoder" else self.ids

    def _length(self, part: str) -> int:
        """Rows that a part has in the end."""
        return len(self._tokens(part))

    def _every_row(self) -> bool:
        """Whether logits of all rows are computed."""
        return self.token_stats or self.request["logits"] == "all"

    # ---------------------------------------------------------------- compute

    def _compute(self, context: Context, plans: dict[str, Plan]) -> Array | None:
        """Lay out the shared block, run the prompt; the logits that were asked for."""
        keys = {part: self._length(part) for part in ("self", "encoder", "decoder", "cross")}
        what = ["attention"] if self.verify else self.request["capture"]
        layout = Layout()
        self.captures, self.device = {}, OnDevice()
        kept = None if self.verify else self.device
        for part, plan in plans.items():
            layers = self._layers(plan)
            self.captures[part] = Capture(plan, self._length(part), keys, layers, what, self.verify, kept)
            layout.merge(self.captures[part].layout())
        last = list(plans)[-1]
        has_logits = plans[last].nodes[-1].ne[0] == self.llama.n_vocab
        if has_logits and not self.verify:
            rows = len(self.logit_rows) if self.request["logits"] == "all" else 1
            layout.add("logits", "<f4", (rows, self.llama.n_vocab))
            if self.token_stats:
                layout.add("token_stats", "<f4", (len(TOKEN_STATISTICS), len(self._tokens(last))))
        block = self._allocate(layout)
        logits = block.array(*layout.arrays["logits"]) if "logits" in layout.arrays else None
        stats = block.array(*layout.arrays["token_stats"]) if "token_stats" in layout.arrays else None
        if stats is not None:
            stats[:, :1] = np.nan  # nothing came before the first token
        done, total = self.kept, sum(len(self._tokens(part)) for part in plans)
        for part in plans:
            self.captures[part].place(block, layout)
        if not self.verify:
            self._start(block, layout, plans)
        for part in plans:
            started, spent = time.perf_counter(), time.process_time()
            for ubatch in self._ubatches(part, context.settings.n_ubatch):
                ids = self._tokens(part)[ubatch.start : ubatch.stop]
                outputs = [row - ubatch.start for row in ubatch.outputs]
                context.run(part, ids, ubatch.start, outputs, self.captures[part].taps(ubatch))
                if logits is not None and part == last and ubatch.outputs:
                    self._keep_logits(context, logits, ubatch)
                    if stats is not None:
                        self._keep_stats(context, stats, ubatch, self._tokens(part))
                done += ubatch.rows
                self.send({"kind": "progress", "stage": "prefill", "done": done, "total": total})
            self.seconds[part] = time.perf_counter() - started
            self.cpu[part] = time.process_time() - spent
        return logits

    def _layers(self, plan: Plan) -> list[int]:
        there = {*plan.residual, *(a.layer for a in plan.attention), *plan.recurrent}
        if self.request["layers"] is None:
            return sorted(there)
        missing = sorted(set(self.request["layers"]) - there)
        if missing:
            raise CaptureUnavailable(f"layer {missing[0]} does not exist: this model has layers 0 to {max(there)}")
        return sorted(set(self.request["layers"]))

    def _allocate(self, layout: Layout) -> SharedBlock:
        budget = self.request["memory_budget"]
        if layout.size > budget:
            raise MemoryBudgetExceeded(
                f"this trace of {len(self.ids)} tokens needs {layout.size / 1e9:.2f} GB, "
                f"the budget is {budget / 1e9:.2f} GB: ask for fewer layers (layers=range(8)), capture=('attention',), "
                f"a shorter prompt, or raise memory_budget"
            )
        return SharedBlock(layout.size)

    def _ubatches(self, part: str, n_ubatch: int) -> list[Ubatch]:
        n = len(self._tokens(part))
        every = self._every_row() or part == "encoder"
        starts = range(self.kept, n, n_ubatch)
        made = []
        for start in starts:
            stop = min(start + n_ubatch, n)
            outputs = tuple(range(start, stop)) if every else (n - 1,) if stop == n else ()
            if self.request["logits"] == "all" and part != "encoder":
                outputs = tuple(row for row in outputs if row in self.logit_rows)
            made.append(Ubatch(start, stop, outputs))
        return made

    def _keep_logits(self, context: Context, out: Array, ubatch: Ubatch) -> None:
        rows = context.logits(len(ubatch.outputs))
        if self.request["logits"] == "all":
            out[[row - self.logit_rows.start for row in ubatch.outputs]] = rows
        else:
            out[0] = rows[-1]

    def _keep_stats(self, context: Context, out: Array, ubatch: Ubatch, ids: list[int]) -> None:
        """Statistics of the tokens that follow these rows, in blocks, so that no second copy of the logits exists."""
        rows = context.logits(len(ubatch.outputs))
        targets = np.asarray(ids[ubatch.start + 1 : ubatch.stop + 1], np.int32)
        size = max(1, (1 << 22) // rows.shape[1])

        def work(at: int) -> None:
            own = targets[at : at + size]
            found = token_statistics(rows[at : at + len(own)], own)
            for i, name in enumerate(TOKEN_STATISTICS):
                out[i, ubatch.start + at + 1 : ubatch.start + at + 1 + len(own)] = found[name]

        with ThreadPoolExecutor(self.n_threads) as pool:
            list(pool.map(work, range(0, len(targets), size)))

    # ----------------------------------------------------------------- report

    def _start(self, block: SharedBlock, layout: Layout, plans: dict[str, Plan]) -> None:
        attention = [
            {
                "part": a.part,
                "layer": a.layer,
                "heads": a.n_heads,
                "kv_heads": a.n_kv_heads,
                "fused": a.fused is not None,
            }
            for capture in self.captures.values()
            for a in capture.attention
        ]
        none = {str(layer): why for plan in plans.values() for layer, why in plan.recurrent.items()}
        layers = {part: self.captures[part].layers for part in plans}
        pieces, kinds = self.llama.pieces(self.ids)
        decoder_pieces, decoder_kinds = self.llama.pieces(self.decoder_ids)
        self.send(
            {
                "kind": "start",
                "pieces": [piece.hex() for piece in pieces],
                "kinds": kinds,
                "decoder_pieces": [piece.hex() for piece in decoder_pieces],
                "decoder_kinds": decoder_kinds,
                "size": block.size,
                "arrays": {name: list(where) for name, where in layout.arrays.items()},
                "attention": attention,
                "without_attention": none,
                "layers": layers,
                "n_threads": self.n_threads,
                "capture": list(self.request["capture"]),
            },
            fd=block.fd,
        )
        block.release()

    def _reduce(self, extent: int | None = None) -> None:
        """Head statistics, thumbnails and the self-check of each layer, sent as soon as they are there."""
        scored = [s for capture in self.captures.values() for s in capture.scored.values()]
        started = time.perf_counter()
        for done, s in enumerate(scored, 1):
            if self.cancelled():
                raise EngineCancelled("the run was stopped; the model can be used again")
            if not s.checked:
                raise CaptureUnavailable(f"no attention arrived from layer {s.where.layer} ({s.where.part})")
            self.send({**self._layer(s, extent), "done": done, "total": len(scored)})
        self.seconds["reduce"] = self.seconds.get("reduce", 0.0) + time.perf_counter() - started

    def _layer(self, s: Scored, extent: int | None) -> dict[str, Any]:
        scoring = s.scoring()
        own = None if s.where.part == "cross" else self._tokens(s.where.part)  # queries and keys are different texts
        tokens = None if own is None else np.asarray(own, np.int32)
        reduced = self.device.reduce((s.where.part, s.where.layer), scoring, tokens, extent)
        reduced = reduced or reduce(scoring, tokens, threads=self.n_threads, extent=extent)
        rows = np.array([row for row, _ in s.checked])
        out = np.stack([output for _, output in s.checked], 1)
        difference = check(scoring, out, rows)
        allowed = max(CHECK_TOLERANCE, HALF_STEP * float(np.sqrt(s.keys)))
        tolerance = allowed * float(np.abs(s.v[:, : s.keys]).max(initial=0))
        wrong = np.flatnonzero(~(difference <= tolerance))
        if len(wrong):
            raise LlamaTelemetryError(
                f"self-check failed: replayed attention of layer {s.where.layer} head {wrong[0]} ({s.where.part}) "
                f"differs from llama.cpp's own output by {difference[wrong[0]]:.3g} "
                f"(allowed {tolerance:.3g}); please report the model"
            )
        mask = scoring.mask
        message: dict[str, Any] = {
            "kind": "layer",
            "layer": s.where.layer,
            "part": s.where.part,
            "scale": s.scale,
            "soft_cap": s.soft_cap,
            "fused": scoring.fused,
            "max_bias": s.max_bias,
            "statistics": np.stack([reduced.statistics[name] for name in STATISTICS], 1).astype(np.float32),
            "thumb_max": reduced.thumb_max,
            "thumb_mean": reduced.thumb_mean,
            "difference": difference.astype(np.float32),
            "tolerance": tolerance,
        }
        if mask is not None:
            message |= _mask_message(mask)
        if scoring.bias is not None:
            message["bias"] = np.asarray(scoring.bias, np.float32)
        if scoring.sinks is not None:
            message["sinks"] = np.asarray(scoring.sinks, np.float32)
        return message

    def _finish(self, logits: Array | None) -> None:
        rows = {name: sorted(at) for capture in self.captures.values() for name, at in capture.rows_of.items()}
        partial = {name: at for name, at in rows.items() if len(at) < self._rows(name)}
        memory = psutil.Process(os.getpid()).memory_info().rss
        self.send(
            {
                "kind": "done",
                "rows": partial,
                "seconds": self.seconds,
                "cpu_seconds": self.cpu,
                "buffers": [*self.llama.buffers, *self._context.buffers],
                "n_ctx": self._context.settings.n_ctx,
                "kept": self.kept,
                "worker_rss": memory,
                "reduced_on": self.device.places,
                "reduced_on_cpu_because": self.device.why,
                "has_logits": logits is not None,
                **self._more(),
            }
        )

    def _more(self) -> dict[str, Any]:
        """What a kind of run adds to its last message."""
        return {}

    def _rows(self, name: str) -> int:
        part = name.split(".")[1]
        return self.captures[part].n_rows if part in self.captures else len(self.ids)

    def _send_differences(self) -> None:
        found = [(part, layer, worst) for c in self.captures.values() for (part, layer), worst in c.differences.items()]
        if not found:
            raise CaptureUnavailable("this model computes no softmax of its own even without flash attention")
        self.send(
            {
                "kind": "done",
                "layers": [[part, layer, worst.shape[1]] for part, layer, worst in found],
                "differences": np.concatenate([worst for _, _, worst in found], axis=1),
            }
        )


def _mask_message(mask: Mask) -> dict[str, Any]:
    message: dict[str, Any] = {
        "mask_first": np.asarray(mask.first, np.int32),
        "mask_stop": np.asarray(mask.stop, np.int32),
        "mask_distance": bool(mask.distance),
    }
    if mask.bits is not None:
        message["mask_bits"] = np.packbits(np.asarray(mask.bits), axis=1)
    return message


def template(llama: Llama, messages: Sequence[dict[str, Any]], bos: str, eos: str) -> str:
    """Chat messages as the model's own template writes them; the template is untrusted and runs sandboxed.

    Raises
    ------
    CaptureUnavailable
        The model has no template, or it fails; the line that failed is named.
    """
    from datetime import datetime

    import jinja2
    import jinja2.sandbox

    source = llama.chat_template()
    if source is None:
        raise CaptureUnavailable("this model has no chat template: give the prompt as a string, without --chat")

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(source).render(
            messages=list(messages), add_generation_prompt=True, bos_token=bos, eos_token=eos
        )
    except Exception as error:  # whatever an untrusted template does
        line = getattr(error, "lineno", None)
        where = f" in line {line}: {source.splitlines()[line - 1].strip()!r}" if line else ""
        raise CaptureUnavailable(
            f"the model's chat template failed{where} ({error}); give the prompt as a string"
        ) from error
