// llama.cpp's sampler chain over a whole vocabulary, as it stands: penalty, top-k, typical, top-p, min-p, temperature.
// In: logits, the tokens so far, settings. Out: what each filter cuts, and the probabilities of what is left.
// Sums are made in single precision and in llama.cpp's order: in a large vocabulary its rounding decides what is cut.

export interface Settings {
  readonly temperature: number;
  readonly top_k: number;
  readonly typical_p: number;
  readonly top_p: number;
  readonly min_p: number;
  readonly repeat_penalty: number;
}

/** The filters that cut tokens, in their order. */
export const FILTERS = ["top_k", "typical_p", "top_p", "min_p"] as const;
export type Filter = (typeof FILTERS)[number];

/** Tokens before and after a filter, and the model's probability of those that it cut. */
export interface Step {
  readonly before: number;
  readonly after: number;
  readonly mass: number;
}

const f = Math.fround;
/** More than any vocabulary has. */
const IDS = 2097152;
/** Last tokens that the repeat penalty looks at. */
const PENALIZED = 64;

/** Logits in order, with everything that no slider but the penalty changes. */
class Sorted {
  /** exp(logit - greatest), in single precision. */
  readonly exps: Float32Array;
  private byId = -1;

  constructor(
    /** Ids, likeliest first; equal logits in the order of their ids. */
    readonly order: Int32Array,
    readonly logits: Float32Array,
  ) {
    const most = logits[0] ?? 0;
    this.exps = new Float32Array(order.length);
    for (let i = 0; i < order.length; i++) this.exps[i] = Math.exp(f(logits[i]! - most));
  }

  static of(own: Float32Array): Sorted {
    const n = own.length;
    const bits = new Int32Array(own.buffer, own.byteOffset, n);
    const keys = new Float64Array(n);
    for (let id = 0; id < n; id++) {
      const b = own[id] === 0 ? 0 : bits[id]!; // -0 is 0
      keys[id] = (b < 0 ? -(b & 0x7fffffff) : b) * -IDS + id;
    }
    keys.sort();
    const order = new Int32Array(n);
    const logits = new Float32Array(n);
    for (let i = 0; i < n; i++) {
      const id = keys[i]! - Math.floor(keys[i]! / IDS) * IDS;
      order[i] = id;
      logits[i] = own[id]!;
    }
    return new Sorted(order, logits);
  }

  /** The same with a few logits changed: those are sorted, the rest is in order. */
  change(changed: ReadonlyMap<number, number>): Sorted {
    const moved = [...changed].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    const n = this.order.length;
    const order = new Int32Array(n);
    const logits = new Float32Array(n);
    const own = new Uint8Array(n);
    for (const id of changed.keys()) own[id] = 1;
    let next = 0;
    let at = 0;
    const put = (id: number, logit: number) => {
      order[at] = id;
      logits[at++] = logit;
    };
    for (let i = 0; i < n; i++) {
      const id = this.order[i]!;
      if (own[id]) continue;
      const logit = this.logits[i]!;
      while (next < moved.length && before(moved[next]!, id, logit)) put(...moved[next++]!);
      put(id, logit);
    }
    while (next < moved.length) put(...moved[next++]!);
    return new Sorted(order, logits);
  }

  /** Sum of `exps` in the order of ids, as llama.cpp adds what it has not sorted. */
  get sumById(): number {
    if (this.byId >= 0) return this.byId;
    const byId = new Float32Array(this.order.length);
    for (let i = 0; i < byId.length; i++) byId[this.order[i]!] = this.exps[i]!;
    let sum = 0;
    for (let id = 0; id < byId.length; id++) sum = f(sum + byId[id]!);
    this.byId = sum;
    return sum;
  }
}

/** Whether a token [id, logit] stands before another. */
function before([id, logit]: readonly [number, number], otherId: number, other: number): boolean {
  return logit > other || (logit === other && id < otherId);
}

/** The model's own distribution over its whole vocabulary. */
export class Distribution {
  readonly size: number;
  /** Probability of every token, by id. */
  readonly probabilities: Float64Array;
  /** Ids, likeliest first. */
  readonly order: Int32Array;
  readonly plain: Sorted;
  /** In bits. */
  readonly entropy: number;
  private readonly places: Int32Array;

