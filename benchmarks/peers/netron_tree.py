"""Netron's reader of GGUF, in Node: seconds from a file in memory to its graph; best of five in one process."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
const [folder, path] = process.argv.slice(2);
const base = await import(`file://${folder}/base.js`);
const gguf = await import(`file://${folder}/gguf.js`);
const fs = await import("node:fs");
const bytes = new Uint8Array(fs.readFileSync(path));
let best = Infinity, nodes = 0;
for (let i = 0; i < 5; i++) {
  const started = performance.now();
  const stream = new base.BinaryStream(bytes);
  const context = {
    stream,
    read: async () => base.BinaryReader.open(stream),
    asset: async (name) => fs.readFileSync(`${folder}/${name}`, "utf8"),
    set(type, value) { this.value = value; return type; },
  };
  const factory = new gguf.ModelFactory();
  await factory.match(context);
  const model = await factory.open(context);
  nodes = model.modules[0].nodes.length;
  best = Math.min(best, performance.now() - started);
}
console.log(JSON.stringify({ seconds: best / 1000, nodes }));
"""

folder = Path(importlib.util.find_spec("netron").origin).parent
command = ["node", "--input-type=module", "-", str(folder), sys.argv[1]]
done = subprocess.run(command, input=SCRIPT, capture_output=True, text=True)
if done.returncode:
    sys.exit(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "node failed")
print(json.dumps(json.loads(done.stdout)))
