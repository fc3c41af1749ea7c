// Draws one head's matrix, or a part of it, with token labels: integer cells, sink set apart, masked cells hatched.
// In: weights (NaN = masked) of cells that cover one token or many, how they are coloured, how much room there is.
// Out: pixels, reduced by maximum where cells are smaller than they, and the geometry of cells.
import { css, pixels } from "../shared/colour";
import { shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Matrix } from "./data";
import { positions, type Scale, signedPosition } from "./scale";
import { type Span, size, type Viewport } from "./viewport";

/** Where cells are, in CSS pixels of the canvas. */
export interface MatrixGeometry {
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly top: number;
  /** Size of one row and column of the matrix; may be below one pixel. */
  readonly cellX: number;
  readonly cellY: number;
  /** Width of the first key's column where it stands apart, and the gap after it; 0 where it does not. */
  readonly first: number;
  readonly gap: number;
  /** Rows and keys that are shown, and the first of them. */
  readonly rows: number;
  readonly keys: number;
  readonly row0: number;
  readonly key0: number;
}

export interface MatrixLabels {
  readonly rows: readonly string[];
  readonly keys: readonly string[];
  readonly kinds: readonly string[];
  /** Cells too small for every token's name carry positions; else every k-th token is named. */
  readonly positions?: boolean;
}

const MOST_CELL = 22;
/** A first token that stands apart is at least so wide, so that it is seen among thousands. */
const LEAST_SINK = 3;
/** From this size on every cell can be named. */
export const NAMED_CELL = 9;

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
  const most = Math.max(rows, keys);
  const device = Math.floor(((wide - gap) * ratio) / most);
  const thin = gap > 0 && device < LEAST_SINK * ratio;
  const rest = Math.floor((wide - gap - (thin ? LEAST_SINK : 0)) * ratio) / ratio;
  const cell = Math.min(MOST_CELL, device >= 2 ? device / ratio : rest / most);
  return {
    width: room.width,
    height: room.top + rows * cell + 2,
    left: room.left,
    top: room.top,
    cellX: cell,
    cellY: cell,
    first: gap === 0 ? 0 : thin ? LEAST_SINK : cell,
    gap,
    rows,
    keys,
    row0: 0,
    key0: 0,
  };
}

/** A part of a matrix on the same canvas as the whole of it; it shows a little more where whole pixels leave room. */
export function viewGeometry(
  whole: MatrixGeometry,
  room: { left: number; top: number },
  view: Viewport,
  ratio: number,
): MatrixGeometry {
  const right = columnX(whole, whole.keys - 1) + whole.cellX;
  const bottom = whole.top + whole.rows * whole.cellY;
  const aside = view.keys[0] === 0 && whole.gap > 0;
  const gap = aside ? whole.gap : 0;
  const y = fitted(view.rows, whole.rows, bottom - room.top, ratio);
  const plain = fitted(view.keys, whole.keys, right - room.left - gap, ratio);
  const thin = aside && plain.cell < LEAST_SINK;
  const x = thin ? fitted(view.keys, whole.keys, right - room.left - gap - LEAST_SINK, ratio) : plain;
  return {
    width: whole.width,
    height: whole.height,
    left: room.left,
    top: room.top,
    cellX: x.cell,
    cellY: y.cell,
    first: aside ? (thin ? LEAST_SINK : x.cell) : 0,
    gap,
    rows: size(y.span),
    keys: size(x.span),
    row0: y.span[0],
    key0: x.span[0],
  };
}

/** Cells of whole device pixels where they have two or more, and as many of them as fit. */
function fitted(span: Span, n: number, room: number, ratio: number): { cell: number; span: Span } {
  const pixels = Math.floor(room * ratio);
  const device = Math.floor(pixels / size(span));
  if (device < 2) return { cell: pixels / ratio / size(span), span };
  const count = Math.min(n, Math.floor(pixels / device));
  const from = Math.max(0, Math.min(span[0], n - count));
  return { cell: device / ratio, span: [from, from + count] };
}

/** x of the left edge of a column. */
export function columnX(g: MatrixGeometry, key: number): number {
  const at = key - g.key0;
  return g.gap === 0 || at === 0 ? g.left + at * g.cellX : g.left + g.first + g.gap + (at - 1) * g.cellX;
}

/** Width of a column. */
export function columnWidth(g: MatrixGeometry, key: number): number {
  return g.gap > 0 && key === g.key0 ? g.first : g.cellX;
}

