// Sentences and labels of the lens.
// In: LensData. Out: strings.
import { count, plural, probability, shorten, subscript } from "../shared/format";
import type { Cell, LensData, LensLayer, Push } from "./data";

const MINUS = "\u2212";

export function subtitle(data: LensData): string {
  return `${plural(data.facts.layers.length, "layer")} \u00d7 ${plural(data.tokens, "token")}`;
}

/** "L17", "emb". */
export function rowName(row: number): string {
  return row < 0 ? "emb" : `L${row}`;
}

/** "After layer 17", "Before layer 0". */
export function rowTitle(row: number): string {
  return row < 0 ? "Before layer 0" : `After layer ${row}`;
}

/** A token with its place: ·the₂₃. */
export function tokenName(data: LensData, position: number): string {
  return `${shorten(data.facts.tokens[position] ?? "", 24)}${subscript(position)}`;
}

/** "+4.9", "−0.3"; a dash where there is nothing. */
export function signed(value: number | null, digits = 1): string {
  if (value === null || !Number.isFinite(value)) return "\u2013";
  const text = Math.abs(value).toFixed(digits);
  return `${value < 0 && Number(text) !== 0 ? MINUS : "+"}${text}`;
}

/** Three figures: "45.5", "816", "0.945". */
export function figures(value: number): string {
  if (!Number.isFinite(value)) return "\u2013";
  const rounded = Number(value.toPrecision(3));
  return Math.abs(rounded) >= 1000 ? count(rounded) : String(rounded).replace("-", MINUS);
}

/** "8.7 ms", "99 ms". */
export function milliseconds(value: number): string {
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)}\u202fms`;
}

/** What a cell says, for screen readers and pictures. */
export function cellWords(data: LensData, cell: Cell, position: number): string {
  const words = [...cell.ids].map((id, i) => `${data.word(id)} ${probability(cell.probabilities[i]!)}`);
  return `${words.join(", ")}. ${answerWords(data, cell, position)}`;
}

/** Where the model's answer stands in a cell. */
export function answerWords(data: LensData, cell: Cell, position: number): string {
  const answer = data.answer(position);
  if (answer === null) return "";
  const at = `${data.word(answer)} ${probability(cell.answerProbability)}, rank ${count(cell.answerRank)}`;
  return cell.isAnswer ? "Already the final answer" : `Final answer ${at}`;
}

/** What is pushed: "·lamp", or "·lamp − ·fire". */
export function pushName(push: Push): string {
  const { word, against } = push.texts;
  return against === null ? shorten(word) : `${shorten(word)} ${MINUS} ${shorten(against)}`;
}

/** Where a table of values is greatest in size; -1 where nothing is known. */
export function strongest(values: readonly (number | null)[]): number {
  let best = -1;
  values.forEach((v, i) => {
    if (v !== null && Number.isFinite(v) && (best < 0 || Math.abs(v) > Math.abs(values[best]!))) best = i;
  });
  return best;
}

/** What mixes the tokens in these layers. */
export function mixers(layers: readonly LensLayer[]): string {
  return [...new Set(layers.map((own) => own.mixer ?? "attention"))].sort().join(" or ");
}

/** The parts of an attribution that add up to the logit, all but the rounding. */
export function sumParts(push: Push, mixer = "attention"): [string, number][] {
  const total = (values: readonly (number | null)[]) => values.reduce<number>((sum, v) => sum + (v ?? 0), 0);
  const parts: [string, number | null][] = [
    ["embedding", push.embedding],
    [mixer, total(push.attention)],
    ["MLP", push.mlp.some((v) => v !== null) ? total(push.mlp) : null],
    ["bias", push.bias],
  ];
  return parts.filter((p): p is [string, number] => p[1] !== null);
}

/** What the parts add up to, and what is left over. */
export function sumWords(push: Push, mixer = "attention"): string {
  const own = sumParts(push, mixer);
  const total = own.reduce((sum, [, value]) => sum + value, 0);
  const parts = own.map(([name, value]) => `${name} ${signed(value, 2)}`);
  const logit = `the model\u2019s logit${push.against === null ? "" : " difference"} ${signed(push.logit, 2)}`;
  const over = `left over ${signed(push.logit - total, 3)}: rounding of quantized products`;
  return `${parts.join(", ")} = ${signed(total, 2)}; ${logit}; ${over}`;
}
