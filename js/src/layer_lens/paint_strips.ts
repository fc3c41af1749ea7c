// Draws the strips over one axis of layers: push on the answer, its heads, norms, cosine, outliers, time.
// In: data, layout, theme. Out: pixels. What was not captured leaves a gap and a word, never a zero.
import { css, type Rgb } from "../shared/colour";
import { shorten } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { LensData } from "./data";
import type { Strip, StripsLayout } from "./layout";
import { fitText, prepare } from "./paint_table";
import { figures, milliseconds, pushName, signed, strongest } from "./words";

export interface StripsLook {
  readonly theme: Theme;
  readonly ratio: number;
  readonly attention: string;
  readonly mlp: string;
  readonly layer: number | null;
  readonly head: number | null;
  readonly narrow: boolean;
  /** Why there is no push; empty where there is one, or will be. */
  readonly pushProblem: string;
}

type Pen = CanvasRenderingContext2D;

export function paintStrips(
  canvas: HTMLCanvasElement,
  data: LensData,
  layout: StripsLayout,
  look: StripsLook,
): void {
  const ctx = prepare(canvas, layout.width, layout.height, look.ratio);
  if (!ctx) return;
  ctx.fillStyle = css(look.theme.paper);
  ctx.fillRect(0, 0, layout.width, layout.height);
  axis(ctx, data, layout, look);
  for (const strip of layout.strips) {
    if (strip.kind === "push") push(ctx, data, layout, strip, look);
    else if (strip.kind === "heads") heads(ctx, data, layout, strip, look);
    else if (strip.kind === "written") written(ctx, data, layout, strip, look);
    else if (strip.kind === "time") time(ctx, data, layout, strip, look);
    else if (strip.kind === "outliers") outliers(ctx, data, layout, strip, look);
    else curve(ctx, data, layout, strip, look, strip.kind);
  }
}

/** Names of the layers; a neighbour's is left out where the locked one's would lie on it. */
function axis(ctx: Pen, data: LensData, layout: StripsLayout, look: StripsLook): void {
  const { layers } = data.facts;
  const every = layout.step >= 27 ? 1 : layout.step >= 6 ? 5 : Math.ceil(34 / layout.step / 5) * 5;
  const near = Math.ceil(26 / layout.step);
  const mine = layers.findIndex((l) => l.layer === look.layer);
  ctx.textAlign = "center";
  ctx.textBaseline = "alphabetic";
  const last = layers.length - 1;
  layers.forEach((layer, i) => {
    if (i !== mine && mine >= 0 && Math.abs(i - mine) < near) return;
    if (i !== mine && i !== last && (i % every !== 0 || (every > 1 && last - i < near))) return;
    ctx.font = `${i === mine ? 600 : 400} 11px ${look.theme.sans}`;
    ctx.fillStyle = css(i === mine ? look.theme.accentText : look.theme.ink3);
    const name = `L${layer.layer}`;
    const half = ctx.measureText(name).width / 2;
    ctx.fillText(name, Math.min(centre(layout, i), layout.width - half), layout.axis);
  });
}

const centre = (layout: StripsLayout, place: number) => layout.left + (place + 0.5) * layout.step;

/** Name of a strip, and what it shows, left of it. */
function name(ctx: Pen, layout: StripsLayout, strip: Strip, look: StripsLook, title: string, under: string) {
  const room = layout.left - 12;
  const middle = strip.top + strip.height / 2;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.font = `600 12px ${look.theme.sans}`;
  ctx.fillStyle = css(look.theme.ink);
  ctx.fillText(fitText(ctx, title, room), 0, middle - 1);
  ctx.font = `11px ${look.theme.sans}`;
  ctx.fillStyle = css(look.theme.ink3);
  ctx.fillText(fitText(ctx, under, room), 0, middle + 14);
}

function push(ctx: Pen, data: LensData, layout: StripsLayout, strip: Strip, look: StripsLook): void {
  const { push: own } = data;
  const place = own ? `after ${shorten(data.facts.tokens[own.position] ?? "")}` : "";
  const under = own ? (look.narrow ? pushName(own) : `in logits, ${place}`) : "";
  name(ctx, layout, strip, look, own && !look.narrow ? `Push on ${pushName(own)}` : "Push", under);
  if (!own) {
    ctx.font = `12px ${look.theme.sans}`;
    ctx.fillStyle = css(look.theme.ink3);
    const words = look.pushProblem || "\u2026";
    ctx.fillText(
      fitText(ctx, words, layout.width - layout.left - 8),
      layout.left + 4,
      strip.top + strip.height / 2,
    );
    return;
  }
  const series = [own.attention, own.mlp];
  const zero = pairs(ctx, layout, strip, series, look, true);
  ctx.font = `600 11px ${look.theme.sans}`;
  ctx.fillStyle = css(look.theme.ink);
  ctx.textAlign = "center";
  const width = 34;
  let taken = Number.NaN;
  for (const [kind, values] of [...series.entries()].sort(
    ([, a], [, b]) => Math.abs(b[strongest(b)] ?? 0) - Math.abs(a[strongest(a)] ?? 0),
  )) {
    const at = strongest(values);
    const value = at < 0 ? null : values[at]!;
    if (value === null || Math.abs(value) < 0.05) continue;
    const x = Math.min(layout.width - width / 2, centre(layout, at) + (kind - 0.5) * layout.step * 0.4);
    if (Math.abs(x - taken) < width) continue;
    taken = x;
    ctx.fillText(
      signed(value),
      x,
      value > 0 ? zero.y - value * zero.scale - 5 : zero.y - value * zero.scale + 12,
    );
  }
}

