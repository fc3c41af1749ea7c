"""Writes tiny GGUF files of architectures that are not in the zoo: random numbers, no reference, the right shapes.

In: `MORE`, the header values of each architecture that differ from `COMMON`, and `more.json`, the shapes of its
tensors. Out: `write(name, path)`, a file of at most a megabyte that llama.cpp loads.

The shapes come from llama.cpp itself: `python tests/data/make_more.py NAME…` offers it a file without tensors, and
adds what it says is missing, in the shape that it says it expected, until it is content. A new architecture is thus
one entry in `MORE` and one such call.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np

SHAPES = Path(__file__).with_name("more.json")
TOKENS = 288
COMMON: dict[str, Any] = {
    "context_length": 512,
    "embedding_length": 64,
    "block_count": 3,
    "feed_forward_length": 96,
    "vocab_size": TOKENS,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-5,
}
HEAD_SIZE = {"attention.key_length": 16, "attention.value_length": 16, "rope.dimension_count": 16}
EXPERTS = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32}
SHARED = {"expert_shared_count": 1, "expert_shared_feed_forward_length": 32}
SSM = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 128,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 1,
}
ALL_KV = {"attention.head_count_kv": 4}
WINDOW = {"attention.sliding_window": 8}
LATENT = {
    **EXPERTS,
    **SHARED,
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": 32,
    "attention.kv_lora_rank": 24,
    "attention.key_length": 32,
    "attention.value_length": 24,
    "attention.key_length_mla": 24,
    "attention.value_length_mla": 16,
    "rope.dimension_count": 8,
    "leading_dense_block_count": 1,
    "expert_gating_func": 2,
}
INDEXER = {"attention.indexer.head_count": 4, "attention.indexer.key_length": 64, "attention.indexer.top_k": 8}
MORE: dict[str, dict[str, Any]] = {
    # parallel attention and MLP
    "gptneox": {**ALL_KV, "use_parallel_residual": True, "rope.dimension_count": 8},
    "gptneox+serial": {**ALL_KV, "use_parallel_residual": False, "rope.dimension_count": 8},
    "phi2": {**ALL_KV, "rope.dimension_count": 8},
    "falcon": {"attention.head_count_kv": 1},
    "command-r": {"logit_scale": 0.5},
    "cohere2": {**WINDOW, "logit_scale": 0.5, "block_count": 4},
    "stablelm": {"rope.dimension_count": 8},
    "plamo": {},
    # plain, each with a turn of its own
    "phi3": {**WINDOW, "rope.scaling.original_context_length": 512},
    "starcoder2": {},
    "starcoder": {"attention.head_count_kv": 1},
    "bloom": ALL_KV,
    "jais": ALL_KV,
    "baichuan": ALL_KV,
    "gemma": {**HEAD_SIZE, "attention.head_count_kv": 1},
    "granite": {"logit_scale": 2.0, "residual_scale": 0.3, "embedding_scale": 4.0, "attention.scale": 0.3},
    "nemotron": {"rope.dimension_count": 8},
    "arcee": {},
    "smollm3": {"block_count": 4},
    "olmo": {**ALL_KV, "attention.clamp_kqv": 8.0},
    "codeshell": {},
    "chatglm": {"rope.dimension_count": 8},
    "qwen": {**ALL_KV, "feed_forward_length": 192},
    "qwen2vl": {"rope.dimension_sections": [2, 3, 3, 0]},
    "bitnet": {},
    "hunyuan-dense": HEAD_SIZE,
    "apertus": {
        "xielu.alpha_n": [0.8] * 3,
        "xielu.alpha_p": [0.8] * 3,
        "xielu.beta": [0.5] * 3,
        "xielu.eps": [-1e-6] * 3,
    },
    "plm": {
        **ALL_KV,
        "attention.kv_lora_rank": 24,
        "attention.key_length": 24,
        "attention.value_length": 16,
        "rope.dimension_count": 8,
    },
    "minicpm3": {
        **ALL_KV,
        "attention.q_lora_rank": 32,
        "attention.kv_lora_rank": 24,
        "attention.key_length": 24,
        "attention.value_length": 16,
        "rope.dimension_count": 8,
    },
    # norms after attention and MLP
    "olmo2": ALL_KV,
    "olmo2+window": {**ALL_KV, **WINDOW, "block_count": 4},
    "glm4": {"rope.dimension_count": 8},
    "exaone4": {**WINDOW, **HEAD_SIZE, "block_count": 4},
    "plamo3": {**WINDOW, **HEAD_SIZE, "attention.sliding_window_pattern": 2},
    # several streams, inputs per layer
    "gemma3n": {
        **WINDOW,
        **HEAD_SIZE,
        "feed_forward_length": 32,
        "embedding_length_per_layer_input": 16,
        "block_count": 5,
        "attention.sliding_window_pattern": [True, True, True, True, False],
    },
    "gemma4": {
        **WINDOW,
        **HEAD_SIZE,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "attention.key_length_swa": 16,
        "attention.value_length_swa": 16,
        "rope.dimension_count": 32,
        "rope.dimension_count_swa": 16,
        "embedding_length_per_layer_input": 16,
        "attention.shared_kv_layers": 2,
        "block_count": 5,
        "attention.sliding_window_pattern": [True, True, False, True, False],
        "final_logit_softcapping": 30.0,
    },
    # experts
    "llama+experts": EXPERTS,
    "granitemoe": {**EXPERTS, "logit_scale": 2.0, "residual_scale": 0.3, "attention.scale": 0.3},
    "qwen2moe": {**EXPERTS, **SHARED},
    "olmoe": {**EXPERTS, "feed_forward_length": 32, **ALL_KV},
    "phimoe": {**EXPERTS, "feed_forward_length": 32, **WINDOW, "rope.scaling.original_context_length": 512},
    "dbrx": {**EXPERTS, "feed_forward_length": 32, "attention.clamp_kqv": 8.0},
    "arctic": {**EXPERTS, "feed_forward_length": 32},
    "grok": {**EXPERTS, **HEAD_SIZE},
    "deepseek": {**EXPERTS, **SHARED, **ALL_KV, "leading_dense_block_count": 1, "expert_weights_scale": 1.0},
    "dots1": {**EXPERTS, **SHARED, **ALL_KV, "leading_dense_block_count": 1, "expert_gating_func": 2},
    "glm4moe": {**EXPERTS, **SHARED, "leading_dense_block_count": 1, "rope.dimension_count": 8},
    "glm4moe+next": {
        **EXPERTS,
        **SHARED,
        "leading_dense_block_count": 1,
        "rope.dimension_count": 8,
        "block_count": 4,
        "nextn_predict_layers": 1,
    },
    "ernie4_5-moe": {**EXPERTS, **SHARED, "leading_dense_block_count": 1, "interleave_moe_layer_step": 1},
    "bailingmoe": {**EXPERTS, **SHARED, "leading_dense_block_count": 0, "expert_weights_scale": 1.0},
    "bailingmoe2": {
        **EXPERTS,
        **SHARED,
        "leading_dense_block_count": 1,
        "expert_weights_scale": 1.0,
        "expert_gating_func": 2,
    },
    "hunyuan-moe": {**EXPERTS, "feed_forward_length": 32, **SHARED},
    "llama4": {**EXPERTS, **HEAD_SIZE, "interleave_moe_layer_step": 2, "block_count": 4},
    "smallthinker": {**EXPERTS, **WINDOW, "block_count": 4, "expert_gating_func": 2},
    "grovemoe": {
        **EXPERTS,
        **HEAD_SIZE,
        "expert_chunk_feed_forward_length": 32,
        "expert_group_scale": 0.05,
        "experts_per_group": 2,
    },
    "minimax-m2": {**EXPERTS, "feed_forward_length": 32, **HEAD_SIZE, "expert_gating_func": 2},
    "afmoe": {
        **EXPERTS,
        **SHARED,
        **WINDOW,
        **HEAD_SIZE,
        "leading_dense_block_count": 1,
        "block_count": 4,
        "expert_gating_func": 2,
    },
    "mimo2": {
        **EXPERTS,
        **WINDOW,
        "attention.key_length": 24,
        "attention.value_length": 16,
        "attention.key_length_swa": 24,
        "attention.value_length_swa": 16,
        "rope.dimension_count": 8,
        "rope.dimension_count_swa": 8,
        "attention.sliding_window_pattern": [False, True, True],
        "expert_gating_func": 2,
        "attention.head_count_kv": [1, 2, 2],
    },
    "exaone-moe": {
        **EXPERTS,
        **SHARED,
        **WINDOW,
        **HEAD_SIZE,
        "leading_dense_block_count": 1,
        "block_count": 4,
        "attention.sliding_window_pattern": 4,
        "expert_gating_func": 2,
    },
    # newer than the gguf package
    "nanbeige": {"block_count": 2, "num_loops": 2},
    "hrm_text": {"block_count": 12, "hrm.layers_per_stack": 2, "hrm.h_cycles": 2, "hrm.l_cycles": 2},
    "talkie": {**HEAD_SIZE, "logit_scale": 0.5},
    "mellum": {**EXPERTS, **HEAD_SIZE, **WINDOW, "attention.sliding_window_pattern": [True, True, False]},
    "muse-glimmer": {**HEAD_SIZE, **WINDOW, "logit_scale": 0.5, "block_count": 5},
    "spark2_5": {**HEAD_SIZE, **WINDOW, "attention.sliding_window_pattern": [True, False, True]},
    "granite_swa": {
        **WINDOW,
        "logit_scale": 2.0,
        "residual_scale": 0.3,
        "attention.scale": 0.3,
        "attention.sliding_window_pattern": [True, False, True],
    },
    "hy_v3": {**EXPERTS, **SHARED, **HEAD_SIZE, "leading_dense_block_count": 1, "expert_gating_func": 2},
    "laguna": {
        **EXPERTS,
        **SHARED,
        **HEAD_SIZE,
        "leading_dense_block_count": 1,
        "expert_gating_func": 2,
        "attention.head_count": [4, 6, 4],
    },
    "maple": {
        **EXPERTS,
        **HEAD_SIZE,
        **WINDOW,
        "attention.sliding_window_pattern": [True, False, True],
        "swiglu_clamp_exp": [7.0] * 3,
    },
    "cohere2moe": {
        **EXPERTS,
        **WINDOW,
        "block_count": 4,
        "logit_scale": 0.5,
        "leading_dense_block_count": 1,
    },
    "step35": {
        **EXPERTS,
        **SHARED,
        **HEAD_SIZE,
        **WINDOW,
        "leading_dense_block_count": 1,
        "expert_gating_func": 2,
        "attention.head_count": [4, 6, 4],
        "attention.sliding_window_pattern": [False, True, True],
    },
    "minimax-01": {
        **EXPERTS,
        "feed_forward_length": 32,
        **HEAD_SIZE,
        "block_count": 4,
        "residual_scale": 2.0,
        "full_attention_interval": 4,
        "attention.recurrent_layers": [True, True, True, False],
    },
    "qwen35moe": {
        **SSM,
        **EXPERTS,
        **SHARED,
        **HEAD_SIZE,
        "block_count": 4,
        "ssm.inner_size": 64,
        "ssm.group_count": 2,
        "rope.dimension_count": 8,
        "rope.dimension_sections": [2, 1, 1, 0],
    },
    "deepseek32": {**LATENT, **INDEXER},
    "glm-dsa": {**LATENT, **INDEXER},
    "minimax-m3": {
        **EXPERTS,
        **SHARED,
        **HEAD_SIZE,
        **INDEXER,
        "attention.indexer.head_count": 2,
        "leading_dense_block_count": 1,
        "expert_gating_func": 2,
        "attention.indexer.block_size": 4,
        "attention.indexer.local_blocks": 1,
    },
    "deepseek4": {
        **LATENT,
        **INDEXER,
        **WINDOW,
        "attention.key_length": 32,
        "attention.value_length": 32,
        "rope.dimension_count": 16,
        "attention.output_group_count": 2,
        "attention.output_lora_rank": 16,
        "attention.compress_rope_freq_base": 10000.0,
        "attention.compress_ratios": [0, 4, 0],
        "hyper_connection.count": 4,
        "hyper_connection.sinkhorn_iterations": 2,
        "hyper_connection.epsilon": 1e-6,
        "hash_layer_count": 0,
        "expert_weights_scale": 1.0,
        "expert_weights_norm": True,
        "expert_gating_func": 4,
        "swiglu_clamp_exp": [7.0] * 3,
    },
    # heads per layer, layers without attention
    "openelm": {
        "attention.head_count": [4, 6, 8],
        "attention.head_count_kv": [1, 2, 2],
        "feed_forward_length": [64, 96, 128],
        **HEAD_SIZE,
    },
    "deci": {
        "block_count": 4,
        "attention.head_count": [4, 0, 4, 4],
        "attention.head_count_kv": [2, 0, 1, 2],
        "feed_forward_length": [96, 64, 0, 96],
        **HEAD_SIZE,
    },
    "deci+linear": {
        "block_count": 3,
        "attention.head_count": [4, 4, 4],
        "attention.head_count_kv": [2, 0, 1],
        "feed_forward_length": [96, 64, 96],
        **HEAD_SIZE,
    },
    # recurrent, and hybrids
    "mamba2": {**SSM, "attention.head_count": 0, "attention.head_count_kv": 0, "feed_forward_length": 0},
    "jamba": {**SSM, **EXPERTS, "feed_forward_length": 32, "block_count": 4, "attention.head_count_kv": [0, 2, 0, 2]},
    "falcon-h1": {**SSM, **HEAD_SIZE},
    "nemotron_h": {
        **SSM,
        **HEAD_SIZE,
        "block_count": 5,
        "attention.head_count": 4,
        "attention.head_count_kv": [0, 0, 2, 0, 0],
        "feed_forward_length": [0, 96, 0, 0, 96],
    },
    "nemotron_h_moe": {
        **SSM,
        **HEAD_SIZE,
        **EXPERTS,
        **SHARED,
        "block_count": 4,
        "attention.head_count_kv": [0, 0, 2, 0],
        "feed_forward_length": [0, 96, 0, 96],
    },
    "plamo2": {**SSM, **HEAD_SIZE, "block_count": 4, "attention.head_count_kv": [0, 2, 0, 2], "ssm.group_count": 0},
    "granitehybrid": {**SSM, "block_count": 4, "attention.head_count_kv": [0, 2, 0, 2], "residual_scale": 0.5},
    "granitehybrid+experts": {
        **SSM,
        **EXPERTS,
        "feed_forward_length": 32,
        "block_count": 3,
        "attention.head_count_kv": [0, 2, 0],
    },
    "rwkv6": {
        "wkv.head_size": 32,
        "time_mix_extra_dim": 8,
        "time_decay_extra_dim": 8,
        "rescale_every_n_layers": 2,
        "attention.head_count": 0,
        "attention.head_count_kv": None,
    },
    "rwkv7": {
        "wkv.head_size": 32,
        "attention.decay_lora_rank": 8,
        "attention.iclr_lora_rank": 8,
        "attention.value_residual_mix_lora_rank": 8,
        "attention.gate_lora_rank": 8,
        "attention.head_count": 0,
    },
    "rwkv6qwen2": {
        "wkv.head_size": 32,
        "time_mix_extra_dim": 8,
        "time_decay_extra_dim": 8,
        "token_shift_count": 1,
        "attention.head_count": 0,
    },
    "arwkv7": {
        "wkv.head_size": 32,
        "attention.decay_lora_rank": 8,
        "attention.iclr_lora_rank": 8,
        "attention.value_residual_mix_lora_rank": 8,
        "token_shift_count": 1,
        "attention.head_count": 0,
    },
    "qwen3next": {
        **SSM,
        **EXPERTS,
        **SHARED,
        **HEAD_SIZE,
        "block_count": 4,
        "ssm.inner_size": 64,
        "ssm.group_count": 2,
        "rope.dimension_count": 8,
    },
    "qwen35": {
        **SSM,
        **HEAD_SIZE,
        "block_count": 4,
        "ssm.inner_size": 64,
        "ssm.group_count": 2,
        "rope.dimension_count": 8,
        "rope.dimension_sections": [2, 1, 1, 0],
    },
    "lfm2moe": {
        **EXPERTS,
        "shortconv.l_cache": 3,
        "block_count": 3,
        "attention.head_count_kv": [0, 2, 0],
        "leading_dense_block_count": 1,
        "expert_gating_func": 2,
    },
    "kimi-linear": {
        **EXPERTS,
        **SHARED,
        "block_count": 4,
        "attention.head_count_kv": [0, 1, 0, 1],
        "ssm.conv_kernel": 4,
        "kda.head_dim": 16,
        "attention.kv_lora_rank": 24,
        "attention.key_length": 32,
        "attention.value_length": 24,
        "attention.key_length_mla": 24,
        "attention.value_length_mla": 16,
        "rope.dimension_count": 8,
        "leading_dense_block_count": 1,
        "expert_weights_scale": 1.0,
        "expert_gating_func": 2,
    },
    # no causal mask
    "modern-bert": {**ALL_KV, **WINDOW, "attention.causal": False, "attention.sliding_window_pattern": 3},
    "nomic-bert": {**ALL_KV, "attention.causal": False},
    "nomic-bert+mean": {**ALL_KV, "attention.causal": False, "pooling_type": 1},
    "nomic-bert-moe": {**ALL_KV, **EXPERTS, "attention.causal": False, "moe_every_n_layers": 2},
    "jina-bert-v2": {**ALL_KV, "attention.causal": False},
    "jina-bert-v3": {**ALL_KV, "attention.causal": False},
    "neo-bert": {**ALL_KV, "attention.causal": False},
    "eurobert": {"attention.causal": False},
    "llama-embed": {"attention.causal": False},
    "gemma-embedding": {
        **WINDOW,
        "block_count": 6,
        **HEAD_SIZE,
        "attention.causal": False,
        "attention.head_count_kv": 1,
    },
    "dream": {"attention.causal": False},
    "llada": {"attention.causal": False},
    "llada-moe": {**EXPERTS, "attention.causal": False},
    "rnd1": {**EXPERTS, **HEAD_SIZE, "attention.causal": False},
    "t5encoder": {**ALL_KV, "attention.causal": False, "attention.relative_buckets_count": 32},
    # latent attention
    "mistral4": {**LATENT, "expert_gating_func": 1},
}
TYPES = {"tokenizer.ggml.token_type_count": 2}
MORE["gemma4+unscaled"] = MORE["gemma4"]
for _name in ("nomic-bert", "nomic-bert+mean", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3"):
    MORE[_name] = {**MORE[_name], **TYPES}


def _of(layers: tuple[int, ...], parts: str) -> list[str]:
    return [f"blk.{layer}.ffn_{part}.weight" for layer in layers for part in parts.split()]


def _dense(*layers: int) -> list[str]:
    return _of(layers, "gate up down")


def _experts(*layers: int) -> list[str]:
    return _of(layers, "gate_inp gate_exps up_exps down_exps")


def _shared(*layers: int) -> list[str]:
    return _of(layers, "gate_shexp up_shexp down_shexp")


# Tensors that llama.cpp does not miss, or aborts without.
OPTIONAL: dict[str, list[str]] = {
    "phi3": ["blk.*.attn_qkv.weight"],
    "rwkv6": ["blk.*.time_mix_lerp_fused.weight"],
    "jina-bert-v2": ["blk.*.ffn_up.weight"],
    "t5encoder": ["enc.blk.0.attn_rel_b.weight"],
    "falcon-h1": ["blk.*.ssm_conv1d.bias", "blk.*.ssm_norm.weight"],
    "nemotron_h": ["blk.0.ssm_conv1d.bias", "blk.3.ssm_conv1d.bias"],
    "nemotron_h_moe": ["blk.0.ssm_conv1d.bias"],
    "granitehybrid": ["blk.0.ssm_conv1d.bias", "blk.2.ssm_conv1d.bias"],
    "granitehybrid+experts": [
        *("blk.0.ssm_conv1d.bias", "blk.2.ssm_conv1d.bias"),
        "blk.*.ffn_gate_exps.weight",
    ],
    "qwen3next": [f"blk.{layer}.attn_{part}.weight" for layer in range(3) for part in ("qkv", "gate")],
    "qwen35": [f"blk.{layer}.attn_{part}.weight" for layer in range(3) for part in ("qkv", "gate")],
    "glm-dsa": [
        f"blk.{layer}.indexer.{part}"
        for layer in range(3)
        for part in ("k_norm.weight", "k_norm.bias", "proj.weight", "attn_k.weight", "attn_q_b.weight")
    ],
    "qwen35moe": [f"blk.{layer}.attn_{part}.weight" for layer in range(3) for part in ("qkv", "gate")],
    "glm4moe+next": ["blk.0.attn_norm.weight"],
    "gemma4": ["blk.*.layer_output_scale.weight"],
    "jamba": [*_dense(0, 2), *_experts(1, 3)],
    "mimo2": [*_experts(1, 2), "blk.1.attn_sinks.weight", "blk.2.attn_sinks.weight"],
    "hy_v3": [*_dense(0), *_experts(1, 2), *_shared(1, 2)],
    "step35": [*_dense(0), *_experts(1, 2), *_shared(1, 2)],
    "granite_swa": ["blk.*.attn_sinks.weight"],
    "laguna": ["blk.0.attn_gate.weight", "blk.1.attn_gate.weight", "blk.2.attn_gate.weight"],
    "qwen": ["blk.*.attn_qkv.bias"],
    "qwen2vl": ["blk.*.attn_q.bias", "blk.*.attn_k.bias", "blk.*.attn_v.bias"],
    "olmoe": ["output.weight"],
}
# Where llama.cpp takes one of several shapes, or none.
GUESSED: dict[str, dict[str, list[int]]] = {
    "jina-bert-v2": {"blk.*.ffn_up.weight": [64, 192]},
    "rwkv6": {"blk.*.time_mix_lerp_fused.weight": [64, 1, 1, 5]},
    "laguna": {f"blk.{layer}.attn_gate.weight": [64, heads] for layer, heads in enumerate((4, 6, 4))},
}


def _bytes_as_characters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _architecture(name: str) -> str:
    """`falcon-h1+bias` is a second file of the architecture `falcon-h1`."""
    return name.partition("+")[0]


def _header(name: str, path: Path) -> gguf.GGUFWriter:
    architecture = _architecture(name)
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {**COMMON, **MORE[name]}.items():
        if value is not None:
            _set(writer, key if key.startswith(("tokenizer.", "xielu.")) else f"{architecture}.{key}", value)
    characters = _bytes_as_characters()
    merges = [(a, b) for a in characters[64:80] for b in characters[64:80]][: TOKENS - 259]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["<|pad|>", "<|bos|>", "<|end|>", *characters, *(a + b for a, b in merges)])
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (TOKENS - 3))
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    for add, token in ((writer.add_bos_token_id, 1), (writer.add_eos_token_id, 2), (writer.add_pad_token_id, 0)):
        add(token)
    writer.add_add_bos_token(True)
    return writer


def _set(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    adders: dict[type, Any] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    adders[type(value)](key, value)


# ------------------------------------------------------------------- numbers


def _numbers(random: np.random.Generator, name: str, shape: list[int]) -> np.ndarray[Any, Any]:
    """Random numbers that keep the stream near one and attention far from uniform. `shape` in ggml's order."""
    x = random.standard_normal(shape[::-1], dtype=np.float32)
    for pattern, make in _SIZES:
        if re.search(pattern, name):
            return np.asarray(make(x), np.float32)
    gain = 1.8 if re.search(r"attn_(q|k|qkv|q_b|k_b)\.weight", name) else 1.0
    return np.asarray(gain * x / np.sqrt(shape[0]), np.float32)


