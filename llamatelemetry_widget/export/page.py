"""One HTML file that shows a widget without kernel, network or installation.

In: the widget's JavaScript module, its traits and binary buffers. Out: the text of a page. Data stands in it as JSON in
which `<`, `>`, `&` and the two line separators are escaped, so that no text of a model or prompt can end the script
element it stands in; the module is run from the same JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from html import escape
from typing import Any

_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}

# The host gives the module what a notebook gives it: a model with get, set, on, off and send, and an element.
_HOST = """
const data = JSON.parse(document.getElementById("lt-data").textContent);
const bytes = (text) => {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return new DataView(out.buffer);
};
const state = data.state;
for (const [name, value] of Object.entries(data.buffers))
  state[name] = Array.isArray(value) ? value.map(bytes) : bytes(value);
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
const url = URL.createObjectURL(new Blob([data.module], { type: "text/javascript" }));
const module = (await import(url)).default;
URL.revokeObjectURL(url);
const widget = typeof module === "function" ? await module() : module;
const el = document.getElementById("lt-root");
el.replaceChildren();
await widget.initialize?.({ model });
await widget.render?.({ model, el });
"""

_STYLE = """
:root { color-scheme: light dark }
body { margin: 0; font: 13px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
body.light { background: #ffffff; color: #171b21 }
body.dark { background: #14171b; color: #eceff2 }
main { max-width: 1400px; margin: 0 auto; padding: 16px }
@media (prefers-color-scheme: dark) { body.auto { background: #14171b; color: #eceff2 } }
@media (prefers-color-scheme: light) { body.auto { background: #ffffff; color: #171b21 } }
"""

# Nothing may be fetched from anywhere; the module itself is a blob that this page makes.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; img-src data: blob:"


def embed(value: Any) -> str:
    """JSON that can stand inside a script element, whatever text it holds. NaN and infinity become null."""
    return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


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


def page(title: str, module: str, state: Mapping[str, Any], buffers: Mapping[str, Any], fallback: str) -> str:
    """The page.

    Parameters
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
    """
    coded = {name: _coded(value) for name, value in buffers.items()}
    data = embed({"module": module, "state": state, "buffers": coded})
    theme = state.get("theme", "auto")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body class="{escape(str(theme))}">
<main id="lt-root">{fallback}</main>
<script type="application/json" id="lt-data">{data}</script>
<script type="module">{_HOST}</script>
</body>
</html>
"""


def _coded(value: Any) -> Any:
    return [_coded(item) for item in value] if isinstance(value, (list, tuple)) else base64.b64encode(value).decode()
