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

from ..errors import ModelFileError
from .ggml_types import FILE_TYPES
from .header import Header, LongArray, TensorInfo, read_header, shown
from .remote import is_header_only

_LAYER_TENSOR = re.compile(r"(?:enc\.)?blk\.(\d+)\.(.+)")  # of the encoder where there are two stacks
_ATTENTION = re.compile(r"attn_(q|k|v|q_a|q_b|kv_a_mqa|kv_b|k_b)\b")
_FUSED = re.compile(r"attn_qkv\b")
_RECURRENT = re.compile(r"ssm_")
_MAX_LAYERS = 10_000


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
    heads_per_layer, kv_heads_per_layer : tuple of (int or None)
        0 where a layer has no attention, None where the file does not tell; empty where the header says nothing.
    head_size : int or None
        Of the keys.
    width : int or None
        Of the residual stream.
    vocab_size : int or None
        Tokens.
    context_length, sliding_window : int or None
        Tokens.
    n_experts, n_experts_used : int or None
        None where there are none.
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
    has_weights : bool
        False for a header alone, without tensor data.
    tokenizer : str or None
    bos_id, eos_id : int or None
    has_chat_template : bool
    shards : tuple of Path
        All files.
    metadata : mapping
        Everything the header says, as `Header.metadata`.
    """

    path: Path
    name: str
    architecture: str | None
    n_layers: int | None
    n_decoder_layers: int | None
    n_heads: int | None
    n_kv_heads: int | None
    heads_per_layer: tuple[int | None, ...]
    kv_heads_per_layer: tuple[int | None, ...]
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
    has_weights: bool
    tokenizer: str | None
    bos_id: int | None
    eos_id: int | None
    has_chat_template: bool
    shards: tuple[Path, ...]
    metadata: Mapping[str, Any] = field(repr=False)

    @property
    def cannot_run(self) -> str | None:
        """Why this file can be looked at but not run, and what to do; None where nothing speaks against it."""
        if not self.has_weights:
            return f"{shown(self.path)} is a header alone, without any weights; fetch the whole file to run it"
        if self.unknown_types:
            types = ", ".join(self.unknown_types)
            return f"{shown(self.path)} has tensors of {types}, which cannot be run; fetch another quant type of it"
        return None


def model_info(path: str | os.PathLike[str]) -> ModelInfo:
    """Read a model's header.

    Parameters
    ----------
    path : str or path
        A GGUF file; any file of a split set.

    Returns
    -------
    ModelInfo

    Raises
    ------
    ModelNotFound
        There is no such file.
    ModelFileError
        It is damaged, cut off or no GGUF.
    """
    return info_of(read_header(path))


def info_of(header: Header) -> ModelInfo:
    """What a header says."""
    metadata = header.metadata
    architecture = _text(metadata.get("general.architecture"))

    def own(key: str) -> Any:
        return metadata.get(f"{architecture}.{key}")

    layers = _whole(own("block_count"))
    if layers is not None and layers > _MAX_LAYERS:
        raise ModelFileError(f"{shown(header.path)} claims {layers} layers, which no model has; download it again")
    heads, kv_heads = _heads(header, layers, own("attention.head_count"), own("attention.head_count_kv"))
    width = _whole(own("embedding_length"))
    known = [t for t in header.tensors if t.n_bytes is not None]
    weights = sum(t.n_weights for t in known)
    file_type = metadata.get("general.file_type")
    return ModelInfo(
        path=header.path,
        name=_name(header),
        architecture=architecture,
        n_layers=layers,
        n_decoder_layers=_whole(own("decoder_block_count")),
        n_heads=_most(heads),
        n_kv_heads=_most(kv_heads),
        heads_per_layer=heads,
        kv_heads_per_layer=kv_heads,
        head_size=_head_size(_whole(own("attention.key_length")), width, heads),
        width=width,
        vocab_size=_vocabulary(header, own("vocab_size")),
        context_length=_whole(own("context_length")),
        sliding_window=_whole(own("attention.sliding_window")) or None,
        n_experts=_whole(own("expert_count")) or None,
        n_experts_used=_whole(own("expert_used_count")) or None,
        quant_type=FILE_TYPES.get(file_type) if isinstance(file_type, int) else None,
        quant_type_counts=dict(Counter(t.type_name for t in header.tensors).most_common()),
        n_parameters=sum(t.n_weights for t in header.tensors),
        bits_per_weight=8 * sum(t.n_bytes or 0 for t in known) / weights if weights else None,
        n_bytes=header.n_bytes,
        unknown_types=tuple(sorted({t.type_name for t in header.tensors if t.n_bytes is None})),
        has_weights=header.complete and not is_header_only(header.path),
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


Counts = tuple[int | None, ...]


def _heads(header: Header, layers: int | None, heads: Any, kv_heads: Any) -> tuple[Counts, Counts]:
    """Heads and KV heads of each layer. A layer without KV heads, or without any attention tensor, has no attention."""
    if layers is None:
        return (), ()
    attends = _attends(header, layers)
    if heads is None and not any(attends) and None not in attends and header.tensors:
        return (0,) * layers, (0,) * layers
    per_layer = _per_layer(heads, layers, attends)
    kv_per_layer = per_layer if kv_heads is None else _per_layer(kv_heads, layers, attends)  # as the format defines
    if len(per_layer) == len(kv_per_layer):
        per_layer = tuple(0 if kv == 0 else n for n, kv in zip(per_layer, kv_per_layer, strict=True))
    return per_layer, kv_per_layer


def _attends(header: Header, layers: int) -> list[bool | None]:
    """Has each layer attention, by its tensors? None where they do not tell.

    A fused ``attn_qkv`` beside a state space (``ssm_``) may as well be linear attention.
    """
    names: dict[int, list[str]] = {}
    for tensor in header.tensors:
        if found := _LAYER_TENSOR.fullmatch(tensor.name):
            names.setdefault(int(found[1]), []).append(found[2])
    if not names:
        return [None] * layers
    return [_attends_by(names.get(layer, [])) for layer in range(layers)]


def _attends_by(names: list[str]) -> bool | None:
    if any(_ATTENTION.match(name) for name in names):
        return True
    if not any(_FUSED.match(name) for name in names):
        return False
    return None if any(_RECURRENT.match(name) for name in names) else True


def _per_layer(value: Any, layers: int, attends: list[bool | None]) -> Counts:
    """One count per layer, from the one count or the list of counts that the header gives."""
    if isinstance(value, list):
        counts = tuple(_whole(v) for v in value)
        return counts if len(counts) == layers else ()
    count = _whole(value)
    if count is None:
        return ()
    if count == 0 or all(a is None for a in attends):
        return (count,) * layers
    return tuple(None if a is None else count if a else 0 for a in attends)


def _most(counts: Counts) -> int | None:
    return max((n for n in counts if n), default=None)


def _head_size(key_length: int | None, width: int | None, heads: Counts) -> int | None:
    """The header's, else width / heads, which the format defines where all layers with attention have as many heads."""
    different = {n for n in heads if n != 0}
    count = different.pop() if len(different) == 1 else None
    if key_length is None and width and count and width % count == 0:
        return width // count
    return key_length


def _vocabulary(header: Header, claimed: Any) -> int | None:
    """Size of the vocabulary: of the token list, else of the embedding matrix, else what the header claims."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, (list, LongArray)):
        return len(tokens)
    embedding: TensorInfo | None = next((t for t in header.tensors if t.name == "token_embd.weight"), None)
    if embedding is not None and len(embedding.shape) == 2:
        return embedding.shape[1]
    return _whole(claimed)
