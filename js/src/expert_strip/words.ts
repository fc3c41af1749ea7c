// The strip in words: tokens, weights, loads, for tooltips, sentences and screen readers.
// In: data and places. Out: text, or elements that hold text.
import { h } from "../shared/dom";
import { count, plural, smallWeight, subscript, weight } from "../shared/format";
import { bits, type Choice, type LayerFacts, type StripData } from "./data";

/** A token with its place, as an element: its text is the model's, and is set as text. */
export function tokenName(data: StripData, token: number): HTMLElement {
  const odd = (data.facts.kinds[token] ?? "normal") !== "normal";
  const text = `${data.facts.tokens[token] ?? ""}${subscript(token)}`;
  return h("bdi", { class: odd ? "lt-mono lt-odd" : "lt-mono" }, text);
}

/** "E5 0.754 · E0 0.246". */
export function choiceWords(choices: readonly Choice[]): string {
  return choices.map((c) => `E${c.expert} ${weight(c.weight)}`).join(" \u00b7 ");
}

/** "0.80 of 1 bit": the entropy of a token's weights. */
export function entropyWords(value: number | null | undefined, outcomes: number): string {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  const most = Math.log2(outcomes);
  const end = Number.isInteger(most) ? String(most) : most.toFixed(2);
  return `${value.toFixed(2)} of ${end} ${end === "1" ? "bit" : "bits"}`;
}

export function tokenEntropy(choices: readonly Choice[]): number {
  return choices.length > 1 ? bits(choices.map((c) => c.share)) : Number.NaN;
}

/** "10 of 24 tokens · load 0.208 · by weight 0.254 · even 0.125". */
export function loadWords(data: StripData, layer: number, expert: number): string {
  const own = data.load(layer)[expert]!;
  const weighted = data.load(layer, true)[expert]!;
  return [
    `${count(data.count(layer, expert))} of ${plural(data.rowsOf(layer), "token")}`,
    `load ${weight(own)}`,
    `by weight ${weight(weighted)}`,
    `even ${weight(1 / data.facts.n_experts)}`,
  ].join(" \u00b7 ");
}

/** "3 layers × 8 experts, 2 per token · 24 tokens". */
export function subtitle(data: StripData): string {
  const { facts } = data;
  const having = facts.layers.filter((l) => l.used > 0).length;
  if (having === 0) return plural(data.tokens, "token");
  const without = facts.layers.length - having;
  const rest = without > 0 ? ` (${without} without)` : "";
  return `${plural(having, "layer")}${rest} \u00d7 ${plural(facts.n_experts, "expert")}, ${facts.used} per token \u00b7 ${plural(data.tokens, "token")}`;
}

/** A layer in one line: busiest and idlest expert, evenness. */
export function layerWords(data: StripData, layer: LayerFacts): string {
  if (layer.used === 0) return "this layer has no experts";
  const load = [...data.load(layer.layer)];
  const most = load.indexOf(Math.max(...load));
  const idle = load.filter((v) => v === 0).length;
  const least = load.indexOf(Math.min(...load));
  const rest =
    idle > 0 ? `${plural(idle, "expert")} without a token` : `least E${least} ${smallWeight(load[least]!)}`;
  return `most work E${most} ${weight(load[most]!)} \u00b7 ${rest}`;
}
