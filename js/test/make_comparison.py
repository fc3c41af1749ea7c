"""Makes the data of the comparison's unit tests from small models: python js/test/make_comparison.py.

In: models of tests/data/zoo. Out: js/test/data/comparison.json: the traits of some comparisons, a few pairs of heads as
they travel, and what the package itself computes of the chosen pair.
"""

import base64
import json
from pathlib import Path

import numpy as np

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis.compare import compare
from llamatelemetry_widget.trace import Trace

OUT = Path(__file__).with_name("data") / "comparison.json"
MODELS = Path(__file__).parents[2] / "tests" / "data" / "zoo" / "models"
TEXT = "the cat sat on the mat and the dog"
PAIRS = 4
TRAITS = ("selected_layer", "selected_head", "other_layer", "other_head", "selected_tokens", "distance", "scale")


def main() -> None:
    """Write the comparisons."""
    f16, q4 = trace("llama-f16", TEXT), trace("llama-q4-0", TEXT)
    made = {
        "quant types": lt.HeadComparison(f16, q4),
        "heads": lt.HeadComparison(f16, a=(2, 1)),
        "layers": lt.HeadComparison(f16, a=1, b=3),
        "sinks": lt.HeadComparison(trace("gpt-oss", TEXT), a=(0, 0), b=(1, 2)),
        "prefix": lt.HeadComparison(f16, trace("llama-f16", TEXT + " ran")),
        "nothing": lt.HeadComparison(f16, trace("llama-f16", [9, 8, 7])),
    }
    OUT.write_text(
        json.dumps({name: stored(widget) for name, widget in made.items()}, ensure_ascii=False) + "\n", "utf-8"
    )


def trace(name: str, prompt: object) -> Trace:
    with lt.open_model(MODELS / f"{name}.gguf") as model:
        return model.trace(prompt, progress=False)


def stored(widget: lt.HeadComparison) -> dict[str, object]:
    """Traits and buffers as they travel, and the distances of the chosen pair, row by row."""
    embedded, data = widget._embed(widget._worth()[:PAIRS], 10**9)
    state = {name: getattr(widget, name) for name in (*TRAITS, "sink_aside", "theme", "facts")}
    state["facts"]["live"] = False
    rows = {}
    if widget.facts["how"] != "nothing":
        s, t = (
            x.scoring(head[0]) for x, head in ((widget._traces[0], widget.left), (widget._traces[-1], widget.right))
        )
        found = compare(s, t, [(widget.left[1], widget.right[1])], np.arange(widget.facts["rows"]))
        rows = {"js": numbers(found.js_rows[0]), "tv": numbers(found.tv_rows[0])}
        rows |= {"mean_js": float(found.js[0]), "mean_tv": float(found.tv[0])}
    return {
        "state": {**state, "embedded": embedded},
        "buffers": {name: coded(getattr(widget, name).tobytes()) for name in ("distances", "similarity", "statistics")},
        "embedded_data": [coded(buffer) for buffer in data],
        "rows": rows,
    }


def numbers(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    main()
