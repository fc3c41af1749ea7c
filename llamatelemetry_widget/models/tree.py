"""The whole model as a tree whose bytes add up to the files: header, stages, layers, blocks, experts, tensors, padding.

In: a `Header`. Out: `ModelTree`, nested and as two tables. It is read off the tensor table: numbers in names are layers
and experts, the words around them are stages and blocks, so that an architecture nobody listed has a tree too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .header import Header, TensorInfo
from .info import ModelInfo, info_of

if TYPE_CHECKING:
    import pandas as pd

#: What the first word of a tensor's name within a layer means. A word that is not here is a block of its own.
_BLOCKS = {
    "attn": "attention",
    "post_attention": "attention",
    "cross_attn": "cross-attention",
    "ffn": "MLP",
    "post_ffw": "MLP",
    "ssm": "recurrence",
    "shortconv": "recurrence",
    "time_mix": "recurrence",
    "channel_mix": "MLP",
    "layer_output": "norms",
    "layer_out": "norms",
}
_EXPERT_PARTS = re.compile(r"_exps\b|_chexps\b|gate_inp|exp_probs|\.\d+\.")
_SHARED_PARTS = re.compile(r"_shexp\b|gate_inp_shexp")
_STACKS = {"blk": "layers", "enc.blk": "encoder layers", "dec.blk": "decoder layers"}
_INPUT = re.compile(r"(token|position|per_layer_token)_embd|token_types|(^|\.)embd")
_OUTPUT = re.compile(r"(^|\.)(output|cls|pooler|score|dense_\d)")
_LAYERED = re.compile(r"(?P<stack>.*?[A-Za-z_])\.(?P<layer>\d+)\.(?P<rest>.+)")
_EXPERT = re.compile(r"(?P<name>\w+)\.(?P<expert>\d+)\.(?P<rest>.+)")


@dataclass(frozen=True, eq=False)
class TreeNode:
    """A part of a model.

    Attributes
    ----------
    id : str
        Its path in the tree, e.g. ``model/layers/L3/attention/attn_q.weight``.
    name : str
        As it is shown.
    kind : str
        ``"model"``, ``"header"``, ``"stage"``, ``"layer"``, ``"block"``, ``"expert"``, ``"kv_group"``, ``"head"``,
        ``"tensor"`` or ``"padding"``.
    n_bytes : int or None
        Of the files; of a node with children their sum. None for heads and KV groups, which are rows of tensors that
        are counted where they stand, and for tensors of a type nobody knows, whose bytes go up to the next tensor.
    n_weights : int
    layer, head : int or None
    tensor : TensorInfo or None
    note : str
        What else is worth saying, e.g. ``9 heads, 3 KV heads``.
    children : tuple of TreeNode
    """

    id: str
    name: str
    kind: str
    n_bytes: int | None = 0
    n_weights: int = 0
    layer: int | None = None
    head: int | None = None
    tensor: TensorInfo | None = None
    note: str = ""
    children: tuple[TreeNode, ...] = ()

    def __iter__(self) -> Iterator[TreeNode]:
        """This node and all below it, parents first."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))

    @cached_property
    def tensors(self) -> tuple[TreeNode, ...]:
        """All tensors below."""
        return tuple(node for node in self if node.kind == "tensor")

    @cached_property
    def types(self) -> Mapping[str, int]:
        """Bytes of each quant type below, the largest first."""
        counts: Counter[str] = Counter()
        for node in self.tensors:
            if node.tensor is not None:
                counts[node.tensor.type_name] += node.n_bytes or 0
        return dict(counts.most_common())

    @property
    def bits_per_weight(self) -> float | None:
        """Bits of all tensors below / their weights; None where there are none, or one of an unknown type."""
        known = [node.tensor for node in self.tensors if node.tensor is not None]
        weights = sum(t.n_weights for t in known)
        if not weights or any(t.n_bytes is None for t in known):
            return None
        return 8 * sum(t.n_bytes or 0 for t in known) / weights


@dataclass(frozen=True, eq=False)
class ModelTree:
    """A model as a tree.

    Attributes
    ----------
    root : TreeNode
    info : ModelInfo
    complete : bool
        False for a header alone: its tensors' bytes are those that the whole file would have.
    tied : bool
        The output matrix is the token embedding, stored once.
    """

    root: TreeNode
    info: ModelInfo
    complete: bool
    tied: bool
    _parents: dict[str, str] = field(repr=False, default_factory=dict)

    def __repr__(self) -> str:
        return f"<ModelTree: {self.info.name} · {len(self.root.tensors)} tensors · {self.root.n_bytes} bytes>"

    def __iter__(self) -> Iterator[TreeNode]:
        return iter(self.root)

    @cached_property
    def by_id(self) -> Mapping[str, TreeNode]:
        """All nodes."""
        return {node.id: node for node in self.root}

    @property
    def nodes(self) -> pd.DataFrame:
        """One row per node, parents first.

        Returns
        -------
        DataFrame
            ``id``, ``parent``, ``name``, ``kind``, ``layer``, ``head``, ``n_bytes``, ``n_weights``,
            ``bits_per_weight``; of tensors also ``type``, ``shape`` (ggml's order, the first runs fastest),
            ``offset`` and ``shard``; ``note``.
        """
        import pandas as pd

        rows = [_row(node, self._parents.get(node.id)) for node in self.root]
        frame: pd.DataFrame = pd.DataFrame(rows)
        for name in ("layer", "head", "n_bytes", "offset", "shard"):
            frame[name] = frame[name].astype("Int64")
        return frame

    @property
    def edges(self) -> pd.DataFrame:
        """One row per parent and child: ``source``, ``target``."""
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame(
            [(parent, child) for child, parent in self._parents.items()], columns=["source", "target"]
        )
        return frame


