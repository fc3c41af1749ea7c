"""What happens to a grid around its use: saved and reopened, two at once, in tabs, while it computes, exported."""

from __future__ import annotations

import json
import shutil

import pytest
from playwright.sync_api import expect

from .conftest import MAGIC, PROMPT
from .grid import Grid
from .notebook import Notebook

MANAGER = "@jupyter-widgets/jupyterlab-manager/plugin"
OPEN = "import llamatelemetry_widget as lt\nmodel = lt.open_model('smollm2')"


@pytest.fixture
def write(request, lab, module_context, record):
    """Opens a new notebook of some cells; its kernel ends with the test."""
    opened = []

    def make(*cells):
        name = request.node.name.split("[")[0].removeprefix("test_")
        opened.append(Notebook.write(lab, module_context, name, *cells))
        return opened[-1]

    yield make
    for notebook in opened:
        notebook.close()


def test_saved_and_reopened(write, lab, pictures):
    """A new kernel knows nothing of the widget, no kernel even less: the picture stays, what needs one says so."""
    notebook = write("%load_ext llamatelemetry", MAGIC)
    kernel = notebook.run_all()
    notebook.grid().click(kernel, 17, 5, "_2")
    notebook.becomes("list(_2.embedded)", ["17,5"])
    notebook.grid().settled()
    notebook.save()
    notebook.end_kernel()
    notebook.open()
    notebook.wait_kernel()  # JupyterLab starts one for every notebook that names its kernel
    grid = notebook.grid()
    expect(grid.provenance).to_contain_text("not live", timeout=10_000)
    assert grid.full()
    notebook.menu("Kernel", "Shut Down Kernel")
    notebook.page.get_by_text("No Kernel", exact=True).first.wait_for()
    assert grid.full()
    assert grid.title() == "Layer 17 · head 5"
    expect(grid.detail.locator(".lt-sentence")).to_contain_text("looks at")
    expect(grid.notice).to_be_hidden()
    grid.photograph(pictures / "lab-reopened.png")
    notebook.page.mouse.click(*grid.middle())
    expect(grid.notice).to_contain_text("need a kernel")
    grid.photograph(pictures / "lab-reopened-other-head.png")


def test_two_grids_of_one_model_and_two_views_of_one_grid(write):
    other = "The cat sat on the mat. The dog sat on the log. The cat sat on the"
    notebook = write(
        OPEN,
        f"a = lt.AttentionGrid(model.trace({PROMPT!r}))\na",
        f"b = lt.AttentionGrid(model.trace({other!r}))\nb",
        "a",
    )
    kernel = notebook.run_all()
    first, second, first_again = (notebook.grid(i) for i in range(3))
    first.click(kernel, 17, 5, "a")
    second.click(kernel, 3, 1, "b")
    notebook.becomes("[a.locked, b.locked]", [[17, 5], [3, 1]])
    assert (first.title(), second.title()) == ("Layer 17 · head 5", "Layer 3 · head 1")
    assert first_again.title() == "Layer 17 · head 5"
    assert first.full() and second.full() and first_again.full()


def test_hidden_children_get_their_size_when_they_are_shown(write):
    notebook = write(
        OPEN,
        f"import ipywidgets as w\ntrace = model.trace({PROMPT!r})",
        "tab = w.Tab([w.HTML('first'), lt.AttentionGrid(trace)], titles=['One', 'Two'])\ntab",
        "folds = w.Accordion([w.HTML('first'), lt.AttentionGrid(trace)], titles=['One', 'Two'])\n"
        "folds.selected_index = 0\nfolds",
    )
    notebook.run_all()
    for cell, name in ((2, ".lm-TabBar-tab"), (3, ".jupyter-widget-Collapse-header")):
        output = notebook.output(cell)
        output.locator(name).filter(has_text="Two").click()
        grid = Grid(notebook.page, output.locator(".lt-ag"))
        grid.root.wait_for()
        grid.settled()
        box = grid.canvas.bounding_box()
        assert box["width"] > 600 and box["height"] > 200
        assert grid.full()
        assert grid.too_wide() == ""


def test_a_run_fills_in_and_stop_ends_it(write, pictures):
    long = "The old keeper lit the lamp. " * 250
    notebook = write(OPEN, f"running = model.start_trace({long!r})\ngrid = lt.AttentionGrid(running)\ngrid")
    notebook.run_all()
    grid = notebook.grid()
    stop = grid.root.get_by_role("button", name="Stop")
    expect(stop).to_be_visible(timeout=60_000)
    grid.photograph(pictures / "lab-computing.png")
    stop.click()
    expect(grid.root).to_contain_text("Stopped", timeout=20_000)
    expect(stop).to_be_hidden()
    grid.photograph(pictures / "lab-stopped.png")
    notebook.becomes("grid.facts['phase']", "cancelled")
    assert notebook.kernel.value("len(model.trace('It still works.').tokens)") > 2


def test_running_a_cell_again_does_not_grow_the_notebook(write, lab):
    notebook = write("%load_ext llamatelemetry", MAGIC)
    notebook.run_all()
    notebook.grid().settled()
    notebook.save()
    path = lab.notebooks / notebook.name
    once = path.stat().st_size
    for _ in range(3):
        notebook.run_again(1)
    notebook.grid().settled()
    notebook.save()
    assert path.stat().st_size < 1.1 * once


def test_a_notebook_of_somebody_else_shows_the_picture(write, lab, module_context):
    """Untrusted, and without saved widgets: the plain table and picture are there."""
    lab.settings(MANAGER, {"saveState": False})
    try:
        notebook = write("%load_ext llamatelemetry", MAGIC)
        notebook.run_all()
        notebook.save()
        notebook.end_kernel()
        stored = json.loads((lab.notebooks / notebook.name).read_text())
        assert "widgets" not in stored["metadata"] or not stored["metadata"]["widgets"]
        shutil.copy(lab.notebooks / notebook.name, lab.notebooks / "copied.ipynb")
        copy = Notebook(lab, module_context, "copied")
        copy.open()
        expect(copy.output(1)).to_contain_text("SmolLM2-135M-Instruct", timeout=15_000)
        copy.close()
    finally:
        lab.settings(MANAGER, {"saveState": True})
