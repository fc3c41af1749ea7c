"""A text while it is written: its tokens one by one, and the trace that grows with them.

In: a function that does the work and emits events. Out: an iterator of `GeneratedToken`, and a `Trace`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..errors import EngineCancelled
from ..trace import GeneratedToken, RunTelemetry, Trace
from .running import RunningTrace, TraceEvent


class Generation(RunningTrace):
    """Tokens as a model writes them. Made by `Model.generate`; it runs in a thread of its own from the start.

    Iterating waits for each token; an interrupt (Ctrl-C) stops the run. What was written stays in `tokens` and `trace`.

    Attributes
    ----------
    n_max : int
        Tokens of the prompt and of the longest text that was asked for; known once the run has begun, 0 before.

    Examples
    --------
    >>> for token in model.generate("Once upon a time", max_tokens=8):  # doctest: +SKIP
    ...     print(token.text, f"{token.probability:.0%}")
    """

    operation = "generate"

    def __init__(
        self, work: Callable[[Callable[[TraceEvent], None]], Trace], max_tokens: int, model_name: str = ""
    ) -> None:
        self._max_tokens = max_tokens
        self.n_max = 0
        self._written: list[GeneratedToken] = []
        self._growing: Trace | None = None
        self._changed = threading.Condition()
        self._next = 0
        super().__init__(work, model_name)

    def __repr__(self) -> str:
        state = self.finish_reason or ("failed" if self.error else "writing")
        return f"<Generation: {len(self._written)} of {self._max_tokens} tokens · {state} · {self.text!r}>"

    @property
    def trace(self) -> Trace | None:
        """The prompt and all tokens so far; None while the model starts."""
        return self._growing

    @property
    def tokens(self) -> list[GeneratedToken]:
        """All tokens so far."""
        return list(self._written)

    @property
    def text(self) -> str:
        """What was written so far: all tokens' bytes joined, then decoded."""
        return b"".join(token.bytes for token in self._written).decode("utf-8", "replace")

    @property
    def telemetry(self) -> RunTelemetry:
        """What the run cost; empty while it goes on. A run that was stopped has it too, one that failed has none."""
        trace = self._trace
        return RunTelemetry() if trace is None else trace.telemetry

    @property
    def finish_reason(self) -> str | None:
        """``"length"``, ``"stop"`` (the model ended its text), ``"cancelled"``, or None while it goes on."""
        trace = self._trace
        return None if trace is None else str(trace.telemetry["finish_reason"])

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> GeneratedToken:
        try:
            while True:
                with self._changed:
                    if self._next < len(self._written):
                        self._next += 1
                        return self._written[self._next - 1]
                    if not self.done:
                        self._changed.wait(0.1)
                        continue
                if self._next < len(self._written):
                    continue
                if self._error is not None:
                    raise self._error
                raise StopIteration
        except KeyboardInterrupt:
            self.cancel()
            self._thread.join(10)
            raise EngineCancelled("interrupted; what was written is in .text, its trace in .trace") from None

    def _emit(self, event: TraceEvent) -> None:
        with self._changed:
            if event.trace is not None:
                self._growing = event.trace
            if event.kind == "start" and event.trace is not None:
                prompt = event.trace.token_ids if event.trace.decoder is None else event.trace.decoder[0]
                self.n_max = len(prompt) + self._max_tokens
            if event.token is not None:
                self._written.append(event.token)
            self._changed.notify_all()
        super()._emit(event)