/** Bars of two kinds from a zero line. */
function pairs(
  ctx: Pen,
  layout: StripsLayout,
  strip: Strip,
  series: readonly (readonly (number | null)[])[],
  look: StripsLook,
  signedBars: boolean,
): { y: number; scale: number } {
  const known = series.flat().filter((v): v is number => v !== null && Number.isFinite(v));
  const high = Math.max(0, ...known);
  const low = signedBars ? Math.min(0, ...known) : 0;
  const scale = strip.height / Math.max(1e-12, high - low);
  const y = Math.round(strip.top + high * scale);
  const bar = Math.max(1, Math.min(13, Math.floor(layout.step * 0.34)));
  const tones = [look.attention, look.mlp];
  series.forEach((values, kind) => {
    ctx.fillStyle = tones[kind]!;
    values.forEach((v, place) => {
      if (v === null || !Number.isFinite(v)) return;
      const tall = Math.max(1, Math.round(Math.abs(v) * scale));
      const x = Math.round(centre(layout, place) + (kind === 0 ? -bar - 0.5 : 0.5));
      ctx.fillRect(x, v >= 0 ? y - tall : y, bar, tall);
    });
  });
  ctx.fillStyle = css(look.theme.line2);
  ctx.fillRect(layout.left, y, layout.width - layout.left, 1);
  return { y, scale };
}

/** Layers x heads: what each head adds, symmetric about 0. */
function heads(ctx: Pen, data: LensData, layout: StripsLayout, strip: Strip, look: StripsLook): void {
  const { theme } = look;
  const n = data.push?.heads ?? 0;
  const most = headMost(data);
  name(
    ctx,
    layout,
    strip,
    look,
    "\u2026 by head",
    look.narrow ? `\u00b1${figures(most)}` : `H0\u2013H${n - 1}, \u00b1${figures(most)}`,
  );
  const gap = layout.head >= 6 ? 1 : 0;
  data.facts.layers.forEach((layer, place) => {
    const [x0, x1] = [layout.left + place * layout.step, layout.left + (place + 1) * layout.step].map(
      Math.round,
    );
    for (let head = 0; head < n; head++) {
      const value = data.head(place, head);
      const y = strip.top + head * layout.head;
      ctx.fillStyle = Number.isFinite(value) ? css(headShade(theme, value / most)) : css(theme.plate);
      ctx.fillRect(x0!, y, x1! - x0! - 1, layout.head - gap);
      if (layer.layer !== look.layer || head !== look.head) continue;
      ctx.strokeStyle = css(theme.accent);
      ctx.lineWidth = 2;
      ctx.strokeRect(x0! - 1, y - 1, x1! - x0! + 1, layout.head - gap + 2);
    }
  });
}

/** The greatest push of a head, in size. */
export function headMost(data: LensData): number {
  let most = 0;
  data.facts.layers.forEach((_, place) => {
    for (let head = 0; head < (data.push?.heads ?? 0); head++)
      most = Math.max(most, Math.abs(data.head(place, head)) || 0);
  });
  return most || 1;
}

/** Colour of -1 to 1. */
function headShade(theme: Theme, value: number): Rgb {
  return theme.diverging[Math.round(((Math.max(-1, Math.min(1, value)) + 1) / 2) * 255)]!;
}

function written(ctx: Pen, data: LensData, layout: StripsLayout, strip: Strip, look: StripsLook): void {
  name(
    ctx,
    layout,
    strip,
    look,
    look.narrow ? "Written" : "Written per layer",
    look.narrow ? "norm" : "norm, median",
  );
  const series = [[...data.stream("attention")], [...data.stream("mlp")]];
  if (series.flat().some(Number.isFinite)) pairs(ctx, layout, strip, series, look, false);
  else absent(ctx, layout, strip, look);
}

function absent(ctx: Pen, layout: StripsLayout, strip: Strip, look: StripsLook): void {
  ctx.font = `11px ${look.theme.sans}`;
  ctx.fillStyle = css(look.theme.ink3);
  ctx.fillText("not captured in this trace", layout.left + 4, strip.top + strip.height / 2 + 4);
}

