"""The open head in JupyterLab: its stages, the vectors of a cell, sums; each number against Python's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from .conftest import PROMPT
from .grid import Grid
from .notebook import Notebook

LAMP = 17, 5  # induction: the last ·the looks at ·lamp
ZOO = Path(__file__).resolve().parents[1] / "data" / "zoo" / "models"
#: What a model shows that SmolLM2 does not: file, layer, head, words under its stages.
KINDS = [
    ("gemma2", 0, 1, ("scaled", "capped"), "4·tanh(x/4)"),
    ("gemma3", 0, 2, (), "window 8 · future = −∞"),
    ("mpt", 1, 3, (), "·|i − j| · future = −∞"),
    ("gpt-oss", 1, 2, (), "rows + sink"),
    ("t5", 1, 2, ("scaled", "biased"), "+ position bias"),
    ("bert", 1, 1, (), "every key is seen"),
]
OPEN = """
import llamatelemetry_widget as lt
traces, grids = {{}}, {{}}
for name in {names}:
    model = lt.open_model("{zoo}/" + name + ".gguf")
    traces[name] = model.trace({prompt!r}, progress=False)
    grids[name] = lt.AttentionGrid(traces[name])
"""


@pytest.fixture(scope="module")
def zoo(lab, module_context, record) -> Iterator[Notebook]:
    """A notebook with one grid per kind of model."""
    names = [kind[0] for kind in KINDS]
    cells = OPEN.format(names=names, zoo=ZOO, prompt=PROMPT), *(f"grids[{name!r}]" for name in names)
    notebook = Notebook.write(lab, module_context, "stages", *cells)
    notebook.run_all()
    yield notebook
    notebook.close()


def number(text: str) -> float:
    """A value as the screen writes it."""
    return float(text.replace("\N{MINUS SIGN}", "-").replace("∞", "inf"))


def shown(grid: Grid) -> dict[str, str]:
    """Stages and the values above them."""
    heads = grid.detail.locator(".lt-stage-head")
    return dict(heads.evaluate_all("(all) => all.map((e) => [...e.children].map((c) => c.textContent))"))


def lock(notebook: Notebook, grid: Grid, name: str, layer: int, head: int, tokens: list[int]) -> None:
    """Python locks a head and chooses a cell."""
    notebook.kernel.run(f"{name}.select({layer}, {head}); {name}.selected_tokens = {tokens}")
    expect(grid.detail.locator(".lt-stage")).not_to_have_count(0)
    grid.settled()


def canvas(grid: Grid, stage: int) -> Locator:
    return grid.detail.locator(".lt-stage canvas").nth(stage)


def cell_of(picture: Locator, query: int, key: int, n: int) -> tuple[float, float]:
    """Where a cell of an n x n picture is on the page."""
    picture.scroll_into_view_if_needed()
    picture.page.wait_for_timeout(100)  # scrolling hides what is pointed at
    box = picture.bounding_box()
    assert box is not None
    return box["x"] + (key + 0.5) / n * box["width"], box["y"] + (query + 0.5) / n * box["height"]


def agrees(notebook: Notebook, grid: Grid, trace: str, layer: int, head: int, cell: tuple[int, int]) -> None:
    """Every stage's value is `trace.attention(layer, head, stage)`."""
    want = notebook.kernel.value(
        f"{{s: float({trace}.attention({layer}, {head}, stage=s)[{cell[0]}, {cell[1]}]) "
        f"for s in {trace}.stages({layer})}}"
    )
    values = shown(grid)
    assert list(values) == list(want)
    for stage, text in values.items():
        if "e" in text:  # by its power of ten
            assert number(text) == pytest.approx(want[stage], rel=0.5), stage
        else:
            assert number(text) == pytest.approx(want[stage], rel=0.006, abs=0.0006), stage


