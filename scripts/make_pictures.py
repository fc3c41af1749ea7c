"""Make the pictures of the documentation: the grid of the lighthouse prompt, as an exported page shows it.

In: the embedded model, Chromium. Out: docs/images/attention-grid.png and attention-grid-dark.png, 1100 px at two pixels
per px, in 256 colours.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

import llamatelemetry_widget as lt

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT, RATIO = 1100, 1300, 2
PROMPT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)


def main() -> None:
    from playwright.sync_api import sync_playwright

    with lt.open_model("smollm2") as model:
        trace = model.trace(PROMPT)
    layer, head = (int(n) for n in trace.head_stats.nlargest(1, "induction")[["layer", "head"]].iloc[0])
    last = len(trace.tokens) - 1
    key = int(trace.attention(layer, head)[last].argmax())
    looks = {
        "attention-grid": {"theme": "light", "filter": {"induction": [0.1, None]}},
        "attention-grid-dark": {"theme": "dark"},
    }
    IMAGES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=RATIO)
        for name, look in looks.items():
            grid = lt.AttentionGrid(trace, **look)
            grid.select(layer, head)
            grid.selected_tokens = [last, key]
            page = Path(folder) / f"{name}.html"
            page.write_text(grid.to_html(), "utf-8")
            save(photograph(context, page), IMAGES / f"{name}.png")
        browser.close()


def photograph(context: object, path: Path) -> bytes:
    """PNG of the widget in an exported page, when it has been drawn."""
    page = context.new_page()  # type: ignore[attr-defined]
    page.goto(path.as_uri())
    widget = page.locator(".lt-ag")
    widget.locator(".lt-matrix canvas").wait_for()
    page.wait_for_timeout(500)  # longer than any of its motions
    png: bytes = widget.screenshot()
    page.close()
    return png


def save(png: bytes, path: Path) -> None:
    """Write it with a palette: a third of the bytes, and nothing to see of it."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path} · {picture.width} x {picture.height} · {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
