// How the report writes its figures.
// In: rows and tokens; null and NaN = not measured. Out: strings; what is not measured is a dash.
import { bytes, count, plural, probability, running } from "../shared/format";
import { isMeasured, type ReportData, type Row, type TokenRow } from "./data";

const DASH = "\u2013";
/** What the study says of a speed that nobody asked for. */
const UNASKED = "not measured";
type Maybe = number | null;

const known = (value: Maybe): value is number => value !== null && Number.isFinite(value);

/** KL and the like: enough digits that a small value is not 0. */
export function figure(value: Maybe): string {
  if (!known(value)) return DASH;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4) return value.toExponential(1).replace("-", "\u2212");
  return value.toFixed(size < 0.2 ? 4 : size < 10 ? 3 : 2);
}

/** "97.6 %". */
export function percent(value: Maybe): string {
  return known(value) ? `${(100 * value).toFixed(1)}\u202f%` : DASH;
}

export function size(value: Maybe): string {
  return known(value) ? bytes(value) : DASH;
}

export function fixed(value: Maybe, digits: number): string {
  return known(value) ? value.toFixed(digits) : DASH;
}

/** "± 0.0004", empty where there is no interval. */
export function spread(value: Maybe): string {
  return known(value) ? `\u00b1 ${figure(value)}` : "";
}

/** Tokens per second, or that they were not measured or cannot be compared. */
export function speed(row: Row): string {
  if (known(row.decode_tps)) return `${count(row.decode_tps)} tokens/s`;
  return row.speed_note === UNASKED ? UNASKED : row.speed_note ? "not comparable" : DASH;
}

/** Everything about the speed of a candidate, for a tooltip. */
export function speedDetails(row: Row): string {
  const part = (name: string, value: Maybe, around: Maybe) =>
    known(value) ? `${name} ${count(value)} tokens/s${known(around) ? ` (${spreadOf(around)})` : ""}` : "";
  const memory = known(row.memory_bytes) ? `memory ${bytes(row.memory_bytes)}` : "";
  return [
    part("decode", row.decode_tps, row.decode_spread),
    part("prefill", row.prefill_tps, row.prefill_spread),
    memory,
    row.speed_note,
  ]
    .filter(Boolean)
    .join(" \u00b7 ");
}

const spreadOf = (value: number) => `repeats differ by ${(100 * value).toFixed(1)}\u202f%`;

/** Names without the beginning that all have in common, up to a sign that parts words. */
export function shortNames(names: readonly string[]): string[] {
  const files = names.filter((n) => !n.startsWith("kv:"));
  let common = files[0] ?? "";
  for (const name of files) while (!name.startsWith(common)) common = common.slice(0, -1);
  const cut = files.length < 2 ? 0 : Math.max(...[".", "-", " "].map((c) => common.lastIndexOf(c))) + 1;
  return names.map((n) => (n.startsWith("kv:") ? n : n.slice(cut)));
}

/** What a screen reader hears of a candidate, and what a tooltip says. */
export function rowWords(row: Row): string {
  if (!isMeasured(row)) return `${row.name}: ${row.error ? `${row.status}, ${row.error}` : row.status}`;
  const interval = spread(row.kl_ci);
  return `${row.name}: KL ${figure(row.kl)}${interval ? ` ${interval}` : ""}, ${size(row.bytes)}, ${percent(row.same_top)} same top token`;
}

/** "2 of 5 candidates measured". */
export function doneWords(data: ReportData): string {
  return `${data.facts.rows.filter((r) => r.status === "done").length} of ${plural(data.facts.rows.length, "candidate")} measured`;
}

/** A token with what happened to it. */
export function tokenWords([block, token, before, after, kl, same]: TokenRow): string {
  const top = same ? "the likeliest token stayed" : "another token became likeliest";
  return `${running(token)}: KL ${figure(kl)}, ${probability(before)} in the base, ${probability(after)} here, ${top}, block ${block}`;
}

/** Why something that was asked for did not come. */
export function reason(e: unknown): string {
  return e instanceof Error ? e.message : String(e);
}
