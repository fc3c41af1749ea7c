"""Direct logit attribution: what the embedding, every head and every MLP adds to one logit.

In: the residual stream, the head's description, a row of the output matrix. Out: `Direction`, and `Contributions`.
The final norm is linear once its denominator is frozen at what it was in this run, as usual; that is done here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Direction:
    """How a residual stream becomes one logit: logit = direction . stream + constant, the norm frozen.

    Attributes
    ----------
    vector : float64 (width,)
    constant : float
        From biases of the final norm.
    """

    vector: Floats
    constant: float


@dataclass(frozen=True, eq=False)
class Contributions:
    """The parts of one logit, or of the difference of two.

    Attributes
    ----------
    parts : DataFrame
        ``part`` (``"embedding"``, ``"head"``, ``"attention"`` where heads cannot be told apart, ``"recurrence"`` or
        ``"convolution"`` of a layer without attention, ``"mlp"`` where there is one, ``"bias"``, ``"rounding"``),
        ``layer``, ``head``, ``logit``. A part that is one of a layer's has its layer. ``"rounding"`` is what
        llama.cpp's quantized products make of it beyond this sum: per layer between its heads and what its attention
        added, and of the output product.
    logit : float
        What the model says; of two words their difference. Before a final soft cap, where there is one.
    token, against : int or None
        The words.
    position : int
        The token after which they are predicted.
    note : str
        What could not be told apart, and that the norm is frozen.
    """

    parts: pd.DataFrame
    logit: float
    token: int
    against: int | None
    position: int
    note: str

    @property
    def sum(self) -> float:
        """Of all parts."""
        return float(self.parts["logit"].sum())

    @property
    def rounding(self) -> float:
        """Of the output product: how far the parts without it are from the model's own logit."""
        table = self.parts
        return float(table[(table["part"] == "rounding") & table["layer"].isna()]["logit"].sum())


def direction(
    stream: Floats,
    row: Floats,
    before: Sequence[tuple[str, Floats | None, float]],
    scale: float = 1.0,
) -> Direction:
    """How the stream at one position becomes a logit, its norm frozen.

    Parameters
    ----------
    stream : float (width,)
        After the last layer.
    row : float (width,)
        Of the output matrix, or the difference of two rows.
    before : sequence of (operation, weight, value)
        ``RMS_NORM`` and ``NORM`` (value: epsilon), ``MUL``, ``ADD`` (weight), ``SCALE`` (value), in order.
    scale : float
        Of the logits.

    Raises
    ------
    ValueError
        An operation that is not linear once frozen.
    """
    x, vector = stream.astype(np.float64), row.astype(np.float64) * scale
    factors = np.ones_like(x)
    offset = np.zeros_like(x)
    centred = False
    for op, weight, value in before:
        if op in ("RMS_NORM", "NORM"):
            centred = centred or op == "NORM"
            x = x - x.mean() if op == "NORM" else x
            by = 1 / np.sqrt((x**2).mean() + value)
            x, factors, offset = x * by, factors * by, offset * by
        elif op == "MUL" and weight is not None:
            x, factors, offset = x * weight, factors * weight, offset * weight
        elif op == "ADD" and weight is not None:
            x, offset = x + weight, offset + weight
        elif op == "SCALE":
            x, factors, offset = x * value, factors * value, offset * value
        else:
            raise ValueError(f"{op} cannot be taken apart")
    pulled = vector * factors
    return Direction(pulled - pulled.mean() if centred else pulled, float(vector @ offset))
