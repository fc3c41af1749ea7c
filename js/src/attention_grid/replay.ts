// One head's attention at any stage, computed again from q and k exactly as llama.cpp computed it.
// In: the constants of the scoring operation and its buffers, as Python sends them. Out: cells, rows, columns, tiles.
import { bytes, floats, type Matrix } from "./data";

/** Heads with more rows or keys than this are long: their overview is a tile, never the whole matrix. */
export const LONG = 1024;

/** Milliseconds of work after which other things have their turn. */
export const SLICE = 10;

export interface HeadFacts {
  readonly rows: number;
  readonly keys: number;
  /** Numbers in one query and in one key. */
  readonly size: number;
  readonly dtype: "f2" | "f4";
  /** In the order in which they are computed, from "scores" to "softmax". */
  readonly stages: readonly string[];
  readonly scale: number;
  /** 0 = none. */
  readonly soft_cap: number;
  /** Scaled, then capped (flash attention), with masks in half precision; else capped, then scaled. */
  readonly fused: boolean;
  /** ALiBi: what each step of distance takes away; 0 = none. */
  readonly slope: number;
  /** Position of the first query among the keys. */
  readonly offset: number;
  /** A score that takes its share of each row's sum and looks at nothing. */
  readonly sink: number | null;
  readonly has_bits: boolean;
  readonly has_bias: boolean;
  readonly window: number | null;
}

export class Replay {
  readonly rows: number;
  readonly keys: number;
  readonly size: number;
  readonly stages: readonly string[];
  private readonly q: Float32Array;
  private readonly k: Float32Array;
  /** Per row, ln of the sum of exp(masked score), the sink included; +Infinity where it sees nothing. */
  private readonly lse: Float64Array;
  private readonly first: Int32Array;
  private readonly stop: Int32Array;
  private readonly bits: Uint8Array | null;
  private readonly bias: Float32Array | null;
  private readonly whole = new Map<string, Matrix>();

  constructor(
    readonly facts: HeadFacts,
    buffers: readonly unknown[],
  ) {
    const { rows, keys, size } = facts;
    this.rows = rows;
    this.keys = keys;
    this.size = size;
    this.stages = facts.stages;
    let at = 0;
    const next = (count: number, width: number) => {
      const buffer = bytes(buffers[at++]);
      if (buffer.length !== count * width)
        throw new Error(`${buffer.length} bytes came, ${count * width} were announced`);
      return buffer;
    };
    const half = facts.dtype === "f2";
    const numbers = (count: number) => (half ? fromHalf(next(count, 2)) : floats(next(count, 4)));
    this.q = numbers(rows * size);
    this.k = numbers(keys * size);
    this.lse = new Float64Array(next(rows, 8).slice().buffer);
    this.first = new Int32Array(next(rows, 4).slice().buffer);
    this.stop = new Int32Array(next(rows, 4).slice().buffer);
    this.bits = facts.has_bits ? next(rows, Math.ceil(keys / 8)) : null;
    this.bias = facts.has_bias ? floats(next(rows * keys, 4)) : null;
  }

  /** Memory that it takes, with the matrices that were asked for. */
  get bytes(): number {
    const own = 4 * (this.q.length + this.k.length + (this.bias?.length ?? 0)) + 16 * this.rows;
    return (this.bits?.length ?? 0) + own + this.whole.size * 4 * this.rows * this.keys;
  }

  visible(query: number, key: number): boolean {
    if (key < this.first[query]! || key >= this.stop[query]!) return false;
    if (!this.bits) return true;
    const byte = this.bits[query * Math.ceil(this.keys / 8) + (key >> 3)]!;
    return ((byte >> (7 - (key & 7))) & 1) === 1;
  }

  /** NaN = masked, which cells are from stage "masked" on. */
  value(stage: string, query: number, key: number): number {
    const last = this.index(stage);
    if (last >= this.masking && !this.visible(query, key)) return Number.NaN;
    const out = new Float64Array(1);
    dots(this.q, query * this.size, this.k, key, key + 1, this.size, out);
    return this.through(out[0]!, query, key, last);
  }

  /** What one query gives to each key. */
  row(query: number, stage = "softmax"): Float32Array {
    const out = new Float32Array(this.keys).fill(Number.NaN);
    this.fill(this.index(stage), query, 0, this.keys, out, 0);
    return out;
  }

