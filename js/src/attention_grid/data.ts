// What the grid shows, as arrays: heads in the model's numbering, their thumbnails, statistics and embedded matrices.
// In: the traits `facts`, `thumbnails`, `statistics` and the messages that fill them. Out: look-ups and small computations.

export interface LayerFacts {
  readonly layer: number;
  readonly kind: "attention" | "none";
  readonly reason: string;
  readonly heads: number;
  readonly kv_heads: number;
  readonly window: number | null;
  readonly mask: "causal" | "none" | "other";
  readonly stages: readonly string[];
  readonly scale: number;
}

export interface StatisticFacts {
  readonly key: string;
  readonly label: string;
  readonly lo: number;
  readonly hi: number;
  readonly histogram: boolean;
}

export type Phase = "computing" | "generating" | "done" | "cancelled" | "error";

/** A token that the model wrote: its probability, rank, milliseconds, and the likeliest tokens. */
export type Written = readonly [
  probability: number,
  rank: number,
  ms: number,
  top: readonly (readonly [text: string, probability: number])[],
];

export interface Facts {
  readonly title: string;
  readonly model: string;
  readonly provenance: string;
  readonly details: Readonly<Record<string, string>>;
  readonly live: boolean;
  readonly saved: string | null;
  readonly n_tokens: number;
  readonly tokens: readonly string[];
  readonly kinds: readonly string[];
  /** Tokens of the rows, where they are others than the keys (cross attention). */
  readonly query_tokens?: readonly string[];
  readonly layers: readonly LayerFacts[];
  readonly statistics: readonly StatisticFacts[];
  readonly side_rows: number;
  readonly side_keys: number;
  readonly part: string;
  readonly parts: readonly string[];
  readonly names: Readonly<Record<string, string>>;
  /** What is known of single tokens, in the order of the trait `token_stats`; empty where nothing is. */
  readonly token_stats: readonly string[];
  /** The model of the second trace, where `token_stats` has "divergence". */
  readonly against?: string;
  /** While a text is written `n_tokens` is what it may get; so many rows are there now. */
  readonly n_now?: number;
  /** Index of the first token that the model wrote, and what it thought of each. */
  readonly generated?: number;
  readonly generation?: readonly Written[];
  readonly phase: Phase;
  readonly done: number;
  readonly total: number;
  readonly message: string;
}

/** One head. `index` is its place in the buffers. */
export interface Head {
  readonly index: number;
  readonly layer: number;
  readonly head: number;
  /** The KV head whose keys it reads. */
  readonly kv: number;
}

/** A matrix of weights; NaN = masked, or no value. */
export interface Matrix {
  readonly rows: number;
  readonly keys: number;
  readonly data: Float32Array;
}

/** The statistic filters: [lowest, highest]; null = open. */
export type Filter = Readonly<Record<string, readonly [number | null, number | null]>>;

/** What one thumbnail code stands for: 0 is "below 1e-4 or masked", else a weight on a logarithmic scale. */
export const CODE_WEIGHT: Float32Array = Float32Array.from({ length: 256 }, (_, c) =>
  c === 0 ? 0 : 10 ** ((-4 * (255 - c)) / 254),
);

/** The bytes of a trait or buffer, whatever view the host hands over. */
export function bytes(value: unknown): Uint8Array {
  if (value instanceof Uint8Array) return value;
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  return value instanceof ArrayBuffer ? new Uint8Array(value) : new Uint8Array(0);
}

/** The float32 values of a trait or buffer; copied, because a host's buffer may start at any byte. */
export function floats(value: unknown): Float32Array {
  const b = bytes(value);
  return new Float32Array(b.slice().buffer, 0, Math.floor(b.byteLength / 4));
}

/** How a cell of a mask looks. */
export const SEEN = 0;
export const FUTURE = 1;
export const OUTSIDE = 2;

