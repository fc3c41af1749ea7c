"""`ModelInfo`: what a GGUF's header says about the model in it. What the header does not say is None, never a guess.

In: a path, or a `Header`. Out: `ModelInfo`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .ggml_types import FILE_TYPES
from .header import Header, LongArray, TensorInfo, read_header

_ATTENTION = re.compile(r"blk\.(\d+)\.attn_(q|k|v|qkv|q_a|q_b|kv_a_mqa|kv_b|k_b)\b")
_BLOCK = re.compile(r"(enc\.|dec\.)?blk\.(\d+)\.")


@dataclass(frozen=True)
class ModelInfo:
    """What a model is, from its header alone.

    Attributes
    ----------
    path : Path
        The file; the first of a split set.
    name, architecture : str
    n_layers : int or None
        Of an encoder-decoder: of the encoder; the decoder's are ``n_decoder_layers``.
    n_heads, n_kv_heads : int or None
        The most that any layer has.
    heads_per_layer, kv_heads_per_layer : tuple of int
        0 where a layer has no attention; empty where the header does not say.
    head_size, width, vocab_size, context_length, sliding_window, n_experts, n_experts_used : int or None
    quant_type : str or None
        What the file's maker calls it, e.g. ``"Q4_K_M"``.
    quant_type_counts : dict of str to int
        Tensors per type, as they are.
    n_parameters : int
        Weights of all tensors.
    bits_per_weight : float or None
        Bytes of all tensors of known type / their weights.
    n_bytes : int
        Of all files.
    unknown_types : tuple of str
        Types that are not known here; they are left out of ``bits_per_weight``.
    """

    path: Path
    name: str
    architecture: str | None
    n_layers: int | None
    n_decoder_layers: int | None
    n_heads: int | None
    n_kv_heads: int | None
    heads_per_layer: tuple[int, ...]
    kv_heads_per_layer: tuple[int, ...]
    head_size: int | None
    width: int | None
    vocab_size: int | None
    context_length: int | None
    sliding_window: int | None
    n_experts: int | None
    n_experts_used: int | None
    quant_type: str | None
    quant_type_counts: Mapping[str, int]
    n_parameters: int
    bits_per_weight: float | None
    n_bytes: int
    unknown_types: tuple[str, ...]
    tokenizer: str | None
    bos_id: int | None
    eos_id: int | None
    has_chat_template: bool
    shards: tuple[Path, ...]
    metadata: Mapping[str, Any] = field(repr=False)


def model_info(path: str | os.PathLike[str]) -> ModelInfo:
    """Read a model's header.

    Raises
    ------
    ModelNotFound, ModelFileError
    """
    return info_of(read_header(path))


def info_of(header: Header) -> ModelInfo:
    """What a header says."""
    metadata = header.metadata
    architecture = _text(metadata.get("general.architecture"))

    def own(key: str) -> Any:
        return metadata.get(f"{architecture}.{key}")

    layers = _whole(own("block_count"))
    attending = {int(m[1]) for t in header.tensors if (m := _ATTENTION.search(t.name))}
    heads = _per_layer(own("attention.head_count"), layers, attending)
    kv = own("attention.head_count_kv")
    kv_heads = _per_layer(own("attention.head_count") if kv is None else kv, layers, attending)
    width = _whole(own("embedding_length"))
    most = max(heads, default=0) or None
    head_size = _whole(own("attention.key_length"))
    if head_size is None and width and most and width % most == 0:
        head_size = width // most  # what the format defines where key_length is absent
    known = [t for t in header.tensors if t.n_bytes is not None]
    weights = sum(t.n_weights for t in known)
    file_type = metadata.get("general.file_type")
    return ModelInfo(
        path=header.path,
        name=_name(header),
        architecture=architecture,
        n_layers=layers,
        n_decoder_layers=_whole(own("decoder_block_count")),
        n_heads=most,
        n_kv_heads=max(kv_heads, default=0) or None,
        heads_per_layer=heads,
        kv_heads_per_layer=kv_heads,
        head_size=head_size,
        width=width,
        vocab_size=_vocabulary(header, own("vocab_size")),
        context_length=_whole(own("context_length")),
        sliding_window=_whole(own("attention.sliding_window")),
        n_experts=_whole(own("expert_count")),
        n_experts_used=_whole(own("expert_used_count")),
        quant_type=FILE_TYPES.get(file_type) if isinstance(file_type, int) else None,
        quant_type_counts=dict(Counter(t.type_name for t in header.tensors).most_common()),
        n_parameters=sum(t.n_weights for t in header.tensors),
        bits_per_weight=8 * sum(t.n_bytes or 0 for t in known) / weights if weights else None,
        n_bytes=header.n_bytes,
        unknown_types=tuple(sorted({t.type_name for t in header.tensors if t.n_bytes is None})),
        tokenizer=_text(metadata.get("tokenizer.ggml.model")),
        bos_id=_whole(metadata.get("tokenizer.ggml.bos_token_id")),
        eos_id=_whole(metadata.get("tokenizer.ggml.eos_token_id")),
        has_chat_template=bool(metadata.get("tokenizer.chat_template")),
        shards=header.shards,
        metadata=metadata,
    )


def _name(header: Header) -> str:
    """What people call the model: its file's name without the quant type; its own name where the file's is a hash."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", header.path.stem)
    if re.match(r"sha256-[0-9a-f]{16}", stem) or re.fullmatch(r"[0-9a-f]{32,}", stem):
        return _text(header.metadata.get("general.name")) or stem
    return re.sub(r"[.\-_](I?Q\d\w*|F16|F32|BF16|TQ\d\w*|MXFP4\w*)$", "", stem, flags=re.IGNORECASE) or stem


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _per_layer(value: Any, layers: int | None, attending: set[int]) -> tuple[int, ...]:
    """One count per layer; a layer without any attention tensor has none, whatever a single count says."""
    if layers is None or layers > 100_000:
        return ()
    if isinstance(value, list) and len(value) == layers and all(isinstance(v, int) for v in value):
        return tuple(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return ()
    return tuple(value if not attending or layer in attending else 0 for layer in range(layers))


def _vocabulary(header: Header, claimed: Any) -> int | None:
    """Size of the vocabulary: of the token list, else of the embedding matrix, else what the header claims."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, (list, LongArray)):
        return len(tokens)
    embedding: TensorInfo | None = next((t for t in header.tensors if t.name == "token_embd.weight"), None)
    if embedding is not None and len(embedding.shape) == 2:
        return embedding.shape[1]
    return _whole(claimed)
