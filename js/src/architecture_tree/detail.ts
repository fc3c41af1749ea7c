// What is chosen, in full: shape, type, place in the file, the same tensor in all layers; the metadata as a table.
// In: TreeData, a node, a theme. Out: DOM.
import { type Cleanup, h } from "../shared/dom";
import { bytes, count, plural } from "../shared/format";
import type { Theme } from "../shared/theme";
import { typeBackground, typeColour } from "./colours";
import type { SideFacts, TreeData } from "./data";
import { badge, bitsText } from "./table";
import { histogram, type Statistics } from "./values";
import { type Roles, shapeWords } from "./words";

/** Rows of the metadata that are shown at once; the search narrows them. */
const ENTRIES = 200;

/** What is known of the values of a tensor: nothing yet, asked for, there, or why they do not come. */
export type Values = Statistics | "ask" | "asked" | { readonly problem: string };

export class NodeDetail {
  readonly element = h("section", { class: "lt-at-detail", hidden: true, "aria-label": "Chosen part" });
  private readonly values = h("div", { class: "lt-at-values" });
  private readonly right = h("div", {});

  /** `ask` is told that the values of the chosen tensor are wanted. */
  constructor(
    private readonly choose: (node: number) => void,
    private readonly ask: () => void,
  ) {}

  show(data: TreeData, node: number, roles: Roles, theme: Theme, values: Values): void {
    this.element.hidden = node < 0;
    if (node < 0) return;
    this.showValues(values);
    const leaf = data.leafOf[node]!;
    const made = leaf >= 0 ? this.leaf(data, leaf, roles, theme) : this.group(data, node, theme);
    this.element.replaceChildren(...made);
  }

  private showValues(values: Values): void {
    const title = h(
      "h4",
      {},
      h("b", {}, "Its values"),
      "expanded from the quant type, in llama.cpp\u2019s worker",
    );
    if (typeof values === "object" && "numbers" in values) {
      this.values.replaceChildren(title, histogram(values));
      return;
    }
    if (typeof values === "object") {
      this.values.replaceChildren(title, h("p", { class: "lt-quiet" }, values.problem));
      return;
    }
    const button = h("button", { type: "button", class: "lt-button" }, "Statistics and histogram");
    button.toggleAttribute("disabled", values === "asked");
    button.addEventListener("click", () => this.ask());
    this.values.replaceChildren(
      title,
      button,
      values === "asked" ? h("span", { class: "lt-quiet" }, " reading\u2026") : "",
    );
  }

  private leaf(data: TreeData, leaf: number, roles: Roles, theme: Theme): Node[] {
    const type = data.typeOf(leaf);
    const own = data.leafBytes[leaf]!;
    const facts: (readonly [string, Node | string])[] = [];
    if (type) {
      const bits = data.leafBits(leaf);
      const block = type.block !== null && type.block > 1 ? `, blocks of ${type.block} weights` : "";
      facts.push(
        ["shape", shapeWords(data, leaf, true)],
        [
          "type",
          h(
            "span",
            {},
            badge(type, theme),
            ` ${Number.isNaN(bits) ? "bits per weight unknown" : `${bitsText(bits)} bits per weight`}${block}`,
          ),
        ],
      );
    }
    facts.push(["bytes", `${count(own)} (${share(own / data.bytes[0]!)} of the model)`]);
    if (type) facts.push(["offset", this.offset(data, leaf)]);
    const note = data.text(data.note[data.leafNode[leaf]!]!);
    if (note) facts.push(["note", note]);
    const heading = h(
      "h3",
      {},
      h("b", { class: "lt-mono" }, h("bdi", {}, data.fullName(leaf))),
      path(data, data.leafNode[leaf]!),
    );
    const made: Node[] = [h("div", {}, heading, list(facts))];
    const same = roles.of(leaf);
    this.right.replaceChildren();
    if (same.length > 1) this.right.append(this.layers(data, leaf, same, roles, theme));
    if (type) this.right.append(this.values);
    made.push(this.right);
    return made;
  }

  private offset(data: TreeData, leaf: number): string {
    const at = `${count(data.leafOffset[leaf]!)} bytes from the start`;
    const { shards } = data.sideFacts;
    return shards > 1 ? `${at} of file ${data.leafShard[leaf]! + 1} of ${shards}` : at;
  }

