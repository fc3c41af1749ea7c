// One chart over an axis of tokens or of time: bars or a line from 0, a strip of colours, a second run as a stepped line.
// In: values, a domain, a theme. Out: a canvas, and which place of the axis lies where.
import { css, type Rgb } from "../shared/colour";
import type { Theme } from "../shared/theme";
import { topOf } from "./data";

export const LEFT = 40;
const ABOVE = 8;
const STRIP = 9;
const BELOW = 18;

export interface Plot {
  /** Places on the axis: indices of tokens, or seconds. */
  readonly xs: ArrayLike<number>;
  readonly values: ArrayLike<number>;
  /** Bars of tokens; else points joined by a line. */
  readonly bars: boolean;
  /** The other run. */
  readonly other: ArrayLike<number> | null;
  /** Colour under each bar. */
  readonly strip: ((at: number) => Rgb | null) | null;
  /** The axis reaches at least so far, e.g. to the threads there are. */
  readonly atLeast: number;
  readonly ticks: (value: number) => string;
  /** What each bar is made of, from the foot up; `values` are their sums. */
  readonly stack?: readonly { readonly values: ArrayLike<number>; readonly colour: string }[];
  /** Bars with a ring around them. */
  readonly ringed?: readonly number[];
  /** Names of bars, where there is room for them; empty = none. */
  readonly names?: (at: number) => string;
  /** What Enter chooses; empty = nothing. */
  readonly chooses: string;
  readonly ends: readonly [string, string];
}

export interface Marks {
  /** The chosen place. */
  readonly chosen: number | null;
  /** What the pointer drags over. */
  readonly brush: readonly [number, number] | null;
}

/** Pixels of a place on the axis: the left edge of a bar, or a moment. */
export class Scale {
  constructor(
    readonly from: number,
    readonly to: number,
    readonly width: number,
  ) {}

  x(place: number): number {
    return LEFT + ((place - this.from) / Math.max(this.to - this.from, 1e-9)) * (this.width - LEFT);
  }

  /** The place at a pixel, inside the axis. */
  place(x: number): number {
    const share = (x - LEFT) / Math.max(this.width - LEFT, 1);
    return this.from + Math.min(1, Math.max(0, share)) * (this.to - this.from);
  }
}

/** Whether a place is on the axis: a bar needs room behind it, a moment may be the last. */
export function isInside(plot: Pick<Plot, "xs" | "bars">, scale: Scale, at: number): boolean {
  const x = plot.xs[at]!;
  return x >= scale.from && (plot.bars ? x < scale.to : x <= scale.to);
}

export function heightOf(plot: Plot, high: number): number {
  return ABOVE + high + (plot.strip ? STRIP : 0) + BELOW;
}

