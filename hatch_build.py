"""Puts the built frontend into wheel and sdist: builds it when it is missing, and refuses a package without it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Frontend(BuildHookInterface):  # type: ignore[misc, type-arg]
    """Runs before every build; an editable install is left to `make build` or `make dev`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        static = Path(self.root) / "llamatelemetry_widget" / "widgets" / "static"
        if version == "editable" or list(static.glob("*.js")):
            return
        npm = shutil.which("npm")
        if npm is None:
            raise RuntimeError(f"the frontend is not built (no .js in {static}) and there is no npm: run `make build`")
        subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=self.root, check=True)
        subprocess.run([npm, "run", "build"], cwd=self.root, check=True)
