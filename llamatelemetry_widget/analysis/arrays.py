"""What the array API standard leaves to its users: whose array is it, rows by slice or by number, float32 copies.

In: arrays of any library that follows the standard. Out: arrays of the same library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, to_device

Array: TypeAlias = Any
_CPU = 1  # of the DLPack protocol
Rows: TypeAlias = "slice | Sequence[int] | Array"


def namespace(x: Array) -> Any:
    """Module with the array API functions for `x`, also for a NumPy that does not have them all yet."""
    return array_namespace(x)


def float32(x: Array) -> Array:
    """`x` as float32, copied only where it is something else."""
    xp = namespace(x)
    return xp.astype(x, xp.float32, copy=False)


def as_half(x: Array) -> Array:
    """float32 `x` rounded to float16 where the library has it (NumPy, CuPy); the standard does not."""
    half = getattr(namespace(x), "float16", None)
    return x if half is None else float32(namespace(x).astype(x, half))


def host(x: Array) -> Any:
    """`x` as a NumPy array, copied from the device where it lies on one."""
    if isinstance(x, np.ndarray):
        return x
    if x.__dlpack_device__()[0] == _CPU:
        return np.from_dlpack(x)
    return np.asarray(to_device(x, "cpu"))


def select(x: Array, rows: Rows, axis: int = 0) -> Array:
    """Rows of `x` along `axis`, by slice or by a sequence of row numbers."""
    if isinstance(rows, slice):
        return x[(slice(None),) * axis + (rows, ...)]
    xp = namespace(x)
    return xp.take(x, xp.asarray(rows, dtype=xp.int64), axis=axis)
