// Draws all thumbnails, labels and bars on one canvas.
// In: data, layout, cells with their present place and strength, theme. Out: pixels. Keeps only caches.
import { css, mix } from "../shared/colour";
import { h } from "../shared/dom";
import { shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import { Atlas } from "./atlas";
import type { GridData, Head } from "./data";
import type { Cell, Layout } from "./layout";
import type { Scale } from "./scale";

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
  /** Rows of tokens from here on are not there (yet); Infinity = all are. */
  readonly until: number;
  readonly theme: Theme;
  readonly ratio: number;
}

/** Side below which a thumbnail is drawn from its 16 x 16 reduction, so that thin patterns survive. */
const SMALL_CELL = 20;
const SMALL_SIDE = 16;

/** What decides how all but the thumbnails looks. While none of it changes, only changed thumbnails are painted. */
const FURNITURE = ["data", "layout", "ranked", "statistic", "locked", "theme", "ratio", "running"] as const;

const NONE = new Float32Array(0);

export class GridPainter {
  private readonly atlas = new Atlas();
  private readonly furniture = h("canvas", {});
  private furnished: Pick<GridPicture, (typeof FURNITURE)[number]> | null = null;
  /** x, y and strength of each thumbnail as they are on the canvas; NaN = to be painted. */
  private shown: readonly [Float32Array, Float32Array, Float32Array] = [NONE, NONE, NONE];

  /** Forgets the pictures of heads whose thumbnails changed: of a layer, or of all. */
  forget(layer?: number): void {
    this.atlas.forget(layer === undefined ? undefined : (head) => head.layer === layer);
  }

  paint(canvas: HTMLCanvasElement, p: GridPicture): void {
    const ctx = canvas.getContext("2d");
    if (!ctx) return;
    const { cell } = p.layout;
    const size = Math.round(cell * p.ratio);
    const renewed = this.atlas.update({ ...p, size, cells: cell < SMALL_CELL ? SMALL_SIDE : 64 });
    const all = this.furnish(p) || this.moved(p);
    sized(canvas, p);
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.imageSmoothingEnabled = false;
    if (all) {
      ctx.fillStyle = css(p.theme.paper);
      ctx.fillRect(0, 0, canvas.width, canvas.height);
      this.shown = [p.x.slice(), p.y.slice(), new Float32Array(p.alpha.length).fill(Number.NaN)];
    }
    for (const i of renewed) this.shown[2][i] = Number.NaN;
    this.paintThumbnails(ctx, p, size, all);
    if (all) ctx.drawImage(this.furniture, 0, 0);
    ctx.setTransform(p.ratio, 0, 0, p.ratio, 0, 0);
    if (!p.ranked) paintBars(ctx, p);
  }

  /** Whether any thumbnail stands elsewhere now. */
  private moved(p: GridPicture): boolean {
    const [x, y] = this.shown;
    return x.length !== p.x.length || x.some((v, i) => v !== p.x[i] || y[i] !== p.y[i]);
  }

  /** Paper shows through what is filtered out, so a dimmed thumbnail is faded towards it. */
  private paintThumbnails(ctx: CanvasRenderingContext2D, p: GridPicture, size: number, all: boolean): void {
    const { atlas, furniture } = this;
    const strength = this.shown[2];
    const [paper, waiting, running] = [p.theme.paper, p.theme.plate, p.theme.accentSoft].map(css);
    for (const { head } of p.cells) {
      const i = head.index;
      const alpha = p.alpha[i]!;
      if (strength[i] === alpha) continue;
      strength[i] = alpha;
      const x = Math.round(p.x[i]! * p.ratio);
      const y = Math.round(p.y[i]! * p.ratio);
      if (!all) {
        ctx.globalAlpha = 1;
        ctx.fillStyle = paper!;
        ctx.fillRect(x, y, size, size);
      }
      ctx.globalAlpha = alpha;
      if (p.data.has(head)) ctx.drawImage(atlas.canvas, atlas.x(i), atlas.y(i), size, size, x, y, size, size);
      else {
        ctx.fillStyle = p.running === head.layer ? running! : waiting!;
        ctx.fillRect(x, y, size, size);
      }
      if (all || p.ranked || p.data.layer(head.layer)?.window == null) continue;
      ctx.globalAlpha = 1;
      ctx.drawImage(furniture, x, y, size, size, x, y, size, size); // the window's edge
    }
    ctx.globalAlpha = 1;
  }