export class GridData {
  readonly facts: Facts;
  readonly heads: readonly Head[];
  /** Most heads that one layer has: the rows of the grid. */
  readonly rows: number;
  private readonly first = new Map<number, number>();
  private readonly byLayer = new Map<number, LayerFacts>();
  private readonly columns = new Map<string, number>();
  private readonly thumbs: Uint8Array;
  private readonly stats: Float32Array;
  private readonly arrived: Uint8Array;
  /** What was computed of a statistic, until other values arrive. */
  private readonly known = new Map<string, unknown>();

  private constructor(
    facts: Facts,
    thumbs: Uint8Array,
    stats: Float32Array,
    arrived: Uint8Array,
    private readonly tokenStats: Float32Array,
  ) {
    this.facts = facts;
    this.thumbs = thumbs;
    this.stats = stats;
    this.arrived = arrived;
    const heads: Head[] = [];
    for (const l of facts.layers) {
      this.byLayer.set(l.layer, l);
      if (l.kind !== "attention") continue;
      this.first.set(l.layer, heads.length);
      const share = Math.max(1, Math.floor(l.heads / Math.max(1, l.kv_heads)));
      for (let h = 0; h < l.heads; h++)
        heads.push({ index: heads.length, layer: l.layer, head: h, kv: Math.floor(h / share) });
    }
    this.heads = heads;
    this.rows = facts.layers.reduce((most, l) => Math.max(most, l.heads), 0);
    facts.statistics.forEach((s, i) => {
      this.columns.set(s.key, i);
    });
  }

  /** From the traits. The buffers are copied: layers that arrive later are written into the copies. */
  static from(facts: Facts, thumbnails: unknown, statistics: unknown, tokenStats?: unknown): GridData {
    const n = facts.layers.reduce((sum, l) => sum + (l.kind === "attention" ? l.heads : 0), 0);
    const thumbs = new Uint8Array(n * facts.side_rows * facts.side_keys);
    thumbs.set(bytes(thumbnails).subarray(0, thumbs.length));
    const stats = new Float32Array(n * facts.statistics.length).fill(Number.NaN);
    stats.set(floats(statistics).subarray(0, stats.length));
    const data = new GridData(facts, thumbs, stats, new Uint8Array(n), floats(tokenStats));
    data.markArrived(0, n);
    return data;
  }

  /** The same arrays under new facts: progress moved on, nothing was sent again. */
  with(facts: Facts): GridData {
    return new GridData(facts, this.thumbs, this.stats, this.arrived, this.tokenStats);
  }

  /** Both show the same arrays. */
  shares(other: GridData): boolean {
    return this.thumbs === other.thumbs;
  }

  /** A head has arrived when any of its statistics has, or, where none exist for it, when the run is over. */
  private markArrived(from: number, to: number): void {
    const n = this.facts.statistics.length;
    const size = this.facts.side_rows * this.facts.side_keys;
    for (let i = from; i < to; i++) {
      const stats = this.stats.subarray(i * n, i * n + n);
      const some =
        stats.some((v) => !Number.isNaN(v)) ||
        this.thumbs.subarray(i * size, (i + 1) * size).some((c) => c > 0);
      if (some || this.facts.phase === "done") this.arrived[i] = 1;
    }
  }

  /** Takes in the results of one layer; false where the layer has no attention. */
  fill(layer: number, thumbnails: unknown, statistics: unknown): boolean {
    const first = this.first.get(layer);
    const facts = this.byLayer.get(layer);
    if (first === undefined || !facts) return false;
    const size = this.facts.side_rows * this.facts.side_keys;
    const n = this.facts.statistics.length;
    this.thumbs.set(bytes(thumbnails).subarray(0, facts.heads * size), first * size);
    this.stats.set(floats(statistics).subarray(0, facts.heads * n), first * n);
    this.arrived.fill(1, first, first + facts.heads);
    this.known.clear();
    return true;
  }

  /** Takes in rows of the thumbnails of all heads. */
  fillRows(from: number, to: number, codes: unknown): void {
    const { side_rows, side_keys } = this.facts;
    const size = (to - from) * side_keys;
    const own = bytes(codes);
    for (let i = 0; i < this.heads.length; i++)
      this.thumbs.set(own.subarray(i * size, (i + 1) * size), (i * side_rows + from) * side_keys);
  }