/** y of the upper edge of a row. */
export function rowY(g: MatrixGeometry, row: number): number {
  return g.top + (row - g.row0) * g.cellY;
}

/** Right edge of the last column. */
export function rightOf(g: MatrixGeometry): number {
  return columnX(g, g.key0 + g.keys - 1) + columnWidth(g, g.key0 + g.keys - 1);
}

/** The cells under one CSS pixel, null outside the matrix. */
export function blockAt(g: MatrixGeometry, x: number, y: number): Viewport | null {
  const dy = y - g.top;
  const dx = x - g.left;
  if (dx < 0 || dy < 0 || dy >= g.rows * g.cellY || x >= rightOf(g)) return null;
  const row = Math.floor(dy / g.cellY);
  const rows: Span = [
    g.row0 + row,
    g.row0 + Math.min(g.rows, Math.max(row + 1, Math.floor((dy + 1) / g.cellY))),
  ];
  if (g.gap > 0 && dx < g.first + g.gap) return { rows, keys: [g.key0, g.key0 + 1] };
  const skip = g.gap > 0 ? 1 : 0;
  const rest = dx - (skip ? g.first + g.gap : 0);
  const key = skip + Math.floor(rest / g.cellX);
  const last = Math.max(key + 1, skip + Math.floor((rest + 1) / g.cellX));
  return { rows, keys: [g.key0 + Math.min(key, g.keys - 1), g.key0 + Math.min(g.keys, last)] };
}

