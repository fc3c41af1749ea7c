"""Makes the token explorer's test data: python js/test/make_chain.py.

In: tests/data/zoo/models/gemma3.gguf, for real logits, and rows of logits made by a rule that the test knows too. Out:
js/test/data/chain.json, what llama.cpp's own sampler chain leaves of them under many settings.
"""

import base64
import json
from itertools import product
from pathlib import Path

import numpy as np

import llamatelemetry_widget as lt

HERE = Path(__file__).parent
OFF = {"temperature": 1.0, "top_k": 0, "typical_p": 1.0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
ALONE = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.05},
    {"temperature": 2.0},
    {"top_k": 1},
    {"top_k": 40},
    {"top_k": 300},
    {"top_k": 10**6},
    *({"typical_p": p} for p in (0.01, 0.2, 0.5, 0.9, 0.99)),
    *({"top_p": p} for p in (0.0, 0.1, 0.5, 0.9, 0.99, 0.999)),
    *({"min_p": p} for p in (1e-6, 0.001, 0.02, 0.5, 1.0)),
    *({"repeat_penalty": p} for p in (1.01, 1.3, 2.0)),
]
TOGETHER = [
    {"temperature": t, "top_k": k, "typical_p": y, "top_p": p, "min_p": m, "repeat_penalty": r}
    for t, k, y, p, m, r in product((0.7, 1.3), (0, 500), (0.8, 1.0), (0.6, 0.95), (0.0, 0.01), (1.0, 1.2))
]


def rule(n: int, steps: int) -> np.ndarray:
    """Logits from -12 to 12; few `steps` give many ties."""
    spread = (np.arange(n, dtype=np.uint64) * 2654435761 + 12345) % 2**32 % steps
    return (spread.astype(np.float64) / steps * 24 - 12).astype(np.float32)


def main() -> None:
    """Write the file."""
    rows = {}
    zoo = HERE.parents[1] / "tests" / "data" / "zoo" / "models" / "gemma3.gguf"
    with lt.open_model(zoo) as model:
        own = model.trace(list(range(5, 30)), capture=(), progress=False)
        small = base64.b64encode(own.logits[-1].tobytes()).decode()
        rows["model"] = {"logits": small, "before": own.token_ids.tolist()}, own.logits[-1]
    for name, n, steps in (("even", 1000, 1), ("ties", 2000, 37), ("large", 49152, 49152), ("huge", 262144, 262144)):
        before = [0, 3, 3, 7, *range(100, 190)]
        rows[name] = {"rule": [n, steps], "before": before}, rule(n, steps)
    made = []
    with lt.open_model("smollm2") as model:
        for name, (facts, logits) in rows.items():
            cases = []
            for settings in (*ALONE, *TOGETHER):
                whole = {**OFF, **settings, "seed": 1}
                ids, probabilities, _ = model._sampled(logits, facts["before"], whole)
                order = np.argsort(-probabilities, kind="stable")
                shown = order[:12]
                cases.append(
                    {
                        "settings": {**OFF, **settings},
                        "kept": len(ids),
                        "ids": np.sort(ids).tolist() if len(ids) <= 60 else None,
                        "first": [[int(ids[i]), float(probabilities[i])] for i in shown],
                        "squares": float((probabilities.astype(np.float64) ** 2).sum()),
                    }
                )
            made.append({"name": name, **facts, "cases": cases})
    (HERE / "data" / "chain.json").write_text(json.dumps(made) + "\n", "utf-8")


if __name__ == "__main__":
    main()
