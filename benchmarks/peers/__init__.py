"""Other people's programs, measured by small scripts of ours.

Each script stands alone, because it may run under another interpreter: PyTorch need not be installed beside us. Set
LLAMATELEMETRY_PEERS_PYTHON to that interpreter; without it, this one is asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ..figure import Skipped

PYTHON = os.environ.get("LLAMATELEMETRY_PEERS_PYTHON", sys.executable)
HERE = Path(__file__).parent


def measure(script: str, *arguments: object, needs: tuple[str, ...]) -> dict[str, float]:
    """Run one of the scripts and read what it prints last, as JSON.

    Raises
    ------
    Skipped
        A package it needs is not there.
    """
    imports = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))"
    if subprocess.run([PYTHON, "-c", imports, *needs], capture_output=True).returncode:
        raise Skipped(f"{', '.join(needs)} not installed: install them, or set LLAMATELEMETRY_PEERS_PYTHON")
    command = [PYTHON, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"{script} failed: {done.stderr.strip().splitlines()[-1]}")
    answer: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
