// Which rows and keys of a head are shown: zooming, panning, and keeping a cell in sight. Whole tokens only.
// In: a viewport, the head's size, what the user does. Out: another viewport inside the head.
import type { Span } from "./heads";

export type { Span } from "./heads";

/** Rows and keys, each from its first to before its last. */
export interface Viewport {
  readonly rows: Span;
  readonly keys: Span;
}

/** Nothing is zoomed into further than this. */
const LEAST = 8;

export function size([from, to]: Span): number {
  return to - from;
}

export function wholeOf(rows: number, keys: number): Viewport {
  return { rows: [0, rows], keys: [0, keys] };
}

export function sameView(a: Viewport, b: Viewport): boolean {
  return [0, 1].every((i) => a.rows[i] === b.rows[i] && a.keys[i] === b.keys[i]);
}

export function inView(view: Viewport, row: number, key: number): boolean {
  return within(view.rows, row) && within(view.keys, key);
}

export function within([from, to]: Span, at: number): boolean {
  return at >= from && at < to;
}

/** The nearest viewport that lies in the head and is not too small. */
export function placed(view: Viewport, whole: Viewport): Viewport {
  return { rows: place(view.rows, whole.rows[1]), keys: place(view.keys, whole.keys[1]) };
}

/** `factor` times nearer; the cell under the pointer stays under the pointer. */
export function zoomed(view: Viewport, whole: Viewport, factor: number, row: number, key: number): Viewport {
  return {
    rows: scaled(view.rows, whole.rows[1], factor, row),
    keys: scaled(view.keys, whole.keys[1], factor, key),
  };
}

export function moved(view: Viewport, whole: Viewport, rows: number, keys: number): Viewport {
  const shift = ([from, to]: Span, by: number): Span => [from + by, to + by];
  return placed({ rows: shift(view.rows, rows), keys: shift(view.keys, keys) }, whole);
}

/** Moved as little as possible so that a cell is in it. */
export function holding(view: Viewport, whole: Viewport, row: number, key: number): Viewport {
  const by = ([from, to]: Span, at: number) => (at < from ? at - from : at >= to ? at - to + 1 : 0);
  return moved(view, whole, by(view.rows, row), by(view.keys, key));
}

function place([from, to]: Span, n: number): Span {
  const count = Math.min(n, Math.max(LEAST, to - from));
  const start = Math.max(0, Math.min(n - count, Math.round(from + (to - from - count) / 2)));
  return [start, start + count];
}

function scaled([from, to]: Span, n: number, factor: number, at: number): Span {
  const count = Math.min(n, Math.max(LEAST, Math.round((to - from) / factor)));
  const share = (at + 0.5 - from) / (to - from);
  const start = Math.max(0, Math.min(n - count, Math.round(at + 0.5 - share * count)));
  return [start, start + count];
}
