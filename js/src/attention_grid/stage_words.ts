// What happens from stage to stage, in the model's own numbers, and how a stage's value is written.
// In: a head's constants, its layer's mask. Out: short words under each picture, numbers above it.
import { weight } from "../shared/format";
import type { LayerFacts } from "./data";
import type { HeadFacts, Replay } from "./replay";

const MINUS = "\u2212";
const INFINITY = "\u221e";
const PRODUCT = "q\u00b7k\u1d40";
/** Below this a square root says less than the number itself. */
const ROOT = 8;

/** A signed number with three figures: 54.2, 6.78, -0.061; whole from 100 on. */
export function signed(value: number): string {
  if (Number.isNaN(value)) return "\u2013";
  const size = Math.abs(value);
  if (size === Number.POSITIVE_INFINITY) return value < 0 ? MINUS + INFINITY : INFINITY;
  if (size >= 1e6 || (size > 0 && size < 1e-4))
    return value.toExponential(1).replace(/-/g, MINUS).replace("+", "");
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 || size === 0 ? 2 : 3;
  const text = size.toFixed(size === 0 ? 0 : digits);
  return value < 0 && Number(text) !== 0 ? MINUS + text : text;
}

/** A constant of the model: as many figures as it needs, three at most. */
export function constant(value: number): string {
  return String(Number(value.toPrecision(3))).replace("-", MINUS);
}

/** "÷ √64" where the scale is one over a root, else "× 0.0884". */
function scaling(scale: number): string {
  const squared = 1 / (scale * scale);
  const whole = Math.round(squared);
  const root = whole >= ROOT && whole < 1e6 && Math.abs(squared / whole - 1) < 1e-5;
  return root ? `\u00f7 \u221a${whole}` : `\u00d7 ${constant(scale)}`;
}

/** What makes this stage out of the one before it. */
export function operation(stage: string, facts: HeadFacts, mask: LayerFacts["mask"]): string {
  switch (stage) {
    case "scores":
      return PRODUCT;
    case "scaled":
      return scaling(facts.scale);
    case "capped":
      return `${constant(facts.soft_cap)}\u00b7tanh(x/${constant(facts.soft_cap)})`;
    case "biased":
      return "+ position bias";
    case "masked":
      return masking(facts, mask);
    case "softmax":
      return facts.sink === null ? "rows sum to 1" : `rows + sink ${signed(facts.sink)} sum to 1`;
    default:
      return "";
  }
}

function masking(facts: HeadFacts, mask: LayerFacts["mask"]): string {
  const words = [
    facts.slope !== 0 ? `${MINUS} ${constant(facts.slope)}\u00b7|i ${MINUS} j|` : "",
    facts.window === null ? "" : `window ${facts.window}`,
    mask === "causal"
      ? `future = ${MINUS}${INFINITY}`
      : mask === "other"
        ? `unseen = ${MINUS}${INFINITY}`
        : "",
  ].filter(Boolean);
  return words.length > 0 ? words.join(" \u00b7 ") : "every key is seen";
}

/** The value of a cell as it stands above a stage's picture; a masked cell is -∞, and 0 after the softmax. */
export function stageValue(replay: Replay, stage: string, query: number, key: number): string {
  const value = replay.value(stage, query, key);
  const unseen = Number.isNaN(value) && !replay.visible(query, key);
  if (stage === "softmax") return unseen ? "0" : shortWeight(value);
  return signed(unseen ? Number.NEGATIVE_INFINITY : value);
}

/** A weight with three digits; a tiny one by its power of ten. */
function shortWeight(value: number): string {
  if (!(value > 0 && value < 0.0005)) return weight(value);
  return value.toExponential(0).replace("-", MINUS);
}

/** The share of a row that its sink takes; NaN where the head has none. */
export function sinkShare(replay: Replay, query: number): number {
  if (replay.facts.sink === null) return Number.NaN;
  return Math.max(0, 1 - replay.row(query).reduce((sum, w) => sum + (Number.isNaN(w) ? 0 : w), 0));
}
