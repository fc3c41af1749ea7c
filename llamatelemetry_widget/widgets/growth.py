"""A grid while a text is written: rows of all thumbnails as their tokens come, and what the browser is told of them.

In: the trace that grows, and how many tokens it may have. Out: thumbnails laid out over that length from the start, so
that nothing moves while they fill in; facts; the message ``grow`` with all that is new since the last one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..analysis.attention import Reduced
from ..analysis.replay import replay_heads
from ..analysis.thumbnails import edges, encode
from ..export.thumbnails import shrink
from ..trace import GeneratedToken, Trace, display_token
from .attention_facts import SIDE, layers_of, sides

Array = np.ndarray[Any, Any]

TOP = 5  # likeliest tokens that are told of each


class Growth:
    """Thumbnails of a trace of one part that gets longer.

    Parameters
    ----------
    trace : Trace
        Has its prompt.
    n_max : int
        Tokens that it may have at the end.
    part : str

    Attributes
    ----------
    thumbnails : uint8 (heads, side_rows, side_keys)
        Cell r covers the tokens ``edges(n_max, side_rows)[r]`` and following; 0 where none has come.
    n_now : int
        Rows that stand in them.
    """

    def __init__(self, trace: Trace, n_max: int, part: str = "self") -> None:
        self.trace, self.n_max, self.part = trace, n_max, part
        self.n_prompt = self.n_now = len(trace.token_ids) - len(trace._generated)
        layers = [layer for layer in layers_of(trace, part) if layer.kind == "attention"]
        self.sides = sides(layers, n_max, n_max)
        self._heads = {layer.layer: layer.heads for layer in layers}
        ends = np.cumsum([0, *self._heads.values()]).tolist()
        self._first = dict(zip(self._heads, ends, strict=False))
        self.thumbnails = np.zeros((ends[-1], *self.sides), np.uint8)
        self._heard = self._told = 0

    def hear(self, token: GeneratedToken) -> None:
        """A token came, and with it its row in every layer."""
        self._heard = token.position + 1 - self.n_prompt

    def facts(self) -> dict[str, Any]:
        """What differs in the trait `facts` while the text is written."""
        tokens = self.trace.tokens[: self.n_prompt + self._told]
        return {
            "n_tokens": self.n_max,
            "n_now": self.n_now,
            "tokens": tokens,
            "kinds": self.trace.token_kinds[: len(tokens)],
            "query_tokens": tokens,
            "side_rows": self.sides[0],
            "side_keys": self.sides[1],
            "generated": self.n_prompt,
            "generation": [written(token) for token in self.trace._generated[: self._told]],
        }

    def take_layer(self, layer: int, reduced: Reduced) -> None:
        """Put the prompt's thumbnails of a layer in their place."""
        side = min(SIDE, self.n_max)
        codes = np.asarray(reduced.thumb_max)
        whole = np.zeros((codes.shape[0], side, side), np.uint8)
        whole[:, : codes.shape[1], : codes.shape[2]] = codes
        self.layer(layer)[:] = shrink(whole, *self.sides)

    def layer(self, layer: int) -> Array:
        """A layer's own: uint8 (heads, side_rows, side_keys)."""
        at = self._first[layer]
        return self.thumbnails[at : at + self._heads[layer]]

    def rows(self, a: int, b: int) -> tuple[int, Array]:
        """Put rows a .. b - 1 of all heads into the thumbnails, as far as all layers have them.

        Returns
        -------
        int
            The first row of the thumbnails that changed.
        uint8 (heads, changed rows, side_keys)
        """
        scorings = {layer: self.trace.scoring(layer, self.part) for layer in self._first}
        b = min([b, *(scoring.rows for scoring in scorings.values())])
        if b <= a:  # a bias, or a mask with gaps: all rows come at the end
            return 0, self.thumbnails[:, :0]
        row_edges, key_edges = (edges(self.n_max, side) for side in self.sides)
        first = int(np.searchsorted(row_edges, a, "right")) - 1
        last = int(np.searchsorted(row_edges, b - 1, "right"))
        rows = slice(int(row_edges[first]), b)  # a cell is as much as the rows before it that it also covers
        starts = row_edges[first:last] - rows.start
        for layer, scoring in scorings.items():
            at = self._first[layer]
            columns = key_edges[:-1][key_edges[:-1] < scoring.keys]
            for head in range(0, scoring.heads, scoring.group):
                p = np.asarray(replay_heads(scoring, head, head + scoring.group, rows), np.float32)
                cells = np.maximum.reduceat(np.maximum.reduceat(p, columns, axis=2), starts, axis=1)
                self.thumbnails[at + head : at + head + scoring.group, first:last, : columns.size] = encode(cells)
        self.n_now = max(self.n_now, b)
        return first, np.ascontiguousarray(self.thumbnails[:, first:last])

    def news(self) -> tuple[dict[str, Any], Array] | None:
        """The message ``grow`` and its buffer: all that came since the last one; None where nothing did."""
        a, b = self._told, self._heard
        if a == b:
            return None
        first, codes = self.rows(self.n_prompt + a, self.n_prompt + b)
        self._told = b
        new = self.trace._generated[a:b]
        message = {
            "type": "grow",
            "from": self.n_prompt + a,
            "n_now": self.n_now,
            "tokens": [token.text for token in new],
            "kinds": [token.kind for token in new],
            "stats": [written(token) for token in new],
            "row0": first,
            "row1": first + codes.shape[1],
        }
        return message, codes


def written(token: GeneratedToken) -> list[Any]:
    """One generated token in `facts`: probability, rank, milliseconds, and the likeliest tokens ``[text, p]``."""
    top = [[display_token(piece), float(p)] for _, piece, p in token.top[:TOP]]
    return [float(token.probability), int(token.rank), 1000 * float(token.seconds), top]


def generation_facts(trace: Trace, part: str) -> dict[str, Any]:
    """What `facts` says of a whole trace whose end the model wrote."""
    tokens = list(trace._generated)
    if not tokens or part not in ("self", "decoder"):
        return {}
    return {"generated": tokens[0].position, "generation": [written(token) for token in tokens]}
