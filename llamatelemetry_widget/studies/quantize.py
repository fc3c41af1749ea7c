"""New files out of a model: quantized by llama.cpp itself, and the importance matrix that its quantizer heeds.

In: a model, a type, a text. Out: files in a place of the user's choice or in this package's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from ..engine.quantize import quant_type, quantize_file, written
from ..engine.wire import Message
from ..errors import LlamaTelemetryError, ModelFileError
from ..model import Model, open_model
from ..models.find import cache_folder
from ..models.header import read_header

_BLOCK = 512  # tokens of text at once, as llama.cpp's tool
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
        An importance matrix in llama.cpp's GGUF form, as `imatrix` writes. Some types need one.
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
        quantize_file(
            header, kind, place, imatrix=importance, tensor_types=tensor_types, progress=progress, threads=threads
        )
    return open_model(place)


def imatrix(
    model: Source,
    text: str,
    out: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Measure how much each weight column is used: an importance matrix, for quantizers to spend their bits by.

    Every matrix product of the layers is watched while the model reads the text in blocks of 512 tokens, each from an
    empty context; of what the weights are multiplied with, the squares are summed in float64 per column, per expert
    where there are experts. Neither the embedding nor the output is measured, as llama.cpp's own tool does not by
    default.

    Parameters
    ----------
    model : Model, str or path
        Best the unquantized one.
    text : str
        Like what the model will read; some ten thousand tokens. What is left after the last whole block is not read.
    out : str or path, optional
        The file; by default one in this package's cache, which is made only once.
    progress : callable, optional
        Hears (blocks done, blocks).

    Returns
    -------
    Path
        llama.cpp's imatrix GGUF, for `quantize` and llama-quantize.

    Raises
    ------
    LlamaTelemetryError
        The text has fewer than two tokens, or the file cannot be written.
    CaptureUnavailable
        The model has an encoder and a decoder.
    EngineCancelled, EngineCrashed, ModelNotFound, ModelFileError
    """
    source = as_model(model)
    try:
        ids = source.tokenize(text)
        bos = source.info.bos_id if source._engine.facts.get("adds_bos") else None
        size = min(_BLOCK, len(ids), source.info.context_length or _BLOCK)
        if size < 2:
            raise LlamaTelemetryError(f"{len(ids)} tokens of text measure nothing: give some thousands")
        blocks = [[ids[at] if bos is None else bos, *ids[at + 1 : at + size]] for at in range(0, len(ids), size)]
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        place = Path(out).expanduser() if out is not None else _cached(source, f"imatrix-{digest}", None, {})
        if out is None and place.exists():
            return place
        request = {"do": "inputs", "blocks": [own for own in blocks if len(own) == size], "text": f"text {digest}"}

        def hear(message: Message) -> None:
            if progress is not None and message["kind"] == "progress":
                progress(message["done"], message["total"])

        with written(place) as partial:
            source._request({**request, "out": partial}, hear)
        return place
    finally:
        if source is not model:
            source.close()


def as_model(source: Source) -> Model:
    """A model, opened where only its name was given."""
    return source if isinstance(source, Model) else open_model(source)


def _cached(model: Model, kind: str, imatrix: Path | None, tensor_types: Mapping[str, str]) -> Path:
    """Where the file lies in the cache: one name for one source, type, matrix, recipe and llama.cpp."""
    files = [*(model.info.shards or (model.info.path,)), *([] if imatrix is None else [imatrix])]
    stamps = [[os.fspath(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    what = json.dumps([stamps, kind, list(tensor_types.items()), version("llama-cpp-python")])
    key = hashlib.sha256(what.encode()).hexdigest()[:16]
    recipe, folder = "-recipe" if tensor_types else "", cache_folder() / "quantized"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{model.info.path.stem}-{kind}{recipe}-{key}.gguf"
