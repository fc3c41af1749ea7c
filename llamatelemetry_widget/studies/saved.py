"""A study as one file: what was measured, without the models.

In: a `QuantizationStudy`. Out: an .npz (JSON and arrays, nothing pickled), and the study again.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis.quality import Scores, joined
from ..errors import ModelFileError
from .layers import LayerDrift
from .quantization import Candidate, QuantizationStudy
from .windows import Block

FORMAT = "llamatelemetry-study-1"
_NAMES = ("kl", "base_log_p", "log_p", "same_top")


def save_study(study: QuantizationStudy, path: str | os.PathLike[str]) -> Path:
    """Write a study; the file appears under its name when it is whole."""
    out = Path(path).expanduser()
    told: dict[str, Any] = {
        "format": FORMAT,
        "settings": study.settings,
        "also": study._also,
        "texts": study.given_texts,
        "base": study._base_facts,
        "base_cost": study._base_cost,
        "build": study._build,
        "folder": os.fspath(study._folder),
        "tokens": study._tokens,
        "shown": list(study._shown.items()),
        "blocks": [asdict(block) for block in study._blocks],
        "rows": [],
    }
    arrays: dict[str, Any] = {}
    for i, row in enumerate(study._rows):
        with study._lock:
            known = sorted(row.scores.items())
        whole = joined([scores for _, scores in known]) if known else None
        arrays |= {f"{i}.{name}": getattr(whole, name) for name in _NAMES} if whole is not None else {}
        if row.drift is not None:
            arrays |= {f"{i}.stream": row.drift.stream, f"{i}.heads": row.drift.heads}
        told["rows"].append(
            {
                **{name: getattr(row, name) for name in ("name", "kind", "kv_type", "make", "error", "cost", "facts")},
                "status": "cancelled" if row.status == "running" else row.status,
                "blocks": [at for at, _ in known],
                "layers": None if row.drift is None else row.drift.layers,
            }
        )
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name[:100]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, told=np.array(json.dumps(told, ensure_ascii=False)), **arrays)
        os.replace(name, out)
    finally:
        Path(name).unlink(missing_ok=True)
    return out


def load_study(path: str | os.PathLike[str]) -> QuantizationStudy:
    """A study that `QuantizationStudy.save` wrote. No model is needed to look at it.

    Where base and candidates still lie at their paths it can go on: `QuantizationStudy.run`.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    QuantizationStudy

    Raises
    ------
    ModelFileError
        The file is not there, or no study.
    """
    source = Path(path).expanduser()
    try:
        with np.load(source) as found:
            told = json.loads(str(found["told"]))
            if told["format"] != FORMAT:
                raise ModelFileError(
                    f"{source.name} is a study of another version ({told['format']}): measure it again"
                )
            return _restored(told, {name: found[name] for name in found.files if name != "told"})
    except FileNotFoundError:
        raise ModelFileError(f"{source} does not exist") from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, zipfile.BadZipFile):
        raise ModelFileError(f"{source.name} is no saved study: save one with study.save(path)") from None


def _restored(told: dict[str, Any], arrays: dict[str, Any]) -> QuantizationStudy:
    study = QuantizationStudy.__new__(QuantizationStudy)
    study._wait_for_work()
    study.settings, study._also, study.given_texts = told["settings"], told["also"], told["texts"]
    study._base, study._executor, study._folder = None, None, Path(told["folder"])
    study._base_facts, study._base_cost, study._build = told["base"], told["base_cost"], told["build"]
    study._tokens = told["tokens"]
    study._shown = {int(i): str(shown) for i, shown in told["shown"]}
    lists = ("ids", "targets")
    study._blocks = [Block(**{**b, **{name: tuple(b[name]) for name in lists}}) for b in told["blocks"]]
    study._rows = [_row(i, row, arrays, study._blocks) for i, row in enumerate(told["rows"])]
    return study


def _row(i: int, told: dict[str, Any], arrays: dict[str, Any], blocks: list[Block]) -> Candidate:
    known, layers = told.pop("blocks"), told.pop("layers")
    row = Candidate(**told)
    at = 0
    for block in known:
        own = slice(at, at + len(blocks[block].targets))
        row.scores[block] = Scores(*(arrays[f"{i}.{name}"][own] for name in _NAMES))
        at = own.stop
    if layers is not None:
        row.drift = LayerDrift(layers, arrays[f"{i}.stream"], arrays[f"{i}.heads"])
    return row
