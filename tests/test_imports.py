"""The house's one direction of imports, and an import that is quick and starts nothing.

In: the package's source as syntax trees, and a fresh interpreter. Out: what imports what.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "llamatelemetry_widget"
WORKER = PACKAGE / "engine" / "worker"
FILES = sorted(PACKAGE.rglob("*.py"))
UNDER_MODEL = {"errors", "models", "analysis", "trace", "engine", "attribution", "model"}
MAY = {
    "errors": set(),
    "models": {"errors"},
    "analysis": {"errors"},
    "trace": {"errors", "analysis"},
    "engine": {"errors", "models", "analysis", "trace"},
    "attribution": {"errors", "analysis", "trace", "engine", "model"},
    "model": UNDER_MODEL,
    "studies": UNDER_MODEL,
    "settings": set(),
    "widgets": UNDER_MODEL | {"studies", "export", "settings", "telemetry"},
}
ANYTHING_BUT = {"export": {"widgets"}, "telemetry": set(), "magics": set(), "__init__": set()}

#: Import names of distributions that are called otherwise.
IMPORT_NAMES = {
    "cupy-cuda12x": "cupy",
    "cupy-cuda13x": "cupy",
    "cuml-cu12": "cuml",
    "cuml-cu13": "cuml",
    "mkdocs-material": "material",
    "mkdocstrings-python": "mkdocstrings",
    "nvidia-ml-py": "pynvml",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "pillow": "PIL",
    "umap-learn": "umap",
}
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))


def optional() -> set[str]:
    """Top-level names of everything that only an extra installs."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.match(r"[\w.-]+", entry)[0].lower() for entries in extras.values() for entry in entries}
    names.discard("llamatelemetry-widget")
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


def place(file: Path) -> str:
    """The part of the house that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path, everywhere: bool = True) -> set[str]:
    """Absolute names of what a file imports; only what its own import runs unless `everywhere`."""
    package = ["llamatelemetry_widget", *file.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(file.read_text("utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree) if everywhere else run_at_import(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes below `node` without the bodies of functions, and without what stands under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from (other, *run_at_import(other))
            continue
        yield child
        yield from run_at_import(child)


def ours(names: set[str]) -> set[str]:
    """The parts of the house among imported names."""
    parts = {name.split(".")[1] for name in names if name.startswith("llamatelemetry_widget.")}
    return {part for part in parts if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").exists()}


@each_file
def test_imports_go_one_way(file):
    found, own = ours(imports(file)) - {place(file)}, place(file)
    if own in ANYTHING_BUT:
        assert not found & ANYTHING_BUT[own]
    else:
        assert found <= MAY[own]


@each_file
def test_the_kernel_side_never_imports_the_workers_modules(file):
    if file.parent == WORKER:
        return
    names = imports(file)
    assert not any(f"{name}.".startswith("llamatelemetry_widget.engine.worker.") for name in names)
    assert "llama_cpp" not in {name.split(".")[0] for name in names}


@each_file
def test_nothing_optional_is_imported_at_module_level(file):
    assert not optional() & {name.split(".")[0] for name in imports(file, everywhere=False)}


def test_the_walk_sees_what_it_should(tmp_path, monkeypatch):
    """Imports in classes, try and if are run at import; those in functions and under TYPE_CHECKING are not."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    file = tmp_path / "engine" / "client.py"
    file.parent.mkdir()
    file.write_text(
        "import a\nfrom ..widgets import grid\nfrom .worker import run\n"
        "try:\n    import b\nexcept ImportError:\n    import c\n"
        "class D:\n    import d\n"
        "if TYPE_CHECKING:\n    import e\nelse:\n    import f\n"
        "def g():\n    import g\n"
    )
    here = imports(file, everywhere=False)
    assert {"a", "b", "c", "d", "f"} <= here and not {"e", "g"} & here
    assert {"e", "g"} <= imports(file)
    assert {"llamatelemetry_widget.widgets.grid", "llamatelemetry_widget.engine.worker.run"} <= here
    (tmp_path / "widgets").mkdir()
    assert ours(here) == {"widgets", "engine"}


def test_the_extras_are_known():
    assert {
        "PIL",
        "umap",
        "fast_hdbscan",
        "cupy",
        "cuml",
        "graphistry",
        "opentelemetry",
        "pynvml",
        "gguf",
    } <= optional()


def test_importing_the_package_is_quick_and_starts_nothing():
    code = (
        "import json, sys, threading, time\n"
        "start = time.perf_counter()\n"
        "import llamatelemetry_widget\n"
        "took, threads, loaded = time.perf_counter() - start, threading.active_count(), sorted(sys.modules)\n"
        "import psutil\n"
        "print(json.dumps([took, threads, loaded, [p.pid for p in psutil.Process().children(recursive=True)]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, threads, loaded, children = json.loads(done.stdout)
    heavy = {"numpy", "pandas", "anywidget", "ipywidgets", "llama_cpp", "IPython", "huggingface_hub", "safetensors"}
    assert not heavy & set(loaded)
    assert threads == 1 and not children
    assert took <= 0.5


def test_every_public_name_is_there():
    import llamatelemetry_widget as lt

    for name in lt.__all__:
        assert getattr(lt, name) is not None
    assert sorted(lt.__all__) == dir(lt)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lt.nothing  # noqa: B018
