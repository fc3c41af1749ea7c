"""What the nodes of one llama.cpp compute graph mean, read off operations and shapes, never off architecture names.

In: the nodes of a graph in order, as the evaluation callback shows them. Out: a `Plan`: which node scores attention in
which layer, where the residual stream stands after each layer, what attention and MLP add to it, which node chose the
experts. Nodes are known by their place in the graph: names repeat, and addresses are used again by the next graph.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

THROUGH = {"VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE", "CONT", "CPY", "DUP", "CAST"}  # same values, other arrangement
ROWS = THROUGH | {"GET_ROWS"}
BETWEEN = THROUGH | {"SCALE", "UNARY", "ADD"}  # what may stand between q.k and its softmax
RECURRENT = {"SSM_SCAN", "RWKV_WKV6", "RWKV_WKV7", "GATED_LINEAR_ATTN", "GATED_DELTA_NET", "SSM_CONV"}
NORMS = {"RMS_NORM", "NORM"}


@dataclass
class Node:
    """One operation of the graph, or a leaf (weight, cache, input) that an operation reads."""

    index: int  # place in the graph; -1 for a leaf
    name: str
    op: str
    ne: tuple[int, ...]
    type: int = 0
    src: list[Node | None] = field(default_factory=list, repr=False)
    address: int = 0  # of a leaf: where it is as long as the model is
    value: float = 0.0  # epsilon of a norm, factor of a SCALE
    unary: str = ""

    @property
    def is_leaf(self) -> bool:
        return self.index < 0

    @property
    def layer(self) -> int | None:
        """The layer in the node's own name, e.g. 7 of ``Qcur-7 (view)``."""
        found = re.search(r"-(\d+)\b", self.name)
        return int(found[1]) if found else None

    def inputs(self) -> Iterator[Node]:
        return (s for s in self.src if s is not None)


@dataclass
class Attention:
    """Where one layer's attention is scored. Fused: one node. Unfused: product, softmax and what stands between."""

    layer: int
    part: str
    named: int = -1  # the layer in the queries' name
    fused: int | None = None
    product: int | None = None  # q.k
    bias: int | None = None  # the ADD whose second operand is a position bias
    softmax: int | None = None
    output: int | None = None  # sum p v
    n_heads: int = 0
    n_kv_heads: int = 0
    head_size: int = 0
    value_size: int = 0
    n_rows: int = 0
    n_keys: int = 0
    k_type: int = 0
    masks_heads: bool = False  # heads of this layer may see different tokens
    cached: bool = True  # keys lie in a cache that grows, not in this graph alone


@dataclass
class Plan:
    """Which nodes of a graph are worth stopping at."""

    part: str
    nodes: list[Node]
    attention: list[Attention]
    residual: dict[int, int]  # layer -> node holding the residual stream after it
    attention_out: dict[int, list[int]]  # layer -> nodes that token mixing adds to the stream
    mlp_out: dict[int, list[int]]
    experts: dict[int, tuple[int, int | None]]  # layer -> node that uses the chosen ids, node that applies weights
    recurrent: dict[int, str]  # layer -> what it has instead of attention that can be captured
    width: int
    streams_first: set[int] = field(default_factory=set)  # layers that keep several streams, as (rows, streams, width)


def make_plan(nodes: list[Node], n_layers: int, part: str) -> Plan:
    """Find the roles of a graph's nodes.

    Parameters
    ----------
    nodes : list of Node
        The graph in order.
    n_layers : int
        Layers of this part of the model.
    part : str
        ``"self"``, ``"encoder"`` or ``"decoder"``; a second attention of a decoder layer becomes ``"cross"``.
    """
    attention, split = _attention(nodes, part)
    n_layers = max(n_layers, *(a.layer + 1 for a in attention), 0)  # more where layers run again with the same weights
    residual = _residual(nodes, n_layers)
    plan = Plan(part, nodes, attention, residual, {}, {}, _experts(nodes), split, 0)
    plan.width = nodes[residual[min(residual)]].ne[0] if residual else 0
    rows = next((n.ne[1] for n in nodes if n.op == "GET_ROWS" and n.ne[0] == plan.width), 0)  # the embedding
    plan.streams_first = {layer for layer, at in residual.items() if nodes[at].ne[2] == rows != nodes[at].ne[1]}
    _contributions(plan)
    _recurrent(plan, n_layers)
    return plan


# ------------------------------------------------------------------ attention