  /** What each query gives to one key. */
  column(key: number, stage = "softmax"): Float32Array {
    const last = this.index(stage);
    const products = new Float64Array(this.rows);
    dots(this.k, key * this.size, this.q, 0, this.rows, this.size, products);
    return Float32Array.from(products, (x, i) =>
      last >= this.masking && !this.visible(i, key) ? Number.NaN : this.through(x, i, key, last),
    );
  }

  /** The whole head at one stage, kept: only for heads that are not long. */
  matrix(stage = "softmax"): Matrix {
    const kept = this.whole.get(stage);
    if (kept) return kept;
    const { rows, keys } = this;
    const data = new Float32Array(rows * keys).fill(Number.NaN);
    const last = this.index(stage);
    for (let i = 0; i < rows; i++) this.fill(last, i, 0, keys, data, i * keys);
    const matrix = { rows, keys, data };
    this.whole.set(stage, matrix);
    return matrix;
  }

  /**
   * Rows r0 .. r1 - 1 and keys k0 .. k1 - 1 in h x w cells (fewer where there are fewer rows or keys): the greatest
   * weight of each, at stages before the weights its entry of greatest magnitude; NaN where all of it is masked.
   */
  tile(stage: string, r0: number, r1: number, k0: number, k1: number, h: number, w: number): Matrix {
    const rows = Math.min(h, r1 - r0);
    const keys = Math.min(w, k1 - k0);
    const data = new Float32Array(rows * keys).fill(Number.NaN);
    const soft = stage === "softmax";
    // Weights grow with their scores: the greatest of a cell is found among the scores, and one exp is enough.
    const last = soft ? this.masking : this.index(stage);
    const line = new Float32Array(k1 - k0);
    for (let r = 0; r < rows; r++) {
      const cells = data.subarray(r * keys, (r + 1) * keys);
      for (let i = r0 + edge(r, r1 - r0, rows); i < r0 + edge(r + 1, r1 - r0, rows); i++) {
        line.fill(Number.NaN);
        this.fill(last, i, k0, k1, line, 0);
        if (soft) greatest(line, cells, this.lse[i]!);
        else strongest(line, cells);
      }
    }
    if (soft) for (let c = 0; c < data.length; c++) data[c] = Math.exp(data[c]!);
    return { rows, keys, data };
  }

  /** The vector of one query. */
  query(i: number): Float32Array {
    return this.q.subarray(i * this.size, (i + 1) * this.size);
  }

  /** The vector of one key. */
  key(j: number): Float32Array {
    return this.k.subarray(j * this.size, (j + 1) * this.size);
  }

  /** The stage from which on masked cells have no value. */
  private get masking(): number {
    return this.stages.length - 2;
  }

  private index(stage: string): number {
    const at = this.stages.indexOf(stage);
    if (at < 0) throw new Error(`stage ${stage} does not exist here: there are ${this.stages.join(", ")}`);
    return at;
  }

  /** Writes keys k0 .. k1 - 1 of a row to `out` from `at` on; masked cells are left as they are. */
  private fill(last: number, i: number, k0: number, k1: number, out: Float32Array, at: number): void {
    const all = last < this.masking;
    const from = all ? k0 : Math.max(k0, this.first[i]!);
    const to = all ? k1 : Math.min(k1, this.stop[i]!);
    if (from >= to) return;
    const products = new Float64Array(to - from);
    dots(this.q, i * this.size, this.k, from, to, this.size, products);
    for (let j = from; j < to; j++)
      if (all || !this.bits || this.visible(i, j))
        out[at + j - k0] = this.through(products[j - from]!, i, j, last);
  }

  /** A product q k taken to stage number `last`. */
  private through(product: number, i: number, j: number, last: number): number {
    const { facts } = this;
    let x = product;
    for (let s = 1; s <= last; s++) {
      switch (this.stages[s]) {
        case "scaled":
          x *= facts.scale;
          break;
        case "capped":
          x = facts.soft_cap * Math.tanh(x / facts.soft_cap);
          break;
        case "biased":
          x += this.bias![i * this.keys + j]!;
          break;
        case "masked":
          if (facts.slope !== 0) x -= facts.slope * this.distance(i, j);
          break;
        case "softmax":
          x = Math.exp(x - this.lse[i]!);
      }
    }
    return x;
  }

  private distance(i: number, j: number): number {
    const steps = Math.abs(i + this.facts.offset - j);
    return this.facts.fused ? toHalf(steps) : steps;
  }
}

