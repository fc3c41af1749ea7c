"""Which part of a model pays for being quantized: one part at a time on an otherwise unquantized base, measured.

In: a base, a type, texts. Out: a table of KL caused and bytes saved per layer or kind of tensor; a mixed recipe for a
byte budget, whose KL is an estimate until a study measures it.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import psutil

from ..analysis.quality import Scores, half_width, joined, summary
from ..engine.quantize import planned, quant_type, quantize_file, type_bytes
from ..errors import EngineCancelled, LlamaTelemetryError
from ..model import Model
from ..models.find import cache_folder
from ..models.header import read_header
from .scoring import Source, Task, Workers, score
from .store import Store
from .windows import Block, Windows, cut

if TYPE_CHECKING:
    import pandas as pd

By = Literal["layer", "group"]
COLUMNS = (
    *("part", "tensors", "bytes_before", "bytes_after", "saved_bytes", "n_tokens", "kl", "kl_error", "kl_ci"),
    *("same_top", "kl_per_saved_mb", "error"),
)
_PLAIN = ("F32", "F16", "BF16")
_LAYER, _STEM = re.compile(r"^blk\.(\d+)\."), re.compile(r"^(?:blk\.\d+\.)?(.+?)(?:\.weight)?$")
_TOGETHER = 4  # parts that are compared with one run of the base, where memory holds them
_BUCKETS = 20_000  # what a budget is cut into
_HEADROOM = 4096  # bytes that metadata and padding may take


@dataclass(frozen=True)
class Recipe:
    """A type for each tensor, chosen for a byte budget.

    Attributes
    ----------
    type : str
        What `quantize` is told; all tensors that matter are named in ``tensor_types``.
    tensor_types : dict of str to str
        Regular expression to type, as `quantize` and llama-quantize take them.
    choices : dict of str to str
        Part to the type that was chosen for it; the base's own where it stays as it is.
    predicted_kl : float
        Nats. An estimate: the sum of what each part caused alone. A study measures what it really is.
    predicted_bytes : int
        Of the file.
    """

    type: str
    tensor_types: dict[str, str]
    choices: dict[str, str]
    predicted_kl: float
    predicted_bytes: int

    @property
    def candidate(self) -> dict[str, Any]:
        """What a `QuantizationStudy` takes as a candidate, to measure it."""
        name = f"recipe {self.predicted_bytes / 1e6:.0f} MB"
        return {"name": name, "type": self.type, "tensor_types": dict(self.tensor_types)}


class Causes:
    """Measures parts of one base on some texts.

    Parameters
    ----------
    base : Model
        Unquantized.
    texts : mapping of str to str
    windows, n_ctx, n_blocks
        As of `QuantizationStudy`.
    folder : Path
        Where scores are kept, so that what was measured is not measured again.

    Raises
    ------
    LlamaTelemetryError
        The base is quantized itself.
    """

    def __init__(
        self,
        base: Model,
        texts: Mapping[str, str],
        windows: Windows,
        n_ctx: int,
        n_blocks: int | None,
        folder: Path,
    ) -> None:
        self._base, self._header, self._folder = base, read_header(base.info.path), folder
        self._texts, self._cut = texts, (windows, n_ctx, n_blocks)
        self._n_ctx = n_ctx
        self._source = Source(os.fspath(base.info.path.resolve()), base._placed)
        self._own = {t.name: t for t in self._header.tensors}
        quantized = sorted({t.type_name for t in self._header.tensors} - set(_PLAIN))
        if quantized:
            raise LlamaTelemetryError(
                f"{base.info.path.name} is quantized itself ({', '.join(quantized)}), so that nothing can be quantized "
                f"alone: expand it with lt.quantize(model, 'F32') and study that"
            )

    def parts(self, kind: str, by: By) -> dict[str, dict[str, str]]:
        """Part to its tensors and what each of them becomes in a type."""
        if by not in ("layer", "group"):
            raise LlamaTelemetryError(f"by={by!r} is no way to take a model apart: choose 'layer' or 'group'")
        found: dict[str, dict[str, str]] = {}
        plan = planned(self._header, kind)
        for name in self._own:  # in the order of the file
            if plan[name] != self._own[name].type_name:
                found.setdefault(_part(name, by), {})[name] = plan[name]
        return dict(sorted(found.items(), key=lambda pair: _order(pair[0])))

    def measure(self, kind: str, by: By, progress: Callable[[int, int], None] | None = None) -> pd.DataFrame:
        """One row per part: what quantizing it alone causes and saves (`QuantizationStudy.causes`)."""
        import pandas as pd

        kind = quant_type(kind)
        parts = self.parts(kind, by)
        together = psutil.virtual_memory().available // max(self._header.n_bytes, 1) - 1
        size, names = max(1, min(_TOGETHER, together)), list(parts)
        scores: dict[str, list[Scores]] = {}
        failed: dict[str, str] = {}
        for at in range(0, len(names), size):
            own = {name: parts[name] for name in names[at : at + size]}
            done = 0
            for done, total, name, found in self._scored(kind, parts, own):
                if isinstance(found, str):
                    failed[name] = found
                else:
                    scores.setdefault(name, []).append(found)
                if progress is not None:
                    progress(at * total // len(own) + done, len(names) * total // len(own))
        rows = [
            {"part": name, **self._saved(own), **_figures(scores.get(name, [])), "error": failed.get(name, "")}
            for name, own in parts.items()
        ]
        frame: pd.DataFrame = pd.DataFrame(rows, columns=list(COLUMNS))
        frame["kl_per_saved_mb"] = frame.kl / (frame.saved_bytes / 1e6)
        return frame

    def recipe(
        self, max_bytes: int, kinds: Sequence[str], by: By, progress: Callable[[int, int], None] | None = None
    ) -> Recipe:
        """The types of all parts that together cause least within a budget (`QuantizationStudy.recipe`)."""
        kinds = [quant_type(kind) for kind in kinds]
        plans = {kind: self.parts(kind, by) for kind in kinds}

        def told(nth: int) -> Callable[[int, int], None] | None:
            return None if progress is None else lambda done, total: progress(nth * total + done, len(kinds) * total)

        tables = {kind: self.measure(kind, by, told(at)).set_index("part") for at, kind in enumerate(kinds)}
        names = sorted({name for parts in plans.values() for name in parts}, key=_order)
        options: list[list[tuple[int, float, str]]] = []
        for name in names:
            tensors = {t for parts in plans.values() for t in parts.get(name, {})}
            stays = sum(self._own[t].n_bytes or 0 for t in tensors)
            mine = [(stays, 0.0, "")]
            for kind in kinds:
                if name in plans[kind] and np.isfinite(tables[kind].kl[name]):
                    mine.append((stays - int(tables[kind].saved_bytes[name]), float(tables[kind].kl[name]), kind))
            options.append(mine)
        fixed = self._header.n_bytes - sum(own[0][0] for own in options) + _HEADROOM
        chosen = choose([[(size, kl) for size, kl, _ in own] for own in options], max_bytes - fixed)
        if chosen is None:
            least = fixed + sum(min(own)[0] for own in options)
            raise LlamaTelemetryError(
                f"{max_bytes / 1e6:.1f} MB are too few: these types make at least {least / 1e6:.1f} MB; "
                f"allow more bytes or give a smaller type"
            )
        taken = [own[at] for own, at in zip(options, chosen, strict=True)]
        tensors_of: dict[str, str] = {
            t: self._own[t].type_name for p in plans.values() for own in p.values() for t in own
        }
        for name, (_, _, kind) in zip(names, taken, strict=True):
            tensors_of.update(plans[kind][name] if kind else {})
        own_type = next(t.type_name for t in self._header.tensors if len(t.shape) > 1)
        return Recipe(
            kinds[0],
            patterns(tensors_of),
            {name: kind or own_type for name, (_, _, kind) in zip(names, taken, strict=True)},
            sum(kl for _, kl, _ in taken),
            fixed - _HEADROOM + sum(size for size, _, _ in taken),
        )

    # ------------------------------------------------------------------ inside

    def _scored(
        self, kind: str, parts: Mapping[str, Mapping[str, str]], own: Mapping[str, Mapping[str, str]]
    ) -> Iterator[tuple[int, int, str, Scores | str]]:
        """Scores of some parts, block by block: ``(done, total, part, scores or why there are none)``."""
        workers = Workers()
        whole = {name: self._own[name].type_name for tensors in parts.values() for name in tensors}
        try:
            with tempfile.TemporaryDirectory(dir=_made(cache_folder()), prefix="part-") as folder:
                blocks = self._blocks(workers)
                stores = {name: self._store(workers, tensors) for name, tensors in own.items()}
                known = {name: [store.load(block) for block in blocks] for name, store in stores.items()}
                files: dict[str, Source | str] = {}
                for at, name in enumerate(own):
                    if any(scores is None for scores in known[name]):
                        path = Path(folder) / f"{at}.gguf"
                        files[name] = self._quantized(kind, path, whole | dict(own[name]))
                total = len(blocks) * len(own)
                for nth, block in enumerate(blocks):
                    found: dict[str, Scores | str] = {name: k for name in own if (k := known[name][nth]) is not None}
                    asked = {n: s for n, s in files.items() if n not in found and isinstance(s, Source)}
                    found |= {n: s for n, s in files.items() if n not in found and isinstance(s, str)}
                    if asked:
                        vocabulary = self._base.info.vocab_size or 0
                        measured = score(Task(self._source, asked, block, self._n_ctx, vocabulary), workers)
                        for name, scores in measured.items():
                            if isinstance(scores, Scores):
                                stores[name].save(block, scores)
                        found |= measured
                    for at, name in enumerate(own, 1):
                        yield nth * len(own) + at, total, name, found[name]
        finally:
            workers.close()

    def _quantized(self, kind: str, path: Path, types: Mapping[str, str]) -> Source | str:
        try:
            quantize_file(self._header, kind, path, tensor_types={_exactly(t): own for t, own in types.items()})
        except EngineCancelled:
            raise
        except LlamaTelemetryError as error:
            return str(error)
        return Source(os.fspath(path), self._base._placed)

    def _blocks(self, workers: Workers) -> list[Block]:
        return cut(workers.model("", self._source), self._texts, *self._cut)[1]

    def _store(self, workers: Workers, tensors: Mapping[str, str]) -> Store:
        facts = workers.model("", self._source)._engine.facts
        build = [facts[name] for name in ("llama_cpp_python", "system", "device")]
        files = self._base.info.shards or (self._base.info.path,)
        return Store(
            self._folder, [files], ["one part", sorted(tensors.items()), self._n_ctx, build, self._source.placed]
        )

    def _saved(self, tensors: Mapping[str, str]) -> dict[str, Any]:
        before = sum(self._own[name].n_bytes or 0 for name in tensors)
        after = sum(type_bytes(kind, self._own[name].n_weights) for name, kind in tensors.items())
        return {"tensors": len(tensors), "bytes_before": before, "bytes_after": after, "saved_bytes": before - after}


def choose(options: Sequence[Sequence[tuple[int, float]]], budget: int) -> list[int] | None:
    """One option of each list, so that the costs' sum is least and the sizes' sum within a budget.

    By dynamic programming over the budget in 20000 steps: sizes are rounded up to these, so that the budget holds.

    Parameters
    ----------
    options : sequence of sequence of (int, float)
        Sizes and costs.
    budget : int

    Returns
    -------
    list of int or None
        Which option of each list; None where nothing fits.
    """
    least = [min(size for size, _ in own) for own in options]
    room = budget - sum(least)
    if room < 0:
        return None
    step = max(1, room // _BUCKETS)
    best = np.zeros(room // step + 1)
    taken = np.zeros((len(options), len(best)), np.int64)
    steps = [[-(-(size - low) // step) for size, _ in own] for own, low in zip(options, least, strict=True)]
    for at, own in enumerate(options):
        costs = np.full((len(own), len(best)), np.inf)
        for i, (_, cost) in enumerate(own):
            if (need := steps[at][i]) < len(best):
                costs[i, need:] = best[: len(best) - need] + cost
        taken[at] = costs.argmin(0)
        best = costs.min(0)
    left, chosen = len(best) - 1, []
    for at in reversed(range(len(options))):
        chosen.append(int(taken[at, left]))
        left -= steps[at][chosen[-1]]
    return chosen[::-1]


def patterns(types: Mapping[str, str]) -> dict[str, str]:
    """Few regular expressions that give every tensor its type.

    Parameters
    ----------
    types : mapping of str to str
        Tensor to type; one of the layers that is not named here takes the type of its kind, where that has one alone.
    """
    layers: dict[tuple[str, str], list[str]] = {}
    made: dict[str, str] = {}
    for name, kind in types.items():
        if found := _LAYER.match(name):
            layers.setdefault((name[found.end() :], kind), []).append(found[1])
        else:
            made[_exactly(name)] = kind
    several = {rest for rest, _ in layers if len({kind for own, kind in layers if own == rest}) > 1}
    for (rest, kind), own in layers.items():
        numbers = f"({'|'.join(own)})" if rest in several else "[0-9]+"
        made[rf"^blk\.{numbers}\.{re.escape(rest)}$"] = kind
    return made


def _exactly(name: str) -> str:
    return f"^{re.escape(name)}$"


def _part(name: str, by: By) -> str:
    found = _LAYER.match(name)
    if found and by == "layer":
        return f"layer {found[1]}"
    stem = _STEM.match(name)
    return stem[1] if stem else name


def _order(part: str) -> tuple[int, int, str]:
    """Layers by number, then everything else by name."""
    number = part.removeprefix("layer ")
    return (0, int(number), "") if number.isdigit() else (1, 0, part)


def _figures(scores: list[Scores]) -> dict[str, Any]:
    if not scores:
        return {"n_tokens": 0}
    means, counts = np.array([s.kl.mean() for s in scores]), np.array([len(s) for s in scores])
    every = {**summary(joined(scores)), "kl_ci": half_width(means, counts)}
    return {name: every[name] for name in ("n_tokens", "kl", "kl_error", "kl_ci", "same_top")}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
