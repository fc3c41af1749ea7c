// Pictures for slides and papers: what the view shows now, with its provenance drawn in, as PNG or SVG.
// In: the view's canvases and words. Out: a Blob. Matrices stay pixels in both; words and lines are vectors in SVG.
import { css, type Rgb } from "../shared/colour";
import type { Theme } from "../shared/theme";

/** One thing to draw, in CSS pixels. */
type Item =
  | { kind: "image"; canvas: HTMLCanvasElement; x: number; y: number; width: number; height: number }
  | {
      kind: "text";
      text: string;
      x: number;
      y: number;
      size: number;
      bold?: boolean;
      colour: Rgb;
      right?: boolean;
    }
  | {
      kind: "box";
      x: number;
      y: number;
      width: number;
      height: number;
      colour: Rgb;
      line: number;
      dashed?: boolean;
    }
  | { kind: "fill"; x: number; y: number; width: number; height: number; colour: Rgb };

export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly items: readonly Item[];
  readonly theme: Theme;
}

/** One part of the view: a canvas, the boxes over it, a heading and a line under it. */
export interface Part {
  readonly heading: readonly [string, string];
  readonly canvas: HTMLCanvasElement;
  readonly boxes: readonly {
    x: number;
    y: number;
    width: number;
    height: number;
    dashed?: boolean;
    thick?: boolean;
  }[];
  /** What the picture says in one sentence. */
  readonly under: string;
  /** Lines beside the canvas: name, value, place. */
  readonly notes: readonly (readonly [string, string, string])[];
  readonly ramp: readonly (readonly [number, string])[] | null;
  /** The ramp is the diverging one. */
  readonly diverging?: boolean;
  /** Small pictures side by side under it. */
  readonly row?: Row | null;
}

/** Small pictures with a value over each, and what was done to come to it under it. */
export interface Row {
  readonly heading: readonly [string, string];
  readonly figures: readonly Figure[];
  /** Each comes from the one before it. */
  readonly steps: boolean;
}

export interface Figure {
  readonly title: string;
  readonly value: string;
  readonly canvas: HTMLCanvasElement;
  readonly boxes: Part["boxes"];
  readonly under: string;
  readonly ticks: readonly string[];
  readonly diverging: boolean;
}

const MARGIN = 16;
const LINE = 16;
/** Width of the lines beside a canvas. */
const NOTES = 270;
/** From one small picture to the next, and the least that one takes. */
const BETWEEN = 36;
const SMALL = 110;

const sizeOf = (c: HTMLCanvasElement) => ({
  width: Number.parseFloat(c.style.width) || c.width,
  height: Number.parseFloat(c.style.height) || c.height,
});

const room = ({ canvas }: Figure) => Math.max(SMALL, sizeOf(canvas).width) + BETWEEN;

/** Stacks the parts under a title, provenance last: one line, or one for each run. */
export function compose(
  title: string,
  subtitle: string,
  provenance: string | readonly string[],
  parts: readonly Part[],
  theme: Theme,
): Picture {
  const items: Item[] = [];
  const text = (t: string, x: number, y: number, size: number, colour: Rgb, bold = false, right = false) =>
    items.push({ kind: "text", text: t, x, y, size, bold, colour, right });
  const rows = parts.map((p) => p.row?.figures.reduce((sum, f) => sum + room(f), 0) ?? 0);
  const width = Math.max(480, ...parts.map((p) => sizeOf(p.canvas).width), ...rows) + 2 * MARGIN;
  let y = MARGIN + 14;
  text(title, MARGIN, y, 15, theme.ink, true);
  text(subtitle, MARGIN + title.length * 9.6 + 12, y, 13, theme.ink2);
  y += 14;
  for (const part of parts) {
    const size = sizeOf(part.canvas);
    if (part.heading[0]) {
      y += 16;
      text(part.heading[0], MARGIN, y, 12, theme.ink, true);
      text(part.heading[1], MARGIN + part.heading[0].length * 6.9 + 12, y, 12, theme.ink3);
      y += 10;
    }
    image(items, part, MARGIN, y, theme);
    const beside = MARGIN + size.width + 28;
    if (beside + NOTES <= width) {
      part.notes.forEach(([name, value, place], i) => {
        const line = y + 76 + i * 22;
        text(name, beside, line, 12, theme.ink2);
        text(value, beside + 170, line, 12, theme.ink, true, true);
        text(place, beside + NOTES, line, 11, theme.ink3, false, true);
      });
      text(part.under, beside, y + 44, 13, theme.ink, true);
    }
    y += size.height + 12;
    if (part.ramp) {
      ramp(items, part.ramp, { x: MARGIN, y, width: 166 }, part.diverging ?? false, theme);
      y += 32;
    }
    if (part.under && beside + NOTES > width) {
      text(part.under, MARGIN, y + 10, 12, theme.ink);
      y += 22;
    }
    if (part.row) y = row(items, part.row, y, theme);
  }
  items.push({ kind: "fill", x: MARGIN, y: y + 4, width: width - 2 * MARGIN, height: 1, colour: theme.line });
  const lines = typeof provenance === "string" ? [provenance] : provenance;
  lines.forEach((line, i) => {
    text(line, MARGIN, y + 22 + i * LINE, 11, theme.ink3);
  });
  return { width, height: y + 22 + (lines.length - 1) * LINE + MARGIN, items, theme };
}

/** A canvas and the boxes over it. */
function image(
  items: Item[],
  part: Pick<Part, "canvas" | "boxes">,
  x: number,
  y: number,
  theme: Theme,
): void {
  items.push({ kind: "image", canvas: part.canvas, x, y, ...sizeOf(part.canvas) });
  for (const b of part.boxes)
    items.push({
      kind: "box",
      x: x + b.x,
      y: y + b.y,
      width: b.width,
      height: b.height,
      colour: theme.accent,
      line: b.thick ? 2.5 : 1,
      dashed: b.dashed ?? false,
    });
}

