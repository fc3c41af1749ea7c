"""What a tour reads of a model's run on one prompt: one head of one layer from the stream to the stream, and its MLP.

In: a `Model` and token ids. Out: a `Reading`: the trace, the chosen head, and rows of llama.cpp's own operations for
the last token, each under the name of its role. Operations are chosen by the weights that they read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.lens import Lens
from ..errors import CaptureUnavailable
from ..trace import Trace

if TYPE_CHECKING:
    from ..model import Model

Array = np.ndarray[Any, Any]

_THROUGH = {"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE", "CONT", "CPY", "CAST"}
_NORMS = {"NORM", "RMS_NORM"}
_PRODUCTS = {"MUL_MAT", "MUL_MAT_ID"}
_TOP = 5  # words of the lens


@dataclass(frozen=True)
class Rotation:
    """One rotary operation on the last token's heads.

    Attributes
    ----------
    before, after : float32 (heads, d)
        Rows of the last token.
    pairs : int (pairs, 2)
        Which numbers turn together.
    base, factor : float
        Of the angles: pair i of p turns by ``position * factor * base ** (-i / p)``.
    plain : bool
        False where the model bends that formula (YaRN, factors of its own): then only what was measured counts.
    """

    before: Array
    after: Array
    pairs: Array
    base: float
    factor: float
    plain: bool

    def angles(self, head: int) -> Array:
        """float (pairs,): by how much each pair of a head turned, in radians from -pi to pi."""
        (x, y), (u, v) = (own[head][self.pairs].astype(np.float64).T for own in (self.before, self.after))
        return np.asarray(np.arctan2(x * v - y * u, x * u + y * v))


@dataclass(frozen=True)
class Reading:
    """Everything that a tour states.

    Attributes
    ----------
    model : Model
    trace : Trace
    part : str or None
        Of the trace, which the tour walks through; None where the model has no attention.
    layer : int
        The layer that is looked at.
    head, key : int
        The head, and the token that its last row looks at; -1 where there is no attention.
    rows : dict of str to ndarray
        float32 rows of the last token by role: see `_roles`.
    ops : dict of str to str
        What the operation of a role is called.
    rotations : dict of str to Rotation
        ``"q"`` and ``"k"`` where the model rotates.
    turns : bool
        The layer has a rotary operation.
    parallel : bool
        The MLP reads what attention reads.
    other : int or None
        A layer without attention that keeps something else of earlier tokens.
    lens : Lens or None
        Of the last token.
    """

    model: Model
    trace: Trace
    part: str | None
    layer: int
    head: int
    key: int
    rows: dict[str, Array]
    ops: dict[str, str]
    rotations: dict[str, Rotation]
    turns: bool
    parallel: bool
    other: int | None
    lens: Lens | None

    @property
    def tokens(self) -> list[str]:
        """Of the part that the tour walks through."""
        return self.trace.part_tokens(self.part)[0] if self.part else self.trace.tokens

    def row(self, role: str) -> Array | None:
        """float32 (width,) of a role; None where this model has none."""
        found = self.rows.get(role)
        return None if found is None else np.asarray(found, np.float32).reshape(-1)


def read(model: Model, ids: Sequence[int]) -> Reading:
    """Run the prompt with everything captured, choose a head, and read what surrounds it.

    Raises
    ------
    CaptureUnavailable, EngineCrashed
    """
    trace = model.trace(list(ids))
    decoder = [] if trace.decoder is None else trace.decoder[0].tolist()
    part = trace.parts[0] if trace.parts else None
    layer, head, key = _chosen(trace, part)
    parts = {own["part"]: Operations(own) for own in model.graph(list(ids), repeats=0)._parts}
    name = part if part is not None and part in parts else next(iter(parts))
    own, last = parts[name], list(parts)[-1]
    roles = {role: (name, *where) for role, where in own.roles(layer).items()}
    other = _without(trace, layer, part)
    if other is not None:
        roles |= {role: (name, *where) for role, where in own.recurrence(other).items()}
    roles |= {role: (last, *where) for role, where in parts[last].ending().items()}
    found = model._values(list(ids), decoder, list(roles.values()))
    rows = {role: np.asarray(value, np.float32)[0] for role, (value, _) in zip(roles, found, strict=True)}
    ops = {role: parts[part_].title(index) for role, (part_, index, _) in roles.items()}
    rotations = {
        x: _rotation(rows[f"{x}_before"][0], rows[f"{x}_after"][0], params, own.bent(roles[f"{x}_after"][1]))
        for role, (_, params) in zip(roles, found, strict=True)
        for x in "qk"
        if role == f"{x}_after"
    }
    return Reading(
        model,
        trace,
        part,
        layer,
        head,
        key,
        rows,
        ops,
        rotations,
        own.turns(layer),
        own.parallel(layer),
        other,
        _lens(trace),
    )


def _without(trace: Trace, layer: int, part: str | None) -> int | None:
    """A layer with a memory instead of attention: the one that is looked at, else the first."""
    if part is None:
        return layer
    found = [own.layer for own in trace.layers if own.reason.startswith(("recurrent", "convolution"))]
    return found[0] if found else None


def _chosen(trace: Trace, part: str | None) -> tuple[int, int, int]:
    """The head whose last row puts the most weight on a token that is neither the first nor itself."""
    n_layers = len(trace.layers)
    there = [own.layer for own in trace.layers_of(part) if own.kind == "attention"] if part else []
    if not there:
        return min(n_layers // 2, max(n_layers - 2, 0)), -1, -1
    inner = [layer for layer in there if layer < n_layers - 1] or there  # llama.cpp computes the last one for one row
    best = (-1.0, there[0], 0, 0)
    for layer in inner:
        scoring = trace.scoring(layer, part)
        n = scoring.rows
        for head in range(scoring.heads):
            row = trace.attention(layer, head, rows=slice(n - 1, n), part=part)[0]
            between = row[1 : n - 1] if n > 2 else row[:1]
            at = int(between.argmax())
            best = max(best, (float(between[at]), layer, head, at + (n > 2)))
    return best[1:]


def _lens(trace: Trace) -> Lens | None:
    try:
        return trace.lens(k=_TOP, positions=[-1])
    except CaptureUnavailable:  # an encoder, an encoder-decoder
        return None


def _rotation(before: Array, after: Array, params: Array, bent: bool) -> Rotation:
    """ggml's parameters: int32 places 1 and 2 are the turned numbers and the mode, float32 5 to 8 the formula's."""
    size, mode = int(params[1]), int(params[2])
    base, factor, mix, _ = params.view(np.float32)[5:9].tolist()
    half = np.arange(size // 2)
    pairs = np.stack([half, half + size // 2] if mode & 2 else [2 * half, 2 * half + 1], 1)
    return Rotation(before, after, pairs, base, factor, mix == 0 and not bent and mode in (0, 2))


class Operations:
    """One part of an operator graph, to be asked for what does what.

    Parameters
    ----------
    part : dict
        As the worker describes it.
    """

    def __init__(self, part: dict[str, Any]) -> None:
        self.nodes: list[list[Any]] = part["nodes"]
        self.sources: list[list[int | str]] = [[] for _ in self.nodes]
        for source, target, _ in part["edges"]:
            self.sources[target].append(source)

    def title(self, at: int) -> str:
        """What llama.cpp and ggml call an operation."""
        return f"{self.nodes[at][0]} {self.nodes[at][1]}"

    def roles(self, layer: int) -> dict[str, tuple[int, int]]:
        """Where the roles of a layer stand: index and axis of tokens.

        ``start`` (what the first layer reads), ``embedding``, ``position`` (a learned one), ``stream`` and ``normed``
        (before and after the norm, without its weights), ``read`` (what attention or recurrence multiplies),
        ``post`` and ``post_normed`` (what attention gives before and after a norm of its own), ``q_before``,
        ``q_after``, ``k_before``, ``k_after`` (rotary); of the MLP ``mlp_read``, ``router``,
        ``gate``, ``up``, ``act``, ``down``.
        """
        found = {**self._beginning(), **self._mixing(layer), **self._rotary(layer), **self._mlp(layer)}
        return {role: (at, self._axis(role, at)) for role, at in found.items() if at is not None}

    def recurrence(self, layer: int) -> dict[str, tuple[int, int]]:
        """Of a layer without attention: ``inner`` (its first product), ``conv``, ``state`` (what it keeps)."""
        own = self._layer(layer)
        conv = next((i for i in own if self.nodes[i][1] == "SSM_CONV"), None)
        found = {"inner": self._first_product(layer), "conv": conv, "state": self._state(layer, own)}
        return {role: (at, self._axis(role, at)) for role, at in found.items() if at is not None}

    def ending(self) -> dict[str, tuple[int, int]]:
        """Where ``final`` stands: what the output matrix multiplies; nothing where there is none."""
        product = next(
            (i for i in reversed(range(len(self.nodes))) if self._reads(i, r"^(output|token_embd)\.weight$")), None
        )
        if product is None or self.nodes[product][1] != "MUL_MAT":
            return {}
        return {"final": (self._activation(product), 1)}

    def parallel(self, layer: int) -> bool:
        """Whether the MLP reads the very stream that attention reads, not the sum of both."""
        one, two = self._first_product(layer), self._mlp_product(layer)
        if one is None or two is None or one == two:
            return False
        return self._before_norm(self._activation(one)) == self._before_norm(self._activation(two))

    def turns(self, layer: int) -> bool:
        """Whether a layer has a rotary operation."""
        return any(self.nodes[i][1] == "ROPE" for i in self._layer(layer))

    def bent(self, rope: int) -> bool:
        """Whether a rotary operation has factors of its own for its pairs."""
        return len(self.sources[rope]) > 2

    # ------------------------------------------------------------------------- roles

    def _beginning(self) -> dict[str, int | None]:
        looked_up = [i for i, node in enumerate(self.nodes) if node[1] == "GET_ROWS"]
        first = self._first_product(0)
        return {
            "embedding": next((i for i in looked_up if self._reads(i, r"^token_embd\.weight$")), None),
            "position": next((i for i in looked_up if self._reads(i, r"^position_embd\.weight$")), None),
            "start": None if first is None else self._before_norm(self._activation(first)),
        }

    def _mixing(self, layer: int) -> dict[str, int | None]:
        product = self._first_product(layer)
        if product is None:
            return {}
        read = self._activation(product)
        norm = self._norm_of(read)
        after = next((i for i in self._layer(layer) if self._reads(i, r"\.post_attention_norm\.weight$")), None)
        post = None if after is None else self._norm_of(after)
        ends = {} if post is None else {"post": self._activation(post), "post_normed": after}
        return {"read": read, "normed": norm, "stream": self._before_norm(read), **ends}

    def _rotary(self, layer: int) -> dict[str, int | None]:
        ropes = [i for i in self._layer(layer) if self.nodes[i][1] == "ROPE"]
        made = {"q": r"attn_(q|q_b|qkv)\.weight$", "k": r"attn_(k|kv_a_mqa|kv_b|qkv)\.weight$"}
        found: dict[str, int | None] = {}
        for x, weight in made.items():
            own = [i for i in ropes if self._comes_from(i, weight)]
            at = next((i for i in own if x.upper() in str(self.nodes[i][0]).upper()[:2]), own[0] if own else None)
            if at is not None:
                source = self.sources[at][0]
                found |= {f"{x}_after": at, f"{x}_before": source if isinstance(source, int) else None}
        whole = all(found.get(role) is not None for role in ("q_before", "k_before"))
        return found if whole else {}

    def _mlp(self, layer: int) -> dict[str, int | None]:
        first, down = self._mlp_product(layer), self._by_weight(layer, r"(ffn_down(_exps)?|channel_mix_value)")
        if first is None or down is None:
            return {}
        weights = {"gate": r"ffn_gate(_exps)?", "up": r"(ffn_up(_exps)?|channel_mix_key)"}
        named = {name: self._by_weight(layer, weight) for name, weight in weights.items()}
        router = self._by_weight(layer, "ffn_gate_inp")
        found = {name: None if at is None else self._with_bias(at) for name, at in named.items()}
        act = self._back(self._activation(down))
        return {
            **found,
            "mlp_read": self._activation(first),
            "router": None if router is None else self._with_bias(router),
            "act": act,
            "down": self._with_bias(down),
        }

    # ------------------------------------------------------------------------ walking

    def _axis(self, role: str, at: int) -> int:
        """ggml's axis of tokens: heads and chosen experts lie before it."""
        if role == "state":
            return 3
        op, shape = self.nodes[at][1], self.nodes[at][2]
        return 2 if op in ("ROPE", "MUL_MAT_ID", "ADD_ID") or role.endswith("_before") or shape[2] > 1 else 1

    def _layer(self, layer: int) -> range:
        """Operations from the first to the last that reads a weight of a layer."""
        own = [i for i in range(len(self.nodes)) if self._reads(i, rf"\bblk\.{layer}\.")]
        return range(own[0], own[-1] + 1) if own else range(0)

    def _reads(self, at: int, leaf: str) -> bool:
        return any(isinstance(source, str) and re.search(leaf, source) for source in self.sources[at])

    def _by_weight(self, layer: int, name: str) -> int | None:
        wanted = rf"\bblk\.{layer}\.{name}\.weight$"
        return next((i for i in self._layer(layer) if self.nodes[i][1] in _PRODUCTS and self._reads(i, wanted)), None)

    def _first_product(self, layer: int) -> int | None:
        return next(
            (i for i in self._layer(layer) if self.nodes[i][1] in _PRODUCTS and self._reads(i, r"\bblk\.")), None
        )

    def _mlp_product(self, layer: int) -> int | None:
        return next(
            (
                i
                for i in self._layer(layer)
                if self._reads(i, r"\bblk\.\d+\.(ffn_(gate_inp|gate|up)|channel_mix_key)\b")
            ),
            None,
        )

    def _activation(self, at: int) -> int:
        """What is computed of the sources of an operation, itself where all are leaves."""
        return next((source for source in self.sources[at] if isinstance(source, int)), at)

    def _back(self, at: int) -> int:
        """The operation whose result is only rearranged on the way to `at`."""
        while self.nodes[at][1] in _THROUGH and isinstance(source := self.sources[at][0], int):
            at = source
        return at

    def _norm_of(self, at: int) -> int | None:
        """The norm whose result, with its weights and biases, is `at`; None where `at` is no such thing."""
        at = self._back(at)
        while self.nodes[at][1] in ("MUL", "ADD") and any(isinstance(source, str) for source in self.sources[at]):
            at = self._back(self._activation(at))
        return at if self.nodes[at][1] in _NORMS else None

    def _before_norm(self, at: int) -> int:
        norm = self._norm_of(at)
        return self._back(at) if norm is None else self._back(self._activation(norm))

    def _with_bias(self, at: int) -> int:
        """The addition of a stored bias to a product, else the product."""
        for i in range(at + 1, min(at + 4, len(self.nodes))):
            if self.nodes[i][1] in ("ADD", "ADD_ID") and at in self.sources[i] and self._reads(i, r"\.bias$"):
                return i
        return at

    def _comes_from(self, at: int, weight: str) -> bool:
        """Whether an operation's value comes from a product with this weight, without passing another one."""
        todo: list[int] = [at]
        while todo:
            i = todo.pop()
            if self.nodes[i][1] in _PRODUCTS:
                if self._reads(i, weight):
                    return True
                continue
            todo += [source for source in self.sources[i][:1] if isinstance(source, int)]
        return False

    def _state(self, layer: int, own: range) -> int | None:
        """What is kept for the next token: the last copy to the memory of this layer, a state before a filter."""
        for kind in "sr":
            found = [i for i in own if self._writes(i, f"cache_{kind}_l{layer}") and 0 not in self.nodes[i][2]]
            if found:
                return found[-1]
        return None

    def _writes(self, at: int, leaf: str) -> bool:
        if self.nodes[at][1] != "CPY" or len(self.sources[at]) < 2:
            return False
        target: int | str = self.sources[at][1]
        while isinstance(target, int) and self.nodes[target][1] in _THROUGH and self.sources[target]:
            target = self.sources[target][0]
        return target == leaf