  /** Rows of tokens from here on are not there yet. */
  get until(): number {
    return this.facts.n_now ?? Number.POSITIVE_INFINITY;
  }

  /** The same arrays, told as a trace of its first `rows` tokens: what is exact of a text that is being written. */
  cut(rows: number): GridData {
    const { facts } = this;
    if (facts.generated === undefined || rows === facts.n_tokens || rows > facts.tokens.length) return this;
    const tokens = facts.tokens.slice(0, rows);
    return this.with({
      ...facts,
      n_tokens: rows,
      tokens,
      query_tokens: tokens,
      kinds: facts.kinds.slice(0, rows),
    });
  }

  /** One number per token: its probability, loss, entropy or rank; null until they were fetched. NaN = none. */
  ofTokens(kind: string): Float32Array | null {
    const at = this.facts.token_stats.indexOf(kind);
    const n = this.tokenStats.length / (this.facts.token_stats.length || 1);
    return at < 0 || n === 0 ? null : this.tokenStats.subarray(at * n, (at + 1) * n);
  }

  /** The tokens that look. */
  get queries(): readonly string[] {
    return this.facts.query_tokens ?? this.facts.tokens;
  }

  /** Queries and keys are the same text. */
  get same(): boolean {
    return this.facts.part !== "cross";
  }

  layer(layer: number): LayerFacts | undefined {
    return this.byLayer.get(layer);
  }

  head(layer: number | null, head: number | null): Head | undefined {
    if (layer === null || head === null) return undefined;
    const first = this.first.get(layer);
    if (first === undefined || head < 0 || head >= (this.byLayer.get(layer)?.heads ?? 0)) return undefined;
    return this.heads[first + head];
  }

  has(head: Head): boolean {
    return this.arrived[head.index] === 1;
  }

  layerArrived(layer: number): boolean {
    const first = this.first.get(layer);
    return first === undefined || this.arrived[first] === 1;
  }

  /** Codes of one thumbnail, side_rows x side_keys. */
  thumbnail(head: Head): Uint8Array {
    const size = this.facts.side_rows * this.facts.side_keys;
    return this.thumbs.subarray(head.index * size, (head.index + 1) * size);
  }

  /** The thumbnail as weights, masked cells NaN: what can be shown of a head without a kernel. */
  approximate(head: Head, until = this.until): Matrix {
    const { side_rows: rows, side_keys: keys, n_tokens } = this.facts;
    const mask = this.mask(head.layer, rows, keys);
    const there = Math.min(rows, Math.ceil((until * rows) / n_tokens)) * keys;
    const data = Float32Array.from(this.thumbnail(head), (c, i) =>
      mask[i] === SEEN && i < there ? CODE_WEIGHT[c]! : Number.NaN,
    );
    return { rows, keys, data };
  }

  /** Which cells of a picture with rows x keys cells no query in them may see: SEEN, FUTURE or OUTSIDE the window. */
  mask(layer: number, rows: number, keys: number): Uint8Array {
    const facts = this.byLayer.get(layer);
    const out = new Uint8Array(rows * keys);
    if (facts?.mask !== "causal") return out;
    const n = this.facts.n_tokens;
    const window = facts.window ?? n;
    for (let r = 0; r < rows; r++) {
      const firstRow = Math.floor((r * n) / rows);
      const lastRow = Math.max(firstRow, Math.floor(((r + 1) * n) / rows) - 1);
      for (let k = 0; k < keys; k++) {
        const firstKey = Math.floor((k * n) / keys);
        const lastKey = Math.max(firstKey, Math.floor(((k + 1) * n) / keys) - 1);
        if (firstKey > lastRow) out[r * keys + k] = FUTURE;
        else if (lastKey <= firstRow - window) out[r * keys + k] = OUTSIDE;
      }
    }
    return out;
  }

  name(head: Head): string {
    return this.facts.names[`${head.layer},${head.head}`] ?? "";
  }

  value(head: Head, key: string): number {
    const column = this.columns.get(key);
    return column === undefined
      ? Number.NaN
      : this.stats[head.index * this.facts.statistics.length + column]!;
  }

