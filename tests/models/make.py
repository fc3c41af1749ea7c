"""GGUF bytes made by hand, also such as no writer would write.

In: metadata and tensors. Out: the bytes of a file.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple


class Raw(NamedTuple):
    """A metadata value as it stands in the file."""

    type_code: int
    data: bytes


def text(value: str | bytes) -> bytes:
    """A GGUF string."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def u32(value: int) -> Raw:
    return Raw(4, struct.pack("<I", value))


def strings(values: list[str]) -> Raw:
    return Raw(9, struct.pack("<IQ", 8, len(values)) + b"".join(map(text, values)))


def numbers(values: list[int]) -> Raw:
    return Raw(9, struct.pack("<IQ", 5, len(values)) + struct.pack(f"<{len(values)}i", *values))


def _entry(key: str, value: Any) -> bytes:
    raw = value if isinstance(value, Raw) else Raw(8, text(value)) if isinstance(value, str) else u32(value)
    return text(key) + struct.pack("<I", raw.type_code) + raw.data


def gguf(
    metadata: dict[str, Any],
    tensors: list[tuple[str, tuple[int, ...], int, int]] = (),  # type: ignore[assignment]
    *,
    version: int = 3,
    n_metadata: int | None = None,
    n_tensors: int | None = None,
) -> bytes:
    """A whole file; tensors are (name, shape, type code, bytes), and the counts may lie."""
    head = b"GGUF" + struct.pack(
        "<IQQ",
        version,
        len(tensors) if n_tensors is None else n_tensors,
        len(metadata) if n_metadata is None else n_metadata,
    )
    head += b"".join(_entry(key, value) for key, value in metadata.items())
    offset = 0
    for name, shape, code, n_bytes in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, code, offset)
        offset += -(-n_bytes // 32) * 32
    return head + bytes(-len(head) % 32) + bytes(offset)


def model(**changes: Any) -> bytes:
    """A small whole model of the llama architecture, with more or other metadata."""
    metadata = {
        "general.architecture": "llama",
        "general.file_type": 0,
        "llama.block_count": 2,
        "llama.embedding_length": 32,
        "llama.attention.head_count": 4,
    }
    tensors = [("token_embd.weight", (32, 8), 0, 1024)]
    tensors += [(f"blk.{i}.attn_{x}.weight", (32, 32), 0, 4096) for i in range(2) for x in "qkv"]
    return gguf({k: v for k, v in {**metadata, **changes}.items() if v is not None}, tensors)
