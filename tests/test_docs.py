"""What exists is in the documentation, and what the documentation shows works."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llamatelemetry_widget as lt
from llamatelemetry_widget import errors, magics
from llamatelemetry_widget.analysis.attention import STATISTICS

ROOT = Path(__file__).parents[1]
INTERNAL = {"facts", "thumbnails", "statistics", "token_stats", "embedded", "embedded_data"}  # not for people
ERRORS = [name for name, value in vars(errors).items() if inspect.isclass(value)]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def python_of(text: str) -> str:
    """The Python blocks of a page, one after the other."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


# --------------------------------------------------------------- what exists is said


@pytest.mark.parametrize("name", sorted(lt.__all__))
def test_every_public_name_is_in_the_api_page(name):
    if name in ERRORS:
        assert "::: llamatelemetry_widget.errors\n" in page("api.md")
    else:
        assert f"::: llamatelemetry_widget.{name}\n" in page("api.md")


def test_every_name_of_the_api_page_exists_and_is_documented():
    for path in re.findall(r"^::: llamatelemetry_widget\.(\S+)", page("api.md"), re.MULTILINE):
        value = lt
        for part in path.split("."):
            value = getattr(value, part) if hasattr(value, part) else sys.modules[f"{value.__name__}.{part}"]
        assert inspect.getdoc(value), path


@pytest.mark.parametrize("name", [name for name in ERRORS if name != "LlamaTelemetryError"])
def test_every_error_is_explained(name):
    assert f"`{name}`" in page("index.md")


def test_every_public_trait_of_the_grid_is_on_its_page():
    public = {name for name in lt.AttentionGrid.class_own_traits(sync=True) if not name.startswith("_")} - INTERNAL
    assert len(public) >= 8
    for name in public:
        assert f"`{name}`" in page("attention-grid.md"), name
        assert name in inspect.getdoc(lt.AttentionGrid), name


@pytest.mark.parametrize("name", ["to_html", "to_svg", "to_png", "to_numpy", "head_stats", "kept", "select"])
def test_every_export_of_the_grid_is_on_its_page(name):
    assert hasattr(lt.AttentionGrid, name) and f"grid.{name}" in page("attention-grid.md")


@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_is_on_the_grids_page(name):
    assert f"| `{name}` |" in page("attention-grid.md")


def test_every_magic_and_option_is_in_getting_started():
    text = page("index.md")
    for command in magics.COMMANDS:
        assert f"`%llamatelemetry {command}" in text, command
    options = {option for action in magics._cell_options()._actions for option in action.option_strings}
    assert options >= {"--model", "--layers", "--flash", "--predict", "--into"}
    for option in options:
        assert f"`{option}`" in text, option


@pytest.mark.parametrize("stage", ["scores", "scaled", "capped", "biased", "masked", "softmax"])
def test_every_stage_is_explained(stage):
    assert f'`"{stage}"`' in page("capture.md")


def test_every_environment_variable_is_documented():
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "llamatelemetry_widget").rglob("*.py"))
    documented = readme() + "".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
    found = set(re.findall(r"\bLLAMATELEMETRY_[A-Z]+\b", sources))
    assert found and all(f"`{name}" in documented for name in found), found


# ------------------------------------------------------------- what is said is so


def test_the_readme_names_both_commands_and_only_targets_that_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in (readme(), (ROOT / "CONTRIBUTING.md").read_text("utf-8")):
        for target in re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE):
            assert target in targets, target
    assert re.search(r"^make demo ", readme(), re.MULTILINE) and re.search(r"^make test ", readme(), re.MULTILINE)


def test_the_readme_links_to_what_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", readme())
    assert "docs/images/attention-grid.png" in links
    for target in links:
        assert (ROOT / target).exists(), target


def test_the_makefile_and_the_readme_build_llama_cpp_the_same_way():
    made = re.search(r"CMAKE_ARGS := (.*)", (ROOT / "Makefile").read_text())
    assert made and f'CMAKE_ARGS="{made[1]}"' in readme()


def test_contributing_tells_of_folders_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = re.findall(r"^\| `([\w./]+)` \|", text, re.MULTILINE)
    assert len(named) >= 8
    for name in named:
        assert (ROOT / name).exists() or (ROOT / "llamatelemetry_widget" / name).exists(), name
    assert "const BUDGET" in (ROOT / "js" / "build.mjs").read_text() and "`BUDGET`" in text


