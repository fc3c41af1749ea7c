// What the strip shows, as arrays: an overview of all layers, loads, and the exact routing of the layers that are here.
// In: the traits of the widget, one layer's buffers. Out: look-ups. Layers are named by the model's numbers.
import { bytes, floats } from "../attention_grid/data";

export interface LayerFacts {
  readonly layer: number;
  /** Experts per token; 0 = a layer without experts. */
  readonly used: number;
  /** Tokens that were computed; null = all. */
  readonly computed?: readonly number[] | null;
  /** Whether the weights are known. */
  readonly weighted?: boolean;
  /** Mean entropy of a token's weights, in bits. */
  readonly token_bits?: number | null;
  readonly load_bits?: number | null;
  readonly evenness?: number | null;
}

export interface Facts {
  readonly title: string;
  readonly model: string;
  readonly provenance: string;
  readonly details: Readonly<Record<string, string>>;
  readonly live: boolean;
  readonly saved: string | null;
  readonly tokens: readonly string[];
  readonly kinds: readonly string[];
  readonly n_experts: number;
  readonly used: number;
  readonly rows: number;
  /** The greatest weight: the end of the scale. */
  readonly most: number;
  readonly layers: readonly LayerFacts[];
  readonly message: string;
}

export type Measure = "experts" | "weight" | "evenness";

/** A token's experts in one layer, strongest first. */
export interface Choice {
  readonly expert: number;
  readonly weight: number;
  /** Share of the token's weights. */
  readonly share: number;
}

const NO_EXPERT = 65535;

interface Exact {
  readonly used: number;
  readonly ids: Uint16Array;
  readonly weights: Float32Array;
}

export class StripData {
  readonly byLayer = new Map<number, LayerFacts>();
  private readonly place = new Map<number, number>();
  private readonly exact = new Map<number, Exact>();
  /** Tokens whose choices in all layers are here, of a trace that is too long to have every layer here. */
  private readonly asked = new Map<number, Exact>();

  constructor(
    readonly facts: Facts,
    private readonly overview: Uint8Array,
    private readonly measures: Float32Array,
    private readonly loads: Float32Array,
  ) {
    for (const l of facts.layers) {
      this.byLayer.set(l.layer, l);
      if (l.used > 0) this.place.set(l.layer, this.place.size);
    }
  }

  static from(facts: Facts, overview: unknown, measures: unknown, loads: unknown): StripData {
    return new StripData(facts, bytes(overview), floats(measures), floats(loads));
  }

  get tokens(): number {
    return this.facts.tokens.length;
  }

  has(layer: number): boolean {
    return this.place.has(layer);
  }

  isExact(layer: number): boolean {
    return this.exact.has(layer);
  }

  /** Takes in one layer's ids (uint16) and weights (float32), tokens x used. */
  put(layer: number, ids: unknown, weights: unknown): void {
    const used = this.byLayer.get(layer)?.used ?? 0;
    const own = { used, ids: new Uint16Array(bytes(ids).slice().buffer), weights: floats(weights) };
    const size = this.tokens * used;
    if (used > 0 && own.ids.length === size && own.weights.length === size) this.exact.set(layer, own);
  }

  /** Takes in one token's choices in all layers: ids and weights, layers with experts x used. */
  putToken(token: number, ids: unknown, weights: unknown): void {
    const own = {
      used: this.facts.used,
      ids: new Uint16Array(bytes(ids).slice().buffer),
      weights: floats(weights),
    };
    if (own.ids.length !== this.place.size * own.used || own.weights.length !== own.ids.length) return;
    if (this.asked.size > 200) this.asked.clear();
    this.asked.set(token, own);
  }

  /** Whether a token's choices are here in every layer. */
  hasToken(token: number): boolean {
    return this.asked.has(token) || [...this.place.keys()].every((layer) => this.exact.has(layer));
  }

  /** Takes in several layers whose values lie behind one another. */
  putAll(layers: readonly number[], ids: unknown, weights: unknown): void {
    let at = 0;
    for (const layer of layers) {
      const n = this.tokens * (this.byLayer.get(layer)?.used ?? 0);
      this.put(
        layer,
        bytes(ids).subarray(at * 2, (at + n) * 2),
        bytes(weights).subarray(at * 4, (at + n) * 4),
      );
      at += n;
    }
  }

