"""What each query token may see: read from llama.cpp's mask values, kept as one interval of keys per row if it is one.

In: mask values of one or several ubatches. Out: `Mask`, linear in tokens for causal, windowed and unmasked attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Array, Rows, as_half, float32, namespace, select

_HALF_MINUS_INFINITY = 0xFC00  # bit pattern of -inf in IEEE half precision
_HALF_MAGNITUDE = 0x7FFF


@dataclass(frozen=True, eq=False)
class Mask:
    """Visible keys of every query row, and whether they are penalised by distance.

    Parameters
    ----------
    first, stop : int32 (rows,)
        The visible keys of a row lie in the interval [first, stop); an empty interval is a row that sees nothing.
    bits : bool (rows, keys) or None
        Which keys inside the interval are visible, only where that is not all of them. Keys past its width are not.
    distance : bool
        ALiBi: the mask's value at (i, j) is -|position(i) - j|, to be multiplied by the head's slope; else it is 0.
    offset : int
        Position of row 0 among the keys.
    """

    first: Array
    stop: Array
    bits: Array | None = None
    distance: bool = False
    offset: int = 0

    @classmethod
    def from_values(cls, values: Array, offset: int = 0) -> Mask:
        """Read the values that llama.cpp adds to the scores.

        Parameters
        ----------
        values : float (rows, keys)
            0 or -distance where the key is visible, -inf where it is not.
        offset : int
            Position of the first row among the keys.

        Raises
        ------
        ValueError
            A visible value is neither 0 nor minus the distance.
        """
        xp = namespace(values)
        visible, penalised = _read(values)
        distance = bool(xp.any(penalised))
        if distance:
            _check_distance(values, visible, offset)
        first, stop = _bounds(visible)
        whole = xp.all(_counts(visible) == stop - first)
        return cls(first, stop, None if whole else visible, distance, offset)

    @classmethod
    def join(cls, parts: Sequence[Mask]) -> Mask:
        """The mask of several ubatches in the order of their rows."""
        if not parts:
            raise ValueError("no masks to join: give at least one")
        xp = namespace(parts[0].first)
        first, stop = (xp.concat([getattr(p, name) for p in parts]) for name in ("first", "stop"))
        bits = None
        if any(p.bits is not None for p in parts):
            keys = max([int(xp.max(stop)), *(p.bits.shape[1] for p in parts if p.bits is not None)])
            bits = xp.concat([p.visible(slice(None), keys) for p in parts])
        return cls(first, stop, bits, any(p.distance for p in parts), parts[0].offset)

    @property
    def rows(self) -> int:
        """Number of query rows."""
        return int(self.first.shape[0])

    def visible(self, rows: Rows, keys: int, chosen: Rows = slice(None)) -> Array:
        """bool (rows, keys): which of so many keys, or of those chosen among them, each of these rows sees."""
        xp = namespace(self.first)
        j = select(xp.arange(keys, dtype=xp.int32), chosen)[None, :]
        seen = (j >= select(self.first, rows)[:, None]) & (j < select(self.stop, rows)[:, None])
        if self.bits is None:
            return seen
        bits = select(self.bits, rows)[:, :keys]
        missing = keys - bits.shape[1]
        if missing > 0:
            bits = xp.concat([bits, xp.zeros((bits.shape[0], missing), dtype=xp.bool)], axis=1)
        return seen & select(bits, chosen, axis=1)

    def visible_counts(self) -> Array:
        """int32 (rows,): number of keys that each row sees."""
        if self.bits is None:
            return self.stop - self.first
        return _counts(self.bits)

    def positions(self) -> Array:
        """int32 (rows,): where each row's own token stands among the keys.

        Rows that see one key more each are causal and stand at the last key they see; others are counted from `offset`.
        """
        xp = namespace(self.first)
        i = xp.arange(self.rows, dtype=xp.int32)
        causal = self.rows > 0 and bool(xp.all(self.stop == self.stop[0] + i))
        return self.stop - 1 if causal else i + self.offset


def _read(values: Array) -> tuple[Array, Array]:
    """Which cells are visible, and which of these hold something else than 0; both bool (rows, keys)."""
    xp = namespace(values)
    if isinstance(values, np.ndarray) and values.dtype == np.float16:
        # comparing halves is slow in NumPy, comparing their bits is not
        raw = np.ascontiguousarray(values).view(np.uint16)
        visible = raw != _HALF_MINUS_INFINITY
        return visible, visible & ((raw & _HALF_MAGNITUDE) != 0)
    visible = values != -xp.inf
    return visible, visible & (values != 0)


def _check_distance(values: Array, visible: Array, offset: int) -> None:
    """Refuse visible values that are not -|i - j|, exactly or rounded to float16 (as fused masks are)."""
    xp = namespace(values)
    i = xp.arange(values.shape[0], dtype=xp.int32)[:, None] + offset
    j = xp.arange(values.shape[1], dtype=xp.int32)[None, :]
    expected = xp.astype(-xp.abs(i - j), xp.float32)
    given = float32(values)
    wrong = visible & (given != expected) & (given != as_half(expected))
    if bool(xp.any(wrong)):
        strangest = xp.where(wrong, 1 + xp.astype(values != 0, xp.int32), xp.zeros_like(i - j))  # rather not a plain 0
        cell = int(xp.argmax(xp.reshape(strangest, (-1,))))
        row, key = divmod(cell, values.shape[1])
        raise ValueError(
            f"mask value {float(values[row, key])} at row {row}, key {key} is neither 0, -inf nor -|i - j| "
            f"with offset {offset}: this kind of mask is not known"
        )


def _counts(visible: Array) -> Array:
    """int32 (rows,): visible keys of each row."""
    if isinstance(visible, np.ndarray):
        return np.count_nonzero(visible, axis=1).astype(np.int32)
    xp = namespace(visible)
    return xp.sum(xp.astype(visible, xp.int32), axis=1, dtype=xp.int32)


def _bounds(visible: Array) -> tuple[Array, Array]:
    """int32 (rows,) first visible key and one past the last; both 0 where nothing is visible."""
    xp = namespace(visible)
    keys = visible.shape[1]
    if keys == 0:
        nothing = xp.zeros(visible.shape[0], dtype=xp.int32)
        return nothing, nothing
    seen = visible if isinstance(visible, np.ndarray) else xp.astype(visible, xp.int32)
    first = xp.astype(xp.argmax(seen, axis=1), xp.int32)
    stop = keys - xp.astype(xp.argmax(xp.flip(seen, axis=1), axis=1), xp.int32)
    return first, xp.where(xp.any(visible, axis=1), stop, xp.zeros_like(stop))