def _attention(nodes: list[Node], part: str) -> tuple[list[Attention], dict[int, str]]:
    """Every layer's scoring, and the layers whose attention no `Scoring` can say, with the reason."""
    found = [scored for node in nodes if (scored := _fused(node) or _unfused(node, nodes))]
    if part == "decoder":
        seen: set[int] = set()
        for scored in found:
            scored.part = "cross" if scored.layer in seen else part
            seen.add(scored.layer)
        return found, {}
    layers = [scored.layer for scored in found]
    again = len({(s.layer, s.named) for s in found}) == len(found) > len(set(layers))
    if again or min(layers, default=0) < 0:  # layers that run again with the same weights, or no weights at all
        layers = [scored.named for scored in found]
    if min(layers, default=0) < 0:
        layers = list(range(len(found)))  # nothing tells them apart but their order
    for scored, layer in zip(found, layers, strict=True):
        scored.layer, scored.part = layer, part
    without: dict[int, str] = {}
    for scored in found:
        if layers.count(scored.layer) > 1 or scored.masks_heads:
            without[scored.layer] = "attention with a mask for each group of heads: not captured"
        elif not scored.cached and scored.n_keys != scored.n_rows:
            without[scored.layer] = "attention over compressed tokens: not captured"
    return [s for s in found if s.layer not in without], without


def _fused(node: Node) -> Attention | None:
    if node.op != "FLASH_ATTN_EXT" or not (node.src[0] and node.src[1] and node.src[2]):
        return None
    q, k, v = node.src[0], node.src[1], node.src[2]
    scored = Attention(_layer_of(q), "", _named_layer(q), fused=node.index, output=node.index)
    _measure(scored, q, k, node.src[3])
    scored.value_size = v.ne[0]
    return scored


def _measure(scored: Attention, q: Node, k: Node, mask: Node | None) -> None:
    scored.head_size, scored.n_rows, scored.n_heads = q.ne[:3]
    scored.n_keys, scored.n_kv_heads, scored.k_type = k.ne[1], k.ne[2], k.type
    scored.cached = _is_cache(k)
    scored.masks_heads = q.ne[3] > 1 or (mask is not None and mask.ne[2] * mask.ne[3] > 1)


def _unfused(node: Node, nodes: list[Node]) -> Attention | None:
    """A softmax whose scores come from a product of two activations: a router multiplies with a weight instead."""
    if node.op != "SOFT_MAX":
        return None
    chain: list[Node] = []
    at = node.src[0]
    while at is not None and at.op in BETWEEN and not at.is_leaf:
        chain.append(at)
        at = at.src[0]
    if at is None or at.op != "MUL_MAT" or at.src[0] is None or at.src[1] is None or at.src[0].is_leaf:
        return None
    k, q = at.src[0], at.src[1]
    output = next((n for n in nodes[node.index + 1 :] if n.op == "MUL_MAT" and node in (n.src[0], n.src[1])), None)
    if output is None or output.src[0] is None:
        return None
    scored = Attention(_layer_of(q), "", _named_layer(q), product=at.index, softmax=node.index, output=output.index)
    _measure(scored, q, k, node.src[1])
    scored.bias = next((n.index for n in chain if n.op == "ADD"), None)
    scored.value_size = output.ne[0]
    return scored


def _layer_of(q: Node) -> int:
    """The layer whose weights made these queries: the nearest on the way back. -1 where there is none."""
    todo, seen = [q], set[int]()
    while todo:
        at = todo.pop(0)
        if at.is_leaf and (found := re.search(r"\bblk\.(\d+)\.", at.name)):
            return int(found[1])
        if id(at) not in seen:
            seen.add(id(at))
            todo.extend(at.inputs())
    return -1


def _named_layer(q: Node) -> int:
    """The layer in the name of what these queries rearrange, e.g. 7 for ``Qcur-7 (view)``. -1 where there is none."""
    return next((node.layer for node in (q, *_back(q)) if node.layer is not None), -1)


def _is_cache(tensor: Node) -> bool:
    """Whether these keys are a view of memory that outlives the graph."""
    return next((n for n in (tensor, *_back(tensor)) if n.op not in THROUGH), tensor).is_leaf


def _back(node: Node, through: set[str] = THROUGH) -> Iterator[Node]:
    """What a node rearranges, step by step, up to and with the first that computes something."""
    while node.op in through and node.src and node.src[0] is not None:
        node = node.src[0]
        yield node