  /** The same tensor in all layers: one cell each, as high as its bytes, in the colour of its type. */
  private layers(
    data: TreeData,
    leaf: number,
    same: readonly number[],
    roles: Roles,
    theme: Theme,
  ): HTMLElement {
    const most = Math.max(...same.map((other) => data.leafBytes[other]!));
    const strip = h("div", { class: "lt-at-strip", role: "img", "aria-label": roles.words(leaf) });
    const shown = same.length <= 512 ? same : same.filter((_, i) => i % Math.ceil(same.length / 512) === 0);
    for (const other of shown) {
      const cell = h("span", {
        class: other === leaf ? "lt-on" : "",
        title: `${data.fullName(other)} \u00b7 ${data.typeOf(other)!.name} \u00b7 ${bytes(data.leafBytes[other]!)}`,
      });
      const bar = h("i", {});
      bar.style.height = `${Math.max(4, (100 * data.leafBytes[other]!) / most)}%`;
      bar.style.background = typeBackground(data.typeOf(other), theme);
      cell.append(bar);
      cell.addEventListener("click", () => this.choose(data.leafNode[other]!));
      strip.append(cell);
    }
    return h(
      "div",
      { class: "lt-at-layers" },
      h("h4", {}, h("b", {}, "In every layer"), roles.words(leaf)),
      strip,
    );
  }

  private group(data: TreeData, node: number, theme: Theme): HTMLElement[] {
    const kind = data.kindOf(node);
    const facts: (readonly [string, Node | string])[] = [];
    const note = data.text(data.note[node]!);
    if (note) facts.push(["has", note]);
    if (kind === "head" || kind === "kv_group") {
      facts.push(["bytes", "rows of the attention tensors, which are counted where they stand"]);
    } else {
      const [first, end] = data.leavesOf(node);
      const bits = data.bits(node);
      facts.push(["tensors", plural(data.tensors[node]!, "tensor")]);
      facts.push([
        "bytes",
        `${count(data.bytes[node]!)} (${share(data.bytes[node]! / data.bytes[0]!)} of the model)`,
      ]);
      if (!Number.isNaN(bits)) facts.push(["bits", `${bits.toFixed(2)} per weight`]);
      facts.push(["types", mixWords(data, first, end, theme)]);
    }
    const heading = h("h3", {}, h("b", {}, h("bdi", {}, data.shortName(node))), path(data, node));
    return [h("div", {}, heading, list(facts))];
  }
}

function share(value: number): string {
  const percent = 100 * value;
  if (percent > 0 && percent < 0.005) return "< 0.01\u202f%";
  return `${percent.toFixed(percent < 1 ? 2 : percent < 10 ? 1 : 0)}\u202f%`;
}

/** Where a node is: the names above it. */
function path(data: TreeData, node: number): HTMLElement {
  const names: string[] = [];
  for (let i = data.parent[node] ?? -1; i > 0; i = data.parent[i]!) names.unshift(data.shortName(i));
  return h("bdi", {}, names.join(" \u203a "));
}

function list(facts: readonly (readonly [string, Node | string])[]): HTMLElement {
  const dl = h("dl", { class: "lt-at-facts" });
  for (const [name, value] of facts) dl.append(h("dt", {}, name), h("dd", {}, value));
  return dl;
}

function mixWords(data: TreeData, first: number, end: number, theme: Theme): HTMLElement {
  const e = h("span", { class: "lt-at-badges" });
  for (const own of data.mix(first, end))
    e.append(
      badge(data.facts.types[own.type]!, theme),
      h("span", { class: "lt-quiet" }, ` ${count(own.count)} \u00d7, ${bytes(own.bytes)} `),
    );
  return e;
}