/** Small pictures side by side; returns where they end. */
function row(items: Item[], { heading, figures, steps }: Row, top: number, theme: Theme): number {
  const text = (t: string, x: number, y: number, size: number, colour: Rgb, bold = false, right = false) =>
    items.push({ kind: "text", text: t, x, y, size, bold, colour, right });
  text(heading[0], MARGIN, top + 16, 12, theme.ink, true);
  text(heading[1], MARGIN + heading[0].length * 6.9 + 12, top + 16, 12, theme.ink3);
  let x = MARGIN;
  const y = top + 46;
  const high = Math.max(...figures.map((f) => sizeOf(f.canvas).height));
  figures.forEach((figure, i) => {
    const width = room(figure) - BETWEEN;
    text(figure.title, x, y - 6, 12, theme.ink, true);
    text(figure.value, x + width, y - 6, 12, theme.accentText, true, true);
    image(items, figure, x, y, theme);
    text(figure.under, x, y + high + 16, 11, theme.ink3);
    const ticks = figure.ticks.map((t, k, all) => [k / (all.length - 1), t] as const);
    ramp(items, ticks, { x, y: y + high + 24, width }, figure.diverging, theme);
    x += width + BETWEEN;
    if (steps && i + 1 < figures.length) text("\u2192", x - BETWEEN / 2 - 6, y + high / 2, 15, theme.ink3);
  });
  return y + high + 60;
}

function ramp(
  items: Item[],
  ticks: readonly (readonly [number, string])[],
  { x, y, width }: { x: number; y: number; width: number },
  diverging: boolean,
  theme: Theme,
): void {
  const colours = diverging ? theme.diverging : theme.sequential;
  for (let i = 0; i < 64; i++)
    items.push({
      kind: "fill",
      x: x + (i * width) / 64,
      y,
      width: width / 64 + 0.5,
      height: 10,
      colour: colours[i * 4]!,
    });
  for (const [at, label] of ticks)
    items.push({
      kind: "text",
      text: label,
      x: x + at * width,
      right: at > 0.9,
      y: y + 22,
      size: 10,
      colour: theme.ink3,
    });
}

/** The picture as a PNG at `ratio` device pixels per CSS pixel. */
export function toPng(picture: Picture, ratio: number): Promise<Blob> {
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(picture.width * ratio);
  canvas.height = Math.round(picture.height * ratio);
  const ctx = canvas.getContext("2d")!;
  ctx.scale(ratio, ratio);
  ctx.fillStyle = css(picture.theme.paper);
  ctx.fillRect(0, 0, picture.width, picture.height);
  ctx.imageSmoothingEnabled = false;
  for (const item of picture.items) drawItem(ctx, item, picture.theme);
  return new Promise((done, fail) =>
    canvas.toBlob((b) => (b ? done(b) : fail(new Error("this browser makes no PNG"))), "image/png"),
  );
}

function drawItem(ctx: CanvasRenderingContext2D, item: Item, theme: Theme): void {
  if (item.kind === "image") {
    ctx.drawImage(item.canvas, item.x, item.y, item.width, item.height);
    return;
  }
  if (item.kind === "text") {
    ctx.font = `${item.bold ? 600 : 400} ${item.size}px ${theme.sans}`;
    ctx.fillStyle = css(item.colour);
    ctx.textAlign = item.right ? "right" : "left";
    ctx.fillText(item.text, item.x, item.y);
    return;
  }
  if (item.kind === "fill") {
    ctx.fillStyle = css(item.colour);
    ctx.fillRect(item.x, item.y, item.width, item.height);
    return;
  }
  ctx.strokeStyle = css(item.colour);
  ctx.lineWidth = item.line;
  ctx.setLineDash(item.dashed ? [2, 2] : []);
  ctx.strokeRect(item.x, item.y, item.width, item.height);
}

/** The picture as SVG: canvases embedded as PNG, everything else as shapes and text. */
export function toSvg(picture: Picture): Blob {
  const { width, height, theme } = picture;
  const lines = picture.items.map((item) => svgItem(item, theme));
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"><rect width="${width}" height="${height}" fill="${css(theme.paper)}"/>${lines.join("")}</svg>`;
  return new Blob([svg], { type: "image/svg+xml" });
}

function svgItem(item: Item, theme: Theme): string {
  const box = (i: { x: number; y: number; width: number; height: number }) =>
    `x="${i.x}" y="${i.y}" width="${i.width}" height="${i.height}"`;
  if (item.kind === "image")
    return `<image ${box(item)} href="${item.canvas.toDataURL("image/png")}" style="image-rendering:pixelated"/>`;
  if (item.kind === "fill") return `<rect ${box(item)} fill="${css(item.colour)}"/>`;
  if (item.kind === "box")
    return `<rect ${box(item)} fill="none" stroke="${css(item.colour)}" stroke-width="${item.line}"${item.dashed ? ' stroke-dasharray="2 2"' : ""}/>`;
  return `<text x="${item.x}" y="${item.y}" font-family="${escapeXml(theme.sans)}" font-size="${item.size}" font-weight="${item.bold ? 600 : 400}" fill="${css(item.colour)}"${item.right ? ' text-anchor="end"' : ""}>${escapeXml(item.text)}</text>`;
}

/** Text for XML: markup characters escaped, characters that XML forbids dropped. */
export function escapeXml(text: string): string {
  return text
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "")
    .replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}
