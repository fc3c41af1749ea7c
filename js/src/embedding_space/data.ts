// What the view knows of a space: points, groups, columns, texts as far as they are here, what was read of tokens.
// In: the widget's traits. Out: typed arrays without copies, lookups, the search of an exported page.
export interface Group {
  readonly label: number;
  readonly name: string;
  readonly count: number;
  readonly at: readonly [number, number, number];
  readonly hue: number | null;
  /** 0 = named from afar; the higher, the nearer one must be. */
  readonly level: number;
}

export interface ColumnFacts {
  readonly name: string;
  readonly label: string;
  readonly unit: string;
}

export interface DriftFacts {
  readonly label: string;
  readonly low: number;
  readonly median: number;
  readonly high: number;
  readonly kept: number | null;
  readonly k: number;
  readonly rows: number;
  readonly aligned: string;
  readonly movers: readonly { readonly row: number; readonly text: string; readonly moved: number }[];
  readonly histogram: readonly number[];
  readonly edges: readonly number[];
}

export interface Facts {
  readonly title: string;
  readonly subtitle: string;
  readonly provenance: string;
  readonly details: Readonly<Record<string, unknown>>;
  readonly model: string;
  readonly live: boolean;
  readonly saved: string;
  readonly n_points: number;
  readonly width: number;
  readonly texts: boolean;
  /** Of a residual stream: rows go layer after layer, each with so many tokens. */
  readonly path: { readonly tokens: number; readonly layers: readonly number[] } | null;
  readonly method: "umap" | "pca";
  readonly low: readonly number[];
  readonly high: readonly number[];
  readonly unplaced: number;
  readonly trustworthiness: number | null;
  readonly neighbours_kept: number | null;
  /** Rows that these two were measured on: fewer than are placed = estimates, 0 = too few points, null = not yet. */
  readonly quality_rows: number | null;
  readonly note: string;
  readonly phase: "computing" | "done" | "stopped" | "error";
  readonly doing: string;
  readonly done: number;
  readonly total: number;
  readonly error: string;
  readonly clusters: readonly Group[];
  readonly unclustered: number | null;
  readonly columns: readonly ColumnFacts[];
  readonly drift: DriftFacts | null;
  /** What the lines between the selected rows are; the cosines at the ends of their scale. */
  readonly network: { readonly words: string; readonly low: number; readonly high: number } | null;
}

/** A column of values: numbers (NaN = none), or codes with names, the most frequent first. */
export type Column =
  | { readonly kind: "number"; readonly values: Float32Array; readonly low: number; readonly high: number }
  | {
      readonly kind: "name";
      readonly values: Uint8Array;
      readonly names: readonly string[];
      readonly counts: readonly number[];
    };

/** What was read of a token. */
export interface About {
  readonly row: number;
  readonly text: string;
  readonly rows: readonly number[];
  readonly texts: readonly string[];
  readonly cosines: readonly number[];
  readonly vector: Float32Array;
  /** The same token's vector in the model that is compared. */
  readonly other: Float32Array | null;
}

export interface Found {
  readonly rows: readonly number[];
  readonly texts: readonly string[];
  readonly found: number;
}

/** Lines between points: two rows each, and how opaque it is. */
export interface Links {
  readonly ends: Int32Array;
  readonly strength: Uint8Array<ArrayBuffer>;
}

type Bytes = ArrayBuffer | ArrayBufferView;
export const UNPLACED = 65535;

/** The bytes of a buffer as a typed array; copied only where they do not lie evenly. */
export function typed<T>(
  make: { new (b: ArrayBuffer, o: number, n: number): T; readonly BYTES_PER_ELEMENT: number },
  source: unknown,
): T {
  const bytes = source as Bytes | null | undefined;
  if (!bytes) return new make(new ArrayBuffer(0), 0, 0);
  const [buffer, offset, length] = ArrayBuffer.isView(bytes)
    ? [bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.byteLength]
    : [bytes, 0, bytes.byteLength];
  const size = make.BYTES_PER_ELEMENT;
  if (offset % size === 0) return new make(buffer, offset, Math.floor(length / size));
  return new make(buffer.slice(offset, offset + length), 0, Math.floor(length / size));
}

