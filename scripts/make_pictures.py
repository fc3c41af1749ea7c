"""Make the pictures of the documentation: widgets as exported pages show them, on real runs of the embedded models.

In: the embedded models, Chromium, JupyterLab for the workspace; names of pictures, or none for all. Out:
docs/images/*.png, 1100 px wide at two pixels per px, in 256 colours.
"""

from __future__ import annotations

import io
import pydoc_data.topics
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import llamatelemetry_widget as lt

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
ZOO = ROOT / "tests" / "data" / "zoo" / "models"
WIDTH, HEIGHT, RATIO = 1100, 1300, 2
MOTION = 600  # ms: longer than any of the widgets' motions
SLOWLY = 120_000  # ms at most: an exported page computes the pictures of 4096 x 4096 cells itself
PROMPT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)
FACT = "The lighthouse of Skerryvore was built by Alan Stevenson in 1844.\n\n"
QUESTION = "\n\nThe lighthouse of Skerryvore was built by"
LONG = 4096

Picture = Callable[[Any], Iterator[tuple[str, bytes]]]


def grids(browser: Any) -> Iterator[tuple[str, bytes]]:
    """All heads of the lighthouse prompt, filtered and light, unfiltered and dark; and its stages."""
    for name, look in (
        ("attention-grid", {"theme": "light", "filter": {"induction": [0.1, None]}}),
        ("attention-grid-dark", {"theme": "dark"}),
    ):
        with opened(browser, induction(lighthouse(), **look)) as page:
            yield name, page.locator(".lt-ag").screenshot()


def stages(browser: Any) -> Iterator[tuple[str, bytes]]:
    """Stages and vectors of SmolLM2; the stages of a Gemma 2, which has a soft cap and a window."""
    with opened(browser, induction(lighthouse(), theme="light")) as page:
        yield "attention-stages", around(page, ".lt-stages", ".lt-vectors")
    with lt.open_model(ZOO / "gemma2.gguf") as model:
        trace = model.trace(list(range(5, 69)))
    with opened(browser, at_last(trace, 0, 0, theme="light")) as page:
        yield "attention-stages-cap", around(page, ".lt-stages")


def sums(browser: Any) -> Iterator[tuple[str, bytes]]:
    """Where three tokens look together, and who looks at them."""
    grid = induction(lighthouse(), theme="light")
    grid.selected_tokens = [23, 6, 5, 4]
    with opened(browser, grid) as page:
        yield "attention-sums", around(page, ".lt-sums")


def long_prompts(browser: Any) -> Iterator[tuple[str, bytes]]:
    """A head of 4096 tokens, and a part of it."""
    with opened(browser, finder(needle(), theme="light")) as page:
        page.locator(".lt-waiting").first.wait_for(state="detached", timeout=SLOWLY)
        yield "attention-long", page.locator(".lt-detail").screenshot()
        page.locator(".lt-matrix [tabindex='0']").first.focus()
        for _ in range(8):
            page.keyboard.press("+")
        page.wait_for_timeout(MOTION)
        yield "attention-zoomed", around(page, ".lt-left")


def generation(browser: Any) -> Iterator[tuple[str, bytes]]:
    """What a model wrote, one step back from its end."""
    with lt.open_model("smollm2") as model:
        written = model.generate(PROMPT, max_tokens=24)
        for _ in written:
            pass
    grid = lt.AttentionGrid(written.trace, theme="light")
    grid.select(17, 5)
    with opened(browser, grid) as page:
        page.get_by_role("button", name="Back").click()
        page.wait_for_timeout(MOTION)
        yield "attention-generation", page.locator(".lt-ag").screenshot()


def comparison(browser: Any) -> Iterator[tuple[str, bytes]]:
    """What another word in the prompt changes, over all heads; and two induction heads beside each other."""
    with lt.open_model("smollm2") as model:
        other = model.trace(PROMPT.replace("lighthouse", "museum"))
    for name, widget in (
        ("head-comparison", lt.HeadComparison(lighthouse(), other, theme="light")),
        ("head-comparison-heads-dark", lt.HeadComparison(lighthouse(), a=(17, 5), b=(17, 4), theme="dark")),
    ):
        with opened(browser, widget) as page:
            yield name, page.locator(".lt-root").screenshot()


def experts(browser: Any) -> Iterator[tuple[str, bytes]]:
    """The routing of the suite's tiny mixture of experts."""
    with lt.open_model(ZOO / "qwen3moe.gguf") as model:
        trace = model.trace(list(range(40, 80)), logits="all")
    strip = lt.ExpertStrip(trace, theme="light", selected_layer=1, selected_tokens=[9])
    with opened(browser, strip) as page:
        yield "expert-strip", page.locator(".lt-root").screenshot()


def layers(browser: Any) -> Iterator[tuple[str, bytes]]:
    """What SmolLM2 would say after each layer of the lighthouse prompt."""
    with lt.open_model("smollm2") as model:
        lens = lt.LayerLens(model.trace(PROMPT), theme="light", selected_layer=23, selected_tokens=[23])
        with opened(browser, lens) as page:
            yield "layer-lens", page.locator(".lt-root").screenshot()