def test_four_stages_show_the_cell(opened, grid):
    lock(opened, grid, "grid", *LAMP, [23, 6])
    expect(grid.detail.locator(".lt-stages h4")).to_contain_text("Four stages")
    agrees(opened, grid, "trace", *LAMP, (23, 6))
    words = grid.detail.locator(".lt-stage-op").all_inner_texts()
    assert words == ["q·kᵀ", "÷ √64", "future = −∞", "rows sum to 1"]
    for stage in range(4):
        counts = grid.tiles(4, 4, canvas(grid, stage))
        assert sum(count > 1 for count in counts) >= 10
    expect(grid.detail.locator(".lt-stage-cell:visible")).to_have_count(4)


def test_masked_cells_are_minus_infinity_then_zero(opened, grid):
    lock(opened, grid, "grid", *LAMP, [6, 9])
    values = shown(grid)
    assert (values["masked"], values["softmax"]) == ("−∞", "0")
    assert number(values["scores"]) == pytest.approx(
        opened.kernel.value("float(trace.attention(17, 5, 'scores')[6, 9])"), rel=0.006
    )


def test_one_crosshair_through_all(opened, grid):
    lock(opened, grid, "grid", *LAMP, [23, 6])
    locked = shown(grid)
    opened.page.mouse.move(*cell_of(canvas(grid, 1), 14, 6, 24))
    grid.settled()
    expect(grid.detail.locator(".lt-stage-hover:visible")).to_have_count(4)
    expect(grid.detail.locator(".lt-matrix .lt-cross-hover:visible")).to_have_count(1)
    agrees(opened, grid, "trace", *LAMP, (14, 6))
    expect(grid.detail.locator(".lt-stages h4")).to_contain_text("·calm₁₄ → ·lamp₆")
    opened.page.mouse.move(2, 2)
    grid.settled()
    assert shown(grid) == locked
    expect(grid.detail.locator(".lt-stage-hover:visible")).to_have_count(0)


def test_hover_in_the_matrix_reads_the_stages(opened, grid):
    lock(opened, grid, "grid", *LAMP, [23, 6])
    locked = shown(grid)
    grid.matrix.scroll_into_view_if_needed()
    grid.settled()  # scrolling hides what is pointed at
    box = grid.matrix.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.8)
    expect(grid.detail.locator(".lt-stage-hover:visible")).to_have_count(4)
    assert shown(grid) != locked


def test_click_and_arrows_in_a_stage_choose_the_cell(opened, grid):
    lock(opened, grid, "grid", *LAMP, [23, 6])
    mode = opened.mode()
    opened.page.mouse.click(*cell_of(canvas(grid, 3), 20, 8, 24))
    opened.becomes("list(grid.selected_tokens)", [20, 8])
    opened.page.mouse.move(2, 2)
    for key in ("ArrowDown", "ArrowLeft", "ArrowLeft"):
        opened.page.keyboard.press(key)
    opened.becomes("list(grid.selected_tokens)", [21, 6])
    grid.settled()
    agrees(opened, grid, "trace", *LAMP, (21, 6))
    assert opened.mode() == mode


@pytest.mark.parametrize(("name", "layer", "head", "more", "words"), KINDS, ids=[kind[0] for kind in KINDS])
def test_stages_of_other_models(zoo, pictures, name, layer, head, more, words):
    """Soft cap, window, distance, sink, position bias, no mask: a stage or a word each, every value Python's."""
    grid = zoo.grid([kind[0] for kind in KINDS].index(name))
    query = 60
    key = zoo.kernel.value(f"int(traces[{name!r}].attention({layer}, {head})[{query}].argmax())")
    lock(zoo, grid, f"grids[{name!r}]", layer, head, [query, key])
    agrees(zoo, grid, f"traces[{name!r}]", layer, head, (query, key))
    assert tuple(stage for stage in shown(grid) if stage in ("scaled", *more))[: len(more) or 1] == (
        more or ("scaled",)
    )
    assert words in " | ".join(grid.detail.locator(".lt-stage-op").all_text_contents())
    if name == "gpt-oss":
        share = zoo.kernel.value(f"1 - float(traces[{name!r}].attention({layer}, {head})[{query}].sum())")
        assert share > 0.001
        expect(grid.detail.locator(".lt-stage-op").last).to_contain_text(f"the sink takes {share:.3f} of this row")
    assert grid.too_wide() == ""
    grid.photograph(pictures / f"stages-{name}.png")


