// Two heads computed side by side: weights left and right, their difference, the distance of every query.
// In: two replays, how many rows and keys go together. Out: matrices and distances, in slices so that the page goes on answering.
import type { Matrix } from "../attention_grid/data";
import type { Covers } from "../attention_grid/paint_matrix";
import type { Replay } from "../attention_grid/replay";

/** More rows or keys than this share cells: each the weight, or the difference, that is greatest. */
const SIDE = 512;
/** Milliseconds of work after which other things have their turn. */
const SLICE = 10;

/** One side, or the difference, as it is drawn. */
export interface Plane {
  readonly matrix: Matrix;
  readonly covers: Covers;
}

export interface PairResult {
  readonly left: Plane;
  readonly right: Plane;
  /** Null where no token of one side goes with one of the other. */
  readonly difference: Plane | null;
  /** Per query: Jensen-Shannon in bits, total variation; NaN where there is no choice. */
  readonly js: Float32Array;
  readonly tv: Float32Array;
  readonly meanJs: number;
  readonly meanTv: number;
  /** The greatest difference, of all keys and without the first. */
  readonly most: number;
  readonly mostInner: number;
  /** Where they differ most: [query, key], the first key left out unless nothing else differs. */
  readonly peak: readonly [number, number];
}

/** Computes a pair; `alive` says whether it is still wanted. */
export async function computePair(
  left: Replay,
  right: Replay,
  together: { readonly rows: number; readonly keys: number } | null,
  alive: () => boolean,
): Promise<PairResult | null> {
  const work = together ? both(left, right, together.rows, together.keys) : apart(left, right);
  let since = performance.now();
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
    if (performance.now() - since < SLICE) continue;
    await new Promise((done) => setTimeout(done));
    if (!alive()) return null;
    since = performance.now();
  }
}

function* apart(left: Replay, right: Replay): Generator<void, PairResult> {
  const planes: Plane[] = [];
  for (const replay of [left, right]) {
    const plane = new PlaneMaker(replay.rows, replay.keys, greater);
    for (let i = 0; i < replay.rows; i++) {
      plane.add(i, replay.row(i));
      yield;
    }
    planes.push(plane);
  }
  const nothing = {
    js: new Float32Array(0),
    tv: new Float32Array(0),
    meanJs: Number.NaN,
    meanTv: Number.NaN,
  };
  return {
    left: planes[0]!,
    right: planes[1]!,
    difference: null,
    ...nothing,
    most: 0,
    mostInner: 0,
    peak: [left.rows - 1, 0],
  };
}

function* both(left: Replay, right: Replay, rows: number, keys: number): Generator<void, PairResult> {
  const planes = [greater, greater, stronger].map((wins) => new PlaneMaker(rows, keys, wins));
  const [js, tv] = [new Float32Array(rows).fill(Number.NaN), new Float32Array(rows).fill(Number.NaN)];
  const difference = new Float32Array(keys);
  const sinks = left.facts.sink !== null || right.facts.sink !== null;
  let [most, mostInner] = [0, 0];
  let peak: [number, number] = [rows - 1, 0];
  const choice = new Uint8Array(rows);
  for (let i = 0; i < rows; i++) {
    const [a, b] = [left.row(i), right.row(i)];
    for (let k = 0; k < keys; k++) {
      const [x, y] = [a[k] ?? Number.NaN, b[k] ?? Number.NaN];
      const d = Number.isNaN(x) ? y : Number.isNaN(y) ? -x : y - x;
      difference[k] = d;
      if (Math.abs(d) > most) most = Math.abs(d);
      if (k > 0 && Math.abs(d) > mostInner) {
        mostInner = Math.abs(d);
        peak = [i, k];
      }
    }
    const found = distance(a, b, sinks);
    if (found) [js[i], tv[i], choice[i]] = [found.js, found.tv, Number(found.choice)];
    [a, b, difference].forEach((line, p) => {
      planes[p]!.add(i, line);
    });
    yield;
  }
  // Rows without a choice count only where no row has one.
  if (choice.includes(1)) for (let i = 0; i < rows; i++) if (!choice[i]) js[i] = tv[i] = Number.NaN;
  return {
    left: planes[0]!,
    right: planes[1]!,
    difference: planes[2]!,
    js,
    tv,
    meanJs: mean(js),
    meanTv: mean(tv),
    most,
    mostInner,
    peak,
  };
}

/** Distance of two rows of weights (NaN = not seen); null where one of them sees nothing. */
export function distance(
  a: Float32Array,
  b: Float32Array,
  sinks: boolean,
): { js: number; tv: number; choice: boolean } | null {
  let [seenA, seenB, sumA, sumB, terms, apart] = [0, 0, 0, 0, 0, 0];
  const add = (p: number, q: number) => {
    const both = p + q;
    if (both <= 0) return;
    const t = Math.abs(p - q) / both;
    terms += both * ((1 + t) * Math.log1p(t) + (t < 1 ? (1 - t) * Math.log1p(-t) : 0));
    apart += Math.abs(p - q);
  };
  for (let k = 0; k < Math.max(a.length, b.length); k++) {
    const [x, y] = [a[k] ?? Number.NaN, b[k] ?? Number.NaN];
    const [p, q] = [Number.isNaN(x) ? 0 : x, Number.isNaN(y) ? 0 : y];
    if (!Number.isNaN(x)) seenA++;
    if (!Number.isNaN(y)) seenB++;
    sumA += p;
    sumB += q;
    add(p, q);
  }
  if (seenA === 0 || seenB === 0) return null;
  // What a learned sink takes is one more key.
  if (sinks) add(Math.max(0, 1 - sumA), Math.max(0, 1 - sumB));
  const js = Math.min(1, Math.max(0, terms / (4 * Math.LN2)));
  return { js, tv: Math.min(1, apart / 2), choice: Math.max(seenA, seenB) >= 2 };
}

function mean(values: Float32Array): number {
  let [sum, n] = [0, 0];
  for (const v of values)
    if (!Number.isNaN(v)) {
      sum += v;
      n++;
    }
  return n > 0 ? sum / n : Number.NaN;
}

const greater = (x: number, than: number) => x > than;
const stronger = (x: number, than: number) => Math.abs(x) > Math.abs(than);

/** Takes rows into a matrix of at most SIDE x SIDE cells; the first key has a cell of its own. */
class PlaneMaker implements Plane {
  readonly matrix: Matrix;
  readonly covers: Covers;

  constructor(
    private readonly rows: number,
    private readonly keys: number,
    private readonly wins: (x: number, than: number) => boolean,
  ) {
    const [h, w] = [Math.min(SIDE, rows), Math.min(SIDE, keys)];
    this.matrix = { rows: h, keys: w, data: new Float32Array(h * w).fill(Number.NaN) };
    this.covers = { rows: [0, rows], keys: [0, keys], sink: w > 1 };
  }

  add(row: number, line: Float32Array): void {
    const { rows, keys, data } = this.matrix;
    const start = (Math.ceil(((row + 1) * rows) / this.rows) - 1) * keys;
    const [n, m] = [this.keys - 1, keys - 1];
    for (let k = 0; k < this.keys; k++) {
      const x = line[k] ?? Number.NaN;
      if (Number.isNaN(x)) continue;
      const at = start + (k === 0 ? 0 : Math.ceil((k * m) / n));
      const than = data[at]!;
      if (Number.isNaN(than) || this.wins(x, than)) data[at] = x;
    }
  }
}
