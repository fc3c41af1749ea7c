"""Servers, a browser, and notebooks that are open in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from .grid import Grid
from .notebook import Notebook, Record
from .server import Server

OUTPUT = Path(__file__).resolve().parents[1] / "output"
QUIET = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync")
WEBGL = "--enable-unsafe-swiftshader"  # in software: machines that test have no graphics card
PROMPT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)
MAGIC = f"%%llamatelemetry --into trace\n{PROMPT}"
WIDE = {"width": 1400, "height": 1100}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


# The package is the widest scope: Playwright keeps an event loop running, which other tests must not meet.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
        made = playwright.chromium.launch(executable_path=path, args=[*QUIET, WEBGL, "--no-first-run"])
        yield made
        made.close()


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("lab", tmp_path_factory.mktemp("lab"))
    yield server
    server.stop()


@pytest.fixture(scope="package")
def notebook7(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("notebook", tmp_path_factory.mktemp("notebook"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def module_context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport=WIDE)
    yield context
    context.close()


@pytest.fixture(scope="module")
def allowed() -> tuple[str, ...]:
    """Console messages that are no fault; a module may say which."""
    return ()


@pytest.fixture(scope="module")
def record(module_context: BrowserContext, allowed: tuple[str, ...]) -> Record:
    """What the pages of this module say and ask for."""
    return Record(module_context, allowed)


@pytest.fixture(autouse=True)
def quiet(record: Record) -> Iterator[None]:
    """Every test ends with an empty console, and nothing asked of another host."""
    yield
    record.check()


@pytest.fixture(scope="module")
def opened(lab: Server, module_context: BrowserContext, record: Record) -> Iterator[Notebook]:
    """A notebook in which the magic has drawn the lighthouse prompt; `grid` is its widget."""
    notebook = Notebook.write(lab, module_context, "attention", "%load_ext llamatelemetry", MAGIC, "grid = _2")
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture
def grid(opened: Notebook) -> Grid:
    """Its grid, with nothing selected, nothing filtered, and the pointer away."""
    opened.kernel.run(
        "grid.select(None); grid.filter = {}; grid.selected_tokens = []\n"
        "grid.scale, grid.sort, grid.sink_aside, grid.theme = 'log', 'layer', True, 'auto'"
    )
    opened.page.set_viewport_size(WIDE)
    opened.page.mouse.move(2, 2)
    found = opened.grid()
    found.settled()
    return found


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots go; the folder is kept as output of the CI."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    return OUTPUT
