// A model as columns of numbers: nodes (parents first) and leaves, which have bytes of their own.
// In: the traits `facts`, `nodes`, `leaves`. Out: TreeData: sums, bits, names, ids, what a node is made of.

export interface TypeFacts {
  readonly name: string;
  /** Bits per weight of the type itself; null where nobody knows it. */
  readonly bits: number | null;
  readonly hue: number | null;
  readonly family: "k" | "legacy" | "iq" | "plain" | "unknown";
  readonly block: number | null;
}

export interface SideFacts {
  readonly model: string;
  readonly file: string;
  readonly quant_type: string | null;
  readonly architecture: string | null;
  readonly tied: boolean;
  readonly complete: boolean;
  readonly shards: number;
  readonly notices: readonly (readonly [strong: string, text: string])[];
  readonly metadata: readonly (readonly [key: string, kind: string, value: string])[];
}

export interface RoleFacts {
  readonly role: string;
  readonly count: number;
  readonly changes: Readonly<Record<string, number>>;
  readonly types_a: readonly (readonly [string, number])[];
  readonly types_b: readonly (readonly [string, number])[];
  readonly bytes_a: number;
  readonly bytes_b: number;
  readonly weights_a: number;
  readonly weights_b: number;
}

export interface OverlayFacts {
  readonly name: string;
  readonly label: string;
  readonly words: string;
  readonly source: string;
}

export interface Facts {
  readonly title: string;
  readonly provenance: string;
  readonly details: Readonly<Record<string, string>>;
  readonly live: boolean;
  readonly saved: string | null;
  readonly strings: readonly string[];
  readonly types: readonly TypeFacts[];
  readonly shapes: readonly (readonly number[])[];
  readonly sides: readonly SideFacts[];
  readonly overlays: readonly OverlayFacts[];
  readonly roles: readonly RoleFacts[];
  /** Why the model cannot run; empty where it can. */
  readonly runs: string;
  /** Host of the user's Graphistry account, where the tree is large enough to be worth sending. */
  readonly graphistry?: string | null;
}

export const KINDS = [
  "model",
  "header",
  "stage",
  "layer",
  "block",
  "expert",
  "kv_group",
  "head",
  "tensor",
  "padding",
] as const;
export type Kind = (typeof KINDS)[number];

/** Stands for the layer's number in the full name of a tensor. */
const LAYER = "\ue000";

function bytesOf(view: DataView): ArrayBuffer {
  return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) as ArrayBuffer;
}

function rows<T extends Int32Array | Float64Array>(all: T, count: number): T[] {
  const length = all.length / count;
  return Array.from({ length: count }, (_, i) => all.subarray(i * length, (i + 1) * length) as T);
}

/** What one quant type has of some leaves. */
export interface Share {
  readonly type: number;
  readonly bytes: number;
  readonly count: number;
}

export class TreeData {
  readonly count: number;
  readonly parent: Int32Array;
  readonly name: Int32Array;
  readonly kind: Int32Array;
  readonly layer: Int32Array;
  readonly head: Int32Array;
  readonly note: Int32Array;
  /** The first node after all that are below a node. */
  readonly end: Int32Array;
  readonly depth: Int32Array;
  /** Bytes and weights of a node with all below, weights only of tensors; bytes of tensors alone. */
  readonly bytes: Float64Array;
  readonly weights: Float64Array;
  readonly tensorBytes: Float64Array;
  readonly tensors: Int32Array;
  /** Tensors of unknown types below: then there are no bits per weight. */
  readonly unknown: Int32Array;
  /** The node's own leaf, -1 for none; the first leaf at or after it. */
  readonly leafOf: Int32Array;
  readonly firstLeaf: Int32Array;

  readonly leaves: number;
  readonly leafNode: Int32Array;
  readonly leafName: Int32Array;
  readonly leafType: Int32Array;
  readonly leafShape: Int32Array;
  readonly leafBytes: Float64Array;
  readonly leafOffset: Float64Array;
  readonly leafShard: Int32Array;
  private readonly shapeWeights: Float64Array;
  private signatures: Int32Array | null = null;
  private haystack: string[] | null = null;
  private readonly mixes = new Map<number, readonly Share[]>();