/** The token whose label stands at a point beside the matrix. */
export function labelAt(
  g: MatrixGeometry,
  x: number,
  y: number,
): { axis: "row" | "key"; token: number } | null {
  if (x < g.left) {
    const row = blockAt(g, g.left, y);
    return row && { axis: "row", token: row.rows[0] };
  }
  const column = y < g.top && blockAt(g, x - (g.top - 6 - y) / Math.tan(ANGLE), g.top);
  return column ? { axis: "key", token: column.keys[0] } : null;
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

/** Which tokens the cells of a matrix stand for. */
export interface Covers extends Viewport {
  /** The first cell of each row is the first key alone; the others share the rest. */
  readonly sink: boolean;
}

export interface MatrixPicture {
  readonly matrix: Matrix;
  /** Without it every cell is one row and one key, counted from 0. */
  readonly covers?: Covers;
  readonly geometry: MatrixGeometry;
  readonly labels: MatrixLabels | null;
  readonly scale: Scale;
  readonly sinkAside: boolean;
  /** The end of the linear scale; without it the greatest value of this matrix. */
  readonly most?: number | undefined;
  /** Values of both signs up to this magnitude, on the diverging ramp; `scale` does not matter then. */
  readonly signed?: number;
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
  const runs = paintCells(ctx, p);
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (!p.plain) paintMasked(ctx, p, runs);
  if (p.labels) paintLabels(ctx, p, p.labels);
}

/** A run of masked pixels in one row of pixels: [y, x from, x to, future], in device pixels. */
type Run = readonly [number, number, number, boolean];

/** Fills the cells by maximum (by magnitude where there are signs), returns the masked runs. */
function paintCells(ctx: CanvasRenderingContext2D, p: MatrixPicture): Run[] {
  const { geometry: g, ratio, matrix, theme } = p;
  const pixelsX = Math.round((rightOf(g) - g.left) * ratio);
  const pixelsY = Math.round(g.rows * g.cellY * ratio);
  if (pixelsX <= 0 || pixelsY <= 0) return [];
  const image = ctx.createImageData(pixelsX, pixelsY);
  const target = new Uint32Array(image.data.buffer);
  const table = pixels(p.signed === undefined ? theme.sequential : theme.diverging, theme.paper);
  const line = (cell: number) => (cell >= 7 ? Math.max(1, Math.round(ratio * 0.75)) : 0);
  const first = Math.round(g.first * ratio);
  const columns = pixelRanges(
    g.key0,
    g.keys,
    pixelsX,
    { first, gap: Math.round(g.gap * ratio) },
    line(g.cellX),
  );
  const rows = pixelRanges(g.row0, g.rows, pixelsY, { first: 0, gap: 0 }, line(g.cellY));
  const covers = p.covers ?? { rows: [0, matrix.rows], keys: [0, matrix.keys], sink: false };
  const across = cellsOf(columns, covers.keys, matrix.keys, covers.sink);
  const down = cellsOf(rows, covers.rows, matrix.rows, false);
  const positionOf =
    p.signed === undefined
      ? positions(matrix, p.scale, p.sinkAside, covers.keys[0] === 0, p.most)
      : () => signedPosition(p.signed!);
  // Where all rows share one scale, the largest weight is found first and coloured once.
  const shared = p.scale === "row" && p.signed === undefined ? null : positionOf(0);
  const runs: Run[] = [];
  const reduced = new Float32Array(pixelsX);
  let above = { key: "", runs: 0 };
  for (let y = 0; y < pixelsY; y++) {
    const [r0, r1] = [down.from[y]!, down.to[y]!];
    const key = `${r0},${r1},${rows.from[y]}`;
    const started = runs.length;
    // A line between cells has no colour, but the hatching goes through it.
    if (r0 > r1 || key === above.key) {
      if (r0 <= r1) target.copyWithin(y * pixelsX, (y - 1) * pixelsX, y * pixelsX);
      for (const [, from, to, future] of runs.slice(above.runs, started)) runs.push([y, from, to, future]);
    } else {
      reduced.fill(Number.NaN);
      for (let r = r0; r <= r1; r++)
        reduceRow(matrix, r, shared ? null : positionOf(r), across, p.signed !== undefined, reduced);
      colourRow(reduced, shared, table, target.subarray(y * pixelsX, (y + 1) * pixelsX));
      for (const [from, to] of maskedRuns(reduced, across))
        runs.push([y, from, to, columns.from[from]! > rows.from[y]!]);
    }
    above = { key: r0 > r1 ? "" : key, runs: started };
  }
  ctx.putImageData(image, Math.round(g.left * ratio), Math.round(g.top * ratio));
  return runs;
}

interface Ranges {
  readonly from: Int32Array;
  readonly to: Int32Array;
}

/** For each pixel the tokens it shows, from..to; from > to on a line between cells. */
function pixelRanges(
  start: number,
  n: number,
  count: number,
  aside: { first: number; gap: number },
  line: number,
): Ranges {
  const from = new Int32Array(count).fill(1);
  const to = new Int32Array(count);
  const skip = aside.gap > 0 ? 1 : 0;
  const begin = skip ? aside.first + aside.gap : 0;
  const [rest, pixels] = [n - skip, count - begin];
  const cell = pixels / rest;
  for (let x = 0; x < count; x++) {
    if (skip && x < aside.first - line) from[x] = to[x] = start;
    if (x < begin) continue;
    const at = x - begin;
    const c = Math.floor((at * rest) / pixels);
    if (line > 0 && at - Math.round(c * cell) >= Math.round(cell) - line) continue;
    from[x] = start + skip + c;
    to[x] = start + skip + Math.max(c, Math.floor(((at + 1) * rest) / pixels) - 1);
  }
  return { from, to };
}

/** The same pixels as cells of a matrix that covers `span`; from > to also where it covers nothing of a pixel. */
function cellsOf(tokens: Ranges, span: Span, cells: number, sink: boolean): Ranges {
  const skip = sink && span[0] === 0 ? 1 : 0;
  const [start, n, m] = [span[0] + skip, size(span) - skip, cells - skip];
  const cellOf = (t: number) => (t < start ? 0 : skip + Math.ceil(((t - start + 1) * m) / n) - 1);
  const from = tokens.from.slice();
  const to = tokens.to.slice();
  for (let x = 0; x < from.length; x++) {
    if (from[x]! > to[x]!) continue;
    const [a, b] = [Math.max(from[x]!, span[0]), Math.min(to[x]!, span[1] - 1)];
    [from[x], to[x]] = a > b ? [1, 0] : [cellOf(a), cellOf(b)];
  }
  return { from, to };
}

/** Takes one row of the matrix into a row of pixels, by maximum; as weights, or as positions of this row's own scale. */
function reduceRow(
  matrix: Matrix,
  row: number,
  position: ((w: number) => number) | null,
  columns: Ranges,
  signed: boolean,
  out: Float32Array,
): void {
  const base = row * matrix.keys;
  for (let x = 0; x < out.length; x++) {
    let most = Number.NaN;
    for (let k = columns.from[x]!; k <= columns.to[x]!; k++) {
      const w = matrix.data[base + k]!;
      if (signed ? !(Math.abs(w) <= Math.abs(most)) : w > most || Number.isNaN(most)) most = w;
    }
    if (Number.isNaN(most)) continue;
    const v = position ? position(most) : most;
    if (signed ? !(Math.abs(v) <= Math.abs(out[x]!)) : !(v <= out[x]!)) out[x] = v;
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
function paintMasked(ctx: CanvasRenderingContext2D, p: MatrixPicture, runs: readonly Run[]): void {
  const { geometry: g, ratio, theme } = p;
  if (runs.length === 0) return;
  const hatch = hatching(ctx, theme, ratio);
  ctx.save();
  ctx.setTransform(1, 0, 0, 1, 0, 0);
  ctx.beginPath();
  const left = Math.round(g.left * ratio);
  const top = Math.round(g.top * ratio);
  const edge: [number, number][] = [];
  for (const [y, from, to, future] of runs) {
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
  const width = rightOf(g) - g.left;
  if (width < 220 || g.rows < 3 || g.row0 > 0 || g.key0 + g.keys < g.row0 + g.rows) return;
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
  const rows: Axis = {
    names: labels.rows,
    from: g.row0,
    to: g.row0 + g.rows,
    cell: g.cellY,
    chosen: p.query,
  };
  const keys: Axis = { names: labels.keys, from: g.key0, to: g.key0 + g.keys, cell: g.cellX, chosen: p.key };
  paintAxis(ctx, labels, rows, (i, name, loud, quiet) => {
    const y = rowY(g, i) + g.cellY / 2;
    write(
      ctx,
      p.theme,
      name,
      { loud, quiet, size: labelSize(labels, g.cellY), align: "right" },
      g.left - 7,
      y,
      0,
    );
  });
  paintAxis(ctx, labels, keys, (i, name, loud, quiet) => {
    const x = columnX(g, i) + columnWidth(g, i) / 2;
    write(
      ctx,
      p.theme,
      name,
      { loud, quiet, size: labelSize(labels, g.cellX), align: "left" },
      x - 1,
      g.top - 6,
      -ANGLE,
    );
  });
  if (p.query !== null && !named(labels, g.cellY)) nameQuery(ctx, p, labels, p.query);
}

/** Every k-th token is named: those between have no room. */
function labelStep(cell: number): number {
  return Math.max(1, Math.ceil(10 / cell));
}

/** Whether cells are large enough for the tokens themselves; else axes carry positions. */
function named(labels: MatrixLabels, cell: number): boolean {
  return labels.positions ? cell >= NAMED_CELL : labelStep(cell) <= 4;
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
  const right = rightOf(g);
  const width = ctx.measureText(words).width;
  if (!p.causal || g.row0 > 0 || g.key0 > 0 || (g.keys - query) * g.cellX < width + 16) return;
  const y = rowY(g, query) + g.cellY / 2;
  onPaper(ctx, theme, words, right - width - 4, y > g.top + 20 ? y - 11 : y + 12);
}

interface Axis {
  readonly names: readonly string[];
  readonly from: number;
  readonly to: number;
  readonly cell: number;
  readonly chosen: number | null;
}

function paintAxis(
  ctx: CanvasRenderingContext2D,
  labels: MatrixLabels,
  { names, from, to, cell, chosen }: Axis,
  draw: (i: number, name: string, loud: boolean, quiet: boolean) => void,
): void {
  const numbers = !named(labels, cell);
  const every = numbers ? roundStep(26 / cell) : labels.positions ? 1 : labelStep(cell);
  ctx.direction = "ltr";
  for (let i = from; i < to; i++) {
    const mine = i === chosen;
    const near = chosen !== null && Math.abs(chosen - i) * cell < 15;
    if (!mine && (i % every !== 0 || (near && every > 1))) continue;
    const name = numbers ? String(i) : shorten(names[i] ?? String(i));
    draw(i, name, mine, (numbers && !mine) || (labels.kinds[i] ?? "normal") !== "normal");
  }
  ctx.textAlign = "left";
}

/** 1, 2, 5, 10, 20, 50 …: the first that is at least `least`. */
export function roundStep(least: number): number {
  for (let ten = 1; ; ten *= 10) for (const k of [1, 2, 5]) if (k * ten >= least) return k * ten;
}

function labelSize(labels: MatrixLabels, cell: number): number {
  return cell < 11.5 && named(labels, cell) ? 10 : 11;
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
