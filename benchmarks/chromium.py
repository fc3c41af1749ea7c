"""Headless Chromium for the benchmarks, and what a page has measured of itself.

In: a page on disk. Out: the browser, pages that are open in it, `performance` entries, the bytes of a page's heap.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .figure import Skipped

PATIENCE = 60.0
VIEW = {"width": 1280, "height": 1000}
FLAGS = [
    *("--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--enable-precise-memory-info"),
]
EMPTY = "<!doctype html><title>empty</title><body>.</body>"
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


@contextmanager
def launch() -> Iterator[Any]:
    """A browser.

    Raises
    ------
    Skipped
        There is none.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise Skipped("playwright is not installed") from None
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise Skipped("no Chromium found: install it, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def empty(browser: Any, folder: str | Path) -> float:
    """When an empty page from disk first paints, in ms since navigation."""
    path = Path(folder) / "empty.html"
    path.write_text(EMPTY)
    page = browser.new_page(viewport=VIEW)
    page.goto(path.as_uri())
    painted = float(once(page, FIRST_PAINT))
    page.close()
    return painted


def entry(page: Any, name: str) -> dict[str, float]:
    """Start and duration in ms of what the page has measured under a name, as soon as it has."""
    script = f"(e => e && {{start: e.startTime, duration: e.duration}})(performance.getEntriesByName('{name}').at(-1))"
    found: dict[str, float] = once(page, script)
    return found


def once(page: Any, script: str) -> Any:
    """What a script gives as soon as it gives something. (Waiting in the page would need eval, which it forbids.)"""
    deadline = time.monotonic() + PATIENCE
    while (value := page.evaluate(script)) is None:
        if time.monotonic() > deadline:
            raise Skipped(f"the page never gave {script}")
        page.wait_for_timeout(20)
    return value


def heap(page: Any) -> float:
    """Megabytes that a page holds after a garbage collection: JavaScript's heap, and array buffers outside of it."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.enable")
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")
    session.detach()
    return float(used["usedSize"] + used.get("backingStorageSize", 0)) / 1e6
