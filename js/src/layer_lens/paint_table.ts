// Draws the table: only the columns that are seen, so that any number of tokens scrolls.
// In: data, layout, theme, how far it is scrolled. Out: pixels. What was not read is plain, what does not exist a dash.
import { contrast, css, mix, type Rgb } from "../shared/colour";
import type { Theme } from "../shared/theme";
import type { Cell, LensData, Measure } from "./data";
import { ROW, seen, type TableLayout } from "./layout";
import { rowName } from "./words";

/** Of the ramp: as far as text on it stays readable. */
export const READABLE = 0.625;

export interface TableLook {
  readonly theme: Theme;
  readonly ratio: number;
  readonly measure: Measure;
  readonly row: number | null;
  readonly position: number;
  /** Somebody chose the column. */
  readonly chosen: boolean;
  readonly scroll: number;
}

/** Colour of a share of the scale's end. */
export function shade(theme: Theme, share: number): Rgb {
  return theme.sequential[Math.round(Math.max(0, Math.min(1, share)) * READABLE * 255)]!;
}

/** The page's ink or paper, whichever is read better on this colour. */
export function inkOn(theme: Theme, colour: Rgb): Rgb {
  return contrast(colour, theme.ink) >= contrast(colour, theme.paper) ? theme.ink : theme.paper;
}

/** Place of a KL divergence on its scale, which is logarithmic and ends at 100 nats; 0 has its place too. */
export const klShare = (nats: number): number => Math.log1p(nats) / Math.log1p(100);

/** Share of the scale's end that a cell's colour stands for. */
export function share(cell: Cell, measure: Measure, words: number): number {
  const most = Math.log(Math.max(2, words));
  if (measure === "rank") return 1 - Math.log(cell.answerRank) / most;
  if (measure === "kl") return klShare(cell.kl);
  return measure === "entropy" ? cell.entropy / most : cell.probabilities[0]!;
}

/** Sizes a canvas for the screen and returns its context, in CSS pixels. */
export function prepare(
  canvas: HTMLCanvasElement,
  width: number,
  height: number,
  ratio: number,
): CanvasRenderingContext2D | null {
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const ctx = canvas.getContext("2d");
  ctx?.scale(ratio, ratio);
  return ctx;
}

/** Text cut with an ellipsis to what fits. */
export function fitText(ctx: CanvasRenderingContext2D, text: string, room: number): string {
  if (ctx.measureText(text).width <= room) return text;
  const characters = [...text];
  let length = Math.min(characters.length, Math.max(1, Math.floor(room / 4)));
  while (length > 1 && ctx.measureText(`${characters.slice(0, length).join("")}\u2026`).width > room)
    length--;
  return `${characters.slice(0, length).join("")}\u2026`;
}

export function paintTable(
  canvas: HTMLCanvasElement,
  data: LensData,
  layout: TableLayout,
  look: TableLook,
): void {
  const ctx = prepare(canvas, layout.width, layout.height, look.ratio);
  if (!ctx) return;
  const { theme } = look;
  ctx.fillStyle = css(theme.paper);
  ctx.fillRect(0, 0, layout.width, layout.height);
  ctx.textBaseline = "middle";
  ctx.save();
  ctx.beginPath();
  ctx.rect(layout.gutter, 0, layout.width - layout.gutter, layout.height);
  ctx.clip();
  const [from, to] = seen(layout, look.scroll, data.tokens);
  for (let position = from; position < to; position++) {
    const x = layout.gutter + position * layout.cell - look.scroll;
    heading(ctx, data, layout, look, position, x);
    layout.rows.forEach((row, i) => {
      paintCell(ctx, data, row, position, x, layout.head + i * ROW, layout.cell, i === 0, look);
    });
  }
  ctx.restore();
  layout.rows.forEach((row, i) => {
    const mine = row === look.row;
    ctx.font = `${mine ? 600 : 400} 11px ${theme.sans}`;
    ctx.fillStyle = css(mine ? theme.accentText : theme.ink3);
    ctx.textAlign = "right";
    ctx.fillText(rowName(row), layout.gutter - 9, layout.head + i * ROW + ROW / 2);
  });
  ctx.fillStyle = css(theme.ink);
  ctx.fillRect(layout.gutter, layout.head + ROW - 1, layout.width - layout.gutter, 1);
}

function heading(
  ctx: CanvasRenderingContext2D,
  data: LensData,
  layout: TableLayout,
  look: TableLook,
  position: number,
  x: number,
): void {
  const mine = look.chosen && position === look.position;
  ctx.font = `${mine ? 600 : 400} 12px ${look.theme.mono}`;
  ctx.fillStyle = css(mine ? look.theme.accentText : look.theme.ink);
  ctx.textAlign = "center";
  const text = fitText(ctx, data.facts.tokens[position] ?? "", layout.cell - 8);
  ctx.fillText(text, x + layout.cell / 2, layout.head / 2);
}

function paintCell(
  ctx: CanvasRenderingContext2D,
  data: LensData,
  row: number,
  position: number,
  x: number,
  y: number,
  width: number,
  output: boolean,
  look: TableLook,
): void {
  const { theme } = look;
  const cell = data.cell(row, position);
  const colour = cell ? shade(theme, share(cell, look.measure, data.facts.n_words)) : theme.plate;
  ctx.fillStyle = css(colour);
  ctx.fillRect(x, y, width - 1.5, ROW - 1.5);
  ctx.textAlign = "center";
  ctx.font = `12px ${theme.mono}`;
  if (!cell) {
    if (!data.has(position)) return;
    ctx.fillStyle = css(theme.ink3);
    ctx.fillText("\u2013", x + width / 2, y + ROW / 2);
    return;
  }
  const ink = inkOn(theme, colour);
  if (cell.isAnswer && !output) {
    ctx.strokeStyle = css(mix(colour, ink, 0.75));
    ctx.lineWidth = 1.5;
    ctx.strokeRect(x + 2, y + 2, width - 5.5, ROW - 5.5);
  }
  ctx.fillStyle = css(ink);
  ctx.fillText(fitText(ctx, data.word(cell.ids[0]!), width - 12), x + width / 2, y + ROW / 2);
}
