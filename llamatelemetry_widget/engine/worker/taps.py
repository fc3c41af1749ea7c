"""Stops on llama.cpp's compute graph: the evaluation callback, recording a graph, and taps on its nodes.

A `Tap` names a node by its place in the graph and says what to do when the node is computed: copy something out of it
or write into it. `Evaluation` is the one callback of a context; it records graphs and serves taps.
"""

from __future__ import annotations

import ctypes as C
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import ggml
from .ggml import Tensor
from .graph import Node

_CALLBACK = C.CFUNCTYPE(C.c_bool, C.c_void_p, C.c_bool, C.c_void_p)
_ABORT = C.CFUNCTYPE(C.c_bool, C.c_void_p)
_COPIED = re.compile(r"^[^#]+#(.+)#\d+$")  # what the scheduler calls a copy on another backend


class GraphChanged(Exception):
    """The graph that runs is not the one that was planned for."""


@dataclass(frozen=True)
class Tap:
    """What happens when one node of the graph has been computed."""

    node: Node
    act: Callable[[Tensor], None]


class Evaluation:
    """llama.cpp's evaluation and abort callbacks of one context.

    Nothing may be raised through C: what a tap raises is kept in `error`, the run is stopped, and whoever called
    llama.cpp raises it (`raise_error`). The ctypes callbacks live as long as this object, which must outlive the
    context.
    """

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self.callback = _CALLBACK(self._evaluate)
        self.abort = _ABORT(self._stop)
        self.error: BaseException | None = None
        self._cancelled = cancelled
        self._taps: dict[int, list[Tap]] = {}
        self._at = -1
        self._recorder: _Recorder | None = None
        self._timed = False
        self._started = 0.0
        self.times: list[float] = []

    def begin(self, taps: Iterable[Tap] = (), record: bool = False, timed: bool = False) -> None:
        """Prepare for the next graph, i.e. the next call of `llama_decode` or `llama_encode` with one ubatch.

        Parameters
        ----------
        taps : iterable of Tap
            Where to stop.
        record : bool
            Keep the graph (`recorded`, `places`); nothing stops.
        timed : bool
            Stop after every node and keep its seconds in `times`; no taps then.
        """
        self._timed, self.times = timed, []
        self._taps = {}
        for tap in taps:
            self._taps.setdefault(tap.node.index, []).append(tap)
        self._at, self.error = -1, None
        self._recorder = _Recorder() if record else None

    def recorded(self) -> list[Node]:
        """The nodes of the graph that ran since `begin(record=True)`."""
        return self._recorder.nodes if self._recorder else []

    def places(self) -> list[str]:
        """The buffer that each recorded node lies in, as its backend calls it: ``CPU``, ``CUDA0``."""
        return self._recorder.places if self._recorder else []

    def raise_error(self) -> None:
        """Raise what a tap raised."""
        if self.error is not None:
            raise self.error

    def _evaluate(self, address: int, ask: bool, _data: int | None) -> bool:
        try:
            if ask:
                self._at += 1
                if self._recorder is not None:
                    self._recorder.add(address)
                    return False
                if self._timed:
                    self._started = time.perf_counter()
                    return True
                return self._at in self._taps and self._expected(address)
            if self._timed:
                self.times.append(time.perf_counter() - self._started)
                return not self._cancelled()
            if self._cancelled():
                return False
            tensor = ggml.at(address)
            for tap in self._taps[self._at]:
                tap.act(tensor)
            return True
        except BaseException as error:  # kept for the caller; C cannot carry it
            self.error = self.error or error
            return False

    def _expected(self, address: int) -> bool:
        node, tensor = self._taps[self._at][0].node, ggml.at(address)
        if ggml.op_name(tensor.op) != node.op or tensor.name.decode("utf-8", "replace") != node.name:
            raise GraphChanged(f"node {self._at} is {tensor.name!r}, planned was {node.name!r}")
        return True

    def _stop(self, _data: int | None) -> bool:
        return self.error is not None or self._cancelled()


class _Recorder:
    """Turns tensors, in the order of the graph, into `Node`s that know each other."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.places: list[str] = []
        self._by_address: dict[int, Node] = {}
        self._by_name: dict[str, Node] = {}

    def add(self, address: int) -> None:
        node = self._node(address, len(self.nodes))
        tensor = ggml.at(address)
        node.src = [self._source(a) if a else None for a in tensor.src]
        self.nodes.append(node)
        self.places.append(ggml.place(tensor))
        self._by_address[address] = self._by_name[node.name] = node

    def _source(self, address: int) -> Node:
        if address in self._by_address:
            return self._by_address[address]
        leaf = self._node(address, -1)
        if copied := _COPIED.match(leaf.name):
            leaf = self._by_name.get(copied[1], leaf)
        self._by_address[address] = leaf
        return leaf

    @staticmethod
    def _node(address: int, index: int) -> Node:
        tensor = ggml.at(address)
        name, op = tensor.name.decode("utf-8", "replace"), ggml.op_name(tensor.op)
        node = Node(index, name, op, tuple(int(n) for n in tensor.ne), int(tensor.type), address=address)
        if op in ("RMS_NORM", "NORM", "SCALE"):
            node.value = ggml.params(tensor, 1)[0]
        if op == "UNARY":
            node.unary = bytes(ggml.unary_name(ggml.unary_op(address))).decode()
        return node
