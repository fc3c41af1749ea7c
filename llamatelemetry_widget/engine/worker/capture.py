"""What one traced run copies out of the graph, and where it puts it.

In: a `Plan` of the graph, the number of tokens, what was asked for. Out: the taps for each ubatch, the arrays they fill
(one shared block, laid out before the run), and per attention layer a `Scoring` that replays it.
"""

from __future__ import annotations

import ctypes as C
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...analysis.attention import Mask, Scoring, replay
from ...errors import CaptureUnavailable, LlamaTelemetryError
from ..wire import SharedBlock
from . import ggml
from .device import Key, OnDevice
from .ggml import Tensor
from .graph import Attention, Plan
from .taps import Tap

Array = np.ndarray[Any, Any]
CHECKED_ROWS = 4  # rows per ubatch whose attention output is kept for the self-check


@dataclass(frozen=True)
class Ubatch:
    """The rows that one call of llama.cpp computes: ``start:stop`` of the prompt, and which of them give logits."""

    start: int
    stop: int
    outputs: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.stop - self.start


@dataclass
class Scored:
    """One attention layer while it is captured."""

    where: Attention
    q: Array
    k: Array
    v: Array
    masks: list[Mask] = field(default_factory=list)
    biases: list[Array] = field(default_factory=list)
    sinks: Array | None = None
    scale: float = 1.0
    soft_cap: float = 0.0
    capped_first: bool = True  # unfused: the cap stands before the scale
    after: float = 1.0  # the softmax's own scale, which a bias is multiplied with too
    max_bias: float = 0.0
    checked: list[tuple[int, Array]] = field(default_factory=list)  # row, llama.cpp's output (heads, value size)
    rows: int = 0  # rows that have arrived
    keys: int = 0  # keys that have arrived

    def scoring(self, rows: slice | None = None, mask: Mask | None = None) -> Scoring:
        """What has arrived (or some rows of it), as analysis reads it."""
        if mask is None and self.masks:
            mask = Mask.join(self.masks)
        bias = self.after * np.concatenate([_widened(b, self.keys) for b in self.biases], 1) if self.biases else None
        return Scoring(
            q=self.q[:, : self.rows] if rows is None else self.q[:, rows],
            k=self.k[:, : self.keys],
            v=self.v[:, : self.keys],
            mask=mask,
            scale=self.scale,
            soft_cap=self.soft_cap,
            fused=self.where.fused is not None or not self.capped_first,
            max_bias=self.max_bias,
            bias=bias if rows is None or bias is None else bias[:, -(rows.stop - rows.start) :],
            sinks=self.sinks,
        )


