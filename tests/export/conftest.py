"""Real traces to export, and a browser that reaches no network."""

from __future__ import annotations

import shutil

import pytest

import llamatelemetry_widget as lt

PROMPT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)
HOSTILE = "</ScRiPt><img src=x onerror=\"document.title='pwned'\"><!--<script>\u2028{{7*7}} lamp"


@pytest.fixture(scope="session")
def model():
    with lt.open_model("smollm2") as opened:
        yield opened


@pytest.fixture(scope="session")
def trace(model):
    return model.trace(PROMPT, progress=False)


@pytest.fixture(scope="session")
def hostile(model):
    """A trace in which prompt, model name and file name try to break out."""
    made = model.trace(HOSTILE, progress=False)
    made.info = {**made.info, "model": HOSTILE, "file": HOSTILE}
    return made


@pytest.fixture
def grid(trace):
    made = lt.AttentionGrid(trace)
    yield made
    made.close()


class Page:
    """An opened page: what it asked for, what it complained about."""

    def __init__(self, page):
        self.page, self.requests, self.complaints = page, [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type != "log" else None)

    def open(self, path):
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("canvas")
        self.page.wait_for_timeout(300)
        return self.page

    @property
    def foreign(self):
        """Requests to anything but the file itself."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]


@pytest.fixture(scope="session")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    context = chromium.new_context(offline=True, viewport={"width": 1100, "height": 900})
    yield Page(context.new_page())
    context.close()
