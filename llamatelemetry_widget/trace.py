"""A trace: what one run of a prompt left behind. It loads, replays and saves without a worker or a model file.

In: the arrays and messages of a run, or a file. Out: attention of any head at any stage, head statistics, thumbnails,
hidden states, logits, and where all of it came from.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np

from .analysis.attention import STATISTICS, Mask, Reduced, Scoring, name_head, replay, stages
from .analysis.contributions import Contributions
from .analysis.lens import Lens
from .analysis.quality import compare_rows
from .analysis.tokens import TOKEN_STATISTICS, token_statistics
from .errors import CaptureUnavailable, LlamaTelemetryError

if TYPE_CHECKING:
    import pandas as pd

Array = np.ndarray[Any, Any]
Bytes: TypeAlias = bytes  # where a field has that name
FORMAT = "llamatelemetry-trace-1"
_BLOCK_BYTES = 256_000_000  # of one trace's logits, where two are compared
_SMALL = ("scale", "soft_cap", "fused", "max_bias", "tolerance")  # a layer's scalars


@dataclass(frozen=True)
class LayerFacts:
    """What one layer of the model is, as far as attention goes.

    Attributes
    ----------
    layer : int
    kind : str
        ``"attention"`` or ``"none"``.
    reason : str
        Why there is no attention; empty where there is.
    heads, kv_heads : int
    window : int or None
        Keys that a row sees at most, where that is fewer than the causal mask allows; None = all.
    mask : str
        ``"causal"``, ``"none"`` (every row sees all keys) or ``"other"``.
    """

    layer: int
    kind: str
    reason: str = ""
    heads: int = 0
    kv_heads: int = 0
    window: int | None = None
    mask: str = "causal"

    @property
    def mixer(self) -> str:
        """What brings earlier tokens in: ``"attention"``, ``"recurrence"`` or ``"convolution"``."""
        found = {"recurrent": "recurrence", "convolution": "convolution"}
        return found.get(self.reason.split(" ")[0], "attention")


@dataclass
class AttentionRecord:
    """One layer's attention: what was captured and what was reduced from it."""

    part: str
    layer: int
    heads: int
    kv_heads: int
    scoring: Scoring | None = None
    reduced: Reduced | None = None
    difference: Array | None = None
    tolerance: float = 0.0
    kind: tuple[Scoring, tuple[str, int | None]] | None = None  # of the mask, and the scoring that it was read from


@dataclass(frozen=True)
class GeneratedToken:
    """One token that the model wrote.

    Attributes
    ----------
    id : int
    bytes : bytes
        Exactly what it stands for; a character may be several tokens.
    kind : str
        As in `Trace.token_kinds`.
    position : int
        Its index in the trace.
    probability : float
        The model's own, over its whole vocabulary, before any sampler.
    rank : int
        1 = the most likely.
    entropy : float
        Of that whole distribution, in nats.
    seconds : float
        To compute this token's row (with capture) and to choose the next token.
    cpu_seconds : float or None
        CPU time of all threads of the worker in these seconds; None in traces that were saved without it.
    top : tuple of (int, bytes, float)
        The likeliest tokens: id, bytes, probability.
    """

    id: int
    bytes: bytes
    kind: str
    position: int
    probability: float
    rank: int
    entropy: float
    seconds: float
    top: tuple[tuple[int, Bytes, float], ...] = ()
    cpu_seconds: float | None = None

    @property
    def text(self) -> str:
        """The token as it is shown."""
        return display_token(self.bytes)


class RunTelemetry(TypedDict, total=False):
    """What a run cost: a dict, empty until the run has ended. Runs that write have the last six entries too.

    Attributes
    ----------
    load_seconds : float
        To start the worker and load the model, the last time it did.
    prefill_seconds, prefill_tokens_per_second : float
        The prompt, with capture.
    prefill_threads_used : float or None
        CPU time of all threads of the worker over the prefill's seconds.
    reduce_seconds : float or None
        Head statistics, thumbnails and the check.
    reduced_on : str or None
        Where head statistics and thumbnails were made, as llama.cpp calls it: ``"CPU"``, ``"CUDA0"``, or both; None
        where no attention was captured.
    reduced_on_cpu_because : str
        Only where a device scored attention that the CPU reduced: why.
    total_seconds : float
        From the request to the whole trace, as the kernel sees it.
    n_threads : int
        What llama.cpp was given: CPU affinity or the cgroup's quota, whichever is less.
    memory : list of dict
        llama.cpp's buffers as it reports them: ``owner`` (``"weights"``, ``"kv"``, ``"recurrent"``, ``"compute"``,
        ``"output"``), ``where`` (its name of the device) and ``bytes``; and ``owner`` ``"capture"``, the trace's own
        arrays, in memory that worker and kernel share.
    worker_memory_bytes, kernel_memory_bytes : int
        Resident memory of the two processes at the end of the run.
    context_used, context_size : int
        Tokens in the context, and tokens that the context of this run has room for.
    context_reused : int
        Only in runs that go on from an earlier one: tokens whose keys and values were there and not computed again.
    overhead : dict
        Only after `Trace.measure_overhead`.
    first_token_seconds : float
        From the request to the choice of the first token.
    decode_seconds, decode_tokens_per_second : float
        All tokens after the first choice, with capture; None where none was written.
    decode_threads_used : float or None
        CPU time of all threads of the worker over the decode's seconds.
    between_tokens : dict
        Seconds between two tokens' choices: ``p50``, ``p95``, ``p99``. Each is in `Trace.generation`.
    finish_reason : str
        ``"length"``, ``"stop"`` or ``"cancelled"``.
    """

    load_seconds: float
    prefill_seconds: float
    prefill_tokens_per_second: float | None
    prefill_threads_used: float | None
    reduce_seconds: float | None
    reduced_on: str | None
    reduced_on_cpu_because: str
    total_seconds: float
    n_threads: int
    memory: list[dict[str, Any]]
    worker_memory_bytes: int
    kernel_memory_bytes: int
    context_used: int
    context_size: int
    context_reused: int
    overhead: dict[str, Any]
    first_token_seconds: float
    decode_seconds: float
    decode_tokens_per_second: float | None
    decode_threads_used: float | None
    between_tokens: dict[str, float]
    finish_reason: str


