// From weights to colours: linear, logarithmic, per row; with or without the sink.
// In: a scale, weights or thumbnail codes. Out: positions 0..1 on the colour ramp (0 = paper), and legend ticks.
import { CODE_WEIGHT, type Matrix } from "./data";

export type Scale = "log" | "linear" | "row";

/** The logarithmic scale shows three decades: 0.001 to 1. */
const DECADES = 3;

/** Position of a weight on the logarithmic ramp. */
export function logPosition(weight: number): number {
  return weight <= 0 ? 0 : Math.max(0, Math.min(1, Math.log10(weight) / DECADES + 1));
}

/** The largest weight of a matrix, the first column (sink) left out where it stands apart. */
export function automaticMaximum(matrix: Matrix, sinkAside: boolean): number {
  if (!sinkAside || matrix.keys < 2) return 1;
  const { data, keys } = matrix;
  let most = 0;
  for (let start = 0; start < data.length; start += keys)
    for (let i = start + 1; i < start + keys; i++) if (data[i]! > most) most = data[i]!;
  return most > 0 ? most : 1;
}

/** The largest weight of one row; with `sink` without its first cell, unless there is nothing else. */
export function rowMaximum(matrix: Matrix, row: number, sink: boolean): number {
  let most = 0;
  const start = row * matrix.keys;
  for (let k = sink ? 1 : 0; k < matrix.keys; k++) {
    const v = matrix.data[start + k]!;
    if (v > most) most = v;
  }
  return most > 0 ? most : matrix.data[start] || 1;
}

/**
 * For each row of a matrix, the function from weight to ramp position. `sink`: the first column is the first token.
 * `most` ends the linear scale; without it the largest weight here does.
 */
export function positions(
  matrix: Matrix,
  scale: Scale,
  sinkAside: boolean,
  sink = true,
  most = scale === "linear" ? automaticMaximum(matrix, sinkAside && sink) : 1,
): (row: number) => (weight: number) => number {
  if (scale === "log") return () => logPosition;
  if (scale === "row")
    return (row) => {
      const own = rowMaximum(matrix, row, sink);
      return (w) => Math.min(1, w / own);
    };
  return () => (w) => Math.min(1, w / most);
}

/** From a value of either sign to the diverging ramp, whose middle is 0. */
export function signedPosition(limit: number): (value: number) => number {
  return (v) => Math.max(0, Math.min(1, 0.5 + v / (2 * (limit || 1))));
}

const clampCode = (c: number) => Math.max(0, Math.min(255, Math.round(c)));
const LOG: Uint8Array = Uint8Array.from(CODE_WEIGHT, (w) => clampCode(logPosition(w) * 255));

/**
 * Ramp indices of one thumbnail (rows x keys codes) under a scale, written to `out`.
 * The same rules as `positions`, on codes: a quotient of weights is a difference of codes.
 */
export function rampCodes(
  codes: Uint8Array,
  keys: number,
  scale: Scale,
  sinkAside: boolean,
  out: Uint8Array,
): void {
  if (scale === "log") {
    for (let i = 0; i < codes.length; i++) out[i] = LOG[codes[i]!]!;
    return;
  }
  let most = 255;
  if (scale === "linear" && sinkAside && keys > 1) {
    most = 0;
    for (let i = 0; i < codes.length; i++) if (i % keys !== 0 && codes[i]! > most) most = codes[i]!;
  }
  for (let start = 0; start < codes.length; start += keys) {
    if (scale === "row") {
      most = 0;
      for (let k = 1; k < keys; k++) if (codes[start + k]! > most) most = codes[start + k]!;
      if (most === 0) most = codes[start]!;
    }
    for (let k = 0; k < keys; k++) {
      const c = codes[start + k]!;
      out[start + k] =
        c === 0 ? 0 : clampCode(CODE_WEIGHT[clampCode(Math.min(255, c + 255 - (most || 255)))]! * 255);
    }
  }
}

/** Ticks of the legend: [position 0..1, label]. */
export function legend(scale: Scale, most: number): { ticks: [number, string][]; words: string } {
  if (scale === "log")
    return {
      ticks: [
        [0, "\u2264 0.001"],
        [1 / 3, "0.01"],
        [2 / 3, "0.1"],
        [1, "1"],
      ],
      words: "log scale",
    };
  if (scale === "row")
    return {
      ticks: [
        [0, "0"],
        [0.5, "\u00bd"],
        [1, "row\u2019s max"],
      ],
      words: "each row by its own maximum",
    };
  const text = (v: number) => String(Number(v.toPrecision(2)));
  return {
    ticks: [
      [0, "0"],
      [0.5, text(most / 2)],
      [1, text(most)],
    ],
    words: "linear scale",
  };
}
