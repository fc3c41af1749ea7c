"""Time to the first paint of 270 heads and to an opened head of 512 tokens, in headless Chromium.

The page is the widget's own HTML export, opened from disk; it measures itself (`performance.measure` entries
``lt:first-paint`` and ``lt:open-head``). From the start of navigation, an empty page's first paint is taken off.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llamatelemetry_widget as lt

from . import chromium
from .figure import Figure
from .prompts import MODEL, prompt_ids

N, ROUNDS = 512, 5


def figures() -> Iterator[Figure]:
    """Both times in milliseconds, best of several fresh pages, empty pages in turns."""
    with tempfile.TemporaryDirectory() as folder, chromium.launch() as browser:
        path = Path(folder) / "grid.html"
        with lt.open_model(MODEL) as model:
            trace = model.trace(prompt_ids(model, N), capture=("attention",), progress=False)
            path.write_text(lt.AttentionGrid(trace).to_html(heads=[(0, 0)]), "utf-8")
        rounds = [(chromium.empty(browser, folder), *_grid(browser, path)) for _ in range(ROUNDS)]
    nothing, painted, drawing, opening = (min(column) for column in zip(*rounds, strict=True))
    yield _figure("first_paint_270", painted - nothing, "empty-page", 200)
    yield Figure("first_paint_270_script", drawing, "ms", None, "-")
    yield _figure("open_head_512", opening, "goal", 100)


def _figure(name: str, milliseconds: float, peer: str, limit: float) -> Figure:
    goal = f"<= {limit:g} ms over an empty page"
    return Figure(name, milliseconds, "ms", milliseconds / limit, peer, goal, milliseconds <= limit)


def _grid(browser: Any, path: Path) -> tuple[float, float, float]:
    """End of the first paint since navigation, its script alone, and opening the first head; all in ms."""
    page = browser.new_page(viewport=chromium.VIEW)
    page.goto(path.as_uri())
    drawn = chromium.entry(page, "lt:first-paint")
    page.locator("[data-region=grid]").first.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    opened = chromium.entry(page, "lt:open-head")
    page.close()
    return drawn["start"] + drawn["duration"], drawn["duration"], opened["duration"]
