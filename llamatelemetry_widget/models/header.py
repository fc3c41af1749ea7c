"""Reading a GGUF header safely: every length is checked against the file before it is believed.

In: a path. Out: `Header`: metadata and tensor table. This is the only reader of headers here: it runs before llama.cpp
touches a file, so that a cut, damaged or hostile one is refused in words and not by a crash, and unlike llama.cpp's it
also opens files with tensor types that nobody knows yet. Long arrays (vocabularies) are stepped over, not read.
"""

from __future__ import annotations

import mmap
import os
import pwd
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelFileError, ModelNotFound
from .ggml_types import ggml_type

STRING, ARRAY, BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "?", 10: "<Q", 11: "<q", 12: "<d"}
_STRUCTS = {code: struct.Struct(form) for code, form in _SCALARS.items()}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_LIST_LIMIT = 1024  # arrays up to here become lists; longer ones stay where they are
_MAX_KEY, _MAX_NAME, _MAX_DIMS = 65_535, 1024, 4  # generous beside GGUF's own limits
_ARRAY_DEPTH = 8
_LOOKS_LIKE = [
    (b"FUGG", "a big-endian GGUF (made for s390x); convert it with gguf_convert_endian.py"),
    (b"version https://git-lfs", "a git-lfs pointer, not the model; run `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint?); convert it with convert_hf_to_gguf.py"),
    (b"<!DOCTYPE", "a web page; the download went wrong, fetch the file itself"),
    (b"<html", "a web page; the download went wrong, fetch the file itself"),
    (b"ggml", "an old GGML file; convert it to GGUF"),
    (b"lmgg", "an old GGML file; convert it to GGUF"),
    (b"tjgg", "an old GGJT file; convert it to GGUF"),
]


