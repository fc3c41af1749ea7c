"""What the browser side of a layer lens is told about a trace.

In: a `Trace`, and the times of its layers where somebody measured them. Out: the trait `facts` (plain JSON), one number
per layer and measure, the lens of any tokens, the push on a word; what was read once stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis import streams
from ..errors import CaptureUnavailable
from ..trace import Trace, display_token
from .attention_facts import day, details, kinds

if TYPE_CHECKING:
    from ..engine.operators import OperatorGraph

Array = np.ndarray[Any, Any]

TOP = 5  # words kept per cell
EMBEDDING = -1  # the row before the first layer
MEASURES = ("residual", "attention", "mlp", "cosine", "outliers")
_NAMED = 3  # outlier dimensions named per layer


class Streams:
    """What the layers do to the residual stream: medians over the tokens, the first left out (it is the sink).

    Attributes
    ----------
    table : float32 (measures, layers)
        `MEASURES`; NaN where the trace does not hold what it takes.
    named : list of list of (int, float)
        Per layer its largest outlier dimensions, and how many times the median dimension they are.
    """

    def __init__(self, trace: Trace, layers: Sequence[int]) -> None:
        self.table = np.full((len(MEASURES), len(layers)), np.nan, np.float32)
        self.named: list[list[tuple[int, float]]] = []
        before = _before_first(trace)
        for at, layer in enumerate(layers):
            rows = _rows(trace.hidden, layer)
            added = [_rows(part, layer) for part in (trace.attention_out, trace.mlp_out)]
            self.table[:3, at] = [np.nan if own is None else _median(streams.norms(own)) for own in (rows, *added)]
            if rows is not None and before is not None:
                shared = min(len(rows), len(before))  # llama.cpp computes the last layer for the last tokens only
                self.table[3, at] = _median(streams.cosines(before[-shared:], rows[-shared:]))
            large = [] if rows is None else streams.outliers(rows[1:] if len(rows) > 1 else rows)
            self.table[4, at] = np.nan if rows is None else len(large)
            self.named.append(large[:_NAMED])
            before = rows


def _rows(read: Any, layer: int) -> Array | None:
    try:
        rows: Array = read(layer)
    except CaptureUnavailable:
        return None
    return rows if len(rows) else None


def _before_first(trace: Trace) -> Array | None:
    """float32 (n, width): what the first layer starts from."""
    parts = [_rows(read, 0) for read in (trace.hidden, trace.attention_out, trace.mlp_out)]
    if any(part is None or len(part) != len(trace.token_ids) for part in parts):
        return None
    stream, attention, mlp = parts
    assert stream is not None and attention is not None and mlp is not None
    return np.asarray(stream - attention - mlp)


def _median(values: Array) -> float:
    return float(np.median(values[1:] if len(values) > 1 else values))


class Reading:
    """The lens of a trace's tokens, read as they are asked for.

    Attributes
    ----------
    layers : list of int
        Its rows, from the embedding to the output; empty before anything was read.
    known : bool (n,)
        Which tokens were read.
    words : dict of int to str
        How the words of the cells are shown.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace, self._lock = trace, Lock()
        self.layers: list[int] = []
        self.known = np.zeros(len(trace.token_ids), bool)
        self.words: dict[int, str] = {}

    def read(self, positions: Iterable[int], heard: Callable[[int, int], None] | None = None) -> None:
        """Read what is not here yet of these tokens; `heard` is told how much of how much is done."""
        with self._lock:
            missing = [p for p in positions if not self.known[p]]
            if missing:
                self._store(self._trace._lens(TOP, None, missing, heard))

    def _store(self, lens: Any) -> None:
        at, n = np.asarray(lens.positions, np.int64), len(self.known)
        if not self.layers:
            rows, k = lens.ids.shape[0], lens.ids.shape[2]
            self.layers = [int(layer) for layer in lens.layers]
            self._ids = np.zeros((n, rows, k), np.int32)
            self._probabilities = np.zeros((n, rows, k), np.float32)
            self._entropy = np.zeros((n, rows), np.float32)
            self._kl = np.zeros((n, rows), np.float32)
            self._final = np.zeros(n, np.int32)
            self._final_probability = np.zeros((n, rows), np.float32)
            self._final_rank = np.zeros((n, rows), np.int32)
        self._ids[at] = lens.ids.swapaxes(0, 1)
        self._probabilities[at] = lens.probabilities.swapaxes(0, 1)
        self._entropy[at] = lens.entropy.T
        self._kl[at] = lens.kl.T
        self._final[at] = lens.final_ids
        self._final_probability[at] = lens.final_probability.T
        self._final_rank[at] = lens.final_rank.T
        self.words |= {int(word): display_token(piece) for word, piece in lens.pieces.items()}
        self.known[at] = True

    @property
    def bytes_each(self) -> int:
        """What one token takes on its way to the browser."""
        return 4 + sum(own[0].nbytes for own in self.arrays([0])) if self.layers else 1

    def arrays(self, positions: Sequence[int]) -> list[Array]:
        """Tokens' cells, each's behind one another: ids, probabilities, entropy, final probability, rank, KL, final."""
        if not self.layers:
            return [np.zeros((0, 0), np.float32)] * 7
        cells = (self._ids, self._probabilities, self._entropy, self._final_probability, self._final_rank, self._kl)
        return [own[list(positions)] for own in (*cells, self._final)]

    def words_of(self, positions: Sequence[int]) -> dict[str, str]:
        """The words that stand in these tokens' cells."""
        ids, *_, final = self.arrays(positions)
        return {str(word): self.words[word] for word in {*ids.ravel().tolist(), *final.tolist()}}

    def final(self, position: int) -> int:
        """The model's own answer after a token."""
        self.read([position])
        return int(self._final[position])