def test_the_vectors_sum_to_the_score(opened, grid):
    lock(opened, grid, "grid", *LAMP, [23, 6])
    vectors = grid.detail.locator(".lt-vectors")
    expect(vectors.locator("h4")).to_contain_text("element by element · KV head 1, shared by H3–H5")
    total = vectors.locator(".lt-vectors-rows b").inner_text().removeprefix("Σ = ")
    assert total == shown(grid)["scores"]
    strip = vectors.locator("canvas").nth(2)
    strip.scroll_into_view_if_needed()
    box = strip.bounding_box()
    opened.page.mouse.move(box["x"] + box["width"] * (40.5 / 64), box["y"] + 5)
    says = vectors.get_by_role("status")
    expect(says).to_contain_text("element 40:")
    q, k = opened.kernel.value("[float(trace.scoring(17).q[5][23][40]), float(trace.scoring(17).k[1][6][40])]")
    assert number(says.locator("b").inner_text()) == pytest.approx(q * k, rel=0.006, abs=0.0006)
    vectors.get_by_role("group").focus()
    opened.page.keyboard.press("Home")
    expect(says).to_contain_text("element 0:")


def sums_say(grid: Grid) -> dict[str, dict[str, float]]:
    """Tokens and values named under both profiles."""
    found = {}
    for at, direction in enumerate(("looks", "seen")):
        items = grid.detail.locator(".lt-profile-list").nth(at).locator("button")
        pairs = items.evaluate_all("(all) => all.map((e) => [...e.children].map((c) => c.textContent.trim()))")
        found[direction] = {token: value for token, value in pairs}
    return found


def test_sums_over_tokens_and_heads(opened, grid):
    lock(opened, grid, "grid", *LAMP, [23, 6])
    text = grid.detail.locator(".lt-text")
    text.scroll_into_view_if_needed()
    grid.detail.locator(".lt-word", has_text="calm").click(modifiers=["Shift"])
    opened.becomes("list(grid.selected_tokens)", [23, 6, 14])
    sums = grid.detail.locator(".lt-sums")
    expect(sums.locator(".lt-chip")).to_have_text(["·the₂₃", "·calm₁₄ ×"])
    opened.kernel.run(
        "import numpy as np\nall_heads = np.stack([trace.attention(l, h) for l in range(30) for h in range(9)])"
    )
    for scope, heads in (
        ("This head", "[17 * 9 + 5]"),
        ("Layer", "slice(17 * 9, 18 * 9)"),
        ("All heads", "slice(None)"),
    ):
        sums.get_by_role("radio", name=scope).click()
        grid.settled()
        grid.settled()
        if scope != "This head":
            expect(sums.locator("h4")).to_contain_text("mean of")
        looks = opened.kernel.value(f"[float(x) for x in all_heads[{heads}][:, [23, 14]].sum(1).mean(0)]")
        seen = opened.kernel.value(f"[float(x) for x in all_heads[{heads}][:, :, [23, 14]].sum(2).mean(0)]")
        tokens = opened.kernel.value("trace.tokens")
        for direction, values in (("looks", looks), ("seen", seen)):
            best = max(range(24), key=lambda i: values[i])
            (token, value), *_ = sums_say(grid)[direction].items()
            assert token.startswith(tokens[best])
            assert number(value) == pytest.approx(values[best], abs=0.0006)
    sums.get_by_role("radio", name="Max").click()
    grid.settled()
    grid.settled()
    most = opened.kernel.value("float(all_heads[:, [23, 14]].sum(1).max(0).max())")
    assert number(next(iter(sums_say(grid)["looks"].values()))) == pytest.approx(most, abs=0.0006)
    sums.get_by_role("radio", name="This head").click()
    sums.locator("button.lt-chip").click()
    opened.becomes("list(grid.selected_tokens)", [23, 6])


