"""Wheel and sdist: the built frontend is inside, and nothing but Python is needed to install them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STATIC = "llamatelemetry_widget/widgets/static"
BUNDLE = f"{STATIC}/attention_grid.js"


def run(*command: str | Path, **more: object) -> str:
    """Output of a command that must work, without npm or node on its path."""
    nothing_else = {**os.environ, "PATH": str(Path(sys.executable).parent)}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=nothing_else, **more)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    if not (ROOT / BUNDLE).exists():
        pytest.fail("the frontend is not built: run `make setup`")
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return folder


@pytest.fixture
def wheel(dist):
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture
def sdist(dist):
    (found,) = dist.glob("*.tar.gz")
    return found


def test_the_wheel_holds_the_frontend_and_both_modules(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        bundles = {Path(name).stem: archive.read(name) for name in names if name.startswith(STATIC)}
    assert {
        "llamatelemetry.py",
        "llamatelemetry_widget/py.typed",
        "llamatelemetry_widget/engine/worker/serve.py",
    } <= names
    assert {name.split("/")[0].partition("-")[0] for name in names} == {
        "llamatelemetry.py",
        "llamatelemetry_widget",
    }
    block = re.search(r"const BUDGET = \{(.*?)\}", (ROOT / "js" / "build.mjs").read_text(), re.DOTALL)[1]
    budget = {name: int(size.replace("_", "")) for name, size in re.findall(r"(\w+): ([\d_]+)", block)}
    assert set(bundles) == set(budget) >= {"attention_grid", "expert_strip"}
    for name, bundle in bundles.items():
        assert b"export{" in bundle and len(bundle) <= budget[name], name


def test_the_frontend_loads_nothing_from_elsewhere(wheel):
    with zipfile.ZipFile(wheel) as archive:
        bundles = [archive.read(name) for name in archive.namelist() if name.startswith(STATIC)]
    for forbidden in (b"cdn", b"unpkg.com", b"jsdelivr", b"eval(", b"new Function", b"import(", b"@import", b"fetch("):
        assert all(forbidden not in bundle for bundle in bundles), forbidden


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
        metadata = archive.read(name).decode()
    assert wheel.name.endswith("-py3-none-any.whl")
    for line in ("Name: llamatelemetry-widget", "License-Expression: Apache-2.0", "Requires-Python: >=3.10"):
        assert line in metadata.splitlines()
    needed = set(re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==).*$", metadata, re.MULTILINE))
    assert "llama-cpp-python" in needed and not {"pillow", "jupyterlab"} & needed


def test_a_wheel_is_made_from_the_sdist_without_node(sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
        archive.extractall(tmp_path, filter="data")
    assert {BUNDLE, "js/build.mjs", "package-lock.json", "README.md", "LICENSE"} <= names
    (source,) = tmp_path.iterdir()
    run("-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=source)
    (made,) = (tmp_path / "again").glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        assert BUNDLE in archive.namelist()


def test_an_installed_wheel_works_without_the_repository(wheel, tmp_path):
    site = tmp_path / "site"
    run("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import llamatelemetry, llamatelemetry_widget as lt\n"
        "assert lt.__file__.startswith(sys.argv[1]), lt.__file__\n"
        "with lt.open_model('smollm2') as model: trace = model.trace('a b c')\n"
        "grid = lt.AttentionGrid(trace)\n"
        "print(len(grid._esm), len(grid.to_html()), llamatelemetry.load_ipython_extension.__module__)"
    )
    bundle, page, magics = run("-c", code, site, cwd=tmp_path).split()
    assert int(bundle) > 10_000 and int(page) > int(bundle)
    assert magics == "llamatelemetry_widget.magics"