def test_the_hooks_run_what_is_installed_here():
    """Local hooks alone: nothing is fetched, and each runs a tool of the virtual environment or of package.json."""
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert "repo: local" in text and text.count("repo:") == 1
    scripts = (ROOT / "package.json").read_text()
    entries = re.findall(r"entry: ([^,]+), language: system", text)
    assert len(entries) == text.count("{id:") == 5
    for entry in entries:
        if entry.startswith("npm run --silent "):
            assert f'"{entry.split()[-1]}":' in scripts
        else:
            assert entry.startswith(".venv/bin/")


def test_the_first_python_of_the_readme_runs(tmp_path):
    code = re.search(r"^```python\n(.*?)^```", readme(), re.MULTILINE | re.DOTALL)[1]
    out = run(code + "\nprint(len(trace.head_stats), trace.check.eval('max_difference <= tolerance').all())", tmp_path)
    assert out.splitlines()[-1] == "270 True"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attention.html", "t.safetensors", "together.html"]


def test_the_python_of_getting_started_runs(tmp_path):
    assert "AttentionGrid" in run(python_of(page("index.md")) + "\nprint(lt.AttentionGrid(trace))", tmp_path)


def test_the_python_of_the_grids_page_runs(tmp_path):
    code = python_of(page("attention-grid.md"))
    code = "\n".join(line for line in code.splitlines() if 'part="cross"' not in line)  # of encoder-decoders
    before = "import llamatelemetry_widget as lt\nmodel = lt.open_model('smollm2')\ntrace = model.trace('a b c a b')\n"
    run(before + code + "\nmodel.close()", tmp_path)
    names = ["attention.html", "attention.png", "attention.svg", "together.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_the_python_of_the_page_on_long_prompts_runs(tmp_path):
    before = "import llamatelemetry_widget as lt\nmodel = lt.open_model('smollm2')\ntext = 'a b c a b'\n"
    run(before + python_of(page("long-prompts.md")) + "\nassert len(trace.token_stats) == 5", tmp_path)


# ------------------------------------------------------------------- the expert strip


def test_every_public_trait_and_export_of_the_strip_is_on_its_page():
    text, internal = page("expert-strip.md"), {"overview", "measures", "loads", "embedded_ids", "embedded_weights"}
    names = lt.ExpertStrip.class_own_traits(sync=True)
    public = {name for name in names if not name.startswith("_")} - INTERNAL - internal
    assert public == {"selected_layer", "selected_tokens", "selected_expert", "measure", "theme"}
    for name in public:
        assert f"| `{name}` |" in text, name
        assert name in inspect.getdoc(lt.ExpertStrip), name
    for name in ("to_html", "to_svg", "to_png", "to_numpy", "to_pandas", "load", "entropy"):
        assert hasattr(lt.ExpertStrip, name) and f"strip.{name}" in text, name


def test_the_python_of_the_strips_page_runs(tmp_path, zoo_models):
    code = python_of(page("expert-strip.md")).replace("path/to/mixture.gguf", (zoo_models / "qwen3moe.gguf").as_posix())
    run(code + "\nmodel.close()", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experts.html", "experts.png", "experts.svg"]


def test_every_public_trait_and_export_of_the_comparison_is_on_its_page():
    text = page("head-comparison.md")
    public = {name for name in lt.HeadComparison.class_own_traits(sync=True) if not name.startswith("_")}
    public -= INTERNAL | {"distances", "similarity"}
    assert len(public) == 9
    for name in public:
        assert f"`{name}`" in text, name
        assert name in inspect.getdoc(lt.HeadComparison), name
    for name in ("to_html", "to_svg", "to_png", "to_numpy", "to_pandas", "select", "left", "right"):
        assert hasattr(lt.HeadComparison, name) and f"comparison.{name}" in text, name


def test_the_python_of_the_comparisons_page_runs(tmp_path):
    before = (
        "import llamatelemetry_widget as lt\nmodel = lt.open_model('smollm2')\n"
        "trace_a, trace_b = (model.trace(text, progress=False) for text in ('a b c a b', 'a d c a d'))\n"
    )
    run(before + python_of(page("head-comparison.md")) + "\nmodel.close()", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.html", "comparison.png", "comparison.svg"]


def test_every_public_trait_and_export_of_the_explorer_is_on_its_page():
    text = page("token-explorer.md")
    sent = {"nodes", "words", "here", "logits"}
    names = lt.TokenExplorer.class_own_traits(sync=True)
    public = {name for name in names if not name.startswith("_")} - INTERNAL - sent
    assert len(public) == 11
    for name in public:
        assert f"| `{name}` |" in text, name
        assert name in inspect.getdoc(lt.TokenExplorer), name
    for name in (
        "to_html",
        "to_svg",
        "to_png",
        "to_pandas",
        "distribution",
        "tokens",
        "text",
        "sample",
        "step",
        "back",
    ):
        assert hasattr(lt.TokenExplorer, name) and f"explorer.{name}" in text, name


def test_the_python_of_the_explorers_page_runs(tmp_path):
    run(python_of(page("token-explorer.md")) + "\nmodel.close()", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokens.html", "tokens.png", "tokens.svg"]


def test_every_public_trait_and_export_of_the_tour_is_on_its_page(tmp_path):
    text = page("tour.md")
    public = {name for name in lt.Tour.class_own_traits(sync=True) if not name.startswith("_")} - INTERNAL
    assert len(public) == 6
    for name in public:
        assert f"`{name}`" in text and name in inspect.getdoc(lt.Tour), name
    for name in ("to_html", "trace", "steps"):
        assert hasattr(lt.Tour, name) and f"tour.{name}" in text, name
    run(python_of(text) + '\ntour.to_html("tour.html")\nmodel.close()', tmp_path)
    assert (tmp_path / "tour.html").stat().st_size < 300_000


def test_the_python_of_the_workspaces_page_runs(tmp_path):
    run(python_of(page("workspace.md")) + "\nmodel.close()", tmp_path)
    assert (tmp_path / "space.html").stat().st_size > 500_000


# -------------------------------------------------------------- the architecture tree


def test_every_public_trait_and_export_of_the_tree_is_on_its_page():
    text = page("architecture-tree.md")
    sent = {"nodes", "leaves", "nodes_b", "leaves_b", "pairs", "overlay_values", "errors"}
    sent |= {"plan", "graph", "graph_nodes", "graph_seconds", "graph_edges", "graph_weights"}
    names = lt.ArchitectureTree.class_own_traits(sync=True)
    public = {name for name in names if not name.startswith("_")} - INTERNAL - sent
    assert public == {"selected_node", "selected_layer", "selected_head", "overlay", "search", "theme"}
    for name in public:
        assert f"`{name}`" in text, name
        assert name in inspect.getdoc(lt.ArchitectureTree), name
    for name in ("to_html", "to_svg", "to_png", "to_pandas", "run_graph", "plan_memory"):
        assert hasattr(lt.ArchitectureTree, name) and f"tree.{name}" in text, name
    assert "`compare_weights()`" in text


def test_the_python_of_the_trees_page_runs(tmp_path):
    code = python_of(page("architecture-tree.md")).replace("compare=other", "compare=model")
    out = run(code + "\nprint(tree.selected_node)\nmodel.close()", tmp_path)
    assert out.splitlines()[-1] == "model/layers/L17/attention/KV 1/H5"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"architecture.{end}" for end in ("html", "png", "svg")]


# --------------------------------------------------------------- the embedding space


def test_every_public_trait_and_export_of_the_space_is_on_its_page():
    sent = {"positions", "moved", "labels", "ids", "columns", "column_data", "joined", "cosines"}
    text = page("embedding-space.md")
    names = lt.EmbeddingSpace3D.class_own_traits(sync=True)
    public = {name for name in names if not name.startswith("_")} - INTERNAL - sent
    assert public == {"token", "selected_tokens", "color", "projection", "search", "network", "theme"}
    for name in public:
        assert f"| `{name}` |" in text, name
        assert name in inspect.getdoc(lt.EmbeddingSpace3D), name
    exports = ("to_html", "to_svg", "to_png", "to_pandas", "to_parquet", "to_pythreejs")
    for name in (*exports, "neighbours", "selection", "wait"):
        assert hasattr(lt.EmbeddingSpace3D, name) and f"space.{name}" in text, name


def test_the_python_of_the_spaces_page_runs(tmp_path):
    code = python_of(page("embedding-space.md")).replace('select=" lamp")', 'select=" lamp", projection="pca")')
    run(code + "\nspace.close()\nmodel.close()", tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == [f"embedding.{end}" for end in ("html", "parquet", "png", "svg")]


def test_the_python_of_the_page_on_opentelemetry_runs(tmp_path):
    pytest.importorskip("opentelemetry.sdk")
    assert "http://127.0.0.1:" in run(python_of(page("opentelemetry.md")) + "\nprint(endpoint.url)", tmp_path)


def test_the_python_of_the_doctors_page_runs(tmp_path):
    run(python_of(page("doctor.md")) + "\nassert 'llama.cpp' in repr(report)", tmp_path)


def test_the_python_of_the_page_on_graphs_runs(tmp_path):
    code = python_of(page("graphs.md")) + "\nprint(len(parts.nodes), len(operations.nodes) > 900, len(looks.nodes))"
    assert run(code, tmp_path).split()[:2] == ["727", "True"]
