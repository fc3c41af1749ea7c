// Draws one stage of a head, small: signed stages diverge around 0, weights start at the paper, masked cells are hatched.
// In: a matrix (NaN = masked), colours, a square of room. Out: pixels, and the size of the picture.
import { css, pixel, pixels, type Rgb } from "../shared/colour";
import type { Theme } from "../shared/theme";
import type { Matrix } from "./data";
import { hatching } from "./paint_matrix";

/** A cell is at most this many CSS pixels. */
const MOST_CELL = 22;
/** A picture of few rows is at least this high. */
const LEAST_HEIGHT = 24;
/** The hatching is finer than the large matrix's. */
const HATCH = 0.75;

/** How a matrix stands in its room, in device pixels. */
export interface StageGeometry {
  readonly width: number;
  readonly height: number;
  /** Cells across and down: fewer than the matrix has where pixels are fewer. */
  readonly columns: number;
  readonly rows: number;
}

/** Whole device pixels per cell; where there are more cells than pixels, one pixel for several. */
export function stageGeometry(rows: number, keys: number, room: number, ratio: number): StageGeometry {
  const pixels = Math.max(1, Math.floor(room * ratio));
  const most = Math.max(rows, keys);
  const cell = Math.min(Math.floor(pixels / most), Math.round(MOST_CELL * ratio));
  if (cell >= 1) {
    const high = Math.max(cell, Math.min(Math.round(8 * ratio), Math.ceil((LEAST_HEIGHT * ratio) / rows)));
    return { width: cell * keys, height: high * rows, columns: keys, rows };
  }
  const place = (n: number) => Math.max(1, Math.min(n, Math.round((n / most) * pixels)));
  const [columns, lines] = [place(keys), place(rows)];
  return {
    width: columns,
    height: lines * Math.max(1, Math.ceil((LEAST_HEIGHT * ratio) / lines)),
    columns,
    rows: lines,
  };
}

/** First entry of cell `i` of `cells` over `n`. */
export function edge(i: number, n: number, cells: number): number {
  return Math.floor((i * n) / cells);
}

/** A matrix in fewer cells, each its entry of greatest magnitude; NaN where all are masked. */
export function shrink(matrix: Matrix, rows: number, keys: number): Matrix {
  if (rows >= matrix.rows && keys >= matrix.keys) return matrix;
  const data = new Float32Array(rows * keys).fill(Number.NaN);
  for (let r = 0; r < rows; r++)
    for (let i = edge(r, matrix.rows, rows); i < edge(r + 1, matrix.rows, rows); i++)
      for (let c = 0; c < keys; c++)
        for (let j = edge(c, matrix.keys, keys); j < edge(c + 1, matrix.keys, keys); j++) {
          const v = matrix.data[i * matrix.keys + j]!;
          const best = data[r * keys + c]!;
          if (Math.abs(v) > Math.abs(best) || (Number.isNaN(best) && !Number.isNaN(v)))
            data[r * keys + c] = v;
        }
  return { rows, keys, data };
}

const NICE = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/** The end of a symmetric scale: the first round number that no finite entry exceeds, the sink's column left out. */
export function symmetricLimit(matrix: Matrix, sinkAside: boolean): number {
  const from = sinkAside && matrix.keys > 1 ? 1 : 0;
  let most = 0;
  for (let start = 0; start < matrix.data.length; start += matrix.keys)
    for (let i = start + from; i < start + matrix.keys; i++) {
      const size = Math.abs(matrix.data[i]!);
      if (size > most && size < Number.POSITIVE_INFINITY) most = size;
    }
  return roundUp(most);
}

/** The first of 1, 1.5, 2, 2.5, 3, 4 … times a power of ten that is not below `value`. */
export function roundUp(value: number): number {
  if (!(value > 0)) return 1;
  const ten = 10 ** Math.floor(Math.log10(value));
  const step = NICE.find((n) => n * ten >= value * (1 - 1e-6)) ?? 10;
  return Number((step * ten).toPrecision(3));
}

/** Index into a diverging ramp of 256 colours. */
export function diverge(value: number, limit: number): number {
  return Math.round((Math.max(-1, Math.min(1, value / limit)) * 0.5 + 0.5) * 255);
}

export interface StagePicture {
  /** As many cells as the geometry has; a long head's tile may have fewer, which are then larger. */
  readonly matrix: Matrix;
  readonly geometry: StageGeometry;
  readonly ramp: readonly Rgb[];
  /** Place of an entry on the ramp, 0 to 255; by row where rows have scales of their own. */
  readonly at: (value: number, row: number) => number;
  /** Masked cells before a row's first seen one lie outside its window: paper, not hatched. */
  readonly causal: boolean;
  readonly theme: Theme;
  readonly ratio: number;
}

export function paintStage(canvas: HTMLCanvasElement, p: StagePicture): void {
  const ctx = canvas.getContext("2d", { willReadFrequently: true });
  if (!ctx) return;
  const { geometry: g, ratio, matrix } = p;
  canvas.width = g.width;
  canvas.height = g.height;
  canvas.style.width = `${g.width / ratio}px`;
  canvas.style.height = `${g.height / ratio}px`;
  const image = ctx.createImageData(g.width, g.height);
  const target = new Uint32Array(image.data.buffer);
  const table = pixels(p.ramp, p.theme.paper);
  const [paper, dash] = [pixel(p.theme.paper), pixel(p.theme.ink3)];
  const cell = { x: g.width / matrix.keys, y: g.height / matrix.rows };
  for (let y = 0; y < g.height; y++) {
    const row = Math.floor(y / cell.y);
    const cells = matrix.data.subarray(row * matrix.keys, (row + 1) * matrix.keys);
    const first = p.causal ? cells.findIndex((v) => !Number.isNaN(v)) : 0;
    const outside = Math.round(first * cell.x);
    const line = target.subarray(y * g.width, (y + 1) * g.width);
    if (outside > 0) line.fill(paper, 0, outside);
    if (outside > 0 && Math.floor(y / (2 * ratio)) % 2 === 0) line[outside - 1] = dash;
    for (let x = Math.max(0, outside); x < g.width; x++) {
      const value = cells[Math.floor(x / cell.x)]!;
      if (!Number.isNaN(value)) line[x] = table[p.at(value, row)]!;
    }
  }
  ctx.putImageData(image, 0, 0);
  // What is masked has no pixels yet: the hatching shows through from behind.
  ctx.globalCompositeOperation = "destination-over";
  ctx.fillStyle = hatching(ctx, p.theme, ratio * HATCH) ?? css(p.theme.plate);
  ctx.fillRect(0, 0, g.width, g.height);
}
