// Draws one head's matrix with token labels: integer cells, sink set apart, masked cells hatched.
// In: a matrix of weights (NaN = masked), how it is coloured, how much room there is. Out: pixels and the geometry of cells.
import { css, pixels } from "../shared/colour";
import { shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Matrix } from "./data";
import { positions, type Scale } from "./scale";

/** Where cells are, in CSS pixels of the canvas. */
export interface MatrixGeometry {
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly top: number;
  /** Size of one row and column of the matrix; may be below one pixel. */
  readonly cellX: number;
  readonly cellY: number;
  /** Gap after the first column. */
  readonly gap: number;
  readonly rows: number;
  readonly keys: number;
}

export interface MatrixLabels {
  readonly rows: readonly string[];
  readonly keys: readonly string[];
  readonly kinds: readonly string[];
}

const MOST_CELL = 22;

/** Fits a matrix into `room` CSS pixels. At 2 device pixels per cell and up, cells are whole device pixels. */
export function matrixGeometry(
  rows: number,
  keys: number,
  room: { width: number; left: number; top: number },
  sinkAside: boolean,
  ratio: number,
): MatrixGeometry {
  const wide = room.width - room.left - 2;
  const gap = sinkAside && keys > 1 ? Math.max(3, Math.min(6, Math.round(wide / 60))) : 0;
  const device = Math.floor(((wide - gap) * ratio) / Math.max(rows, keys));
  const whole = device >= 2 ? device / ratio : (wide - gap) / Math.max(rows, keys);
  const cell = Math.min(MOST_CELL, whole);
  return {
    width: room.width,
    height: room.top + rows * cell + 2,
    left: room.left,
    top: room.top,
    cellX: cell,
    cellY: cell,
    gap,
    rows,
    keys,
  };
}

/** x of the left edge of a column. */
export function columnX(g: MatrixGeometry, key: number): number {
  return g.left + key * g.cellX + (key > 0 ? g.gap : 0);
}

/** The cell under a point, null outside the matrix. */
export function cellAt(g: MatrixGeometry, x: number, y: number): [number, number] | null {
  const row = Math.floor((y - g.top) / g.cellY);
  const dx = x - g.left;
  const key = dx < g.cellX + g.gap ? 0 : Math.floor((dx - g.gap) / g.cellX);
  if (dx < 0 || row < 0 || row >= g.rows || key < 0 || key >= g.keys) return null;
  return [row, key];
}

/** Room for row labels and rotated column labels; both 0 where tokens cannot be named. */
export function labelRoom(
  ctx: CanvasRenderingContext2D,
  labels: MatrixLabels,
  theme: Theme,
  keys: number,
  least: number,
): { left: number; top: number } {
  ctx.font = `11px ${theme.mono}`;
  const longest = (names: readonly string[]) =>
    names.slice(0, 400).reduce((w, t) => Math.max(w, ctx.measureText(shorten(t)).width), 0);
  const left = Math.max(least, Math.ceil(longest(labels.rows)) + 10);
  const top = keys === 0 ? 16 : Math.ceil(longest(labels.keys) * Math.sin(ANGLE) + 14);
  return { left, top };
}

const ANGLE = (58 * Math.PI) / 180;

export interface MatrixPicture {
  readonly matrix: Matrix;
  readonly geometry: MatrixGeometry;
  readonly labels: MatrixLabels | null;
  readonly scale: Scale;
  readonly sinkAside: boolean;
  readonly causal: boolean;
  /** A small picture: masked cells stay empty, not hatched. */
  readonly plain?: boolean;
  readonly query: number | null;
  readonly key: number | null;
  readonly theme: Theme;
  readonly ratio: number;
}

export function paintMatrix(canvas: HTMLCanvasElement, p: MatrixPicture): void {
  const ctx = canvas.getContext("2d");
  if (!ctx) return;
  const { geometry: g, ratio } = p;
  canvas.width = Math.round(g.width * ratio);
  canvas.height = Math.round(g.height * ratio);
  canvas.style.width = `${g.width}px`;
  canvas.style.height = `${g.height}px`;
  const spans = paintCells(ctx, p);
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (!p.plain) paintMasked(ctx, p, spans);
  if (p.labels) paintLabels(ctx, p, p.labels);
}

