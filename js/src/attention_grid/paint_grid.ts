// Draws all thumbnails, labels and bars on one canvas.
// In: data, layout, cells with their present place and strength, theme. Out: pixels. Keeps only caches.
import { css, mix, pixel, pixels } from "../shared/colour";
import { shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import { FUTURE, type GridData, type Head, SEEN } from "./data";
import type { Cell, Layout } from "./layout";
import { rampCodes, type Scale } from "./scale";

export interface GridPicture {
  readonly data: GridData;
  readonly layout: Layout;
  readonly cells: readonly Cell[];
  /** Present x, y of each cell (they move while re-sorting), indexed like data.heads. */
  readonly x: Float32Array;
  readonly y: Float32Array;
  /** Present strength of each head: 1 = kept, 0.36 = filtered out, 0 = isolated away. */
  readonly alpha: Float32Array;
  readonly kept: Uint8Array;
  readonly filtered: boolean;
  readonly ranked: boolean;
  readonly statistic: string;
  readonly statisticLabel: string;
  readonly locked: Head | undefined;
  readonly scale: Scale;
  readonly sinkAside: boolean;
  /** The layer that is being computed now. */
  readonly running: number | null;
  readonly theme: Theme;
  readonly ratio: number;
}

/** Side below which a thumbnail is drawn from its 16 x 16 reduction, so that thin patterns survive. */
const SMALL_CELL = 20;
const SMALL_SIDE = 16;

/** The largest code of each block: thin lines are the finding, so blocks keep their maximum, never their mean. */
export function maxReduce(
  codes: Uint8Array,
  rows: number,
  keys: number,
  toRows: number,
  toKeys: number,
): Uint8Array {
  if (rows === toRows && keys === toKeys) return codes;
  const out = new Uint8Array(toRows * toKeys);
  for (let r = 0; r < rows; r++) {
    const R = Math.min(toRows - 1, Math.floor((r * toRows) / rows)) * toKeys;
    for (let k = 0; k < keys; k++) {
      const at = R + Math.min(toKeys - 1, Math.floor((k * toKeys) / keys));
      const c = codes[r * keys + k]!;
      if (c > out[at]!) out[at] = c;
    }
  }
  return out;
}

function equal(a: Float32Array, b: Float32Array): boolean {
  return a.every((v, i) => v === b[i]);
}

export class GridPainter {
  private image: ImageData | null = null;
  private reducedFor = "";
  private reduced = new Map<number, Uint8Array>();
  private layerOf = new Map<number, number>();
  private shown: { p: GridPicture; x: Float32Array; y: Float32Array; alpha: Float32Array } | null = null;
  private masks = new Map<string, Uint8Array>();
  private tables = new Map<number, Uint32Array>();
  private tablesFor: Theme | null = null;

  /** Forgets the reductions of a layer whose thumbnails changed, or of all. */
  forget(layer?: number): void {
    this.shown = null;
    for (const index of [...this.reduced.keys()])
      if (layer === undefined || this.layerOf.get(index) === layer) this.reduced.delete(index);
  }

  /** Whether the thumbnails' pixels are those of the last time: a lock changes only labels. */
  private same(p: GridPicture): boolean {
    const s = this.shown;
    if (!s || s.alpha.length !== p.alpha.length) return false;
    const keys = ["data", "layout", "scale", "sinkAside", "running", "theme", "ratio"] as const;
    return (
      keys.every((k) => s.p[k] === p[k]) &&
      [0, 1, 2].every((i) => equal([s.x, s.y, s.alpha][i]!, [p.x, p.y, p.alpha][i]!))
    );
  }

  paint(canvas: HTMLCanvasElement, p: GridPicture): void {
    const ctx = canvas.getContext("2d");
    if (!ctx) return;
    const width = Math.round(p.layout.width * p.ratio);
    const height = Math.round(p.layout.height * p.ratio);
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    this.paintThumbnails(ctx, p, width, height);
    ctx.setTransform(p.ratio, 0, 0, p.ratio, 0, 0);
    this.paintLayers(ctx, p);
    if (p.ranked) paintRankLabels(ctx, p);
    else paintModelLabels(ctx, p);
    if (!p.ranked) paintBars(ctx, p);
  }

  private paintThumbnails(
    ctx: CanvasRenderingContext2D,
    p: GridPicture,
    width: number,
    height: number,
  ): void {
    if (this.image && this.same(p)) {
      ctx.putImageData(this.image, 0, 0);
      return;
    }
    if (!this.image || this.image.width !== width || this.image.height !== height)
      this.image = ctx.createImageData(width, height);
    this.shown = { p, x: p.x.slice(), y: p.y.slice(), alpha: p.alpha.slice() };
    const target = new Uint32Array(this.image.data.buffer);
    target.fill(pixel(p.theme.paper));
    const side = p.layout.cell < SMALL_CELL ? SMALL_SIDE : 64;
    const size = Math.round(p.layout.cell * p.ratio);
    const rows = Math.min(p.data.facts.side_rows, side, size);
    const keys = Math.min(p.data.facts.side_keys, side, size);
    const key = `${rows},${keys},${p.scale},${p.sinkAside}`;
    if (this.reducedFor !== key) this.reduced.clear();
    if (this.reducedFor !== key) this.masks.clear();
    this.reducedFor = key;
    if (this.tablesFor !== p.theme) this.tables.clear();
    this.tablesFor = p.theme;
    const line = new Uint32Array(size);
    const column = Uint16Array.from({ length: size }, (_, x) => Math.floor((x * keys) / size));
    for (const cell of p.cells) {
      const { head } = cell;
      const alpha = p.alpha[head.index]!;
      const x0 = Math.round(p.x[head.index]! * p.ratio);
      const y0 = Math.round(p.y[head.index]! * p.ratio);
      if (alpha <= 0 || x0 < 0 || x0 + size > width) continue;
      if (!p.data.has(head)) {
        const colour = pixel(p.running === head.layer ? p.theme.accentSoft : p.theme.plate);
        for (let y = y0; y < Math.min(height, y0 + size); y++)
          target.fill(colour, y * width + x0, y * width + x0 + size);
        continue;
      }
      const codes = this.codes(p, head, rows, keys);
      const mask = this.mask(p, head.layer, rows, keys);
      const table = this.table(p.theme, alpha);
      let last = -1;
      for (let y = 0; y < size && y0 + y < height; y++) {
        const row = Math.floor((y * rows) / size);
        if (row !== last) {
          last = row;
          const base = row * keys;
          for (let x = 0; x < size; x++) {
            const at = base + column[x]!;
            const m = mask[at]!;
            line[x] = m === SEEN ? table[codes[at]!]! : m === FUTURE ? table[256]! : table[257]!;
          }
        }
        target.set(line, (y0 + y) * width + x0);
      }
    }
    ctx.putImageData(this.image, 0, 0);
  }

  private codes(p: GridPicture, head: Head, rows: number, keys: number): Uint8Array {
    let codes = this.reduced.get(head.index);
    if (!codes) {
      const { side_rows, side_keys } = p.data.facts;
      const small = maxReduce(p.data.thumbnail(head), side_rows, side_keys, rows, keys);
      codes = new Uint8Array(rows * keys);
      rampCodes(small, keys, p.scale, p.sinkAside, codes);
      this.reduced.set(head.index, codes);
      this.layerOf.set(head.index, head.layer);
    }
    return codes;
  }

  private mask(p: GridPicture, layer: number, rows: number, keys: number): Uint8Array {
    const facts = p.data.layer(layer);
    const key = `${facts?.mask},${facts?.window},${p.data.facts.n_tokens}`;
    let mask = this.masks.get(key);
    if (!mask) {
      mask = p.data.mask(layer, rows, keys);
      this.masks.set(key, mask);
    }
    return mask;
  }

  /** 256 pixels of the scale, then masked, then outside the window; all faded to paper by alpha. */
  private table(theme: Theme, alpha: number): Uint32Array {
    const step = Math.round(alpha * 50);
    let table = this.tables.get(step);
    if (!table) {
      table = pixels([...theme.sequential, theme.plate, theme.paper], theme.paper, step / 50);
      this.tables.set(step, table);
    }
    return table;
  }

  /** Blocks for layers without attention, and the dashed edge of sliding windows. */
  private paintLayers(ctx: CanvasRenderingContext2D, p: GridPicture): void {
    if (p.ranked) return;
    const { layout, theme } = p;
    layout.bands.forEach((band, b) => {
      for (let i = band.from; i < band.to; i++) {
        const facts = p.data.facts.layers[i]!;
        const x = layout.x(i - band.from);
        if (facts.kind === "none") paintNone(ctx, p, facts.reason, x, band.cells, band.bottom);
        else if (facts.window !== null && layout.cell >= SMALL_CELL) {
          ctx.strokeStyle = css(theme.ink3);
          ctx.lineWidth = 1;
          ctx.setLineDash([2, 2]);
          ctx.beginPath();
          const at = (Math.min(facts.window, p.data.facts.n_tokens) / p.data.facts.n_tokens) * layout.cell;
          for (let row = 0; row < facts.heads; row++) {
            const y = layout.y(b, row);
            ctx.moveTo(x, y + at);
            ctx.lineTo(x + layout.cell - at, y + layout.cell);
          }
          if (at < layout.cell) ctx.stroke();
          ctx.setLineDash([]);
        }
      }
    });
  }
}

function paintNone(
  ctx: CanvasRenderingContext2D,
  p: GridPicture,
  reason: string,
  x: number,
  top: number,
  bottom: number,
): void {
  const { cell, pitch } = p.layout;
  const height = bottom - top - (pitch - cell);
  ctx.fillStyle = css(p.theme.plate);
  ctx.fillRect(x, top, cell, height);
  if (cell < 13 || height < 56) return;
  ctx.save();
  ctx.translate(x + cell / 2, top + height / 2);
  ctx.rotate(-Math.PI / 2);
  text(
    ctx,
    shorten(reason.split(/[ :]/)[0] || "none", 14),
    0,
    0,
    font(p.theme, 11),
    css(p.theme.ink3),
    "center",
  );
  ctx.restore();
}

function font(theme: Theme, size: number, strength = 400): string {
  return `${strength} ${size}px ${theme.sans}`;
}

function text(
  ctx: CanvasRenderingContext2D,
  value: string,
  x: number,
  y: number,
  fontText: string,
  colour: string,
  align: CanvasTextAlign,
): void {
  ctx.font = fontText;
  ctx.fillStyle = colour;
  ctx.textAlign = align;
  ctx.textBaseline = "middle";
  ctx.fillText(value, x, y);
}

function paintModelLabels(ctx: CanvasRenderingContext2D, p: GridPicture): void {
  const { layout, theme, data } = p;
  const quiet = css(theme.ink3);
  const loud = css(theme.accentText);
  layout.bands.forEach((band, b) => {
    for (let i = band.from; i < band.to; i++) {
      const layer = data.facts.layers[i]!;
      const locked = p.locked?.layer === layer.layer;
      const named = (i - band.from) % layout.nameColumns === 0;
      const near = p.locked && Math.abs(i - data.facts.layers.findIndex((l) => l.layer === p.locked?.layer));
      if (
        !locked &&
        (!named || (layout.nameColumns > 1 && near !== undefined && near < 2 && layout.pitch < 26))
      )
        continue;
      const x = layout.x(i - band.from) + layout.cell / 2;
      text(
        ctx,
        `L${layer.layer}`,
        x,
        band.top + 8,
        font(theme, 11, locked ? 600 : 400),
        locked ? loud : quiet,
        "center",
      );
    }
    for (let row = 0; row < data.rows; row++) {
      const locked = p.locked?.head === row && inBand(p, b);
      const near =
        p.locked !== undefined && inBand(p, b) && Math.abs(p.locked.head - row) * layout.pitch < 12;
      if (!locked && (row % layout.nameRows !== 0 || near)) continue;
      const y = layout.y(b, row) + layout.cell / 2;
      text(
        ctx,
        `H${row}`,
        layout.labels - 6,
        y,
        font(theme, 11, locked ? 600 : 400),
        locked ? loud : quiet,
        "right",
      );
    }
    if (layout.brackets) paintBrackets(ctx, p, b);
    if (layout.windows) paintWindows(ctx, p, b);
  });
}

/** Whether the locked head stands in this band. */
function inBand(p: GridPicture, band: number): boolean {
  return p.locked !== undefined && p.cells[p.locked.index]?.band === band;
}

function paintBrackets(ctx: CanvasRenderingContext2D, p: GridPicture, band: number): void {
  const { layout, theme, data } = p;
  const widest = data.facts.layers.find((l) => l.heads === data.rows && l.kind === "attention");
  if (!widest) return;
  const size = Math.floor(widest.heads / widest.kv_heads);
  for (let kv = 0; kv < widest.kv_heads; kv++) {
    const top = layout.y(band, kv * size) + 0.5;
    const bottom = layout.y(band, kv * size + size - 1) + layout.cell - 0.5;
    ctx.strokeStyle = css(theme.line2);
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.moveTo(15, top);
    ctx.lineTo(12.5, top);
    ctx.lineTo(12.5, bottom);
    ctx.lineTo(15, bottom);
    ctx.stroke();
    ctx.save();
    ctx.translate(5, (top + bottom) / 2);
    ctx.rotate(-Math.PI / 2);
    text(ctx, bottom - top > 32 ? `KV ${kv}` : `${kv}`, 0, 0, font(theme, 10), css(theme.ink3), "center");
    ctx.restore();
  }
}

/** How many keys a query of each layer may see; "all" stands out, because it is the exception. */
function paintWindows(ctx: CanvasRenderingContext2D, p: GridPicture, b: number): void {
  const { layout, theme, data } = p;
  const band = layout.bands[b]!;
  const every = layout.pitch >= 24 ? 1 : layout.pitch >= 14 ? 2 : 4;
  for (let i = band.from; i < band.to; i++) {
    const facts = data.facts.layers[i]!;
    if (facts.kind !== "attention") continue;
    const all = facts.window === null;
    if (!all && (i - band.from) % every !== 0) continue;
    const x = layout.x(i - band.from) + layout.cell / 2;
    text(
      ctx,
      all ? "all" : String(facts.window),
      x,
      band.bottom + 7,
      font(theme, 10, all ? 600 : 400),
      css(all ? theme.ink : theme.ink3),
      "center",
    );
  }
}

function paintRankLabels(ctx: CanvasRenderingContext2D, p: GridPicture): void {
  const { layout, theme, data } = p;
  let before = 0;
  layout.bands.forEach((band, b) => {
    const columns = band.to - band.from;
    if (b === 0)
      text(
        ctx,
        `${p.statisticLabel.toLowerCase()}: highest first, row by row \u2192`,
        layout.labels,
        band.top + 8,
        font(theme, 11),
        css(theme.ink3),
        "left",
      );
    for (let row = 0; row < data.rows; row++) {
      const rank = before + row * columns + 1;
      if (rank > data.heads.length || row % layout.nameRows !== 0) continue;
      text(
        ctx,
        `#${rank}`,
        layout.labels - 5,
        layout.y(b, row) + layout.cell / 2,
        font(theme, 10),
        css(theme.ink3),
        "right",
      );
    }
    before += columns * data.rows;
  });
}

/** Under each layer its best head by the statistic in use; orange where the filter keeps that head. */
function paintBars(ctx: CanvasRenderingContext2D, p: GridPicture): void {
  const { layout, theme, data } = p;
  const best = data.facts.layers.map((l) =>
    l.kind === "attention" ? data.best(l.layer, p.statistic) : null,
  );
  const most = best.reduce((m, b) => Math.max(m, b?.value ?? 0), 0);
  const room = layout.bars - 10;
  // As the histograms' bars: line2 alone would sink into dark paper.
  const quiet = theme.dark ? mix(theme.paper, theme.ink3, 0.75) : theme.line2;
  layout.bands.forEach((band) => {
    const base = Math.round(band.bottom + layout.windows + layout.bars - 4) + 0.5;
    ctx.strokeStyle = css(theme.line2);
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.moveTo(layout.labels, base);
    ctx.lineTo(layout.x(band.to - band.from) - (layout.pitch - layout.cell), base);
    ctx.stroke();
    text(ctx, "max", layout.labels - 6, base - 9, font(theme, 10), css(theme.ink3), "right");
    for (let i = band.from; i < band.to; i++) {
      const b = best[i];
      if (!b || most <= 0 || b.value <= 0) continue;
      const height = Math.max(1, Math.round((b.value / most) * room));
      const width = Math.max(2, Math.min(12, Math.round(layout.cell * 0.2)));
      const x = Math.round(layout.x(i - band.from) + (layout.cell - width) / 2);
      ctx.fillStyle = css(p.filtered && p.kept[b.head.index] ? theme.accent : quiet);
      ctx.fillRect(x, base - 0.5 - height, width, height);
    }
  });
}
