// Where every head's cell is: pure geometry in CSS pixels.
// In: the width, the layers, the order of the heads. Out: cells, labels' rooms, hit tests and neighbours.
import type { GridData, Head } from "./data";

export type Mode = "wide" | "middle" | "narrow";

/** The root's padding, left and right together. */
const PADDING = 16;

/** The layout class of a width inside the widget's padding (of the widget, not of the window). */
export function modeOf(width: number): Mode {
  return width + PADDING >= 900 ? "wide" : width + PADDING >= 600 ? "middle" : "narrow";
}

/** A band: consecutive layers that stand in one row of columns. */
export interface Band {
  readonly from: number;
  readonly to: number;
  /** Top of the column labels. */
  readonly top: number;
  /** Top of the first row of cells. */
  readonly cells: number;
  /** Bottom of the last row of cells. */
  readonly bottom: number;
}

export interface Layout {
  readonly mode: Mode;
  /** The detail stands right of the grid, because the grid is taller than wide. */
  readonly beside: boolean;
  readonly width: number;
  readonly height: number;
  /** Room left of the cells. */
  readonly labels: number;
  readonly pitch: number;
  readonly cell: number;
  readonly bands: readonly Band[];
  /** Which columns and rows are named: every 1st, 2nd, 4th … */
  readonly nameColumns: number;
  readonly nameRows: number;
  readonly brackets: boolean;
  /** Room under a band's cells: the windows' row and the bars. */
  readonly windows: number;
  readonly bars: number;
  /** x of a column within its band. */
  x(column: number): number;
  /** y of row `row` in band `band`. */
  y(band: number, row: number): number;
}

const HEADER = 18;
const WINDOWS = 16;
const BARS = 30;
/** Where there are more bands than MANY_BANDS their bars are lower. */
const LOW_BARS = 18;
const MANY_BANDS = 4;
const BAND_GAP = 10;
const MOST_PITCH = 74;
/** Cells of 15 px and a line between them. */
const LEAST_PITCH = 16;
/** From so many heads on, a page that shows them all at once is worth more than large cells. */
const MANY_HEADS = 512;
const MANY_PITCH = 21;
/** Between the grid and a detail that stands right of it, and the least width of that detail. */
export const BESIDE_GAP = 24;
const LEAST_DETAIL = 480;
/** What a detail can do with, where a grid of so many heads would else not fit beside it. */
const NARROW_DETAIL = 360;
/** A grid that is higher than this share of the width is taller than is good. */
const TALL = 0.7;

/** How many layers stand side by side in a band. */
function layersPerBand(mode: Mode, room: number, layers: number, rows: number): number {
  const fit = Math.max(1, Math.floor((room + 2) / LEAST_PITCH));
  if (mode === "wide" || layers * rows > MANY_HEADS) return Math.ceil(layers / Math.ceil(layers / fit));
  if (mode === "middle" && room / layers >= 28) return layers;
  return Math.min(fit, mode === "middle" ? Math.ceil(layers / 2) : 8);
}

/** Height of all rows of cells of a band. */
function rowsHeight(data: GridData, pitch: number, gap: number): number {
  return rowTop(data, data.rows, pitch, gap);
}

/** Heads that share a KV head in the layer with the most heads. */
function groupSize(data: GridData): number {
  const l = data.facts.layers.find((x) => x.heads === data.rows && x.kind === "attention");
  return l && l.kv_heads > 0 ? Math.max(1, Math.floor(l.heads / l.kv_heads)) : 1;
}

function rowTop(data: GridData, row: number, pitch: number, gap: number): number {
  const size = groupSize(data);
  const groups = size > 1 ? Math.floor(Math.max(0, row - (row === data.rows ? 1 : 0)) / size) : 0;
  return row * pitch + groups * gap;
}

/** Lays the grid out in `width` CSS pixels. */
export function layoutGrid(data: GridData, width: number): Layout {
  const mode = modeOf(width);
  const below = build(data, mode, width, false);
  if (mode !== "wide") return below;
  const small = below.width + BESIDE_GAP + LEAST_DETAIL <= width;
  if (!small && below.height <= TALL * width) return below;
  const beside = build(data, mode, width, true);
  return beside.bands.length > below.bands.length ? below : beside;
}

