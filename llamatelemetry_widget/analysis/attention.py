"""Attention of one layer: what was scored (`Scoring`, `Mask`), any head again (`replay`), the self-check (`check`).

In: the arrays that llama.cpp multiplied. Out: float32 matrices of single heads.
"""

from .masks import Mask
from .replay import Scoring, check, output, replay, stages

__all__ = [
    "Mask",
    "Scoring",
    "check",
    "output",
    "replay",
    "stages",
]
