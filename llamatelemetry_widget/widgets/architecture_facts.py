"""What the browser side of an architecture tree is told about a model: plain JSON, and the tree as columns of numbers.

In: a `ModelTree`. Out: the trait `facts`, `Columns` of all nodes and of those that have bytes of their own, notices.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate  # its months are English everywhere
from typing import Any

import numpy as np

from ..errors import CaptureUnavailable
from ..models.differences import differences
from ..models.ggml_types import GgmlType, ggml_type
from ..models.header import LongArray, TensorInfo, shown
from ..models.tree import ModelTree, TreeNode
from ..trace import Trace

Array = np.ndarray[Any, Any]

KINDS = ("model", "header", "stage", "layer", "block", "expert", "kv_group", "head", "tensor", "padding")
LAYER = "\ue000"  # stands for the number of the layer in the full name of a tensor
_TEXT = 4000  # characters of one metadata value
_HUES = (2, 3, 4, 5, 6, 8, 16, 32)  # bits that have a colour
_BLOCK = 256  # weights in a block of the K and IQ types

#: Tensors of a block in the order in which they are used; files often sort them by name.
_ORDER = re.compile(
    r"(?P<first>attn_norm|ffn_norm|ssm_norm)\b|(?P<q>attn_q\b|attn_q_a\b)|(?P<q_norm>attn_q_)|(?P<k>attn_k\b|attn_kv_a)"
    r"|(?P<k_norm>attn_k)|(?P<v>attn_v)|(?P<out>attn_o)|(?P<router>ffn_gate_inp|exp_probs)|(?P<gate>ffn_gate)|(?P<up>ffn_up)"
    r"|(?P<down>ffn_down)|(?P<last>post_|layer_out)"
)
_RANK = {name: at for at, name in enumerate(_ORDER.groupindex)}


class Table:
    """Values that stand once each; a column holds their places."""

    def __init__(self) -> None:
        self._places: dict[Any, int] = {}

    def __call__(self, value: Any) -> int:
        at = self._places.get(value)
        return self._places.setdefault(value, len(self._places)) if at is None else at

    @property
    def values(self) -> list[Any]:
        return list(self._places)


@dataclass(frozen=True)
class Tables:
    """What the columns of one widget point into."""

    strings: Table
    types: Table
    shapes: Table

    @classmethod
    def new(cls) -> Tables:
        made = cls(Table(), Table(), Table())
        made.strings("")
        return made


@dataclass(frozen=True)
class Columns:
    """A tree as numbers.

    Attributes
    ----------
    nodes : int32 (6, nodes)
        Parents first: parent, name, kind, layer, head, note; -1 for none. Names and notes are places in the strings.
    leaves : float64 (7, leaves)
        Nodes with bytes of their own, in order: node, full name, type, shape, bytes, offset, shard; -1 for none.
    names : list of str
        Of each leaf's tensor; "" of header and padding.
    """

    nodes: Array
    leaves: Array
    names: list[str]


def columns(tree: ModelTree, tables: Tables) -> Columns:
    """The columns of a tree."""
    nodes: list[tuple[int, ...]] = []
    leaves: list[tuple[float, ...]] = []
    names: list[str] = []
    strings, kinds = tables.strings, {kind: at for at, kind in enumerate(KINDS)}
    stack = [(tree.root, -1)]
    while stack:
        node, parent = stack.pop()
        at, layer, head = len(nodes), node.layer, node.head
        numbers = (-1 if layer is None else layer, -1 if head is None else head)
        nodes.append((parent, strings(node.name), kinds[node.kind], *numbers, strings(node.note)))
        if node.children:
            stack.extend([(child, at) for child in reversed(in_order(node))])
        elif node.kind in ("tensor", "header", "padding"):
            leaves.append((at, *_leaf(node, tables)))
            names.append(node.tensor.name if node.tensor else "")
    return Columns(_table(nodes, 6, np.int32), _table(leaves, 7, np.float64), names)


def _leaf(node: TreeNode, tables: Tables) -> tuple[float, ...]:
    tensor = node.tensor
    if tensor is None:
        return (-1, -1, -1, node.n_bytes or 0, -1, -1)
    name = tensor.name if node.layer is None else tensor.name.replace(f".{node.layer}.", f".{LAYER}.", 1)
    places = tables.strings(name), tables.types(tensor.type_code), tables.shapes(tensor.shape)
    return (*places, node.n_bytes or 0, tensor.offset, tensor.shard)


def _table(rows: list[Any], width: int, dtype: Any) -> Array:
    return np.ascontiguousarray(np.array(rows, dtype).reshape(-1, width).T)


def in_order(node: TreeNode) -> tuple[TreeNode, ...]:
    """Children in the order of a run: within a block tensors as they are used, where their names tell."""
    if node.kind not in ("block", "expert"):
        return node.children
    return tuple(sorted(node.children, key=_rank))


def _rank(node: TreeNode) -> int:
    if node.kind != "tensor":
        return len(_RANK) + 1
    found = _ORDER.match(node.name)
    return _RANK[found.lastgroup or ""] if found else len(_RANK) - 1


# ------------------------------------------------------------------------- facts


def facts(sides: list[tuple[ModelTree, Columns]], tables: Tables) -> dict[str, Any]:
    """The trait `facts`; `sides` are one model, or A and B."""
    return {
        "title": "Architecture",
        "provenance": provenance([tree for tree, _ in sides]),
        "details": _details(sides[0][0]),
        "live": True,
        "saved": " ".join(formatdate().split()[1:3]),
        "strings": tables.strings.values,
        "types": [type_facts(ggml_type(code)) for code in tables.types.values],
        "shapes": [list(shape) for shape in tables.shapes.values],
        "sides": [_side(tree) for tree, _ in sides],
    }


def provenance(trees: Iterable[ModelTree]) -> str:
    """Where the numbers come from."""
    parts = ["read from the file header"]
    if not all(tree.complete for tree in trees):
        parts.append("only the header is here: bytes are those of the whole file")
    return " · ".join([*parts, "no weights loaded"])


def _side(tree: ModelTree) -> dict[str, Any]:
    info, shards = tree.info, len(tree.info.shards)
    return {
        "model": info.name,
        "file": shown(info.path.name),
        "quant_type": info.quant_type,
        "architecture": info.architecture,
        "tied": tree.tied,
        "complete": tree.complete,
        "shards": shards,
        "notices": notices(tree),
        "metadata": [list(entry) for entry in metadata(info.metadata)],
    }


def _details(tree: ModelTree) -> dict[str, str]:
    info = tree.info
    words = {
        "model": info.name,
        "file": shown(info.path),
        "files": str(len(info.shards)),
        "architecture": info.architecture,
        "quant type": info.quant_type,
        "tensors": str(len(tree.root.tensors)),
        "bytes": str(tree.root.n_bytes),
    }
    return {key: str(value) for key, value in words.items() if value is not None}


def type_facts(kind: GgmlType) -> dict[str, Any]:
    """How a quant type is named and drawn: colour by bits, texture by family."""
    number = re.search(r"\d+", kind.name)
    bits = None if kind.block is None or kind.size is None else 8 * kind.size / kind.block
    hue = min(_HUES, key=lambda own: abs(own - int(number[0]))) if number and bits is not None else None
    return {"name": kind.name, "bits": bits, "hue": hue, "family": _family(kind), "block": kind.block}


def _family(kind: GgmlType) -> str:
    if kind.block is None:
        return "unknown"
    if kind.block == 1:
        return "plain"
    if kind.name.startswith(("IQ", "TQ")):
        return "iq"
    return "k" if "_K" in kind.name else "legacy" if re.fullmatch(r"Q\d_[01].*", kind.name) else "plain"


# ----------------------------------------------------------------------- notices


def notices(tree: ModelTree) -> list[list[str]]:
    """What the file's name, or its form, does not say: a strong sentence and its explanation each."""
    found = [_fallbacks(tree), _unknown(tree), _tied(tree), _split(tree), _header_only(tree)]
    return [list(notice) for notice in found if notice is not None]