def _origin(node: Node, through: set[str] = THROUGH) -> Node:
    return next((n for n in (node, *_back(node, through)) if n.op not in through), node)


# ------------------------------------------------------------- residual stream


def _residual(nodes: list[Node], n_layers: int) -> dict[int, int]:
    """`l_out-i` where every layer has one (the last may be renamed), else by the rule of the graph.

    Where only some layers have that name it is not the stream that has it: then no name is believed.
    """
    named: dict[int, int] = {}
    for node in nodes:
        if found := re.fullmatch(r"l_out-(\d+)", node.name):
            named[int(found[1])] = node.index
    if all(layer in named for layer in range(n_layers - 1)):
        last = named.get(n_layers - 1, _after_last(nodes))
        return named if last is None else {**named, n_layers - 1: last}
    after: dict[int, int] = {}
    follows = _after_last(nodes)
    for layer in reversed(range(n_layers)):
        if follows is not None:
            after[layer] = follows
        enters = _entering(nodes, layer)
        follows = follows if enters is None else enters  # a layer without weights passes the stream on
    return after


def _entering(nodes: list[Node], layer: int) -> int | None:
    """What enters a layer: what the first operation with a weight of that layer reads, before its norm."""
    prefix = re.compile(rf"(?:enc\.|dec\.)?blk\.{layer}\.")
    for node in nodes:
        if any(s.is_leaf and prefix.match(s.name) for s in node.inputs()):
            activation = next((s for s in node.inputs() if not s.is_leaf), None)
            if activation is not None:  # else a weight that is rearranged
                return _before_norm(activation)
    return None


def _after_last(nodes: list[Node]) -> int | None:
    """What the final norm reads; without a final norm, the graph's last result of the model's width."""
    final = re.compile(r"(?:enc\.|dec\.)?output_norm")
    for node in nodes:
        if any(s.is_leaf and final.match(s.name) for s in node.inputs()):
            return _before_norm(next((s for s in node.inputs() if not s.is_leaf), None))
    last = next((n.index for n in reversed(nodes) if n.name.startswith("result_embd")), None)
    return last if last is not None or not nodes else _last_normed(nodes[-1])


def _last_normed(node: Node) -> int | None:
    """What the nearest norm on the way back from the logits reads: a final norm without a weight of that name."""
    at: Node | None = node
    while at is not None and at.op not in NORMS:
        at = next((s for s in at.inputs() if not s.is_leaf), None)
    return _before_norm(at)


def _before_norm(node: Node | None) -> int | None:
    if node is None:
        return None
    node = _origin(node)
    if node.op in NORMS and node.src[0] is not None:
        node = _origin(node.src[0])
    return None if node.is_leaf else node.index


# ----------------------------------------------- what a layer adds to the stream


def _contributions(plan: Plan) -> None:
    """Split what each layer adds to the residual stream into token mixing (attention) and MLP."""
    mixing = {a.fused if a.fused is not None else a.softmax for a in plan.attention}
    named = any(node.op in RECURRENT for node in plan.nodes)  # then MLPs may have a memory too: of the token before
    memory = set[int]() if named else {id(leaf) for leaf in _memory(plan.nodes)}
    entering = _entering(plan.nodes, 0)
    before = {layer + 1: index for layer, index in plan.residual.items()}
    if entering is not None:
        before[0] = entering
    for layer, index in plan.residual.items():
        if layer not in before:
            continue
        stream = plan.nodes[before[layer]]
        added = _added(plan.nodes[index], stream)
        stop = {total.index for total, _ in added or ()} | {stream.index}
        terms = [part for _, term in added or () for part in _apart(term, mixing, memory, stop)]
        for term in sorted(terms, key=lambda node: node.index):  # in the order in which they will arrive
            where = plan.attention_out if _reaches(term, mixing, memory, stop) else plan.mlp_out
            where.setdefault(layer, []).append(term.index)


def _apart(term: Node, mixing: set[int | None], memory: set[int], stop: set[int]) -> list[Node]:
    """The operands of a sum of token mixing and MLP (they run in parallel), else the term as it is."""
    total = _origin(term, ROWS)
    if total.op != "ADD" or total.src[0] is None or total.src[1] is None:
        return [term]
    parts = [total.src[0], total.src[1]]
    if any(part.is_leaf or part.ne != total.ne for part in parts):
        return [term]
    if _reaches(parts[0], mixing, memory, stop) == _reaches(parts[1], mixing, memory, stop):
        return [term]
    return [apart for part in parts for apart in _apart(part, mixing, memory, stop)]


