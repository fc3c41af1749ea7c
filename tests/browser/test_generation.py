"""A text while it is written, in JupyterLab: rows come, a stop keeps them, and one can step back through the tokens."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from .conftest import PROMPT
from .grid import Grid
from .notebook import Notebook

SETUP = f"import llamatelemetry_widget as lt\nmodel = lt.open_model('smollm2')\nPROMPT = {PROMPT!r}"
WRITE = "generation = model.generate(PROMPT, {n})\ngrid = lt.AttentionGrid(generation)\ngrid"


@pytest.fixture(scope="module")
def notebook(lab, module_context, record):
    opened = Notebook.write(lab, module_context, "generation", SETUP, WRITE.format(n=16))
    opened.run_all()
    yield opened
    opened.close()


@pytest.fixture
def written(notebook) -> Grid:
    """The grid of a text that is finished, at its newest token."""
    grid = notebook.grid()
    expect(grid.root.locator(".lt-stepper")).to_be_visible(timeout=30_000)
    notebook.kernel.run("generation.result()")
    notebook.becomes("grid.facts['phase']", "done", 30)
    notebook.kernel.run("grid.select(None); grid.selected_tokens = []; grid.theme = 'auto'")
    grid.root.locator(".lt-step-slider").fill(str(notebook.kernel.value("len(grid.facts['tokens']) - 1")))
    grid.settled()
    return grid


@pytest.fixture
def writing(lab, module_context, record) -> Iterator[Notebook]:
    """A notebook in which a long text has just begun."""
    warm = "model.generate(PROMPT, 2).result()"  # so that the worker is there
    opened = Notebook.write(lab, module_context, "writing", SETUP, warm, WRITE.format(n=2000))
    opened.run_all()
    yield opened
    opened.close()


def test_rows_come_while_tokens_do(writing, pictures):
    kernel, page, grid = writing.kernel, writing.page, writing.grid()
    words = grid.root.locator(".lt-progress-text")
    expect(words).to_contain_text("ms per token", timeout=30_000)
    kernel.run("grid.select(17, 5)")
    expect(grid.matrix).to_be_visible()
    heights, counts, end = [], [], time.monotonic() + 30
    while (len(counts) < 8 or counts[-1] == counts[0]) and time.monotonic() < end:
        counts.append(int(words.inner_text().split(" of ")[0].removeprefix("token ").replace("\u202f", "")))
        heights.append(grid.canvas.bounding_box()["height"])
        page.wait_for_timeout(250)
    assert counts == sorted(counts) and counts[-1] > counts[0], counts
    assert len(set(heights)) == 1
    title = grid.root.locator("h2").inner_text()
    assert "of at most 2\u202f024 tokens" in title
    sentence = grid.detail.locator(".lt-sentence")
    before = sentence.inner_text()
    grid.photograph(pictures / "generating-light.png")
    expect(sentence).not_to_have_text(before, timeout=30_000)  # the newest row is read
    grid.root.get_by_role("button", name="Stop").click()
    writing.becomes("grid.facts['phase']", "done", 20)
    n = kernel.value("len(generation.trace.tokens)")
    assert 24 + counts[-1] <= n < 2024
    expect(grid.root.locator("h2")).to_contain_text(f"{n} tokens")
    expect(grid.root.locator(".lt-progress")).to_be_hidden()
    writing.becomes("grid.facts['n_tokens']", n)


def test_steps_back_through_the_tokens(notebook, written, pictures):
    page, kernel = notebook.page, notebook.kernel
    kernel.run("grid.select(17, 5)")
    expect(written.matrix).to_be_visible()
    stepper = written.root.locator(".lt-stepper")
    last = kernel.value("len(grid.facts['tokens']) - 1")
    expect(stepper.get_by_role("button", name="Forward")).to_be_disabled()
    whole = written.tiles(30, 9)
    stepper.get_by_role("button", name="Back").click()
    notebook.becomes("list(grid.selected_tokens)", [last - 1])
    slider = stepper.locator("input")
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press(",")
    notebook.becomes("list(grid.selected_tokens)", [last - 6])
    told = kernel.value("grid.facts['generation'][-7][:3]")
    token = kernel.value("grid.facts['tokens'][-7]")
    expect(stepper.locator(".lt-step-token")).to_contain_text(token)
    expect(stepper.locator(".lt-step-facts")).to_contain_text(f"rank {told[1]}")
    expect(stepper.locator(".lt-step-facts")).to_contain_text(f"{told[2]:.1f} ms")
    expect(stepper.locator(".lt-step-top")).to_contain_text("likeliest:")
    assert token in slider.get_attribute("aria-valuetext")
    expect(written.detail.locator(".lt-sentence .lt-chip").first).to_contain_text(token)
    slider.fill(str(kernel.value("grid.facts['generated']")))
    written.settled()
    assert sum(written.tiles(30, 9)) < sum(whole)
    written.photograph(pictures / "stepped-light.png")
    page.keyboard.press(".")
    notebook.becomes("list(grid.selected_tokens)", [25])
    slider.fill(str(last))
    notebook.becomes("list(grid.selected_tokens)", [])
    written.settled()
    assert written.tiles(30, 9) == whole


@pytest.mark.parametrize("width", (1100, 600))
def test_the_stepper_fits(notebook, written, pictures, width):
    page = notebook.page
    notebook.kernel.run("grid.select(17, 5); grid.theme = 'dark'")
    page.set_viewport_size({"width": width, "height": 1100})
    notebook.sidebar(False)
    written.root.locator(".lt-step-slider").fill("30")
    written.settled()
    assert written.too_wide() == ""
    written.photograph(pictures / f"stepped-dark-{width}.png")
    notebook.sidebar(True)
    page.set_viewport_size({"width": 1400, "height": 1100})


def test_at_most_ten_messages_a_second(notebook):
    kernel = notebook.kernel
    kernel.run(
        "import time\nstamps = []\ngeneration = model.generate(PROMPT, 30)\nsecond = lt.AttentionGrid(generation)\n"
        "plain = second._send\n"
        "second._send = lambda *a, **k: (stamps.append(time.monotonic()), plain(*a, **k))[1]\n"
        "generation.result()"
    )
    time.sleep(0.5)
    stamps = kernel.value("stamps")
    span = max(1.0, stamps[-1] - stamps[0])
    assert 2 <= len(stamps) <= 10 * span + 4
    kernel.run("second.close()")


def test_an_exported_text_can_be_stepped_through(notebook, module_context, tmp_path, pictures):
    notebook.kernel.run(
        f"generation.result(); grid.select(17, 5); page = grid.to_html({str(tmp_path / 'text.html')!r})"
    )
    page = module_context.new_page()
    page.goto((tmp_path / "text.html").as_uri())
    grid = Grid(page, page.locator(".lt-ag"))
    grid.root.wait_for()
    grid.settled()
    whole = sum(grid.tiles(30, 9))
    slider = grid.root.locator(".lt-step-slider")
    slider.focus()
    for _ in range(6):
        page.keyboard.press(",")
    grid.settled()
    assert sum(grid.tiles(30, 9)) < whole
    token = grid.root.locator(".lt-step-token").inner_text()
    expect(grid.detail.locator(".lt-sentence .lt-chip").first).to_have_text(token)
    expect(grid.root.locator(".lt-written")).to_have_count(16)
    expect(grid.root.locator(".lt-progress")).to_be_hidden()
    grid.photograph(pictures / "page-stepped.png")
    page.close()
