// Where everything stands: rows and columns of the table, the strips over one axis of layers.
// In: data, width, choices. Out: CSS pixels, and what lies at a point.
import type { LensData } from "./data";

export const ROW = 25;
const GUTTER = 42;
const HEAD = 30;
/** A column at least, at best. */
const LEAST = 74;
const BEST = 80;
const WIDEST = 132;
/** Rows that fit without scrolling the page too far. */
const MOST_ROWS = 18;

export interface TableLayout {
  readonly rows: readonly number[];
  readonly gutter: number;
  readonly head: number;
  readonly cell: number;
  /** Columns that fit. */
  readonly fit: number;
  readonly width: number;
  readonly height: number;
}

/** Layers that get a row: from the output down, the embedding last; the locked one always. */
export function shownRows(
  rows: readonly number[],
  every: number | null,
  locked: number | null,
): readonly number[] {
  const layers = rows.filter((row) => row >= 0).reverse();
  const step = every ?? [1, 2].find((n) => layers.length / n <= MOST_ROWS) ?? 4;
  return [...layers.filter((row, i) => i % step === 0 || row === locked), ...rows.filter((row) => row < 0)];
}

/** Every how many layers a row is shown where nobody chose. */
export function stepOf(data: LensData, every: number | null): 1 | 2 | 4 {
  const n = data.facts.layers.length;
  return (every ?? (n <= MOST_ROWS ? 1 : n <= 2 * MOST_ROWS ? 2 : 4)) as 1 | 2 | 4;
}

export function layoutTable(data: LensData, width: number, rows: readonly number[]): TableLayout {
  const room = Math.max(LEAST, width - GUTTER);
  const best = room < 420 ? LEAST : BEST;
  const fit = Math.max(1, Math.min(data.tokens, Math.floor(room / best)));
  const cell = Math.min(WIDEST, Math.floor(room / fit));
  return {
    rows,
    gutter: GUTTER,
    head: HEAD,
    cell,
    fit,
    width: GUTTER + cell * fit,
    height: HEAD + rows.length * ROW,
  };
}

/** First and last column, exclusive, of which something is seen. */
export function seen(layout: TableLayout, scroll: number, tokens: number): [number, number] {
  const room = layout.width - layout.gutter;
  const first = Math.max(0, Math.floor(scroll / layout.cell));
  return [first, Math.min(tokens, Math.ceil((scroll + room) / layout.cell))];
}

export type StripKind = "push" | "heads" | "written" | "residual" | "cosine" | "outliers" | "time";

export interface Strip {
  readonly kind: StripKind;
  readonly top: number;
  readonly height: number;
}

export interface StripsLayout {
  readonly left: number;
  readonly step: number;
  readonly axis: number;
  readonly strips: readonly Strip[];
  readonly width: number;
  readonly height: number;
  /** Pixels per head of the map. */
  readonly head: number;
}

export interface StripHit {
  readonly place: number;
  readonly kind: StripKind | null;
  readonly head: number | null;
}

const HEIGHTS: Record<Exclude<StripKind, "heads">, number> = {
  push: 84,
  written: 48,
  residual: 26,
  cosine: 26,
  outliers: 22,
  time: 30,
};

export function layoutStrips(data: LensData, width: number, narrow: boolean): StripsLayout {
  const left = narrow ? 88 : 138;
  const n = Math.max(1, data.facts.layers.length);
  const step = Math.max(2, (width - left) / n);
  const heads = data.push?.heads ?? 0;
  const head = heads > 0 ? Math.max(3, Math.min(12, Math.floor(132 / heads))) : 0;
  const kinds: StripKind[] = ["written", "residual", "cosine", "outliers"];
  if (data.facts.times) kinds.push("time");
  kinds.unshift("push");
  if (heads > 0) kinds.splice(1, 0, "heads");
  const strips: Strip[] = [];
  let top = 26;
  for (const kind of kinds) {
    const height = kind === "heads" ? heads * head : HEIGHTS[kind];
    top += kind === "push" || kind === "time" ? 16 : 14;
    strips.push({ kind, top, height });
    top += height;
  }
  return { left, step, axis: 14, strips, width, height: Math.ceil(top + 4), head };
}

/** What lies at a point; null left of the layers. */
export function stripHit(layout: StripsLayout, layers: number, x: number, y: number): StripHit | null {
  const place = Math.floor((x - layout.left) / layout.step);
  if (x < layout.left || place < 0 || place >= layers || y < 0 || y > layout.height) return null;
  const strip = layout.strips.find((own) => y >= own.top - 12 && y < own.top + own.height + 2);
  const inside = strip?.kind === "heads" && y >= strip.top && y < strip.top + strip.height;
  const head = inside ? Math.floor((y - strip.top) / layout.head) : null;
  return { place, kind: strip?.kind ?? null, head };
}