/** Draws the chart; returns its height. */
export function paint(
  canvas: HTMLCanvasElement,
  plot: Plot,
  scale: Scale,
  high: number,
  marks: Marks,
  theme: Theme,
  ratio: number,
): number {
  const height = heightOf(plot, high);
  canvas.width = Math.round(scale.width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${scale.width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  if (!pen) return height;
  pen.scale(ratio, ratio);
  pen.clearRect(0, 0, scale.width, height);
  const inside: number[] = [];
  for (let i = 0; i < plot.xs.length; i++) if (isInside(plot, scale, i)) inside.push(i);
  let most = plot.atLeast;
  for (const i of inside) {
    for (const own of [plot.values[i], plot.other?.[i]])
      if (own !== undefined && Number.isFinite(own)) most = Math.max(most, own);
  }
  const top = topOf(most);
  const y = (value: number) => ABOVE + high * (1 - value / top);
  if (marks.brush) {
    const [a, b] = marks.brush.map((place) => scale.x(place)) as [number, number];
    pen.fillStyle = css(theme.accentSoft);
    pen.fillRect(a, ABOVE, b - a, high + (plot.strip ? STRIP : 0));
  }
  pen.font = `10px ${theme.sans}`;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const share of [0, 0.5, 1]) {
    pen.fillStyle = css(share === 0 ? theme.line2 : theme.line);
    pen.fillRect(LEFT, Math.round(y(share * top)), scale.width - LEFT, 1);
    pen.fillStyle = css(theme.ink3);
    pen.fillText(plot.ticks(share * top), LEFT - 7, y(share * top) + 0.5);
  }
  if (plot.stack) paintStacks(pen, plot, scale, theme, y);
  else if (plot.bars) paintBars(pen, plot, inside, scale, marks, theme, y, ABOVE + high);
  else paintLine(pen, plot, inside, scale, theme, y);
  pen.font = `11px ${theme.sans}`;
  pen.textBaseline = "alphabetic";
  pen.fillStyle = css(theme.ink3);
  pen.textAlign = "left";
  pen.fillText(plot.ends[0], LEFT, height - 4);
  pen.textAlign = "right";
  pen.fillText(plot.ends[1], scale.width, height - 4);
  if (plot.names) paintNames(pen, plot, plot.names, scale, theme, height - 4);
  return height;
}

/** Bars of parts; their gaps are those of all bars. */
function paintStacks(
  pen: CanvasRenderingContext2D,
  plot: Plot,
  scale: Scale,
  theme: Theme,
  y: (value: number) => number,
): void {
  const step = (scale.width - LEFT) / Math.max(scale.to - scale.from, 1e-9);
  const gap = step >= 4 ? Math.min(3, step * 0.18) : 0;
  const wide = Math.max(1, step - gap);
  for (let i = 0; i < plot.xs.length; i++) {
    const x = scale.x(plot.xs[i]!) + gap / 2;
    let sum = 0;
    for (const part of plot.stack!) {
      const value = part.values[i]!;
      pen.fillStyle = part.colour;
      pen.fillRect(x, y(sum + value), wide, y(sum) - y(sum + value));
      sum += value;
    }
    if (!plot.ringed?.includes(i)) continue;
    pen.strokeStyle = css(theme.accent);
    pen.lineWidth = 2;
    pen.strokeRect(x - 1, y(sum) - 1, wide + 2, y(0) - y(sum) + 2);
  }
}

/** Names under bars, where they neither touch each other nor the two ends; those of ringed bars always. */
function paintNames(
  pen: CanvasRenderingContext2D,
  plot: Plot,
  names: (at: number) => string,
  scale: Scale,
  theme: Theme,
  baseline: number,
): void {
  pen.textAlign = "center";
  const room = [pen.measureText(plot.ends[0]).width, pen.measureText(plot.ends[1]).width];
  const taken: [number, number][] = [
    [LEFT, LEFT + room[0]! + 8],
    [scale.width - room[1]! - 8, scale.width],
  ];
  const ringed = plot.ringed ?? [];
  const all = Array.from(plot.xs, (_, i) => i);
  const step = [1, 2, 5, 10, 20].find((k) => (k * (scale.width - LEFT)) / plot.xs.length >= 32) ?? 50;
  const regular = all.filter((i) => i % step === 1 % step && !ringed.includes(i));
  for (const i of [...ringed, ...regular]) {
    const text = names(i);
    const x = (scale.x(plot.xs[i]!) + scale.x(plot.xs[i]! + 1)) / 2;
    const half = pen.measureText(text).width / 2 + 4;
    if (!text || taken.some(([a, b]) => x + half > a && x - half < b)) continue;
    taken.push([x - half, x + half]);
    pen.fillStyle = css(ringed.includes(i) ? theme.accent : theme.ink3);
    pen.fillText(text, x, baseline);
  }
}

function paintBars(
  pen: CanvasRenderingContext2D,
  plot: Plot,
  inside: readonly number[],
  scale: Scale,
  marks: Marks,
  theme: Theme,
  y: (value: number) => number,
  floor: number,
): void {
  const step = (scale.width - LEFT) / Math.max(scale.to - scale.from, 1e-9);
  const gap = step >= 4 ? Math.min(3, step * 0.18) : 0;
  const ground = css(theme.dark ? theme.ink3 : theme.ink3);
  // Where several tokens share a pixel, the slowest and the most surprising of them is shown: it is the finding.
  const slowest = new Map<number, number>();
  const strip = new Map<number, { at: number; x: number }>();
  for (const i of inside) {
    const x = scale.x(plot.xs[i]!);
    const value = plot.values[i];
    const key = step >= 1 ? i : Math.round(x);
    if (plot.strip && !strip.has(key)) strip.set(key, { at: i, x });
    if (value === undefined || !Number.isFinite(value)) continue;
    if (step < 1 && (slowest.get(key) ?? -1) >= value) continue;
    slowest.set(key, value);
    if (step < 1) continue;
    pen.fillStyle = marks.chosen === i ? css(theme.accent) : ground;
    pen.fillRect(x + gap / 2, y(value), Math.max(1, step - gap), floor - y(value));
  }
  if (step < 1) {
    pen.fillStyle = ground;
    for (const [x, value] of slowest) pen.fillRect(x, y(value), 1, floor - y(value));
    if (marks.chosen !== null) {
      pen.fillStyle = css(theme.accent);
      pen.fillRect(
        scale.x(marks.chosen) - 1,
        y(plot.values[marks.chosen] ?? 0),
        2,
        floor - y(plot.values[marks.chosen] ?? 0),
      );
    }
  }
  if (plot.strip) {
    for (const { at, x } of strip.values()) {
      const colour = plot.strip(at);
      if (!colour) continue;
      pen.fillStyle = css(colour);
      pen.fillRect(x + gap / 2, floor + 3, Math.max(1, step - gap), STRIP - 3);
    }
  }
  if (!plot.other) return;
  pen.strokeStyle = css(theme.ink);
  pen.lineWidth = 1.5;
  pen.beginPath();
  for (const i of inside) {
    const value = plot.other[i];
    if (value === undefined || !Number.isFinite(value)) continue;
    const x = scale.x(plot.xs[i]!);
    pen.moveTo(x, y(value));
    pen.lineTo(x + Math.max(1, step), y(value));
  }
  pen.stroke();
}

function paintLine(
  pen: CanvasRenderingContext2D,
  plot: Plot,
  inside: readonly number[],
  scale: Scale,
  theme: Theme,
  y: (value: number) => number,
): void {
  pen.strokeStyle = css(theme.ink2);
  pen.fillStyle = css(theme.ink2);
  pen.lineWidth = 1.5;
  pen.beginPath();
  let joined = false;
  for (const i of inside) {
    const value = plot.values[i]!;
    const x = scale.x(plot.xs[i]!);
    if (!Number.isFinite(value)) {
      joined = false; // a gap: it could not be read
      continue;
    }
    if (joined) pen.lineTo(x, y(value));
    else {
      pen.moveTo(x, y(value));
      const alone = !Number.isFinite(plot.values[i + 1] ?? Number.NaN);
      const side = alone ? 4 : 2;
      pen.fillRect(x - side / 2, y(value) - side / 2, side, side);
    }
    joined = true;
  }
  pen.stroke();
}

/** A small line without axes, from 0. */
export function sparkline(
  canvas: HTMLCanvasElement,
  values: ArrayLike<number>,
  width: number,
  height: number,
  theme: Theme,
  ratio: number,
  top = 0,
): void {
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const pen = canvas.getContext("2d");
  if (!pen) return;
  pen.scale(ratio, ratio);
  const n = values.length;
  let most = top;
  for (let i = 0; i < n; i++) if (Number.isFinite(values[i])) most = Math.max(most, values[i]!);
  if (n < 2 || most <= 0) return;
  pen.strokeStyle = css(theme.ink2);
  pen.lineWidth = 1.5;
  pen.beginPath();
  let joined = false;
  for (let i = 0; i < n; i++) {
    const value = values[i]!;
    if (!Number.isFinite(value)) {
      joined = false;
      continue;
    }
    const x = (i / (n - 1)) * (width - 2) + 1;
    const at = 1 + (height - 2) * (1 - value / most);
    if (joined) pen.lineTo(x, at);
    else pen.moveTo(x, at);
    joined = true;
  }
  pen.stroke();
}
