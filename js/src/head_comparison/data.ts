// What a comparison shows, as numbers: the map of all pairs, the order of the list, names and statistics of heads.
// In: the traits `facts`, `distances`, `similarity`, `statistics`. Out: look-ups. Knows neither Jupyter nor the DOM.
import { bytes, floats, type LayerFacts } from "../attention_grid/data";

export type Measure = "jensen-shannon" | "total-variation";

/** What is compared: heads with their namesakes in another trace, every head of two layers, heads of one trace. */
export type Mode = "traces" | "layers" | "heads";

export interface HeadId {
  readonly layer: number;
  readonly head: number;
}

export interface Pair {
  readonly left: HeadId;
  readonly right: HeadId;
}

export interface Side {
  readonly label: string;
  readonly model: string;
  readonly provenance: string;
  readonly details: Readonly<Record<string, string>>;
  readonly tokens: readonly string[];
  readonly query_tokens: readonly string[];
  readonly kinds: readonly string[];
  readonly layers: readonly LayerFacts[];
  readonly names: Readonly<Record<string, string>>;
}

export interface Facts {
  readonly title: string;
  readonly mode: Mode;
  readonly how: "tokens" | "position" | "prefix" | "nothing";
  /** Query and key tokens that are compared: the first ones. */
  readonly rows: number;
  readonly keys: number;
  readonly notes: readonly string[];
  readonly sampled: string;
  /** One side where both heads are of one trace. */
  readonly sides: readonly Side[];
  /** Layers that both sides have, and how many heads. */
  readonly layers: readonly (readonly [number, number])[];
  readonly statistics: readonly string[];
  /** All heads of one trace, like ones side by side. */
  readonly order: readonly number[];
  readonly part: string;
  readonly live: boolean;
  readonly saved: string | null;
}

export const MEASURES: Readonly<Record<Measure, { name: string; unit: string }>> = {
  "jensen-shannon": { name: "Jensen\u2013Shannon", unit: "divergence in bits" },
  "total-variation": { name: "Total variation", unit: "share of attention that moved" },
};

/** Share of all pairs that may lie below the scale's low end. */
const FEW = 0.1;

/** A table of all pairs that can be chosen at once. */
export interface PairMap {
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /** Row by row; NaN = not comparable. */
  readonly values: Float32Array;
  /** Values are overlaps: high means alike. */
  readonly alike: boolean;
  /** The ends of the scale. */
  readonly least: number;
  readonly most: number;
}

export function sameHead(a: HeadId, b: HeadId): boolean {
  return a.layer === b.layer && a.head === b.head;
}

export function headName({ layer, head }: HeadId): string {
  return `L${layer} H${head}`;
}

export class ComparisonData {
  private readonly distances: Float32Array;
  private readonly codes: Uint8Array;
  private readonly stats: Float32Array;
  private low: number | null = null;
  /** All heads of each side, in the order of the buffers. */
  readonly owners: readonly (readonly HeadId[])[];

  constructor(
    readonly facts: Facts,
    distances: unknown,
    similarity: unknown,
    statistics: unknown,
  ) {
    this.distances = floats(distances);
    this.codes = bytes(similarity);
    this.stats = floats(statistics);
    this.owners = facts.sides.map((side) =>
      side.layers.flatMap((l) => Array.from({ length: l.heads }, (_, head) => ({ layer: l.layer, head }))),
    );
  }

  get left(): Side {
    return this.facts.sides[0]!;
  }

  get right(): Side {
    return this.facts.sides.at(-1)!;
  }

  side(which: 0 | 1): Side {
    return which === 0 ? this.left : this.right;
  }

  layer(which: 0 | 1, layer: number): LayerFacts | undefined {
    return this.side(which).layers.find((l) => l.layer === layer);
  }

  has(which: 0 | 1, { layer, head }: HeadId): boolean {
    return head >= 0 && head < (this.layer(which, layer)?.heads ?? 0);
  }

  /** "induction head", where that is clear. */
  name(which: 0 | 1, { layer, head }: HeadId): string {
    return this.side(which).names[`${layer},${head}`] ?? "";
  }

  /** A statistic of a head; NaN = not measured. */
  statistic(which: 0 | 1, head: HeadId, index: number): number {
    const side = this.facts.sides.length === 1 ? 0 : which;
    const at = this.owners[side]!.findIndex((own) => sameHead(own, head));
    const first = side === 0 ? 0 : this.owners[0]!.length;
    return at < 0 ? Number.NaN : this.stats[(first + at) * this.facts.statistics.length + index]!;
  }

  /** The low end of a scale of overlaps: below it lie so few pairs that the others can have all the colours. */
  get lowest(): number {
    if (this.low !== null) return this.low;
    const counts = new Uint32Array(256);
    for (const code of this.codes) counts[code]!++;
    let left = FEW * this.codes.length;
    const code = counts.findIndex((n) => {
      left -= n;
      return left < 0;
    });
    this.low = Math.min(0.9, Math.floor((Math.max(0, code) / 255) * 10) / 10);
    return this.low;
  }

