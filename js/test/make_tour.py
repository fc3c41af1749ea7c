"""Write data/tour.json: the facts of a tour of a tiny model, as Python sends them to the browser.

Run it from the checkout: .venv/bin/python js/test/make_tour.py
"""

import json
from pathlib import Path

import llamatelemetry_widget as lt

HERE = Path(__file__).parent
ZOO = HERE.parents[1] / "tests" / "data" / "zoo" / "models"

with lt.open_model(ZOO / "gpt-oss.gguf") as model:
    facts = lt.Tour(model, [5, 17, 40, 9, 33, 17]).facts
(HERE / "data" / "tour.json").write_text(json.dumps({**facts, "details": {}}, separators=(",", ":")), "utf-8")
