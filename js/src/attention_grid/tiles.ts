// Which cells stand for a part of a head on the screen: all of a short head's, and of a long one's as many as pixels.
// In: a head, the viewport, its pixels; tiles from the kernel or computed here. Out: the best picture there is now.
import { type Cleanup, Timer } from "../shared/dom";
import type { GridData, Head, Matrix } from "./data";
import type { Covers } from "./paint_matrix";
import { LONG, type Replay, slowTile } from "./replay";
import type { Source } from "./view";
import { type Span, sameView, size, type Viewport } from "./viewport";

export interface Picture {
  readonly matrix: Matrix;
  readonly covers: Covers;
  /** Exact maxima of the cells; else something coarser stands in for it. */
  readonly exact: boolean;
}

export interface Wanted {
  readonly data: GridData;
  readonly head: Head;
  readonly replay: Replay | null;
  readonly view: Viewport;
  readonly whole: Viewport;
  /** Device pixels down and across. */
  readonly pixels: readonly [number, number];
}

/** Multiplications that take less than 30 ms in a browser. */
const AT_ONCE = 24e6;
/** The kernel is asked when the viewport has stood still for so long. */
const STILL = 90;
/** A kernel that has not answered after so long is busy. */
const PATIENCE = 2500;
/** Bytes of tiles kept: about 20 of 700 x 700 cells. */
const KEEP = 40_000_000;

interface Kept {
  readonly head: number;
  readonly view: Viewport;
  /** Without the first key's column, where the viewport has it. */
  readonly tile: Matrix;
  picture: Picture | null;
}

export function isLong({ rows, keys }: Viewport): boolean {
  return size(rows) > LONG || size(keys) > LONG;
}

export class Pictures {
  private readonly kept = new Map<string, Kept>();
  private readonly asked = new Set<string>();
  private readonly still: Timer;
  private tokens: readonly string[] = [];
  private latest = "";

  constructor(
    private readonly cleanup: Cleanup,
    private readonly tile: Source["tile"],
    private readonly arrived: () => void,
  ) {
    this.still = new Timer(cleanup);
    cleanup.add(() => this.kept.clear());
  }

  /** The best picture of a viewport there is now; `arrived` tells of a better one. */
  get(wanted: Wanted): Picture {
    const { data, head, replay, view, whole } = wanted;
    if (data.facts.tokens !== this.tokens) this.forget(data.facts.tokens);
    if (!isLong(whole))
      return replay
        ? { matrix: replay.matrix(), covers: { ...whole, sink: false }, exact: true }
        : this.thumbnail(data, head, whole);
    const key = name(wanted);
    this.latest = key;
    this.still.stop();
    const kept = this.kept.get(key) ?? this.now(wanted, key);
    if (kept) this.keep(key, kept);
    else if (sameView(view, whole)) this.ask(wanted, key);
    else this.still.start(STILL, () => this.ask(wanted, key));
    return (kept && this.finished(kept, replay)) ?? this.standIn(wanted);
  }

  /** The whole head, as exact as it is known. */
  overview(wanted: Wanted): Picture {
    return this.standIn({ ...wanted, view: wanted.whole });
  }

  private forget(tokens: readonly string[]): void {
    this.tokens = tokens;
    this.kept.clear();
    this.asked.clear();
  }

  /** Computed at once, where that takes no time that anybody notices. */
  private now({ head, replay, view, pixels }: Wanted, key: string): Kept | undefined {
    if (!replay || this.asked.has(key)) return undefined;
    if (size(view.rows) * size(view.keys) * replay.size > AT_ONCE) return undefined;
    const [k0, k1] = others(view);
    const tile = replay.tile("softmax", ...view.rows, k0, k1, ...pixels);
    return { head: head.index, view, tile, picture: null };
  }