export interface Parts {
  readonly facts: Facts;
  readonly positions: unknown;
  /** Where the compared model has the same tokens; empty where that is not known in this projection. */
  readonly moved: unknown;
  readonly labels: unknown;
  readonly ids: unknown;
  /** Pairs of rows that are joined by a line, and their cosines. */
  readonly joined: unknown;
  readonly cosines: unknown;
  readonly columns: Readonly<
    Record<string, { names: readonly string[]; counts: readonly number[]; buffer: number }>
  >;
  readonly columnData: readonly unknown[];
  readonly embedded: Readonly<Record<string, unknown>>;
  readonly embeddedData: readonly unknown[];
}

interface EmbeddedToken {
  readonly text: string;
  readonly rows: readonly number[];
  readonly texts: readonly string[];
  readonly cosines: readonly number[];
  readonly buffers: readonly number[];
}

/** Ends of a scale: 98 % of the values lie between. */
export function ends(values: Float32Array): [number, number] {
  const step = Math.max(1, Math.floor(values.length / 50_000));
  const some: number[] = [];
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) some.push(values[i]!);
  if (some.length === 0) return [0, 1];
  const sorted = Float32Array.from(some).sort();
  const at = (q: number) => sorted[Math.round(q * (sorted.length - 1))]!;
  const [low, high] = [at(0.01), at(0.99)];
  return high > low ? [low, high] : [low, low + 1];
}

function linksOf({ facts, joined, cosines: given }: Parts): Links | null {
  const { network } = facts;
  const [ends, cosines] = [typed(Int32Array, joined), typed(Float32Array, given)];
  if (network === null || cosines.length === 0 || ends.length !== 2 * cosines.length) return null;
  const span = network.high - network.low;
  const share = (cosine: number) => (span > 0 ? (cosine - network.low) / span : 1);
  const most = 255 * Math.min(1, Math.sqrt(500 / cosines.length)); // many lines are faint
  return { ends, strength: Uint8Array.from(cosines, (c) => Math.round(most * (0.15 + 0.7 * share(c)))) };
}

export class SpaceData {
  readonly n: number;
  readonly positions: Uint16Array;
  readonly moved: Uint16Array | null;
  readonly labels: Int16Array;
  /** The lines of the network, or null where there are none. */
  readonly links: Links | null;
  /** The compared model's points are looked at. */
  second = false;
  private readonly ids: Int32Array;
  private readonly read = new Map<string, Column>();
  private readonly texts = new Map<number, string>();
  private readonly about = new Map<number, About>();
  private all: string[] | null = null;
  private lowered: string[] | null = null;

  constructor(private readonly parts: Parts) {
    this.positions = typed(Uint16Array, parts.positions);
    this.n = Math.floor(this.positions.length / 3);
    const moved = typed(Uint16Array, parts.moved);
    this.moved = moved.length > 0 && moved.length === this.positions.length ? moved : null;
    this.labels = typed(Int16Array, parts.labels);
    this.links = linksOf(parts);
    this.ids = typed(Int32Array, parts.ids);
    this.takeEmbedded();
    for (const mover of this.facts.drift?.movers ?? []) this.texts.set(mover.row, mover.text);
  }

  get facts(): Facts {
    return this.parts.facts;
  }

  sameLinks(other: SpaceData): boolean {
    return (
      this.samePoints(other) &&
      this.parts.joined === other.parts.joined &&
      this.parts.cosines === other.parts.cosines &&
      this.facts.network === other.facts.network
    );
  }

  /** The same points: nothing needs to go to the graphics card again. */
  samePoints(other: SpaceData): boolean {
    return this.parts.positions === other.parts.positions && this.parts.moved === other.parts.moved;
  }

  /** The points that are looked at. */
  get shown(): Uint16Array {
    return this.second && this.moved ? this.moved : this.positions;
  }

  private takeEmbedded(): void {
    const { embedded, embeddedData } = this.parts;
    for (const [key, value] of Object.entries(embedded)) {
      if (key === "texts") {
        const bytes = typed(Uint8Array, embeddedData[value as number]);
        this.all = new TextDecoder().decode(bytes).split("\n");
        continue;
      }
      const facts = value as EmbeddedToken;
      this.put({
        row: Number(key),
        ...facts,
        vector: typed(Float32Array, embeddedData[facts.buffers[0] ?? -1]),
        other: facts.buffers.length > 1 ? typed(Float32Array, embeddedData[facts.buffers[1]!]) : null,
      });
    }
  }

