"""An embedding as a space: vectors of a model, projected, grouped, compared; kept on disk by what they were made of.

In: a model and which vectors. Out: `EmbeddingSpace`: PCA at once, UMAP in a process of its own, clusters with names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..analysis.clusters import Clusters, clusters_of
from ..analysis.drift import Drift, drift
from ..analysis.projection import Projected, measured, pca
from ..errors import EngineCancelled, EngineCrashed, LlamaTelemetryError
from ..model import Model
from ..models.find import cache_folder
from ..trace import Trace, display_token

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None]
_BOOT = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from llamatelemetry_widget.studies.umap_process import main; main(sys.argv[1])"
)
_EPOCH = re.compile(rb"completed\s+(\d+)\s*/\s*(\d+)\s+epochs")
_FORMAT = 3  # of what is kept on disk
_turn = threading.Lock()  # one projection at a time: numba's thread pools are not safe together


@dataclass(frozen=True, eq=False)
class Picture:
    """A projection and the groups that were found in it.

    Attributes
    ----------
    projected : Projected
    clusters : Clusters
    moved : float32 (n, 3) or None
        Where the compared vectors stand in the same picture; NaN in rows that are not placed.
    """

    projected: Projected
    clusters: Clusters
    moved: Floats | None = None


class EmbeddingSpace:
    """Vectors of a model as a space.

    Parameters
    ----------
    model : Model
    what : sequence of int or of str, optional
        Token ids or texts; the whole vocabulary by default.
    matrix : {"input", "output"}
    layer : int, optional
        Of texts, as in `Model.embeddings`.

    Attributes
    ----------
    ids : int32 (n,)
        Token ids; -1 where a row is a text.
    tokens : list of str
        As they are shown.
    kinds : list of str
        As in `Trace.token_kinds`; ``"text"`` where a row is a text.
    """

    def __init__(
        self,
        model: Model,
        what: Sequence[int] | Sequence[str] | None = None,
        matrix: Literal["input", "output"] = "input",
        layer: int | None = None,
    ) -> None:
        if not isinstance(model, Model):
            raise LlamaTelemetryError(
                f"an embedding space is made of a Model (open_model(…)), not {type(model).__name__}"
            )
        self.model, self.matrix, self.layer = model, matrix, layer
        self._what = what
        self.steps: NDArray[np.int32] | None = None
        self._texts = what is not None and len(what) > 0 and isinstance(what[0], str)
        if self._texts:
            self.ids = np.full(len(what or ()), -1, np.int32)
            self.tokens, self.kinds = [str(text) for text in what or ()], ["text"] * len(what or ())
            return
        pieces, kinds = model.token_list
        ids = range(len(pieces)) if what is None else [int(i) for i in what]
        self.ids = np.asarray(ids, np.int32)
        self.tokens, self.kinds = [display_token(pieces[i]) for i in ids], [kinds[i] for i in ids]

    @classmethod
    def of_trace(cls, model: Model, trace: Trace, layers: Sequence[int] | None = None) -> EmbeddingSpace:
        """The residual stream of a prompt: every token after every layer (or some), layer after layer.

        Parameters
        ----------
        model : Model
        trace : Trace
            Layers that it has for some tokens only (the last, with ``logits="last"``) are left out.
        layers : sequence of int, optional

        Returns
        -------
        EmbeddingSpace
            With `steps`, int32 (n, 2): layer and token of each row.
        """
        made = cls(model, [])
        n, rows, steps = len(trace.token_ids), [], []
        for layer in [own.layer for own in trace.layers] if layers is None else layers:
            stream = trace.hidden(layer)
            if len(stream) == n:
                rows.append(stream)
                steps += [(layer, token) for token in range(n)]
        if not rows:
            raise LlamaTelemetryError("no layer of this trace has the residual stream of all tokens")
        count = len(rows)
        made.ids = np.tile(trace.token_ids, count)
        made.tokens, made.kinds = trace.tokens * count, trace.token_kinds * count
        made.steps = np.asarray(steps, np.int32)
        made.vectors = np.concatenate(rows)
        return made

    @cached_property
    def vectors(self) -> Floats:
        """float32 (n, width)."""
        found = self.model.embeddings(self._what, matrix=self.matrix, layer=self.layer)
        if len(found) < len(self.ids):
            raise LlamaTelemetryError(f"the matrix has {len(found)} rows, the vocabulary {len(self.ids)} tokens")
        return found[: len(self.ids)]

    def pca(self) -> Projected:
        """The first three principal components, with the quality of the picture."""
        return measured(self.vectors, pca(self.vectors))

    def umap(
        self,
        *,
        n_neighbors: int = 15,
        min_dist: float = 0.1,
        seed: int = 0,
        compared: Floats | None = None,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Picture:
        """UMAP by cosine and its groups, from the cache where the same was made before.

        Parameters
        ----------
        n_neighbors, min_dist, seed
            UMAP's own.
        compared : float (n, width), optional
            Other vectors of the same rows, in the same basis (`analysis.drift.onto`): one UMAP then places both, so
            that one sees what moved. Groups and quality are those of this space's own rows.
        progress : callable, optional
            Hears (done, total) of the optimisation.
        cancelled : callable
            Polled ten times a second; True stops.

        Raises
        ------
        EngineCancelled, EngineCrashed, BackendMissing
        """
        settings: dict[str, Any] = {"n_neighbors": n_neighbors, "min_dist": min_dist, "seed": seed}
        x, n = self.vectors, len(self.vectors)
        if compared is not None:
            x = np.concatenate([x, compared])
            settings["own"] = n
        path = cache_folder() / "projections" / f"{_key(x, settings)}.npz"
        kept = _load(path)
        if kept is None:
            with _turn:
                kept = _load(path) or _run(x, settings, progress, cancelled)
            _store(path, *kept)
        both, labels = kept
        projected = replace(both, positions=both.positions[:n])
        moved = None if compared is None else both.positions[n:]
        return Picture(projected, clusters_of(labels, projected.positions, self.vectors, self.tokens), moved)

    def drift(self, other: EmbeddingSpace, k: int = 10) -> Drift:
        """What moved between this embedding and another of the same tokens.

        Raises
        ------
        LlamaTelemetryError
            The tokens are others.
        """
        if self.tokens != other.tokens:
            different = sum(a != b for a, b in zip(self.tokens, other.tokens, strict=False))
            raise LlamaTelemetryError(
                f"the two models have other tokens ({len(self.tokens)} and {len(other.tokens)}, {different} differ): "
                f"only models with one vocabulary can be compared"
            )
        return drift(self.vectors, other.vectors, k=k)

    def to_pandas(self, picture: Picture | None = None) -> pd.DataFrame:
        """One row per vector.

        Returns
        -------
        DataFrame
            ``id``, ``token``, ``kind``, ``norm``; with a picture also ``x``, ``y``, ``z``, ``cluster``.
        """
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame(
            {
                "id": self.ids,
                "token": self.tokens,
                "kind": self.kinds,
                "norm": np.linalg.norm(self.vectors, axis=1),
            }
        )
        if picture is not None:
            for i, axis in enumerate("xyz"):
                frame[axis] = picture.projected.positions[:, i]
            names = np.array([*picture.clusters.names, ""], object)
            frame["cluster"] = names[picture.clusters.labels]
        return frame


def _run(
    x: Floats, settings: dict[str, Any], progress: Progress | None, cancelled: Callable[[], bool]
) -> tuple[Projected, NDArray[np.int32]]:
    """UMAP and HDBSCAN in a process of its own: it can be stopped, and may die without the notebook."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with tempfile.TemporaryDirectory(prefix="llamatelemetry-") as folder:
        np.save(Path(folder) / "vectors.npy", x)
        (Path(folder) / "settings.json").write_text(json.dumps(settings))
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-u", "-c", _BOOT, folder, home, *(entry for entry in sys.path if entry)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            _watch(process, log, progress, cancelled)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode:
            lines = log.read_text("utf-8", "replace").strip().splitlines()
            raise EngineCrashed(f"the projection failed: {lines[-1] if lines else process.returncode}", lines[-50:])
        with np.load(Path(folder) / "result.npz") as found:
            told = json.loads(str(found["told"]))
            return Projected(positions=found["positions"], **told), found["labels"]