def facts(trace: Trace, reading: Reading, named: Streams, times: OperatorGraph | None) -> dict[str, Any]:
    """The trait `facts`."""
    layers = layers_of(trace)
    rows = reading.layers or [EMBEDDING, *layers]
    heads = {own.layer: own.heads for own in trace.layers}
    mixers = {own.layer: own.mixer for own in trace.layers}
    return {
        "title": "Layer lens",
        "model": str(trace.info.get("model") or ""),
        "provenance": _provenance(trace),
        "details": details(trace),
        "live": True,
        "saved": day(trace),
        "tokens": trace.tokens,
        "kinds": kinds(trace, "self") if "self" in trace.parts else list(trace.token_kinds),
        "rows": rows,
        "layers": [
            {
                "layer": layer,
                "heads": heads.get(layer, 0),
                "mixer": mixers[layer],
                "outliers": [[d, round(x, 1)] for d, x in large],
            }
            for layer, large in zip(layers, named.named, strict=True)
        ],
        "measures": list(MEASURES),
        "n_words": _n_words(trace),
        "every_logit": _n_words(trace) > 0 and len(trace.logits) == len(trace.token_ids),
        "times": _times(times, layers),
        "message": _message(trace),
    }


def layers_of(trace: Trace) -> list[int]:
    """Layers of the trace, in order."""
    return [own.layer for own in trace.layers]


def _n_words(trace: Trace) -> int:
    try:
        return int(trace.logits.shape[1])
    except CaptureUnavailable:
        return 0


def _message(trace: Trace) -> str:
    """Why there is nothing to read; empty where there is something."""
    if trace.decoder is not None or "encoder" in trace.parts:
        return "The lens reads models with one stack of layers; this one has an encoder."
    return "" if _n_words(trace) else "This model gives no logits, so no layer can be read as a next token."


def _provenance(trace: Trace) -> str:
    """Where the numbers come from. The lens is computed, not replayed."""
    kept = [part for part in trace.provenance.split(" · ")[1:] if part != "checked"]
    return " · ".join(["computed by llama.cpp", *kept])


def _times(times: OperatorGraph | None, layers: Sequence[int]) -> dict[str, Any] | None:
    """Milliseconds per layer, where somebody measured them."""
    if times is None:
        return None
    table = times.layers.dropna(subset=["layer"])
    own = {int(layer): float(s) * 1000 for layer, s in zip(table["layer"], table["seconds"], strict=True) if s == s}
    if not own:
        return None
    return {"ms": [own.get(layer) for layer in layers], "repeats": int(times.info.get("repeats") or 0)}