function curve(
  ctx: Pen,
  data: LensData,
  layout: StripsLayout,
  strip: Strip,
  look: StripsLook,
  kind: "residual" | "cosine",
): void {
  const values = data.stream(kind);
  const known = [...values].filter(Number.isFinite);
  const log = kind === "residual";
  const ends = `${figures(known[0] ?? Number.NaN)} \u2192 ${figures(known[known.length - 1] ?? Number.NaN)}`;
  if (log && look.narrow) name(ctx, layout, strip, look, "Residual", ends);
  else if (log) name(ctx, layout, strip, look, "Residual norm", `${ends}, log`);
  else {
    const ends = [Math.min(...known), Math.max(...known)];
    const range = ends.map((v) => figures(Number(v.toFixed(2)))).join(" to ");
    name(ctx, layout, strip, look, look.narrow ? "Cosine" : "Cosine to before", known.length ? range : "");
  }
  if (known.length === 0) {
    absent(ctx, layout, strip, look);
    return;
  }
  const shown = (v: number) => (log ? Math.log10(Math.max(v, 1e-9)) : v);
  const [low, high] = [Math.min(...known.map(shown)), Math.max(...known.map(shown))];
  const y = (v: number) => strip.top + (1 - (shown(v) - low) / Math.max(1e-12, high - low)) * strip.height;
  ctx.strokeStyle = css(look.theme.ink2);
  ctx.lineWidth = 1.75;
  ctx.lineJoin = "round";
  ctx.beginPath();
  let down = false;
  values.forEach((v, place) => {
    if (!Number.isFinite(v)) down = false;
    else if (down) ctx.lineTo(centre(layout, place), y(v));
    else {
      ctx.moveTo(centre(layout, place), y(v));
      down = true;
    }
  });
  ctx.stroke();
  const mine = data.facts.layers.findIndex((l) => l.layer === look.layer);
  if (mine < 0 || !Number.isFinite(values[mine])) return;
  ctx.fillStyle = css(look.theme.accent);
  ctx.beginPath();
  ctx.arc(centre(layout, mine), y(values[mine]!), 3.5, 0, 2 * Math.PI);
  ctx.fill();
}

function outliers(ctx: Pen, data: LensData, layout: StripsLayout, strip: Strip, look: StripsLook): void {
  name(ctx, layout, strip, look, "Outliers", look.narrow ? "dimensions" : "dims \u2265 10 \u00d7 median");
  const values = data.stream("outliers");
  if (![...values].some(Number.isFinite)) {
    absent(ctx, layout, strip, look);
    return;
  }
  const every = layout.step >= 15 ? 1 : Math.ceil(18 / layout.step);
  ctx.textAlign = "center";
  ctx.font = `11px ${look.theme.sans}`;
  const mine = data.facts.layers.findIndex((l) => l.layer === look.layer);
  values.forEach((v, place) => {
    if (place !== mine && (place % every !== 0 || (mine >= 0 && Math.abs(place - mine) < every))) return;
    ctx.fillStyle = css(v > 0 ? look.theme.ink2 : look.theme.ink3);
    ctx.fillText(
      Number.isFinite(v) ? String(v) : "\u2013",
      centre(layout, place),
      strip.top + strip.height / 2 + 4,
    );
  });
}

function time(ctx: Pen, data: LensData, layout: StripsLayout, strip: Strip, look: StripsLook): void {
  const { times } = data.facts;
  const known = (times?.ms ?? []).filter((v): v is number => v !== null);
  if (!times || known.length === 0) return;
  const sum = known.reduce((a, b) => a + b, 0);
  name(
    ctx,
    layout,
    strip,
    look,
    look.narrow ? "Time" : "Time per layer",
    look.narrow ? milliseconds(sum) : `${milliseconds(sum)} in all`,
  );
  const most = Math.max(...known);
  ctx.fillStyle = css(look.theme.line2);
  times.ms.forEach((v, place) => {
    if (v === null) return;
    const tall = Math.max(1, Math.round((v / most) * strip.height));
    const [a, b] = [layout.left + place * layout.step, layout.left + (place + 1) * layout.step].map(
      Math.round,
    );
    ctx.fillRect(a!, strip.top + strip.height - tall, Math.max(1, b! - a! - 2), tall);
  });
  const middle = [...known].sort((a, b) => a - b)[Math.floor(known.length / 2)]!;
  ctx.font = `11px ${look.theme.sans}`;
  ctx.fillStyle = css(look.theme.ink3);
  ctx.textAlign = "right";
  ctx.fillText(`median ${milliseconds(middle)}`, layout.width, strip.top - 3);
  const at = times.ms.indexOf(most);
  if (centre(layout, at) > layout.width - 150) return;
  ctx.textAlign = "left";
  ctx.fillText(milliseconds(most), layout.left + at * layout.step, strip.top - 3);
}