  /** Labels, brackets, windows and layers without attention, on a canvas of their own; true when they changed. */
  private furnish(p: GridPicture): boolean {
    const old = this.furnished;
    if (old && FURNITURE.every((key) => old[key] === p[key])) return false;
    this.furnished = p;
    const ctx = this.furniture.getContext("2d");
    if (!ctx) return true;
    sized(this.furniture, p);
    ctx.setTransform(1, 0, 0, 1, 0, 0);
    ctx.clearRect(0, 0, this.furniture.width, this.furniture.height);
    ctx.setTransform(p.ratio, 0, 0, p.ratio, 0, 0);
    if (p.ranked) paintRankLabels(ctx, p);
    else {
      paintLayers(ctx, p);
      paintModelLabels(ctx, p);
    }
    return true;
  }
}

/** Gives a canvas the picture's size in device pixels. */
function sized(canvas: HTMLCanvasElement, p: GridPicture): void {
  const width = Math.round(p.layout.width * p.ratio);
  const height = Math.round(p.layout.height * p.ratio);
  if (canvas.width === width && canvas.height === height) return;
  canvas.width = width;
  canvas.height = height;
}

/** Blocks for layers without attention, and the dashed edge of sliding windows. */
function paintLayers(ctx: CanvasRenderingContext2D, p: GridPicture): void {
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
  const lockedAt = data.facts.layers.findIndex((l) => l.layer === p.locked?.layer);
  layout.bands.forEach((band, b) => {
    for (let i = band.from; i < band.to; i++) {
      const layer = data.facts.layers[i]!;
      const locked = i === lockedAt;
      const named = (i - band.from) % layout.nameColumns === 0;
      const near = lockedAt < 0 ? undefined : Math.abs(i - lockedAt);
      if (
        !locked &&
        (!named || (layout.nameColumns > 1 && near !== undefined && near < 2 && layout.pitch < 26))
      )
        continue;
      const label = `L${layer.layer}`;
      const style = font(theme, 11, locked ? 600 : 400);
      ctx.font = style;
      const end = layout.width - ctx.measureText(label).width / 2;
      text(
        ctx,
        label,
        Math.min(layout.x(i - band.from) + layout.cell / 2, end),
        band.top + 8,
        style,
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
  const best = data.bests(p.statistic);
  const most = best.reduce((m, b) => Math.max(m, b?.value ?? 0), 0);
  const room = layout.bars - 10;
  // As the histograms' bars: line2 alone would sink into dark paper.
  const quiet = css(theme.dark ? mix(theme.paper, theme.ink3, 0.75) : theme.line2);
  const loud = css(theme.accent);
  const paper = css(theme.paper);
  const small = font(theme, 10);
  layout.bands.forEach((band) => {
    const top = band.bottom + layout.windows;
    const base = Math.round(top + layout.bars - 4) + 0.5;
    ctx.fillStyle = paper;
    ctx.fillRect(0, top, layout.width, layout.bars);
    ctx.strokeStyle = css(theme.line2);
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.moveTo(layout.labels, base);
    ctx.lineTo(layout.x(band.to - band.from) - (layout.pitch - layout.cell), base);
    ctx.stroke();
    text(ctx, "max", layout.labels - 6, base - Math.min(9, room / 2 + 2), small, css(theme.ink3), "right");
    for (let i = band.from; i < band.to; i++) {
      const b = best[i];
      if (!b || most <= 0 || b.value <= 0) continue;
      const height = Math.max(1, Math.round((b.value / most) * room));
      const width = Math.max(2, Math.min(12, Math.round(layout.cell * 0.2)));
      const x = Math.round(layout.x(i - band.from) + (layout.cell - width) / 2);
      ctx.fillStyle = p.filtered && p.kept[b.head.index] ? loud : quiet;
      ctx.fillRect(x, base - 0.5 - height, width, height);
    }
  });
}