def _watch(
    process: subprocess.Popen[bytes], log: Path, progress: Progress | None, cancelled: Callable[[], bool]
) -> None:
    while True:
        try:
            process.wait(0.1)
            return
        except subprocess.TimeoutExpired:
            if cancelled():
                raise EngineCancelled("the projection was stopped") from None
            epochs = _EPOCH.findall(log.read_bytes())
            if progress is not None and epochs:
                progress(int(epochs[-1][0]), int(epochs[-1][1]))


def _key(x: Floats, settings: dict[str, Any]) -> str:
    """A name for what goes in: vectors, settings, versions."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("umap-learn", "pynndescent", "numpy", "fast-hdbscan", "cuml-cu12", "cuml-cu13"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "none"
    digest = hashlib.sha256(json.dumps([_FORMAT, settings, versions, x.shape], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(x).view(np.uint8).data)
    return digest.hexdigest()[:40]


def _load(path: Path) -> tuple[Projected, NDArray[np.int32]] | None:
    try:
        with np.load(path) as found:
            return Projected(positions=found["positions"], **json.loads(str(found["told"]))), found["labels"]
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not what this version writes
        return None


def _store(path: Path, projected: Projected, labels: NDArray[np.int32]) -> None:
    """Keep a projection; a disk that is full or closed costs the cache, not the picture."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".npz")
        os.close(handle)
        try:
            save_result(Path(name), projected, labels)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError:
        return


def save_result(path: Path, projected: Projected, labels: NDArray[np.int32]) -> None:
    """Write a projection and its groups."""
    told = {
        "method": projected.method,
        "parameters": projected.parameters,
        "seconds": projected.seconds,
        "note": projected.note,
        "trustworthiness": projected.trustworthiness,
        "neighbours_kept": projected.neighbours_kept,
        "quality_rows": projected.quality_rows,
    }
    np.savez(path, positions=projected.positions, labels=labels, told=json.dumps(told))
