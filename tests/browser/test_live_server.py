"""TelemetryPanel of a real llama.cpp server in JupyterLab: under load, killed, and back again."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect
from telemetry.llama_server import LlamaServer, free_port

from .grid import FITS
from .notebook import Notebook

pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def server(smollm2_path):
    running = LlamaServer(smollm2_path, free_port(), "metrics", "slots")
    yield running
    running.kill()


@pytest.fixture(scope="module")
def opened(lab, module_context, record, server):
    start = f"import llamatelemetry_widget as lt\nsource = lt.Telemetry({server.url!r})"
    notebook = Notebook.write(
        lab, module_context, "live", start, "panel = lt.TelemetryPanel(source, expanded=True)\npanel"
    )
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture
def picture(opened, pictures):
    """Takes a picture of the panel in both themes."""

    def take(root, name):
        for theme in ("light", "dark"):
            opened.kernel.run(f"panel.theme = {theme!r}")
            expect(root).to_contain_class("lt-dark") if theme == "dark" else expect(root).not_to_contain_class(
                "lt-dark"
            )
            assert root.evaluate(FITS) == ""
            root.screenshot(path=pictures / f"live-{name}-{theme}.png")

    return take


def test_a_server_is_followed_through_load_death_and_return(opened, server, picture):
    root = opened.page.locator(".jp-Notebook .lt-tp")
    root.wait_for(timeout=60_000)
    line, notice = root.locator(".lt-tp-line"), root.locator(".lt-tp-notice")
    dot = root.locator(".lt-provenance")
    headings = root.locator(".lt-tp-charts h3")
    expect(line).to_contain_text("0/ 2slots busy", timeout=30_000)
    expect(dot).to_contain_text("SmolLM2")
    expect(dot).not_to_contain_text("/SmolLM2")  # its name, not where it lies
    expect(notice).to_be_hidden()
    writing = [server.write(200), server.write(200)]
    expect(line).to_contain_text("2/ 2slots busy", timeout=30_000)
    expect(headings.first).to_contain_text("tokens/s", timeout=30_000)
    picture(root, "load")
    for thread in writing:
        thread.join()
    expect(line).to_contain_text("0/ 2slots busy", timeout=30_000)
    expect(headings.first).to_contain_text("nothing is being written")
    server.kill()
    expect(notice).to_contain_text("nothing answers; waiting for it", timeout=30_000)
    expect(dot).to_contain_class("lt-stale")
    picture(root, "killed")
    server.start()
    expect(line).to_contain_text("0/ 2slots busy", timeout=30_000)
    expect(notice).to_be_hidden()
    server.write(200)
    expect(headings.first).to_contain_text("tokens/s", timeout=30_000)
    expect(dot).not_to_contain_class("lt-stale")
    picture(root, "back")
