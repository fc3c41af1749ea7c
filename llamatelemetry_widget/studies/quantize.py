"""New files out of a model: quantized by llama.cpp itself.

In: a model, a type. Out: a `Model` of the new file, in a place of the user's choice or in this package's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from ..engine.quantize import quant_type, quantize_file
from ..errors import ModelFileError
from ..model import Model, open_model
from ..models.find import cache_folder
from ..models.header import read_header

Source = Model | str | os.PathLike[str]


def quantize(
    model: Source,
    type: str,
    out: str | os.PathLike[str] | None = None,
    imatrix: str | os.PathLike[str] | None = None,
    tensor_types: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Model:
    """Quantize a model with llama.cpp's own quantizer.

    The file appears under its name when it is whole; an interrupt or a crash leaves nothing behind. A model that is
    quantized already is expanded first, which loses what it lost before: the new file notes that.

    Parameters
    ----------
    model : Model, str or path
    type : str
        Any of llama.cpp's, e.g. ``"Q4_K_M"``; ``"F32"`` expands. Tensors whose rows do not fit a type get another:
        ``model.info.quant_type_counts`` of the result says what it has.
    out : str or path, optional
        The file; by default one in this package's cache, which is made only once.
    imatrix : str or path, optional
        An importance matrix in llama.cpp's GGUF form. Some types need one.
    tensor_types : mapping of str to str, optional
        Regular expression for tensor names -> type, e.g. ``{r"blk\\.[01]\\.ffn_down": "Q8_0"}``; the first that
        matches counts.
    progress : callable, optional
        Hears (tensors done, tensors).
    threads : int, optional
        By default as many as this process may use.

    Returns
    -------
    Model
        The new file, opened.

    Raises
    ------
    LlamaTelemetryError
        No such type or tensor, too little room on the disk, or llama.cpp refuses; its reason is in the message.
    EngineCancelled, EngineCrashed, ModelNotFound, ModelFileError
    """
    kind, source = quant_type(type), as_model(model)
    header = read_header(source.info.path)
    if not header.complete:
        raise ModelFileError(f"{header.path.name} is a header alone, without any weights; fetch the whole file")
    importance = None if imatrix is None else Path(imatrix)
    place = _cached(source, kind, importance, tensor_types or {}) if out is None else Path(out).expanduser()
    if out is not None or not place.exists():
        if out is None:
            place.parent.mkdir(parents=True, exist_ok=True)
        quantize_file(
            header, kind, place, imatrix=importance, tensor_types=tensor_types, progress=progress, threads=threads
        )
    return open_model(place)


def as_model(source: Source) -> Model:
    """A model, opened where only its name was given."""
    return source if isinstance(source, Model) else open_model(source)


def _cached(model: Model, kind: str, imatrix: Path | None, tensor_types: Mapping[str, str]) -> Path:
    """Where the file lies in the cache: one name for one source, type, matrix, recipe and llama.cpp."""
    files = [*(model.info.shards or (model.info.path,)), *([] if imatrix is None else [imatrix])]
    stamps = [[os.fspath(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    what = json.dumps([stamps, kind, list(tensor_types.items()), version("llama-cpp-python")])
    key = hashlib.sha256(what.encode()).hexdigest()[:16]
    recipe = "-recipe" if tensor_types else ""
    return cache_folder() / "quantized" / f"{model.info.path.stem}-{kind}{recipe}-{key}.gguf"