  /** All heads' values of one statistic, in the order of `heads`. */
  column(key: string): Float32Array {
    return this.once(`column ${key}`, () => Float32Array.from(this.heads, (h) => this.value(h, key)));
  }

  /** Frames are drawn from the same values again and again. */
  private once<T>(what: string, compute: () => T): T {
    if (!this.known.has(what)) this.known.set(what, compute());
    return this.known.get(what) as T;
  }

  /** Place of a head among all by one statistic, 1 = highest; 0 where it has no value. */
  rank(head: Head, key: string): number {
    const mine = this.value(head, key);
    if (Number.isNaN(mine)) return 0;
    return 1 + this.column(key).reduce((n, v) => n + (v > mine ? 1 : 0), 0);
  }

  /** Heads from the highest to the lowest value; those without a value last, equal ones in the model's order. */
  ranked(key: string): readonly Head[] {
    const values = this.column(key);
    const of = (h: Head) => (Number.isNaN(values[h.index]!) ? Number.NEGATIVE_INFINITY : values[h.index]!);
    return this.once(`ranked ${key}`, () =>
      [...this.heads].sort((a, b) => of(b) - of(a) || a.index - b.index),
    );
  }

  /** Of each layer in `facts.layers` the head with the highest value; null where no head has one. */
  bests(key: string): readonly ({ head: Head; value: number } | null)[] {
    return this.once(`best ${key}`, () => this.facts.layers.map((l) => this.best(l, key)));
  }

  private best(layer: LayerFacts, key: string): { head: Head; value: number } | null {
    let best: { head: Head; value: number } | null = null;
    const first = this.first.get(layer.layer);
    if (first === undefined) return null;
    for (const head of this.heads.slice(first, first + layer.heads)) {
      const value = this.value(head, key);
      if (!Number.isNaN(value) && (best === null || value > best.value)) best = { head, value };
    }
    return best;
  }

  /** 1 for each head that passes the filter. A head without the value asked for does not pass. */
  kept(filter: Filter): Uint8Array {
    const out = new Uint8Array(this.heads.length).fill(1);
    for (const [key, [lo, hi]] of Object.entries(filter)) {
      const values = this.column(key);
      for (let i = 0; i < out.length; i++) {
        const v = values[i]!;
        if (Number.isNaN(v) || (lo !== null && v < lo) || (hi !== null && v > hi)) out[i] = 0;
      }
    }
    return out;
  }

  /** The least change of one filter that lets a head through again; null where no single change does. */
  nearest(
    filter: Filter,
  ): { key: string; head: Head; value: number; range: [number | null, number | null] } | null {
    let best: ReturnType<GridData["nearest"]> = null;
    let least = Number.POSITIVE_INFINITY;
    for (const [key, [lo, hi]] of Object.entries(filter)) {
      const { [key]: _dropped, ...others } = filter;
      const kept = this.kept(others);
      const facts = this.facts.statistics.find((s) => s.key === key);
      const span = facts && facts.hi > facts.lo ? facts.hi - facts.lo : 1;
      for (const head of this.heads) {
        const value = this.value(head, key);
        if (!kept[head.index] || Number.isNaN(value)) continue;
        const short = lo !== null && value < lo ? lo - value : hi !== null && value > hi ? value - hi : 0;
        if (short / span >= least) continue;
        least = short / span;
        best = { key, head, value, range: lo !== null && value < lo ? [value, hi] : [lo, value] };
      }
    }
    return best;
  }
}

/** Counts per bin; values outside [lo, hi] go to the outer bins, NaN nowhere. */
export function histogram(
  values: Float32Array,
  kept: Uint8Array | null,
  lo: number,
  hi: number,
  bins: number,
): number[] {
  const counts = new Array<number>(bins).fill(0);
  const span = hi > lo ? hi - lo : 1;
  values.forEach((v, i) => {
    if (Number.isNaN(v) || (kept && !kept[i])) return;
    const bin = Math.max(0, Math.min(bins - 1, Math.floor(((v - lo) / span) * bins)));
    counts[bin] = counts[bin]! + 1;
  });
  return counts;
}