function build(data: GridData, mode: Mode, width: number, beside: boolean): Layout {
  const layers = Math.max(1, data.facts.layers.length);
  const size = groupSize(data);
  const grouped = size > 1;
  const plain = data.rows > 10 ? 32 : 30;
  const half = Math.floor(width * 0.5);
  const share = beside
    ? Math.max(half, Math.min(width - BESIDE_GAP - NARROW_DETAIL, plain + layers * LEAST_PITCH))
    : width;
  // Brackets need room of their own; below 20 px cells the gaps alone show the groups.
  const bracketed = grouped && size < data.rows && mode === "wide" && (share - 42) / layers >= 20;
  const labels = bracketed ? plain + 14 : plain;
  const room = share - labels;
  const perBand = layersPerBand(mode, room, layers, data.rows);
  const many = layers * data.rows > MANY_HEADS;
  const most = many ? Math.max(MANY_PITCH, Math.floor((TALL * width) / data.rows)) : MOST_PITCH;
  const pitch = Math.min(most, MOST_PITCH, Math.max(6, Math.floor((room + 2) / perBand)));
  const cell = pitch - (pitch <= 22 ? 1 : 2);
  const gap = grouped ? (pitch <= 22 ? 2 : 4) : 0;
  const windows = data.facts.layers.some((l) => l.window !== null) ? WINDOWS : 0;
  const inside = rowsHeight(data, pitch, gap);
  const bars = Math.ceil(layers / perBand) > MANY_BANDS ? LOW_BARS : BARS;
  const bands: Band[] = [];
  let top = 0;
  for (let from = 0; from < layers; from += perBand) {
    const cells = top + HEADER;
    const bottom = cells + inside;
    bands.push({ from, to: Math.min(layers, from + perBand), top, cells, bottom });
    top = bottom + windows + bars + BAND_GAP;
  }
  const step = pitch >= 26 ? 1 : pitch >= 21 ? 2 : 4;
  return {
    mode,
    beside,
    width: beside ? labels + perBand * pitch : Math.min(width, labels + perBand * pitch),
    height: top - BAND_GAP,
    labels,
    pitch,
    cell,
    bands,
    nameColumns: step,
    nameRows: pitch >= 20 ? 1 : pitch >= 12 ? 4 : 8,
    brackets: bracketed && size * pitch >= 28,
    windows,
    bars,
    x: (column) => labels + column * pitch,
    y: (band, row) => (bands[band]?.cells ?? 0) + rowTop(data, row, pitch, gap),
  };
}

/** The place of one head: column and row are the picture's, whatever the order. */
export interface Cell {
  readonly head: Head;
  readonly band: number;
  readonly column: number;
  readonly row: number;
  readonly x: number;
  readonly y: number;
}

/** The cells of all heads: by layer and head, or from `order` in reading direction. Indexed like data.heads. */
export function placeCells(data: GridData, layout: Layout, order: readonly Head[] | null): Cell[] {
  const cells: Cell[] = new Array(data.heads.length);
  const put = (head: Head, band: number, column: number, row: number) => {
    cells[head.index] = { head, band, column, row, x: layout.x(column), y: layout.y(band, row) };
  };
  const bandOf = (at: number) => layout.bands.findIndex((b) => at >= b.from && at < b.to);
  if (order === null) {
    const at = new Map(data.facts.layers.map((l, i) => [l.layer, i]));
    for (const head of data.heads) {
      const position = at.get(head.layer)!;
      const band = bandOf(position);
      put(head, band, position - layout.bands[band]!.from, head.head);
    }
    return cells;
  }
  let i = 0;
  layout.bands.forEach((band, b) => {
    const columns = band.to - band.from;
    for (let row = 0; row < data.rows; row++)
      for (let column = 0; column < columns && i < order.length; column++) put(order[i++]!, b, column, row);
  });
  return cells;
}

/** Cells by place, for hit tests and steps. */
export class CellIndex {
  private readonly at = new Map<string, Cell>();

  constructor(
    readonly cells: readonly Cell[],
    private readonly layout: Layout,
    private readonly rows: number,
  ) {
    for (const c of cells) this.at.set(`${c.band},${c.column},${c.row}`, c);
  }

  get(band: number, column: number, row: number): Cell | undefined {
    return this.at.get(`${band},${column},${row}`);
  }

  /** The cell under a point; the gaps belong to the cell before them, so that the pointer never falls between two. */
  hit(x: number, y: number): Cell | undefined {
    const { layout } = this;
    const column = Math.floor((x - layout.labels) / layout.pitch);
    if (column < 0) return undefined;
    const band = layout.bands.findIndex((b) => y >= b.cells && y < b.bottom);
    if (band < 0) return undefined;
    let row = 0;
    while (row + 1 < this.rows && y >= layout.y(band, row + 1)) row++;
    return this.get(band, column, row);
  }

  /** Cells whose box meets a rectangle. */
  inside(x0: number, y0: number, x1: number, y1: number): Cell[] {
    const size = this.layout.cell;
    return this.cells.filter((c) => c.x < x1 && c.x + size > x0 && c.y < y1 && c.y + size > y0);
  }

  /** The next cell in a direction of the picture; bands follow each other left to right. Stays where nothing follows. */
  step(from: Cell, dx: number, dy: number): Cell {
    if (dy !== 0) {
      for (let row = from.row + dy; row >= 0 && row < this.rows; row += dy) {
        const cell = this.get(from.band, from.column, row);
        if (cell) return cell;
      }
      return from;
    }
    const direction = Math.sign(dx);
    let best = from;
    let left = Math.abs(dx);
    let { band, column } = from;
    while (left > 0) {
      column += direction;
      const here = this.layout.bands[band]!;
      if (column < 0 || column >= here.to - here.from) {
        band += direction;
        const next = this.layout.bands[band];
        if (!next) break;
        column = direction > 0 ? 0 : next.to - next.from - 1;
      }
      const cell = this.nearestRow(band, column, from.row);
      if (!cell) continue; // a layer without attention: step over it
      best = cell;
      left--;
    }
    return best;
  }

  /** First or last cell of the picture in this row. */
  end(from: Cell, last: boolean): Cell {
    return this.step(from, (last ? 1 : -1) * this.cells.length, 0);
  }

  private nearestRow(band: number, column: number, row: number): Cell | undefined {
    for (let r = row; r >= 0; r--) {
      const cell = this.get(band, column, r);
      if (cell) return cell;
    }
    return undefined;
  }
}