def _added(after: Node, before: Node, depth: int = 6) -> list[tuple[Node, Node]] | None:
    """(sum, what it adds) for each addition on the way from one layer's stream to the next; None if there is more."""
    if any(node is before for node in (after, *_back(after, ROWS))):
        return []
    total = _origin(after, ROWS)
    if total.op != "ADD" or not depth or total.src[0] is None or total.src[1] is None:
        return None
    for stream, term in ((total.src[0], total.src[1]), (total.src[1], total.src[0])):
        rest = _added(stream, before, depth - 1)
        if rest is not None:
            return [(total, term), *rest]
    return None


def _reaches(node: Node, targets: set[int | None], memory: set[int], stop: set[int]) -> bool:
    """Whether a node's value depends on token mixing of its own layer, without passing the stream itself."""
    seen: set[int] = set()
    todo = [node]
    while todo:
        at = todo.pop()
        if at.index in targets or at.op in RECURRENT or id(at) in memory:
            return True
        if at.is_leaf or at.index in seen or at.index in stop:
            continue
        seen.add(at.index)
        todo.extend(at.inputs())
    return False


# ------------------------------------------------------------ experts, recurrence


def _experts(nodes: list[Node]) -> dict[int, tuple[int, int | None]]:
    """Per layer the node that looks experts up by id, and the product that applies the router's weights.

    Where a layer has two sets of experts, the larger counts. The weights multiply what comes out of the experts, or
    already what goes in.
    """
    found: dict[int, tuple[int, int | None]] = {}
    largest: dict[int, int] = {}
    for node in nodes:
        if node.op == "MUL_MAT_ID" and node.src[0] and node.src[1]:
            layer, experts = _layer_of(node.src[0]), node.src[0].ne[2]
            if layer >= 0 and experts > largest.get(layer, 0):
                before = _origin(node.src[1])
                found[layer], largest[layer] = (node.index, before.index if _weighs(before, node) else None), experts
        elif node.op == "MUL" and node.src[0]:
            made = _origin(node.src[0], THROUGH | {"ADD_ID", "MUL", "SCALE"})
            if made.op != "MUL_MAT_ID" or not made.src[0] or not _weighs(node, made):
                continue
            layer, experts = _layer_of(made.src[0]), made.src[0].ne[2]
            if layer in found and found[layer][1] is None and experts == largest[layer]:
                found[layer] = (found[layer][0], node.index)
    return found


def _weighs(node: Node, experts: Node) -> bool:
    """Whether a node multiplies each chosen expert with a number that the router made (a stored scale is none)."""
    ids = experts.src[2]
    if node.op != "MUL" or ids is None or node.src[1] is None:
        return False
    weights = node.src[1]
    return weights.ne[:3] == (1, *ids.ne[:2]) and not _origin(weights, ROWS | {"REPEAT"}).is_leaf


def _recurrent(plan: Plan, n_layers: int) -> None:
    """Say what layers without attention have instead."""
    with_attention = {a.layer for a in plan.attention}
    for layer in set(range(n_layers)) - with_attention - set(plan.recurrent):
        plan.recurrent[layer] = f"{_kind(list(_layer_nodes(plan.nodes, layer)))} layer: no attention"


def _kind(nodes: list[Node]) -> str:
    """What the nodes of a layer without attention do with earlier tokens."""
    ops, states = {node.op for node in nodes}, len(_memory(nodes))
    if ops & (RECURRENT - {"SSM_CONV"}) or states > 1:  # a state beside that of a convolution
        return "recurrent"
    if ops & {"SSM_CONV", "IM2COL"}:
        return "convolution"
    return "recurrent" if states else "feed-forward" if nodes else "empty"


def _memory(nodes: Iterable[Node]) -> list[Node]:
    """Leaves that these nodes write to: states that outlive the graph."""
    written = [_origin(n.src[1]) for n in nodes if n.op == "CPY" and n.src[1] is not None and 0 not in n.ne]
    return list({id(leaf): leaf for leaf in written if leaf.is_leaf}.values())


def _layer_nodes(nodes: list[Node], layer: int) -> Iterable[Node]:
    """Nodes between the first and the last that read a weight of this layer."""
    prefix = re.compile(rf"(?:enc\.|dec\.)?blk\.{layer}\.")
    own = [n.index for n in nodes if any(s.is_leaf and prefix.match(s.name) for s in n.inputs())]
    return nodes[own[0] : own[-1] + 1] if own else []