  constructor(readonly logits: Float32Array) {
    this.size = logits.length;
    this.plain = Sorted.of(logits);
    this.order = this.plain.order;
    this.probabilities = new Float64Array(this.size);
    this.places = new Int32Array(this.size);
    const most = this.plain.logits[0] ?? 0;
    let sum = 0;
    for (let id = 0; id < this.size; id++) {
      const e = Math.exp(logits[id]! - most);
      this.probabilities[id] = e;
      sum += e;
    }
    let entropy = 0;
    for (let i = 0; i < this.size; i++) {
      const p = this.probabilities[i]! / sum;
      this.probabilities[i] = p;
      if (p > 0) entropy -= p * Math.log2(p);
      this.places[this.order[i]!] = i;
    }
    this.entropy = entropy;
  }

  /** 1 = the likeliest. */
  rank(id: number): number {
    return this.places[id]! + 1;
  }
}

/** What the chain made of a distribution. */
export class Result {
  constructor(
    private readonly places: Int32Array,
    private readonly ends: Readonly<Record<Filter, readonly [number, number]>>,
    readonly steps: Readonly<Record<Filter, Step>>,
    /** Places [first, stop) that are left, in the order after the penalty. */
    readonly left: readonly [number, number],
    private readonly own: Float64Array,
    /** Ids in the order after the penalty. */
    readonly order: Int32Array,
    /** How far the repeat penalty moved the distribution: half the sum of what changed. */
    readonly moved: number,
    readonly penalized: number,
  ) {}

  get kept(): number {
    return this.left[1] - this.left[0];
  }

  /** The filter that cut a token; null = it is left. */
  cutBy(id: number): Filter | null {
    const at = this.places[id]!;
    for (const name of FILTERS) {
      const [first, stop] = this.ends[name];
      if (at < first || at >= stop) return name;
    }
    return null;
  }

  /** After the chain; 0 where a token was cut. */
  probability(id: number): number {
    const at = this.places[id]! - this.left[0];
    return at >= 0 && at < this.own.length ? this.own[at]! : 0;
  }

  /** Rank among what is left, 1 = the likeliest; 0 where a token was cut. */
  rank(id: number): number {
    const at = this.places[id]!;
    return at >= this.left[0] && at < this.left[1] ? at - this.left[0] + 1 : 0;
  }
}

export class Chain {
  private readonly recent: readonly number[];
  private sorted: Sorted;
  private places: Int32Array;
  /** The model's probability of everything before a place. */
  private mass: Float64Array;
  private penalty = 1;
  private moved = 0;

  constructor(
    readonly distribution: Distribution,
    before: readonly number[],
  ) {
    this.recent = [...new Set(before.slice(-PENALIZED))].filter((id) => id < distribution.size);
    this.sorted = distribution.plain;
    [this.places, this.mass] = this.index();
  }

  run(s: Settings): Result {
    this.penalize(s.repeat_penalty);
    const n = this.distribution.size;
    const { exps, logits } = this.sorted;
    let [lo, hi] = [0, n];
    let inOrder = false;
    const ends = {} as Record<Filter, readonly [number, number]>;
    const steps = {} as Record<Filter, Step>;
    const note = (name: Filter, before: readonly [number, number]) => {
      ends[name] = [lo, hi];
      const held = this.held(...before) - this.held(lo, hi);
      const cut = before[1] - before[0] - (hi - lo);
      steps[name] = { before: before[1] - before[0], after: hi - lo, mass: cut > 0 ? Math.max(0, held) : 0 };
    };
    const greedy = s.temperature <= 0;
    if (s.top_k > 0 && !greedy) {
      hi = Math.min(s.top_k, n);
      inOrder = true;
    }
    note("top_k", [0, n]);
    let before: readonly [number, number] = [lo, hi];
    let added: Int32Array | null = null;
    if (s.typical_p < 1 && !greedy) {
      added = typical(exps, hi, f(s.typical_p));
      lo = n;
      hi = 0;
      for (const at of added) {
        if (at < lo) lo = at;
        if (at >= hi) hi = at + 1;
      }
      inOrder = false;
    }
    note("typical_p", before);
    before = [lo, hi];
    if (s.top_p < 1 && !greedy) hi = topP(exps, lo, hi, f(s.top_p), this.sum(lo, hi, inOrder, added), logits);
    note("top_p", before);
    before = [lo, hi];
    if (s.min_p > 0 && !greedy) {
      const least = f(logits[lo]! + f(Math.log(f(s.min_p))));
      let at = lo + 1;
      while (at < hi && logits[at]! >= least) at++;
      hi = at;
    }
    note("min_p", before);
    const kept = greedy ? ([0, 1] as const) : ([lo, hi] as const);
    const own = soften(logits, kept, greedy ? 1 : f(s.temperature));
    const penalized = this.penalty === 1 ? 0 : this.recent.length;
    return new Result(this.places, ends, steps, kept, own, this.sorted.order, this.moved, penalized);
  }

