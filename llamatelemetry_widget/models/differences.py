"""Two files tensor by tensor: what one lacks, what is stored in another type, how many bytes it costs.

In: two `ModelTree`s. Out: one row per tensor, and the same added up by role (all ``ffn_down`` of a model are one role).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .header import TensorInfo
from .tree import ModelTree

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("tensor", "role", "layer", "change", "type_a", "type_b", "shape_a", "shape_b", "bytes_a", "bytes_b")


def role(name: str) -> str:
    """A tensor's name without the numbers of its layer and expert: ``blk.3.ffn_down.weight`` is ``ffn_down``."""
    without = re.sub(r"\.\d+(?=\.)", "", name)
    return re.sub(r"(^|\.)blk\.", r"\1", without).removesuffix(".weight")


def differences(a: ModelTree, b: ModelTree) -> pd.DataFrame:
    """Compare two files by the names of their tensors.

    Parameters
    ----------
    a, b : ModelTree

    Returns
    -------
    DataFrame
        One row per tensor of either, in the order of a, then what only b has: ``tensor``, ``role``, ``layer``,
        ``change`` (``"same"``, ``"type"``, ``"shape"``, ``"only in A"``, ``"only in B"``), and of each file ``type``,
        ``shape`` and ``bytes`` (missing where it lacks the tensor).
    """
    import pandas as pd

    ours, theirs = ({node.tensor.name: node for node in tree.root.tensors if node.tensor} for tree in (a, b))
    rows = []
    for name in dict.fromkeys([*ours, *theirs]):
        one, two = ours.get(name), theirs.get(name)
        known = one or two
        assert known is not None
        left, right = (node.tensor if node else None for node in (one, two))
        rows.append(
            {
                "tensor": name,
                "role": role(name),
                "layer": known.layer,
                "change": _change(left, right),
                "type_a": left and left.type_name,
                "type_b": right and right.type_name,
                "shape_a": left and left.shape,
                "shape_b": right and right.shape,
                "bytes_a": one and one.n_bytes,
                "bytes_b": two and two.n_bytes,
            }
        )
    frame: pd.DataFrame = pd.DataFrame(rows, columns=list(COLUMNS))
    for column in ("layer", "bytes_a", "bytes_b"):
        frame[column] = frame[column].astype("Int64")
    return frame


def _change(a: TensorInfo | None, b: TensorInfo | None) -> str:
    if a is None or b is None:
        return "only in B" if a is None else "only in A"
    if a.shape != b.shape:
        return "shape"
    return "same" if a.type_code == b.type_code else "type"
