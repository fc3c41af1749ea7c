// Sentences and labels of the token explorer.
// In: numbers, steps of the chain, nodes. Out: strings.
import { count, plural, probability } from "../shared/format";
import type { Filter, Result, Settings } from "./chain";
import type { ExplorerData, Node, State } from "./data";

export type Slider = keyof Settings;

export const NAMES: Readonly<Record<Slider, string>> = {
  repeat_penalty: "repeat penalty",
  top_k: "top-k",
  typical_p: "typical",
  top_p: "top-p",
  min_p: "min-p",
  temperature: "temperature",
};

/** "40", "all", "0.95", "off". */
export function value(name: Slider, v: number): string {
  if (name === "top_k") return v > 0 ? count(v) : "all";
  if (name === "min_p") return v > 0 ? v.toFixed(3).replace(/0$/, "") : "off";
  if (name === "temperature") return v.toFixed(2);
  return v === 1 ? "off" : v.toFixed(v > 0.99 && v < 1 ? 3 : 2);
}

/** "49 152 → 40". */
export function passage(result: Result, name: Filter): string {
  const { before, after } = result.steps[name];
  return `${count(before)} \u2192 ${count(after)}`;
}

/** "cuts 35 tokens holding 4.8 %". */
export function cutWords(result: Result, name: Filter): string {
  const { before, after, mass } = result.steps[name];
  if (before === after) return "cuts nothing";
  return `cuts ${plural(before - after, "token")} holding ${probability(mass)}`;
}

/** What min-p's floor is: "below 1.6 %: ". */
export function floorWords(most: number, minP: number): string {
  return minP > 0 ? `below ${probability(most * minP)}: ` : "";
}

/** "sharpens ·lamp from 78 % to 92 %". */
export function temperatureWords(data: ExplorerData, result: Result, s: Settings, node: number): string {
  const d = data.chain(node)?.distribution;
  if (!d) return "";
  const id = result.order[result.left[0]]!;
  const word = data.word(id);
  if (s.temperature <= 0) return `takes ${word}, the likeliest, alone`;
  if (s.temperature === 1) return "leaves all as it is";
  const [first, stop] = result.left;
  let held = 0;
  for (let i = first; i < stop; i++) held += d.probabilities[result.order[i]!]!;
  const [from, to] = [d.probabilities[id]! / held, result.probability(id)];
  const verb = s.temperature < 1 ? "sharpens" : "flattens";
  return `${verb} ${word} from ${probability(from)} to ${probability(to)}`;
}

export function penaltyWords(result: Result): string {
  if (result.penalized === 0) return "moves nothing";
  return `${plural(result.penalized, "token")} of the last 64: moves ${probability(result.moved)}`;
}

export function bits(p: number): number {
  return -Math.log2(Math.max(p, 1e-12));
}

/** "8.7 ms", "99 ms", "1.4 s". */
export function milliseconds(ms: number): string {
  if (ms >= 999.5) return `${(ms / 1000).toFixed(1)}\u202fs`;
  return `${ms < 9.95 ? ms.toFixed(1) : Math.round(ms)}\u202fms`;
}

const HOW = { sampled: "sampled", likeliest: "the likeliest", chosen: "chosen by you" } as const;

/** "6.3 %, rank 3, 4.0 bits, 9.8 ms". */
export function nodeWords(node: Node): string {
  const time = node.ms === null ? "time not measured" : milliseconds(node.ms);
  const whole = `rank ${count(node.rank)} of the model, ${bits(node.probability).toFixed(1)} bits, ${HOW[node.how]}, ${time}`;
  return node.joins ? `${whole}, completes \u201c${node.joins}\u201d` : whole;
}

/** "byte token", "control token"; empty for ordinary ones. */
export function kindWords(kind: string, text: string): string {
  if (kind !== "normal") return `${kind.replace("_", " ")} token`;
  return /<0x[0-9A-F]{2}>/.test(text) ? "part of a character" : "";
}

/** "first token 99 ms · 113 tokens/s · T 0.80, min-p 0.05, seed 3". */
export function footWords(data: ExplorerData, state: State): string {
  const { first_token, tokens_per_second } = data.facts.speed;
  const words: string[] = [];
  if (first_token !== undefined) words.push(`first token ${milliseconds(first_token)}`);
  if (tokens_per_second !== undefined)
    words.push(`${tokens_per_second.toFixed(tokens_per_second < 10 ? 1 : 0)} tokens/s`);
  words.push(`T ${state.temperature.toFixed(2)}, seed ${state.seed}`);
  return words.join(" \u00b7 ");
}