def _fallbacks(tree: ModelTree) -> tuple[str, str] | None:
    """Quantized tensors that are not of the types that the file's name stands for."""
    said = tree.info.quant_type
    if said is None:
        return None
    other = [n.tensor for n in tree.root.tensors if n.tensor and not _meant(said, n.tensor)]
    if not other:
        return None
    types = " and ".join(f"{n} × {name}" for name, n in Counter(t.type_name for t in other).most_common())
    strong = f"{_many(len(other), 'tensor')} {'is' if len(other) == 1 else 'are'} not what the name {said} says."
    if _super(said) and all(t.shape[0] % _BLOCK for t in other):
        lengths = sorted({t.shape[0] for t in other})
        rows = ", ".join(map(str, lengths[:3])) + (", …" if len(lengths) > 3 else "")
        why = f"Rows of {rows} weights are no multiple of {_BLOCK}, its block: they are stored as {types} instead."
    else:
        why = f"Stored as {types}; the file does not say why."
    bits = tree.root.bits_per_weight
    return strong, why if bits is None else f"{why} All in all {bits:.2f} bits per weight."


def _meant(said: str, tensor: TensorInfo) -> bool:
    """Whether a type belongs to what a file of this name is made of: K and IQ mixes hold several of their families.

    What is not quantized counts as meant (norms, routers), and what nobody knows, of which another notice tells.
    """
    kind = ggml_type(tensor.type_code)
    if kind.block in (None, 1):
        return True
    return _family(kind) in ("k", "iq") if _super(said) else kind.name == said.removesuffix("_MOE")


