"""What the browser is told of a quantization study: rows, blocks, drift, tokens, and the choice at every budget.

In: a `QuantizationStudy`. Out: plain dictionaries and arrays; what is not known is None or NaN.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LlamaTelemetryError
from ..studies.recommend import Recommendation, recommend, size

if TYPE_CHECKING:
    import pandas as pd

    from ..studies.quantization import QuantizationStudy

Array = np.ndarray[Any, Any]

#: Columns of the results that the browser shows.
COLUMNS = (
    *("name", "kind", "bytes", "bits_per_weight", "got", "status", "error", "n_tokens", "kl", "kl_ci", "kl_99"),
    *("kl_999", "kl_max", "same_top", "same_top_error", "rms_dp", "ppl", "ppl_error", "ppl_ratio", "ppl_ratio_error"),
    *("prefill_tps", "prefill_spread", "decode_tps", "decode_spread", "memory_bytes", "speed_note"),
)
STRIP = 600  # tokens of the text that the browser gets of one candidate
_WORST = 12
_MEASURED = ("done", "running", "cancelled")


def facts(study: QuantizationStudy, progress: str, live: bool = True) -> dict[str, Any]:
    """Everything small: base, rows, blocks, choices, provenance."""
    results, blocks = study.results, study.blocks
    rows = records(results)
    base = {name: plain(value) for name, value in study.base_facts.items()}
    base["name"] = re.sub(r"-[0-9a-f]{16}$", "", str(base["name"]))  # the key of a file in this package's cache
    layers, heads = drift(study)
    return {
        "title": "Quantization report",
        "subtitle": _subtitle(base, rows),
        "base": base,
        "rows": [{**{name: row[name] for name in COLUMNS}, **look(row)} for row in rows],
        "blocks": [[row["candidate"], row["text"], row["block"], row["kl"]] for row in records(blocks) if row["kl"]],
        "texts": records(study.texts),
        "choices": choices(study.base_facts, results, blocks),
        "shapes": [layers.shape[1], *heads.shape[1:]],
        "provenance": _provenance(base),
        "details": _details(study, base),
        "running": study.running,
        "progress": progress,
        "live": live,
        "saved": "",
        "message": "",
    }


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table; None where there is no value."""
    return [{str(name): plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def plain(value: Any) -> Any:
    """A value as JSON knows it."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)


def _subtitle(base: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """``SmolLM2 135M · 5 candidates · 2048 tokens``."""
    tokens = max((row["n_tokens"] or 0 for row in rows), default=0)
    words = [str(base["name"]), f"{len(rows)} candidate{'' if len(rows) == 1 else 's'}"]
    return " · ".join([*words, *([f"{tokens} tokens"] if tokens else [])])


def _provenance(base: dict[str, Any]) -> str:
    """``measured in llama.cpp · base F32, made from Q4_1``."""
    most = next(iter(base["types"]), "")
    known = base["made_from"] not in (None, most)
    source = f", made from {base['made_from']}" if known else ""
    return f"measured in llama.cpp · base {most}{source}"


def _details(study: QuantizationStudy, base: dict[str, Any]) -> dict[str, str]:
    texts = records(study.texts)
    names = dict.fromkeys(row["text"] for row in texts)
    return {
        "base": f"{base['path']} ({base['bytes']} bytes, {base['got']})",
        "texts": ", ".join(names) or "none yet",
        **{name: str(value) for name, value in study.settings.items() if value is not None},
    }


def look(row: dict[str, Any]) -> dict[str, Any]:
    """Hue (bits) and texture of a candidate: of the type that was asked for, or that most of a file's tensors have."""
    name = row["name"].removeprefix("kv:") if row["kind"] in ("type", "kv") else str(row["got"])
    found = re.search(r"\b(IQ|TQ|MXFP|NVFP|BF|Q|F)(\d+)(_[01]|_K)?", name.upper())
    if found is None:
        return {"hue": None, "family": "unknown"}
    bits = int(found[2])
    rest = "legacy" if found[3] in ("_0", "_1") else "k" if found[3] else "plain"
    return {"hue": 2 if bits == 1 else bits, "family": "iq" if found[1] in ("IQ", "TQ") else rest}


def choices(base: Mapping[str, Any], results: pd.DataFrame, blocks: pd.DataFrame) -> list[dict[str, Any]]:
    """The recommendation for every budget: it changes only where another file fits.

    Returns
    -------
    list of dict
        ``least`` (bytes from which on it holds; None for no budget, which comes first) and the recommendation's words,
        in which ``{budget}`` stands for the budget.
    """
    measured = results[results["status"].isin(_MEASURED) & results["kl"].notna()]
    if not len(measured):
        return []
    sizes = measured[measured["kind"] != "kv"]["bytes"].dropna()
    leasts = [None, *sorted({0, *(int(size) for size in sizes)})]
    return [words(recommend(base, results, blocks, least), least) for least in leasts]


def words(own: Recommendation, least: int | None) -> dict[str, Any]:
    """A recommendation at a budget, as the browser is told of it."""
    body = own.body if least is None else own.body.replace(size(least), "{budget}", 1)
    names = ("name", "headline", "reasons", "sure", "limits", "tie", "commands", "markdown")
    return {"least": least, "body": body, **{name: getattr(own, name) for name in names}}


def drift(study: QuantizationStudy) -> tuple[Array, Array]:
    """float32 (candidates, layers) and (candidates, layers, heads), without layers where nothing was measured."""
    names = [str(name) for name in study.results["name"]]
    layers = study.layer_drift.reindex(names).to_numpy(np.float32)
    return np.ascontiguousarray(layers), np.ascontiguousarray(study.head_drift)


def strip(study: QuantizationStudy, name: str) -> dict[str, Any] | None:
    """The tokens that changed most, and the stretch of text around the one that changed most of all.

    None where nothing of the candidate was measured.

    Raises
    ------
    LlamaTelemetryError
        There is no such candidate.
    """
    if name not in set(study.results["name"]):
        raise LlamaTelemetryError(f"candidate {name!r} does not exist")
    table = study.tokens(name)
    if not len(table):
        return None
    table["at"] = table.groupby("text").cumcount()
    worst = table.nlargest(_WORST, "kl")
    middle = worst.iloc[0]
    own = table[table["text"] == middle["text"]]
    first = max(0, min(int(middle["at"]) - STRIP // 2, len(own) - STRIP))
    return {
        "candidate": name,
        "text": str(middle["text"]),
        "first": first,
        "count": len(own),
        "tokens": [_token(row) for row in own.iloc[first : first + STRIP].to_dict("records")],
        "worst": [[*_token(row), int(row["at"]), str(row["text"])] for row in worst.to_dict("records")],
    }


def _token(row: dict[Any, Any]) -> list[Any]:
    fields = ("block", "token", "base_probability", "probability", "kl", "same_top")
    return [plain(row[name]) for name in fields]
