"""Hugging Face transformers loading a GGUF and giving all attention of a prompt; its imports do not count.

In: the file, a JSON file with token ids. Out: a JSON line, seconds of loading and of the run.
"""

import json
import sys
import time
from pathlib import Path

import torch
import transformers

path, ids = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
started = time.perf_counter()
model = transformers.AutoModelForCausalLM.from_pretrained(
    str(path.parent), gguf_file=path.name, attn_implementation="eager", dtype=torch.float32
)
loaded = time.perf_counter()
with torch.no_grad():
    attentions = model(torch.tensor([ids]), use_cache=False, output_attentions=True).attentions
done = time.perf_counter()
assert len(attentions) == model.config.num_hidden_layers
print(json.dumps({"load": loaded - started, "run": done - loaded}))