def tokens(browser: Any) -> Iterator[tuple[str, bytes]]:
    """What SmolLM2 would say next, and two continuations from the same place."""
    with lt.open_model("smollm2") as model:
        explorer = lt.TokenExplorer(model, PROMPT, theme="light")
        place = explorer.greedy(2)
        for write in (explorer.greedy, explorer.sample):
            explorer.node = place
            write(8)
        explorer.node = place
        with opened(browser, explorer) as page:
            yield "token-explorer", page.locator(".lt-root").screenshot()
        explorer.theme = "dark"
        with opened(browser, explorer) as page:
            yield "token-explorer-dark", around(page, ".lt-te-written")


def workspace(browser: Any) -> Iterator[tuple[str, bytes]]:
    """The tabs in a real JupyterLab: the head that is locked in the grid, in the map of the layers."""
    sys.path.insert(0, str(ROOT))
    from tests.browser.notebook import Notebook
    from tests.browser.server import Server

    make = "import llamatelemetry_widget as lt\nmodel = lt.open_model('smollm2')"
    show = f"space = lt.Workspace(model.trace({PROMPT!r}, progress=False))\nspace"
    context = browser.new_context(viewport={"width": WIDTH + 130, "height": HEIGHT + 400}, device_scale_factor=RATIO)
    with tempfile.TemporaryDirectory() as folder:
        lab = Server("lab", Path(folder) / "lab")
        try:
            notebook = Notebook.write(lab, context, "workspace", make, show)
            notebook.run_all()
            notebook.sidebar(False)
            notebook.kernel.run("for widget in space: widget.theme = 'light'")
            notebook.kernel.run("space.grid.select(23, 1)\nspace.grid.selected_tokens = [23, 6]")
            notebook.page.locator(".lm-TabBar-tab", has_text="Layers").click()
            notebook.page.locator(".lt-ll-sum", has_text="left over").wait_for()
            notebook.page.wait_for_timeout(MOTION)
            yield "workspace", notebook.page.locator(".widget-tab").screenshot()
            notebook.close()
        finally:
            lab.stop()
    context.close()


def tour(browser: Any) -> Iterator[tuple[str, bytes]]:
    """Two steps of the tour through SmolLM2: rotary positions, and the scores of a head."""
    with lt.open_model("smollm2") as model:
        made = lt.Tour(model, predictions={"position": 0, "scores": 2})
    for name, key, theme in (("tour", "position", "light"), ("tour-dark", "scores", "dark")):
        made.step, made.theme = made.steps.index(key), theme
        with opened(browser, made) as page:
            yield name, page.locator(".lt-root").screenshot()


def architecture(browser: Any) -> Iterator[tuple[str, bytes]]:
    """Gemma 3 as it is shipped, and what llama.cpp runs of it; two quantizations of SmolLM2 beside each other."""
    with lt.open_model("gemma3-270m") as model:
        tree = lt.ArchitectureTree(model, graph=model.graph(PROMPT, repeats=9), theme="light")
        tree.selected_node = "model/layers/L9/MLP/ffn_down.weight"
    with opened(browser, tree) as page:
        page.locator(".lt-at-graph").evaluate("(e) => { e.hidden = true; }")
        yield "architecture-tree", page.locator(".lt-root").screenshot()
    with opened(browser, tree) as page:
        yield "architecture-graph", page.locator(".lt-at-graph").screenshot()
    with tempfile.TemporaryDirectory() as folder, lt.open_model("smollm2") as model:
        other = lt.open_model(requantized(model, Path(folder)))
        with opened(browser, lt.ArchitectureTree(model, compare=other, theme="dark")) as page:
            yield "architecture-compare-dark", page.locator(".lt-root").screenshot()


def embedding(browser: Any) -> Iterator[tuple[str, bytes]]:
    """SmolLM2's vocabulary by UMAP."""
    with lt.open_model("smollm2") as model:
        space = lt.EmbeddingSpace3D(model, select=" lamp", theme="light")
        space.wait()
        with opened(browser, space) as page:
            page.locator("[data-frames]").wait_for()
            yield "embedding-space", page.locator(".lt-root").screenshot()
        space.close()


def requantized(model: lt.Model, folder: Path) -> Path:
    """Q4_K_M as llama.cpp makes it of a model that is quantized already: to see types with, not to judge them."""
    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype, settings.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M, True
    path = folder / f"{model.info.name}-Q4_K_M.gguf"
    llama_cpp.llama_model_quantize(bytes(model.info.path), bytes(path), settings)
    return path


def quantization(browser: Any) -> Iterator[tuple[str, bytes]]:
    """Nine types of SmolLM2, whose base came from a Q4_1 file, within 110 MB."""
    types = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "IQ4_NL", "Q4_0", "Q3_K_M", "Q2_K"]
    study = lt.QuantizationStudy(lt.quantize("smollm2", "F32"), types, n_ctx=256, n_blocks=4, speed=False).run()
    with opened(browser, lt.QuantizationReport(study, max_bytes=110_000_000, theme="light")) as page:
        yield "quantization", around(page, ".lt-header", ".lt-qr-table")


