// Where the points of the plot stand: file size against distance from the base, and the names beside them.
// In: rows, text blocks, a size in px, a scale. Out: places, ticks, the frontier's steps. Draws nothing.
import { bytes } from "../shared/format";
import { frontier, type ReportData, type Row } from "./data";
import { shortNames } from "./words";

export type Scale = "log" | "linear";

export interface Point {
  readonly row: Row;
  /** Its name, short. */
  readonly name: string;
  readonly x: number;
  readonly y: number;
  /** The interval's ends, in px; null where it is not known. */
  readonly interval: readonly [top: number, bottom: number] | null;
  readonly blocks: readonly number[];
  readonly best: boolean;
  readonly label: { readonly x: number; readonly y: number; readonly anchor: "start" | "end" | "middle" };
}

export interface PlotLayout {
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly top: number;
  readonly right: number;
  readonly bottom: number;
  /** Bytes at both ends of the axis. */
  readonly low: number;
  readonly high: number;
  readonly points: readonly Point[];
  readonly steps: string;
  readonly xTicks: readonly (readonly [number, string])[];
  readonly yTicks: readonly (readonly [number, string])[];
  x(size: number): number;
  /** Bytes at a place of the axis, within its ends. */
  bytesAt(x: number): number;
}

const LEFT = 58;
const RIGHT = 10;
const TOP = 18;
const BOTTOM = 44;
const RADIUS = 7;
const LINE = 14;

export function layoutPlot(data: ReportData, width: number, height: number, scale: Scale): PlotLayout | null {
  const rows = data.placed;
  if (rows.length === 0) return null;
  const [left, right, top, bottom] = [LEFT, width - RIGHT, TOP, height - BOTTOM];
  const sizes = rows.map((r) => r.bytes!);
  const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
  const pad = Math.max(most - least, 0.08 * most) * 0.1;
  const [low, high] = [Math.max(0, least - pad), most + pad];
  const x = (size: number) => left + ((size - low) / (high - low)) * (right - left);

  const names = new Set(rows.map((r) => r.name));
  const dots = data.facts.blocks.filter(([name, , , kl]) => names.has(name) && kl !== null);
  const { y, yTicks } = axis(
    rows,
    dots.map((d) => d[3]!).filter((v) => v > 0),
    scale,
    top,
    bottom,
  );
  const best = frontier(rows);
  const short = shortNames(rows.map((r) => r.name));
  const places = rows.map((row, i) => ({
    row,
    name: short[i]!,
    x: x(row.bytes!),
    y: y(row.kl!),
    interval: row.kl_ci !== null ? ([y(row.kl! + row.kl_ci), y(row.kl! - row.kl_ci)] as const) : null,
    blocks: dots.filter(([name]) => name === row.name).map((d) => y(d[3]!)),
    best: best.includes(row),
  }));
  const labels = placeNames(places, left, right, top, bottom);
  return {
    width,
    height,
    left,
    top,
    right,
    bottom,
    low,
    high,
    points: places.map((p, i) => ({ ...p, label: labels[i]! })),
    steps: stepped(
      best.map((row) => [x(row.bytes!), y(row.kl!)] as const),
      top,
      right,
    ),
    xTicks: sizeTicks(low, high, right - left).map((v) => [x(v), bytes(v)] as const),
    yTicks,
    x,
    bytesAt: (at) => low + ((Math.max(left, Math.min(right, at)) - left) / (right - left)) * (high - low),
  };
}

function axis(rows: readonly Row[], blocks: readonly number[], scale: Scale, top: number, bottom: number) {
  const ends = [...rows.map((r) => r.kl!), ...rows.map((r) => r.kl! + (r.kl_ci ?? 0)), ...blocks];
  const most = Math.max(...ends, 1e-9);
  if (scale === "linear") {
    const step = nice(most / 4);
    const high = most * 1.05;
    const y = (kl: number) => bottom - (Math.max(0, kl) / high) * (bottom - top);
    const count = Math.floor(high / step);
    const yTicks = Array.from({ length: count + 1 }, (_, i) => i * step);
    return { y, yTicks: yTicks.map((v) => [y(v), tick(v)] as const) };
  }
  const positive = ends.filter((v) => v > 0);
  const least = positive.length > 0 ? Math.min(...positive) : most / 10;
  const [a, b] = [Math.log10(least) - 0.15, Math.log10(most) + 0.12];
  // What is exactly the base has no place on this scale: it stands on the axis.
  const y = (kl: number) =>
    kl <= 0 ? bottom : bottom - ((Math.max(a, Math.log10(kl)) - a) / (b - a)) * (bottom - top);
  const yTicks: (readonly [number, string])[] = [];
  for (let e = Math.floor(a); e <= Math.ceil(b); e++)
    for (const m of b - a > 3 ? [1] : [1, 3]) {
      const v = m * 10 ** e;
      if (Math.log10(v) >= a && Math.log10(v) <= b) yTicks.push([y(v), tick(v)]);
    }
  return { y, yTicks };
}

