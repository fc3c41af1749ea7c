"""`ModelInfo`: what the header says, layer by layer; what it does not say is None."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamatelemetry_widget.models.info import model_info

from . import make

ZOO = Path(__file__).parents[1] / "data" / "zoo" / "models"


def info_of(folder: Path, data: bytes):
    path = folder / "model.gguf"
    path.write_bytes(data)
    return model_info(path)


def layers(folder: Path, tensors: dict[str, list[str]] | None = None, **metadata):
    """A model whose layers have these tensors."""
    table = [
        (f"{layer}.{name}.weight", (32, 32), 0, 4096) for layer, names in (tensors or {}).items() for name in names
    ]
    return info_of(folder, make.gguf({"general.architecture": "llama", **metadata}, table))


def test_smollm2_as_its_card_says(smollm2_path):
    info = model_info(smollm2_path)
    assert (info.name, info.architecture, info.quant_type) == ("SmolLM2-135M-Instruct", "llama", "Q4_1")
    assert info.heads_per_layer == (9,) * 30 and info.kv_heads_per_layer == (3,) * 30
    assert (info.n_layers, info.n_heads, info.n_kv_heads, info.head_size, info.width) == (30, 9, 3, 64, 576)
    assert (info.vocab_size, info.context_length, info.sliding_window) == (49152, 8192, None)
    assert (info.n_parameters, info.n_bytes) == (134_515_008, 98_362_432)
    assert info.quant_type_counts == {"Q4_1": 210, "F32": 61, "Q8_0": 1}
    assert info.bits_per_weight == pytest.approx(5.7437, abs=1e-4)
    assert (info.tokenizer, info.has_chat_template, info.cannot_run) == ("gpt2", True, None)
    assert info.n_experts is None and info.n_experts_used is None and info.n_decoder_layers is None


def test_gemma3_as_its_card_says(gemma3_path):
    info = model_info(gemma3_path)
    assert (info.architecture, info.quant_type, info.sliding_window) == ("gemma3", "Q4_K_M", 512)
    assert (info.n_layers, info.n_heads, info.n_kv_heads, info.head_size, info.width) == (18, 4, 1, 256, 640)
    assert (info.vocab_size, info.context_length, info.bos_id) == (262144, 32768, 2)


@pytest.mark.parametrize(
    ("name", "heads", "kv_heads", "head_size"),
    [
        ("llama", (8,) * 4, (2,) * 4, 8),
        ("qwen3", (6,) * 3, (3,) * 3, 16),  # not width / heads
        ("gpt2", (4,) * 3, (4,) * 3, 16),  # fused q, k, v; no key_length: width / heads
        ("deepseek2", (4,) * 3, (1,) * 3, 32),  # latent attention: keys are kv_lora + rope
        ("mamba", (0,) * 3, (0,) * 3, None),
        ("lfm2", (0, 0, 4, 0, 4), (0, 0, 2, 0, 2), 16),
        ("bert", (4,) * 3, (4,) * 3, 16),
        ("t5", (4,) * 3, (4,) * 3, 16),
        ("moe-large", (48,) * 56, (8,) * 56, 128),
    ],
)
def test_heads_of_each_layer(name, heads, kv_heads, head_size):
    info = model_info(ZOO / f"{name}.gguf")
    assert (info.heads_per_layer, info.kv_heads_per_layer, info.head_size) == (heads, kv_heads, head_size)
    assert info.n_heads == (max(heads) or None) and info.n_kv_heads == (max(kv_heads) or None)


def test_an_encoder_decoder_has_layers_of_both_kinds():
    info = model_info(ZOO / "t5.gguf")
    assert (info.n_layers, info.n_decoder_layers) == (3, 2)


def test_experts_and_deep_models():
    info = model_info(ZOO / "deep.gguf")
    assert (info.n_layers, info.n_experts, info.n_experts_used) == (420, 2, 1)
    assert len(info.heads_per_layer) == 420
    assert sum(info.quant_type_counts.values()) == 5043


def test_a_split_set_is_one_model():
    info, whole = model_info(ZOO / "llama-split-00002-of-00003.gguf"), model_info(ZOO / "llama.gguf")
    assert info.path.name == "llama-split-00001-of-00003.gguf"
    assert info.name == "llama-split" and len(info.shards) == 3
    assert (info.n_parameters, info.bits_per_weight) == (whole.n_parameters, 32.0)


def test_what_the_header_does_not_say_is_none(tmp_path):
    info = info_of(tmp_path, make.gguf({}))
    assert info.name == "model" and info.heads_per_layer == () and info.n_parameters == 0
    unknown = [
        "architecture",
        "n_layers",
        "n_heads",
        "n_kv_heads",
        "head_size",
        "width",
        "vocab_size",
        "context_length",
    ]
    unknown += ["sliding_window", "n_experts", "quant_type", "bits_per_weight", "tokenizer", "bos_id", "eos_id"]
    assert {key: getattr(info, key) for key in unknown} == dict.fromkeys(unknown)


def test_values_of_the_wrong_kind_are_not_believed(tmp_path):
    wrong = {"llama.block_count": "two", "llama.embedding_length": make.Raw(6, bytes(4)), "general.name": 7}
    info = info_of(
        tmp_path, make.model(**wrong, **{"general.file_type": make.Raw(7, b"\1"), "llama.context_length": ""})
    )
    assert (info.n_layers, info.width, info.context_length, info.heads_per_layer) == (None, None, None, ())


def test_no_quant_type_is_guessed(tmp_path):
    assert info_of(tmp_path, make.model(**{"general.file_type": None})).quant_type is None
    assert info_of(tmp_path, make.model(**{"general.file_type": 1024 + 2})).quant_type is None  # the maker guessed


def test_one_count_for_all_layers_leaves_out_those_without_attention_tensors(tmp_path):
    tensors = {"blk.0": ["ssm_in"], "blk.1": ["attn_q", "attn_k", "attn_v"], "blk.2": ["attn_qkv"]}
    info = layers(tmp_path, tensors, **{"llama.block_count": 3, "llama.attention.head_count": 4})
    assert info.heads_per_layer == info.kv_heads_per_layer == (0, 4, 4)


def test_a_fused_projection_beside_a_state_space_is_left_open(tmp_path):
    tensors = {"blk.0": ["attn_qkv", "ssm_out"], "blk.1": ["attn_q", "ssm_out"]}
    info = layers(tmp_path, tensors, **{"llama.block_count": 2, "llama.attention.head_count": 4})
    assert info.heads_per_layer == (None, 4) and info.n_heads == 4


def test_counts_per_layer_are_taken_as_they_stand(tmp_path):
    counts = {"llama.attention.head_count": make.numbers([4, 8]), "llama.attention.head_count_kv": make.numbers([0, 2])}
    info = info_of(tmp_path, make.model(**counts))
    assert info.heads_per_layer == (0, 8) and info.kv_heads_per_layer == (0, 2) and info.n_heads == 8
    short = info_of(tmp_path, make.model(**{"llama.attention.head_count": make.numbers([4])}))
    assert short.heads_per_layer == () and short.n_heads is None


def test_head_size_of_layers_with_different_heads_is_not_guessed(tmp_path):
    info = info_of(tmp_path, make.model(**{"llama.attention.head_count": make.numbers([4, 8])}))
    assert info.head_size is None
    assert info_of(tmp_path, make.model()).head_size == 8


def test_layers_without_heads_need_no_count(tmp_path):
    info = layers(tmp_path, {"blk.0": ["time_mix_key"], "blk.1": ["time_mix_key"]}, **{"llama.block_count": 2})
    assert info.heads_per_layer == (0, 0) and info.n_heads is None


def test_the_vocabulary_is_the_token_list_before_the_embedding(tmp_path):
    assert info_of(tmp_path, make.model()).vocab_size == 8
    tokens = {"tokenizer.ggml.tokens": make.strings([f"t{i}" for i in range(2000)])}
    assert info_of(tmp_path, make.model(**tokens)).vocab_size == 2000
