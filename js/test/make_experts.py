"""Makes the expert strip's test data from a small real model: python js/test/make_experts.py.

In: tests/data/zoo/models/qwen3moe.gguf. Out: js/test/data/experts.json, the traits as the kernel sends them (buffers in
base64), and what Python says of some tokens.
"""

import base64
import json
from pathlib import Path

import llamatelemetry_widget as lt

HERE = Path(__file__).parent
MODEL = HERE.parents[1] / "tests" / "data" / "zoo" / "models" / "qwen3moe.gguf"
BUFFERS = ("overview", "measures", "loads", "embedded_ids", "embedded_weights")


def main() -> None:
    """Write the file."""
    with lt.open_model(MODEL) as model:
        strip = lt.ExpertStrip(model.trace("the old lamp on the sea was lit by", progress=False))
    table = strip.to_pandas()
    made = {
        "facts": strip.facts,
        "embedded": strip.embedded,
        **{name: base64.b64encode(getattr(strip, name).tobytes()).decode() for name in BUFFERS},
        "choices": table.query("layer == 1 and token < 8")[["token", "expert", "weight", "share"]].values.tolist(),
        "tokens_of": strip.load[["layer", "expert", "tokens"]].values.tolist(),
    }
    (HERE / "data" / "experts.json").write_text(json.dumps(made) + "\n", "utf-8")


if __name__ == "__main__":
    main()