_SIZES: list[tuple[str, Any]] = [
    (r"rope_f", lambda x: 1 + 0 * x),
    (r"ssm_a(\.|$)", lambda x: -0.5 - np.abs(x)),
    (r"ssm_d(\.|$)", lambda x: 1 + 0.2 * x),
    (r"time_mix_(lerp|decay$|w0)", lambda x: 0.5 + 0.2 * x),
    (r"(norm|_ln)\d?(_exps)?\.weight|_norm$|layer_output_scale|router\.scale", lambda x: 1 + 0.2 * x),
    (r"bias$|scale$|_b$", lambda x: 0.2 * x),
    (r"token_embd\.|sinks", lambda x: x),
    (r"position_embd|token_types", lambda x: 0.5 * x),
    (r"^output\.", lambda x: 3 * x / np.sqrt(x.shape[-1])),
]


def tensors(name: str) -> dict[str, np.ndarray[Any, Any]]:
    """Every tensor of an architecture's file, with axes in NumPy's order; the same numbers at every call."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    shapes = _unfold(json.loads(SHAPES.read_text())[name])
    return {tensor: _numbers(random, tensor, shape) for tensor, shape in shapes.items()}


def write(name: str, path: Path) -> Path:
    """A file that llama.cpp loads.

    Parameters
    ----------
    name : str
        A key of `MORE`.
    path : Path
        Where to write.
    """
    writer = _header(name, path)
    for tensor, values in tensors(name).items():
        writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# ------------------------------------------------------- shapes, from llama.cpp


def discover(name: str, path: Path) -> dict[str, list[int]]:
    """Names and shapes of all tensors that llama.cpp asks for, by asking again and again."""
    shapes: dict[str, list[int]] = {
        tensor.replace("*", str(layer)): GUESSED.get(name, {}).get(tensor, [1])
        for tensor in OPTIONAL.get(name, [])
        for layer in range(MORE[name].get("block_count", COMMON["block_count"]) if "*" in tensor else 1)
    }
    while complaint := _complaint(_empty(name, path, shapes)):
        if found := re.search(r"missing tensor '([^']+)'|tensor '([^']+)' not found", complaint):
            shapes[found[1] or found[2]] = [1]
        elif found := re.search(r"tensor '([^']+)' has wrong shape; expected ([\d, ]+), got", complaint):
            shapes[found[1]] = [int(n) for n in found[2].split(",")]
        else:
            raise SystemExit(f"{name}: {complaint}")
    return shapes


def _empty(name: str, path: Path, shapes: dict[str, list[int]]) -> Path:
    """A file with these tensors, whose numbers are holes that take no room."""
    writer = _header(name, path)
    for tensor, shape in shapes.items():
        writer.add_tensor_info(tensor, shape[::-1], np.dtype(np.float32), 4 * int(np.prod(shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + sum(4 * int(np.prod(shape)) + 64 for shape in shapes.values()))
    return path


def _complaint(path: Path) -> str | None:
    """What llama.cpp says against a file; None if it loads it."""
    import llama_cpp.llama_cpp as native

    lines: list[str] = []
    log = native.llama_log_callback(lambda level, text, data: lines.append(text.decode()))
    native.llama_log_set(log, None)
    parameters = native.llama_model_default_params()
    model = native.llama_model_load_from_file(str(path).encode(), parameters)
    if model:
        native.llama_model_free(model)
        return None
    said = [line for line in lines if "error loading model" in line]
    return said[0].strip() if said else "".join(lines[-3:])


def _fold(shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    """One entry for what all layers share: ``blk.*.attn_q.weight``."""
    layers = len({tensor.split(".")[1] for tensor in shapes if tensor.startswith("blk.")})
    folded: dict[str, list[int]] = {"layers": [layers]}
    for tensor, shape in shapes.items():
        shared = re.sub(r"^blk\.\d+", "blk.*", tensor)
        same = [t for t, s in shapes.items() if re.sub(r"^blk\.\d+", "blk.*", t) == shared and s == shape]
        folded[shared if len(same) == layers and shared != tensor else tensor] = shape
    return folded


def _unfold(folded: dict[str, list[int]]) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for tensor, shape in folded.items():
        if tensor.startswith("blk.*"):
            shapes |= {tensor.replace("*", str(layer)): shape for layer in range(folded["layers"][0])}
        elif tensor != "layers":
            shapes[tensor] = shape
    return shapes


def main(names: list[str]) -> None:
    """Find the shapes of these architectures and store them."""
    stored = json.loads(SHAPES.read_text())
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            stored[name] = _fold(discover(name, Path(folder) / "empty.gguf"))
    lines = [f"{json.dumps(name)}: {json.dumps(stored[name])}" for name in sorted(stored) if name in MORE]
    SHAPES.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
