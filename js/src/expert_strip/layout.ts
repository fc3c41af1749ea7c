// Where the overview's cells stand: layers as columns, in bands where they do not fit side by side.
// In: width and counts. Out: a Layout; integer pixels throughout.
import type { StripData } from "./data";

export interface Band {
  /** First and last layer, exclusive, as places in facts.layers. */
  readonly from: number;
  readonly to: number;
  /** Top of the layers' names, of the cells, bottom line of the load, bottom line of the evenness. */
  readonly names: number;
  readonly top: number;
  readonly load: number;
  readonly even: number;
}

export interface Layout {
  readonly width: number;
  readonly height: number;
  readonly gutter: number;
  readonly gap: number;
  /** Width of a layer's column. */
  readonly cell: number;
  /** Pixels per expert; 0 = several experts share one. */
  readonly expert: number;
  /** Rows drawn, and their height. */
  readonly rows: number;
  readonly row: number;
  readonly bands: readonly Band[];
}

const ROOM = 420;
const MOST_CELL = 320;
const LEAST_CELL = 4;
export const LOAD = 44;
export const EVEN = 22;

export function layoutStrip(data: StripData, width: number): Layout {
  const { layers, n_experts: experts, rows } = data.facts;
  const gutter = width < 600 ? 76 : 104;
  const n = Math.max(1, layers.length);
  const room = Math.max(80, width - gutter);
  const wide = Math.floor(room / n);
  const gap = wide >= 30 ? 8 : wide >= 12 ? 3 : 1;
  const most = Math.min(MOST_CELL, Math.max(experts * 40, 36));
  const free = Math.max(LEAST_CELL, Math.min(most, Math.floor((room + gap) / n) - gap));
  const expert = Math.floor(free / Math.max(1, experts));
  const cell = expert > 0 ? expert * experts : free;
  const count = Math.ceil(n / Math.max(1, Math.floor((room + gap) / (cell + gap))));
  const perBand = Math.ceil(n / count);
  const high = Math.max(48, Math.floor(ROOM / count));
  const row = Math.max(1, Math.min(18, Math.floor(high / rows)));
  const drawn = Math.min(rows, Math.floor(high / row));
  const bands: Band[] = [];
  let y = 0;
  for (let b = 0; b < count; b++) {
    const top = y + 18;
    const load = top + drawn * row + 14 + LOAD;
    const even = load + 14 + EVEN;
    bands.push({ from: b * perBand, to: Math.min(n, (b + 1) * perBand), names: y, top, load, even });
    y = even + (b + 1 < count ? 16 : 4);
  }
  const used = gutter + Math.min(n, perBand) * (cell + gap) - gap;
  return { width: used, height: y, gutter, gap, cell, expert, rows: drawn, row, bands };
}

/** Left edge of a layer's column, and its band. */
export function columnAt(layout: Layout, index: number): { x: number; band: Band } {
  const band = layout.bands.find((b) => index < b.to) ?? layout.bands[layout.bands.length - 1]!;
  return { x: layout.gutter + (index - band.from) * (layout.cell + layout.gap), band };
}

export type Where = "cells" | "load" | "name" | "even";

export interface Hit {
  readonly index: number;
  readonly where: Where;
  /** Row of the drawn rows, among the cells. */
  readonly row: number;
  readonly expert: number;
}

/** What lies at a point. */
export function hit(layout: Layout, experts: number, x: number, y: number): Hit | null {
  const band = layout.bands.find((b) => y >= b.names && y < b.even + 8);
  if (!band) return null;
  const step = layout.cell + layout.gap;
  const at = Math.floor((x - layout.gutter) / step);
  const index = band.from + at;
  const inside = x - layout.gutter - at * step;
  if (at < 0 || index >= band.to || inside >= layout.cell) return null;
  const row = Math.floor((y - band.top) / layout.row);
  const expert = Math.max(0, Math.min(experts - 1, Math.floor((inside / layout.cell) * experts)));
  const cells = row >= 0 && row < layout.rows;
  const where = y < band.top ? "name" : cells ? "cells" : y <= band.load + 4 ? "load" : "even";
  return { index, where, row: Math.max(0, Math.min(layout.rows - 1, row)), expert };
}
