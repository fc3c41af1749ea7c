"""ggml's tensor types: code -> name, weights per block, bytes per block. Codes that are not here are shown as unknown.

In: a tensor's type code, or a file's `general.file_type`. Out: what llama.cpp calls it (`ggml.h`, `llama.h`). The list
is open: new types appear with new releases, and a file that has one can still be looked at.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class GgmlType(NamedTuple):
    """How one tensor type is stored; `block` and `size` are None where the code is not known."""

    name: str
    block: int | None  # weights per block
    size: int | None  # bytes per block


_KNOWN = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    31: ("Q4_0_4_4", 32, 18),  # 31 to 33 and 36 to 38 are repacked forms that llama.cpp no longer runs
    32: ("Q4_0_4_8", 32, 18),
    33: ("Q4_0_8_8", 32, 18),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    36: ("IQ4_NL_4_4", 32, 18),
    37: ("IQ4_NL_4_8", 32, 18),
    38: ("IQ4_NL_8_8", 32, 18),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}

# general.file_type: what the maker of a file says it mostly is
FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    33: "Q4_0_4_4",
    34: "Q4_0_4_8",
    35: "Q4_0_8_8",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}

#: Types that weights can be quantized to, by name.
TENSOR_TYPES = {
    name: code
    for code, (name, _, _) in _KNOWN.items()
    if (name not in ("Q8_1", "Q8_K", "F64") and not name.startswith("I")) or name.startswith("IQ")
    if not name.endswith(("_4_4", "_4_8", "_8_8"))
}


@lru_cache(maxsize=256)  # asked for every tensor, some of them several times
def ggml_type(code: int) -> GgmlType:
    """The type behind a code; ``unknown type 99`` where nobody here knows it."""
    return GgmlType(*_KNOWN[code]) if code in _KNOWN else GgmlType(f"unknown type {code}", None, None)
