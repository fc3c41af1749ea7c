#!/usr/bin/env python3
"""Reference arrays for the lens, the contributions and the sampler, computed with Hugging Face transformers.

In: the models of zoo/make_zoo.py (made anew; their files must come out as they lie in zoo/models), one file of
make_more.py with a parallel residual, the GGUF files of SmolLM2-135M (Q4_1) and Gemma 3 270M (Q4_K_M). Out, in lens/:

  NAME.npz   ids (n,) int32 · positions (p,) int32, where the lens is read
             words (rows, p, 5) int32, probabilities (rows, p, 5) float32, entropy (rows, p) float32: rows are the
             embedding and the stream after every layer, through the model's own final norm and output
             final (p,) int32, what the model says · final_probability (rows, p) float32
             token, logit: the likeliest word after the last token, its logit before any soft cap
             embedding (), head (layers, heads), attention (layers,), mlp (layers,), bias (): float64, what they add to
             that logit, the final norm frozen; there is no head where what they add is normed before it is added
             logits (vocab,) float32 after the last token; those of the real models lie in ../NAME.npz already
             ids_i int32, shares_i float32, count_i: what setting i of SETTINGS leaves of these logits (the 200
             likeliest), and how many tokens are left

Run:  python make_lens.py --smollm2 FILE.gguf --gemma3 FILE.gguf
Needs: torch, transformers, gguf, accelerate, numpy, regex. Deterministic for a given torch.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers as hf

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "zoo")]
import make_more  # noqa: E402
import make_references  # noqa: E402
import make_zoo  # noqa: E402

OUT, TOP = HERE / "lens", 5
ZOO = ["llama", "qwen2", "gemma2", "gpt2", "mpt", "qwen3moe", "gpt_oss"]
SETTINGS = [
    {"top_k": 40},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"typical_p": 0.7},
    {"temperature": 0.5},
    {"repeat_penalty": 1.3},
    {"top_k": 50, "typical_p": 0.9, "top_p": 0.9, "min_p": 0.02, "temperature": 0.8, "repeat_penalty": 1.1},
]


# ------------------------------------------------------------------ what a model is made of


def parts_of(model):
    """Its layers, final norm and output; of each layer what its heads enter and what attention and MLP add."""
    inner = getattr(model, "model", None) or model.transformer
    layers = getattr(inner, "layers", None) or getattr(inner, "h", None) or inner.blocks
    norm = getattr(inner, "norm", None) or getattr(inner, "ln_f", None) or inner.norm_f
    found = []
    for layer in layers:
        attention = getattr(layer, "self_attn", None) or layer.attn
        output = getattr(attention, "o_proj", None) or getattr(attention, "c_proj", None) or attention.out_proj
        mlp = getattr(layer, "mlp", None) or layer.ffn
        normed = getattr(layer, "post_feedforward_layernorm", None)
        if normed is not None:
            found.append((output, layer.post_attention_layernorm, normed))
        else:  # MPT's MLP gives back the stream that it has added to
            found.append((output, output, mlp.down_proj if type(layer).__name__ == "MptBlock" else mlp))
    return layers, norm, model.get_output_embeddings(), found


@torch.no_grad()
def taken(model, ids):
    """The stream (rows, n, width) from the embedding on; per layer the heads' values, what attention and MLP add."""
    layers, norm, _, parts = parts_of(model)
    streams, values, attention, mlp, ends = [], [], [], [], []
    first = make_zoo.first
    hooks = [layers[0].register_forward_pre_hook(
        lambda m, a, k: streams.append(a[0] if a else k["hidden_states"]), with_kwargs=True)]  # fmt: skip
    for layer, (output, after, ffn) in zip(layers, parts, strict=True):
        hooks.append(output.register_forward_pre_hook(lambda m, a: values.append(a[0])))
        hooks.append(after.register_forward_hook(lambda m, a, o: attention.append(first(o))))
        hooks.append(ffn.register_forward_hook(lambda m, a, o: mlp.append(first(o))))
        hooks.append(layer.register_forward_hook(lambda m, a, o: streams.append(first(o))))
    hooks.append(norm.register_forward_hook(lambda m, a, o: ends.append(o)))
    logits = model(torch.tensor([ids]), use_cache=False).logits[0].double()
    for hook in hooks:
        hook.remove()
    flat = lambda tensors: [t.reshape(len(ids), -1).double() for t in tensors]  # noqa: E731
    return torch.stack(flat(streams)), flat(values), flat(attention), flat(mlp), logits


