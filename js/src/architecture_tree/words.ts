// Tensors and nodes in words: for tooltips, details, names on the map, screen readers.
// In: TreeData and places in it. Out: text, or elements that hold text. Names are a file's, and are set as text.
import { h } from "../shared/dom";
import { amount, bytes, count, plural } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Overlay } from "./colours";
import type { Facts, TreeData } from "./data";
import { badge, bitsText } from "./table";

/** "1536 × 576 = 885 k weights". */
export function shapeWords(data: TreeData, leaf: number, exact = false): string {
  const shape = data.shape(leaf);
  const total = data.leafWeights(leaf);
  const words = `${exact ? count(total) : amount(total)} weights`;
  return shape.length > 1 ? `${shape.map((n) => count(n)).join(" \u00d7 ")} = ${words}` : words;
}

/** Leaves that do the same in other layers, by role. */
export class Roles {
  private readonly found = new Map<string, number[]>();

  constructor(private readonly data: TreeData) {
    for (let leaf = 0; leaf < data.leaves; leaf++) {
      if (data.leafType[leaf]! < 0) continue;
      const role = data.role(leaf);
      const own = this.found.get(role);
      if (own) own.push(leaf);
      else this.found.set(role, [leaf]);
    }
  }

  of(leaf: number): readonly number[] {
    return this.found.get(this.data.role(leaf)) ?? [];
  }

  /** "all 30: 14 × Q6_K, 16 × Q4_K"; empty for a tensor that is the only one of its kind. */
  words(leaf: number): string {
    const own = this.of(leaf);
    if (own.length < 2) return "";
    const counts = new Map<number, number>();
    for (const other of own)
      counts.set(this.data.leafType[other]!, (counts.get(this.data.leafType[other]!) ?? 0) + 1);
    const parts = [...counts].sort((a, b) => b[1] - a[1]);
    const names = parts.map(([type, n]) => `${count(n)} \u00d7 ${this.data.facts.types[type]!.name}`);
    return `all ${count(own.length)}: ${names.join(", ")}`;
  }
}

/** The tooltip of a leaf. */
export function tip(
  data: TreeData,
  roles: Roles,
  leaf: number,
  overlay: Overlay,
  theme: Theme,
): HTMLElement[] {
  const type = data.typeOf(leaf);
  const name = h(
    "div",
    { class: "lt-at-tip-name" },
    h("bdi", {}, data.fullName(leaf).replace(/\.weight$/, "")),
  );
  const own = data.leafBytes[leaf]!;
  if (!type) {
    const note = data.text(data.note[data.leafNode[leaf]!]!);
    return [
      name,
      h("div", { class: "lt-quiet" }, note),
      h("div", {}, `${bytes(own)} \u00b7 ${count(own)} bytes`),
    ];
  }
  const bits = data.leafBits(leaf);
  const words = Number.isNaN(bits) ? "bits per weight unknown" : `${bitsText(bits)} bits/weight`;
  const lines = [
    name,
    h("div", { class: "lt-at-tip-shape" }, shapeWords(data, leaf)),
    h("div", {}, badge(type, theme), ` ${words} \u00b7 ${bytes(own)}`),
  ];
  const among = roles.words(leaf);
  if (among) lines.push(h("div", { class: "lt-quiet" }, among));
  const value = overlay.values?.[leaf];
  if (value !== undefined && overlay.name !== "bits" && overlay.name !== "bytes")
    lines.push(h("div", {}, `${overlay.label} `, h("b", {}, overlay.write(value))));
  return lines;
}

/** A leaf for screen readers. */
export function spoken(data: TreeData, leaf: number): string {
  const type = data.typeOf(leaf);
  const bits = data.leafBits(leaf);
  const more = type
    ? `${type.name}, ${Number.isNaN(bits) ? "bits unknown" : `${bitsText(bits)} bits per weight`}, `
    : "";
  return `${data.fullName(leaf)}, ${more}${bytes(data.leafBytes[leaf]!)}`;
}

/** "Q8_0 · 30.1 MB · also output". */
export function blockWords(data: TreeData, leaf: number): [string, string] {
  const node = data.leafNode[leaf]!;
  const type = data.typeOf(leaf);
  const tied =
    data.sideFacts.tied && data.fullName(leaf) === "token_embd.weight" ? " \u00b7 also output" : "";
  return [
    data.shortName(node),
    `${type ? `${type.name} \u00b7 ` : ""}${bytes(data.leafBytes[leaf]!)}${tied}`,
  ];
}

/** "SmolLM2-135M Q4_K_M". */
export function sideName(facts: Facts, side: number): string {
  const { model, quant_type } = facts.sides[side]!;
  return quant_type ? `${model} ${quant_type}` : model;
}

/** "272 tensors · 134.5 M weights · 104 MB · 6.17 bits per weight". */
export function totals(data: TreeData): string {
  const bits = data.bits(0);
  const parts = [
    plural(data.tensors[0]!, "tensor"),
    `${amount(data.weights[0]!)} weights`,
    bytes(data.bytes[0]!),
    Number.isNaN(bits) ? "bits per weight unknown" : `${bits.toFixed(2)} bits per weight`,
  ];
  return parts.join(" \u00b7 ");
}
