"""The doctor's table in JupyterLab, light and dark, wide and narrow: it names its host and reads as a table."""

from __future__ import annotations

import pytest

from .notebook import Notebook


@pytest.fixture(scope="module")
def opened(lab, module_context, record):
    notebook = Notebook.write(lab, module_context, "doctor", "%load_ext llamatelemetry", "%llamatelemetry doctor")
    notebook.run_all()
    yield notebook
    notebook.close()


def test_the_table_names_its_host(opened, pictures):
    table = opened.output(1).locator("table")
    row = table.locator("tr").filter(has_text="host")
    assert "JupyterLab 4." in row.inner_text()
    assert "✓" in table.locator("tr").filter(has_text="ipywidgets").inner_text()
    for theme, width in (("Light", 1100), ("Dark", 1100), ("Dark", 600)):
        opened.page.set_viewport_size({"width": width, "height": 1000})
        opened.sidebar(False)
        opened.menu("Settings", "Theme", f"JupyterLab {theme}")
        opened.page.locator(f'body[data-jp-theme-light="{"true" if theme == "Light" else "false"}"]').wait_for(
            state="attached"
        )
        area, own = opened.output(1).bounding_box(), table.bounding_box()
        assert own["x"] + own["width"] <= area["x"] + area["width"] + 1
        opened.output(1).screenshot(path=pictures / f"doctor-{theme.lower()}-{width}.png")
    opened.menu("Settings", "Theme", "JupyterLab Light")
