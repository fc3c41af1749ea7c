// Heads that can be replayed here: embedded ones, those the kernel sent, and what only the kernel can compute of them.
// In: the traits `embedded` and `embedded_data`, and the kernel's answers. Out: replays, tiles, sums.
import { type Answer, type Kernel, Unavailable } from "../shared/kernel";
import { floats, type Matrix } from "./data";
import { type HeadFacts, LONG, Replay, SLICE, slowTile } from "./replay";

/** How a sum over tokens goes: where they look, or who looks at them. */
export type Direction = "looks" | "seen";
export type SumHeads = "all" | readonly (readonly [number, number])[];
export type SumHow = "mean" | "max";

/** A range of rows or keys, the end not included. */
export type Span = readonly [number, number];

/** Embedded heads: their facts, and which of the buffers are theirs. */
export type Embedded = Readonly<Record<string, HeadFacts & { readonly buffers: readonly number[] }>>;

/** What the heads read of the widget's state. */
export interface HeadState {
  live(): boolean;
  /** All heads that there are. */
  all(): readonly (readonly [number, number])[];
  embedded(): Embedded;
  data(): readonly unknown[];
}

/** Bytes of replays kept at hand; one of 4096 tokens takes 2 MB, a matrix of 1024 tokens 4 MB. */
const KEEP = 64_000_000;
/** So many cells are computed here rather than asked for. */
const FEW = (LONG / 2) ** 2;

export class Heads {
  private readonly cache = new Map<string, Replay>();
  /** Nobody answers any more. */
  gone = false;

  constructor(
    private readonly state: HeadState,
    private readonly kernel: Pick<Kernel, "ask">,
  ) {}

  forget(): void {
    this.cache.clear();
  }

  get(layer: number, head: number): Replay | Promise<Replay> {
    const here = this.here(layer, head);
    if (here) return here;
    if (!this.state.live()) return Promise.reject(new Unavailable("no-kernel", "saved without a kernel"));
    return this.kernel
      .ask({ type: "head", layer, head })
      .then(({ message, buffers }) =>
        this.make(`${layer},${head}`, message as unknown as HeadFacts, buffers),
      );
  }

  async tile(
    layer: number,
    head: number,
    stage: string,
    rows: Span,
    keys: Span,
    size: readonly [number, number],
  ): Promise<Matrix> {
    const here = this.here(layer, head);
    const few = (rows[1] - rows[0]) * (keys[1] - keys[0]) <= FEW;
    if (here && (few || this.gone || !this.state.live())) return slowTile(here, stage, rows, keys, size);
    if (!this.state.live()) throw new Unavailable("no-kernel", "saved without a kernel");
    try {
      const asked = { type: "tile", layer, head, stage, rows, keys, size };
      return readTile(await this.kernel.ask(asked));
    } catch (error) {
      if (here && error instanceof Unavailable && error.why === "no-kernel")
        return slowTile(here, stage, rows, keys, size);
      throw error;
    }
  }

  /** Sums over chosen tokens; computed here where all heads are here, else by the kernel. */
  async sums(
    tokens: readonly number[],
    direction: Direction,
    heads: SumHeads,
    how: SumHow,
    heard?: (share: number) => void,
  ): Promise<Float32Array> {
    const which = heads === "all" ? this.state.all() : heads;
    if (which.length > 0 && which.every(([layer, head]) => this.has(layer, head)))
      return this.sumsOf(which, tokens, direction, how, heard);
    if (!this.state.live()) throw new Unavailable("no-kernel", "saved without a kernel");
    const { buffers } = await this.kernel.ask({ type: "sums", tokens, direction, heads, how }, heard);
    return floats(buffers[0]);
  }

  private has(layer: number, head: number): boolean {
    const key = `${layer},${head}`;
    return this.cache.has(key) || this.state.embedded()[key] !== undefined;
  }

  /** NaN where no token of any head sees the key, or is seen by the query. */
  private async sumsOf(
    which: readonly (readonly [number, number])[],
    tokens: readonly number[],
    direction: Direction,
    how: SumHow,
    heard?: (share: number) => void,
  ): Promise<Float32Array> {
    let out: Float64Array | null = null;
    let since = performance.now();
    for (const [done, [layer, number]] of which.entries()) {
      const head = this.here(layer, number);
      if (!head) throw new Unavailable("error", `layer ${layer} head ${number} is not here any more`);
      const lines = tokens.map((token) => (direction === "looks" ? head.row(token) : head.column(token)));
      out ??= new Float64Array(lines[0]?.length ?? 0).fill(Number.NaN);
      add(out, lines, how);
      if (performance.now() - since < SLICE) continue;
      heard?.(done / which.length);
      await new Promise((done) => setTimeout(done));
      since = performance.now();
    }
    return Float32Array.from(out ?? [], (w) => (how === "mean" ? w / which.length : w));
  }

  private here(layer: number, head: number): Replay | undefined {
    const key = `${layer},${head}`;
    const cached = this.cache.get(key);
    if (cached) return this.keep(key, cached);
    const facts = this.state.embedded()[key];
    const all = this.state.data();
    const buffers = facts?.buffers.map((i) => all[i]);
    return facts && buffers ? this.make(key, facts, buffers) : undefined;
  }

  private make(key: string, facts: HeadFacts, buffers: readonly unknown[]): Replay {
    try {
      return this.keep(key, new Replay(facts, buffers));
    } catch (error) {
      throw new Unavailable("error", error instanceof Error ? error.message : String(error));
    }
  }

  private keep(key: string, replay: Replay): Replay {
    this.cache.delete(key);
    this.cache.set(key, replay);
    let size = [...this.cache.values()].reduce((sum, r) => sum + r.bytes, 0);
    for (const [oldest, r] of this.cache) {
      if (size <= KEEP || oldest === key) break;
      this.cache.delete(oldest);
      size -= r.bytes;
    }
    return replay;
  }
}

function readTile({ message, buffers }: Answer): Matrix {
  const { rows, keys } = message as { rows: number; keys: number };
  const data = floats(buffers[0]);
  if (data.length !== rows * keys)
    throw new Unavailable("error", `${data.length} cells came, ${rows} \u00d7 ${keys} were announced`);
  return { rows, keys, data };
}

/** One head's lines, summed, are added to what other heads gave, or the greater of both is kept. */
function add(out: Float64Array, lines: readonly Float32Array[], how: SumHow): void {
  for (let i = 0; i < out.length; i++) {
    let own = Number.NaN;
    for (const line of lines) if (!Number.isNaN(line[i]!)) own = (own || 0) + line[i]!;
    if (!Number.isNaN(own)) out[i] = how === "max" ? Math.max(out[i] || 0, own) : (out[i] || 0) + own;
  }
}
