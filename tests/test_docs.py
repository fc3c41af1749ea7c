"""What exists is in the documentation: names, traits, magics, commands."""

from __future__ import annotations

import re
from pathlib import Path

import llamatelemetry_widget as lt
from llamatelemetry_widget import magics

ROOT = Path(__file__).parents[1]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_every_public_name_is_in_the_api_page():
    import inspect

    for name in lt.__all__:
        value = getattr(lt, name)
        covered = inspect.isclass(value) and issubclass(value, Exception)  # the whole module errors is shown
        assert covered or f"::: llamatelemetry_widget.{name}\n" in page("api.md"), name


def test_every_public_trait_of_the_grid_is_on_its_page():
    public = [name for name in lt.AttentionGrid.class_own_traits(sync=True) if not name.startswith("_")]
    internal = {"facts", "thumbnails", "statistics", "embedded", "embedded_data"}
    for name in set(public) - internal:
        assert f"`{name}`" in page("attention-grid.md"), name


def test_every_magic_and_option_is_in_getting_started():
    text = page("index.md")
    for command in magics.COMMANDS:
        assert f"%llamatelemetry {command}" in text, command
    for option in set(re.findall(r"--[a-z]+", magics.HELP)):
        assert option in text, option


def test_the_readme_names_both_commands_and_links_to_what_exists():
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text and "make test" in text
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / target).exists(), target


def test_the_makefile_and_the_readme_build_llama_cpp_the_same_way():
    made = re.search(r"CMAKE_ARGS := (.*)", (ROOT / "Makefile").read_text())
    assert made and f'CMAKE_ARGS="{made[1]}"' in (ROOT / "README.md").read_text()