/** 1, 2 or 5 of a decade, not below a value. */
function nice(value: number): number {
  const decade = 10 ** Math.floor(Math.log10(value));
  return decade * ([1, 2, 5].find((m) => m * decade >= value) ?? 10);
}

const tick = (v: number) =>
  v !== 0 && v < 1e-4 ? v.toExponential(0).replace("-", "\u2212") : String(Number(v.toPrecision(2)));

function sizeTicks(low: number, high: number, room: number): number[] {
  const step = nice((high - low) / Math.max(2, Math.floor(room / 90)));
  const ticks: number[] = [];
  for (let v = Math.ceil(low / step) * step; v <= high; v += step) ticks.push(v);
  return ticks;
}

/** A line that falls only where a larger file is closer. */
function stepped(points: readonly (readonly [number, number])[], top: number, right: number): string {
  if (points.length === 0) return "";
  let d = `M${points[0]![0].toFixed(1)} ${top}`;
  for (const [i, [px, py]] of points.entries()) {
    d += i === 0 ? `V${py.toFixed(1)}` : `H${px.toFixed(1)}V${py.toFixed(1)}`;
  }
  return `${d}H${right}`;
}

interface Spot {
  readonly name: string;
  readonly best: boolean;
  readonly x: number;
  readonly y: number;
}

type Rect = readonly [left: number, top: number, right: number, bottom: number];

/** Each name where it covers neither a point nor another name, best places first. */
function placeNames(spots: readonly Spot[], left: number, right: number, top: number, bottom: number) {
  const taken: Rect[] = spots.map((s) => [s.x - RADIUS, s.y - RADIUS, s.x + RADIUS, s.y + RADIUS]);
  return spots.map((spot) => {
    const wide = spot.name.length * 6.9;
    const beside = [
      { x: spot.x + 12, y: spot.y + 4, anchor: "start" as const },
      { x: spot.x - 12, y: spot.y + 4, anchor: "end" as const },
    ];
    const askew = [
      { x: spot.x + 9, y: spot.y - 9, anchor: "start" as const },
      { x: spot.x - 9, y: spot.y + 17, anchor: "end" as const },
      { x: spot.x + 9, y: spot.y + 17, anchor: "start" as const },
      { x: spot.x - 9, y: spot.y - 9, anchor: "end" as const },
    ];
    const over = [
      { x: spot.x, y: spot.y - 14, anchor: "middle" as const },
      { x: spot.x, y: spot.y + 22, anchor: "middle" as const },
    ];
    // The frontier's line runs through what stands beside a point of it.
    const options = spot.best ? [...askew, ...beside, ...over] : [...beside, ...askew, ...over];
    const rect = (o: (typeof options)[number]): Rect => {
      const from = o.anchor === "start" ? o.x : o.anchor === "end" ? o.x - wide : o.x - wide / 2;
      return [from, o.y - LINE + 3, from + wide, o.y + 3];
    };
    const fits = (r: Rect) =>
      r[0] >= left &&
      r[2] <= right &&
      r[1] >= top - 8 &&
      r[3] <= bottom &&
      !taken.some((t) => r[0] < t[2] && t[0] < r[2] && r[1] < t[3] && t[1] < r[3]);
    const inside = (r: Rect) => r[0] >= left && r[2] <= right;
    const found = options.find((o) => fits(rect(o))) ?? options.find((o) => inside(rect(o))) ?? options[0]!;
    taken.push(rect(found));
    return found;
  });
}
