"""An AttentionGrid on a page, as its user sees and uses it.

In: the widget's root element. Out: clicks at heads, pixels of the canvas, texts.
"""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

#: Colours of a canvas in n x n tiles, and how many there are in each.
TILES = """(canvas, [columns, rows]) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const words = new Uint32Array(pixels.data.buffer);
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


class Grid:
    """One grid."""

    def __init__(self, page: Page, root: Locator) -> None:
        self.page, self.root = page, root
        self.canvas = root.locator(".lt-grid > canvas")
        self.matrix = root.locator(".lt-matrix > canvas")
        self.detail = root.locator(".lt-detail")
        self.card = page.locator(".lt-card")
        self.lock_ring = root.locator(".lt-ring-lock")
        self.hover_ring = root.locator(".lt-ring-hover")

    def tiles(self, columns: int, rows: int, canvas: Locator | None = None) -> list[int]:
        """How many colours each tile of a canvas has; an empty one has 1."""
        counts: list[int] = (canvas or self.canvas).evaluate(TILES, [columns, rows])
        return counts

    def centre(self, layer: int, head: int) -> tuple[float, float]:
        """Where a head is in the page. The grid need not be scrolled into view for it, but is afterwards."""
        self.canvas.scroll_into_view_if_needed()
        box = self.canvas.bounding_box()
        layout = self.root.evaluate("(root) => root.querySelector('.lt-grid').dataset.layout")
        assert box is not None, layout
        return box["x"] + layer, box["y"] + head

    def title(self) -> str:
        """ "Layer 17 · head 5" of the head that is open."""
        return self.detail.locator("h3 b").inner_text()

    def card_title(self) -> str:
        expect(self.card).to_be_visible()
        return self.card.locator(".lt-card-title").inner_text()

    def fits(self) -> bool:
        """Nothing of it is wider than its room."""
        fits: bool = self.root.evaluate("(e) => e.scrollWidth <= e.clientWidth && e.parentElement.scrollWidth <= e.parentElement.clientWidth")
        return fits