  /** Codes of a layer's overview, rows x experts. */
  codes(layer: number): Uint8Array {
    const size = this.facts.rows * this.facts.n_experts;
    const at = (this.place.get(layer) ?? 0) * size;
    return this.overview.subarray(at, at + size);
  }

  /** Per row of the overview the greatest weight, or the evenness of the least even token; NaN = no value. */
  measure(layer: number, kind: Exclude<Measure, "experts">): Float32Array {
    const { rows } = this.facts;
    const at = ((kind === "weight" ? 0 : this.place.size) + (this.place.get(layer) ?? 0)) * rows;
    return this.measures.subarray(at, at + rows);
  }

  /** Share of the hand-overs per expert; by weight where asked for. */
  load(layer: number, weighted = false): Float32Array {
    const n = this.facts.n_experts;
    const at = ((this.place.get(layer) ?? 0) * 2 + (weighted ? 1 : 0)) * n;
    return this.loads.subarray(at, at + n);
  }

  /** First and last token, exclusive, of a row of the overview. */
  span(row: number): [number, number] {
    const { rows } = this.facts;
    const first = Math.floor((row * this.tokens) / rows);
    return [first, Math.max(first + 1, Math.floor(((row + 1) * this.tokens) / rows))];
  }

  rowOf(token: number): number {
    const { rows } = this.facts;
    let row = Math.min(rows - 1, Math.floor((token * rows) / Math.max(1, this.tokens)));
    while (row + 1 < rows && this.span(row)[1] <= token) row++;
    return row;
  }

  /** Whether a token was computed in a layer. */
  computed(layer: number, token: number): boolean {
    const computed = this.byLayer.get(layer)?.computed;
    return computed === null || computed === undefined || computed.includes(token);
  }

  /** Whether any token of a row was. */
  rowComputed(layer: number, row: number): boolean {
    const computed = this.byLayer.get(layer)?.computed;
    if (computed === null || computed === undefined) return true;
    const [first, stop] = this.span(row);
    return computed.some((t) => t >= first && t < stop);
  }

  /** A token's experts, strongest first; null where the layer is not here, empty where the token was not computed. */
  choices(layer: number, token: number): Choice[] | null {
    const whole = this.exact.get(layer);
    const exact = whole ?? this.asked.get(token);
    const row = whole ? token : this.place.get(layer);
    if (!exact || row === undefined) return null;
    const out: { expert: number; weight: number; share: number }[] = [];
    let sum = 0;
    for (let i = row * exact.used; i < (row + 1) * exact.used; i++) {
      const expert = exact.ids[i]!;
      if (expert === NO_EXPERT) continue;
      sum += exact.weights[i]!;
      out.push({ expert, weight: exact.weights[i]!, share: 0 });
    }
    for (const c of out) c.share = sum > 0 ? c.weight / sum : Number.NaN;
    return out;
  }

  /** The weight that each token gives one expert of a layer; NaN = not chosen, or not computed. Null = not here. */
  weightsOf(layer: number, expert: number): Float32Array | null {
    const exact = this.exact.get(layer);
    if (!exact) return null;
    const out = new Float32Array(this.tokens).fill(Number.NaN);
    exact.ids.forEach((id, i) => {
      if (id === expert) out[Math.floor(i / exact.used)] = exact.weights[i]!;
    });
    return out;
  }

  /** How many tokens were computed in a layer. */
  rowsOf(layer: number): number {
    return this.byLayer.get(layer)?.computed?.length ?? this.tokens;
  }

  /** How many tokens an expert got. */
  count(layer: number, expert: number): number {
    return Math.round(this.load(layer)[expert]! * this.rowsOf(layer) * (this.byLayer.get(layer)?.used ?? 0));
  }
}

/** Entropy in bits of shares that sum to 1. */
export function bits(shares: readonly number[]): number {
  return shares.reduce((sum, p) => (p > 0 ? sum - p * Math.log2(p) : Number.isNaN(p) ? Number.NaN : sum), 0);
}
