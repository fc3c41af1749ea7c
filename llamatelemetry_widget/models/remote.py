"""The header of a model on the Hugging Face Hub, read by HTTP ranges: everything but the weights, without the download.

In: a repository and a file. Out: a file in our cache that has the size and the header of the remote one; the rest is a
hole that takes no room on the disk.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import LlamaTelemetryError, ModelFileError
from .header import read_open_header

_BLOCK = 1 << 20
_TIMEOUT = 10
_MOST = 256 << 20  # bytes of a header; the largest vocabularies have 20 MB
FOLDER = "headers"


def fetch_header(folder: Path, url: str, name: str) -> Path:
    """The header of a remote file, as a file of the same size in `folder`.

    Parameters
    ----------
    folder : Path
        Our cache.
    url : str
        Where the file is.
    name : str
        How it is called.

    Raises
    ------
    LlamaTelemetryError
        The server does not answer, or knows no ranges.
    ModelFileError
        What is there is no GGUF.
    """
    from huggingface_hub import get_hf_file_metadata

    facts = get_hf_file_metadata(url, timeout=_TIMEOUT)
    version = facts.commit_hash or facts.etag
    if not facts.size or not version:
        raise LlamaTelemetryError(f"{url} does not say how long it is, so its header cannot be read alone; download it")
    target = folder / FOLDER / re.sub(r"\W+", "", version) / name
    if target.exists() and target.stat().st_size == facts.size:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, made = tempfile.mkstemp(dir=target.parent)
    try:
        with os.fdopen(handle, "r+b") as file:
            file.truncate(facts.size)
            remote = _Ranges(file, facts.size, _getter(facts.location))
            header = read_open_header(Path(name), remote, facts.size)
            remote.fill(min((tensor.offset for tensor in header.tensors), default=facts.size))
        os.replace(made, target)
    finally:
        Path(made).unlink(missing_ok=True)
    return target


def is_header_only(path: Path) -> bool:
    """Whether a file is what `fetch_header` leaves: a header, and a hole where the weights would be."""
    return any(
        folder.name == FOLDER and folder.parent.name == "llamatelemetry-widget" for folder in path.absolute().parents
    )


def _getter(url: str) -> Callable[[int, int], bytes]:
    """A function that gets bytes ``start`` to ``stop - 1``."""
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

    def get(start: int, stop: int) -> bytes:
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        answer = get_session().get(url, headers=headers, timeout=_TIMEOUT)
        if answer.status_code != 206:
            said = "answers with the whole file" if answer.status_code == 200 else f"answers {answer.status_code}"
            raise LlamaTelemetryError(f"{url} {said} where a part was asked for; download the file instead")
        data: bytes = answer.content
        if len(data) != stop - start:
            raise LlamaTelemetryError(f"{url} gave {len(data)} bytes where {stop - start} were asked for; try again")
        return data

    return get


class _Ranges(io.RawIOBase):
    """A remote file: what is read is fetched, a block at a time, and kept in a local one."""

    def __init__(self, file: Any, size: int, get: Callable[[int, int], bytes]) -> None:
        self._file, self._size, self._get = file, size, get
        self._there: set[int] = set()
        self._at = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        self._fetch(self._at, stop)
        self._file.seek(self._at)
        data: bytes = self._file.read(max(stop - self._at, 0))
        self._at = stop
        return data

    def fill(self, stop: int) -> None:
        """Fetch all that has been passed over before `stop`."""
        self._fetch(0, min(stop, self._size))

    def _fetch(self, start: int, stop: int) -> None:
        for block in range(start // _BLOCK, -(-stop // _BLOCK)):
            if block in self._there:
                continue
            if len(self._there) * _BLOCK >= _MOST:
                raise ModelFileError(f"this header is longer than {_MOST >> 20} MB, which no model's is")
            a, b = block * _BLOCK, min(block * _BLOCK + _BLOCK, self._size)
            self._file.seek(a)
            self._file.write(self._get(a, b))
            self._there.add(block)
