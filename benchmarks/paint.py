"""Time to the first paint of 270 heads and to an opened head of 512 tokens, in headless Chromium.

The page is the widget's own HTML export, opened from disk; it measures itself (`performance.measure` entries
``lt:first-paint`` and ``lt:open-head``). From the start of navigation, an empty page's first paint is taken off.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llamatelemetry_widget as lt

from .figure import Figure, Skipped
from .prompts import MODEL, prompt_ids

N, ROUNDS, PATIENCE = 512, 5, 60.0
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
EMPTY = "<!doctype html><title>empty</title><body>.</body>"
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def figures() -> Iterator[Figure]:
    """Both times in milliseconds, best of several fresh pages, empty pages in turns."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise Skipped("playwright is not installed") from None
    browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        raise Skipped("no Chromium found: install it, or set CHROMIUM to its path")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        grid, empty = Path(folder) / "grid.html", Path(folder) / "empty.html"
        _export(grid)
        empty.write_text(EMPTY)
        browser = playwright.chromium.launch(executable_path=browser_path, args=[*FLAGS, "--no-first-run"])
        rounds = [(_empty(browser, empty), *_grid(browser, grid)) for _ in range(ROUNDS)]
        browser.close()
    nothing, painted, drawing, opening = (min(column) for column in zip(*rounds, strict=True))
    yield _figure("first_paint_270", painted - nothing, "empty-page", 200)
    yield Figure("first_paint_270_script", drawing, "ms", None, "-")
    yield _figure("open_head_512", opening, "goal", 100)


def _figure(name: str, milliseconds: float, peer: str, limit: float) -> Figure:
    goal = f"<= {limit:g} ms over an empty page"
    return Figure(name, milliseconds, "ms", milliseconds / limit, peer, goal, milliseconds <= limit)


def _export(path: Path) -> None:
    with lt.open_model(MODEL) as model:
        trace = model.trace(prompt_ids(model, N), capture=("attention",), progress=False)
        path.write_text(lt.AttentionGrid(trace).to_html(heads=[(0, 0)]), "utf-8")


def _empty(browser: Any, path: Path) -> float:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(path.as_uri())
    painted = float(_once(page, FIRST_PAINT))
    page.close()
    return painted


def _grid(browser: Any, path: Path) -> tuple[float, float, float]:
    """End of the first paint since navigation, its script alone, and opening the first head; all in ms."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(path.as_uri())
    drawn = _entry(page, "lt:first-paint")
    page.locator("[data-region=grid]").first.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    opened = _entry(page, "lt:open-head")
    page.close()
    return drawn["start"] + drawn["duration"], drawn["duration"], opened["duration"]


def _entry(page: Any, name: str) -> dict[str, float]:
    script = f"(e => e && {{start: e.startTime, duration: e.duration}})(performance.getEntriesByName('{name}')[0])"
    entry: dict[str, float] = _once(page, script)
    return entry


def _once(page: Any, script: str) -> Any:
    """What a script gives as soon as it gives something. (Waiting in the page would need eval, which it forbids.)"""
    deadline = time.monotonic() + PATIENCE
    while (value := page.evaluate(script)) is None:
        if time.monotonic() > deadline:
            raise Skipped(f"the page never gave {script}")
        page.wait_for_timeout(20)
    return value