@dataclass(frozen=True)
class LongArray:
    """An array of the metadata that was stepped over: element type code, number of elements, where it begins."""

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
    offset : int
        Bytes from the start of its shard's data.
    n_bytes : int or None
        None where the type is not known.
    shard : int
        Which file of a split set.
    """

    name: str
    shape: tuple[int, ...]
    type_code: int
    offset: int
    n_bytes: int | None
    shard: int = 0

    @property
    def type_name(self) -> str:
        return ggml_type(self.type_code).name

    @property
    def n_weights(self) -> int:
        n = 1
        for size in self.shape:
            n *= size
        return n


@dataclass
class Header:
    """What a GGUF, or a set of split ones, says of itself."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    tensors: list[TensorInfo]
    n_bytes: int
    data_offset: int
    shards: tuple[Path, ...] = field(default_factory=tuple)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read the header of a GGUF file; any shard of a split set opens the whole set.

    Raises
    ------
    ModelNotFound
        There is no such file, or it may not be read.
    ModelFileError
        The file is cut off, damaged, hostile or no GGUF; one line says what is wrong, with the value.
    """
    first = _read_one(Path(path))
    total = first.metadata.get("split.count", 0)
    if not isinstance(total, int) or total <= 1:
        return first
    return _join(first, total)


def _read_one(path: Path) -> Header:
    size = _size(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
            _refuse_other_formats(path, head, size)
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
                header = _Reader(path, data, size).header()
    except PermissionError:
        raise ModelNotFound(_not_readable(path)) from None
    except (ValueError, OSError) as error:  # the file changed its length while it was mapped
        raise ModelFileError(f"{path} cannot be read ({error}); is it still being written?") from None
    if _size(path) != size:
        raise ModelFileError(
            f"{path} changed its size while it was read ({size} bytes before); is it still downloading?"
        )
    return header


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            raise ModelFileError(f"{path} is a folder, not a GGUF file")
        return path.stat().st_size
    except FileNotFoundError:
        raise ModelNotFound(f"there is no file {path}") from None
    except PermissionError:
        raise ModelNotFound(_not_readable(path)) from None
    except OSError as error:
        raise ModelNotFound(f"{path} cannot be opened: {error.strerror}") from None


def _not_readable(path: Path) -> str:
    try:
        owner = pwd.getpwuid(path.stat().st_uid).pw_name
    except (OSError, KeyError):
        owner = "another user"
    return f"{path} belongs to {owner} and may not be read by this user; ask for read permission"


def _refuse_other_formats(path: Path, head: bytes, size: int) -> None:
    if size == 0:
        raise ModelFileError(f"{path} is empty (0 bytes); download it again")
    if head[:4] == b"GGUF" and size >= 24:
        version = _U32.unpack_from(head, 4)[0]
        if version & 0xFFFF == 0 and version:
            raise ModelFileError(f"{path} is {_LOOKS_LIKE[0][1]}")
        if version not in (2, 3):
            raise ModelFileError(f"{path} has GGUF version {version}; versions 2 and 3 can be read")
        return
    for magic, what in _LOOKS_LIKE:
        if head.lstrip().startswith(magic):
            raise ModelFileError(f"{path} is {what}")
    if len(head) > 9 and head[8:9] == b"{":
        raise ModelFileError(f"{path} is a safetensors file; convert it with convert_hf_to_gguf.py")
    raise ModelFileError(f"{path} is no GGUF: it begins with {head[:4]!r}, a GGUF with b'GGUF' ({size} bytes)")


class _Reader:
    """Walks one header. Positions only move forward, and never past the end of the file."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size, self.at = path, data, size, 0

    def header(self) -> Header:
        version = _U32.unpack_from(self.data, 4)[0]
        n_tensors, n_metadata = _U64.unpack_from(self.data, 8)[0], _U64.unpack_from(self.data, 16)[0]
        self.at = 24
        self._plausible(n_tensors, 24, "tensors")
        self._plausible(n_metadata, 13, "metadata entries")
        metadata: dict[str, Any] = {}
        for _ in range(n_metadata):
            key = self._text(_MAX_KEY, "a key")
            metadata[key] = self._value(self._u32(), key, 0)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 30:
            raise self._damaged(f"general.alignment is {alignment!r}, not a power of two")
        table = [self._tensor() for _ in range(n_tensors)]
        start = -(-self.at // alignment) * alignment
        self._check_length(table, start, metadata)
        return Header(self.path, version, metadata, table, self.size, start, (self.path,))

    def _plausible(self, count: int, least: int, what: str) -> None:
        if count > (self.size - 24) // least:
            raise self._damaged(f"it claims {count} {what}, more than {self.size} bytes can hold")

    def _damaged(self, why: str) -> ModelFileError:
        return ModelFileError(f"{self.path} is damaged: {why}; download it again")

    def _need(self, n: int, what: str) -> int:
        """Step over `n` bytes that must be there; where they begin."""
        begin = self.at
        if n > self.size - begin:
            raise self._damaged(f"{what} of {n} bytes at {begin} runs past the end of the file ({self.size} bytes)")
        self.at = begin + n
        return begin

    def _u32(self) -> int:
        return int(_U32.unpack_from(self.data, self._need(4, "a number"))[0])

    def _u64(self) -> int:
        return int(_U64.unpack_from(self.data, self._need(8, "a number"))[0])

    def _text(self, limit: int, what: str) -> str:
        n = self._u64()
        if n > limit:
            raise self._damaged(f"{what} claims a length of {n}, at most {limit} is allowed")
        begin = self._need(n, what)
        return self.data[begin : begin + n].decode("utf-8", "replace")

    def _value(self, code: int, key: str, depth: int) -> Any:
        if code == STRING:
            return self._text(1 << 24, f"the text of {key}")
        if code == ARRAY:
            return self._array(key, depth)
        form = _STRUCTS.get(code)
        if form is None:
            raise self._damaged(f"{key} has the unknown value type {code}")
        return form.unpack_from(self.data, self._need(form.size, f"the value of {key}"))[0]

    def _array(self, key: str, depth: int) -> Any:
        if depth >= _ARRAY_DEPTH:
            raise self._damaged(f"{key} nests arrays more than {_ARRAY_DEPTH} deep")
        code, count = self._u32(), self._u64()
        begin = self.at
        form = _STRUCTS.get(code)
        if form is not None:
            self._need(count * form.size, f"the array {key}")
            if count > _LIST_LIMIT:
                return LongArray(code, count, begin)
            return list(struct.unpack_from(f"<{count}{form.format[-1:]}", self.data, begin))
        if code not in (STRING, ARRAY):
            raise self._damaged(f"{key} is an array of the unknown type {code}")
        if count > (self.size - begin) // 8:
            raise self._damaged(f"the array {key} claims {count} entries, more than the file can hold")
        if code == STRING and count > _LIST_LIMIT:
            self._skip_texts(count, key)
            return LongArray(code, count, begin)
        return [self._value(code, key, depth + 1) for _ in range(count)]

    def _skip_texts(self, count: int, key: str) -> None:
        """Step over many strings: the one loop that runs hundreds of thousands of times."""
        at, data, unpack, last = self.at, self.data, _U64.unpack_from, self.size - 8
        for _ in range(count):
            if at > last:
                raise self._damaged(f"the array {key} runs past the end of the file ({self.size} bytes)")
            at += 8 + unpack(data, at)[0]
        if at > self.size:
            raise self._damaged(f"the array {key} runs past the end of the file ({self.size} bytes)")
        self.at = at

    def _tensor(self) -> TensorInfo:
        name = self._text(_MAX_NAME, "a tensor's name")
        n_dims = self._u32()
        if n_dims > _MAX_DIMS:
            raise self._damaged(f"tensor {name!r} claims {n_dims} dimensions, at most {_MAX_DIMS} are allowed")
        shape = tuple(self._u64() for _ in range(n_dims))
        code, offset = self._u32(), self._u64()
        weights = 1
        for size in shape:
            weights *= size
        if weights >= 1 << 62:
            raise self._damaged(f"tensor {name!r} claims the impossible shape {shape}")
        known = ggml_type(code)
        if known.block is None or known.size is None:
            return TensorInfo(name, shape, code, offset, None)
        if shape and shape[0] % known.block:
            raise self._damaged(
                f"tensor {name!r} has rows of {shape[0]} weights, {known.name} needs a multiple of {known.block}"
            )
        return TensorInfo(name, shape, code, offset, weights // known.block * known.size)

    def _check_length(self, table: list[TensorInfo], start: int, metadata: Mapping[str, Any]) -> None:
        """The file must be as long as its tensor table says, and no shard may have another glued to its end."""
        ends = [t.offset + (t.n_bytes if t.n_bytes is not None else 0) for t in table]
        expected = start + max(ends, default=0) if table else self.at
        if self.size < expected:
            share = f"{100 * self.size / expected:.0f} %" if expected < 1 << 60 else "a small part"
            raise ModelFileError(
                f"{self.path} is cut off: its tensors need {expected} bytes, the file has {self.size} ({share}); "
                f"download it again"
            )
        total = metadata.get("split.count", 0)
        extra = self.size - expected
        known = all(t.n_bytes is not None for t in table)
        if isinstance(total, int) and total > 1 and known and extra > 65_536 // 8:
            number = metadata.get("split.no", 0)
            raise ModelFileError(
                f"{self.path} is shard {number + 1} of {total} with {extra} extra bytes behind it (shards "
                f"joined into one file?); keep the shards apart and open the first"
            )


def _join(shard: Header, total: int) -> Header:
    """All shards of the set that `shard` belongs to, as one header."""
    paths = _shard_paths(shard.path, total)
    if paths is None:
        raise ModelFileError(
            f"{shard.path} is shard {shard.metadata.get('split.no', 0) + 1} of {total} but is not named like one "
            f"(NAME-00001-of-{total:05d}.gguf); give all shards their own names back"
        )
    missing = [p.name for p in paths if not p.exists()]
    if missing:
        raise ModelFileError(
            f"{shard.path} is one of {total} shards and {missing[0]} is missing beside it; download it"
        )
    headers = [shard if p == shard.path else _read_one(p) for p in paths]
    tensors = [
        TensorInfo(t.name, t.shape, t.type_code, t.offset, t.n_bytes, number)
        for number, header in enumerate(headers)
        for t in header.tensors
    ]
    claimed = shard.metadata.get("split.tensors.count")
    if isinstance(claimed, int) and claimed != len(tensors):
        raise ModelFileError(
            f"{shard.path}: the {total} shards hold {len(tensors)} tensors, they should hold {claimed}"
        )
    first = headers[0]
    size = sum(h.n_bytes for h in headers)
    return Header(first.path, first.version, first.metadata, tensors, size, first.data_offset, tuple(paths))


def _shard_paths(path: Path, total: int) -> list[Path] | None:
    found = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})\.gguf", path.name)
    if found is None or int(found[3]) != total or total > 10_000:
        return None
    return [path.with_name(f"{found[1]}-{n:05d}-of-{total:05d}.gguf") for n in range(1, total + 1)]


def strings(path: Path, array: LongArray) -> Iterator[bytes]:
    """The strings of a long array, e.g. a vocabulary, one by one."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = array.offset
        for _ in range(array.count):
            n = _U64.unpack_from(data, at)[0]
            yield data[at + 8 : at + 8 + n]
            at += 8 + n