/** A run of masked pixels in one row of pixels: [y, x from, x to, future], in device pixels. */
type Span = readonly [number, number, number, boolean];

/** Fills the cells by maximum, returns the masked runs. */
function paintCells(ctx: CanvasRenderingContext2D, p: MatrixPicture): Span[] {
  const { geometry: g, ratio, matrix } = p;
  const size = { x: Math.round((g.keys * g.cellX + g.gap) * ratio), y: Math.round(g.rows * g.cellY * ratio) };
  const left = Math.round(g.left * ratio);
  const top = Math.round(g.top * ratio);
  if (size.x <= 0 || size.y <= 0) return [];
  const image = ctx.createImageData(size.x, size.y);
  const target = new Uint32Array(image.data.buffer);
  const table = pixels(p.theme.sequential, p.theme.paper);
  const line = g.cellX >= 7 ? Math.max(1, Math.round(ratio * 0.75)) : 0;
  const columns = pixelRanges(g.keys, g.cellX * ratio, Math.round(g.gap * ratio), size.x, line);
  const rows = pixelRanges(g.rows, g.cellY * ratio, 0, size.y, line);
  const positionOf = positions(matrix, p.scale, p.sinkAside);
  // Where all rows share one scale, the largest weight is found first and coloured once.
  const shared = p.scale === "row" ? null : positionOf(0);
  const spans: Span[] = [];
  const reduced = new Float32Array(size.x);
  let above = { key: "", spans: 0 };
  for (let y = 0; y < size.y; y++) {
    const [r0, r1] = [rows.from[y]!, rows.to[y]!];
    const key = `${r0},${r1}`;
    const started = spans.length;
    // A line between cells has no colour, but the hatching goes through it.
    if (r0 > r1 || key === above.key) {
      if (r0 <= r1) target.copyWithin(y * size.x, (y - 1) * size.x, y * size.x);
      for (const [, from, to, future] of spans.slice(above.spans)) spans.push([y, from, to, future]);
    } else {
      reduced.fill(Number.NaN);
      for (let r = r0; r <= r1; r++) reduceRow(matrix, r, shared ? null : positionOf(r), columns, reduced);
      colourRow(reduced, shared, table, target.subarray(y * size.x, (y + 1) * size.x));
      for (const [from, to] of maskedRuns(reduced, columns))
        spans.push([y, from, to, columns.from[from]! > r0]);
    }
    above = { key: r0 > r1 ? "" : key, spans: started };
  }
  ctx.putImageData(image, left, top);
  return spans;
}

/** For each pixel the cells it shows, from..to; from > to on a line between cells. */
function pixelRanges(
  n: number,
  cell: number,
  gap: number,
  size: number,
  line: number,
): { from: Int32Array; to: Int32Array } {
  const from = new Int32Array(size).fill(1);
  const to = new Int32Array(size);
  for (let x = 0; x < size; x++) {
    const first = x < Math.round(cell);
    const inGap = !first && x < Math.round(cell) + gap;
    const at = first ? x : x - gap;
    if (inGap) continue;
    if (cell >= 2) {
      const c = Math.min(n - 1, Math.floor(at / cell));
      if (line > 0 && at - Math.round(c * cell) >= Math.round(cell) - line) continue;
      from[x] = to[x] = c;
    } else {
      from[x] = Math.min(n - 1, Math.floor(at / cell));
      to[x] = Math.min(n - 1, Math.max(from[x]!, Math.ceil((at + 1) / cell) - 1));
    }
  }
  return { from, to };
}

type Ranges = ReturnType<typeof pixelRanges>;

/** Takes one row of the matrix into a row of pixels, by maximum; as weights, or as positions of this row's own scale. */
function reduceRow(
  matrix: Matrix,
  row: number,
  position: ((w: number) => number) | null,
  columns: Ranges,
  out: Float32Array,
): void {
  const base = row * matrix.keys;
  for (let x = 0; x < out.length; x++) {
    let most = Number.NaN;
    for (let k = columns.from[x]!; k <= columns.to[x]!; k++) {
      const w = matrix.data[base + k]!;
      if (w > most || Number.isNaN(most)) most = w;
    }
    if (Number.isNaN(most)) continue;
    const v = position ? position(most) : most;
    if (!(v <= out[x]!)) out[x] = v;
  }
}