def test_labels_of_the_axes_choose_and_add(opened, grid):
    lock(opened, grid, "grid", *LAMP, [23, 6])

    def label(rows: int) -> tuple[float, float]:
        """Where the label stands that is so many rows below the chosen one's."""
        grid.matrix.scroll_into_view_if_needed()
        grid.settled()
        ring = grid.detail.locator(".lt-cross-cell").bounding_box()
        box = grid.matrix.bounding_box()
        return box["x"] + 30, ring["y"] + ring["height"] / 2 + rows * (ring["height"] - 4)

    opened.page.mouse.click(*label(-3))
    opened.becomes("grid.selected_tokens[0]", 20)
    x, y = label(3)
    opened.page.keyboard.down("Shift")
    opened.page.mouse.click(x, y)
    opened.page.keyboard.up("Shift")
    opened.becomes("[grid.selected_tokens[0], grid.selected_tokens[-1]]", [20, 23])


def test_a_long_head_of_a_windowed_model(lab, module_context, record, pictures):
    """Gemma, 1300 tokens: stages are tiles, the cell's values exact, what lies outside the window is paper."""
    text = f"text = 60 * ({PROMPT!r} + '. ')"
    cells = (
        f"import llamatelemetry_widget as lt\n{text}\nmodel = lt.open_model('gemma3-270m')",
        "trace = model.trace(text, layers=range(6), progress=False)\ngrid = lt.AttentionGrid(trace)\ngrid",
    )
    notebook = Notebook.write(lab, module_context, "stages-long", *cells)
    try:
        notebook.run_all(120)
        grid = notebook.grid()
        assert notebook.kernel.value("len(trace.tokens)") > 1024
        for layer, words in ((0, "window 512 · future = −∞"), (5, "future = −∞")):
            lock(notebook, grid, "grid", layer, 1, [1200, 900])
            expect(grid.detail.locator(".lt-waiting")).to_have_count(0, timeout=20_000)
            agrees(notebook, grid, "trace", layer, 1, (1200, 900))
            assert grid.detail.locator(".lt-stage-op").nth(2).text_content() == words
            for stage in range(4):
                assert sum(count > 1 for count in grid.tiles(6, 6, canvas(grid, stage))) > 12
            expect(grid.detail.locator(".lt-vectors h4")).to_contain_text("KV head 0, shared by H0–H3")
            grid.photograph(pictures / f"stages-long-{layer}.png")
        canvas(grid, 3).scroll_into_view_if_needed()
        notebook.page.mouse.move(*cell_of(canvas(grid, 3), 600, 300, 1300))
        expect(grid.detail.locator(".lt-stage-hover:visible")).to_have_count(4)
    finally:
        notebook.close()


@pytest.mark.parametrize("width", (1100, 600))
@pytest.mark.parametrize("theme", ("light", "dark"))
def test_looks_as_it_should(opened, grid, pictures, width, theme):
    opened.page.set_viewport_size({"width": width + 16, "height": 1100})
    opened.sidebar(False)
    opened.kernel.run(f"grid.theme = {theme!r}")
    lock(opened, grid, "grid", *LAMP, [23, 6])
    try:
        assert grid.too_wide() == ""
        columns = grid.detail.locator(".lt-stages-row").evaluate(
            "(e) => getComputedStyle(e).gridTemplateColumns.split(' ').length"
        )
        assert columns == (7 if width == 1100 else 3)
        grid.photograph(pictures / f"stages-{theme}-{width}.png")
    finally:
        opened.sidebar(True)