# -------------------------------------------------------------------------- lens


@torch.no_grad()
def lens(model, streams, logits, positions):
    """What the model would say after each layer; its last row must be what it says."""
    _, norm, matrix, _ = parts_of(model)
    said = torch.stack([after_matrix(model, matrix(norm(row[positions].float()))).double() for row in streams])
    assert (said[-1] - logits[positions]).abs().max() < 1e-3
    shares = said.softmax(-1)
    top = shares.topk(TOP)
    final = said[-1].argmax(-1)
    entropy = -(shares * shares.clamp_min(1e-300).log()).sum(-1)
    of_final = shares.gather(-1, final.expand(len(said), -1)[..., None])[..., 0]
    return {
        "positions": np.array(positions, np.int32),
        "words": top.indices.numpy().astype(np.int32),
        "probabilities": top.values.numpy().astype(np.float32),
        "entropy": entropy.numpy().astype(np.float32),
        "final": final.numpy().astype(np.int32),
        "final_probability": of_final.numpy().astype(np.float32),
    }


def after_matrix(model, logits):
    """What scales or caps the logits."""
    cap, scale = getattr(model.config, "final_logit_softcapping", None), getattr(model.config, "logit_scale", None)
    logits = logits * scale if isinstance(scale, float) else logits
    return torch.tanh(logits / cap) * cap if cap else logits


# ----------------------------------------------------------------- contributions


@torch.no_grad()
def contributions(model, streams, values, attention, mlp, token):
    """What every part adds to the logit of a word after the last token, the final norm frozen there."""
    _, norm, matrix, parts = parts_of(model)
    end = streams[-1, -1]
    centred = "LayerNorm" in type(norm).__name__
    bias = norm.bias.double() if getattr(norm, "bias", None) is not None else torch.zeros_like(end)
    middle = (lambda x: x - x.mean(-1, keepdim=True)) if centred else (lambda x: x)
    frozen = (norm(end.float()).double() - bias) / middle(end)
    scale = getattr(model.config, "logit_scale", None)
    row = matrix.weight[token].double() * (scale if isinstance(scale, float) else 1.0)
    adds = lambda part: float(row @ (middle(part) * frozen))  # noqa: E731
    found = {
        "embedding": adds(streams[0, -1]),
        "attention": np.array([adds(part[-1]) for part in attention]),
        "mlp": np.array([adds(part[-1]) for part in mlp]),
    }
    constant = float(row @ bias) + (float(matrix.bias[token]) if getattr(matrix, "bias", None) is not None else 0.0)
    found |= {"bias": constant, "token": token}
    found["logit"] = found["embedding"] + found["attention"].sum() + found["mlp"].sum() + constant
    if parts[0][0] is parts[0][1]:  # what the heads' output adds is added as it is
        heads = model.config.num_attention_heads
        rows = []
        for (output, _, _), value in zip(parts, values, strict=True):
            weight = output.weight.double() if type(output).__name__ != "Conv1D" else output.weight.double().T
            size = value.shape[-1] // heads
            spans = [slice(h * size, (h + 1) * size) for h in range(heads)]
            rows.append([adds(weight[:, span] @ value[-1, span]) for span in spans])
        found["head"] = np.array(rows)
    return found


def write(name, model, ids, positions):
    """One model's file."""
    streams, values, attention, mlp, logits = taken(model, ids)
    found = lens(model, streams, logits, positions)
    found |= contributions(model, streams, values, attention, mlp, int(logits[-1].argmax()))
    cap = getattr(model.config, "final_logit_softcapping", None)
    said = cap * np.tanh(found["logit"] / cap) if cap else found["logit"]
    assert abs(said - float(logits[-1].max())) < 1e-3, "the parts do not add up to the logit"
    if (path := HERE / f"{name}.npz").exists():
        last = np.load(path)["logits"].astype(np.float32)
    else:
        last = found["logits"] = logits[-1].float().numpy()
    for i, setting in enumerate(SETTINGS):
        found |= sampled(i, last, ids, setting)
    np.savez_compressed(OUT / f"{name}.npz", ids=np.array(ids, np.int32), **found)
    print(f"{name:14} {(OUT / f'{name}.npz').stat().st_size / 1e3:.0f} KB")


