"""Writes docs/_generated/architectures.md: what was found in each file of the zoo, and how well it agrees.

In: the zoo, the two real models, and their references. Out: one table row per file, all of it measured here: the kind
of attention (read from masks, operands and shapes), the correlation with Hugging Face (attention for flash attention
on and off, F16 cache as in llama.cpp), and the largest difference of the replay to llama.cpp's own softmax.

Run:  python -m tests.parity.table
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import llamatelemetry_widget as lt

from .zoo import ATTENTION, HIDDEN, Array, attention, cases, correlation, hidden

TARGET = Path(__file__).parents[2] / "docs" / "_generated" / "architectures.md"
DATA = Path(__file__).parents[1] / "data"
REAL = {"smollm2": "smollm2", "gemma3": "gemma3-270m"}  # stored arrays, name in the catalogue
HEAD = """\
<!-- Made by `python -m tests.parity.table`; do not edit. -->

| architecture | file | attention | flash on | flash off | hidden states | logits | replay, largest difference |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def kinds(trace: Any) -> list[str]:
    """What the attention of a trace is, in words, from what was measured."""
    found: list[str] = []
    for part in trace.parts:
        own = [facts for facts in trace.layers_of(part) if facts.kind == "attention"]
        words = _heads(own[0]) + _masks(own) + _operands([trace.scoring(facts.layer, part) for facts in own])
        found.append((f"{part}: " if len(trace.parts) > 1 else "") + ", ".join(words))
    without = [facts.layer for facts in trace.layers if facts.kind == "none"]
    if without:
        layers = "all layers" if not trace.parts else "layers " + ", ".join(map(str, without))
        found.append(f"no attention in {layers} (recurrent)")
    if trace.experts:
        found.append("experts")
    return found


def _heads(facts: Any) -> list[str]:
    if facts.kv_heads == 1 and facts.heads > 1:
        return [f"multi-query ({facts.heads} heads on one)"]
    return [f"grouped ({facts.heads} on {facts.kv_heads})" if facts.kv_heads < facts.heads else f"{facts.heads} heads"]


def _masks(own: list[Any]) -> list[str]:
    words = sorted({{"none": "every token sees all", "causal": "causal"}.get(facts.mask, "own mask") for facts in own})
    windows = [facts.window for facts in own if facts.window is not None]
    if windows:
        words.append(f"window of {windows[0]} in {len(windows)} of {len(own)} layers")
    return words


def _operands(scorings: list[Any]) -> list[str]:
    tests = {
        "soft cap": lambda s: s.soft_cap > 0,
        "ALiBi": lambda s: s.max_bias > 0,
        "position bias": lambda s: s.bias is not None,
        "sinks": lambda s: s.sinks is not None,
        "latent keys": lambda s: s.v is not None and s.v.shape[-1] != s.q.shape[-1],
    }
    return [name for name, test in tests.items() if any(test(s) for s in scorings)]


def row(name: str | Path, reference: Mapping[str, Array]) -> str:
    """One line of the table, of a file (or catalogue model) and what Hugging Face computed with it."""
    ids, decoder = reference["ids"].tolist(), reference["dec_ids"].tolist() if "dec_ids" in reference else None
    with lt.open_model(name) as model:
        on, off = (
            model.trace(ids, logits="all", flash_attention=flash, decoder_prompt=decoder, progress=False)
            for flash in ("on", "off")
        )
        replay = f"{model.verify(ids, decoder_prompt=decoder).max_difference.max():.0e}" if on.parts else "–"
        first = [f"`{model.info.architecture}`", model.info.path.name, "<br>".join(kinds(on))]
    logits = [(on.logits[-len(np.atleast_2d(want)) :], np.atleast_2d(want)) for want in _there(reference, ["logits"])]
    cells = [_attention(on, reference), _attention(off, reference), _hidden(on, reference), logits]
    return "| " + " | ".join([*first, *(_agreement(pairs) for pairs in cells), replay]) + " |"


def _there(reference: Mapping[str, Array], names: list[str]) -> list[Array]:
    return [reference[name].astype(np.float32) for name in names if name in reference]


def _attention(trace: Any, reference: Mapping[str, Array]) -> list[tuple[Array, Array]]:
    return [(attention(trace, part), reference[ATTENTION[part]].astype(np.float32)) for part in trace.parts]


def _hidden(trace: Any, reference: Mapping[str, Array]) -> list[tuple[Array, Array]]:
    parts = [part for part, name in HIDDEN.items() if name in reference]
    layers = reference.get("hidden_layers", slice(None))
    own = [hidden(trace, part if part in trace.parts else None)[layers] for part in parts]
    return list(zip(own, _there(reference, [HIDDEN[part] for part in parts]), strict=True))


def _agreement(pairs: list[tuple[Array, Array]]) -> str:
    """The least correlation, cut (not rounded) to six digits: 1 never stands for almost 1."""
    return f"{math.floor(1e6 * min(correlation(got, want) for got, want in pairs)) / 1e6:.6f}" if pairs else "–"


def main() -> None:
    """Measure every file and write the table."""
    rows = [row(case.path, case.load()) for case in cases()]
    for stored, name in REAL.items():
        with np.load(DATA / f"{stored}.npz") as reference:
            rows.append(row(name, dict(reference)))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(HEAD + "\n".join(rows) + "\n")
    print(f"{TARGET}: {len(rows)} files")


if __name__ == "__main__":
    main()
