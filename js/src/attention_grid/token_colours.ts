// What the tokens of the text can be coloured by besides attention: how likely the model found each of them.
// In: a statistic of tokens. Out: positions on the colour ramp, ticks with units, and values in words.
import { count, probability, smallWeight, weight } from "../shared/format";

export type TokenStat = "probability" | "loss" | "entropy" | "rank" | "divergence";
export type ColourBy = "attention" | TokenStat;

export interface TokenColours {
  readonly label: string;
  /** What the colours say, for the heading. */
  readonly words: string;
  /** From a value to the ramp, 0 to 1. */
  position(value: number): number;
  readonly ticks: readonly (readonly [number, string])[];
  say(value: number): string;
}

/** Bits of surprise at the end of the ramp, and nats. */
const BITS = 6;
const LOSS = 8;
const ENTROPY = 6;
const RANK_DECADES = 3;
/** Nats of divergence where the ramp begins to be told from nothing, and how many decades it has. */
const LEAST_KL = 1e-3;
const KL_DECADES = 3;

const clamp = (v: number) => Math.max(0, Math.min(1, v));
const third = (i: number) => i / 3;

export const TOKEN_COLOURS: Readonly<Record<TokenStat, TokenColours>> = {
  probability: {
    label: "Probability",
    words: "before it came \u00b7 stronger = less expected",
    position: (p) => clamp(-Math.log2(p) / BITS),
    ticks: [
      [0, "100\u202f%"],
      [third(1), "25\u202f%"],
      [third(2), "6\u202f%"],
      [1, "\u2264 1.6\u202f%"],
    ],
    say: (p) => `probability ${probability(p)}`,
  },
  loss: {
    label: "Loss",
    words: "minus the logarithm of its probability \u00b7 stronger = less expected",
    position: (v) => clamp(v / LOSS),
    ticks: [
      [0, "0"],
      [0.5, "4"],
      [1, "\u2265 8 nats"],
    ],
    say: (v) => `loss ${weight(v, 2)} nats`,
  },
  entropy: {
    label: "Entropy",
    words: "how undecided the model was before it came \u00b7 stronger = more open",
    position: (v) => clamp(v / ENTROPY),
    ticks: [
      [0, "0"],
      [0.5, "3"],
      [1, "\u2265 6 nats"],
    ],
    say: (v) => `entropy ${weight(v, 2)} nats`,
  },
  rank: {
    label: "Rank",
    words: "among all that could have come \u00b7 1 = the model\u2019s first choice",
    position: (v) => clamp(Math.log10(v) / RANK_DECADES),
    ticks: [
      [0, "1st"],
      [third(1), "10"],
      [third(2), "100"],
      [1, "\u2265 1000"],
    ],
    say: (v) => `rank ${count(v)}`,
  },
  divergence: {
    label: "Surprise",
    words: "before it came \u00b7 stronger = the two models differ more, log scale",
    position: (v) => clamp(Math.log10(Math.max(v, LEAST_KL) / LEAST_KL) / KL_DECADES),
    ticks: [
      [0, "\u2264 0.001"],
      [third(1), "0.01"],
      [third(2), "0.1"],
      [1, "\u2265 1 nats"],
    ],
    say: (v) => `KL ${smallWeight(v)} nats`,
  },
};
