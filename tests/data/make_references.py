#!/usr/bin/env python3
"""Reference arrays of two real models, computed by Hugging Face transformers from the very GGUF that llama.cpp runs.

In: the GGUF files of SmolLM2-135M (Q4_1) and Gemma 3 270M (Q4_K_M). Out, beside this script, per model:

  NAME.npz         a short prompt, everything
                   ids (n,) int32 · text () str · attn (layers, heads, n, n) float16 · logits (vocab,) float16, last row
                   hidden (chosen, n, width) float32, residual stream after each of hidden_layers (chosen,) int32
  NAME-long.npz    a prompt of N_LONG tokens (longer than Gemma's window of 512), chosen rows
                   ids (n,) int32 · text () str · rows (r,) int32 · attn (chosen, heads, r, n) float16 of attn_layers
                   hidden (chosen, r, width) float32 of hidden_layers · logits (vocab,) float16, last token

Attention is eager and float32; weights are dequantized, activations are not rounded (llama.cpp rounds them).

Run:  python make_references.py --smollm2 FILE.gguf --gemma3 FILE.gguf
Needs: torch, transformers, gguf, accelerate, numpy. Deterministic for a given torch.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import transformers as hf

HERE = Path(__file__).resolve().parent
N_LONG = 600
ROWS = [1, 2, 63, 64, 99, 100, 255, 256, 511, 512, 513, N_LONG - 1]  # both sides of every ubatch and window edge tested
LONG_LAYERS = {"smollm2": [0, 5, 16, 17, 29], "gemma3": [0, 4, 5, 11, 16, 17]}  # Gemma: 5, 11 and 17 see all tokens

SHORT = (
    "The old lighthouse keeper lit the lamp at dusk, while the sea was calm. "
    "Every night the old lighthouse keeper lit the"
)
LONG = """\
The harbour town of Vell had three bells, and each of them told the time in its own way. The first bell belonged to the
church and was always late. The second bell belonged to the school and was always early. The third bell hung in the
lighthouse, and the keeper rang it only when a ship came home. Nobody set a watch by the third bell, but everybody
listened for it.

The keeper kept a book. On the left page she wrote the weather: wind from the north-east, 4 knots, 11 degrees, clear;
wind from the south, 17 knots, 9 degrees, rain before noon. On the right page she wrote the ships: the Marigold, with
timber; the Old Patience, with salt and letters; the Second Thought, with nothing at all, because her captain had turned
round halfway. When a ship was overdue she drew a small empty box beside its name. When it came home she filled the box
with ink and rang the bell.

One winter the Marigold was nine days overdue. The wind came from the north-east, 40 knots, minus 2 degrees, snow. The
church bell was late, the school bell was early, and the third bell was silent. On the tenth day a boy climbed the 212
steps with bread, butter and a question. "What do you do," he asked, "when a box stays empty?"

"I look at the page before," said the keeper, "and at the page before that. Look: here the Old Patience was 6 days
overdue, and came home. Here the Second Thought was 14 days overdue, and came home with her sails in rags. Whoever reads
only the last line thinks that the sea takes everything. Whoever reads the whole book knows what the sea gives back."

The boy read the whole book. It took him until dusk. He counted 318 ships, 301 filled boxes, 16 empty boxes, and one
box that was half full, because the ship had come home without its cargo. Then he lit the lamp, as the keeper showed
him: first the wick, then the glass, then the lens; never the lens before the glass. The light went out over the water,
turned, and went out again.

Far away, where the snow was thick, somebody on the Marigold counted the seconds between two flashes. Seven, eight,
nine, ten. "That is Vell," he said. "The old lighthouse turns once in ten seconds; the new one at Harrow turns once in
six." The helmsman put the wheel over, and the Marigold, with timber, came round slowly towards the light.

In the morning the wind came from the south, 12 knots, 3 degrees, clear. The church bell was late. The school bell was
early. And the third bell, which nobody set a watch by, rang and rang, until the whole town of Vell stood on the quay,
and the keeper wrote on the right page of her book: the Marigold, with timber. Then she gave the boy the pen, and he
filled the box with ink.
"""


def load(path):
    """The model that transformers reads from a GGUF, and its tokenizer."""
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    model = hf.AutoModelForCausalLM.from_pretrained(**where, attn_implementation="eager", dtype=torch.float32)
    return model.eval(), hf.AutoTokenizer.from_pretrained(**where)


@torch.no_grad()
def run(model, ids):
    """Attention of every layer (layers, heads, n, n), the stream after every layer (layers, n, width), last logits."""
    hidden = []
    hooks = [
        layer.register_forward_hook(lambda module, given, out: hidden.append(out[0] if isinstance(out, tuple) else out))
        for layer in model.model.layers  # before the final norm, which output_hidden_states puts on the last one
    ]
    out = model(torch.tensor([ids]), use_cache=False, output_attentions=True)
    for hook in hooks:
        hook.remove()
    stack = lambda tensors: np.stack([t.float().numpy().reshape(t.shape[-3:]) for t in tensors])  # noqa: E731
    return stack(out.attentions), stack(hidden)[:, 0], out.logits[0, -1].float().numpy()


def write(name, path):
    """Both files of one model."""
    model, tokenizer = load(path)
    layers = LONG_LAYERS[name]
    ids = tokenizer(SHORT)["input_ids"]
    attn, hidden, logits = run(model, ids)
    own = {"ids": np.array(ids, np.int32), "text": SHORT, "attn": attn.astype(np.float16)}
    own |= {"hidden": hidden[layers], "hidden_layers": np.array(layers, np.int32), "logits": logits.astype(np.float16)}
    np.savez_compressed(HERE / f"{name}.npz", **own)

    ids = tokenizer(LONG)["input_ids"][:N_LONG]
    assert len(ids) == N_LONG, f"the long prompt has only {len(ids)} tokens"
    attn, hidden, logits = run(model, ids)
    chosen = np.array(layers, np.int32)
    own = {"ids": np.array(ids, np.int32), "text": LONG, "rows": np.array(ROWS, np.int32)}
    own |= {"attn": attn[layers][:, :, ROWS].astype(np.float16), "attn_layers": chosen}
    own |= {"hidden": hidden[layers][:, ROWS], "hidden_layers": chosen, "logits": logits.astype(np.float16)}
    np.savez_compressed(HERE / f"{name}-long.npz", **own)
    for file in (f"{name}.npz", f"{name}-long.npz"):
        print(f"{file:20} {(HERE / file).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for model_name in LONG_LAYERS:
        arguments.add_argument(f"--{model_name}", type=Path, metavar="FILE.gguf")
    for model_name, file in vars(arguments.parse_args()).items():
        if file is not None:
            write(model_name, file.resolve())