  constructor(
    readonly facts: Facts,
    readonly side: number,
    nodes: DataView,
    leaves: DataView,
  ) {
    const [parent, name, kind, layer, head, note] = rows(new Int32Array(bytesOf(nodes)), 6) as Int32Array[];
    this.parent = parent!;
    this.name = name!;
    this.kind = kind!;
    this.layer = layer!;
    this.head = head!;
    this.note = note!;
    this.count = this.parent.length;
    const table = rows(new Float64Array(bytesOf(leaves)), 7) as Float64Array[];
    this.leafNode = Int32Array.from(table[0]!);
    this.leafName = Int32Array.from(table[1]!);
    this.leafType = Int32Array.from(table[2]!);
    this.leafShape = Int32Array.from(table[3]!);
    this.leafBytes = table[4]!;
    this.leafOffset = table[5]!;
    this.leafShard = Int32Array.from(table[6]!);
    this.leaves = this.leafNode.length;
    this.shapeWeights = Float64Array.from(facts.shapes, (s) => s.reduce((a, b) => a * b, 1));
    const n = this.count;
    this.end = new Int32Array(n);
    this.depth = new Int32Array(n);
    this.bytes = new Float64Array(n);
    this.weights = new Float64Array(n);
    this.tensorBytes = new Float64Array(n);
    this.tensors = new Int32Array(n);
    this.unknown = new Int32Array(n);
    this.leafOf = new Int32Array(n).fill(-1);
    this.firstLeaf = new Int32Array(n + 1).fill(this.leaves);
    this.addUp();
  }

  private addUp(): void {
    const n = this.count;
    for (let leaf = 0; leaf < this.leaves; leaf++) {
      const node = this.leafNode[leaf]!;
      this.leafOf[node] = leaf;
      this.bytes[node] = this.leafBytes[leaf]!;
      if (this.leafType[leaf]! < 0) continue;
      this.weights[node] = this.leafWeights(leaf);
      this.tensorBytes[node] = this.leafBytes[leaf]!;
      this.tensors[node] = 1;
      this.unknown[node] = this.typeOf(leaf)!.bits === null ? 1 : 0;
    }
    for (let i = 0; i < n; i++) {
      this.end[i] = i + 1;
      const up = this.parent[i]!;
      this.depth[i] = up < 0 ? 0 : this.depth[up]! + 1;
    }
    for (let i = n - 1; i >= 0; i--) {
      this.firstLeaf[i] = this.leafOf[i]! >= 0 ? this.leafOf[i]! : this.firstLeaf[i + 1]!;
      const up = this.parent[i]!;
      if (up < 0) continue;
      this.end[up] = Math.max(this.end[up]!, this.end[i]!);
      this.bytes[up] = this.bytes[up]! + this.bytes[i]!;
      this.weights[up] = this.weights[up]! + this.weights[i]!;
      this.tensorBytes[up] = this.tensorBytes[up]! + this.tensorBytes[i]!;
      this.tensors[up] = this.tensors[up]! + this.tensors[i]!;
      this.unknown[up] = this.unknown[up]! + this.unknown[i]!;
    }
  }

  get sideFacts(): SideFacts {
    return this.facts.sides[this.side]!;
  }

  kindOf(node: number): Kind {
    return KINDS[this.kind[node]!]!;
  }

  children(node: number): number[] {
    const found: number[] = [];
    for (let i = node + 1; i < this.end[node]!; i = this.end[i]!) found.push(i);
    return found;
  }

  hasChildren(node: number): boolean {
    return this.end[node]! > node + 1;
  }

  /** Leaves of a node, [first, end). */
  leavesOf(node: number): [number, number] {
    return [this.firstLeaf[node]!, this.firstLeaf[this.end[node]!] ?? this.leaves];
  }

  leafWeights(leaf: number): number {
    return this.shapeWeights[this.leafShape[leaf]!] ?? 0;
  }

  typeOf(leaf: number): TypeFacts | null {
    return this.facts.types[this.leafType[leaf]!] ?? null;
  }

  /** Bits per weight, from the bytes of all tensors below; NaN where there are none, or one of an unknown type. */
  bits(first: number, end = this.end[first]!): number {
    let [bytes, weights, unknown] = [0, 0, 0];
    for (let i = first; i < end; i = this.end[i]!) {
      bytes += this.tensorBytes[i]!;
      weights += this.weights[i]!;
      unknown += this.unknown[i]!;
    }
    return weights > 0 && unknown === 0 ? (8 * bytes) / weights : Number.NaN;
  }

  leafBits(leaf: number): number {
    const type = this.typeOf(leaf);
    const weights = this.leafWeights(leaf);
    return type && type.bits !== null && weights > 0 ? (8 * this.leafBytes[leaf]!) / weights : Number.NaN;
  }

  /** Bytes of each type among the leaves [first, end), the largest first. */
  mix(first: number, end: number): readonly Share[] {
    const key = first * (this.leaves + 1) + end;
    let own = this.mixes.get(key);
    if (!own) {
      own = this.mixOf(first, end);
      this.mixes.set(key, own);
    }
    return own;
  }

