"""The end of a model by itself: final norm and output matrix applied to any rows, with llama.cpp's own kernels.

In: the recorded graph of a prompt. Out: logits of residual streams, or the parts of one logit.
"""

from __future__ import annotations

import ctypes as C
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import CaptureUnavailable
from . import ggml
from .graph import ROWS, Node, Plan
from .weights import Stored

Array = np.ndarray[Any, Any]
_SPARE = 64 << 20  # bytes for work buffers of the kernels
_BLOCK = 64 << 20  # bytes of logits at once


@dataclass(frozen=True)
class Step:
    """One operation of the end: ``RMS_NORM``, ``NORM``, ``MUL``, ``ADD``, ``MUL_MAT``, ``SCALE`` or ``TANH``."""

    op: str
    weight: int = 0  # address of the tensor it reads
    value: float = 0.0  # epsilon, or factor


class OutputHead:
    """What turns the residual stream after the last layer into logits.

    Parameters
    ----------
    plan : Plan
        Of the model's graph.
    n_threads : int
    matrix : dict
        Where the output matrix lies in its file: llama.cpp may hold it rearranged for its own kernels only.

    Raises
    ------
    CaptureUnavailable
        The model ends in an operation that is not known here, or on a device that is not the CPU.
    """

    def __init__(self, plan: Plan, n_threads: int, matrix: dict[str, Any]) -> None:
        self.steps, self.width = _steps(plan), plan.width
        self._threads = n_threads
        at = next((i for i, s in enumerate(self.steps) if s.op == "MUL_MAT"), None)
        if at is None:
            raise CaptureUnavailable("this model has no output matrix, so its layers say no words")
        if not ggml.on_host(ggml.at(self.steps[at].weight)):
            self.steps[at] = Step("MUL_MAT", self._from_file(matrix, ggml.at(self.steps[at].weight)))
        self.n_vocab = int(ggml.at(self.steps[at].weight).ne[1])
        self.rows_at_once = max(1, _BLOCK // (4 * self.n_vocab))

    def _from_file(self, where: dict[str, Any], like: ggml.Tensor) -> int:
        """A tensor of the matrix as it lies in the file, which stays mapped as long as this object lives."""
        self._stored = Stored(where)
        if (where["type"], where["width"]) != (like.type, like.ne[0]):
            raise CaptureUnavailable("the output matrix in memory is not the one of the file")
        self._room = np.zeros(4096, np.uint8)
        context = _Functions().init(ggml.InitParams(self._room.nbytes, self._room.ctypes.data, True))
        made = int(_Functions().new_2d(context, like.type, like.ne[0], like.ne[1]))
        ggml.at(made).data = self._stored.address
        return made

    def logits(self, rows: Array) -> Array:
        """float32 (m, vocab) of float32 rows (m, width), m at most `rows_at_once`."""
        lib = _Functions()
        m = len(rows)
        size = m * (4 * 6 * self.width + 4 * 4 * self.n_vocab) + _SPARE
        context = lib.init(ggml.InitParams(size, None, False))
        try:
            at = start = lib.new_2d(context, ggml.F32, self.width, m)
            data = np.ascontiguousarray(rows, np.float32)
            C.memmove(ggml.at(start).data, data.ctypes.data, data.nbytes)
            for step in self.steps:
                at = _apply(lib, context, step, at)
            graph = lib.new_graph(context)
            lib.expand(graph, at)
            if lib.compute(context, graph, self._threads) != 0:
                raise CaptureUnavailable("llama.cpp could not compute the output of these rows")
            result = (C.c_float * (m * self.n_vocab)).from_address(
                ggml.at(at).data
            )  # it lies in the context, in no buffer
            return np.array(result, np.float32).reshape(m, self.n_vocab)
        finally:
            lib.free(context)

    def before_matrix(self) -> list[tuple[str, Array | None, float]]:
        """The steps before the output matrix, with the numbers that they read: for attributions in NumPy."""
        found: list[tuple[str, Array | None, float]] = []
        for step in self.steps:
            if step.op == "MUL_MAT":
                return found
            weight = ggml.read(ggml.at(step.weight)).ravel().astype(np.float32) if step.weight else None
            found.append((step.op, weight, step.value))
        return found

    def after_matrix(self) -> list[tuple[str, float]]:
        """The steps after it: what scales or caps the logits."""
        at = next(i for i, step in enumerate(self.steps) if step.op == "MUL_MAT")
        return [(step.op, step.value) for step in self.steps[at + 1 :]]


def _steps(plan: Plan) -> list[Step]:
    """From the logits back to the residual stream."""
    end = plan.residual[max(plan.residual)] if plan.residual else -1
    found: list[Step] = []
    at: Node | None = plan.nodes[-1]
    while at is not None and at.index != end:
        if at.is_leaf:
            raise CaptureUnavailable("this model's output does not come from its last layer alone")
        if at.op in ROWS:
            at = at.src[0]
            continue
        step, at = _step(at)
        found.append(step)
    return found[::-1]


def _step(node: Node) -> tuple[Step, Node | None]:
    """A node as a step, and the node that it works on."""
    one, two = node.src[0], node.src[1]
    if node.op == "MUL_MAT" and one is not None and one.is_leaf:
        return Step("MUL_MAT", _on_cpu(one)), two
    if node.op in ("MUL", "ADD") and two is not None and two.is_leaf:
        return Step(node.op, _on_cpu(two)), one
    if node.op in ("RMS_NORM", "NORM", "SCALE"):
        return Step(node.op, 0, node.value), one
    if node.op == "UNARY" and node.unary == "TANH":
        return Step("TANH"), one
    raise CaptureUnavailable(f"this model's output is computed by {node.op}, which is not known here")


def _on_cpu(leaf: Node) -> int:
    if not ggml.place(ggml.at(leaf.address)).startswith("CPU"):  # repacked weights are in a buffer of their own
        raise CaptureUnavailable("the output matrix lies on a device: open the model with n_gpu_layers=0 for this")
    return leaf.address


def _apply(lib: Any, context: int, step: Step, at: int) -> int:
    if step.op == "MUL_MAT":
        return int(lib.mul_mat(context, step.weight, at))
    if step.op in ("MUL", "ADD"):
        return int((lib.mul if step.op == "MUL" else lib.add)(context, at, step.weight))
    if step.op in ("RMS_NORM", "NORM"):
        return int((lib.rms_norm if step.op == "RMS_NORM" else lib.norm)(context, at, step.value))
    return int(lib.scale(context, at, step.value) if step.op == "SCALE" else lib.tanh(context, at))


class _Functions:
    """ggml's functions, declared once."""

    _made: _Functions | None = None

    def __new__(cls) -> _Functions:
        if cls._made is None:
            cls._made = super().__new__(cls)
            cls._made._declare()
        return cls._made

    def _declare(self) -> None:
        base, cpu, p, i64 = ggml.BASE, ggml.library("ggml-cpu"), C.c_void_p, C.c_int64
        self.init = ggml.declared(base, "ggml_init", p, ggml.InitParams)
        self.free = ggml.declared(base, "ggml_free", None, p)
        self.new_2d = ggml.declared(base, "ggml_new_tensor_2d", p, p, C.c_int, i64, i64)
        self.rms_norm = ggml.declared(base, "ggml_rms_norm", p, p, p, C.c_float)
        self.norm = ggml.declared(base, "ggml_norm", p, p, p, C.c_float)
        self.mul = ggml.declared(base, "ggml_mul", p, p, p, p)
        self.add = ggml.declared(base, "ggml_add", p, p, p, p)
        self.mul_mat = ggml.declared(base, "ggml_mul_mat", p, p, p, p)
        self.scale = ggml.declared(base, "ggml_scale", p, p, p, C.c_float)
        self.tanh = ggml.declared(base, "ggml_tanh", p, p, p)
        self.new_graph = ggml.declared(base, "ggml_new_graph", p, p)
        self.expand = ggml.declared(base, "ggml_build_forward_expand", None, p, p)
        self.compute = ggml.declared(cpu, "ggml_graph_compute_with_ctx", C.c_int, p, p, C.c_int)
