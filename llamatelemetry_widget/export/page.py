"""One HTML file that shows widgets without kernel, network or installation, their selections linked.

In: parts, each a widget's JavaScript module, its traits and binary buffers. Out: the text of a page. Data stands in it
as JSON in which `<`, `>`, `&` and the two line separators are escaped, so that no text of a model or prompt can end the
script element it stands in; the modules are run from the same JSON. What several parts have in common stands there
once.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_ESCAPED = "<>&\u2028\u2029"

_WORTH = 0.9  # of its bytes that a blob must shrink to, to be worth the browser's time

#: Traits that linked widgets share.
SHARED = ("selected_layer", "selected_head", "selected_tokens")

# The host gives each module what a notebook gives it: a model with get, set, on, off and send, and an element. Linked
# models get the very value that was set, so that handing it on ends where all have it.
_HOST = """
const data = JSON.parse(document.getElementById("lt-data").textContent);
const bytes = async ([text, packed]) => {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  if (!packed) return new DataView(out.buffer);
  const stream = new Blob([out]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new DataView(await new Response(stream).arrayBuffer());
};
const blobs = await Promise.all(data.blobs.map(bytes));
const models = [];
const makeModel = ({ state, buffers, links }) => {
  for (const [name, value] of Object.entries(buffers))
    state[name] = Array.isArray(value) ? value.map((at) => blobs[at]) : blobs[value];
  const listeners = new Map();
  const emit = (event, ...rest) => [...(listeners.get(event) ?? [])].forEach((listener) => listener(...rest));
  const model = {
    get: (name) => state[name],
    set(name, value) {
      const changes = typeof name === "object" ? name : { [name]: value };
      for (const [key, next] of Object.entries(changes)) {
        if (state[key] === next) continue;
        state[key] = next;
        emit(`change:${key}`, model, next);
        if (data.shared.includes(key))
          for (const other of links) if (models[other].get(key) !== undefined) models[other].set(key, next);
      }
      emit("change", model);
    },
    save_changes() {},
    send(message) {
      if (message?.id !== undefined)
        setTimeout(() => emit("msg:custom", { type: "error", id: message.id, message: "needs a kernel" }, []));
    },
    on: (event, listener) => listeners.set(event, [...(listeners.get(event) ?? []), listener]),
    off(event, listener) {
      if (event) listeners.set(event, listener ? (listeners.get(event) ?? []).filter((l) => l !== listener) : []);
      else listeners.clear();
    },
    widget_manager: undefined,
  };
  return model;
};
const load = async (at) => {
  const url = URL.createObjectURL(new Blob([blobs[at]], { type: "text/javascript" }));
  const module = (await import(url)).default;
  URL.revokeObjectURL(url);
  return module;
};
const modules = await Promise.all(data.modules.map(load));
models.push(...data.parts.map(makeModel));
const elements = document.querySelectorAll("main > section");
for (const [at, model] of models.entries()) {
  const module = modules[data.parts[at].module];
  const widget = typeof module === "function" ? await module() : module;
  const el = elements[at];
  el.replaceChildren();
  await widget.initialize?.({ model });
  await widget.render?.({ model, el });
}
"""

_STYLE = """
:root { color-scheme: light dark }
body { margin: 0; font: 13px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
body.light { background: #ffffff; color: #171b21 }
body.dark { background: #14171b; color: #eceff2 }
main { max-width: 1400px; margin: 0 auto; padding: 16px }
section + section { margin-top: 24px }
@media (prefers-color-scheme: dark) { body.auto { background: #14171b; color: #eceff2 } }
@media (prefers-color-scheme: light) { body.auto { background: #ffffff; color: #171b21 } }
"""

# Nothing may be fetched from anywhere; the modules are blobs that this page makes.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data: blob:"


def embed(value: Any) -> str:
    """JSON that can stand inside a script element, whatever text it holds. NaN and infinity become null."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in _ESCAPED:  # five passes are many times faster than str.translate
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, str):  # a lone surrogate cannot be written as UTF-8
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value


@dataclass(frozen=True)
class Part:
    """One widget of a page.

    Attributes
    ----------
    title : str
    module : str
        Source of the widget's ES module.
    state : mapping
        Traits that are plain JSON.
    buffers : mapping
        Binary traits: bytes, or a list of bytes.
    fallback : str
        HTML that stands there until the module runs, and where scripts are off.
    shares : sequence of (object, str)
        What it selects in, as an object (a trace, by identity) and the part of it. Parts of a page that have one of
        these in common share their selection.
    """

    title: str
    module: str
    state: Mapping[str, Any]
    buffers: Mapping[str, Any]
    fallback: str
    shares: Sequence[tuple[object, str]] = ()


def page(*parts: Part) -> str:
    """The page: its parts, one below the other."""
    modules = list(dict.fromkeys(part.module for part in parts))
    blobs: dict[bytes, int] = {}
    linked = _linked(parts)
    data: dict[str, Any] = {
        "shared": SHARED,
        "modules": _place([module.encode() for module in modules], blobs),
        "parts": [
            {
                "module": modules.index(part.module),
                "state": part.state,
                "buffers": {name: _place(value, blobs) for name, value in part.buffers.items()},
                "links": links,
            }
            for part, links in zip(parts, linked, strict=True)
        ],
    }
    data["blobs"] = [_packed(blob) for blob in blobs]  # of the modules and the parts
    themes = {str(part.state.get("theme", "auto")) for part in parts}
    theme = themes.pop() if len(themes) == 1 else "auto"
    title = " · ".join(dict.fromkeys(part.title for part in parts))
    sections = "\n".join(f"<section>{part.fallback}</section>" for part in parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body class="{escape(theme)}">
<main>{sections}</main>
<script type="application/json" id="lt-data">{embed(data)}</script>
<script type="module">{_HOST}</script>
</body>
</html>
"""


def _place(value: Any, blobs: dict[bytes, int]) -> Any:
    """Where bytes stand among those of the page; the same bytes stand there once."""
    if isinstance(value, (list, tuple)):
        return [_place(item, blobs) for item in value]
    return blobs.setdefault(bytes(value), len(blobs))


def _packed(blob: bytes) -> tuple[str, bool]:
    """Bytes as text, and whether they were compressed first: thumbnails and scripts halve, keys and queries do not."""
    small = zlib.compress(blob, 6)
    packed = len(small) < _WORTH * len(blob)
    return base64.b64encode(small if packed else blob).decode(), packed


def _linked(parts: Sequence[Part]) -> list[list[int]]:
    """For each part, which others share their selection with it, also by way of a third."""
    keys = [{(id(source), name) for source, name in part.shares} for part in parts]
    for _ in parts:  # each round joins what is one step further away
        keys = [own.union(*(other for other in keys if own & other)) for own in keys]
    return [[at for at, other in enumerate(keys) if at != own and keys[own] & other] for own in range(len(keys))]
