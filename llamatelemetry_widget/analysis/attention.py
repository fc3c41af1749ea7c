"""Attention of one layer: what was scored, any stage of any head again, the self-check, statistics and thumbnails.

In: the arrays that llama.cpp multiplied. Out: float32 matrices of single heads; a few numbers and bytes for all heads.
"""

from .masks import Mask
from .normalizers import normalizers, normalizers_of
from .reduce import Reduced, reduce
from .replay import Scoring, alibi_slopes, check, output, replay, stages
from .statistics import STATISTICS, name_head
from .sums import looks, seen
from .thumbnails import decode_thumbnail
from .tiles import tile

__all__ = [
    "STATISTICS",
    "Mask",
    "Reduced",
    "Scoring",
    "alibi_slopes",
    "check",
    "decode_thumbnail",
    "looks",
    "name_head",
    "normalizers",
    "normalizers_of",
    "output",
    "reduce",
    "replay",
    "seen",
    "stages",
    "tile",
]
