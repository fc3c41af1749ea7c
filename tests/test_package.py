"""The wheel and the sdist: the built frontend is inside, and no Node is needed to install them."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": os.path.dirname(sys.executable)},
    )
    return folder


def test_the_wheel_holds_the_frontend_and_both_modules(dist):
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        bundle = archive.read("llamatelemetry_widget/widgets/static/attention_grid.js")
    assert {"llamatelemetry.py", "llamatelemetry_widget/py.typed"} <= names
    assert b"export" in bundle and len(bundle) <= 120_000
    assert not [n for n in names if n.startswith(("tests/", "js/", "node_modules/"))]
    for forbidden in (b"https://cdn", b"unpkg.com", b"jsdelivr", b"eval(", b"new Function"):
        assert forbidden not in bundle


def test_the_sdist_holds_the_frontend_and_its_sources(dist):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"llamatelemetry_widget/widgets/static/attention_grid.js", "js/build.mjs", "package.json"} <= names


def test_an_installed_wheel_works_without_the_repository(dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel],
        check=True,
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import llamatelemetry, llamatelemetry_widget as lt\n"
        "assert lt.__file__.startswith(sys.argv[1]), lt.__file__\n"
        "model = lt.open_model('smollm2'); trace = model.trace('a b c'); model.close()\n"
        "print(len(lt.AttentionGrid(trace).to_html()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100_000
