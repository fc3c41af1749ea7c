"""Direct logit attribution of a trace: joins what was captured with the weights that the model's file holds.

In: a model, a trace, words. Out: `Contributions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .analysis.attention import output
from .analysis.contributions import Contributions, direction
from .engine.wire import Message
from .errors import CaptureUnavailable
from .trace import Trace

if TYPE_CHECKING:
    from .model import Model

Array = np.ndarray[Any, Any]
_APART = 0.05  # of what a layer's attention added: if its heads' sum is farther off, something else happens to it


class Attribution:
    """Takes the logits of one trace apart.

    Parameters
    ----------
    model : Model
    trace : Trace
    matrix : dict
        Where the output matrix lies.
    settings : dict
        Of the run.
    """

    def __init__(self, model: Model, trace: Trace, matrix: Message, settings: Message) -> None:
        if trace.decoder is not None:
            raise CaptureUnavailable("attributions read models with one stack of layers; this one has an encoder")
        self._model, self._trace = model, trace
        ids = trace.token_ids.tolist()
        self._head = model._request({**settings, "do": "head", "ids": ids, "decoder_ids": [], "matrix": matrix})
        self._layers: list[int] = trace._part_layers["self"]
        self._mixers = {own.layer: own.mixer for own in trace.layers}
        self._names = {n.tensor.name for n in model.tree.root.tensors if n.tensor is not None}

    def __call__(self, words: Sequence[int], position: int, logits: Sequence[float]) -> Contributions:
        """The parts of a word's logit, or of the difference of two."""
        import pandas as pd

        vectors = self._model.embeddings(words, matrix="output").astype(np.float64)
        row = vectors[0] - vectors[1] if len(words) == 2 else vectors[0]
        before = [(op, self._head.get(f"weight_{i}"), value) for i, (op, value) in enumerate(self._head["before"])]
        scale, cap = self._after()
        stream = self._row("hidden", self._layers[-1], position)
        to = direction(stream, row, before, scale)
        said = [_uncapped(logit, cap) for logit in logits]
        logit = said[0] - said[1] if len(words) == 2 else said[0]

        added = {layer: self._added(layer, position) for layer in self._layers}
        start = stream - sum(sum(parts) for parts in added.values())
        rows: list[tuple[str, int | None, int | None, float]] = [("embedding", None, None, float(to.vector @ start))]
        heads = self._heads(position, to.vector, {layer: attention for layer, (attention, _) in added.items()})
        for layer, (attention, mlp) in added.items():
            whole = float(to.vector @ attention)
            if not attention.any():
                pass  # a layer that is an MLP alone
            elif self._mixers[layer] != "attention":
                rows.append((self._mixers[layer], layer, None, whole))
            elif layer not in heads:
                rows.append(("attention", layer, None, whole))
            else:
                parts, bias = heads[layer]
                rows += [("head", layer, head, part) for head, part in enumerate(parts)]
                rows += [("bias", layer, None, bias)] if bias else []
                rows.append(("rounding", layer, None, whole - sum(parts) - bias))
            if mlp.any():  # recurrent layers often have none
                rows.append(("mlp", layer, None, float(to.vector @ mlp)))
        together = [layer for layer in self._layers if layer not in heads and self._mixers[layer] == "attention"]
        if to.constant:
            rows.append(("bias", None, None, to.constant))
        rows.append(("rounding", None, None, logit - sum(part for *_, part in rows)))
        frame: pd.DataFrame = pd.DataFrame(rows, columns=["part", "layer", "head", "logit"])
        frame = frame.astype({"layer": "Int64", "head": "Int64"})
        note = "the final norm is frozen at what it was"
        if together and heads:
            note += f"; heads of layers {', '.join(map(str, together))} cannot be told apart"
        elif together:
            note += "; heads cannot be told apart: what they add is normed or scaled before it is added"
        if cap:
            note += "; logits before the final soft cap"
        return Contributions(frame, logit, words[0], words[1] if len(words) == 2 else None, position, note)

    def _after(self) -> tuple[float, float]:
        """Factor and soft cap of the logits."""
        steps = [(op, value) for op, value in self._head["after"]]
        ops = [op for op, _ in steps]
        if ops in ([], ["SCALE"]):
            return (steps[0][1] if steps else 1.0), 0.0
        if ops == ["SCALE", "TANH", "SCALE"] and math.isclose(steps[0][1] * steps[2][1], 1, rel_tol=1e-5):
            return 1.0, steps[2][1]
        raise CaptureUnavailable(f"this model's logits are computed by {', '.join(ops)} after the output matrix")

    def _row(self, kind: str, layer: int, position: int) -> Array:
        """float64 (width,): one token's row of a captured stream."""
        stream = getattr(self._trace, kind)(layer)
        rows = self._trace._rows.get(f"{kind}.self.{layer}")
        at = position if rows is None else rows.index(position) if position in rows else None
        if at is None:
            raise CaptureUnavailable(
                f"{kind} of layer {layer} was not computed for token {position}: logits='all' does"
            )
        return np.asarray(stream[at], np.float64)

    def _added(self, layer: int, position: int) -> tuple[Array, Array]:
        """What attention (or recurrence) and MLP add; a layer without an MLP adds nothing by it."""
        attention = self._row("attention_out", layer, position)
        if f"mlp_out.self.{layer}" not in self._trace._arrays:
            return attention, np.zeros_like(attention)
        return attention, self._row("mlp_out", layer, position)

    def _heads(self, position: int, towards: Array, added: dict[int, Array]) -> dict[int, tuple[list[float], float]]:
        """Per layer what each head adds to the logit, and the output's bias; only where their sum is what was added."""
        values = {layer: self._values(layer, position) for layer in self._layers}
        layers = [layer for layer, own in values.items() if own is not None]
        stored = {layer: self._model._stored(f"blk.{layer}.attn_output.weight") for layer in layers}
        layers = [layer for layer in layers if stored[layer]["width"] == _size(values[layer])]
        tensors = [stored[layer] for layer in layers]
        inputs = {f"inputs_{i}": np.asarray(values[layer]).ravel() for i, layer in enumerate(layers)}
        answer = self._model._request({"do": "project", "direction": towards, "tensors": tensors, **inputs})
        found = {}
        for i, layer in enumerate(layers):
            bias = self._bias(layer, len(towards))
            missed = np.linalg.norm(answer[f"outputs_{i}"] + bias - added[layer])
            if missed <= _APART * np.linalg.norm(added[layer]):
                own = values[layer]
                assert own is not None
                parts = (answer[f"seen_{i}"].reshape(own.shape) * own).sum(1)
                found[layer] = [float(part) for part in parts], float(towards @ bias)
        return found

    def _values(self, layer: int, position: int) -> Array | None:
        """float64 (heads, value size): what each head's attention gives at one token."""
        record = self._trace._attention.get(("self", layer))
        if record is None or record.scoring is None or record.scoring.v is None:
            return None
        if f"blk.{layer}.attn_output.weight" not in self._names:
            return None
        return np.asarray(output(record.scoring, [position])[:, 0], np.float64)

    def _bias(self, layer: int, width: int) -> Array:
        name = f"blk.{layer}.attn_output.bias"
        if name not in self._names:
            return np.zeros(width)
        return np.asarray(self._model._rows(name)[0], np.float64)


def _size(values: Array | None) -> int:
    return 0 if values is None else int(values.size)


def _uncapped(logit: float, cap: float) -> float:
    return cap * math.atanh(logit / cap) if cap and abs(logit) < cap else logit