def telemetry(browser: Any) -> Iterator[tuple[str, bytes]]:
    """What forty tokens of SmolLM2 cost, one of them chosen."""
    with lt.open_model("smollm2") as model:
        trace = model.generate(PROMPT, max_tokens=40).result()
        trace.measure_overhead(5)
        times = model.graph(PROMPT, repeats=9)
    also = {"selected_tokens": [36], "selected_layer": 16, "theme": "light"}
    panel = lt.TelemetryPanel(trace, times=times, expanded=True, **also)
    with opened(browser, panel) as page:
        yield "telemetry", page.locator(".lt-root").screenshot()


PICTURES: dict[str, Picture] = {
    "grids": grids,
    "stages": stages,
    "sums": sums,
    "long": long_prompts,
    "generation": generation,
    "comparison": comparison,
    "experts": experts,
    "layers": layers,
    "tokens": tokens,
    "workspace": workspace,
    "tour": tour,
    "telemetry": telemetry,
    "architecture": architecture,
    "embedding": embedding,
    "quantization": quantization,
}


def main() -> None:
    from playwright.sync_api import sync_playwright

    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        for name in sys.argv[1:] or PICTURES:
            for picture, png in PICTURES[name](browser):
                save(png, IMAGES / f"{picture}.png")
        browser.close()


# ------------------------------------------------------------------------ real runs


@lru_cache
def lighthouse() -> lt.Trace:
    """The story that all pictures tell."""
    with lt.open_model("smollm2") as model:
        return model.trace(PROMPT)


@lru_cache
def needle() -> lt.Trace:
    """A fact, pages of Python's manual, and the beginning of the fact again: 4096 tokens."""
    with lt.open_model("smollm2") as model:
        start, end = model.tokenize(FACT), model.tokenize(QUESTION)
        between = model.tokenize("".join(pydoc_data.topics.topics.values())[: 12 * LONG])
        return model.trace(start + between[: LONG - len(start) - len(end)] + end)


def induction(trace: lt.Trace, **look: Any) -> lt.AttentionGrid:
    """Its grid, opened at the strongest induction head and what its last token looks at most."""
    head = trace.head_stats.nlargest(1, "induction")[["layer", "head"]].iloc[0]
    return at_last(trace, int(head["layer"]), int(head["head"]), **look)


def finder(trace: lt.Trace, **look: Any) -> lt.AttentionGrid:
    """Its grid, opened at the head whose last token looks most at one that is far back."""
    last = len(trace.tokens) - 1
    best = max(
        (
            float(trace.attention(facts.layer, head, rows=slice(last, last + 1))[0, 1 : last // 2].max()),
            facts.layer,
            head,
        )
        for facts in trace.layers
        for head in range(facts.heads)
    )
    return at_last(trace, *best[1:], **look)


def at_last(trace: lt.Trace, layer: int, head: int, **look: Any) -> lt.AttentionGrid:
    grid = lt.AttentionGrid(trace, **look)
    grid.select(layer, head)
    last = len(trace.tokens) - 1
    weights = trace.attention(layer, head, rows=slice(last, last + 1))[0]
    grid.selected_tokens = [last, int(weights[1:].argmax()) + 1]
    return grid


# ------------------------------------------------------------------------ pictures


@contextmanager
def opened(browser: Any, *widgets: Any) -> Iterator[Any]:
    """The exported page of some widgets, drawn."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=RATIO)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        lt.save_html(path, *widgets)
        page = context.new_page()
        page.goto(path.as_uri())
        page.locator("canvas:visible, .lt-to-title, .lt-te-list").first.wait_for()
        page.wait_for_timeout(MOTION)
        yield page
    context.close()


def around(page: Any, *selectors: str) -> bytes:
    """A screenshot of the rectangle around some elements."""
    page.evaluate("scrollTo(0, 0)")
    boxes = [page.locator(selector).first.bounding_box() for selector in selectors]
    left, top = (min(box[side] for box in boxes) - 12 for side in ("x", "y"))
    right = max(box["x"] + box["width"] for box in boxes) + 12
    bottom = max(box["y"] + box["height"] for box in boxes) + 12
    clip = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    png: bytes = page.screenshot(clip=clip, full_page=True)
    return png


def save(png: bytes, path: Path) -> None:
    """Write it with a palette: a third of the bytes, and nothing to see of it."""
    from PIL import Image, ImageChops

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    ways = (Image.Quantize.MAXCOVERAGE, Image.Quantize.MEDIANCUT)  # the first loses the plate under many colours
    tried = [picture.quantize(256, way, kmeans=1, dither=Image.Dither.NONE) for way in ways]

    def lost(made: Image.Image) -> int:
        """By the colour that is off most: a few cells of a heat map weigh as much as the plate."""
        return max(most for _, most in ImageChops.difference(picture, made.convert("RGB")).getextrema())

    min(tried, key=lost).save(path, optimize=True)
    print(f"{path} · {picture.width} x {picture.height} · {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
