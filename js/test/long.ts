// A head of a long prompt, made of noise: q, k and what Python would send with them.
import { type Facts, GridData } from "../src/attention_grid/data";
import { Replay } from "../src/attention_grid/replay";
import { facts, statistics, thumbnails } from "./fixture";

/** The same numbers every time. */
function noise(n: number, seed: number): Float32Array {
  let x = seed;
  return Float32Array.from({ length: n }, () => {
    x = (1103515245 * x + 12345) % 2147483648;
    return x / 1073741824 - 1;
  });
}

/** One causal head of n tokens; with a window a query sees so many keys at most. */
export function longHead(n: number, size = 4, window: number | null = null): Replay {
  const [q, k] = [noise(n * size, 1), noise(n * size, 2)];
  const first = Int32Array.from({ length: n }, (_, i) => (window ? Math.max(0, i - window + 1) : 0));
  const stop = Int32Array.from({ length: n }, (_, i) => i + 1);
  const lse = Float64Array.from({ length: n }, (_, i) => {
    let sum = 0;
    for (let j = first[i]!; j <= i; j++) {
      let dot = 0;
      for (let d = 0; d < size; d++) dot += q[i * size + d]! * k[j * size + d]!;
      sum += Math.exp(2 * dot);
    }
    return Math.log(sum);
  });
  const head = {
    rows: n,
    keys: n,
    size,
    dtype: "f4" as const,
    stages: ["scores", "scaled", "masked", "softmax"],
    scale: 2,
    soft_cap: 0,
    fused: false,
    slope: 0,
    offset: 0,
    sink: null,
    has_bits: false,
    has_bias: false,
    window,
  };
  return new Replay(head, [q, k, lse, first, stop]);
}

/** The lighthouse prompt's grid with a longer text: thumbnails stay, tokens are made up. */
export function longData(n: number, changes: Partial<Facts> = {}): GridData {
  const tokens = Array.from({ length: n }, (_, i) => (i % 7 === 6 ? "," : `\u00b7word${i % 97}`));
  const kinds = tokens.map(() => "normal");
  return GridData.from({ ...facts, n_tokens: n, tokens, kinds, ...changes }, thumbnails, statistics);
}
