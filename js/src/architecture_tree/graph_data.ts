// The operator graph of a prompt as columns of numbers; one layer of it laid out from left to right.
// In: the traits `graph`, `graph_nodes`, `graph_seconds`, `graph_edges`, `graph_weights`. Out: look-ups and places.

export interface GraphFacts {
  readonly strings: readonly string[];
  readonly provenance: string;
  readonly n_tokens: number;
  /** Seconds of the prompt when nothing stops it; null where it was not timed. */
  readonly seconds: number | null;
}

/** A part of the run: the operations of one layer, or those before and after all layers. */
export interface Place {
  readonly stage: number;
  readonly layer: number;
  readonly part: number;
  readonly operations: number[];
  readonly seconds: number;
}

/** Operations that compute nothing: they say how bytes that are there are read. */
const FREE = new Set(["VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE", "NONE"]);

const STAGES = ["input", "layers", "output"] as const;

function table(view: DataView, width: number): Int32Array[] {
  const all = new Int32Array(
    view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) as ArrayBuffer,
  );
  const length = all.length / width;
  return Array.from({ length: width }, (_, i) => all.subarray(i * length, (i + 1) * length));
}

export class GraphData {
  readonly count: number;
  readonly places: readonly Place[];
  readonly seconds: Float32Array;
  private readonly columns: readonly Int32Array[];
  private readonly sources: number[][];
  /** The leaf of the tree that an operation reads, -1 for none. */
  readonly weight: Int32Array;

  constructor(
    readonly facts: GraphFacts,
    nodes: DataView,
    seconds: DataView,
    edges: DataView,
    weights: DataView,
  ) {
    this.columns = table(nodes, 9);
    this.count = this.columns[0]!.length;
    this.seconds = new Float32Array(
      seconds.buffer.slice(seconds.byteOffset, seconds.byteOffset + seconds.byteLength) as ArrayBuffer,
    );
    this.sources = Array.from({ length: this.count }, () => []);
    const [from, to] = table(edges, 2);
    for (let i = 0; i < from!.length; i++) this.sources[to![i]!]!.push(from![i]!);
    this.weight = new Int32Array(this.count).fill(-1);
    const [leaf, reader] = table(weights, 2);
    for (let i = 0; i < leaf!.length; i++)
      if (this.weight[reader![i]!] === -1) this.weight[reader![i]!] = leaf![i]!;
    this.places = this.findPlaces();
  }

  private findPlaces(): Place[] {
    const found = new Map<
      string,
      { stage: number; layer: number; part: number; operations: number[]; seconds: number }
    >();
    for (let i = 0; i < this.count; i++) {
      const [stage, layer, part] = [this.columns[2]![i]!, this.columns[3]![i]!, this.columns[8]![i]!];
      const key = `${part},${stage},${layer}`;
      let own = found.get(key);
      if (!own) {
        own = { stage, layer, part, operations: [], seconds: Number.NaN };
        found.set(key, own);
      }
      own.operations.push(i);
      const s = this.seconds[i]!;
      if (!Number.isNaN(s)) own.seconds = (Number.isNaN(own.seconds) ? 0 : own.seconds) + s;
    }
    return [...found.values()];
  }

  private text(column: number, i: number): string {
    return this.facts.strings[this.columns[column]![i]!] ?? "";
  }

  name(i: number): string {
    return this.text(0, i);
  }

  operation(i: number): string {
    return this.text(1, i);
  }

  shape(i: number): string {
    return this.text(4, i);
  }

  type(i: number): string {
    return this.text(5, i);
  }

  backend(i: number): string {
    return this.text(6, i);
  }

  fused(i: number): boolean {
    return this.columns[7]![i] === 1;
  }

  isFree(i: number): boolean {
    return FREE.has(this.operation(i));
  }

  /** "layer 3", "input", "decoder layer 3". */
  placeName(place: Place): string {
    const own = this.facts.strings[place.part] ?? "";
    const part = own === "self" ? "" : `${own} `;
    return place.layer >= 0 ? `${part}layer ${place.layer}` : `${part}${STAGES[place.stage]}`;
  }

  /** Operations that a given one reads, those that compute nothing stepped over. */
  reads(i: number): number[] {
    const found = new Set<number>();
    for (const source of this.sources[i]!) {
      let at: number | undefined = source;
      while (at !== undefined && this.isFree(at)) at = this.sources[at]![0];
      if (at !== undefined) found.add(at);
    }
    return [...found];
  }
}

/** Where an operation of a place is drawn, in boxes: column and row. */
export interface Box {
  readonly operation: number;
  readonly column: number;
  readonly row: number;
  readonly from: readonly number[];
}

/** From left to right: an operation stands right of all that it reads, beside the first of them where there is room. */
export function layoutPlace(graph: GraphData, place: Place): Box[] {
  const column = new Map<number, number>();
  const row = new Map<number, number>();
  const taken = new Set<string>();
  const boxes: Box[] = [];
  for (const operation of place.operations) {
    if (graph.isFree(operation)) continue;
    const from = graph.reads(operation).filter((source) => column.has(source));
    const c = from.reduce((most, source) => Math.max(most, column.get(source)! + 1), 0);
    const last = from.reduce(
      (best, s) => (column.get(s)! > (column.get(best) ?? -1) ? s : best),
      from[0] ?? -1,
    );
    let r = row.get(last) ?? 0;
    while (taken.has(`${c},${r}`)) r++;
    column.set(operation, c);
    row.set(operation, r);
    taken.add(`${c},${r}`);
    boxes.push({ operation, column: c, row: r, from });
  }
  return boxes;
}
