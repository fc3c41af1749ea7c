"""Which llama.cpp this Python has and which devices it computes on, asked of it in a process that ends at once.

In: nothing. Out: `Backends`. Nothing is loaded into the process that asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from ..errors import EngineCrashed

_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from llamatelemetry_widget.engine.worker.backends import main; main()"
_SECONDS = 60


@dataclass(frozen=True)
class Device:
    """Something that llama.cpp computes on: its ggml name (``"CUDA0"``), what it is, its bytes free and in all."""

    name: str
    description: str
    free: int
    total: int

    @property
    def is_gpu(self) -> bool:
        """Whether layers can be offloaded to it."""
        return not self.name.startswith(("CPU", "BLAS", "RPC"))


@dataclass(frozen=True)
class Backends:
    """The llama.cpp of this Python.

    Attributes
    ----------
    llama_cpp_python, ggml, commit : str
        Versions.
    system : str
        Instructions that it was built for, in llama.cpp's words.
    devices : tuple of Device
    rpc : bool
        Whether it was built with RPC.
    problem : str
        Why this package cannot use it; empty where it can.
    """

    llama_cpp_python: str
    ggml: str
    commit: str
    system: str
    devices: tuple[Device, ...]
    rpc: bool
    problem: str


def backends() -> Backends:
    """Ask the installed llama.cpp.

    Raises
    ------
    EngineCrashed
        It does not load, or dies; its last line is in the message.
    """
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        done = subprocess.run(
            [sys.executable, "-c", _BOOT, home, *(entry for entry in sys.path if entry)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineCrashed(f"llama.cpp does not tell its devices within {_SECONDS} s") from None
    if done.returncode != 0 or not done.stdout:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        said = lines[-1] if lines else f"it ended with code {done.returncode}"
        raise EngineCrashed(f"llama.cpp cannot be loaded: {said[:200]}", lines)
    told = json.loads(done.stdout)
    return Backends(**{**told, "devices": tuple(Device(**one) for one in told["devices"])})
