"""Writes js/test/data/architecture.json: what ArchitectureTree sends to its browser side, of tiny models.

In: models of tests/data/zoo. Out: facts and binary traits (base64) of two quantizations side by side, and of a mixture
of experts with its operator graph. Run it from the root of the checkout.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import llamatelemetry_widget as lt
from llamatelemetry_widget.widgets.architecture_tree import _BINARY

ZOO = Path("tests/data/zoo/models")


def state(widget: lt.ArchitectureTree) -> dict[str, object]:
    binary = {name: base64.b64encode(getattr(widget, name).tobytes()).decode() for name in _BINARY}
    return {"facts": widget.facts, "graph": widget.graph, "ids": widget.tree.nodes["id"].tolist(), **binary}


if __name__ == "__main__":
    a, b = (lt.open_model(ZOO / f"llama-{kind}.gguf") for kind in ("q8-0", "q4-0"))
    pair = lt.ArchitectureTree(a, compare=b)
    pair.compare_weights()
    experts = lt.open_model(ZOO / "qwen3moe.gguf")
    moe = lt.ArchitectureTree(experts, graph=experts.graph(list(range(5, 20)), repeats=1))
    out = {"pair": state(pair), "moe": state(moe)}
    Path("js/test/data/architecture.json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n")
    for model in (a, b, experts):
        model.close()
