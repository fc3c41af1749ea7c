"""A head of 4096 x 4096 cells: how long it takes to open, and how much memory the page then holds.

In JupyterLab, where a kernel answers (`open_head_4096`, from the key press until the exact picture stands), and in an
exported page, which computes the picture itself (`_exported`). The page measures itself: ``lt:open-head``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llamatelemetry_widget as lt
from tests.browser.notebook import Notebook
from tests.browser.server import Server

from . import chromium
from .figure import Figure
from .prompts import MODEL, prompt_ids

N, HEADS = 4096, 5
OPENING, HEAP = 300.0, 300.0  # ms, MB
COUNT = "performance.getEntriesByName('lt:open-head').length"


def figures() -> Iterator[Figure]:
    """Best of several heads in milliseconds, and heaps in megabytes."""
    with tempfile.TemporaryDirectory() as name, chromium.launch() as browser:
        folder = Path(name)
        with lt.open_model(MODEL) as model:
            trace = model.trace(prompt_ids(model, N), capture=("attention",), progress=False)
        trace.save(folder / "trace.safetensors")
        heads = [(0, head) for head in range(HEADS)]
        (folder / "page.html").write_text(lt.AttentionGrid(trace).to_html(heads=heads), "utf-8")
        del trace
        opened, heap = _in_jupyterlab(browser, folder)
        yield Figure(f"open_head_{N}", opened, "ms", opened / OPENING, "goal", "<= 300 ms", opened <= OPENING)
        yield Figure(f"page_heap_{N}", heap, "MB", heap / HEAP, "goal", "< 300 MB with JupyterLab", heap < HEAP)
        opened, heap = _exported(browser, folder)
        yield Figure(f"open_head_{N}_exported", opened, "ms", None, "-")
        yield Figure(f"page_heap_{N}_exported", heap, "MB", heap / HEAP, "goal", "< 300 MB", heap < HEAP)


def _in_jupyterlab(browser: Any, folder: Path) -> tuple[float, float]:
    server = Server("lab", folder / "lab")
    context = browser.new_context(viewport=chromium.VIEW)
    try:
        cell = (
            "import llamatelemetry_widget as lt\n"
            f"grid = lt.AttentionGrid(lt.load_trace({str(folder / 'trace.safetensors')!r}))\ngrid"
        )
        notebook = Notebook.write(server, context, "long", cell)
        notebook.run_all()
        notebook.grid().settled()
        found = _open_heads(notebook.page), chromium.heap(notebook.page)
        notebook.close()
        return found
    finally:
        context.close()
        server.stop()


def _exported(browser: Any, folder: Path) -> tuple[float, float]:
    page = browser.new_page(viewport=chromium.VIEW)
    page.goto((folder / "page.html").as_uri())
    page.locator(".lt-ag").wait_for()
    found = _open_heads(page), chromium.heap(page)
    page.close()
    return found


def _open_heads(page: Any) -> float:
    """Opens the first layer's heads one after the other by keyboard; the best in ms."""
    page.locator("[data-region=grid]").first.focus()
    times = []
    for at in range(HEADS):
        page.keyboard.press("ArrowDown" if at else "Home")
        page.wait_for_timeout(300)
        page.keyboard.press("Enter")
        chromium.once(page, f"{COUNT} > {at} || null")
        times.append(chromium.entry(page, "lt:open-head")["duration"])
        chromium.once(page, "document.querySelector('.lt-waiting') ? null : true")  # the pictures of its stages
    return min(times)
