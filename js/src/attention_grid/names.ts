// Tokens with their index, as elements: the one way a token is named in sentences, tooltips and lists.
// In: GridData, an index. Out: a <bdi>, isolated against its neighbours' writing direction.
import { h } from "../shared/dom";
import { subscript } from "../shared/format";
import type { GridData } from "./data";

/** "·lamp₆": a token that is looked at. */
export function tokenName(data: GridData, index: number): HTMLElement {
  const kind = data.facts.kinds[index] ?? "normal";
  return h(
    "bdi",
    { class: kind === "normal" ? "lt-mono" : "lt-mono lt-odd" },
    `${data.facts.tokens[index] ?? ""}${subscript(index)}`,
  );
}

/** The same for a token that looks; in cross attention it is of another text. */
export function queryName(data: GridData, index: number): HTMLElement {
  return data.same
    ? tokenName(data, index)
    : h("bdi", { class: "lt-mono" }, `${data.queries[index] ?? ""}${subscript(index)}`);
}