class Layout:
    """Where each array lies in the shared block."""

    def __init__(self) -> None:
        self.size = 0
        self.arrays: dict[str, tuple[int, str, tuple[int, ...]]] = {}

    def add(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        self.arrays[name] = (self.size, dtype, shape)
        self.size += -(-int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize // 64) * 64

    def merge(self, other: Layout) -> None:
        for name, (_, dtype, shape) in other.arrays.items():
            self.add(name, dtype, shape)


class Capture:
    """Everything that is copied out of one part (self, encoder, decoder) of a traced run.

    Parameters
    ----------
    plan : Plan
        Of the part's graph.
    n_rows : int
        Tokens of this part.
    n_keys : dict of str to int
        Keys that each attention part sees, e.g. the encoder's tokens for ``"cross"``.
    layers : collection of int
        Which layers to copy.
    what : collection of str
        Any of ``"attention"``, ``"hidden"``, ``"outputs"``, ``"experts"``.
    verify : bool
        Compare every softmax with its replay, as it is computed.
    device : OnDevice, optional
        Keeps what a GPU scored where it lies, besides the copies.
    """

    def __init__(
        self,
        plan: Plan,
        n_rows: int,
        n_keys: dict[str, int],
        layers: Collection[int],
        what: Collection[str],
        verify: bool = False,
        device: OnDevice | None = None,
    ) -> None:
        self.plan, self.n_rows, self.n_keys, self.what = plan, n_rows, n_keys, what
        self.layers = list(layers)
        self.attention = [a for a in plan.attention if a.layer in self.layers] if "attention" in what else []
        self.differences: dict[Key, Array] = {}  # (scores, softmax) x heads
        self.scored: dict[Key, Scored] = {}
        self.rows_of: dict[str, list[int]] = {}
        self._verify, self._device = verify, device
        self._masks: dict[int, Mask] = {}
        self._arrays: dict[str, Array] = {}

    # ------------------------------------------------------------ memory

    def layout(self) -> Layout:
        """Names, types and shapes of the arrays of this part."""
        made, n, width = Layout(), self.n_rows, self.plan.width
        for a in self.attention:
            dtype, keys, name = "<f2" if a.k_type == ggml.F16 else "<f4", self.n_keys[a.part], f"{a.part}.{a.layer}"
            made.add(f"q.{name}", dtype, (a.n_heads, n, a.head_size))
            made.add(f"k.{name}", dtype, (a.n_kv_heads, keys, a.head_size))
            made.add(f"v.{name}", dtype, (a.n_kv_heads, keys, a.value_size))
        for kind, nodes in self._streams():
            for layer in nodes:
                made.add(f"{kind}.{self.plan.part}.{layer}", "<f4", (n, width))
        if "experts" in self.what:
            for layer, (ids, weights) in self._chosen().items():
                used = self._used(ids)
                made.add(f"expert_ids.{layer}", "<i4", (n, used))
                if weights is not None:
                    made.add(f"expert_weights.{layer}", "<f4", (n, used))
        return made

    def place(self, block: SharedBlock, layout: Layout) -> None:
        """Take the arrays from the block."""
        self._arrays = {name: block.array(*where) for name, where in layout.arrays.items()}
        for a in self.attention:
            name = f"{a.part}.{a.layer}"
            q, k, v = (self._arrays[f"{x}.{name}"] for x in "qkv")
            self.scored[a.part, a.layer] = Scored(a, q, k, v)

    def go_on(self, plan: Plan) -> Capture:
        """The same arrays and all that has arrived, for further rows whose graph has another plan."""
        other = Capture(plan, self.n_rows, self.n_keys, self.layers, self.what, self._verify, self._device)
        other._arrays, other.rows_of = self._arrays, self.rows_of
        other.scored = {(a.part, a.layer): replace(self.scored[a.part, a.layer], where=a) for a in other.attention}
        return other

    def forget_from(self, row: int) -> None:
        """Drop what a run that was stopped left of its rows: ``row`` and later ones."""
        for s in self.scored.values():
            s.rows = min(s.rows, row)
            s.keys = min(s.keys, row) if s.where.cached else s.keys
            s.checked = [(at, output) for at, output in s.checked if at < row]
            while sum(mask.rows for mask in s.masks) > row:
                s.masks.pop()
            while sum(bias.shape[1] for bias in s.biases) > row:
                s.biases.pop()
        for rows in self.rows_of.values():
            rows[:] = [at for at in rows if at < row]

    def _streams(self) -> list[tuple[str, dict[int, list[int]]]]:
        residual = {layer: [index] for layer, index in self.plan.residual.items()}
        wanted = [("hidden", residual)] if "hidden" in self.what else []
        if "outputs" in self.what:
            wanted += [("attention_out", self.plan.attention_out), ("mlp_out", self.plan.mlp_out)]
        return [(kind, {k: v for k, v in nodes.items() if k in self.layers}) for kind, nodes in wanted]

    def _chosen(self) -> dict[int, tuple[int, int | None]]:
        return {layer: nodes for layer, nodes in self.plan.experts.items() if layer in self.layers}

    def _used(self, ids: int) -> int:
        source = self.plan.nodes[ids].src[2]
        if source is None:
            raise LlamaTelemetryError(f"node {self.plan.nodes[ids].name} looks up experts without ids")
        return source.ne[0]

    # -------------------------------------------------------------- taps

    def taps(self, ubatch: Ubatch) -> list[Tap]:
        """What to stop at while `ubatch` is computed."""
        self._masks = {}  # addresses are used again by the next graph
        found: list[Tap] = []
        for scored in self.scored.values():
            found += self._attention_taps(scored, ubatch)
        for kind, nodes in self._streams():
            for layer, indices in nodes.items():
                for order, index in enumerate(indices):
                    name, several = f"{kind}.{self.plan.part}.{layer}", layer in self.plan.streams_first
                    found.append(self._tap(index, self._stream(name, ubatch, several, order > 0)))
        if "experts" in self.what:
            for layer, (ids, weights) in self._chosen().items():
                found.append(self._tap(ids, self._expert(f"expert_ids.{layer}", 2, ubatch)))
                if weights is not None:
                    found.append(self._tap(weights, self._expert(f"expert_weights.{layer}", 1, ubatch)))
        return found

    def _tap(self, index: int, act: Callable[[Tensor], None]) -> Tap:
        return Tap(self.plan.nodes[index], act)

    def _stream(self, name: str, ubatch: Ubatch, streams_first: bool, add: bool) -> Callable[[Tensor], None]:
        out = self._arrays[name]

        def act(tensor: Tensor) -> None:
            rows = _one_stream(ggml.read(tensor)[0], streams_first)
            at = list(range(ubatch.start, ubatch.stop) if len(rows) == ubatch.rows else ubatch.outputs)
            if len(rows) != len(at):
                raise LlamaTelemetryError(f"{name} has {len(rows)} rows where {len(at)} were expected")
            if not len(at):
                return
            if add:
                out[at] += rows
            else:
                out[at] = rows
                self.rows_of.setdefault(name, []).extend(at)

        return act

    def _expert(self, name: str, source: int, ubatch: Ubatch) -> Callable[[Tensor], None]:
        out = self._arrays[name]

        def act(tensor: Tensor) -> None:
            rows = ggml.read(ggml.at(tensor.src[source])).reshape(-1, out.shape[1])
            at = list(range(ubatch.start, ubatch.stop) if len(rows) == ubatch.rows else ubatch.outputs)
            if len(at):
                out[at] = rows
                self.rows_of.setdefault(name, []).extend(at)

        return act

    # ---------------------------------------------------------- attention

    def _attention_taps(self, s: Scored, ubatch: Ubatch) -> list[Tap]:
        where = s.where
        if where.fused is not None:
            return [self._tap(where.fused, lambda t: self._read_fused(s, t, ubatch))]
        taps = [
            self._tap(_index(where.product), lambda t: self._read_product(s, t, ubatch)),
            self._tap(_index(where.softmax), lambda t: self._read_softmax(s, t, ubatch)),
            self._tap(_index(where.output), lambda t: self._read_output(s, t, ubatch)),
        ]
        if where.bias is not None:
            taps.append(self._tap(where.bias, lambda t: s.biases.append(_source(t, 1))))
        return taps

    def _read_fused(self, s: Scored, node: Tensor, ubatch: Ubatch) -> None:
        s.scale, s.max_bias, s.soft_cap = ggml.params(node, 3)
        self._queries(s, ggml.at(node.src[0]), ggml.at(node.src[1]), ubatch)
        self._keys(s, ggml.at(node.src[1]), ggml.at(node.src[2]), 1, ubatch)
        self._mask(s, node, 3, ubatch)
        s.sinks = _source(node, 4).ravel() if node.src[4] else None
        for row in _spread(ubatch.rows):
            out = ggml.read(node, 2, row, row + 1)  # (1, 1, heads, value size)
            s.checked.append((ubatch.start + row, out[0, 0].astype(np.float32)))

    def _read_product(self, s: Scored, node: Tensor, ubatch: Ubatch) -> None:
        """q and k, before the softmax overwrites its input."""
        self._queries(s, ggml.at(node.src[1]), ggml.at(node.src[0]), ubatch)
        k, (start, stop) = ggml.at(node.src[0]), self._range(s, ubatch)
        s.k[:, start:stop] = ggml.read(k, 1, start, stop)[0]
        s.keys = stop
        if self._verify:
            self._compare_scores(s, node, ubatch)

    def _read_softmax(self, s: Scored, node: Tensor, ubatch: Ubatch) -> None:
        _unfused_formula(s, node)
        self._mask(s, node, 1, ubatch)
        s.sinks = _source(node, 2).ravel() if node.src[2] else None
        if self._verify:
            self._compare(s, node, ubatch)

    def _read_output(self, s: Scored, node: Tensor, ubatch: Ubatch) -> None:
        v, (start, stop) = ggml.at(node.src[0]), self._range(s, ubatch)
        s.v[:, start:stop] = ggml.read(v, 0, start, stop)[0].swapaxes(1, 2)
        for row in _spread(ubatch.rows):
            out = ggml.read(node, 1, row, row + 1)  # (1, heads, 1, value size)
            s.checked.append((ubatch.start + row, out[0, :, 0].astype(np.float32)))

    def _queries(self, s: Scored, q: Tensor, k: Tensor, ubatch: Ubatch) -> None:
        rows = ggml.read(q)[0].astype(np.float32)
        k_type, s.rows = int(k.type), ubatch.stop
        if k_type not in (ggml.F16, ggml.F32) and not ggml.on_host(k):
            s.q[:, ubatch.start : ubatch.stop] = rows  # other backends expand such keys instead of rounding q
        else:
            s.q[:, ubatch.start : ubatch.stop] = ggml.round_like(rows, k_type)
        if self._device is not None:
            key, keys = (s.where.part, s.where.layer), self._range(s, ubatch)[1]
            self._device.keep(key, s.q, q, k, ubatch.start, keys)

    def _keys(self, s: Scored, k: Tensor, v: Tensor, axis: int, ubatch: Ubatch) -> None:
        start, stop = self._range(s, ubatch)
        s.k[:, start:stop] = ggml.read(k, axis, start, stop)[0]
        s.v[:, start:stop] = ggml.read(v, axis, start, stop)[0]
        s.keys = stop

    def _range(self, s: Scored, ubatch: Ubatch) -> tuple[int, int]:
        """Which keys are new: the ubatch's own where they come from a cache, else all that there are."""
        return (ubatch.start, ubatch.stop) if s.where.cached else (0, self.n_keys[s.where.part])

    def _mask(self, s: Scored, node: Tensor, source: int, ubatch: Ubatch) -> None:
        """What each row may see. All layers of a kind share one tensor, so each is read once per ubatch."""
        if not node.src[source]:
            return
        address = int(node.src[source])
        if address not in self._masks:
            values = ggml.read(ggml.at(address)).astype(np.float32)[0, 0]
            keys = ubatch.stop if s.where.cached else self.n_keys[s.where.part]
            if np.isfinite(values[: ubatch.rows, keys:]).any():
                raise LlamaTelemetryError(
                    f"layer {s.where.layer} sees keys beyond the {keys} tokens of the prompt: the cache is not in order"
                )
            self._masks[address] = Mask.from_values(values[: ubatch.rows, :keys], ubatch.start)
        s.masks.append(self._masks[address])

    def _compare(self, s: Scored, node: Tensor, ubatch: Ubatch) -> None:
        """Largest |difference| per head between llama.cpp's own softmax and its replay."""
        own = ggml.read(node)[0][:, : ubatch.rows, : s.keys]
        scoring = s.scoring(slice(ubatch.start, ubatch.stop), s.masks[-1] if s.masks else None)
        worst = self._differences_of(s, 1)
        for head in range(len(own)):
            worst[head] = max(worst[head], float(np.abs(replay(scoring, head) - own[head]).max()))

    def _compare_scores(self, s: Scored, node: Tensor, ubatch: Ubatch) -> None:
        """The same of q k^T, as a share of the head's largest score; future keys are in it too."""
        own = ggml.read(node)[0][:, : ubatch.rows, : s.keys]
        scoring = replace(s, masks=[], biases=[]).scoring(slice(ubatch.start, ubatch.stop))
        worst = self._differences_of(s, 0)
        for head in range(len(own)):
            largest = float(np.abs(own[head]).max()) or 1.0
            difference = float(np.abs(replay(scoring, head, "scores") - own[head]).max())
            worst[head] = max(worst[head], difference / largest)

    def _differences_of(self, s: Scored, row: int) -> Array:
        key = s.where.part, s.where.layer
        row_of: Array = self.differences.setdefault(key, np.zeros((2, len(s.q)), np.float32))[row]
        return row_of


def _unfused_formula(s: Scored, node: Tensor) -> None:
    """Scale and soft cap from the operations between product and softmax.

    SCALE a, TANH, SCALE c, then the softmax's own scale b is ``b * c * tanh(a * q.k)``: either a * c or b is 1 in every
    model there is, which are the two forms that `Scoring` knows.
    """
    steps: list[tuple[str, float]] = []
    at = ggml.at(node.src[0])
    while (op := ggml.op_name(at.op)) != "MUL_MAT":
        if op == "SCALE":
            steps.append((op, ggml.params(at, 1)[0]))
        elif op == "UNARY":
            name = bytes(ggml.unary_name(ggml.unary_op(_address(at)))).decode()
            if name != "TANH":
                raise CaptureUnavailable(f"layer {s.where.layer} passes its scores through {name}: no replay of that")
            steps.append((op, 0.0))
        at = ggml.at(at.src[0])
    steps.reverse()
    after, s.max_bias = ggml.params(node, 2)
    tanh = next((i for i, (op, _) in enumerate(steps) if op == "UNARY"), None)
    if tanh is None:
        s.scale = after * float(np.prod([value for _, value in steps]))
        s.after = after
        return
    before = float(np.prod([value for _, value in steps[:tanh]]))
    s.soft_cap = float(np.prod([value for _, value in steps[tanh + 1 :]]))
    inner = before * s.soft_cap
    s.capped_first = abs(inner - 1) < 1e-6
    s.scale = after if s.capped_first else inner
    if not s.capped_first and abs(after - 1) > 1e-6:
        raise CaptureUnavailable(f"layer {s.where.layer} scales its scores before and after the soft cap")


def _one_stream(values: Array, streams_first: bool) -> Array:
    """(rows, width) of the residual stream; where a model keeps several at once, of the first.

    `values` has axes (rows, streams, width) where `streams_first`, ggml's order, else (streams, rows, width).
    """
    return values[:, 0] if streams_first else values[0]


def _address(tensor: Tensor) -> int:
    return C.addressof(tensor)


def _source(node: Tensor, i: int) -> Array:
    values: Array = ggml.read(ggml.at(node.src[i]))[0].astype(np.float32)
    return values


def _widened(bias: Array, keys: int) -> Array:
    """A position bias for `keys` keys: padding cut off; what an earlier ubatch did not see is masked there anyway."""
    cut = bias[:, :, :keys]
    return np.pad(cut, ((0, 0), (0, 0), (0, keys - cut.shape[2])))


def _index(index: int | None) -> int:
    if index is None:
        raise LlamaTelemetryError("an attention without its product, softmax or output was planned")
    return index


def _spread(rows: int) -> list[int]:
    """A few rows of a ubatch, the last among them."""
    return sorted({int(r) for r in np.linspace(0, rows - 1, CHECKED_ROWS)}) if rows else []
