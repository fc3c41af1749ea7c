"""An importance matrix as llama.cpp's quantizer takes it: the mean square of what each weight column multiplies.

In: llama.cpp's imatrix GGUF (``NAME.in_sum2`` and ``NAME.counts`` for each tensor). Out: the struct of
`llama_model_quantize_params`, and what is noted of it in the quantized file.
"""

from __future__ import annotations

import ctypes as C
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as L

from ...errors import ModelFileError
from ...models.header import read_header

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
            raise ModelFileError(f"{Path(path).name} is no importance matrix: give an imatrix GGUF of llama.cpp")
        data = np.memmap(path, np.uint8, "r")
        found = {t.name: data[t.offset : t.offset + (t.n_bytes or 0)].view(np.float32) for t in header.tensors}
        self.values: dict[str, np.ndarray[Any, Any]] = {}
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
