"""Hugging Face transformers giving the logit lens of a prompt: all hidden states, final norm, output matrix, top words.

In: a GGUF, a JSON file with token ids. Out: a JSON line, seconds of the best of three (loading does not count), and
the likeliest word of the last token after every layer.
"""

import json
import sys
import time
from pathlib import Path

import torch
import transformers

path, ids = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
model = transformers.AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32)
times = []
with torch.no_grad():
    for _ in range(3):
        started = time.perf_counter()
        states = model(torch.tensor([ids]), use_cache=False, output_hidden_states=True).hidden_states
        words = []
        for at, state in enumerate(states):
            # The last one has been through the final norm already.
            logits = model.lm_head(state[0] if at == len(states) - 1 else model.model.norm(state[0]))
            words.append(int(torch.topk(torch.softmax(logits, -1), 5).indices[-1, 0]))
        times.append(time.perf_counter() - started)
print(json.dumps({"seconds": min(times), "words": words}))
