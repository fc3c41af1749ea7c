"""ArchitectureTree with more and more nodes: until it is painted, and frames while it is pointed at and scrolled.

The page is the widget's own HTML export in headless Chromium. ``100k`` is a header as gguf-py writes it, of 1000 layers
with 22 experts each: larger than any model, and made for this.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import llamatelemetry_widget as lt

from . import chromium
from .figure import Figure, interleaved, seconds
from .frames import FRAME, FRAMES, TIMED
from .prompts import MODEL

ZOO = Path(__file__).parents[1] / "tests/data/zoo/models"
OPEN = 2.0  # s
COUNT = 120  # frames

#: The pointer runs over the map.
HOVER = f"""
() => {{
  const canvas = document.querySelector(".lt-at-single canvas"), box = canvas.getBoundingClientRect();
  return (frames) => frames({COUNT}, (i) => {{
    const at = {{ clientX: box.left + (i * 7) % box.width, clientY: box.top + (i * 3) % box.height, bubbles: true }};
    canvas.dispatchEvent(new PointerEvent("pointermove", at));
  }});
}}
"""

#: All layers open, the rows run past.
SCROLL = f"""
() => {{
  [...document.querySelectorAll(".lt-at-row")].find((row) => /layers 0/.test(row.textContent))
    ?.querySelector(".lt-at-twist").click();
  const rows = document.querySelector(".lt-at-scroll");
  return (frames) => frames({COUNT}, (i) => {{
    rows.scrollTop = (i * 97) % Math.max(1, rows.scrollHeight - rows.clientHeight);
  }});
}}
"""


def figures() -> Iterator[Figure]:
    """Seconds from the file to the first paint; work of a frame (95 %), by number of nodes."""
    with tempfile.TemporaryDirectory() as folder, chromium.launch() as browser:
        models = {"smollm2": MODEL, "deep": ZOO / "deep.gguf", "moe-large": ZOO / "moe-large.gguf"}
        for name, source in {**models, "100k": large(Path(folder) / "large.gguf")}.items():
            yield from _figures(browser, name, source, Path(folder))


def _figures(browser: Any, name: str, source: Any, folder: Path) -> Iterator[Figure]:
    (made,) = interleaved(3, lambda: seconds(lambda: lt.ArchitectureTree(lt.open_model(source)).close()))
    widget = lt.ArchitectureTree(lt.open_model(source))
    nodes = len(widget.tree.by_id)
    path = folder / f"{name}.html"
    path.write_text(widget.to_html(), "utf-8")
    widget.close()
    page = browser.new_page(viewport=chromium.VIEW)
    page.add_init_script(TIMED)
    page.goto(path.as_uri())
    page.locator(".lt-at-single canvas").wait_for()
    painted = float(chromium.once(page, chromium.FIRST_PAINT)) / 1000
    goal = f"ours <= {OPEN:g} s"
    yield Figure(
        f"architecture_open_{name}", made + painted, "s", (made + painted) / OPEN, "goal", goal, made + painted <= OPEN
    )
    yield Figure(f"architecture_nodes_{name}", nodes, "nodes", None, "-")
    for what, steps in (("hover", HOVER), ("scroll", SCROLL)):
        work = sorted(frame[1] for frame in page.evaluate(f"({steps.strip()})()({FRAMES.strip()})"))
        slow = work[int(0.95 * len(work))]
        goal = f"ours <= {FRAME:.1f} ms"
        yield Figure(f"architecture_{what}_{name}", slow, "ms", slow / FRAME, "goal", goal, slow <= FRAME)
    page.close()


def large(path: Path) -> Path:
    """A header of 72 000 tensors, more than 100 000 nodes."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1000)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    for layer in range(1000):
        names = [*(f"attn_{x}" for x in ("q", "k", "v", "output")), "ffn_gate_inp", "ffn_latent"]
        names += [f"ffn_{x}.{expert}" for expert in range(22) for x in ("gate", "up", "down")]
        for name in names:
            writer.add_tensor_info(f"blk.{layer}.{name}.weight", (32, 32), np.dtype(np.float32), 4096)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return path
