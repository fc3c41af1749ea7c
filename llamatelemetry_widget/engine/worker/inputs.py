"""What each weight column multiplies, measured: sums of squares of the inputs of every matrix product of a text.

In: a model, blocks of token ids. Out: llama.cpp's imatrix GGUF (`importance.write_importance`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as L

from ...errors import CaptureUnavailable
from ..cpu import usable_threads
from . import ggml
from .ggml import Tensor
from .graph import Node
from .importance import write_importance
from .llama import Context, Llama, Settings
from .taps import Tap

Array = np.ndarray[Any, Any]
Send = Callable[..., None]
_LOGIT_BYTES = 128_000_000  # of one ubatch; every row needs some, or the last layer leaves rows out
_LAYERS = "blk."  # as llama.cpp's tool: neither the embedding nor the output


class InputsRun:
    """A request for an importance matrix.

    Parameters
    ----------
    llama : Llama
        The model.
    request : dict
        ``blocks`` (lists of token ids, all equally long), ``out`` (path), ``text`` (what the text is called).
    send : callable
        Sends a message: ``progress`` after every block.
    cancelled : callable
        Polled between blocks.
    """

    def __init__(self, llama: Llama, request: dict[str, Any], send: Send, cancelled: Callable[[], bool]) -> None:
        if llama.is_encoder_decoder:
            raise CaptureUnavailable("an importance matrix is made of models with one stack of layers, not of two")
        self.llama, self.request, self.send, self.cancelled = llama, request, send, cancelled
        self.sums: dict[str, Array] = {}  # float64 (matrices, columns)
        self.counts: dict[str, Array] = {}  # tokens that each matrix saw

    def __call__(self) -> dict[str, Any]:
        """Run every block, write the file."""
        blocks = self.request["blocks"]
        size = len(blocks[0])
        context, step = self._context(size)
        context.clear()
        context.run("self", blocks[0][:step], 0, range(min(step, size)), record=True)
        taps = self._taps(context.evaluation.recorded())
        for done, ids in enumerate(blocks, 1):
            context.clear()
            for start in range(0, size, step):
                rows = ids[start : start + step]
                context.run("self", rows, start, range(len(rows)), taps)
            self.send({"kind": "progress", "stage": "text", "done": done, "total": len(blocks)})
        write_importance(self.request["out"], self.sums, self.counts, self.request["text"], len(blocks), size)
        return {}

    def _context(self, size: int) -> tuple[Context, int]:
        """A context, and how many tokens it computes at once."""
        step = min(size, max(32, _LOGIT_BYTES // (4 * self.llama.n_vocab)))
        while True:
            n_ctx = -(-size // 256) * 256
            context = self.llama.context(Settings(n_ctx, step, step, "auto", "f16", usable_threads()))
            if step == size or L.llama_get_memory(context.pointer):
                return context, step
            step = size  # no cache: all rows at once

    def _taps(self, nodes: list[Node]) -> list[Tap]:
        """One stop for each tensor that weights are multiplied with, at the first of its products."""
        products: dict[tuple[int, int], list[Node]] = {}
        for node in nodes:
            weight, given, chosen = [*node.src, None, None, None][:3]
            if node.op not in ("MUL_MAT", "MUL_MAT_ID") or weight is None or given is None:
                continue
            if weight.is_leaf and weight.name.startswith(_LAYERS) and not given.is_leaf:
                key = given.index, chosen.index if node.op == "MUL_MAT_ID" and chosen is not None else -1
                products.setdefault(key, []).append(node)
        if not products:
            raise CaptureUnavailable("this model multiplies nothing with weights that could be measured")
        return [Tap(own[0], self._watch(own)) for own in products.values()]

    def _watch(self, products: list[Node]) -> Callable[[Tensor], None]:
        weights = [node.src[0] for node in products]
        by_expert = products[0].op == "MUL_MAT_ID"

        def act(tensor: Tensor) -> None:
            x = ggml.read(ggml.at(tensor.src[1])).astype(np.float64)  # ggml's axes reversed
            for weight in weights:
                assert weight is not None
                n = weight.ne[2] * weight.ne[3]
                if by_expert:
                    ids = ggml.read(ggml.at(tensor.src[2]))[0, 0]
                    sums, counts = sums_by_expert(x[0], ids, n)
                else:
                    sums, counts = sums_by_matrix(x, n)
                if weight.name in self.sums:
                    self.sums[weight.name] += sums
                    self.counts[weight.name] += counts
                else:
                    self.sums[weight.name], self.counts[weight.name] = sums, counts

        return act


def sums_by_matrix(x: Array, n: int) -> tuple[Array, Array]:
    """Sums of squares per column for a weight of `n` matrices that lie one after the other.

    Parameters
    ----------
    x : ndarray, float64 (outer, matrices, rows, columns)
        Matrices of `x` that the weight has not are spread over those that it has.
    n : int

    Returns
    -------
    sums : float64 (n, columns)
    counts : int64 (n,)
        Rows that were added up.
    """
    each = np.einsum("abrc,abrc->abc", x, x).reshape(-1, x.shape[-1])
    sums, counts = np.zeros((n, x.shape[-1])), np.zeros(n, np.int64)
    at = np.arange(len(each)) % n
    np.add.at(sums, at, each)
    np.add.at(counts, at, x.shape[2])
    return sums, counts


def sums_by_expert(x: Array, ids: Array, n: int) -> tuple[Array, Array]:
    """Sums of squares per column for each of `n` experts.

    Parameters
    ----------
    x : ndarray, float64 (tokens, 1 or used, columns)
        What the experts are given: the same for all that a token uses, or each its own.
    ids : ndarray, int32 (tokens, used)
        Which experts each token uses.
    n : int

    Returns
    -------
    sums : float64 (n, columns)
    counts : int64 (n,)
        Tokens that each expert saw.
    """
    squares = np.broadcast_to(np.square(x), (*ids.shape, x.shape[-1]))
    sums = np.zeros((n, x.shape[-1]))
    np.add.at(sums, ids.reshape(-1), squares.reshape(-1, x.shape[-1]))
    return sums, np.bincount(ids.reshape(-1), minlength=n)
