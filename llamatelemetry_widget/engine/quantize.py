"""Quantizing a file with llama.cpp: atomically, with progress, and so that it can be stopped at any moment.

In: a GGUF's header, a type by name, overrides per tensor. Out: a whole file in its place, or none; or (planned) what
every tensor would become.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .. import errors
from ..errors import EngineCancelled, EngineCrashed, LlamaTelemetryError
from ..models.ggml_types import FILE_TYPES, TENSOR_TYPES, ggml_type
from ..models.header import Header
from .client import STOPPED, cause_of_end
from .cpu import usable_threads

Progress = Callable[[int, int], None]
MADE_FROM = "llamatelemetry.made_from"  # quant types that the weights of a file passed through before its own
_UNREDUCED = ("F32", "F16", "BF16")
_REFUSED = ("Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "NVFP4")  # llama.cpp has no files that are mostly these
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from llamatelemetry_widget.engine.worker.quantize import main; main()"
_STEP = re.compile(rb"^\[ *(\d+)/ *(\d+)\]", re.MULTILINE)
#: Every type that llama.cpp quantizes to, as `general.file_type` calls it.
QUANT_TYPES = {name: code for code, name in FILE_TYPES.items() if name not in _REFUSED}


def quant_type(name: str) -> str:
    """The type as llama.cpp spells it; case does not matter.

    Raises
    ------
    LlamaTelemetryError
        llama.cpp quantizes to no such type.
    """
    if name.upper() not in QUANT_TYPES:
        raise LlamaTelemetryError(f"llama.cpp has no quant type {name!r}: choose from {', '.join(QUANT_TYPES)}")
    return name.upper()


def made_from(header: Header) -> str:
    """Quant types that the weights of a file went through, its own last; empty where none is known.

    An F32 that was expanded from a Q4_1 says so where this package expanded it; other files say only what they are.
    """
    known = str(header.metadata.get(MADE_FROM, ""))
    code = header.metadata.get("general.file_type")
    own = FILE_TYPES.get(code, "") if isinstance(code, int) else ""
    return known if own in _UNREDUCED or not own else " > ".join(filter(None, [known, own]))


def quantize_file(
    header: Header,
    kind: str,
    out: Path,
    *,
    imatrix: Path | None = None,
    tensor_types: Mapping[str, str] | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
) -> None:
    """Write a quantized file; it appears under its name when it is whole.

    Parameters
    ----------
    header : Header
        Of the file to quantize.
    kind : str
        Of `QUANT_TYPES`.
    out : Path
    imatrix : Path, optional
        llama.cpp's imatrix GGUF.
    tensor_types : mapping of str to str, optional
        Regular expression for tensor names to the type of those tensors; the first that matches counts.
    progress : callable, optional
        Hears (tensors done, tensors).
    threads : int, optional
        By default as many as this process may use.

    Raises
    ------
    LlamaTelemetryError
        The disk is too small, or llama.cpp refuses, with its reason.
    EngineCancelled, EngineCrashed
    """
    request = _request(header, kind, imatrix, tensor_types, threads)
    if any(out.exists() and os.path.samefile(out, shard) for shard in header.shards or (header.path,)):
        raise LlamaTelemetryError(f"{out} is the model itself: give another name with out=…")
    with written(out) as partial:
        _converse({**request, "out": partial, "dry": False}, header.path, progress)


@contextmanager
def written(out: Path) -> Iterator[str]:
    """A name to write to; what lies there appears as `out` when the block ends well, and is gone otherwise.

    Raises
    ------
    LlamaTelemetryError
        Nothing can be written there.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise LlamaTelemetryError(f"{out} names no file in a folder that exists: give another place with out=…")
    try:
        handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name[:100]}.", suffix=".part")
    except OSError as error:
        raise LlamaTelemetryError(
            f"{out.parent} cannot be written ({error.strerror}): give another place with out=…"
        ) from error
    os.close(handle)
    try:
        yield name
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, out)
    finally:
        with suppress(OSError):
            os.unlink(name)


