"""Frames while a thousand heads are filtered and sorted, and their first paint: the zoo's ``wide`` and ``deep``.

The page is the widget's own HTML export in headless Chromium. In every frame a histogram's brush moves, or the heads
move to other places. Counted is all script of a frame, the pointer's listeners included: 60 a second leave it 16.7 ms.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llamatelemetry_widget as lt

from . import chromium
from .figure import Figure

ZOO = Path(__file__).parents[1] / "tests/data/zoo/models"
MODELS = {"1024": ("wide", 256), "deep": ("deep", 128)}
ROUNDS, PAINT, FRAME = 3, 300.0, 1000 / 60  # ms

#: Before the page's own script: every callback of a frame is timed.
TIMED = """
window.frameScript = 0;
window.untimedFrame = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (run) => window.untimedFrame((now) => {
  const began = performance.now();
  run(now);
  window.frameScript += performance.now() - began;
});
"""

#: Runs `step` once in each of `count` frames; per frame the ms of script in it, of all work in it, and since the last.
FRAMES = """
async (count, step) => {
  const frame = () => new Promise((done) => window.untimedFrame(() => done(performance.now())));
  const channel = new MessageChannel();
  const rest = () => new Promise((done) => {
    channel.port1.onmessage = () => done(performance.now());
    channel.port2.postMessage(0);
  });
  const found = [];
  let last = await frame();
  await rest();
  for (let i = 0; i < count; i++) {
    window.frameScript = 0;
    const next = frame(); // asked for before the view asks, so that it comes first
    const began = performance.now();
    step(i);
    await null;
    const listeners = performance.now() - began;
    const start = await next;
    const end = await rest();
    found.push([listeners + window.frameScript, listeners + end - start, start - last]);
    last = start;
  }
  return found;
}
"""

#: The lower end of each histogram's brush runs up and down, histogram after histogram.
FILTER = """
() => {
  const plots = [...document.querySelectorAll(".lt-plot")];
  const send = (plot, type, share) => {
    const box = plot.getBoundingClientRect();
    const at = { clientX: box.left + share * box.width, clientY: box.top + 9, button: 0, bubbles: true, pointerId: 1 };
    plot.dispatchEvent(new PointerEvent(type, at));
  };
  const LENGTH = 48;
  for (const plot of plots) plot.setPointerCapture = () => undefined;
  return (frames) => frames(LENGTH * plots.length, (i) => {
    const plot = plots[Math.floor(i / LENGTH)];
    const t = (i % LENGTH) / (LENGTH - 1);
    if (t === 0) send(plot, "pointerdown", 0.98);
    else send(plot, t === 1 ? "pointerup" : "pointermove", 0.98 - 0.96 * Math.sin(Math.PI * t));
  });
}
"""

#: By layer, ranked by each statistic in turn, and back; each for 16 frames, which the heads spend on their way.
SORT = """
() => {
  const names = [...document.querySelectorAll(".lt-stat-name")];
  const [layer, ranked] = document.querySelectorAll(".lt-segmented [role=radio]");
  const clicks = names.flatMap((name) => [ranked, name, layer]);
  return (frames) => frames(16 * clicks.length, (i) => i % 16 === 0 && clicks[i / 16].click());
}
"""


@dataclass(frozen=True)
class Pace:
    """Many frames: p95 of the script in one and of all work of the page in one, both in ms, and how many a second."""

    script: float
    work: float
    rate: float


def measure(page: Any, steps: str) -> Pace:
    """Run `FILTER` or `SORT` in a page that `open_timed` has opened."""
    frames: list[list[float]] = page.evaluate(f"({steps.strip()})()({FRAMES.strip()})")
    script, work, apart = (sorted(column) for column in zip(*frames, strict=True))
    at = int(0.95 * len(frames))
    return Pace(script[at], work[at], 1000 * len(apart) / sum(apart))


def open_timed(browser: Any, path: Path, ratio: float = 1) -> Any:
    """A page in which frames can be measured, once it is drawn."""
    page = browser.new_page(viewport=chromium.VIEW, device_scale_factor=ratio)
    page.add_init_script(TIMED)
    page.goto(path.as_uri())
    page.locator(".lt-ag").wait_for()
    page.wait_for_timeout(500)
    return page


def export(path: Path, name: str, tokens: int) -> None:
    """A page with all heads of a zoo model; its prompt repeats itself, so that every statistic has values."""
    with lt.open_model(ZOO / f"{name}.gguf") as model:
        ids = [5 + (i * 7) % 53 for i in range(tokens)]
        trace = model.trace(ids, capture=("attention",), progress=False)
    path.write_text(lt.AttentionGrid(trace).to_html(heads=[(0, 0)]), "utf-8")


def figures() -> Iterator[Figure]:
    """Best of several pages: end of the first paint, script of a frame; work of a frame and its rate explain it."""
    with tempfile.TemporaryDirectory() as folder, chromium.launch() as browser:
        for label, (model, tokens) in MODELS.items():
            path = Path(folder) / f"{model}.html"
            export(path, model, tokens)
            painted = min(_painted(browser, path) - chromium.empty(browser, folder) for _ in range(ROUNDS))
            goal = f"<= {PAINT:g} ms over an empty page"
            yield Figure(f"first_paint_{label}", painted, "ms", painted / PAINT, "empty-page", goal, painted <= PAINT)
            for name, steps in (("filter", FILTER), ("sort", SORT)):
                pace = min((_run(browser, path, steps) for _ in range(ROUNDS)), key=lambda pace: pace.script)
                title, goal, ratio = f"frame_{name}_{label}", f"<= {FRAME:.1f} ms", pace.script / FRAME
                yield Figure(title, pace.script, "ms", ratio, "60 Hz", goal, ratio <= 1)
                yield Figure(f"{title}_work", pace.work, "ms", None, "-")
                yield Figure(f"{title}_rate", pace.rate, "1/s", None, "-")


def _painted(browser: Any, path: Path) -> float:
    """End of the first paint, in ms since navigation."""
    page = browser.new_page(viewport=chromium.VIEW)
    page.goto(path.as_uri())
    drawn = chromium.entry(page, "lt:first-paint")
    page.close()
    return drawn["start"] + drawn["duration"]


def _run(browser: Any, path: Path, steps: str) -> Pace:
    page = open_timed(browser, path)
    pace = measure(page, steps)
    page.close()
    return pace
