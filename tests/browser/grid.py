"""An AttentionGrid on a page, as its user sees and uses it.

In: the widget's root element. Out: places of heads, pixels of a canvas, texts.
"""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from .server import Kernel

#: Opacity and brightness, 0 to 255 each, of the pixel in the corner of a canvas: the paper.
CORNER = """(canvas) => {
  const copy = document.createElement("canvas").getContext("2d");
  copy.drawImage(canvas, 0, 0);
  const [r, g, b, a] = copy.getImageData(1, 1, 1, 1).data;
  return [a, (r + g + b) / 3];
}"""

#: How many colours there are in each of columns x rows tiles of a canvas; an empty tile has one.
TILES = """(canvas, [columns, rows]) => {
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, 0, 0);
  const words = new Uint32Array(context.getImageData(0, 0, copy.width, copy.height).data.buffer);
  const counts = [];
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < columns; c++) {
      const seen = new Set();
      const [x0, x1] = [c, c + 1].map((i) => Math.floor((i * canvas.width) / columns));
      const [y0, y1] = [r, r + 1].map((i) => Math.floor((i * canvas.height) / rows));
      for (let y = y0; y < y1; y++) for (let x = x0; x < x1; x++) seen.add(words[y * canvas.width + x]);
      counts.push(seen.size);
    }
  return counts;
}"""

#: The widget and everything around it up to the output area is no wider than its room.
FITS = """(root) => {
  for (let e = root; e && !e.matches(".jp-Cell, body"); e = e.parentElement)
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline") return e.className || e.tagName;
  return "";
}"""


class Grid:
    """One grid."""

    def __init__(self, page: Page, root: Locator) -> None:
        self.page, self.root = page, root
        self.canvas = root.locator(".lt-grid > canvas")
        self.matrix = root.locator(".lt-matrix > canvas")
        self.detail = root.locator(".lt-detail")
        self.notice = root.locator(".lt-notice")
        self.provenance = root.locator(".lt-provenance")
        self.kept = root.locator(".lt-kept")
        self.card = page.locator(".lt-card:visible")
        self.lock_ring = root.locator(".lt-ring-lock")
        self.hover_ring = root.locator(".lt-ring-hover")

    def settled(self) -> None:
        """Wait until everything that was asked for is drawn."""
        self.page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(() => done()), 260))")

    def tiles(self, columns: int, rows: int, canvas: Locator | None = None) -> list[int]:
        """How many colours each tile of a canvas has; an empty one has 1."""
        counts: list[int] = (canvas or self.canvas).evaluate(TILES, [columns, rows])
        return counts

    def paper(self) -> tuple[float, float]:
        """Opacity and brightness of the canvas where nothing is drawn."""
        opacity, brightness = self.canvas.evaluate(CORNER)
        return opacity, brightness

    def full(self) -> bool:
        """All over the canvas something is drawn."""
        counts = self.tiles(30, 9)
        return sum(count > 6 for count in counts) > 0.9 * len(counts)

    def centre(self, kernel: Kernel, layer: int, head: int, name: str = "grid") -> tuple[float, float]:
        """Where a head is: Python locks it, its ring is looked at, and it is freed again."""
        self.canvas.scroll_into_view_if_needed()
        kernel.run(f"{name}.select({layer}, {head})")
        expect(self.lock_ring).to_be_visible()
        self.settled()
        ring, canvas = self.lock_ring.bounding_box(), self.canvas.bounding_box()
        assert ring is not None and canvas is not None
        kernel.run(f"{name}.select(None)")
        expect(self.lock_ring).to_be_hidden()
        self.canvas.scroll_into_view_if_needed()
        moved = self.canvas.bounding_box()  # the page may scroll when the detail goes
        assert moved is not None
        x, y = (ring[a] - canvas[a] + moved[a] for a in ("x", "y"))
        return x + ring["width"] / 2, y + ring["height"] / 2

    def middle(self) -> tuple[float, float]:
        """The middle of the picture, where some head is."""
        box = self.canvas.bounding_box()
        assert box is not None
        return box["x"] + box["width"] * 0.52, box["y"] + box["height"] * 0.5

    def click(self, kernel: Kernel, layer: int, head: int, name: str = "grid") -> None:
        self.page.mouse.click(*self.centre(kernel, layer, head, name))

    def title(self) -> str:
        """ "Layer 17 · head 5" of the head that is open."""
        return self.detail.locator("h3 b").inner_text()

    def too_wide(self) -> str:
        """The first element around the widget that scrolls sideways; empty where none does."""
        return str(self.root.evaluate(FITS))

    def photograph(self, path: Path) -> None:
        """A screenshot of the whole widget, in a window that is high enough for it."""
        size = self.page.viewport_size
        box = self.root.bounding_box()
        assert size is not None and box is not None
        self.page.set_viewport_size({"width": size["width"], "height": int(box["height"]) + 500})
        self.root.scroll_into_view_if_needed()
        self.settled()
        self.root.screenshot(path=path)
        self.page.set_viewport_size(size)