def _row(node: TreeNode, parent: str | None) -> dict[str, Any]:
    tensor = node.tensor
    return {
        "id": node.id,
        "parent": parent,
        "name": node.name,
        "kind": node.kind,
        "layer": node.layer,
        "head": node.head,
        "n_bytes": node.n_bytes,
        "n_weights": node.n_weights,
        "bits_per_weight": node.bits_per_weight,
        "type": None if tensor is None else tensor.type_name,
        "shape": None if tensor is None else tensor.shape,
        "offset": None if tensor is None else tensor.offset,
        "shard": None if tensor is None else tensor.shard,
        "note": node.note,
    }


def model_tree(header: Header, info: ModelInfo | None = None) -> ModelTree:
    """Build the tree of a model.

    Parameters
    ----------
    header : Header
        Of a file, or of a split set joined.
    info : ModelInfo, optional
        What the header says, where that has been read.

    Returns
    -------
    ModelTree
        The bytes of its leaves add up to the bytes of all files (of the whole file, where there is only its header).
    """
    return _Builder(header, info or info_of(header)).build()


class _Builder:
    def __init__(self, header: Header, info: ModelInfo) -> None:
        self.header, self.info = header, info
        self.own, self.rest = _extents(header)

    def build(self) -> ModelTree:
        stages = self._stages()
        header = TreeNode("model/header", "header", "header", self.rest["header"], note="metadata and tensor table")
        padding = TreeNode("model/padding", "padding", "padding", self.rest["padding"], note="between tensors")
        parts = [header, *(self._stage(name, tensors) for name, tensors in stages.items())]
        if padding.n_bytes:
            parts.append(padding)
        root = _parent("model", self.info.name, "model", parts, note=self.info.architecture or "")
        names = {t.name for t in self.header.tensors}
        output = any(re.search(r"(^|\.)output\.weight$", name) for name in names)
        tied = not output and "token_embd.weight" in names and self._writes()
        parents = {child.id: node.id for node in root for child in node.children}
        return ModelTree(root, self.info, self.header.complete, tied, parents)

    def _writes(self) -> bool:
        """Whether the model gives logits at all, which encoders do not."""
        return self.header.metadata.get(f"{self.info.architecture}.attention.causal") is not False

    def _stages(self) -> dict[str, list[TensorInfo]]:
        """Tensors of each stage, in the order of a run: input, stacks of layers, output, and what is neither."""
        found: dict[str, list[TensorInfo]] = {"input": []}
        late: dict[str, list[TensorInfo]] = {}
        for tensor in self.header.tensors:
            layered = _LAYERED.fullmatch(tensor.name)
            if layered:
                stack = layered["stack"]
                found.setdefault(_STACKS.get(stack, stack), []).append(tensor)
            elif _INPUT.search(tensor.name):
                found["input"].append(tensor)
            else:
                late.setdefault("output" if _OUTPUT.search(tensor.name) else "other tensors", []).append(tensor)
        order = sorted(late, key=["output", "other tensors"].index)
        return {name: tensors for name, tensors in {**found, **{k: late[k] for k in order}}.items() if tensors}

    def _stage(self, name: str, tensors: list[TensorInfo]) -> TreeNode:
        place = f"model/{name}"
        layers: dict[int, list[tuple[str, TensorInfo]]] = {}
        for tensor in tensors:
            layered = _LAYERED.fullmatch(tensor.name)
            if layered is None:
                return _parent(place, name, "stage", [self._tensor(place, t, t.name) for t in tensors])
            layers.setdefault(int(layered["layer"]), []).append((layered["rest"], tensor))
        nodes = [self._layer(place, layer, layers[layer], name) for layer in sorted(layers)]
        return _parent(place, name, "stage", nodes, note=f"{len(nodes)} layers")

    def _layer(self, place: str, layer: int, tensors: list[tuple[str, TensorInfo]], stage: str) -> TreeNode:
        place = f"{place}/L{layer}"
        blocks: dict[str, list[tuple[str, TensorInfo]]] = {}
        routed = any(_EXPERT_PARTS.search(f"{rest}.") for rest, _ in tensors)
        for rest, tensor in tensors:
            blocks.setdefault(block_of(rest, routed), []).append((rest, tensor))
        for name in [
            name for name, own in blocks.items() if name != "norms" and all("norm" in rest for rest, _ in own)
        ]:
            blocks.setdefault("norms", []).extend(blocks.pop(name))  # of a block that has another name here
        order = ["attention", "cross-attention", "recurrence"]
        names = sorted(blocks, key=lambda b: order.index(b) if b in order else len(order))
        nodes = [self._block(place, layer, name, blocks[name], stage) for name in names]
        return _parent(place, f"layer {layer}", "layer", nodes, layer=layer)

    def _block(self, place: str, layer: int, name: str, tensors: list[tuple[str, TensorInfo]], stage: str) -> TreeNode:
        place, nodes = f"{place}/{name}", []
        experts: dict[int, list[TreeNode]] = {}
        for rest, tensor in tensors:
            split = _EXPERT.fullmatch(rest)
            if split is None:
                nodes.append(self._tensor(place, tensor, rest, layer))
            else:
                expert, at = int(split["expert"]), f"{place}/expert {int(split['expert'])}"
                experts.setdefault(expert, []).append(
                    self._tensor(at, tensor, f"{split['name']}.{split['rest']}", layer)
                )
        nodes += [
            _parent(f"{place}/expert {i}", f"expert {i}", "expert", experts[i], layer=layer) for i in sorted(experts)
        ]
        note = ""
        if name == "attention" and stage == "layers":
            note, groups = self._heads(place, layer)
            nodes += groups
        if name == "experts" and self.info.n_experts:
            note = f"{self.info.n_experts} experts, {self.info.n_experts_used or '?'} per token"
        return _parent(place, name, "block", nodes, layer=layer, note=note)

    def _heads(self, place: str, layer: int) -> tuple[str, list[TreeNode]]:
        """Heads by KV head: rows of tensors that have been counted, so they have no bytes of their own."""
        counts = [_at(per, layer) for per in (self.info.heads_per_layer, self.info.kv_heads_per_layer)]
        heads, kv_heads = counts[0] or 0, counts[1] or 0
        if not heads:
            return "", []
        if not kv_heads or heads % kv_heads:
            return f"{heads} heads", []
        share, groups = heads // kv_heads, []
        for kv in range(kv_heads):
            at = f"{place}/KV {kv}"
            own = range(kv * share, kv * share + share)
            children = tuple(TreeNode(f"{at}/H{h}", f"H{h}", "head", None, 0, layer, h) for h in own)
            groups.append(TreeNode(at, f"KV {kv}", "kv_group", None, 0, layer, children=children))
        return f"{heads} heads, {kv_heads} KV heads", groups

    def _tensor(self, place: str, tensor: TensorInfo, name: str, layer: int | None = None) -> TreeNode:
        n_bytes, note = self.own[tensor.name], ""
        if tensor.n_bytes is None:
            note = "its bytes go up to the next tensor: nobody here knows this type"
        return TreeNode(f"{place}/{name}", name, "tensor", n_bytes, tensor.n_weights, layer, None, tensor, note)


