"""Reading a GGUF header safely: every length is checked against the file before it is believed.

In: a path. Out: `Header`: metadata and tensor table. This is the only reader of headers here: it runs before llama.cpp
touches a file, so that a cut, damaged or hostile one is refused in words and not by a crash; and unlike llama.cpp's it
opens files with tensor types that nobody knows yet. Long arrays (vocabularies) are stepped over, not read.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ModelFileError, ModelNotFound
from .ggml_types import ggml_type

SHARD_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)

_STRING, _ARRAY = 8, 9
_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRUCTS = {code: struct.Struct("<" + form) for code, form in _FORMS.items()}
_U32, _U64, _COUNTS = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<QQ")

# Far above any real file, and low enough that a crafted one costs neither seconds nor memory.
_MAX_METADATA, _MAX_TENSORS = 65_536, 200_000
_MAX_KEY, _MAX_NAME, _MAX_TEXT = 65_535, 1024, 16 << 20
_MAX_KEPT = 64 << 20  # bytes of text kept of one header
_MAX_STRINGS = 8 << 20  # strings stepped over in one header
_MAX_DIMS, _MAX_SHARDS = 4, 10_000
_LIST_LIMIT = 1024  # arrays up to here become lists; longer ones stay in the file
_WINDOW = 1 << 20  # bytes read at once

_WEB_PAGE = "a web page, so the download went wrong; fetch the model file itself"
_ZIP = "a zip archive, as PyTorch checkpoints are; convert it with llama.cpp's convert_hf_to_gguf.py"
_OLD = "in a format older than GGUF; convert it or fetch a GGUF"
_LOOKS_LIKE = [
    (b"version https://git-lfs", "a git-lfs pointer and not the model itself; run `git lfs pull` beside it"),
    (b"PK\x03\x04", _ZIP),
    (b"<!doctype", _WEB_PAGE),
    (b"<html", _WEB_PAGE),
    (b"lmgg", _OLD),
    (b"fmgg", _OLD),
    (b"tjgg", _OLD),
]


@dataclass(frozen=True)
class LongArray:
    """An array of the metadata that was stepped over.

    Attributes
    ----------
    type_code : int
        GGUF's value type of its elements.
    count : int
        Number of elements.
    offset : int
        Bytes from the start of the file to the first element.
    """

    type_code: int
    count: int
    offset: int

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of the table.

    Attributes
    ----------
    name : str
    shape : tuple of int
        ggml's order: the first runs fastest.
    type_code : int
        ggml's type.
    offset : int
        Bytes from the start of its file to its data.
    n_bytes : int or None
        None where the type is not known.
    shard : int
        Which file of a split set, from 0.
    """

    name: str
    shape: tuple[int, ...]
    type_code: int
    offset: int
    n_bytes: int | None
    shard: int = 0

    @property
    def type_name(self) -> str:
        """Name of the type, e.g. ``Q4_K``, or ``unknown type 99``."""
        return ggml_type(self.type_code).name

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a GGUF, or a set of split ones, says of itself.

    Attributes
    ----------
    path : Path
        The file; the first of a split set.
    version : int
    metadata : mapping of str to value
        Numbers, truth values, texts, lists of up to 1024 of these, and `LongArray` for what is longer.
    tensors : tuple of TensorInfo
    n_bytes : int
        Of all files together.
    complete : bool
        False for a header alone, without any tensor data behind it.
    shards : tuple of Path
        All files of the set, in order.
    """

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    n_bytes: int
    complete: bool
    shards: tuple[Path, ...]


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the header of a GGUF file; any shard of a split set opens the whole set.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Header

    Raises
    ------
    ModelNotFound
        There is no such file.
    ModelFileError
        It may not be read, or it is cut off, damaged, hostile or no GGUF; one line says what is wrong, with the value.
    """
    header = _read_one(Path(path))
    count = _number(header, "split.count")
    return header if count <= 1 else _join(header, count)


def read_open_header(path: Path, file: Any, size: int) -> Header:
    """The header of one open file (a shard is not joined with its set); `path` is how it is called in errors."""
    file.seek(0)
    _refuse_other_formats(path, file.read(512), size)
    return _Reader(path, file, size).header()


