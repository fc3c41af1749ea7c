"""What `EmbeddingSpace3D` tells the browser: quantised points, groups with hues, columns to colour by, found tokens.

In: an `EmbeddingSpace`, a projection, groups, drift. Out: plain JSON and small arrays.
"""

from __future__ import annotations

import datetime
import heapq
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.projection import components, usable
from ..errors import LlamaTelemetryError

if TYPE_CHECKING:
    from ..analysis.clusters import Clusters
    from ..analysis.drift import Drift
    from ..studies.embedding_space import EmbeddingSpace

Array = np.ndarray[Any, Any]

HUES = 8  # groups that get a colour of their own; the rest stay grey, with a label
UNPLACED = 65535  # of all three coordinates: this row has no place in the picture
FEW = 2000  # rows whose network is that of all, where nothing is selected
NETWORK_ROWS = 20_000  # whose network is found while one waits
DRAWN = 20_000  # lines, the most alike first
_TOP = UNPLACED - 1
MOVERS = 10
_BARS = 48
_SHORT = 3  # characters
_WORDED = 0.7  # share of whole words from which a group is one of words

#: Columns that every space has: name, label, unit.
NUMBERS = {"norm": ("Norm", "length of the vector"), "rank": ("Rank", "token id; earlier tokens are more common")}
CATEGORIES = {"kind": "Kind", "script": "Script"}
TITLES = {"umap": "UMAP, cosine", "pca": "PCA"}


def along(own: Array, other: Array) -> Array:
    """Other vectors in the PCA picture of a model's own.

    Parameters
    ----------
    own : float (n, width)
        What the picture was made of.
    other : float (m, width)
        Rows that are zero or not finite have no place.
    """
    axes = components(own[usable(own)], 3)
    found = (other - axes.mean) @ axes.directions.T
    out: Array = np.pad(found, ((0, 0), (0, 3 - found.shape[1]))).astype(np.float32)
    out[~usable(other)] = np.nan
    return out


def quantised(positions: Array, cube: tuple[Array, Array] | None = None) -> tuple[Array, list[float], list[float]]:
    """Points as uint16 (n, 3) over their bounding cube, and the cube's corners; rows that are not placed say so.

    With `cube`, over that one; what lies outside is drawn to its side.
    """
    good = np.isfinite(positions).all(1)
    placed = positions[good].astype(np.float64)
    low, high = (placed.min(0), placed.max(0)) if len(placed) else (np.zeros(3), np.ones(3))
    side = float((high - low).max()) or 1.0
    start = (low + high - side) / 2
    if cube is not None:
        start, side = cube[0], float((cube[1] - cube[0]).max())
    out = np.full((len(positions), 3), UNPLACED, np.uint16)
    out[good] = np.clip(np.rint((placed - start) / side * _TOP), 0, _TOP)
    return out, start.tolist(), (start + side).tolist()


def groups(clusters: Clusters | None, positions: Array) -> list[dict[str, Any]]:
    """Name, size, place (in this projection), hue and level of each group.

    Hues go to the largest groups of whole words. A group of level 0 is named from afar; each level names four times as
    many, the largest of every group of groups.
    """
    if clusters is None:
        return []
    count, depth = clusters.parents.shape
    order = sorted(range(count), key=lambda group: (clusters.worded[group] < _WORDED, group))
    hues = {group: hue for hue, group in enumerate(order[:HUES])}
    levels = [depth] * count
    for level in reversed(range(depth)):
        first = {int(clusters.parents[group, level]): group for group in reversed(order)}
        for group in first.values():
            levels[group] = level
    found = []
    for i, name in enumerate(clusters.names):
        rows = positions[clusters.labels == i]
        if not np.isfinite(rows).all(1).any():
            continue
        place = np.nanmedian(rows, axis=0).tolist()
        about = {"label": i, "name": name, "count": len(rows), "at": place}
        found.append({**about, "hue": hues.get(i), "level": 0 if i in hues else levels[i]})
    return found