# --------------------------------------------------------------------- the models


def zoo_models():
    """Name, model and prompt of every model of ZOO; the file it is written to is the one that the suite reads."""
    made = []
    make_zoo.reference = lambda name, model, layers, ids=make_zoo.IDS, **_: made.append((name, model, ids))
    with tempfile.TemporaryDirectory() as folder:
        make_zoo.MODELS = Path(folder)
        for name in ZOO:
            make_zoo.ZOO[name.replace("_", "-")]()
            file = f"{made[-1][0]}.gguf"
            assert (Path(folder) / file).read_bytes() == (HERE / "zoo" / "models" / file).read_bytes(), file
    return made


@torch.no_grad()
def command_r():
    """Attention and MLP side by side, the logits scaled: make_more's `command-r` with its own numbers."""
    own = {name: torch.from_numpy(values) for name, values in make_more.tensors("command-r").items()}
    common = make_more.COMMON
    model = hf.CohereForCausalLM(hf.CohereConfig(
        vocab_size=make_more.TOKENS, hidden_size=common["embedding_length"], num_hidden_layers=common["block_count"],
        intermediate_size=common["feed_forward_length"], num_attention_heads=common["attention.head_count"],
        num_key_value_heads=common["attention.head_count_kv"], max_position_embeddings=common["context_length"],
        layer_norm_eps=common["attention.layer_norm_epsilon"], logit_scale=make_more.MORE["command-r"]["logit_scale"],
        use_qk_norm=False, tie_word_embeddings=True, attn_implementation="eager",
        pad_token_id=0, bos_token_id=1, eos_token_id=2, rope_parameters=make_zoo.rope())).float().eval()  # fmt: skip
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm"}  # fmt: skip
    model.model.embed_tokens.weight.copy_(own["token_embd.weight"])
    model.model.norm.weight.copy_(own["output_norm.weight"])
    for i, layer in enumerate(model.model.layers):
        for theirs, ours in names.items():
            layer.get_submodule(theirs).weight.copy_(own[f"blk.{i}.{ours}.weight"])
    return model


# ---------------------------------------------------------------------- sampler


def sampled(i, logits, before, setting):
    """What transformers' own processors leave, in the order of llama.cpp's chain."""
    made = {
        "repeat_penalty": lambda x: hf.RepetitionPenaltyLogitsProcessor(x),
        "top_k": lambda x: hf.TopKLogitsWarper(x),
        "typical_p": lambda x: hf.TypicalLogitsWarper(x),
        "top_p": lambda x: hf.TopPLogitsWarper(x),
        "min_p": lambda x: hf.MinPLogitsWarper(x),
        "temperature": lambda x: hf.TemperatureLogitsWarper(x),
    }
    scores = torch.tensor(logits)[None]
    for name, processor in made.items():
        if name in setting:
            scores = processor(setting[name])(torch.tensor([before]), scores)
    shares = scores[0].double().softmax(-1)
    ids = torch.nonzero(torch.isfinite(scores[0]))[:, 0]
    best = ids[shares[ids].argsort(descending=True, stable=True)][:200]
    own = {"ids": best.numpy().astype(np.int32), "shares": shares[best].float().numpy(), "count": len(ids)}
    return {f"{key}_{i}": value for key, value in own.items()}


def main(files):
    """Write all of them."""
    OUT.mkdir(exist_ok=True)
    for name, model, ids in zoo_models():
        write(f"zoo-{name}", model, ids, [0, 7, 15, len(ids) - 1])
    ids = [1, *np.random.default_rng(7).integers(3, make_more.TOKENS, 23).tolist()]
    write("command-r", command_r(), ids, [0, 7, 15, len(ids) - 1])
    for name, file in files.items():
        model, tokenizer = make_references.load(file)
        ids = tokenizer(make_references.SHORT)["input_ids"]
        write(name, model, ids, [4, 16, len(ids) - 1])


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for model_name in ("smollm2", "gemma3"):
        arguments.add_argument(f"--{model_name}", type=Path, metavar="FILE.gguf", required=True)
    main({name: file.resolve() for name, file in vars(arguments.parse_args()).items()})
