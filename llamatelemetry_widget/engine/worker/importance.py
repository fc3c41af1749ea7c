"""An importance matrix as llama.cpp's quantizer takes it: the mean square of what each weight column multiplies.

In: llama.cpp's imatrix GGUF (``NAME.in_sum2`` and ``NAME.counts`` for each tensor), or the sums to write one. Out: the
struct of `llama_model_quantize_params` and what is noted of it in the quantized file, or a file.
"""

from __future__ import annotations

import ctypes as C
import struct
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as L

from ...errors import ModelFileError
from ...models.header import read_header

Array = np.ndarray[Any, Any]
SQUARES, COUNTS = ".in_sum2", ".counts"


class Importance:
    """An imatrix file.

    Parameters
    ----------
    path : str

    Attributes
    ----------
    values : dict of str to float32 ndarray
        Per tensor, experts one after the other; columns that never saw a token count as 1, as in llama.cpp's tool.
    notes : dict of str to str
        For the metadata of what is made with it.
    """

    def __init__(self, path: str) -> None:
        header = read_header(path)
        if header.metadata.get("general.type") != "imatrix":
            raise ModelFileError(f"{Path(path).name} is no importance matrix: make one with lt.imatrix(model, text)")
        data = np.memmap(path, np.uint8, "r")
        found = {t.name: data[t.offset : t.offset + (t.n_bytes or 0)].view(np.float32) for t in header.tensors}
        self.values: dict[str, Array] = {}
        for name, squares in found.items():
            if not name.endswith(SQUARES):
                continue
            tensor = name.removesuffix(SQUARES)
            counts = found.get(tensor + COUNTS)
            if counts is None or squares.size % counts.size:
                raise ModelFileError(f"{Path(path).name} has no counts for {tensor}: make the matrix again")
            rows = squares.reshape(counts.size, -1)
            seen = counts[:, None] > 0
            mean = np.where(seen, rows / np.where(seen, counts[:, None], 1), 1)
            self.values[tensor] = np.ascontiguousarray(mean, np.float32).reshape(-1)
        self.notes = {"quantize.imatrix.file": Path(path).name}

    def pointer(self) -> Any:
        """llama.cpp's list of (name, data, size), ended by an empty one; valid as long as this object."""
        self._list = (L.llama_model_imatrix_data * (len(self.values) + 1))()
        for own, (name, values) in zip(self._list, self.values.items(), strict=False):
            own.name, own.size = name.encode(), values.size
            own.data = values.ctypes.data_as(C.POINTER(C.c_float))
        return self._list


def write_importance(
    path: str, sums: dict[str, Array], counts: dict[str, Array], text: str, n_blocks: int, block: int
) -> None:
    """Write llama.cpp's imatrix GGUF.

    Parameters
    ----------
    path : str
    sums : dict of str to float64 ndarray (matrices, columns)
        Sums of squares of each tensor's inputs.
    counts : dict of str to ndarray (matrices,)
        Rows that were added up.
    text : str
        What the text is called.
    n_blocks, block : int
        Blocks of text, tokens of each.
    """
    metadata = [
        _pair("general.type", 8, _text("imatrix")),
        _pair("imatrix.datasets", 9, struct.pack("<IQ", 8, 1) + _text(text)),
        _pair("imatrix.chunk_count", 4, struct.pack("<I", n_blocks)),
        _pair("imatrix.chunk_size", 4, struct.pack("<I", block)),
    ]
    tensors: list[tuple[str, Array]] = []
    for name in sorted(sums):
        tensors.append((name + SQUARES, sums[name].astype("<f4")))
        tensors.append((name + COUNTS, counts[name].reshape(-1, 1).astype("<f4")))
    table, at = [], 0
    for name, data in tensors:
        table.append(_text(name) + struct.pack("<IQQIQ", 2, data.shape[1], data.shape[0], 0, at))
        at += _padded(data.nbytes)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)) + b"".join([*metadata, *table])
    with open(path, "wb") as file:
        file.write(head.ljust(_padded(len(head)), b"\0"))
        for _, data in tensors:
            file.write(data.tobytes().ljust(_padded(data.nbytes), b"\0"))


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _pair(key: str, code: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", code) + value


def _padded(n: int) -> int:
    return -(-n // 32) * 32  # GGUF's alignment