def _super(said: str) -> bool:
    """Whether files of this name are made of blocks of 256 weights."""
    return "_K" in said or (said.startswith(("IQ", "TQ")) and said != "IQ4_NL")


def _unknown(tree: ModelTree) -> tuple[str, str] | None:
    types = tree.info.unknown_types
    if not types:
        return None
    count = sum(n.tensor is not None and n.tensor.n_bytes is None for n in tree.root.tensors)
    has = f"{_many(count, 'tensor')} {'has' if count == 1 else 'have'}"
    return f"{has} an unknown type.", f"{', '.join(types)}: shown as it stands, left out of bits per weight."


def _tied(tree: ModelTree) -> tuple[str, str] | None:
    return ("Output is tied to token_embd.", "The same matrix, stored once and drawn once.") if tree.tied else None


def _split(tree: ModelTree) -> tuple[str, str] | None:
    count = len(tree.info.shards)
    return (f"{count} files, one model.", "Bytes are those of all of them.") if count > 1 else None


def _header_only(tree: ModelTree) -> tuple[str, str] | None:
    if tree.complete:
        return None
    return (
        "Only the header is here.",
        "Types, shapes and bytes are those of the whole file; its weights cannot be read.",
    )


def _many(n: int, word: str) -> str:
    return f"{n:,}".replace(",", "\u202f") + f" {word}" + ("" if n == 1 else "s")


# ---------------------------------------------------------------------- metadata


