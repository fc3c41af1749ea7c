// Draws the overview, a layer's table, its load, and a token's way through the layers.
// In: data, layout, theme. Out: pixels. What was not chosen is paper, what was not computed a plain plate.
import { css, luminance, pixel, type Rgb } from "../shared/colour";
import { plural } from "../shared/format";
import type { Theme } from "../shared/theme";
import type { Choice, LayerFacts, Measure, StripData } from "./data";
import { columnAt, EVEN, type Layout, LOAD } from "./layout";

/** Place on the ramp of a weight just above 0, so that chosen never looks like not chosen. */
const LEAST = 26;

/** Colour of a share of the scale's end. */
export function shade(theme: Theme, share: number): Rgb {
  return theme.sequential[Math.round(LEAST + Math.max(0, Math.min(1, share)) * (255 - LEAST))]!;
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

export interface Look {
  readonly theme: Theme;
  readonly ratio: number;
  readonly measure: Measure;
  readonly layer: number | null;
  readonly token: number | null;
  /** Only this layer is shown. */
  readonly isolated: number | null;
}

export function paintOverview(
  canvas: HTMLCanvasElement,
  painter: CellPainter,
  data: StripData,
  layout: Layout,
  look: Look,
): void {
  const ctx = prepare(canvas, layout.width, layout.height, look.ratio);
  if (!ctx) return;
  const { theme } = look;
  ctx.fillStyle = css(theme.paper);
  ctx.fillRect(0, 0, layout.width, layout.height);
  data.facts.layers.forEach((layer, index) => {
    if (look.isolated !== null && look.isolated !== layer.layer) return;
    const { x, band } = columnAt(layout, index);
    const at = { x, y: band.names + 11, step: layout.cell + layout.gap, cell: layout.cell };
    name(ctx, data, layer, index - band.from, at, look);
    if (layer.used === 0) {
      withoutExperts(ctx, x, band.top, layout, theme);
      return;
    }
    painter.paint(ctx, data, layer, x, band.top, layout, look);
    unseen(ctx, data, layer, x, band.top, layout, theme);
    const part = layer.computed !== null && layer.computed !== undefined;
    const load = data.load(layer.layer);
    bars(
      ctx,
      load,
      x,
      layout.cell,
      band.load,
      LOAD,
      Math.max(...load),
      theme,
      part ? theme.line2 : theme.ink3,
    );
    const words = part ? plural(layer.computed!.length, "token") : (layer.evenness?.toFixed(2) ?? "\u2013");
    even(ctx, part ? null : (layer.evenness ?? null), words, x, layout.cell, band.even, theme);
  });
  for (const band of layout.bands) gutter(ctx, data, layout, band, look);
}

/** Writes a layer's name where it has room; the locked layer's always, and then no neighbour's over it. */
function name(
  ctx: CanvasRenderingContext2D,
  data: StripData,
  layer: LayerFacts,
  place: number,
  at: { x: number; y: number; step: number; cell: number },
  look: Look,
): void {
  const mine = layer.layer === look.layer;
  const every = at.step >= 26 ? 1 : at.step >= 14 ? 2 : Math.ceil(34 / at.step);
  const { layers } = data.facts;
  const index = layers.indexOf(layer);
  const near = layers
    .slice(Math.max(0, index - every + 1), index + every)
    .some((l) => l.layer === look.layer);
  if (!mine && (place % every !== 0 || near)) return;
  ctx.font = `${mine ? 600 : 400} ${at.cell >= 26 ? 11 : 10}px ${look.theme.sans}`;
  ctx.fillStyle = css(mine ? look.theme.accentText : look.theme.ink3);
  ctx.textAlign = "center";
  ctx.fillText(`L${layer.layer}`, at.x + at.cell / 2, at.y);
}

function withoutExperts(
  ctx: CanvasRenderingContext2D,
  x: number,
  top: number,
  layout: Layout,
  theme: Theme,
): void {
  const tall = layout.rows * layout.row;
  ctx.fillStyle = css(theme.plate);
  ctx.fillRect(x, top, layout.cell, tall);
  plateWords(ctx, "no experts", x, top, layout.cell, tall, theme);
}

/** Says of a layer's tallest run of rows without a computed token what they are. */
function unseen(
  ctx: CanvasRenderingContext2D,
  data: StripData,
  layer: LayerFacts,
  x: number,
  top: number,
  layout: Layout,
  theme: Theme,
): void {
  if (!layer.computed) return;
  const rows = layer.computed.map((token) => drawnRow(data, layout, token)).sort((a, b) => a - b);
  let [from, to] = [0, 0];
  [...rows, layout.rows].reduce((last, row) => {
    if (row - last > to - from) [from, to] = [last, row];
    return row + 1;
  }, 0);
  plateWords(ctx, "not computed", x, top + from * layout.row, layout.cell, (to - from) * layout.row, theme);
}

/** Words on a plain plate, upright where it is narrow. */
function plateWords(
  ctx: CanvasRenderingContext2D,
  words: string,
  x: number,
  y: number,
  width: number,
  tall: number,
  theme: Theme,
): void {
  if (width < 12 || tall < 18) return;
  ctx.save();
  ctx.translate(x + width / 2, y + tall / 2);
  if (width < 80 && tall > 80) ctx.rotate(-Math.PI / 2);
  ctx.font = `11px ${theme.sans}`;
  ctx.fillStyle = css(theme.ink3);
  ctx.textAlign = "center";
  if (width >= 80 || tall > 80) ctx.fillText(words, 0, 4);
  ctx.restore();
}

/** First and last row of the overview, exclusive, that a drawn row stands for. */
export function sourceRows(data: StripData, layout: Layout, drawn: number): [number, number] {
  const { rows } = data.facts;
  const first = Math.floor((drawn * rows) / layout.rows);
  return [first, Math.max(first + 1, Math.floor(((drawn + 1) * rows) / layout.rows))];
}

/** From this size on a cell is drawn with a line of paper after it. */
const LINED = 6;

/** Draws layers' cells, each from a picture of one pixel per cell that is kept until what it shows changes. */
export class CellPainter {
  private readonly kept = new Map<number, { key: string; image: HTMLCanvasElement }>();
  private data: StripData | null = null;
  private theme: Theme | null = null;
  private words: Uint32Array = new Uint32Array(0);

  paint(
    ctx: CanvasRenderingContext2D,
    data: StripData,
    layer: LayerFacts,
    x: number,
    top: number,
    layout: Layout,
    look: Look,
  ): void {
    if (data !== this.data || look.theme !== this.theme) this.forget(data, look.theme);
    const columns = look.measure === "experts" ? Math.min(data.facts.n_experts, layout.cell) : 1;
    const key = `${look.measure} ${columns} ${layout.rows}`;
    const found = this.kept.get(layer.layer);
    const image = found?.key === key ? found.image : this.draw(data, layer, columns, layout, look);
    if (!image) return;
    this.kept.set(layer.layer, { key, image });
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(image, x, top, layout.cell, layout.rows * layout.row);
    ctx.fillStyle = css(look.theme.paper);
    if (layout.row >= LINED)
      for (let r = 1; r <= layout.rows; r++) ctx.fillRect(x, top + r * layout.row - 1, layout.cell, 1);
    if (columns > 1 && layout.expert >= LINED)
      for (let e = 1; e < columns; e++)
        ctx.fillRect(x + e * layout.expert - 1, top, 1, layout.rows * layout.row);
  }

  private forget(data: StripData, theme: Theme): void {
    this.data = data;
    this.theme = theme;
    this.kept.clear();
    this.words = Uint32Array.from({ length: 256 }, (_, code) =>
      pixel(code === 0 ? theme.sequential[0]! : shade(theme, (code - 1) / 254)),
    );
  }

  private draw(
    data: StripData,
    layer: LayerFacts,
    columns: number,
    layout: Layout,
    look: Look,
  ): HTMLCanvasElement | null {
    const image = document.createElement("canvas");
    image.width = columns;
    image.height = layout.rows;
    const ctx = image.getContext("2d");
    if (!ctx) return null;
    const codes = codesOf(data, layer, columns, layout, look.measure);
    const pixels = ctx.createImageData(columns, layout.rows);
    const target = new Uint32Array(pixels.data.buffer);
    const [plain, unknown] = [pixel(look.theme.plate), pixel(look.theme.ink3)];
    for (let r = 0; r < layout.rows; r++) {
      const [first, stop] = sourceRows(data, layout, r);
      let computed = false;
      for (let row = first; row < stop && !computed; row++) computed = data.rowComputed(layer.layer, row);
      for (let c = 0; c < columns; c++) {
        const code = codes[r * columns + c]!;
        const word = code > 0 && !layer.weighted ? unknown : this.words[code]!;
        const nothing = !computed || (code === 0 && look.measure !== "experts");
        target[r * columns + c] = nothing ? plain : word;
      }
    }
    ctx.putImageData(pixels, 0, 0);
    return image;
  }
}

/** What the drawn cells of a layer hold, reduced by maximum: 0 = nothing, else 1 to 255. */
export function codesOf(
  data: StripData,
  layer: LayerFacts,
  columns: number,
  layout: Layout,
  measure: Measure,
): Uint8Array {
  const experts = data.facts.n_experts;
  const out = new Uint8Array(columns * layout.rows);
  const values = measure === "experts" ? null : data.measure(layer.layer, measure);
  const codes = data.codes(layer.layer);
  for (let r = 0; r < layout.rows; r++) {
    const [first, stop] = sourceRows(data, layout, r);
    for (let row = first; row < stop; row++) {
      if (values) {
        const value = measure === "weight" ? values[row]! / (data.facts.most || 1) : 1 - values[row]!;
        if (!Number.isNaN(value)) out[r] = Math.max(out[r]!, 1 + Math.round(Math.min(1, value) * 254));
        continue;
      }
      for (let e = 0; e < experts; e++) {
        const at = r * columns + Math.floor((e * columns) / experts);
        const code = codes[row * experts + e]!;
        if (code > out[at]!) out[at] = code;
      }
    }
  }
  return out;
}

/** One bar per expert up to `most`, and the line where all would end if the work were spread evenly. */
export function bars(
  ctx: CanvasRenderingContext2D,
  load: Float32Array,
  x: number,
  width: number,
  base: number,
  tall: number,
  most: number,
  theme: Theme,
  colour: Rgb,
  chosen: number | null = null,
): void {
  const n = load.length;
  const top = Math.max(most, 1 / n);
  ctx.fillStyle = css(theme.line);
  ctx.fillRect(x, base, width, 1);
  const each = width / n;
  load.forEach((share, e) => {
    const high = share > 0 ? Math.max(1, Math.round((share / top) * tall)) : 0;
    if (high === 0) return;
    const left = Math.floor(e * each);
    ctx.fillStyle = css(e === chosen ? theme.accent : colour);
    ctx.fillRect(
      x + left,
      base - high,
      Math.max(1, Math.floor((e + 1) * each) - left - (each >= 3 ? 1 : 0)),
      high,
    );
  });
  ctx.fillStyle = css(theme.ink);
  const y = base - Math.round(tall / n / top);
  for (let at = 0; at < width; at += 5) ctx.fillRect(x + at, y, Math.min(3, width - at), 1);
}

/** How even a layer's load is: full = spread evenly. */
function even(
  ctx: CanvasRenderingContext2D,
  value: number | null,
  words: string,
  x: number,
  width: number,
  base: number,
  theme: Theme,
): void {
  ctx.fillStyle = css(theme.plate);
  ctx.fillRect(x, base - EVEN, width, EVEN);
  ctx.font = `10px ${theme.sans}`;
  ctx.textAlign = "center";
  if (value !== null) {
    const high = Math.round(value * EVEN);
    ctx.fillStyle = css(theme.line2);
    ctx.fillRect(x, base - high, width, high);
  }
  if (width < 24) return;
  ctx.fillStyle = css(theme.ink);
  if (width >= words.length * 6) ctx.fillText(words, x + width / 2, base - 7);
}

function gutter(
  ctx: CanvasRenderingContext2D,
  data: StripData,
  layout: Layout,
  band: Layout["bands"][number],
  look: Look,
): void {
  const { theme } = look;
  const right = layout.gutter - 10;
  const every = Math.max(1, Math.ceil(11 / layout.row));
  const letters = Math.max(4, Math.floor((right - 2) / 7));
  const locked = look.token === null ? -1 : drawnRow(data, layout, look.token);
  ctx.textAlign = "right";
  for (let r = 0; r < layout.rows; r++) {
    const mine = r === locked;
    if (!mine && (r % every !== 0 || (locked >= 0 && Math.abs(r - locked) < every))) continue;
    const token = mine ? look.token! : data.span(sourceRows(data, layout, r)[0])[0];
    const word = data.facts.tokens[token] ?? "";
    const short = word.length > letters ? `${[...word].slice(0, letters - 1).join("")}\u2026` : word;
    ctx.font = `${mine ? 600 : 400} ${layout.row >= 14 ? 12 : 10}px ${theme.mono}`;
    ctx.fillStyle = css(mine ? theme.accentText : theme.ink2);
    ctx.fillText(short, right, band.top + r * layout.row + Math.min(layout.row, 14) / 2 + 4);
  }
  ctx.font = `600 11px ${theme.sans}`;
  ctx.fillStyle = css(theme.ink2);
  ctx.fillText("Load", right, band.load - LOAD + 12);
  ctx.fillText("Evenness", right, band.even - EVEN + 9);
  ctx.font = `10px ${theme.sans}`;
  ctx.fillStyle = css(theme.ink3);
  ctx.fillText(`even ${(1 / data.facts.n_experts).toFixed(3)}`, right, band.load - LOAD + 26);
  ctx.fillText("of the load", right, band.even);
}

/** The drawn row that a token stands in. */
export function drawnRow(data: StripData, layout: Layout, token: number): number {
  const row = data.rowOf(token);
  let at = Math.min(layout.rows - 1, Math.floor((row * layout.rows) / Math.max(1, data.facts.rows)));
  while (at + 1 < layout.rows && sourceRows(data, layout, at)[1] <= row) at++;
  return at;
}

/** A token's shares in every layer, stacked: the strongest expert at the bottom. */
export function paintWay(
  canvas: HTMLCanvasElement,
  data: StripData,
  token: number,
  width: number,
  look: Look,
): { x(index: number): number; step: number; tall: number } {
  const tall = 92;
  const n = data.facts.layers.length;
  const step = Math.max(2, Math.min(58, Math.floor(width / n)));
  const geometry = { x: (index: number) => index * step, step, tall };
  const ctx = prepare(canvas, Math.min(width, n * step), tall + 18, look.ratio);
  if (!ctx) return geometry;
  const { theme } = look;
  const gap = step >= 8 ? (step >= 20 ? 4 : 2) : 0;
  data.facts.layers.forEach((layer, index) => {
    const x = index * step;
    const choices = data.choices(layer.layer, token);
    ctx.fillStyle = css(theme.plate);
    ctx.fillRect(x, 0, step - gap, tall);
    if (choices) stack(ctx, choices, x, step - gap, tall, data.facts.most || 1, theme);
    const mine = layer.layer === look.layer;
    name(ctx, data, layer, index, { x, y: tall + 13, step, cell: step - gap }, look);
    if (!mine) return;
    ctx.strokeStyle = css(theme.accent);
    ctx.lineWidth = 2;
    ctx.strokeRect(x + 1, 1, Math.max(1, step - gap - 2), tall - 2);
  });
  return geometry;
}

function stack(
  ctx: CanvasRenderingContext2D,
  choices: readonly Choice[],
  x: number,
  width: number,
  tall: number,
  most: number,
  theme: Theme,
): void {
  let base = tall;
  choices.forEach((c, i) => {
    const share = Number.isNaN(c.share) ? 1 / choices.length : c.share;
    const high = i === choices.length - 1 ? base : Math.max(1, Math.round(share * tall));
    const colour = Number.isNaN(c.share) ? theme.ink3 : shade(theme, c.weight / most);
    ctx.fillStyle = css(colour);
    ctx.fillRect(x, base - high, width, high - (i === choices.length - 1 ? 0 : 1));
    if (high >= 13 && width >= 22) {
      ctx.font = `10px ${theme.sans}`;
      ctx.textAlign = "center";
      ctx.fillStyle = css(readable(colour, theme));
      ctx.fillText(`E${c.expert}`, x + width / 2, base - high / 2 + 4);
    }
    base -= high;
  });
}

/** Ink or paper, whichever stands out on a colour. */
export function readable(colour: Rgb, theme: Theme): Rgb {
  const between = (luminance(theme.ink) + luminance(theme.paper)) / 2;
  const light = luminance(colour) > Math.min(0.3, between);
  return light === luminance(theme.ink) > luminance(theme.paper) ? theme.paper : theme.ink;
}