/** Bytes by quant type: one bar, a label under each part that has room for it, the rest counted. */
export function typeBar(data: TreeData, theme: Theme, width: number): HTMLElement {
  const mix = [...data.mix(0, data.leaves)].sort((a, b) => place(data, a.type) - place(data, b.type));
  const total = mix.reduce((sum, own) => sum + own.bytes, 0);
  const bar = h("div", { class: "lt-at-types-bar" });
  const labels = h("div", { class: "lt-at-types-labels" });
  const small: string[] = [];
  let from = 0;
  let free = 0;
  for (const own of mix) {
    const type = data.facts.types[own.type]!;
    const each = `${count(own.count)} \u00d7 ${type.bits === null ? "?" : bitsText(type.bits)} b`;
    const part = h("i", { title: `${type.name}: ${bytes(own.bytes)}, ${each}` });
    const share = total > 0 ? own.bytes / total : 0;
    part.style.width = `${100 * share}%`;
    part.style.background = typeBackground(type, theme);
    bar.append(part);
    const room = share * width;
    const at = Math.max(from * width, free);
    if (room >= 30 && at + 58 <= Math.max(width, (from + share) * width + 1)) {
      const label = h("span", {}, h("b", {}, type.name), h("br"), bytes(own.bytes));
      label.style.left = `${at}px`;
      labels.append(label);
      if (room > 150) {
        const more = h("span", { class: "lt-at-types-each" }, each);
        more.style.right = `${width - (from + share) * width}px`;
        labels.append(more);
      }
      free = at + 62;
    } else small.push(`${type.name} ${bytes(own.bytes)} (${each})`);
    from += share;
  }
  const rest =
    small.length > 0 ? h("div", { class: "lt-quiet lt-at-types-rest" }, `and ${small.join(", ")}`) : null;
  return h("div", { class: "lt-at-types" }, bar, labels, rest);
}

const place = (data: TreeData, type: number) => data.facts.types[type]!.hue ?? 99;

/** What the textures mean, only of those that are there. */
export function textureWords(data: TreeData): string {
  const families = new Set(data.mix(0, data.leaves).map((m) => data.facts.types[m.type]!.family));
  const words = ["colour = bits"];
  if (families.has("legacy")) words.push("stripes = legacy block of 32");
  if (families.has("k")) words.push("plain = K-quant block of 256");
  if (families.has("iq")) words.push("dots = IQ block");
  return words.join(", ");
}

/** One type and how many tensors have it, as a small square and words. */
export function typeCounts(data: TreeData, theme: Theme): HTMLElement {
  const e = h("div", { class: "lt-at-counts" });
  for (const own of [...data.mix(0, data.leaves)].sort((a, b) => b.count - a.count)) {
    const square = h("i", {});
    square.style.background = `rgb(${typeColour(data.facts.types[own.type]!, theme).map(Math.round).join(",")})`;
    e.append(h("span", {}, square, `${data.facts.types[own.type]!.name} ${count(own.count)}`));
  }
  return e;
}

/** The metadata of a file as a table that can be searched; closed at first. */
export class Metadata {
  readonly element = h("section", { class: "lt-at-metadata" });
  private readonly button = h("button", { type: "button", class: "lt-button", "aria-expanded": "false" });
  private readonly box = h("input", {
    type: "search",
    class: "lt-at-input",
    placeholder: "key or value",
    "aria-label": "Search the metadata",
  });
  private readonly body = h("div", { hidden: true });
  private readonly table = h("table", {});
  private readonly more = h("p", { class: "lt-quiet" });
  private side: SideFacts | null = null;

  constructor(cleanup: Cleanup) {
    this.body.append(this.box, h("div", { class: "lt-at-metadata-rows" }, this.table), this.more);
    this.element.append(this.button, this.body);
    cleanup.on(this.button, "click", () => this.toggle());
    cleanup.on(this.box, "input", () => this.render());
  }

  show(side: SideFacts): void {
    if (side === this.side) return;
    this.side = side;
    this.button.textContent = `Metadata \u00b7 ${plural(side.metadata.length, "entry").replace("entrys", "entries")}`;
    this.render();
  }

  private toggle(): void {
    this.body.hidden = !this.body.hidden;
    this.button.setAttribute("aria-expanded", String(!this.body.hidden));
    this.render();
    if (!this.body.hidden) this.box.focus({ preventScroll: true });
  }

  private render(): void {
    if (!this.side || this.body.hidden) return;
    const words = this.box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.side.metadata.filter(([key, , value]) => {
      const own = `${key} ${value}`.toLowerCase();
      return words.every((word) => own.includes(word));
    });
    this.table.replaceChildren(
      ...found
        .slice(0, ENTRIES)
        .map(([key, kind, value]) =>
          h(
            "tr",
            {},
            h("th", { scope: "row", class: "lt-mono" }, h("bdi", {}, key)),
            h("td", { class: "lt-quiet" }, kind),
            h("td", {}, h("bdi", {}, value)),
          ),
        ),
    );
    const hidden = found.length - ENTRIES;
    this.more.textContent =
      found.length === 0
        ? "No entry has these words."
        : hidden > 0
          ? `${count(hidden)} more: narrow the search`
          : "";
  }
}
