"""Quantizing by llama.cpp itself, in a process of its own: it can be killed, and may abort without the notebook.

In: one line of JSON on stdin, which stays open as long as the caller lives. Out: the file, and one line of JSON on
stdout: what every tensor becomes, or why not. Progress is what llama.cpp logs on stderr.
"""

from __future__ import annotations

import ctypes as C
import json
import os
import re
import shutil
import sys
import threading
from contextlib import suppress
from typing import Any

from llama_cpp import llama_cpp as L

from ...errors import LlamaTelemetryError
from .importance import Importance

_TENSOR = re.compile(r"^\[ *\d+/ *\d+\] (.+?) +- \[.*\], type = +(\w+), size = .*?(?:\((\w+)\))?$", re.MULTILINE)
_LONGEST_NOTE = 127  # bytes; llama.cpp keeps 128 with the zero at the end
_REASON = re.compile(r"failed to quantize: (.+)")
_HEADROOM = 1 << 20  # bytes beside the tensors: the header is copied, padding added


class Quantizer:
    """One request: from which file, to which, how."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._request, self.lines, self._echo = request, list[str](), False
        self._callback = L.llama_log_callback(self._keep)
        L.llama_log_set(self._callback, None)
        self._hold: list[Any] = []  # what llama.cpp's structs point at

    def __call__(self) -> dict[str, Any]:
        """Plan, look at the disk, quantize; what became of it."""
        if self._run(dry=True):
            return {"error": self._reason()}
        plan = [(name, (got or kept).upper()) for name, kept, got in _TENSOR.findall("".join(self.lines))]
        if self._request["dry"]:
            return {"error": None, "plan": plan}
        need, free = int(self._request["header_bytes"]), shutil.disk_usage(os.path.dirname(self._request["out"])).free
        sizes, kinds = self._request["weights"], self._request["type_sizes"]
        for name, kind in plan:
            block, size = kinds.get(kind, (1, 4))
            need += sizes.get(name, 0) * size // block
        if need + _HEADROOM > free:
            where = os.path.dirname(self._request["out"])
            return {"error": f"it needs {need / 1e9:.2f} GB and {where} has {free / 1e9:.2f} GB free"}
        if self._run(dry=False):
            return {"error": self._reason()}
        return {"error": None, "plan": plan}

    def _run(self, dry: bool) -> int:
        self.lines.clear()
        self._echo = not dry  # the dry run counts tensors too, which is no progress
        request, p = self._request, L.llama_model_quantize_default_params()
        p.ftype, p.nthread, p.allow_requantize, p.dry_run = request["ftype"], request["threads"], True, dry
        if request["tensor_types"]:
            overrides = (L.llama_model_tensor_override * (len(request["tensor_types"]) + 1))()
            for own, (pattern, kind) in zip(overrides, request["tensor_types"], strict=False):
                own.pattern, own.type = pattern.encode(), kind
            p.tt_overrides = overrides
            self._hold.append(overrides)
        notes = dict(request["metadata"])
        if request["imatrix"]:
            importance = Importance(request["imatrix"])
            p.imatrix = importance.pointer()
            notes |= importance.notes
            self._hold.append(importance)
        kept = (L.llama_model_kv_override * (len(notes) + 1))()
        for own, (key, value) in zip(kept, notes.items(), strict=False):
            text = value.encode()[:_LONGEST_NOTE].decode("utf-8", "ignore").encode()
            own.tag, own.key, own.value.val_str = L.LLAMA_KV_OVERRIDE_TYPE_STR, key.encode(), text
        p.kv_overrides = kept
        self._hold.append(kept)
        out = os.fsencode(request["out"])
        return int(L.llama_model_quantize(os.fsencode(request["path"]), out, C.byref(p)))

    def _keep(self, _level: int, text: bytes, _data: Any) -> None:
        self.lines.append(text.decode("utf-8", "replace"))
        if self._echo:
            os.write(2, text)

    def _reason(self) -> str:
        """What llama.cpp says is wrong."""
        said = _REASON.findall("".join(self.lines))
        return said[-1].strip() if said else "llama.cpp gives no reason"


def main() -> None:
    """Entry of the process."""
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_caller, args=(request["out"],), daemon=True).start()
    try:
        answer = Quantizer(request)()
    except LlamaTelemetryError as error:
        answer = {"error": str(error), "type": type(error).__name__}  # ours, not llama.cpp's: complete as it is
    os.write(1, json.dumps(answer).encode())
    os._exit(0)  # nothing that a library frees at the end may turn an answer into a crash


def _leave_with_caller(out: str) -> None:
    """When the caller is gone nobody wants the file, nor the half of it that there is."""
    sys.stdin.buffer.read()
    with suppress(OSError):
        os.unlink(out)
    os._exit(1)


if __name__ == "__main__":
    main()