def shown(path: str | os.PathLike[str]) -> str:
    """A path as one printable line, whatever its bytes are."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in os.fspath(path))


def _read_one(path: Path) -> Header:
    try:
        size = _size(path)
        with path.open("rb") as file:
            header = read_open_header(path, file, size)
            now = os.fstat(file.fileno()).st_size
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFound(f"there is no file {shown(path)}; check the path, or see list_models()") from None
    except PermissionError as error:
        raise ModelFileError(not_readable(path, error)) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise ModelFileError(f"{shown(path)} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if now != size:
        raise ModelFileError(
            f"{shown(path)} went from {size} to {now} bytes while it was read; wait until its download has finished"
        )
    return header


def _size(path: Path) -> int:
    state = path.stat()
    if stat.S_ISDIR(state.st_mode):
        raise ModelFileError(f"{shown(path)} is a folder; name a GGUF file in it")
    if not stat.S_ISREG(state.st_mode):  # opening a pipe would wait for ever
        raise ModelFileError(f"{shown(path)} is a pipe, socket or device; name a GGUF file")
    if state.st_size == 0:
        raise ModelFileError(f"{shown(path)} is empty (0 bytes); download it again")
    return state.st_size


def not_readable(path: Path, error: PermissionError) -> str:
    """One line for a file that may not be read: which file or folder is closed, and whose it is."""
    blocked = Path(error.filename or path)
    while not _stat_works(blocked) and blocked != blocked.parent:
        blocked = blocked.parent
    try:
        import pwd  # not on Windows

        owner = pwd.getpwuid(blocked.stat().st_uid).pw_name
    except (ImportError, OSError, KeyError):
        owner = "another user"
    what = "" if blocked == path else f"{shown(path)} cannot be reached: "
    return f"{what}{shown(blocked)} belongs to {owner} and may not be read by you; ask {owner} for read permission"


def _stat_works(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _refuse_other_formats(path: Path, head: bytes, size: int) -> None:
    if head[:4] == b"GGUF":
        if size < 24:
            raise ModelFileError(f"{shown(path)} is cut off after {size} bytes; download it again")
        version = _U32.unpack_from(head, 4)[0]
        if version and version & 0xFFFF == 0:
            raise ModelFileError(
                f"{shown(path)} is a big-endian GGUF (for s390x and the like); convert it with gguf_convert_endian.py"
            )
        if version not in (2, 3):
            raise ModelFileError(f"{shown(path)} has GGUF version {version}, known are 2 and 3; convert it again")
        return
    start = head.lstrip().lower()
    for magic, what in _LOOKS_LIKE:
        if start.startswith(magic.lower()):
            raise ModelFileError(f"{shown(path)} is {what}")
    if head[8:9] == b"{":
        raise ModelFileError(f"{shown(path)} is a safetensors file; convert it with llama.cpp's convert_hf_to_gguf.py")
    raise ModelFileError(f"{shown(path)} is no GGUF: it begins with {head[:4]!r}, not with b'GGUF'; check the file")


class _Reader:
    """Walks one header. It only moves forward, never past the end, and holds one window of the file.

    The file is read, not mapped: a mapped file that another program cuts kills the process.
    """

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.at = 0  # where we are in the file
        self.window, self.base = b"", 0  # bytes of the file from `base` on
        self.kept = self.strings = 0

    def header(self) -> Header:
        self.at = 4
        version = self._u32()
        n_tensors, n_metadata = _COUNTS.unpack_from(self.window, self._take(16, "the counts"))
        self._plausible(n_tensors, 24, _MAX_TENSORS, "tensors")
        self._plausible(n_metadata, 13, _MAX_METADATA, "metadata entries")
        metadata = self._metadata(n_metadata)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self._damaged(f"general.alignment is {alignment!r:.40}, not a power of two")
        found = [self._tensor(alignment) for _ in range(n_tensors)]
        start = _padded(self.at, alignment)
        tensors = tuple(TensorInfo(t[0], t[1], t[2], start + t[3], t[4]) for t in found)
        if len({t.name for t in tensors}) != len(tensors):
            raise self._damaged("two tensors have the same name")
        complete = self._check_length(tensors, start)
        header = Header(self.path, version, metadata, tensors, self.size, complete, (self.path,))
        self._refuse_joined(header, alignment)
        return header

    def _metadata(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(count):
            key = self._text(_MAX_KEY, "a metadata key")
            if key in metadata:
                raise self._damaged(f"the metadata key {key!r:.80} comes twice")
            metadata[key] = self._value(self._u32(), key)
        return metadata

    # ------------------------------------------------------------ moving on

    def _plausible(self, count: int, least: int, most: int, what: str) -> None:
        if count > min(most, (self.size - 24) // least):
            raise self._damaged(f"it claims {count} {what}, more than {self.size} bytes can hold")

    def _damaged(self, why: str) -> ModelFileError:
        return ModelFileError(f"{shown(self.path)} is damaged or cut off: {why}; download it again")

    def _need(self, n: int, what: str) -> None:
        if n > self.size - self.at:
            raise self._damaged(f"{what} of {n} bytes at {self.at} runs past the end at {self.size}")

    def _skip(self, n: int, what: str) -> None:
        self._need(n, what)
        self.at += n

    def _take(self, n: int, what: str) -> int:
        """Step over `n` bytes and have them in the window; where they begin in it."""
        begin = self.at - self.base
        if begin + n > len(self.window):
            self._need(n, what)
            self._fill(n)
            begin = 0
        self.at += n
        return begin

    def _fill(self, n: int) -> None:
        """Read the window anew from where we are; at least `n` bytes, which the file is known to have."""
        self.file.seek(self.at)
        self.window, self.base = self.file.read(max(n, _WINDOW)), self.at
        if len(self.window) < n:
            raise ModelFileError(f"{shown(self.path)} became shorter while it was read; wait until it is complete")

    # -------------------------------------------------------------- values

    def _u32(self) -> int:
        at = self._take(4, "a number")
        return int(_U32.unpack_from(self.window, at)[0])

    def _u64(self) -> int:
        at = self._take(8, "a number")
        return int(_U64.unpack_from(self.window, at)[0])

    def _text(self, limit: int, what: str) -> str:
        n = self._u64()
        self.kept += n
        if n > limit or self.kept > _MAX_KEPT:
            raise self._damaged(f"{what} claims a length of {n} bytes, at most {limit} are allowed")
        begin = self._take(n, what)
        return self.window[begin : begin + n].decode("utf-8", "replace")

    def _value(self, code: int, key: str) -> Any:
        if code == _STRING:
            return self._text(_MAX_TEXT, f"the text of {key!r:.80}")
        if code == _ARRAY:
            return self._array(key)
        form = _STRUCTS.get(code)
        if form is None:
            raise self._damaged(f"{key!r:.80} has the unknown value type {code}")
        at = self._take(form.size, f"the value of {key!r:.80}")
        return form.unpack_from(self.window, at)[0]

    def _array(self, key: str) -> Any:
        code, count = self._u32(), self._u64()
        what = f"the array {key!r:.80}"
        if code == _STRING:
            return self._texts(count, what)
        form = _STRUCTS.get(code)
        if form is None:  # an array of arrays, too: llama.cpp reads none either
            raise self._damaged(f"{what} has elements of type {code}, which no array may hold")
        if count > _LIST_LIMIT:
            offset = self.at
            self._skip(count * form.size, what)
            return LongArray(code, count, offset)
        at = self._take(count * form.size, what)
        return list(struct.unpack_from(f"<{count}{_FORMS[code]}", self.window, at))

    def _texts(self, count: int, what: str) -> Any:
        self.strings += count
        if count > (self.size - self.at) // 8 or self.strings > _MAX_STRINGS:
            raise self._damaged(f"{what} claims {count} texts, more than it can hold")
        if count <= _LIST_LIMIT:
            return [self._text(_MAX_TEXT, f"a text of {what}") for _ in range(count)]
        offset = self.at
        self._skip_texts(count, what)
        return LongArray(_STRING, count, offset)

    def _skip_texts(self, count: int, what: str) -> None:
        """Step over many strings: the one loop that turns hundreds of thousands of times."""
        unpack = _U64.unpack_from
        while count:
            self._need(8, what)
            if self.at + 8 > self.base + len(self.window):
                self._fill(8)
            window, at, last = self.window, self.at - self.base, len(self.window) - 8
            while count and at <= last:
                at += 8 + unpack(window, at)[0]
                count -= 1
            self._skip(self.base + at - self.at, what)

    # ------------------------------------------------------------- tensors

    def _tensor(self, alignment: int) -> tuple[str, tuple[int, ...], int, int, int | None]:
        """Name, shape, type, offset into the data, bytes of the next tensor in the table."""
        name = self._text(_MAX_NAME, "a tensor's name")
        n_dims = self._u32()
        if n_dims > _MAX_DIMS:
            raise self._damaged(f"tensor {name!r:.80} claims {n_dims} dimensions, at most {_MAX_DIMS} are allowed")
        form = struct.Struct(f"<{n_dims}QIQ")
        begin = self._take(form.size, f"tensor {name!r:.80}")  # before the window is looked at: this may move it
        *shape, code, offset = form.unpack_from(self.window, begin)
        if math.prod(shape) >= 1 << 62 or max(shape, default=0) >= 1 << 62:
            raise self._damaged(f"tensor {name!r:.80} claims the impossible shape {tuple(shape)}")
        if offset % alignment:
            raise self._damaged(f"tensor {name!r:.80} begins at {offset}, no multiple of {alignment}")
        return name, tuple(shape), code, offset, self._bytes(name, shape, code)

    def _bytes(self, name: str, shape: list[int], code: int) -> int | None:
        known = ggml_type(code)
        if known.block is None or known.size is None:
            return None
        row = shape[0] if shape else 1
        if row % known.block:
            raise self._damaged(
                f"tensor {name!r:.80} has rows of {row} weights, {known.name} comes in blocks of {known.block}"
            )
        return math.prod(shape) // known.block * known.size

    def _check_length(self, tensors: tuple[TensorInfo, ...], start: int) -> bool:
        """Is the file as long as its tensor table says? False for a header that has no data behind it at all."""
        expected = max((t.offset + (t.n_bytes or 0) for t in tensors), default=0)
        if self.size >= expected:
            return True
        if self.size <= start:
            return False
        raise ModelFileError(
            f"{shown(self.path)} is cut off: its tensors need {expected} bytes, the file has {self.size} "
            f"({100 * self.size // expected} %); download it again"
        )

    def _refuse_joined(self, header: Header, alignment: int) -> None:
        """Shards glued together look like one file; llama.cpp would read the first and miss the rest."""
        end = max((t.offset + (t.n_bytes or 0) for t in header.tensors), default=self.at)
        for at in {end, _padded(end, alignment)}:
            if not header.complete or at > self.size - 24:
                continue
            self.file.seek(at)
            if self.file.read(4) == b"GGUF":
                count, number = _number(header, "split.count"), _number(header, "split.no") + 1
                which = f"shard {number} of {count}" if count > 1 else "one GGUF"
                raise ModelFileError(
                    f"{shown(self.path)} is {which} with {self.size - at} bytes of extra data (another GGUF) behind "
                    f"it; keep the shards apart and open the first"
                )


def _padded(n: int, alignment: int) -> int:
    return -(-n // alignment) * alignment


def _number(header: Header, key: str) -> int:
    value = header.metadata.get(key, 0)
    return value if isinstance(value, int) else 0


# ------------------------------------------------------------------ split sets


def shard_paths(path: Path) -> tuple[Path, ...]:
    """All files of the split set that this one's name belongs to, in order; the path alone where it is no shard's name.

    Parameters
    ----------
    path : Path
        E.g. ``model-00002-of-00003.gguf``.
    """
    found = SHARD_NAME.fullmatch(path.name)
    count = int(found["count"]) if found else 1
    if found is None or not 1 < count <= _MAX_SHARDS:
        return (path,)
    return tuple(path.with_name(f"{found['stem']}-{n:05d}-of-{count:05d}.gguf") for n in range(1, count + 1))


def _join(shard: Header, count: int) -> Header:
    """All shards of the set that `shard` belongs to, as one header."""
    number, name = _number(shard, "split.no"), shown(shard.path)
    paths = shard_paths(shard.path)
    if len(paths) != count or not 0 <= number < count or paths[number] != shard.path:
        raise ModelFileError(
            f"{name} is shard {number + 1} of {count} but not named so; "
            f"name the shards NAME-00001-of-{count:05d}.gguf and so on"
        )
    missing = [p.name for p in paths if not p.exists()]
    if missing:
        raise ModelFileError(
            f"{name} needs {shown(missing[0])} beside it, one of {count} shards; download that file too"
        )
    headers = [shard if p == shard.path else _read_one(p) for p in paths]
    for i, header in enumerate(headers):
        if (_number(header, "split.no"), _number(header, "split.count")) != (i, count):
            raise ModelFileError(
                f"{shown(header.path)} says it is not shard {i + 1} of {count}; download the set again"
            )
    tensors = tuple(replace(t, shard=i) for i, header in enumerate(headers) for t in header.tensors)
    claimed = _number(headers[0], "split.tensors.count")
    if claimed not in (0, len(tensors)) or len({t.name for t in tensors}) != len(tensors):
        raise ModelFileError(
            f"{name}: the {count} shards hold {len(tensors)} tensors, the first says {claimed}; download the set again"
        )
    return replace(
        headers[0],
        tensors=tensors,
        n_bytes=sum(h.n_bytes for h in headers),
        complete=all(h.complete for h in headers),
        shards=paths,
    )