function colourRow(
  values: Float32Array,
  position: ((w: number) => number) | null,
  table: Uint32Array,
  out: Uint32Array,
): void {
  for (let x = 0; x < out.length; x++) {
    const v = values[x]!;
    if (!Number.isNaN(v)) out[x] = table[Math.round((position ? position(v) : v) * 255)]!;
  }
}

/** Runs of pixels [from, to) whose cells are masked; the lines between masked cells belong to them. */
function maskedRuns(values: Float32Array, columns: Ranges): [number, number][] {
  const runs: [number, number][] = [];
  let start = -1;
  for (let x = 0; x < values.length; x++) {
    if (columns.from[x]! > columns.to[x]!) continue;
    const masked = Number.isNaN(values[x]!);
    if (masked && start < 0) start = x;
    if (!masked && start >= 0) runs.push([start, x]);
    if (!masked) start = -1;
  }
  if (start >= 0) runs.push([start, values.length]);
  return runs;
}

/** Hatches what a query may not see because it comes later; what lies outside its window stays paper behind a dashed edge. */
function paintMasked(ctx: CanvasRenderingContext2D, p: MatrixPicture, spans: readonly Span[]): void {
  const { geometry: g, ratio, theme } = p;
  if (spans.length === 0) return;
  const hatch = hatching(ctx, theme, ratio);
  ctx.save();
  ctx.setTransform(1, 0, 0, 1, 0, 0);
  ctx.beginPath();
  const left = Math.round(g.left * ratio);
  const top = Math.round(g.top * ratio);
  const edge: [number, number][] = [];
  for (const [y, from, to, future] of spans) {
    if (future || !p.causal) ctx.rect(left + from, top + y, to - from, 1);
    else edge.push([left + to, top + y]);
  }
  ctx.fillStyle = hatch ?? css(theme.plate);
  ctx.fill();
  if (edge.length > 0) {
    ctx.strokeStyle = css(theme.ink3);
    ctx.lineWidth = Math.max(1, Math.round(ratio));
    ctx.setLineDash([3 * ratio, 3 * ratio]);
    ctx.beginPath();
    for (const [x, y] of edge) ctx.lineTo(x, y);
    ctx.stroke();
  }
  ctx.restore();
  if (p.causal) nameMask(ctx, p);
}

/** Words on the matrix, on a strip of paper so that they can be read over anything. */
function onPaper(ctx: CanvasRenderingContext2D, theme: Theme, words: string, x: number, y: number): void {
  const w = ctx.measureText(words).width;
  const ink = ctx.fillStyle;
  ctx.fillStyle = css(theme.paper);
  ctx.fillRect(x - 3, y - 8, w + 6, 15);
  ctx.fillStyle = ink;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillText(words, x, y);
}

function nameMask(ctx: CanvasRenderingContext2D, p: MatrixPicture): void {
  const { geometry: g, theme } = p;
  const width = g.keys * g.cellX + g.gap;
  if (width < 220 || g.rows < 3) return;
  const words = "masked (future tokens)";
  ctx.font = `10px ${theme.sans}`;
  const w = ctx.measureText(words).width;
  const y = g.top + width * 0.105;
  const room = [g.left + width * 0.105 + 24, g.left + width - 16] as const;
  const column = p.key === null ? room[1] : columnX(g, p.key);
  // Right, unless the chosen column stands there; then left of it, where there is room.
  const crossed = column > room[1] - w - 4 && column < room[1] + 4;
  const x = (crossed ? column - 6 : room[1]) - w;
  if (x < room[0]) return;
  ctx.fillStyle = css(theme.ink3);
  onPaper(ctx, theme, words, x, y);
}

export function hatching(ctx: CanvasRenderingContext2D, theme: Theme, ratio: number): CanvasPattern | null {
  const step = Math.round(6 * ratio);
  const tile = document.createElement("canvas");
  tile.width = tile.height = step;
  const t = tile.getContext("2d");
  if (!t) return null;
  t.strokeStyle = css(theme.line);
  t.lineWidth = Math.max(1, ratio);
  t.beginPath();
  for (const d of [-step, 0, step]) {
    t.moveTo(d - 1, -1);
    t.lineTo(d + step + 1, step + 1);
  }
  t.stroke();
  return ctx.createPattern(tile, "repeat");
}

