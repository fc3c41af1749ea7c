"""Trait types of the widgets: each says what it takes, turns NumPy scalars into plain ones, and refuses the rest.

In: what users and browsers assign. Out: plain Python values, or contiguous arrays that travel as binary buffers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import traitlets

Array = np.ndarray[Any, Any]


class Index(traitlets.TraitType[Any, Any]):
    """A number counted from 0, or None. NumPy integers count; booleans and fractions do not."""

    info_text = "a whole number from 0, or None"
    default_value = None
    allow_none = True

    def validate(self, obj: Any, value: Any) -> int | None:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral) or value < 0:
            self.error(obj, value)
        return int(value)


class Switch(traitlets.TraitType[Any, Any]):
    """True or False; NumPy's booleans count."""

    info_text = "True or False"
    default_value = False

    def validate(self, obj: Any, value: Any) -> bool:
        if not isinstance(value, (bool, np.bool_)):
            self.error(obj, value)
        return bool(value)


class _Copied(traitlets.TraitType[Any, Any]):
    """Reading gives a copy, so that a value changed in place and assigned again is a change, and is sent."""

    def get(self, obj: Any, cls: type | None = None) -> Any:
        return copy.deepcopy(super().get(obj, cls))


class Tokens(_Copied):
    """Selected tokens: ``[]``, ``[query]`` or ``[query, key, ...]``, each an index from 0."""

    info_text = "a list [], [query] or [query, key, ...] of token indices from 0"

    def make_dynamic_default(self) -> list[int]:
        return []

    def validate(self, obj: Any, value: Any) -> list[int]:
        try:
            items = list(value)
        except TypeError:
            self.error(obj, value)
        if not all(isinstance(i, Integral) and not isinstance(i, bool) for i in items):
            self.error(obj, value)
        numbers = [int(i) for i in items]
        if any(i < 0 for i in numbers):
            self.error(obj, value)
        return numbers


class Ranges(_Copied):
    """Filters: a dict from statistic to ``[lowest, highest]``; None at either end leaves it open."""

    info_text = "a dict from a statistic's name to [lowest, highest], None for an open end"

    def make_dynamic_default(self) -> dict[str, list[float | None]]:
        return {}

    def validate(self, obj: Any, value: Any) -> dict[str, list[float | None]]:
        if not isinstance(value, Mapping):
            self.error(obj, value)
        return {str(name): self._range(obj, value, ends) for name, ends in value.items()}

    def _range(self, obj: Any, value: Any, ends: Any) -> list[float | None]:
        if not isinstance(ends, (list, tuple, np.ndarray)) or len(ends) != 2:
            self.error(obj, value)
        low, high = (self._end(obj, value, end) for end in ends)
        if low is not None and high is not None and low > high:
            self.error(obj, value)
        return [low, high]

    def _end(self, obj: Any, value: Any, end: Any) -> float | None:
        if end is None:
            return None
        if isinstance(end, (bool, np.bool_)) or not isinstance(end, Real) or math.isnan(end):
            self.error(obj, value)
        return None if math.isinf(end) else float(end)


class Buffer(traitlets.TraitType[Any, Any]):
    """An array that travels as one binary buffer (row-major, little-endian).

    Parameters
    ----------
    dtype : numpy dtype
        Exactly this type is taken.
    axes : str
        Names of the axes, e.g. ``"heads rows keys"``; their number is checked.
    """

    def __init__(self, dtype: Any, axes: str, **more: Any) -> None:
        self.dtype, self.axes = np.dtype(dtype).newbyteorder("<"), axes.split()
        self.info_text = f"an array of {self.dtype.name} with the axes ({', '.join(self.axes)})"
        super().__init__(**more)
        self.tag(sync=True, to_json=_to_buffer, from_json=self._from_buffer)

    def make_dynamic_default(self) -> Array:
        return np.zeros((0,) * len(self.axes), self.dtype)

    def validate(self, obj: Any, value: Any) -> Array:
        if not isinstance(value, np.ndarray) or value.dtype != self.dtype or value.ndim != len(self.axes):
            shape = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise traitlets.TraitError(f"{type(obj).__name__}.{self.name} takes {self.info_text}, not {shape}")
        return np.ascontiguousarray(value)

    def set(self, obj: Any, value: Any) -> None:
        # traitlets compares old and new with ==, which for arrays is no yes or no: every assignment is a change.
        new = self._validate(obj, value)
        old = obj._trait_values.get(self.name)
        obj._trait_values[self.name] = new
        obj._notify_trait(self.name, old, new)

    def _from_buffer(self, value: Any, obj: Any) -> Array:
        """A browser's buffer in the shape that the trait has now."""
        now: Array = getattr(obj, self.name or "")
        out: Array = np.frombuffer(bytes(value), self.dtype).reshape(now.shape)
        return out


class Buffers(traitlets.TraitType[Any, Any]):
    """A list of bytes, each one binary buffer."""

    info_text = "a list of bytes"

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.tag(sync=True, to_json=lambda value, _: [memoryview(b) for b in value], from_json=lambda value, _: value)

    def make_dynamic_default(self) -> list[bytes]:
        return []

    def validate(self, obj: Any, value: Any) -> list[bytes]:
        if not isinstance(value, (list, tuple)) or not all(isinstance(b, (bytes, memoryview)) for b in value):
            self.error(obj, value)
        return [bytes(b) for b in value]


def as_bytes(value: Array) -> memoryview:
    """The bytes of an array, row-major; a view of an empty array cannot be cast."""
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data if value.size else memoryview(b"")


def _to_buffer(value: Array, _: Any) -> memoryview:
    return as_bytes(value)