  /** The model's probability of the tokens at these places. */
  held(first: number, stop: number): number {
    return this.mass[stop]! - this.mass[first]!;
  }

  /** The sum that llama.cpp divides by before top-p: in the order in which it then holds the tokens. */
  private sum(lo: number, hi: number, inOrder: boolean, added: Int32Array | null): number {
    const { exps, sumById } = this.sorted;
    if (!inOrder && !added) return sumById;
    // After "typical" the greatest need not be the first.
    const most = exps[lo]!;
    let sum = 0;
    if (added) for (const at of added) sum = f(sum + (most === 1 ? exps[at]! : f(exps[at]! / most)));
    else for (let i = lo; i < hi; i++) sum = f(sum + exps[i]!);
    return sum;
  }

  private index(): [Int32Array, Float64Array] {
    const { order } = this.sorted;
    const places = new Int32Array(order.length);
    const mass = new Float64Array(order.length + 1);
    const { probabilities } = this.distribution;
    for (let i = 0; i < order.length; i++) {
      places[order[i]!] = i;
      mass[i + 1] = mass[i]! + probabilities[order[i]!]!;
    }
    return [places, mass];
  }

  private penalize(value: number): void {
    if (value === this.penalty) return;
    this.penalty = value;
    this.moved = 0;
    const { distribution: d } = this;
    if (value === 1) this.sorted = d.plain;
    else {
      const by = f(value);
      const own = this.recent.map((id) => [id, d.logits[id]!] as const);
      this.sorted = d.plain.change(new Map(own.map(([id, l]) => [id, l <= 0 ? f(l * by) : f(l / by)])));
      this.moved = this.difference();
    }
    [this.places, this.mass] = this.index();
  }

  /** Half the sum of |after the penalty - before|. */
  private difference(): number {
    const { exps, order } = this.sorted;
    let sum = 0;
    for (let i = 0; i < exps.length; i++) sum += exps[i]!;
    let moved = 0;
    for (let i = 0; i < exps.length; i++)
      moved += Math.abs(exps[i]! / sum - this.distribution.probabilities[order[i]!]!);
    return moved / 2;
  }
}

/** Places in the order in which "typical" takes them: nearest to the entropy first, until they hold p. */
function typical(exps: Float32Array, stop: number, p: number): Int32Array {
  let sum = 0;
  for (let i = 0; i < stop; i++) sum = f(sum + exps[i]!);
  const own = new Float32Array(stop);
  const surprise = new Float32Array(stop);
  let entropy = 0;
  for (let i = 0; i < stop; i++) {
    const share = f(exps[i]! / sum);
    own[i] = share;
    surprise[i] = share > 0 ? f(-f(Math.log(share))) : Number.POSITIVE_INFINITY;
    if (share > 0) entropy = f(entropy + f(share * surprise[i]!));
  }
  // Surprise rises with the place, so the nearest to the entropy lie side by side.
  let right = 0;
  for (let step = 1 << 30; step >= 1; step >>= 1)
    if (right + step <= stop && surprise[right + step - 1]! < entropy) right += step;
  let left = right - 1;
  const away = (i: number) => f(Math.abs(f(surprise[i]! - entropy)));
  const taken = new Int32Array(stop);
  let held = 0;
  for (let count = 0; count < stop; count++) {
    const at = right >= stop || (left >= 0 && away(left) <= away(right)) ? left-- : right++;
    taken[count] = at;
    held = f(held + own[at]!);
    if (held > p) return taken.subarray(0, count + 1);
  }
  return taken;
}

/** Where top-p ends. */
function topP(
  exps: Float32Array,
  lo: number,
  hi: number,
  p: number,
  sum: number,
  logits: Float32Array,
): number {
  const most = logits[lo]!;
  const scaled = lo > 0;
  let held = 0;
  for (let i = lo; i < hi; i++) {
    const e = scaled ? f(Math.exp(f(logits[i]! - most))) : exps[i]!;
    held = f(held + f(e / sum));
    if (held >= p) return i + 1;
  }
  return hi;
}

/** Probabilities at a temperature. */
function soften(
  logits: Float32Array,
  [lo, hi]: readonly [number, number],
  temperature: number,
): Float64Array {
  const own = new Float64Array(hi - lo);
  const most = f(logits[lo]! / temperature);
  let sum = 0;
  for (let i = lo; i < hi; i++) {
    const e = Math.exp(f(f(logits[i]! / temperature) - most));
    own[i - lo] = e;
    sum += e;
  }
  for (let i = 0; i < own.length; i++) own[i]! /= sum;
  return own;
}
