"""TokenExplorer in JupyterLab with a real model: sliders, writing, branches, keys, a page without a kernel."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from .conftest import WIDE
from .grid import Grid
from .notebook import Notebook

PROMPT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)
FRAMES = """(input) => new Promise((done) => {
  const frames = [];
  let last = performance.now(), n = 0;
  const step = (now) => {
    frames.push(now - last);
    last = now;
    input.value = String(200 + (n * 37) % 700);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    if (++n < 60) requestAnimationFrame(step);
    else done(frames.slice(1).sort((a, b) => a - b));
  };
  requestAnimationFrame(step);
})"""


class Explorer(Grid):
    """One explorer."""

    def __init__(self, page, root):
        super().__init__(page, root)
        self.rows = root.locator(".lt-te-list button:visible")
        self.said = root.locator(".lt-te-said")
        self.prompt = root.locator(".lt-te-prompt")
        self.status = root.locator(".lt-te-status")

    def slider(self, name: str) -> Locator:
        return self.root.get_by_role("slider", name=name)

    def words(self, setting: str) -> Locator:
        return self.root.locator(f".lt-te-slider.lt-te-{setting}")


@pytest.fixture(scope="module")
def opened(lab, module_context, record):
    magic = f"%%llamatelemetry tokens --model smollm2 --into explorer\n{PROMPT}"
    notebook = Notebook.write(lab, module_context, "tokens", "%load_ext llamatelemetry", magic)
    notebook.run_all()
    yield notebook
    notebook.close()


@pytest.fixture
def explorer(opened) -> Explorer:
    opened.kernel.run(
        "explorer.leaf = explorer.node = 0; explorer.theme = 'auto'\n"
        "explorer.temperature, explorer.top_k, explorer.typical_p = 0.8, 40, 1\n"
        "explorer.top_p, explorer.min_p, explorer.repeat_penalty, explorer.seed = 0.95, 0.02, 1, 3"
    )
    opened.page.set_viewport_size(WIDE)
    opened.page.mouse.move(2, 2)
    root = opened.page.locator(".jp-Notebook .lt-te")
    root.wait_for(timeout=60_000)
    found = Explorer(opened.page, root)
    expect(found.rows.first).to_be_visible(timeout=20_000)
    found.settled()
    return found


def test_the_whole_vocabulary_and_what_each_filter_cut(opened, explorer):
    expect(explorer.root.locator("h2")).to_have_text("Next tokenexact over all 49\u202f152 tokens")
    expect(explorer.rows).to_have_count(16)
    expect(explorer.rows.first).to_contain_text("·lamp")
    table = opened.kernel.value("explorer.distribution.head(16)[['token', 'cut_by']].values.tolist()")
    for row, (token, cut) in zip(explorer.rows.all(), table, strict=True):
        expect(row).to_contain_text(token[:8])
        expect(row).to_have_class(re.compile(rf"lt-te-cut lt-te-{cut}" if cut else r"^lt-te-row$"))
    expect(explorer.words("top_k")).to_contain_text("49\u202f152 → 40")
    expect(explorer.root.locator(".lt-te-rest")).to_contain_text("and 49\u202f136 more tokens, together")


def test_sliders_move_by_keys_and_python_hears(opened, explorer):
    slider = explorer.slider("top-p")
    slider.focus()
    mode = opened.mode()
    for _ in range(5):
        opened.page.keyboard.press("ArrowLeft")
    opened.becomes("explorer.top_p", 0.945)
    expect(slider).to_have_attribute("aria-valuetext", re.compile(r"^0\.9[45]\d?, 40 → \d+, cuts \d+ tokens holding"))
    slider.fill("0")
    opened.becomes("explorer.top_p", 0)
    expect(explorer.root.locator(".lt-te-list .lt-te-cut:visible")).to_have_count(15)
    assert opened.mode() == mode
    opened.kernel.run("explorer.temperature = 0")
    expect(explorer.words("temperature")).to_contain_text("takes ·lamp, the likeliest, alone")


@pytest.mark.parametrize("name", ["temperature", "typical", "repeat penalty"])
def test_a_slider_keeps_up_with_the_frames(opened, explorer, name):
    opened.kernel.run("explorer.top_k = 0; explorer.top_p = 1; explorer.min_p = 0")
    expect(explorer.words("top_k")).to_contain_text("49\u202f152 → 49\u202f152")
    frames = explorer.slider(name).evaluate(FRAMES)
    explorer.settled()  # the last value is told to Python before the next test sets it
    print(
        f"{name}: median frame {frames[len(frames) // 2]:.1f} ms, 95 % within {frames[int(len(frames) * 0.95)]:.1f} ms"
    )
    assert len(frames) > 10


def test_sample_step_back_and_another_branch(opened, explorer, pictures):
    page = opened.page
    explorer.root.get_by_role("button", name="Sample").click()
    expect(explorer.said).to_have_count(1, timeout=20_000)
    first = opened.kernel.value("explorer.text")
    explorer.root.get_by_role("button", name="Greedy").click()
    expect(explorer.said).to_have_count(2, timeout=20_000)
    explorer.root.get_by_role("button", name="Generate 40").click()
    expect(explorer.said).to_have_count(42, timeout=90_000)
    expect(explorer.root.get_by_role("button", name="Generate 40")).to_be_enabled(timeout=20_000)
    assert opened.kernel.value("explorer.text").startswith(first)
    explorer.said.nth(2).click()
    opened.becomes("len(explorer._tree.path(explorer.node))", 2)
    expect(explorer.root.locator(".lt-te-next")).to_have_count(1, timeout=20_000)
    expect(explorer.root.locator(".lt-te-sentence")).to_contain_text("instead:")
    explorer.settled()
    explorer.photograph(pictures / "tokens-light-1100.png")
    taken = explorer.root.locator(".lt-te-list button:not(.lt-te-next)").first
    taken.click()
    expect(explorer.said).to_have_count(3, timeout=20_000)
    expect(explorer.root.locator(".lt-te-branch")).to_have_count(2)
    opened.becomes("explorer.nodes[explorer.node]['how']", "chosen")
    explorer.root.locator(".lt-te-branch", has_text="42 tokens").click()
    expect(explorer.said).to_have_count(42)
    opened.becomes("explorer.leaf == explorer.node", True)
    explorer.said.first.focus()
    page.keyboard.press("Backspace")
    opened.becomes("len(explorer._tree.path(explorer.node))", 41)
    expect(explorer.said).to_have_count(42)


def test_fits_narrow_and_dark(opened, explorer, pictures):
    opened.kernel.run("explorer.leaf = max(range(len(explorer.nodes)), key=lambda n: len(explorer._tree.path(n)))")
    opened.kernel.run("explorer.node = explorer._tree.path(explorer.leaf)[1]")
    expect(explorer.root.locator(".lt-te-next")).to_have_count(1, timeout=20_000)
    for theme, width in (("dark", 1400), ("light", 600), ("dark", 600), ("light", 420)):
        opened.kernel.run(f"explorer.theme = {theme!r}")
        opened.page.set_viewport_size({"width": width, "height": 1100})
        opened.sidebar(width > 1000)
        explorer.settled()
        assert explorer.too_wide() == ""
        if width < 900:  # the answer stays above its controls
            answer, controls = (explorer.root.locator(f".lt-te-{n}").bounding_box() for n in ("answer", "controls"))
            assert answer["y"] + answer["height"] <= controls["y"]
        explorer.photograph(pictures / f"tokens-{theme}-{width}.png")
    opened.page.set_viewport_size(WIDE)
    opened.sidebar(True)


def test_a_page_works_without_a_kernel(opened, explorer, tmp_path, module_context):
    target = tmp_path / "tokens.html"
    opened.kernel.run(f"_ = explorer.to_html({str(target)!r})")
    page = module_context.new_page()
    try:
        page.goto(target.as_uri())
        inside = Explorer(page, page.locator(".lt-te"))
        expect(inside.rows.first).to_contain_text("·lamp")
        expect(inside.provenance).to_contain_text("not live")
        inside.slider("top-k").fill("0")
        expect(inside.words("top_k")).to_contain_text("49\u202f152 → 1")
        expect(inside.root.get_by_role("button", name="Sample")).to_be_disabled()
    finally:
        page.close()