/** Row and column labels: every token where there is room, every k-th where it is tight, positions where words say nothing. */
function paintLabels(ctx: CanvasRenderingContext2D, p: MatrixPicture, labels: MatrixLabels): void {
  const { geometry: g } = p;
  paintAxis(ctx, labels.rows, labels.kinds, g.rows, g.cellY, p.query, (i, name, loud, quiet) => {
    const y = g.top + (i + 0.5) * g.cellY;
    write(ctx, p.theme, name, { loud, quiet, size: labelSize(g.cellY), align: "right" }, g.left - 7, y, 0);
  });
  paintAxis(ctx, labels.keys, labels.kinds, g.keys, g.cellX, p.key, (i, name, loud, quiet) => {
    const x = columnX(g, i) + g.cellX / 2;
    write(
      ctx,
      p.theme,
      name,
      { loud, quiet, size: labelSize(g.cellX), align: "left" },
      x - 1,
      g.top - 6,
      -ANGLE,
    );
  });
  if (p.query !== null && !named(g.cellY)) nameQuery(ctx, p, labels, p.query);
}

/** Every k-th token is named: those between have no room. */
function labelStep(cell: number): number {
  return Math.max(1, Math.ceil(10 / cell));
}

/** Whether cells are large enough for the tokens themselves; else axes carry positions. */
function named(cell: number): boolean {
  return labelStep(cell) <= 4;
}

/** Where the axes carry positions, the query's line says its token, if the masked part has room for it. */
function nameQuery(
  ctx: CanvasRenderingContext2D,
  p: MatrixPicture,
  labels: MatrixLabels,
  query: number,
): void {
  const { geometry: g, theme } = p;
  ctx.font = `600 11px ${theme.sans}`;
  ctx.fillStyle = css(theme.accentText);
  const words = `query \u2068${shorten(labels.rows[query] ?? "")}\u2069 ${query}`;
  const right = g.left + g.keys * g.cellX + g.gap;
  const width = ctx.measureText(words).width;
  if (!p.causal || (g.keys - query) * g.cellX < width + 16) return;
  const y = g.top + (query + 0.5) * g.cellY;
  onPaper(ctx, theme, words, right - width - 4, y > g.top + 20 ? y - 11 : y + 12);
}

function paintAxis(
  ctx: CanvasRenderingContext2D,
  names: readonly string[],
  kinds: readonly string[],
  n: number,
  cell: number,
  chosen: number | null,
  draw: (i: number, name: string, loud: boolean, quiet: boolean) => void,
): void {
  const every = labelStep(cell);
  const numbers = !named(cell);
  const step = numbers ? roundStep(26 / cell) : every;
  ctx.direction = "ltr";
  for (let i = 0; i < n; i++) {
    const mine = i === chosen;
    const near = chosen !== null && Math.abs(chosen - i) * cell < 12;
    if (!mine && (i % step !== 0 || (near && every > 1))) continue;
    const name = numbers ? String(i) : shorten(names[i] ?? String(i));
    draw(i, name, mine, (numbers && !mine) || (kinds[i] ?? "normal") !== "normal");
  }
  ctx.textAlign = "left";
}

/** 1, 2, 5, 10, 20, 50 …: the first that is at least `least`. */
export function roundStep(least: number): number {
  for (let ten = 1; ; ten *= 10) for (const k of [1, 2, 5]) if (k * ten >= least) return k * ten;
}

function labelSize(cell: number): number {
  return cell < 11.5 && named(cell) ? 10 : 11;
}

interface Pen {
  readonly loud: boolean;
  readonly quiet: boolean;
  readonly size: number;
  readonly align: CanvasTextAlign;
}

function write(
  ctx: CanvasRenderingContext2D,
  theme: Theme,
  name: string,
  pen: Pen,
  x: number,
  y: number,
  angle: number,
): void {
  ctx.save();
  ctx.translate(x, y);
  ctx.rotate(angle);
  ctx.font = `${pen.loud ? 600 : 400} ${pen.size}px ${theme.mono}`;
  ctx.fillStyle = css(pen.loud ? theme.accentText : pen.quiet ? theme.ink3 : theme.ink2);
  ctx.textAlign = pen.align;
  ctx.textBaseline = "middle";
  // First-strong isolate: a right-to-left token must not turn its neighbours.
  ctx.fillText(`\u2068${name}\u2069`, 0, 0);
  ctx.restore();
}
