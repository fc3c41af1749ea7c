"""Makes the data of the frontend's unit tests from the real models: python js/test/make_fixture.py.

In: the catalogue's "smollm2" and small models of tests/data/zoo. Out: js/test/data/smollm2.*, the traits as the kernel
sends them, and heads.json, heads of all kinds as they travel, each with what the package itself replays of it. One of
these, "holes", has a real head's q and k under a mask of ours, as no model at hand makes one. Unit tests read this.
"""

import base64
import json
from pathlib import Path

import numpy as np

import llamatelemetry_widget as lt
from llamatelemetry_widget.analysis.attention import Mask, Scoring, looks, replay, seen, tile
from llamatelemetry_widget.trace import AttentionRecord, Trace
from llamatelemetry_widget.widgets.attention_facts import head_parts

PROMPT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)
OUT = Path(__file__).with_name("data")
ZOO = Path(__file__).parents[2] / "tests" / "data" / "zoo"
# name, file, part, layer, head, settings of the run
KINDS = [
    ("window", "gemma3", "self", 0, 2, {}),
    ("soft cap and window", "gemma2", "self", 0, 1, {}),
    ("soft cap, unfused", "gemma2", "self", 1, 1, {"flash_attention": "off"}),
    ("distance", "mpt", "self", 1, 3, {}),
    ("sink", "gpt-oss", "self", 1, 0, {}),
    ("position bias", "t5", "encoder", 1, 2, {}),
    ("two texts", "t5", "cross", 1, 0, {}),
    ("no mask", "bert", "self", 1, 1, {}),
]


def main() -> None:
    """Write facts, thumbnails, statistics and heads."""
    OUT.mkdir(exist_ok=True)
    heads = {}
    with lt.open_model("smollm2") as model:
        trace = model.trace(PROMPT)
        grid = lt.AttentionGrid(trace)
        facts = json.dumps(grid.facts, ensure_ascii=False, indent=1)
        (OUT / "smollm2.facts.json").write_text(facts + "\n", "utf-8")
        (OUT / "smollm2.thumbnails.bin").write_bytes(grid.thumbnails.tobytes())
        (OUT / "smollm2.statistics.bin").write_bytes(grid.statistics.tobytes())
        heads["smollm2"] = head(trace, "self", 17, 5)
        holes = head(with_holes(trace), "self", 0, 5)
    for name, file, part, layer, number, settings in KINDS:
        with np.load(ZOO / "refs" / f"{file}.npz") as ref, lt.open_model(ZOO / "models" / f"{file}.gguf") as model:
            if "dec_ids" in ref:
                settings = {**settings, "decoder_prompt": ref["dec_ids"].tolist()}
            trace = model.trace(ref["ids"].tolist(), progress=False, **settings)
            heads[name] = head(trace, part, layer, number)
    heads["holes"] = holes
    (OUT / "heads.json").write_text(json.dumps(heads, separators=(",", ":")) + "\n", "utf-8")


def head(trace: Trace, part: str, layer: int, number: int) -> dict[str, object]:
    """One head as it travels, its stages (masked cells NaN), tiles of a part of it, and sums."""
    facts, arrays = head_parts(trace, layer, number, part)
    s = trace.scoring(layer, part)
    visible = np.ones((s.rows, s.keys), bool) if s.mask is None else s.mask.visible(slice(None), s.keys)
    stages, tiles = {}, {}
    for stage in facts["stages"]:
        cells = np.array(replay(s, number, stage))
        if stage in ("masked", "softmax"):
            cells[~visible] = np.nan
        stages[stage] = coded(cells)
        tiles[stage] = coded(tile(s, number, stage, slice(1, s.rows), slice(2, s.keys - 1), (4, 5)))
    sums = {"looks": looks([(s, [number])], [2, s.rows - 1]), "seen": seen([(s, [number])], [0, 3])}
    return {
        "facts": facts,
        "buffers": [coded(array) for array in arrays],
        "stages": stages,
        "tiles": tiles,
        "sums": {direction: coded(values) for direction, values in sums.items()},
    }


def with_holes(trace: Trace) -> Trace:
    """The first 19 tokens of a real layer under a mask of ours, which no interval of keys describes (as of several
    texts in one batch): no model at hand makes one.
    """
    s, n = trace.scoring(17), 19
    values = np.where(np.tri(n, dtype=bool), 0.0, -np.inf).astype(np.float32)
    values[9:, 3:8:2] = -np.inf
    values[12] = -np.inf
    own = Scoring(s.q[:, :n], s.k[:, :n], None, Mask.from_values(values), s.scale)
    record = AttentionRecord("self", 0, len(s.q), len(s.k), own)
    attention, layers = {("self", 0): record}, {"self": [0]}
    return Trace(np.arange(n), [b"x"] * n, ["normal"] * n, {}, _attention=attention, _part_layers=layers)


def coded(array: np.ndarray) -> str:
    """The bytes of an array as text."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


if __name__ == "__main__":
    main()