def network_facts(network: float, rows: str, cosines: Array) -> dict[str, Any]:
    """How many lines there are between how many rows, of what, and the cosines of those that are drawn."""
    drawn = cosines[:DRAWN]
    rule = f"{network} nearest of each" if network >= 1 else f"cosine at least {network:g}"
    words = f"{count(len(cosines))} link{'s' * (len(cosines) != 1)} between {rows} \u00b7 {rule}"
    if len(drawn) < len(cosines):
        words += f", the {count(len(drawn))} most alike drawn: to_graph() has all"
    low, high = (float(drawn[-1]), float(drawn[0])) if len(drawn) else (0.0, 1.0)
    return {"words": words, "low": low, "high": high}


def path(steps: Array | None) -> dict[str, Any] | None:
    """How rows of a residual stream go together: layer after layer, each with all tokens."""
    if steps is None:
        return None
    layers = list(dict.fromkeys(steps[:, 0].tolist()))
    return {"tokens": len(steps) // len(layers), "layers": layers}


def columns_of(own: Mapping[str, Array], drift: bool, texts: bool, path: bool = False) -> list[dict[str, Any]]:
    """What there is to colour by, in the order of the control."""
    found = [{"name": "cluster", "label": "Cluster", "unit": ""}]
    found += [{"name": name, "label": label, "unit": unit} for name, (label, unit) in NUMBERS.items()]
    found += [{"name": name, "label": label, "unit": ""} for name, label in CATEGORIES.items()]
    if texts or path:
        found = [column for column in found if column["name"] in ("cluster", "norm")]
    if drift:
        found.append({"name": "drift", "label": "Drift", "unit": "1 \u2212 cosine"})
    labels = {"layer": "Layer"} if path else {}
    return found + [{"name": name, "label": labels.get(name, name), "unit": ""} for name in own]


def user_columns(columns: Mapping[str, Any], n: int) -> dict[str, Array]:
    """A user's columns as arrays; each must have a value for every row."""
    found = {}
    for name, values in columns.items():
        array = np.asarray(values)
        if array.shape != (n,):
            raise LlamaTelemetryError(f"column {name!r} has the shape {array.shape}, the space has {n} rows")
        found[str(name)] = array
    return found


def column(name: str, space: EmbeddingSpace, own: Mapping[str, Array], drift: Drift | None) -> tuple[Array, list[str]]:
    """The values of a column: float32 with no names, or uint8 codes and the names, most frequent first."""
    if name in own:
        values = own[name]
        if values.dtype.kind in "biuf":
            return values.astype(np.float32), []
        return codes(["" if value is None or value != value else str(value) for value in values.tolist()])
    if name == "norm":
        return np.linalg.norm(space.vectors, axis=1).astype(np.float32), []
    if name == "rank":
        return space.ids.astype(np.float32), []
    if name == "kind":
        return codes(space.kinds)
    if name == "script":
        return codes([script(token) for token in space.tokens])
    if name == "drift" and drift is not None:
        return drift.moved.astype(np.float32), []
    raise LlamaTelemetryError(f"there is no column {name!r} here")


def codes(values: Sequence[str]) -> tuple[Array, list[str]]:
    """uint8 codes and their names, the most frequent first; from the 256th on, all are "other"."""
    names, inverse, counts = np.unique(np.asarray(values, object).astype(str), return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    listed = [str(names[i]) or "(none)" for i in order]
    if len(listed) > 256:
        listed = [*listed[:255], "other"]
    return np.minimum(rank, 255)[inverse].astype(np.uint8), listed


_KANA = ("HIRAGANA", "KATAKANA")


@lru_cache(maxsize=65536)
def _script(character: str) -> str:
    kind = unicodedata.category(character)
    if kind[0] == "N":
        return "digits"
    if kind[0] != "L":
        return ""
    word = unicodedata.name(character, "other").split()[0].split("-")[0]
    return {"CJK": "Han", **dict.fromkeys(_KANA, "Kana")}.get(word, word.capitalize())


def script(token: str) -> str:
    """The writing system of a token's first letter; what has neither letters nor digits is "signs"."""
    if token.startswith("<0x"):
        return "bytes"
    found = [own for own in map(_script, token) if own]
    letters = [own for own in found if own != "digits"]
    return (letters or found or ["signs"])[0]


class Search:
    """Finds tokens by text.

    Parameters
    ----------
    tokens : sequence of str
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens, self._lowered = tokens, [token.lower() for token in tokens]
        self._short = [row for row, token in enumerate(tokens) if len(token) <= _SHORT]

    def find(self, text: str, limit: int) -> tuple[list[int], int]:
        """Rows whose token is, begins with or holds a text, best first, and how many there are.

        Capitals do not matter; a space at the beginning asks for tokens that begin a word.
        """
        spaced = text[:1] in (" ", "\u00b7")
        exact = ("\u00b7" if spaced else "") + text.lstrip(" \u00b7")
        wanted = exact.lower()
        if not wanted.strip("\u00b7"):
            return [], 0
        tokens, lowered = self._tokens, self._lowered
        found = [row for row, token in enumerate(lowered) if wanted in token]

        def worth(row: int) -> tuple[int, int, int]:
            token, low = tokens[row], lowered[row]
            if token == exact or (not spaced and token.lstrip("\u00b7") == exact):
                return (0, len(token), row)
            if low in (wanted, "\u00b7" + wanted):
                return (1, len(token), row)
            return (2 if low.startswith((wanted, "\u00b7" + wanted)) else 3, len(token), row)

        near = found
        if len(found) > 4000:  # a letter or two: what is short comes first anyway
            near = [row for row in self._short if wanted in lowered[row]] or found
        return heapq.nsmallest(limit, near, key=worth), len(found)


def drift_facts(drift: Drift, space: EmbeddingSpace, label: str) -> dict[str, Any]:
    """The most moved tokens, the histogram and the sentence of a comparison."""
    moved = drift.moved[np.isfinite(drift.moved)]
    order = np.argsort(-np.nan_to_num(drift.moved, nan=-1.0), kind="stable")[:MOVERS]
    order = order[np.isfinite(drift.moved[order])]
    counts, edges = np.histogram(moved, _BARS) if len(moved) else (np.zeros(0), np.zeros(0))
    low, middle, high = np.quantile(moved, (0.01, 0.5, 0.99)).tolist() if len(moved) else (0.0, 0.0, 0.0)
    kept = drift.kept[np.isfinite(drift.kept)]
    return {
        "label": label,
        "low": low,
        "median": middle,
        "high": high,
        "kept": float(kept.mean() * drift.k) if len(kept) else None,
        "k": drift.k,
        "rows": drift.rows,
        "aligned": drift.aligned,
        "movers": [
            {"row": int(row), "text": space.tokens[row], "moved": float(drift.moved[row])} for row in order.tolist()
        ],
        "histogram": counts.tolist(),
        "edges": edges.tolist(),
    }


def provenance(space: EmbeddingSpace) -> tuple[str, dict[str, Any]]:
    """One line on where the vectors come from, and the details behind it."""
    info = space.model.info
    names = {"input": "token_embd", "output": "output"}
    tensors = {n.tensor.name: n.tensor for n in space.model.tree.root.tensors if n.tensor is not None}
    tensor = tensors.get(f"{names[space.matrix]}.weight") or tensors.get("token_embd.weight")
    stored = f"{tensor.name.removesuffix('.weight')} {tensor.type_name}" if tensor is not None else names[space.matrix]
    texts = bool(len(space.ids)) and int(space.ids[0]) < 0
    what = f"texts, layer {space.layer}" if texts and space.layer is not None else stored
    if space.steps is not None:
        what = "residual stream"
    details = {
        "model": info.name,
        "file": info.path.name,
        "vectors": what,
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
    }
    return f"{what} \u00b7 {info.name}", details


def count(n: int) -> str:
    """A number with thin spaces between thousands."""
    return f"{n:,}".replace(",", "\u202f")
