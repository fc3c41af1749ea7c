"""The zoo of tiny models as the parity tests see it: the files with a reference, and how close a trace must come.

In: tests/data/zoo (made by make_zoo.py from Hugging Face models). Out: `Case`s, and the arrays of a trace laid out as
the reference has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
ZOO = Path(__file__).parents[1] / "data" / "zoo"
PROMPT_LIMIT = 300  # of the longer prompts; every file of the zoo was "trained" on 512


@dataclass(frozen=True)
class Case:
    """One model file and what Hugging Face transformers computes with its weights."""

    path: Path
    reference: Path

    @property
    def name(self) -> str:
        return self.reference.stem

    @property
    def rounded(self) -> bool:
        """Quantized: a rounded activation may tip over, so that every small difference grows."""
        return self.name.rpartition("-")[2] in ("0",)

    def load(self) -> dict[str, Array]:
        with np.load(self.reference) as stored:
            return dict(stored)

    def threshold(self, flash: str, kv_type: str) -> float:
        """The least correlation with the reference (the issue's numbers)."""
        if flash == "off" and kv_type == "f32":
            return 0.99999
        return 0.9995 if self.rounded else 0.9999


def cases() -> list[Case]:
    """Every file of the zoo that has a reference, in alphabetical order."""
    files = sorted((ZOO / "models").glob("*.gguf"))
    first = {
        path.stem.partition("-00001-of-")[0]: path
        for path in files
        if "-of-" not in path.stem or "-00001-of-" in path.stem
    }
    return [Case(path, ref) for name, path in first.items() if (ref := ZOO / "refs" / f"{name}.npz").exists()]


# Where a reference keeps the attention of each part of a trace, and the stream after each layer.
ATTENTION = {"self": "attn", "encoder": "enc_attn", "decoder": "dec_attn", "cross": "cross"}
HIDDEN = {"self": "hidden", "encoder": "enc_hidden", "decoder": "dec_hidden"}


def attention(trace: Any, part: str | None = None) -> Array:
    """float32 (layers with attention, heads, rows, keys) of one part."""
    own = [facts for facts in trace.layers_of(part) if facts.kind == "attention"]
    return np.stack(
        [np.stack([trace.attention(facts.layer, head, part=part) for head in range(facts.heads)]) for facts in own]
    )


def hidden(trace: Any, part: str | None = None) -> Array:
    """float32 (layers, rows, width): the stream after every layer of one part."""
    return np.stack([trace.hidden(facts.layer, part=part) for facts in trace.layers_of(part)])


def correlation(got: Array, want: Array) -> float:
    """Pearson's correlation of all numbers together; the shapes must agree."""
    assert got.shape == want.shape, (got.shape, want.shape)
    return float(np.corrcoef(got.ravel(), want.ravel())[0, 1])


def relative(got: Array, want: Array) -> float:
    """Length of the difference over length of the wanted numbers: unlike a correlation it sees a wrong scale."""
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def long_ids(case_ids: Array, n: int = PROMPT_LIMIT) -> list[int]:
    """A prompt of n tokens: the reference's own tokens again and again, turned a little each time."""
    rounds = [np.roll(case_ids[1:], turn) for turn in range(-(-n // (len(case_ids) - 1)))]
    return [int(i) for i in np.concatenate([case_ids[:1], *rounds])[:n]]
