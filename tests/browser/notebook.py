"""A notebook that is open in the browser: run it, save it, and keep a record of what the page said and asked for.

In: a server, a browser context, cells. Out: locators of the page, the grid in it, the kernel behind it.
"""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import urlsplit

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Page

from .grid import Grid
from .server import Kernel, Server

#: What Notebook 7.6 says by itself, also on a page without this package (`test_allowed_messages_are_jupyters_own`).
ALLOWED = (
    # It brings entries of JupyterLab's menus and its own of the same commands.
    r"^warning: Menu entry for command 'filemenu:close-and-cleanup' is duplicated\. \(/static/notebook/",
    r"^warning: Menu entry for command 'debugger:show-panel' is duplicated\. \(/static/notebook/",
    r"^warning: Menu entry for command 'toc:show-panel' is duplicated\. \(/static/notebook/",
    # It bundles yjs twice.
    r"^warning: \[yjs#509\] Not same Y\.Doc \(/static/notebook/",
    # Its settings registry emits a change of a plugin that has not loaded yet (notebook_core, in `emit` of `load`).
    r"^error: Cannot read properties of undefined \(reading 'schema'\)$",
)
#: pythreejs, for which an export writes, brings extensions made for older JupyterLabs, which warn of that.
PYTHREEJS = r"\(/lab/extensions/(jupyterlab-datawidgets|jupyter-threejs)/"

LOCAL = {"127.0.0.1", "localhost", "", "blob", "data"}


class Record:
    """Console messages, page errors and requests of a browser context."""

    def __init__(self, context: BrowserContext, allowed: tuple[str, ...] = ()) -> None:
        self.allowed = (*allowed, PYTHREEJS)
        self.messages: list[str] = []
        self.foreign: list[str] = []
        context.on("console", self._console)
        context.on("weberror", lambda error: self._say(f"error: {error.error}"))
        context.on("request", lambda request: self._request(request.url))
        context.on("page", lambda page: page.on("websocket", lambda socket: self._request(socket.url)))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        self._say(f"{message.type}: {message.text} ({urlsplit(message.location.get('url', '')).path})")

    def _say(self, text: str) -> None:
        if not any(re.search(pattern, text) for pattern in self.allowed):
            self.messages.append(text)

    def _request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about", "chrome", "file") and parts.hostname not in LOCAL:
            self.foreign.append(url)

    def check(self) -> None:
        """Nothing was asked of another host, and the console is empty."""
        foreign, messages = self.foreign[:], self.messages[:]
        self.foreign.clear()
        self.messages.clear()
        assert not foreign, foreign
        assert not messages, "\n".join(messages)


class Notebook:
    """One open notebook."""

    def __init__(self, server: Server, context: BrowserContext, name: str) -> None:
        self.server, self.name = server, f"{name}.ipynb"
        self.page: Page = context.new_page()
        self._kernel: Kernel | None = None

    @classmethod
    def write(cls, server: Server, context: BrowserContext, name: str, *cells: str) -> Notebook:
        """A new notebook of these cells, open and not yet run; a cell that begins with # and a space is text."""
        made = [new_markdown_cell(cell) if cell.startswith("# ") else new_code_cell(cell) for cell in cells]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = new_notebook(cells=made, metadata={"kernelspec": kernel})
        nbformat.write(notebook, server.notebooks / f"{name}.ipynb")
        opened = cls(server, context, name)
        opened.open()
        return opened

    def open(self) -> None:
        """Load the page and wait until the notebook is there."""
        self.page.goto(self.server.address(self.name))
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)

    # ---------------------------------------------------------------------- the host's menus

    def menu(self, *path: str) -> None:
        """Choose an entry of the menu bar."""
        for at, word in enumerate(path):
            bar = self.page.locator(".lm-MenuBar-item" if at == 0 else ".lm-Menu-item:visible")
            entry = bar.filter(has_text=re.compile(rf"^\s*{re.escape(word)}", re.I)).first
            entry.click() if at in (0, len(path) - 1) else entry.hover()

    def run_all(self, seconds: float = 90) -> Kernel:
        """Run every cell from the menu, and wait until the kernel has done so."""
        self.wait_kernel(seconds)
        kernel = self.kernel  # a client that comes later waits until the kernel has nothing to say for a while
        self.menu("Run", "Run All Cells")
        self._wait_done(seconds)
        return kernel

    def run_again(self, cell: int, seconds: float = 60) -> None:
        """Run one cell with the keyboard."""
        self.page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-InputPrompt").click()
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_timeout(200)
        self._wait_done(seconds)

    def _wait_done(self, seconds: float) -> None:
        counts = self.page.locator(".jp-CodeCell .jp-InputPrompt")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            texts = counts.all_text_contents()
            if texts and all(re.search(r"\[\d+\]", text) for text in texts):
                return
            failed = self.page.locator('.jp-Notebook [data-mime-type="application/vnd.jupyter.error"]')
            assert failed.count() == 0, failed.all_text_contents()
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"cells did not end: {counts.all_text_contents()}")

    def wait_kernel(self, seconds: float = 60) -> None:
        """Wait until the notebook's kernel is there and has nothing to do."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            session = self.server.session(self.name)
            if session is not None and session["kernel"]["execution_state"] == "idle":
                return
            self.page.wait_for_timeout(100)
        raise TimeoutError("the kernel did not start")

    @property
    def kernel(self) -> Kernel:
        if self._kernel is None:
            self._kernel = Kernel(self.server, self.name)
        return self._kernel

    def sidebar(self, shown: bool) -> None:
        """Show or hide JupyterLab's file browser, with its keys."""
        panel = self.page.locator("#jp-left-stack")
        if panel.is_visible() != shown:
            self.page.locator(".jp-Notebook .jp-Cell .jp-InputPrompt").first.click()
            self.page.keyboard.press("Control+b")
            panel.wait_for(state="visible" if shown else "hidden")

    def becomes(self, expression: str, value: Any, seconds: float = 5) -> None:
        """Python's side has this value, at the latest after so long: what the page does gets there by messages."""
        end = time.monotonic() + seconds
        while (now := self.kernel.value(expression)) != value and time.monotonic() < end:
            self.page.wait_for_timeout(50)
        assert now == value, f"{expression} is {now!r}, not {value!r}"

    def save(self) -> None:
        """Save with the keyboard, and wait until it is on disk."""
        path = self.server.notebooks / self.name
        before = path.stat().st_mtime_ns
        self.menu("File", "Save Notebook")
        end = time.monotonic() + 20
        while time.monotonic() < end:
            self.page.wait_for_timeout(100)
            if path.stat().st_mtime_ns > before and path.stat().st_size > 0:
                return
        raise TimeoutError("the notebook was not saved")

    def end_kernel(self) -> None:
        """Shut the kernel down on the server, as its Running panel does."""
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        self.server.end_session(self.name)

    # ------------------------------------------------------------------------- what is there

    def output(self, cell: int) -> Locator:
        """The outputs of the n-th cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".jp-OutputArea").first

    def grid(self, at: int = 0) -> Grid:
        """The n-th grid of the page, once it is drawn."""
        root = self.page.locator(".jp-Notebook .lt-ag").nth(at)
        root.wait_for(timeout=60_000)
        return Grid(self.page, root)

    def mode(self) -> str:
        """``command`` or ``edit``: Jupyter's own keyboard mode."""
        return "edit" if self.page.locator(".jp-Notebook.jp-mod-editMode").count() else "command"

    def close(self) -> None:
        self.end_kernel()
        self.page.close()
