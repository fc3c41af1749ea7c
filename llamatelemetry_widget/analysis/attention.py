"""Attention of one layer: what was scored, any stage of any head again, the self-check, statistics and thumbnails.

In: the arrays that llama.cpp multiplied. Out: float32 matrices of single heads; a few numbers and bytes for all heads.
"""

from .masks import Mask
from .reduce import Reduced, reduce
from .replay import Scoring, check, output, replay, stages
from .statistics import STATISTICS, name_head
from .thumbnails import decode_thumbnail

__all__ = [
    "STATISTICS",
    "Mask",
    "Reduced",
    "Scoring",
    "check",
    "decode_thumbnail",
    "name_head",
    "output",
    "reduce",
    "replay",
    "stages",
]