def block_of(rest: str, routed: bool) -> str:
    """The block that a tensor of a layer belongs to, by its name within the layer; `routed`: the layer has experts."""
    if _SHARED_PARTS.search(rest):
        return "shared expert"
    if routed and _EXPERT_PARTS.search(f"{rest}."):
        return "experts"
    for word, block in _BLOCKS.items():
        if rest == word or rest.startswith((f"{word}_", f"{word}.")):
            return block
    if "norm" in rest:
        return "norms"
    return rest.split(".")[0].split("_")[0]


def _at(counts: tuple[int | None, ...], layer: int) -> int | None:
    return counts[layer] if layer < len(counts) else None


def _parent(
    id: str, name: str, kind: str, children: list[TreeNode], layer: int | None = None, note: str = ""
) -> TreeNode:
    """A node whose bytes and weights are those of its children."""
    n_bytes = sum(child.n_bytes or 0 for child in children)
    weights = sum(child.n_weights for child in children)
    return TreeNode(id, name, kind, n_bytes, weights, layer, note=note, children=tuple(children))


def _extents(header: Header) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of each tensor, and what is left: headers (up to the first tensor) and padding."""
    own: dict[str, int] = {}
    used = first = 0
    sizes = _shard_sizes(header)
    for shard, size in enumerate(sizes):
        tensors = sorted((t for t in header.tensors if t.shard == shard), key=lambda t: t.offset)
        if not tensors:
            first += size
            continue
        first += tensors[0].offset
        ends = [t.offset for t in tensors[1:]] + [max(size, tensors[-1].offset)]
        for tensor, end in zip(tensors, ends, strict=True):
            own[tensor.name] = end - tensor.offset if tensor.n_bytes is None else tensor.n_bytes
            used += own[tensor.name]
    total = sum(sizes) if header.complete else max(sum(sizes), first + used)
    return own, {"header": first, "padding": total - first - used}


def _shard_sizes(header: Header) -> list[int]:
    if len(header.shards) <= 1:
        return [header.n_bytes]
    return [path.stat().st_size for path in header.shards]
