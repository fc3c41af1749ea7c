"""Makes the data of the frontend's unit tests from the real model: python js/test/make_fixture.py.

In: the catalogue's "smollm2". Out: js/test/data/smollm2.*, the traits and one head as the kernel sends them.
"""

import json
from pathlib import Path

import llamatelemetry_widget as lt

PROMPT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)
OUT = Path(__file__).with_name("data")


def main() -> None:
    """Write facts, thumbnails, statistics, and layer 17 head 5."""
    from llamatelemetry_widget.widgets.attention_facts import matrix

    OUT.mkdir(exist_ok=True)
    with lt.open_model("smollm2") as model:
        trace = model.trace(PROMPT)
        grid = lt.AttentionGrid(trace)
        facts = json.dumps(grid.facts, ensure_ascii=False, indent=1)
        (OUT / "smollm2.facts.json").write_text(facts + "\n", "utf-8")
        (OUT / "smollm2.thumbnails.bin").write_bytes(grid.thumbnails.tobytes())
        (OUT / "smollm2.statistics.bin").write_bytes(grid.statistics.tobytes())
        (OUT / "smollm2.head-17-5.bin").write_bytes(matrix(trace, 17, 5, "softmax", "self").tobytes())


if __name__ == "__main__":
    main()