/** A tile without a kernel: row of cells after row of cells, so that the page goes on answering. */
export async function slowTile(
  replay: Replay,
  stage: string,
  [r0, r1]: readonly [number, number],
  [k0, k1]: readonly [number, number],
  [h, w]: readonly [number, number],
): Promise<Matrix> {
  const rows = Math.min(h, r1 - r0);
  const keys = Math.min(w, k1 - k0);
  const data = new Float32Array(rows * keys);
  let since = performance.now();
  for (let r = 0; r < rows; r++) {
    const a = r0 + edge(r, r1 - r0, rows);
    const b = r0 + edge(r + 1, r1 - r0, rows);
    data.set(replay.tile(stage, a, b, k0, k1, 1, keys).data, r * keys);
    if (performance.now() - since < SLICE) continue;
    await new Promise((done) => setTimeout(done));
    since = performance.now();
  }
  return { rows, keys, data };
}

/** Cell r of `cells` covers r * n / cells, rounded down, and on. */
function edge(r: number, n: number, cells: number): number {
  return Math.floor((r * n) / cells);
}

/** Into each cell the greatest of its entries minus `shift`, unless it holds a greater one. */
function greatest(line: Float32Array, cells: Float32Array, shift: number): void {
  for (let c = 0; c < cells.length; c++) {
    const stop = edge(c + 1, line.length, cells.length);
    let most = cells[c]!;
    for (let j = edge(c, line.length, cells.length); j < stop; j++) {
      const x = line[j]! - shift;
      if (x > most || (Number.isNaN(most) && !Number.isNaN(x))) most = x;
    }
    cells[c] = most;
  }
}

/** Into each cell the entry of greatest magnitude, unless it holds a greater one. */
function strongest(line: Float32Array, cells: Float32Array): void {
  for (let c = 0; c < cells.length; c++) {
    const stop = edge(c + 1, line.length, cells.length);
    let most = cells[c]!;
    for (let j = edge(c, line.length, cells.length); j < stop; j++) {
      const x = line[j]!;
      if (Math.abs(x) > Math.abs(most) || (Number.isNaN(most) && !Number.isNaN(x))) most = x;
    }
    cells[c] = most;
  }
}

/** Products of one vector of `a` with vectors `from` .. `to` - 1 of `b`; four at a time, for the processor's sake. */
function dots(
  a: Float32Array,
  start: number,
  b: Float32Array,
  from: number,
  to: number,
  size: number,
  out: Float64Array,
): void {
  let j = from;
  for (; j + 4 <= to; j += 4) {
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    const b0 = j * size;
    for (let d = 0; d < size; d++) {
      const x = a[start + d]!;
      s0 += x * b[b0 + d]!;
      s1 += x * b[b0 + size + d]!;
      s2 += x * b[b0 + 2 * size + d]!;
      s3 += x * b[b0 + 3 * size + d]!;
    }
    out[j - from] = s0;
    out[j - from + 1] = s1;
    out[j - from + 2] = s2;
    out[j - from + 3] = s3;
  }
  for (; j < to; j++) {
    let s = 0;
    for (let d = 0; d < size; d++) s += a[start + d]! * b[j * size + d]!;
    out[j - from] = s;
  }
}

/** float32 of IEEE half precision. */
export function fromHalf(raw: Uint8Array): Float32Array {
  const halves = new Uint16Array(raw.slice().buffer);
  const out = new Float32Array(halves.length);
  const words = new Uint32Array(out.buffer);
  for (let i = 0; i < halves.length; i++) {
    const h = halves[i]!;
    words[i] = ((h & 0x8000) << 16) | ((h & 0x7fff) << 13);
    // The exponent's bias is 127 where it was 15; the highest one means infinity or no number in both.
    if ((h & 0x7c00) === 0x7c00) words[i]! |= 0x7f800000;
    else out[i]! *= 2 ** 112;
  }
  return out;
}

/** A whole number rounded to half precision, ties to even. */
export function toHalf(x: number): number {
  if (x <= 2048) return x;
  const step = 2 ** (Math.floor(Math.log2(x)) - 10);
  const down = Math.floor(x / step);
  const rest = x / step - down;
  const rounded = (rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down) * step;
  return rounded > 65504 ? Number.POSITIVE_INFINITY : rounded;
}
