"""Every example notebook runs to its end in a fresh kernel, and the demo finds what it promises."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
execute = runpy.run_path(str(ROOT / "scripts" / "demo.py"))["execute"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_example_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, tmp_path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    errors = [output.text for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert not errors


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_example_is_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    assert "widgets" not in notebook.metadata


def test_first_example_shows_the_grid(tmp_path):
    """The first thing a user opens shows a live widget."""
    notebook = nbformat.read(ROOT / "examples" / "01_attention.ipynb", as_version=4)
    execute(notebook, tmp_path)
    (grid,) = (cell for cell in notebook.cells if cell.id == "grid")
    shown = [output.data for output in grid.outputs if "data" in output]
    assert "application/vnd.jupyter.widget-view+json" in shown[-1]
    assert "<svg" in shown[-1]["text/html"] or "<img" in shown[-1]["text/html"]


def test_demo_says_what_it_found_and_writes_a_page(tmp_path):
    page = tmp_path / "demo.html"
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--output", str(page)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr
    assert not run.stderr
    lines = run.stdout.splitlines()
    assert lines[-1] == str(page)
    said = {line.split()[0]: line for line in lines if line and not line.startswith(" ")}
    assert "SmolLM2-135M-Instruct Q4_1" in said["model"]
    assert said["tokens"].startswith("tokens  24: The ·old ·lighthouse")
    assert "270 in 30 layers" in said["heads"]
    assert "L17 H5: induction head" in said["found"]
    assert sum(": " in line and " head, " in line for line in lines) == 5
    text = page.read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>") or text.startswith("<!doctype html>")
    assert "http://" not in text.replace("http://www.w3.org/", "") and 'src="http' not in text