  /** Takes over what an older state of the same space had read. */
  keep(older: SpaceData): void {
    if (older.n !== this.n) return;
    this.second = older.second && this.moved !== null;
    for (const [row, text] of older.texts) if (!this.texts.has(row)) this.texts.set(row, text);
    for (const [row, about] of older.about) if (!this.about.has(row)) this.about.set(row, about);
  }

  put(about: About): void {
    this.about.set(about.row, about);
    this.texts.set(about.row, about.text);
    about.rows.forEach((row, i) => {
      this.texts.set(row, about.texts[i] ?? "");
    });
  }

  aboutOf(row: number): About | null {
    return this.about.get(row) ?? null;
  }

  putTexts(rows: readonly number[], texts: readonly string[]): void {
    rows.forEach((row, i) => {
      this.texts.set(row, texts[i] ?? "");
    });
  }

  /** A row's text, if it is here. */
  text(row: number): string | null {
    return this.all?.[row] ?? this.texts.get(row) ?? null;
  }

  get hasTexts(): boolean {
    return this.all !== null;
  }

  idOf(row: number): number {
    return this.ids.length > 0 ? this.ids[row]! : row;
  }

  rowOf(id: number | null): number | null {
    if (id === null) return null;
    const row = this.ids.length > 0 ? this.ids.indexOf(id) : id;
    return row >= 0 && row < this.n ? row : null;
  }

  placed(row: number): boolean {
    return this.shown[3 * row] !== UNPLACED || this.shown[3 * row + 1] !== UNPLACED;
  }

  /** A point of the picture's own coordinates, in the cube from -0.5 to 0.5. */
  inCube(at: readonly number[]): [number, number, number] {
    const { low, high } = this.facts;
    return [0, 1, 2].map((i) => (at[i]! - low[i]!) / (high[i]! - low[i]! || 1) - 0.5) as [
      number,
      number,
      number,
    ];
  }

  point(row: number): [number, number, number] {
    return [0, 1, 2].map((i) => this.shown[3 * row + i]! / (UNPLACED - 1) - 0.5) as [number, number, number];
  }

  /** The rows of a row's token, layer after layer; none where this is no residual stream. */
  pathOf(row: number): number[] {
    const { path } = this.facts;
    if (!path) return [];
    return path.layers.map((_, layer) => layer * path.tokens + (row % path.tokens));
  }

  /** A column's values, if they are here. */
  column(name: string): Column | null {
    const known = this.read.get(name);
    if (known) return known;
    const facts = this.parts.columns[name];
    if (!facts) return null;
    const source = this.parts.columnData[facts.buffer];
    let made: Column;
    if (facts.names.length > 0)
      made = {
        kind: "name",
        values: typed(Uint8Array, source),
        names: facts.names,
        counts: facts.counts,
      };
    else {
      const values = typed(Float32Array, source);
      const [low, high] = ends(values);
      made = { kind: "number", values, low, high };
    }
    this.read.set(name, made);
    return made;
  }

  group(label: number): Group | null {
    return this.facts.clusters.find((g) => g.label === label) ?? null;
  }

  /** Search where all texts are here: what is it, begins with it, holds it; short ones first. */
  search(text: string, limit: number): Found {
    const spaced = /^[ \u00b7]/.test(text);
    const bare = text.replace(/^[ \u00b7]+/, "").toLowerCase();
    if (!this.all || bare === "") return { rows: [], texts: [], found: 0 };
    this.lowered ??= this.all.map((t) => t.toLowerCase());
    const wanted = spaced ? `\u00b7${bare}` : bare;
    const rows: number[] = [];
    this.lowered.forEach((t, row) => {
      if (t.includes(wanted)) rows.push(row);
    });
    const rank = (row: number) => {
      const t = this.lowered![row]!;
      const own = t.startsWith("\u00b7") && !spaced ? t.slice(1) : t;
      return own === wanted ? 0 : own.startsWith(wanted) ? 1 : 2;
    };
    const found = rows.length;
    const worth = rows.map((row) => [rank(row), this.all![row]!.length, row] as const);
    worth.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2]);
    const best = worth.slice(0, limit).map(([, , row]) => row);
    return { rows: best, texts: best.map((row) => this.all![row]!), found };
  }
}
