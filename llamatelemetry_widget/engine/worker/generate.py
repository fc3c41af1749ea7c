"""A traced run that goes on: the prompt, then one token after the other, each captured like the prompt's.

The order of messages: those of a run up to its layers (the prompt's), then a ``token`` per token once its row has been
computed, then the layers again at their real length, and ``done``.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as L

from ...errors import CaptureUnavailable, EngineCancelled
from .capture import Capture, Scored, Ubatch
from .graph import Plan
from .llama import Context
from .run import Run
from .sampler import Sampler
from .taps import GraphChanged


class Generate(Run):
    """A request to continue a prompt, while it is carried out.

    The request has, besides what `Run` reads, ``max_tokens`` and ``sampler`` (the settings of `Sampler`). Stopping it
    keeps the tokens that are there.
    """

    def _length(self, part: str) -> int:
        more = self.request["max_tokens"] if part == self._growing else 0
        return super()._length(part) + more

    @property
    def _growing(self) -> str:
        return "decoder" if self.llama.is_encoder_decoder else "self"

    def __call__(self) -> None:
        self._prompt = len(self._tokens(self._growing))
        super().__call__()

    def _prepare(self) -> tuple[Context, dict[str, Plan]]:
        context, plans = super()._prepare()
        plan, part = plans[self._growing], self._growing
        own = [a for a in plan.attention if a.part == part]
        if plan.nodes[-1].ne[0] != self.llama.n_vocab or not all(a.cached for a in own):
            raise CaptureUnavailable("this model writes no text (an encoder): trace a prompt instead")
        self._single = context.plan(part, self._tokens(part), 1)  # there already where rows were kept
        if not self.kept:
            context.clear()
        return context, plans

    def _compute(self, context: Context, plans: dict[str, Plan]) -> Any:
        started = time.perf_counter()
        del self._tokens(self._growing)[self._prompt :]
        logits = super()._compute(context, plans)
        sampler = Sampler(self.llama, self.request["sampler"], self._tokens(self._growing))
        try:
            token = sampler(context)
            self.seconds["first_token"] = time.perf_counter() - started
            if self._growing == "self":
                self._reduce(extent=self._length(self._growing))
            self._continue(context, sampler, token)
        finally:
            sampler.close()
        if logits is not None and len(self._written):
            logits[-1] = context.logits(1)[0]
        return logits

    def _continue(self, context: Context, sampler: Sampler, token: dict[str, Any]) -> None:
        """Decode token after token; each is told once its row is there."""
        part, ids = self._growing, self._tokens(self._growing)
        before = self.captures[part]
        after = self.captures[part] = before.go_on(self._single)
        self._written: list[int] = []
        self.reason = "length"
        self.seconds["decode"] = self.cpu["decode"] = 0.0
        wanted = self.request["max_tokens"]
        for done in range(1, wanted + 1):
            if self.cancelled():
                self.reason = "cancelled"
                break
            if L.llama_vocab_is_eog(self.llama.vocab, token["id"]):
                self.reason = "stop"
                break
            row, started, spent = len(ids), time.perf_counter(), time.process_time()
            ubatch = Ubatch(row, row + 1, (row,))
            try:
                context.run(part, [token["id"]], row, [0], after.taps(ubatch))
            except EngineCancelled:
                self.reason = "cancelled"
                after.forget_from(row)
                break
            except GraphChanged as changed:
                raise CaptureUnavailable(f"llama.cpp builds another graph for every token ({changed})") from changed
            ids.append(token["id"])
            self._written.append(token["id"])
            following = sampler(context)
            seconds, cpu = time.perf_counter() - started, time.process_time() - spent
            self.seconds["decode"] += seconds
            self.cpu["decode"] += cpu
            times = {"seconds": seconds, "cpu_seconds": cpu}
            self.send({"kind": "token", **token, **self._masks(after), **times, "done": done, "total": wanted})
            token = following

    def _masks(self, capture: Capture) -> dict[str, Any]:
        """What the newest row of every layer sees."""
        ends = [_last_row(s) for s in capture.scored.values() if s.where.part == self._growing]
        return {"mask": np.asarray(ends, np.int32).reshape(-1, 2)}

    def _finish(self, logits: Any) -> None:
        self.cancelled = lambda: False  # what was written is kept
        for capture in self.captures.values():
            capture.n_rows = min(capture.n_rows, len(self._tokens(capture.plan.part)))
        super()._finish(logits)

    def _reduce(self, extent: int | None = None) -> None:
        stopped = self.cancelled
        if extent is None:
            self.cancelled = lambda: False
        try:
            super()._reduce(extent)
        finally:
            self.cancelled = stopped

    def _layer(self, s: Scored, extent: int | None) -> dict[str, Any]:
        return {**super()._layer(s, extent), "final": extent is None}

    def _more(self) -> dict[str, Any]:
        return {"reason": self.reason, "prompt": self._prompt}


def _last_row(s: Scored) -> tuple[int, int]:
    """First and stop of the keys that the newest row sees; one row that sees a gap is not drawn while it comes."""
    if not s.masks:
        return 0, s.keys
    mask = s.masks[-1]
    return int(mask.first[-1]), int(mask.stop[-1])
