// Which points an outline covers, on the screen: hidden ones behind others count too.
// In: an outline in pixels, pixels of all points. Out: rows; and how they go together with what was selected.
export type Outline = readonly (readonly [number, number])[];
export type How = "replace" | "add" | "remove";

/** An outline with no more corners than it needs. */
export function simplify(outline: Outline, least = 2): [number, number][] {
  const out: [number, number][] = [];
  for (const [x, y] of outline) {
    const last = out[out.length - 1];
    if (!last || Math.hypot(x - last[0], y - last[1]) >= least) out.push([x, y]);
  }
  return out;
}

/** Whether a point lies inside, by the even-odd rule. */
export function inside(outline: Outline, x: number, y: number): boolean {
  let odd = false;
  for (let i = 0, j = outline.length - 1; i < outline.length; j = i++) {
    const [xi, yi] = outline[i]!;
    const [xj, yj] = outline[j]!;
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
  }
  return odd;
}

/** Rows whose point is inside and shown. */
export function covered(outline: Outline, xy: Float32Array, shown: (row: number) => boolean): number[] {
  const corners = simplify(outline);
  if (corners.length < 3) return [];
  const xs = corners.map(([x]) => x);
  const ys = corners.map(([, y]) => y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  const rows: number[] = [];
  for (let row = 0; row < xy.length / 2; row++) {
    const x = xy[2 * row]!;
    const y = xy[2 * row + 1]!;
    if (!(x >= left && x <= right && y >= top && y <= bottom)) continue;
    if (shown(row) && inside(corners, x, y)) rows.push(row);
  }
  return rows;
}

/** What is selected after a lasso, in order. */
export function combine(before: readonly number[], found: readonly number[], how: How): number[] {
  if (how === "replace") return [...found];
  const set = new Set(before);
  for (const row of found) {
    if (how === "add") set.add(row);
    else set.delete(row);
  }
  return [...set].sort((a, b) => a - b);
}

/** The nearest point to a pixel within a reach; among near ones the one in front. -1 = none. */
export function nearest(
  xy: Float32Array,
  depths: Float32Array,
  x: number,
  y: number,
  reach: number,
  shown: (row: number) => boolean,
): number {
  let best = -1;
  let least = Number.POSITIVE_INFINITY;
  for (let row = 0; row < depths.length; row++) {
    const dx = xy[2 * row]! - x;
    const dy = xy[2 * row + 1]! - y;
    const square = dx * dx + dy * dy;
    if (!(square <= reach * reach) || !shown(row)) continue;
    const worth = square + 4 * depths[row]!;
    if (worth < least) [best, least] = [row, worth];
  }
  return best;
}

/** The nearest point in a direction (a right angle wide) from a pixel. -1 = none. */
export function towards(
  xy: Float32Array,
  from: readonly [number, number],
  direction: readonly [number, number],
  room: readonly [number, number],
  shown: (row: number) => boolean,
): number {
  let best = -1;
  let least = Number.POSITIVE_INFINITY;
  for (let row = 0; row < xy.length / 2; row++) {
    const x = xy[2 * row]!;
    const y = xy[2 * row + 1]!;
    if (!(x >= 0 && y >= 0 && x <= room[0] && y <= room[1])) continue;
    const [dx, dy] = [x - from[0], y - from[1]];
    const along = dx * direction[0] + dy * direction[1];
    const across = Math.abs(dx * direction[1] - dy * direction[0]);
    if (along < 3 || across > along || !shown(row)) continue;
    const worth = along + 2 * across;
    if (worth < least) [best, least] = [row, worth];
  }
  return best;
}
