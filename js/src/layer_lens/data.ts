// What the lens shows, as arrays: cells of the tokens that were read, one number per layer and measure, the push on a word.
// In: the traits of the widget, a window's buffers. Out: look-ups. Rows are the model's layers, -1 = before the first.
import { bytes, floats } from "../attention_grid/data";

export interface LensLayer {
  readonly layer: number;
  readonly heads: number;
  /** What mixes the tokens: "attention", "recurrence" or "convolution"; pages of earlier versions do not say. */
  readonly mixer?: string;
  /** Its largest outlier dimensions, and how many times the median dimension they are. */
  readonly outliers: readonly (readonly [number, number])[];
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
  /** Rows of the table: the embedding (-1) and the layers, as far as is known. */
  readonly rows: readonly number[];
  readonly layers: readonly LensLayer[];
  readonly measures: readonly string[];
  readonly n_words: number;
  /** Whether the logits after every token are here, so that the push can be asked for any. */
  readonly every_logit: boolean;
  readonly times: { readonly ms: readonly (number | null)[]; readonly repeats: number } | null;
  readonly message: string;
}

export type Measure = "probability" | "rank" | "entropy" | "kl";
export type Stream = "residual" | "attention" | "mlp" | "cosine" | "outliers";

/** One cell: the likeliest words after a layer, and where the model's final answer stands there. */
export interface Cell {
  readonly ids: Int32Array;
  readonly probabilities: Float32Array;
  readonly entropy: number;
  /** How far its distribution is from the one that the model ends with, in nats. */
  readonly kl: number;
  readonly answerProbability: number;
  readonly answerRank: number;
  readonly isAnswer: boolean;
}

/** Direct logit attribution of a word, or of the difference of two. */
export interface Push {
  readonly position: number;
  readonly word: number;
  readonly against: number | null;
  readonly texts: { readonly word: string; readonly against: string | null };
  readonly attention: readonly (number | null)[];
  readonly mlp: readonly (number | null)[];
  readonly embedding: number | null;
  readonly bias: number | null;
  readonly rounding: number | null;
  readonly sum: number;
  readonly logit: number;
  readonly note: string;
  readonly heads: number;
}

const ints = (value: unknown): Int32Array => {
  const b = bytes(value);
  return new Int32Array(b.slice().buffer, 0, Math.floor(b.byteLength / 4));
};

interface Column {
  readonly rows: ReadonlyMap<number, number>;
  readonly top: number;
  readonly ids: Int32Array;
  readonly probabilities: Float32Array;
  readonly entropy: Float32Array;
  readonly answerProbability: Float32Array;
  readonly answerRank: Int32Array;
  readonly kl: Float32Array;
  readonly answer: number;
}

export class LensData {
  private readonly columns = new Map<number, Column>();
  private readonly words = new Map<number, string>();
  push: Push | null = null;
  private pushHeads: Float32Array = new Float32Array(0);

  constructor(
    public facts: Facts,
    private streams: Float32Array,
  ) {}

  static from(facts: Facts, streams: unknown): LensData {
    return new LensData(facts, floats(streams));
  }

  /** The same trace, told again: what was read stays. */
  retell(facts: Facts, streams: unknown): void {
    this.facts = facts;
    this.streams = floats(streams);
  }

  get tokens(): number {
    return this.facts.tokens.length;
  }

  /** Takes in the cells of some tokens: seven buffers, each a token's values behind one another. */
  put(
    positions: readonly number[],
    rows: readonly number[],
    words: Readonly<Record<string, string>>,
    buffers: readonly unknown[],
  ): void {
    const n = positions.length;
    const cells = n * rows.length;
    const [ids, probabilities] = [ints(buffers[0]), floats(buffers[1])];
    const [entropy, probability, rank, kl, final] = [
      floats(buffers[2]),
      floats(buffers[3]),
      ints(buffers[4]),
      floats(buffers[5]),
      ints(buffers[6]),
    ];
    const top = cells > 0 ? ids.length / cells : 0;
    const whole = [entropy, probability, rank, kl].every((own) => own.length === cells) && final.length === n;
    if (!Number.isInteger(top) || top < 1 || probabilities.length !== ids.length || !whole) return;
    for (const [id, text] of Object.entries(words)) this.words.set(Number(id), text);
    const place = new Map(rows.map((row, at) => [row, at]));
    positions.forEach((position, i) => {
      const [a, b] = [i * rows.length, (i + 1) * rows.length];
      this.columns.set(position, {
        rows: place,
        top,
        ids: ids.subarray(a * top, b * top),
        probabilities: probabilities.subarray(a * top, b * top),
        entropy: entropy.subarray(a, b),
        answerProbability: probability.subarray(a, b),
        answerRank: rank.subarray(a, b),
        kl: kl.subarray(a, b),
        answer: final[i]!,
      });
    });
  }

  putPush(push: Push | null, heads: unknown): void {
    this.push = push && "sum" in push ? push : null;
    this.pushHeads = floats(heads);
  }

  has(position: number): boolean {
    return this.columns.has(position);
  }

  word(id: number): string {
    return this.words.get(id) ?? `#${id}`;
  }

  /** A cell; null where it was not read, or the model has no such row. */
  cell(row: number, position: number): Cell | null {
    const column = this.columns.get(position);
    const at = column?.rows.get(row);
    if (!column || at === undefined) return null;
    const { top } = column;
    const ids = column.ids.subarray(at * top, (at + 1) * top);
    return {
      ids,
      probabilities: column.probabilities.subarray(at * top, (at + 1) * top),
      entropy: column.entropy[at]!,
      kl: column.kl[at]!,
      answerProbability: column.answerProbability[at]!,
      answerRank: column.answerRank[at]!,
      isAnswer: ids[0] === column.answer,
    };
  }

  /** The model's own answer after a token. */
  answer(position: number): number | null {
    return this.columns.get(position)?.answer ?? null;
  }

  /** The row that ends in the model's answer. */
  get output(): number {
    return this.facts.rows[this.facts.rows.length - 1] ?? 0;
  }

  /** One number per layer; NaN = not captured. */
  stream(kind: Stream): Float32Array {
    const n = this.facts.layers.length;
    const at = this.facts.measures.indexOf(kind);
    return at < 0 ? new Float32Array(n).fill(Number.NaN) : this.streams.subarray(at * n, (at + 1) * n);
  }

  /** What a head adds; NaN where there is no such head. By the layer's place, not its number. */
  head(place: number, head: number): number {
    const n = this.push?.heads ?? 0;
    return head < n ? (this.pushHeads[place * n + head] ?? Number.NaN) : Number.NaN;
  }

  /** Words that may be chosen after a token: the output's likeliest, then those of another row. */
  candidates(position: number, row: number): number[] {
    const own = [this.output, row].flatMap((r) => [...(this.cell(r, position)?.ids ?? [])]);
    return [...new Set(own)];
  }
}
