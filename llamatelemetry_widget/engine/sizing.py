"""Will a model fit? Weights from the file, the rest planned by llama.cpp itself in a dry run that allocates nothing.

In: a tree of the model, settings, memory of a GPU. Out: `Fit`: bytes by owner and context length, layers to offload,
commands to copy.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import EngineCrashed, LlamaTelemetryError
from ..models.tree import ModelTree, TreeNode

if TYPE_CHECKING:
    import pandas as pd

_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from llamatelemetry_widget.engine.worker.sizing import main; main()"
_SECONDS = 120


@dataclass(frozen=True, eq=False)
class Fit:
    """What a model takes in memory.

    ``weights_bytes`` are those of the file. The other bytes are estimates: what llama.cpp plans for this file, these
    settings and this machine's devices in a dry run; it allocates the same when it really runs.

    Attributes
    ----------
    n_ctx : int
        Tokens of the context.
    kv_type : str
    weights_bytes, kv_bytes, recurrent_bytes, compute_bytes, output_bytes : int
        Weights, KV cache (windows and layers without attention respected), state of recurrent layers, buffers of the
        computation, logits.
    gpu_bytes : int or None
        Memory that was asked about.
    gpu_layers : int or None
        Layers that fit there beside the computation, the last ones first, as llama.cpp offloads them. An estimate: the
        compute buffer is taken as large as the CPU's.
    layers : int
        Layers of the model, and one for its output, as ``--n-gpu-layers`` counts them.
    by_context : DataFrame
        ``n_ctx``, ``kv_bytes``, ``recurrent_bytes``, ``compute_bytes``, ``total_bytes`` for several context lengths.
    """

    n_ctx: int
    kv_type: str
    weights_bytes: int
    kv_bytes: int
    recurrent_bytes: int
    compute_bytes: int
    output_bytes: int
    gpu_bytes: int | None
    gpu_layers: int | None
    layers: int
    by_context: pd.DataFrame = field(repr=False)
    _path: str = field(repr=False, default="")
    _flash: str = field(repr=False, default="auto")

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_bytes + self.recurrent_bytes + self.compute_bytes + self.output_bytes

    @property
    def fits_gpu(self) -> bool | None:
        """Whether all layers fit the GPU; None where none was asked about."""
        return None if self.gpu_layers is None else self.gpu_layers >= self.layers

    @property
    def server_command(self) -> str:
        """A ``llama-server`` command line with these settings."""
        words = ["llama-server", "-m", self._path, "-c", str(self.n_ctx), "-fa", self._flash]
        if self.kv_type != "f16":
            words += ["-ctk", self.kv_type, "-ctv", self.kv_type]
        if self.gpu_layers is not None:
            words += ["-ngl", str(self.gpu_layers)]
        return shlex.join(words)

    @property
    def modelfile(self) -> str:
        """An Ollama Modelfile with these settings. The type of the KV cache is a setting of Ollama's server."""
        lines = [f"FROM {self._path}", f"PARAMETER num_ctx {self.n_ctx}"]
        if self.gpu_layers is not None:
            lines.append(f"PARAMETER num_gpu {self.gpu_layers}")
        return "\n".join(lines) + "\n"


def fit(
    tree: ModelTree,
    path: str,
    n_ctx: int,
    kv_type: str,
    gpu_bytes: int | None,
    contexts: Sequence[int],
    n_ubatch: int,
    flash_attention: str,
    swa_full: bool,
) -> Fit:
    """Plan a model for several context lengths.

    Raises
    ------
    LlamaTelemetryError
        llama.cpp refuses the file or the settings; its reason is in the message.
    """
    import pandas as pd

    wanted = sorted({*contexts, n_ctx})
    plans = {plan["n_ctx"]: plan for plan in _planned(path, wanted, kv_type, n_ubatch, flash_attention, swa_full)}
    chosen = plans[n_ctx]
    if chosen["error"]:
        raise LlamaTelemetryError(f"llama.cpp cannot run this with {n_ctx} tokens of context: {chosen['error']}")
    weights = sum(node.n_bytes or 0 for node in tree.root.tensors)
    rows = [
        {
            "n_ctx": plan["n_ctx"],
            "kv_bytes": plan["kv"],
            "recurrent_bytes": plan["recurrent"],
            "compute_bytes": plan["compute"],
            "total_bytes": weights + plan["kv"] + plan["recurrent"] + plan["compute"] + plan["output"],
        }
        for plan in plans.values()
        if not plan["error"]
    ]
    frame: pd.DataFrame = pd.DataFrame(rows)
    layers = [node for node in tree if node.kind == "layer"]
    return Fit(
        n_ctx,
        kv_type,
        weights,
        chosen["kv"],
        chosen["recurrent"],
        chosen["compute"],
        chosen["output"],
        gpu_bytes,
        None if gpu_bytes is None else _offload(tree, layers, chosen, gpu_bytes),
        len(layers) + 1,
        frame,
        path,
        flash_attention,
    )


def _planned(
    path: str, contexts: Sequence[int], kv_type: str, n_ubatch: int, flash_attention: str, swa_full: bool
) -> list[dict[str, Any]]:
    request = {
        "path": path,
        "n_ctx": list(contexts),
        "kv_type": kv_type,
        "n_ubatch": n_ubatch,
        "flash_attention": flash_attention,
        "swa_full": swa_full,
    }
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run(
        [sys.executable, "-c", _BOOT, home, *(entry for entry in sys.path if entry)],
        input=json.dumps(request).encode(),
        capture_output=True,
        timeout=_SECONDS,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        check=False,
    )
    if done.returncode != 0 or not done.stdout:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        said = next((line for line in reversed(lines) if "ASSERT" in line), lines[-1] if lines else "no word")
        raise EngineCrashed(f"llama.cpp's dry run of {os.path.basename(path)} died: {said[:200]}", lines)
    answer = json.loads(done.stdout)
    if answer["error"]:
        raise LlamaTelemetryError(f"llama.cpp cannot plan {os.path.basename(path)}: {answer['error']}")
    plans: list[dict[str, Any]] = answer["plans"]
    return plans


def _offload(tree: ModelTree, layers: Sequence[TreeNode], plan: dict[str, Any], room: int) -> int:
    """How many layers fit: the output first, then the last layers, each with its share of the caches."""
    left = room - plan["compute"] - plan["output"]
    share = (plan["kv"] + plan["recurrent"]) / max(len(layers), 1)
    stages = {node.name: node.n_bytes or 0 for node in tree.root.children}
    output = stages.get("output", 0) + (stages.get("input", 0) if tree.tied else 0)
    fitting = 0
    for size in [output, *((layer.n_bytes or 0) + share for layer in reversed(layers))]:
        left -= size
        if left < 0:
            break
        fitting += 1
    return fitting