  /** The others are asked for one after the other; an overview goes first. */
  private ask(wanted: Wanted, key: string): void {
    const { head, view, whole } = wanted;
    if (this.asked.has(key) || (this.asked.size > 0 && !sameView(view, whole))) return;
    this.asked.add(key);
    const { tokens } = this;
    this.bring(wanted)
      .then(
        (tile) => {
          if (tokens === this.tokens) this.keep(key, { head: head.index, view, tile, picture: null });
        },
        () => undefined,
      )
      .then(() => {
        this.asked.delete(key);
        if (this.kept.has(key) || this.latest !== key) this.arrived();
      });
  }

  /** From the kernel; computed here, slice by slice, where it does not answer or has other things to do. */
  private bring({ head, replay, view, pixels }: Wanted): Promise<Matrix> {
    const keys = others(view);
    const asked = this.tile(head.layer, head.head, "softmax", view.rows, keys, pixels);
    if (!replay) return asked;
    return new Promise((done) => {
      const here = () => void slowTile(replay, "softmax", view.rows, keys, pixels).then(done);
      const cancel = this.cleanup.later(PATIENCE, here);
      asked.then(done, here).finally(cancel);
    });
  }

  private keep(key: string, kept: Kept): void {
    this.kept.delete(key);
    this.kept.set(key, kept);
    let bytes = [...this.kept.values()].reduce((sum, k) => sum + 8 * k.tile.data.length, 0);
    for (const [oldest, k] of this.kept) {
      if (bytes <= KEEP || oldest === key) break;
      this.kept.delete(oldest);
      bytes -= 8 * k.tile.data.length;
    }
  }

  /** With the first key's own column, which is computed here. */
  private finished(kept: Kept, replay: Replay | null): Picture | null {
    if (kept.picture || !replay) return kept.picture;
    const { view, tile } = kept;
    const sink = view.keys[0] === 0;
    const matrix = sink ? withColumn(tile, replay.column(0), view.rows) : tile;
    kept.picture = { matrix, covers: { ...view, sink }, exact: true };
    return kept.picture;
  }

  /** The nearest picture that covers all of the viewport, the whole head's, or its thumbnail. */
  private standIn({ data, head, replay, view, whole }: Wanted): Picture {
    let best: Kept | null = null;
    for (const k of this.kept.values()) {
      if (k.head !== head.index || !covers(k.view, view)) continue;
      if (!best || area(k.view) < area(best.view)) best = k;
    }
    const picture = best && this.finished(best, replay);
    return picture
      ? { ...picture, exact: best !== null && sameView(best.view, view) }
      : this.thumbnail(data, head, whole);
  }

  private thumbnail(data: GridData, head: Head, whole: Viewport): Picture {
    return { matrix: data.approximate(head), covers: { ...whole, sink: false }, exact: false };
  }
}

function name({ head, view, pixels }: Wanted): string {
  return [head.index, ...view.rows, ...view.keys, ...pixels].join();
}

/** The keys of a viewport without the first token, which always has a column of its own. */
function others({ keys }: Viewport): Span {
  return keys[0] === 0 ? [1, keys[1]] : keys;
}

function covers(a: Viewport, b: Viewport): boolean {
  return (["rows", "keys"] as const).every((axis) => a[axis][0] <= b[axis][0] && a[axis][1] >= b[axis][1]);
}

function area({ rows, keys }: Viewport): number {
  return size(rows) * size(keys);
}

/** A tile with one more column in front, reduced to its rows as it is. */
function withColumn(tile: Matrix, column: Float32Array, [from, to]: Span): Matrix {
  const { rows } = tile;
  const keys = tile.keys + 1;
  const data = new Float32Array(rows * keys);
  for (let r = 0; r < rows; r++) {
    data.set(tile.data.subarray(r * tile.keys, (r + 1) * tile.keys), r * keys + 1);
    let most = Number.NaN;
    const end = from + Math.floor(((r + 1) * (to - from)) / rows);
    for (let i = from + Math.floor((r * (to - from)) / rows); i < end; i++)
      if (!(column[i]! <= most)) most = Number.isNaN(column[i]!) ? most : column[i]!;
    data[r * keys] = most;
  }
  return { rows, keys, data };
}