def planned(
    header: Header,
    kind: str,
    *,
    imatrix: Path | None = None,
    tensor_types: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """What type every tensor would become, by llama.cpp's own dry run, which writes nothing.

    Returns
    -------
    dict of str to str
        Tensor to type, in the order in which llama.cpp writes them.
    """
    request = _request(header, kind, imatrix, tensor_types, None)
    answer = _converse({**request, "out": os.devnull, "dry": True}, header.path, None)
    return dict(answer["plan"])


def type_bytes(kind: str, n_weights: int) -> int:
    """Bytes that so many weights take in a type."""
    stored = ggml_type(TENSOR_TYPES[kind])
    return n_weights * (stored.size or 0) // (stored.block or 1)


def _request(
    header: Header,
    kind: str,
    imatrix: Path | None,
    tensor_types: Mapping[str, str] | None,
    threads: int | None,
) -> dict[str, Any]:
    sizes = {name: (ggml_type(code).block, ggml_type(code).size) for name, code in TENSOR_TYPES.items()}
    history = made_from(header)
    if threads is not None and threads < 1:
        raise LlamaTelemetryError(f"threads is {threads}: give 1 or more")
    if imatrix is not None and not imatrix.is_file():
        raise LlamaTelemetryError(f"there is no importance matrix {imatrix}: make one with lt.imatrix(model, text)")
    if tensor_types and quant_type(kind) in _UNREDUCED:
        raise LlamaTelemetryError(
            f"llama.cpp heeds no tensor_types with {quant_type(kind)}: name a quant type, and last '.*': '{kind}'"
        )
    return {
        "path": os.fspath(header.path),
        "ftype": QUANT_TYPES[quant_type(kind)],
        "imatrix": None if imatrix is None else os.fspath(imatrix),
        "tensor_types": _overrides(header, tensor_types or {}),
        "threads": threads or usable_threads(),
        "metadata": {MADE_FROM: history} if history else {},
        "weights": {t.name: t.n_weights for t in header.tensors},
        "type_sizes": sizes,
        "header_bytes": max(header.n_bytes - sum(t.n_bytes or 0 for t in header.tensors), 0),
    }


def _overrides(header: Header, tensor_types: Mapping[str, str]) -> list[tuple[str, int]]:
    """Patterns and type codes, checked: a pattern that fits no tensor would do nothing and nobody would know."""
    made = []
    for pattern, kind in tensor_types.items():
        if kind.upper() not in TENSOR_TYPES:
            raise LlamaTelemetryError(f"there is no tensor type {kind!r}: choose from {', '.join(TENSOR_TYPES)}")
        try:
            fits = any(re.search(pattern, t.name) for t in header.tensors)
        except re.error as error:
            raise LlamaTelemetryError(f"tensor_types: {pattern!r} is no regular expression ({error})") from None
        if not fits:
            raise LlamaTelemetryError(f"tensor_types: no tensor of {header.path.name} fits {pattern!r}")
        made.append((pattern, TENSOR_TYPES[kind.upper()]))
    return made


def _converse(request: dict[str, Any], path: Path, progress: Progress | None) -> dict[str, Any]:
    """Run the process and watch it; it does not outlive this call."""
    if STOPPED.get()():
        raise EngineCancelled("stopped before it began")
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile() as answer:
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, home, *(entry for entry in sys.path if entry)],
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=log,
            start_new_session=True,  # an interrupt is for the caller, which ends the process
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()  # left open: its end tells the process that nobody waits any more
            _watch(process, log, progress)
        except KeyboardInterrupt:
            raise EngineCancelled("the quantizing was interrupted; nothing was written") from None
        finally:
            process.kill()
            process.wait()
            with suppress(OSError):
                process.stdin.close()
        lines = _end_of(log).decode("utf-8", "replace").splitlines()
        said = _end_of(answer)
    if process.returncode != 0 or not said:
        said_last = next((line.strip() for line in reversed(lines) if "ASSERT" in line), "")
        why = " ".join(filter(None, [cause_of_end(process.returncode), said_last[:200]]))
        raise EngineCrashed(f"llama.cpp died while quantizing {path.name}: {why}; nothing was written", lines[-50:])
    found: dict[str, Any] = json.loads(said)
    if "type" in found:
        raise getattr(errors, found["type"])(found["error"])
    if found["error"]:
        raise LlamaTelemetryError(f"{path.name} cannot be quantized: {found['error']}{_hint(found['error'])}")
    return found


def _watch(process: subprocess.Popen[bytes], log: IO[bytes], progress: Progress | None) -> None:
    told = 0
    while True:
        try:
            process.wait(0.05)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        if STOPPED.get()() and not ended:
            raise EngineCancelled("the quantizing was stopped; nothing was written")
        steps = _STEP.findall(_end_of(log, 4096)) if progress is not None else []
        if progress is not None and steps and int(steps[-1][0]) != told:
            told = int(steps[-1][0])
            progress(told, int(steps[-1][1]))
        if ended:
            return


def _end_of(file: IO[bytes], size: int = 1 << 24) -> bytes:
    length = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, max(0, length - size))


def _hint(reason: str) -> str:
    return ": give one with imatrix=lt.imatrix(model, text)" if "imatrix" in reason else ""


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
