"""Where a widget is displayed: which cell made it, and whether the host can draw widgets at all.

In: the running IPython, the environment. Out: a cell's identity, a reason for plain HTML.
"""

from __future__ import annotations

import os
import sys
from typing import Any

#: ``static`` or ``widget`` decides what a display holds, whatever the host.
DISPLAY = "LLAMATELEMETRY_DISPLAY"
#: Set in every session of Kaggle.
KAGGLE = ("KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_URL_BASE")


def shell() -> Any:
    """The running IPython shell, or None; IPython is not imported for this."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def this_cell() -> tuple[str, str] | None:
    """Identity of the notebook's cell that is running and of this run of it; None where the host does not say."""
    get_parent = getattr(shell(), "get_parent", None)
    try:
        parent = get_parent() if get_parent is not None else None
    except LookupError:
        return None
    if not parent:
        return None
    cell = (parent.get("metadata") or {}).get("cellId")
    return (str(cell), str(parent["header"]["msg_id"])) if cell else None


def stacks_outputs() -> bool:
    """Whether the host is JupyterLab or Notebook: outputs of a cell stand in one page, one below the other."""
    frames = "google.colab" in sys.modules or "VSCODE_PID" in os.environ
    return "JPY_SESSION_NAME" in os.environ and not frames


def why_static() -> str:
    """One line on why this host gets plain HTML instead of a widget; empty where it gets the widget."""
    choice = os.environ.get(DISPLAY, "")
    if choice == "static":
        return f"A picture, because {DISPLAY} is static; to_html writes an interactive page."
    if choice != "widget" and any(name in os.environ for name in KAGGLE):
        return (
            "A picture, because Kaggle's page cannot load widgets that are installed in the session; "
            "to_html writes an interactive page."
        )
    return ""


def host() -> str:
    """What this code runs in: ``"JupyterLab"``, ``"Notebook"``, ``"Jupyter"`` (which of the two is not told),
    ``"VS Code"``, ``"Colab"``, ``"Kaggle"``, ``"marimo"``, ``"IPython"`` or ``"Python"``.
    """
    marimo = sys.modules.get("marimo")
    if any(name in os.environ for name in KAGGLE):
        return "Kaggle"
    if "google.colab" in sys.modules:
        return "Colab"
    if marimo is not None and marimo.running_in_notebook():
        return "marimo"
    if not hasattr(shell(), "kernel"):
        return "Python" if shell() is None else "IPython"
    if "VSCODE_PID" in os.environ:
        return "VS Code"
    return _server()


def _server() -> str:
    """Which Jupyter server started this kernel, by its command line."""
    import psutil

    try:
        words = [os.path.basename(word) for one in psutil.Process().parents()[:2] for word in one.cmdline()[:3]]
    except psutil.Error:
        words = []
    named = {"JupyterLab": ("jupyter-lab", "jupyterlab"), "Notebook": ("jupyter-notebook", "notebook")}
    return next((title for title, own in named.items() if set(own) & set(words)), "Jupyter")
