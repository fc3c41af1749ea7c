// Figures of the panel as text.
// In: numbers (null, undefined or NaN = not measured). Out: a value and its unit.
import { bytes, count, plural } from "../shared/format";
import type { OperationTimes, Overhead, PanelData, Run } from "./data";

const DASH = "\u2013";
/** A run without stops that takes so much longer than one with them was disturbed. */
const BUSY = 1.5;
type Maybe = number | null | undefined;

const there = (value: Maybe): value is number =>
  value !== null && value !== undefined && Number.isFinite(value);

/** So many figures: 113, 8.7, 0.83; a dash where there is none. */
export function figures(value: Maybe, digits = 3): string {
  if (!there(value)) return DASH;
  if (value === 0 || Math.abs(value) >= 10 ** (digits - 1)) return count(value);
  return String(Number(value.toPrecision(digits)));
}

/** "8.7", "ms"; "1.4", "s". */
export function duration(ms: Maybe): [string, string] {
  if (!there(ms)) return [DASH, ""];
  if (ms < 0.1) return ["<0.1", "ms"];
  return ms < 999.5 ? [figures(ms, 2), "ms"] : [(ms / 1000).toFixed(1), "s"];
}

export const time = (ms: Maybe): string => duration(ms).join("\u202f").trim();

/** A figure of a live source with its unit. */
export function amountOf(value: Maybe, unit: string): string {
  if (!there(value)) return DASH;
  if (unit === "B") return bytes(value);
  return `${figures(value)}${unit ? `\u202f${unit}` : ""}`;
}

export interface Cell {
  readonly value: string;
  readonly unit: string;
  readonly label: string;
  /** Why there is no value, or what it is more exactly. */
  readonly title: string;
}

const split = (text: string): [string, string] => {
  const [value, unit] = text.split("\u202f");
  return [value ?? DASH, unit ?? ""];
};

const later = (run: Run, name: string) =>
  run.phase === "done" ? `${name}: this run did not measure it` : `${name}: known when the run has ended`;

/** What stands in the line of a run. */
export function runCells(run: Run): Cell[] {
  const n = run.numbers;
  const cell = (value: string, unit: string, label: string, title: string): Cell => ({
    value,
    unit,
    label,
    title: value === DASH ? later(run, label) : title,
  });
  const between = n.between ?? {};
  const spread = ["p50", "p95", "p99"].filter((p) => p in between).map((p) => `${p} ${time(between[p])}`);
  const spent = there(n.decode_threads) ? `, ${figures(n.decode_threads, 2)} CPU threads used` : "";
  return [
    cell(
      figures(n.decode),
      "tokens/s",
      "decode",
      `Between tokens: ${spread.join(", ")}${spent}; with capture`,
    ),
    cell(
      ...duration(n.first),
      "first token",
      `From the request to the choice of the first token: ${time(n.first)}`,
    ),
    cell(figures(n.prefill), "tokens/s", "prefill", `The prompt took ${time(n.prefill_ms)}, with capture`),
    cell(
      ...split(there(n.memory) ? bytes(n.memory) : DASH),
      "memory",
      "Resident memory of the engine\u2019s process at the end of the run",
    ),
    cell(
      figures(n.used),
      `/ ${figures(n.size)}`,
      "context",
      `${figures(n.used)} tokens of the ${figures(n.size)} that this run\u2019s context has room for`,
    ),
  ];
}

const SOURCE: readonly [string, string][] = [
  ["decode_tps", "tokens/s"],
  ["prefill_tps", "tokens/s"],
  ["requests_running", ""],
  ["slots_busy", ""],
  ["context_used", ""],
];

/** What stands in the line of a live source: its first five figures. */
export function sourceCells(data: PanelData): Cell[] {
  const of = (at: number, unit: string): Cell => {
    const f = data.facts.figures[at]!;
    const whole = { slots_busy: "slots", context_used: "context_size" }[f.name];
    const other = whole === undefined ? -1 : data.find(whole, f.device);
    const [value, own] = split(amountOf(data.last(at), f.unit === "tokens" ? "" : f.unit));
    const label = f.device ? `${f.device} ${f.label}` : f.label;
    const title = f.note || `${label} now`;
    return { value, unit: other >= 0 ? `/ ${figures(data.last(other))}` : own || unit, label, title };
  };
  const known = SOURCE.map(([name, unit]) => [data.find(name), unit] as const).filter(([at]) => at >= 0);
  if (known.length > 0) return known.map(([at, unit]) => of(at, unit));
  return data.facts.figures.slice(0, 5).map((_, at) => of(at, ""));
}

/** What capture adds, in a sentence. */
export function overheadWords(found: Overhead): string {
  const one = (name: string, ratio: number, seconds: number, plain: number) =>
    `${name} \u00d7 ${ratio.toFixed(2)} (${time(1e3 * seconds)}, without capture ${time(1e3 * plain)})`;
  const parts = [one("prefill", found.prefill_ratio, found.prefill_seconds, found.plain_prefill_seconds)];
  if (found.decode_ratio !== undefined)
    parts.push(one("decode", found.decode_ratio, found.decode_seconds!, found.plain_decode_seconds!));
  return `${parts.join("; ")}; medians of ${found.repeats}`;
}

/** The CPU threads of a run, in a sentence; empty where it was too short to tell. */
export function threadWords(run: Run): string {
  const { prefill_threads, decode_threads, threads } = run.numbers;
  const parts = [
    there(prefill_threads) ? `prefill ${figures(prefill_threads, 2)}` : "",
    there(decode_threads) ? `decode ${figures(decode_threads, 2)}` : "",
  ].filter(Boolean);
  return parts.length > 0 ? `${parts.join(" \u00b7 ")} of ${figures(threads)} given to llama.cpp` : "";
}

/** How the times of operations are meant. */
export function operationWords(times: OperationTimes): string {
  const { ms, whole_ms: whole } = times;
  const slower = ms > whole ? ", slower than a plain run" : "";
  const busy = whole > BUSY * ms ? ", the machine was busy" : "";
  const both = `${time(ms)}, without stops ${time(whole)}${busy}`;
  return `measured op by op${slower}: ${both} \u00b7 prompt of ${plural(times.tokens, "token")} \u00b7 median of ${times.repeats}`;
}

/** "78 %", "0.4 %", "<0.1 %". */
export const percent = (share: number): string =>
  share > 0 && share < 0.001 ? "<0.1\u202f%" : `${figures(100 * share, 2)}\u202f%`;

/** Where the time went. */
export function timeWords(run: Run): string {
  const n = run.numbers;
  const parts: [string, Maybe][] = [
    ["load", n.load],
    ["prefill", n.prefill_ms],
    ["statistics and check", n.reduce],
    ["whole run", n.total],
  ];
  return parts
    .filter(([, ms]) => there(ms))
    .map(([name, ms]) => `${name} ${time(ms)}`)
    .join(" \u00b7 ");
}

/** 14:03:05. */
export function clock(seconds: number): string {
  const d = new Date(1000 * seconds);
  return [d.getHours(), d.getMinutes(), d.getSeconds()].map((v) => String(v).padStart(2, "0")).join(":");
}
