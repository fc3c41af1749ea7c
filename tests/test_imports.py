"""The house's one direction of imports, and an import that is quick and starts nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "llamatelemetry_widget"
FILES = sorted(ROOT.rglob("*.py"))
UNDER_MODEL = {"errors", "models", "analysis", "trace", "engine", "model"}
MAY = {
    "errors": set(),
    "models": {"errors"},
    "analysis": {"errors"},
    "trace": {"errors", "analysis"},
    "engine": {"errors", "models", "analysis", "trace"},
    "model": UNDER_MODEL,
    "studies": UNDER_MODEL,
    "export": UNDER_MODEL,
    "widgets": UNDER_MODEL | {"export"},
}
OPTIONAL = {"PIL", "umap", "sklearn", "cupy", "cuml", "graphistry", "opentelemetry", "pynvml", "gguf", "torch"}


def place(file: Path) -> str:
    """The part of the house that a file belongs to."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(file: Path, everywhere: bool = True) -> set[str]:
    """Absolute names of what a file imports; only at module level unless `everywhere`."""
    package = ["llamatelemetry_widget", *file.relative_to(ROOT).parts[:-1]]
    tree = ast.parse(file.read_text())
    nodes = ast.walk(tree) if everywhere else _module_level(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def _module_level(tree: ast.Module):
    """Statements that run at import; what stands under TYPE_CHECKING does not."""
    todo: list[ast.stmt] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" in ast.unparse(node.test):
                todo += node.orelse
            else:
                todo += [*node.body, *node.orelse]
        elif isinstance(node, ast.Try):
            todo += [*node.body, *node.orelse, *node.finalbody]
        else:
            yield node


def ours(names: set[str]) -> set[str]:
    prefix = "llamatelemetry_widget."
    return {name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_go_one_way(file):
    allowed = MAY.get(place(file))
    if allowed is None:
        return  # __init__ and magics may import anything
    found = {name for name in ours(imports(file)) if (ROOT / name).exists() or (ROOT / f"{name}.py").exists()}
    assert found - {place(file)} <= allowed, file


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_the_kernel_side_never_imports_the_workers_modules(file):
    inside = ROOT / "engine" / "worker" in file.parents
    assert inside or not any(name.startswith("llamatelemetry_widget.engine.worker") for name in imports(file))
    if not inside:
        assert "llama_cpp" not in {name.split(".")[0] for name in imports(file)}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_nothing_optional_is_imported_at_module_level(file):
    assert not OPTIONAL & {name.split(".")[0] for name in imports(file, everywhere=False)}


def test_importing_the_package_loads_little_and_starts_nothing():
    code = (
        "import sys, json, threading, os\n"
        "import llamatelemetry_widget\n"
        "children = open(f'/proc/self/task/{os.getpid()}/children').read().split()\n"
        "print(json.dumps([sorted(sys.modules), threading.active_count(), children]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules, threads, children = json.loads(done.stdout)
    heavy = {"numpy", "pandas", "anywidget", "ipywidgets", "llama_cpp", "IPython", "huggingface_hub", "safetensors"}
    assert not heavy & set(modules) and threads == 1 and not children


def test_every_public_name_is_there():
    import llamatelemetry_widget as lt

    for name in lt.__all__:
        assert getattr(lt, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lt.nothing  # noqa: B018