@dataclass
class Trace:
    """What one prompt run left behind. Made by `Model.trace` or `load_trace`, not by hand.

    Attributes
    ----------
    token_ids : ndarray of int32, shape (n,)
    token_bytes : list of bytes
        Exactly what each token stands for.
    token_kinds : list of str
        ``"normal"``, ``"control"``, ``"byte"``, ``"unknown"``, ``"user"`` or ``"unused"``.
    info : dict
        Model name, file, hash, architecture, quant type, llama.cpp version, date, settings, threads, device.
    telemetry : RunTelemetry
        What the run cost: seconds, tokens per second, threads, memory by owner.
    layers : list of LayerFacts
        One per captured layer, in order.
    """

    token_ids: Array
    token_bytes: list[bytes]
    token_kinds: list[str]
    info: dict[str, Any]
    decoder: tuple[Array, list[bytes], list[str]] | None = None
    telemetry: RunTelemetry = field(default_factory=lambda: RunTelemetry())
    _attention: dict[tuple[str, int], AttentionRecord] = field(default_factory=dict, repr=False)
    _without: dict[int, str] = field(default_factory=dict, repr=False)
    _part_layers: dict[str, list[int]] = field(default_factory=dict, repr=False)
    _arrays: dict[str, Array] = field(default_factory=dict, repr=False)
    _rows: dict[str, list[int]] = field(default_factory=dict, repr=False)
    _generated: list[GeneratedToken] = field(default_factory=list, repr=False)
    _ask: Callable[[Trace, str, dict[str, Any]], Any] | None = field(default=None, repr=False, compare=False)
    _lenses: dict[str, Lens] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"<Trace: {self.provenance}>"

    # ------------------------------------------------------------------ tokens

    @property
    def tokens(self) -> list[str]:
        """Tokens as they are shown: ``·`` leading space, ``␣`` only spaces, ``⏎`` newline, ``<0xE2>`` no text."""
        return [display_token(piece) for piece in self.token_bytes]

    @property
    def text(self) -> str:
        """The prompt: all tokens' bytes joined, then decoded."""
        return b"".join(self.token_bytes).decode("utf-8", "replace")

    @property
    def token_stats(self) -> pd.DataFrame:
        """What the model thought of each token, over its whole vocabulary.

        Without kept logits (``logits="all"``) the model runs the prompt once more, the first time this is asked; the
        result stays in the trace and is saved with it.

        Returns
        -------
        DataFrame
            One row per token (of the decoder, in encoder-decoders): ``token``, its ``probability`` after those before
            it, ``loss`` = -ln of that (nats), ``entropy`` of the distribution that it was drawn from (nats), ``rank``
            (1 = the most likely). The first token has none: NaN.

        Raises
        ------
        CaptureUnavailable
            The model gives no logits (an encoder), or it is closed and the trace holds none.
        """
        import pandas as pd

        tokens = self.tokens if self.decoder is None else [display_token(piece) for piece in self.decoder[1]]
        values = dict(zip(TOKEN_STATISTICS, self._token_statistics(), strict=True))
        frame: pd.DataFrame = pd.DataFrame({"token": tokens, **values})
        return frame

    def _token_statistics(self) -> Array:
        """float32 (statistics, n)."""
        if "token_stats" not in self._arrays:
            logits = self.logits
            ids = self.token_ids if self.decoder is None else self.decoder[0]
            if len(logits) == len(ids):
                self._arrays["token_stats"] = _token_statistics(logits, ids)
            else:
                self._arrays["token_stats"] = self._asked("token_stats", {}, "trace with logits='all'")
        return self._arrays["token_stats"]

    def divergence(self, other: Trace) -> pd.DataFrame:
        """How much another trace of the same tokens surprises this one: another model file, quant type or KV cache.

        Both prompts run again, once per block of logits (256 MB each), where the logits were not kept.

        Parameters
        ----------
        other : Trace
            Of the same tokens, with the same vocabulary.

        Returns
        -------
        DataFrame
            One row per token (of the decoder, in encoder-decoders): ``token``, ``kl`` = D(this || other) of the
            distributions that it was drawn from (nats), ``same_top`` (both found the same token likeliest). The first
            token has none: NaN and <NA>.

        Raises
        ------
        CaptureUnavailable
            Other tokens or another vocabulary, no logits (an encoder), or a model is closed and kept none.
        """
        import pandas as pd

        ids, theirs = (own.token_ids if own.decoder is None else own.decoder[0] for own in (self, other))
        if ids.tolist() != theirs.tolist() or self.token_ids.tolist() != other.token_ids.tolist():
            raise CaptureUnavailable("these traces are of different tokens: trace the same text with both models")
        words = self.logits.shape[1]
        if words != other.logits.shape[1]:
            raise CaptureUnavailable(f"vocabularies of {words} and {other.logits.shape[1]} words cannot be compared")
        size, last = max(1, _BLOCK_BYTES // (4 * words)), len(ids) - 1
        kl, same = np.full(len(ids), np.nan, np.float32), np.zeros(len(ids), bool)
        for at in range(0, last, size):
            rows = slice(at, min(at + size, last))
            p, q = self._some_logits(rows), other._some_logits(rows)
            step = max(1, (1 << 17) // words)  # pieces that fit the cache
            for first in range(0, len(p), step):
                part, to = slice(first, first + step), slice(at + first + 1, at + min(first + step, len(p)) + 1)
                found = compare_rows(p[part], q[part])
                kl[to], same[to] = found.kl, found.same_top
        pieces = self.tokens if self.decoder is None else [display_token(piece) for piece in self.decoder[1]]
        frame: pd.DataFrame = pd.DataFrame({"token": pieces, "kl": kl, "same_top": pd.array(same, "boolean")})
        frame.loc[0, "same_top"] = pd.NA
        return frame

    def _some_logits(self, rows: slice) -> Array:
        """float32 (rows, vocab): kept ones, or those of another run."""
        kept = self.logits
        n = len(self.token_ids if self.decoder is None else self.decoder[0])
        if len(kept) == n:
            return kept[rows]
        asked: Array = self._asked("logits", {"logit_rows": [rows.start, rows.stop]}, "trace with logits='all'")
        return asked

    def _asked(self, what: str, arguments: dict[str, Any], instead: str) -> Any:
        """What only a run of the model can tell."""
        if self._ask is None:
            raise CaptureUnavailable(
                f"this trace has no model that could run it again, and {what} was not kept: "
                f"look at it before you save a trace, or {instead}"
            )
        return self._ask(self, what, arguments)

    def lens(self, k: int = 5, layers: Sequence[int] | None = None, positions: Sequence[int] | None = None) -> Lens:
        """The logit lens: the model's own final norm and output matrix, applied to the stream after every layer.

        Where the trace holds the streams (with ``logits="all"``, or for the last token), they are read; else the model
        runs the prompt once more for it. Nothing of the size of the vocabulary is kept. An interrupt stops it.

        Parameters
        ----------
        k : int
            Likeliest words kept.
        layers : sequence of int, optional
            All by default; -1 is the embedding.
        positions : sequence of int, optional
            Tokens; all by default.

        Returns
        -------
        Lens

        Raises
        ------
        CaptureUnavailable
            The trace has no model, or its model ends in another way (an encoder, an output on a device).

        References
        ----------
        nostalgebraist: interpreting GPT: the logit lens, 2020.
        """
        return self._lens(k, layers, positions)

    def _lens(
        self,
        k: int,
        layers: Sequence[int] | None,
        positions: Sequence[int] | None,
        heard: Callable[[int, int], None] | None = None,
    ) -> Lens:
        """As `lens`; `heard` is told how much of how much is read, else a bar may show it."""
        rows = [-1, *self._part_layers.get("self", [])] if layers is None else [int(layer) for layer in layers]
        n = len(self.token_ids)
        where = list(range(n)) if positions is None else [int(p) % n if -n <= p < n else int(p) for p in positions]
        outside = [p for p in where if not 0 <= p < n]
        if outside:
            raise CaptureUnavailable(f"token {outside[0]} does not exist: the trace has tokens 0 to {n - 1}")
        key = json.dumps([k, rows, where])
        if key not in self._lenses:
            arguments = {"k": int(k), "rows": rows, "positions": where, "heard": heard}
            self._lenses[key] = self._asked("lens", arguments, "keep the model open")
        return self._lenses[key]

    def contributions(self, token: int | None = None, position: int = -1, against: int | None = None) -> Contributions:
        """Direct logit attribution: what the embedding, every head and every MLP adds to the logit of a next token.

        Parameters
        ----------
        token : int, optional
            The next token, by id; the model's likeliest by default.
        position : int
            The token after which it is predicted. Others than the last need a trace with ``logits="all"``.
        against : int, optional
            Another token: the parts are then those of the difference of the two logits.

        Returns
        -------
        Contributions
            The parts add up to the logit. The final norm is frozen at this run's.

        Raises
        ------
        CaptureUnavailable
            What is needed was not captured (hidden states, outputs, attention), or the model ends in another way.
        """
        n = len(self.token_ids)
        at = position + n if position < 0 else position
        logits = self.logits
        if not 0 <= at < n or (len(logits) != n and at != n - 1):
            raise CaptureUnavailable(
                f"this trace holds no logits after token {position}: it has those of the last token, "
                f"or of tokens 0 to {n - 1} with logits='all'"
            )
        row = logits[at] if len(logits) == n else logits[-1]
        words = [int(row.argmax()) if token is None else int(token), *([] if against is None else [int(against)])]
        outside = [word for word in words if not 0 <= word < len(row)]
        if outside:
            raise CaptureUnavailable(f"token id {outside[0]} is outside the vocabulary of {len(row)} tokens")
        arguments = {"words": words, "position": at, "logits": [float(row[word]) for word in words]}
        found: Contributions = self._asked("contributions", arguments, "keep the model open")
        return found

    @property
    def generation(self) -> pd.DataFrame:
        """The tokens that the model wrote, one row each; empty where it wrote none.

        Returns
        -------
        DataFrame
            ``position``, ``id``, ``token``, ``probability``, ``rank``, ``entropy`` (nats), ``seconds``,
            ``cpu_seconds``: see `GeneratedToken`.
        """
        import pandas as pd

        columns = ["position", "id", "token", "probability", "rank", "entropy", "seconds", "cpu_seconds"]
        values = ["text" if name == "token" else name for name in columns]
        rows = [[getattr(token, name) for name in values] for token in list(self._generated)]
        frame: pd.DataFrame = pd.DataFrame(rows, columns=columns)
        return frame

    def measure_overhead(self, repeats: int = 3) -> dict[str, Any]:
        """What capture adds to the run: the same tokens with it and without, in turns, as often as asked for.

        The result also stays in ``telemetry["overhead"]``, beside the run's own times, which have capture in them.

        Parameters
        ----------
        repeats : int
            Runs of either kind; the medians are compared.

        Returns
        -------
        dict
            ``repeats``, ``prefill_seconds``, ``plain_prefill_seconds``, their quotient ``prefill_ratio``; for texts
            that the model wrote also ``decode_seconds``, ``plain_decode_seconds``, ``decode_ratio``.

        Raises
        ------
        CaptureUnavailable
            The trace has no model that could run it again.
        """
        found: dict[str, Any] = self._asked("overhead", {"repeats": max(1, int(repeats))}, "keep the model open")
        self.telemetry["overhead"] = found
        return found

    def part_tokens(self, part: str | None = None) -> tuple[list[str], list[str]]:
        """Display strings of a part's query tokens and of its key tokens."""
        part = self._part(part)
        own = self.tokens
        if self.decoder is None or part == "encoder":
            return own, own
        target = [display_token(piece) for piece in self.decoder[1]]
        return target, (own if part == "cross" else target)

    # --------------------------------------------------------------- attention

    @property
    def parts(self) -> tuple[str, ...]:
        """Which attentions there are: ``("self",)``, or ``("encoder", "decoder", "cross")`` in an encoder-decoder."""
        found = {part for part, _ in self._attention}
        return tuple(p for p in ("self", "encoder", "decoder", "cross") if p in found)

    @property
    def layers(self) -> list[LayerFacts]:
        """One entry per captured layer of the first part, in order."""
        return self.layers_of(None)

    def layers_of(self, part: str | None) -> list[LayerFacts]:
        """One entry per captured layer of a part, in order."""
        part = self._part(part)
        own = self._part_layers.get("decoder" if part == "cross" else part, [])
        return [self._facts(part, layer) for layer in own]

    def _facts(self, part: str, layer: int) -> LayerFacts:
        record = self._attention.get((part, layer))
        if record is None:
            return LayerFacts(layer, "none", self._without.get(layer, "no attention captured in this layer"))
        kind, window = self._mask_kind(record)
        return LayerFacts(layer, "attention", "", record.heads, record.kv_heads, window, kind)

    def _mask_kind(self, record: AttentionRecord) -> tuple[str, int | None]:
        """Kind and window of a layer's mask, read once: many ask, and of all layers at a time."""
        if record.scoring is None:
            return _mask_kind(None, record)
        if record.kind is None or record.kind[0] is not record.scoring:
            record.kind = record.scoring, _mask_kind(record.scoring.mask, record)
        return record.kind[1]

    def attention(
        self, layer: int, head: int, stage: str = "softmax", rows: slice | None = None, part: str | None = None
    ) -> Array:
        """One head's attention at one stage, replayed from the measured q and k.

        Parameters
        ----------
        layer, head : int
            Counted from 0.
        stage : str
            One of `stages`: ``"scores"`` (q.k), ``"scaled"``, ``"capped"``, ``"biased"``, ``"masked"``, ``"softmax"``.
        rows : slice, optional
            Query tokens; all by default.
        part : str, optional
            One of `parts`; the first by default.

        Returns
        -------
        ndarray of float32, shape (rows, n)
            Masked cells are -inf at stage ``"masked"`` and 0 at ``"softmax"``.

        Raises
        ------
        CaptureUnavailable
            This layer has no attention, or it was not captured; the layers that have are named.
        """
        scoring = self.scoring(layer, part)
        heads = int(scoring.q.shape[0])
        if not 0 <= _whole("head", head) < heads:
            raise CaptureUnavailable(f"head {head} does not exist: layer {layer} has heads 0 to {heads - 1}")
        if stage not in stages(scoring):
            raise CaptureUnavailable(
                f"stage {stage!r} does not exist in layer {layer}: it has {', '.join(stages(scoring))}"
            )
        return np.asarray(replay(scoring, head, stage, slice(None) if rows is None else rows), np.float32)

    def scoring(self, layer: int, part: str | None = None) -> Scoring:
        """What llama.cpp's scoring operation read in this layer: q, k, v, mask, scale and the rest."""
        record = self._record(layer, part)
        if record.scoring is None:
            raise CaptureUnavailable(f"layer {layer} has not arrived yet")
        return record.scoring

    def stages(self, layer: int, part: str | None = None) -> tuple[str, ...]:
        """Names of the stages that exist in this layer, in order."""
        return stages(self.scoring(layer, part))

    def mask(self, layer: int, part: str | None = None) -> Mask | None:
        """Which keys each row may see; None where every row sees all."""
        return self.scoring(layer, part).mask

    def layer_reduced(self, layer: int, part: str | None = None) -> Reduced:
        """Statistics and thumbnails of all heads of a layer."""
        record = self._record(layer, part)
        if record.reduced is None:
            raise CaptureUnavailable(f"layer {layer} has not arrived yet")
        return record.reduced

    def arrived(self, layer: int, part: str | None = None) -> bool:
        """Whether a layer's statistics and thumbnails are there (False while the run goes on)."""
        record = self._attention.get((self._part(part), layer))
        return record is not None and record.reduced is not None

    @property
    def head_stats(self) -> pd.DataFrame:
        """One row per (part, layer, head): statistics of `analysis.attention`, and a name where the score is clear."""
        import pandas as pd

        rows = []
        for record in self._arrived():
            reduced = record.reduced
            assert reduced is not None
            for head in range(record.heads):
                values = {name: float(reduced.statistics[name][head]) for name in STATISTICS}
                group = head // max(record.heads // max(record.kv_heads, 1), 1)
                own = {"part": record.part, "layer": record.layer, "head": head, "kv_head": group}
                rows.append({**own, **values, "name": name_head(values)})
        columns = ["part", "layer", "head", "kv_head", *STATISTICS, "name"]
        frame: pd.DataFrame = pd.DataFrame(rows, columns=columns)
        return frame

    @property
    def thumbnails(self) -> Array:
        """uint8 (layers with attention, heads, side, side) of the first part, max-pooled, log-coded; 0 = nothing.

        Code c >= 1 stands for ``10 ** (-4 * (255 - c) / 254)``; `analysis.attention.decode_thumbnail` does it.
        """
        part = self._part(None)
        found = [r for r in self._arrived() if r.part == part and r.reduced is not None]
        if not found:
            return np.zeros((0, 0, 0, 0), np.uint8)
        shape = np.max([r.reduced.thumb_max.shape for r in found if r.reduced is not None], axis=0)
        out = np.zeros((len(found), *shape), np.uint8)
        for i, record in enumerate(found):
            assert record.reduced is not None
            thumb = record.reduced.thumb_max
            out[i, : thumb.shape[0], : thumb.shape[1], : thumb.shape[2]] = thumb
        return out

    @property
    def check(self) -> pd.DataFrame:
        """The run's check of itself: replayed p v against the attention output that llama.cpp wrote, for some rows.

        Returns
        -------
        DataFrame
            One row per (part, layer, head): ``max_difference`` and the ``tolerance`` it had to keep.
        """
        import pandas as pd

        rows = [
            {"part": r.part, "layer": r.layer, "head": h, "max_difference": float(d), "tolerance": r.tolerance}
            for r in self._arrived()
            if r.difference is not None
            for h, d in enumerate(r.difference)
        ]
        columns = ["part", "layer", "head", "max_difference", "tolerance"]
        frame: pd.DataFrame = pd.DataFrame(rows, columns=columns)
        return frame

    def _arrived(self) -> list[AttentionRecord]:
        return [record for record in self._attention.values() if record.reduced is not None]

    def _part(self, part: str | None) -> str:
        if part is None:
            return self.parts[0] if self.parts else "self"
        if part not in self.parts:
            raise CaptureUnavailable(
                f"part {part!r} does not exist in this trace: it has {', '.join(self.parts) or 'none'}"
            )
        return part

    def _record(self, layer: int, part: str | None) -> AttentionRecord:
        key = self._part(part), _whole("layer", layer)
        if key in self._attention:
            return self._attention[key]
        having = [have for p, have in self._attention if p == key[0]]
        reason = self._without.get(layer, "not captured, or no such layer")
        others = (
            f"attention was captured in layers {_ranges(having)}" if having else "no layer of this trace has attention"
        )
        raise CaptureUnavailable(f"layer {layer} has no attention here ({reason}); {others}")

    # ---------------------------------------------------------- other captures

    def hidden(self, layer: int, part: str | None = None) -> Array:
        """The residual stream after a layer.

        Returns
        -------
        ndarray of float32, shape (n, width)
            llama.cpp computes the last layer only for the rows whose logits were asked for: with ``logits="last"`` that
            layer gives one row. Where a model keeps several streams at once (Gemma 3n), it is the first.
        """
        return self._stream("hidden", layer, part)

    def attention_out(self, layer: int, part: str | None = None) -> Array:
        """float32 (n, width): what a layer's attention (or recurrence) adds to the residual stream."""
        return self._stream("attention_out", layer, part)

    def mlp_out(self, layer: int, part: str | None = None) -> Array:
        """float32 (n, width): what a layer's MLP adds to the residual stream."""
        return self._stream("mlp_out", layer, part)

    def _stream(self, kind: str, layer: int, part: str | None) -> Array:
        if part is None:
            part = next(iter(self._part_layers), "self")
        name = f"{kind}.{part}.{layer}"
        if name not in self._arrays:
            having = sorted(int(n.split(".")[2]) for n in self._arrays if n.startswith(f"{kind}.{part}."))
            there = (
                f"layers {_ranges(having)} have it" if having else f"capture it with capture=(…, {_CAPTURE_OF[kind]!r})"
            )
            raise CaptureUnavailable(f"{kind} of layer {layer} is not in this trace; {there}")
        rows = self._rows.get(name)
        return self._arrays[name] if rows is None else self._arrays[name][rows]

    @property
    def logits(self) -> Array:
        """float32 (n, vocab), or (1, vocab) of the last token when only that row was asked for."""
        if "logits" not in self._arrays:
            raise CaptureUnavailable("this model gives no logits (an encoder), so there are none in the trace")
        return self._arrays["logits"]

    @property
    def experts(self) -> dict[int, tuple[Array, Array]]:
        """Per layer with experts: ids int32 (n, used) and their weights float32 (n, used); empty without experts.

        A weight is what llama.cpp multiplied the expert's output with, NaN where it multiplies with none. Which tokens
        the rows are: `expert_tokens`. Nothing is there before the run has ended.
        """
        if not self.telemetry:
            return {}
        layers = sorted(int(name.split(".")[1]) for name in self._arrays if name.startswith("expert_ids."))
        found = {}
        for layer in layers:
            rows = self._rows.get(f"expert_ids.{layer}", slice(None))
            ids, weights = self._arrays[f"expert_ids.{layer}"], self._arrays.get(f"expert_weights.{layer}")
            weights = np.full(ids.shape, np.nan, np.float32) if weights is None else weights
            found[layer] = ids[rows], weights[rows]
        return found

    def expert_tokens(self, layer: int) -> Array:
        """int32 (n,): the tokens that the rows of ``experts[layer]`` stand for.

        All, except in the last layer: llama.cpp computes it only for the tokens whose logits were asked for.
        """
        if f"expert_ids.{layer}" not in self._arrays:
            having = _ranges(list(self.experts))
            others = f"layers {having} have" if having else "no layer of this trace has"
            raise CaptureUnavailable(f"layer {layer} has no experts here; {others}")
        return np.asarray(self._rows.get(f"expert_ids.{layer}", range(len(self.token_ids))), np.int32)

    # -------------------------------------------------------------- provenance

    @property
    def provenance(self) -> str:
        """Where the numbers come from, in one line."""
        threads = self.info.get("n_threads")
        model = " ".join(str(x) for x in (self.info.get("model"), self.info.get("quant_type")) if x)
        device = self.info.get("device", "CPU") + (
            f", {threads} thread{'' if threads == 1 else 's'}" if threads else ""
        )
        verb = "replayed from measured q, k" if self._attention else "measured in llama.cpp"
        if self._attention and all(record.difference is not None for record in self._attention.values()):
            verb += " · checked"  # only once every layer's check has been made
        n = len(self.token_ids)
        return f"{verb} · {model} · {n} token{'' if n == 1 else 's'} · {device}"

    # ------------------------------------------------------------- keep, load

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace to a safetensors file, whole or not at all.

        Everything that needs no model works after `load_trace`. The file's metadata hold the model's file name and
        SHA-256 (where the file is still there), quant type, llama.cpp version, settings and prompt.
        """
        from safetensors.numpy import save_file

        target = Path(path)
        arrays: dict[str, Array] = {f"array.{name}": np.ascontiguousarray(a) for name, a in self._arrays.items()}
        arrays["token_ids"] = self.token_ids
        for record in self._attention.values():
            arrays |= _record_arrays(record)
        if self.decoder is not None:
            arrays["decoder_ids"] = self.decoder[0]
        temporary = target.with_name(target.name + ".partial")
        try:
            save_file(arrays, temporary, {"format": FORMAT, "trace": json.dumps(self._metadata())})
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def _metadata(self) -> dict[str, Any]:
        records = [
            {
                "part": r.part,
                "layer": r.layer,
                "heads": r.heads,
                "kv_heads": r.kv_heads,
                "tolerance": r.tolerance,
                **({} if r.scoring is None else {k: getattr(r.scoring, k) for k in _SMALL if k != "tolerance"}),
                "mask_distance": bool(r.scoring and r.scoring.mask and r.scoring.mask.distance),
            }
            for r in self._attention.values()
        ]
        decoder = (
            None if self.decoder is None else {"bytes": [b.hex() for b in self.decoder[1]], "kinds": self.decoder[2]}
        )
        return {
            "info": {**self.info, "sha256": self.info.get("sha256") or _sha256(self.info)},
            "telemetry": self.telemetry,
            "bytes": [piece.hex() for piece in self.token_bytes],
            "kinds": self.token_kinds,
            "decoder": decoder,
            "attention": records,
            "without": {str(k): v for k, v in self._without.items()},
            "part_layers": self._part_layers,
            "rows": self._rows,
            "generated": [
                {**asdict(t), "bytes": t.bytes.hex(), "top": [[i, piece.hex(), p] for i, piece, p in t.top]}
                for t in self._generated
            ],
        }


_CAPTURE_OF = {"hidden": "hidden", "attention_out": "outputs", "mlp_out": "outputs"}


def load_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a trace that `Trace.save` wrote; neither model nor worker is needed.

    Raises
    ------
    LlamaTelemetryError
        The file is no trace, or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise LlamaTelemetryError(f"{path} is no trace of this version (format {metadata.get('format')!r})")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return _from_file(json.loads(metadata["trace"]), arrays)
    except FileNotFoundError as error:
        raise LlamaTelemetryError(f"no trace at {path}: check the path") from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise LlamaTelemetryError(f"{path} is no readable trace ({error}); make it again with Trace.save") from error


def _from_file(stored: dict[str, Any], arrays: dict[str, Array]) -> Trace:
    kept = {name[6:]: array for name, array in arrays.items() if name.startswith("array.")}
    decoder = stored["decoder"]
    trace = Trace(
        arrays["token_ids"],
        [bytes.fromhex(piece) for piece in stored["bytes"]],
        stored["kinds"],
        stored["info"],
        None
        if decoder is None
        else (arrays["decoder_ids"], [bytes.fromhex(b) for b in decoder["bytes"]], decoder["kinds"]),
        stored["telemetry"],
        _without={int(k): v for k, v in stored["without"].items()},
        _part_layers=stored["part_layers"],
        _arrays=kept,
        _rows=stored["rows"],
        _generated=[_generated_token(own) for own in stored["generated"]],
    )
    for facts in stored["attention"]:
        name = f"{facts['part']}.{facts['layer']}"
        own = {key.split("|")[1]: array for key, array in arrays.items() if key.startswith(f"{name}|")}
        record = AttentionRecord(facts["part"], facts["layer"], facts["heads"], facts["kv_heads"])
        fill_record(record, {**facts, **own}, kept)
        trace._attention[record.part, record.layer] = record
    return trace


def _generated_token(stored: dict[str, Any]) -> GeneratedToken:
    top = tuple((int(i), bytes.fromhex(piece), float(p)) for i, piece, p in stored["top"])
    return GeneratedToken(**{**stored, "bytes": bytes.fromhex(stored["bytes"]), "top": top})


def _token_statistics(logits: Array, ids: Array) -> Array:
    """float32 (statistics, n) from the logits of all tokens, a block of rows at a time."""
    out = np.full((len(TOKEN_STATISTICS), len(ids)), np.nan, np.float32)
    size = max(1, (1 << 22) // logits.shape[1])
    for at in range(0, len(ids) - 1, size):
        stop = min(at + size, len(ids) - 1)
        found = token_statistics(logits[at:stop], ids[at + 1 : stop + 1])
        out[:, at + 1 : stop + 1] = np.stack([found[name] for name in TOKEN_STATISTICS])
    return out


def _record_arrays(record: AttentionRecord) -> dict[str, Array]:
    """The small arrays of an attention layer, under names of their own."""
    if record.scoring is None or record.reduced is None or record.difference is None:
        return {}
    found: dict[str, Array] = {
        "statistics": np.stack([record.reduced.statistics[name] for name in STATISTICS], 1),
        "thumb_max": record.reduced.thumb_max,
        "thumb_mean": record.reduced.thumb_mean,
        "difference": record.difference,
    }
    mask, s = record.scoring.mask, record.scoring
    if mask is not None:
        found |= {"mask_first": mask.first, "mask_stop": mask.stop}
        if mask.bits is not None:
            found["mask_bits"] = np.packbits(mask.bits, axis=1)
    found |= {name: getattr(s, name) for name in ("bias", "sinks") if getattr(s, name) is not None}
    return {f"{record.part}.{record.layer}|{name}": np.ascontiguousarray(a) for name, a in found.items()}


def fill_record(record: AttentionRecord, message: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Complete a record with what the worker (or a file) says of its layer.

    Parameters
    ----------
    record : AttentionRecord
    message : mapping
        The worker's ``layer`` message.
    arrays : mapping of str to ndarray
        The trace's arrays: ``q.PART.LAYER`` and so on.
    """
    name = f"{record.part}.{record.layer}"
    q, k, v = (arrays[f"{x}.{name}"] for x in "qkv")
    mask = None
    if "mask_first" in message:
        bits = message.get("mask_bits")
        mask = Mask(
            first=message["mask_first"],
            stop=message["mask_stop"],
            bits=None if bits is None else np.unpackbits(bits, axis=1, count=k.shape[1]).astype(bool),
            distance=message["mask_distance"],
        )
    record.scoring = Scoring(
        q=q,
        k=k,
        v=v,
        mask=mask,
        scale=message["scale"],
        soft_cap=message["soft_cap"],
        fused=message["fused"],
        max_bias=message["max_bias"],
        bias=message.get("bias"),
        sinks=message.get("sinks"),
    )
    statistics = message["statistics"]
    record.reduced = Reduced(
        statistics={key: statistics[:, i] for i, key in enumerate(STATISTICS)},
        thumb_max=message["thumb_max"],
        thumb_mean=message["thumb_mean"],
    )
    record.difference, record.tolerance = message["difference"], message["tolerance"]


def display_token(piece: bytes) -> str:
    """A token as it is shown: spaces and newlines visible, bytes that are no text as ``<0xE2>``.

    Examples
    --------
    >>> display_token(b" lamp"), display_token(b"  "), display_token(bytes([0xE2, 0x80]))
    ('·lamp', '␣␣', '<0xE2><0x80>')
    """
    out, rest = "", piece
    while rest:
        try:
            out, rest = out + rest.decode("utf-8"), b""
        except UnicodeDecodeError as bad:
            out += rest[: bad.start].decode("utf-8") + "".join(f"<0x{b:02X}>" for b in rest[bad.start : bad.end])
            rest = rest[bad.end :]
    if out and not out.strip(" "):
        return "␣" * len(out)
    if out.startswith(" "):
        out = "·" + out[1:]
    shown = out.replace("\r", "⇤").replace("\n", "⏎").replace("\t", "⇥")
    return "".join(c if c.isprintable() or c == " " else f"<U+{ord(c):04X}>" for c in shown)


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None


def _mask_kind(mask: Mask | None, record: AttentionRecord) -> tuple[str, int | None]:
    """``causal``, ``none`` or ``other``, and the window where rows see fewer keys than that."""
    if mask is None:
        return "none", None
    first, stop = np.asarray(mask.first), np.asarray(mask.stop)
    keys = int(record.scoring.k.shape[1]) if record.scoring is not None else int(stop.max(initial=0))
    if mask.bits is not None:
        return "other", None
    if (first == 0).all() and (stop == keys).all() and keys > 1:
        return "none", None
    causal = bool((np.diff(stop) == 1).all()) and int(stop[-1]) == keys
    window = int((stop - first).max()) if (first > 0).any() else None
    return ("causal" if causal else "other"), window


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers as ranges: ``0-3, 7``."""
    out: list[list[int]] = []
    for n in sorted(set(numbers)):
        if out and n == out[-1][1] + 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in out)


def _sha256(info: Mapping[str, Any]) -> str | None:
    """Hash of the model file, while it is the file that ran (same size and time)."""
    try:
        path = Path(info["path"])
        state = path.stat()
        if [state.st_size, state.st_mtime_ns] != info.get("file_state"):
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)
    except (OSError, KeyError):
        return None


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