def metadata(entries: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Key, kind and value of every entry, as text; long arrays by their length."""
    for key, value in entries.items():
        if isinstance(value, LongArray):
            yield key, "array", f"{_many(value.count, 'text' if value.type_code == 8 else 'number')}"
        elif isinstance(value, list):
            yield key, "array", _short(", ".join(map(str, value)))
        else:
            kind = {bool: "yes or no", int: "number", float: "number", str: "text"}.get(type(value), "")
            yield key, kind, _short(f"{value:.7g}" if isinstance(value, float) else str(value))


def _short(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[:_TEXT]} … ({len(text)} characters)"


# -------------------------------------------------------------------- comparison


def pairs(a: Columns, b: Columns) -> Array:
    """int32 (leaves of a,): the leaf of b with the same tensor; -1 where there is none. Headers are one tensor, too."""
    places = {name or kind: at for at, (name, kind) in enumerate(zip(b.names, _kinds(b), strict=True))}
    found = [places.get(name or kind, -1) for name, kind in zip(a.names, _kinds(a), strict=True)]
    return np.array(found, np.int32)


def _kinds(own: Columns) -> list[str]:
    kinds = own.nodes[2][own.leaves[0].astype(int)]
    return [f"\x00{kind}" for kind in kinds]


def roles(a: ModelTree, b: ModelTree) -> list[dict[str, Any]]:
    """What changed by role, the greatest difference in bytes first; what is the same last."""
    rows = []
    frame = differences(a, b)
    weights = {n.tensor.name: n.n_weights for tree in (b, a) for n in tree.root.tensors if n.tensor}
    frame["weights"] = frame["tensor"].map(weights)
    for name, own in frame.groupby("role", sort=False):
        row: dict[str, Any] = {"role": name, "count": len(own), "changes": dict(Counter(own["change"]))}
        for side in "ab":
            there = own[own[f"type_{side}"].notna()]
            row[f"types_{side}"] = [list(pair) for pair in Counter(there[f"type_{side}"]).most_common()]
            row[f"bytes_{side}"] = int(there[f"bytes_{side}"].sum())
            row[f"weights_{side}"] = int(there["weights"].sum())
        rows.append(row)
    return sorted(rows, key=lambda row: (-abs(row["bytes_b"] - row["bytes_a"]), -row["bytes_a"]))


# ---------------------------------------------------------------------- overlays

_MLP = ("MLP", "experts", "shared expert")
_PARTS = {"encoder layers": "encoder", "decoder layers": "decoder"}


def of_trace(trace: Trace, tree: ModelTree, names: list[str]) -> list[tuple[dict[str, str], Array]]:
    """What a trace tells of each leaf: the norm that its block writes, the outliers after its layer."""
    owners = _owners(tree)
    norm, outliers = (np.full(len(names), np.nan, np.float32) for _ in range(2))
    known: dict[tuple[str, str, int], float] = {}
    for leaf, name in enumerate(names):
        if name not in owners:
            continue
        stage, layer, block = owners[name]
        for source, out in (("mlp_out" if block in _MLP else "attention_out", norm), ("hidden", outliers)):
            key = source, stage, layer
            if key not in known:
                known[key] = _measure(trace, *key)
            if source == "hidden" or block in (*_MLP, "attention", "recurrence"):
                out[leaf] = known[key]
    made = [
        ("norm", "Norm", "median L2 norm of what the block adds to the residual stream", norm),
        ("outliers", "Outliers", "greatest value after the layer / root mean square of all", outliers),
    ]
    return [
        ({"name": name, "label": label, "words": words, "source": trace.provenance}, values)
        for name, label, words, values in made
        if np.isfinite(values).any()
    ]


def _owners(tree: ModelTree) -> dict[str, tuple[str, int, str]]:
    """Stage, layer and block of each tensor that is in a layer."""
    found = {}
    for stage in tree.root.children:
        for layer in stage.children:
            for block in layer.children:
                for node in block.tensors:
                    if node.tensor is not None and node.layer is not None:
                        found[node.tensor.name] = (stage.name, node.layer, block.name)
    return found


def _measure(trace: Trace, source: str, stage: str, layer: int) -> float:
    """One number of a layer; the first token, on which norms are far off the others', only where there is no other."""
    try:
        rows = getattr(trace, source)(layer, _PARTS.get(stage))
    except CaptureUnavailable:
        return float("nan")
    rows = rows[1:] if len(rows) > 1 else rows
    if source != "hidden":
        return float(np.median(np.linalg.norm(rows.astype(np.float64), axis=1)))
    return float(np.abs(rows).max() / np.sqrt(np.mean(np.square(rows, dtype=np.float64))))
