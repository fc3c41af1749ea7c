// All thumbnails at full strength, side by side on one canvas that is never shown: the grid is put together from it.
// In: data, how it is to be drawn. Out: a canvas and where each head's thumbnail stands on it. Draws only what changed.
import { mix, pixel, pixels } from "../shared/colour";
import { h } from "../shared/dom";
import type { Theme } from "../shared/theme";
import { FUTURE, type GridData, type Head, SEEN } from "./data";
import { rampCodes, type Scale } from "./scale";

export interface AtlasLook {
  readonly data: GridData;
  /** Side of a thumbnail in device pixels. */
  readonly size: number;
  /** Most cells of a thumbnail's side. */
  readonly cells: number;
  readonly scale: Scale;
  readonly sinkAside: boolean;
  /** Rows of tokens from here on are not there yet. */
  readonly until: number;
  readonly theme: Theme;
  readonly ratio: number;
}

/** More thumbnails than this are put on the canvas in one piece. */
const FEW = 48;

/**
 * The largest code of each block: thin lines are the finding, so blocks keep their maximum, never their mean.
 * Rows from `until` on are left out.
 */
export function maxReduce(
  codes: Uint8Array,
  rows: number,
  keys: number,
  toRows: number,
  toKeys: number,
  until = rows,
  out = new Uint8Array(toRows * toKeys),
): Uint8Array {
  out.fill(0);
  for (let r = 0; r < until; r++) {
    const to = Math.floor((r * toRows) / rows) * toKeys;
    const from = r * keys;
    if (keys === toKeys) {
      for (let k = 0; k < keys; k++) if (codes[from + k]! > out[to + k]!) out[to + k] = codes[from + k]!;
      continue;
    }
    // Block by block: one division each, not one for every code.
    for (let c = 0, k = 0; c < toKeys; c++) {
      const end = Math.ceil(((c + 1) * keys) / toKeys);
      let most = out[to + c]!;
      for (; k < end; k++) if (codes[from + k]! > most) most = codes[from + k]!;
      out[to + c] = most;
    }
  }
  return out;
}

export class Atlas {
  readonly canvas = h("canvas", {});
  private look: AtlasLook | null = null;
  private columns = 1;
  private image: ImageData | null = null;
  private words = new Uint32Array(0);
  /** 1 = drawn as it is now. */
  private drawn = new Uint8Array(0);
  private masks = new Map<string, Uint8Array>();
  private table = new Uint32Array(0);
  private rows = 0;
  private keys = 0;
  private small = new Uint8Array(0);
  private codes = new Uint8Array(0);
  private columnOf = new Uint16Array(0);
  private line = new Uint32Array(0);

  /** A head's thumbnail changed, or a layer's, or all. */
  forget(which?: (head: Head) => boolean): void {
    this.masks.clear();
    if (!which) this.drawn.fill(0);
    else for (const head of this.look?.data.heads ?? []) if (which(head)) this.drawn[head.index] = 0;
  }

  x(index: number): number {
    return (index % this.columns) * (this.look?.size ?? 0);
  }

  y(index: number): number {
    return Math.floor(index / this.columns) * (this.look?.size ?? 0);
  }

  /** Brings the canvas to this look; the indices of the heads whose pictures are new. */
  update(look: AtlasLook): readonly number[] {
    const changed: number[] = [];
    const ctx = this.canvas.getContext("2d");
    if (!ctx || look.size <= 0) return changed;
    this.prepare(ctx, look);
    for (const head of look.data.heads) {
      if (this.drawn[head.index] || !look.data.has(head)) continue;
      this.draw(head, look);
      this.drawn[head.index] = 1;
      changed.push(head.index);
    }
    if (this.image && changed.length > FEW) ctx.putImageData(this.image, 0, 0);
    else if (this.image)
      for (const i of changed) ctx.putImageData(this.image, 0, 0, this.x(i), this.y(i), look.size, look.size);
    return changed;
  }

  private prepare(ctx: CanvasRenderingContext2D, look: AtlasLook): void {
    const old = this.look;
    this.look = look;
    const n = look.data.heads.length;
    const shape = (l: AtlasLook) => [l.size, l.cells, l.data.heads.length, l.data.facts.side_rows].join();
    if (!old || shape(old) !== shape(look)) this.resize(ctx, look, n);
    else if (
      !old.data.shares(look.data) ||
      old.scale !== look.scale ||
      old.sinkAside !== look.sinkAside ||
      old.theme !== look.theme ||
      old.until !== look.until ||
      old.data.facts.n_tokens !== look.data.facts.n_tokens
    )
      this.forget();
    if (old?.theme === look.theme) return;
    const { theme } = look;
    this.table = pixels([...theme.sequential, theme.plate, theme.paper], theme.paper);
  }

  private resize(ctx: CanvasRenderingContext2D, look: AtlasLook, n: number): void {
    const { size, cells } = look;
    const { side_rows, side_keys } = look.data.facts;
    this.columns = Math.max(1, Math.ceil(Math.sqrt(n)));
    this.canvas.width = this.columns * size;
    this.canvas.height = Math.max(1, Math.ceil(n / this.columns)) * size;
    this.image = ctx.createImageData(this.canvas.width, this.canvas.height);
    this.words = new Uint32Array(this.image.data.buffer);
    this.drawn = new Uint8Array(n);
    this.rows = Math.min(side_rows, cells, size);
    this.keys = Math.min(side_keys, cells, size);
    this.small = new Uint8Array(this.rows * this.keys);
    this.codes = new Uint8Array(this.rows * this.keys);
    this.line = new Uint32Array(size);
    this.columnOf = Uint16Array.from({ length: size }, (_, x) => Math.floor((x * this.keys) / size));
    this.masks.clear();
  }

  private draw(head: Head, look: AtlasLook): void {
    const { data, size, theme } = look;
    const { rows, keys, line, columnOf, table, words } = this;
    const { side_rows, side_keys, n_tokens } = data.facts;
    // A row of the picture is there when the first token in it is.
    const there = (of: number) => Math.min(of, Math.ceil((look.until * of) / n_tokens));
    const until = there(rows);
    maxReduce(data.thumbnail(head), side_rows, side_keys, rows, keys, there(side_rows), this.small);
    rampCodes(this.small, keys, look.scale, look.sinkAside, this.codes);
    const mask = this.mask(data, head.layer);
    const width = this.canvas.width;
    const start = this.y(head.index) * width + this.x(head.index);
    const [paper, ruled] = [table[257]!, pixel(mix(theme.paper, theme.line, 0.7))];
    const ruling = Math.max(3, Math.round(3 * look.ratio));
    let last = -1;
    for (let y = 0; y < size; y++) {
      const row = Math.floor((y * rows) / size);
      const at = start + y * width;
      if (row >= until) {
        words.fill(y % ruling === ruling - 1 ? ruled : paper, at, at + size);
        continue;
      }
      if (row !== last) {
        last = row;
        for (let x = 0; x < size; x++) {
          const cell = row * keys + columnOf[x]!;
          const m = mask[cell]!;
          line[x] = m === SEEN ? table[this.codes[cell]!]! : m === FUTURE ? table[256]! : table[257]!;
        }
      }
      words.set(line, at);
    }
  }

  private mask(data: GridData, layer: number): Uint8Array {
    const facts = data.layer(layer);
    const key = `${facts?.mask},${facts?.window}`;
    let mask = this.masks.get(key);
    if (!mask) {
      mask = data.mask(layer, this.rows, this.keys);
      this.masks.set(key, mask);
    }
    return mask;
  }
}