  /** How much alike two heads of the one trace are: 1 = the same, 0 = no key in common. */
  overlap(a: number, b: number): number {
    return this.codes[a * this.owners[0]!.length + b]! / 255;
  }

  map(measure: Measure, left: HeadId, right: HeadId): PairMap {
    const { mode, layers } = this.facts;
    if (mode === "heads") return this.overlaps(left);
    const heads = (n: number) => Array.from({ length: n }, (_, i) => `H${i}`);
    const rows =
      mode === "traces"
        ? heads(layers.reduce((most, [, n]) => Math.max(most, n), 0))
        : heads(this.layer(0, left.layer)?.heads ?? 0);
    const columns =
      mode === "traces" ? layers.map(([l]) => `L${l}`) : heads(this.layer(1, right.layer)?.heads ?? 0);
    const size = rows.length * columns.length;
    const at = measure === "jensen-shannon" ? 0 : size;
    // The table of two other layers is still on its way.
    const values =
      this.distances.length === 2 * size
        ? this.distances.subarray(at, at + size)
        : new Float32Array(size).fill(Number.NaN);
    return { rows, columns, values, alike: false, least: 0, most: roundUp(greatest(values)) };
  }

  private overlaps(left: HeadId): PairMap {
    const side = this.left;
    const rows = side.layers.reduce((most, l) => Math.max(most, l.heads), 0);
    const values = new Float32Array(rows * side.layers.length).fill(Number.NaN);
    const from = this.owners[0]!.findIndex((own) => sameHead(own, left));
    const column = new Map(side.layers.map((l, i) => [l.layer, i]));
    this.owners[0]!.forEach(({ layer, head }, i) => {
      values[head * side.layers.length + column.get(layer)!] = from < 0 ? Number.NaN : this.overlap(from, i);
    });
    return {
      rows: Array.from({ length: rows }, (_, i) => `H${i}`),
      columns: side.layers.map((l) => `L${l.layer}`),
      values,
      alike: true,
      least: this.lowest,
      most: 1,
    };
  }

  /** The pair in a cell of the map; null where there is none. */
  pairAt(row: number, column: number, now: Pair): Pair | null {
    const { mode, layers } = this.facts;
    if (mode === "layers") {
      const pair = {
        left: { layer: now.left.layer, head: row },
        right: { layer: now.right.layer, head: column },
      };
      return this.has(0, pair.left) && this.has(1, pair.right) ? pair : null;
    }
    const layer = mode === "traces" ? layers[column]?.[0] : this.left.layers[column]?.layer;
    if (layer === undefined) return null;
    const head = { layer, head: row };
    if (!this.has(0, head) || !this.has(1, head)) return null;
    return mode === "traces" ? { left: head, right: head } : { left: now.left, right: head };
  }

  /** Where a pair stands in the map: [row, column]; of two different heads of two traces, where the left one does. */
  placeOf({ left, right }: Pair): readonly [number, number] | null {
    if (this.facts.mode === "layers") return [left.head, right.head];
    const head = this.facts.mode === "traces" ? left : right;
    const columns =
      this.facts.mode === "traces" ? this.facts.layers.map(([l]) => l) : this.left.layers.map((l) => l.layer);
    const column = columns.indexOf(head.layer);
    return column < 0 ? null : [head.head, column];
  }

  /** All pairs of the map with a value, the highest first; those of one head with itself left out. */
  ranked(map: PairMap, now: Pair): { pair: Pair; value: number }[] {
    const found: { pair: Pair; value: number }[] = [];
    map.values.forEach((value, i) => {
      const pair = this.pairAt(Math.floor(i / map.columns.length), i % map.columns.length, now);
      const itself = pair && this.facts.sides.length === 1 && sameHead(pair.left, pair.right);
      if (pair && !itself && !Number.isNaN(value)) found.push({ pair, value });
    });
    return found.sort((a, b) => b.value - a.value);
  }
}

/** The greatest value, at least 0; no number is none. */
export function greatest(values: Float32Array): number {
  let most = 0;
  for (const v of values) if (v > most) most = v;
  return most;
}

/** The first of 1, 1.5, 2, 3, 4, 5, 6, 8 … times a power of ten that is not below `value`; 1 where that is 0. */
export function roundUp(value: number): number {
  if (!(value > 0)) return 1;
  const ten = 10 ** Math.floor(Math.log10(value));
  const step = [1, 1.5, 2, 3, 4, 5, 6, 8].find((n) => n * ten >= value * (1 - 1e-6)) ?? 10;
  return Number((step * ten).toPrecision(3));
}
