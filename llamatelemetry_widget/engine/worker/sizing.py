"""What a model would take in memory, by llama.cpp's own dry run: it plans every buffer and allocates none.

In: a path and settings, as JSON on stdin. Out: bytes by kind for each context length, as JSON on stdout. A process of
its own, because it must neither load the model nor die in one that has it loaded.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

from llama_cpp import llama_cpp as L

from .llama import FLASH, KV_TYPES
from .log import BUFFERS, MIB

_LOAD_MODE_NONE = 0  # a file that is mapped cannot be planned without being loaded
#: A dry run allocates no cache, so that it tells of its size in another line.
_SIZES = {
    "kv": re.compile(r"(llama_kv_cache\w*): size = *([\d.]+) MiB"),
    "recurrent": re.compile(r"(llama_memory_recurrent): size = *([\d.]+) MiB"),
    "compute": BUFFERS["compute"],
    "output": BUFFERS["output"],
}
_CELLS = re.compile(r"llama_kv_cache\w*: size = .*\( *(\d+) cells, *(\d+) layers")


def main() -> None:
    """Entry of the process."""
    request = json.load(sys.stdin)
    lines: list[str] = []

    def keep(_level: int, text: bytes, _data: Any) -> None:
        lines.append(text.decode("utf-8", "replace"))

    callback = L.llama_log_callback(keep)
    L.llama_log_set(callback, None)
    answer = _plan(request, lines)
    os.write(1, json.dumps(answer).encode())
    os._exit(0)  # nothing that a library frees at the end may turn an answer into a crash


def _plan(request: dict[str, Any], lines: list[str]) -> dict[str, Any]:
    parameters = L.llama_model_default_params()
    parameters.no_alloc, parameters.load_mode = True, _LOAD_MODE_NONE
    model = L.llama_model_load_from_file(os.fsencode(request["path"]), parameters)
    if not model:
        return {"error": _reason(lines), "plans": []}
    plans = [_context(model, n_ctx, request, lines) for n_ctx in request["n_ctx"]]
    return {"error": None, "plans": plans, "system": bytes(L.llama_print_system_info()).decode()}


def _context(model: Any, n_ctx: int, request: dict[str, Any], lines: list[str]) -> dict[str, Any]:
    p = L.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch = n_ctx, max(request["n_ubatch"], 1), request["n_ubatch"]
    p.flash_attn_type = FLASH[request["flash_attention"]]
    p.type_k = p.type_v = KV_TYPES[request["kv_type"]]
    p.swa_full = request["swa_full"]
    lines.clear()
    context = L.llama_init_from_model(model, p)
    if not context:
        return {"n_ctx": n_ctx, "error": _reason(lines)}
    L.llama_free(context)
    text = "".join(lines)
    sizes = {name: round(sum(float(m) for _, m in rule.findall(text)) * MIB) for name, rule in _SIZES.items()}
    caches = [{"cells": int(cells), "layers": int(layers)} for cells, layers in _CELLS.findall(text)]
    return {"n_ctx": n_ctx, "error": None, **sizes, "caches": caches}


def _reason(lines: list[str]) -> str:
    """The line in which llama.cpp says what is wrong."""
    said = [line.strip() for line in lines if "error" in line.lower()]
    said += [line.strip() for line in lines if "failed" in line.lower()]
    return said[0] if said else "it gives no reason"


if __name__ == "__main__":
    main()
