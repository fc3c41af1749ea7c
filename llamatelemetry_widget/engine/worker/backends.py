"""Which llama.cpp is installed and what it can compute on, without a model.

In: nothing. Out: versions, devices and what is wrong, as JSON on stdout. A process of its own, because looking at
devices starts their drivers.
"""

from __future__ import annotations

import ctypes as C
import json
import os
from typing import Any

import llama_cpp
from llama_cpp import llama_cpp as L

from ...errors import LlamaTelemetryError
from . import ggml
from .llama import all_devices, device_name


def main() -> None:
    """Entry of the process."""
    quiet = L.llama_log_callback(lambda _level, _text, _data: None)
    L.llama_log_set(quiet, None)
    L.llama_backend_init()
    try:
        ggml.check_layout()
        problem = ""
    except LlamaTelemetryError as error:
        problem = str(error)
    answer = {
        "llama_cpp_python": llama_cpp.__version__,
        "ggml": _said("ggml_version"),
        "commit": _said("ggml_commit"),
        "system": bytes(L.llama_print_system_info()).decode("utf-8", "replace"),
        "devices": [_device(device) for device in all_devices()],
        "rpc": bool(L.llama_supports_rpc()),
        "problem": problem,
    }
    os.write(1, json.dumps(answer).encode())
    os._exit(0)  # nothing that a library frees at the end may turn an answer into a crash


def _said(name: str) -> str:
    """A version that ggml tells; "" where this build does not."""
    try:
        return bytes(ggml.declared(ggml.BASE, name, C.c_char_p)()).decode("utf-8", "replace")
    except (AttributeError, TypeError):
        return ""


def _device(device: int) -> dict[str, Any]:
    describe = ggml.declared(ggml.BASE, "ggml_backend_dev_description", C.c_char_p, C.c_void_p)
    memory = ggml.declared(
        ggml.BASE, "ggml_backend_dev_memory", None, C.c_void_p, C.POINTER(C.c_size_t), C.POINTER(C.c_size_t)
    )
    free, total = C.c_size_t(), C.c_size_t()
    memory(device, C.byref(free), C.byref(total))
    said = bytes(describe(device) or b"").decode("utf-8", "replace")
    return {"name": device_name(device), "description": said, "free": free.value, "total": total.value}