  private mixOf(first: number, end: number): Share[] {
    const found = new Map<number, { type: number; bytes: number; count: number }>();
    for (let leaf = first; leaf < end; leaf++) {
      const type = this.leafType[leaf]!;
      if (type < 0) continue;
      const own = found.get(type) ?? { type, bytes: 0, count: 0 };
      own.bytes += this.leafBytes[leaf]!;
      own.count++;
      found.set(type, own);
    }
    return [...found.values()].sort((a, b) => b.bytes - a.bytes);
  }

  text(at: number): string {
    return this.facts.strings[at] ?? "";
  }

  /** A tensor's name as the file has it. */
  fullName(leaf: number): string {
    const name = this.facts.strings[this.leafName[leaf]!];
    if (name === undefined) return this.text(this.name[this.leafNode[leaf]!]!);
    return name.replace(LAYER, String(this.layer[this.leafNode[leaf]!]));
  }

  /** A node's name as the tree shows it: what nearly all names end in goes without saying. */
  shortName(node: number): string {
    return this.text(this.name[node]!).replace(/\.weight$/, "");
  }

  /** A tensor's name without the numbers of layer and expert: what it does in every layer. */
  role(leaf: number): string {
    return this.text(this.leafName[leaf]!).replaceAll(/\.(\d+|\ue000)(?=\.)/g, "");
  }

  shape(leaf: number): readonly number[] {
    return this.facts.shapes[this.leafShape[leaf]!] ?? [];
  }

  /** The path of a node, as `model.tree.nodes["id"]` has it. */
  id(node: number): string {
    if (node < 0) return "";
    const parts: string[] = [];
    for (let i = node; this.parent[i]! >= 0; i = this.parent[i]!) parts.push(this.segment(i));
    return ["model", ...parts.reverse()].join("/");
  }

  private segment(node: number): string {
    return this.kindOf(node) === "layer" ? `L${this.layer[node]}` : this.text(this.name[node]!);
  }

  /** The node of an id; -1 where there is none. */
  find(id: string): number {
    if (id === "model") return 0;
    let [at, rest] = [0, id.startsWith("model/") ? id.slice(6) : ""];
    while (rest !== "") {
      const next = this.children(at).find((child) => {
        const own = this.segment(child);
        return rest === own || rest.startsWith(`${own}/`);
      });
      if (next === undefined) return -1;
      rest = rest.slice(this.segment(next).length + 1);
      at = next;
    }
    return id === "" ? -1 : at;
  }

  /** The node of a layer, or of one of its heads, in the first stack that has it; -1 where there is none. */
  place(layer: number | null, head: number | null): number {
    if (layer === null) return -1;
    const kind = KINDS.indexOf(head === null ? "layer" : "head");
    for (let i = 0; i < this.count; i++)
      if (this.kind[i] === kind && this.layer[i] === layer && (head === null || this.head[i] === head))
        return i;
    return -1;
  }

  /**
   * A number per node, equal where two nodes are built alike: same kind, and below it the same names and shapes.
   * The numbers of layers, experts and heads and the quant types do not count.
   */
  get signature(): Int32Array {
    if (this.signatures) return this.signatures;
    const seen = new Map<string, number>();
    const made = new Int32Array(this.count);
    const below: string[] = new Array(this.count).fill("");
    for (let i = this.count - 1; i >= 0; i--) {
      const numbered = isNumbered(this.kindOf(i));
      const leaf = this.leafOf[i]!;
      const key = `${this.kind[i]},${numbered ? "" : this.name[i]},${leaf < 0 ? "" : this.leafShape[leaf]}(${below[i]})`;
      let at = seen.get(key);
      if (at === undefined) {
        at = seen.size;
        seen.set(key, at);
      }
      made[i] = at;
      const up = this.parent[i]!;
      if (up >= 0) below[up] += `${at},`;
      below[i] = "";
    }
    this.signatures = made;
    return made;
  }

  /** Leaves in whose name, type or shape all words stand. */
  search(text: string): Int32Array | null {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length === 0) return null;
    this.haystack ??= Array.from({ length: this.leaves }, (_, leaf) => {
      const type = this.typeOf(leaf);
      if (!type) return this.fullName(leaf).toLowerCase();
      const shape = this.shape(leaf);
      return `${this.fullName(leaf)} ${type.name} ${shape.join("\u00d7")} ${shape.join("x")}`.toLowerCase();
    });
    const found: number[] = [];
    for (let leaf = 0; leaf < this.leaves; leaf++) {
      const own = this.haystack[leaf]!;
      if (words.every((word) => own.includes(word))) found.push(leaf);
    }
    return Int32Array.from(found);
  }
}

/** Kinds whose siblings differ by their number alone. */
export function isNumbered(kind: Kind): boolean {
  return kind === "layer" || kind === "expert" || kind === "kv_group" || kind === "head";
}
